//! Checks that a database is the one of this relay, and that it may take the place of the one before.

use crate::store::backend::BOUND_CLUSTER;
use crate::store::backend::connection::Db;
use crate::store::{Database, Store, StoreError};

impl Store {
    /// Returns the database on a server that took the place of a file, without a password. What is in the file is of
    /// the time before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn moved_to(database: &Database) -> Result<Option<String>, StoreError> {
        if let Some(named) = database.named_in_its_place() {
            return Ok(Some(named));
        }
        let store = Self::connect(database)?;
        let Db::Sqlite(file) = &store.db else {
            return Ok(None);
        };
        let moved = file.moved_to().await;
        store.close().await;
        moved
    }

    /// Opens a database on a server, whatever is in it, to look at it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn look_at(database: &Database) -> Result<Self, StoreError> {
        let store = Self::connect(database)?;
        if let Db::Postgres(server) = &store.db {
            server.check_server().await?;
        }
        store.follow_clock().await?;
        Ok(store)
    }

    /// Returns the key of the cluster whose state is in the database; `None`: there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn bound_cluster(&self) -> Result<Option<String>, StoreError> {
        self.check_ours().await?;
        match self.schema_version().await? {
            0 => Ok(None),
            _ => self.meta_get(BOUND_CLUSTER).await,
        }
    }

    /// Returns whether both are one database on a server, by whatever addresses.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn is_same_database(&self, other: &Self) -> Result<bool, StoreError> {
        match (&self.db, &other.db) {
            (Db::Postgres(here), Db::Postgres(there)) => {
                Ok(here.identity().await? == there.identity().await?)
            }
            _ => Ok(false),
        }
    }

    /// Refuses a file that another database has taken the place of.
    pub(in crate::store) async fn check_here(&self) -> Result<(), StoreError> {
        let Db::Sqlite(file) = &self.db else {
            return Ok(());
        };
        match file.moved_to().await? {
            Some(database) => Err(StoreError::Elsewhere {
                file: file.path().display().to_string(),
                database,
            }),
            None => Ok(()),
        }
    }

    /// Refuses a database on a server that something else than a relay uses.
    pub(in crate::store) async fn check_ours(&self) -> Result<(), StoreError> {
        match &self.db {
            Db::Sqlite(_) => Ok(()),
            Db::Postgres(server) => server.check_ours(self.schema_version().await?).await,
        }
    }
}
