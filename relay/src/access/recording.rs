//! Decides how a session is recorded, and whether it may run where it cannot be. What a device does that runs out of
//! room is decided there, by the terms that it gets here.

use holdfast_protocol::ids::DeviceName;
use holdfast_protocol::recording::chain::ChainKey;
use holdfast_protocol::wire::RecordingTerms;
use thiserror::Error;

use super::policy::Terms;
use crate::model::role::{RecordingMode, StdinMode};

/// The terms on which a session is to be recorded. Only [`wanted`] makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// [`RecordingMode::Strict`] or [`RecordingMode::BestEffort`].
    mode: RecordingMode,
    stdin: StdinMode,
    /// True if its user may also use a device that cannot record.
    recover: bool,
}

/// The reason why a session cannot be recorded at all: the sentence for its operator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unrecordable {
    /// Its device knows nothing of recordings.
    #[error("recording unavailable on {0}: its agent is too old to record; update it")]
    OldAgent(DeviceName),
    /// Its agent records sessions and no forwards.
    #[error("recording unavailable on {0}: its agent is too old to record forwards; update it")]
    OldForwards(DeviceName),
    /// Its device says why, in this sentence.
    #[error("{0}")]
    Device(String),
    /// The relay cannot note that there is one, so that it would take nothing of it.
    #[error("recording unavailable: the relay's store does not answer; try again in a minute")]
    Store,
}

/// Returns how a session on these terms is to be recorded; `None`: not at all. `recover` is true if its user has that
/// ability there.
#[must_use]
pub(crate) fn wanted(terms: &Terms, recover: bool) -> Option<Wanted> {
    let (mode, stdin) = (terms.recording, terms.record_stdin);
    (mode != RecordingMode::Off).then_some(Wanted {
        mode,
        stdin,
        recover,
    })
}

impl Wanted {
    /// Returns whether nothing may pass unrecorded.
    #[must_use]
    pub(crate) fn is_strict(self) -> bool {
        self.mode == RecordingMode::Strict && !self.recover
    }

    /// Returns the terms for the device: these, and the key of the streams' digests.
    #[must_use]
    pub(crate) fn terms(self, key: ChainKey) -> RecordingTerms {
        RecordingTerms {
            mode: self.mode.into(),
            stdin: self.stdin.into(),
            key,
            recover: self.recover,
        }
    }

    /// Checks whether the session may run unrecorded, because of this. A gap is no outage where recording is as good
    /// as it gets. Where it is strict, only a device that records nothing may be recovered so; what is wrong with
    /// the relay is repaired on the relay.
    ///
    /// # Errors
    /// The reason again: it may not.
    pub(crate) fn without(self, why: Unrecordable) -> Result<(), Unrecordable> {
        let is_old = matches!(
            why,
            Unrecordable::OldAgent(_) | Unrecordable::OldForwards(_)
        );
        let recovers = self.recover && is_old;
        match self.mode == RecordingMode::Strict && !recovers {
            true => Err(why),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::wire;

    use super::*;
    use crate::access::policy::{Cutoffs, DEFAULT_CONTENT, DEFAULT_ON_DISCONNECT, Idle, Longest};
    use crate::model::role::Limits;
    use crate::model::sftp::SftpConstraints;

    fn terms(recording: RecordingMode, record_stdin: StdinMode) -> Terms {
        let idle = Idle {
            after: None,
            role: None,
        };
        let longest = Longest::default();
        Terms {
            limits: Limits::default(),
            cutoffs: Cutoffs { idle, longest },
            on_disconnect: DEFAULT_ON_DISCONNECT,
            recording,
            record_stdin,
            record_content: DEFAULT_CONTENT,
            sftp: SftpConstraints::default(),
        }
    }

    #[test]
    fn recording_terms_follow_the_role() {
        use RecordingMode::{BestEffort, Off, Strict};
        use StdinMode::{Full, Redact};
        let expected_terms = |mode, stdin, recover| {
            let key = ChainKey([7; 32]);
            Some(RecordingTerms {
                mode,
                stdin,
                key,
                recover,
            })
        };
        let (best, strict) = (wire::RecordingMode::BestEffort, wire::RecordingMode::Strict);
        let table = [
            (Off, Full, true, None),
            (
                BestEffort,
                Redact,
                false,
                expected_terms(best, wire::StdinMode::Redact, false),
            ),
            (
                Strict,
                Full,
                true,
                expected_terms(strict, wire::StdinMode::Full, true),
            ),
            (
                Strict,
                StdinMode::Off,
                false,
                expected_terms(strict, wire::StdinMode::Off, false),
            ),
        ];
        for (mode, stdin, recover, expected) in table {
            let wanted = wanted(&terms(mode, stdin), recover);
            let device_terms = wanted.map(|wanted| wanted.terms(ChainKey([7; 32])));
            assert_eq!(device_terms, expected, "{mode:?}");
        }
    }

    #[test]
    fn strict_means_strict_except_for_who_may_recover_a_device() {
        use RecordingMode::{BestEffort, Strict};
        let device = || DeviceName::new("kitchen-cam").unwrap();
        let old = || Unrecordable::OldAgent(device());
        let forwards = || Unrecordable::OldForwards(device());
        let full = || Unrecordable::Device("spool full".into());
        let table = [
            (BestEffort, false, forwards(), true),
            (Strict, false, forwards(), false),
            (Strict, true, forwards(), true),
            (BestEffort, true, full(), true),
            (Strict, false, full(), false),
            (Strict, true, full(), false),
            (BestEffort, false, old(), true),
            (BestEffort, true, old(), true),
            (Strict, false, old(), false),
            (Strict, true, old(), true),
            (BestEffort, false, Unrecordable::Store, true),
            (BestEffort, true, Unrecordable::Store, true),
            (Strict, false, Unrecordable::Store, false),
            (Strict, true, Unrecordable::Store, false),
        ];
        for (mode, recover, why, may) in table {
            let wanted = wanted(&terms(mode, StdinMode::Redact), recover).unwrap();
            let expected = if may { Ok(()) } else { Err(why.clone()) };
            assert_eq!(wanted.without(why.clone()), expected, "{wanted:?} {why:?}");
            assert_eq!(wanted.is_strict(), mode == Strict && !recover);
        }
        assert_eq!(
            forwards().to_string(),
            "recording unavailable on kitchen-cam: its agent is too old to record forwards; update it"
        );
    }
}
