//! The jump way: an SSH connection inside a channel of another one, which the relay answers itself in the
//! device's name, with a host key that the cluster's SSH host CA certifies.

use std::sync::Arc;

use holdfast_protocol::ids::DeviceName;
use russh::server::run_stream;
use tokio::time::timeout;

use super::Handler;
use crate::clock;
use crate::identity::Principal;
use crate::session::input::InputReceiver;
use crate::session::output::Output as _;
use crate::ssh::Front;
use crate::ssh::channels::outlet::Outlet;
use crate::ssh::connection::{Connection, supervise};
use crate::ssh::stream::{Guard, GuardedStream};

/// Serves the connection inside a channel to its end.
pub(super) async fn run(
    front: Arc<Front>,
    outer: Arc<Connection>,
    principal: Principal,
    device: DeviceName,
    input: InputReceiver,
    outlet: Outlet,
) {
    let config = front.host_certificates.config(&front.state, &device);
    let grace = front.login_grace;
    let deadline = clock::instant() + grace;
    let guard = Guard::default();
    let connection = Connection::inside(&outer, guard.clone());
    let _busy = outer.client.busy();
    let inside = tokio::io::join(input, outlet.writer());
    let handler = Handler::inner(front, connection.clone(), principal, device);
    let guarded = GuardedStream::new(inside, guard);
    let began = timeout(grace, run_stream(config, guarded, handler)).await;
    if let Ok(Ok(session)) = began {
        // Why it ended is reported by the connection around it, which ends with it.
        let _ = supervise(&connection, session, deadline, grace).await;
    }
    let _ = outlet.eof().await;
    outlet.close().await;
}
