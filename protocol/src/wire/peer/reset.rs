//! The end of a tunnel as the relay of the operator learns of it: the code that a stream between two relays is reset
//! with.

/// The first of the codes that say how the tunnel ended: those below are the device's own, passed on.
const FIRST: u64 = 0x100;
const TIMED_OUT: u64 = FIRST + 1;
const CLOSED_HERE: u64 = FIRST + 2;
/// A code that the device closed its tunnel with is added to this one.
const CLOSED: u64 = 0x1_0000;

/// The way a device's tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelLoss {
    /// It was lost.
    Lost,
    /// Nothing was heard of the device for too long.
    TimedOut,
    /// Its relay closed it: a newer tunnel replaced it, the device was revoked, or the relay stops.
    ClosedHere,
    /// The device closed it, with this code ([`crate::wire::CloseCode`]).
    Closed(u32),
}

impl TunnelLoss {
    /// Returns the code of a reset that says so.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::Lost => FIRST,
            Self::TimedOut => TIMED_OUT,
            Self::ClosedHere => CLOSED_HERE,
            Self::Closed(code) => CLOSED + u64::from(code),
        }
    }

    /// Returns what the code of a reset says; `None` if the device itself reset its stream.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        match code {
            TIMED_OUT => Some(Self::TimedOut),
            CLOSED_HERE => Some(Self::ClosedHere),
            FIRST..CLOSED => Some(Self::Lost),
            CLOSED.. => Some(u32::try_from(code - CLOSED).map_or(Self::Lost, Self::Closed)),
            _ => None,
        }
    }
}
