//! The deeds of a person are found among those of an automation; and a table fits its terminal.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Running, SOON, Site, Terminal, Way, own_login, run, wait_for, wait_until};

/// Commands of the automation: more than one listing has lines for.
const COMMANDS: usize = 12;

/// Lines about the device.
fn rows(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| line.contains("kitchen-cam"))
        .collect()
}

#[test]
fn an_automation_is_one_row_and_a_person_is_found() {
    let site = Site::new();
    let control = site.alice.folder().join("control");
    let mut master = site.ssh(Way::Direct);
    master.arg("-MN").arg("-S").arg(&control);
    let master = Running::start(&mut master);
    wait_until(SOON, "the master", || control.exists());
    for n in 0..COMMANDS {
        let mut ssh = site.ssh(Way::Direct);
        ssh.arg("-S").arg(&control);
        run(ssh.arg(format!("true {n}"))).ok();
    }
    drop(master);
    let mut ssh = site.ssh(Way::Jump);
    ssh.args(["-t", "tty"]);
    let mut terminal = Terminal::start(&ssh, 80, 24);
    assert_eq!(terminal.wait(SOON).code(), Some(0));

    let all = wait_for(SOON, "every recording", || {
        let all = site.relay.json(&["recordings", "--json"]);
        let all = all.as_array().unwrap().clone();
        let over = |row: &Value| row["state"] == "complete";
        (all.len() == COMMANDS + 1 && all.iter().all(over)).then_some(all)
    });
    let people: Vec<&Value> = all.iter().filter(|row| row["terminal"] == true).collect();
    assert_eq!(people.len(), 1, "{people:?}");
    let runs: BTreeSet<&str> = all
        .iter()
        .map(|row| row["group"].as_str().unwrap())
        .collect();
    assert_eq!(runs.len(), 2, "{runs:?}");

    let list = |args: &[&str]| {
        site.relay
            .admin(&[&["recordings"], args].concat())
            .ok()
            .out()
    };
    let folded = list(&[]);
    assert_eq!(rows(&folded).len(), 2, "{folded}");
    let count = format!(" {COMMANDS} ");
    assert!(
        rows(&folded).iter().any(|row| row.contains(&count)),
        "{folded}"
    );
    assert_eq!(rows(&list(&["--all"])).len(), COMMANDS + 1);
    assert_eq!(rows(&list(&["--interactive"])).len(), 1);
    assert_eq!(
        rows(&list(&["--kind", "exec", "--all"])).len(),
        COMMANDS + 1
    );
    assert_eq!(rows(&list(&["--kind", "shell"])).len(), 0);
    site.relay
        .admin(&["recordings", "--kind", "telnet"])
        .exits(2)
        .says("the kinds are shell, exec, sftp, forward");

    // The audit log likewise: the automation's commands are one row, the person's another.
    let audit = |args: &[&str]| {
        site.relay
            .admin(&[&["audit", "--event", "exec"], args].concat())
            .ok()
            .out()
    };
    assert_eq!(rows(&audit(&[])).len(), 2, "{}", audit(&[]));
    assert_eq!(rows(&audit(&["--all"])).len(), COMMANDS + 1);
    assert_eq!(audit(&["--json"]).lines().count(), COMMANDS + 1);
}

#[test]
fn a_table_fits_the_terminal_that_asks_for_it() {
    let site = Site::new();
    let long = format!("true {}", "x".repeat(300));
    site.exec(Way::Direct, &long).ok();
    wait_until(SOON, "the recording", || {
        site.relay.json(&["recordings", "--json"])[0]["ended"].is_string()
    });
    for command in [
        "recordings",
        "recordings --all",
        "audit",
        "devices",
        "sessions",
    ] {
        let mut console = site.alice.console();
        console.args(["-tt", command]);
        let mut terminal = Terminal::start(&console, 100, 24);
        assert_eq!(terminal.wait(SOON).code(), Some(0), "{command}");
        let shown = terminal.shown();
        let widest = shown
            .lines()
            .map(|line| line.trim_end().chars().count())
            .max();
        assert!(widest <= Some(100), "{command}: {shown}");
    }
    // Elsewhere nothing is cut.
    let whole = run(site.alice.console().arg("recordings")).ok();
    assert!(whole.out().contains(&long), "{whole}");
    let mut narrow = site.relay.command(&["recordings"]);
    let narrow = run(narrow.env("COLUMNS", "80")).ok();
    assert!(
        narrow.out().lines().all(|line| line.chars().count() <= 80),
        "{narrow}"
    );
    assert!(
        narrow.out().contains('…') && !own_login().is_empty(),
        "{narrow}"
    );
}
