//! The replacement of the relay's host key, for clients that learn host keys by themselves (`UpdateHostKeys`).

use std::fs;

use hostile::operator::raw::{GLOBAL_REQUEST, REQUEST_FAILURE, REQUEST_SUCCESS, Raw, SshMessage};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::harness::{Relay, SOON, User, run, wait_for, wait_until};

const ROTATE: [&str; 3] = ["ca", "host-key", "rotate"];
const FINISH: [&str; 4] = ["ca", "host-key", "rotate", "--finish"];
const LIST: &str = "hostkeys-00@openssh.com";
const PROVE: &str = "hostkeys-prove-00@openssh.com";

/// The relay's key, or its next one, as `known_hosts` has it.
#[track_caller]
fn key(relay: &Relay, which: &str) -> String {
    let keys = relay.json(&["ca", "host-key", "--json"]);
    keys[which].as_str().unwrap().to_owned()
}

/// `ssh relay whoami` of a client that accepts the key of a host that it does not know, and keeps itself up to date.
fn learn(user: &User) -> crate::harness::Output {
    let mut ssh = user.tool("ssh");
    for option in ["StrictHostKeyChecking=accept-new", "UpdateHostKeys=yes"] {
        ssh.args(["-o", option]);
    }
    run(ssh.args(["relay", "whoami"]))
}

#[test]
fn client_learns_the_next_host_key_by_itself() {
    let mut relay = Relay::start();
    let alice = relay.admin_user();
    let file = alice.folder().join("known_hosts");
    fs::write(&file, "").unwrap();
    let known = || -> Vec<String> {
        let text = fs::read_to_string(&file).unwrap();
        let keys = text.lines().filter_map(|line| line.split_once(' '));
        keys.map(|(_, key)| key.trim().to_owned()).collect()
    };
    let old = key(&relay, "public_key");
    learn(&alice).ok();
    assert_eq!(known(), [old.as_str()]);
    // The relay serves on meanwhile.
    relay.admin(&ROTATE).ok();
    let new = key(&relay, "next_public_key");
    wait_until(SOON, "the next key in known_hosts", || {
        learn(&alice).ok();
        known().len() == 2
    });
    assert_eq!(known(), [old.as_str(), new.as_str()]);
    // Until the relay starts again it shows the old key, and proves both.
    relay.admin(&FINISH).ok();
    learn(&alice).ok();
    assert_eq!(known(), [old.as_str(), new.as_str()]);
    relay.restart();
    let strict = run(alice.console().arg("whoami")).ok();
    assert!(!strict.err().contains("WARNING"), "{strict}");
    // The old one is no longer listed, and the client removes it.
    learn(&alice).ok();
    assert_eq!(known(), [new.as_str()]);
}

/// The keys of a list of strings.
fn keys_of(list: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = vec![];
    let mut rest = list;
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        keys.push(more[..length].to_vec());
        rest = &more[length..];
    }
    keys
}

/// Asks for proofs of these keys, and returns them; `None` if the relay refuses.
#[track_caller]
fn prove(raw: &mut Raw, keys: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    let request = SshMessage::new(GLOBAL_REQUEST).string(PROVE).byte(1);
    raw.say(keys.iter().fold(request, SshMessage::string));
    let reply = raw.next().unwrap();
    match reply[0] {
        REQUEST_SUCCESS => Some(keys_of(&reply[1..])),
        other => {
            assert_eq!(other, REQUEST_FAILURE);
            None
        }
    }
}

#[test]
fn listed_host_keys_are_proved_and_no_others() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let foreign = Raw::connect(Relay::start().ssh()).host_key().to_vec();
    relay.admin(&ROTATE).ok();
    let (mut raw, keys) = wait_for(SOON, "both keys in the relay's list", || {
        let mut raw = Raw::login(relay.ssh(), &alice.key(), "alice");
        let keys = keys_of(&raw.requested(LIST));
        (keys.len() == 2).then_some((raw, keys))
    });
    assert_eq!(keys[0], raw.host_key());
    let [present, next] = [&keys[0][..], &keys[1][..]];
    let proofs = prove(&mut raw, &[next, present]).unwrap();
    assert_eq!(proofs.len(), 2);
    for (key, proof) in [next, present].into_iter().zip(proofs) {
        let signed = SshMessage::new(0).string(PROVE);
        let signed = signed.string(raw.session_id()).string(key);
        // Each is of strings: the type, and the bytes.
        let (key, signature) = (&keys_of(key)[1], &keys_of(&proof)[1]);
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&signed.payload()[1..], signature)
            .unwrap();
    }
    // Four requests of one connection are answered.
    assert_eq!(prove(&mut raw, &[next, &foreign]), None);
    assert_eq!(prove(&mut raw, &[present, next, present]), None);
    assert!(prove(&mut raw, &[present]).is_some());
    assert_eq!(prove(&mut raw, &[present]), None);
    // Nor is anything proved that is cut short, and other requests are refused as ever.
    let mut raw = Raw::login(relay.ssh(), &alice.key(), "alice");
    assert_eq!(prove(&mut raw, &[]), None);
    let cut = SshMessage::new(GLOBAL_REQUEST).string(PROVE).byte(1);
    raw.say(cut.number(51).byte(0));
    assert_eq!(raw.next().unwrap()[0], REQUEST_FAILURE);
    let other = SshMessage::new(GLOBAL_REQUEST).string("other@example.com");
    raw.say(other.byte(1).string("data"));
    assert_eq!(raw.next().unwrap()[0], REQUEST_FAILURE);
}
