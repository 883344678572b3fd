//! The SSH front end: it translates between russh's callbacks and the service of sessions, and holds no rule.

pub(crate) mod algorithms;
pub(crate) mod channels;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod console;
pub(crate) mod handler;
pub(crate) mod host_certificates;
pub(crate) mod host_keys;
pub(crate) mod limits;
pub(crate) mod login;
pub(crate) mod server;
pub(crate) mod stream;
pub(crate) mod throttle;

use std::sync::Arc;
use std::time::Duration;

use self::connections::Connections;
use self::console::ConsoleService;
use self::host_certificates::HostCertificates;
use self::host_keys::HostKeys;
use self::stream::balancer::Balancers;
use crate::audit::Audit;
use crate::bulk::PayloadSlots;
use crate::session::Sessions;
use crate::state::State;

/// The SSH front end of a relay that serves.
#[derive(Debug)]
pub(crate) struct Front {
    /// The service of sessions.
    pub(crate) sessions: Arc<Sessions>,
    /// The relay's keys.
    pub(crate) state: Arc<State>,
    /// The audit log.
    pub(crate) audit: Audit,
    /// The connections that are open, and what each source costs.
    pub(crate) connections: Connections,
    /// The networks of TCP load balancers.
    pub(crate) balancers: Balancers,
    /// The certificates of the jump way.
    pub(crate) host_certificates: HostCertificates,
    /// The host keys that clients are sent.
    pub(crate) host_keys: HostKeys,
    /// Room for the files that are copied to many devices.
    pub(crate) copies: PayloadSlots,
    /// The commands of the relay itself.
    pub(crate) console: Arc<dyn ConsoleService>,
    /// The time that a connection may take to authenticate.
    pub(crate) login_grace: Duration,
}
