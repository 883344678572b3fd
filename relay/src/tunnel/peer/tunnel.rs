//! A device's tunnel at another relay, as that relay reports it for as long as something here uses it.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, Generation, PublicKey};
use holdfast_protocol::wire::peer::{
    PeerFacts, PeerHeard, PeerMessage, PeerOpen, PeerPurpose, PeerRefused,
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::message::{self, MessageError};
use super::stream::{DeviceStream, StreamError};
use crate::audit::DeviceFacts;
use crate::clock;
use crate::store::{ClonePair, Device};
use crate::sync::Mutex;
use crate::tunnel::peer::limits::PEER_ANSWER_TIMEOUT;
use crate::tunnel::tls;

/// A tunnel at another relay.
pub(crate) struct PeerTunnel {
    device: DeviceId,
    generation: Generation,
    facts: PeerFacts,
    link: Connection,
    report: Arc<TunnelReport>,
    _until_dropped: DropGuard,
}

/// The last report about a tunnel.
struct TunnelReport {
    heard: Mutex<(Instant, PeerHeard)>,
    /// Cancelled when the tunnel is gone.
    over: CancellationToken,
}

/// The answer to the question for a tunnel.
pub(super) enum TunnelAnswer {
    /// It is there.
    Tunnel(Arc<PeerTunnel>),
    /// The device has no such tunnel there.
    NotHere,
}

impl PeerTunnel {
    /// Asks the relay at the end of a link for a tunnel, and follows it.
    ///
    /// # Errors
    /// [`MessageError`]; the link is of no use if it does not answer in time: `None`.
    pub(super) async fn ask(
        link: &Connection,
        device: DeviceId,
        generation: Generation,
    ) -> Result<Option<TunnelAnswer>, MessageError> {
        let asked = timeout(PEER_ANSWER_TIMEOUT, async {
            let (mut send, mut receive) = link.open_bi().await?;
            let open = open(device, generation, PeerPurpose::Facts);
            message::send(&mut send, &open).await?;
            let answer = message::receive(&mut receive).await?;
            Ok::<_, MessageError>((send, receive, answer))
        });
        let Ok(asked) = asked.await else {
            return Ok(None);
        };
        let (send, receive, answer) = asked?;
        match answer {
            PeerMessage::Facts(facts) => {
                let over = CancellationToken::new();
                let report = Arc::new(TunnelReport {
                    heard: Mutex::new((clock::instant(), facts.heard)),
                    over,
                });
                let dropped = CancellationToken::new();
                tokio::spawn(follow(report.clone(), (send, receive), dropped.clone()));
                Ok(Some(TunnelAnswer::Tunnel(Arc::new(Self {
                    device,
                    generation,
                    facts,
                    link: link.clone(),
                    report,
                    _until_dropped: dropped.drop_guard(),
                }))))
            }
            PeerMessage::Refused(_) => Ok(Some(TunnelAnswer::NotHere)),
            _ => Err(MessageError::OutOfPlace),
        }
    }

    /// Opens a stream to the device.
    ///
    /// # Errors
    /// [`StreamError`].
    pub(super) async fn open_stream(
        &self,
        purpose: PeerPurpose,
    ) -> Result<DeviceStream, StreamError> {
        let (mut send, mut receive) = self.link.open_bi().await?;
        let open = open(self.device, self.generation, purpose);
        message::send(&mut send, &open).await?;
        let answer = {
            let mut answer = pin!(message::receive(&mut receive));
            match timeout(PEER_ANSWER_TIMEOUT, &mut answer).await {
                Ok(answer) => answer?,
                // The device may let it wait, but its relay answers at once.
                Err(_) => match Self::ask(&self.link, self.device, self.generation).await? {
                    Some(_) => answer.await?,
                    None => return Err(StreamError::Refused("does not answer")),
                },
            }
        };
        match answer {
            PeerMessage::Opened => Ok(DeviceStream { send, receive }),
            PeerMessage::Refused(PeerRefused::Busy) => Err(StreamError::Busy),
            PeerMessage::Refused(PeerRefused::NotHere) => {
                Err(StreamError::Refused("has not its tunnel any more"))
            }
            PeerMessage::Refused(PeerRefused::Stopping) => Err(StreamError::Refused("is stopping")),
            _ => Err(MessageError::OutOfPlace.into()),
        }
    }

    /// Returns whether the tunnel is the one of this generation, and is not gone as far as its relay has reported.
    pub(super) fn is_usable(&self, generation: Generation) -> bool {
        self.generation == generation
            && !self.report.over.is_cancelled()
            && self.link.close_reason().is_none()
    }

    /// Returns whether both are the same tunnel.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.device, self.generation) == (other.device, other.generation)
    }

    /// Returns the key of the relay that has it.
    pub(super) fn relay(&self) -> Option<PublicKey> {
        tls::peer_key(&self.link)
    }

    /// Returns the minor version that the device and its relay speak.
    pub(super) fn minor(&self) -> u16 {
        self.facts.minor
    }

    /// Returns how long a packet takes to the device and back: to its relay, and from there.
    pub(super) fn rtt(&self) -> Duration {
        let (_, heard) = *self.report.heard.lock();
        self.link.rtt() + Duration::from_micros(heard.rtt_us.into())
    }

    /// Returns for how long the device has been silent, as far as its relay has reported.
    pub(super) fn silence(&self) -> Duration {
        let (reported, heard) = *self.report.heard.lock();
        let since = clock::instant().saturating_duration_since(reported);
        since.saturating_add(Duration::from_millis(heard.silent_ms))
    }

    /// Returns its device as the audit log names it.
    pub(super) fn facts_of(&self, device: &Device) -> DeviceFacts {
        DeviceFacts {
            address: self.facts.local_address,
            clock_skew: Some(self.facts.clock_skew),
            ..DeviceFacts::of(device)
        }
    }

    /// Returns the addresses of the two machines that use the device's key, if there are two.
    pub(super) fn clones(&self) -> Option<ClonePair> {
        let (first, second): (SocketAddr, SocketAddr) = self.facts.clones?;
        Some(ClonePair { first, second })
    }
}

fn open(device: DeviceId, generation: Generation, purpose: PeerPurpose) -> PeerMessage {
    PeerMessage::Open(PeerOpen {
        device,
        generation,
        purpose,
    })
}

/// Takes the reports about a tunnel until it is gone, or nothing here uses it any more.
async fn follow(
    report: Arc<TunnelReport>,
    (mut send, mut receive): (SendStream, RecvStream),
    dropped: CancellationToken,
) {
    let reports = async {
        while let Ok(PeerMessage::Heard(heard)) = message::receive(&mut receive).await {
            *report.heard.lock() = (clock::instant(), heard);
        }
    };
    tokio::select! {
        () = dropped.cancelled() => {}
        () = reports => {}
    }
    report.over.cancel();
    let _ = send.reset(VarInt::from_u32(0));
}

impl fmt::Debug for PeerTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTunnel")
            .field("device", &self.device)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
