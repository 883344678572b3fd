//! Answers of SFTP as they are read.

use holdfast_protocol::escape::EscapedBytes;
use holdfast_protocol::sftp::Attributes;
use holdfast_protocol::sftp::kind::{ATTRS, HANDLE, STATUS, VERSION};
use holdfast_protocol::sftp::stream::SeenPacket;

/// An answer, as far as it is of use.
pub(super) enum CopyAnswer {
    Status(u32, String),
    Handle(Vec<u8>),
    /// The mode, if it is given.
    Attributes(Option<u32>),
    /// The names of extensions.
    Version(Vec<Vec<u8>>),
}

/// Reads an answer; `None`: it is no answer that anybody asked for.
pub(super) fn read(packet: &SeenPacket<'_>) -> Option<(u32, CopyAnswer)> {
    let mut fields = packet.fields();
    let id = fields.number()?;
    let answer = match packet.kind {
        // The number is the version's.
        VERSION => {
            let mut names = Vec::new();
            while let Some(name) = fields.string() {
                names.push(name.to_vec());
                fields.string()?;
            }
            CopyAnswer::Version(names)
        }
        STATUS => {
            let code = fields.number()?;
            // Older servers send no text.
            let text = fields.string().unwrap_or_default();
            CopyAnswer::Status(code, EscapedBytes(text).to_string())
        }
        HANDLE => CopyAnswer::Handle(fields.string()?.to_vec()),
        ATTRS => {
            let attributes = Attributes::take(&mut fields)?;
            CopyAnswer::Attributes(attributes.permissions)
        }
        _ => return None,
    };
    Some((id, answer))
}
