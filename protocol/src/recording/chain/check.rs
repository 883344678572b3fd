//! A recording against what the relay knows of the session.

use alloc::vec::Vec;
use core::ops::Range;

use super::contradiction::Contradiction;
use super::facts::FactCheck;
use super::files::{FileCheck, FileProof};
use super::lane::{Counts, Lane, StreamDirection, Unproved, View};
use super::{CONTROL, Chain, ChainKey, Expectation, RecordedKind, SentControl};
use crate::recording::record::{ContentEnds, Event, Gap, Record, RecordingEnd, Stream};

/// Follows the chains through a recording's records, and compares them, and everything else that the relay knows,
/// with the relay's own row. Feed it every record in order, then ask what is proved.
#[derive(Debug)]
pub struct Checker<'s> {
    expected: &'s Expectation,
    facts: FactCheck<'s>,
    streams: [Lane<'s>; 3],
    /// Sizes and signals.
    control: Option<Lane<'s>>,
    /// The operations of sftp.
    files: Option<FileCheck<'s>>,
    /// True if it is to list file operations.
    lists_files: bool,
    /// Listed operations of which the relay kept nothing.
    uncompared: u64,
    /// Records are missing, and some of them may be sizes and signals.
    control_lost: bool,
    gaps: bool,
    end: Option<RecordingEnd>,
}

/// The outcome of comparing a recording with the relay's own row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The outcome for stdin, stdout and stderr.
    pub streams: [StreamProof; 3],
    /// The reason why the terminal's sizes and the signals are not all proved; `None` if they are.
    pub control: Option<Unproved>,
    /// Sizes and signals that are proved, from the first on. `u64::MAX` where the relay kept none.
    pub proved_control: u64,
    /// The reason why the forwards of a recording of forwards are not all proved; `None` if they are, and of any other
    /// recording.
    pub forwards: Option<Unproved>,
    /// The reason why the file operations are not all proved; `None` if they are, and where the relay kept none.
    pub files: Option<Unproved>,
    /// File operations that are proved, from the first on. `u64::MAX` where the relay kept none.
    pub proved_files: u64,
    /// File operations that are not proved, recorded ones and others that the relay has seen.
    pub unproved_files: u64,
    /// The first other contradiction of the relay's row.
    pub contradiction: Option<Contradiction>,
}

/// The outcome for one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamProof {
    /// The stream.
    pub stream: Stream,
    /// The bytes that the relay passed on.
    pub relayed: u64,
    /// Recorded bytes that are proved to be what the relay passed on, in that order.
    pub proved: u64,
    /// The parts that are proved of the recorded bytes, redacted ones among them. What gaps lack does not count.
    pub ranges: Vec<Range<u64>>,
    /// Bytes that were redacted. Their number is proved as the rest is; what they were is not recorded.
    pub redacted: u64,
    /// Bytes that a gap says are missing.
    pub missing: u64,
    /// Recorded bytes that nothing vouches for: before a gap or behind the last point that could be
    /// compared.
    pub unproved: u64,
    /// Recorded bytes that the relay never passed on.
    pub unseen: u64,
    /// Bytes behind the end of the content that is kept. The digest proves them, and what they were is not recorded.
    pub not_kept: u64,
    /// The reason why not everything is proved; `None` if it is.
    pub lack: Option<Unproved>,
}

impl Assessment {
    /// Returns whether the recording is not what the relay passed on.
    #[must_use]
    pub fn is_contradicted(&self) -> bool {
        let lacks = self.streams.iter().filter_map(|proof| proof.lack);
        self.contradiction.is_some() || lacks.chain(self.control).any(Unproved::is_contradiction)
    }

    /// Returns whether everything in it is what the relay passed on, and nothing of that is missing.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        let proved = |proof: &StreamProof| matches!(proof.lack, None | Some(Unproved::CountedOnly));
        self.is_rest_proved() && self.streams.iter().all(proved)
    }

    /// Returns whether everything that passed is proved, and the content of a part of it is not kept, as the session's
    /// terms say.
    #[must_use]
    pub fn is_proved_without_content(&self) -> bool {
        let proved = |proof: &StreamProof| {
            matches!(
                proof.lack,
                None | Some(Unproved::CountedOnly | Unproved::ContentNotKept { .. })
            )
        };
        self.is_rest_proved() && self.streams.iter().all(proved) && !self.is_proved()
    }

    /// Returns whether everything but the streams is proved.
    fn is_rest_proved(&self) -> bool {
        self.contradiction.is_none()
            && self.control.is_none()
            && self.forwards.is_none()
            && self.files.is_none()
    }

    /// Returns bytes that the relay passed on and this recording does not prove.
    #[must_use]
    pub fn not_proved(&self) -> u64 {
        let of = |proof: &StreamProof| match proof.lack {
            Some(Unproved::CountedOnly) => 0,
            _ => {
                let proved = proof.proved.saturating_add(proof.redacted);
                let proved = proved.saturating_add(proof.not_kept);
                proof.relayed.saturating_sub(proved)
            }
        };
        self.streams
            .iter()
            .map(of)
            .fold(0, |sum, bytes| sum.saturating_add(bytes))
    }
}

impl<'s> Checker<'s> {
    /// Creates a check of the recording of a session of which the relay knows this.
    #[must_use]
    pub fn new(key: &'s ChainKey, expected: &'s Expectation) -> Self {
        let lane = |stream: Stream| {
            let [stdin, stdout, stderr] = &expected.seen;
            let (direction, seen) = match stream {
                Stream::Stdin => (StreamDirection::In, stdin),
                Stream::Stdout => (StreamDirection::Out, stdout),
                Stream::Stderr => (StreamDirection::Out, stderr),
            };
            let content = expected.content.as_ref();
            let content = content.map(|content| {
                let [stdin, stdout, stderr] = content.ends;
                let end = match stream {
                    Stream::Stdin => stdin,
                    Stream::Stdout => stdout,
                    Stream::Stderr => stderr,
                };
                (content.max, end)
            });
            Lane::new(direction, Chain::new(key, stream), seen).bounded(content)
        };
        let control = expected.control.as_ref();
        let control = control
            .map(|control| Lane::new(StreamDirection::In, Chain::on(key, CONTROL), &control.seen));
        let facts = FactCheck::new(key, expected);
        let lists_files = expected.kind == RecordedKind::Sftp && !facts.holds_data;
        let files = expected.files.as_ref().filter(|_| lists_files);
        Self {
            expected,
            facts,
            streams: Stream::ALL.map(lane),
            control,
            lists_files,
            files: files.map(|files| FileCheck::new(key, files, view(expected))),
            uncompared: 0,
            control_lost: false,
            gaps: false,
            end: None,
        }
    }

    /// Takes the next record.
    pub fn handle(&mut self, record: &Record<'_>) {
        let [stdin, _, _] = &self.streams;
        // Where the data is only counted, a record has no place among its frames.
        let stdin = if self.facts.holds_data {
            stdin.frames()
        } else {
            0
        };
        let holds_data = self.facts.handle(&record.event, stdin);
        match &mut self.files {
            Some(files) => files.handle(&record.event),
            None => self.uncompared += u64::from(matches!(record.event, Event::File(_))),
        }
        match &record.event {
            Event::Data(stream, bytes) if holds_data => self.data(*stream, bytes.0, true),
            Event::Part(stream, bytes) if holds_data => self.data(*stream, bytes.0, false),
            Event::Redacted(redacted) if holds_data => {
                let [stdin, _, _] = &mut self.streams;
                match stdin.takes_content() {
                    true => stdin.redacted(u64::from(redacted.length), &redacted.tag),
                    false => self.facts.contradict(Contradiction::Content),
                }
            }
            Event::ContentEnds(ends) if holds_data => self.content_ends(ends),
            Event::Resize(size) => self.control(SentControl::Resize(*size), stdin),
            Event::Signal(signal) => self.control(SentControl::Signal(*signal), stdin),
            Event::Gap(gap) => self.gap(gap, holds_data),
            Event::End(end) => self.end = Some(end.clone()),
            _ => {}
        }
    }

    /// Returns bytes of all streams that are proved by now.
    #[must_use]
    pub fn proved(&self) -> u64 {
        let lanes = self.streams.iter().map(Lane::proved);
        lanes.fold(0, |sum, bytes| sum.saturating_add(bytes))
    }

    /// Returns what is proved. `whole` says that the recording is complete and untampered by itself.
    #[must_use]
    pub fn finish(&self, whole: bool) -> Assessment {
        let view = view(self.expected);
        let streams = Stream::ALL.map(|stream| self.stream(stream, whole, view));
        let control = self.control.as_ref();
        let control = control.and_then(|control| control.finish(whole, None, view).1);
        let contradicted = control.filter(|lack| lack.is_contradiction());
        let gaps = (self.control_lost || self.gaps).then_some(Unproved::Gaps);
        let [stdin, _, _] = &streams;
        let got_all = matches!(stdin.lack, None | Some(Unproved::CountedOnly));
        let files = self.files.as_ref();
        let files = files.map(|files| files.finish(whole, got_all));
        let FileProof {
            contradiction: files_contradiction,
            lack: files_lack,
            proved: proved_files,
            unproved: unproved_files,
        } = files.unwrap_or(match self.lists_files {
            // There is nothing to compare them with.
            true => FileProof {
                lack: Some(Unproved::NotFollowed),
                unproved: self.uncompared,
                ..FileProof::default()
            },
            false => FileProof {
                proved: u64::MAX,
                ..FileProof::default()
            },
        });
        Assessment {
            streams,
            control: contradicted.or(gaps).or(control),
            proved_control: (self.control.as_ref()).map_or(u64::MAX, Lane::held_frames),
            forwards: self.facts.forwards_lack(whole),
            files: files_lack,
            proved_files,
            unproved_files,
            contradiction: self.facts.finish(whole).or(files_contradiction),
        }
    }

    fn stream(&self, stream: Stream, whole: bool, view: View) -> StreamProof {
        let [stdin, stdout, stderr] = &self.streams;
        let lane = match stream {
            Stream::Stdin => stdin,
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let end = self.end.as_ref().map(|end| {
            let [stdin, stdout, stderr] = end.streams;
            match stream {
                Stream::Stdin => stdin,
                Stream::Stdout => stdout,
                Stream::Stderr => stderr,
            }
        });
        let (counts, lack) = if self.facts.holds_data {
            lane.finish(whole, end, view)
        } else {
            lane.finish_counted(end.filter(|_| whole), view)
        };
        let Counts {
            proved,
            redacted,
            missing,
            unproved,
            unseen,
            not_kept,
        } = counts;
        StreamProof {
            stream,
            relayed: lane.relayed(),
            proved,
            ranges: lane.ranges().to_vec(),
            redacted,
            missing,
            unproved,
            unseen,
            not_kept,
            lack,
        }
    }

    fn data(&mut self, stream: Stream, bytes: &[u8], last: bool) {
        match self.streams.get_mut(stream.index()) {
            Some(lane) if lane.takes_content() => lane.data(bytes, last),
            _ => self.facts.contradict(Contradiction::Content),
        }
    }

    fn content_ends(&mut self, ends: &ContentEnds) {
        let lane = self.streams.get_mut(ends.stream.index());
        if !lane.is_some_and(|lane| lane.content_ends(ends.from)) {
            self.facts.contradict(Contradiction::Content);
        }
    }

    fn control(&mut self, control: SentControl, stdin: u64) {
        if let Some(lane) = self.control.as_mut().filter(|_| !self.control_lost) {
            lane.data(&control.frame(stdin), true);
        }
    }

    fn gap(&mut self, gap: &Gap, holds_data: bool) {
        self.gaps = true;
        // Which records are missing is not known: from here on sizes and signals cannot be compared.
        self.control_lost |= gap.records > 0;
        if !holds_data {
            return;
        }
        let each = self.streams.iter_mut().zip(gap.after).zip(gap.bytes);
        for ((lane, after), missing) in each {
            lane.gap(after, missing);
        }
    }
}

/// Returns how far the relay's view of the session goes.
fn view(expected: &Expectation) -> View {
    match expected.closing {
        None => View::Stale,
        Some(closing) if closing.exit.is_some() => View::Exited,
        Some(_) => View::CutOff,
    }
}
