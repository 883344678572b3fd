//! The longest recording that an honest device can have of a session, by what the relay knows of that session.
//!
//! Nothing in here comes from the recording or from what its device says of it. The bound is generous on purpose: a
//! recording beyond it is taken for tampered with.

use core::time::Duration;

use super::chain::{RecordedKind, StreamDigest};
use crate::limits::{
    RECORDING_BASE, RECORDING_PER_FRAME, RECORDING_PER_SECOND, RECORDING_PER_SECOND_OF_COMMANDS,
    RECORDING_UNPACKED, RECORDING_UNSEEN,
};

/// Counts of what has passed on one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedStream {
    /// Frames, one that was cut short included.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The facts of a session that bound its recording, as the relay has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExtent {
    /// The kind of the session.
    pub kind: RecordedKind,
    /// True if its recording holds the streams' data.
    pub holds_data: bool,
    /// Length of the command line.
    pub command: u64,
    /// The bytes that passed on stdin, stdout and stderr.
    pub passed: [PassedStream; 3],
    /// Sizes and signals that were passed on.
    pub controls: u64,
    /// The most bytes that the records of its file operations or forwards take, as the relay saw them.
    pub booked: u64,
    /// The time that it ran, or has run until now.
    pub lasted: Duration,
    /// True if the counts are those of its end, or of now. Otherwise the relay was killed after it kept them.
    pub exact: bool,
}

impl PassedStream {
    /// Returns that of what a relay has seen.
    #[must_use]
    pub fn of(seen: &StreamDigest) -> Self {
        let partial = seen.partial.as_ref();
        Self {
            frames: seen.end.frames.saturating_add(u64::from(partial.is_some())),
            bytes: (seen.end.bytes).saturating_add(partial.map_or(0, |partial| partial.bytes)),
        }
    }
}

impl SessionExtent {
    /// Returns the most bytes that all sealed segments of its recording can have.
    #[must_use]
    pub fn sealed(&self) -> u64 {
        let [stdin, stdout, stderr] = self.passed;
        let (bytes, frames) = match self.kind {
            _ if self.holds_data => (
                stdin
                    .bytes
                    .saturating_add(stdout.bytes)
                    .saturating_add(stderr.bytes),
                stdin
                    .frames
                    .saturating_add(stdout.frames)
                    .saturating_add(stderr.frames),
            ),
            // An operation on a handle is recorded with the whole path of its file, which was sent only once.
            RecordedKind::Sftp => (stdin.bytes.saturating_add(self.booked), stdin.frames),
            _ => (self.booked, 0),
        };
        let per_second = match self.kind {
            RecordedKind::Shell | RecordedKind::Exec => RECORDING_PER_SECOND_OF_COMMANDS,
            // A subsystem that is not followed is a process like any other.
            RecordedKind::Sftp if self.holds_data => RECORDING_PER_SECOND_OF_COMMANDS,
            RecordedKind::Sftp | RecordedKind::Forwards => RECORDING_PER_SECOND,
        };
        let frames = frames.saturating_add(self.controls);
        let unseen = if self.exact { 0 } else { RECORDING_UNSEEN };
        // What does not compress is stored as it is, in blocks and segments whose heads are far less than a sixteenth.
        let data = bytes.saturating_add(bytes / 16);
        [
            self.command,
            data,
            frames.saturating_mul(RECORDING_PER_FRAME),
            self.lasted.as_secs().saturating_mul(per_second),
            unseen,
        ]
        .into_iter()
        .fold(RECORDING_BASE, u64::saturating_add)
    }

    /// Returns the most bytes that they can unpack to.
    #[must_use]
    pub fn unpacked(&self) -> u64 {
        self.sealed().saturating_mul(RECORDING_UNPACKED)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::{MAX_COMMAND, MAX_ENV_BYTES, MAX_SEGMENT};
    use crate::recording::record::{Event, Record, RecordedBytes, Stream};
    use crate::recording::seal::{RecordingSecret, SealSeed};
    use crate::recording::segment::{SegmentLink, SegmentWriter};

    const TRUE: SessionExtent = SessionExtent {
        kind: RecordedKind::Exec,
        holds_data: true,
        command: 4,
        passed: [PassedStream {
            frames: 0,
            bytes: 0,
        }; 3],
        controls: 0,
        booked: 0,
        lasted: Duration::ZERO,
        exact: true,
    };

    fn passed(frames: u64, bytes: u64) -> PassedStream {
        PassedStream { frames, bytes }
    }

    #[test]
    fn session_that_ran_true_has_a_few_megabytes() {
        assert!(TRUE.sealed() > (MAX_SEGMENT + MAX_COMMAND + MAX_ENV_BYTES) as u64);
        assert!(TRUE.sealed() < 8 << 20);
        assert!(TRUE.unpacked() < 64 << 20);
    }

    #[test]
    fn data_counts_where_it_is_recorded() {
        let shown = SessionExtent {
            passed: [passed(0, 0), passed(1_000, 100 << 20), passed(0, 0)],
            ..TRUE
        };
        assert!(shown.sealed() > (100 << 20) + TRUE.sealed());
        for kind in [RecordedKind::Sftp, RecordedKind::Forwards] {
            let counted = SessionExtent {
                kind,
                holds_data: false,
                ..shown
            };
            assert!(counted.sealed() <= TRUE.sealed(), "{kind:?}");
        }
    }

    #[test]
    fn counts_that_may_be_old_allow_for_what_came_after() {
        let old = SessionExtent {
            exact: false,
            ..TRUE
        };
        assert_eq!(old.sealed(), TRUE.sealed() + RECORDING_UNSEEN);
    }

    #[test]
    fn what_is_booked_counts_for_operations_and_forwards() {
        let of = |kind, booked| {
            SessionExtent {
                kind,
                holds_data: false,
                booked,
                ..TRUE
            }
            .sealed()
        };
        for kind in [RecordedKind::Sftp, RecordedKind::Forwards] {
            assert!(of(kind, 120 << 20) > of(kind, 0) + (120 << 20), "{kind:?}");
        }
    }

    /// Returns the length of all segments of a recording of this data, in records as a device writes them.
    fn recorded(frames: &[Vec<u8>], flush: bool) -> u64 {
        let session = crate::ids::SessionId([3; 16]);
        let key = RecordingSecret::from_seed(&[1; 32]).public();
        let mut seed = SealSeed::new([2; 32]);
        let (mut before, mut index, mut length) = (SegmentLink::first(&session), 0, 0);
        let mut bytes = Vec::new();
        let mut begin = |index, before, bytes: &mut Vec<u8>| {
            SegmentWriter::begin(session, index, before, &key, &mut seed, bytes).unwrap()
        };
        let mut writer = begin(index, before, &mut bytes);
        for frame in frames {
            if writer.is_full() {
                before = writer.close(false, &mut bytes).unwrap();
                length += bytes.len() as u64;
                (bytes, index) = (Vec::new(), index + 1);
                writer = begin(index, before, &mut bytes);
            }
            let event = Event::Data(Stream::Stdout, RecordedBytes(frame));
            let record = Record {
                delta: 2_000_000,
                event,
            };
            writer.push(&record, 0, &mut bytes).unwrap();
            if flush {
                writer.flush(&mut bytes).unwrap();
            }
        }
        writer.close(true, &mut bytes).unwrap();
        length + bytes.len() as u64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn honest_recording_fits(
            seed in any::<u64>(),
            lengths in proptest::collection::vec(1_usize..16_000, 1..200),
            flush in any::<bool>(),
        ) {
            // Noise, which does not compress.
            let mut state = seed | 1;
            let mut noise = |length| {
                core::iter::repeat_with(|| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[3]
                })
                .take(length)
                .collect::<Vec<u8>>()
            };
            let frames: Vec<Vec<u8>> = lengths.iter().map(|length| noise(*length)).collect();
            let bytes = lengths.iter().sum::<usize>() as u64;
            let extent = SessionExtent {
                passed: [passed(0, 0), passed(frames.len() as u64, bytes), passed(0, 0)],
                ..TRUE
            };
            // The constant part is for other things.
            prop_assert!(recorded(&frames, flush) + RECORDING_BASE <= extent.sealed() + 1_024);
        }

        #[test]
        fn more_of_anything_allows_no_less(
            counts in any::<[u64; 9]>(), more in any::<[u64; 9]>(), holds_data: bool, kind in 0_usize..4,
        ) {
            let kinds = [RecordedKind::Shell, RecordedKind::Exec, RecordedKind::Sftp, RecordedKind::Forwards];
            let of = |counts: [u64; 9]| {
                let [a, b, c, d, e, f, controls, booked, seconds] = counts;
                SessionExtent {
                    kind: kinds[kind],
                    holds_data,
                    passed: [passed(a, b), passed(c, d), passed(e, f)],
                    controls,
                    booked,
                    lasted: Duration::from_secs(seconds),
                    ..TRUE
                }
            };
            let mut grown = counts;
            for (count, more) in grown.iter_mut().zip(more) {
                *count = count.saturating_add(more);
            }
            prop_assert!(of(counts).sealed() <= of(grown).sealed());
            prop_assert!(of(counts).sealed() <= of(counts).unpacked());
        }
    }
}
