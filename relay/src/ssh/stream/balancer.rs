//! TCP load balancers before the SSH listener: the networks that they are in, and the header that each of their
//! connections begins with.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;
use tracing::warn;

use super::proxy_header::{self, FIXED, HeaderError, Origin, Progress};
use crate::log_limit::{self, LimitedLine};
use crate::model::source::Source;
use crate::ssh::limits::{MAX_PROXY_HEADER, PROXY_HEADER_TIMEOUT};

/// The sentence for a client whose balancer sends no header, or that is in a balancer's network itself.
pub(in crate::ssh) const NO_HEADER: &str = "Holdfast relay: connections from this network need a header of the PROXY protocol, \
    version 2, which has not come: ask who runs the relay";

/// The networks of the load balancers. From there, and from nowhere else, a connection begins with a header.
#[derive(Debug)]
pub(crate) struct Balancers(Vec<IpNet>);

/// The reason why a connection from a balancer's network has no header. The text says what came.
#[derive(Debug, Error)]
pub(in crate::ssh) enum NoHeader {
    #[error("it began with {0}")]
    Other(#[from] HeaderError),
    #[error("{came} of its bytes came within {} s", PROXY_HEADER_TIMEOUT.as_secs())]
    Late { came: usize },
    #[error("the connection ended behind {came} of its bytes")]
    Ended { came: usize },
}

impl Balancers {
    /// Takes the networks of the configuration.
    #[must_use]
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        if let Some(any) = networks.iter().find(|network| network.prefix_len() == 0) {
            warn!(
                "proxy_protocol has {any}: who reaches the SSH port may claim to be at any address"
            );
        }
        Self(networks)
    }

    /// Returns whether connections from this address need a header.
    pub(in crate::ssh) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Reads the header of a connection, and nothing behind it.
pub(in crate::ssh) async fn header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Origin, NoHeader> {
    let mut bytes = Vec::with_capacity(FIXED);
    let read = read(stream, &mut bytes);
    match timeout(PROXY_HEADER_TIMEOUT, read).await {
        Ok(read) => read,
        Err(_) => Err(NoHeader::Late { came: bytes.len() }),
    }
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
) -> Result<Origin, NoHeader> {
    loop {
        let needed = match proxy_header::read(bytes, MAX_PROXY_HEADER)? {
            Progress::Whole(origin) => return Ok(origin),
            Progress::Needs(needed) => needed,
        };
        let missing = needed.saturating_sub(bytes.len());
        let mut rest = stream.take(u64::try_from(missing).unwrap_or(u64::MAX));
        let came = rest.read_buf(bytes).await;
        // A connection that is reset has ended, too.
        if !matches!(came, Ok(1..)) {
            return Err(NoHeader::Ended { came: bytes.len() });
        }
    }
}

/// Writes into the log that a connection from a balancer's network has no header.
pub(in crate::ssh) fn log_missing(client: SocketAddr, why: &NoHeader) {
    if let Some(left_out) = log_limit::admits(LimitedLine::ProxyHeader, Source::of(client.ip())) {
        warn!(%client, left_out, "SSH connection closed: its address is in `proxy_protocol`, so it has to begin with a \
            header of the PROXY protocol, version 2, and {why}");
    }
}

/// Writes into the log that a connection begins with a header where none is expected: from elsewhere, or behind the
/// header of a balancer.
pub(in crate::ssh) fn log_unexpected(client: SocketAddr, balancer: Option<SocketAddr>) {
    let Some(left_out) = log_limit::admits(LimitedLine::ProxyHeader, Source::of(client.ip()))
    else {
        return;
    };
    match balancer {
        None => {
            let ip = client.ip().to_canonical();
            warn!(%client, left_out, "SSH connection closed: it begins with a header of the PROXY protocol, and its \
                address {ip} is in no network of `proxy_protocol`: if that is your load balancer, add \"{ip}\" there");
        }
        // Its client's address must not be added anywhere.
        Some(balancer) => {
            warn!(%client, %balancer, left_out, "SSH connection closed: its client sent a header of the \
            PROXY protocol behind that of the load balancer. It claims another address, or there is a second balancer \
            before yours, which has to send none: leave `proxy_protocol` as it is")
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::ssh::stream::proxy_header::SIGNATURE;

    const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

    #[test]
    fn networks_hold_addresses_of_both_families() {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let balancers = Balancers::new(networks.to_vec());
        for (address, is_balancer) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::7", true),
            ("11.1.2.3", false),
            ("2001:db9::7", false),
        ] {
            assert_eq!(balancers.contain(address.parse().unwrap()), is_balancer);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn header_that_does_not_come_is_not_waited_for() {
        for came in [0, 7, 15] {
            let (mut balancer, mut ours) = tokio::io::duplex(64);
            balancer.write_all(&LOCAL[..came]).await.unwrap();
            let began = crate::clock::instant();
            let late = header(&mut ours).await.unwrap_err().to_string();
            assert_eq!(late, format!("{came} of its bytes came within 5 s"));
            assert_eq!(began.elapsed(), PROXY_HEADER_TIMEOUT);
        }
        let (mut balancer, mut ours) = tokio::io::duplex(64);
        balancer.write_all(&SIGNATURE).await.unwrap();
        drop(balancer);
        let ended = header(&mut ours).await.unwrap_err().to_string();
        assert_eq!(ended, "the connection ended behind 12 of its bytes");
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_read() {
        let (mut balancer, mut ours) = tokio::io::duplex(64);
        let whole = [&LOCAL[..], b"SSH-2.0-x\r\n"].concat();
        balancer.write_all(&whole).await.unwrap();
        drop(balancer);
        assert_eq!(header(&mut ours).await.unwrap(), Origin::Balancer);
        let mut rest = String::new();
        ours.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "SSH-2.0-x\r\n");
    }
}
