//! One session that is being recorded: from records to the bytes of its segments.

mod gap;
mod writing;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use self::gap::OpenGap;
use self::writing::Failing;
use super::content::Content;
use super::share::SpoolShare;
use super::{Begin, DataPiece, SpoolWrite, Unavailable};
use crate::ids::SessionId;
use crate::limits::{MAX_BLOCK_PLAIN, MAX_RECORD_DATA, SESSION_RESERVE, WRITE_BATCH};
use crate::recording::chain::{Chain, DigestPoint, Tag};
use crate::recording::record::{
    EndReason, Event, Record, RecordedBytes, RecordingEnd, Redacted, Stream,
};
use crate::recording::seal::{RecordingKey, SealSeed};
use crate::recording::segment::{
    BLOCK_OVERHEAD, SEGMENT_OVERHEAD, SegmentLink, SegmentWriter, WriteError,
};
use crate::wire::{RecordingMode, StdinMode};

/// The bytes that a record of data takes beside its data: length, time, kind, stream and the length of the bytes.
const RECORD_OVERHEAD: usize = 20;

/// A session that is being recorded.
#[derive(Debug)]
pub(super) struct LiveRecording {
    session: SessionId,
    pub(super) strict: bool,
    stdin: StdinMode,
    /// True if the streams' data is recorded, or only digested.
    pub(super) holds_data: bool,
    pub(super) share: SpoolShare,
    key: RecordingKey,
    seed: SealSeed,
    /// The segment that is being written; none before its first record.
    writer: Option<(SegmentWriter, Duration)>,
    /// The next segment's number and the chain before it.
    index: u32,
    before: SegmentLink,
    /// Sealed bytes of the present segment, and where in it they begin.
    sealed: Vec<u8>,
    at: u64,
    /// Since when the oldest byte waits that is not in `ready`.
    waiting_since: Option<Duration>,
    /// Since when written bytes are not safe from a power cut although they are to be.
    unsynced_since: Option<Duration>,
    /// Whole pieces of segments, in order.
    ready: VecDeque<SpoolWrite>,
    /// The bytes of the piece that is being written.
    in_flight: u64,
    busy: bool,
    chains: [Chain; 3],
    pub(super) content: Content,
    /// True if the frame of stdin that has begun is redacted.
    hides: bool,
    /// Bytes of it that have come.
    hidden: usize,
    begun: Duration,
    last: u64,
    gap: Option<OpenGap>,
    /// Room that was set aside for the ends of forwards.
    promised: u64,
    pub(super) failing: Option<Failing>,
    /// The last chain value and the number of segments, once nothing more comes.
    pub(super) ended: Option<(EndReason, SegmentLink, u32)>,
}

impl LiveRecording {
    pub(super) fn begin(
        now: Duration,
        begin: &Begin<'_>,
        key: RecordingKey,
    ) -> Result<Self, Unavailable> {
        let terms = begin.terms;
        let session = begin.start.session;
        let mut live = Self {
            session,
            strict: terms.mode == RecordingMode::Strict && !terms.recover,
            stdin: terms.stdin,
            holds_data: begin.start.streams,
            share: SpoolShare::of(terms, &begin.start),
            key,
            seed: SealSeed::new(begin.seed),
            writer: None,
            index: 0,
            before: SegmentLink::first(&session),
            sealed: Vec::new(),
            at: 0,
            waiting_since: None,
            unsynced_since: None,
            ready: VecDeque::new(),
            in_flight: 0,
            busy: false,
            chains: Stream::ALL.map(|stream| Chain::new(&terms.key, stream)),
            content: Content::new(begin.content_max.filter(|_| begin.start.streams)),
            hides: false,
            hidden: 0,
            begun: now,
            last: 0,
            gap: None,
            promised: 0,
            failing: None,
            ended: None,
        };
        live.push(now, Event::Start(begin.start.clone()))?;
        for part in begin.rest_of_command.chunks(MAX_RECORD_DATA) {
            live.push(now, Event::CommandLine(RecordedBytes(part)))?;
        }
        Ok(live)
    }

    /// Returns the most that the spool may grow by what this session holds already, and by its end.
    pub(super) fn committed(&self) -> u64 {
        let pending = self
            .writer
            .as_ref()
            .map_or(0, |(writer, _)| writer.pending());
        let open = if self.ended.is_some() {
            0
        } else {
            SESSION_RESERVE + self.promised + (pending + 2 * BLOCK_OVERHEAD) as u64
        };
        self.unwritten() + open
    }

    /// Sets room aside.
    pub(super) fn promise(&mut self, cost: u64) {
        self.promised = self.promised.saturating_add(cost);
    }

    /// Takes so much of the room that was set aside; false if there is none.
    pub(super) fn redeem(&mut self, cost: u64) -> bool {
        let left = self.promised.checked_sub(cost);
        let redeemed = left.is_some() && self.ended.is_none();
        if let Some(left) = left.filter(|_| redeemed) {
            self.promised = left;
        }
        redeemed
    }

    /// Returns the most that so many bytes of data can take.
    pub(super) fn cost(length: usize) -> u64 {
        let records = length / MAX_RECORD_DATA + 1;
        let blocks = length / MAX_BLOCK_PLAIN + 2;
        (length + records * RECORD_OVERHEAD + blocks * BLOCK_OVERHEAD + SEGMENT_OVERHEAD) as u64
    }

    /// Takes a piece of data, as a record and on its chain.
    pub(super) fn record_data(
        &mut self,
        now: Duration,
        piece: &DataPiece<'_>,
    ) -> Result<(), Unavailable> {
        let stream = piece.stream;
        if stream == Stream::Stdin && self.chains[0].is_between_frames() {
            self.hides = match self.stdin {
                StdinMode::Full => false,
                StdinMode::Redact => piece.hidden,
                StdinMode::Off => true,
            };
        }
        let whole = self.chains[stream.index()].update(piece.bytes, piece.remaining);
        if !self.holds_data {
            return Ok(());
        }
        if stream == Stream::Stdin && self.hides {
            return self.redact(now, piece, whole);
        }
        let mut rest = piece.bytes;
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rest.len().min(MAX_RECORD_DATA));
            rest = more;
            let last = rest.is_empty() && piece.remaining == 0;
            let event = if last { Event::Data } else { Event::Part };
            self.push(now, event(stream, RecordedBytes(part)))?;
        }
        Ok(())
    }

    fn redact(
        &mut self,
        now: Duration,
        piece: &DataPiece<'_>,
        whole: Option<Tag>,
    ) -> Result<(), Unavailable> {
        let Some(tag) = whole else {
            self.hidden = self.hidden.saturating_add(piece.bytes.len());
            return Ok(());
        };
        let length = core::mem::take(&mut self.hidden).saturating_add(piece.bytes.len());
        // A frame has at most `MAX_DATA_FRAME` bytes.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.push(now, Event::Redacted(Redacted { length, tag }))
    }

    /// Takes a record of another kind.
    pub(super) fn record(&mut self, now: Duration, event: Event<'_>) -> Result<(), Unavailable> {
        self.push(now, event)
    }

    /// Returns whether the content of the stream ends before what comes next on it.
    pub(super) fn ends_content(&mut self, stream: Stream) -> bool {
        let chain = &self.chains[stream.index()];
        self.content.ends_before(stream, chain)
    }

    /// Takes a piece of data on its chain alone.
    pub(super) fn digest(&mut self, piece: &DataPiece<'_>) {
        self.chains[piece.stream.index()].update(piece.bytes, piece.remaining);
    }

    /// Records where the content of streams ends that has ended.
    pub(super) fn record_content_ends(&mut self, now: Duration) -> Result<(), Unavailable> {
        while let Some(ends) = self.content.take_unrecorded() {
            self.push(now, Event::ContentEnds(ends))?;
        }
        Ok(())
    }

    /// Writes the end and closes the last segment. What a gap left out is recorded first.
    pub(super) fn end(&mut self, now: Duration, why: EndReason) -> Result<(), Unavailable> {
        if self.ended.is_some() {
            return Ok(());
        }
        self.close_gap(now)?;
        let streams = self.points();
        self.push(now, Event::End(RecordingEnd { why, streams }))?;
        self.close_segment(true)?;
        self.ended = Some((why, self.before, self.index));
        Ok(())
    }

    fn push(&mut self, now: Duration, event: Event<'_>) -> Result<(), Unavailable> {
        let full = |(writer, _): &(SegmentWriter, Duration)| writer.is_full();
        if self.writer.as_ref().is_some_and(full) {
            self.close_segment(false)?;
        }
        let at = self.micros(now);
        let delta = at - self.last;
        if self.writer.is_none() {
            let writer = SegmentWriter::begin(
                self.session,
                self.index,
                self.before,
                &self.key,
                &mut self.seed,
                &mut self.sealed,
            )?;
            self.writer = Some((writer, now));
        }
        if let Some((writer, _)) = &mut self.writer {
            writer.push(&Record { delta, event }, at, &mut self.sealed)?;
        }
        self.last = at;
        self.waiting_since.get_or_insert(now);
        if self.sealed.len() >= WRITE_BATCH
            && let Some((writer, _)) = &self.writer
        {
            let link = writer.link();
            self.hand_out(link, false);
            // The last record may not be sealed yet.
            self.waiting_since = Some(now);
        }
        Ok(())
    }

    fn close_segment(&mut self, last: bool) -> Result<(), WriteError> {
        if let Some((writer, _)) = self.writer.take() {
            self.before = writer.close(last, &mut self.sealed)?;
            self.hand_out(self.before, true);
            self.index += 1;
            self.at = 0;
        }
        Ok(())
    }

    fn points(&self) -> [DigestPoint; 3] {
        [0, 1, 2].map(|index: usize| self.chains[index].point())
    }

    fn micros(&self, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.begun).as_micros();
        // Half a million years fit.
        u64::try_from(passed).unwrap_or(u64::MAX).max(self.last)
    }
}
