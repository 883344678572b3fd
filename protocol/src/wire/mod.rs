//! Every message of the tunnel. `docs/protocol.md` describes when each is sent.
//!
//! postcard is not self-describing: variants are only ever appended, new fields go to the end of the
//! outermost struct, and nothing is reordered. Golden bytes in `wire/golden.rs` hold that.

mod control;
pub mod peer;
mod recording;
mod request;
mod session;
mod terms;

pub use control::{
    AgentMessage, Beat, CloseCode, Enrol, EnrolRelay, Hello, Instance, Intent, MembershipGrant,
    Refusal, RelayGrant, RelayMessage, Welcome,
};
pub use recording::{
    ChainKey, EndReason, InventoryPart, OfferedSegment, RecordingMode, RecordingTerms,
    SegmentBytes, SegmentGone, SegmentHeld, SegmentLink, SegmentLost, SegmentRefusal,
    SegmentRefused, SessionFinished, StdinMode, UploadAnswer, UploadMessage,
};
pub use request::{
    Connect, ForwardRequest, Incoming, Listen, ProcessRequest, SFTP, SessionRequest, SocketPath,
    Take,
};
pub use session::{Exit, Open, Pty, ResetCode, SessionRefusal, Signal, WindowSize};
pub use terms::{ForwardLogRef, OnDisconnect, SessionTerms, SftpTerms};

#[cfg(test)]
mod golden;
