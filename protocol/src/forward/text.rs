//! Rules as people write them: `10.0.0.0/8:80`, `localhost:5432`, `[fd00::/8]:8000-8100`, `*.local:443`.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use thiserror::Error;

use super::{AddressRule, HostRule, Ports};
use crate::limits::MAX_FORWARD_HOST;

/// The reason why a text is no rule. It does not repeat the text, which may come from anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// It has no port.
    #[error("expected HOST:PORT, as in 10.0.0.0/8:80, localhost:5432, [fd00::/8]:* or *.local:443")]
    NoPort,
    /// The ports mean nothing.
    #[error("expected a port from 1 to 65535, a range like 8000-8100, or *")]
    Ports,
    /// The host is neither address nor name.
    #[error("expected an address, a network, a name, *.NAME, localhost or * before the port")]
    Host,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address is written in brackets, as in [fd00::/8]:443")]
    Brackets,
    /// A network whose address says more than its prefix.
    #[error("the network has bits beyond its prefix")]
    Beyond,
    /// An IPv4 address in IPv6 spelling.
    #[error("an IPv4 address is written as one, as in 10.0.0.0/8:80")]
    Mapped,
}

impl FromStr for AddressRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (host, ports) = text.rsplit_once(':').ok_or(RuleError::NoPort)?;
        let in_brackets = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match in_brackets {
            Some(inner) => match network(inner)? {
                Some(HostRule::Network {
                    address: IpAddr::V4(_),
                    ..
                })
                | None => return Err(RuleError::Host),
                Some(network) => network,
            },
            None if host.contains(':') => return Err(RuleError::Brackets),
            None => match network(host)? {
                Some(network) => network,
                None => name(host)?,
            },
        };
        let ports = ports.parse()?;
        Ok(Self { host, ports })
    }
}

/// Parses a network or address, if the text is one.
fn network(text: &str) -> Result<Option<HostRule>, RuleError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return match prefix {
            Some(_) => Err(RuleError::Host),
            None => Ok(None),
        };
    };
    if address.to_canonical() != address {
        return Err(RuleError::Mapped);
    }
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(prefix) => number(prefix)
            .and_then(|prefix| u8::try_from(prefix).ok())
            .filter(|prefix| *prefix <= bits)
            .ok_or(RuleError::Host)?,
    };
    let has_more = match address {
        IpAddr::V4(address) => address.to_bits().checked_shl(prefix.into()).unwrap_or(0) != 0,
        IpAddr::V6(address) => address.to_bits().checked_shl(prefix.into()).unwrap_or(0) != 0,
    };
    match has_more {
        true => Err(RuleError::Beyond),
        false => Ok(Some(HostRule::Network { address, prefix })),
    }
}

fn name(text: &str) -> Result<HostRule, RuleError> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    match (lower, lower.strip_prefix("*.")) {
        ("*", _) => Ok(HostRule::Any),
        ("localhost", _) => Ok(HostRule::Loopback),
        (_, Some(parent)) if is_name(parent) => Ok(HostRule::Under(parent.into())),
        (name, None) if is_name(name) => Ok(HostRule::Name(name.into())),
        _ => Err(RuleError::Host),
    }
}

/// Returns a name that is no other spelling of an address: its last part begins with a letter.
fn is_name(text: &str) -> bool {
    let part = |part: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&part.len()) && part.bytes().all(good)
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let lettered = last.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    text.len() <= MAX_FORWARD_HOST && lettered && text.split('.').all(part)
}

impl FromStr for Ports {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "*" {
            return Ok(Self::ANY);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text| number(text).filter(|port| *port != 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(RuleError::Ports),
        }
    }
}

/// Digits and nothing else: `+80` and ` 80` are slips of the pen.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Loopback => f.write_str("localhost"),
            Self::Name(name) => f.write_str(name),
            Self::Under(parent) => write!(f, "*.{parent}"),
            Self::Network {
                address: IpAddr::V4(address),
                prefix: 32,
            } => write!(f, "{address}"),
            Self::Network {
                address: IpAddr::V6(address),
                prefix: 128,
            } => write!(f, "[{address}]"),
            Self::Network {
                address: IpAddr::V4(address),
                prefix,
            } => write!(f, "{address}/{prefix}"),
            Self::Network {
                address: IpAddr::V6(address),
                prefix,
            } => write!(f, "[{address}/{prefix}]"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ANY => f.write_str("*"),
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}
