//! A device behind a NAT, the path, and a relay that answers: one link's world.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use holdfast_protocol::tunnel::link::{Link, LinkAction};

use crate::random::Random;

/// An event that may happen to a path or a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The NAT forgot its mappings, or changed its outside address: answers to the old one are lost, and
    /// the next datagram from inside makes a new mapping.
    MappingForgotten,
    /// Nothing passes to or from the present socket any more (a NAT with a stale entry); a new one works.
    SocketDead,
    /// Nothing passes at all for so long.
    Partition(Duration),
    /// So many datagrams of a hundred are lost, each way.
    Loss(u64),
    /// The device has another address: its present socket is dead, and the kernel has said so.
    AddressChanged,
    /// The kernel said that routes changed; nothing else happened.
    RoutesChanged,
    /// The device slept for so long: no timeout was served.
    Suspended(Duration),
    /// So many sessions live now.
    Sessions(u32),
}

/// A packet on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Packet {
    ToRelay {
        mapping: u64,
        echo: bool,
    },
    /// With an echo, the driver hears of it at once; a mere acknowledgement it sees at its next event.
    ToDevice {
        mapping: u64,
        echo: bool,
    },
}

pub(crate) struct World<'a> {
    pub(crate) random: &'a mut Random,
    link: Link,
    now: Duration,
    packets: BinaryHeap<Reverse<(Duration, u64, Packet)>>,
    /// The device's present socket, and which outside address the NAT maps each one to.
    socket: u64,
    mappings: HashMap<u64, u64>,
    next_mapping: u64,
    dead_socket: Option<u64>,
    partition_until: Duration,
    loss: u64,
    latency: Duration,
    sessions: u32,
    received: u64,
    noticed: u64,
    heard_at: Option<Duration>,
    dialling: bool,
    dials: u64,
    rebinds: u64,
    datagrams: u64,
}

impl<'a> World<'a> {
    /// A tunnel that has just been welcomed, on a path without a fault.
    pub(crate) fn new(random: &'a mut Random, keepalive: Duration) -> Self {
        let latency = random.millis(1..300);
        Self {
            link: Link::new(Duration::ZERO, keepalive),
            now: Duration::ZERO,
            packets: BinaryHeap::new(),
            socket: 0,
            mappings: HashMap::new(),
            next_mapping: 0,
            dead_socket: None,
            partition_until: Duration::ZERO,
            loss: 0,
            latency,
            sessions: 0,
            // Something of the handshake came that the driver has not noticed yet.
            received: 1,
            noticed: 0,
            heard_at: None,
            dialling: false,
            dials: 0,
            rebinds: 0,
            datagrams: 0,
            random,
        }
    }

    /// Lets a fault happen now.
    pub(crate) fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::MappingForgotten => self.mappings.clear(),
            Fault::SocketDead => self.dead_socket = Some(self.socket),
            Fault::Partition(time) => self.partition_until = self.now + time,
            Fault::Loss(percent) => self.loss = percent,
            Fault::AddressChanged => {
                self.mappings.clear();
                self.dead_socket = Some(self.socket);
                self.link.handle_address_change(self.now);
            }
            Fault::RoutesChanged => self.link.handle_route_change(self.now),
            Fault::Suspended(time) => {
                // What arrives while the device sleeps is lost.
                self.now += time;
                let now = self.now;
                self.packets.retain(|Reverse((at, ..))| *at > now);
            }
            Fault::Sessions(sessions) => {
                self.sessions = sessions;
                self.link.handle_sessions(sessions);
            }
        }
        self.act();
    }

    /// No partition and no loss any more. A dead socket stays dead: it is the link's to leave it.
    pub(crate) fn heal(&mut self) {
        self.loss = 0;
        self.partition_until = self.now;
    }

    /// Runs until `end`.
    pub(crate) fn run_until(&mut self, end: Duration) {
        loop {
            let late = if self.random.chance(10) {
                self.random.millis(0..200)
            } else {
                Duration::ZERO
            };
            let timeout = self.link.poll_timeout().max(self.now) + late;
            let packet = self.packets.peek().map(|Reverse((at, ..))| *at);
            if timeout.min(packet.unwrap_or(timeout)) > end {
                self.now = self.now.max(end);
                return;
            }
            match packet {
                Some(at) if at <= timeout => {
                    self.now = self.now.max(at);
                    if let Some(Reverse((.., packet))) = self.packets.pop() {
                        self.arrive(packet);
                    }
                }
                _ => {
                    self.now = timeout;
                    self.notice();
                    self.link.handle_timeout(self.now);
                }
            }
            self.act();
            let pause = self.link.poll_timeout().saturating_sub(self.now);
            assert!(pause <= Duration::from_secs(120), "it sleeps for {pause:?}");
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Returns whether anything was received that was sent at or after `time`, or came after it.
    pub(crate) fn heard_since(&self, time: Duration) -> bool {
        self.heard_at.is_some_and(|heard| heard >= time)
    }

    pub(crate) fn socket_is_dead(&self) -> bool {
        self.dead_socket == Some(self.socket)
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.latency * 2
    }

    pub(crate) fn is_dialling(&self) -> bool {
        self.dialling
    }

    pub(crate) fn dials(&self) -> u64 {
        self.dials
    }

    pub(crate) fn rebinds(&self) -> u64 {
        self.rebinds
    }

    pub(crate) fn datagrams(&self) -> u64 {
        self.datagrams
    }

    /// Does what the link wants, as the agent's driver does.
    fn act(&mut self) {
        while let Some(action) = self.link.poll_action() {
            match action {
                LinkAction::Beat(beat) => self.send(beat.echo),
                LinkAction::Rebind => {
                    self.rebinds += 1;
                    self.socket += 1;
                }
                LinkAction::Dial => {
                    assert!(!self.dialling, "it dials already");
                    self.dialling = true;
                    self.dials += 1;
                }
                LinkAction::StopDialling => {
                    assert!(self.dialling, "there is nothing to stop");
                    self.dialling = false;
                }
            }
        }
    }

    fn send(&mut self, echo: bool) {
        self.datagrams += 1;
        if self.is_lost() || self.dead_socket == Some(self.socket) {
            return;
        }
        let next = &mut self.next_mapping;
        let mapping = *self.mappings.entry(self.socket).or_insert_with(|| {
            *next += 1;
            *next
        });
        self.carry(Packet::ToRelay { mapping, echo });
    }

    fn arrive(&mut self, packet: Packet) {
        match packet {
            Packet::ToRelay { mapping, echo } => {
                self.datagrams += 1;
                if !self.is_lost() {
                    let echo = echo || self.sessions > 0;
                    self.carry(Packet::ToDevice { mapping, echo });
                }
            }
            Packet::ToDevice { mapping, echo } => {
                let is_mine = self.mappings.get(&self.socket) == Some(&mapping);
                if is_mine && self.dead_socket != Some(self.socket) {
                    self.received += 1;
                    self.heard_at = Some(self.now);
                    if echo {
                        // QUIC acknowledges it.
                        self.datagrams += 1;
                        self.notice();
                    }
                }
            }
        }
    }

    /// The driver asks its connection whether datagrams came, whenever something wakes it.
    fn notice(&mut self) {
        if self.received > self.noticed {
            self.noticed = self.received;
            self.link.handle_heard();
        }
    }

    fn is_lost(&mut self) -> bool {
        self.now < self.partition_until || self.random.chance(self.loss)
    }

    fn carry(&mut self, packet: Packet) {
        let jitter = self.random.millis(0..100);
        let order = self.random.pick(0..u64::MAX);
        let at = self.now + self.latency + jitter;
        self.packets.push(Reverse((at, order, packet)));
    }
}
