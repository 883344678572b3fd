//! The share of the spool that each kind of session may use, and what it leaves to those that need it more.

use crate::limits::{RECOVER_RESERVE, SPOOL_SHARES};
use crate::recording::record::RecordingStart;
use crate::wire::{RecordingMode, RecordingTerms};

/// A session's kind, as far as its part of the spool goes: the later ones may use more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SpoolShare {
    /// Goes on without its recording, and has no terminal: a copy, a command.
    Loose,
    /// Goes on without its recording, with a terminal.
    LooseTerminal,
    /// Ends without its recording, and has no terminal.
    Strict,
    /// The same with a terminal: the way in for sessions that must be recorded.
    StrictTerminal,
    /// An administrator's rescue of a device that is full.
    Recover,
}

impl SpoolShare {
    pub(super) fn of(terms: &RecordingTerms, start: &RecordingStart<'_>) -> Self {
        let strict = terms.mode == RecordingMode::Strict;
        match (strict, start.terminal.is_some()) {
            _ if terms.recover => Self::Recover,
            (true, true) => Self::StrictTerminal,
            (true, false) => Self::Strict,
            (false, true) => Self::LooseTerminal,
            (false, false) => Self::Loose,
        }
    }

    /// Returns how much of the whole a session leaves to those of the later kinds.
    pub(super) fn left_of(self, whole: u64) -> u64 {
        let shares = match self {
            Self::Loose => 3,
            Self::LooseTerminal => 2,
            Self::Strict => 1,
            Self::StrictTerminal | Self::Recover => 0,
        };
        whole / SPOOL_SHARES * shares
    }

    /// Returns the kind of session that it leaves that to.
    pub(super) fn later(self) -> &'static str {
        match self {
            Self::Loose => "terminals and strict sessions",
            Self::LooseTerminal => "strict sessions",
            Self::Strict => "strict sessions with a terminal",
            Self::StrictTerminal | Self::Recover => "recovery",
        }
    }

    /// Returns what only a rescue may use.
    pub(super) fn reserve(self) -> u64 {
        if self == Self::Recover {
            0
        } else {
            RECOVER_RESERVE
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::super::content::tests::noise;
    use super::super::tests::{secret, spool, terms};
    use super::super::{Accept, Begin, DataPiece, Spool, SpoolWork, Unavailable};
    use super::*;
    use crate::ids::SessionId;
    use crate::limits::WRITE_DELAY;
    use crate::recording::reader::tests::start;
    use crate::recording::record::{Event, RecordedTerminal, Stream};
    use crate::wire::{StdinMode, WindowSize};
    use core::time::Duration;

    const T: Duration = Duration::from_secs(50);

    fn begin(spool: &mut Spool, id: u8, share: SpoolShare) -> Result<(), Unavailable> {
        let session = SessionId([id; 16]);
        let Event::Start(start) = start(session) else {
            panic!("no start");
        };
        let (mode, terminal) = match share {
            SpoolShare::Loose => (RecordingMode::BestEffort, false),
            SpoolShare::LooseTerminal => (RecordingMode::BestEffort, true),
            SpoolShare::Strict | SpoolShare::Recover => (RecordingMode::Strict, false),
            SpoolShare::StrictTerminal => (RecordingMode::Strict, true),
        };
        let terminal = terminal.then(|| RecordedTerminal {
            term: "xterm",
            size: WindowSize::clamped(80, 24, 0, 0),
        });
        let mut terms = terms(mode, StdinMode::Full);
        terms.recover = share == SpoolShare::Recover;
        let begin = Begin {
            terms: &terms,
            key: Some(secret().public()),
            seed: [id; 32],
            start: RecordingStart {
                session,
                terminal,
                ..start
            },
            content_max: None,
            rest_of_command: &[],
        };
        spool.begin(T, &begin)
    }

    /// Records noise until nothing more is taken, and gives how much was.
    fn fill(spool: &mut Spool, id: u8) -> u64 {
        let (mut taken, mut noise) = (0, 1_u64);
        loop {
            let bytes: vec::Vec<u8> = (0..64)
                .map(|_| {
                    noise = noise
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    noise.to_be_bytes()[0]
                })
                .collect();
            let piece = DataPiece {
                stream: Stream::Stdout,
                bytes: &bytes,
                remaining: 0,
                hidden: false,
            };
            match spool.accept_data(T, SessionId([id; 16]), piece) {
                Accept::Accepted => taken += bytes.len() as u64,
                Accept::Wait => {
                    // What is written stays in the spool: nothing is uploaded.
                    while let Some(work) = spool.poll_work(T) {
                        spool.handle_done(T, work, Ok(1 << 40));
                    }
                }
                Accept::Gap | Accept::Refused(_) => return taken,
            }
        }
    }

    #[test]
    fn each_kind_of_session_leaves_room_to_those_that_need_it_more() {
        const KINDS: [SpoolShare; 4] = [
            SpoolShare::Loose,
            SpoolShare::LooseTerminal,
            SpoolShare::Strict,
            SpoolShare::StrictTerminal,
        ];
        let whole = 4 << 20;
        let mut spool = spool(whole);
        for (id, share) in (1..).zip(KINDS) {
            begin(&mut spool, id, share).unwrap();
            let taken = fill(&mut spool, id);
            let least = whole / SPOOL_SHARES * 3 / 4;
            assert!(taken > least, "{share:?} found room for {taken} bytes");
            // Nothing is left for another of its kind, or of one before.
            for (other, before) in (100..).zip(KINDS.into_iter().filter(|kind| *kind <= share)) {
                assert!(
                    begin(&mut spool, other, before).is_err(),
                    "{before:?} after {share:?}"
                );
            }
        }
        assert_eq!(begin(&mut spool, 9, SpoolShare::Recover), Ok(()));
        assert!(spool.used() <= whole);
    }

    #[test]
    fn a_write_that_is_done_makes_no_room() {
        let mut spool = spool(1 << 30);
        (spool.config.reserve, spool.free) = (0, 400_000);
        begin(&mut spool, 1, SpoolShare::Loose).unwrap();
        let bytes = noise(40_000);
        let piece = DataPiece {
            stream: Stream::Stdout,
            bytes: &bytes,
            remaining: 0,
            hidden: false,
        };
        let accept = spool.accept_data(T, SessionId([1; 16]), piece);
        assert_eq!(accept, Accept::Accepted);
        let room = |spool: &Spool| {
            let shares = [SpoolShare::Loose, SpoolShare::Strict];
            shares.map(|share| (0..).find(|cost| spool.room_for(*cost, share).is_err()))
        };
        let before = room(&spool);
        let mut free = spool.free;
        while let Some(work) = spool.poll_work(T + WRITE_DELAY) {
            if let SpoolWork::Write(write) = &work {
                free -= write.bytes.len() as u64;
            }
            spool.handle_done(T + WRITE_DELAY, work, Ok(free));
        }
        assert!(spool.free < 370_000, "{} are free", spool.free);
        for (before, after) in before.into_iter().zip(room(&spool)) {
            assert!(after <= before, "{after:?} after {before:?}");
        }
    }

    #[test]
    fn room_of_a_small_file_system_is_shared_too() {
        let mut spool = spool(1 << 30);
        spool.free = 100_000;
        for (id, share) in (1..).zip([
            SpoolShare::Loose,
            SpoolShare::LooseTerminal,
            SpoolShare::Strict,
        ]) {
            let left = share.left_of(spool.free);
            assert!(left > 0);
            let refused = spool.room_for(spool.free - spool.config.reserve, share);
            assert!(
                matches!(refused, Err(Unavailable::DiskFull { .. })),
                "{id} {refused:?}"
            );
        }
        assert_eq!(spool.room_for(50_000, SpoolShare::Loose), Ok(()));
        assert_eq!(spool.room_for(99_000, SpoolShare::StrictTerminal), Ok(()));
    }
}
