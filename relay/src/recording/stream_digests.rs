//! The relay's digests of a session that is recorded: of what it passes on.

use std::sync::{Arc, MutexGuard};

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::chain::{
    ChainKey, ContentPoints, ControlDigest, FileDigester, SentControl, StreamDigester,
};
use holdfast_protocol::recording::record::Stream;
use holdfast_protocol::sftp::{Followed, PossibleOperations};

use crate::store::SeenSession;
use crate::sync::Mutex;

/// The digests of a session's three streams, and of what is sent beside them. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct StreamDigests {
    /// The session.
    pub id: SessionId,
    /// True if its recording holds the streams' data: then what is sent beside it has a place in it.
    holds_data: bool,
    digests: Arc<Mutex<Digests>>,
}

#[derive(Debug)]
struct Digests {
    streams: [StreamDigester; 3],
    control: StreamDigester,
    eof: Option<u64>,
    booked: u64,
    forwards: u32,
    /// The bytes of each stream's content that the recording keeps, if not all.
    content_max: Option<u64>,
    /// The file operations, where the recording lists them.
    files: Option<FileDigester>,
}

/// The content of a recording, by the kind of its session and what its device can do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecordedContent {
    /// True if it holds the streams' data.
    pub holds_data: bool,
    /// The bytes of each stream's content that it keeps; `None`: all of them.
    pub max: Option<u64>,
    /// True if its device follows sftp as this relay does; `None` if it lists no file operations.
    pub files: Option<bool>,
}

impl StreamDigests {
    /// Creates the digests of a session on which nothing has passed yet.
    #[must_use]
    pub(crate) fn new(id: SessionId, key: &ChainKey, content: RecordedContent) -> Self {
        let RecordedContent {
            holds_data,
            max,
            files,
        } = content;
        let content_max = max.filter(|_| holds_data);
        let digests = Digests {
            streams: Stream::ALL
                .map(|stream| StreamDigester::new(key, stream).bounded(content_max)),
            control: StreamDigester::control(key),
            eof: None,
            booked: 0,
            forwards: 0,
            content_max,
            files: files.map(|is_comparable| FileDigester::new(key, is_comparable)),
        };
        Self {
            id,
            holds_data,
            digests: Arc::new(Mutex::new(digests)),
        }
    }

    /// Notes a piece of a frame that is passed on, of which `remaining` more bytes are still to come.
    pub(crate) fn pass(&self, stream: impl Into<Stream>, piece: &[u8], remaining: usize) {
        // Three streams, three witnesses.
        if let Some(witness) = self.lock().streams.get_mut(stream.into().index()) {
            witness.update(piece, remaining);
        }
    }

    /// Notes a size or a signal that is passed on, behind the input before it.
    pub(crate) fn pass_control(&self, control: SentControl) {
        let mut digests = self.lock();
        let frame = control.frame(self.place(&digests));
        digests.control.update(&frame, 0);
    }

    /// Notes the end of the input.
    pub(crate) fn pass_eof(&self) {
        let mut digests = self.lock();
        let place = self.place(&digests);
        digests.eof.get_or_insert(place);
    }

    /// Notes what was seen of file operations while the session runs.
    pub(crate) fn follow_files(&self, seen: &[Followed]) {
        if let Some(files) = &mut self.lock().files {
            files.follow(seen);
        }
    }

    /// Notes what was left of file operations when the session ended, and what else may have been done by then.
    pub(crate) fn finish_files(&self, left: &[Followed], possible: &PossibleOperations) {
        if let Some(files) = &mut self.lock().files {
            files.finish(left, possible);
        }
    }

    /// Records of an operation or a forward take at most so many bytes.
    pub(crate) fn book(&self, bytes: u64) {
        let mut digests = self.lock();
        digests.booked = digests.booked.saturating_add(bytes);
    }

    /// Returns the number of the next forward that is recorded here, from 1 on.
    #[must_use]
    pub(crate) fn number_forward(&self) -> u32 {
        let mut digests = self.lock();
        digests.forwards = digests.forwards.saturating_add(1);
        digests.forwards
    }

    /// Returns how many forwards have a number here.
    #[must_use]
    pub(crate) fn forwards(&self) -> u32 {
        self.lock().forwards
    }

    /// Returns the digests of what has passed so far.
    #[must_use]
    pub(crate) fn seen(&self) -> SeenSession {
        let digests = self.lock();
        SeenSession {
            streams: digests.streams.each_ref().map(StreamDigester::seen),
            control: ControlDigest {
                seen: digests.control.seen(),
                eof: digests.eof,
            },
            booked: digests.booked,
            forwards: digests.forwards,
            content: digests.content_max.map(|max| ContentPoints {
                max,
                ends: digests.streams.each_ref().map(StreamDigester::content_end),
            }),
            files: digests.files.as_ref().map(FileDigester::seen),
        }
    }

    /// Returns the number of frames of input that have passed, where they have a place in the recording.
    fn place(&self, digests: &Digests) -> u64 {
        let [stdin, _, _] = &digests.streams;
        if self.holds_data { stdin.frames() } else { 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Digests> {
        self.digests.lock()
    }
}
