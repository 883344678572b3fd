//! The identity of an operator: what follows from a key or a certificate that was proved.

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

use crate::access::certificate::{
    self as rules, Admission, CertGrant, CertificateDenied, CertificateFacts,
    CertificateRevocations, Claims,
};
use crate::access::limits::MAX_CERTIFICATE_PRINCIPALS;
use crate::clock::Timestamp;
use crate::identity::keys as certificate;
use crate::limits::STORE_TIMEOUT;
use crate::log_limit::{self, LimitedLine};
use crate::model::snapshot::PolicySnapshot;
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

/// The reason why nothing is known of a key: the store could not be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreUnanswered;

/// Returns the user of a key, now; `None` for a disabled user and for a revoked key.
///
/// # Errors
/// [`StoreUnanswered`]; then no user is authenticated.
pub(crate) async fn principal(
    store: &Store,
    key: &PublicKey,
) -> Result<Option<Principal>, StoreUnanswered> {
    let prints = certificate::prints(key.key_data());
    Ok(by_key(&*ask(store.policy()).await?, prints))
}

/// Returns whether it is worth a client's while to prove that it has a key: an offer does not say whether a
/// certificate comes with it, so that with an authority there is any key might do. Nothing follows from it but that the
/// client may sign, so that a yes needs no newer policy than was read last; a no does.
///
/// # Errors
/// [`StoreUnanswered`].
pub(crate) async fn is_worth_a_try(
    store: &Store,
    key: &PublicKey,
) -> Result<bool, StoreUnanswered> {
    let prints = certificate::prints(key.key_data());
    let is_worth = |policy: &PolicySnapshot| {
        by_key(policy, prints.clone()).is_some()
            || (policy.has_authorities() && !policy.is_key_revoked(&prints))
    };
    if store
        .newest_policy()
        .is_some_and(|policy| is_worth(&policy))
    {
        return Ok(true);
    }
    Ok(is_worth(&*ask(store.policy()).await?))
}

/// Returns the user that a certificate proves, from this address. The client hears of no reason for `None`;
/// the log does.
///
/// # Errors
/// [`StoreUnanswered`]; then no user is authenticated.
pub(crate) async fn by_certificate(
    store: &Store,
    certificate: &Certificate,
    client: IpAddr,
    now: Timestamp,
) -> Result<Option<Principal>, StoreUnanswered> {
    let claims = certificate::claims(certificate);
    let key = certificate::prints(certificate.public_key());
    let policy = ask(store.policy()).await?;
    let found = look_up(&policy, &claims, &key);
    match rules::judge(found.facts(&claims, client), now) {
        Ok(Admission { user, grant, .. }) => {
            let certified = Certified {
                claims,
                key,
                grant,
                client,
            };
            let proof = Proof::Certificate(Arc::new(certified));
            Ok(Some(Principal { user, proof }))
        }
        Err(denied) => {
            log_refused(&claims, client, &denied);
            Ok(None)
        }
    }
}

/// Logs why a certificate proves nothing that the SSH library refuses by itself, before its key is proved: for its
/// dates, or its signature.
pub(crate) async fn note_refused(
    store: &Store,
    certificate: &Certificate,
    client: IpAddr,
    now: Timestamp,
) {
    let claims = certificate::claims(certificate);
    // Without its authority's signature, what it says is anybody's word.
    if certificate.verify_signature().is_err() {
        return log_refused(&claims, client, &CertificateDenied::NotSigned);
    }
    // Without an answer of the store, the log has that.
    let Ok(policy) = ask(store.policy()).await else {
        return;
    };
    let key = certificate::prints(certificate.public_key());
    let found = look_up(&policy, &claims, &key);
    if let Err(denied) = rules::judge(found.facts(&claims, client), now) {
        log_refused(&claims, client, &denied);
    }
}

fn log_refused(claims: &Claims, client: IpAddr, denied: &CertificateDenied) {
    let id: String = claims.key_id.chars().take(SHOWN_KEY_ID).collect();
    if let Some(left_out) = log_limit::admits(LimitedLine::Certificate, Source::of(client)) {
        info!(%client, %id, serial = claims.serial, authority = %claims.authority.sha256,
            left_out, "certificate refused: {denied}");
    }
}

/// Checks whether what a principal proved still proves the same user, and one who is not disabled. What roles that
/// user has is not asked. A certificate that has expired since then still does, as with OpenSSH; one that is
/// revoked does not, nor one whose authority is not trusted any more.
#[must_use]
pub(crate) fn still_proves(policy: &PolicySnapshot, principal: &Principal) -> bool {
    let user = match &principal.proof {
        Proof::Key(prints) => by_key(policy, prints.clone()).map(|now| now.user),
        Proof::Certificate(certified) => {
            let found = look_up(policy, &certified.claims, &certified.key);
            let facts = found.facts(&certified.claims, certified.client);
            rules::is_still_allowed(facts).ok().map(|now| now.user)
        }
    };
    user.is_some_and(|user| user.id == principal.user.id)
}

/// The length of a key id that is logged of an unauthenticated client.
const SHOWN_KEY_ID: usize = 128;

fn by_key(policy: &PolicySnapshot, prints: Prints) -> Option<Principal> {
    let user = policy.user_by_key(&prints.sha256)?;
    if user.disabled || policy.is_key_revoked(&prints) {
        return None;
    }
    let (user, proof) = (user.clone(), Proof::Key(prints));
    Some(Principal { user, proof })
}

/// The facts of the policy about a certificate.
struct Found {
    trusted: bool,
    revoked: Option<CertificateRevocations>,
    users: Vec<(String, User)>,
}

impl Found {
    fn facts<'a>(&'a self, claims: &'a Claims, client: IpAddr) -> CertificateFacts<'a> {
        CertificateFacts {
            claims,
            trusted: self.trusted,
            revoked: self.revoked,
            users: &self.users,
            client,
        }
    }
}

fn look_up(policy: &PolicySnapshot, claims: &Claims, key: &Prints) -> Found {
    let mut found = Found {
        trusted: policy.is_trusted(&claims.authority.sha256),
        revoked: None,
        users: vec![],
    };
    // A certificate that is signed by its own key makes no work.
    if !found.trusted {
        return found;
    }
    found.revoked = revoked(policy, claims, key);
    for principal in claims.principals.iter().take(MAX_CERTIFICATE_PRINCIPALS) {
        if let Some(user) = policy.user_by_principal(principal) {
            found.users.push((principal.clone(), user.clone()));
        }
    }
    found
}

fn revoked(
    policy: &PolicySnapshot,
    claims: &Claims,
    key: &Prints,
) -> Option<CertificateRevocations> {
    if policy.is_key_revoked(&claims.authority) {
        return Some(CertificateRevocations::Authority);
    }
    if policy.is_key_revoked(key) {
        return Some(CertificateRevocations::Key);
    }
    policy
        .is_certificate_revoked(&claims.authority.sha256, claims.serial, &claims.key_id)
        .then_some(CertificateRevocations::Certificate)
}

/// Waits for an answer of the store, within reason; without one there is none.
async fn ask<T>(
    question: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreUnanswered> {
    const LIMIT: Duration = STORE_TIMEOUT;
    match timeout(LIMIT, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            warn!(%error, "the store cannot look up the user of a key or certificate");
            Err(StoreUnanswered)
        }
        Err(_) => {
            warn!("the store does not answer");
            Err(StoreUnanswered)
        }
    }
}
