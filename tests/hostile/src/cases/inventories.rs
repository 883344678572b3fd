//! Lists of recordings that are endless, or not true.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::INVENTORY_PART;
use holdfast_protocol::recording::record::Stream;
use holdfast_protocol::wire::{Exit, InventoryPart, SegmentLost, UploadAnswer, UploadMessage};

use super::recordings::{close, is_recorded};
use crate::Outcome;
use crate::device::{DeviceCase, GREETING, HostileDevice, HostileSession, Lie, Tape};

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "inventory-flood",
        what: "Lists COUNT parts of recordings that never were, on as many streams as it takes.",
        lie: Lie::Tunnel(|device| Box::pin(flood(device))),
    },
    DeviceCase {
        name: "inventory-omits",
        what: "Leaves the recording of a command out of its inventory after a restart, and uploads it then.",
        lie: Lie::Session {
            on: is_recorded,
            play: |device, session| Box::pin(omits(device, session)),
        },
    },
];

/// Refused streams in a row after which it gives up.
const TRIES: u32 = 8;

fn part(number: u32, sessions: Vec<SessionId>, last: bool) -> UploadMessage {
    UploadMessage::Inventory(InventoryPart {
        part: number,
        age: 0,
        why: SegmentLost::Missing,
        sessions,
        last,
    })
}

async fn flood(device: Arc<HostileDevice>) -> Result<Outcome> {
    let count = device.count();
    let (mut taken, mut refused) = (0, 0);
    while taken < count && refused < TRIES {
        let mut stream = device.upload_stream().await?;
        let mut number = 0;
        loop {
            let sessions = vec![SessionId([9; 16]); INVENTORY_PART];
            // The answer decides.
            let _ = stream.say(&part(number, sessions, false)).await;
            match stream.next().await {
                Some(UploadAnswer::Listed(_)) => (taken, number) = (taken + 1, number + 1),
                Some(answer) => bail!("the relay answered {answer:?}"),
                None => break,
            }
            if taken == count {
                break;
            }
        }
        refused = if number == 0 { refused + 1 } else { 0 };
    }
    let what = format!("{taken} of {count} parts were taken");
    Ok(match taken < count {
        true => Outcome::Refused(what),
        false => Outcome::Done(what),
    })
}

async fn omits(device: Arc<HostileDevice>, mut session: HostileSession) -> Result<Outcome> {
    let mut tape = Tape::begin(&device, &session.open).context("it is not recorded")?;
    session.say(&SessionMessage::Accepted).await?;
    session.data(DataStream::Stdout, GREETING).await?;
    tape.frame(Stream::Stdout, GREETING);
    session.say(&SessionMessage::Eof).await?;
    session.say(&SessionMessage::Exit(Exit::Status(0))).await?;
    let _ = session.send.finish();
    while session.next().await.is_some() {}
    let sealed = close(tape);
    let device = HostileDevice::stand(device.door.clone()).await?;
    let mut stream = device.upload_stream().await?;
    stream.say(&part(0, vec![], true)).await?;
    match stream.next().await {
        Some(UploadAnswer::Listed(0)) => {}
        answer => bail!("the relay answered {answer:?}"),
    }
    match device.upload(&sealed).await {
        Ok(()) => Ok(Outcome::Done(
            "the relay has taken the recording".to_owned(),
        )),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}
