//! A forward that is one connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::FutureExt as _;
use holdfast_protocol::ids::Login;
use holdfast_protocol::wire::{Connect, Exit, SessionRefusal, SocketPath, Take};
use rustix::net::sockopt::set_socket_linger;
use smol::Async;

use super::log::{coming, host_and_port, out};
use super::{BROKEN_OFF, ForwardAccount, ForwardDriver};
use crate::recording::ForwardBeginning;
use crate::session::dial::{self, DialledTarget};
use crate::session::limits::BULK_PRIORITY;
use crate::session::pump::InputSink;
use crate::session::registry::SlotKind;
use crate::session::unix;

impl ForwardDriver {
    /// Starts a forward by dialling.
    pub(super) async fn dial(&mut self, account: ForwardAccount, to: Connect) {
        match self.sessions.occupy(SlotKind::Forward) {
            Ok(slot) => self.slot = Some(slot),
            Err(full) => return self.core.handle_refused(full),
        }
        self.pump.outbound.set_priority(BULK_PRIORITY);
        let asked = host_and_port(&to.host, to.port);
        // An operator who gives up does not leave a dial behind.
        let dialled = async { Ok(Box::pin(dial::dial(account.login, account.denied, to)).await) };
        let gone = async { Err(self.pump.inbound.broken_off().await) };
        match dialled.or(gone).await {
            Ok(Ok(DialledTarget { socket, address })) => {
                let beginning = out(asked, Some(address));
                let carried = (socket, Some(address));
                self.carry(carried, account.names, beginning).await;
            }
            Ok(Err(why)) => self.core.handle_refused(why),
            Err(gone) => self.cancelled_before_start(gone),
        }
    }

    /// Starts a forward to a Unix socket.
    pub(super) async fn dial_path(&mut self, account: ForwardAccount, to: SocketPath) {
        match self.sessions.occupy(SlotKind::Forward) {
            Ok(slot) => self.slot = Some(slot),
            Err(full) => return self.core.handle_refused(full),
        }
        self.pump.outbound.set_priority(BULK_PRIORITY);
        let (program, asked) = (self.sessions.config.program.clone(), to.path.clone());
        let dialled = async { Ok(unix::dial(&program, account.login, account.denied, to).await) };
        let gone = async { Err(self.pump.inbound.broken_off().await) };
        match dialled.or(gone).await {
            Ok(Ok(socket)) => {
                let beginning = out(asked, None);
                self.carry((socket, None), account.names, beginning).await;
            }
            Ok(Err(why)) => self.core.handle_refused(why),
            Err(gone) => self.cancelled_before_start(gone),
        }
    }

    /// Starts a forward on a connection that has come to a port.
    pub(super) async fn take(&mut self, account: ForwardAccount, take: Take) {
        match self.sessions.occupy(SlotKind::Forward) {
            Ok(slot) => self.slot = Some(slot),
            Err(full) => return self.core.handle_refused(full),
        }
        self.pump.outbound.set_priority(BULK_PRIORITY);
        let taken = self.sessions.arrivals.take(take.listener, take.number);
        let carried = taken.map(|connection| {
            let beginning = coming(&connection);
            Ok::<_, io::Error>((Async::new(connection.socket)?, connection.peer, beginning))
        });
        match carried {
            Some(Ok((socket, peer, beginning))) => {
                self.carry((socket, peer), account.names, beginning).await;
            }
            Some(Err(_)) | None => {
                let why = SessionRefusal::Unreachable("it is gone already".to_owned());
                self.core.handle_refused(why);
            }
        }
    }

    /// Carries an established connection of a forward. One to a Unix socket has no address.
    async fn carry(
        &mut self,
        (socket, address): (Async<OwnedFd>, Option<SocketAddr>),
        names: Vec<Login>,
        beginning: ForwardBeginning,
    ) {
        if let Err(why) = self.log_forward(&beginning).await {
            return self.core.handle_refused(why);
        }
        let socket = Arc::new(socket);
        self.pump
            .inbound
            .stdin
            .open(Arc::clone(&socket), InputSink::Socket);
        self.pump.outbound.open_socket(Arc::clone(&socket));
        self.socket = Some(socket);
        self.core.handle_started(names, address);
    }

    /// Lets go of a connection whose operator is gone: its other end sees that it did not end in good order.
    pub(super) fn reset_connection(&mut self, socket: &Async<OwnedFd>) {
        let _ = set_socket_linger(socket.get_ref(), Some(Duration::ZERO));
        self.pump.inbound.stdin.close();
        self.pump.outbound.close();
    }

    /// Reports that the connection has come to its end both ways, and how.
    pub(super) fn poll_connection(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.socket.is_none() || self.exit.is_some() {
            return Poll::Pending;
        }
        if self.pump.outbound.is_broken() {
            // What is still to go in goes nowhere.
            self.pump.inbound.stdin.close();
        }
        if !self.pump.inbound.stdin.is_closed() || !self.pump.outbound.has_ended() {
            return Poll::Pending;
        }
        self.ended(match self.pump.outbound.is_broken() {
            true => BROKEN_OFF,
            false => Exit::Status(0),
        });
        Poll::Ready(())
    }
}
