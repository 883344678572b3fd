//! A session that is one connection: a forward, where others have a process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt as _;
use holdfast_protocol::ids::Login;
use holdfast_protocol::wire::{Connect, Exit, SessionRefusal, SocketPath, Take};
use rustix::net::sockopt::set_socket_linger;
use smol::Async;

use super::super::inbound::InputSink;
use super::super::registry::SlotKind;
use super::SessionDriver;
use super::forwards::{coming, host_and_port, out};
use crate::recording::ForwardBeginning;
use crate::session::dial::{self, DialledTarget};
use crate::session::limits::BULK_PRIORITY;
use crate::session::unix;

/// The exit of a forward's connection that its other end reset.
pub(super) const BROKEN_OFF: Exit = Exit::Status(1);

impl SessionDriver {
    /// Starts a forward: the connection takes the place of a process.
    pub(super) async fn dial(&mut self, login: Login, denied: Vec<Login>, to: Connect) {
        if let Err(full) = self.occupy(SlotKind::Forward) {
            return self.core.handle_refused(full);
        }
        self.outbound.set_priority(BULK_PRIORITY);
        let asked = host_and_port(&to.host, to.port);
        // An operator who gives up does not leave a dial behind.
        let dialled = async { Ok(Box::pin(dial::dial(login, denied, to)).await) };
        let gone = async { Err(self.inbound.broken_off().await) };
        match dialled.or(gone).await {
            Ok(Ok(DialledTarget { socket, address })) => {
                let beginning = out(asked, Some(address));
                self.carry(socket, Some(address), beginning).await;
            }
            Ok(Err(why)) => self.core.handle_refused(why),
            Err(gone) => self.cancelled_before_start(gone),
        }
    }

    /// Starts a forward to a Unix socket.
    pub(super) async fn dial_path(&mut self, login: Login, denied: Vec<Login>, to: SocketPath) {
        if let Err(full) = self.occupy(SlotKind::Forward) {
            return self.core.handle_refused(full);
        }
        self.outbound.set_priority(BULK_PRIORITY);
        let (program, asked) = (self.sessions.config.program.clone(), to.path.clone());
        let dialled = async { Ok(unix::dial(&program, login, denied, to).await) };
        let gone = async { Err(self.inbound.broken_off().await) };
        match dialled.or(gone).await {
            Ok(Ok(socket)) => self.carry(socket, None, out(asked, None)).await,
            Ok(Err(why)) => self.core.handle_refused(why),
            Err(gone) => self.cancelled_before_start(gone),
        }
    }

    /// Starts a forward on a connection that has come to a port.
    pub(super) async fn take(&mut self, Take { listener, number }: Take) {
        if let Err(full) = self.occupy(SlotKind::Forward) {
            return self.core.handle_refused(full);
        }
        self.outbound.set_priority(BULK_PRIORITY);
        let taken = self.sessions.arrivals.take(listener, number);
        let carried = taken.map(|connection| {
            let beginning = coming(&connection);
            Ok::<_, io::Error>((Async::new(connection.socket)?, connection.peer, beginning))
        });
        match carried {
            Some(Ok((socket, peer, beginning))) => self.carry(socket, peer, beginning).await,
            Some(Err(_)) | None => {
                let why = SessionRefusal::Unreachable("it is gone already".to_owned());
                self.core.handle_refused(why);
            }
        }
    }

    /// Carries an established connection of a forward. One to a Unix socket has no address.
    async fn carry(
        &mut self,
        socket: Async<OwnedFd>,
        address: Option<SocketAddr>,
        beginning: ForwardBeginning,
    ) {
        if let Err(why) = self.log_forward(&beginning).await {
            return self.core.handle_refused(why);
        }
        let socket = Arc::new(socket);
        self.inbound
            .stdin
            .open(Arc::clone(&socket), InputSink::Socket);
        self.outbound.open_socket(Arc::clone(&socket));
        (self.socket, self.address) = (Some(socket), address);
        self.core.handle_started(self.epoch.elapsed());
    }

    /// Lets go of a connection whose operator is gone: its other end sees that it did not end in good order.
    pub(super) fn break_off(&mut self, socket: &Async<OwnedFd>) {
        let _ = set_socket_linger(socket.get_ref(), Some(Duration::ZERO));
        self.inbound.stdin.close();
        self.outbound.close();
        self.ended(BROKEN_OFF);
    }

    /// Returns whether a connection has come to its end both ways, and how.
    pub(super) fn connection_end(&mut self) -> Option<Exit> {
        self.socket.as_ref()?;
        if self.outbound.is_broken() {
            // What is still to go in goes nowhere.
            self.inbound.stdin.close();
        }
        let over = self.inbound.stdin.is_closed() && self.outbound.has_ended();
        over.then(|| match self.outbound.is_broken() {
            true => BROKEN_OFF,
            false => Exit::Status(0),
        })
    }
}
