//! The database that `relay serve` opens: that of the folder, or the one that it is given in the place of that.

use anyhow::{bail, ensure};
use tracing::{info, warn};

use crate::clock::Timestamp;
use crate::state::{Database, DatabaseUrl, State};
use crate::store::Store;

/// Opens the database of a relay. `asked` is that of the flag or the configuration.
///
/// # Errors
/// A sentence with the remedy.
pub(super) async fn open(state: &mut State, asked: Option<DatabaseUrl>) -> anyhow::Result<Store> {
    let Some(asked) = asked else {
        return Ok(Store::open(state.database()).await?);
    };
    let known = state.database().clone();
    let refused = match state.bind_database(Some(asked.clone())) {
        Ok(()) => return Ok(Store::open(state.database()).await?),
        Err(refused) => refused,
    };
    let moved = Store::moved_to(&known).await?;
    if moved.is_none() && matches!(known, Database::File(_)) {
        return Err(refused.into());
    }
    // The state is on a server. Only the same one, wherever it is now, takes its place.
    let named = moved.unwrap_or_else(|| known.to_string());
    let there = Store::look_at(&Database::Server(asked.clone())).await?;
    let cluster = state.cluster.public().to_string();
    ensure!(
        there.bound_cluster().await?.as_ref() == Some(&cluster),
        "{} has the database {named}, and --database is {asked}, which has no state of this cluster: start without \
         --database, or bring a dump of {named} there first",
        state.dir.display()
    );
    if let Database::Server(_) = &known {
        check_before(&known, &there, &asked).await?;
    }
    there.close().await;
    info!("the database is {asked}; it was {named}");
    state.take_database(asked);
    Ok(Store::open(state.database()).await?)
}

/// Refuses a copy of a database that is still in use, or has been since.
async fn check_before(known: &Database, there: &Store, asked: &DatabaseUrl) -> anyhow::Result<()> {
    let looked = async {
        let before = Store::look_at(known).await?;
        if before.is_same_database(there).await? {
            return Ok(None);
        }
        let runs = before.member_runs().await?;
        let serves = runs.values().any(|run| run.lives(Timestamp::now()));
        let heads = (before.audit_head().await?, there.audit_head().await?);
        before.close().await;
        Ok::<_, crate::store::StoreError>(Some((serves, heads)))
    };
    match looked.await {
        Ok(None) => Ok(()),
        Ok(Some((true, _))) => bail!(
            "relays still serve from {known}, of which {asked} is a copy: stop all relays of the cluster, bring a new \
             dump there, and start them again"
        ),
        Ok(Some((false, (last, copied)))) if copied < last => bail!(
            "{asked} is an older copy of {known}: its audit log ends at {copied}, and the other at {last}: bring a new \
             dump there"
        ),
        Ok(Some(_)) => Ok(()),
        Err(error) => {
            warn!(%error, "whether {asked} is the newest copy of {known} cannot be checked");
            Ok(())
        }
    }
}
