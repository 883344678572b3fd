//! Enrolment: a token's use and a device's row are one transaction, so that of two joins on a one-use
//! token exactly one wins, and a join that fails uses nothing up.

use std::time::Duration;

use holdfast_protocol::identity::token::{TokenSecret, is_address};
use holdfast_protocol::ids::{DeviceId, DeviceName, PublicKey};
use holdfast_protocol::limits::MAX_LABELS;
use holdfast_protocol::wire::Refusal;
use thiserror::Error;

use super::labels;
use crate::clock::Timestamp;
use crate::state::{random_bytes, sha256};
use crate::store::backend::sql;
use crate::store::cluster::members::{MemberState, host_of};
use crate::store::meta::AccessPart;
use crate::store::{Device, Labels, MemberId, StoreError, Tx, devices};

/// A device that asks for membership, with a key that it has proved.
#[derive(Clone, Debug)]
pub(crate) struct Enrolment<'a> {
    /// The secret of its token.
    pub secret: &'a TokenSecret,
    /// The key that it proved in the TLS handshake.
    pub key: PublicKey,
    /// The name it would like.
    pub name: Option<DeviceName>,
    /// Its own labels, which the token's override.
    pub labels: Labels,
    /// The agent's version, as it says.
    pub agent_version: String,
    /// The agent's target triple, as it says.
    pub target: String,
    /// The current time.
    pub now: Timestamp,
}

/// The reason why a device did not become a member.
#[derive(Debug, Error)]
pub(crate) enum EnrolError {
    /// The secret is not known.
    #[error("the token is unknown to this relay: ask for a new one (`relay token create`)")]
    TokenUnknown,
    /// The token's time is over.
    #[error("the token expired: ask for a new one (`relay token create`)")]
    TokenExpired {
        /// The time since then.
        ago: Duration,
    },
    /// Its uses are used.
    #[error("the token is used up: ask for a new one (`relay token create`)")]
    TokenUsedUp,
    /// A relay joins with it, and no device.
    #[error("token {0} lets a relay join: devices join with one of `relay token create`")]
    TokenForRelays(String),
    /// A device joins with it, and no relay.
    #[error("token {0} lets devices join: a relay joins with one of `relay token create --relay`")]
    TokenForDevices(String),
    /// The relay has served since it joined, so it has the keys.
    #[error(
        "relay {0} has joined, and has served: its keys are in its state folder, and are not given a second time"
    )]
    RelayHasServed(String),
    /// Another device has the name, or it is the identifier of one.
    #[error(
        "name \"{name}\" is taken by device {holder}: choose another with --name, or revoke the old one"
    )]
    NameTaken {
        /// The name.
        name: DeviceName,
        /// The device that has it.
        holder: DeviceId,
    },
    /// The key was revoked, which is for ever.
    #[error("this device was revoked: give it a new identity and a new token")]
    Revoked,
    /// The device's labels and the token's together are too many.
    #[error("the token and the device give {0} labels together; the maximum is {MAX_LABELS}")]
    TooManyLabels(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EnrolError {
    /// Returns the refusal that is sent to the device.
    #[must_use]
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::TokenUnknown => Refusal::TokenUnknown,
            Self::TokenExpired { ago } => Refusal::TokenExpired {
                ago_secs: ago.as_secs(),
            },
            Self::TokenUsedUp => Refusal::TokenUsedUp,
            Self::NameTaken { name, holder } => Refusal::NameTaken {
                name: name.clone(),
                holder: *holder,
            },
            Self::Revoked => Refusal::Revoked,
            Self::TooManyLabels(_)
            | Self::TokenForRelays(_)
            | Self::TokenForDevices(_)
            | Self::RelayHasServed(_)
            | Self::Store(StoreError::ClusterFull | StoreError::MemberLeft(_)) => {
                Refusal::Protocol(self.to_string())
            }
            Self::Store(_) => Refusal::Unavailable,
        }
    }
}

const TOKEN: &str =
    "SELECT id, uses_left, expires, labels, for_relay FROM tokens WHERE secret_hash = $1";
const USE: &str = "UPDATE tokens SET uses_left = uses_left - 1 WHERE id = $1";
const INSERT: &str = "INSERT INTO devices
        (id, public_key, name, labels, enrolled, agent_version, target, token)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

impl Tx {
    /// Makes a device a member, and uses its token once. A key that is a member already gets its device
    /// back unchanged, and uses nothing.
    ///
    /// # Errors
    /// [`EnrolError`]; nothing was changed then.
    pub(crate) async fn enrol(&mut self, enrolment: Enrolment<'_>) -> Result<Device, EnrolError> {
        let now = enrolment.now;
        if let Some(device) = devices::by_key(self, &enrolment.key, now).await? {
            self.unchanged();
            return match device.revoked {
                Some(_) => Err(EnrolError::Revoked),
                None => Ok(device),
            };
        }
        let (token, token_labels) =
            use_token(self, enrolment.secret, TokenPurpose::Device, now).await?;
        let mut labels = enrolment.labels;
        labels.extend(token_labels);
        if labels.len() > MAX_LABELS {
            return Err(EnrolError::TooManyLabels(labels.len()));
        }
        let (id, name) = pick_name(self, enrolment.name).await?;
        sql::query(INSERT)
            .bind(id.0.as_slice())
            .bind(enrolment.key.0.as_slice())
            .bind(name.as_str())
            .bind(labels::to_column(&labels))
            .bind(now.0)
            .bind(enrolment.agent_version)
            .bind(enrolment.target)
            .bind(token)
            .execute(&mut *self.connection().await?)
            .await?;
        self.about(id, &name);
        self.access_changed(AccessPart::Other).await?;
        let device = devices::by_key(self, &enrolment.key, now).await?;
        Ok(device.ok_or(StoreError::Corrupt("a new device"))?)
    }

    /// Makes a relay a member, and uses its token once. A relay whose joining was cut short may ask again with a token that
    /// is valid but for its uses; one that has served since may not: what it gets is worth more than its tunnel key. Returns
    /// the identifier and the name.
    ///
    /// # Errors
    /// [`EnrolError`]; nothing was changed then.
    pub(crate) async fn enrol_relay(
        &mut self,
        secret: &TokenSecret,
        tunnel_key: PublicKey,
        public: &str,
        now: Timestamp,
    ) -> Result<(MemberId, String), EnrolError> {
        let members = self.members().await?;
        let known = members
            .iter()
            .find(|member| member.tunnel_key == tunnel_key);
        if let Some(known) = known {
            let name = known.name.clone();
            if known.state == MemberState::Removed {
                return Err(StoreError::MemberLeft(name).into());
            }
            if known.tunnel_address.is_some() {
                return Err(EnrolError::RelayHasServed(name));
            }
            // It gets the keys again, which the audit log has to say.
            let token = valid_token(self, secret, TokenPurpose::Relay, now).await?;
            self.fact("token", token.id);
            self.fact("member", name.as_str());
            self.set_member_public(known.id, public).await?;
            return Ok((known.id, name));
        }
        use_token(self, secret, TokenPurpose::Relay, now).await?;
        let id = MemberId(random_bytes().map_err(|_| StoreError::Random)?);
        let host = public_host(public);
        let name = self
            .add_member(id, tunnel_key, host, Some(public), now)
            .await?;
        self.fact("member", name.as_str());
        Ok((id, name))
    }
}

/// The kind of member that joins with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenPurpose {
    Device,
    Relay,
}

/// A token that is known, for what joins, and in time. It may be used up.
struct ValidToken {
    id: String,
    uses_left: i64,
    labels: String,
}

/// Uses a token once. Gives its identifier, and the labels of who joins with it.
async fn use_token(
    tx: &mut Tx,
    secret: &TokenSecret,
    joins: TokenPurpose,
    now: Timestamp,
) -> Result<(String, Labels), EnrolError> {
    let token = valid_token(tx, secret, joins, now).await?;
    if token.uses_left <= 0 {
        return Err(EnrolError::TokenUsedUp);
    }
    tx.fact("token", token.id.as_str());
    let used = sql::query(USE).bind(&token.id);
    used.execute(&mut *tx.connection().await?).await?;
    let labels = labels::from_column(&token.labels)?;
    Ok((token.id, labels))
}

async fn valid_token(
    tx: &mut Tx,
    secret: &TokenSecret,
    joins: TokenPurpose,
    now: Timestamp,
) -> Result<ValidToken, EnrolError> {
    let hash = sha256(&secret.0);
    let token = sql::query_as(TOKEN).bind(hash.as_slice());
    let token: Option<(String, i64, i64, String, bool)> =
        token.fetch_optional(&mut *tx.connection().await?).await?;
    let (id, uses_left, expires, labels, for_relay) = token.ok_or(EnrolError::TokenUnknown)?;
    match (joins, for_relay) {
        (TokenPurpose::Device, true) => return Err(EnrolError::TokenForRelays(id)),
        (TokenPurpose::Relay, false) => return Err(EnrolError::TokenForDevices(id)),
        _ => {}
    }
    let expires = Timestamp(expires);
    if expires <= now {
        let ago = now.since(expires);
        return Err(EnrolError::TokenExpired { ago });
    }
    Ok(ValidToken {
        id,
        uses_left,
        labels,
    })
}

/// Returns a new identifier, and the name that was asked for or one made of the identifier.
async fn pick_name(
    tx: &mut Tx,
    wanted: Option<DeviceName>,
) -> Result<(DeviceId, DeviceName), EnrolError> {
    let random = || random_bytes().map(DeviceId).map_err(|_| StoreError::Random);
    if let Some(name) = wanted {
        return match devices::taken_by(tx, &name).await? {
            Some(holder) => Err(EnrolError::NameTaken { name, holder }),
            None => Ok((random()?, name)),
        };
    }
    loop {
        // Another device may have these eight digits, or an admin may have given the name away: the
        // next identifier has others.
        let id = random()?;
        let name = format!("device-{}", id.to_string().get(..8).unwrap_or_default());
        let name = DeviceName::new(&name).map_err(|_| StoreError::Corrupt("a picked name"))?;
        if devices::taken_by(tx, &name).await?.is_none() {
            return Ok((id, name));
        }
    }
}

/// Returns the host of a `HOST` or `HOST:PORT`, without brackets.
fn public_host(public: &str) -> &str {
    match is_address(public) {
        true => host_of(public),
        false => public.trim_matches(['[', ']']),
    }
}
