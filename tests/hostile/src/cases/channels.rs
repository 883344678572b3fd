//! Operators who are logged in and misuse channels.

use anyhow::Result;

use crate::Outcome;
use crate::operator::raw::{self, Raw, SshMessage};
use crate::operator::{OperatorCase, OperatorTarget, open, request};

/// The table.
pub const CASES: &[OperatorCase] = &[
    OperatorCase {
        name: "channel-flood",
        what: "Opens COUNT session channels on one connection.",
        run: |target| flood(target, |number| open(number, 1 << 20, 1 << 15)),
    },
    OperatorCase {
        name: "forward-flood",
        what: "Opens COUNT channels to a port of the device on one connection.",
        run: |target| {
            flood(target, |number| {
                let open = SshMessage::new(raw::CHANNEL_OPEN).string("direct-tcpip");
                let open = open.number(number).number(1 << 20).number(1 << 15);
                let open = open.string("localhost").number(9);
                open.string("127.0.0.1").number(1)
            })
        },
    },
    OperatorCase {
        name: "listen-flood",
        what: "Asks COUNT times to have a port opened on the device.",
        run: |target| {
            flood(target, |_| {
                let ask = SshMessage::new(raw::GLOBAL_REQUEST).string("tcpip-forward");
                ask.byte(1).string("localhost").number(0)
            })
        },
    },
    OperatorCase {
        name: "window-never",
        what: "Runs a command COUNT times on channels that never take any output.",
        run: |target| {
            let mut raw = target.login()?;
            for number in 0..target.count {
                raw.say(open(number, 0, 1 << 15));
                let Some(channel) = raw.opened() else {
                    return Ok(Outcome::Refused(format!("after {number} channels")));
                };
                raw.say(request(channel, "exec", true).string("true"));
            }
            ends(raw, target, "commands asked for")
        },
    },
    OperatorCase {
        name: "spool-without-right",
        what: "Feeds COUNT MiB to `cp` at the console and never ends it.",
        run: spool,
    },
];

fn flood(target: &OperatorTarget, message: impl Fn(u32) -> SshMessage) -> Result<Outcome> {
    let mut raw = target.login()?;
    let mut refused = 0;
    for number in 0..target.count {
        if raw.try_say(&message(number)).is_err() {
            return Ok(Outcome::Refused(format!("the connection, after {number}")));
        }
        let answer = loop {
            match raw.next() {
                None => return Ok(Outcome::Refused(format!("the connection, after {number}"))),
                Some(answer) if matches!(answer[0], 81 | 82 | 91 | 92) => break answer,
                Some(_) => {}
            }
        };
        if matches!(answer[0], raw::CHANNEL_OPEN_FAILURE | 82) {
            refused += 1;
        }
    }
    Ok(match refused {
        0 => Outcome::Done(format!("{} were taken", target.count)),
        refused => Outcome::Refused(format!("{refused} of {}", target.count)),
    })
}

fn ends(mut raw: Raw, target: &OperatorTarget, what: &str) -> Result<Outcome> {
    Ok(match raw.ends(target.within) {
        true => Outcome::Refused(format!("{what}; the relay closed the connection")),
        false => Outcome::Done(format!("{what}; the connection is still open")),
    })
}

fn spool(target: &OperatorTarget) -> Result<Outcome> {
    let mut raw = target.login()?;
    raw.set_timeout(target.within);
    raw.say(open(0, 1 << 20, 1 << 15));
    let Some(channel) = raw.opened() else {
        return Ok(Outcome::Refused("the channel".to_owned()));
    };
    raw.say(request(channel, "exec", true).string("cp - --on '*:/tmp/never'"));
    let part = [0x61; 32 * 1024 - 16];
    let data = SshMessage::new(raw::CHANNEL_DATA)
        .number(channel)
        .string(part);
    let parts = u64::from(target.count) * 1024 * 1024 / part.len() as u64;
    let (mut window, mut sent) = (0_u64, 0_u64);
    while sent < parts {
        // It keeps the window, because a relay that ends the channel says so between its adjustments.
        while window < part.len() as u64 {
            let Some(answer) = raw.next() else {
                return Ok(Outcome::Refused(format!(
                    "the connection, after {sent} packets"
                )));
            };
            match answer[0] {
                raw::CHANNEL_OPEN_CONFIRMATION | raw::CHANNEL_SUCCESS => {}
                raw::CHANNEL_WINDOW_ADJUST => {
                    window += u64::from(raw::PacketFields::of(&answer[4..]).number());
                }
                raw::CHANNEL_CLOSE | raw::CHANNEL_EOF | raw::CHANNEL_FAILURE => {
                    return Ok(Outcome::Refused(format!(
                        "the command, after {sent} packets"
                    )));
                }
                _ => {}
            }
        }
        if raw.try_say(&data).is_err() {
            return Ok(Outcome::Refused(format!(
                "the connection, after {sent} packets"
            )));
        }
        window -= part.len() as u64;
        sent += 1;
    }
    ends(raw, target, "all of it sent")
}
