//! Both databases have the same tables.

use std::collections::BTreeSet;

use super::database::TestDatabase;
use super::*;
use crate::store::backend::sql;

/// The tables that only one of the two needs, each with the reason.
const ALONE: [(&str, &str); 1] = [(
    "audit_head",
    "what SQLite keeps in its own table of sequences",
)];

/// Returns the columns of all tables, each with whether it may be empty.
async fn columns(on: Backend) -> BTreeSet<(String, String, bool)> {
    let bed = TestDatabase::new(on);
    let store = bed.open().await;
    let columns = match on {
        // The key of a table counts as never empty.
        Backend::Sqlite => {
            "SELECT t.name, c.name, c.\"notnull\" = 0 AND c.pk = 0 FROM sqlite_master t
            JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"
        }
        Backend::Postgres => {
            "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), is_nullable = 'YES'
            FROM information_schema.columns WHERE table_schema = 'public'"
        }
    };
    let rows: Vec<(String, String, bool)> =
        sql::query_as(columns).fetch_all(&store.db).await.unwrap();
    let ours = rows.into_iter().filter(|(table, _, _)| {
        !table.starts_with("sqlite_")
            && !table.starts_with("_sqlx")
            && !ALONE.iter().any(|(alone, _)| alone == table)
    });
    ours.collect()
}

/// Returns the names of the indexes that a migration makes.
async fn indexes(on: Backend) -> BTreeSet<String> {
    let bed = TestDatabase::new(on);
    let store = bed.open().await;
    let indexes = match on {
        Backend::Sqlite => {
            "SELECT name FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite_%'"
        }
        Backend::Postgres => {
            "SELECT CAST(indexname AS TEXT) FROM pg_indexes WHERE schemaname = 'public'
                AND indexname NOT LIKE '%_pkey' AND indexname NOT LIKE '%_key'"
        }
    };
    let names: Vec<String> = sql::query_scalar(indexes)
        .fetch_all(&store.db)
        .await
        .unwrap();
    names.into_iter().collect()
}

#[tokio::test]
async fn both_databases_have_the_same_columns_and_indexes() {
    let (sqlite, postgres) = (
        columns(Backend::Sqlite).await,
        columns(Backend::Postgres).await,
    );
    assert!(sqlite.len() > 150, "hardly any columns: {sqlite:?}");
    let differ: Vec<_> = sqlite.symmetric_difference(&postgres).collect();
    assert!(differ.is_empty(), "{differ:?}");
    let (sqlite, postgres) = (
        indexes(Backend::Sqlite).await,
        indexes(Backend::Postgres).await,
    );
    let differ: Vec<_> = sqlite.symmetric_difference(&postgres).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn both_databases_have_migrations_of_the_same_numbers() {
    let numbers = |migrations: &sqlx::migrate::Migrator| -> Vec<i64> {
        let numbers = migrations.iter().map(|migration| migration.version);
        numbers.filter(|number| *number >= 34).collect()
    };
    assert_eq!(
        numbers(&backend::sqlite::MIGRATIONS),
        numbers(&backend::postgres::MIGRATIONS)
    );
}
