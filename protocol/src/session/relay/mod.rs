//! A session on the relay: what the device may say, and what it means for the operator's channel.

mod course;
mod forward;
mod process;

pub use forward::{ForwardReport, RelayForward};
pub use process::{ProcessReport, RelayProcess};
