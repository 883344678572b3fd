//! Waiting until a change is in force: a command that takes something away is done when every living relay
//! has acted on it, and not when the store has it.

use tokio::time::sleep;

use crate::clock::{self, Timestamp};
use crate::commands::limits::{CONFIRM_POLL, CONFIRM_TIMEOUT};
use crate::store::{Store, StoreError};

/// Waits until all living relays have acted on the present version of access, if it is not `before`. Gives a
/// sentence if they have not in time.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn wait(store: &Store, before: i64) -> Result<Option<String>, StoreError> {
    let version = store.access_version().await?;
    if version == before {
        return Ok(None);
    }
    let deadline = clock::instant() + CONFIRM_TIMEOUT;
    loop {
        // Whether a relay lives is asked of the clock on the wall, which it writes its heartbeat by.
        let behind = store.relays_behind(version, Timestamp::now()).await?;
        if behind == 0 {
            return Ok(None);
        }
        if clock::instant() >= deadline {
            let (count, seconds) = (
                crate::commands::answer::table::count(behind as usize, "relay"),
                CONFIRM_TIMEOUT.as_secs(),
            );
            return Ok(Some(format!(
                "this is stored, but {count} did not confirm within {seconds} s: sessions there may continue; see `relay sessions`"
            )));
        }
        sleep(CONFIRM_POLL).await;
    }
}
