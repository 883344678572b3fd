//! Stored recordings, for who may look into them: opened, and read record by record.

use std::io;
use std::sync::Arc;

use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::recording::reader::ReadVerdict;
use holdfast_protocol::recording::record::Record;
use holdfast_protocol::recording::seal::RecordingSecret;
use holdfast_protocol::recording::segment::SegmentLink;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::export::marks::{Mark, Marks};
use super::objects::Objects;
use super::verify::{self, VerdictText};
use crate::recording::limits::READ_AHEAD;
use crate::state::State;
use crate::store::RecordingFacts;

/// The storage of recordings and the key that opens them. Cloning it is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    objects: Objects,
    secrets: Arc<[RecordingSecret]>,
    cluster: PublicKey,
}

/// Something that was read.
#[derive(Debug)]
pub(crate) enum Read<T> {
    /// The result for a record.
    Item(T),
    /// Nothing more follows. What the recording is as far as it could be read, and the chain over it.
    End(io::Result<(ReadVerdict, SegmentLink)>),
}

impl Archive {
    /// Returns the archive of a relay's state.
    #[must_use]
    pub(crate) fn of(state: &State, objects: Objects) -> Self {
        Self {
            objects,
            secrets: Arc::new([state.recording.clone()]),
            cluster: state.cluster.public(),
        }
    }

    /// Returns the verdict on a recording, if the cluster key signed it.
    #[must_use]
    pub(crate) fn verdict(&self, facts: &RecordingFacts) -> Option<VerdictText> {
        let text = facts.row.verdict.as_deref()?;
        let signature = facts.row.signature.as_deref()?;
        verify::signed_verdict(text, signature, &self.cluster)
    }

    /// Reads a recording in a thread of its own, no further ahead than is taken from what it gives. `map` makes
    /// of each record, its time and its mark what is given. A recording that cannot be read on ends without
    /// [`Read::End`].
    #[must_use]
    pub(crate) fn read<T: Send + 'static>(
        &self,
        facts: RecordingFacts,
        mut map: impl FnMut(u64, &Record<'_>, Option<Mark>) -> Option<T> + Send + 'static,
    ) -> mpsc::Receiver<Read<T>> {
        let (give, items) = mpsc::channel(READ_AHEAD);
        let this = self.clone();
        spawn_blocking(move || {
            let mut gone = false;
            let verdict = this.verdict(&facts);
            let mut marks = Marks::of(&facts, verdict.as_ref());
            let read = verify::read_all(
                &facts,
                &this.objects,
                &this.secrets,
                &mut |micros, record| {
                    marks.each(record, &mut |record, mark| {
                        if !gone && let Some(item) = map(micros, record, mark) {
                            gone = give.blocking_send(Read::Item(item)).is_err();
                        }
                    });
                },
            );
            // A reader that has seen enough does not wait for the end.
            let _ = give.blocking_send(Read::End(read));
        });
        items
    }

    /// Removes what is stored of a recording.
    ///
    /// # Errors
    /// The error of the storage of the objects.
    pub(crate) async fn remove(&self, facts: &RecordingFacts) -> io::Result<()> {
        self.objects.remove(facts.row.session.id).await
    }
}
