use super::*;
use alloc::string::ToString as _;
use alloc::vec;
use proptest::prelude::*;

fn rule(text: &str) -> AddressRule {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn address(text: &str) -> SocketAddr {
    canonical(text.parse().unwrap())
}

#[test]
fn a_rule_hits_what_it_says_and_nothing_else() {
    // rule, asked name, address, hit
    let table = [
        ("10.0.0.0/8:80", "x", "10.1.2.3:80", true),
        ("10.0.0.0/8:80", "x", "10.1.2.3:81", false),
        ("10.0.0.0/8:80", "x", "11.1.2.3:80", false),
        ("10.0.0.0/8:80", "x", "[::ffff:10.1.2.3]:80", true),
        ("10.0.0.0/8:80", "x", "[::10.1.2.3]:80", false),
        ("0.0.0.0/0:*", "x", "10.1.2.3:1", true),
        ("0.0.0.0/0:*", "x", "[2001:db8::1]:1", false),
        ("[::/0]:*", "x", "[2001:db8::1]:1", true),
        ("[::/0]:*", "x", "10.1.2.3:1", false),
        ("[::/0]:*", "x", "[::ffff:10.1.2.3]:1", false),
        (
            "[2001:db8::/32]:8000-8100",
            "x",
            "[2001:db8:1::1]:8100",
            true,
        ),
        (
            "[2001:db8::/32]:8000-8100",
            "x",
            "[2001:db8:1::1]:8101",
            false,
        ),
        (
            "[2001:db8::/32]:8000-8100",
            "x",
            "[2001:db9::1]:8000",
            false,
        ),
        ("192.0.2.7:22", "x", "192.0.2.7:22", true),
        ("192.0.2.7:22", "x", "192.0.2.6:22", false),
        ("localhost:*", "x", "127.0.0.1:9", true),
        ("localhost:*", "x", "127.8.8.8:9", true),
        ("localhost:*", "x", "[::1]:9", true),
        ("localhost:*", "x", "[::ffff:127.0.0.1]:9", true),
        ("localhost:*", "x", "0.0.0.0:9", true),
        ("localhost:*", "x", "[::]:9", true),
        ("localhost:*", "x", "[::ffff:0.0.0.0]:9", true),
        ("localhost:*", "localhost", "192.0.2.7:9", false),
        ("127.0.0.0/8:*", "x", "0.0.0.0:9", true),
        ("[::1]:*", "x", "[::]:9", true),
        ("[::1]:*", "x", "127.0.0.1:9", false),
        ("*:443", "x", "[::1]:443", true),
        ("*:443", "x", "192.0.2.7:444", false),
        ("db.local:5432", "DB.local.", "192.0.2.7:5432", true),
        ("db.local:5432", "xdb.local", "192.0.2.7:5432", false),
        ("db.local:5432", "192.0.2.7", "192.0.2.7:5432", false),
        // A name that leads back to the device, or to the link's own services, is not what was meant.
        ("db.local:5432", "db.local", "127.0.0.1:5432", false),
        ("db.local:5432", "db.local", "0.0.0.0:5432", false),
        ("db.local:5432", "db.local", "[::1]:5432", false),
        ("db.local:5432", "db.local", "169.254.169.254:5432", false),
        ("db.local:5432", "db.local", "[fe80::1]:5432", false),
        (
            "db.local:5432",
            "db.local",
            "[::ffff:127.0.0.1]:5432",
            false,
        ),
        ("*.local:443", "cam.local", "192.0.2.7:443", true),
        ("*.local:443", "a.CAM.Local.", "192.0.2.7:443", true),
        ("*.local:443", "local", "192.0.2.7:443", false),
        ("*.local:443", ".local", "192.0.2.7:443", false),
        ("*.local:443", "camlocal", "192.0.2.7:443", false),
        ("*.local:443", "cam.local.evil", "192.0.2.7:443", false),
        ("*.local:443", "cam.local", "127.0.0.1:443", false),
    ];
    for (text, name, to, hit) in table {
        let said = rule(text).matches(name, address(to), false);
        assert_eq!(said, hit, "{text} on {name:?} at {to}");
    }
}

#[test]
fn deny_beats_allow_and_nothing_said_is_anywhere() {
    let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect::<Vec<_>>();
    let to = |text: &str| address(text);
    let anywhere = AddressPolicy::default();
    assert!(anywhere.permits("x", to("127.0.0.1:1"), false));
    let nowhere = AddressPolicy {
        allow: Some(vec![]),
        deny: vec![],
    };
    assert!(!nowhere.permits("x", to("127.0.0.1:1"), false));
    let some = AddressPolicy {
        allow: Some(rules(&["10.0.0.0/8:*", "localhost:80"])),
        deny: rules(&["10.9.0.0/16:*"]),
    };
    assert!(some.permits("x", to("10.8.0.1:5"), false));
    assert!(some.permits("x", to("[::1]:80"), false));
    assert!(!some.permits("x", to("[::1]:81"), false));
    assert!(!some.permits("x", to("10.9.0.1:5"), false));
    assert!(!some.permits("x", to("[::ffff:10.9.0.1]:5"), false));
    let but = AddressPolicy {
        allow: None,
        deny: rules(&["localhost:*"]),
    };
    assert!(but.permits("x", to("10.9.0.1:5"), false));
    for itself in ["127.1.1.1:5", "[::1]:5", "0.0.0.0:5", "[::]:5"] {
        assert!(!but.permits("x", to(itself), false), "{itself}");
    }
}

#[test]
fn own_address_is_localhost_for_names_and_denials() {
    let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect::<Vec<_>>();
    let permits = |allow: &[&str], deny: &[&str], to: &str, is_own: bool| {
        let policy = AddressPolicy {
            allow: Some(rules(allow)),
            deny: rules(deny),
        };
        policy.permits("db.local", address(to), is_own)
    };
    // allow, deny, to, permitted elsewhere, permitted on the device's own address
    let lan = "192.0.2.2:80";
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a str, bool, bool);
    let table: [Case<'_>; 8] = [
        (&["db.local:*"], &[], lan, true, false),
        (&["*.local:*"], &[], lan, true, false),
        (&["*.local:*"], &[], "[2001:db8::2]:80", true, false),
        (&["*:*"], &["localhost:*"], lan, true, false),
        (
            &["*:*"],
            &["localhost:*"],
            "[::ffff:192.0.2.2]:80",
            true,
            false,
        ),
        (&["*:*"], &["localhost:81"], lan, true, true),
        // Who names the address means it.
        (&["192.0.2.2:80"], &[], lan, true, true),
        (&["localhost:*"], &[], lan, false, false),
    ];
    for (allow, deny, to, elsewhere, own) in table {
        assert_eq!(
            permits(allow, deny, to, false),
            elsewhere,
            "{allow:?} {deny:?} {to}"
        );
        assert_eq!(
            permits(allow, deny, to, true),
            own,
            "own: {allow:?} {deny:?} {to}"
        );
    }
}

#[test]
fn all_addresses_are_listened_on_where_all_are_named() {
    let may = |allow: &[&str], deny: &[&str], at: &str| {
        let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect::<Vec<_>>();
        let policy = AddressPolicy {
            allow: Some(rules(allow)),
            deny: rules(deny),
        };
        policy.permits_listening("", canonical_to_listen(at.parse().unwrap()))
    };
    for all in ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80"] {
        assert!(may(&["*:80"], &[], all), "{all}");
        assert!(!may(&["*:81"], &[], all), "{all}");
        assert!(
            !may(&["localhost:*", "10.0.0.0/8:*", "0.0.0.0/0:*"], &[], all),
            "{all}"
        );
        assert!(!may(&["*:*"], &["10.0.0.0/8:80"], all), "{all}");
        assert!(may(&["*:*"], &["10.0.0.0/8:81"], all), "{all}");
    }
    assert!(may(&["localhost:*"], &[], "127.0.0.1:80"));
    assert!(may(&["localhost:*"], &[], "[::ffff:127.0.0.1]:80"));
    assert!(!may(&["localhost:*"], &[], "10.0.0.1:80"));
    assert!(may(&["10.0.0.1:80"], &[], "10.0.0.1:80"));
}

#[test]
fn what_means_nothing_is_no_rule() {
    let table = [
        ("", RuleError::NoPort),
        ("10.0.0.1", RuleError::NoPort),
        ("10.0.0.1:", RuleError::Ports),
        ("10.0.0.1:0", RuleError::Ports),
        ("10.0.0.1:65536", RuleError::Ports),
        ("10.0.0.1:90-80", RuleError::Ports),
        ("10.0.0.1:+80", RuleError::Ports),
        ("10.0.0.1:http", RuleError::Ports),
        (":80", RuleError::Host),
        ("10.0.0.0/33:80", RuleError::Host),
        ("10.0.0.0/:80", RuleError::Host),
        ("10.0.0.1/8:80", RuleError::Beyond),
        ("[fd00::1/8]:80", RuleError::Beyond),
        ("fd00::/8:80", RuleError::Brackets),
        ("::1:80", RuleError::Brackets),
        ("[10.0.0.0/8]:80", RuleError::Host),
        ("[::ffff:10.0.0.0/104]:80", RuleError::Mapped),
        ("[db.local]:80", RuleError::Host),
        ("10.1:80", RuleError::Host),
        ("0x7f.1:80", RuleError::Host),
        ("2130706433:80", RuleError::Host),
        ("*.*:80", RuleError::Host),
        ("db..local:80", RuleError::Host),
        ("db local:80", RuleError::Host),
        ("*local:80", RuleError::Host),
        ("d\u{e4}b:80", RuleError::Host),
    ];
    for (text, why) in table {
        assert_eq!(text.parse::<AddressRule>(), Err(why), "{text}");
    }
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from_bits(bits).to_ipv6_mapped())),
    ]
}

fn bits_of(ip: IpAddr) -> Vec<bool> {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let bit = |octet: u8| (0..8).map(move |at| octet >> (7 - at) & 1 == 1);
    octets.into_iter().flat_map(bit).collect()
}

proptest! {
    /// Compares with a check of single bits.
    #[test]
    fn a_network_holds_what_shares_its_bits(network in any_ip(), other in any_ip(), prefix: u8, same: bool) {
        let address = if same { network } else { other };
        let (ours, theirs) = (bits_of(network), bits_of(address));
        let expected = ours.len() == theirs.len()
            && usize::from(prefix) <= ours.len()
            && ours.iter().zip(&theirs).take(prefix.into()).all(|(a, b)| a == b);
        prop_assert_eq!(HostRule::Network { address: network, prefix }.matches("", address, false), expected);
    }

    /// Checks that all spellings of an address are judged alike.
    #[test]
    fn all_spellings_of_an_address_are_one(bits: u32, port: u16, prefix in 0_u8..=32, base: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let plain = canonical(SocketAddr::from((v4, port)));
        let mapped = canonical(SocketAddr::from((v4.to_ipv6_mapped(), port)));
        prop_assert_eq!(plain, mapped);
        prop_assert_eq!(canonical(plain), plain);
        prop_assert!(!plain.ip().is_unspecified());
        let rule = HostRule::Network { address: Ipv4Addr::from_bits(base).into(), prefix };
        prop_assert_eq!(rule.matches("", plain.ip(), false), rule.matches("", mapped.ip(), false));
    }

    #[test]
    fn a_rule_is_read_as_it_is_written(
        text in "(\\*|localhost|10\\.0\\.0\\.0/8|192\\.0\\.2\\.7|\\[::1\\]|\\[fd00::/8\\]|[a-z][a-z0-9-]{0,9}\\.local|\\*\\.local):(\\*|[1-9][0-9]{0,3}|1-[1-9][0-9]{0,3})"
    ) {
        let read = rule(&text);
        prop_assert_eq!(&rule(&read.to_string()), &read);
    }

    #[test]
    fn no_text_panics_the_reader(text: String, close in "[\\[\\]*:./a0-9-]{0,24}") {
        let _ = text.parse::<AddressRule>();
        if let Ok(read) = close.parse::<AddressRule>() {
            prop_assert_eq!(rule(&read.to_string()), read);
        }
    }
}
