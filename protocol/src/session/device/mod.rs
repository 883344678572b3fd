//! A session on the device: what its relay may send, and what follows from that.

mod forward;
mod process;

pub use forward::{DeviceForward, ForwardAction};
pub use process::{Departure, DeviceProcess, ProcessAction};

use super::SessionViolation;
use crate::codec::frame::{FramePiece, SessionMessage};
use crate::wire::Open;

/// Returns the `Open` with which a relay's stream begins. Its request says which machine takes all that follows.
///
/// # Errors
/// [`SessionViolation`] if the first piece of the stream is anything else.
pub fn opening(first: FramePiece<'_>) -> Result<Open, SessionViolation> {
    match first {
        FramePiece::Message(SessionMessage::Open(open)) => Ok(open),
        FramePiece::Message(_) | FramePiece::Data(..) => Err(SessionViolation::Open),
    }
}
