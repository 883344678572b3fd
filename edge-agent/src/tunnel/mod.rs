//! Keeps a tunnel open. The decisions are `holdfast_protocol::tunnel::link`'s; here are the sockets,
//! the timers and the tasks.

pub(crate) mod address;
pub(crate) mod control;
pub(crate) mod dial;
mod drive;
pub mod enroll;
mod establish;
pub mod identity;
pub(crate) mod limits;
pub mod membership;
mod refusal;
pub mod release;
pub mod status;
pub(crate) mod tls;

use crate::os::clock;
use crate::os::sync::Mutex;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt as _;
use holdfast_protocol::tunnel::backoff::Backoff;
use holdfast_protocol::tunnel::congestion::quinn::lift_for_close;
use holdfast_protocol::wire::{CloseCode, Instance};
use quinn::{Connection, Endpoint};
use ring::rand::{SecureRandom as _, SystemRandom};
use smol::Timer;

use crate::info;
use crate::os::state::StateDir;
use crate::session::AgentSessions;
use crate::tunnel::identity::Identity;
use crate::tunnel::limits::{CLOSE_GRACE, STEADY_TUNNEL};
use crate::tunnel::membership::Membership;
use crate::tunnel::status::TunnelStatus;

use drive::retiring::RetiringTunnels;
use drive::{TunnelEnd, TunnelRole};
use establish::EstablishedTunnel;

/// Everything that a running agent is made of.
#[derive(Debug)]
pub struct Agent {
    /// The folder of its files.
    pub state: StateDir,
    /// Its key.
    pub identity: Identity,
    /// The cluster that it belongs to: changes when the relay sends a newer roster or name.
    pub membership: Mutex<Membership>,
    /// Its sessions, whichever tunnel they came by.
    pub sessions: Arc<AgentSessions>,
    /// The state that `status` shows.
    pub status: Arc<TunnelStatus>,
    /// Pause between beats of an idle tunnel.
    pub keepalive: Duration,
    /// The run of the agent.
    pub instance: Instance,
}

impl Agent {
    /// Returns the present membership.
    pub fn membership(&self) -> Membership {
        self.membership.lock().clone()
    }
}

/// Keeps a tunnel up until `stop` resolves; then closes it with the code that `goodbye` gives for what came of
/// `stop`, and returns that.
pub async fn run<T>(
    agent: &Arc<Agent>,
    stop: impl Future<Output = T>,
    goodbye: impl FnOnce(&T) -> CloseCode,
) -> T {
    let mut current: Option<EstablishedTunnel> = None;
    let mut retiring = RetiringTunnels::default();
    let keep = async {
        let mut delay = Duration::ZERO;
        let mut falls = Backoff::default();
        let mut next: Option<EstablishedTunnel> = None;
        loop {
            let standing = match next.take() {
                Some(standing) => standing,
                None => establish::establish(agent, delay, None).await,
            };
            current = Some(standing);
            let Some(standing) = &mut current else {
                continue;
            };
            let up_since = clock::instant();
            let end = drive::drive(agent, standing, TunnelRole::Current).await;
            if up_since.elapsed() >= STEADY_TUNNEL {
                falls.reset();
            }
            match end {
                TunnelEnd::Moved(newer) => {
                    next = Some(*newer);
                    if let Some(older) = current.take() {
                        retiring.add(agent, older).await;
                    }
                }
                // Of one that is kept beside this one, not of this one.
                TunnelEnd::Unused => {}
                TunnelEnd::Lost(why) => {
                    info!("tunnel lost: {why}");
                    agent.status.disconnected(&why);
                    delay = falls.next_delay(random());
                }
                TunnelEnd::Drained(after) => {
                    info!(
                        "the relay stops; dialling again in {} ms",
                        after.as_millis()
                    );
                    agent.status.disconnected("the relay is stopping");
                    delay = after + after.mul_f64(random() as f64 / u64::MAX as f64);
                }
                TunnelEnd::Replaced(newer) => {
                    let dialled = &standing.dialled;
                    close(&dialled.endpoint, &dialled.connection, CloseCode::Replaced).await;
                    next = Some(*newer);
                }
            }
        }
    };
    let stopped = keep.or(stop).await;
    let code = goodbye(&stopped);
    if let Some(EstablishedTunnel { dialled, .. }) = &current {
        close(&dialled.endpoint, &dialled.connection, code).await;
    }
    retiring.close(code).await;
    stopped
}

async fn close(endpoint: &Endpoint, connection: &Connection, code: CloseCode) {
    lift_for_close(connection.congestion_state());
    connection.close((code as u32).into(), b"");
    let said = endpoint.wait_idle();
    let late = async {
        Timer::after(CLOSE_GRACE).await;
    };
    said.or(late).await;
}

/// Returns a random number for jitter.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the jitter is gone, not the tunnel.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
