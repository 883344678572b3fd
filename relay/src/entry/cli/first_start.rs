//! A command that is given at once with the first `relay serve`: it waits for the state folder that the relay makes,
//! for the tables in its database, and for the address that tokens name.

use std::path::Path;
use std::thread::sleep;

use tokio::time::Instant;

use super::limits::{FIRST_START_POLL, FIRST_START_QUIET, FIRST_START_TIMEOUT};
use crate::clock;
use crate::output::complain;
use crate::state::{Database, State, StateError};
use crate::store::{Store, StoreError, meta};

/// The wait of one command, over all that it waits for.
pub(super) struct FirstStart<'d> {
    dir: &'d Path,
    began: Instant,
    has_said: bool,
}

impl<'d> FirstStart<'d> {
    pub(super) fn on(dir: &'d Path) -> Self {
        Self {
            dir,
            began: clock::instant(),
            has_said: false,
        }
    }

    /// Opens the state folder, when there is one.
    ///
    /// # Errors
    /// [`StateError`]; that there is none, after the time for it.
    pub(super) fn state(&mut self) -> Result<State, StateError> {
        loop {
            match State::open(self.dir) {
                Err(StateError::NoState(_) | StateError::Older(_)) if self.goes_on() => {
                    sleep(FIRST_START_POLL);
                }
                opened => return opened,
            }
        }
    }

    /// Opens the database, when it has tables and a relay has served from it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn store(&mut self, database: &Database) -> Result<Store, StoreError> {
        let store = loop {
            match Store::open_existing(database).await {
                // The start makes the file first, and then table by table.
                Err(StoreError::Version { found, wanted, .. })
                    if found < wanted && self.goes_on() =>
                {
                    tokio::time::sleep(FIRST_START_POLL).await;
                }
                opened => break opened?,
            }
        };
        // A relay whose first start failed has none: what needs it says so.
        while store.meta_get(meta::PUBLIC_TUNNEL).await?.is_none() && self.goes_on() {
            tokio::time::sleep(FIRST_START_POLL).await;
        }
        Ok(store)
    }

    /// Returns whether there is time left, and says once what is waited for.
    fn goes_on(&mut self) -> bool {
        let waited = self.began.elapsed();
        if waited >= FIRST_START_QUIET && !self.has_said {
            self.has_said = true;
            complain(format_args!(
                "waiting up to {} s for `relay serve` to start on {}",
                FIRST_START_TIMEOUT.as_secs(),
                self.dir.display()
            ));
        }
        waited < FIRST_START_TIMEOUT
    }
}
