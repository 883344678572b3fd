//! The channels that a client opens.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use russh::Channel;
use russh::server::{ChannelOpenHandle, Msg, Session};

use super::forwards::ChannelRoute;
use super::{Handler, jump};
use crate::identity::Principal;
use crate::session::forward::{ForwardAsk, Through};
use crate::ssh::channels::Purpose;
use crate::ssh::channels::channel::Waiting;
use crate::ssh::channels::opener::prohibited;
use crate::ssh::channels::outlet::Outlet;

impl Handler {
    /// Opens a session's channel, or refuses it.
    pub(super) async fn open_session(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let Some((_, target)) = self.connection.principal().cloned() else {
            return;
        };
        let count = match self.channels.count(Purpose::Session) {
            Ok(count) => count,
            Err(full) => {
                reply.reject(prohibited(full.to_string())).await;
                return;
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
    }

    /// Routes a channel to its destination, or refuses it.
    pub(super) fn route(
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
    pub(super) fn count_channels(&self) {
        let count = &self.confirmed.count;
        count.store(self.channels.present(), Ordering::Relaxed);
    }
}
