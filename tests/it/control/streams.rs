//! The console commands that stream, beside each other: one order ends each of them in its middle. Those that write their
//! answer at once (`audit` without `--follow`, `recordings show` and `verify`) have no middle to be held in.

use serde_json::Value;

use super::{apply, audited};
use crate::harness::{
    Device, Relay, Running, SOON, Site, User, Way, own_login, run, wait_for, wait_until,
};

/// A line of the recording that is exported and searched.
const LINE: &str = "a line that is looked for, and long enough to be many bytes in few lines";

/// A command in its middle.
struct Stream {
    line: String,
    running: Running,
    /// Its client takes nothing any more, so that there is always more to come.
    is_held: bool,
}

struct Fixture {
    site: Site,
    bob: User,
    /// A device that is not there.
    _away: Device,
    long: String,
    short: String,
}

impl Fixture {
    /// `more` goes into the role by which the commands may run.
    #[track_caller]
    fn new(more: &str) -> Self {
        let cam = Device::new("kitchen-cam").flags(&["--upload", "always"]);
        let site = Site::with(cam);
        let away = Device::new("away");
        away.join(&site.relay.token(&[]), &[]).ok();
        apply(
            &site.relay,
            &format!(
                "[roles.watcher]\n{more}\n[roles.watcher.allow]\nlabels = {{ '*' = '*' }}\nlogins = ['*']\n\
                 abilities = ['review', 'exec', 'sftp']\n"
            ),
        );
        let bob = site.relay.user("bob", &["watcher"]);
        let long = recorded(&site, &format!("yes '{LINE}' | head -c 15M"));
        let short = recorded(&site, "echo one; sleep 3; echo two");
        Self {
            site,
            bob,
            _away: away,
            long,
            short,
        }
    }

    /// Starts one of each, and returns when all are under way.
    #[track_caller]
    fn start(&self) -> Vec<Stream> {
        let (long, short, login) = (&self.long, &self.short, own_login());
        let path = self.site.device.folder().join("copied");
        let path = path.display();
        let held = [
            (format!("export {long} --format json"), "\"data\""),
            (format!("recordings grep '{LINE}'"), LINE),
        ];
        let others = [
            (
                format!("exec --on '*' --login {login} -- echo up; sleep 600"),
                "up",
            ),
            (format!("cp - --on '*:{path}' --login {login}"), ""),
            ("wait away".to_owned(), ""),
            (format!("play {short} --speed 0.1"), "one"),
            ("audit --follow".to_owned(), "audit.read"),
        ];
        let held = held.map(|(line, says)| (line, says, true));
        let others = others.map(|(line, says)| (line, says, false));
        let streams = held.into_iter().chain(others).map(|(line, says, is_held)| {
            let running = Running::start(self.bob.console().arg(&line));
            if !says.is_empty() {
                running.wait_out(says);
            }
            if is_held {
                running.signal(rustix::process::Signal::STOP);
            }
            Stream {
                line,
                running,
                is_held,
            }
        });
        let streams: Vec<Stream> = streams.collect();
        wait_until(SOON, "all of them listed", || {
            let listed = listed(&self.site.relay);
            streams.iter().all(|stream| listed.contains(&stream.line))
        });
        streams
    }

    /// Waits until the relay has ended all of them, each for this reason, and their clients notice.
    #[track_caller]
    fn ended(&self, streams: Vec<Stream>, reason: impl Fn(&str) -> &'static str) {
        let relay = &self.site.relay;
        wait_until(SOON, "the end of all", || listed(relay).is_empty());
        let expected: Vec<(String, String)> = streams
            .iter()
            .map(|stream| (stream.line.clone(), reason(&stream.line).to_owned()))
            .collect();
        for stream in streams {
            if stream.is_held {
                stream.running.signal(rustix::process::Signal::CONT);
            }
            let _ = stream.running.wait(SOON).exits(255);
        }
        let of = |row: &Value| {
            let text = |field: &str| row[field].as_str().unwrap_or("-").to_owned();
            (text("command"), text("reason"))
        };
        wait_until(SOON, "the reason of each", || {
            let rows = audited(relay, "client.disconnect", "bob");
            let rows: Vec<(String, String)> = rows.iter().map(of).collect();
            expected.iter().all(|row| rows.contains(row))
        });
    }
}

/// Makes a recording, and gives its id.
#[track_caller]
fn recorded(site: &Site, line: &str) -> String {
    site.exec(Way::Direct, line).ok();
    wait_for(SOON, "the recording", || {
        let rows = site.relay.json(&["recordings", "--json"]);
        let rows = rows.as_array()?;
        let row = rows.iter().find(|row| row["command"] == line)?;
        (row["state"] == "complete").then(|| row["id"].as_str().unwrap().to_owned())
    })
}

/// The lines of the commands that stream now.
fn listed(relay: &Relay) -> Vec<String> {
    let rows = relay.json(&["sessions", "--json"]);
    let rows = rows.as_array().unwrap().iter();
    let rows = rows.filter(|row| row["kind"] == "console");
    rows.map(|row| row["command"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn taking_the_role_ends_each_command_that_streams() {
    let fixture = Fixture::new("");
    let streams = fixture.start();
    let relay = &fixture.site.relay;
    relay.admin(&["user", "role", "rm", "bob", "watcher"]).ok();
    fixture.ended(streams, |_| "access-changed");
}

#[test]
fn a_lock_ends_each_command_that_streams() {
    let fixture = Fixture::new("");
    let streams = fixture.start();
    let relay = &fixture.site.relay;
    run(&mut relay.command(&["lock", "user", "bob", "--message", "leaked"])).ok();
    fixture.ended(streams, |_| "locked");
}

/// Covers both clocks: a command that shows what there is, is idle while there is nothing; others work until they end, or
/// until a session's longest duration is over.
#[test]
fn its_time_ends_each_command_that_streams() {
    let fixture = Fixture::new("idle_timeout = '3s'\nmax_session = '9s'");
    let streams = fixture.start();
    fixture.ended(streams, |line| match line {
        line if line.starts_with("play") || line.starts_with("audit") => "idle",
        _ => "max-session",
    });
}
