//! Follows the SFTP of a session as it goes by, for the audit log: which file was read, written, removed or
//! renamed, and with what result. It changes nothing and holds nothing up; what it cannot follow it says.
//!
//! Version 3 of the protocol (draft-ietf-secsh-filexfer-02), which is what OpenSSH speaks.

pub mod ahead;
mod cut;
pub(crate) mod packet;
mod puts;

use std::collections::HashMap;

use self::packet::{Fields, Packet, Packets};
use crate::limits::{MAX_SFTP_OPEN, MAX_SFTP_PENDING};

/// An operation that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `read`, `write`, `copy`, `list`, `remove`, `mkdir`, `rmdir`, `rename`, `symlink`, `link`, `setstat`; or
    /// `unfollowed`, which says that there may be more.
    pub name: &'static str,
    /// On what, as the client gave it.
    pub path: Vec<u8>,
    /// Where to, of a rename or a link.
    pub to: Option<Vec<u8>>,
    /// `ok`, or what the device said instead.
    pub result: String,
    /// Bytes of the file that came from the device.
    pub bytes_read: u64,
    /// Bytes of it that the device took.
    pub bytes_written: u64,
}

/// One session's SFTP.
#[derive(Debug, Default)]
pub struct Follower {
    requests: Packets,
    answers: Packets,
    pending: HashMap<u32, Pending>,
    open: HashMap<Vec<u8>, File>,
    /// Why it cannot be followed any more.
    lost: Option<&'static str>,
    told_lost: bool,
}

#[derive(Debug)]
enum Pending {
    Open {
        path: Vec<u8>,
        write: bool,
    },
    /// One whose handle has its name already, and is open by it until the device says otherwise.
    OpenAs(Vec<u8>),
    List(Vec<u8>),
    Close(Vec<u8>),
    Read(Vec<u8>),
    Write(Vec<u8>, u64),
    Other(Operation),
}

#[derive(Debug)]
struct File {
    path: Vec<u8>,
    write: bool,
    read: u64,
    written: u64,
    /// The first error of a read or a write.
    error: Option<String>,
}

// Packet types, sections 3 and following of the draft.
const VERSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const RENAME: u8 = 18;
const SYMLINK: u8 = 20;
const EXTENDED: u8 = 200;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;

/// `SSH_FXF_WRITE`, `_APPEND`, `_CREAT` and `_TRUNC`.
const WRITING: u32 = 0x02 | 0x04 | 0x08 | 0x10;
/// Extensions of the agent's own server.
const OPEN_AS: &[u8] = b"open-as@holdfast";
const RELEASE: &[u8] = b"release@holdfast";

/// The status of a read at the end of its file: no failure.
const END_OF_FILE: u32 = 1;

impl Follower {
    /// What the client sends; an operation comes of it only if following ends here.
    pub fn request(&mut self, mut bytes: &[u8]) -> Option<Operation> {
        let mut requests = std::mem::take(&mut self.requests);
        while self.lost.is_none() {
            match requests.take(&mut bytes) {
                Ok(Some(packet)) => self.note_request(&packet),
                Ok(None) => break,
                Err(why) => self.lost = Some(why),
            }
        }
        self.requests = requests;
        self.tell_lost()
    }

    /// What the device answers, and what was done by it.
    pub fn answer(&mut self, mut bytes: &[u8]) -> Vec<Operation> {
        let mut done = Vec::new();
        let mut answers = std::mem::take(&mut self.answers);
        while self.lost.is_none() {
            match answers.take(&mut bytes) {
                Ok(Some(packet)) => done.extend(self.note_answer(&packet)),
                Ok(None) => break,
                Err(why) => self.lost = Some(why),
            }
        }
        self.answers = answers;
        done.extend(self.tell_lost());
        done
    }

    /// The session is over: what was left open, or unanswered.
    pub fn end(&mut self) -> Vec<Operation> {
        let unanswered = |pending: &Pending| match pending {
            Pending::OpenAs(handle) => self.open.remove(handle),
            _ => None,
        };
        let named: Vec<_> = self.pending.values().filter_map(unanswered).collect();
        let named = named
            .into_iter()
            .map(|file| file.done("not answered".to_owned()));
        let open = self.open.drain().map(|(_, file)| {
            let result = file.error.clone().unwrap_or("not closed".into());
            file.done(result)
        });
        let unanswered = self.pending.drain().filter_map(|(_, pending)| {
            let result = "not answered".to_owned();
            match pending {
                Pending::Open { path, write } => Some(operation(opened_as(write), path, result)),
                Pending::Other(operation) => Some(Operation {
                    result,
                    ..operation
                }),
                _ => None,
            }
        });
        named.chain(open).chain(unanswered).collect()
    }

    fn note_request(&mut self, packet: &Packet<'_>) {
        let mut fields = packet.fields();
        let Some((id, pending)) = request(packet.kind, &mut fields, &mut self.open) else {
            return;
        };
        if self.open.len() > MAX_SFTP_OPEN {
            self.lost = Some("too many open files");
            return;
        }
        if self.pending.len() >= MAX_SFTP_PENDING {
            self.lost = Some("too many requests at once");
            return;
        }
        self.pending.insert(id, pending);
    }

    fn note_answer(&mut self, packet: &Packet<'_>) -> Option<Operation> {
        let mut fields = packet.fields();
        // The first answer of all is no answer to a request: where they have a number, it has its version.
        let id = (packet.kind > VERSION).then(|| fields.number())??;
        let pending = self.pending.remove(&id)?;
        match (packet.kind, pending) {
            (HANDLE, Pending::List(path)) => Some(operation("list", path, ok())),
            (HANDLE, Pending::Open { path, write }) => {
                if self.open.len() >= MAX_SFTP_OPEN {
                    self.lost = Some("too many open files");
                    return None;
                }
                let file = File::new(path, write);
                self.open.insert(fields.string()?.to_vec(), file);
                None
            }
            (DATA, Pending::Read(handle)) => {
                let length = fields.number()?;
                self.open.get_mut(&handle)?.read += u64::from(length);
                None
            }
            (STATUS, pending) => self.note_status(pending, fields.number()?, &mut fields),
            _ => None,
        }
    }

    fn note_status(
        &mut self,
        pending: Pending,
        code: u32,
        fields: &mut Fields<'_>,
    ) -> Option<Operation> {
        let mut result = || match code {
            0 => ok(),
            code => said(code, fields.string()),
        };
        match pending {
            Pending::Other(operation) => Some(Operation {
                result: result(),
                ..operation
            }),
            Pending::Open { path, write } => Some(operation(opened_as(write), path, result())),
            Pending::OpenAs(handle) => {
                let file = self.open.remove(&handle)?;
                Some(file.done(result()))
            }
            Pending::List(path) => Some(operation("list", path, result())),
            Pending::Close(handle) => {
                let file = self.open.remove(&handle)?;
                let result = file.error.clone().unwrap_or_else(result);
                Some(file.done(result))
            }
            Pending::Write(handle, length) if code == 0 => {
                self.open.get_mut(&handle)?.written += length;
                None
            }
            Pending::Read(_) if code == END_OF_FILE => None,
            Pending::Read(handle) | Pending::Write(handle, _) => {
                let result = result();
                self.open.get_mut(&handle)?.error.get_or_insert(result);
                None
            }
        }
    }

    fn tell_lost(&mut self) -> Option<Operation> {
        let why = self.lost.filter(|_| !self.told_lost)?;
        self.told_lost = true;
        self.pending.clear();
        Some(operation("unfollowed", vec![], why.to_owned()))
    }
}

impl File {
    fn new(path: Vec<u8>, write: bool) -> Self {
        Self {
            path,
            write,
            read: 0,
            written: 0,
            error: None,
        }
    }

    fn done(self, result: String) -> Operation {
        Operation {
            bytes_read: self.read,
            bytes_written: self.written,
            ..operation(opened_as(self.write), self.path, result)
        }
    }
}

/// What a request asks for, if it is of a kind that is told.
fn request(
    kind: u8,
    fields: &mut Fields<'_>,
    open: &mut HashMap<Vec<u8>, File>,
) -> Option<(u32, Pending)> {
    let id = fields.number()?;
    let other = |name, path: &[u8], to: Option<&[u8]>| {
        let operation = operation(name, path.to_vec(), String::new());
        Pending::Other(Operation {
            to: to.map(<[u8]>::to_vec),
            ..operation
        })
    };
    let first = fields.string()?;
    let pending = match kind {
        OPEN => Pending::Open {
            path: first.to_vec(),
            write: fields.number()? & WRITING != 0,
        },
        OPENDIR => Pending::List(first.to_vec()),
        CLOSE => Pending::Close(first.to_vec()),
        READ => Pending::Read(first.to_vec()),
        WRITE => {
            fields.skip(8)?;
            Pending::Write(first.to_vec(), u64::from(fields.number()?))
        }
        SETSTAT => other("setstat", first, None),
        FSETSTAT => other("setstat", &open.get(first)?.path, None),
        REMOVE => other("remove", first, None),
        MKDIR => other("mkdir", first, None),
        RMDIR => other("rmdir", first, None),
        RENAME => other("rename", first, fields.string()),
        // OpenSSH sends the target first, against the draft, and all follow it.
        SYMLINK => other("symlink", first, fields.string()),
        EXTENDED => match first {
            OPEN_AS => {
                let (handle, path) = (fields.string()?.to_vec(), fields.string()?.to_vec());
                let write = fields.number()? & WRITING != 0;
                if open.contains_key(&handle) {
                    // The device refuses it, and the file that has the name stays as it is.
                    Pending::Open { path, write }
                } else {
                    open.insert(handle.clone(), File::new(path, write));
                    Pending::OpenAs(handle)
                }
            }
            b"posix-rename@openssh.com" => other("rename", fields.string()?, fields.string()),
            b"hardlink@openssh.com" => other("link", fields.string()?, fields.string()),
            b"lsetstat@openssh.com" => other("setstat", fields.string()?, None),
            b"copy-data" => {
                let from = open.get(fields.string()?)?;
                // Where from, and how much.
                fields.skip(16)?;
                let to = open.get(fields.string()?)?;
                other("copy", &from.path, Some(&to.path))
            }
            _ => return None,
        },
        _ => return None,
    };
    Some((id, pending))
}

fn operation(name: &'static str, path: Vec<u8>, result: String) -> Operation {
    Operation {
        name,
        path,
        to: None,
        result,
        bytes_read: 0,
        bytes_written: 0,
    }
}

fn opened_as(write: bool) -> &'static str {
    if write { "write" } else { "read" }
}

fn ok() -> String {
    "ok".to_owned()
}

/// A status in the device's words, or else by its number.
fn said(code: u32, text: Option<&[u8]>) -> String {
    match text {
        Some(text) if !text.is_empty() => String::from_utf8_lossy(text).into_owned(),
        _ => format!("status {code}"),
    }
}

#[cfg(test)]
mod tests;
