//! `edge-agent self-test`: a new program, not in its place yet, tries what it will need there. The live tunnel is not
//! touched: the relay learns of a device's wish for a tunnel from its `Hello`, and none is said here.

use std::path::Path;

use futures_lite::FutureExt as _;
use holdfast_protocol::wire::CloseCode;
use smol::Timer;
use thiserror::Error;

use crate::os::state::{StateDir, StateDirError};
use crate::tunnel::dial::{DialError, dial};
use crate::tunnel::identity::{Identity, IdentityError};
use crate::tunnel::limits::CLOSE_GRACE;
use crate::tunnel::membership::Membership;
use crate::tunnel::tls::Trust;

/// The command's name.
pub const ARGUMENT: &str = "self-test";

/// The reason why the program would not do.
#[derive(Debug, Error)]
pub enum SelfTestError {
    /// It cannot read the state folder.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// It cannot use the device's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is nothing to test with.
    #[error("this device has not joined a fleet yet: run `edge-agent join TOKEN` first")]
    NotJoined,
    /// No relay answers.
    #[error("no relay could be reached: {0}")]
    NoRelay(DialError),
    /// There is no relay.
    #[error("the roster names no relay: join again")]
    EmptyRoster,
}

/// Does a handshake with a relay as this device, and gives the relay's address.
///
/// # Errors
/// [`SelfTestError`].
pub async fn run(state: &Path) -> Result<String, SelfTestError> {
    let state = StateDir::create_or_open(state)?;
    let membership = Membership::load(&state)?.ok_or(SelfTestError::NotJoined)?;
    let identity = Identity::load(&state)?.ok_or(SelfTestError::NotJoined)?;
    let relays = &membership.roster().relays;
    let pinned: Vec<_> = relays.iter().map(|relay| relay.key).collect();
    let mut last = None;
    for relay in relays {
        match dial(&identity, Trust::Pinned(pinned.clone()), &relay.address).await {
            Ok(dialled) => {
                let connection = &dialled.connection;
                connection.close((CloseCode::Done as u32).into(), b"a self-test");
                let said = async { dialled.endpoint.wait_idle().await };
                let late = async {
                    Timer::after(CLOSE_GRACE).await;
                };
                said.or(late).await;
                return Ok(relay.address.clone());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or(SelfTestError::EmptyRoster, SelfTestError::NoRelay))
}
