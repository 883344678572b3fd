//! Flags and files become a configuration, or an error that names the place.

use std::io::Write as _;
use std::path::Path;

use super::*;
use crate::audit::{SinkOutput, WhenUnwritable};
use crate::config::limits::{MAX_PENALTY_EXEMPT, MAX_PROXY_PROTOCOL};
use crate::recording::objects::backend::StorageBackend;
use crate::recording::objects::budget::Bounds;

fn load(toml: &str) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let flags = Flags {
        config: Some(file.path().to_owned()),
        ..Flags::default()
    };
    Config::load(flags).map_err(|error| {
        error
            .to_string()
            .replace(&file.path().display().to_string(), "FILE")
    })
}

#[test]
fn flags_beat_the_file_and_the_file_beats_the_defaults() {
    let config = Config::load(Flags::default()).unwrap();
    assert_eq!(config.ssh.to_string(), "0.0.0.0:2222");
    assert_eq!(config.tunnel.to_string(), "0.0.0.0:4433");
    assert_eq!(config.state, Path::new(DEFAULT_STATE));

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"ssh = \"127.0.0.1:1\"\ntunnel = \"127.0.0.1:2\"\ndrain_grace = \"1m\"\nlogin_grace = \"2s\"\npublic = \"relay:99\"\n")
        .unwrap();
    let config = Config::load(Flags {
        config: Some(file.path().to_owned()),
        ssh: Some("[::1]:0".parse().unwrap()),
        ..Flags::default()
    })
    .unwrap();
    assert_eq!(config.ssh.to_string(), "[::1]:0");
    assert_eq!(config.tunnel.to_string(), "127.0.0.1:2");
    assert_eq!(config.drain_grace, Duration::from_secs(60));
    assert_eq!(config.login_grace, Duration::from_secs(2));
    assert_eq!(config.public, "relay:99".parse().ok());
}

#[test]
fn exempt_networks_are_checked() {
    let exempt = |networks: &str| load(&format!("penalty_exempt = {networks}\n"));
    assert_eq!(load("").unwrap().penalty_exempt, []);
    let config = exempt("[\"203.0.113.0/24\", \"192.0.2.7\", \"2001:db8::/48\"]").unwrap();
    let shown = config.penalty_exempt.iter().map(ToString::to_string);
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, ["203.0.113.0/24", "192.0.2.7/32", "2001:db8::/48"]);
    let many = format!("[{}]", "\"192.0.2.7\",".repeat(MAX_PENALTY_EXEMPT + 1));
    for (networks, problem) in [
        ("[\"the office\"]", "is not an address or network"),
        ("[\"2001:db8::1\"]", "is longer than a /64"),
        (
            "[\"10.0.0.1/8\"]",
            "\"10.0.0.1/8\" has bits beyond its prefix: write 10.0.0.0/8",
        ),
        (&many, "has 257 networks; the maximum is 256"),
    ] {
        let error = exempt(networks).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn networks_of_balancers_are_checked() {
    let of = |networks: &str| load(&format!("proxy_protocol = {networks}\n"));
    assert_eq!(load("").unwrap().proxy_protocol, []);
    let config = of("[\"10.0.0.0/8\", \"192.0.2.7\", \"2001:db8::7\"]").unwrap();
    let shown = config.proxy_protocol.iter().map(ToString::to_string);
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::7/128"]);
    let many = format!("[{}]", "\"192.0.2.7\",".repeat(MAX_PROXY_PROTOCOL + 1));
    for (networks, problem) in [
        (
            "[\"lb.example.com\"]",
            "proxy_protocol: \"lb.example.com\" is not an address or network",
        ),
        (
            "[\"10.0.0.1/8\"]",
            "proxy_protocol: \"10.0.0.1/8\" has bits beyond its prefix",
        ),
        (&many, "proxy_protocol has 257 networks; the maximum is 256"),
        ("\"10.0.0.0/8\"", "expected a sequence"),
    ] {
        let error = of(networks).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn health_checks_have_an_address_or_none() {
    assert_eq!(load("").unwrap().health, None);
    let config = load("[health]\nlisten = \"127.0.0.1:9470\"\n").unwrap();
    assert_eq!(config.health, "127.0.0.1:9470".parse().ok());
    for (text, problem) in [
        ("", "missing field `listen`"),
        ("listen = 9470", "expected a string"),
        (
            "listen = \"localhost:9470\"",
            "expected IP:PORT, as in 127.0.0.1:9470",
        ),
        (
            "listen = \"127.0.0.1:9470\"\npath = \"/\"",
            "unknown field `path`",
        ),
    ] {
        let error = load(&format!("[health]\n{text}\n")).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn what_is_done_with_clones_is_one_of_two_words() {
    use crate::tunnel::clones::OnClone;
    assert_eq!(load("").unwrap().on_clone, OnClone::Newest);
    let config = load("on_clone = \"first\"\n").unwrap();
    assert_eq!(config.on_clone, OnClone::First);
    let error = load("on_clone = \"second\"\n").unwrap_err();
    assert!(
        error.contains("expected \"newest\" or \"first\""),
        "{error}"
    );
}

#[test]
fn what_the_loss_of_the_store_does_is_one_of_two_words() {
    use crate::fence::OnStoreLoss;
    assert_eq!(load("").unwrap().on_store_loss, OnStoreLoss::Freeze);
    let config = load("[cluster]\non_store_loss = \"continue\"\n").unwrap();
    assert_eq!(config.on_store_loss, OnStoreLoss::Continue);
    let error = load("[cluster]\non_store_loss = \"end\"\n").unwrap_err();
    assert!(
        error.contains("expected \"freeze\" or \"continue\""),
        "{error}"
    );
}

#[test]
fn the_audit_log_has_a_section_of_its_own() {
    let config = load("").unwrap();
    assert_eq!(config.audit.output, None);
    assert_eq!(config.audit.when_unwritable, WhenUnwritable::Refuse);
    assert_eq!(config.audit.keep, Some(DEFAULT_AUDIT_KEEP));
    let text = "[audit]\nfile = \"/var/log/holdfast.jsonl\"\nwhen_unwritable = \"continue\"\nkeep = \"30d\"\n";
    let config = load(text).unwrap();
    assert_eq!(
        config.audit.output,
        Some(SinkOutput::File("/var/log/holdfast.jsonl".into()))
    );
    assert_eq!(config.audit.when_unwritable, WhenUnwritable::Continue);
    assert_eq!(config.audit.keep, Some(Duration::from_secs(30 * 86_400)));
    let config = load("[audit]\nfile = \"stdout\"\nkeep = \"forever\"\n").unwrap();
    assert_eq!(config.audit.output, Some(SinkOutput::Stdout));
    assert_eq!(config.audit.keep, None);
    let error = load("[audit]\nkeep = 400\n").unwrap_err();
    assert!(error.contains("expected a span, as in \"400d\""), "{error}");
    for bad in [
        "when_unwritable = \"maybe\"",
        "keep = \"0s\"",
        "keep = \"long\"",
        "files = \"x\"",
    ] {
        let error = load(&format!("[audit]\n{bad}\n")).unwrap_err();
        assert!(error.starts_with("FILE: line 2: "), "{error}");
    }
}

#[test]
fn sections_are_tables_and_no_lists() {
    for (section, list) in [
        ("audit", "[]"),
        ("audit", "[\"/var/log/holdfast.jsonl\"]"),
        ("recordings", "[]"),
        ("recordings", "[\"1d\"]"),
        ("health", "[\"127.0.0.1:9470\"]"),
    ] {
        let error = load(&format!("{section} = {list}\n")).unwrap_err();
        let expected = format!("invalid type: sequence, expected the table [{section}]");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn recordings_lie_in_the_folder_or_in_a_bucket() {
    assert_eq!(load("").unwrap().recordings.place, StorageBackend::Folder);
    let text = "[recordings]\nstore = \"s3\"\nbucket = \"tapes\"\nendpoint = \"https://s3.example.com\"\ncredentials = \"/etc/keys\"\n";
    let StorageBackend::S3(bucket) = load(text).unwrap().recordings.place else {
        panic!("no bucket")
    };
    assert_eq!(bucket.bucket, "tapes");
    assert_eq!(bucket.credentials, Some("/etc/keys".into()));
    for (bad, why) in [
        ("store = \"s3\"", "needs `bucket"),
        ("bucket = \"tapes\"", "need `store"),
        ("store = \"tape\"", "line 2: unknown variant `tape`"),
        // Nothing secret belongs into a file that is shown to people.
        ("secret_access_key = \"x\"", "line 2: unknown field"),
    ] {
        let error = load(&format!("[recordings]\n{bad}\n")).unwrap_err();
        assert!(error.contains(why) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn addresses_and_spans_are_refused_with_what_was_expected() {
    for (bad, expected) in [
        ("ssh = \"x\"", "expected IP:PORT, as in 0.0.0.0:2222"),
        ("tunnel = \"x\"", "expected IP:PORT, as in 0.0.0.0:4433"),
        ("drain_grace = 5", "expected a span, as in \"15m\""),
        ("[recordings]\nmax = 5", "expected a size, as in \"64 GiB\""),
    ] {
        let error = load(bad).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_error_about_a_value_quotes_its_line() {
    for (bad, quoted) in [
        ("drain_grace = \"5\"", "; it has `drain_grace = \"5\"`"),
        ("  ssh = \"x\" # mine", "; it has `ssh = \"x\"`"),
        ("[audit]\nkeep = 400", "; it has `keep = 400`"),
    ] {
        let error = load(bad).unwrap_err();
        assert!(error.ends_with(quoted), "{error}");
    }
    let long = load(&format!("drain_grace = \"{}\"", "x".repeat(1_000))).unwrap_err();
    assert!(long.len() < 400, "{long}");
    // An address of a database may hold a password.
    for address in [
        "\"mysql://hf:s3cret@db/x\"",
        "\"postgres://hf:s3cret",
        "[\"s3cret\"]",
        "s3cret",
    ] {
        for key in ["database", "\"database\"", "database "] {
            let error = load(&format!("{key}= {address}")).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
            assert!(error.contains("line 1: "), "{error}");
        }
    }
    // Of an unknown field the value may be a secret.
    let unknown = load("secret = \"x\"").unwrap_err();
    assert!(!unknown.contains("it has"), "{unknown}");
}

#[test]
fn time_to_log_in_is_bounded() {
    for (span, seconds) in [("1s", 1), ("10m", 600)] {
        let config = load(&format!("login_grace = \"{span}\"")).unwrap();
        assert_eq!(config.login_grace, Duration::from_secs(seconds));
    }
    for span in ["0s", "999ms", "601s", "999999h"] {
        let error = load(&format!("login_grace = \"{span}\"")).unwrap_err();
        assert!(error.contains("line 1: expected 1s to 600s: "), "{error}");
    }
}

#[test]
fn recordings_have_bounds() {
    let of = |text: &str| load(text).unwrap().recordings.bounds;
    assert_eq!(of(""), Bounds::default());
    let text = "[recordings]\ndevice_max = \"unlimited\"\nmax = \"2TiB\"\nmin_free = \"500 MiB\"\n";
    let bounds = Bounds {
        device_max: None,
        max: Some(2 << 40),
        min_free: 500 << 20,
    };
    assert_eq!(of(text), bounds);
    for (bad, why) in [
        ("max = \"much\"", "line 2: expected a size like"),
        ("max = \"-1 MiB\"", "line 2: expected a size like"),
        ("max = \"99999999999 TiB\"", "line 2: expected a size like"),
        ("min_free = \"unlimited\"", "`min_free` is a size"),
    ] {
        let error = load(&format!("[recordings]\n{bad}\n")).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_release_key_is_minisigns() {
    assert_eq!(load("").unwrap().release_key, None);
    let key = "RWQ0ZvBD3qMc87ItdmGuC7HlCQlW4JOACk7I6L9CtP7QDodLvdtjWmN5";
    let config = load(&format!("release_key = \"{key}\"\n")).unwrap();
    assert_eq!(config.release_key.unwrap().to_string(), key);
    let error = load("release_key = \"RWsecret\"\n").unwrap_err();
    assert!(
        error.starts_with("FILE: line 1: a release key begins with RW: "),
        "{error}"
    );
}

#[test]
fn a_bad_file_is_one_sentence_with_the_line() {
    let unknown = load("ssh = \"127.0.0.1:1\"\nssk = 1\n").unwrap_err();
    assert!(
        unknown.starts_with("FILE: line 2: unknown field `ssk`"),
        "{unknown}"
    );
    for bad in [
        "ssh = 22",
        "ssh = \"nowhere\"",
        "drain_grace = \"soon\"",
        "public = \"a b\"",
        "public_ssh = \"a b\"",
        "=",
    ] {
        let error = load(bad).unwrap_err();
        assert!(
            error.starts_with("FILE: line 1: ") && !error.contains('\n'),
            "{error}"
        );
    }
    let missing = Config::load(Flags {
        config: Some("/nonexistent.toml".into()),
        ..Flags::default()
    });
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .starts_with("cannot read the configuration /nonexistent.toml: ")
    );
}

#[test]
fn public_address_precedence() {
    let mut config = Config::load(Flags::default()).unwrap();
    let bound = "127.0.0.1:4500".parse().unwrap();
    assert_eq!(config.public_tunnel(bound).unwrap(), "127.0.0.1:4500");
    assert_eq!(
        config.public_tunnel("[::1]:7".parse().unwrap()).unwrap(),
        "[::1]:7"
    );
    let everywhere = config
        .public_tunnel("0.0.0.0:4433".parse().unwrap())
        .unwrap();
    assert!(everywhere.ends_with(":4433") && !everywhere.starts_with("0.0.0.0"));

    config.public = "relay.example.com".parse().ok();
    assert_eq!(
        config.public_tunnel(bound).unwrap(),
        "relay.example.com:4500"
    );
    config.public = "relay.example.com:53".parse().ok();
    assert_eq!(config.public_tunnel(bound).unwrap(), "relay.example.com:53");
    assert_eq!(config.public_ssh(bound).unwrap(), "relay.example.com:4500");
    config.public = "[2001:db8::1]:53".parse().ok();
    assert_eq!(config.public_tunnel(bound).unwrap(), "[2001:db8::1]:53");
    for v6 in ["2001:db8::1", "[2001:db8::1]"] {
        config.public = v6.parse().ok();
        assert_eq!(config.public_ssh(bound).unwrap(), "[2001:db8::1]:4500");
    }
    for (operators, dialled) in [
        ("ssh.example.com", "ssh.example.com:4500"),
        ("ssh.example.com:22", "ssh.example.com:22"),
        ("[2001:db8::2]:22", "[2001:db8::2]:22"),
    ] {
        config.public_ssh = operators.parse().ok();
        assert_eq!(config.public_ssh(bound).unwrap(), dialled);
        // Devices dial this relay, and so do operators who want no other.
        assert_eq!(config.public_tunnel(bound).unwrap(), "[2001:db8::1]:4500");
        assert_eq!(config.own_ssh(bound).unwrap(), "[2001:db8::1]:4500");
    }
    for bad in ["", ":1", "a b", "a:0", "a:70000", "a:b", "[x]:1"] {
        assert!(bad.parse::<PublicHost>().is_err(), "{bad}");
    }
}
