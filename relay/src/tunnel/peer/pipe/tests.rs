use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use tokio::time::timeout;

use super::*;
use crate::clock;
use crate::fence::OnStoreLoss;
use crate::state::SigningKey;
use crate::tunnel::peer::stream::StreamLoss;
use crate::tunnel::peer::transport;
use crate::tunnel::tls::{self, PeerTls};

const SOON: Duration = Duration::from_secs(20);

/// A connection, by both of its ends.
struct Pair {
    dialler: Connection,
    listener: Connection,
    _endpoints: [Endpoint; 2],
}

async fn connect() -> Pair {
    let (own, other) = (SigningKey::random().unwrap(), SigningKey::random().unwrap());
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let crypto = tls::server_config(&other).unwrap();
    let listening = Endpoint::server(ServerConfig::with_crypto(Arc::new(crypto)), any).unwrap();
    let dialling = Endpoint::client(any).unwrap();
    let crypto = PeerTls::new(&own).unwrap().client_config(other.public());
    let mut config = ClientConfig::new(Arc::new(crypto.unwrap()));
    config.transport_config(Arc::new(transport::dialled()));
    let address = listening.local_addr().unwrap();
    let dial = dialling.connect_with(config, address, "holdfast").unwrap();
    let (dialler, listener) = tokio::join!(dial, async { listening.accept().await.unwrap().await });
    let listener = listener.unwrap();
    assert!(tls::is_relay(&listener));
    assert_eq!(tls::peer_key(&listener), Some(own.public()));
    Pair {
        dialler: dialler.unwrap(),
        listener,
        _endpoints: [dialling, listening],
    }
}

async fn streams(opener: &Connection, accepter: &Connection) -> (DeviceStream, DeviceStream) {
    let (mut send, receive) = opener.open_bi().await.unwrap();
    send.write_all(b"?").await.unwrap();
    let opened = DeviceStream { send, receive };
    let (send, mut receive) = accepter.accept_bi().await.unwrap();
    receive.read_exact(&mut [0]).await.unwrap();
    (opened, DeviceStream { send, receive })
}

/// A link and a tunnel, with a pipe between them.
struct Joined {
    link: Pair,
    tunnel: Pair,
    operator: DeviceStream,
    device: DeviceStream,
}

async fn joined() -> Joined {
    joined_behind(&StoreFence::none()).await
}

async fn joined_behind(fence: &StoreFence) -> Joined {
    let (link, tunnel) = (connect().await, connect().await);
    let (operator, peer) = streams(&link.dialler, &link.listener).await;
    let (to_device, device) = streams(&tunnel.dialler, &tunnel.listener).await;
    let fence = fence.clone();
    tokio::spawn(async move { run(peer, to_device, &fence).await });
    Joined {
        link,
        tunnel,
        operator,
        device,
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("it happens soon")
}

#[tokio::test]
async fn bytes_and_ends_pass_both_ways() {
    let mut joined = joined().await;
    joined.operator.send.write_all(b"ping").await.unwrap();
    joined.operator.send.finish().unwrap();
    let read = soon(joined.device.receive.read_to_end(9)).await;
    assert_eq!(read.unwrap(), b"ping");
    // The other direction goes on.
    joined.device.send.write_all(b"pong").await.unwrap();
    joined.device.send.finish().unwrap();
    let read = soon(joined.operator.receive.read_to_end(9)).await;
    assert_eq!(read.unwrap(), b"pong");
}

#[tokio::test]
async fn stops_pass_with_their_codes() {
    let mut joined = joined().await;
    joined.device.receive.stop(VarInt::from_u32(3)).unwrap();
    let stopped = soon(joined.operator.send.stopped()).await;
    assert_eq!(stopped.unwrap(), Some(VarInt::from_u32(3)));
    joined.operator.receive.stop(VarInt::from_u32(1)).unwrap();
    let stopped = soon(joined.device.send.stopped()).await;
    assert_eq!(stopped.unwrap(), Some(VarInt::from_u32(1)));
}

#[tokio::test]
async fn order_to_stop_overtakes_what_the_device_does_not_take() {
    let mut joined = joined().await;
    // As much as the windows on the way hold.
    let data = vec![7; 64 * 1024];
    while let Ok(sent) = timeout(Duration::from_secs(1), joined.operator.send.write(&data)).await {
        sent.unwrap();
    }
    joined.operator.send.reset(VarInt::from_u32(1)).unwrap();
    let reset = soon(joined.device.receive.received_reset()).await;
    assert_eq!(reset.unwrap(), Some(VarInt::from_u32(1)));
}

#[tokio::test]
async fn operator_learns_how_the_tunnel_ended() {
    let mut joined = joined().await;
    joined.tunnel.listener.close(VarInt::from_u32(6), b"");
    let lost = soon(joined.operator.receive.read(&mut [0])).await;
    match StreamLoss::from(lost.unwrap_err()) {
        StreamLoss::Tunnel(ConnectionError::ApplicationClosed(close)) => {
            assert_eq!(close.error_code, VarInt::from_u32(6));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn device_learns_that_the_observer_is_lost() {
    let mut joined = joined().await;
    joined.link.dialler.close(VarInt::from_u32(0), b"");
    let lost = soon(joined.device.receive.read(&mut [0])).await;
    assert_eq!(lost, Err(ReadError::Reset(OBSERVER_LOST)));
}

/// Returns a fence that is closed, because the last heartbeat was stored too long ago.
fn closed() -> StoreFence {
    let sent = clock::since_boot().saturating_sub(Duration::from_secs(9));
    StoreFence::new(OnStoreLoss::Freeze, sent)
}

#[tokio::test]
async fn closed_fence_holds_bytes_and_ends_until_it_opens() {
    let fence = closed();
    let mut joined = joined_behind(&fence).await;
    joined.operator.send.write_all(b"ping").await.unwrap();
    joined.operator.send.finish().unwrap();
    joined.device.send.finish().unwrap();
    let early = joined.device.receive.read_to_end(9);
    let early = timeout(Duration::from_secs(1), early).await;
    assert!(early.is_err(), "{early:?}");
    let early = joined.operator.receive.read_to_end(9);
    let early = timeout(Duration::from_secs(1), early).await;
    assert!(early.is_err(), "{early:?}");
    fence.beat(clock::since_boot());
    fence.enforced(clock::since_boot());
    let read = soon(joined.device.receive.read_to_end(9)).await;
    assert_eq!(read.unwrap(), b"ping");
    let read = soon(joined.operator.receive.read_to_end(9)).await;
    assert_eq!(read.unwrap(), b"");
}

#[tokio::test]
async fn order_to_stop_passes_a_closed_fence() {
    let mut joined = joined_behind(&closed()).await;
    joined.operator.send.write_all(b"ping").await.unwrap();
    joined.operator.send.reset(VarInt::from_u32(1)).unwrap();
    let reset = soon(joined.device.receive.received_reset()).await;
    assert_eq!(reset.unwrap(), Some(VarInt::from_u32(1)));
}
