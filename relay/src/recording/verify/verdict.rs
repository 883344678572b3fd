//! A verdict as it is written and signed, and its words.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use holdfast_protocol::count::Count;
use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::recording::chain::{Assessment, Unproved};
use holdfast_protocol::recording::record::Stream;
use serde::{Deserialize, Serialize};

/// The prefix of a verdict when it is signed: the signature fits nothing else that the cluster key signs.
const CONTEXT: &[u8] = b"holdfast recording verdict v1\0";

/// The text of a verdict for a stream whose data is no part of its recording, and whose count and digest agree.
pub(crate) const COUNTED: &str = "counted only";

/// The text of a verdict for a stream whose content ends before it does, as the session's terms say, and for a
/// recording that lacks nothing else.
pub(crate) const CONTENT_NOT_KEPT: &str = "content not kept";

/// The beginning of the sentence about a recording that is not what passed, for which a reason is known.
pub(crate) const TAMPERED: &str = "is tampered: ";

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
    /// The reason why its file operations are not all proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// File operations that are proved, from the first on; `None` where all are, and in verdicts of older relays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved_files: Option<u64>,
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

    /// Returns how many file operations are proved, from the first on.
    #[must_use]
    pub(crate) fn proved_files(&self) -> u64 {
        match (self.proved_files, &self.files) {
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
            && self.files.is_none()
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

pub(super) fn lack_text(lack: Unproved) -> String {
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
        Unproved::NotFollowed => "they were not followed to the end of the session".to_owned(),
        Unproved::NotComparable => {
            "the device's agent is too old for a comparison; update it".to_owned()
        }
        Unproved::Dropped => "its end was dropped".to_owned(),
        Unproved::Added => "something was added".to_owned(),
    }
}

/// Returns, in words, how many file operations are not proved and why; `None` if all are.
pub(super) fn files_text(found: &Assessment) -> Option<String> {
    let why = match found.files? {
        Unproved::NotShown => "the session was cut off before the relay saw the answer".to_owned(),
        lack => lack_text(lack),
    };
    Some(match found.unproved_files {
        0 => why,
        operations => format!("{} not proved: {why}", Count(operations, "operation")),
    })
}

/// Returns, in words, where the content of a stream ends.
#[must_use]
pub(crate) fn content_not_kept(from: u64) -> String {
    format!("{CONTENT_NOT_KEPT} from byte {from} on")
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Returns the bytes that the signature of a verdict is of.
pub(super) fn signed(text: &str) -> Vec<u8> {
    [CONTEXT, text.as_bytes()].concat()
}
