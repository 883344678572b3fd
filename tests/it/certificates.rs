//! OpenSSH user certificates, made by the real `ssh-keygen`, on both ways.

mod endings;
mod options;

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{
    KeyKind, Output, Relay, Site, SshClient, User, Way, block_on, command, make_key, own_login,
    run, run_with_input,
};

/// A certificate authority of ours.
struct Authority {
    key: PathBuf,
}

impl Authority {
    #[track_caller]
    fn new(folder: &Path, name: &str, kind: KeyKind) -> Self {
        let key = folder.join(name);
        make_key(&key, kind);
        Self { key }
    }

    fn public(&self) -> String {
        self.key.with_extension("pub").to_str().unwrap().to_owned()
    }

    fn fingerprint(&self) -> String {
        fingerprint(&self.key.with_extension("pub"))
    }

    /// Gives a user a certificate: `args` as for `ssh-keygen -s`. Their ssh finds it by its name.
    #[track_caller]
    fn sign(&self, user: &User, args: &[&str]) {
        let mut keygen = command("ssh-keygen");
        keygen.arg("-q").arg("-s").arg(&self.key).args(args);
        run(keygen.arg(user.key().with_extension("pub"))).ok();
    }
}

fn fingerprint(key: &Path) -> String {
    let line = run(command("ssh-keygen").arg("-lf").arg(key)).ok().out();
    line.split(' ').nth(1).unwrap().to_owned()
}

/// A relay with a device, a trusted authority, and carol, whom the relay knows by a principal alone.
struct Fixture {
    site: Site,
    ca: Authority,
    carol: User,
}

impl Fixture {
    #[track_caller]
    fn new() -> Self {
        Self::with(KeyKind::Ed25519, KeyKind::Ed25519)
    }

    #[track_caller]
    fn with(authority: KeyKind, key: KeyKind) -> Self {
        let site = Site::new();
        let ca = Authority::new(site.relay.folder(), "corp_ca", authority);
        site.relay
            .admin(&["ca", "trust", &ca.public(), "--name", "corp"])
            .ok();
        let carol = User::stranger(&site.relay, "carol", key);
        principals(&site.relay, "carol", &["carol@example.com"]);
        Self { site, ca, carol }
    }

    /// Gives carol a certificate that is good but for what `args` make of it.
    #[track_caller]
    fn sign(&self, args: &[&str]) {
        let usual = ["-I", "carol laptop", "-n", "carol@example.com"];
        self.ca.sign(&self.carol, &[&usual, args].concat());
    }

    fn ssh(&self, way: Way) -> std::process::Command {
        self.carol.ssh(way, &own_login(), self.site.device.name())
    }

    #[track_caller]
    fn exec(&self, way: Way, line: &str) -> Output {
        run(self.ssh(way).arg(line))
    }

    /// Returns whether carol is let in, by a connection that asks for nothing but that.
    #[track_caller]
    fn is_let_in(&self) -> bool {
        run(self.carol.console().arg("whoami")).code() == 0
    }

    #[track_caller]
    fn admin(&self, args: &[&str]) -> Output {
        self.site.relay.admin(args).ok()
    }

    /// Revokes by a list that `ssh-keygen -k` makes of a specification.
    #[track_caller]
    fn revoke(&self, specification: &str) {
        let folder = self.site.relay.folder();
        let (spec, krl) = (folder.join("spec"), folder.join("krl"));
        fs::write(&spec, specification).unwrap();
        let mut keygen = command("ssh-keygen");
        keygen.args(["-q", "-k", "-f"]).arg(&krl);
        run(keygen.arg("-s").arg(self.ca.public()).arg(&spec)).ok();
        self.admin(&["ca", "revoke", krl.to_str().unwrap()]);
    }
}

/// Makes a user who is known by principals alone.
#[track_caller]
fn principals(relay: &Relay, name: &str, principals: &[&str]) {
    let file = relay.folder().join(format!("{name}.toml"));
    let text = format!("[users.{name}]\nroles = [\"admin\"]\nprincipals = {principals:?}\n");
    fs::write(&file, text).unwrap();
    relay.admin(&["apply", "-f", file.to_str().unwrap()]).ok();
}

#[test]
fn a_certificate_opens_both_ways_and_the_log_names_it() {
    let fixture = Fixture::new();
    fixture
        .exec(Way::Direct, "true")
        .exits(255)
        .says("Permission denied");
    fixture.sign(&["-z", "42", "-V", "-1m:+1h"]);
    for way in Way::BOTH {
        assert_eq!(fixture.exec(way, "echo in").ok().out(), "in\n", "{way:?}");
    }
    let whoami = run(fixture.carol.console().arg("whoami")).ok();
    assert!(whoami.out().starts_with("carol"), "{whoami}");
    let log = fixture.site.relay.log();
    let named = format!(
        "(certificate \\\"carol laptop\\\", serial 42, by {})",
        fixture.ca.fingerprint()
    );
    assert!(log.contains(&named), "no {named} in {log}");
}

#[test]
fn every_kind_of_authority_and_key_will_do() {
    for (authority, key) in [
        (KeyKind::Ecdsa256, KeyKind::Rsa3072),
        (KeyKind::Ecdsa384, KeyKind::Ecdsa521),
        (KeyKind::Ecdsa521, KeyKind::Ecdsa256),
    ] {
        let fixture = Fixture::with(authority, key);
        fixture.sign(&[]);
        assert_eq!(
            fixture.exec(Way::Direct, "echo in").ok().out(),
            "in\n",
            "{authority:?} {key:?}"
        );
    }
    let fixture = Fixture::with(KeyKind::Rsa3072, KeyKind::Ed25519);
    for algorithm in ["rsa-sha2-256", "rsa-sha2-512"] {
        fixture.sign(&["-t", algorithm]);
        assert_eq!(
            fixture.exec(Way::Direct, "echo in").ok().out(),
            "in\n",
            "{algorithm}"
        );
    }
    // SHA-1 is within an attacker's reach.
    fixture.sign(&["-t", "ssh-rsa"]);
    fixture
        .exec(Way::Direct, "true")
        .exits(255)
        .says("Permission denied");
}

#[test]
fn what_is_wrong_with_a_certificate_keeps_it_out() {
    let fixture = Fixture::new();
    let other = Authority::new(fixture.site.relay.folder(), "other_ca", KeyKind::Ed25519);
    let named = ["-I", "id", "-n", "carol@example.com"];
    // What the log says of it.
    let table: [(&Authority, &[&str], &str); 11] = [
        (&other, &named, "its authority is not trusted"),
        // Its own client does not even show this one; another does below.
        (
            &fixture.ca,
            &["-h", "-I", "id", "-n", "carol@example.com"],
            "",
        ),
        (
            &fixture.ca,
            &["-V", "-2h:-1h", "-I", "id", "-n", "carol@example.com"],
            "certificate refused: it has expired",
        ),
        (
            &fixture.ca,
            &["-V", "+1h:+2h", "-I", "id", "-n", "carol@example.com"],
            "certificate refused: it is not valid yet",
        ),
        (
            &fixture.ca,
            &["-I", "id", "-n", "mallory"],
            "none of its principals is a user's",
        ),
        (
            &fixture.ca,
            &["-I", "id", "-n", "carol"],
            "none of its principals is a user's",
        ),
        (&fixture.ca, &["-I", "id"], "it names no principal"),
        (
            &fixture.ca,
            &[
                "-O",
                "source-address=192.0.2.0/24",
                "-I",
                "id",
                "-n",
                "carol@example.com",
            ],
            "it is not for clients at 127.0.0.1",
        ),
        (
            &fixture.ca,
            &[
                "-O",
                "critical:foo@x=1",
                "-I",
                "id",
                "-n",
                "carol@example.com",
            ],
            r#"its critical option "foo@x" is not known"#,
        ),
        (
            &fixture.ca,
            &[
                "-O",
                "verify-required",
                "-I",
                "id",
                "-n",
                "carol@example.com",
            ],
            "it asks for verification of the user",
        ),
        (
            &fixture.ca,
            &[
                "-O",
                "force-command=internal-sftp -R",
                "-I",
                "id",
                "-n",
                "carol@example.com",
            ],
            r#"its option "force-command" has an invalid value"#,
        ),
    ];
    for (authority, args, reason) in table {
        authority.sign(&fixture.carol, args);
        for way in Way::BOTH {
            let refused = fixture
                .exec(way, "echo in")
                .exits(255)
                .says("Permission denied");
            assert_eq!(refused.out(), "", "{args:?}");
        }
        let log = fixture.site.relay.log();
        assert!(log.contains(reason), "{args:?}: no {reason} in {log}");
        // A login that succeeds clears its source: so many failures would shut it out.
        run(fixture.site.alice.console().arg("whoami")).ok();
    }
    // The same hand signs a good one.
    fixture.sign(&[]);
    assert!(fixture.is_let_in());
}

/// The SSH library refuses these by itself, and the log has which it was and why.
#[test]
fn the_log_names_a_certificate_that_is_refused_for_its_dates() {
    let fixture = Fixture::new();
    fixture.sign(&["-z", "77", "-I", "old laptop", "-V", "-2h:-1h"]);
    assert!(!fixture.is_let_in());
    let log = fixture.site.relay.log();
    let line = log.lines().find(|line| line.contains("it has expired"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in ["certificate refused", "old laptop", "77", "127.0.0.1"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // Without its authority's signature, it is not believed what dates it has.
    let path = fixture.carol.folder().join("key-cert.pub");
    let text = fs::read_to_string(&path).unwrap();
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    // In the base64 of the signature, behind which there is only its end.
    let at = words[1].trim_end_matches('=').len() - 20;
    let other = if &words[1][at..=at] == "A" { "B" } else { "A" };
    words[1].replace_range(at..=at, other);
    fs::write(&path, words.join(" ")).unwrap();
    let (relay, carol) = (&fixture.site.relay, &fixture.carol);
    assert!(!block_on(SshClient::proves_by_certificate(relay, carol)));
    let log = fixture.site.relay.log();
    assert!(log.contains("its signature is not that of"), "{log}");
    assert_eq!(log.matches("it has expired").count(), 1, "{log}");
}

/// OpenSSH's client keeps a host's certificate to itself; no other client needs to.
#[test]
fn a_hosts_certificate_is_no_users() {
    let fixture = Fixture::new();
    fixture.ca.sign(
        &fixture.carol,
        &["-h", "-I", "id", "-n", "carol@example.com"],
    );
    assert!(!block_on(SshClient::proves_by_certificate(
        &fixture.site.relay,
        &fixture.carol
    )));
    let log = fixture.site.relay.log();
    assert!(
        log.contains("certificate refused: it is a host's certificate"),
        "{log}"
    );
    fixture.sign(&[]);
    assert!(block_on(SshClient::proves_by_certificate(
        &fixture.site.relay,
        &fixture.carol
    )));
}

#[test]
fn a_certificate_of_two_users_is_of_none() {
    let fixture = Fixture::new();
    principals(&fixture.site.relay, "dave", &["dave"]);
    fixture.ca.sign(
        &fixture.carol,
        &["-I", "id", "-n", "carol@example.com,dave"],
    );
    assert!(!fixture.is_let_in());
    let log = fixture.site.relay.log();
    assert!(log.contains("several users, carol and dave"), "{log}");
}

#[test]
fn authorities_are_managed_in_cli_and_console() {
    let fixture = Fixture::new();
    let ask = |line: &str, input: &str| {
        run_with_input(
            fixture.site.alice.console().args(["--", line]),
            input.as_bytes(),
        )
    };
    let other = Authority::new(fixture.site.relay.folder(), "other_ca", KeyKind::Ed25519);
    let key = fs::read_to_string(other.public()).unwrap();
    let trusted = ask("ca trust - --name other", &key).ok();
    let line = format!("authority other trusted: {}\n", other.fingerprint());
    assert_eq!(trusted.out(), line);
    let here = ask("ca ls --json", "").ok().out();
    let there = fixture.admin(&["ca", "ls", "--json"]).out();
    assert_eq!(here, there);
    let rows: serde_json::Value = serde_json::from_str(&here).unwrap();
    assert_eq!(rows[1]["name"], "other");
    assert_eq!(rows[1]["fingerprint"], other.fingerprint());
    ask("ca trust /etc/hostname", "").exits(2).says("over ssh");
    let own = fixture.admin(&["ssh-config", "--known-hosts"]).out();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("@cert-authority *.fleet "))
        .unwrap();
    ask("ca trust - --name own", own)
        .exits(1)
        .says("a key of the relay's own");

    // A list over ssh, as it is: bytes.
    fs::write(fixture.site.relay.folder().join("spec"), "serial: 7-9\n").unwrap();
    let krl = fixture.site.relay.folder().join("krl");
    let mut keygen = command("ssh-keygen");
    keygen
        .args(["-q", "-k", "-f"])
        .arg(&krl)
        .arg("-s")
        .arg(other.public());
    run(keygen.arg(fixture.site.relay.folder().join("spec"))).ok();
    let mut revoke = fixture.site.alice.console();
    let list = fs::read(&krl).unwrap();
    let revoked = run_with_input(revoke.args(["--", "ca revoke -"]), &list).ok();
    assert_eq!(revoked.out(), "1 new revocation, 0 removed, 1 in all\n");
    let table = ask("ca revoked", "").ok().out();
    assert!(table.contains("serials 7-9  other"), "{table}");
    let removed = ask("ca rm other", "").ok().out();
    assert!(removed.starts_with("authority other (SHA256:"), "{removed}");
    ask("ca rm other", "")
        .exits(1)
        .says("no authority \"other\"");
}
