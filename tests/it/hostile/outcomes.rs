//! The outcome of each case: one relay with little memory is attacked by all of them, one after the other, while
//! another user types.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use hostile::Outcome;
use hostile::cases::file_operations::REMOVALS;
use hostile::cases::{of_devices, of_operator, of_operators};
use hostile::device::GREETING;
use hostile::operator;
use rustix::process::Signal;

use super::fixture::{LOOKS, Siege};
use super::uploads::bytes_in;
use crate::harness::{Device, Hostile, Running, SOON, block_on, own_login, wait_for};

/// Rows that one device or one operator may cause in the audit log by one case: connections that came are summed beyond
/// 60 a minute, at their beginning and at their end, and refusals beyond 100.
const MAX_ROWS: usize = 250;

/// Lines of the relay's log that all cases together may cause.
const MAX_LINES: usize = 1_000;

/// The time for which the relay's reaction is waited for.
const WITHIN: Duration = Duration::from_secs(3);

/// The same of cases that end at a bound in time. All others are played meanwhile.
const WITHIN_SLOW: Duration = Duration::from_secs(60);

/// The outcome of each case of a device: how often it is played, what an administrator does on the device meanwhile, how
/// it ends for the device with words of that, and what the relay says of it as a reason in the audit log. A flood that
/// goes on may have been sent or be held back at the end of its time: that has no words.
const DEVICES: &str = "
honest                    |       1 | exec    | never   |                                 |
accepted-twice            |     100 | exec    | refused | ended the stream                | accepted or refused once
root-by-another-name      |    1000 | exec    | done    | 1000 frames sent                |
eof-twice                 |     100 | exec    | refused | ended the stream                | after the end of its stream
resize-back               |     100 | exec    | refused | ended the stream                | this direction does not carry
refused-late              |     100 | exec    | refused | ended the stream                | accepted or refused once
exit-before-accepted      |       1 | exec    | refused | ended the stream                | accepted or refused once
data-after-eof            |  100000 | exec    | refused | ended the stream                | after the end of its stream
stdin-back                |  100000 | exec    | refused | ended the stream                | this direction does not carry
silent-start              |       1 | exec    | refused | ended the stream                | does not answer
open-back                 |     100 | exec    | refused | ended the stream                | this direction does not carry
hello-twice               |       1 | nothing | refused | closed by peer                  | the device sent
enrol-as-member           |       1 | nothing | refused | closed by peer                  | the device sent
beat-flood                |  200000 | nothing | done    | 200000 beats sent               |
control-garbage           | 1000000 | nothing | refused | closed by peer                  | the device sent
reconnect-flood           |     100 | nothing | done    | 100 tunnels                     |
join-with-wrong-secret    |      50 | nothing | refused | 50 secrets                      |
hello-never               |      50 | nothing | refused | all connections were closed     |
run-as-stranger           |      50 | nothing | refused | 50 connections                  |
garbage-as-stranger       |      50 | nothing | refused | 50 connections                  |
incoming-flood            |   30000 | listen  | done    |                                 |
incoming-and-drop         |   30000 | serve   | done    |                                 |
incoming-on-agent         |   30000 | agent   | done    |                                 |
incoming-on-session       |   30000 | exec    | refused | ended the stream                | does not have
incoming-on-connect       |   30000 | connect | refused | ended the stream                | does not have
address-flood             |   15000 | connect | refused | ended the stream                | comes once
address-flood-listen      |   15000 | listen  | refused | ended the stream                | comes once
address-on-session        |   15000 | exec    | refused | ended the stream                | does not have
data-on-listener          |  100000 | listen  | refused | ended the stream                | unexpected data
recording-other-output    |       1 | exec    | done    | has taken                       | stdout differs
recording-without-streams |       1 | exec    | done    | has taken                       | does not hold what
offer-unknown             |   20000 | nothing | done    |                                 |
report-unknown            |   20000 | nothing | done    |                                 |
gone-unknown              |   20000 | nothing | done    |                                 |
upload-flood              |      12 | exec    | refused | Tampered                        | longer than the session
invented-input            |       1 | leave   | done    | has taken                       | stdin has more
invented-output           |       1 | leave   | done    | has taken                       |
wrong-start-facts         |       1 | exec    | done    | has taken                       | another user
wrong-exit                |       1 | exec    | done    | has taken                       | exit status is not the one
invented-size             |       1 | exec    | done    | has taken                       | terminal sizes or signals
content-ends-early        |       1 | exec    | done    | has taken                       | content of a stream
invented-command          |       1 | exec    | done    | has taken                       | does not belong
invented-refusal          |       1 | exec    | done    | has taken                       | refused variable
gap-over-forgery          |       1 | exec    | done    | has taken                       |
gap-of-nothing            |       1 | exec    | done    | has taken                       | stdout differs
lying-forward-counts      |       1 | connect | done    | has taken                       | bytes received in it
dropped-forward           |       1 | connect | done    | has taken                       | is missing in it
true-forward-log          |       1 | connect | done    | has taken                       |
sftp-unasked-answer       |       1 | sftp    | done    | has taken                       | not pending
invented-operation        |       1 | sftp    | done    | has taken                       | was not asked for
altered-operation         |       1 | sftp    | done    | has taken                       | its file operations differ
altered-status            |       1 | sftp    | done    | has taken                       | its file operations differ
dropped-operation         |       1 | sftp    | done    | has taken                       | the relay has seen more
swapped-operations        |       1 | sftp    | done    | has taken                       | its file operations differ
unanswered-operation      |       1 | sftp    | done    | has taken                       |
true-operations           |       1 | sftp    | done    | has taken                       |
inventory-flood           |    5000 | nothing | refused | parts were taken                |
inventory-omits           |       1 | exec    | refused | Tampered                        | no longer has it
join-and-wait             |     100 | nothing | refused | connections                     |
";

/// The same of an operator, who is an administrator on the device, or an auditor at the console.
const OPERATORS: &str = "
offer-flood               |     100 | console | refused | after 32 offers
false-proof               |       4 | console | refused | 4 proofs
untrusted-certificate     |       4 | console | refused | 4 certificates
no-version                |      20 | console | refused | 20 connections
channel-flood             |     200 | device  | refused | 136 of 200
forward-flood             |     300 | device  | refused | 300 of 300
listen-flood              |     200 | device  | refused | of 200
window-never              |      20 | device  | done    | commands asked for
spool-without-right       |      64 | console | refused | the command
sftp-long-packet          |       1 | device  | done    | connection
sftp-same-id              |     500 | device  | done    | connection
sftp-open-flood           |    5000 | device  | done    | connection
";

/// Cases that end at a bound in time.
const SLOW: [&str; 3] = ["silent-start", "hello-never", "no-version"];

/// A row of a table.
#[derive(Clone, Copy)]
struct Expected {
    name: &'static str,
    count: u32,
    by: &'static str,
    ends: &'static str,
    words: &'static str,
    reason: &'static str,
}

fn rows(table: &'static str) -> impl Iterator<Item = Expected> {
    table.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut fields = line.split('|').map(str::trim);
        let mut field = || fields.next().unwrap_or_default();
        Expected {
            name: field(),
            count: field().parse().unwrap(),
            by: field(),
            ends: field(),
            words: field(),
            reason: field(),
        }
    })
}

impl Expected {
    fn is_slow(&self) -> bool {
        SLOW.contains(&self.name)
    }

    fn within(&self) -> Duration {
        match self.name {
            // It waits so long, and looks then: a connection has 10 s to say Hello.
            "hello-never" => Duration::from_secs(20),
            _ if self.is_slow() => WITHIN_SLOW,
            _ => WITHIN,
        }
    }

    fn matches(&self, outcome: &Outcome) -> bool {
        match (self.ends, outcome) {
            ("done", Outcome::Done(said)) | ("refused", Outcome::Refused(said)) => {
                said.contains(self.words)
            }
            _ => false,
        }
    }
}

/// A case of a device that is being played.
struct Played {
    expected: Expected,
    hostile: Hostile,
    client: Option<Running>,
}

impl Played {
    /// Lets a device of this name begin with its case.
    #[track_caller]
    fn begin(siege: &Siege, expected: Expected, name: &str) -> Self {
        let by = expected.by;
        let relay = &siege.relay;
        let within = expected.within();
        // What asked to join before may still have the places of joins.
        let device = wait_for(SOON, "the device joins", || {
            let device = Device::new(name);
            let joined = device.join(&relay.token(&[]), &[]);
            joined.status.success().then_some(device)
        });
        let hostile = Hostile::play(relay, device, expected.name, expected.count, within);
        let client = siege.user_of(by, name).map(|mut ssh| {
            relay.wait_state(name, "online", SOON);
            let mut client = Running::start(&mut ssh);
            match by {
                "leave" => {
                    client.wait_out(str::from_utf8(GREETING).unwrap());
                    // It goes without a word.
                    client.signal(Signal::KILL);
                }
                "sftp" => client.write_if_open(str::from_utf8(REMOVALS).unwrap()),
                "connect" => client.write_if_open("abc"),
                _ => {}
            }
            if matches!(by, "connect" | "sftp") {
                client.end_input();
            }
            client
        });
        Self {
            expected,
            hostile,
            client,
        }
    }

    /// Returns whether it is over. An honest device serves for ever.
    fn is_over(&mut self) -> bool {
        match self.expected.ends {
            "never" => self.client.as_mut().is_none_or(|client| !client.is_alive()),
            _ => self.hostile.is_over(),
        }
    }

    /// Returns what is not as the table has it.
    #[track_caller]
    fn fault(self, siege: &Siege) -> Option<String> {
        let reason = self.expected.reason;
        let name = self.hostile.name().to_owned();
        let wrong = match self.expected.ends {
            "never" => {
                let output = self.client.expect("a session").wait(SOON).ok();
                assert_eq!(output.stdout, GREETING, "{name}");
                drop(self.hostile);
                None
            }
            _ => {
                let outcome = self.hostile.outcome(SOON * 3);
                (!self.expected.matches(&outcome)).then_some(outcome)
            }
        };
        let until = Instant::now() + SOON;
        loop {
            let rows = siege.rows(&["--device", &name]);
            let reasons: BTreeSet<_> = rows
                .iter()
                .filter_map(|row| row["reason"].as_str())
                .collect();
            let is_named = reason.is_empty() || reasons.iter().any(|why| why.contains(reason));
            if wrong.is_none() && is_named && rows.len() <= MAX_ROWS {
                return None;
            }
            // The log is written beside the answer.
            if wrong.is_some() || Instant::now() > until {
                return Some(format!(
                    "{name}: {wrong:?}, {} rows with {reasons:?}",
                    rows.len()
                ));
            }
        }
    }
}

#[test]
fn every_case_of_a_device_ends_as_it_should() {
    let mut siege = Siege::new();
    let slow = rows(DEVICES).filter(Expected::is_slow);
    let slow = slow.map(|case| Played::begin(&siege, case, case.name));
    let slow: Vec<_> = slow.collect();
    let mut faults = Vec::new();
    for case in rows(DEVICES).filter(|case| !case.is_slow()) {
        // A case that disturbs does so each time that it is played; what else the machine does may disturb once.
        let mut looks = 0..LOOKS;
        let disturbs = looks.all(|look| {
            let name = format!("{}-{look}", case.name);
            let mut played = Played::begin(&siege, case, &name);
            let slow = siege.is_borne_until(&name, || played.is_over());
            faults.extend(played.fault(&siege));
            slow.is_some()
        });
        if disturbs {
            faults.push(format!("{}: another user waits, see above", case.name));
        }
    }
    for played in slow {
        faults.extend(played.fault(&siege));
    }
    siege.is_borne("all of them");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let lines = siege.relay.log().lines().count();
    assert!(lines < MAX_LINES, "{lines} lines of log");
    // What was stored of recordings is what their sessions can have been.
    let stored = bytes_in(&siege.relay.state().join("recordings"));
    assert!(stored < 16 << 20, "{stored} bytes of recordings");
}

#[test]
fn every_case_of_an_operator_ends_as_it_should() {
    let mut siege = Siege::new();
    let eve = siege.relay.user("eve", &["auditor"]);
    let device = format!("{}+kitchen-cam", own_login());
    let begin = |siege: &Siege, case: Expected| {
        let (by, user) = match case.by {
            "device" => (&siege.alice, device.as_str()),
            _ => (&eve, "eve"),
        };
        let target = siege.operated(by, user, case.count, case.within());
        let played = of_operator(case.name).unwrap();
        thread::spawn(move || block_on(operator::play(played, target)).unwrap())
    };
    let fault = |case: Expected, outcome: Outcome| {
        (!case.matches(&outcome)).then(|| format!("{}: {outcome:?}", case.name))
    };
    let slow = rows(OPERATORS).filter(Expected::is_slow);
    let slow: Vec<_> = slow.map(|case| (case, begin(&siege, case))).collect();
    let mut faults = Vec::new();
    for case in rows(OPERATORS).filter(|case| !case.is_slow()) {
        // Each file operation has a row, however many are asked for.
        let operations = match case.name.starts_with("sftp") {
            true => usize::try_from(case.count).unwrap(),
            false => 0,
        };
        let disturbs = (0..LOOKS).all(|_| {
            let before = siege.rows(&[]).len();
            let playing = begin(&siege, case);
            let slow = siege.is_borne_until(case.name, || playing.is_finished());
            faults.extend(fault(case, playing.join().unwrap()));
            let caused = siege.rows(&[]).len() - before;
            if caused > MAX_ROWS + operations {
                faults.push(format!("{}: {caused} rows", case.name));
            }
            slow.is_some()
        });
        if disturbs {
            faults.push(format!("{}: another user waits, see above", case.name));
        }
    }
    for (case, playing) in slow {
        faults.extend(fault(case, playing.join().unwrap()));
    }
    siege.is_borne("all of them");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let lines = siege.relay.log().lines().count();
    assert!(lines < MAX_LINES, "{lines} lines of log");
}

#[test]
fn every_case_of_the_list_has_an_expected_outcome() {
    let expected = |table| rows(table).map(|case| case.name).collect::<BTreeSet<_>>();
    let devices = of_devices().into_iter().map(|case| case.name);
    assert_eq!(devices.collect::<BTreeSet<_>>(), expected(DEVICES));
    let operators = of_operators().into_iter().map(|case| case.name);
    assert_eq!(operators.collect::<BTreeSet<_>>(), expected(OPERATORS));
}
