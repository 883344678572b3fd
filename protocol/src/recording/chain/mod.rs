//! The keyed digest of a session's streams, which the device and the relay both compute over the frames
//! as they pass on the wire.
//!
//! For each frame `tag = HMAC-SHA-256(k, 0 || stream || frame)`, and for each stream
//! `value = HMAC-SHA-256(k, 1 || stream || value || length || tag)`. What a redacted frame leaves in the
//! recording is its length and tag: the chain can be followed past it, and what is before it is still
//! bound. Frames without data do not count.

mod check;
mod content;
mod contradiction;
mod expect;
mod facts;
mod files;
mod forwards;
mod lane;

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Mac;
pub use super::digest::{DigestPoint, Tag};
use super::record::Stream;
use crate::limits::MAX_CHECKPOINTS;

pub use check::{Assessment, Checker, StreamProof};
pub use content::{ContentEnd, ContentPoints};
pub use contradiction::{Contradiction, Fact};
pub use expect::{Closing, ControlDigest, Expectation, RecordedKind, SentControl, SessionStart};
pub use files::{FileDigester, OperationUnderWay, SeenFiles};
pub use forwards::{SeenForward, SeenForwards};
pub use lane::Unproved;

pub use crate::wire::ChainKey;

/// The number, beside those of the three streams, of the chain over what the relay sends beside data.
const CONTROL: u8 = 3;

/// The number of the chain over the file operations that the relay has seen answered.
const FILES: u8 = 4;

/// One stream's chain, as it grows.
#[derive(Clone)]
pub struct Chain {
    keyed: Mac,
    /// The number of the stream.
    lane: u8,
    at: DigestPoint,
    /// The frame that has begun, and how many of its bytes have come.
    frame: Option<(Mac, u64)>,
}

impl Chain {
    /// Returns a chain with nothing on it.
    #[must_use]
    pub fn new(key: &ChainKey, stream: Stream) -> Self {
        Self::on(key, stream as u8)
    }

    fn on(key: &ChainKey, lane: u8) -> Self {
        let keyed = Mac::new(&key.0);
        let mut first = keyed.clone();
        first.update(&[2, lane]);
        Self {
            keyed,
            lane,
            at: DigestPoint {
                value: first.finalize(),
                ..DigestPoint::default()
            },
            frame: None,
        }
    }

    /// Takes a piece of a frame, of which `remaining` more bytes are still to come. At 0 the frame is
    /// whole, and its tag is given.
    pub fn update(&mut self, piece: &[u8], remaining: usize) -> Option<Tag> {
        let (mut mac, before) = self.frame.take().unwrap_or_else(|| (self.begin(), 0));
        mac.update(piece);
        let length = before + piece.len() as u64;
        if remaining > 0 {
            self.frame = Some((mac, length));
            return None;
        }
        if length == 0 {
            return None;
        }
        let tag = mac.finalize();
        self.append(length, &tag);
        Some(tag)
    }

    /// Takes a frame of which only length and tag are known.
    pub fn append(&mut self, length: u64, tag: &Tag) {
        self.frame = None;
        let mut mac = self.keyed.clone();
        mac.update(&[1, self.lane]);
        mac.update(&self.at.value);
        mac.update(&length.to_be_bytes());
        mac.update(tag);
        self.at = DigestPoint {
            frames: self.at.frames.saturating_add(1),
            bytes: self.at.bytes.saturating_add(length),
            value: mac.finalize(),
        };
    }

    /// Returns the point behind the last whole frame.
    #[must_use]
    pub fn point(&self) -> DigestPoint {
        self.at
    }

    /// Returns whether no frame has begun that is not whole.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.frame.is_none()
    }

    /// Returns the tag that a frame would have that ends behind `more` bytes of what is still to come.
    fn tag_at(&self, more: &[u8]) -> Tag {
        let mut mac = match &self.frame {
            Some((mac, _)) => mac.clone(),
            None => self.begin(),
        };
        mac.update(more);
        mac.finalize()
    }

    /// Goes on from a point that was stated elsewhere: behind a gap.
    fn resume(&mut self, at: DigestPoint) {
        self.at = at;
        self.frame = None;
    }

    /// Returns how many bytes of an unfinished frame have come.
    pub(super) fn begun(&self) -> u64 {
        self.frame.as_ref().map_or(0, |(_, length)| *length)
    }

    fn begin(&self) -> Mac {
        let mut mac = self.keyed.clone();
        mac.update(&[0, self.lane]);
        mac
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("lane", &self.lane)
            .field("frames", &self.at.frames)
            .field("bytes", &self.at.bytes)
            .finish_non_exhaustive()
    }
}

/// The relay's digest of one stream that it splices: the chain, and points on the way, evenly spread, so
/// that a recording which ends early can be checked as far as it goes.
#[derive(Clone, Debug)]
pub struct StreamDigester {
    chain: Chain,
    points: Vec<DigestPoint>,
    /// A point is kept after each so many frames.
    every: u64,
    content: ContentEnd,
}

impl StreamDigester {
    /// Creates the chain of a stream on which nothing has passed yet.
    #[must_use]
    pub fn new(key: &ChainKey, stream: Stream) -> Self {
        Self::on(Chain::new(key, stream))
    }

    /// Creates the chain of what is sent beside data ([`SentControl`]).
    #[must_use]
    pub fn control(key: &ChainKey) -> Self {
        Self::on(Chain::on(key, CONTROL))
    }

    fn on(chain: Chain) -> Self {
        Self {
            chain,
            points: Vec::new(),
            every: 1,
            content: ContentEnd::default(),
        }
    }

    /// Notes where the content of the stream ends, if only so many bytes of it are kept.
    #[must_use]
    pub fn bounded(mut self, content_max: Option<u64>) -> Self {
        self.content = ContentEnd::new(content_max);
        self.content.look(&self.chain);
        self
    }

    /// Returns how many whole frames have passed whose content is kept.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.content.cap(self.chain.at).frames
    }

    /// Returns where the content ends that is kept of the stream; `None`: all of it is kept.
    #[must_use]
    pub fn content_end(&self) -> Option<DigestPoint> {
        self.content.at()
    }

    /// Takes a piece of a frame that was passed on, of which `remaining` bytes are still to come.
    pub fn update(&mut self, piece: &[u8], remaining: usize) {
        if self.chain.update(piece, remaining).is_none() {
            return;
        }
        self.content.look(&self.chain);
        if self.chain.at.frames.is_multiple_of(self.every) {
            self.points.push(self.chain.at);
        }
        if self.points.len() >= MAX_CHECKPOINTS {
            self.every = self.every.saturating_mul(2);
            let every = self.every;
            self.points
                .retain(|point| point.frames.is_multiple_of(every));
        }
    }

    /// Returns what was seen, to be kept until the recording arrives.
    #[must_use]
    pub fn seen(&self) -> StreamDigest {
        let partial = (self.chain.begun() > 0).then(|| Partial {
            bytes: self.chain.begun(),
            tag: self.chain.tag_at(&[]),
        });
        StreamDigest {
            end: self.chain.at,
            points: self.points.clone(),
            partial,
        }
    }
}

/// The relay's digest of one stream. Not secret; of no use without the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDigest {
    /// The end of the chain.
    pub end: DigestPoint,
    /// Points on the way, at most [`MAX_CHECKPOINTS`], growing.
    pub points: Vec<DigestPoint>,
    /// A frame of which only a part passed: the session was cut off in it.
    pub partial: Option<Partial>,
}

/// The part of a frame that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The number of bytes.
    pub bytes: u64,
    /// The tag that a frame of just these bytes would have.
    pub tag: Tag,
}

#[cfg(test)]
pub(super) mod tests;
