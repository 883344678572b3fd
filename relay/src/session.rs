//! Sessions: how one is admitted, what it is while it lives, and how it ends.

pub mod admission;
pub mod bridge;
pub mod console;
pub mod down;
pub mod ending;
pub mod enforce;
pub mod files;
pub mod forward;
mod known;
pub mod lease;
pub mod life;
pub mod live;
mod older;
pub mod publish;
mod recorded;
pub mod refusal;
pub mod report;
pub mod sftp;
pub mod sink;
pub mod start;
pub mod timeouts;
