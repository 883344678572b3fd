//! A database for one test.

use holdfast_tests::postgres::{self, Server};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::state::{Database, DatabaseUrl, State, random_bytes};
use crate::store::backend::sql::Statement;
use crate::store::{Durability, Store};

/// The databases that a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Makes of each test, a function of a [`Backend`], one on SQLite and one on PostgreSQL.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::tests::database::Backend::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::tests::database::Backend::Postgres).await;
            })*
        }
    };
    (threads: $($test:ident),* $(,)?) => {
        mod sqlite_threads {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                super::$test($crate::store::tests::database::Backend::Sqlite).await;
            })*
        }
        mod postgres_threads {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                super::$test($crate::store::tests::database::Backend::Postgres).await;
            })*
        }
    };
}
pub(crate) use on_both;

impl Store {
    /// Runs a statement that no method makes, and returns how many rows it affected.
    pub(crate) async fn execute(&self, statement: Statement) -> u64 {
        let mut tx = self.begin(Durability::Disk).await.unwrap();
        let done = statement
            .execute(&mut *tx.connection().await.unwrap())
            .await;
        tx.commit().await.unwrap();
        done.unwrap().rows_affected()
    }
}

/// An empty database of its own for one test.
pub(crate) struct TestDatabase {
    /// Its folder, if it is a file.
    pub dir: TempDir,
    pub database: Database,
}

impl TestDatabase {
    pub(crate) fn new(on: Backend) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = match on {
            Backend::Sqlite => {
                let path = dir.path().join("relay.db");
                std::fs::write(&path, "").unwrap();
                Database::from(&path)
            }
            Backend::Postgres => on_server(postgres::shared()),
        };
        Self { dir, database }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.database).await.unwrap()
    }

    /// Runs statements on a connection beside the store's.
    pub(crate) async fn raw(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql);
        match &self.database {
            Database::File(path) => {
                let url = format!("sqlite:{}", path.display());
                let mut connection = SqliteConnection::connect(&url).await?;
                sqlx::raw_sql(sql).execute(&mut connection).await?;
                connection.close().await
            }
            Database::Server(url) => {
                let mut connection = PgConnection::connect(url.secret()).await?;
                sqlx::raw_sql(sql).execute(&mut connection).await?;
                connection.close().await
            }
        }
    }

    /// Makes each insert into a table fail, as a full disk does.
    pub(crate) async fn fail_inserts(&self, table: &str) {
        let sql = match &self.database {
            Database::File(_) => format!(
                "CREATE TRIGGER full_{table} BEFORE INSERT ON {table}
                BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            ),
            Database::Server(_) => format!(
                "CREATE FUNCTION full_{table}() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'disk full'; END $$;
                CREATE TRIGGER full_{table} BEFORE INSERT ON {table}
                FOR EACH ROW EXECUTE FUNCTION full_{table}()"
            ),
        };
        self.raw(&sql).await.unwrap();
    }

    /// Lets inserts into a table succeed again.
    pub(crate) async fn allow_inserts(&self, table: &str) {
        let sql = match &self.database {
            Database::File(_) => format!("DROP TRIGGER full_{table}"),
            Database::Server(_) => format!("DROP FUNCTION full_{table}() CASCADE"),
        };
        self.raw(&sql).await.unwrap();
    }
}

/// Gives the state folder of a test a database on a server, where the tests above the store are run on one: with
/// `HOLDFAST_TEST_DATABASE=postgres`.
pub(crate) fn bind_chosen(state: &mut State) {
    match std::env::var("HOLDFAST_TEST_DATABASE").as_deref() {
        Err(_) => {}
        Ok("postgres") => {
            let Database::Server(url) = on_server(postgres::shared()) else {
                panic!("no server");
            };
            state.bind_database(Some(url)).unwrap();
        }
        Ok(other) => panic!("HOLDFAST_TEST_DATABASE is {other}: expected postgres"),
    }
}

/// Returns a new database on a server.
pub(crate) fn on_server(server: &Server) -> Database {
    let name = u64::from_ne_bytes(random_bytes().unwrap());
    let name = format!("test_{name:016x}");
    let made = server.psql(&format!("CREATE DATABASE {name} TEMPLATE template0"));
    made.unwrap();
    Database::Server(DatabaseUrl::new(&server.url(&name)).unwrap())
}
