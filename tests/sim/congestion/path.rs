//! A bottleneck with a queue, loss and jitter, a receiver that acknowledges as QUIC's does, and a sender that
//! always has something to send.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use holdfast_protocol::limits::ACK_EVERY;
use holdfast_protocol::tunnel::congestion::{Congestion, RoundTrip};

use super::MTU;
use crate::random::Random;

/// The receiver acknowledges after this, whatever has come.
const ACK_DELAY: Duration = Duration::from_millis(25);

/// Packets that overtake each other by fewer places are not lost (RFC 9002 section 6.1.1).
const REORDERING: u64 = 3;

#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Bytes a second.
    pub(super) rate: u64,
    /// Of the empty path.
    pub(super) round_trip: Duration,
    /// Bytes that wait before the bottleneck drops.
    pub(super) buffer: u64,
    pub(super) loss_percent: u64,
    /// The most that a packet is late beside the queue.
    pub(super) jitter: Duration,
}

#[derive(Debug)]
pub(super) struct Measured {
    /// Of what the path could have delivered.
    pub(super) used_percent: u64,
    /// The mean time in the queue.
    pub(super) queue: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// At the receiver.
    Arrives(u64),
    /// The receiver's timer.
    AckTimer,
    /// Up to this packet, at the sender.
    Acknowledged(u64),
    /// The sender's timer for silence.
    Silence(u64),
    /// One keystroke.
    Key,
}

pub(super) struct Run {
    path: Path,
    control: Congestion,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    order: u64,
    /// Sent and neither acknowledged nor lost.
    under_way: BTreeMap<u64, Duration>,
    next_packet: u64,
    link_free: Duration,
    last_arrival: Duration,
    /// Received and not acknowledged.
    received: Vec<u64>,
    acknowledging: BTreeMap<u64, Vec<u64>>,
    next_ack: u64,
    smoothed: Option<Duration>,
    silences: u32,
    greedy: bool,
    delivered: u64,
    waited: Duration,
    packets: u32,
}

impl Run {
    pub(super) fn new(path: Path, random: &mut Random) -> Self {
        let mut run = Self {
            path,
            control: Congestion::new(Duration::ZERO, u16::try_from(MTU).unwrap()),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            order: 0,
            under_way: BTreeMap::new(),
            next_packet: 1,
            link_free: Duration::ZERO,
            last_arrival: Duration::ZERO,
            received: vec![],
            acknowledging: BTreeMap::new(),
            next_ack: 0,
            smoothed: None,
            silences: 0,
            greedy: true,
            delivered: 0,
            waited: Duration::ZERO,
            packets: 0,
        };
        run.watch_silence();
        run.fill(random);
        run
    }

    pub(super) fn change(&mut self, path: Path) {
        self.path = path;
    }

    /// The next acknowledgement says this, as a packet that the kernel turned round by itself would.
    pub(super) fn say_round_trip(&mut self, sample: Duration) {
        self.smoothed = Some(sample);
        let largest = self.next_packet;
        self.control.acknowledged_all(
            self.now,
            Some(largest),
            false,
            RoundTrip {
                smoothed: sample,
                sample,
            },
        );
    }

    /// Goes on for a span.
    pub(super) fn until(&mut self, span: Duration, random: &mut Random) {
        self.greedy = true;
        self.fill(random);
        self.go(self.now + span, random);
    }

    /// A key every 100 ms, and nothing else.
    pub(super) fn type_for(&mut self, span: Duration, random: &mut Random) {
        self.greedy = false;
        let end = self.now + span;
        self.after(Duration::from_millis(100), Event::Key);
        self.go(end, random);
    }

    pub(super) fn measure(&mut self, span: Duration, random: &mut Random) -> Measured {
        (self.delivered, self.waited, self.packets) = (0, Duration::ZERO, 0);
        self.go(self.now + span, random);
        let possible = u128::from(self.path.rate) * span.as_micros() / 1_000_000;
        Measured {
            used_percent: u64::try_from(u128::from(self.delivered) * 100 / possible).unwrap(),
            queue: self.waited / self.packets.max(1),
        }
    }

    fn go(&mut self, end: Duration, random: &mut Random) {
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at;
            self.happen(event, random);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event, random: &mut Random) {
        match event {
            Event::Arrives(packet) => {
                self.received.push(packet);
                if self.received.len() == 1 {
                    self.after(ACK_DELAY, Event::AckTimer);
                }
                if self.received.len() > ACK_EVERY as usize {
                    self.acknowledge();
                }
            }
            Event::AckTimer => self.acknowledge(),
            Event::Acknowledged(ack) => self.take_ack(ack),
            Event::Silence(seen) => self.take_silence(seen),
            Event::Key => {
                if !self.greedy {
                    self.send(random);
                    self.after(Duration::from_millis(100), Event::Key);
                }
            }
        }
        self.fill(random);
    }

    fn acknowledge(&mut self) {
        if self.received.is_empty() {
            return;
        }
        let packets = std::mem::take(&mut self.received);
        let ack = self.next_ack;
        self.next_ack += 1;
        self.acknowledging.insert(ack, packets);
        self.after(self.path.round_trip / 2, Event::Acknowledged(ack));
    }

    fn take_ack(&mut self, ack: u64) {
        let packets = self.acknowledging.remove(&ack).unwrap_or_default();
        let Some(largest) = packets.iter().max().copied() else {
            return;
        };
        let limited = !self.greedy;
        let sent = self.under_way.get(&largest);
        let sample = sent.map(|sent| self.now.saturating_sub(*sent));
        if let Some(sample) = sample {
            // What the receiver waited by itself is taken off, as QUIC does.
            let smoothed = self.smoothed.unwrap_or(sample);
            self.smoothed = Some(smoothed * 7 / 8 + sample / 8);
        }
        for packet in packets {
            if self.under_way.remove(&packet).is_some() {
                self.delivered += MTU;
                self.control.acknowledged(MTU, limited);
            }
        }
        self.silences = 0;
        let smoothed = self.smoothed.unwrap_or_default();
        let round_trip = RoundTrip {
            smoothed,
            sample: sample.unwrap_or(smoothed),
        };
        self.control
            .acknowledged_all(self.now, Some(largest), limited, round_trip);
        let lost: Vec<u64> = self
            .under_way
            .range(..largest.saturating_sub(REORDERING))
            .map(|(packet, _)| *packet)
            .collect();
        for packet in &lost {
            self.under_way.remove(packet);
        }
        if !lost.is_empty() {
            self.control.lost(self.now, lost.len() as u64 * MTU, false);
        }
    }

    /// Nothing was acknowledged since: all is lost, and after some such times the path is.
    fn take_silence(&mut self, seen: u64) {
        if self.next_ack == seen && !self.under_way.is_empty() {
            self.silences += 1;
            let lost = self.under_way.len() as u64 * MTU;
            self.under_way.clear();
            self.control.lost(self.now, lost, self.silences >= 3);
        }
        self.watch_silence();
    }

    fn watch_silence(&mut self) {
        let timeout = self.smoothed.unwrap_or(Duration::from_millis(300)) * 3 + ACK_DELAY;
        self.after(
            timeout * (1 << self.silences.min(2)),
            Event::Silence(self.next_ack),
        );
    }

    fn fill(&mut self, random: &mut Random) {
        while self.greedy && (self.under_way.len() as u64 + 1) * MTU <= self.control.window() {
            self.send(random);
        }
    }

    fn send(&mut self, random: &mut Random) {
        let packet = self.next_packet;
        self.next_packet += 1;
        self.under_way.insert(packet, self.now);
        self.control.sent(self.now, packet);
        if random.chance(self.path.loss_percent) {
            return;
        }
        let waits = self.link_free.saturating_sub(self.now);
        let queued = u128::from(self.path.rate) * waits.as_micros() / 1_000_000;
        if queued + u128::from(MTU) > u128::from(self.path.buffer) {
            return;
        }
        self.waited += waits;
        self.packets += 1;
        let takes = Duration::from_micros(MTU * 1_000_000 / self.path.rate);
        self.link_free = self.now + waits + takes;
        let late = Duration::from_micros(
            random.pick(0..1 + u64::try_from(self.path.jitter.as_micros()).unwrap()),
        );
        let arrives = (self.link_free + self.path.round_trip / 2 + late).max(self.last_arrival);
        self.last_arrival = arrives;
        self.push(arrives, Event::Arrives(packet));
    }

    fn after(&mut self, span: Duration, event: Event) {
        self.push(self.now + span, event);
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }
}
