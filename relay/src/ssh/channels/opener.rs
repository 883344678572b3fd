//! Channels as forwards need them: opened to the client, or asked for by it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard};

use futures_util::future::BoxFuture;
use russh::server::{ChannelOpenHandle, Handle};
use russh::{ChannelId, ChannelOpenFailure};
use tokio::sync::Notify;

use super::outlet::Outlet;
use crate::session::forward::channel::{ChannelOpener, NotOpened, OpenReply, TakenChannel};
use crate::session::input::InputReceiver;
use crate::session::registry::destination::Endpoint;
use crate::sync::Mutex;

/// Channels that the relay has opened: their input, until it is taken for the forward that they are for.
#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    inputs: Mutex<HashMap<ChannelId, InputReceiver>>,
    changed: Notify,
    /// The number of channels the connection has, as its handler last counted.
    pub(crate) count: AtomicU32,
}

/// Opens channels to the client of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    handle: Handle,
    channels: Arc<Confirmed>,
}

impl Confirmed {
    /// Notes that a channel that the relay opened was confirmed.
    pub(crate) fn put(&self, id: ChannelId, input: InputReceiver) {
        self.lock().insert(id, input);
        self.changed.notify_waiters();
    }

    /// Notes that it was closed: its input was taken, or never will be.
    pub(crate) fn forget(&self, id: ChannelId) {
        self.lock().remove(&id);
    }

    /// Takes its input, which may come a moment after the channel was opened.
    async fn take(&self, id: ChannelId) -> InputReceiver {
        loop {
            let changed = self.changed.notified();
            if let Some(input) = self.lock().remove(&id) {
                return input;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, InputReceiver>> {
        self.inputs.lock()
    }
}

impl Opener {
    /// Returns what opens channels by this handle, whose confirmations come to `channels`.
    #[must_use]
    pub(crate) fn new(handle: Handle, channels: Arc<Confirmed>) -> Arc<Self> {
        Arc::new(Self { handle, channels })
    }

    async fn open_channel(&self, place: &Endpoint, peer: SocketAddr) -> Option<TakenChannel> {
        let opened = match place {
            Endpoint::Port(host, port) => {
                let (ip, from) = (peer.ip().to_string(), u32::from(peer.port()));
                let (host, port) = (host.clone(), u32::from(*port));
                self.handle
                    .channel_open_forwarded_tcpip(host, port, ip, from)
                    .await
            }
            Endpoint::Path(path) => {
                self.handle
                    .channel_open_forwarded_streamlocal(path.clone())
                    .await
            }
            Endpoint::Agent => self.handle.channel_open_agent().await,
        };
        let (_, write) = opened.ok()?.split();
        let input = self.channels.take(write.id()).await;
        let outlet = Outlet::new(write, self.handle.clone());
        Some((input, Arc::new(outlet)))
    }
}

impl ChannelOpener for Opener {
    fn open<'a>(
        &'a self,
        place: &'a Endpoint,
        peer: SocketAddr,
    ) -> BoxFuture<'a, Option<TakenChannel>> {
        Box::pin(self.open_channel(place, peer))
    }

    fn count(&self) -> u32 {
        self.channels.count.load(Ordering::Relaxed)
    }
}

impl OpenReply for ChannelOpenHandle {
    fn accept(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async { (*self).accept().await })
    }

    fn refuse(self: Box<Self>, why: NotOpened) -> BoxFuture<'static, ()> {
        let why = match why {
            NotOpened::Prohibited(sentence) => prohibited(sentence),
            // RFC 4254 section 5.1: SSH_OPEN_CONNECT_FAILED.
            NotOpened::Failed(reason) => ChannelOpenFailure::Other { code: 2, reason },
        };
        Box::pin(async { (*self).reject(why).await })
    }
}

/// Returns the failure of RFC 4254 section 5.1: `SSH_OPEN_ADMINISTRATIVELY_PROHIBITED`, with a sentence of ours as
/// description.
#[must_use]
pub(crate) fn prohibited(reason: String) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code: 1, reason }
}
