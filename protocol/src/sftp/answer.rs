//! The answers of a server, as bytes.

use alloc::string::String;
use alloc::vec::Vec;

use super::VERSION;
use super::attributes::Attributes;
use super::kind::{self, OPEN_AS, RELEASE, TEMPORARY};
use super::packet::PacketWriter;

/// The extensions, and the version of each that the answer to `Init` names.
const EXTENSIONS: [(&[u8], &[u8]); 14] = [
    (kind::POSIX_RENAME, b"1"),
    (kind::STATVFS, b"2"),
    (kind::FSTATVFS, b"2"),
    (kind::HARDLINK, b"1"),
    (kind::FSYNC, b"1"),
    (kind::LSETSTAT, b"1"),
    (kind::LIMITS, b"1"),
    (kind::EXPAND_PATH, b"1"),
    (kind::COPY_DATA, b"1"),
    (kind::HOME_DIRECTORY, b"1"),
    (kind::USERS_GROUPS_BY_ID, b"1"),
    (TEMPORARY, b"1"),
    (OPEN_AS, b"1"),
    (RELEASE, b"1"),
];

/// Describes how a request went, section 7: the codes of version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the draft's own names")]
pub enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

/// Answers, one behind the other, as they go to the client.
#[derive(Debug, Default)]
pub struct SftpAnswers {
    packets: PacketWriter,
}

impl SftpAnswers {
    /// Returns what there is to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.packets.bytes
    }

    /// Returns the answers, which are removed.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.packets.bytes)
    }

    /// Clears it after all was sent.
    pub fn clear(&mut self) {
        self.packets.bytes.clear();
    }

    /// Appends the answer to `Init`.
    pub fn version(&mut self) {
        let start = self.packets.begin(kind::VERSION, VERSION);
        for (name, version) in EXTENSIONS {
            self.packets.string(name);
            self.packets.string(version);
        }
        self.packets.end(start);
    }

    /// Answers how a request went: for programs, and in English for people.
    pub fn status(&mut self, id: u32, code: Code, text: &str) {
        let start = self.packets.begin(kind::STATUS, id);
        self.packets.number(code as u32);
        self.packets.string(text.as_bytes());
        self.packets.string(b"en");
        self.packets.end(start);
    }

    /// Appends the handle of a file or folder that is open.
    pub fn handle(&mut self, id: u32, handle: &[u8]) {
        let start = self.packets.begin(kind::HANDLE, id);
        self.packets.string(handle);
        self.packets.end(start);
    }

    /// Answers with what `read` appends; if that is nothing, or fails, there is no answer.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn data<E>(
        &mut self,
        id: u32,
        read: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let start = self.packets.begin(kind::DATA, id);
        let at = self.packets.bytes.len();
        self.packets.number(0);
        match read(&mut self.packets.bytes) {
            Ok(length) => {
                self.packets.set_number(at, length);
                self.packets.end(start);
                Ok(length)
            }
            Err(error) => {
                self.packets.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// Appends a file's attributes.
    pub fn attributes(&mut self, id: u32, attributes: &Attributes) {
        let start = self.packets.begin(kind::ATTRS, id);
        self.attributes_of(attributes);
        self.packets.end(start);
    }

    /// Returns names, which `list` says one by one; how many there were. None, and there is no answer.
    ///
    /// # Errors
    /// Those of `list`.
    pub fn names<E>(
        &mut self,
        id: u32,
        list: impl FnOnce(&mut NameList<'_>) -> Result<(), E>,
    ) -> Result<u32, E> {
        let start = self.packets.begin(kind::NAME, id);
        let at = self.packets.bytes.len();
        self.packets.number(0);
        let mut names = NameList {
            answers: self,
            count: 0,
        };
        let listed = list(&mut names);
        let count = names.count;
        match listed {
            Ok(()) if count > 0 => {
                self.packets.set_number(at, count as usize);
                self.packets.end(start);
                Ok(count)
            }
            other => {
                self.packets.bytes.truncate(start);
                other.map(|()| 0)
            }
        }
    }

    /// Appends the answer to an extended request: numbers.
    pub fn numbers(&mut self, id: u32, numbers: &[u64]) {
        let start = self.packets.begin(kind::EXTENDED_REPLY, id);
        for number in numbers {
            self.packets.long(*number);
        }
        self.packets.end(start);
    }

    /// Appends the answer to an extended request: lists of names, each as one string.
    pub fn lists(&mut self, id: u32, lists: [&[String]; 2]) {
        let start = self.packets.begin(kind::EXTENDED_REPLY, id);
        for list in lists {
            let at = self.packets.bytes.len();
            self.packets.number(0);
            for name in list {
                self.packets.string(name.as_bytes());
            }
            self.packets
                .set_number(at, self.packets.bytes.len() - at - 4);
        }
        self.packets.end(start);
    }

    /// Writes what is reported of attributes: that a file is temporary is asked for alone.
    fn attributes_of(&mut self, attributes: &Attributes) {
        let temporary = false;
        self.packets.attributes(&Attributes {
            temporary,
            ..*attributes
        });
    }
}

/// The names of one answer.
#[derive(Debug)]
pub struct NameList<'a> {
    answers: &'a mut SftpAnswers,
    count: u32,
}

impl NameList<'_> {
    /// Returns whether none was said yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends one more: its name, a line about it as `ls -l` has it, its attributes.
    pub fn push(&mut self, name: &[u8], line: &[u8], attributes: &Attributes) {
        self.answers.packets.string(name);
        self.answers.packets.string(line);
        self.answers.attributes_of(attributes);
        self.count += 1;
    }
}
