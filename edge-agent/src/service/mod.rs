//! The agent as a service of its device: installed, watched, upgraded, asked for its status.

pub(crate) mod digest;
pub mod doctor;
pub mod install;
pub mod instance;
pub(crate) mod limits;
pub mod notify;
pub mod status;
pub mod status_socket;
pub mod upgrade;

pub use limits::UPGRADE_GRACE;
