//! The errors of the store itself, apart from what a rule refuses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use thiserror::Error;

use crate::model::invalid::Fault;
use crate::store::limits::MAX_MEMBERS;

/// The reason why the store did not do it.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The database refused or failed.
    Database(#[from] sqlx::Error),
    /// The commit failed that this write shared with others.
    Commit(Arc<sqlx::Error>),
    /// A write was given up, because the relay ends or has a fault.
    Interrupted,
    /// Other writers held the store for too long.
    Slow(Duration),
    /// A change was not committed in time, and was rolled back.
    Expired(Duration),
    /// A row that this program never wrote.
    Corrupt(&'static str),
    /// The tables belong to another version of the program.
    Version {
        /// The database.
        file: String,
        /// The version of its tables.
        found: i64,
        /// Ours.
        wanted: i64,
    },
    /// The tables could not be brought up to date.
    Migration {
        /// The database.
        file: String,
        /// The cause. Not a `source`: its text is in ours already.
        cause: Box<MigrateError>,
    },
    /// The file of the database cannot be read.
    Unreadable {
        /// The file.
        file: String,
        /// The cause.
        cause: sqlx::Error,
    },
    /// The address of a database on a server is none.
    Url(String),
    /// The server is not one that the relay can use: what it is, and what was expected.
    Unsuitable(String),
    /// There is no connection to the server.
    Unreachable(String, String),
    /// The server does not admit the relay: the database, what the server said, and the remedy.
    NotAdmitted(String, String, &'static str),
    /// The server takes connections, and says nothing.
    Silent(String, Duration),
    /// All connections to the server are in use.
    Exhausted(String, Duration),
    /// The connection was lost in the middle of a change.
    Abandoned(String),
    /// The connection was lost before the server confirmed a commit.
    Unconfirmed(String),
    /// The database belongs to another cluster than the key beside it.
    OtherCluster,
    /// The database is not empty, and holds no state of a relay.
    Foreign {
        /// The database.
        database: String,
        /// The name of something that is there.
        found: String,
    },
    /// The file is not the relay's database any more.
    Elsewhere {
        /// The file.
        file: String,
        /// The database on a server, without a password.
        database: String,
    },
    /// The device was revoked or removed in the meantime.
    NotEnrolled,
    /// The relay of this state folder is no member of the database's cluster.
    NotMember,
    /// The relay of this name has left the cluster.
    MemberLeft(String),
    /// Another member serves at the address.
    AddressTaken {
        /// The `host:port`.
        address: String,
        /// The name of that member.
        other: String,
    },
    /// The cluster has as many members as it may.
    ClusterFull,
    /// This run of the relay was declared dead, or has stopped.
    RunOver,
    /// The system gave no random numbers.
    Random,
}

impl StoreError {
    pub(super) fn migration(file: impl fmt::Display, error: MigrateError) -> Self {
        Self::Migration {
            file: file.to_string(),
            cause: Box::new(error),
        }
    }

    /// Returns what was found, and the remedy.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Database(error) => Fault::new(format!("the database failed: {error}")),
            Self::Commit(error) => Fault::new(format!("the database failed: {error}")),
            Self::Interrupted => Fault::new("the database failed: a write was abandoned"),
            Self::Slow(busy) => Fault::with_remedy(
                format!("the database was busy for {} s", busy.as_secs()),
                "see what else writes to it, or whether the disk is slow",
            ),
            Self::Expired(within) => Fault::with_remedy(
                format!(
                    "a change made no progress within {} s and was rolled back",
                    within.as_secs()
                ),
                "try again",
            ),
            Self::Corrupt(what) => Fault::with_remedy(
                format!("the database is damaged ({what} cannot be read back)"),
                "restore it from a backup",
            ),
            Self::Version {
                file,
                found,
                wanted,
            } => Fault::with_remedy(
                format!("{file} has tables of version {found} and this program expects {wanted}"),
                "start `relay serve` of this version once, or use the program that is serving",
            ),
            Self::Migration { file, cause } => {
                Fault::new(format!("{file} cannot be brought up to date: {cause}"))
            }
            Self::Unreadable { file, cause } => {
                Fault::new(format!("the database {file} cannot be read: {cause}"))
            }
            Self::Url(why) => Fault::with_remedy(
                format!("the database's address is not valid ({why})"),
                "expected postgres://USER@HOST/DATABASE",
            ),
            Self::Unsuitable(why) => Fault::new(format!("the database cannot be used: {why}")),
            Self::Unreachable(database, why) => Fault::with_remedy(
                format!("the database {database} cannot be reached ({why})"),
                "see whether PostgreSQL runs and admits this relay",
            ),
            Self::NotAdmitted(database, why, remedy) => Fault::with_remedy(
                format!("the database {database} does not admit this relay ({why})"),
                *remedy,
            ),
            Self::Silent(database, limit) => Fault::with_remedy(
                format!(
                    "the database {database} did not answer within {} s",
                    limit.as_secs()
                ),
                "see whether PostgreSQL or the network hangs",
            ),
            Self::Exhausted(database, limit) => Fault::with_remedy(
                format!(
                    "all connections to the database {database} were in use for {} s",
                    limit.as_secs()
                ),
                "see whether PostgreSQL is overloaded",
            ),
            Self::Abandoned(database) => Fault::with_remedy(
                format!(
                    "the change was rolled back, because an earlier step failed in the database {database}"
                ),
                "try again",
            ),
            Self::Unconfirmed(database) => Fault::with_remedy(
                format!(
                    "the database {database} did not confirm the change, which may have been made or not"
                ),
                "look before you try again",
            ),
            Self::OtherCluster => Fault::with_remedy(
                "the database belongs to another cluster than cluster.key",
                "restore both from the same backup",
            ),
            Self::Foreign { database, found } => Fault::with_remedy(
                format!(
                    "the database {database} is not empty, and holds no state of a relay (it has \"{found}\")"
                ),
                "make an empty one with `createdb --encoding=UTF8 --template=template0 NAME`",
            ),
            Self::Elsewhere { file, database } => Fault::with_remedy(
                format!(
                    "the state of this relay is in PostgreSQL by now, in {database}, but the file `database` beside {file} \
                     is gone"
                ),
                "start `relay serve --database` with that database's address, or restore the file",
            ),
            Self::NotEnrolled => Fault::new("the device is not enrolled any more"),
            Self::NotMember => Fault::with_remedy(
                "this relay is no member of the cluster that uses the database",
                "add it with `relay token create --relay` on a member and `relay cluster join` here, in an empty state \
                 folder",
            ),
            Self::MemberLeft(name) => Fault::with_remedy(
                format!("{name} has left the cluster"),
                "join it again with `relay cluster join`, in an empty state folder",
            ),
            Self::AddressTaken { address, other } => Fault::with_remedy(
                format!("devices reach another relay of the cluster, {other}, at {address}"),
                "give each relay a `--public` of its own, which leads to it alone",
            ),
            Self::ClusterFull => Fault::with_remedy(
                format!("the cluster has {MAX_MEMBERS} relays, which is the maximum"),
                "remove one with `relay cluster leave`",
            ),
            Self::RunOver => Fault::with_remedy(
                "this run of the relay is over: another relay of the cluster declared it dead, because its heartbeat had \
                 not come for 10 s",
                "start it again",
            ),
            Self::Random => Fault::new("the system gives no random numbers"),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault().fmt(f)
    }
}
