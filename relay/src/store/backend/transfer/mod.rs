//! Moves the whole state of a relay from its SQLite file to a server, and compares the two byte for byte.
//!
//! The tables are those of the file, in an order in which each comes behind those it refers to. Rows go through
//! PostgreSQL's `COPY` in its text format, in transactions of about a megabyte: memory does not grow with a table. At the
//! end each table is read back in the same format, and both sides' rows are counted and hashed.
//!
//! What was begun and not finished is marked in the target, and bound to the cluster's key: only a transfer from the same
//! cluster may go on. It empties the target first, because the file may have changed since; only the audit log, which
//! grows at its end and nowhere else, is continued. The file is locked for writing all the time, so that no command
//! beside it changes what was copied already, and takes no further changes once the state is elsewhere.

mod line;
mod source;
mod target;

use std::collections::BTreeMap;
use std::fmt;

use holdfast_protocol::ids::PublicKey;
use serde::Serialize;

use crate::state::{Database, sha256};
use crate::store::backend::connection::Db;
use crate::store::limits::{MAX_REPLACED_NAMED, TRANSFER_BATCH};
use crate::store::{Store, StoreError};
use line::{CopyLine, CopyLineError};
use source::SourceFile;
use target::{TargetClaim, TransferTarget};

/// A table, as both databases have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    name: String,
    columns: Vec<Column>,
}

/// A column, with the type that the target gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    name: String,
    kind: ColumnKind,
}

/// The types of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Integer,
    Flag,
    Text,
    Bytes,
}

/// The number of a table's rows, and the sum of their hashes: the same on both sides, whatever the order of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TableSum {
    rows: u64,
    hashes: u128,
}

/// The progress of a transfer: rows of a table that were copied, and how many it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransferProgress<'a> {
    /// The table.
    pub(crate) table: &'a str,
    /// The rows that were copied.
    pub(crate) rows: u64,
    /// The rows of the table.
    pub(crate) of: u64,
}

/// The content of a state that was moved, now or before.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct TransferReport {
    /// The rows of each table.
    pub(crate) tables: BTreeMap<String, u64>,
    /// The first and the last id of the audit log.
    pub(crate) audit_ids: Option<(i64, i64)>,
    /// The number of texts with U+0000, which PostgreSQL does not store: U+FFFD is in its place.
    pub(crate) replaced: u64,
    /// The places of the first of them.
    pub(crate) replaced_in: Vec<String>,
}

/// The reason why nothing was moved, or not all of it.
#[derive(Debug)]
pub(crate) enum TransferError {
    /// A database refused or failed.
    Store(StoreError),
    /// The target has something else.
    Occupied(String),
    /// Another transfer works on the target.
    Busy(String),
    /// A value that cannot be moved.
    Value(CopyLineError),
    /// A table is not the same on both sides.
    Differs {
        /// The table.
        table: String,
        /// The rows of both sides.
        rows: (u64, u64),
    },
    /// The two databases do not have the same tables.
    Tables(String),
    /// The target was filled from this state before, and one of the two has changed since.
    Changed(String),
}

/// A state that is in both places: the file is still locked.
pub(crate) struct Transferred {
    /// The content.
    pub(crate) report: TransferReport,
    source: SourceFile,
}

impl Transferred {
    /// Has the file take no further changes and name the database in its place, once the state is remembered to be there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn seal(self, to: &Database) -> Result<(), StoreError> {
        self.source.seal(&to.to_string()).await
    }
}

/// Opens the database of a server that a state may be moved to: one without tables gets them, and one of another relay
/// is not touched.
///
/// # Errors
/// [`TransferError`]; [`StoreError::Foreign`].
pub(crate) async fn transfer_target(database: Database) -> Result<Store, TransferError> {
    let store = Store::connect(&database)?;
    if let Db::Postgres(server) = &store.db {
        server.check_server().await?;
    }
    store.check_ours().await?;
    let (found, wanted) = (store.schema_version().await?, store.db.wanted_version());
    if found == wanted {
        return Ok(store);
    }
    if found > wanted || store.bound_cluster().await?.is_some() {
        return Err(TransferError::Occupied(database.to_string()));
    }
    store.db.migrate().await?;
    Ok(store)
}

/// Moves the state of the relay with this cluster's key from an SQLite file to a server. Both have the tables of this
/// program.
///
/// # Errors
/// [`TransferError`]; then the state is where it was, and a later transfer begins again.
pub(crate) async fn transfer(
    (from, to): (&Store, &Store),
    cluster: &PublicKey,
    mut progress: impl FnMut(TransferProgress<'_>),
) -> Result<Transferred, TransferError> {
    let (Db::Sqlite(file), Db::Postgres(server)) = (&from.db, &to.db) else {
        return Err(StoreError::Interrupted.into());
    };
    let mut source = SourceFile::lock(file).await?;
    let mut target = TransferTarget::take(server).await?;
    let names = source.tables().await?;
    let tables = target.tables(&names).await?;
    let mut kept = 0;
    let claim = target.claim(&cluster.to_string()).await?;
    match claim {
        TargetClaim::Finished => {}
        TargetClaim::Begun => {
            kept = same_audit(&mut source, &mut target).await?;
            target.empty(&tables, kept > 0).await?;
        }
    }
    let mut report = TransferReport::default();
    let mut sums = Vec::new();
    for table in &tables {
        let copying = Copying {
            table,
            of: source.count(&table.name).await?,
            // The audit log alone is in the order of its ids.
            behind: if table.name == AUDIT { kept } else { 0 },
            sends: claim == TargetClaim::Begun,
        };
        let sum = copying
            .run(&mut source, &mut target, &mut report, &mut progress)
            .await?;
        report.tables.insert(table.name.clone(), sum.rows);
        sums.push(sum);
    }
    if claim == TargetClaim::Begun {
        for (table, highest) in source.sequences().await? {
            target.continue_after(&table, highest, &names).await?;
        }
    }
    for (table, sum) in tables.iter().zip(&sums) {
        let there = target.sum(table).await?;
        if there == *sum {
            continue;
        }
        return Err(match claim {
            TargetClaim::Finished => TransferError::Changed(target.name()),
            TargetClaim::Begun => TransferError::Differs {
                table: table.name.clone(),
                rows: (sum.rows, there.rows),
            },
        });
    }
    let ids = source.audit_ids(i64::MAX).await?;
    report.audit_ids = (ids.count > 0).then_some((ids.first, ids.last));
    target.finish().await?;
    Ok(Transferred { report, source })
}

/// The table whose rows are never changed, and removed only at its beginning.
const AUDIT: &str = "audit";

/// The ids of the audit log, up to one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AuditIds {
    count: i64,
    first: i64,
    last: i64,
}

/// Returns the highest id up to which the target has the audit log of the source already; 0: none of it.
async fn same_audit(
    source: &mut SourceFile,
    target: &mut TransferTarget,
) -> Result<i64, TransferError> {
    let there = target.audit_ids().await?;
    let here = source.audit_ids(there.last).await?;
    Ok(if here == there { there.last } else { 0 })
}

/// The copy of one table.
struct Copying<'a> {
    table: &'a Table,
    of: u64,
    behind: i64,
    sends: bool,
}

impl Copying<'_> {
    /// Copies the rows with ids above [`Self::behind`], and sums up all of them.
    async fn run(
        &self,
        source: &mut SourceFile,
        target: &mut TransferTarget,
        report: &mut TransferReport,
        progress: &mut impl FnMut(TransferProgress<'_>),
    ) -> Result<TableSum, TransferError> {
        let mut sum = TableSum::default();
        let mut batch = Vec::new();
        let mut rows = source.rows(self.table);
        while let Some(row) = rows.next().await? {
            let line = CopyLine::of(self.table, &row).map_err(TransferError::Value)?;
            sum.add(&line.text);
            if let Some(place) = line.replaced {
                report.replaced += 1;
                if report.replaced_in.len() < MAX_REPLACED_NAMED {
                    report.replaced_in.push(place);
                }
            }
            let is_there = self.behind > 0 && line.id <= Some(self.behind);
            if self.sends && !is_there {
                batch.extend_from_slice(&line.text);
            }
            if batch.len() >= TRANSFER_BATCH {
                target.copy(self.table, &batch).await?;
                batch.clear();
                progress(TransferProgress {
                    table: &self.table.name,
                    rows: sum.rows,
                    of: self.of,
                });
            }
        }
        if !batch.is_empty() {
            target.copy(self.table, &batch).await?;
        }
        Ok(sum)
    }
}

impl TableSum {
    /// Adds a row, as `COPY` writes it.
    fn add(&mut self, line: &[u8]) {
        let hash = sha256(line);
        let half = hash.first_chunk().copied().unwrap_or_default();
        self.rows += 1;
        self.hashes = self.hashes.wrapping_add(u128::from_be_bytes(half));
    }
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl std::error::Error for TransferError {}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Occupied(database) => write!(
                f,
                "the database {database} is not empty, and what it holds is no unfinished migration of this relay: \
                 expected an empty database; make one with `createdb --encoding=UTF8 --template=template0 NAME`"
            ),
            Self::Busy(database) => write!(
                f,
                "another `relay migrate` works on the database {database}, or was killed and the server has not noticed: \
                 try again in a minute"
            ),
            Self::Value(error) => write!(
                f,
                "{error}: this program never wrote that; repair it, or restore the folder from a backup"
            ),
            Self::Differs {
                table,
                rows: (here, there),
            } => write!(
                f,
                "the table {table} has {here} rows in the file and {there} in the database, or other contents: see what \
                 else writes to the database, and run it again"
            ),
            Self::Tables(found) => write!(
                f,
                "the database does not have the tables of the file ({found}): use an empty database"
            ),
            Self::Changed(database) => write!(
                f,
                "the state was moved to the database {database} before, and one of the two has changed since: go on there \
                 with `relay serve --database`; or, with the state folder's, give an empty database"
            ),
        }
    }
}
