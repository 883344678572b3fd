//! Where segments lie: a folder for each recording, a file for each segment. A file that is being received
//! has another name than one that is whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::MAX_SEGMENT;

/// The objects of all recordings, in a folder. Its functions block.
#[derive(Clone, Debug)]
pub struct Objects {
    folder: PathBuf,
}

impl Objects {
    /// In this folder, which exists.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Begins the working file of a segment anew.
    ///
    /// # Errors
    /// The operating system's.
    pub fn restart(&self, id: SessionId, segment: u32) -> io::Result<()> {
        let folder = self.of(id);
        if !folder.is_dir() {
            DirBuilder::new().mode(0o700).create(&folder)?;
            File::open(&self.folder)?.sync_all()?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.part(id, segment)).map(drop)
    }

    /// Appends to the working file of a segment.
    ///
    /// # Errors
    /// The operating system's.
    pub fn append(&self, id: SessionId, segment: u32, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .open(self.part(id, segment))?;
        file.write_all(bytes)
    }

    /// What stands in the working file of a segment: nothing, where there is none.
    ///
    /// # Errors
    /// The operating system's.
    pub fn received(&self, id: SessionId, segment: u32) -> io::Result<Vec<u8>> {
        match read(&self.part(id, segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    /// Makes the working file the segment's object, so that it survives a power cut.
    ///
    /// # Errors
    /// The operating system's.
    pub fn store(&self, id: SessionId, segment: u32) -> io::Result<()> {
        let part = self.part(id, segment);
        File::open(&part)?.sync_all()?;
        fs::rename(part, self.object(id, segment))?;
        File::open(self.of(id))?.sync_all()
    }

    /// A segment that is stored.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read(&self, id: SessionId, segment: u32) -> io::Result<Vec<u8>> {
        read(&self.object(id, segment))
    }

    /// Removes all that there is of a recording.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove(&self, id: SessionId) -> io::Result<()> {
        match fs::remove_dir_all(self.of(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn of(&self, id: SessionId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn part(&self, id: SessionId, segment: u32) -> PathBuf {
        self.of(id).join(format!("{segment:08}.part"))
    }

    fn object(&self, id: SessionId, segment: u32) -> PathBuf {
        self.of(id).join(format!("{segment:08}.seg"))
    }
}

/// A segment's file: what is beyond the longest segment is not read, and fails its check.
fn read(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MAX_SEGMENT as u64 + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
