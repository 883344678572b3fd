//! The end of the content of a stream that is not kept whole. The device and the relay compute it alike, from the
//! frames that pass.

use serde::{Deserialize, Serialize};

use super::{Chain, DigestPoint};

/// The end of one stream's content: behind the first frame with which the bound is reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContentEnd {
    max: Option<u64>,
    at: Option<DigestPoint>,
}

/// The relay's notes of the content of a session whose streams are kept up to a bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentPoints {
    /// The bound of each stream, in bytes.
    pub max: u64,
    /// The points at which the content of stdin, stdout and stderr ends; `None`: the bound was not reached.
    pub ends: [Option<DigestPoint>; 3],
}

impl ContentEnd {
    /// Creates it for a stream of which so many bytes are kept; `None`: all of them.
    #[must_use]
    pub fn new(max: Option<u64>) -> Self {
        Self { max, at: None }
    }

    /// Notes the end if the chain is at it. To be called between any two frames.
    pub fn look(&mut self, chain: &Chain) {
        let at = chain.point();
        let reached = self.max.is_some_and(|max| at.bytes >= max);
        if self.at.is_none() && reached && chain.is_between_frames() {
            self.at = Some(at);
        }
    }

    /// Returns the end; `None` if the bound was not reached.
    #[must_use]
    pub fn at(&self) -> Option<DigestPoint> {
        self.at
    }

    /// Returns the point, or the end of the content if the point is behind that.
    #[must_use]
    pub fn cap(&self, point: DigestPoint) -> DigestPoint {
        match self.at {
            Some(at) if at.frames < point.frames => at,
            _ => point,
        }
    }
}
