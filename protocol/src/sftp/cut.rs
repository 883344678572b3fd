//! Takes packets of SFTP out of a stream, and leaves all others in it untouched and uncopied.

use alloc::vec::Vec;
use core::ops::Range;

use crate::limits::MAX_SFTP_PACKET;

/// A packet's length, its kind and its number.
const HEAD: usize = 9;

/// The beginning of a packet.
#[derive(Clone, Copy, Debug)]
pub struct PacketHead {
    /// Its kind, as in [`super::kind`].
    pub kind: u8,
    /// Its number; of the first packets of all their version.
    pub id: u32,
    /// Of the whole packet.
    pub bytes: usize,
}

/// The next part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum FilterStep {
    /// Passes on, from here to there.
    Pass(Range<usize>),
    /// Passes on as well, from what came before.
    PassHeld(Vec<u8>),
    /// A whole packet that was asked for. It is out of the stream.
    Taken(Vec<u8>),
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub struct PacketFilter {
    /// The beginning of a packet, as far as it has come.
    held: Vec<u8>,
    /// The length of the packet that is taken.
    taking: Option<usize>,
    /// The rest of a packet that passes.
    passing: usize,
    /// This is no SFTP: all of it passes.
    lost: bool,
}

impl PacketFilter {
    /// Returns the next step from `at` on, which moves on; `None`: more is to come. `takes` says which packets are
    /// taken.
    pub fn step(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        takes: impl FnOnce(&PacketHead) -> bool,
    ) -> Option<FilterStep> {
        let start = *at;
        let here = bytes.get(start..).filter(|here| !here.is_empty())?;
        if self.lost {
            *at = bytes.len();
            return Some(FilterStep::Pass(start..*at));
        }
        if self.passing > 0 {
            return Some(self.pass(here.len(), at));
        }
        if self.taking.is_none() {
            let missing = HEAD - self.held.len().min(HEAD);
            let (now, whole) = (here.get(..missing), self.held.is_empty());
            let Some(now) = now else {
                self.held.extend_from_slice(here);
                *at = bytes.len();
                return None;
            };
            self.held.extend_from_slice(now);
            let Some(head) = head(&self.held) else {
                self.lost = true;
                *at += missing;
                return Some(FilterStep::PassHeld(core::mem::take(&mut self.held)));
            };
            if !takes(&head) {
                if whole {
                    // Nothing of it is held: it passes as it is.
                    self.held.clear();
                    self.passing = head.bytes;
                    return Some(self.pass(here.len(), at));
                }
                self.passing = head.bytes - HEAD;
                *at += missing;
                return Some(FilterStep::PassHeld(core::mem::take(&mut self.held)));
            }
            self.taking = Some(head.bytes);
            *at += missing;
        }
        let missing = self.taking? - self.held.len();
        let here = bytes.get(*at..).unwrap_or_default();
        let now = &here[..missing.min(here.len())];
        self.held.extend_from_slice(now);
        *at += now.len();
        if now.len() < missing {
            return None;
        }
        self.taking = None;
        Some(FilterStep::Taken(core::mem::take(&mut self.held)))
    }

    /// Returns whether what has passed ends with a whole packet, so that another may go between.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.passing == 0
    }

    /// Returns what is held and never came to its end; from here on all passes.
    pub fn rest(&mut self) -> Vec<u8> {
        self.lost = true;
        core::mem::take(&mut self.held)
    }

    fn pass(&mut self, here: usize, at: &mut usize) -> FilterStep {
        let (start, count) = (*at, self.passing.min(here));
        self.passing -= count;
        *at += count;
        FilterStep::Pass(start..*at)
    }
}

/// Reads the head of a packet; `None`: this is no SFTP.
fn head(bytes: &[u8]) -> Option<PacketHead> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (kind, rest) = rest.split_first()?;
    let length = u32::from_be_bytes(*length) as usize;
    (5..=MAX_SFTP_PACKET).contains(&length).then(|| PacketHead {
        kind: *kind,
        id: rest.first_chunk().map_or(0, |id| u32::from_be_bytes(*id)),
        bytes: 4 + length,
    })
}
