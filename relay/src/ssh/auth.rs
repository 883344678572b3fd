//! Who an operator is: what follows from a key that was proved.

use std::time::Duration;

use russh::keys::PublicKey;
use russh::keys::ssh_key::HashAlg;
use tokio::time::timeout;
use tracing::warn;

use crate::limits::STORE_TIMEOUT;
use crate::store::{Store, User};

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
