use holdfast_protocol::ids::UserName;
use proptest::prelude::*;

use super::*;

/// 2026-11-22 05:06:00 UTC.
const NOW: u64 = 1_795_323_960;

fn at(seconds: u64) -> Timestamp {
    Timestamp(i64::try_from(seconds).unwrap() * 1_000_000)
}

fn user(name: &str, disabled: bool) -> User {
    User {
        id: crate::model::user::UserId(1),
        name: UserName::new(name).unwrap(),
        email: None,
        roles: vec!["admin".to_owned()],
        disabled,
    }
}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Returns what `ssh-keygen -s ca -I id -z 7 -n alice -V …` makes: all permitted.
fn good() -> Claims {
    let permits = [
        "X11-forwarding",
        "agent-forwarding",
        "port-forwarding",
        "pty",
        "user-rc",
    ];
    Claims {
        kind: CertificateKind::User,
        authority: Prints {
            sha256: "SHA256:ca".to_owned(),
            sha1: "SHA1:ca".to_owned(),
        },
        signature: "ssh-ed25519".to_owned(),
        rsa_bits: None,
        serial: 7,
        key_id: "laptop".to_owned(),
        principals: vec!["alice@example.com".to_owned()],
        valid_after: NOW - 60,
        valid_before: NOW + 60,
        critical: BTreeMap::new(),
        extensions: permits
            .iter()
            .map(|name| (format!("permit-{name}"), String::new()))
            .collect(),
    }
}

fn judged(claims: &Claims, client: &str, now: u64) -> Result<Admission, CertificateDenied> {
    let users = [
        ("alice@example.com".to_owned(), user("alice", false)),
        ("ops".to_owned(), user("alice", false)),
        ("bob".to_owned(), user("bob", false)),
        ("eve".to_owned(), user("eve", true)),
    ];
    let named: Vec<_> = users
        .into_iter()
        .filter(|(name, _)| claims.principals.contains(name))
        .collect();
    let facts = CertificateFacts {
        claims,
        trusted: true,
        revoked: None,
        users: &named,
        client: client.parse().unwrap(),
    };
    judge(facts, at(now))
}

fn now(claims: &Claims) -> Result<Admission, CertificateDenied> {
    judged(claims, "203.0.113.9", NOW)
}

#[test]
fn a_good_certificate_is_its_user_with_all_that_it_permits() {
    let admission = now(&good()).unwrap();
    assert_eq!(admission.user, user("alice", false));
    assert_eq!(admission.principal, "alice@example.com");
    assert_eq!(admission.grant, CertGrant::EVERYTHING);
}

#[test]
fn trust_comes_before_all_else_and_anything_revoked_ends_it() {
    let claims = Claims {
        valid_before: 1,
        ..good()
    };
    let users = [("alice@example.com".to_owned(), user("alice", false))];
    let said = |claims: &Claims, trusted, revoked| {
        let client = "203.0.113.9".parse().unwrap();
        let facts = CertificateFacts {
            claims,
            trusted,
            revoked,
            users: &users,
            client,
        };
        (
            judge(facts, at(NOW)).map(drop),
            is_still_allowed(facts).map(drop),
        )
    };
    let both = |denied: CertificateDenied| (Err(denied.clone()), Err(denied));
    assert_eq!(
        said(&claims, false, None),
        both(CertificateDenied::Untrusted)
    );
    assert_eq!(
        said(&claims, false, Some(CertificateRevocations::Key)),
        both(CertificateDenied::Untrusted)
    );
    for (revoked, denied) in [
        (
            CertificateRevocations::Authority,
            CertificateDenied::AuthorityRevoked,
        ),
        (CertificateRevocations::Key, CertificateDenied::KeyRevoked),
        (
            CertificateRevocations::Certificate,
            CertificateDenied::CertificateRevoked,
        ),
    ] {
        assert_eq!(said(&good(), true, Some(revoked)), both(denied));
    }
    // A session outlives its certificate's dates.
    assert_eq!(
        said(&claims, true, None),
        (Err(CertificateDenied::Expired), Ok(()))
    );
}

#[test]
fn the_dates_hold_to_the_second() {
    let with = |valid_after, valid_before| Claims {
        valid_after,
        valid_before,
        ..good()
    };
    let table = [
        (with(NOW, NOW + 1), Ok(())),
        (with(NOW + 1, NOW + 2), Err(CertificateDenied::NotYet)),
        (with(NOW - 1, NOW), Err(CertificateDenied::Expired)),
        (with(0, u64::MAX), Ok(())),
        (with(0, u64::MAX - 1), Ok(())),
        (with(u64::MAX, u64::MAX), Err(CertificateDenied::NotYet)),
        (with(0, 0), Err(CertificateDenied::Expired)),
        // The maker of this one meant nothing by it.
        (with(NOW + 60, NOW - 60), Err(CertificateDenied::NotYet)),
    ];
    for (claims, expected) in table {
        assert_eq!(now(&claims).map(drop), expected, "{claims:?}");
    }
    // A clock before 1970 is the beginning of time, not its end.
    let users = [];
    let claims = good();
    let facts = CertificateFacts {
        claims: &claims,
        trusted: true,
        revoked: None,
        users: &users,
        client: "::1".parse().unwrap(),
    };
    assert_eq!(judge(facts, Timestamp(-1)), Err(CertificateDenied::NotYet));
}

#[test]
fn it_must_be_a_users_and_signed_with_something_that_holds() {
    assert_eq!(
        now(&Claims {
            kind: CertificateKind::Host,
            ..good()
        }),
        Err(CertificateDenied::Host)
    );
    for signature in SIGNATURES {
        let claims = Claims {
            signature: signature.to_owned(),
            ..good()
        };
        assert!(now(&claims).is_ok(), "{signature}");
    }
    for signature in [
        "ssh-rsa",
        "ssh-dss",
        "",
        "rsa-sha2-512-cert-v01@openssh.com",
        "new@x",
    ] {
        let claims = Claims {
            signature: signature.to_owned(),
            ..good()
        };
        assert_eq!(
            now(&claims),
            Err(CertificateDenied::Signature(signature.to_owned()))
        );
    }
    let rsa = |bits| {
        now(&Claims {
            rsa_bits: Some(bits),
            ..good()
        })
        .map(drop)
    };
    assert_eq!(rsa(MIN_RSA_BITS), Ok(()));
    assert_eq!(
        rsa(MIN_RSA_BITS - 1),
        Err(CertificateDenied::WeakRsa(MIN_RSA_BITS - 1))
    );
}

#[test]
fn principals_name_one_user() {
    let named = |principals: &[&str]| {
        let principals = principals.iter().map(ToString::to_string).collect();
        now(&Claims {
            principals,
            ..good()
        })
        .map(|admission| admission.principal)
    };
    let several = CertificateDenied::SeveralUsers("alice".to_owned(), "bob".to_owned());
    assert_eq!(named(&["alice@example.com"]).unwrap(), "alice@example.com");
    assert_eq!(named(&["absent", "ops"]).unwrap(), "ops");
    // Two names of one user are no question.
    assert_eq!(
        named(&["ops", "alice@example.com"]).unwrap(),
        "alice@example.com"
    );
    assert_eq!(named(&[]), Err(CertificateDenied::NoPrincipal));
    assert_eq!(named(&["absent"]), Err(CertificateDenied::NoUser));
    assert_eq!(
        named(&["alice"]),
        Err(CertificateDenied::NoUser),
        "a name is no principal by itself"
    );
    assert_eq!(named(&["OPS"]), Err(CertificateDenied::NoUser));
    assert_eq!(named(&["ops", "bob"]), Err(several));
    assert_eq!(
        named(&["eve"]),
        Err(CertificateDenied::Disabled("eve".to_owned()))
    );
    let many = vec!["ops"; MAX_CERTIFICATE_PRINCIPALS + 1];
    assert_eq!(
        named(&many),
        Err(CertificateDenied::TooManyPrincipals(many.len()))
    );
    assert!(named(&many[1..]).is_ok());
}

#[test]
fn principals_of_others_in_the_facts_prove_nothing() {
    let claims = good();
    let users = [("bob".to_owned(), user("bob", false))];
    let facts = CertificateFacts {
        claims: &claims,
        trusted: true,
        revoked: None,
        users: &users,
        client: "203.0.113.9".parse().unwrap(),
    };
    assert_eq!(judge(facts, at(NOW)), Err(CertificateDenied::NoUser));
}

#[test]
fn the_source_must_be_among_the_networks() {
    let from = |list: &str, client: &str| {
        let critical = options(&[("source-address", list)]);
        judged(&Claims { critical, ..good() }, client, NOW).map(drop)
    };
    let elsewhere = |client: &str| Err(CertificateDenied::Source(client.parse().unwrap()));
    let unclear = || Err(CertificateDenied::OptionValue("source-address".to_owned()));
    let table = [
        ("203.0.113.0/24", "203.0.113.9", Ok(())),
        ("203.0.113.9", "203.0.113.9", Ok(())),
        ("10.0.0.0/8,203.0.113.8/29", "203.0.113.9", Ok(())),
        ("0.0.0.0/0", "203.0.113.9", Ok(())),
        ("203.0.113.0/24", "203.0.114.9", elsewhere("203.0.114.9")),
        ("203.0.113.0/24", "::ffff:203.0.113.9", Ok(())),
        (
            "203.0.113.0/24",
            "::ffff:203.0.114.9",
            elsewhere("203.0.114.9"),
        ),
        ("203.0.113.0/24", "2001:db8::9", elsewhere("2001:db8::9")),
        ("2001:db8::/32", "2001:db8::9", Ok(())),
        ("2001:db8::9", "2001:db8::9", Ok(())),
        ("2001:db8::/32", "2001:db9::9", elsewhere("2001:db9::9")),
        ("::/0", "203.0.113.9", elsewhere("203.0.113.9")),
        // What OpenSSH takes for no list is none here.
        ("203.0.113.9/24", "203.0.113.9", unclear()),
        ("", "203.0.113.9", unclear()),
        ("203.0.113.0/24,", "203.0.113.9", unclear()),
        ("203.0.113.0/24, 10.0.0.0/8", "203.0.113.9", unclear()),
        ("203.0.113.0/33", "203.0.113.9", unclear()),
        ("!203.0.113.0/24", "203.0.113.9", unclear()),
        ("203.0.113.*", "203.0.113.9", unclear()),
        ("example.com", "203.0.113.9", unclear()),
    ];
    for (list, client, expected) in table {
        assert_eq!(from(list, client), expected, "{list} {client}");
    }
}

#[test]
fn a_forced_command_is_a_command_or_sftp() {
    let forced = |value: &str| {
        let critical = options(&[("force-command", value)]);
        now(&Claims { critical, ..good() }).map(|admission| admission.grant.force)
    };
    let command = |text: &str| Ok(Some(Forced::Command(text.to_owned())));
    let unclear = || Err(CertificateDenied::OptionValue("force-command".to_owned()));
    assert_eq!(forced("uptime -p"), command("uptime -p"));
    assert_eq!(forced("internal-sftp"), Ok(Some(Forced::Sftp)));
    assert_eq!(forced("internal-sftp-x"), command("internal-sftp-x"));
    assert_eq!(forced("internal-sftp -R"), unclear());
    assert_eq!(forced("internal-sftp\t-R"), unclear());
    assert_eq!(forced(""), unclear());
    assert_eq!(forced("a\0b"), unclear());
    assert_eq!(forced(&"x".repeat(MAX_COMMAND + 1)), unclear());
}

#[test]
fn an_option_that_is_not_enforced_is_refused() {
    let with = |name: &str, value: &str| {
        now(&Claims {
            critical: options(&[(name, value)]),
            ..good()
        })
        .map(drop)
    };
    assert_eq!(
        with("verify-required", ""),
        Err(CertificateDenied::VerifyRequired)
    );
    for name in [
        "foo@x",
        "permit-pty",
        "Force-Command",
        "",
        "no-touch-required",
    ] {
        assert_eq!(
            with(name, "1"),
            Err(CertificateDenied::UnknownOption(name.to_owned()))
        );
    }
}

#[test]
fn what_is_not_permitted_is_not() {
    let with = |pairs: &[(&str, &str)]| {
        now(&Claims {
            extensions: options(pairs),
            ..good()
        })
        .map(|admission| admission.grant)
    };
    let nothing = CertGrant {
        force: None,
        pty: false,
        agent_forwarding: false,
        port_forwarding: false,
        x11_forwarding: false,
        user_rc: false,
    };
    assert_eq!(with(&[]), Ok(nothing.clone()));
    assert_eq!(
        with(&[("login@github.com", "alice"), ("no-touch-required", "")]),
        Ok(nothing.clone())
    );
    let table = [
        (
            "permit-pty",
            CertGrant {
                pty: true,
                ..nothing.clone()
            },
        ),
        (
            "permit-agent-forwarding",
            CertGrant {
                agent_forwarding: true,
                ..nothing.clone()
            },
        ),
        (
            "permit-port-forwarding",
            CertGrant {
                port_forwarding: true,
                ..nothing.clone()
            },
        ),
        (
            "permit-X11-forwarding",
            CertGrant {
                x11_forwarding: true,
                ..nothing.clone()
            },
        ),
        (
            "permit-user-rc",
            CertGrant {
                user_rc: true,
                ..nothing.clone()
            },
        ),
        ("permit-x11-forwarding", nothing),
    ];
    for (name, grant) in table {
        assert_eq!(with(&[(name, "")]), Ok(grant), "{name}");
    }
    let odd = CertificateDenied::OptionValue("permit-pty".to_owned());
    assert_eq!(with(&[("permit-pty", "no")]), Err(odd));
}

#[test]
fn a_reason_cannot_drive_a_terminal() {
    for denied in [
        CertificateDenied::UnknownOption("a\u{1b}[2J\r\n".to_owned()),
        CertificateDenied::Signature("a\u{1b}[2J\r\n".to_owned()),
        CertificateDenied::OptionValue("a\u{1b}[2J\r\n".to_owned()),
    ] {
        assert!(
            !denied.to_string().chars().any(char::is_control),
            "{denied:?}"
        );
    }
}

/// Returns the same rules, written one by one: if anything is wrong, the user is not admitted.
fn model(claims: &Claims, trusted: bool, revoked: bool, client: IpAddr) -> bool {
    let known = ["force-command", "source-address"];
    let from = match claims.critical.get("source-address").map(String::as_str) {
        None => true,
        Some("10.0.0.0/8") => matches!(client, IpAddr::V4(ip) if ip.octets()[0] == 10),
        Some(_) => false,
    };
    trusted
        && !revoked
        && claims.kind == CertificateKind::User
        && claims.signature != "ssh-rsa"
        && claims.valid_after <= NOW
        && NOW < claims.valid_before
        && claims.principals.iter().any(|name| name == "ops")
        && claims
            .critical
            .keys()
            .all(|name| known.contains(&name.as_str()))
        && claims
            .critical
            .get("force-command")
            .is_none_or(|command| !command.is_empty() && !command.contains('\0'))
        && from
}

proptest! {
    #[test]
    fn the_rules_are_those_of_the_model(
        host: bool,
        weak: bool,
        trusted in prop::bool::weighted(0.8),
        revoked in prop::bool::weighted(0.2),
        after in NOW - 2..NOW + 2,
        before in NOW - 1..NOW + 5,
        principals in prop::collection::vec("ops|root", 0..3),
        critical in prop::collection::btree_map(
            "force-command|source-address|verify-required|x@y",
            prop::sample::select(vec!["", "10.0.0.0/8", "ls", "l\0s"]).prop_map(str::to_owned),
            0..2),
        ten: bool,
    ) {
        let claims = Claims {
            kind: if host { CertificateKind::Host } else { CertificateKind::User },
            signature: if weak { "ssh-rsa" } else { "rsa-sha2-256" }.to_owned(),
            valid_after: after,
            valid_before: before,
            principals,
            critical,
            ..good()
        };
        let client: IpAddr = if ten { "10.1.2.3" } else { "11.1.2.3" }.parse().unwrap();
        let users = [("ops".to_owned(), user("alice", false))];
        let revocation = revoked.then_some(CertificateRevocations::Key);
        let facts = CertificateFacts { claims: &claims, trusted, revoked: revocation, users: &users, client };
        let admitted = judge(facts, at(NOW)).is_ok();
        prop_assert_eq!(admitted, model(&claims, trusted, revoked, client));
    }

    #[test]
    fn no_source_list_panics(list in "\\PC{0,40}", client: std::net::Ipv6Addr) {
        let critical = options(&[("source-address", &list)]);
        let claims = Claims { critical, ..good() };
        let users = [("alice@example.com".to_owned(), user("alice", false))];
        let client = IpAddr::V6(client);
        let facts = CertificateFacts { claims: &claims, trusted: true, revoked: None, users: &users, client };
        let _ = judge(facts, at(NOW));
    }
}

#[test]
fn forced_command_runs_and_the_original_is_logged() {
    let force = |force| CertGrant {
        force,
        ..CertGrant::EVERYTHING
    };
    let (none, sftp) = (force(None), force(Some(Forced::Sftp)));
    let command = force(Some(Forced::Command("backup --all".to_owned())));
    let exec = |line: &str| ProcessRequest::Exec(line.into());
    let subsystem = |name: &str| ProcessRequest::Subsystem(name.to_owned());
    let longest = "x".repeat(MAX_ORIGINAL_COMMAND);
    let longer = longest.clone() + "x";
    // What the certificate forces, what is asked for, what runs, and what was asked for instead.
    let table = [
        (&none, ProcessRequest::Shell, ProcessRequest::Shell, None),
        (&none, exec("id"), exec("id"), None),
        (&none, exec(&longer), exec(&longer), None),
        (&none, subsystem("sftp"), subsystem("sftp"), None),
        (&command, ProcessRequest::Shell, exec("backup --all"), None),
        (&command, exec("id"), exec("backup --all"), Some("id")),
        (&command, exec(""), exec("backup --all"), Some("")),
        (
            &command,
            exec(&longest),
            exec("backup --all"),
            Some(&longest),
        ),
        (
            &command,
            subsystem("sftp"),
            exec("backup --all"),
            Some("internal-sftp"),
        ),
        (
            &command,
            subsystem("netconf"),
            exec("backup --all"),
            Some("netconf"),
        ),
        (&sftp, ProcessRequest::Shell, subsystem("sftp"), None),
        (&sftp, exec("id"), subsystem("sftp"), Some("id")),
        (
            &sftp,
            subsystem("sftp"),
            subsystem("sftp"),
            Some("internal-sftp"),
        ),
    ];
    for (grant, asked, runs, original) in table {
        let original = original.map(|line: &str| line.as_bytes().to_vec());
        let shown = format!("{:?} {asked:?}", grant.force);
        assert_eq!(grant.enforce(asked), Some((runs, original)), "{shown}");
    }
    for grant in [&command, &sftp] {
        assert_eq!(grant.enforce(exec(&longer)), None);
    }
}
