//! Finds the addresses that are the device's own at this moment: the ones of all its interfaces, and the networks that
//! its routes call local.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use holdfast_protocol::forward::HostRule;

/// Returns whether what is sent to an address stays on this device. The kernel is asked by binding a socket to the
/// address, because it alone knows all of them (a network on `lo` is local as a whole). Where that is no proof, or
/// the kernel gives no answer, an address is taken for the device's own: the stricter of the two.
pub(super) fn is_own(address: SocketAddr) -> bool {
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        return true;
    }
    let mut probe = address;
    probe.set_port(0);
    match UdpSocket::bind(probe) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => false,
        // The device has no such protocol, so no address of it.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => false,
        Ok(_) if binds_anything(address.ip()) => is_listed(address.ip()),
        Ok(_) | Err(_) => true,
    }
}

/// Returns whether the kernel lets any address be bound, as high-availability set-ups want it.
fn binds_anything(address: IpAddr) -> bool {
    let file = match address {
        IpAddr::V4(_) => "/proc/sys/net/ipv4/ip_nonlocal_bind",
        IpAddr::V6(_) => "/proc/sys/net/ipv6/ip_nonlocal_bind",
    };
    // A kernel without the setting has the default, which is off.
    fs::read_to_string(file).is_ok_and(|text| text.trim() != "0")
}

fn is_listed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let routes = fs::read_to_string("/proc/net/fib_trie");
            routes.map_or(true, |text| is_local_route(&text, address))
        }
        IpAddr::V6(address) => {
            let addresses = fs::read_to_string("/proc/net/if_inet6");
            addresses.map_or(true, |text| is_interface_address(&text, address))
        }
    }
}

/// Looks for an address in the text of `/proc/net/fib_trie`: a line `|-- NETWORK`, and below it one
/// `/PREFIX host LOCAL` if the network is the device's own.
fn is_local_route(text: &str, address: Ipv4Addr) -> bool {
    let mut network = None;
    text.lines().any(|line| {
        let line = line.trim();
        if let Some(leaf) = line.strip_prefix("|-- ") {
            network = leaf.parse::<Ipv4Addr>().ok();
            return false;
        }
        let prefix = line.strip_suffix(" host LOCAL");
        let prefix = prefix.and_then(|text| text.strip_prefix('/')?.parse().ok());
        match (network, prefix) {
            (Some(network), Some(prefix)) => {
                let address_of = network.into();
                let rule = HostRule::Network {
                    address: address_of,
                    prefix,
                };
                rule.matches("", address.into(), true)
            }
            _ => false,
        }
    })
}

/// Looks for an address in the text of `/proc/net/if_inet6`: 32 hexadecimal digits begin each line.
fn is_interface_address(text: &str, address: Ipv6Addr) -> bool {
    let own = |line: &str| {
        let digits = line.get(..32)?;
        u128::from_str_radix(digits, 16).ok()
    };
    text.lines()
        .filter_map(own)
        .any(|bits| bits == address.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_differ_from_others() {
        for own in ["127.0.0.1:9", "127.9.9.9:9", "[::1]:9", "0.0.0.0:9"] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["198.51.100.7:9", "203.0.113.9:443", "[2001:db8::9]:9"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn local_routes_are_read_from_the_trie() {
        let text = "\
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.9.0.0/16 2 0 2
        |-- 10.9.0.0
           /16 host LOCAL
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
";
        for (address, own) in [
            ("10.9.200.1", true),
            ("192.0.2.2", true),
            ("192.0.2.3", false),
            ("10.10.0.1", false),
        ] {
            assert_eq!(
                is_local_route(text, address.parse().unwrap()),
                own,
                "{address}"
            );
        }
        assert!(!is_local_route("", Ipv4Addr::new(192, 0, 2, 2)));
    }

    #[test]
    fn interface_addresses_are_read_from_their_list() {
        let text = "\
fd000000000000000000000000000002 02 40 00 02     eth0
00000000000000000000000000000001 01 80 10 80       lo
";
        assert!(is_interface_address(text, "fd00::2".parse().unwrap()));
        assert!(!is_interface_address(text, "fd00::3".parse().unwrap()));
        assert!(!is_interface_address(
            "\nshort\n",
            "fd00::2".parse().unwrap()
        ));
    }
}
