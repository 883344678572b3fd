//! The answers of a server, as bytes.

use alloc::string::String;
use alloc::vec::Vec;

use super::VERSION;
use super::attributes::{Attributes, HAS_OWNER, HAS_PERMISSIONS, HAS_SIZE, HAS_TIMES};
use super::kind::{self, OPEN_AS, RELEASE, TEMPORARY};

/// The extensions, and the version of each that the answer to `Init` names.
const EXTENSIONS: [(&[u8], &[u8]); 14] = [
    (b"posix-rename@openssh.com", b"1"),
    (b"statvfs@openssh.com", b"2"),
    (b"fstatvfs@openssh.com", b"2"),
    (b"hardlink@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"lsetstat@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
    (b"expand-path@openssh.com", b"1"),
    (b"copy-data", b"1"),
    (b"home-directory", b"1"),
    (b"users-groups-by-id@openssh.com", b"1"),
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
    bytes: Vec<u8>,
}

impl SftpAnswers {
    /// Returns what there is to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Clears it after all was sent.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Appends the answer to `Init`.
    pub fn version(&mut self) {
        let start = self.begin(kind::VERSION, VERSION);
        for (name, version) in EXTENSIONS {
            self.string(name);
            self.string(version);
        }
        self.end(start);
    }

    /// Answers how a request went: for programs, and in English for people.
    pub fn status(&mut self, id: u32, code: Code, text: &str) {
        let start = self.begin(kind::STATUS, id);
        self.number(code as u32);
        self.string(text.as_bytes());
        self.string(b"en");
        self.end(start);
    }

    /// Appends the handle of a file or folder that is open.
    pub fn handle(&mut self, id: u32, handle: &[u8]) {
        let start = self.begin(kind::HANDLE, id);
        self.string(handle);
        self.end(start);
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
        let start = self.begin(kind::DATA, id);
        let at = self.bytes.len();
        self.number(0);
        match read(&mut self.bytes) {
            Ok(length) => {
                self.set_number(at, length);
                self.end(start);
                Ok(length)
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// Appends a file's attributes.
    pub fn attributes(&mut self, id: u32, attributes: &Attributes) {
        let start = self.begin(kind::ATTRS, id);
        self.fields_of(attributes);
        self.end(start);
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
        let start = self.begin(kind::NAME, id);
        let at = self.bytes.len();
        self.number(0);
        let mut names = NameList {
            answers: self,
            count: 0,
        };
        let listed = list(&mut names);
        let count = names.count;
        match listed {
            Ok(()) if count > 0 => {
                self.set_number(at, count as usize);
                self.end(start);
                Ok(count)
            }
            other => {
                self.bytes.truncate(start);
                other.map(|()| 0)
            }
        }
    }

    /// Appends the answer to an extended request: numbers.
    pub fn numbers(&mut self, id: u32, numbers: &[u64]) {
        let start = self.begin(kind::EXTENDED_REPLY, id);
        for number in numbers {
            self.bytes.extend_from_slice(&number.to_be_bytes());
        }
        self.end(start);
    }

    /// Appends the answer to an extended request: lists of names, each as one string.
    pub fn lists(&mut self, id: u32, lists: [&[String]; 2]) {
        let start = self.begin(kind::EXTENDED_REPLY, id);
        for list in lists {
            let at = self.bytes.len();
            self.number(0);
            for name in list {
                self.string(name.as_bytes());
            }
            self.set_number(at, self.bytes.len() - at - 4);
        }
        self.end(start);
    }

    fn begin(&mut self, kind: u8, id: u32) -> usize {
        let start = self.bytes.len();
        self.number(0);
        self.bytes.push(kind);
        self.number(id);
        start
    }

    fn end(&mut self, start: usize) {
        self.set_number(start, self.bytes.len() - start - 4);
    }

    fn number(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    /// Sets a number; all that is counted here is smaller than a packet.
    fn set_number(&mut self, at: usize, number: usize) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if let Some(to) = self.bytes.get_mut(at..at + 4) {
            to.copy_from_slice(&number.to_be_bytes());
        }
    }

    fn string(&mut self, string: &[u8]) {
        let at = self.bytes.len();
        self.number(0);
        self.bytes.extend_from_slice(string);
        self.set_number(at, string.len());
    }

    pub(super) fn fields_of(&mut self, attributes: &Attributes) {
        let Attributes {
            size,
            owner,
            permissions,
            times,
            // Asked for, and never reported.
            temporary: _,
        } = attributes;
        let flag = |is_given, flag| if is_given { flag } else { 0 };
        self.number(
            flag(size.is_some(), HAS_SIZE)
                | flag(owner.is_some(), HAS_OWNER)
                | flag(permissions.is_some(), HAS_PERMISSIONS)
                | flag(times.is_some(), HAS_TIMES),
        );
        if let Some(size) = size {
            self.bytes.extend_from_slice(&size.to_be_bytes());
        }
        if let Some((user, group)) = owner {
            self.number(*user);
            self.number(*group);
        }
        if let Some(permissions) = permissions {
            self.number(*permissions);
        }
        if let Some((read, changed)) = times {
            self.number(*read);
            self.number(*changed);
        }
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
        self.answers.string(name);
        self.answers.string(line);
        self.answers.fields_of(attributes);
        self.count += 1;
    }
}
