//! The list of the recordings that a device holds: sent in parts, at the agent's start and some time after each later
//! tunnel began.

use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::SessionId;
use crate::limits::{INVENTORY_PART, MAX_INVENTORY_PARTS};
use crate::recording::spool::Spool;
use crate::wire::{InventoryPart, SegmentLost};

/// A list that a relay has not taken as a whole.
#[derive(Debug)]
pub(super) struct Inventory {
    /// The time of the spool's take-over, or when a later tunnel began.
    since: Duration,
    why: SegmentLost,
    /// The number of the next part.
    part: u32,
    /// The last session of the part before.
    after: Option<SessionId>,
    /// The part that was sent and not answered yet.
    sent: Option<InventoryPart>,
}

impl Inventory {
    /// Creates the list by which sessions from before `since` are judged.
    pub(super) fn new(since: Duration, why: SegmentLost) -> Self {
        Self {
            since,
            why,
            part: 0,
            after: None,
            sent: None,
        }
    }

    /// Begins anew, for another stream.
    pub(super) fn restart(&mut self) {
        (self.part, self.after, self.sent) = (0, None, None);
    }

    /// Returns the next part, unless one is to be answered first. What begins or is delivered meanwhile does no harm:
    /// the relay judges only sessions from before that time, and none that it has as a whole.
    pub(super) fn next(&mut self, now: Duration, spool: &Spool) -> Option<InventoryPart> {
        if self.sent.is_some() || self.part >= MAX_INVENTORY_PARTS {
            return None;
        }
        let mut sessions: Vec<SessionId> = spool.held(self.after, INVENTORY_PART + 1);
        let last = sessions.len() <= INVENTORY_PART;
        sessions.truncate(INVENTORY_PART);
        let age = now.saturating_sub(self.since).as_millis();
        let part = InventoryPart {
            part: self.part,
            age: u64::try_from(age).unwrap_or(u64::MAX),
            why: self.why,
            sessions,
            last,
        };
        self.sent = Some(part.clone());
        Some(part)
    }

    /// Returns whether no part of it was sent on this stream.
    pub(super) fn is_new(&self) -> bool {
        self.part == 0 && self.sent.is_none()
    }

    /// Notes that the relay has taken a part; says whether it was the last one.
    pub(super) fn handle_listed(&mut self, part: u32) -> bool {
        let Some(sent) = self.sent.take_if(|sent| sent.part == part) else {
            return false;
        };
        self.part += 1;
        self.after = sent.sessions.last().copied().or(self.after);
        sent.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{INVENTORY_MINOR, MAX_INVENTORIES, RELIST_DELAY};
    use crate::recording::medium::{FileName, Medium, MediumEntry, SegmentName};
    use crate::recording::spool::SpoolConfig;
    use crate::recording::upload::{UploadAction, UploadConfig, UploadPolicy, Uploader};
    use crate::wire::{UploadAnswer, UploadMessage};
    use embedded_io::ErrorKind;

    /// A folder with an empty file of each of so many sessions.
    struct Empty(u16);

    fn session(number: u16) -> SessionId {
        let [high, low] = number.to_be_bytes();
        SessionId([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9])
    }

    impl Medium for Empty {
        type Error = ErrorKind;

        fn create(&mut self, _: FileName) -> Result<(), ErrorKind> {
            Ok(())
        }

        fn append(&mut self, _: FileName, _: u64, _: &[u8]) -> Result<(), ErrorKind> {
            Ok(())
        }

        fn sync(&mut self, _: FileName) -> Result<(), ErrorKind> {
            Ok(())
        }

        fn rename(&mut self, _: FileName, _: FileName) -> Result<(), ErrorKind> {
            Ok(())
        }

        fn read(&mut self, _: FileName, _: u64, _: &mut [u8]) -> Result<usize, ErrorKind> {
            Ok(0)
        }

        fn remove(&mut self, _: FileName) -> Result<(), ErrorKind> {
            Ok(())
        }

        fn list(&mut self) -> Result<Vec<MediumEntry>, ErrorKind> {
            let entry = |number| MediumEntry {
                name: FileName::Segment(SegmentName {
                    session: session(number),
                    index: 0,
                }),
                length: 0,
                modified: 0,
            };
            Ok((0..self.0).map(entry).collect())
        }

        fn free(&mut self) -> Result<u64, ErrorKind> {
            Ok(1 << 40)
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Returns an agent that found that at second 100, and whose uploads wait for a request.
    fn agent(sessions: u16) -> (Uploader, Spool) {
        let (spool, _) = Spool::recover(SpoolConfig::default(), &mut Empty(sessions)).unwrap();
        let mut uploader = Uploader::new(UploadConfig {
            policy: UploadPolicy::Manual,
            rate: None,
            daily: None,
        });
        uploader.handle_recovered(seconds(100), SegmentLost::Missing);
        (uploader, spool)
    }

    /// Returns the next part; all reports before it are noted.
    fn part(uploader: &mut Uploader, spool: &mut Spool) -> Option<InventoryPart> {
        loop {
            match uploader.poll_action(seconds(103), None, spool)? {
                UploadAction::Send(UploadMessage::Inventory(part)) => return Some(part),
                UploadAction::Send(UploadMessage::Gone(gone)) => {
                    let noted = UploadAnswer::Noted(gone.session);
                    uploader.handle_answer(seconds(103), &noted, spool);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn everything_is_listed_once_in_parts_that_are_answered() {
        let (mut uploader, mut spool) = agent(600);
        uploader.handle_connected(INVENTORY_MINOR);
        let mut listed = Vec::new();
        for number in 0..3 {
            let part = part(&mut uploader, &mut spool).unwrap();
            assert_eq!((part.part, part.age), (number, 3_000));
            assert_eq!(part.last, number == 2);
            assert!(part.sessions.len() <= INVENTORY_PART);
            listed.extend(part.sessions);
            let again = uploader.poll_action(seconds(103), None, &spool);
            assert_eq!(again, None, "it waits for the answer");
            let other = UploadAnswer::Listed(number + 1);
            uploader.handle_answer(seconds(103), &other, &mut spool);
            assert_eq!(uploader.poll_action(seconds(103), None, &spool), None);
            let taken = UploadAnswer::Listed(number);
            uploader.handle_answer(seconds(103), &taken, &mut spool);
        }
        let all: Vec<SessionId> = (0..600).map(session).collect();
        assert_eq!(listed, all);
        uploader.handle_connected(INVENTORY_MINOR);
        assert_eq!(uploader.poll_action(seconds(104), None, &spool), None);
    }

    #[test]
    fn inventory_that_was_cut_begins_again_on_the_next_stream() {
        let (mut uploader, mut spool) = agent(300);
        uploader.handle_connected(INVENTORY_MINOR);
        assert!(!part(&mut uploader, &mut spool).unwrap().last);
        uploader.handle_answer(seconds(103), &UploadAnswer::Listed(0), &mut spool);
        assert!(part(&mut uploader, &mut spool).unwrap().last);
        uploader.handle_lost();
        uploader.handle_connected(INVENTORY_MINOR);
        let first = part(&mut uploader, &mut spool).unwrap();
        assert_eq!((first.part, first.sessions.len()), (0, INVENTORY_PART));
    }

    /// Returns whether the next action is a list, and answers it.
    fn takes_list(uploader: &mut Uploader, spool: &mut Spool, now: u64) -> Option<u64> {
        let action = uploader.poll_action(seconds(now), None, spool)?;
        let UploadAction::Send(UploadMessage::Inventory(part)) = action else {
            panic!("{action:?}");
        };
        assert!((part.part, part.last) == (0, true), "{part:?}");
        uploader.handle_answer(seconds(now), &UploadAnswer::Listed(0), spool);
        Some(part.age)
    }

    #[test]
    fn later_tunnel_has_a_list_of_its_own_after_a_while() {
        let delay = RELIST_DELAY.as_secs();
        let (mut uploader, mut spool) = agent(0);
        uploader.handle_tunnel(seconds(103));
        uploader.handle_connected(INVENTORY_MINOR);
        assert_eq!(takes_list(&mut uploader, &mut spool, 103), Some(3_000));
        assert_eq!(uploader.poll_timeout(seconds(103)), None);
        assert_eq!(takes_list(&mut uploader, &mut spool, 1_000), None);
        uploader.handle_lost();
        uploader.handle_tunnel(seconds(2_000));
        assert_eq!(uploader.poll_timeout(seconds(2_000)), None, "no stream yet");
        uploader.handle_connected(INVENTORY_MINOR);
        assert_eq!(takes_list(&mut uploader, &mut spool, 2_000), None);
        let due = uploader.poll_timeout(seconds(2_000));
        assert_eq!(due, Some(seconds(2_000 + delay)));
        let early = uploader.poll_action(seconds(2_000 + delay - 1), None, &spool);
        assert_eq!(early, None);
        // The stream is another one of the same tunnel.
        uploader.handle_connected(INVENTORY_MINOR);
        let age = takes_list(&mut uploader, &mut spool, 2_005 + delay);
        assert_eq!(
            age,
            Some((delay + 5) * 1_000),
            "from the tunnel's beginning"
        );
        uploader.handle_connected(INVENTORY_MINOR);
        assert_eq!(takes_list(&mut uploader, &mut spool, 9_000), None);
    }

    #[test]
    fn list_of_a_later_tunnel_says_missing_and_begins_again_if_cut() {
        let (mut uploader, mut spool) = agent(300);
        uploader.handle_recovered(seconds(100), SegmentLost::PowerLoss);
        for (tunnel, at) in [(0, 100), (1, 200), (2, 300)] {
            uploader.handle_tunnel(seconds(at));
            uploader.handle_connected(INVENTORY_MINOR);
            let Some(first) = part(&mut uploader, &mut spool) else {
                panic!("no list of tunnel {tunnel}");
            };
            // The first one was never taken as a whole.
            assert_eq!((first.part, first.why), (0, SegmentLost::PowerLoss));
            uploader.handle_lost();
        }
        uploader.handle_connected(INVENTORY_MINOR);
        for number in 0..2 {
            part(&mut uploader, &mut spool).unwrap();
            let taken = UploadAnswer::Listed(number);
            uploader.handle_answer(seconds(301), &taken, &mut spool);
        }
        assert_eq!(uploader.poll_action(seconds(302), None, &spool), None);
        let due = seconds(300) + RELIST_DELAY;
        for _ in 0..2 {
            let action = uploader.poll_action(due, None, &spool);
            let Some(UploadAction::Send(UploadMessage::Inventory(part))) = action else {
                panic!("{action:?}");
            };
            assert_eq!((part.part, part.why), (0, SegmentLost::Missing));
            assert_eq!(u128::from(part.age), RELIST_DELAY.as_millis());
            uploader.handle_lost();
            uploader.handle_connected(INVENTORY_MINOR);
        }
    }

    #[test]
    fn no_more_lists_begin_on_a_tunnel_than_its_relay_takes() {
        let (mut uploader, mut spool) = agent(1);
        uploader.handle_tunnel(seconds(100));
        for _ in 0..MAX_INVENTORIES {
            uploader.handle_connected(INVENTORY_MINOR);
            part(&mut uploader, &mut spool).unwrap();
        }
        uploader.handle_connected(INVENTORY_MINOR);
        assert!(part(&mut uploader, &mut spool).is_none());
        uploader.handle_tunnel(seconds(101));
        uploader.handle_connected(INVENTORY_MINOR);
        assert!(part(&mut uploader, &mut spool).is_some());
    }

    #[test]
    fn spool_that_may_not_be_listed_never_is() {
        let (spool, _) = Spool::recover(SpoolConfig::default(), &mut Empty(0)).unwrap();
        let mut uploader = Uploader::new(UploadConfig {
            policy: UploadPolicy::Manual,
            rate: None,
            daily: None,
        });
        for at in [100, 200, 300] {
            uploader.handle_tunnel(seconds(at));
            uploader.handle_connected(INVENTORY_MINOR);
            assert_eq!(uploader.poll_timeout(seconds(at)), None);
            assert_eq!(uploader.poll_action(seconds(at + 90), None, &spool), None);
            uploader.handle_lost();
        }
    }

    #[test]
    fn empty_spool_is_listed_and_an_older_relay_gets_no_list() {
        let (mut uploader, spool) = agent(0);
        uploader.handle_connected(INVENTORY_MINOR - 1);
        assert_eq!(uploader.poll_action(seconds(103), None, &spool), None);
        uploader.handle_connected(INVENTORY_MINOR);
        let Some(UploadAction::Send(UploadMessage::Inventory(part))) =
            uploader.poll_action(seconds(103), None, &spool)
        else {
            panic!("no list");
        };
        assert!(part.last && part.sessions.is_empty());
    }
}
