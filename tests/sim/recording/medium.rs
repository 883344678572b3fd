//! A medium that tears writes, fills up, fails, and forgets what was not synced.

use std::collections::BTreeMap;

use embedded_io::ErrorKind;
use holdfast_protocol::recording::medium::{FileName, Medium, MediumEntry, NO_SPACE};

use crate::random::Random;

pub(super) struct SimMedium {
    files: BTreeMap<FileName, SimFile>,
    pub(super) capacity: u64,
    /// Percent of the operations that fail.
    pub(super) failing: u64,
    random: Random,
}

#[derive(Clone, Default)]
struct SimFile {
    data: Vec<u8>,
    /// The part that a crash leaves at least; `None` for a file whose name was never synced.
    safe: Option<Vec<u8>>,
}

impl SimMedium {
    /// Empty, with all the room there is.
    pub(super) fn new(random: Random) -> Self {
        Self {
            files: BTreeMap::new(),
            capacity: 1 << 40,
            failing: 0,
            random,
        }
    }

    /// Bytes of all files.
    pub(super) fn used(&self) -> u64 {
        self.files.values().map(|file| file.data.len() as u64).sum()
    }

    pub(super) fn length(&self, name: FileName) -> u64 {
        self.files
            .get(&name)
            .map_or(0, |file| file.data.len() as u64)
    }

    pub(super) fn names(&self) -> Vec<FileName> {
        self.files.keys().copied().collect()
    }

    /// A file is changed from outside, durably.
    pub(super) fn change(&mut self, name: FileName, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.files.get_mut(&name).unwrap();
        change(&mut file.data);
        file.safe = Some(file.data.clone());
    }

    /// Power is cut: of what was not synced, any part remains, and the end of it may be garbage.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let mut left = BTreeMap::new();
        for (name, file) in core::mem::take(&mut self.files) {
            if file.safe.is_none() && random.chance(50) {
                continue;
            }
            let safe = file.safe.unwrap_or_default();
            let mut data = if file.data.starts_with(&safe) {
                let new = file.data.len() - safe.len();
                let mut data = file.data;
                data.truncate(safe.len() + random.index(new + 1));
                data
            } else {
                safe.clone()
            };
            let torn = data.len() - safe.len();
            if torn > 0 && random.chance(30) {
                let from = data.len() - random.index(torn + 1);
                let garbage = if random.chance(50) { 0 } else { 0xa5 };
                data[from..].fill(garbage);
            }
            let safe = Some(data.clone());
            left.insert(name, SimFile { data, safe });
        }
        self.files = left;
    }

    fn may_fail(&mut self) -> Result<(), ErrorKind> {
        let failing = self.failing;
        if self.random.chance(failing) {
            Err(ErrorKind::Other)
        } else {
            Ok(())
        }
    }
}

impl Medium for SimMedium {
    type Error = ErrorKind;

    fn create(&mut self, name: FileName) -> Result<(), ErrorKind> {
        self.may_fail()?;
        self.files.entry(name).or_default().data.clear();
        Ok(())
    }

    fn append(&mut self, name: FileName, at: u64, bytes: &[u8]) -> Result<(), ErrorKind> {
        let fails = self.may_fail();
        let free = self.capacity.saturating_sub(self.used());
        let file = self.files.get_mut(&name).ok_or(ErrorKind::NotFound)?;
        let at = usize::try_from(at).unwrap();
        assert!(at <= file.data.len(), "a hole in {name}");
        let free = usize::try_from(free).unwrap() + file.data.len() - at;
        file.data.truncate(at);
        let fits = bytes.len().min(free);
        let done = if fails.is_err() {
            self.random.index(fits + 1)
        } else {
            fits
        };
        file.data.extend_from_slice(&bytes[..done]);
        fails?;
        if done < bytes.len() {
            return Err(NO_SPACE);
        }
        Ok(())
    }

    fn sync(&mut self, name: FileName) -> Result<(), ErrorKind> {
        self.may_fail()?;
        let file = self.files.get_mut(&name).ok_or(ErrorKind::NotFound)?;
        file.safe = Some(file.data.clone());
        Ok(())
    }

    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), ErrorKind> {
        let file = self.files.remove(&from).ok_or(ErrorKind::NotFound)?;
        self.files.insert(to, file);
        Ok(())
    }

    fn read(&mut self, name: FileName, at: u64, to: &mut [u8]) -> Result<usize, ErrorKind> {
        let file = self.files.get(&name).ok_or(ErrorKind::NotFound)?;
        let rest = file
            .data
            .get(usize::try_from(at).unwrap()..)
            .unwrap_or_default();
        let length = rest.len().min(to.len());
        to[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn remove(&mut self, name: FileName) -> Result<(), ErrorKind> {
        self.may_fail()?;
        self.files
            .remove(&name)
            .map(|_| ())
            .ok_or(ErrorKind::NotFound)
    }

    fn list(&mut self) -> Result<Vec<MediumEntry>, ErrorKind> {
        let entry = |(name, file): (&FileName, &SimFile)| MediumEntry {
            name: *name,
            length: file.data.len() as u64,
            modified: 0,
        };
        Ok(self.files.iter().map(entry).collect())
    }

    fn free(&mut self) -> Result<u64, ErrorKind> {
        Ok(self.capacity.saturating_sub(self.used()))
    }
}
