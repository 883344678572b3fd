//! The roster: which relays a device may trust. It is made of the members, so that all relays of a cluster give the same
//! one, and its epoch grows when they change: by what administrators do, and by nothing else.

use holdfast_protocol::identity::roster::{RelayEntry, Roster, SignedRoster};

use crate::state::State;
use crate::store::{Durability, Store, StoreError};

/// Returns the present roster.
///
/// # Errors
/// [`StoreError`].
pub(in crate::tunnel) async fn present(
    state: &State,
    store: &Store,
) -> Result<SignedRoster, StoreError> {
    let recording = state.recording.public();
    let mut tx = store.begin(Durability::Disk).await?;
    let members = tx.members().await?;
    let relays = members.into_iter().filter(|member| member.is_present());
    let relays = relays.filter_map(|member| {
        Some(RelayEntry {
            address: member.tunnel_address?,
            key: member.tunnel_key,
        })
    });
    let relays: Vec<_> = relays.collect();
    let facts: Vec<_> = relays
        .iter()
        .map(|relay| format!("{}={}", relay.address, relay.key))
        .collect();
    let facts = format!("{} {}", facts.join(","), recording.id());
    let epoch = tx.roster_epoch(&facts).await?;
    tx.commit().await?;
    let roster = Roster {
        cluster: state.cluster.public(),
        epoch,
        relays,
        recording: Some(recording),
    };
    Ok(roster.seal(|bytes| state.cluster.sign(bytes)))
}
