//! A file for many devices: it comes once, and lies on the relay's disk until all of them have it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use bytes::{Bytes, BytesMut};
use holdfast_protocol::ids::UserName;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::bulk::limits::{COPY_TIMEOUT, MAX_COPIES, MAX_COPY};
use crate::hex::hex;
use crate::session::input::{Input, InputReceiver};
use crate::state::random_bytes;
use crate::sync::Mutex;

/// Room for the files that lie on the relay's disk at a time: one of each user, so that no one takes it all.
#[derive(Clone, Debug, Default)]
pub(crate) struct PayloadSlots(Arc<Mutex<Vec<UserName>>>);

/// A user's place, until it is dropped.
#[derive(Debug)]
struct PayloadSlot {
    places: PayloadSlots,
    user: UserName,
}

impl PayloadSlots {
    fn take(&self, user: &UserName) -> Result<PayloadSlot, PayloadError> {
        let mut taken = self.lock();
        if taken.contains(user) {
            return Err(PayloadError::Busy);
        }
        if taken.len() >= MAX_COPIES {
            return Err(PayloadError::Full);
        }
        taken.push(user.clone());
        Ok(PayloadSlot {
            places: self.clone(),
            user: user.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<UserName>> {
        self.0.lock()
    }
}

impl Drop for PayloadSlot {
    fn drop(&mut self) {
        self.places.lock().retain(|user| *user != self.user);
    }
}

/// A file that came whole. It has no name, so it goes with the last who holds it, however the relay ends.
#[derive(Debug)]
pub(crate) struct Payload {
    file: File,
    length: u64,
    _place: PayloadSlot,
}

/// The reason why there is none.
#[derive(Debug, Error)]
pub(crate) enum PayloadError {
    /// The user copies one already.
    #[error("you copy a file to a fleet already: wait for it, or end it")]
    Busy,
    /// Others are being copied.
    #[error("the relay copies {MAX_COPIES} files already: try again when one of them is done")]
    Full,
    /// It is too long.
    #[error("the file is larger than {} MiB, the maximum of `cp`", MAX_COPY >> 20)]
    TooLarge,
    /// Its client paused for too long.
    #[error("the file is not complete, and nothing came for {} s", COPY_TIMEOUT.as_secs())]
    Slow,
    /// The disk.
    #[error("the relay cannot keep the file: {0}")]
    Io(#[from] io::Error),
    /// The client has gone.
    #[error("the client went away")]
    Gone,
}

impl Payload {
    /// Takes what comes up to its end.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub(crate) async fn receive(
        input: &mut InputReceiver,
        places: &PayloadSlots,
        user: &UserName,
        folder: &Path,
    ) -> Result<Self, PayloadError> {
        let place = places.take(user)?;
        let path = unused(folder)?;
        let file = spawn_blocking(move || nameless(&path)).await;
        let file = file.map_err(io::Error::from)??;
        let mut to = tokio::fs::File::from_std(file.try_clone()?);
        let mut length = 0;
        loop {
            let next = timeout(COPY_TIMEOUT, input.next()).await;
            match next.map_err(|_| PayloadError::Slow)? {
                Some(Input::Data(data)) => {
                    length += data.len() as u64;
                    if length > MAX_COPY {
                        return Err(PayloadError::TooLarge);
                    }
                    to.write_all(&data).await?;
                }
                Some(Input::Eof) => break,
                Some(Input::Resize(_) | Input::Signal(_) | Input::StdoutClosed) => {}
                None => return Err(PayloadError::Gone),
            }
        }
        to.flush().await?;
        Ok(Self {
            file,
            length,
            _place: place,
        })
    }

    /// Returns its length in bytes.
    #[must_use]
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns up to `most` bytes of it from `at` on.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn read(self: &Arc<Self>, at: u64, most: usize) -> io::Result<Bytes> {
        let this = self.clone();
        let read = spawn_blocking(move || {
            let left = usize::try_from(this.length.saturating_sub(at)).unwrap_or(usize::MAX);
            let mut bytes = BytesMut::zeroed(left.min(most));
            this.file.read_exact_at(&mut bytes, at)?;
            Ok(bytes.freeze())
        });
        read.await?
    }
}

fn unused(folder: &Path) -> io::Result<PathBuf> {
    let random: [u8; 8] = random_bytes().map_err(|_| io::Error::other("no random numbers"))?;
    Ok(folder.join(format!("copy-{}", hex(&random))))
}

/// Returns a new file that loses its name at once.
fn nameless(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_all_payload_slots() {
        let places = PayloadSlots::default();
        let user = |number: usize| UserName::new(&format!("user-{number}")).unwrap();
        let mut taken: Vec<PayloadSlot> = (0..MAX_COPIES)
            .map(|number| places.take(&user(number)).unwrap())
            .collect();
        assert!(matches!(places.take(&user(0)), Err(PayloadError::Busy)));
        assert!(matches!(places.take(&user(99)), Err(PayloadError::Full)));
        taken.pop();
        assert!(places.take(&user(99)).is_ok());
        assert!(matches!(places.take(&user(0)), Err(PayloadError::Busy)));
    }
}
