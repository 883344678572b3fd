//! Attributes of files on the wire.

use super::SftpFields;
use super::kind::TEMPORARY;

/// Attributes of a file, section 5: what of them is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// In bytes.
    pub size: Option<u64>,
    /// The numbers of its user and its group.
    pub owner: Option<(u32, u32)>,
    /// Its mode, with the bits of its type.
    pub permissions: Option<u32>,
    /// The time when it was read and changed last, in seconds since 1970.
    pub times: Option<(u32, u32)>,
    /// True if a file that is made goes with the session.
    pub temporary: bool,
}

pub(super) const HAS_SIZE: u32 = 1;
pub(super) const HAS_OWNER: u32 = 2;
pub(super) const HAS_PERMISSIONS: u32 = 4;
pub(super) const HAS_TIMES: u32 = 8;
pub(super) const HAS_EXTENDED: u32 = 1 << 31;

impl Attributes {
    /// Takes the attributes that come next; `None`: they are longer than the packet.
    pub fn take(fields: &mut SftpFields<'_>) -> Option<Self> {
        let has = fields.number()?;
        let mut attributes = Attributes::default();
        if has & HAS_SIZE != 0 {
            attributes.size = Some(fields.long()?);
        }
        if has & HAS_OWNER != 0 {
            attributes.owner = Some((fields.number()?, fields.number()?));
        }
        if has & HAS_PERMISSIONS != 0 {
            attributes.permissions = Some(fields.number()?);
        }
        if has & HAS_TIMES != 0 {
            attributes.times = Some((fields.number()?, fields.number()?));
        }
        if has & HAS_EXTENDED != 0 {
            // Each of them takes eight bytes at least, so that the packet bounds their number.
            for _ in 0..fields.number()? {
                attributes.temporary |= fields.string()? == TEMPORARY;
                fields.string()?;
            }
        }
        Some(attributes)
    }
}
