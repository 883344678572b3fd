//! The pipe between a stream of another relay and one of a device's tunnel: bytes, ends, resets and stops pass as they
//! are, both ways. While the fence is closed, bytes and ends wait, and what breaks a stream off passes. A loss passes as a
//! reset: to the other relay with the way the tunnel ended, to the device as the loss of the observer.

use bytes::Bytes;
use holdfast_protocol::wire::ResetCode;
use holdfast_protocol::wire::peer::TunnelLoss;
use quinn::{ConnectionError, ReadError, ResetError, StoppedError, VarInt, WriteError};

use super::stream::DeviceStream;
use crate::fence::StoreFence;

/// Chunks that are taken from a stream at once.
const CHUNKS: usize = 32;

/// The code that a device learns of the loss of the other relay by.
const OBSERVER_LOST: VarInt = VarInt::from_u32(ResetCode::Lost as u32);

/// Moves bytes both ways until both ends have said all, or one is lost, or the relay has lost its store for too long,
/// or its run is over.
pub(super) async fn run(mut peer: DeviceStream, mut device: DeviceStream, fence: &StoreFence) {
    let is_given_up = tokio::select! {
        () = join(&mut peer, &mut device, fence) => false,
        () = fence.given_up_or_over() => true,
    };
    if is_given_up {
        peer.reset(code_of(&ConnectionError::LocallyClosed));
        device.reset(OBSERVER_LOST);
    }
}

async fn join(peer: &mut DeviceStream, device: &mut DeviceStream, fence: &StoreFence) {
    let up = Passage {
        from: &mut peer.receive,
        to: &mut device.send,
        fence,
        source_lost: observer_lost,
        sink_lost: code_of,
    };
    let down = Passage {
        from: &mut device.receive,
        to: &mut peer.send,
        fence,
        source_lost: code_of,
        sink_lost: observer_lost,
    };
    tokio::join!(up.run(), down.run());
}

/// Gives the code for one end when the connection of the other is lost.
type LossCode = fn(&ConnectionError) -> VarInt;

fn observer_lost(_: &ConnectionError) -> VarInt {
    OBSERVER_LOST
}

/// Returns the code that says how a tunnel ended.
fn code_of(error: &ConnectionError) -> VarInt {
    let end = match error {
        ConnectionError::TimedOut => TunnelLoss::TimedOut,
        ConnectionError::LocallyClosed => TunnelLoss::ClosedHere,
        ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner())
            .map_or(TunnelLoss::Lost, TunnelLoss::Closed),
        _ => TunnelLoss::Lost,
    };
    VarInt::from_u64(end.code()).unwrap_or(VarInt::MAX)
}

/// One direction.
struct Passage<'a> {
    from: &'a mut quinn::RecvStream,
    to: &'a mut quinn::SendStream,
    fence: &'a StoreFence,
    /// The code for the sink when the connection of the source is lost.
    source_lost: LossCode,
    /// The code for the source when the connection of the sink is lost.
    sink_lost: LossCode,
}

/// The reason why a direction ends.
enum PassageEnd {
    /// The source has said all.
    Finished,
    /// The source was reset, with the code for the sink.
    Reset(VarInt),
    /// The sink takes no more, with the code for the source.
    Stopped(VarInt),
}

impl Passage<'_> {
    async fn run(mut self) {
        // What is closed already needs no end.
        match self.pass().await {
            PassageEnd::Finished => drop(self.to.finish()),
            PassageEnd::Reset(code) => drop(self.to.reset(code)),
            PassageEnd::Stopped(code) => drop(self.from.stop(code)),
        }
    }

    async fn pass(&mut self) -> PassageEnd {
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        loop {
            let read = tokio::select! {
                read = self.from.read_chunks(&mut chunks) => read,
                stopped = self.to.stopped() => return self.stopped(stopped),
            };
            let count = match read {
                Ok(Some(count)) => count,
                Ok(None) => return self.finished().await,
                Err(ReadError::Reset(code)) => return PassageEnd::Reset(code),
                Err(ReadError::ConnectionLost(error)) => {
                    return PassageEnd::Reset((self.source_lost)(&error));
                }
                Err(_) => return PassageEnd::Reset(OBSERVER_LOST),
            };
            if let Some(over) = self
                .write(chunks.get_mut(..count).unwrap_or_default())
                .await
            {
                return over;
            }
        }
    }

    /// Ends as soon as the fence is open, unless the sink takes no more before.
    async fn finished(&self) -> PassageEnd {
        tokio::select! {
            biased;
            () = self.fence.opened() => PassageEnd::Finished,
            stopped = self.to.stopped() => self.stopped(stopped),
        }
    }

    /// Writes chunks; what waits to be sent is given up as soon as the source is reset.
    async fn write(&mut self, chunks: &mut [Bytes]) -> Option<PassageEnd> {
        let mut may_be_reset = true;
        let mut written = std::pin::pin!(self.fence.pass(self.to.write_all_chunks(chunks)));
        loop {
            tokio::select! {
                biased;
                written = &mut written => return match written {
                    Ok(()) => None,
                    Err(WriteError::Stopped(code)) => Some(PassageEnd::Stopped(code)),
                    Err(WriteError::ConnectionLost(error)) => {
                        Some(PassageEnd::Stopped((self.sink_lost)(&error)))
                    }
                    Err(_) => Some(PassageEnd::Stopped(OBSERVER_LOST)),
                },
                reset = self.from.received_reset(), if may_be_reset => match reset {
                    Ok(Some(code)) => return Some(PassageEnd::Reset(code)),
                    // All of it has come.
                    Ok(None) => may_be_reset = false,
                    Err(ResetError::ConnectionLost(error)) => {
                        return Some(PassageEnd::Reset((self.source_lost)(&error)));
                    }
                    Err(_) => may_be_reset = false,
                },
            }
        }
    }

    fn stopped(&self, stopped: Result<Option<VarInt>, StoppedError>) -> PassageEnd {
        PassageEnd::Stopped(match stopped {
            Ok(Some(code)) => code,
            Err(StoppedError::ConnectionLost(error)) => (self.sink_lost)(&error),
            _ => OBSERVER_LOST,
        })
    }
}

#[cfg(test)]
mod tests;
