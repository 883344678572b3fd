//! Requests of SFTP as they are sent, and answers as they are read.

use bytes::{BufMut as _, Bytes, BytesMut};
use holdfast_protocol::escape::EscapedBytes;
use holdfast_protocol::sftp::kind::{ATTRS, HANDLE, STATUS, VERSION};
use holdfast_protocol::sftp::stream::SeenPacket;

const ATTR_SIZE: u32 = 1;

const ATTR_OWNER: u32 = 2;

/// The flag of a mode among the attributes.
pub(super) const ATTR_MODE: u32 = 4;

/// An answer, as far as it is of use.
pub(super) enum CopyAnswer {
    Status(u32, String),
    Handle(Vec<u8>),
    /// The mode, if it is given.
    Attributes(Option<u32>),
    /// The names of extensions.
    Version(Vec<Vec<u8>>),
}

/// A packet that lacks its number.
pub(super) type CopyRequest = Box<dyn FnOnce(u32) -> Bytes + Send>;

/// Returns a request of this kind, with what follows its number.
pub(super) fn request(kind: u8, body: impl FnOnce(&mut BytesMut)) -> CopyRequest {
    let mut rest = BytesMut::new();
    body(&mut rest);
    Box::new(move |id| {
        let mut packet = BytesMut::with_capacity(9 + rest.len());
        // No packet is larger than a path twice, or a piece of a file.
        packet.put_u32(u32::try_from(5 + rest.len()).unwrap_or(u32::MAX));
        packet.put_u8(kind);
        packet.put_u32(id);
        packet.extend_from_slice(&rest);
        packet.freeze()
    })
}

/// Adds bytes with their length before them.
pub(super) fn string(to: &mut BytesMut, bytes: &[u8]) {
    to.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    to.extend_from_slice(bytes);
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
            let flags = fields.number()?;
            if flags & ATTR_SIZE != 0 {
                fields.skip(8)?;
            }
            if flags & ATTR_OWNER != 0 {
                fields.skip(8)?;
            }
            let mode = match flags & ATTR_MODE {
                0 => None,
                _ => Some(fields.number()?),
            };
            CopyAnswer::Attributes(mode)
        }
        _ => return None,
    };
    Some((id, answer))
}
