//! The states of a recording in words, with their reasons.

use holdfast_protocol::recording::chain::Closing;
use holdfast_protocol::recording::ingest::{IngestFault, IngestState, LostReason, Truncated};
use holdfast_protocol::wire::SegmentLost;

use crate::recording::verify::{CONTENT_NOT_KEPT, Findings};
use crate::store::{RecordingFacts, RecordingState};

/// Returns a state in a word, and its reason in a sentence.
pub(super) fn words(
    state: IngestState,
    findings: Option<&Findings>,
) -> (RecordingState, Option<String>) {
    let why = |text: &str| Some(text.to_owned());
    let (word, reason) = match state {
        IngestState::Recording => (RecordingState::Recording, None),
        IngestState::Uploading => (RecordingState::Uploading, None),
        IngestState::Complete => {
            let without = findings.is_some_and(Findings::is_content_not_kept);
            let reason = without.then(|| CONTENT_NOT_KEPT.to_owned());
            (RecordingState::Complete, reason)
        }
        IngestState::Truncated(how) => {
            let reason = match how {
                Truncated::PowerLoss => why("power_loss: the device says that it lost power"),
                Truncated::Gone { segment, why } => Some(format!(
                    "the rest is gone from segment {segment} on: {}",
                    lost_text(why)
                )),
                Truncated::Expired => why("the rest was not delivered in time"),
                Truncated::NoEnd => {
                    why("it stops without an end: its agent was killed, or its end was removed")
                }
            };
            (RecordingState::Truncated, reason)
        }
        IngestState::Lost(LostReason::Gone(lost)) => (RecordingState::Lost, why(lost_text(lost))),
        IngestState::Lost(LostReason::Expired) => {
            (RecordingState::Lost, why("it was not delivered in time"))
        }
        IngestState::Lost(LostReason::NotHeld(SegmentLost::PowerLoss)) => (
            RecordingState::Lost,
            why("the device no longer has it: it lost power, and has nothing of it since then"),
        ),
        IngestState::Lost(LostReason::NotHeld(_)) => (
            RecordingState::Lost,
            why("the device no longer has it: its list of recordings lacks it"),
        ),
        IngestState::Tampered {
            segment,
            block,
            fault,
        } => {
            let reason = match fault {
                IngestFault::Bytes(fault) => format!("segment {segment}, block {block}: {fault}"),
                IngestFault::Missing => {
                    format!("segment {segment} is missing, and later ones are there")
                }
                IngestFault::Removed => {
                    format!("segment {segment} is missing: its file is not on the device any more")
                }
                IngestFault::Damaged => format!("segment {segment} was damaged on the device"),
                IngestFault::Unreadable => {
                    format!("segment {segment} is missing: the device cannot read it")
                }
                IngestFault::OtherHash => {
                    format!(
                        "segment {segment}, block {block}: it is not what the device said that there is"
                    )
                }
                IngestFault::TooLong => {
                    "it is longer than the session can have been: only its beginning is kept"
                        .to_owned()
                }
                IngestFault::Contradicted => findings
                    .and_then(Findings::contradiction)
                    .unwrap_or_else(|| "it is not what the relay saw".to_owned()),
            };
            (RecordingState::Tampered, Some(reason))
        }
    };
    match findings {
        Some(findings) => (word, with_extent(reason, word, findings)),
        None => (word, reason),
    }
}

/// Returns the reason of a recording that its device does not hold, where nothing says that it ever did: the session may
/// not have reached it.
pub(super) fn unknown_to_device(state: IngestState, facts: &RecordingFacts) -> Option<String> {
    let IngestState::Lost(LostReason::NotHeld(lost)) = state else {
        return None;
    };
    if !facts.has_seen_nothing() {
        return None;
    }
    let why = match facts.closing {
        None => "the relay stopped before it kept anything of the session",
        Some(Closing { exit: None }) => "nothing of the session passed the relay",
        Some(_) => return None,
    };
    let power = match lost {
        SegmentLost::PowerLoss => ": it lost power",
        _ => "",
    };
    Some(format!("{why}, and the device has nothing of it{power}"))
}

/// Returns the reason why a recording ends early, with how much of what passed it does not prove.
pub(super) fn with_extent(
    reason: Option<String>,
    state: RecordingState,
    findings: &Findings,
) -> Option<String> {
    let ends_early = matches!(state, RecordingState::Truncated | RecordingState::Lost);
    match findings.not_proved().filter(|_| ends_early) {
        Some(extent) => Some(match reason {
            Some(reason) => format!("{reason}; {extent}"),
            None => extent,
        }),
        None => reason,
    }
}

fn lost_text(lost: SegmentLost) -> &'static str {
    match lost {
        SegmentLost::Missing => "its file is not on the device any more",
        SegmentLost::Corrupt => "it was damaged on the device",
        SegmentLost::Unreadable => "the device cannot read it",
        SegmentLost::NoRoom => "the device had no room for it",
        SegmentLost::PowerLoss => "power_loss: the device lost power before it was written",
    }
}
