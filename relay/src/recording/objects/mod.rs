//! Stores segments. What is being received is a file of the relay's own; what is whole is an object: in the same
//! folder, or in a bucket that speaks S3.

pub(crate) mod backend;
pub(crate) mod budget;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::MAX_SEGMENT;
use holdfast_protocol::recording::ingest::MISSING_SEGMENT;
use holdfast_protocol::recording::segment::SegmentLink;
use object_store::aws::AmazonS3;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::hex::hex;
use crate::recording::objects::backend::{StorageBackend, StorageError};
use crate::state::random_bytes;

/// The length of a read: what is beyond the longest segment is not read, and fails its check.
const MOST: u64 = MAX_SEGMENT as u64 + 1;

/// The objects of all recordings. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Objects {
    /// The folder where segments are received: `ID/00000000.part`.
    folder: PathBuf,
    kept: KeptObject,
}

/// The storage of whole segments: `ID/00000000.seg`.
#[derive(Clone)]
enum KeptObject {
    Folder(Arc<LocalFileSystem>),
    /// The bucket, with the prefix of the names there.
    Bucket(Arc<AmazonS3>, object_store::path::Path),
    /// They cannot be got at, for this reason.
    Nowhere(Arc<str>),
}

impl Objects {
    /// Creates a store in this folder, which exists, and on that backend.
    ///
    /// # Errors
    /// [`StorageError`].
    pub(crate) fn new(folder: PathBuf, place: &StorageBackend) -> Result<Self, StorageError> {
        let kept = match place {
            StorageBackend::Folder => {
                let local = LocalFileSystem::new_with_prefix(&folder).map_err(StorageError::of)?;
                // Its renames are then followed by a sync of the folder.
                KeptObject::Folder(Arc::new(local.with_fsync(true)))
            }
            StorageBackend::S3(bucket) => {
                let prefix = bucket.prefix.as_deref().unwrap_or_default();
                KeptObject::Bucket(Arc::new(bucket.open()?), prefix.into())
            }
        };
        Ok(Self { folder, kept })
    }

    /// Returns the same for a caller that may not need them: the first use reports why they are unavailable.
    #[must_use]
    pub(crate) fn open_or_unavailable(
        folder: PathBuf,
        place: Result<StorageBackend, StorageError>,
    ) -> Self {
        let made = place.and_then(|place| Self::new(folder.clone(), &place));
        made.unwrap_or_else(|error| Self {
            folder,
            kept: KeptObject::Nowhere(error.to_string().into()),
        })
    }

    /// Returns whether the place of whole segments answers.
    ///
    /// # Errors
    /// The error of the storage.
    pub(crate) async fn probe(&self) -> io::Result<()> {
        let KeptObject::Bucket(bucket, prefix) = &self.kept else {
            return Ok(());
        };
        let first = bucket.list(Some(prefix)).next().await;
        first.transpose().map(drop).map_err(failed)
    }

    /// Writes an object to the bucket, reads it and removes it. Returns whether there is one.
    ///
    /// # Errors
    /// What the bucket says, with what was tried.
    pub(crate) async fn try_bucket(&self) -> io::Result<bool> {
        let (bucket, prefix) = match &self.kept {
            KeptObject::Folder(_) => return Ok(false),
            KeptObject::Bucket(bucket, prefix) => (bucket, prefix),
            KeptObject::Nowhere(why) => return Err(nowhere(why)),
        };
        let random = random_bytes::<16>().map_err(io::Error::other)?;
        let text = hex(&random);
        // No recording has such a name.
        let object = prefix.clone().join(format!("doctor-{text}"));
        let tried = |what: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("cannot {what}: {error}"))
        };
        let put = bucket.put(&object, PutPayload::from(text.clone().into_bytes()));
        let put = put.await.map_err(failed);
        put.map_err(|error| tried("write an object to the bucket", error))?;
        let read = get(&**bucket, &object).await;
        let removed = bucket.delete(&object).await.map_err(failed);
        let read = read.map_err(|error| tried("read an object of the bucket", error))?;
        removed.map_err(|error| tried("remove an object from the bucket", error))?;
        match read == text.as_bytes() {
            true => Ok(true),
            false => Err(io::Error::other(
                "the bucket returns other bytes than were written",
            )),
        }
    }

    /// Returns what is free of the file system on which segments are received. Blocks.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn free(&self) -> io::Result<u64> {
        free(&self.folder)
    }

    /// Begins the working file of a segment anew. Blocks.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn restart(&self, id: SessionId, segment: u32) -> io::Result<()> {
        let folder = self.of(id);
        if !folder.is_dir() {
            DirBuilder::new().mode(0o700).create(&folder)?;
            File::open(&self.folder)?.sync_all()?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.part(id, segment)).map(drop)
    }

    /// Appends to the working file of a segment. Blocks.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn append(&self, id: SessionId, segment: u32, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .open(self.part(id, segment))?;
        file.write_all(bytes)
    }

    /// Returns the contents of the working file of a segment: nothing, where there is none. Blocks.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn received(&self, id: SessionId, segment: u32) -> io::Result<Vec<u8>> {
        match read(&self.part(id, segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    /// Makes the working file the segment's object, so that it survives a power cut. Once more is the same as
    /// once.
    ///
    /// # Errors
    /// The operating system's, or what the bucket says.
    pub(crate) async fn store(&self, id: SessionId, segment: u32) -> io::Result<()> {
        let part = self.part(id, segment);
        match &self.kept {
            KeptObject::Folder(local) => {
                // A rename of what is not on the disk may leave an empty file after a power cut; the crate
                // leaves that to its caller.
                on_disk(move || File::open(part)?.sync_all()).await?;
                let from = path(&object_store::path::Path::default(), id, segment, "part");
                let to = path(&object_store::path::Path::default(), id, segment, "seg");
                local.rename(&from, &to).await.map_err(failed)
            }
            KeptObject::Bucket(bucket, prefix) => {
                let file = part.clone();
                let bytes = on_disk(move || read(&file)).await?;
                let to = path(prefix, id, segment, "seg");
                let put = bucket.put(&to, PutPayload::from(bytes)).await;
                put.map_err(failed)?;
                let folder = self.of(id);
                on_disk(move || {
                    fs::remove_file(part)?;
                    // Another segment may be on its way there.
                    let _ = fs::remove_dir(folder);
                    Ok(())
                })
                .await
            }
            KeptObject::Nowhere(why) => Err(nowhere(why)),
        }
    }

    /// Returns the stored segments of a recording from the first, for a thread that reads them: one is fetched while
    /// it is at the one before. One that is missing among them has no bytes. Needs a runtime.
    #[must_use]
    pub(crate) fn fetch(&self, id: SessionId, segments: &[(u64, SegmentLink)]) -> Fetched {
        let (give, take) = mpsc::channel(1);
        let this = self.clone();
        let missing = |segment: &(u64, SegmentLink)| *segment == MISSING_SEGMENT;
        let segments: Vec<bool> = segments.iter().map(missing).collect();
        let left = segments.len();
        tokio::spawn(async move {
            for (segment, is_missing) in (0..).zip(segments) {
                let read = match is_missing {
                    true => Ok(Vec::new()),
                    false => this.read(id, segment).await,
                };
                let last = read.is_err();
                if give.send(read).await.is_err() || last {
                    return;
                }
            }
        });
        Fetched { take, left }
    }

    async fn read(&self, id: SessionId, segment: u32) -> io::Result<Vec<u8>> {
        let file = self.of(id).join(name(segment, "seg"));
        match &self.kept {
            KeptObject::Folder(local) => {
                let nothing = object_store::path::Path::default();
                get(&**local, &path(&nothing, id, segment, "seg")).await
            }
            KeptObject::Bucket(bucket, prefix) => {
                match get(&**bucket, &path(prefix, id, segment, "seg")).await {
                    // What was recorded before there was a bucket is in the folder.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        on_disk(move || read(&file)).await.map_err(|_| error)
                    }
                    read => read,
                }
            }
            KeptObject::Nowhere(why) => Err(nowhere(why)),
        }
    }

    /// Removes all that there is of a recording.
    ///
    /// # Errors
    /// The operating system's, or what the bucket says.
    pub(crate) async fn remove(&self, id: SessionId) -> io::Result<()> {
        match &self.kept {
            KeptObject::Folder(_) => {}
            KeptObject::Bucket(bucket, prefix) => {
                let listed = bucket.list(Some(&prefix.clone().join(id.to_string())));
                let all = listed.map_ok(|object| object.location).boxed();
                let removed = bucket.delete_stream(all).try_for_each(|_| async { Ok(()) });
                removed.await.map_err(failed)?;
            }
            KeptObject::Nowhere(why) => return Err(nowhere(why)),
        }
        let folder = self.of(id);
        on_disk(move || match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
        .await
    }

    fn of(&self, id: SessionId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn part(&self, id: SessionId, segment: u32) -> PathBuf {
        self.of(id).join(name(segment, "part"))
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A bucket knows its credentials.
        let mut text = f.debug_struct("Objects");
        text.field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Segments as they come, in their order. It blocks.
#[derive(Debug)]
pub(crate) struct Fetched {
    take: mpsc::Receiver<io::Result<Vec<u8>>>,
    left: usize,
}

impl Iterator for Fetched {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let came = self.take.blocking_recv();
        Some(came.unwrap_or_else(|| Err(io::Error::other("the relay stops"))))
    }
}

/// Returns what is free of a folder's file system, for users other than root. Blocks.
///
/// # Errors
/// The operating system's.
pub(crate) fn free(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn name(segment: u32, end: &str) -> String {
    format!("{segment:08}.{end}")
}

fn path(
    prefix: &object_store::path::Path,
    id: SessionId,
    segment: u32,
    end: &str,
) -> object_store::path::Path {
    prefix.clone().join(id.to_string()).join(name(segment, end))
}

async fn get(store: &dyn ObjectStore, path: &object_store::path::Path) -> io::Result<Vec<u8>> {
    let found = store.get(path).await.map_err(failed)?;
    let bytes = match found.meta.size {
        ..=MOST => found.bytes().await,
        _ => store.get_range(path, 0..MOST).await,
    };
    Ok(bytes.map_err(failed)?.into())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the error of a store, which may quote what a server on the network has answered.
fn failed(error: object_store::Error) -> io::Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, Escaped(&error.to_string()).to_string())
}

fn nowhere(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

async fn on_disk<T: Send + 'static>(
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(what).await.map_err(io::Error::other)?
}
