//! Opening a recording and comparing it with what the relay saw, and the verdict that comes of it.

pub(crate) mod checks;

use std::io;
use std::ops::Range;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use holdfast_protocol::count::Count;
use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::recording::chain::{Assessment, Checker, StreamProof, Unproved};
use holdfast_protocol::recording::ingest::Checked;
use holdfast_protocol::recording::reader::{Behind, BehindReader, ReadVerdict, RecordingReader};
use holdfast_protocol::recording::record::{Event, Record, Stream};
use holdfast_protocol::recording::seal::RecordingSecret;
use holdfast_protocol::recording::segment::SegmentLink;
use serde::{Deserialize, Serialize};

use super::objects::Objects;
use crate::clock::Timestamp;
use crate::hex::hex;
use crate::state::SigningKey;
use crate::store::{RecordingFacts, RecordingState, SignedVerdict};

/// The prefix of a verdict when it is signed: the signature fits nothing else that the cluster key signs.
const CONTEXT: &[u8] = b"holdfast recording verdict v1\0";

/// The text of a verdict for a stream whose data is no part of its recording, and whose count and digest agree.
pub(crate) const COUNTED: &str = "counted only";

/// The text of a verdict for a stream whose content ends before it does, as the session's terms say, and for a
/// recording that lacks nothing else.
pub(crate) const CONTENT_NOT_KEPT: &str = "content not kept";

/// The beginning of the sentence about a recording that is not what passed, for which a reason is known.
pub(crate) const TAMPERED: &str = "is tampered: ";

/// The findings about a recording.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    /// The verdict on the recording by itself.
    pub verdict: ReadVerdict,
    /// The chain over all that was read.
    pub link: SegmentLink,
    /// The result of comparing it with the relay's own row, if the key for that was still there.
    pub assessment: Option<Assessment>,
    /// Microseconds from its start to the last record with which something was proved.
    pub proved_until: u64,
    /// Microseconds from its start to the first data that contradicts what the relay saw.
    pub differs: Option<u64>,
    /// Gaps that it admits, and the bytes that are missing there.
    pub gaps: (u64, u64),
    /// The reason why its file operations were not followed to the end, as the relay or the device says.
    pub unfollowed: Option<String>,
}

/// The verdict, as it is written and signed. These names are relied upon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VerdictText {
    /// The recording.
    pub recording: String,
    /// The state.
    pub state: String,
    /// Stored segments.
    pub segments: u64,
    /// The chain over them.
    pub chain: String,
    /// Gaps that it admits.
    pub gaps: u64,
    /// stdin, stdout, stderr.
    pub streams: Vec<StreamText>,
    /// The reason why file operations may be missing in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfollowed: Option<String>,
    /// The reason why the terminal's sizes and the signals are not all proved.
    #[serde(default)]
    pub control: Option<String>,
    /// Any other contradiction to what the relay knows of the session.
    #[serde(default)]
    pub contradiction: Option<String>,
    /// The reason why its forwards are not all proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwards: Option<String>,
    /// Sizes and signals that are proved, from the first on; `None` where all are, and in verdicts of older relays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved_control: Option<u64>,
}

/// The verdict on one stream, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StreamText {
    /// The stream.
    pub stream: String,
    /// Passed on by the relay.
    pub relayed: u64,
    /// Recorded and proved to be that.
    pub proved: u64,
    /// The parts that are proved of the recorded bytes: the first byte of each, and the first behind it. `None` in
    /// verdicts of older relays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Vec<[u64; 2]>>,
    /// Redacted.
    pub redacted: u64,
    /// Missing, as gaps say.
    pub missing: u64,
    /// Recorded, and vouched for by nothing.
    pub unproved: u64,
    /// Recorded, and never passed on.
    pub unseen: u64,
    /// Proved by the digest, and not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_kept: u64,
    /// The reason why not everything is proved.
    pub lack: Option<String>,
}

/// Opens all stored segments and compares them with the relay's own row of the session. Blocks.
///
/// # Errors
/// A segment cannot be read from where it is stored.
pub(crate) fn examine(
    facts: &RecordingFacts,
    objects: &Objects,
    secrets: &[RecordingSecret],
) -> io::Result<Findings> {
    let mut gaps = (0_u64, 0_u64);
    let mut unfollowed = facts.unfollowed.clone();
    let expected = facts.expectation();
    let mut checker = facts.key.as_ref().map(|key| Checker::new(key, &expected));
    let (mut proved, mut proved_until) = (0, 0);
    let (verdict, link) = read_all(facts, objects, secrets, &mut |micros, record| {
        if let Event::Gap(gap) = &record.event {
            let missing = gap
                .bytes
                .iter()
                .fold(0, |sum: u64, n| sum.saturating_add(*n));
            gaps = (gaps.0 + 1, gaps.1.saturating_add(missing));
        }
        if let Event::FilesUnfollowed(why) = &record.event {
            unfollowed.get_or_insert_with(|| (*why).to_owned());
        }
        if let Some(checker) = &mut checker {
            checker.handle(record);
            if checker.proved() != proved {
                (proved, proved_until) = (checker.proved(), micros);
            }
        }
    })?;
    let whole = matches!(verdict, ReadVerdict::Complete { .. });
    let assessment = checker.map(|checker| checker.finish(whole));
    let mut streams = assessment.iter().flat_map(|found| &found.streams);
    let altered = streams.find_map(|proof| match proof.lack {
        Some(Unproved::Altered { behind }) => Some((proof.stream, behind)),
        _ => None,
    });
    let differs = match altered {
        None => None,
        Some((stream, behind)) => time_of(facts, objects, secrets, stream, behind)?,
    };
    Ok(Findings {
        verdict,
        link,
        assessment,
        proved_until,
        differs,
        gaps,
        unfollowed,
    })
}

/// A part of a stored recording.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StoredPart<'a> {
    /// A record before the first damaged block.
    Record(&'a Record<'a>),
    /// A part behind that, of which nothing can be proved.
    Behind(Behind<'a>),
}

/// Reads all stored segments, as far as they stand. Blocks.
///
/// # Errors
/// A segment cannot be read from where it is stored.
pub(crate) fn read_all(
    facts: &RecordingFacts,
    objects: &Objects,
    secrets: &[RecordingSecret],
    each: &mut dyn FnMut(u64, &Record<'_>),
) -> io::Result<(ReadVerdict, SegmentLink)> {
    read(facts, objects, secrets, false, &mut |micros, part| {
        if let StoredPart::Record(record) = part {
            each(micros, record);
        }
    })
}

/// Reads all stored segments, and what can still be read behind a damaged block. Blocks.
///
/// # Errors
/// A segment cannot be read from where it is stored.
pub(crate) fn read_parts(
    facts: &RecordingFacts,
    objects: &Objects,
    secrets: &[RecordingSecret],
    each: &mut dyn FnMut(u64, StoredPart<'_>),
) -> io::Result<(ReadVerdict, SegmentLink)> {
    read(facts, objects, secrets, true, each)
}

fn read(
    facts: &RecordingFacts,
    objects: &Objects,
    secrets: &[RecordingSecret],
    goes_on: bool,
    each: &mut dyn FnMut(u64, StoredPart<'_>),
) -> io::Result<(ReadVerdict, SegmentLink)> {
    let most = facts.extent(Timestamp::now()).unpacked();
    let mut reader = RecordingReader::new(facts.row.session.id, secrets).bounded(most);
    let mut rest: Option<BehindReader<'_>> = None;
    let count = u32::try_from(facts.segments.len()).unwrap_or(u32::MAX);
    for bytes in objects.fetch(facts.row.session.id, count) {
        let bytes = bytes?;
        if rest.is_none() {
            let mut record = |micros, record: &Record<'_>| each(micros, StoredPart::Record(record));
            if reader.read_segment(&bytes, &mut record).is_ok() {
                continue;
            }
            rest = reader.behind().filter(|_| goes_on);
        }
        let Some(rest) = &mut rest else {
            break;
        };
        let mut behind = |micros, part: Behind<'_>| each(micros, StoredPart::Behind(part));
        if !rest.read_segment(&bytes, &mut behind) {
            break;
        }
    }
    Ok((reader.verdict(), reader.link()))
}

/// Returns when the stream's first byte behind so many was recorded.
fn time_of(
    facts: &RecordingFacts,
    objects: &Objects,
    secrets: &[RecordingSecret],
    stream: Stream,
    behind: u64,
) -> io::Result<Option<u64>> {
    let (mut passed, mut found) = (0_u64, None);
    read_all(facts, objects, secrets, &mut |micros, record| {
        let length = match &record.event {
            Event::Data(of, bytes) | Event::Part(of, bytes) if *of == stream => {
                bytes.0.len() as u64
            }
            Event::Redacted(redacted) if stream == Stream::Stdin => u64::from(redacted.length),
            _ => return,
        };
        passed = passed.saturating_add(length);
        if passed > behind && found.is_none() {
            found = Some(micros);
        }
    })?;
    Ok(found)
}

impl Findings {
    /// Returns whether it contradicts what the relay saw.
    #[must_use]
    pub(crate) fn is_contradicted(&self) -> bool {
        let assessment = self.assessment.as_ref();
        assessment.is_some_and(Assessment::is_contradicted)
    }

    /// Returns the consequence for a recording of which everything that there is has come.
    #[must_use]
    pub(crate) fn checked(&self) -> Checked {
        match self.verdict {
            ReadVerdict::Tampered { at, fault } => Checked::Tampered {
                segment: at.segment,
                block: at.block,
                fault,
            },
            _ if self.is_contradicted() => Checked::Contradicted,
            ReadVerdict::Complete { .. } => Checked::Whole,
            ReadVerdict::Truncated { .. } => Checked::Short,
        }
    }

    /// Returns whether everything in it is proved.
    #[must_use]
    pub(crate) fn is_verified(&self, state: RecordingState) -> bool {
        let proved = self.assessment.as_ref().is_some_and(Assessment::is_proved);
        state == RecordingState::Complete && proved && self.unfollowed.is_none()
    }

    /// Returns whether it lacks nothing but content that it need not keep.
    #[must_use]
    pub(crate) fn is_content_not_kept(&self) -> bool {
        let assessment = self.assessment.as_ref();
        assessment.is_some_and(Assessment::is_proved_without_content) && self.unfollowed.is_none()
    }

    /// Returns a sentence about how it differs from what the relay saw; `None` if it does not.
    #[must_use]
    pub(crate) fn contradiction(&self) -> Option<String> {
        let assessment = self.assessment.as_ref()?;
        if let Some(contradiction) = assessment.contradiction {
            return Some(contradiction.to_string());
        }
        let mut streams = assessment.streams.iter();
        let contradicted = streams.find_map(|proof| {
            let lack = proof.lack.filter(|lack| lack.is_contradiction())?;
            Some((proof.stream, lack))
        });
        let Some((stream, lack)) = contradicted else {
            let control = assessment.control.filter(|lack| lack.is_contradiction());
            return control.map(|_| "its terminal sizes or signals are not those sent".to_owned());
        };
        let name = name(stream);
        Some(match (lack, self.differs) {
            (Unproved::Dropped, _) => format!("{name} lacks its end"),
            (Unproved::Added, _) if stream == Stream::Stdin => {
                format!("{name} has more than was sent")
            }
            (Unproved::Added, _) => format!("{name} has more than was shown"),
            (_, Some(micros)) => format!("{name} differs from {}", clock(micros)),
            (_, None) => format!("{name} differs"),
        })
    }

    /// Returns how much of what the relay passed on a recording that ends early does not prove, and from when on;
    /// `None` if it proves all, or that cannot be said.
    #[must_use]
    pub(crate) fn not_proved(&self) -> Option<String> {
        let bytes = self.assessment.as_ref()?.not_proved();
        let from = clock(self.proved_until);
        (bytes > 0).then(|| {
            let verb = if bytes == 1 { "is" } else { "are" };
            let bytes = Count(bytes, "byte");
            format!("{bytes} that the relay passed on {verb} not proved, from {from} on")
        })
    }

    /// Returns the verdict, signed.
    #[must_use]
    pub(crate) fn sign(
        &self,
        facts: &RecordingFacts,
        state: RecordingState,
        key: &SigningKey,
    ) -> SignedVerdict {
        // Strings and numbers always can be written as JSON.
        let text = serde_json::to_string(&self.text(facts, state)).unwrap_or_default();
        SignedVerdict {
            signature: key.sign(&signed(&text)),
            verified: self.is_verified(state),
            text,
        }
    }

    /// Returns what is to be signed.
    #[must_use]
    pub(crate) fn text(&self, facts: &RecordingFacts, state: RecordingState) -> VerdictText {
        let stream = |proof: &StreamProof| StreamText {
            stream: name(proof.stream).to_owned(),
            relayed: proof.relayed,
            proved: proof.proved,
            ranges: {
                let pair = |range: &Range<u64>| [range.start, range.end];
                Some(proof.ranges.iter().map(pair).collect())
            },
            redacted: proof.redacted,
            missing: proof.missing,
            unproved: proof.unproved,
            unseen: proof.unseen,
            not_kept: proof.not_kept,
            lack: proof.lack.map(lack_text),
        };
        let assessment = self.assessment.as_ref();
        VerdictText {
            recording: facts.row.session.id.to_string(),
            state: state.as_str().to_owned(),
            segments: facts.segments.len() as u64,
            chain: hex(&self.link.0),
            gaps: self.gaps.0,
            streams: assessment
                .map_or_else(Vec::new, |found| found.streams.iter().map(stream).collect()),
            control: assessment.and_then(|found| found.control).map(lack_text),
            contradiction: assessment
                .and_then(|found| found.contradiction)
                .map(|contradiction| contradiction.to_string()),
            unfollowed: self.unfollowed.clone(),
            forwards: assessment.and_then(|found| found.forwards).map(lack_text),
            proved_control: assessment
                .filter(|found| found.control.is_some())
                .map(|found| found.proved_control),
        }
    }
}

impl VerdictText {
    /// Returns how many sizes and signals are proved, from the first on.
    #[must_use]
    pub(crate) fn proved_control(&self) -> u64 {
        match (self.proved_control, &self.control) {
            (Some(proved), _) => proved,
            (None, Some(_)) => 0,
            (None, None) => u64::MAX,
        }
    }

    /// Returns whether it lacks nothing but content that it need not keep.
    #[must_use]
    pub(crate) fn is_content_not_kept(&self) -> bool {
        let is_fine = |stream: &StreamText| match stream.lack.as_deref() {
            None | Some(COUNTED) => true,
            Some(lack) => lack.starts_with(CONTENT_NOT_KEPT),
        };
        self.control.is_none()
            && self.contradiction.is_none()
            && self.forwards.is_none()
            && self.unfollowed.is_none()
            && self.streams.iter().all(is_fine)
            && self.streams.iter().any(|stream| stream.not_kept > 0)
    }
}

/// Reads a verdict back, if the cluster key signed it.
#[must_use]
pub(crate) fn signed_verdict(
    text: &str,
    signature: &[u8],
    cluster: &PublicKey,
) -> Option<VerdictText> {
    let key = UnparsedPublicKey::new(&ED25519, cluster.0);
    key.verify(&signed(text), signature).ok()?;
    serde_json::from_str(text).ok()
}

/// Returns `12:08`, or `1:02:03`.
#[must_use]
pub(crate) fn clock(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes:02}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Returns the stream's name.
#[must_use]
pub(crate) fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdin => "stdin",
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

fn lack_text(lack: Unproved) -> String {
    match lack {
        Unproved::CountedOnly => COUNTED.to_owned(),
        Unproved::ContentNotKept { from } => content_not_kept(from),
        Unproved::CutShort => "cut short".to_owned(),
        Unproved::Gaps => "gaps".to_owned(),
        Unproved::InFlight => "what was sent last did not reach the device".to_owned(),
        Unproved::NotShown => "the last of it was not shown to the operator".to_owned(),
        Unproved::NotKept => {
            "not proved to its end: the relay was killed before it kept what it passed on"
                .to_owned()
        }
        Unproved::Altered { behind } => format!("altered behind byte {behind}"),
        Unproved::Dropped => "its end was dropped".to_owned(),
        Unproved::Added => "something was added".to_owned(),
    }
}

/// Returns, in words, where the content of a stream ends.
#[must_use]
pub(crate) fn content_not_kept(from: u64) -> String {
    format!("{CONTENT_NOT_KEPT} from byte {from} on")
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn signed(text: &str) -> Vec<u8> {
    [CONTEXT, text.as_bytes()].concat()
}
