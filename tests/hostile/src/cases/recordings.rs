//! Recordings that are not what passed, and uploads that no session asked for.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::control;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::{EndReason, Event, Stream};
use holdfast_protocol::recording::segment::SegmentLink;
use holdfast_protocol::wire::{
    Exit, OfferedSegment, Open, SegmentGone, SegmentLost, SessionFinished, UploadAnswer,
    UploadMessage,
};

use super::sessions::is_process;
use crate::Outcome;
use crate::device::{
    ControlStream, DeviceCase, GREETING, HostileDevice, HostileSession, Lie, Tape, tape,
};

/// Output that is claimed and never passed.
pub const INVENTED: &[u8] = b"nothing happened here\n";

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "recording-other-output",
        what: "Shows one line and records another.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(other_output(device, session)),
        },
    },
    DeviceCase {
        name: "recording-without-streams",
        what: "Says that the data of a command is only counted, and records an invented line.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(without_streams(device, session)),
        },
    },
    DeviceCase {
        name: "offer-unknown",
        what: "Offers COUNT segments of sessions that never were.",
        lie: Lie::Tunnel(|device| Box::pin(unknown(device, offer))),
    },
    DeviceCase {
        name: "report-unknown",
        what: "Reports the end of COUNT recordings that never were.",
        lie: Lie::Tunnel(|device| Box::pin(unknown(device, finished))),
    },
    DeviceCase {
        name: "gone-unknown",
        what: "Reports the loss of COUNT segments that never were.",
        lie: Lie::Tunnel(|device| Box::pin(unknown(device, gone))),
    },
];

/// Returns whether it is a process that is recorded.
#[must_use]
pub fn is_recorded(open: &Open) -> bool {
    is_process(open) && tape::terms(open).is_some()
}

/// Plays a command that prints one line, whose recording `forge` makes.
///
/// # Errors
/// The relay takes nothing more.
pub async fn forged(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
    forge: impl FnOnce(&HostileDevice, &Open) -> tape::Sealed + Send,
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    session.data(DataStream::Stdout, GREETING).await?;
    session.say(&SessionMessage::Eof).await?;
    session.say(&SessionMessage::Exit(Exit::Status(0))).await?;
    let _ = session.send.finish();
    while session.next().await.is_some() {}
    let sealed = forge(&device, &session.open);
    match device.upload(&sealed).await {
        Ok(()) => Ok(Outcome::Done(
            "the relay has taken the recording".to_owned(),
        )),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}

async fn other_output(device: Arc<HostileDevice>, session: HostileSession) -> Result<Outcome> {
    forged(device, session, |device, open| {
        let mut tape = Tape::begin(device, open).unwrap();
        tape.frame(Stream::Stdout, INVENTED);
        close(tape)
    })
    .await
}

async fn without_streams(device: Arc<HostileDevice>, session: HostileSession) -> Result<Outcome> {
    forged(device, session, |device, open| {
        let mut start = tape::facts(device, open, tape::terms(open).unwrap());
        start.streams = false;
        let mut tape = Tape::begin_with(device, open, start).unwrap();
        tape.conceal(Stream::Stdout, GREETING, 0);
        tape.claim(Stream::Stdout, INVENTED, 0);
        close(tape)
    })
    .await
}

/// The end of a command that went well.
#[must_use]
pub fn close(mut tape: Tape) -> tape::Sealed {
    tape.event(Event::Eof(Stream::Stdout));
    tape.event(Event::Exit(Exit::Status(0)));
    tape.end(EndReason::Exited)
}

fn session(number: u32) -> SessionId {
    let [a, b, c, d] = number.to_be_bytes();
    SessionId([a, b, c, d, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9])
}

fn offer(number: u32) -> UploadMessage {
    UploadMessage::Offer(OfferedSegment {
        session: session(number),
        segment: 0,
        length: 1 << 20,
        hash: SegmentLink([1; 32]),
        closed: true,
    })
}

fn finished(number: u32) -> UploadMessage {
    UploadMessage::Finished(SessionFinished {
        session: session(number),
        why: Some(EndReason::Exited),
        segments: 1,
        hash: SegmentLink([1; 32]),
    })
}

fn gone(number: u32) -> UploadMessage {
    UploadMessage::Gone(SegmentGone {
        session: session(number),
        segment: 0,
        why: SegmentLost::Missing,
    })
}

/// Says it COUNT times on one upload stream, and counts what is answered.
async fn unknown(device: Arc<HostileDevice>, message: fn(u32) -> UploadMessage) -> Result<Outcome> {
    let stream: ControlStream<UploadAnswer> = device.upload_stream().await?;
    let (mut send, mut answers) = stream.split();
    let count = device.count();
    let writing = async {
        for number in 0..count {
            let bytes = control::encode(&message(number)).unwrap();
            if send.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = send.finish();
    };
    let reading = async {
        let mut answered = 0_u32;
        while answers.next().await.is_some() {
            answered += 1;
        }
        answered
    };
    let both = async { tokio::join!(writing, reading) };
    match tokio::time::timeout(device.door.run.within, both).await {
        Ok(((), answered)) => Ok(Outcome::Done(format!(
            "{answered} of {count} were answered"
        ))),
        Err(_) => Ok(Outcome::Done("the relay holds the flood back".to_owned())),
    }
}
