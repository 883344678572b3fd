//! What becomes of a process whose client is gone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Running, SOON, Site, Terminal, Way, wait_until};

/// Within this a process is gone that heeds no HUP.
const GONE: Duration = Duration::from_secs(10);

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Whether any of the processes runs; a zombie does not.
fn any_runs(ids: &[u32]) -> bool {
    ids.iter().any(|id| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let state = status.lines().find_map(|line| line.strip_prefix("State:"));
        state.is_some_and(|state| !state.trim_start().starts_with('Z'))
    })
}

#[track_caller]
fn start(site: &Site, way: Way, line: &str) -> (Running, Vec<u32>) {
    let session = site.start(way, line);
    session.wait_out("\n");
    let ids = numbers(&session.out());
    assert!(any_runs(&ids), "{ids:?}");
    (session, ids)
}

#[test]
fn the_whole_group_is_hung_up_when_the_client_is_gone() {
    let site = Site::new();
    for way in Way::BOTH {
        let note = site.device.folder().join(format!("note-{way:?}"));
        let line = format!(
            "trap 'echo hung up > {}; exit' HUP; sleep 600 & echo $$ $!; wait",
            note.display()
        );
        let (session, ids) = start(&site, way, &line);
        session.signal(Signal::KILL);
        // Well before a KILL would come.
        wait_until(Duration::from_secs(4), "the group's end", || {
            !any_runs(&ids)
        });
        assert_eq!(read(&note), "hung up\n", "{way:?}");
    }
}

#[test]
fn a_process_that_heeds_no_hangup_is_killed() {
    let site = Site::new();
    let mut running = Vec::new();
    for way in Way::BOTH {
        let line = "trap '' HUP TERM INT; (while :; do sleep 1; done) & echo $$ $!; wait; wait";
        running.push(start(&site, way, line));
    }
    let began = Instant::now();
    for (session, _) in &running {
        session.signal(Signal::KILL);
    }
    for (_, ids) in &running {
        let left = GONE.saturating_sub(began.elapsed());
        wait_until(left, "the end of stubborn processes", || !any_runs(ids));
    }
}

#[test]
fn a_terminals_jobs_go_with_it() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut terminal: Terminal = site.shell(way);
        terminal.send("PS1=; echo ids $$ $(sleep 600 >/dev/null & echo $!) e''nd; sleep 601\r");
        terminal.expect("ids ");
        // First the echo of what was typed, then what it gives.
        terminal.expect("\r\n");
        let mut text = terminal.expect("end\r\n");
        text = text.rsplit("ids ").next().unwrap().to_owned();
        let ids = numbers(&text);
        assert_eq!(ids.len(), 2, "{text:?}");
        let shell = ids[0];
        let jobs = || -> Vec<u32> {
            let line = |id: &u32| read(Path::new(&format!("/proc/{id}/cmdline")));
            let is_job = |id: &u32| line(id) == "sleep\x00601\x00";
            children(shell).into_iter().filter(is_job).collect()
        };
        wait_until(SOON, "the job in the foreground", || !jobs().is_empty());
        let mut all = jobs();
        all.push(shell);
        terminal.signal(Signal::KILL);
        wait_until(GONE, "the end of the shell and its job", || !any_runs(&all));
        if any_runs(&ids[1..]) {
            let _ = rustix::process::kill_process(pid(ids[1]), Signal::KILL);
        }
    }
}

#[test]
fn closing_one_session_leaves_the_others() {
    let site = Site::new();
    for way in Way::BOTH {
        let (first, ids) = start(&site, way, "echo $$; exec sleep 600");
        let (mut second, _) = start(&site, way, "echo $$; cat; echo over");
        first.signal(Signal::KILL);
        wait_until(GONE, "the first one's end", || !any_runs(&ids));
        second.write("still here\n");
        second.wait_out("still here");
        second.end_input();
        second.wait_out("over");
        second.wait(SOON).ok();
    }
}

fn pid(id: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

fn children(id: u32) -> Vec<u32> {
    let path = format!("/proc/{id}/task/{id}/children");
    numbers(&fs::read_to_string(path).unwrap_or_default())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
