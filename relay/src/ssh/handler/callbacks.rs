//! russh's callbacks, translated. Each request is answered here and in the modules beside this one alone, because russh
//! keeps one "wants a reply" a channel and OpenSSH sends several requests at once.

use bytes::Bytes;
use holdfast_protocol::wire::WindowSize;
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Disconnect, Sig};

use super::Handler;
use crate::model::request::ProcessRequest;
use crate::session::input::Input;
use crate::session::registry::destination::Endpoint;
use crate::ssh::channels::opener::prohibited;
use crate::ssh::channels::outlet;
use crate::ssh::channels::{HandlerError, Purpose};
use crate::ssh::host_keys;

/// The request of OpenSSH's clients that no session be opened besides those that were: a client that is led astray later
/// cannot be used for more.
const NO_MORE_SESSIONS: &str = "no-more-sessions@openssh.com";

impl russh::server::Handler for Handler {
    type Error = HandlerError;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(self.login.banner())
    }

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

    async fn auth_certificate_refused(
        &mut self,
        _user: &str,
        certificate: &Certificate,
    ) -> Result<(), Self::Error> {
        self.login.certificate_refused(certificate).await;
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
        if name == NO_MORE_SESSIONS {
            self.no_more_sessions = true;
            return Ok(Some(Vec::new()));
        }
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
        if self.no_more_sessions {
            let sentence = "your client asked that no more sessions be opened on this connection";
            reply.reject(prohibited(sentence.to_owned())).await;
            return Ok(());
        }
        self.open_session(channel, reply).await;
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

    async fn channel_end_of_write(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let closed = Input::StdoutClosed;
        self.channels.hand_on(channel, closed, session).await
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
        self.set_pty(channel, term, size, modes, session)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.set_env(channel, name, value, session).await
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
        self.exec(channel, command, session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.subsystem(channel, name, session)
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
