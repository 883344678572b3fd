//! Stored recordings, for who may look into them: opened, and read record by record.

use std::io;
use std::sync::Arc;

use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::recording::reader::{Behind, DamagedBlock, ReadVerdict};
use holdfast_protocol::recording::record::Record;
use holdfast_protocol::recording::seal::RecordingSecret;
use holdfast_protocol::recording::segment::SegmentLink;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::export::mark::Mark;
use super::export::marks::Marks;
use super::export::notice::Notice;
use super::objects::Objects;
use super::verify::{self, StoredPart, TAMPERED, VerdictText};
use crate::hex::hex;
use crate::recording::limits::READ_AHEAD;
use crate::state::State;
use crate::store::{RecordingFacts, RecordingState};

/// The finding that a verdict is not about this.
const OTHER_VERDICT: &str = "is not the one that the cluster key signed a verdict on";

/// The storage of recordings and the key that opens them. Cloning it is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    objects: Objects,
    secrets: Arc<[RecordingSecret]>,
    cluster: PublicKey,
}

/// A stored recording, and what is known of it before it is read.
#[derive(Debug)]
pub(crate) struct OpenedRecording {
    archive: Archive,
    facts: RecordingFacts,
    marks: Marks,
    /// The reason why it is not what passed, if that is known already.
    pub(crate) tampered: Option<String>,
}

/// A part of a recording, as its readers get it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// A record with its mark.
    Record(&'a Record<'a>, Option<Mark>),
    /// Here blocks cannot be read.
    Damage(DamagedBlock),
}

/// Something that was read.
#[derive(Debug)]
pub(crate) enum Read<T> {
    /// The result for a part.
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

    /// Writes an object to the bucket in which recordings are, reads it and removes it. Returns whether they are in one.
    ///
    /// # Errors
    /// The error of the bucket, with what was tried.
    pub(crate) async fn try_bucket(&self) -> io::Result<bool> {
        self.objects.try_bucket().await
    }

    /// Returns the verdict on a recording, if the cluster key signed it.
    #[must_use]
    pub(crate) fn verdict(&self, facts: &RecordingFacts) -> Option<VerdictText> {
        let text = facts.row.verdict.as_deref()?;
        let signature = facts.row.signature.as_deref()?;
        verify::signed_verdict(text, signature, &self.cluster)
    }

    /// Opens a recording. One that has no verdict yet is compared with what the relay knows by now.
    pub(crate) async fn open(&self, mut facts: RecordingFacts) -> OpenedRecording {
        let mut said = self.verdict(&facts);
        let mut tampered = altered(&facts, said.as_ref());
        if facts.row.verdict.is_none() && facts.key.is_some() {
            let (this, known) = (self.clone(), facts.clone());
            let compare = move || verify::examine(&known, &this.objects, &this.secrets);
            // What cannot be read is not shown, either.
            if let Ok(Ok(found)) = spawn_blocking(compare).await {
                said = Some(found.text(&facts, facts.row.state));
                let differs = || Some(format!("{TAMPERED}{}", found.contradiction()?));
                tampered = tampered.or_else(differs);
            }
            // The key is for comparing alone.
            facts.key = None;
        }
        let marks = Marks::of(&facts, said.as_ref(), tampered.is_some());
        OpenedRecording {
            archive: self.clone(),
            facts,
            marks,
            tampered,
        }
    }

    /// Returns why what was read is not what the cluster key signed a verdict on; `None` if it is, and before there is
    /// a verdict.
    pub(crate) fn altered(
        &self,
        facts: &RecordingFacts,
        read: &(ReadVerdict, SegmentLink),
    ) -> Option<String> {
        let (found, link) = read;
        if let ReadVerdict::Tampered { at, fault } = found {
            return Some(format!(
                "was altered after it was stored: segment {}, block {}: {fault}",
                at.segment, at.block
            ));
        }
        let verdict = self.verdict(facts)?;
        (verdict.chain != hex(&link.0)).then(|| OTHER_VERDICT.to_owned())
    }

    /// Removes what is stored of a recording.
    ///
    /// # Errors
    /// The error of the storage of the objects.
    pub(crate) async fn remove(&self, facts: &RecordingFacts) -> io::Result<()> {
        self.objects.remove(facts.row.session.id).await
    }
}

impl OpenedRecording {
    /// Returns what its reader has to know before everything else.
    #[must_use]
    pub(crate) fn notice(&self) -> Option<Notice> {
        match &self.tampered {
            Some(why) => Some(Notice::Tampered(why.clone())),
            None => (!self.facts.row.state.is_terminal()).then_some(Notice::Unproved),
        }
    }

    /// Reads it in a thread of its own, no further ahead than is taken from what it gives. `map` makes of each part and
    /// its time what is given. A recording that cannot be read on ends without [`Read::End`].
    #[must_use]
    pub(crate) fn read<T: Send + 'static>(
        self,
        mut map: impl FnMut(u64, Part<'_>) -> Option<T> + Send + 'static,
    ) -> mpsc::Receiver<Read<T>> {
        let (give, items) = mpsc::channel(READ_AHEAD);
        let Self {
            archive: this,
            facts,
            mut marks,
            ..
        } = self;
        spawn_blocking(move || {
            let mut gone = false;
            let mut pass = |micros: u64, part: Part<'_>| {
                if !gone && let Some(item) = map(micros, part) {
                    gone = give.blocking_send(Read::Item(item)).is_err();
                }
            };
            let read =
                verify::read_parts(&facts, &this.objects, &this.secrets, &mut |micros, part| {
                    let record = match part {
                        StoredPart::Record(record) | StoredPart::Behind(Behind::Record(record)) => {
                            record
                        }
                        StoredPart::Behind(Behind::Damage(at)) => {
                            marks.damaged();
                            return pass(micros, Part::Damage(at));
                        }
                    };
                    marks.each(record, &mut |record, mark| {
                        pass(micros, Part::Record(record, mark));
                    });
                });
            // A reader that has seen enough does not wait for the end.
            let _ = give.blocking_send(Read::End(read));
        });
        items
    }
}

/// Returns why a recording is not what passed, as its row and its verdict have it.
fn altered(facts: &RecordingFacts, verdict: Option<&VerdictText>) -> Option<String> {
    let row = &facts.row;
    if row.state == RecordingState::Tampered {
        let reason = row.reason.as_deref().unwrap_or("it was altered");
        return Some(format!("{TAMPERED}{reason}"));
    }
    row.verdict.as_ref()?;
    let Some(verdict) = verdict else {
        return Some("has a verdict that the cluster key did not sign".to_owned());
    };
    let is_its_own = verdict.recording == row.session.id.to_string();
    let is_so = is_its_own && verdict.state == row.state.as_str();
    (!is_so).then(|| OTHER_VERDICT.to_owned())
}
