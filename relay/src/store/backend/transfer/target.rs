//! The server of a transfer.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use futures_util::TryStreamExt as _;
use sqlx::AssertSqlSafe;
use tokio::time::timeout;

use super::{AUDIT, AuditIds, Column, ColumnKind, Table, TableSum, TransferError};
use crate::store::StoreError;
use crate::store::backend::BOUND_CLUSTER;
use crate::store::backend::postgres::Postgres;
use crate::store::backend::postgres::pool::{Lent, ServerPool};
use crate::store::limits::TRANSFER_STEP;

/// The settings of the connection: a step may take its time, and what is read back has one form.
const SETTINGS: &str = "SET statement_timeout = 0; SET lock_timeout = 0;
    SET idle_in_transaction_session_timeout = 0; SET bytea_output = 'hex'";
/// Keeps a second transfer out for as long as the connection lasts.
const ONLY_ONE: &str = "SELECT pg_try_advisory_lock(8, 1)";
/// Begins a write as all writers of the store do.
const BEGIN: &str = "BEGIN; SELECT pg_advisory_xact_lock(1)";
const COLUMNS: &str = "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), CAST(data_type AS TEXT)
    FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position";
const REFERENCES: &str =
    "SELECT CAST(t.relname AS TEXT), CAST(o.relname AS TEXT) FROM pg_constraint c
    JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class o ON o.oid = c.confrelid
    WHERE c.contype = 'f' AND t.relnamespace = CAST(quote_ident(current_schema()) AS regnamespace)";
const AUDIT_IDS: &str = "SELECT COUNT(*), COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) FROM audit";
const AUDIT_HEAD: &str = "UPDATE audit_head SET id = $1";
const SEQUENCE: &str = "SELECT setval(pg_get_serial_sequence($1, 'id'), $2)";

pub(super) const FACT: &str = "SELECT value FROM meta WHERE key = $1";
const SET_FACT: &str = "INSERT INTO meta (key, value) VALUES ($1, $2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// The fact that says how far a transfer is, and its values.
const MARK: &str = "transfer";
const BEGUN: &str = "begun";
const FINISHED: &str = "finished";

/// The server, over one connection.
pub(super) struct TransferTarget {
    lent: Lent,
    pool: ServerPool,
}

/// The state of a target before the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetClaim {
    /// It was empty, or a transfer had begun.
    Begun,
    /// It has all of the state already.
    Finished,
}

impl TransferTarget {
    /// Takes a connection for the whole transfer. It is closed at the end.
    pub(super) async fn take(server: &Postgres) -> Result<Self, TransferError> {
        let pool = server.pool.clone();
        let lent = pool.take().await?;
        let mut target = Self { lent, pool };
        target.run(SETTINGS.to_owned()).await?;
        let only = sqlx::query_scalar(ONLY_ONE);
        let connection = target.lent.connection()?;
        match answered(&target.pool, only.fetch_one(connection)).await? {
            true => Ok(target),
            false => Err(TransferError::Busy(target.name())),
        }
    }

    /// Returns the server and the database, without a password.
    pub(super) fn name(&self) -> String {
        self.pool.name().to_owned()
    }

    /// Runs statements without values.
    async fn run(&mut self, sql: String) -> Result<(), StoreError> {
        let connection = self.lent.connection()?;
        let run = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection);
        answered(&self.pool, run).await.map(drop)
    }

    /// Returns the tables of these names, each behind those that it refers to.
    pub(super) async fn tables(
        &mut self,
        names: &BTreeSet<String>,
    ) -> Result<Vec<Table>, TransferError> {
        let connection = self.lent.connection()?;
        let columns = sqlx::query_as(COLUMNS).fetch_all(connection);
        let columns: Vec<(String, String, String)> = answered(&self.pool, columns).await?;
        let connection = self.lent.connection()?;
        let references = sqlx::query_as(REFERENCES).fetch_all(connection);
        let references: Vec<(String, String)> = answered(&self.pool, references).await?;
        let mut tables = BTreeMap::<String, Table>::new();
        for (table, name, kind) in columns {
            if !names.contains(&table) {
                continue;
            }
            let kind = match kind.as_str() {
                "bigint" => ColumnKind::Integer,
                "boolean" => ColumnKind::Flag,
                "text" => ColumnKind::Text,
                "bytea" => ColumnKind::Bytes,
                _ => {
                    return Err(TransferError::Tables(format!(
                        "{table}.{name} has the type {kind}"
                    )));
                }
            };
            let entry = tables.entry(table.clone()).or_insert_with(|| Table {
                name: table,
                columns: Vec::new(),
            });
            entry.columns.push(Column { name, kind });
        }
        if let Some(missing) = names.iter().find(|name| !tables.contains_key(*name)) {
            return Err(TransferError::Tables(format!("{missing} is missing")));
        }
        in_order(tables, &references)
    }

    /// Marks the target as that of a transfer of this cluster, unless something else is there.
    pub(super) async fn claim(&mut self, cluster: &str) -> Result<TargetClaim, TransferError> {
        self.run(BEGIN.to_owned()).await?;
        let bound = self.fact(BOUND_CLUSTER).await?;
        let mark = self.fact(MARK).await?;
        let claim = match (bound.as_deref(), mark.as_deref()) {
            (None, _) => {
                self.set(BOUND_CLUSTER, cluster).await?;
                self.set(MARK, BEGUN).await?;
                TargetClaim::Begun
            }
            (Some(bound), Some(BEGUN)) if bound == cluster => TargetClaim::Begun,
            (Some(bound), Some(FINISHED)) if bound == cluster => TargetClaim::Finished,
            _ => return Err(TransferError::Occupied(self.name())),
        };
        self.run("COMMIT".to_owned()).await?;
        Ok(claim)
    }

    /// Empties the tables, but for the mark and, if it is to be continued, the audit log.
    pub(super) async fn empty(
        &mut self,
        tables: &[Table],
        keeps_audit: bool,
    ) -> Result<(), StoreError> {
        let emptied: Vec<String> = tables
            .iter()
            .filter(|table| table.name != META && !(keeps_audit && table.name == AUDIT))
            .map(|table| format!("\"{}\"", table.name))
            .collect();
        let mut sql = BEGIN.to_owned();
        for verb in ["DISABLE", "ENABLE"] {
            for table in &emptied {
                sql += &format!("; ALTER TABLE {table} {verb} TRIGGER USER");
            }
            if verb == "DISABLE" {
                sql += &format!("; TRUNCATE {}", emptied.join(", "));
            }
        }
        self.run(sql + "; COMMIT").await
    }

    /// Returns the ids of the audit log.
    pub(super) async fn audit_ids(&mut self) -> Result<AuditIds, StoreError> {
        let connection = self.lent.connection()?;
        let ids = sqlx::query_as(AUDIT_IDS).fetch_one(connection);
        let (count, first, last) = answered(&self.pool, ids).await?;
        Ok(AuditIds { count, first, last })
    }

    /// Copies whole rows into a table, in a transaction of their own. The triggers that make ids rest meanwhile: rows
    /// have theirs.
    pub(super) async fn copy(&mut self, table: &Table, rows: &[u8]) -> Result<(), StoreError> {
        let name = &table.name;
        let mut begin = format!("{BEGIN}; ALTER TABLE \"{name}\" DISABLE TRIGGER USER");
        if name == META {
            // The facts of an empty database. There are so few that they come in one piece.
            begin += &format!("; DELETE FROM \"{name}\" WHERE key <> '{MARK}'");
        }
        self.run(begin).await?;
        let copy = format!("COPY \"{name}\" ({}) FROM STDIN", table.list());
        let connection = self.lent.connection()?;
        let copied = async {
            let mut copy = connection.copy_in_raw(&copy).await?;
            copy.send(rows).await?;
            copy.finish().await
        };
        answered(&self.pool, copied).await?;
        let end = format!("ALTER TABLE \"{name}\" ENABLE TRIGGER USER; COMMIT");
        self.run(end).await
    }

    /// Has ids go on behind the highest one that the source ever gave.
    pub(super) async fn continue_after(
        &mut self,
        table: &str,
        highest: i64,
        names: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let connection = self.lent.connection()?;
        if table == AUDIT && !names.contains("audit_head") {
            let head = sqlx::query(AUDIT_HEAD).bind(highest).execute(connection);
            answered(&self.pool, head).await?;
        } else if names.contains(table) && highest > 0 {
            let set = sqlx::query_scalar(SEQUENCE).bind(table).bind(highest);
            let _: Option<i64> = answered(&self.pool, set.fetch_one(connection)).await?;
        }
        Ok(())
    }

    /// Reads a table, and sums up its rows.
    pub(super) async fn sum(&mut self, table: &Table) -> Result<TableSum, StoreError> {
        let (list, name) = (table.list(), &table.name);
        let rest = match name.as_str() {
            META => format!(" WHERE key <> '{MARK}'"),
            _ => String::new(),
        };
        let copy = format!("COPY (SELECT {list} FROM \"{name}\"{rest}) TO STDOUT");
        let connection = self.lent.connection()?;
        let mut rows = answered(&self.pool, connection.copy_out_raw(&copy)).await?;
        let (mut sum, mut line) = (TableSum::default(), Vec::new());
        while let Some(came) = answered(&self.pool, rows.try_next()).await? {
            for piece in came.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    sum.add(&line);
                    line.clear();
                }
            }
        }
        Ok(sum)
    }

    /// Marks the transfer as finished.
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        self.run(BEGIN.to_owned()).await?;
        self.set(MARK, FINISHED).await?;
        self.run("COMMIT".to_owned()).await
    }

    async fn fact(&mut self, key: &str) -> Result<Option<String>, StoreError> {
        let connection = self.lent.connection()?;
        let fact = sqlx::query_scalar(FACT).bind(key);
        answered(&self.pool, fact.fetch_optional(connection)).await
    }

    async fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let connection = self.lent.connection()?;
        let set = sqlx::query(SET_FACT).bind(key).bind(value);
        answered(&self.pool, set.execute(connection))
            .await
            .map(drop)
    }
}

/// The table of single facts, which has rows in an empty database too.
const META: &str = "meta";

/// Returns what the server says, if it says something in time.
async fn answered<T>(
    pool: &ServerPool,
    step: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match timeout(TRANSFER_STEP, step).await {
        Ok(done) => done.map_err(|error| pool.error(error)),
        Err(_) => Err(pool.silent(TRANSFER_STEP)),
    }
}

/// Returns the tables, each behind those that it refers to.
fn in_order(
    mut tables: BTreeMap<String, Table>,
    references: &[(String, String)],
) -> Result<Vec<Table>, TransferError> {
    let mut ordered = Vec::new();
    while !tables.is_empty() {
        let waits = |name: &String| {
            let mut others = references.iter().filter(|(of, to)| of == name && of != to);
            others.any(|(_, to)| tables.contains_key(to))
        };
        let ready: Vec<String> = tables.keys().filter(|name| !waits(name)).cloned().collect();
        if ready.is_empty() {
            return Err(TransferError::Tables("they refer to each other".to_owned()));
        }
        ordered.extend(ready.iter().filter_map(|name| tables.remove(name)));
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_behind_those_they_refer_to() {
        let names = ["devices", "kills", "relays", "sessions"];
        let table = |name: &str| Table {
            name: name.to_owned(),
            columns: vec![],
        };
        let tables: BTreeMap<_, _> = names
            .iter()
            .map(|name| (name.to_string(), table(name)))
            .collect();
        let refers = |of: &str, to: &str| (of.to_owned(), to.to_owned());
        let references = [
            refers("kills", "sessions"),
            refers("sessions", "relays"),
            refers("devices", "devices"),
        ];
        let ordered = in_order(tables.clone(), &references).unwrap();
        let ordered: Vec<&str> = ordered.iter().map(|table| &*table.name).collect();
        assert_eq!(ordered, ["devices", "relays", "sessions", "kills"]);
        let circle = [references[1].clone(), refers("relays", "sessions")];
        assert!(in_order(tables, &circle).is_err());
    }
}
