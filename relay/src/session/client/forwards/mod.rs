//! The recording that a client's forwards share, as the client holds it.

mod shared;

use std::sync::{Arc, OnceLock};

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::MAX_FORWARDS_OF_RECORDING;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::shared::{LogShare, SharedLog};
use crate::access::recording::{Unrecordable, Wanted};
use crate::recording::Recordings;
use crate::recording::stream_digests::StreamDigests;
use crate::session::ending::Ending;
use crate::tunnel::route::DeviceRoute;

/// The recording of a connection's forwards, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Forwards(pub(in crate::session) SharedLog<Standing, Unrecordable>);

/// A recording that forwards are recorded in.
#[derive(Debug)]
pub(in crate::session) struct Standing {
    pub(in crate::session) id: SessionId,
    pub(in crate::session) need: Need,
    pub(in crate::session) recordings: Recordings,
    pub(in crate::session) watched: StreamDigests,
    /// The number of forwards under way.
    pub(in crate::session) open: watch::Sender<usize>,
    /// No more are taken: it ends when none is under way.
    pub(in crate::session) closing: CancellationToken,
    /// Those that are under way may not go on, because of this.
    pub(in crate::session) cut: CancellationToken,
    pub(in crate::session) ending: OnceLock<Ending>,
}

/// The parameters that a forward needs its recording to have.
#[derive(Clone, Debug)]
pub(in crate::session) struct Need {
    pub(in crate::session) route: DeviceRoute,
    pub(in crate::session) wanted: Wanted,
}

impl PartialEq for Need {
    fn eq(&self, other: &Self) -> bool {
        self.route.is_same(&other.route) && self.wanted == other.wanted
    }
}

impl LogShare for Standing {
    type Need = Need;
    type Part = (Arc<Self>, u32);

    fn suits(&self, need: &Need) -> bool {
        self.need == *need
            && !self.closing.is_cancelled()
            && self.watched.forwards() < MAX_FORWARDS_OF_RECORDING
    }

    fn part(self: &Arc<Self>) -> (Arc<Self>, u32) {
        self.open.send_modify(|open| *open += 1);
        (self.clone(), self.watched.number_forward())
    }

    fn replaced(&self) {
        self.closing.cancel();
    }
}

impl Standing {
    /// Resolves when none is under way.
    pub(in crate::session) async fn empty(&self) {
        // The sender lives in `self`, so the wait ends only when the count is zero.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}
