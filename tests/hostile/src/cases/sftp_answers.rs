//! Devices that answer in an sftp session what they may not.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::recording::record::{EndReason, Event, Stream};
use holdfast_protocol::wire::{Exit, Open};

use crate::Outcome;
use crate::device::{DeviceCase, HeardFrames, HostileDevice, HostileSession, Lie, Tape, tape};

/// `SSH_FXP_VERSION`: version 3 of SFTP.
const VERSION: [u8; 9] = [0, 0, 0, 5, 2, 0, 0, 0, 3];

/// A status that says that request number 0x7777 went well.
const UNASKED: [u8; 17] = [0, 0, 0, 13, 101, 0, 0, 0x77, 0x77, 0, 0, 0, 0, 0, 0, 0, 0];

/// The table.
pub const CASES: &[DeviceCase] = &[DeviceCase {
    name: "sftp-unasked-answer",
    what: "Answers an sftp request that was not made, and does not record that.",
    lie: Lie::Session {
        on: is_sftp,
        play: |device, session| Box::pin(unasked(device, session)),
    },
}];

/// Returns whether it is a recorded session of sftp.
#[must_use]
pub fn is_sftp(open: &Open) -> bool {
    open.request.is_sftp() && tape::terms(open).is_some()
}

async fn unasked(device: Arc<HostileDevice>, mut session: HostileSession) -> Result<Outcome> {
    let mut tape = Tape::begin(&device, &session.open).unwrap();
    session.say(&SessionMessage::Accepted).await?;
    // The client's version comes first.
    if let Some(HeardFrames::Data(_, bytes, remaining)) = session.next().await {
        tape.piece(Stream::Stdin, &bytes, remaining);
    }
    for answer in [&VERSION[..], &UNASKED] {
        session.data(DataStream::Stdout, answer).await?;
        tape.frame(Stream::Stdout, answer);
    }
    session.say(&SessionMessage::Eof).await?;
    session.say(&SessionMessage::Exit(Exit::Status(0))).await?;
    let _ = session.send.finish();
    while let Some(heard) = session.next().await {
        if let HeardFrames::Data(_, bytes, remaining) = heard {
            tape.piece(Stream::Stdin, &bytes, remaining);
        }
    }
    tape.event(Event::Exit(Exit::Status(0)));
    match device.upload(&tape.end(EndReason::Exited)).await {
        Ok(()) => Ok(Outcome::Done(
            "the relay has taken the recording".to_owned(),
        )),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}
