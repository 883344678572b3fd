//! Opening a recording and comparing it with what the relay saw, and the verdict that comes of it.

pub(crate) mod checks;
mod verdict;

use std::io;
use std::ops::Range;

use holdfast_protocol::count::Count;
use holdfast_protocol::recording::chain::{Assessment, Checker, StreamProof, Unproved};
use holdfast_protocol::recording::ingest::Checked;
use holdfast_protocol::recording::reader::{Behind, BehindReader, ReadVerdict, RecordingReader};
use holdfast_protocol::recording::record::{Event, Record, Stream};
use holdfast_protocol::recording::seal::RecordingSecret;
use holdfast_protocol::recording::segment::SegmentLink;

pub(crate) use self::verdict::{
    CONTENT_NOT_KEPT, COUNTED, StreamText, TAMPERED, VerdictText, clock, content_not_kept, name,
    signed_verdict,
};
use self::verdict::{files_text, lack_text, signed};
use super::objects::Objects;
use crate::clock::Timestamp;
use crate::hex::hex;
use crate::state::SigningKey;
use crate::store::{RecordingFacts, RecordingState, SignedVerdict};

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
            gaps = (gaps.0 + 1, gaps.1.saturating_add(gap.missing()));
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
    let mut reader = RecordingReader::new(facts.row.session.id, secrets)
        .bounded(most)
        .of_whole_segments();
    let mut rest: Option<BehindReader<'_>> = None;
    for bytes in objects.fetch(facts.row.session.id, &facts.segments) {
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
            segments: facts.stored_segments() as u64,
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
            files: assessment.and_then(files_text),
            proved_files: assessment
                .filter(|found| found.files.is_some() || found.unproved_files > 0)
                .map(|found| found.proved_files),
            proved_control: assessment
                .filter(|found| found.control.is_some())
                .map(|found| found.proved_control),
        }
    }
}
