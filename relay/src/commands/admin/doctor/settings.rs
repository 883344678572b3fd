//! The configuration: what others must not read, and what the relays of a cluster have to have alike.

use super::Finding;
use crate::store::{MemberId, Store, StoreError, meta};

const CHECK: &str = "configuration";

pub(crate) async fn check(store: &Store, member: MemberId) -> Result<Vec<Finding>, StoreError> {
    let mut found = Vec::new();
    let exposed = meta::of_member(meta::EXPOSED, member);
    let exposed = store.meta_get(&exposed).await?;
    if let Some(file) = exposed.filter(|file| !file.is_empty()) {
        let message = format!("{file} has the database's password, and other accounts can read it");
        let remedy = format!("chmod 600 {file}, and restart the relay");
        found.push(Finding::warning(CHECK, message, remedy));
    }
    for unlike in store.unlike_settings().await? {
        let message = format!("the relays of the cluster have different settings: {unlike}");
        let remedy = "give all of them the same value, and restart those that had another";
        found.push(Finding::problem(CHECK, message, remedy));
    }
    Ok(found)
}
