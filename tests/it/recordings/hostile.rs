//! Recordings that a device has sealed as it likes: what the relay knows decides.

use std::process::Stdio;
use std::time::Duration;

use hostile::Outcome;
use hostile::cases::file_operations::REMOVALS;
use hostile::cases::of_operator;
use hostile::device::GREETING;
use hostile::operator::{self, OperatorTarget};
use rustix::process::Signal;
use serde_json::Value;

use super::{exported, stream};
use crate::harness::{
    Hostile, Output, Relay, SOON, Site, Way, block_on, own_login, run, run_with_input, wait_for,
    wait_until,
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
fn file_operations_are_compared_with_those_that_the_relay_saw() {
    let differ =
        "its file operations differ from those that the relay has seen, from operation 1 on";
    for (case, reason) in [
        (
            "invented-operation",
            Some("file operation 3 in it was not asked for"),
        ),
        ("altered-operation", Some(differ)),
        ("altered-status", Some(differ)),
        (
            "dropped-operation",
            Some("it has 1 file operation; the relay has seen more"),
        ),
        ("swapped-operations", Some(differ)),
        ("true-operations", None),
    ] {
        let (relay, row) = judged_of(case, &["-s", "sftp"], REMOVALS);
        let (state, code) = match reason {
            Some(_) => ("tampered", 5),
            None => ("complete", 0),
        };
        assert_eq!(
            (&row["kind"], &row["state"], &row["verified"]),
            (&"sftp".into(), &state.into(), &reason.is_none().into()),
            "{case}: {row}"
        );
        assert_eq!(row["reason"].as_str(), reason, "{case}: {row}");
        let id = row["id"].as_str().unwrap();
        let said = relay.admin(&["recordings", "verify", id]).exits(code);
        assert!(said.out().contains(reason.unwrap_or("verified")), "{said}");
        // What has no mark was done.
        let exported = relay.admin(&["export", id, "--format", "json"]).exits(code);
        let records = lines_of(&exported.out());
        let clean = records
            .iter()
            .filter(|record| record["event"] == "file" && record["mark"].is_null());
        let paths: Vec<&str> = clean.filter_map(|record| record["path"].as_str()).collect();
        assert!(["/a", "/b"].starts_with(&paths), "{case}: {paths:?}");
    }
}

#[test]
fn operation_whose_answer_was_kept_back_is_marked() {
    let (relay, row) = judged_of("unanswered-operation", &["-s", "sftp"], REMOVALS);
    assert_eq!(
        (&row["kind"], &row["state"], &row["verified"]),
        (&"sftp".into(), &"complete".into(), &false.into()),
        "{row}"
    );
    let id = row["id"].as_str().unwrap();
    let why = "1 operation not proved: the session was cut off before the relay saw the answer";
    let said = relay.admin(&["recordings", "verify", id]).exits(3);
    assert!(said.out().contains(why), "{said}");
    let card = relay.admin(&["recordings", "show", id]).ok();
    assert!(card.out().contains(why), "{card}");
    let mark = "answer not seen by the relay";
    let records = exported(&relay, id);
    let files = records.iter().filter(|record| record["event"] == "file");
    let marks: Vec<_> = files
        .map(|file| (&file["path"], &file["result"], &file["mark"]))
        .collect();
    let ok = &0.into();
    let expected = [
        (&"/a".into(), ok, &Value::Null),
        (&"/b".into(), ok, &mark.into()),
    ];
    assert_eq!(marks, expected);
    let text = relay.export(id, "txt");
    assert!(text.contains(&format!("[{mark}] remove /b")), "{text}");
    let played = relay.admin(&["play", id, "--idle-limit", "1ms"]).ok();
    assert!(played.out().contains(&format!("[{mark}]")), "{played}");
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

/// Returns the device of a site, for one play of a hostile operator.
fn target(site: &Site) -> OperatorTarget {
    OperatorTarget {
        relay: site.relay.ssh(),
        key: site.alice.key(),
        user: format!("{}+kitchen-cam", own_login()),
        count: 1,
        within: Duration::from_secs(1),
    }
}

/// The relay waits for it as long as it may, and then has an answer, for which this operator waits, too.
#[test]
fn operator_of_a_device_that_does_not_answer_is_refused() {
    let site = super::site();
    site.device.signal(Signal::STOP);
    let case = of_operator("sftp-same-id").unwrap();
    let outcome = block_on(operator::play(case, target(&site))).unwrap();
    site.device.signal(Signal::CONT);
    let refused = Outcome::Refused("the subsystem".to_owned());
    assert_eq!(format!("{outcome:?}"), format!("{refused:?}"));
}

/// The device and its agent are honest: it is the operator who asks for two things under one number.
#[test]
fn request_number_that_is_used_twice_ends_following() {
    let site = super::site();
    let case = of_operator("sftp-same-id").unwrap();
    block_on(operator::play(case, target(&site))).unwrap();
    let why = "the client used request number 0 again before it was answered";
    let row = wait_for(SOON, "the audit event", || {
        super::events(&site.relay, "sftp")
            .into_iter()
            .find(|row| row["operation"] == "unfollowed")
    });
    assert!(row.to_string().contains(why), "{row}");
    let row = wait_for(SOON, "a verdict", || {
        let row = super::rows(&site.relay).first()?.clone();
        row["verified"].is_boolean().then_some(row)
    });
    assert_eq!(
        (&row["kind"], &row["verified"]),
        (&"sftp".into(), &false.into()),
        "{row}"
    );
    let id = row["id"].as_str().unwrap();
    let said = site.relay.admin(&["recordings", "verify", id]).exits(3);
    assert!(said.out().contains(why), "{said}");
    let records = exported(&site.relay, id);
    let unfollowed = |record: &Value| record["event"] == "files_unfollowed";
    assert!(records.iter().any(unfollowed), "{records:?}");
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
        (
            "invented-command",
            false,
            "it has a record that does not belong",
        ),
        (
            "invented-refusal",
            false,
            "it has a refused variable that was not sent",
        ),
        ("gap-of-nothing", false, "stdout differs"),
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
        let reason = row["reason"].as_str().unwrap();
        let shown = |what: &[&str]| {
            let said = relay.admin(what).exits(5);
            assert!(said.err().contains(reason), "{case}: {said}");
            said.out()
        };
        // Whatever it says of itself, it is titled with what the relay knows, and with what it is.
        let json = shown(&["export", id, "--format", "json"]);
        let records = lines_of(&json);
        assert_eq!(
            (&records[0]["event"], records[0]["reason"].as_str()),
            (&"tampered".into(), Some(reason)),
            "{case}: {json}"
        );
        let start = &records[1];
        assert_eq!(start["user"], row["user"], "{case}: {start}");
        assert_eq!(start["login"], row["login"], "{case}: {start}");
        assert_shown_as_passed(case, cut, &records);
        let text = shown(&["export", id, "--format", "txt"]);
        let first = format!("[this recording is tampered: {reason}]\n");
        assert!(text.starts_with(&first), "{case}: {text}");
        let raw = shown(&["export", id, "--format", "raw"]);
        assert!(GREETING.starts_with(raw.as_bytes()), "{case}: {raw}");
        let played = shown(&["play", id, "--idle-limit", "1ms"]);
        assert!(played.contains("this recording is tampered"), "{case}");
        let cast = shown(&["export", id, "--format", "asciicast"]);
        let mark = cast.lines().nth(1).unwrap();
        assert!(mark.contains("\"m\"") && mark.contains(reason), "{cast}");
        let (user, login) = (row["user"].as_str(), row["login"].as_str());
        let title = format!("{} as {} on mallory", user.unwrap(), login.unwrap());
        assert!(cast.contains(&title), "{case}: {cast:.300}");
    }
}

fn lines_of(json: &str) -> Vec<Value> {
    let lines = json.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Checks that all that has no mark is what passed: one line of output, and status 0 if it was not cut off.
#[track_caller]
fn assert_shown_as_passed(case: &str, cut: bool, records: &[Value]) {
    let clean: Vec<Value> = records
        .iter()
        .filter(|record| record["mark"].is_null())
        .cloned()
        .collect();
    let output = stream(&clean, "stdout");
    let passed: &[u8] = match case {
        "gap-of-nothing" => b"",
        _ => GREETING,
    };
    assert!(passed.starts_with(&output), "{case}: {output:?}");
    assert_eq!(stream(&clean, "stdin"), b"", "{case}");
    let of = |name: &str| {
        let found = clean.iter().filter(|record| record["event"] == name);
        found.cloned().collect::<Vec<_>>()
    };
    for strange in ["resize", "signal", "command", "environment_refused"] {
        assert_eq!(of(strange), [Value::Null; 0], "{case}");
    }
    let exits: Vec<Value> = of("exit")
        .iter()
        .map(|exit| exit["status"].clone())
        .collect();
    let status: &[Value] = if cut { &[] } else { &[0.into()] };
    assert_eq!(exits, status, "{case}");
}

/// Checks that a recording is complete and not all of it is proved, and returns what `verify` says of it.
#[track_caller]
fn not_all_proved(relay: &Relay, row: &Value) -> Output {
    assert_eq!(
        (row["state"].as_str(), &row["verified"]),
        (Some("complete"), &false.into()),
        "{row}"
    );
    let id = row["id"].as_str().unwrap();
    relay.admin(&["recordings", "verify", id]).exits(3)
}

#[test]
fn line_invented_before_a_gap_is_marked_wherever_it_is_shown() {
    let (relay, row) = judged("gap-over-forgery", false);
    let id = row["id"].as_str().unwrap();
    let said = not_all_proved(&relay, &row);
    assert!(said.out().contains("gaps"), "{said}");
    let text = relay.export(id, "txt");
    let expected = "[not proved] all denied\n[gap: 11 bytes are missing]\nthird true\n";
    assert_eq!(text, expected);
    let records = exported(&relay, id);
    let data = records.iter().filter(|record| record["event"] == "data");
    let marks: Vec<&Value> = data.map(|record| &record["mark"]).collect();
    assert_eq!(marks, [&"not proved".into(), &Value::Null], "{records:?}");
    let cast = relay.export(id, "asciicast");
    assert!(cast.contains("[not proved] all denied"), "{cast}");
    let played = relay.admin(&["play", id, "--idle-limit", "1ms"]).ok();
    assert!(played.out().contains("[not proved] all denied"), "{played}");
    let raw = relay.admin(&["export", id, "--format", "raw"]).exits(1);
    assert!(raw.out().is_empty() && raw.err().contains("not proved"));
}

#[test]
fn output_invented_behind_a_cut_is_marked() {
    let (relay, row) = judged("invented-output", true);
    let id = row["id"].as_str().unwrap();
    let said = not_all_proved(&relay, &row);
    assert!(said.out().contains("not shown to the operator"), "{said}");
    let text = relay.export(id, "txt");
    assert!(
        text.contains("[not shown to the operator] nothing happened here"),
        "{text}"
    );
    let played = relay.admin(&["play", id, "--idle-limit", "1ms"]).ok();
    let played = played.out();
    let (before, _) = played
        .split_once("[not shown to the operator] nothing")
        .unwrap();
    let shown = std::str::from_utf8(GREETING).unwrap().trim_end();
    assert!(
        before.contains(shown),
        "what was shown comes first: {played}"
    );
}
