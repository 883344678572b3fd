//! Channels of forwards, as a front end provides them: one that its client asks for, and one that is opened to it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::session::input::InputReceiver;
use crate::session::output::Output;
use crate::session::registry::destination::Endpoint;

/// The answer to a channel that a client asks for.
pub(crate) trait OpenReply: Send + Sync {
    /// Opens the channel.
    fn accept(self: Box<Self>) -> BoxFuture<'static, ()>;

    /// Refuses it.
    fn refuse(self: Box<Self>, why: NotOpened) -> BoxFuture<'static, ()>;
}

/// The reason why a channel is not opened. The sentence is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// A rule forbids it.
    Prohibited(String),
    /// Its target was not reached.
    Failed(String),
}

/// A channel that the client has taken: its input, and where its output goes.
pub(crate) type TakenChannel = (InputReceiver, Arc<dyn Output>);

/// Opens channels to a client, for connections that have come to a device.
pub(crate) trait ChannelOpener: fmt::Debug + Send + Sync {
    /// Opens a channel for a connection that `peer` made to this place; `None` if the client does not take it.
    fn open<'a>(
        &'a self,
        place: &'a Endpoint,
        peer: SocketAddr,
    ) -> BoxFuture<'a, Option<TakenChannel>>;

    /// Returns how many channels the client has, as far as is known.
    fn count(&self) -> u32;
}
