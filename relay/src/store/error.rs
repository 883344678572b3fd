//! The errors of the store itself, apart from what a rule refuses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use thiserror::Error;

/// The reason why the store did not do it.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The database refused or failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The commit failed that this write shared with others.
    #[error("the database failed: {0}")]
    Commit(Arc<sqlx::Error>),
    /// A write was given up, because the relay ends or has a fault.
    #[error("the database failed: a write was abandoned")]
    Interrupted,
    /// Other writers held the store for too long.
    #[error("the database was busy for {} s: see what else writes to it, or whether the disk is slow", .0.as_secs())]
    Slow(Duration),
    /// A change was not committed in time, and was rolled back.
    #[error("a change made no progress within {} s and was rolled back: try again", .0.as_secs())]
    Expired(Duration),
    /// A row that this program never wrote.
    #[error("the database is damaged: {0} cannot be read back; restore it from a backup")]
    Corrupt(&'static str),
    /// The tables belong to another version of the program.
    #[error(
        "{file} has tables of version {found} and this program expects {wanted}: start `relay serve` of this version once, or use the program that is serving"
    )]
    Version {
        /// The database.
        file: PathBuf,
        /// The version of its tables.
        found: i64,
        /// Ours.
        wanted: i64,
    },
    /// The tables could not be brought up to date.
    #[error("{file} cannot be brought up to date: {cause}")]
    Migration {
        /// The database.
        file: PathBuf,
        /// The cause. Not a `source`: its text is in ours already.
        cause: Box<MigrateError>,
    },
    /// The database belongs to another cluster than the key beside it.
    #[error(
        "the database belongs to another cluster than cluster.key: restore both from the same backup"
    )]
    OtherCluster,
    /// The device was revoked or removed in the meantime.
    #[error("the device is not enrolled any more")]
    NotEnrolled,
    /// The system gave no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl StoreError {
    pub(super) fn migration(file: &Path, error: MigrateError) -> Self {
        Self::Migration {
            file: file.to_owned(),
            cause: Box::new(error),
        }
    }
}
