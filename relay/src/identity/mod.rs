//! Who an operator is: what follows from a key or a certificate that was proved.

pub(crate) mod keys;
pub(crate) mod krl;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::escape::Escaped;
use russh::keys::{Certificate, PublicKey};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::access::certificate::{self as rules, Admission, CertGrant, Claims, Facts, Revoked};
use crate::clock::Timestamp;
use crate::identity::keys as certificate;
use crate::limits::{MAX_CERTIFICATE_PRINCIPALS, STORE_TIMEOUT};
use crate::log_limit::{self, Line};
use crate::model::source::Source;
use crate::store::{Prints, Store, StoreError, User};

/// A user, and what proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The user.
    pub user: User,
    /// The proof of identity.
    pub proof: Proof,
}

/// The proof of a user's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A key that is the user's.
    Key(Prints),
    /// A certificate of an authority that is trusted.
    Certificate(Arc<Certified>),
}

/// A certificate that proved a user, and the key it certifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    /// Its claims: authority, serial, key id.
    pub claims: Claims,
    /// The key.
    pub key: Prints,
    /// Its permissions.
    pub grant: CertGrant,
    /// The client's address.
    pub client: IpAddr,
}

impl Proof {
    /// Returns `SHA256:…` of the key that was proved: the user's, or the one in the certificate.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> &str {
        &self.key().sha256
    }

    /// Returns the permissions, before any role is asked.
    #[must_use]
    pub(crate) fn grant(&self) -> &CertGrant {
        match self {
            Self::Key(_) => &CertGrant::EVERYTHING,
            Self::Certificate(certified) => &certified.grant,
        }
    }

    fn key(&self) -> &Prints {
        match self {
            Self::Key(key) => key,
            Self::Certificate(certified) => &certified.key,
        }
    }
}

/// The form for the log.
impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(&key.sha256),
            Self::Certificate(certified) => {
                let Claims {
                    key_id,
                    serial,
                    authority,
                    ..
                } = &certified.claims;
                let (id, key) = (Escaped(key_id), &certified.key.sha256);
                write!(
                    f,
                    "{key} (certificate \"{id}\", serial {serial}, by {})",
                    authority.sha256
                )
            }
        }
    }
}

/// Returns the user of a key, now; `None` for a disabled user and for a revoked key. When the store
/// fails, no user is authenticated.
pub(crate) async fn principal(store: &Store, key: &PublicKey) -> Option<Principal> {
    let prints = certificate::prints(key.key_data());
    ask(by_key(store, prints)).await.flatten()
}

/// Returns whether it is worth a client's while to prove that it has a key: an offer does not tell whether a
/// certificate comes with it, so that with an authority there is any key might do.
pub(crate) async fn is_worth_a_try(store: &Store, key: &PublicKey) -> bool {
    if principal(store, key).await.is_some() {
        return true;
    }
    let prints = certificate::prints(key.key_data());
    let asked =
        async { Ok(store.has_authorities().await? && !store.is_key_revoked(&prints).await?) };
    ask(asked).await.unwrap_or(false)
}

/// Returns the user that a certificate proves, from this address. The client hears of no reason for `None`;
/// the log does.
pub(crate) async fn by_certificate(
    store: &Store,
    certificate: &Certificate,
    client: IpAddr,
    now: Timestamp,
) -> Option<Principal> {
    let claims = certificate::claims(certificate);
    let key = certificate::prints(certificate.public_key());
    let found = ask(look_up(store, &claims, &key)).await?;
    match rules::judge(found.facts(&claims, client), now) {
        Ok(Admission { user, grant, .. }) => {
            let certified = Certified {
                claims,
                key,
                grant,
                client,
            };
            let proof = Proof::Certificate(Arc::new(certified));
            Some(Principal { user, proof })
        }
        Err(denied) => {
            let id: String = claims.key_id.chars().take(SHOWN_KEY_ID).collect();
            if let Some(left_out) = log_limit::admits(Line::Certificate, Source::of(client)) {
                info!(%client, %id, serial = claims.serial, authority = %claims.authority.sha256,
                    left_out, "certificate refused: {denied}");
            }
            None
        }
    }
}

/// Checks whether what a principal proved still proves the same user, and one who is not disabled. What roles that
/// user has is not asked. A certificate that has expired since then still does, as with OpenSSH; one that is
/// revoked does not, nor one whose authority is not trusted any more.
///
/// # Errors
/// The store cannot say.
pub(crate) async fn still_proves(store: &Store, principal: &Principal) -> Result<bool, StoreError> {
    let user = match &principal.proof {
        Proof::Key(prints) => by_key(store, prints.clone()).await?.map(|now| now.user),
        Proof::Certificate(certified) => {
            let found = look_up(store, &certified.claims, &certified.key).await?;
            let facts = found.facts(&certified.claims, certified.client);
            rules::still(facts).ok().map(|now| now.user)
        }
    };
    Ok(user.is_some_and(|user| user.id == principal.user.id))
}

/// The length of a key id that is logged of an unauthenticated client.
const SHOWN_KEY_ID: usize = 128;

async fn by_key(store: &Store, prints: Prints) -> Result<Option<Principal>, StoreError> {
    let Some(user) = store.user_by_key(&prints.sha256).await? else {
        return Ok(None);
    };
    if user.disabled || store.is_key_revoked(&prints).await? {
        return Ok(None);
    }
    let proof = Proof::Key(prints);
    Ok(Some(Principal { user, proof }))
}

/// The facts of the store about a certificate.
struct Found {
    trusted: bool,
    revoked: Option<Revoked>,
    users: Vec<(String, User)>,
}

impl Found {
    fn facts<'a>(&'a self, claims: &'a Claims, client: IpAddr) -> Facts<'a> {
        Facts {
            claims,
            trusted: self.trusted,
            revoked: self.revoked,
            users: &self.users,
            client,
        }
    }
}

async fn look_up(store: &Store, claims: &Claims, key: &Prints) -> Result<Found, StoreError> {
    let mut found = Found {
        trusted: store.is_trusted(&claims.authority.sha256).await?,
        revoked: None,
        users: vec![],
    };
    // A certificate that is signed by its own key makes no work.
    if !found.trusted {
        return Ok(found);
    }
    found.revoked = revoked(store, claims, key).await?;
    for principal in claims.principals.iter().take(MAX_CERTIFICATE_PRINCIPALS) {
        if let Some(user) = store.user_by_principal(principal).await? {
            found.users.push((principal.clone(), user));
        }
    }
    Ok(found)
}

async fn revoked(
    store: &Store,
    claims: &Claims,
    key: &Prints,
) -> Result<Option<Revoked>, StoreError> {
    if store.is_key_revoked(&claims.authority).await? {
        return Ok(Some(Revoked::Authority));
    }
    if store.is_key_revoked(key).await? {
        return Ok(Some(Revoked::Key));
    }
    let certificate =
        store.is_certificate_revoked(&claims.authority.sha256, claims.serial, &claims.key_id);
    Ok(certificate.await?.then_some(Revoked::Certificate))
}

/// Waits for an answer of the store, within reason; without one there is none.
async fn ask<T>(question: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    const LIMIT: Duration = STORE_TIMEOUT;
    match timeout(LIMIT, question).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            warn!(%error, "the store cannot look up the user of a key or certificate");
            None
        }
        Err(_) => {
            warn!("the store does not answer");
            None
        }
    }
}
