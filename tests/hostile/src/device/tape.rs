//! A recording that a case seals itself. What passes on the wire and what is written down are two calls, so that
//! they can differ.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::MAX_RECORD_DATA;
use holdfast_protocol::recording::chain::{Chain, DigestPoint};
use holdfast_protocol::recording::record::{
    EndReason, Event, Record, RecordedBytes, RecordedTerminal, RecordingEnd, RecordingStart,
    Redacted, StartedWork, Stream,
};
use holdfast_protocol::recording::seal::SealSeed;
use holdfast_protocol::recording::segment::{SegmentLink, SegmentWriter};
use holdfast_protocol::wire::{Open, RecordingMode, RecordingTerms, StdinMode};

use super::HostileDevice;

/// A recording of one segment, as it is written.
pub struct Tape {
    session: SessionId,
    chains: [Chain; 3],
    writer: SegmentWriter,
    bytes: Vec<u8>,
    stdin: StdinMode,
    holds_data: bool,
    hidden: usize,
    begun: bool,
    at: u64,
    /// Microseconds between two records.
    pub pace: u64,
}

/// A recording that is closed.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The session that it is of.
    pub session: SessionId,
    /// Its only segment.
    pub bytes: Vec<u8>,
    /// The chain behind it.
    pub hash: SegmentLink,
    /// The reason that the device reports.
    pub why: EndReason,
}

impl Tape {
    /// Begins the recording that the relay asks for, with true facts; `None` if it asks for none.
    #[must_use]
    pub fn begin(device: &HostileDevice, open: &Open) -> Option<Self> {
        let terms = terms(open)?;
        let mut tape = Self::blank(device, open.session, terms)?;
        tape.holds_data = holds_data(open);
        let (_, rest) = StartedWork::of(&open.request);
        tape.event(Event::Start(facts(device, open, terms)));
        for part in rest.chunks(MAX_RECORD_DATA) {
            tape.event(Event::CommandLine(RecordedBytes(part)));
        }
        Some(tape)
    }

    /// Begins a recording whose `RecordingStart` a case has made; see [`facts`] for true ones.
    #[must_use]
    pub fn begin_with(
        device: &HostileDevice,
        open: &Open,
        start: RecordingStart<'_>,
    ) -> Option<Self> {
        let mut tape = Self::blank(device, open.session, terms(open)?)?;
        tape.holds_data = start.streams;
        tape.event(Event::Start(start));
        Some(tape)
    }

    fn blank(device: &HostileDevice, session: SessionId, terms: &RecordingTerms) -> Option<Self> {
        let key = device.door.membership.roster().recording?;
        let mut seed = [0; 32];
        use ring::rand::SecureRandom as _;
        ring::rand::SystemRandom::new().fill(&mut seed).unwrap();
        let (mut seed, mut bytes) = (SealSeed::new(seed), vec![]);
        let before = SegmentLink::first(&session);
        let writer = SegmentWriter::begin(session, 0, before, &key, &mut seed, &mut bytes);
        Some(Self {
            session,
            chains: Stream::ALL.map(|stream| Chain::new(&terms.key, stream)),
            writer: writer.unwrap(),
            bytes,
            stdin: terms.stdin,
            holds_data: true,
            hidden: 0,
            begun: false,
            at: 0,
            pace: 1_000,
        })
    }

    /// Writes any record.
    pub fn event(&mut self, event: Event<'_>) {
        // The first record has no record before it.
        let delta = if std::mem::replace(&mut self.begun, true) {
            self.pace
        } else {
            0
        };
        self.at += delta;
        let record = Record { delta, event };
        self.writer.push(&record, self.at, &mut self.bytes).unwrap();
    }

    /// A whole frame that passed and is written down.
    pub fn frame(&mut self, stream: Stream, bytes: &[u8]) {
        self.piece(stream, bytes, 0);
    }

    /// A piece of a frame that passed, of which `remaining` bytes are still to come, and that is written down.
    pub fn piece(&mut self, stream: Stream, bytes: &[u8], remaining: usize) {
        let tag = self.chains[stream.index()].update(bytes, remaining);
        if !self.holds_data {
            return;
        }
        if stream == Stream::Stdin && self.stdin == StdinMode::Off {
            self.hidden += bytes.len();
            if let Some(tag) = tag {
                let length = u32::try_from(std::mem::take(&mut self.hidden)).unwrap();
                self.event(Event::Redacted(Redacted { length, tag }));
            }
            return;
        }
        self.claim(stream, bytes, remaining);
    }

    /// A piece of a frame that passed and is not written down.
    pub fn conceal(&mut self, stream: Stream, bytes: &[u8], remaining: usize) {
        self.chains[stream.index()].update(bytes, remaining);
    }

    /// A piece of a frame that is written down and did not pass.
    pub fn claim(&mut self, stream: Stream, bytes: &[u8], remaining: usize) {
        let parts = bytes.chunks(MAX_RECORD_DATA).count();
        for (index, part) in bytes.chunks(MAX_RECORD_DATA).enumerate() {
            let whole = remaining == 0 && index + 1 == parts;
            let event = if whole { Event::Data } else { Event::Part };
            self.event(event(stream, RecordedBytes(part)));
        }
    }

    /// Returns the points of the streams' chains.
    #[must_use]
    pub fn points(&self) -> [DigestPoint; 3] {
        [0, 1, 2].map(|index: usize| self.chains[index].point())
    }

    /// Ends it with a true end.
    #[must_use]
    pub fn end(self, why: EndReason) -> Sealed {
        let streams = self.points();
        self.end_with(RecordingEnd { why, streams })
    }

    /// Ends it with an end that a case has made.
    #[must_use]
    pub fn end_with(mut self, end: RecordingEnd) -> Sealed {
        let why = end.why;
        self.event(Event::End(end));
        let hash = self.writer.close(true, &mut self.bytes).unwrap();
        Sealed {
            session: self.session,
            bytes: self.bytes,
            hash,
            why,
        }
    }
}

/// Returns what the `RecordingStart` of a recording says in truth.
#[must_use]
pub fn facts<'a>(
    device: &HostileDevice,
    open: &'a Open,
    terms: &RecordingTerms,
) -> RecordingStart<'a> {
    let env = open.env.iter();
    RecordingStart {
        session: open.session,
        device: device.welcome.membership.id,
        name: device.welcome.membership.name.clone(),
        agent: env!("CARGO_PKG_VERSION"),
        user: open.user.clone(),
        login: open.login.clone(),
        work: StartedWork::of(&open.request).0,
        terminal: open.pty.as_ref().map(|pty| RecordedTerminal {
            term: &pty.term,
            size: pty.size,
        }),
        env: env.map(|(name, value)| (&**name, &**value)).collect(),
        client: open.client,
        wall: wall_clock(),
        monotonic: 1_000_000,
        mode: terms.mode,
        stdin: terms.stdin,
        streams: holds_data(open),
        volatile: false,
    }
}

/// Microseconds since 1970.
#[must_use]
pub fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(0)
}

/// The terms under which a session is recorded, if it is.
#[must_use]
pub fn terms(open: &Open) -> Option<&RecordingTerms> {
    let terms = open.recording.as_ref();
    terms.filter(|terms| terms.mode != RecordingMode::Off)
}

fn holds_data(open: &Open) -> bool {
    !open.request.is_forward_log() && !open.request.is_sftp()
}
