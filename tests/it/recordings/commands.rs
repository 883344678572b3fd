//! The commands that run within a terminal.

use serde_json::Value;

use super::{exported, site, wait_state};
use crate::harness::{SOON, Way};

#[test]
fn commands_within_a_terminal_are_listed() {
    let site = site();
    let mut shell = site.shell(Way::Direct);
    shell.send("cd /tmp; PS1='$ '; echo rea''dy\r");
    shell.expect("ready");
    shell.send("sh -c 'sleep 0.2; exit 3' 'a b'; sleep 0.1 & wait; echo do''ne\r");
    shell.expect("done");
    shell.send("exit\r");
    shell.wait(SOON);
    let row = wait_state(&site.relay, "complete");
    let id = row["id"].as_str().unwrap();
    let shown = site.relay.json(&["recordings", "show", id, "--json"]);
    let card = site.relay.admin(&["recordings", "show", id]).ok().out();
    let text = site.relay.export(id, "txt");
    if let Some(why) = shown["commands_unavailable"].as_str() {
        // In a container, or without the right to it.
        assert!(card.contains(&format!("unavailable: {why}")), "{card}");
        assert!(
            text.contains(&format!("commands unavailable: {why}")),
            "{text}"
        );
        assert_eq!(shown["commands"], Value::Array(vec![]));
        return;
    }
    let commands = shown["commands"].as_array().unwrap();
    let find = |name: &str| {
        let found = commands.iter().find(|command| command["argv"][0] == name);
        found.unwrap_or_else(|| panic!("{name}: {shown:#}"))
    };
    let sh = find("sh");
    assert_eq!(
        sh["argv"],
        serde_json::json!(["sh", "-c", "sleep 0.2; exit 3", "a b"])
    );
    assert_eq!((&sh["status"], &sh["cwd"]), (&3.into(), &"/tmp".into()));
    let sleep = find("sleep");
    assert_eq!(
        (&sleep["parent"], &sleep["status"]),
        (&sh["pid"], &0.into())
    );
    let first = &commands[0];
    assert_eq!(
        sh["parent"], first["pid"],
        "the shell comes first: {shown:#}"
    );
    assert!(card.contains("sh -c 'sleep 0.2; exit 3' 'a b'"), "{card}");
    assert!(text.contains("sh -c 'sleep 0.2; exit 3' 'a b'"), "{text}");

    let records = exported(&site.relay, id);
    let count = |event: &str| {
        records
            .iter()
            .filter(|record| record["event"] == event)
            .count()
    };
    assert!(count("command") >= 4, "{records:?}");
    assert!(count("command_exit") >= 3, "{records:?}");
}
