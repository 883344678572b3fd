//! What a recording has beyond what the operator was shown.

use super::{exported, site};
use crate::harness::{SOON, Way, wait_for, wait_until};

#[test]
fn output_behind_a_kill_is_marked_wherever_it_is_shown() {
    let site = site();
    let running = site.start(Way::Direct, "yes a-line");
    running.wait_out("a-line");
    // The client takes no more, so what the device still sends is recorded and waits at the relay.
    running.signal(rustix::process::Signal::STOP);
    let session = || {
        let sessions = site.relay.json(&["sessions", "--json"]);
        sessions.as_array().unwrap().first().cloned().unwrap()
    };
    let mut before = None;
    wait_until(SOON, "nothing moves any more", || {
        let moved = session()["bytes_out"].as_u64();
        std::mem::replace(&mut before, moved) == moved && moved > Some(0)
    });
    let id = session()["id"].as_str().unwrap().to_owned();
    site.relay.admin(&["sessions", "kill", &id]).ok();
    running.signal(rustix::process::Signal::KILL);
    let row = wait_for(SOON, "its verdict", || {
        let rows = site.relay.json(&["recordings", "--json"]);
        let row = rows.as_array().unwrap().first().cloned()?;
        row["verified"].is_boolean().then_some(row)
    });
    assert_eq!(
        (row["state"].as_str(), &row["verified"]),
        (Some("complete"), &false.into()),
        "{row}"
    );
    let said = site.relay.admin(&["recordings", "verify", &id]).exits(3);
    let mark = "not shown to the operator";
    assert!(said.out().contains(mark), "{said}");
    let card = site.relay.admin(&["recordings", "show", &id]).ok().out();
    assert!(card.contains(mark), "{card}");

    let records = exported(&site.relay, &id);
    let data: Vec<_> = records
        .iter()
        .filter(|record| record["event"] == "data" && record["stream"] == "stdout")
        .collect();
    let shown = data.iter().take_while(|record| record["mark"].is_null());
    let shown = shown.count();
    assert!(shown > 0 && shown < data.len(), "{shown} of {}", data.len());
    assert!(data[shown..].iter().all(|record| record["mark"] == mark));
    let text = site.relay.export(&id, "txt");
    let marked = format!("[{mark}] a-line");
    assert!(text.starts_with("a-line\n") && text.contains(&marked));
    let cast = site.relay.export(&id, "asciicast");
    assert!(cast.contains(&format!("\"m\", \"{mark}\"")) && cast.contains(&marked));
    let found = ["recordings", "grep", mark];
    let found = site.relay.admin(&found).ok().out();
    assert!(found.contains(&marked), "{found:.300}");
    let raw = ["export", &id, "--format", "raw"];
    let raw = site.relay.admin(&raw).exits(1);
    assert!(raw.err().contains(mark), "{:.300}", raw.err());
}
