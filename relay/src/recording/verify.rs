//! Opening a recording and comparing it with what the relay saw, and the verdict that comes of it.

use std::io;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::recording::chain::{Checker, Proof, Unproved};
use holdfast_protocol::recording::ingest::Checked;
use holdfast_protocol::recording::reader::{Reader, Verdict};
use holdfast_protocol::recording::record::{Event, Record, Stream};
use holdfast_protocol::recording::seal::RecordingSecret;
use holdfast_protocol::recording::segment::Link;
use serde::{Deserialize, Serialize};

use super::objects::Objects;
use crate::hex::hex;
use crate::state::SigningKey;
use crate::store::{RecordingFacts, RecordingState, SignedVerdict};

/// What stands before a verdict when it is signed: the signature fits nothing else that the cluster key signs.
const CONTEXT: &[u8] = b"holdfast recording verdict v1\0";

/// What was found in a recording.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What it is by itself.
    pub verdict: Verdict,
    /// The chain over all that was read.
    pub link: Link,
    /// What is proved of its streams, if the key for that was still there.
    pub proofs: Option<[Proof; 3]>,
    /// Microseconds from its start to the first data that contradicts what the relay saw.
    pub differs: Option<u64>,
    /// Gaps that it admits, and the bytes that are missing there.
    pub gaps: (u64, u64),
    /// Why its file operations were not followed to the end, as the relay or the device says.
    pub unfollowed: Option<String>,
}

/// The verdict, as it is written and signed. These names are relied upon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerdictText {
    /// The recording.
    pub recording: String,
    /// Where it stands.
    pub state: String,
    /// Stored segments.
    pub segments: u64,
    /// The chain over them.
    pub chain: String,
    /// Gaps that it admits.
    pub gaps: u64,
    /// stdin, stdout, stderr.
    pub streams: Vec<StreamText>,
    /// Why file operations may be missing in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfollowed: Option<String>,
}

/// What the verdict says of one stream, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamText {
    /// Which.
    pub stream: String,
    /// Passed on by the relay.
    pub relayed: u64,
    /// Recorded and proved to be that.
    pub proved: u64,
    /// Redacted.
    pub redacted: u64,
    /// Missing, as gaps say.
    pub missing: u64,
    /// Recorded, and vouched for by nothing.
    pub unproved: u64,
    /// Recorded, and never passed on: the session was cut off first.
    pub unseen: u64,
    /// Why not everything is proved.
    pub lack: Option<String>,
}

/// Opens all stored segments and compares them with what the relay saw. Blocks.
///
/// # Errors
/// A segment cannot be read from where it is stored.
pub fn examine(
    facts: &RecordingFacts,
    objects: &Objects,
    secrets: &[RecordingSecret],
) -> io::Result<Findings> {
    let mut gaps = (0_u64, 0_u64);
    let mut unfollowed = facts.unfollowed.clone();
    let mut checker = facts.key.as_ref().map(|key| Checker::new(key, &facts.seen));
    let (verdict, link) = read_all(facts, objects, secrets, &mut |_, record| {
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
        }
    })?;
    let whole = matches!(verdict, Verdict::Complete { .. });
    let proofs = checker.map(|checker| prove(&checker, whole, facts.exited));
    let altered = proofs.iter().flatten().find_map(|proof| match proof.lack {
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
        proofs,
        differs,
        gaps,
        unfollowed,
    })
}

/// Reads all stored segments, as far as they stand. Blocks.
///
/// # Errors
/// A segment cannot be read from where it is stored.
pub fn read_all(
    facts: &RecordingFacts,
    objects: &Objects,
    secrets: &[RecordingSecret],
    each: &mut dyn FnMut(u64, &Record<'_>),
) -> io::Result<(Verdict, Link)> {
    let mut reader = Reader::new(facts.row.session.id, secrets);
    let count = u32::try_from(facts.segments.len()).unwrap_or(u32::MAX);
    for bytes in objects.fetch(facts.row.session.id, count) {
        if reader.read_segment(&bytes?, each).is_err() {
            break;
        }
    }
    Ok((reader.verdict(), reader.link()))
}

/// What is proved. An exit status says that the device's output is complete; what the operator sent in the
/// same moment may still have been on its way, and nobody but the device knows.
fn prove(checker: &Checker<'_>, whole: bool, exited: bool) -> [Proof; 3] {
    let mut proofs = checker.finish(whole, exited);
    let [stdin, _, _] = &mut proofs;
    if stdin.lack == Some(Unproved::Dropped) {
        let [in_flight, _, _] = checker.finish(whole, false);
        *stdin = in_flight;
    }
    proofs
}

/// When the stream's first byte behind so many was recorded.
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
    /// Whether it contradicts what the relay saw.
    #[must_use]
    pub fn is_contradicted(&self) -> bool {
        self.lacks().any(|(_, lack)| lack.is_contradiction())
    }

    /// What it means for a recording of which everything that there is has come.
    #[must_use]
    pub fn checked(&self) -> Checked {
        match self.verdict {
            Verdict::Tampered { at, fault } => Checked::Tampered {
                segment: at.segment,
                block: at.block,
                fault,
            },
            _ if self.is_contradicted() => Checked::Contradicted,
            Verdict::Complete { .. } => Checked::Whole,
            Verdict::Truncated { .. } => Checked::Short,
        }
    }

    /// Whether everything in it is proved.
    #[must_use]
    pub fn is_verified(&self, state: RecordingState) -> bool {
        let proved = self.proofs.is_some() && self.lacks().all(|(_, lack)| is_harmless(lack));
        state == RecordingState::Complete && proved && self.unfollowed.is_none()
    }

    /// In a sentence, how it differs from what the relay saw; `None` if it does not.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let (stream, lack) = self.lacks().find(|(_, lack)| lack.is_contradiction())?;
        let stream = name(stream);
        Some(match (lack, self.differs) {
            (Unproved::Dropped, _) => format!("{stream} lacks its end"),
            (Unproved::Added, _) => format!("{stream} has more than was shown"),
            (_, Some(micros)) => format!("{stream} differs from {}", clock(micros)),
            (_, None) => format!("{stream} differs"),
        })
    }

    /// The verdict, signed.
    #[must_use]
    pub fn sign(
        &self,
        facts: &RecordingFacts,
        state: RecordingState,
        key: &SigningKey,
    ) -> SignedVerdict {
        let stream = |proof: &Proof| StreamText {
            stream: name(proof.stream).to_owned(),
            relayed: proof.relayed,
            proved: proof.proved,
            redacted: proof.redacted,
            missing: proof.missing,
            unproved: proof.unproved,
            unseen: proof.unseen,
            lack: proof.lack.map(lack_text),
        };
        let text = VerdictText {
            recording: facts.row.session.id.to_string(),
            state: state.as_str().to_owned(),
            segments: facts.segments.len() as u64,
            chain: hex(&self.link.0),
            gaps: self.gaps.0,
            streams: self.proofs.iter().flatten().map(stream).collect(),
            unfollowed: self.unfollowed.clone(),
        };
        // Strings and numbers always can be written as JSON.
        let text = serde_json::to_string(&text).unwrap_or_default();
        SignedVerdict {
            signature: key.sign(&signed(&text)),
            verified: self.is_verified(state),
            text,
        }
    }

    fn lacks(&self) -> impl Iterator<Item = (Stream, Unproved)> {
        let proofs = self.proofs.iter().flatten();
        proofs.filter_map(|proof| Some((proof.stream, proof.lack?)))
    }
}

/// Reads a verdict back, if the cluster key signed it.
#[must_use]
pub fn signed_verdict(text: &str, signature: &[u8], cluster: &PublicKey) -> Option<VerdictText> {
    let key = UnparsedPublicKey::new(&ED25519, cluster.0);
    key.verify(&signed(text), signature).ok()?;
    serde_json::from_str(text).ok()
}

/// `12:08`, or `1:02:03`.
#[must_use]
pub fn clock(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes:02}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// The stream's name.
#[must_use]
pub fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdin => "stdin",
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// What was under way when a session ended is no flaw of its recording, and nor is a kind of recording that
/// holds no data.
fn is_harmless(lack: Unproved) -> bool {
    matches!(lack, Unproved::InFlight | Unproved::CountedOnly)
}

fn lack_text(lack: Unproved) -> String {
    match lack {
        Unproved::CountedOnly => "counted only".to_owned(),
        Unproved::CutShort => "cut short".to_owned(),
        Unproved::Gaps => "gaps".to_owned(),
        Unproved::InFlight => "the last input did not reach the device".to_owned(),
        Unproved::Altered { behind } => format!("altered behind byte {behind}"),
        Unproved::Dropped => "its end was dropped".to_owned(),
        Unproved::Added => "something was added".to_owned(),
    }
}

fn signed(text: &str) -> Vec<u8> {
    [CONTEXT, text.as_bytes()].concat()
}
