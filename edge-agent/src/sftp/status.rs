//! The outcome of a request, as it is reported to the client.

use std::borrow::Cow;
use std::io;

use holdfast_protocol::sftp::Code;
use rustix::io::Errno;

/// Describes how a request went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SftpStatus {
    /// For programs.
    pub(super) code: Code,
    /// For people: English.
    pub(super) text: Cow<'static, str>,
}

impl SftpStatus {
    /// Done.
    pub(super) const OK: Self = Self::new(Code::Ok, "Success");
    /// A read behind the end, or of a folder that was read to its end.
    pub(super) const EOF: Self = Self::new(Code::Eof, "End of file");
    /// The changes that `--read-only` refuses to a client.
    pub(super) const READ_ONLY: Self = Self::new(
        Code::PermissionDenied,
        "Permission denied: this session may only read",
    );
    /// A request that is not spoken here.
    pub(super) const UNSUPPORTED: Self = Self::new(Code::OpUnsupported, "Operation unsupported");
    /// A request whose fields make no sense.
    pub(super) const MALFORMED: Self = Self::new(Code::BadMessage, "Bad message");
    /// A handle that was never given out, or is closed, or is one of a folder where a file is wanted.
    pub(super) const NO_HANDLE: Self = Self::new(Code::Failure, "no such handle is open");

    pub(super) const fn new(code: Code, text: &'static str) -> Self {
        let text = Cow::Borrowed(text);
        Self { code, text }
    }
}

/// With OpenSSH's codes, since scripts know them.
impl From<Errno> for SftpStatus {
    fn from(errno: Errno) -> Self {
        let code = match errno {
            Errno::NOENT => return Self::new(Code::NoSuchFile, "No such file"),
            Errno::PERM | Errno::ACCESS => {
                return Self::new(Code::PermissionDenied, "Permission denied");
            }
            Errno::NOTDIR | Errno::BADF | Errno::LOOP => Code::NoSuchFile,
            Errno::NAMETOOLONG | Errno::INVAL => Code::BadMessage,
            Errno::NOSYS => Code::OpUnsupported,
            _ => Code::Failure,
        };
        let mut text = io::Error::from(errno).to_string();
        if let Some(end) = text.rfind(" (os error") {
            text.truncate(end);
        }
        let text = Cow::Owned(text);
        Self { code, text }
    }
}
