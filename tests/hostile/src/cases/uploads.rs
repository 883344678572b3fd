//! Uploads that are in good order, and far more than the session can have been.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use holdfast_protocol::limits::MAX_RECORD_DATA;
use holdfast_protocol::recording::record::{Event, Record, RecordedBytes, Stream};
use holdfast_protocol::recording::seal::SealSeed;
use holdfast_protocol::recording::segment::{SegmentLink, SegmentWriter};
use holdfast_protocol::wire::{Exit, OfferedSegment, Open, SegmentRefused, UploadAnswer};
use ring::rand::SecureRandom as _;
use tokio::time::sleep;

use super::recordings::is_recorded;
use crate::Outcome;
use crate::device::{DeviceCase, HostileDevice, HostileSession, Lie, tape};
use holdfast_protocol::codec::frame::SessionMessage;

/// The table.
pub const CASES: &[DeviceCase] = &[DeviceCase {
    name: "upload-flood",
    what: "Runs a command that prints nothing, and uploads COUNT full segments of noise as its recording.",
    lie: Lie::Session {
        on: is_recorded,
        play: |device, session| Box::pin(flood(device, session)),
    },
}];

/// The time until a segment that was refused for now is offered again.
const AGAIN: Duration = Duration::from_millis(200);

async fn flood(device: Arc<HostileDevice>, mut session: HostileSession) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    session.say(&SessionMessage::Eof).await?;
    session.say(&SessionMessage::Exit(Exit::Status(0))).await?;
    let _ = session.send.finish();
    while session.next().await.is_some() {}
    let mut noise = Noise::of(&device, &session.open)?;
    let mut stream = device.upload_stream().await?;
    let mut stored = 0_u64;
    for number in 0..device.count() {
        let (bytes, hash) = noise.segment()?;
        let offer = OfferedSegment {
            session: session.open.session,
            segment: number,
            length: bytes.len() as u64,
            hash,
            closed: true,
        };
        loop {
            match device.upload_segment(&mut stream, &offer, &bytes).await? {
                UploadAnswer::Stored(_) => break,
                UploadAnswer::Refused(refusal) if refusal.why == SegmentRefused::Unavailable => {
                    sleep(AGAIN).await;
                }
                answer => {
                    let what = format!("behind {number} segments, {stored} bytes: {answer:?}");
                    return Ok(Outcome::Refused(what));
                }
            }
        }
        stored += bytes.len() as u64;
    }
    Ok(Outcome::Done(format!(
        "the relay has stored {stored} bytes"
    )))
}

/// Segments of noise, each of which follows from the one before it.
struct Noise {
    session: holdfast_protocol::ids::SessionId,
    key: holdfast_protocol::recording::seal::RecordingKey,
    seed: SealSeed,
    index: u32,
    before: SegmentLink,
    /// The segment that has begun.
    open: Option<(SegmentWriter, Vec<u8>)>,
}

impl Noise {
    fn of(device: &HostileDevice, open: &Open) -> Result<Self> {
        let key = device.door.membership.roster().recording;
        let mut noise = Self {
            session: open.session,
            key: key.context("the roster has no recording key")?,
            seed: SealSeed::new(random()?),
            index: 0,
            before: SegmentLink::first(&open.session),
            open: None,
        };
        let terms = tape::terms(open).context("the session is not recorded")?;
        noise.push(Event::Start(tape::facts(device, open, terms)))?;
        Ok(noise)
    }

    fn push(&mut self, event: Event<'_>) -> Result<bool> {
        if self.open.is_none() {
            let mut bytes = Vec::new();
            let (seed, key) = (&mut self.seed, &self.key);
            let writer =
                SegmentWriter::begin(self.session, self.index, self.before, key, seed, &mut bytes)
                    .map_err(|_| anyhow::anyhow!("a segment cannot begin"))?;
            self.open = Some((writer, bytes));
        }
        let (writer, bytes) = self.open.as_mut().context("it has begun")?;
        let record = Record { delta: 0, event };
        let pushed = writer.push(&record, 0, bytes);
        pushed.map_err(|_| anyhow::anyhow!("a record cannot be written"))?;
        Ok(writer.is_full())
    }

    /// The next segment and the chain behind it.
    fn segment(&mut self) -> Result<(Vec<u8>, SegmentLink)> {
        loop {
            let noise: [u8; MAX_RECORD_DATA] = random()?;
            if self.push(Event::Part(Stream::Stdout, RecordedBytes(&noise)))? {
                break;
            }
        }
        let (writer, mut bytes) = self.open.take().context("it has begun")?;
        let closed = writer.close(false, &mut bytes);
        self.before = closed.map_err(|_| anyhow::anyhow!("a segment cannot be closed"))?;
        self.index += 1;
        Ok((bytes, self.before))
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow::anyhow!("there are no random numbers"))?;
    Ok(bytes)
}
