//! Live sessions: one task a channel, and the board that knows of them.

pub mod bridge;
pub mod live;
pub mod refusal;
