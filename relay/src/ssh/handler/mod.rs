//! russh's callbacks, translated. Each request is answered here and nowhere else, because russh keeps one
//! "wants a reply" a channel and OpenSSH sends several requests at once.

mod forwards;
mod jump;
mod start;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_protocol::ids::DeviceName;
use holdfast_protocol::limits::{MAX_COMMAND, MAX_SUBSYSTEM};
use holdfast_protocol::wire::WindowSize;
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Disconnect, Sig};

use super::channels::{Channels, HandlerError, Purpose};
use super::connection::Connection;
use super::host_keys::{self, ListedKeys};
use super::login::{Login, LoginProof};
use crate::identity::Principal;
use crate::model::request::ProcessRequest;
use crate::model::source::Source;
use crate::session::forward::reverse::Listeners;
use crate::session::forward::{ForwardAsk, Through};
use crate::session::input::Input;
use crate::session::registry::destination::Endpoint;
use crate::ssh::Front;
use crate::ssh::channels::channel::{RequestRefusal, Waiting};
use crate::ssh::channels::opener::{Confirmed, prohibited};
use crate::ssh::channels::outlet::{self, Outlet};
use crate::ssh::login::attempts::Attempts;
use forwards::ChannelRoute;

/// The handler of one SSH connection.
pub(crate) struct Handler {
    front: Arc<Front>,
    connection: Arc<Connection>,
    login: Login,
    channels: Channels,
    /// Ports that the device listens on for this connection.
    listeners: Listeners,
    /// Channels that the relay has opened.
    confirmed: Arc<Confirmed>,
    /// The host keys that the client was sent.
    host_keys: ListedKeys,
}

impl Handler {
    /// Returns the handler of a TCP connection.
    #[must_use]
    pub(crate) fn outer(front: Arc<Front>, connection: Arc<Connection>, source: Source) -> Self {
        Self::new(front, connection, LoginProof::Key(source))
    }

    /// Returns the handler of a connection inside a jump.
    #[must_use]
    pub(crate) fn inner(
        front: Arc<Front>,
        connection: Arc<Connection>,
        principal: Principal,
        device: DeviceName,
    ) -> Self {
        Self::new(
            front,
            connection,
            LoginProof::Jump(Box::new(principal), device),
        )
    }

    /// Counts what the other end offered as proof.
    #[must_use]
    pub(crate) fn attempts(&self) -> Arc<Attempts> {
        self.login.attempts()
    }

    fn new(front: Arc<Front>, connection: Arc<Connection>, proof: LoginProof) -> Self {
        let login = Login::new(front.clone(), connection.clone(), proof);
        let channels = connection.channels();
        Self {
            front,
            connection,
            login,
            channels,
            listeners: Listeners::default(),
            confirmed: Arc::default(),
            host_keys: ListedKeys::default(),
        }
    }
}

impl Handler {
    /// Routes a channel to its destination, or refuses it.
    fn route(
        &mut self,
        channel: Channel<Msg>,
        principal: Principal,
        count: u32,
        route: ChannelRoute,
        reply: ChannelOpenHandle,
        session: &Session,
    ) {
        let id = channel.id();
        let (_, write) = channel.split();
        let (sender, input) = self.channels.queue();
        self.channels.insert(id, route.purpose(), sender, None);
        let outlet = Outlet::new(write, session.handle());
        let (front, connection) = (self.front.clone(), self.connection.clone());
        let device = match route {
            ChannelRoute::Jump(device) => device,
            ChannelRoute::Through(login, device, to) => {
                let busy = connection.client.busy();
                let ask = ForwardAsk {
                    through: Through {
                        client: connection.client.clone(),
                        login,
                        device,
                        channels: count,
                    },
                    to,
                    reply: Box::new(reply),
                    input,
                    outlet: Arc::new(outlet),
                };
                tokio::spawn(async move {
                    front.sessions.forward(ask).await;
                    drop(busy);
                });
                return;
            }
        };
        tokio::spawn(async move {
            match front
                .sessions
                .open_jump(&connection.client, &device, count)
                .await
            {
                Ok(()) => {
                    reply.accept().await;
                    jump::run(front, connection, principal, device, input, outlet).await;
                }
                Err(refusal) => reply.reject(prohibited(refusal.to_string())).await,
            }
        });
    }

    /// Reports the number of channels to the opener of channels to the client.
    fn count_channels(&self) {
        let count = &self.confirmed.count;
        count.store(self.channels.present(), Ordering::Relaxed);
    }
}

impl russh::server::Handler for Handler {
    type Error = HandlerError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.login.by_nothing(user).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.login.offered(user, &offer).await)
    }

    async fn auth_signature_wrong(&mut self, _user: &str) -> Result<(), Self::Error> {
        self.login.signature_wrong();
        Ok(())
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.login.by_key(user, key.public_key).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        Ok(self.login.by_certificate(user, certificate).await)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        if let Err(refusal) = self.login.succeeded().await {
            let sentence = refusal.to_string();
            session.disconnect(Disconnect::TooManyConnections, &sentence, "")?;
            return Ok(());
        }
        let list = self.host_keys.list(&self.front.host_keys);
        session.global_request(host_keys::LIST, &list.map_err(russh::Error::from)?)?;
        Ok(())
    }

    async fn global_request(
        &mut self,
        name: &str,
        data: &[u8],
        session: &mut Session,
    ) -> Result<Option<Vec<u8>>, Self::Error> {
        if name != host_keys::PROVE {
            return Ok(None);
        }
        match self.host_keys.prove(session.session_id(), data) {
            Ok(proofs) => Ok(Some(proofs)),
            Err(invalid) => {
                // The answer has no place for words (RFC 4254 section 4): `ssh -v` shows these.
                session.debug(true, &invalid.to_string(), "")?;
                Ok(None)
            }
        }
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
        let count = match self.channels.count(Purpose::Session) {
            Ok(count) => count,
            Err(full) => {
                reply.reject(prohibited(full.to_string())).await;
                return Ok(());
            }
        };
        let id = channel.id();
        // russh's own queue of the channel is not used: its reader is dropped, and data comes by `data`.
        let (_, write) = channel.split();
        let (sender, input) = self.channels.queue();
        let waiting = Waiting::new(target.clone(), write, input);
        let opening = waiting.opening.clone();
        self.channels
            .insert(id, Purpose::Session, sender, Some(waiting));
        let (front, connection) = (self.front.clone(), self.connection.clone());
        tokio::spawn(async move {
            match front
                .sessions
                .open(&connection.client, &target, count)
                .await
            {
                Ok(opened) => {
                    opening.set(opened);
                    reply.accept().await;
                }
                Err(sentence) => {
                    opening.refuse();
                    reply.reject(prohibited(sentence.to_string())).await;
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
        let (count, route) = match self.route_channel(host_to_connect, port_to_connect) {
            Ok(may) => may,
            Err(sentence) => {
                self.refused(host_to_connect, port_to_connect, &sentence)
                    .await;
                reply.reject(prohibited(sentence.to_string())).await;
                return Ok(());
            }
        };
        self.route(channel, principal, count, route, reply, session);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some((principal, _)) = self.connection.principal().cloned() else {
            return Ok(());
        };
        match self.route_to_path(socket_path) {
            Ok((count, route)) => self.route(channel, principal, count, route, reply, session),
            Err(sentence) => {
                let place = Endpoint::Path(socket_path.to_owned());
                self.refused_at(&place, &sentence).await;
                reply.reject(prohibited(sentence.to_string())).await;
            }
        }
        Ok(())
    }

    async fn streamlocal_forward(
        &mut self,
        socket_path: &str,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let place = Endpoint::Path(socket_path.to_owned());
        match self.listen_at(place, session.handle()).await {
            Ok(_) => Ok(true),
            Err(sentence) => {
                // As for a port.
                let sentence = sentence.to_string();
                session.debug(true, &sentence, "")?;
                self.channels.say_later(&sentence);
                Ok(false)
            }
        }
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let place = Endpoint::Path(socket_path.to_owned());
        Ok(self.listeners.cancel(&place))
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        match self.listen(address, *port, session.handle()).await {
            Ok(bound) => {
                *port = u32::from(bound);
                Ok(true)
            }
            Err(sentence) => {
                // The answer has no place for words (RFC 4254 section 7.1): `ssh -v` shows these, and the next session.
                let sentence = sentence.to_string();
                session.debug(true, &sentence, "")?;
                self.channels.say_later(&sentence);
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let port = u16::try_from(port).ok();
        let place = port.map(|port| Endpoint::Port(address.to_owned(), port));
        Ok(place.is_some_and(|place| self.listeners.cancel(&place)))
    }

    async fn channel_open_confirmation(
        &mut self,
        channel: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        // The only channels that we open are of connections that have come to a device.
        let (sender, input) = self.channels.queue();
        self.channels
            .insert(channel, Purpose::Forward, sender, None);
        self.confirmed.put(channel, input);
        self.count_channels();
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.close(channel);
        self.confirmed.forget(channel);
        self.count_channels();
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
        let set = match self.channels.waiting(channel) {
            None => Err(RequestRefusal::Started),
            Some(_) if !permitted => Err(RequestRefusal::NoTerminalPermitted),
            Some(waiting) => waiting.set_pty(term, size, modes),
        };
        match set {
            Ok(()) => session.channel_success(channel)?,
            Err(refusal) => {
                self.channels.say(channel, &refusal.to_string(), session)?;
                session.channel_failure(channel)?;
            }
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
        let set = waiting.map(|waiting| waiting.set_env(name, value));
        if let Some(Ok(())) = set {
            session.channel_success(channel)?;
            return Ok(());
        }
        if let Some(Err(refusal)) = set {
            self.channels.say(channel, &refusal.to_string(), session)?;
        }
        self.front
            .sessions
            .report
            .env_rejected(&self.connection.client, name)
            .await;
        session.channel_failure(channel)?;
        Ok(())
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, ProcessRequest::Shell, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if command.len() > MAX_COMMAND {
            let length = command.len();
            let sentence = format!("the command has {length} bytes; the maximum is {MAX_COMMAND}");
            self.channels.say(channel, &sentence, session)?;
            session.channel_failure(channel)?;
            return Ok(());
        }
        self.start(channel, ProcessRequest::Exec(command.to_vec()), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name.len() > MAX_SUBSYSTEM {
            let length = name.len();
            let sentence =
                format!("the subsystem's name has {length} bytes; the maximum is {MAX_SUBSYSTEM}");
            self.channels.say(channel, &sentence, session)?;
            session.channel_failure(channel)?;
            return Ok(());
        }
        self.start(channel, ProcessRequest::Subsystem(name.to_owned()), session)
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
        let sentence = "X11 is not forwarded";
        self.channels.say(channel, sentence, session)?;
        session.channel_failure(channel)?;
        Ok(())
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        match self.forward_agent(channel, session.handle()).await {
            Ok(()) => Ok(true),
            Err(sentence) => {
                self.refused_at(&Endpoint::Agent, &sentence).await;
                // OpenSSH itself says nothing of a refusal.
                self.channels.say(channel, &sentence.to_string(), session)?;
                Ok(false)
            }
        }
    }
}
