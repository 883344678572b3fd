//! Recordings that a device has sealed as it likes: what the relay knows decides.

use std::process::Stdio;

use serde_json::Value;

use super::exported;
use crate::harness::{
    Hostile, Relay, SOON, Way, own_login, run, run_with_input, wait_for, wait_until,
};

/// Returns what the relay makes of the recording of a session with a device that plays a case. `cut`: an administrator
/// ends it.
#[track_caller]
fn verdict(relay: &Relay, hostile: &Hostile) -> Value {
    wait_until(SOON, "the recording is uploaded", || hostile.is_over());
    wait_for(SOON, "a verdict", || {
        let rows = relay.json(&["recordings", "--json"]);
        let row = rows.as_array()?.first()?.clone();
        row["verified"].is_boolean().then_some(row)
    })
}

/// The same of a session of any kind, or of a forward.
#[track_caller]
fn judged_of(case: &str, arguments: &[&str], input: &[u8]) -> (Relay, Value) {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let hostile = Hostile::online(&relay, "mallory", case, 1);
    let mut ssh = alice.ssh(Way::Direct, &own_login(), hostile.name());
    // How it ends for the client is another matter.
    run_with_input(ssh.args(arguments), input);
    let row = verdict(&relay, &hostile);
    (relay, row)
}

#[track_caller]
fn judged(case: &str, cut: bool) -> (Relay, Value) {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let hostile = Hostile::online(&relay, "mallory", case, 1);
    let mut ssh = alice.ssh(Way::Direct, &own_login(), hostile.name());
    if cut {
        let ssh = ssh.arg("anything").stdin(Stdio::piped());
        let ssh = ssh.stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = ssh.spawn().unwrap();
        let session = wait_for(SOON, "a session that has shown something", || {
            let sessions = relay.json(&["sessions", "--json"]);
            let session = sessions.as_array()?.first()?.clone();
            (session["bytes_out"].as_u64()? > 0).then_some(session)
        });
        let id = session["id"].as_str().unwrap();
        relay.admin(&["sessions", "kill", id]).ok();
        client.wait().unwrap();
    } else {
        run(ssh.arg("anything")).ok();
    }
    let row = verdict(&relay, &hostile);
    (relay, row)
}

#[test]
fn forwards_are_compared_with_what_the_relay_passed_on() {
    for (case, reason) in [
        (
            "lying-forward-counts",
            Some("forward 1 has 0 bytes received in it; the relay passed on 3"),
        ),
        ("dropped-forward", Some("forward 1 is missing in it")),
        ("true-forward-log", None),
    ] {
        let (relay, row) = judged_of(case, &["-W", "127.0.0.1:7"], b"abc");
        let (state, code) = match reason {
            Some(_) => ("tampered", 5),
            None => ("complete", 0),
        };
        assert_eq!(
            (&row["kind"], &row["state"], &row["verified"]),
            (&"forward".into(), &state.into(), &reason.is_none().into()),
            "{case}: {row}"
        );
        assert_eq!(row["reason"].as_str(), reason, "{case}: {row}");
        let id = row["id"].as_str().unwrap();
        let said = relay.admin(&["recordings", "verify", id]).exits(code);
        assert!(said.out().contains(reason.unwrap_or("verified")), "{said}");
        let shown = relay.admin(&["recordings", "show", id]).ok().out();
        assert!(shown.contains(reason.unwrap_or("verified")), "{shown}");
    }
}

#[test]
fn answer_that_was_not_asked_for_is_never_verified() {
    let (relay, row) = judged_of(
        "sftp-unasked-answer",
        &["-s", "sftp"],
        &[0, 0, 0, 5, 1, 0, 0, 0, 3],
    );
    assert_eq!(
        (&row["kind"], &row["verified"]),
        (&"sftp".into(), &false.into()),
        "{row}"
    );
    let id = row["id"].as_str().unwrap();
    let said = relay.admin(&["recordings", "verify", id]).exits(3);
    assert!(
        said.out()
            .contains("the server answered request number 30583, which is not pending"),
        "{said}"
    );
}

#[test]
fn inventions_are_tampering() {
    for (case, cut, reason) in [
        ("recording-without-streams", false, "it does not hold what"),
        ("recording-other-output", false, "stdout differs"),
        ("invented-input", true, "stdin has more than was sent"),
        ("wrong-start-facts", false, "its start has another user"),
        ("wrong-exit", false, "its exit status is not the one"),
        ("invented-size", false, "its terminal sizes or signals"),
        (
            "content-ends-early",
            false,
            "the content of a stream does not end",
        ),
    ] {
        let (relay, row) = judged(case, cut);
        assert_eq!(
            (row["state"].as_str(), &row["verified"]),
            (Some("tampered"), &false.into()),
            "{case}: {row}"
        );
        assert!(
            row["reason"].as_str().unwrap().starts_with(reason),
            "{case}: {row}"
        );
        let id = row["id"].as_str().unwrap();
        let said = relay.admin(&["recordings", "verify", id]).exits(5);
        assert!(said.out().contains("is tampered"), "{case}: {said}");
        // Whatever it says of itself, it is titled with what the relay knows.
        let start = &exported(&relay, id)[0];
        assert_eq!(start["user"], row["user"], "{case}: {start}");
        assert_eq!(start["login"], row["login"], "{case}: {start}");
        let cast = relay.export(id, "asciicast");
        let (user, login) = (row["user"].as_str(), row["login"].as_str());
        let title = format!("{} as {} on mallory", user.unwrap(), login.unwrap());
        assert!(cast.contains(&title), "{case}: {cast:.300}");
    }
}

#[test]
fn output_invented_behind_a_cut_is_marked() {
    let (relay, row) = judged("invented-output", true);
    assert_eq!(
        (row["state"].as_str(), &row["verified"]),
        (Some("complete"), &false.into()),
        "{row}"
    );
    let id = row["id"].as_str().unwrap();
    let said = relay.admin(&["recordings", "verify", id]).exits(3);
    assert!(said.out().contains("not shown to the operator"), "{said}");
    let text = relay.export(id, "txt");
    assert!(
        text.contains("[not shown to the operator] nothing happened here"),
        "{text}"
    );
}
