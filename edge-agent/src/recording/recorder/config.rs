//! The recorder's configuration: where recordings wait, and when they are uploaded.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_protocol::limits::SPOOL_BYTES;
use holdfast_protocol::recording::spool::Sync;
use holdfast_protocol::recording::upload::{UploadConfig, UploadPolicy};

use crate::recording::adopted::note_joined;

/// The file in the state folder that says which folder was used first.
const ADOPTED: &str = "spool-adopted";

/// Describes where recordings wait, and when they are uploaded.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// The spool's folder.
    pub folder: PathBuf,
    /// True if that is in the state folder.
    pub in_state: bool,
    /// The file that says which folder was used first; `None`: any is the same.
    pub adopted: Option<PathBuf>,
    /// The most that it may hold.
    pub max_bytes: u64,
    /// Free space of the file system that it leaves alone; by default 16 MiB, or a fourth of a small one.
    pub reserve: Option<u64>,
    /// The policy of making sure that a power cut takes nothing; by default with each write, unless it lies in
    /// memory anyway.
    pub sync: Option<Sync>,
    /// The policy of uploads.
    pub upload: UploadConfig,
}

impl RecorderConfig {
    /// Notes in the state folder that the device has just joined: nothing was recorded for it, in whatever folder.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note_joined(state: &Path) -> io::Result<()> {
        note_joined(&Self::adopted_in(state))
    }

    /// Returns the place of [`Self::adopted`] in a state folder.
    #[must_use]
    pub fn adopted_in(state: &Path) -> PathBuf {
        state.join(ADOPTED)
    }

    /// Creates a configuration with defaults for everything but the folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            in_state: false,
            adopted: None,
            max_bytes: SPOOL_BYTES,
            reserve: None,
            sync: None,
            upload: UploadConfig {
                policy: UploadPolicy::Idle,
                rate: None,
                daily: None,
            },
        }
    }
}
