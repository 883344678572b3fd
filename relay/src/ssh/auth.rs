//! Who an operator is: what follows from a key that was proved.

use std::time::Duration;

use russh::keys::PublicKey;
use russh::keys::ssh_key::HashAlg;
use tokio::time::timeout;
use tracing::warn;

use crate::limits::STORE_TIMEOUT;
use crate::store::{Store, StoreError, User};

/// A user, and the key that proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who.
    pub user: User,
    /// `SHA256:…`.
    pub fingerprint: String,
}

/// Whose key that is, now. A disabled user is nobody. When the store fails, nobody is anybody.
pub async fn principal(store: &Store, key: &PublicKey) -> Option<Principal> {
    by_fingerprint(store, key.fingerprint(HashAlg::Sha256).to_string()).await
}

/// Whose key has that fingerprint, now.
pub async fn by_fingerprint(store: &Store, fingerprint: String) -> Option<Principal> {
    const LIMIT: Duration = STORE_TIMEOUT;
    match timeout(LIMIT, store.user_by_key(&fingerprint)).await {
        Ok(Ok(user)) => user
            .filter(|user| !user.disabled)
            .map(|user| Principal { user, fingerprint }),
        Ok(Err(error)) => {
            warn!(%error, "the store cannot look up a key");
            None
        }
        Err(_) => {
            warn!("the store does not answer");
            None
        }
    }
}

/// Whether what a principal proved still proves the same user, and one who is not disabled. What roles
/// that user has is not asked.
///
/// # Errors
/// The store cannot say.
pub async fn still_proves(store: &Store, principal: &Principal) -> Result<bool, StoreError> {
    let user = store.user_by_key(&principal.fingerprint).await?;
    Ok(user.is_some_and(|user| !user.disabled && user.name == principal.user.name))
}
