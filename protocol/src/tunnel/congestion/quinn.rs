//! [`Congestion`] as quinn wants it. It is here, behind the feature `quinn`, because both ends need the
//! same; the clock and the numbers come from quinn.

extern crate std;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

use super::{Congestion, RoundTrip};

/// Makes the congestion control of each path.
#[derive(Debug)]
pub struct Factory;

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(QuinnController {
            began: now,
            rtt: RoundTrip {
                smoothed: Duration::ZERO,
                sample: Duration::ZERO,
            },
            state: Congestion::new(Duration::ZERO, mtu),
            closes: Arc::default(),
        })
    }
}

/// Lifts the bound of a connection that is closed next. quinn holds the message that closes it back while the window is
/// full, and takes no acknowledgement any more that would empty it: the peer would wait for its idle timeout.
pub fn lift_for_close(state: Box<dyn Controller>) {
    if let Ok(controller) = state.into_any().downcast::<QuinnController>() {
        controller.closes.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct QuinnController {
    began: Instant,
    /// As it was at the last acknowledged packet.
    rtt: RoundTrip,
    state: Congestion,
    /// True if the connection is closed next. Copies share it.
    closes: Arc<AtomicBool>,
}

impl QuinnController {
    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

impl Controller for QuinnController {
    fn on_sent(&mut self, now: Instant, _bytes: u64, last_packet_number: u64) {
        self.state.sent(self.since(now), last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.rtt = RoundTrip {
            smoothed: rtt.get(),
            sample: now.saturating_duration_since(sent),
        };
        self.state.acknowledged(bytes, app_limited);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        _in_flight: u64,
        app_limited: bool,
        largest: Option<u64>,
    ) {
        let now = self.since(now);
        self.state
            .acknowledged_all(now, largest, app_limited, self.rtt);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        let now = self.since(now);
        self.state.lost(now, lost_bytes, is_persistent_congestion);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.state.set_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.closes.load(Ordering::Relaxed) {
            return u64::MAX;
        }
        self.state.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.state.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
