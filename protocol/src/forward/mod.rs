//! Judges the addresses that a forward may reach: the rules of a role, and the judgement of one address.
//!
//! The relay sends the rules along and the device judges, because names mean what they mean on the device.
//! What is judged is the address that is really connected to, in its one canonical spelling, right before
//! it is: however it was written, and whatever a name resolves to.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::limits::MAX_FORWARD_RULES;

mod path;
mod text;

pub use path::{PathPolicy, PathRule, PathRuleError};
pub use text::RuleError;

/// The address that a forward may reach, or listen on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPolicy {
    /// One of these must hit; `None`: anything that no `deny` hits.
    pub allow: Option<Vec<AddressRule>>,
    /// None of these may.
    pub deny: Vec<AddressRule>,
}

/// Some addresses, and some of their ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRule {
    /// The addresses.
    pub host: HostRule,
    /// The ports.
    pub ports: Ports,
}

/// The addresses that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostRule {
    /// `*`: any.
    Any,
    /// `localhost`: the device itself. What allows it allows 127.0.0.0/8 and ::1; what denies it denies every
    /// address of the device.
    Loopback,
    /// A network, or a single address.
    Network {
        /// Its address, with no bits beyond the prefix.
        address: IpAddr,
        /// The number of its bits that count.
        prefix: u8,
    },
    /// Targets that were asked for by this name, in lower case and without a final dot.
    Name(String),
    /// `*.NAME`: what was asked for by a name under this one.
    Under(String),
}

/// A range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl AddressPolicy {
    /// Returns whether an address may be used that was asked for by `name`. Hand in what [`canonical`] gave, and
    /// whether the address is one of the device's own.
    #[must_use]
    pub fn permits(&self, name: &str, address: SocketAddr, is_own: bool) -> bool {
        let allows = |rule: &AddressRule| rule.matches(name, address, is_own);
        let allowed = self
            .allow
            .as_ref()
            .is_none_or(|rules| rules.iter().any(allows));
        allowed
            && !self
                .deny
                .iter()
                .any(|rule| rule.denies(name, address, is_own))
    }

    /// Returns whether an address may be listened on that was asked for by `name`. Hand in what
    /// [`canonical_to_listen`] gave. The unspecified address is all of the device's: what is about some of them allows
    /// it not, and denies it.
    #[must_use]
    pub fn permits_listening(&self, name: &str, address: SocketAddr) -> bool {
        if !address.ip().is_unspecified() {
            // All that can be listened on is the device's own: here the address alone says what is meant.
            return self.permits(name, address, false);
        }
        let all = |rule: &AddressRule| {
            rule.ports.contains(address.port()) && matches!(rule.host, HostRule::Any)
        };
        let some = |rule: &AddressRule| rule.ports.contains(address.port());
        let allowed = self
            .allow
            .as_ref()
            .is_none_or(|rules| rules.iter().any(all));
        allowed && !self.deny.iter().any(some)
    }

    /// Returns whether the bounds of the wire hold.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let allow = self.allow.as_ref().map_or(0, Vec::len);
        allow.saturating_add(self.deny.len()) <= MAX_FORWARD_RULES
    }
}

impl AddressRule {
    /// Returns whether it is about this address, asked for by this name.
    #[must_use]
    pub fn matches(&self, name: &str, address: SocketAddr, is_own: bool) -> bool {
        self.ports.contains(address.port()) && self.host.matches(name, address.ip(), is_own)
    }

    /// Returns the same for a rule that denies: `localhost` is every address of the device there, because a service
    /// that listens on all of them answers on each.
    fn denies(&self, name: &str, address: SocketAddr, is_own: bool) -> bool {
        let itself = is_own && matches!(self.host, HostRule::Loopback);
        self.ports.contains(address.port())
            && (itself || self.host.matches(name, address.ip(), is_own))
    }
}

impl HostRule {
    /// Returns whether it is about this address, asked for by this name. A name means what it resolves to as long
    /// as that is another machine: making it resolve to the device itself, by whichever of its addresses, gains
    /// nothing.
    #[must_use]
    pub fn matches(&self, name: &str, address: IpAddr, is_own: bool) -> bool {
        let is_elsewhere = !is_own && is_elsewhere(address);
        match self {
            Self::Any => true,
            Self::Loopback => address.is_loopback(),
            Self::Network {
                address: network,
                prefix,
            } => is_within(address, *network, *prefix),
            Self::Name(wanted) => is_elsewhere && bare(name).eq_ignore_ascii_case(wanted),
            Self::Under(parent) => is_elsewhere && is_under(bare(name), parent),
        }
    }
}

impl Ports {
    /// All of them.
    pub const ANY: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// Returns whether a port is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// Returns the one spelling of an address that is judged and listened on: an IPv4-mapped IPv6 address is IPv4.
#[must_use]
pub fn canonical_to_listen(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address
}

/// Returns the one spelling of an address that is judged and connected to: an IPv4-mapped IPv6 address is IPv4,
/// and the unspecified address, by which Linux reaches the machine itself, is loopback.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    match (address, ip) {
        // A link-local address means nothing without its link.
        (SocketAddr::V6(mut whole), IpAddr::V6(ip)) => {
            whole.set_ip(ip);
            whole.set_flowinfo(0);
            SocketAddr::V6(whole)
        }
        (_, ip) => SocketAddr::new(ip, address.port()),
    }
}

fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let beyond = 32_u32.checked_sub(prefix);
            beyond.is_some_and(|beyond| {
                let differ = u64::from(address.to_bits() ^ network.to_bits());
                differ >> beyond == 0
            })
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differ = address.to_bits() ^ network.to_bits();
            let beyond = 128_u32.checked_sub(prefix);
            beyond.is_some_and(|beyond| differ.checked_shr(beyond).unwrap_or(0) == 0)
        }
        _ => false,
    }
}

/// Returns whether an address is another machine's, as far as it shows.
fn is_elsewhere(address: IpAddr) -> bool {
    let on_this_link = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast() && !on_this_link
}

fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn is_under(name: &str, parent: &str) -> bool {
    let Some(cut) = name.len().checked_sub(parent.len()) else {
        return false;
    };
    let (head, tail) = name.as_bytes().split_at(cut);
    tail.eq_ignore_ascii_case(parent.as_bytes()) && matches!(head, [_, .., b'.'])
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.ports)
    }
}

#[cfg(test)]
mod tests;
