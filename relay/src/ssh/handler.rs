//! russh's callbacks, translated. Each request is answered here and nowhere else, because russh keeps one
//! "wants a reply" a channel and OpenSSH sends several requests at once.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_protocol::ids::DeviceName;
use holdfast_protocol::limits::{MAX_COMMAND, MAX_SUBSYSTEM};
use holdfast_protocol::wire::{WindowSize, Work};
use russh::keys::{Certificate, HashAlg};
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Sig};
use thiserror::Error;
use tracing::info;

use super::algorithms;
use super::attempts::{Attempts, shortened};
use super::auth::{self, Principal};
use super::channel::Waiting;
use super::channels::Channels;
use super::connection::Connection;
use super::outlet::{self, Outlet};
use super::queue::{self, Input};
use super::target::{self, Target};
use super::throttle::Source;
use super::{jump, server};
use crate::audit::{Event, EventKind};
use crate::clock::Timestamp;
use crate::limits::MAX_AUTH_FAILURES;
use crate::serve::Relay;

/// Ends a connection.
#[derive(Debug, Error)]
pub enum HandlerError {
    /// russh's own reason.
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

/// How the other end proves who it is.
enum Proof {
    /// By a key, on a TCP connection from this source.
    Key(Source),
    /// It is the inside of a jump: the outer connection's proof stands, and the device is fixed.
    Jump(Box<Principal>, DeviceName),
}

/// The handler of one SSH connection.
pub struct Handler {
    relay: Arc<Relay>,
    connection: Arc<Connection>,
    proof: Proof,
    attempts: Arc<Attempts>,
    /// Keys that were refused. After [`MAX_AUTH_FAILURES`] of them no key is good enough.
    failures: usize,
    channels: Channels,
}

impl Handler {
    /// The handler of a TCP connection.
    #[must_use]
    pub fn outer(relay: Arc<Relay>, connection: Arc<Connection>, source: Source) -> Self {
        Self::new(relay, connection, Proof::Key(source))
    }

    /// The handler of a connection inside a jump.
    #[must_use]
    pub fn inner(
        relay: Arc<Relay>,
        connection: Arc<Connection>,
        principal: Principal,
        device: DeviceName,
    ) -> Self {
        Self::new(relay, connection, Proof::Jump(Box::new(principal), device))
    }

    /// Counts what the other end offered as proof.
    #[must_use]
    pub fn attempts(&self) -> Arc<Attempts> {
        self.attempts.clone()
    }

    fn new(relay: Arc<Relay>, connection: Arc<Connection>, proof: Proof) -> Self {
        let (attempts, channels) = (Arc::default(), Channels::default());
        Self {
            relay,
            connection,
            proof,
            attempts,
            failures: 0,
            channels,
        }
    }

    /// Lets in whom a key or certificate proved, if it proved anybody.
    fn admit(&mut self, user: &str, proved: Option<Principal>) -> Auth {
        match proved {
            // Inside a jump the outer proof stands alone.
            Some(principal)
                if self.failures < MAX_AUTH_FAILURES && matches!(self.proof, Proof::Key(_)) =>
            {
                let target = match self.remember_bad_target(user) {
                    Ok(target) => target,
                    Err(sentence) => Target::Unusable(sentence),
                };
                self.accept(principal, target)
            }
            _ => {
                self.failures += 1;
                only_keys()
            }
        }
    }

    /// Notes who the other end is and what it asked for.
    fn accept(&self, principal: Principal, target: Target) -> Auth {
        info!(user = %principal.user.name, proof = %principal.proof,
            client = %self.connection.client, "login");
        self.connection.set_principal(principal, target);
        Auth::Accept
    }

    /// The target of a verified login. A name that names nothing is refused when something is opened,
    /// with a sentence; a failed login would only say "permission denied".
    fn remember_bad_target(&self, user: &str) -> Result<Target, String> {
        user.parse::<Target>().map_err(|error| error.to_string())
    }
}

impl Handler {
    fn start(
        &mut self,
        channel: ChannelId,
        work: Work,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        self.channels
            .start(&self.relay, &self.connection, channel, work, session)
    }

    /// Whether a forward is a jump to a device, which is the only kind there is; gives the other channels
    /// and the device.
    fn may_jump(&mut self, host: &str, port: u32) -> Result<(u32, DeviceName), String> {
        let count = self.channels.count()?;
        if matches!(self.proof, Proof::Jump(..)) {
            return Err(
                "forwarding through a device is not offered yet: the relay never dials for you"
                    .into(),
            );
        }
        let device = target::forward(host, port).map_err(|error| error.to_string())?;
        Ok((count, device))
    }
}

fn prohibited(reason: String) -> ChannelOpenFailure {
    // RFC 4254 section 5.1: SSH_OPEN_ADMINISTRATIVELY_PROHIBITED, with our sentence as description.
    ChannelOpenFailure::Other { code: 1, reason }
}

/// A login, with how it was proved and by which way it came.
fn login(proof: &Proof, principal: &Principal, target: &Target) -> Event {
    let event = Event::new(EventKind::UserLogin).user(principal);
    let proved = match principal.proof {
        auth::Proof::Key(_) => "key",
        auth::Proof::Certificate(_) => "certificate",
    };
    let (way, how) = match (proof, target) {
        (Proof::Jump(..), _) => ("jump", "outer connection"),
        (Proof::Key(_), Target::Relay) => ("console", proved),
        (Proof::Key(_), _) => ("direct", proved),
    };
    let event = event.with("way", way).with("how", how);
    match target {
        Target::Device(login, device) => event.login(login).with("target", device.as_str()),
        Target::Relay | Target::Unusable(_) => event,
    }
}

fn only_keys() -> Auth {
    Auth::Reject {
        proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
        partial_success: false,
    }
}

impl russh::server::Handler for Handler {
    type Error = HandlerError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        let Proof::Jump(principal, device) = &self.proof else {
            return Ok(only_keys());
        };
        // The outer connection has proved who this is; the name is the login on the device.
        let target = format!("{user}+{device}").parse::<Target>();
        match target {
            Ok(target) => Ok(self.accept((**principal).clone(), target)),
            Err(error) => {
                info!(client = %self.connection.client, %error, "jump refused");
                let client = self.connection.client;
                let event = Event::new(EventKind::UserLoginFailed).user(&**principal);
                let event = event.client(client).with("way", "jump");
                let event = event
                    .with("names", vec![shortened(user)])
                    .refused(error.to_string());
                self.relay
                    .audit
                    .note_failure(Source::of(client.ip()), event)
                    .await;
                Ok(Auth::reject())
            }
        }
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        // A mere offer changes nothing and proves nothing.
        let fingerprint = offer.public_key.fingerprint(HashAlg::Sha256).to_string();
        self.attempts.note(user, Some(fingerprint));
        let worth = algorithms::may_sign_with(offer.algorithm)
            && auth::is_worth_a_try(&self.relay.store, offer.public_key).await;
        if worth && self.failures < MAX_AUTH_FAILURES {
            return Ok(Auth::Accept);
        }
        self.failures += 1;
        Ok(only_keys())
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let proved = auth::principal(&self.relay.store, key.public_key).await;
        Ok(self.admit(user, proved))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        let (store, client) = (&self.relay.store, self.connection.client.ip());
        let proved = auth::by_certificate(store, certificate, client, Timestamp::now()).await;
        Ok(self.admit(user, proved))
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        if let Some((principal, target)) = self.connection.principal() {
            // In the log before all that is recorded of this connection later: nothing waits for it here.
            let event = login(&self.proof, principal, target).client(self.connection.client);
            self.relay.audit.note(event).await;
        }
        // What is inside a jump was admitted with the connection around it.
        let Proof::Key(source) = self.proof else {
            return Ok(());
        };
        server::authenticated(&self.relay, source);
        if let Err(sentence) = self.relay.admit(&self.connection).await {
            session.disconnect(Disconnect::TooManyConnections, &sentence, "")?;
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some((_, target)) = self.connection.principal().cloned() else {
            return Ok(());
        };
        let count = match self.channels.count() {
            Ok(count) => count,
            Err(full) => {
                reply.reject(prohibited(full)).await;
                return Ok(());
            }
        };
        let id = channel.id();
        // russh's own queue of the channel is not used: its reader is dropped, and data comes by `data`.
        let (_, write) = channel.split();
        let (sender, input) = queue::queue();
        let waiting = Waiting::new(target.clone(), write, input);
        let opening = waiting.opening.clone();
        self.channels.insert(id, sender, Some(waiting));
        let (relay, connection) = (self.relay.clone(), self.connection.clone());
        tokio::spawn(async move {
            match relay.open(&connection, &target, count).await {
                Ok(opened) => {
                    opening.set(opened);
                    reply.accept().await;
                }
                Err(sentence) => {
                    opening.refuse();
                    reply.reject(prohibited(sentence)).await;
                }
            }
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some((principal, _)) = self.connection.principal().cloned() else {
            return Ok(());
        };
        let (count, device) = match self.may_jump(host_to_connect, port_to_connect) {
            Ok(may) => may,
            Err(sentence) => {
                let (report, connection) = (&self.relay.report, &self.connection);
                report
                    .forward_refused(connection, host_to_connect, port_to_connect, &sentence)
                    .await;
                reply.reject(prohibited(sentence)).await;
                return Ok(());
            }
        };
        let id = channel.id();
        let (_, write) = channel.split();
        let (sender, input) = queue::queue();
        self.channels.insert(id, sender, None);
        let outlet = Outlet::new(write, session.handle());
        let (relay, connection) = (self.relay.clone(), self.connection.clone());
        tokio::spawn(async move {
            match relay.open_jump(&connection, &device, count).await {
                Ok(()) => {
                    reply.accept().await;
                    jump::run(relay, connection, principal, device, input, outlet).await;
                }
                Err(sentence) => reply.reject(prohibited(sentence)).await,
            }
        });
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let (report, connection) = (&self.relay.report, &self.connection);
        let why = "nothing is forwarded from a device yet";
        report
            .forward_refused(connection, address, *port, why)
            .await;
        Ok(false)
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.close(channel);
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.hand_on(channel, Input::Eof, session).await
    }

    fn adjust_window(&mut self, channel: ChannelId, _current: u32) -> u32 {
        self.channels.window(channel)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let data = Input::Data(Bytes::copy_from_slice(data));
        self.channels.hand_on(channel, data, session).await
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = WindowSize::clamped(columns, rows, width, height);
        let permitted = self
            .connection
            .principal()
            .is_some_and(|(principal, _)| principal.proof.grant().pty);
        let waiting = self.channels.waiting(channel);
        if permitted && waiting.is_some_and(|waiting| waiting.set_pty(term, size, modes)) {
            session.channel_success(channel)?;
        } else {
            session.channel_failure(channel)?;
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let waiting = self.channels.waiting(channel);
        if waiting.is_some_and(|waiting| waiting.set_env(name, value)) {
            session.channel_success(channel)?;
        } else {
            self.relay.report.env_rejected(&self.connection, name).await;
            session.channel_failure(channel)?;
        }
        Ok(())
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, Work::Shell, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if command.len() > MAX_COMMAND {
            session.channel_failure(channel)?;
            return Ok(());
        }
        self.start(channel, Work::Exec(command.to_vec()), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name.len() > MAX_SUBSYSTEM {
            session.channel_failure(channel)?;
            return Ok(());
        }
        self.start(channel, Work::Subsystem(name.to_owned()), session)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = WindowSize::clamped(columns, rows, width, height);
        self.channels
            .hand_on(channel, Input::Resize(size), session)
            .await
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match outlet::signal(&signal) {
            Some(signal) => {
                self.channels
                    .hand_on(channel, Input::Signal(signal), session)
                    .await
            }
            None => Ok(()),
        }
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)?;
        Ok(())
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        session.channel_failure(channel)?;
        Ok(false)
    }
}
