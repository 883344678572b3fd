//! Files that a client writes one after the other: opened before the device has answered, and closed before the client
//! asks.
//!
//! OpenSSH's client puts a file by an open, its writes, possibly a change of its attributes, and a close, and waits for
//! the answer of each. What says that something is stored is the device's answer alone. The rest depends on its server,
//! if that is our own:
//!
//! - It opens a file under a handle that the relay has named (`open-as@holdfast`). So the client gets its handle at once, and what it
//!   does with it follows the open on its way. If the open fails, all that is asked of the handle is answered as the open was, its close too.
//! - It closes a file and keeps its handle (`release@holdfast`). The relay asks for that behind the request that was the last before the
//!   close of the file before. So the file is closed, and the relay knows, when the client asks; if it goes on instead, the device opens it again.
//!
//! A client that tells a program at once whether a file can be opened would tell it wrong. So an open goes ahead only
//! for who does as OpenSSH's `sftp` and `scp`: asks for the server's limits, and then for nothing while a file is being
//! opened; and only into the folder where the device has last opened a file for it. A folder where nothing may be
//! written is refused by the open, as ever.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::sftp::cut::PacketHead;
use holdfast_protocol::sftp::kind::{
    CLOSE, EXTENDED, FSETSTAT, HANDLE, LIMITS, OPEN, OPEN_AS, RELEASE, STATUS, WRITE,
};
use holdfast_protocol::sftp::{Attributes, SftpAnswers, SftpFields, SftpRequest};

use crate::session::limits::{MAX_SFTP_NAMED, MAX_SFTP_SMALL};

/// `SSH_FXF_WRITE` and `_CREAT`, with which OpenSSH's clients put a file; `sftp` with `_TRUNC` as well.
const PUT: u32 = 0x02 | 0x08;
const TRUNCATE: u32 = 0x10;

/// The state of a session's uploads.
#[derive(Debug, Default)]
pub(super) struct Puts {
    /// The device's server opens a file under a name that is given.
    opens: bool,
    /// It closes one and keeps its handle.
    releases: bool,
    /// The client has asked for the server's limits.
    asked_limits: bool,
    /// The number and the folder of an open that the device answers, behind which nothing was asked.
    first: Option<(u32, Vec<u8>)>,
    /// The folder in which the device has last opened a file.
    folder: Option<Vec<u8>>,
    /// Those that the relay has named, by that name, until they are closed.
    files: BTreeMap<u32, File>,
    /// The next name. Names count up, and none is used twice.
    name: u32,
    /// Numbers of requests to open them that are not answered.
    opening: BTreeSet<u32>,
    /// The requests for the last file that was written.
    habit: Option<PutDone>,
    release: Option<Release>,
    /// Numbers of requests to close a file whose answers are of no use.
    withdrawn: BTreeSet<u32>,
}

/// The requests for a file since it was opened: their number, and the kind of the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PutDone {
    requests: u32,
    last: u8,
}

#[derive(Debug, Default)]
struct File {
    done: PutDone,
    is_written: bool,
    /// Something was asked that was not looked at.
    is_lost: bool,
}

/// A file that the device was asked to close.
#[derive(Debug)]
struct Release {
    id: u32,
    name: u32,
    stage: PutStage,
}

#[derive(Debug)]
enum PutStage {
    /// It has not answered.
    Asked,
    /// Nor has it, and the client has asked as well: that goes to the device under this number.
    Wanted(u32),
    /// It has answered so.
    Closed(Vec<u8>),
}

/// The recipient of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The client, as it came.
    AsItIs,
    /// No recipient: the relay drops it.
    Discarded,
    /// The client, as the answer to its close that goes to the device under this number.
    Close(u32),
}

/// The way a file is closed that the client asks to close.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It is closed, as this says.
    Already(Vec<u8>),
    /// The device was asked to close it before.
    Asked,
}

impl Puts {
    /// Notes what the device's server knows, by the version packet.
    pub(super) fn version(&mut self, mut extensions: SftpFields<'_>) {
        while let (Some(name), Some(version)) = (extensions.string(), extensions.string()) {
            self.opens |= (name, version) == (OPEN_AS, b"1");
            self.releases |= (name, version) == (RELEASE, b"1");
        }
    }

    /// Notes that the client begins a request, and returns whether more than its head is wanted.
    pub(super) fn comes(&mut self, head: &PacketHead) -> bool {
        self.first = None;
        if head.kind != CLOSE {
            self.withdraw();
        }
        let is_wanted = match head.kind {
            OPEN | CLOSE => return false,
            WRITE | FSETSTAT => !self.files.is_empty() && head.bytes <= MAX_SFTP_SMALL,
            EXTENDED => self.opens && head.bytes <= MAX_SFTP_SMALL,
            _ => false,
        };
        if head.kind == EXTENDED || !is_wanted {
            for file in self.files.values_mut() {
                file.is_lost = true;
            }
        }
        is_wanted
    }

    /// Notes an extended request.
    pub(super) fn extended(&mut self, name: &[u8]) {
        self.asked_limits |= name == LIMITS;
        // Who names handles as well would use ours.
        self.opens &= name != OPEN_AS;
    }

    /// Handles an open for writing. Returns what goes to the device instead, by this number, and to the client.
    pub(super) fn open(
        &mut self,
        id: u32,
        path: &[u8],
        (flags, attributes): (u32, Attributes),
        number: u32,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let has_room = self.files.len() < MAX_SFTP_NAMED && self.opening.len() < MAX_SFTP_NAMED;
        let is_put = flags & !TRUNCATE == PUT;
        if !is_put || !has_room || !self.opens || !self.asked_limits || self.name == u32::MAX {
            return None;
        }
        let folder = folder(path);
        if self.folder.as_deref() != Some(folder) {
            self.first = Some((id, folder.to_vec()));
            return None;
        }
        let name = self.name.to_be_bytes();
        let asked = SftpRequest::OpenAs {
            handle: &name,
            path,
            flags,
            attributes,
        };
        let mut answer = SftpAnswers::default();
        answer.handle(id, &name);
        self.opening.insert(number);
        self.files.insert(self.name, File::default());
        self.name += 1;
        Some((asked.packet(number), answer.take()))
    }

    /// Handles another request for a file. Returns what goes to the device behind that, by this number.
    pub(super) fn used(&mut self, kind: u8, handle: &[u8], number: u32) -> Option<Vec<u8>> {
        let name = name(handle)?;
        let file = self.files.get_mut(&name)?;
        file.is_written |= kind == WRITE;
        file.done.requests += 1;
        file.done.last = kind;
        let is_last = file.is_written && !file.is_lost && self.habit == Some(file.done);
        if !is_last || !self.releases || self.withdrawn.len() >= MAX_SFTP_NAMED {
            return None;
        }
        self.release = Some(Release {
            id: number,
            name,
            stage: PutStage::Asked,
        });
        Some(SftpRequest::Release(handle).packet(number))
    }

    /// Handles the close of a file, which the device closes too: asked by `number`, if it was asked before.
    pub(super) fn close(&mut self, handle: &[u8], number: u32) -> Option<Closed> {
        let known = name(handle).and_then(|name| Some((name, self.files.remove(&name)?)));
        let Some((name, file)) = known else {
            self.withdraw();
            return None;
        };
        if self
            .release
            .as_ref()
            .is_some_and(|release| release.name != name)
        {
            self.withdraw();
        }
        if file.is_written {
            self.habit = (!file.is_lost).then_some(file.done);
        }
        let release = self.release.as_mut()?;
        match std::mem::replace(&mut release.stage, PutStage::Wanted(number)) {
            PutStage::Closed(answer) => {
                self.release = None;
                Some(Closed::Already(answer))
            }
            PutStage::Asked | PutStage::Wanted(_) => Some(Closed::Asked),
        }
    }

    /// Notes that the device has answered a close of this number: its release, if it comes at all, is of no use.
    pub(super) fn closed(&mut self, number: u32) {
        let wanted =
            |release: &mut Release| matches!(release.stage, PutStage::Wanted(id) if id == number);
        if let Some(release) = self.release.take_if(wanted) {
            self.withdrawn.insert(release.id);
        }
    }

    /// Returns whether an answer of this number is looked at.
    pub(super) fn awaits(&self, id: u32) -> bool {
        self.opening.contains(&id)
            || self.withdrawn.contains(&id)
            || self
                .release
                .as_ref()
                .is_some_and(|release| release.id == id)
            || self.first.as_ref().is_some_and(|(first, _)| *first == id)
    }

    /// Handles the device's answer of this number; `None`: it is none of these.
    pub(super) fn answer(&mut self, id: u32, kind: u8, packet: &[u8]) -> Option<Heard> {
        if self.opening.remove(&id) {
            // What could not be opened is no sign of what can.
            if kind != HANDLE {
                self.folder = None;
            }
            return Some(Heard::Discarded);
        }
        if self.withdrawn.remove(&id) {
            return Some(Heard::Discarded);
        }
        if let Some((_, folder)) = self.first.take_if(|(first, _)| *first == id) {
            self.folder = (kind == HANDLE).then_some(folder);
            return Some(Heard::AsItIs);
        }
        let release = self.release.as_mut().filter(|release| release.id == id)?;
        if !is_well(kind, packet) {
            // It could not be closed so: the close itself is answered.
            self.release = None;
            return Some(Heard::Discarded);
        }
        match release.stage {
            PutStage::Wanted(close) => {
                self.release = None;
                Some(Heard::Close(close))
            }
            PutStage::Asked | PutStage::Closed(_) => {
                release.stage = PutStage::Closed(packet.to_vec());
                Some(Heard::Discarded)
            }
        }
    }

    /// Withdraws the file that was to be closed: it is not what the client goes on with.
    fn withdraw(&mut self) {
        let Some(release) = self.release.take() else {
            return;
        };
        if !matches!(release.stage, PutStage::Wanted(_)) {
            self.habit = None;
        }
        if !matches!(release.stage, PutStage::Closed(_)) {
            self.withdrawn.insert(release.id);
        }
    }
}

/// Returns the folder of a path, with its last slash.
fn folder(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/');
    path.get(..end.map_or(0, |end| end + 1)).unwrap_or_default()
}

/// Returns the name of a handle that may be one of the relay's.
fn name(handle: &[u8]) -> Option<u32> {
    handle.try_into().ok().map(u32::from_be_bytes)
}

/// Returns a status that all went well.
fn is_well(kind: u8, packet: &[u8]) -> bool {
    kind == STATUS && packet.get(9..13) == Some(&[0; 4])
}

#[cfg(test)]
mod tests;
