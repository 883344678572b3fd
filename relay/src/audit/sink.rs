//! The log as lines of JSON in a file or on stdout, for a collector to take. Blocking: it runs on a thread
//! that may wait.
//!
//! The table is the source and the file follows it, so a restart neither loses nor doubles a line: the last
//! line tells how far the file is, and a line that was cut short by a crash or a full disk is cut off.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use holdfast_protocol::escape::Escaped;
use serde::Deserialize;

use crate::audit::limits::MAX_AUDIT_LINE;
use crate::model::invalid::Fault;

/// The output for lines beside the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SinkOutput {
    /// Appended to a file, which is made 0600 if it is not there.
    File(PathBuf),
    /// Stdout, for a service manager that keeps it.
    Stdout,
}

/// The output while it is written to.
#[derive(Debug)]
pub(super) struct Sink {
    output: SinkOutput,
    file: Option<File>,
}

impl Sink {
    pub(super) fn new(output: SinkOutput) -> Self {
        Self { output, file: None }
    }

    /// Lets go of the file, so that the next line opens it anew.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Opens the output if it is not open, or was moved since. If it was opened and
    /// holds lines, gives the id of its last whole one; a partial one behind it is cut off.
    pub(super) fn open(&mut self) -> io::Result<Option<i64>> {
        let SinkOutput::File(path) = &self.output else {
            return Ok(None);
        };
        if let Some(file) = &self.file {
            let (ours, theirs) = (file.metadata()?, std::fs::metadata(path));
            if theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino())) {
                return Ok(None);
            }
        }
        self.file = None;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| unwritten(path, &error))?;
        let last = if file.metadata()?.is_file() {
            recover(&mut file)?
        } else {
            None
        };
        self.file = Some(file);
        Ok(last)
    }

    /// Writes whole lines, and returns when they would survive a power cut. After an error the output is
    /// opened anew, which finds out what came there.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = match (&self.output, &mut self.file) {
            (SinkOutput::Stdout, _) => {
                let mut out = io::stdout().lock();
                out.write_all(lines).and_then(|()| out.flush())
            }
            (SinkOutput::File(path), Some(file)) => {
                let written = file.write_all(lines).and_then(|()| flush(file));
                written.map_err(|error| unwritten(path, &error))
            }
            (SinkOutput::File(_), None) => Err(io::Error::other("it is not open")),
        };
        if written.is_err() {
            self.close();
        }
        written
    }
}

/// Returns an error that names the file, and what can be done: a [`Fault`] is in it.
fn unwritten(path: &Path, error: &io::Error) -> io::Error {
    let path = Escaped(&path.to_string_lossy()).to_string();
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => Some("make its folder"),
        io::ErrorKind::PermissionDenied => Some("let the relay's account write there"),
        io::ErrorKind::StorageFull => Some("make room there"),
        _ => None,
    };
    let fault = Fault {
        found: format!("cannot write {path} ({error})"),
        remedy: remedy.map(str::to_owned),
    };
    io::Error::new(error.kind(), fault)
}

/// Flushes a regular file to the disk; a pipe refuses to.
fn flush(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.sync_data()?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct LineId {
    id: i64,
}

/// Cuts off what is behind the last line feed, and reads the id of the line before it.
fn recover(file: &mut File) -> io::Result<Option<i64>> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(2 * MAX_AUDIT_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        // Without any line feed within twice a line's length it is nothing that we wrote, but for the
        // beginning of a first line.
        if from == 0 && tail.starts_with(b"{\"time\":") {
            file.set_len(0)?;
        }
        return Ok(None);
    };
    let whole = from + end as u64 + 1;
    if whole < length {
        file.set_len(whole)?;
    }
    let lines = tail.get(..end).unwrap_or_default();
    let last = lines.rsplit(|byte| *byte == b'\n').next();
    let last = last.and_then(|line| serde_json::from_slice::<LineId>(line).ok());
    Ok(last.map(|line| line.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: i64) -> Vec<u8> {
        format!("{{\"time\":\"t\",\"id\":{id},\"event\":\"x\"}}\n").into_bytes()
    }

    fn sink(path: &std::path::Path) -> Sink {
        Sink::new(SinkOutput::File(path.to_owned()))
    }

    #[test]
    fn a_file_tells_how_far_it_is_and_a_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut first = sink(&path);
        assert_eq!(first.open().unwrap(), None);
        first.write(&[line(1), line(2)].concat()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(sink(&path).open().unwrap(), Some(2));

        let partial = [line(1), line(2), line(3)[..9].to_vec()].concat();
        std::fs::write(&path, &partial).unwrap();
        assert_eq!(sink(&path).open().unwrap(), Some(2));
        assert_eq!(std::fs::read(&path).unwrap(), [line(1), line(2)].concat());

        std::fs::write(&path, &line(1)[..9]).unwrap();
        assert_eq!(sink(&path).open().unwrap(), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"");

        std::fs::write(&path, "a letter of another author").unwrap();
        assert_eq!(sink(&path).open().unwrap(), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"a letter of another author");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("a"), dir.path().join("a.1"));
        let mut sink = sink(&path);
        sink.open().unwrap();
        sink.write(&line(1)).unwrap();
        std::fs::rename(&path, &old).unwrap();
        sink.open().unwrap();
        sink.write(&line(2)).unwrap();
        assert_eq!(std::fs::read(&old).unwrap(), line(1));
        assert_eq!(std::fs::read(&path).unwrap(), line(2));
    }

    #[test]
    fn a_missing_folder_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.jsonl");
        let said = sink(&path).open().unwrap_err().to_string();
        let names = format!("cannot write {} (No such file", path.display());
        assert!(said.starts_with(&names), "{said}");
        assert!(said.ends_with("): make its folder"), "{said}");
    }

    #[test]
    fn a_full_disk_is_an_error_and_can_be_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut sink = sink(&path);
        sink.open().unwrap();
        assert!(sink.write(&line(1)).is_err());
        std::fs::remove_file(&path).unwrap();
        sink.open().unwrap();
        sink.write(&line(1)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), line(1));
    }
}
