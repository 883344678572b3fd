//! Text from outside stays one line, in every output.

use std::sync::Arc;

use russh::client::{self, Config, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};

use super::*;
use crate::harness::block_on;

const HOSTILE: &str = "eve\r\n2026-11-22 forged \u{1b}[2J\" \u{2028}\u{9b}31m\\";

struct AnyKey;

impl Handler for AnyKey {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// A failed login under any name: OpenSSH's own client takes only decent ones.
fn fail_login(relay: &Relay, user: &User, name: &str) {
    block_on(async {
        let config = Arc::new(Config::default());
        let mut session = client::connect(config, relay.ssh(), AnyKey).await.unwrap();
        let key = Arc::new(load_secret_key(user.key(), None).unwrap());
        let key = PrivateKeyWithHashAlg::new(key, None);
        let proved = session.authenticate_publickey(name, key).await.unwrap();
        assert!(!proved.success());
    });
}

/// Neither a line nor a terminal can be made to do anything by this text.
#[track_caller]
fn is_harmless(text: &str) {
    let odd = |c: char| (c.is_control() && c != '\n') || ('\u{2028}'..='\u{202e}').contains(&c);
    assert!(!text.contains(odd), "{text:?}");
    assert!(
        !text
            .lines()
            .any(|line| line.starts_with("2026-11-22 forged")),
        "{text}"
    );
}

#[test]
fn a_hostile_name_or_command_is_one_line_in_every_output() {
    let (mut relay, file) = relay_with_file("");
    relay.start_again();
    let alice = relay.admin_user();
    let eve = User::stranger(&relay, "eve", KeyKind::Ed25519);
    fail_login(&relay, &eve, HOSTILE);
    let row = wait_row(&relay, "user.login.failed", |_| true);
    assert_eq!(row["names"][0], HOSTILE, "and it is kept as it was");

    relay.admin(&["token", "rm", HOSTILE]).exits(1);
    let quoted = format!("token rm '{HOSTILE}'");
    run(alice.console().arg(quoted)).exits(1);
    let removals = log(&relay, &["--event", "token.removed"]);
    assert_eq!(removals.len(), 2);
    assert!(
        removals
            .iter()
            .all(|row| row["token"] == HOSTILE && row["outcome"] == "failed")
    );

    let id = newest(&relay);
    wait_file(&file, id);
    is_harmless(&fs::read_to_string(&file).unwrap());
    for args in [&["audit"][..], &["audit", "--json"]] {
        let here = relay.admin(args).ok();
        let there = run(alice.console().arg(args.join(" "))).ok();
        for output in [here, there] {
            is_harmless(&output.out());
            let count = output
                .out()
                .lines()
                .filter(|line| line.contains("forged"))
                .count();
            assert_eq!(count, 3, "{output}");
        }
    }
    is_harmless(&relay.log());
}
