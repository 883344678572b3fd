//! QUIC between the two ends of a test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use holdfast_protocol::limits::ALPN;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

/// A server (the relay) and a client (the agent) on loopback.
pub(super) fn endpoints(transport: quinn::TransportConfig) -> [quinn::Endpoint; 2] {
    let transport = Arc::new(transport);
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let key = raw_key::seeded_key(TEST_SEED);
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::new(raw_key::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(
            rustls::server::AlwaysResolvesServerRawPublicKeys::new(key),
        ));
    server.alpn_protocols = vec![ALPN.to_vec()];
    let mut server =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
    server.transport_config(Arc::clone(&transport));
    let mut client = quinn::ClientConfig::new(Arc::new(
        QuicClientConfig::try_from(raw_key::client(None)).unwrap(),
    ));
    client.transport_config(transport);
    let server = quinn::Endpoint::server(server, any).unwrap();
    let mut dialler = quinn::Endpoint::client(any).unwrap();
    dialler.set_default_client_config(client);
    [server, dialler]
}

/// The seed of a key of RFC 8410, section 10.3: published, so good for tests only.
const TEST_SEED: [u8; 32] = [
    0xd4, 0xee, 0x72, 0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69, 0xf8, 0xad,
    0x3a, 0xfe, 0x7c, 0x28, 0xcb, 0xf1, 0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f, 0x44, 0x75, 0x58, 0x42,
];
