//! The output of a child, gathered by a thread, so that a test can wait for a part of it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Everything that one stream has given so far.
#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<(Mutex<Captured>, Condvar)>);

#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    /// Reads `stream` to its end, in a thread of its own.
    pub(crate) fn of(mut stream: impl Read + Send + 'static) -> Self {
        let capture = Self::default();
        let shared = capture.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                // A terminal whose other side is gone says EIO: that is its end.
                let read = stream.read(&mut buffer).unwrap_or(0);
                let (captured, changed) = &*shared.0;
                let mut captured = captured.lock().unwrap();
                captured.bytes.extend_from_slice(&buffer[..read]);
                captured.ended = read == 0;
                changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        capture
    }

    /// Returns the bytes so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().bytes.clone()
    }

    /// Waits until the stream has ended; says whether it did within the time.
    pub(crate) fn wait_end(&self, within: Duration) -> bool {
        self.wait(within, |captured| captured.ended)
    }

    /// Waits until `needle` is at or after `from`; gives the place behind it.
    pub(crate) fn wait_text(&self, from: usize, needle: &[u8], within: Duration) -> Option<usize> {
        let mut found = None;
        self.wait(within, |captured| {
            found = find(&captured.bytes, from, needle);
            found.is_some() || captured.ended
        });
        found
    }

    fn wait(&self, within: Duration, mut condition: impl FnMut(&Captured) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let (captured, changed) = &*self.0;
        let mut captured = captured.lock().unwrap();
        loop {
            if condition(&captured) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (captured, _) = changed.wait_timeout(captured, left).unwrap();
        }
    }
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let at = rest.windows(needle.len()).position(|part| part == needle)?;
    Some(from + at + needle.len())
}
