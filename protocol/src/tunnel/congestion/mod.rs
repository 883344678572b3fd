//! Bounds how much of a tunnel may be under way: a congestion control for bad links with people on them.
//!
//! It is a small relative of BBR (draft-ietf-ccwg-bbr): it measures how fast the path delivers and how long an
//! empty path takes, keeps that product in flight and little more, and takes loss for noise until there is much
//! of it. So one lost packet in a hundred costs nothing, and a bulk copy leaves the queue of the device's
//! uplink to the keystrokes. What differs from BBR is what bad links taught: the empty path's time is the least
//! of *averages*, measured anew every few seconds, because a radio link's least sample says nothing about the
//! rest; and no window is ever so small that the answer to it waits for a timer.
//!
//! `docs/design-notes.md` says why quinn's own controllers are not used.

#[cfg(feature = "quinn")]
pub mod quinn;

use core::time::Duration;

use crate::limits::ACK_EVERY;

/// The shortest span that is measured at once. On a fast network a round trip is too short to tell a path's
/// rate from the scheduler's mood.
const MIN_ROUND: Duration = Duration::from_millis(5);

/// The longest: a queue of many seconds must not make the measurement as slow.
const MAX_ROUND: Duration = Duration::from_secs(1);

/// Limits how many rounds a measured rate is believed.
const RATE_ROUNDS: usize = 10;

/// Limits how long a measured time of the empty path is believed.
const BASE_LIFE: Duration = Duration::from_secs(10);

/// After so long without a full load a path is taken for an unknown one.
const MODEL_LIFE: Duration = Duration::from_secs(10);

/// The least queue that is allowed for: it covers the jitter of timers and of acknowledgements.
const MIN_SLACK: Duration = Duration::from_millis(4);

/// Rounds of one cycle of probing: two above the measured rate, because what the first of them sends is only
/// acknowledged in the second; one below; the rest at it.
const CYCLE: u32 = 9;

/// A round trip that is longer by this, and by half, than on the empty path has met a queue.
const QUEUED: Duration = Duration::from_millis(50);

/// The window before anything is known, in packets (RFC 9002 section 7.2).
const INITIAL_PACKETS: u64 = 10;

/// The least window, in packets: with one of them lost there must be enough for an answer at once
/// ([`crate::limits::ACK_EVERY`]).
const MIN_PACKETS: u64 = 5;

/// Loss above a fifth of a round is the path's answer, not its noise.
const LOSS_LIMIT: u64 = 5;

/// The state of one direction of one path. Times are since any fixed moment.
#[derive(Clone, Debug)]
pub struct Congestion {
    mtu: u64,
    window: u64,
    mode: Mode,
    /// Bytes a second of the last rounds at full load.
    rates: [u64; RATE_ROUNDS],
    next_rate: usize,
    base: Option<Base>,
    /// Above this the path lost too much.
    ceiling: Option<u64>,
    round: Round,
    last_sent: Duration,
    last_packet: u64,
    last_loaded: Duration,
}

/// The empty path's round-trip time, and when it was measured.
#[derive(Clone, Copy, Debug)]
struct Base {
    rtt: Duration,
    at: Duration,
}

/// The information of an acknowledgement about the path's length.
#[derive(Clone, Copy, Debug)]
pub struct RoundTrip {
    /// Smoothed, and without the receiver's own delay: slow to see that a queue has gone.
    pub smoothed: Duration,
    /// Of its newest packet, with the receiver's delay in it.
    pub sample: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Doubling, until the rate stops growing: the best rate so far, and rounds since it grew.
    Startup { best: u64, flat: u32 },
    /// At the measured rate, in this round of the cycle.
    Steady { step: u32 },
    /// A quarter of a window for so many more rounds, to see the path empty.
    Measure { left: u32 },
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    began: Duration,
    /// It ends when a packet after this one is acknowledged.
    last_packet: u64,
    delivered: u64,
    lost: u64,
    /// The sum of the round-trip times of its acknowledgements, and how many they are.
    samples: Duration,
    sampled: u32,
    /// True if it ended by a packet, and not because it took too long.
    whole: bool,
    /// True if there was nothing to send at some time of it, so that it says nothing about the path's rate.
    limited: bool,
}

impl Congestion {
    /// Returns a path about which nothing is known, for datagrams of `mtu` bytes.
    #[must_use]
    pub fn new(now: Duration, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            window: INITIAL_PACKETS * mtu,
            mode: Mode::Startup { best: 0, flat: 0 },
            rates: [0; RATE_ROUNDS],
            next_rate: 0,
            base: None,
            ceiling: None,
            round: Round {
                began: now,
                ..Round::default()
            },
            last_sent: now,
            last_packet: 0,
            last_loaded: now,
        }
    }

    /// Returns how many bytes may be under way.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Returns the window of an unknown path.
    #[must_use]
    pub fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    /// Sets the size of a datagram on this path.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
        self.window = self.window.max(self.floor());
    }

    /// Notes that a packet of that number was sent.
    pub fn sent(&mut self, now: Duration, packet: u64) {
        if now.saturating_sub(self.last_sent) > MODEL_LIFE {
            self.forget(now);
        }
        self.last_sent = now;
        self.last_packet = packet;
    }

    /// Handles the acknowledgement of a packet of `bytes`; `limited` if there was nothing to send before it.
    pub fn acknowledged(&mut self, bytes: u64, limited: bool) {
        self.round.delivered += bytes;
        if matches!(self.mode, Mode::Startup { .. }) && !limited {
            self.window = self.window.saturating_add(bytes);
        }
    }

    /// Notes that all packets of an acknowledgement were reported; `largest` is the greatest number among them.
    pub fn acknowledged_all(
        &mut self,
        now: Duration,
        largest: Option<u64>,
        limited: bool,
        rtt: RoundTrip,
    ) {
        self.round.limited |= limited;
        self.round.samples += rtt.sample;
        self.round.sampled += 1;
        let rtt = rtt.smoothed.min(self.round.samples / self.round.sampled);
        let over = largest.is_some_and(|largest| largest > self.round.last_packet);
        let elapsed = now.saturating_sub(self.round.began);
        let longest = MAX_ROUND.max(self.base_rtt(rtt) * 2);
        if elapsed < longest && (!over || elapsed < MIN_ROUND.max(rtt / 2)) {
            return;
        }
        let round = Round {
            whole: over,
            ..self.round
        };
        self.round = Round {
            began: now,
            last_packet: self.last_packet,
            ..Round::default()
        };
        self.end_round(now, &round, elapsed, rtt);
    }

    /// Handles the loss of `bytes`; `persistent` if nothing came through for a long time (RFC 9002 section 7.6).
    pub fn lost(&mut self, now: Duration, bytes: u64, persistent: bool) {
        self.round.lost += bytes;
        if persistent {
            self.forget(now);
            self.window = self.floor();
        }
    }

    fn end_round(&mut self, now: Duration, round: &Round, elapsed: Duration, rtt: Duration) {
        let rate = rate(round.delivered, elapsed);
        let before = self.rate();
        let base = self.base_rtt(rtt);
        let settled = matches!(self.mode, Mode::Steady { step: 4.. });
        if !round.limited && settled && rtt > base * 2 + QUEUED {
            // So long a queue is a bottleneck at its rate, and whatever was measured before is over.
            self.rates = [rate; RATE_ROUNDS];
        } else if !round.limited || rate > before {
            self.rates[self.next_rate] = rate;
            self.next_rate = (self.next_rate + 1) % RATE_ROUNDS;
        }
        self.measure_base(now, round, rtt);
        if round.limited {
            if now.saturating_sub(self.last_loaded) > MODEL_LIFE
                && !matches!(self.mode, Mode::Startup { .. })
            {
                self.forget(now);
            }
            return;
        }
        self.last_loaded = now;
        let lossy = round.lost * LOSS_LIMIT > round.lost + round.delivered;
        self.limit_loss(lossy, rate);
        self.mode = match self.mode {
            // What the queue held when the window was lowered has not come through yet.
            Mode::Measure { .. } if !round.whole => self.mode,
            _ => self.next_mode(now, rate, before, rtt, lossy),
        };
        if !matches!(self.mode, Mode::Startup { .. }) {
            self.window = self.target();
        }
    }

    fn next_mode(&self, now: Duration, rate: u64, before: u64, rtt: Duration, lossy: bool) -> Mode {
        match self.mode {
            Mode::Startup { best, flat } => {
                if rate >= best + best / 4 && !lossy {
                    return Mode::Startup {
                        best: rate,
                        flat: 0,
                    };
                }
                // With a queue that has begun to grow, one flat round is proof enough.
                let base = self.base_rtt(rtt);
                let queued = rtt > base + base / 4 + MIN_SLACK;
                let tolerated = if lossy || queued { 0 } else { 2 };
                if flat >= tolerated {
                    // Below the rate first: what was too much is still under way.
                    return Mode::Steady { step: 2 };
                }
                Mode::Startup {
                    best: best.max(rate),
                    flat: flat + 1,
                }
            }
            Mode::Steady { .. } if self.base_is_old(now) => Mode::Measure { left: 2 },
            // As long as probing pays, the path has become faster: go on at once.
            Mode::Steady { step: 1 } if rate > before + before / 16 && !lossy => {
                Mode::Steady { step: 1 }
            }
            Mode::Steady { step } => Mode::Steady {
                step: (step + 1) % CYCLE,
            },
            Mode::Measure { left: 0 | 1 } => Mode::Steady { step: 0 },
            Mode::Measure { left } => Mode::Measure { left: left - 1 },
        }
    }

    /// Takes a round's time for the empty path's, if it is shorter than what was known, or that is out of date.
    fn measure_base(&mut self, now: Duration, round: &Round, rtt: Duration) {
        let measured = Base { rtt, at: now };
        let Some(base) = self.base else {
            self.base = Some(measured);
            return;
        };
        // A path without load shows its length at any time, a loaded one only when it was emptied for that.
        let measured_empty = round.whole && self.mode == Mode::Measure { left: 1 };
        let empty = round.limited || measured_empty;
        if rtt <= base.rtt || (empty && self.base_is_old(now)) {
            self.base = Some(measured);
        }
        if rtt > base.rtt + base.rtt / 2 + MIN_SLACK && self.base.is_some_and(|b| b.at == now) {
            // Another path: much longer, so that what was measured on the old one is worth nothing.
            self.mode = Mode::Startup { best: 0, flat: 0 };
        }
    }

    /// Loss that is no noise lowers the ceiling, but never below what came through in spite of it.
    fn limit_loss(&mut self, lossy: bool, rate: u64) {
        if lossy {
            let most = self.ceiling.unwrap_or(u64::MAX).min(self.window);
            let came_through = bytes(rate, self.base_rtt(Duration::ZERO));
            self.ceiling = Some((most - most / 6).max(came_through).max(self.floor()));
        } else if let Some(ceiling) = self.ceiling {
            let raised = ceiling + (ceiling / 4).max(self.mtu);
            self.ceiling = Some(raised).filter(|raised| *raised < 2 * self.unlimited_target());
        }
    }

    fn target(&self) -> u64 {
        let most = self.ceiling.unwrap_or(u64::MAX);
        self.unlimited_target().min(most).max(self.floor())
    }

    fn unlimited_target(&self) -> u64 {
        let base = self.base_rtt(Duration::ZERO);
        let slack = MIN_SLACK.max(base / 8);
        let span = match self.mode {
            Mode::Steady { step: 0 | 1 } => base * 5 / 4 + slack,
            Mode::Steady { step: 2 } => base * 3 / 4 + slack / 2,
            Mode::Measure { .. } => base / 4,
            Mode::Steady { .. } | Mode::Startup { .. } => base + slack,
        };
        // What the receiver holds back before it answers is under way, too.
        bytes(self.rate(), span).saturating_add(u64::from(ACK_EVERY) * self.mtu)
    }

    fn rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or(0)
    }

    fn base_rtt(&self, otherwise: Duration) -> Duration {
        self.base.map_or(otherwise, |base| base.rtt)
    }

    fn base_is_old(&self, now: Duration) -> bool {
        self.base
            .is_none_or(|base| now.saturating_sub(base.at) > BASE_LIFE)
    }

    fn floor(&self) -> u64 {
        MIN_PACKETS * self.mtu
    }

    /// Forgets what was measured of the path, except its length, which is kept until it is measured again.
    fn forget(&mut self, now: Duration) {
        self.mode = Mode::Startup { best: 0, flat: 0 };
        self.rates = [0; RATE_ROUNDS];
        self.ceiling = None;
        self.round = Round {
            began: now,
            last_packet: self.last_packet,
            ..Round::default()
        };
        self.window = self.window.min(self.initial_window());
        self.window = self.window.max(self.floor());
        self.last_loaded = now;
    }
}

/// Returns what a rate delivers in a span.
fn bytes(rate: u64, span: Duration) -> u64 {
    let bytes = u128::from(rate).saturating_mul(span.as_micros()) / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Returns bytes a second.
fn rate(bytes: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}
