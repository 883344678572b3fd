//! The header of the PROXY protocol, version 2, with which a TCP load balancer says whose connection it passes on
//! (haproxy's `doc/proxy-protocol.txt`, section 2.2). Pure: who reads the connection asks here how much to read next, so
//! that nothing behind the header is taken with it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// The first bytes of every header. An SSH client cannot begin with them.
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes of every header: the signature, version and command, family, and the length of what follows.
pub(crate) const FIXED: usize = 16;

/// The first bytes of a header of version 1, a line of text.
const OLDER: &[u8] = b"PROXY ";

/// The least of [`SIGNATURE`] that tells it from an empty line.
const RECOGNISED: usize = 5;

/// The other end of a connection, as the header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The load balancer itself, as for a health check: the connection's own addresses count.
    Balancer,
    /// A client of the load balancer.
    Client {
        /// The client's address.
        client: SocketAddr,
        /// The address that the client connected to.
        server: SocketAddr,
    },
}

/// The meaning of the bytes that have come so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The beginning of a header that is at least so long.
    Needs(usize),
    /// A whole header.
    Whole(Origin),
}

/// The reason why it is no header that is understood. The text says what came, behind "… and it began with".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum HeaderError {
    /// It is a header of version 1.
    #[error("a line of version 1")]
    Older,
    /// It is an SSH client.
    #[error("the greeting of an SSH client, without a header")]
    Greeting,
    /// It is something else.
    #[error("other bytes: {0}")]
    Other(ShownBytes),
    /// It has another version.
    #[error("a header of version {0}")]
    Version(u8),
    /// It has a command that is neither LOCAL nor PROXY.
    #[error("a header of version 2 with the command {0}, which is neither LOCAL nor PROXY")]
    Command(u8),
    /// It is not about TCP.
    #[error(
        "a header of version 2 for the family 0x{0:02x}, which is neither TCP over IPv4 or IPv6 nor unspecified"
    )]
    Family(u8),
    /// It is too short for its addresses.
    #[error("a header of version 2 whose {0} bytes are too few for its addresses")]
    Short(usize),
    /// It is longer than the bound.
    #[error("a header of version 2 of {0} bytes, and the maximum is {1}")]
    Long(usize, usize),
}

/// Bytes in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShownBytes {
    bytes: [u8; FIXED],
    length: usize,
}

impl ShownBytes {
    fn new(from: &[u8]) -> Self {
        let mut bytes = [0; FIXED];
        let length = from.len().min(FIXED);
        bytes
            .iter_mut()
            .zip(from)
            .for_each(|(to, from)| *to = *from);
        Self { bytes, length }
    }
}

impl fmt::Display for ShownBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.bytes.iter().take(self.length) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Returns whether a connection begins as one with a header of either version does.
#[must_use]
pub(crate) fn begins(bytes: &[u8]) -> bool {
    let is_newer = bytes.len() >= RECOGNISED && is_beginning(bytes, &SIGNATURE);
    is_newer || bytes.starts_with(OLDER)
}

/// Reads the beginning of a connection, of which no more bytes may have come than this has asked for. A header is at
/// most `most` bytes long.
///
/// # Errors
/// [`HeaderError`]; more bytes would change nothing.
pub(crate) fn read(bytes: &[u8], most: usize) -> Result<Progress, HeaderError> {
    if !is_beginning(bytes, &SIGNATURE) {
        return Err(other(bytes));
    }
    let Some((head, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Progress::Needs(FIXED));
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Err(HeaderError::Version(command >> 4));
    }
    let is_local = match command & 0xf {
        0 => true,
        1 => false,
        command => return Err(HeaderError::Command(command)),
    };
    let whole = FIXED + length;
    if whole > most {
        return Err(HeaderError::Long(whole, most));
    }
    let needed = match family {
        // What is behind LOCAL is to be ignored, its family included.
        _ if is_local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        family => return Err(HeaderError::Family(family)),
    };
    if length < needed {
        return Err(HeaderError::Short(length));
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Progress::Needs(whole));
    };
    // What is behind the addresses are further facts of the connection, none of which is needed.
    let origin = match needed {
        12 => v4(body),
        36 => v6(body),
        _ => None,
    };
    Ok(Progress::Whole(origin.unwrap_or(Origin::Balancer)))
}

/// Returns whether `bytes` and `whole` are the same as far as both go.
fn is_beginning(bytes: &[u8], whole: &[u8]) -> bool {
    bytes.iter().zip(whole).all(|(one, other)| one == other)
}

/// Returns what it is that is no header.
fn other(bytes: &[u8]) -> HeaderError {
    if bytes.starts_with(OLDER) {
        HeaderError::Older
    } else if bytes.starts_with(b"SSH-") {
        HeaderError::Greeting
    } else {
        HeaderError::Other(ShownBytes::new(bytes))
    }
}

fn v4(body: &[u8]) -> Option<Origin> {
    let (from, rest) = body.split_first_chunk::<4>()?;
    let (to, rest) = rest.split_first_chunk::<4>()?;
    let (from_port, to_port) = ports(rest)?;
    Some(Origin::Client {
        client: SocketAddr::new(Ipv4Addr::from(*from).into(), from_port),
        server: SocketAddr::new(Ipv4Addr::from(*to).into(), to_port),
    })
}

fn v6(body: &[u8]) -> Option<Origin> {
    let (from, rest) = body.split_first_chunk::<16>()?;
    let (to, rest) = rest.split_first_chunk::<16>()?;
    let (from_port, to_port) = ports(rest)?;
    // A balancer that listens for both families has IPv4's clients in this form.
    let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to));
    Some(Origin::Client {
        client: SocketAddr::new(from.to_canonical(), from_port),
        server: SocketAddr::new(to.to_canonical(), to_port),
    })
}

fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let (from, rest) = bytes.split_first_chunk::<2>()?;
    let (to, _) = rest.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*from), u16::from_be_bytes(*to)))
}

#[cfg(test)]
mod tests;
