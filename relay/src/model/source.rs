//! The source of a connection, as far as what it costs is counted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Those who count as one: an IPv4 address, or an IPv6 /64, which is what one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

/// The address, or the network.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

impl Source {
    /// Returns the address, or the first one of the network.
    #[must_use]
    pub(crate) fn address(self) -> IpAddr {
        self.0
    }

    /// Returns the source of an address.
    #[must_use]
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.into()),
            IpAddr::V6(v6) => {
                let prefix = u128::from(v6) >> 64 << 64;
                Self(Ipv6Addr::from(prefix).into())
            }
        }
    }
}
