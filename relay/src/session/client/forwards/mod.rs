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
use crate::tunnel::peer::route::DeviceRoute;

/// The recording of a connection's forwards, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Forwards(pub(in crate::session) SharedLog<Standing, Unrecordable>);

/// A recording that forwards are recorded in.
#[derive(Debug)]
pub(in crate::session) struct Standing {
    pub(in crate::session) id: SessionId,
    pub(in crate::session) need: Need,
    pub(in crate::session) recordings: Recordings,
    pub(in crate::session) room: LogRoom,
    /// Those that are under way may not go on, because of this.
    pub(in crate::session) cut: CancellationToken,
    pub(in crate::session) ending: OnceLock<Ending>,
}

/// The forwards of one recording: those it has had, those under way, and whether it takes another.
#[derive(Debug)]
pub(in crate::session) struct LogRoom {
    /// The digests of the recording, which count its forwards.
    pub(in crate::session) watched: StreamDigests,
    /// The number of forwards under way.
    open: watch::Sender<usize>,
    /// No more are taken: it ends when none is under way.
    closing: CancellationToken,
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
        self.need == *need && self.room.takes_another()
    }

    fn part(self: &Arc<Self>) -> (Arc<Self>, u32) {
        (self.clone(), self.room.enter())
    }

    fn replaced(&self) {
        self.room.close();
    }
}

impl LogRoom {
    /// Creates the room of a recording without forwards.
    pub(in crate::session) fn new(watched: StreamDigests) -> Self {
        Self {
            watched,
            open: watch::Sender::new(0),
            closing: CancellationToken::new(),
        }
    }

    /// Returns whether one more may be recorded here.
    fn takes_another(&self) -> bool {
        !self.closing.is_cancelled() && self.watched.forwards() < MAX_FORWARDS_OF_RECORDING
    }

    /// Counts one more, and returns its number.
    fn enter(&self) -> u32 {
        self.open.send_modify(|open| *open += 1);
        self.watched.number_forward()
    }

    /// Notes that one is over.
    pub(in crate::session) fn leave(&self) {
        self.open.send_modify(|open| *open = open.saturating_sub(1));
    }

    /// Takes no more.
    pub(in crate::session) fn close(&self) {
        self.closing.cancel();
    }

    /// Resolves when no more are taken.
    pub(in crate::session) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Resolves when none is under way.
    pub(in crate::session) async fn empty(&self) {
        // The sender lives in `self`, so the wait ends only when the count is zero.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use holdfast_protocol::recording::chain::ChainKey;

    use super::*;
    use crate::recording::stream_digests::RecordedContent;

    /// A recording that a device has begun.
    struct Begun(LogRoom);

    impl LogShare for Begun {
        type Need = ();
        type Part = (Arc<Self>, u32);

        fn suits(&self, (): &()) -> bool {
            self.0.takes_another()
        }

        fn part(self: &Arc<Self>) -> (Arc<Self>, u32) {
            (self.clone(), self.0.enter())
        }

        fn replaced(&self) {
            self.0.close();
        }
    }

    #[tokio::test]
    async fn a_recording_that_is_full_is_followed_by_another() {
        let known: SharedLog<Begun, ()> = SharedLog::default();
        let begun = std::cell::Cell::new(0_u8);
        let next = || async {
            let ask = async {
                begun.set(begun.get() + 1);
                let id = SessionId([begun.get(); 16]);
                let watched =
                    StreamDigests::new(id, &ChainKey([7; 32]), RecordedContent::default());
                Ok(Arc::new(Begun(LogRoom::new(watched))))
            };
            known.get((), ask).await.unwrap()
        };
        let (first, number) = next().await;
        assert_eq!(number, 1);
        for expected in 2..=MAX_FORWARDS_OF_RECORDING {
            let (same, number) = next().await;
            assert!(Arc::ptr_eq(&first, &same));
            assert_eq!(number, expected);
            same.0.leave();
        }
        assert_eq!(first.0.closed().now_or_never(), None, "it may take another");
        let (second, number) = next().await;
        assert_eq!((second.0.watched.id, number), (SessionId([2; 16]), 1));
        // The first one ends when what is under way there has ended.
        first.0.closed().await;
        assert_eq!(first.0.empty().now_or_never(), None);
        first.0.leave();
        first.0.empty().await;
        let (same, number) = next().await;
        assert!(Arc::ptr_eq(&second, &same));
        assert_eq!((number, begun.get()), (2, 2));
    }
}
