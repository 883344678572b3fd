//! Joining a fleet: `edge-agent join TOKEN`.

use futures_lite::FutureExt as _;
use holdfast_protocol::identity::release::ReleaseKey;
use holdfast_protocol::identity::roster::SignedRoster;
use holdfast_protocol::identity::token::{Token, TokenSecret};
use holdfast_protocol::ids::{DeviceId, DeviceName, LabelKey, LabelValue};
use holdfast_protocol::limits::DIAL_TIMEOUT;
use holdfast_protocol::wire::{AgentMessage, Enrol, Intent, Refusal, RelayMessage};
use smol::Timer;
use thiserror::Error;

use crate::os::state::{StateDir, StateDirError};
use crate::tunnel::control::{self, ControlStreamError};
use crate::tunnel::dial::{DialError, DialledRelay, dial};
use crate::tunnel::identity::{Identity, IdentityError};
use crate::tunnel::limits::RECHECK_TIMEOUT;
use crate::tunnel::membership::{self, Membership};
use crate::tunnel::refusal::RelayRefusal;
pub use crate::tunnel::refusal::ends_membership;
use crate::tunnel::release;
use crate::tunnel::tls::Trust;

/// The outcome of a join.
#[derive(Debug)]
pub enum Joined {
    /// The device is a member now.
    Now(Membership),
    /// It was a member of this cluster already.
    Before {
        /// The membership.
        membership: Membership,
        /// True if the relay had a newer roster: it has addresses at which the device finds its relays again.
        renewed: bool,
        /// The reason why the relay could not be asked whether it still counts.
        unasked: Option<JoinError>,
    },
}

/// The reason why the device is not a member.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The device's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The relay could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The relay was lost in between.
    #[error("the relay was lost while joining: {0}")]
    Control(#[from] ControlStreamError),
    /// The relay said no.
    #[error(transparent)]
    Refused(#[from] RelayRefusal),
    /// The device was a member of this cluster, and the relay says that it is none any more.
    #[error("already joined as {name} (id {id}), but {why}")]
    Ended {
        /// Its name.
        name: DeviceName,
        /// Its identifier.
        id: DeviceId,
        /// The relay's answer.
        why: Box<RelayRefusal>,
    },
    /// The device is a member of another cluster.
    #[error(
        "this device belongs to another cluster as {name}: remove its state folder to move it (it becomes a new device)"
    )]
    OtherCluster {
        /// Its name there.
        name: DeviceName,
    },
    /// The peer at the token's address cannot prove to be of the token's cluster.
    #[error(
        "the relay at {address} is not of the cluster that the token names: no secret was sent. Check the address, or ask for a new token"
    )]
    WrongCluster {
        /// The address.
        address: String,
    },
    /// The relay broke the protocol.
    #[error("unexpected message from the relay: is {0} a Holdfast relay of this version?")]
    Unexpected(String),
    /// It took too long.
    #[error("the relay at {0} did not finish the joining in time: try again")]
    Timeout(String),
}

/// Joins with `token`, unless the device is a member of that cluster already.
///
/// # Errors
/// [`JoinError`].
pub async fn join(
    state: &StateDir,
    token: &Token,
    name: Option<DeviceName>,
    labels: Vec<(LabelKey, LabelValue)>,
) -> Result<Joined, JoinError> {
    let identity = Identity::load_or_create(state)?;
    if let Some(present) = Membership::load(state)? {
        if membership::fingerprint(&present.roster().cluster) == token.fingerprint {
            return still_member(state, &identity, token, present).await;
        }
        return Err(JoinError::OtherCluster {
            name: present.name().clone(),
        });
    }
    let asked = ask(&identity, token, name, labels);
    let late = async {
        Timer::after(DIAL_TIMEOUT * 2).await;
        Err(JoinError::Timeout(token.address.clone()))
    };
    let (membership, release_key) = asked.or(late).await?;
    // Before the membership: a device that is a member does not ask again.
    if let Some(key) = release_key
        && release::load(state)?.is_none()
    {
        release::pin(state, &key)?;
    }
    membership.save(state)?;
    Ok(Joined::Now(membership))
}

/// Asks the relay whether a member is one still. That uses nothing: the relay looks for the device's key before it
/// looks at a secret, and the one that is sent is no token's. A device whose relays have all moved learns from the answer
/// where they are.
async fn still_member(
    state: &StateDir,
    identity: &Identity,
    token: &Token,
    mut present: Membership,
) -> Result<Joined, JoinError> {
    let question = Token {
        secret: TokenSecret([0; _]),
        ..token.clone()
    };
    let late = async {
        Timer::after(RECHECK_TIMEOUT).await;
        Err(JoinError::Timeout(token.address.clone()))
    };
    let asked = ask(identity, &question, None, Vec::new()).or(late).await;
    let ended = match asked {
        Err(JoinError::Refused(RelayRefusal(Refusal::Revoked))) => Refusal::Revoked,
        // A key that the relay does not know makes it look for the secret.
        Err(JoinError::Refused(RelayRefusal(Refusal::TokenUnknown))) => Refusal::UnknownDevice,
        answer => {
            let renewed = answer
                .as_ref()
                .is_ok_and(|(now, _)| present.take_newer(now));
            if renewed {
                present.save(state)?;
            }
            return Ok(Joined::Before {
                membership: present,
                renewed,
                unasked: answer.err(),
            });
        }
    };
    Err(JoinError::Ended {
        name: present.name().clone(),
        id: present.id(),
        why: Box::new(RelayRefusal(ended)),
    })
}

async fn ask(
    identity: &Identity,
    token: &Token,
    name: Option<DeviceName>,
    labels: Vec<(LabelKey, LabelValue)>,
) -> Result<(Membership, Option<ReleaseKey>), JoinError> {
    let unexpected = || JoinError::Unexpected(token.address.clone());
    let dialled = dial(identity, Trust::Unproven, &token.address).await?;
    let (mut send, mut receive) = control::open(&dialled.connection, Intent::Join).await?;
    send.send(&AgentMessage::Hello(control::hello(
        Intent::Join,
        &dialled,
        0,
    )))
    .await?;
    match receive.next().await? {
        RelayMessage::Identity(roster) => check_relay(token, &dialled, &roster)?,
        RelayMessage::Refused(why) => return Err(RelayRefusal(why).into()),
        _ => return Err(unexpected()),
    }
    let enrol = Enrol {
        secret: token.secret.clone(),
        name,
        labels,
    };
    send.send(&AgentMessage::Enrol(enrol)).await?;
    let (mut answer, mut release_key) = (receive.next().await?, None);
    if let RelayMessage::ReleaseKey(key) = answer {
        release_key = Some(key);
        answer = receive.next().await?;
    }
    let granted = match answer {
        RelayMessage::Enrolled(granted) => granted,
        RelayMessage::Refused(why) => return Err(RelayRefusal(why).into()),
        _ => return Err(unexpected()),
    };
    check_relay(token, &dialled, &granted.roster)?;
    dialled.connection.close(0_u32.into(), b"joined");
    // The close is said before the process goes, so that the relay need not wait for a timeout.
    let said = async { dialled.endpoint.wait_idle().await };
    let late = async {
        Timer::after(crate::tunnel::limits::CLOSE_GRACE).await;
    };
    said.or(late).await;
    let membership = Membership::new(granted.id, granted.name, granted.roster);
    Ok((membership.map_err(|_| unexpected())?, release_key))
}

/// Checks that the relay is of the token's cluster: the roster is signed by the key that the token names, and the
/// relay's own key, which it proved in the handshake, is on it.
fn check_relay(
    token: &Token,
    dialled: &DialledRelay,
    roster: &SignedRoster,
) -> Result<(), JoinError> {
    let proved = membership::open_roster(roster).is_ok_and(|roster| {
        membership::fingerprint(&roster.cluster) == token.fingerprint
            && roster
                .relays
                .iter()
                .any(|relay| relay.key == dialled.relay_key)
    });
    if proved {
        Ok(())
    } else {
        Err(JoinError::WrongCluster {
            address: token.address.clone(),
        })
    }
}
