//! Puts a file onto a device by SFTP version 3 (draft-ietf-secsh-filexfer-02), so that there is the old one or the
//! new one under its name, and never half of it: written beside, brought to the disk, renamed.

mod packet;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_protocol::sftp::kind::{FSYNC, POSIX_RENAME, TEMPORARY};
use holdfast_protocol::sftp::stream::Packets;
use holdfast_protocol::sftp::{Attributes, RequestWriter, SftpRequest};
use thiserror::Error;

use self::packet::{CopyAnswer, read};
use crate::bulk::limits::{COPY_PACKET, COPY_PACKETS};
use crate::bulk::payload::Payload;
use crate::hex::hex;
use crate::session::input::{Input, InputSender};
use crate::session::output::{Gathered, Piece};
use crate::state::random_bytes;

const OK: u32 = 0;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;

/// `SSH_FXF_WRITE | SSH_FXF_CREAT | SSH_FXF_EXCL`.
const NEW_FILE: u32 = 0x02 | 0x08 | 0x20;

const FILE_TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;

/// Longest name of a file on the systems that agents run on.
const MAX_NAME: usize = 255;

/// A file, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    /// The contents.
    pub file: Arc<Payload>,
    /// Its path; from the login's home, if it does not begin with a slash.
    pub path: String,
    /// Its mode; `None`: that of the file it replaces, or what the device gives new ones.
    pub mode: Option<u32>,
}

/// One file's way onto one device.
pub(super) struct Put<'a> {
    sender: &'a InputSender,
    output: &'a mut Gathered,
    copy: &'a Copy,
    packets: Packets,
    /// The bytes that have come and are not looked at yet.
    pending: Bytes,
    next: u32,
    /// The handle of the file beside, while it is open.
    handle: Option<Vec<u8>>,
    /// Its path, as long as it is there.
    beside: Option<String>,
}

/// The reason why a file is not on a device.
#[derive(Debug, Error)]
pub(super) enum CopyError {
    /// The session ended too early.
    #[error("the session ended before the file was there")]
    Lost,
    /// Its sftp server answers what is no answer.
    #[error("its sftp server violates the protocol")]
    Protocol,
    /// Its sftp server has no way to replace a file.
    #[error("its sftp server cannot replace a file in one step")]
    NoRename,
    /// The path is a folder's.
    #[error("it is a folder: name the file in it")]
    Folder,
    /// Its sftp server refused a step.
    #[error("cannot {what}: {}", status(*.code, .text))]
    Refused {
        /// The step.
        what: &'static str,
        /// The status, as SFTP numbers them.
        code: u32,
        /// The server's error text, escaped.
        text: String,
    },
    /// The relay cannot read the file any more.
    #[error("the relay lost the file: {0}")]
    File(#[from] io::Error),
    /// The system gives no random numbers.
    #[error("the relay has no random numbers")]
    Random,
}

impl<'a> Put<'a> {
    pub(super) fn new(sender: &'a InputSender, output: &'a mut Gathered, copy: &'a Copy) -> Self {
        Self {
            sender,
            output,
            copy,
            packets: Packets::default(),
            pending: Bytes::new(),
            next: 0,
            handle: None,
            beside: None,
        }
    }

    /// Puts it there.
    ///
    /// # Errors
    /// A sentence why it is not there; then [`Self::tidy`] takes away what was begun.
    pub(super) async fn run(&mut self) -> Result<(), CopyError> {
        let path = self.copy.path.as_str();
        let extensions = self.begin().await?;
        let has = |name: &[u8]| extensions.iter().any(|extension| extension == name);
        if !has(POSIX_RENAME) {
            return Err(CopyError::NoRename);
        }
        let mode = match self.copy.mode {
            Some(mode) => Some(mode),
            None => self.present_mode(path).await?,
        };
        self.open(path, mode, has(TEMPORARY)).await?;
        self.write().await?;
        let handle = self.handle.clone().unwrap_or_default();
        if let Some(mode) = mode {
            // Exactly this: the account's umask has had its say when the file was made.
            let set = SftpRequest::Fsetstat(&handle, attributes(Some(mode)));
            self.done(&set, "set its mode").await?;
        }
        if has(FSYNC) {
            let sync = SftpRequest::Fsync(&handle);
            self.done(&sync, "sync it to the disk").await?;
        }
        let close = SftpRequest::Close(&handle);
        self.done(&close, "close it").await?;
        self.handle = None;
        let beside = self.beside.clone().unwrap_or_default();
        let rename = SftpRequest::PosixRename {
            from: beside.as_bytes(),
            to: path.as_bytes(),
        };
        self.done(&rename, "rename it into its place").await?;
        self.beside = None;
        Ok(())
    }

    /// Takes away what was begun.
    pub(super) async fn tidy(&mut self) {
        if let Some(handle) = self.handle.take() {
            let _ = self.send(&SftpRequest::Close(&handle)).await;
        }
        let Some(beside) = self.beside.take() else {
            return;
        };
        let remove = SftpRequest::Remove(beside.as_bytes());
        let Ok(id) = self.send(&remove).await else {
            return;
        };
        // Answers to what was under way come first.
        while let Ok((answered, _)) = self.answer().await {
            if answered == id {
                return;
            }
        }
    }

    async fn begin(&mut self) -> Result<Vec<Vec<u8>>, CopyError> {
        let mut hello = RequestWriter::default();
        hello.init();
        self.push(hello.take()).await?;
        match self.answer().await?.1 {
            CopyAnswer::Version(extensions) => Ok(extensions),
            _ => Err(CopyError::Protocol),
        }
    }

    /// Returns the mode of the file that is there.
    async fn present_mode(&mut self, path: &str) -> Result<Option<u32>, CopyError> {
        let stat = SftpRequest::Stat(path.as_bytes());
        match self.ask(&stat).await? {
            CopyAnswer::Attributes(Some(mode)) if mode & FILE_TYPE == FOLDER => {
                Err(CopyError::Folder)
            }
            CopyAnswer::Attributes(mode) => Ok(mode.map(|mode| mode & 0o777)),
            CopyAnswer::Status(NO_SUCH_FILE, _) => Ok(None),
            CopyAnswer::Status(code, text) => Err(CopyError::Refused {
                what: "read its attributes",
                code,
                text,
            }),
            _ => Err(CopyError::Protocol),
        }
    }

    async fn open(
        &mut self,
        path: &str,
        mode: Option<u32>,
        temporary: bool,
    ) -> Result<(), CopyError> {
        let beside = beside(path)?;
        let open = SftpRequest::Open {
            path: beside.as_bytes(),
            flags: NEW_FILE,
            // What replaces a secret is none for anybody else meanwhile.
            attributes: Attributes {
                temporary,
                ..attributes(mode)
            },
        };
        // It may be there before its answer is here.
        self.beside = Some(beside.clone());
        match self.ask(&open).await? {
            CopyAnswer::Handle(handle) => self.handle = Some(handle),
            CopyAnswer::Status(code, text) => {
                self.beside = None;
                return Err(CopyError::Refused {
                    what: "write a temporary file beside it",
                    code,
                    text,
                });
            }
            _ => return Err(CopyError::Protocol),
        }
        Ok(())
    }

    /// Writes the whole of it, with some packets under way at a time.
    async fn write(&mut self) -> Result<(), CopyError> {
        let handle = self.handle.clone().unwrap_or_default();
        let (mut at, mut under_way) = (0, 0);
        let length = self.copy.file.length();
        while at < length || under_way > 0 {
            if at < length && under_way < COPY_PACKETS {
                let data = self.copy.file.read(at, COPY_PACKET).await;
                let data = data?;
                let write = SftpRequest::Write {
                    handle: &handle,
                    offset: at,
                    data: &data,
                };
                self.send(&write).await?;
                at += data.len() as u64;
                under_way += 1;
                continue;
            }
            match self.answer().await?.1 {
                CopyAnswer::Status(OK, _) => under_way -= 1,
                CopyAnswer::Status(code, text) => {
                    return Err(CopyError::Refused {
                        what: "write it",
                        code,
                        text,
                    });
                }
                _ => return Err(CopyError::Protocol),
            }
        }
        Ok(())
    }

    /// Asks for what is answered by a status alone.
    async fn done(
        &mut self,
        request: &SftpRequest<'_>,
        what: &'static str,
    ) -> Result<(), CopyError> {
        match self.ask(request).await? {
            CopyAnswer::Status(OK, _) => Ok(()),
            CopyAnswer::Status(code, text) => Err(CopyError::Refused { what, code, text }),
            _ => Err(CopyError::Protocol),
        }
    }

    async fn ask(&mut self, request: &SftpRequest<'_>) -> Result<CopyAnswer, CopyError> {
        let id = self.send(request).await?;
        match self.answer().await? {
            (answered, answer) if answered == id => Ok(answer),
            _ => Err(CopyError::Protocol),
        }
    }

    async fn send(&mut self, request: &SftpRequest<'_>) -> Result<u32, CopyError> {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.push(request.packet(id)).await?;
        Ok(id)
    }

    async fn push(&mut self, packet: Vec<u8>) -> Result<(), CopyError> {
        let pushed = self.sender.push(Input::Data(packet.into())).await;
        pushed.map_err(|_| CopyError::Lost)
    }

    /// Returns the next answer, and what it is an answer to.
    async fn answer(&mut self) -> Result<(u32, CopyAnswer), CopyError> {
        loop {
            let mut here = &self.pending[..];
            let found = self
                .packets
                .take(&mut here)
                .map_err(|_| CopyError::Protocol)?;
            let found = found.map(|packet| read(&packet).ok_or(CopyError::Protocol));
            let left = here.len();
            self.pending = self.pending.split_off(self.pending.len() - left);
            if let Some(found) = found {
                return found;
            }
            match self.output.next().await {
                Some(Piece::Stdout(data)) => self.pending = data,
                // What a server complains of is in its answers too.
                Some(Piece::Stderr(_)) => {}
                None => return Err(CopyError::Lost),
            }
        }
    }
}

/// Returns a status in words.
fn status(code: u32, text: &str) -> String {
    match (code, text) {
        (NO_SUCH_FILE, _) => "there is no such folder".to_owned(),
        (PERMISSION_DENIED, _) => "permission denied".to_owned(),
        (code, "") => format!("status {code}"),
        (_, text) => text.to_owned(),
    }
}

/// Returns the attributes that give a file this mode.
fn attributes(mode: Option<u32>) -> Attributes {
    Attributes {
        permissions: mode,
        ..Attributes::default()
    }
}

/// Returns a path in the same folder that no other copy has.
fn beside(path: &str) -> Result<String, CopyError> {
    let random: [u8; 8] = random_bytes().map_err(|_| CopyError::Random)?;
    let (folder, name) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
    let suffix = format!(".holdfast-{}", hex(&random));
    let most = MAX_NAME - suffix.len() - 1;
    let name = &name[..name.floor_char_boundary(most)];
    Ok(format!("{folder}.{name}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_file_is_in_the_same_folder() {
        for (path, folder) in [("/etc/motd", "/etc/"), ("motd", ""), ("a/b/motd", "a/b/")] {
            let beside = beside(path).unwrap();
            let name = beside.strip_prefix(folder).unwrap();
            assert!(name.starts_with(".motd.holdfast-"), "{beside}");
        }
        let long = "\u{20ac}".repeat(85);
        let name = beside(&long).unwrap();
        assert!(name.len() <= MAX_NAME && name.starts_with(".\u{20ac}"));
        assert_ne!(beside("x").unwrap(), beside("x").unwrap());
    }
}
