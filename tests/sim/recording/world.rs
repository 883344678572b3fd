//! A device that records, a link that breaks, and a relay that stores.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, DeviceName, Login, SessionId, UserName};
use holdfast_protocol::limits::{EXPECT_WITHIN, MINOR_VERSION, WRITE_DELAY};
use holdfast_protocol::recording::chain::ChainKey;
use holdfast_protocol::recording::ingest::UploadStream;
use holdfast_protocol::recording::medium::{FileName, Medium, SegmentName};
use holdfast_protocol::recording::record::{
    EndReason, Event, ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened,
    RecordingStart, StartedWork, Stream,
};
use holdfast_protocol::recording::spool::{
    Accept, Begin, DataPiece, Recovered, Spool, SpoolConfig, SpoolWork, Sync, Unavailable, perform,
};
use holdfast_protocol::recording::upload::{UploadAction, UploadConfig, UploadPolicy, Uploader};
use holdfast_protocol::wire::{
    Exit, RecordingMode, RecordingTerms, SegmentLost, StdinMode, UploadAnswer, UploadMessage,
    WindowSize,
};

use super::medium::SimMedium;
use super::relay::{Output, SimRelay, SimStream};
use crate::random::Random;

pub(super) struct World<'r> {
    pub(super) random: &'r mut Random,
    now: Duration,
    pub(super) config: SpoolConfig,
    pub(super) medium: SimMedium,
    pub(super) spool: Spool,
    uploader: Uploader,
    pub(super) relay: SimRelay,
    connected: bool,
    /// The time when the tunnel was.
    opened: Duration,
    up: SimStream,
    /// So many were opened.
    streams: u64,
    /// Streams that were given up, and what of them arrives all the same.
    old: Vec<SimStream>,
    down: VecDeque<UploadAnswer>,
    /// Reports that were under way when a tunnel was lost.
    stale: Vec<UploadMessage>,
    pub(super) sessions: Vec<SimSession>,
    /// The bytes that the medium has acknowledged as safe.
    pub(super) acknowledged: BTreeMap<SegmentName, u64>,
    pub(super) recovered: Vec<Recovered>,
}

pub(super) struct SimSession {
    pub(super) id: SessionId,
    pub(super) strict: bool,
    pub(super) live: bool,
    pub(super) crashed: bool,
    pub(super) shown: Vec<u8>,
    shown_at: Vec<(Duration, usize)>,
    /// So much of what was shown has to survive a power cut.
    safe: usize,
    /// Forwards that were accepted and have not ended, and how many there were.
    open: Vec<u32>,
    forwards: u32,
}

impl<'r> World<'r> {
    pub(super) fn new(random: &'r mut Random, max_bytes: u64, sync: Sync) -> Self {
        let config = SpoolConfig {
            max_bytes,
            reserve: 64 * 1024,
            sync,
        };
        let mut medium = SimMedium::new(random.split());
        let (spool, recovered) = Spool::recover(config, &mut medium).unwrap();
        assert_eq!(recovered, Recovered::default());
        let upload = UploadConfig {
            policy: UploadPolicy::Always,
            rate: None,
            daily: None,
        };
        let now = Duration::from_secs(100);
        let mut uploader = Uploader::new(upload);
        uploader.handle_recovered(now, SegmentLost::Missing);
        Self {
            random,
            now,
            config,
            medium,
            spool,
            uploader,
            relay: SimRelay::new(),
            connected: false,
            opened: Duration::ZERO,
            up: SimStream::default(),
            streams: 0,
            old: vec![],
            down: VecDeque::new(),
            stale: vec![],
            sessions: vec![],
            acknowledged: BTreeMap::new(),
            recovered: vec![],
        }
    }

    pub(super) fn begin(&mut self, mode: RecordingMode) -> Result<usize, Unavailable> {
        let number = u8::try_from(self.sessions.len()).unwrap();
        let id = SessionId([number; 16]);
        let terms = RecordingTerms {
            mode,
            stdin: StdinMode::Redact,
            key: ChainKey([number ^ 0x55; 32]),
            recover: false,
        };
        let begin = Begin {
            terms: &terms,
            key: Some(self.relay.secrets[0].public()),
            seed: [number; 32],
            start: start(id, mode),
            content_max: None,
            rest_of_command: &[],
        };
        let begun = self.spool.begin(self.now, &begin);
        if begun.is_err() && mode == RecordingMode::Strict {
            begun?;
        }
        self.relay.begin(id, terms.key, self.now);
        self.sessions.push(SimSession {
            id,
            strict: mode == RecordingMode::Strict,
            live: begun.is_ok(),
            crashed: begun.is_err(),
            shown: vec![],
            shown_at: vec![],
            safe: 0,
            open: vec![],
            forwards: 0,
        });
        if begun.is_err() {
            // It goes on unrecorded; the relay is informed of that.
            self.relay.session_over(id, self.now + EXPECT_WITHIN);
        }
        begun.map(|()| self.sessions.len() - 1)
    }

    /// A process writes a frame of output; what is accepted is shown.
    pub(super) fn output(&mut self, session: usize, length: usize) {
        let byte = self.random.pick(0..256);
        let spread = [1, 7, 256][self.random.index(3)];
        let mut left = length;
        let frame: Vec<u8> = (0..length)
            .map(|_| (byte + self.random.pick(0..spread)).to_le_bytes()[0])
            .collect();
        for part in frame.chunks(1 + self.random.index(length)) {
            left -= part.len();
            if !self.show(session, part, left) {
                return;
            }
        }
    }

    fn show(&mut self, session: usize, bytes: &[u8], remaining: usize) -> bool {
        let id = self.sessions[session].id;
        let piece = DataPiece {
            stream: Stream::Stdout,
            bytes,
            remaining,
            hidden: false,
        };
        let mut accept = self.spool.accept_data(self.now, id, piece);
        while accept == Accept::Wait {
            // Back-pressure: the process pauses until the medium is done, for good or not.
            self.work();
            self.now += Duration::from_millis(10);
            accept = self.spool.accept_data(self.now, id, piece);
        }
        match accept {
            Accept::Accepted | Accept::Gap => {
                let sim = &mut self.sessions[session];
                assert!(
                    !sim.strict || accept == Accept::Accepted,
                    "a gap under strict"
                );
                sim.shown.extend_from_slice(bytes);
                sim.shown_at.push((self.now, sim.shown.len()));
                let kept = self.relay.sessions.get_mut(&id).unwrap();
                kept.witness.update(bytes, remaining);
                true
            }
            Accept::Refused(why) => {
                assert!(self.sessions[session].strict, "{why}");
                self.end(session, EndReason::SpoolFull);
                false
            }
            Accept::Wait => unreachable!(),
        }
    }

    pub(super) fn resize(&mut self, session: usize) {
        let size = Event::Resize(WindowSize::clamped(80, 24, 0, 0));
        let id = self.sessions[session].id;
        if let Accept::Refused(_) = self.spool.accept(self.now, id, size) {
            self.end(session, EndReason::SpoolFull);
        }
    }

    /// A forward that is logged in this recording begins.
    pub(super) fn open_forward(&mut self, session: usize) {
        let sim = &mut self.sessions[session];
        let opened = ForwardOpened {
            id: sim.forwards,
            to: "localhost:80",
            from: "",
            direction: ForwardDirection::Out,
            address: None,
        };
        match self.spool.accept_opened(self.now, sim.id, opened) {
            Accept::Accepted => {
                sim.open.push(sim.forwards);
                sim.forwards += 1;
            }
            Accept::Refused(why) => {
                assert!(sim.strict, "{why}");
                self.end(session, EndReason::SpoolFull);
            }
            Accept::Gap | Accept::Wait => {}
        }
    }

    /// One of them ends, however full the spool is.
    pub(super) fn close_forward(&mut self, session: usize) {
        let sim = &mut self.sessions[session];
        if let Some(id) = sim.open.pop() {
            let closed = ForwardClosed {
                id,
                sent: u64::MAX,
                received: u64::MAX,
                why: ForwardEnding::Closed,
            };
            let accept = self.spool.accept_closed(self.now, sim.id, closed);
            assert_eq!(accept, Accept::Accepted, "the end of a forward that began");
        }
    }

    pub(super) fn end(&mut self, session: usize, why: EndReason) {
        while !self.sessions[session].open.is_empty() {
            self.close_forward(session);
        }
        let sim = &mut self.sessions[session];
        sim.live = false;
        let exit = Event::Exit(Exit::Status(0));
        self.spool.end(self.now, sim.id, Some(exit), why);
        self.relay.session_over(sim.id, self.now + EXPECT_WITHIN);
    }

    /// Time passes, and the medium is given what is due.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.work();
        while let Some(at) = self.spool.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now + Duration::from_millis(1));
            self.work();
        }
        self.now = self.now.max(end);
        self.work();
        self.exchange();
    }

    fn work(&mut self) {
        let mut healthy = true;
        while let Some(work) = self.spool.poll_work(self.now) {
            let outcome = perform(&mut self.medium, &work);
            healthy &= outcome.is_ok();
            let used = self.medium.used();
            let max = self.config.max_bytes;
            assert!(used <= max, "{used} bytes on the medium, {max} allowed");
            if outcome.is_ok() {
                match &work {
                    SpoolWork::Write(write) if write.sync => {
                        let end = write.at + write.bytes.len() as u64;
                        self.acknowledged.insert(write.segment, end);
                    }
                    SpoolWork::Write(_) => {}
                    SpoolWork::Remove(name) | SpoolWork::SetAside(name) => {
                        self.acknowledged.remove(name);
                    }
                }
            }
            let stuck = matches!(work, SpoolWork::Remove(_)) && outcome.is_err();
            self.spool.handle_done(self.now, work, outcome);
            if stuck {
                break;
            }
        }
        assert!(self.spool.used() <= self.config.max_bytes);
        if healthy && self.spool.trouble().is_none() {
            self.note_safe();
        }
    }

    /// With a medium that is well, nothing waits longer than the delay. (A gap that is open when power is
    /// cut leaves no trace.)
    fn note_safe(&mut self) {
        if self.config.sync != Sync::Block || self.spool.poll_timeout() == Some(Duration::ZERO) {
            return;
        }
        let before = self.now.saturating_sub(WRITE_DELAY);
        for sim in self
            .sessions
            .iter_mut()
            .filter(|sim| sim.strict && !sim.crashed)
        {
            let old = sim.shown_at.iter().rev().find(|(at, _)| *at <= before);
            sim.safe = sim.safe.max(old.map_or(0, |(_, length)| *length));
        }
    }

    /// Power is cut and comes back.
    pub(super) fn crash(&mut self) {
        self.disconnect();
        for sim in &mut self.sessions {
            let written = !self.spool.is_unwritten(&sim.id) && self.config.sync != Sync::Off;
            sim.crashed |= !written && !self.relay.sessions[&sim.id].state.is_terminal();
        }
        if self.random.chance(50)
            && let Some(SpoolWork::Write(mut write)) = self.spool.poll_work(self.now + WRITE_DELAY)
        {
            // In the middle of a write.
            write.sync = false;
            let _ = perform(&mut self.medium, &SpoolWork::Write(write));
        }
        self.medium.crash(self.random);
        let (spool, recovered) = Spool::recover(self.config, &mut self.medium).unwrap();
        self.spool = spool;
        self.uploader
            .handle_recovered(self.now, SegmentLost::PowerLoss);
        self.recovered.push(recovered);
        for (name, length) in &self.acknowledged {
            let length_there = self.medium.length(FileName::Segment(*name));
            assert!(
                length_there >= *length,
                "{name}: {length_there} of {length} acknowledged bytes"
            );
        }
        for sim in self.sessions.iter_mut().filter(|sim| sim.live) {
            sim.live = false;
            self.relay.session_over(sim.id, self.now + EXPECT_WITHIN);
        }
    }

    pub(super) fn connect(&mut self) {
        self.disconnect();
        self.connected = true;
        self.opened = self.now;
        self.open_stream();
        self.uploader.handle_tunnel(self.now);
        self.uploader.handle_connected(MINOR_VERSION);
    }

    /// The relay begins a session whose `Open` is lost with the tunnel; then it is killed.
    pub(super) fn begin_and_kill_relay(&mut self) -> SessionId {
        let id = SessionId([0xee; 16]);
        self.relay.begin(id, ChainKey([1; 32]), self.now);
        self.relay_crash();
        self.relay.session_over(id, self.now + EXPECT_WITHIN);
        id
    }

    /// Of what was under way nothing arrives from now on, and what is answered to it is lost.
    pub(super) fn disconnect(&mut self) {
        if self.connected {
            let arriving = self.random.index(self.up.messages.len() + 1);
            for _ in 0..arriving {
                let reports = |message: &&UploadMessage| {
                    matches!(message, UploadMessage::Finished(_) | UploadMessage::Gone(_))
                };
                self.stale
                    .extend(self.up.messages.front().filter(reports).cloned());
                self.relay.read(&mut self.up, self.now);
            }
            self.up = SimStream::default();
            self.old.clear();
            self.down.clear();
            self.connected = false;
            self.uploader.handle_lost();
        }
    }

    /// The stream breaks and the tunnel stays: what is under way arrives beside what the next one carries.
    pub(super) fn break_stream(&mut self) {
        if self.connected {
            self.old.push(std::mem::take(&mut self.up));
            self.down.clear();
            self.uploader.handle_lost();
            self.open_stream();
            self.uploader.handle_connected(MINOR_VERSION);
        }
    }

    fn open_stream(&mut self) {
        self.streams += 1;
        self.up = SimStream::new(UploadStream(self.streams), self.opened);
    }

    pub(super) fn relay_crash(&mut self) {
        self.disconnect();
        self.relay.crash();
    }

    /// A report comes twice, and in no order.
    pub(super) fn deliver_stale(&mut self) {
        if !self.stale.is_empty() {
            let at = self.random.index(self.stale.len());
            let message = self.stale[at].clone();
            self.relay
                .handle(UploadStream::default(), &message, &mut None);
        }
    }

    /// Some messages go to and fro.
    pub(super) fn exchange(&mut self) {
        for _ in 0..self.random.pick(1..200) {
            if !self.connected {
                return;
            }
            if self.random.chance(60) {
                self.upload_step();
            } else if !self.old.is_empty() && self.random.chance(40) {
                let stream = self.random.index(self.old.len());
                self.relay.read(&mut self.old[stream], self.now);
                self.old.retain(|stream| !stream.messages.is_empty());
            } else if !self.up.messages.is_empty() {
                self.down.extend(self.relay.read(&mut self.up, self.now));
            } else if let Some(answer) = self.down.pop_front() {
                self.uploader
                    .handle_answer(self.now, &answer, &mut self.spool);
            }
        }
    }

    fn upload_step(&mut self) {
        match self.uploader.poll_action(self.now, None, &self.spool) {
            Some(UploadAction::Send(message)) => self.up.messages.push_back(message),
            Some(UploadAction::Read {
                segment,
                at,
                length,
            }) => {
                let mut bytes = vec![0; length];
                let read = self.medium.read(FileName::Segment(segment), at, &mut bytes);
                let read = read.map_err(|_| SegmentLost::Missing).map(|read| {
                    bytes.truncate(read);
                    bytes
                });
                let sent = self.uploader.handle_read(self.now, read, &mut self.spool);
                self.up.messages.extend(sent);
            }
            None => {}
        }
    }

    /// Everything is well again, and there is time: what can be delivered is.
    pub(super) fn heal_and_deliver(&mut self) {
        self.medium.failing = 0;
        self.medium.capacity = 1 << 40;
        for session in 0..self.sessions.len() {
            if self.sessions[session].live {
                self.end(session, EndReason::Exited);
            }
        }
        if !self.connected {
            self.connect();
        }
        for _ in 0..3_000 {
            self.pass(Duration::from_secs(10));
            let idle = self.up.messages.is_empty() && self.down.is_empty();
            let empty =
                self.spool.offers().next().is_none() && self.spool.reports().next().is_none();
            if idle && empty && self.spool.is_written() {
                break;
            }
        }
        assert!(
            self.spool.offers().next().is_none(),
            "not everything was delivered"
        );
        assert!(
            self.spool.reports().next().is_none(),
            "not everything was noted"
        );
        self.pass(Duration::from_secs(10));
        let left = self.medium.names();
        let left = left
            .iter()
            .filter(|name| matches!(name, FileName::Segment(_)));
        assert_eq!(left.count(), 0, "what was stored is removed");
        self.relay.pass_time(self.now + EXPECT_WITHIN * 2);
    }

    /// Returns how much of what was shown is in the stored recording, from the beginning; with gaps where the
    /// recording admits them.
    pub(super) fn recorded(&self, session: usize) -> usize {
        let sim = &self.sessions[session];
        let mut at = 0;
        for output in self.relay.output(sim.id) {
            match output {
                Output::Bytes(bytes) => {
                    let shown = sim.shown.get(at..at + bytes.len());
                    assert_eq!(
                        shown,
                        Some(bytes.as_slice()),
                        "recorded, and never shown, at {at}"
                    );
                    at += bytes.len();
                }
                Output::Missing(bytes) => {
                    assert!(!sim.strict, "a gap under strict");
                    at += usize::try_from(bytes).unwrap();
                }
            }
        }
        at
    }

    pub(super) fn is_safe(&self, session: usize) -> usize {
        self.sessions[session].safe
    }
}

/// Returns the start of a shell whose data is recorded.
pub(super) fn start(session: SessionId, mode: RecordingMode) -> RecordingStart<'static> {
    RecordingStart {
        session,
        device: DeviceId([1; 16]),
        name: DeviceName::new("cam").unwrap(),
        agent: "0.1.0",
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        work: StartedWork::Shell,
        terminal: None,
        env: vec![],
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 4022)),
        wall: 0,
        monotonic: 0,
        mode,
        stdin: StdinMode::Redact,
        streams: true,
        volatile: false,
    }
}
