//! Recordings that a device invents in part, of sessions that ended in any way.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::ids::{Login, UserName};
use holdfast_protocol::recording::chain::DigestPoint;
use holdfast_protocol::recording::record::{
    CommandRun, ContentEnds, EndReason, EnvironmentRefused, Event, Gap, GapReason, RecordedBytes,
    Stream,
};
use holdfast_protocol::wire::{Exit, Open, WindowSize};

use super::recordings::{INVENTED, close, forged, is_recorded};
use crate::Outcome;
use crate::device::{DeviceCase, GREETING, HostileDevice, HostileSession, Lie, Tape, tape};

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "invented-input",
        what: "Records a typed line that was not sent, behind the cut of its session.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(behind_a_cut(device, session, Stream::Stdin)),
        },
    },
    DeviceCase {
        name: "invented-output",
        what: "Records a line that was never shown, behind the cut of its session.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(behind_a_cut(device, session, Stream::Stdout)),
        },
    },
    DeviceCase {
        name: "wrong-start-facts",
        what: "Records a true session as that of another user and account.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(wrong_start(device, session)),
        },
    },
    DeviceCase {
        name: "wrong-exit",
        what: "Records another exit status than it has sent.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(wrong_exit(device, session)),
        },
    },
    DeviceCase {
        name: "invented-size",
        what: "Records a change of the terminal's size that was not sent.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(invented_size(device, session)),
        },
    },
    DeviceCase {
        name: "content-ends-early",
        what: "Says that the content of the output ends before its first line, and keeps none of it.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(content_ends_early(device, session)),
        },
    },
    DeviceCase {
        name: "invented-command",
        what: "Lists a program in the recording of a command without a terminal.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(invented_command(device, session)),
        },
    },
    DeviceCase {
        name: "invented-refusal",
        what: "Says that a variable was not set which was not sent.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(invented_refusal(device, session)),
        },
    },
    DeviceCase {
        name: "gap-over-forgery",
        what: "Records an invented line, and a gap behind which the true output goes on.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(gap(device, session, true)),
        },
    },
    DeviceCase {
        name: "gap-of-nothing",
        what: "Records an invented line in place of a true one, and a gap in which no byte is missing.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(gap(device, session, false)),
        },
    },
];

/// The lines that `gap-over-forgery` and `gap-of-nothing` print.
const LINES: [&[u8]; 3] = [b"first true\n", b"second one\n", b"third true\n"];
const FORGED: &[u8] = b"all denied\n";

/// Shows a line, waits until the relay cuts the session off, and records one more on a stream.
async fn behind_a_cut(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
    stream: Stream,
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    session.data(DataStream::Stdout, GREETING).await?;
    while session.next().await.is_some() {}
    let mut tape = Tape::begin(&device, &session.open).unwrap();
    tape.frame(Stream::Stdout, GREETING);
    tape.frame(stream, INVENTED);
    match device.upload(&tape.end(EndReason::ClientGone)).await {
        Ok(()) => Ok(Outcome::Done(
            "the relay has taken the recording".to_owned(),
        )),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}

async fn wrong_start(device: Arc<HostileDevice>, session: HostileSession) -> Result<Outcome> {
    forged(device, session, |device, open| {
        let mut start = tape::facts(device, open, tape::terms(open).unwrap());
        start.user = UserName::new("mallory").unwrap();
        start.login = Login::new("daemon").unwrap();
        let mut tape = Tape::begin_with(device, open, start).unwrap();
        tape.frame(Stream::Stdout, GREETING);
        close(tape)
    })
    .await
}

async fn wrong_exit(device: Arc<HostileDevice>, session: HostileSession) -> Result<Outcome> {
    forged(device, session, |device, open| {
        let mut tape = shown(device, open);
        tape.event(Event::Exit(Exit::Status(3)));
        tape.end(EndReason::Exited)
    })
    .await
}

async fn invented_size(device: Arc<HostileDevice>, session: HostileSession) -> Result<Outcome> {
    forged(device, session, |device, open| {
        let mut tape = shown(device, open);
        tape.event(Event::Resize(WindowSize::clamped(1, 1, 0, 0)));
        close(tape)
    })
    .await
}

async fn content_ends_early(
    device: Arc<HostileDevice>,
    session: HostileSession,
) -> Result<Outcome> {
    forged(device, session, |device, open| {
        let mut tape = Tape::begin(device, open).unwrap();
        let [_, from, _] = tape.points();
        let stream = Stream::Stdout;
        tape.event(Event::ContentEnds(ContentEnds { stream, from }));
        tape.conceal(stream, GREETING, 0);
        close(tape)
    })
    .await
}

async fn invented_command(device: Arc<HostileDevice>, session: HostileSession) -> Result<Outcome> {
    forged(device, session, |device, open| {
        let mut tape = shown(device, open);
        tape.event(Event::Command(CommandRun {
            pid: 7,
            parent: 1,
            argv: vec![RecordedBytes(b"/bin/invented")],
            cut: false,
            cwd: None,
        }));
        close(tape)
    })
    .await
}

async fn invented_refusal(device: Arc<HostileDevice>, session: HostileSession) -> Result<Outcome> {
    forged(device, session, |device, open| {
        let mut tape = shown(device, open);
        tape.event(Event::EnvironmentRefused(EnvironmentRefused {
            names: vec!["INVENTED"],
            more: 0,
        }));
        close(tape)
    })
    .await
}

/// Prints three lines and records another one in place of the first; the second is missing, if `is_missing`.
async fn gap(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
    is_missing: bool,
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    for line in LINES {
        session.data(DataStream::Stdout, line).await?;
    }
    session.say(&SessionMessage::Eof).await?;
    session.say(&SessionMessage::Exit(Exit::Status(0))).await?;
    let _ = session.send.finish();
    while session.next().await.is_some() {}
    let mut tape = Tape::begin(&device, &session.open).unwrap();
    let [first, second, third] = LINES;
    tape.conceal(Stream::Stdout, first, 0);
    // A frame without an end: the relay has no point in it.
    tape.claim(Stream::Stdout, FORGED, 1);
    if is_missing {
        tape.conceal(Stream::Stdout, second, 0);
    }
    let after: [DigestPoint; 3] = tape.points();
    tape.event(Event::Gap(Gap {
        micros: 0,
        bytes: [0, if is_missing { second.len() as u64 } else { 0 }, 0],
        after,
        records: 0,
        why: GapReason::SpoolFull,
    }));
    if !is_missing {
        tape.frame(Stream::Stdout, second);
    }
    tape.frame(Stream::Stdout, third);
    match device.upload(&close(tape)).await {
        Ok(()) => Ok(Outcome::Done(
            "the relay has taken the recording".to_owned(),
        )),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}

/// A true recording so far.
fn shown(device: &HostileDevice, open: &Open) -> Tape {
    let mut tape = Tape::begin(device, open).unwrap();
    tape.frame(Stream::Stdout, GREETING);
    tape
}
