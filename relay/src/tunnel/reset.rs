//! Stateless resets (RFC 9000 section 10.3) that a relay sends when it starts. A relay that died without a word leaves
//! its devices with connections that only they believe in; an idle one would notice at its next beat, half a minute
//! later. A reset from the same port says so at once.

use std::collections::VecDeque;
use std::sync::Arc;

use quinn::AsyncUdpSocket as _;
use quinn::crypto::HmacKey as _;
use quinn::udp::Transmit;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info};

use super::Tunnels;
use super::keys::ResetKey;
use super::listen::Handshakes;
use super::socket::TunnelSocket;
use crate::state::{StateError, random_bytes};
use crate::store::{LeftTunnel, TunnelId};
use crate::tunnel::limits::{RESET_AGAIN, RESET_TICK, RESETS_PER_TICK, RETRY_ABOVE_HANDSHAKES};

/// The length of a token that says "this connection is over".
const TOKEN: usize = 16;

/// Bytes before it, which look like a packet's: RFC 9000 wants at least 5, and 22 more hide it among real ones.
const DISGUISE: usize = 27;

/// Sends a reset for each of these tunnels whose device is not back by itself, and a second one to those whose first
/// was lost.
pub(crate) async fn run(
    tunnels: Arc<Tunnels>,
    socket: Arc<TunnelSocket>,
    key: Arc<ResetKey>,
    left: Vec<LeftTunnel>,
    handshakes: Handshakes,
) {
    if left.is_empty() {
        return;
    }
    info!("{} tunnels of the run before are reset", left.len());
    for _ in 0..2 {
        let is_away = |left: &&LeftTunnel| tunnels.registry.get(left.device).is_none();
        let mut waiting: VecDeque<LeftTunnel> = left.iter().filter(is_away).copied().collect();
        let mut ticks = interval(RESET_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !waiting.is_empty() {
            ticks.tick().await;
            let count = batch(handshakes.under_way()).min(waiting.len());
            for _ in 0..count {
                let Some(left) = waiting.front() else { break };
                if send(&socket, &key, left) == Sent::Later {
                    break;
                }
                waiting.pop_front();
            }
        }
        sleep(RESET_AGAIN).await;
    }
}

/// Returns the number of resets go out in one tick, while so many tunnels are being opened: none while the relay has
/// its hands full.
fn batch(handshakes: usize) -> usize {
    match handshakes {
        0..RETRY_ABOVE_HANDSHAKES => RESETS_PER_TICK,
        _ => 0,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// It is sent, or cannot be.
    Done,
    /// The socket takes nothing now.
    Later,
}

fn send(socket: &TunnelSocket, key: &ResetKey, left: &LeftTunnel) -> Sent {
    let Ok(packet) = packet(key, left.id) else {
        return Sent::Done;
    };
    let sent = socket.try_send(&Transmit {
        destination: left.address,
        ecn: None,
        contents: &packet,
        segment_size: None,
        src_ip: None,
    });
    match sent {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Sent::Later,
        Err(error) => {
            debug!(address = %left.address, %error, "a reset cannot be sent");
            Sent::Done
        }
        Ok(()) => Sent::Done,
    }
}

/// Returns a datagram that ends the connection in which the relay issued `id`.
fn packet(key: &ResetKey, id: TunnelId) -> Result<Vec<u8>, StateError> {
    let mut packet = random_bytes::<DISGUISE>()?.to_vec();
    // A short header with QUIC's fixed bit.
    if let Some(first) = packet.first_mut() {
        *first = 0x40 | *first >> 2;
    }
    let mut tag = vec![0; key.signature_len()];
    key.sign(&id.0, &mut tag);
    tag.truncate(TOKEN);
    packet.extend(tag);
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Secret;
    use crate::tunnel::limits::MAX_HANDSHAKES;
    use std::time::Duration;

    #[test]
    fn packet_ends_with_the_token_and_looks_like_any_other() {
        let key = ResetKey::new(&Secret::new([3; 64]));
        let id = TunnelId([5; 8]);
        let packets = [packet(&key, id).unwrap(), packet(&key, id).unwrap()];
        let [first, second] = &packets;
        assert_eq!(first[DISGUISE..], second[DISGUISE..]);
        assert_ne!(first[..DISGUISE], second[..DISGUISE]);
        assert!(first.len() >= 21 && first[0] & 0xc0 == 0x40);
        let other = packet(&key, TunnelId([6; 8])).unwrap();
        assert_ne!(first[DISGUISE..], other[DISGUISE..]);
    }

    /// Simulates ten thousand devices, which dial within a quarter of a second of their reset, at relays that open this
    /// many tunnels in a tick.
    #[test]
    fn fleet_comes_back_without_a_storm() {
        const DEVICES: usize = 10_000;
        let jitter = usize::try_from(250 / RESET_TICK.as_millis()).unwrap();
        for opened_per_tick in [2, 10, 100] {
            let (mut waiting, mut handshakes, mut back, mut most) = (DEVICES, 0, 0, 0);
            let mut dialling = VecDeque::from(vec![0; jitter + 1]);
            let mut ticks = 0_u32;
            while back < DEVICES {
                let sent = batch(handshakes).min(waiting);
                waiting -= sent;
                // The worst that jitter can do: all of a tick at its end.
                dialling.push_back(sent);
                handshakes += dialling.pop_front().unwrap();
                most = most.max(handshakes);
                let opened = handshakes.min(opened_per_tick);
                (handshakes, back) = (handshakes - opened, back + opened);
                ticks += 1;
            }
            assert!(most < MAX_HANDSHAKES / 2, "{most} at {opened_per_tick}");
            let took = RESET_TICK * ticks;
            let unbounded = u32::try_from(DEVICES / RESETS_PER_TICK.min(opened_per_tick)).unwrap();
            let bound = RESET_TICK * unbounded + Duration::from_secs(2);
            assert!(took < bound, "{took:?} at {opened_per_tick}");
        }
    }
}
