//! The relay's half of the simulated world: an ingest a session, and a store of objects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, Login, SessionId, UserName};
use holdfast_protocol::recording::chain::{
    ChainKey, Checker, Closing, Expectation, RecordedKind, StreamDigest, StreamDigester, Unproved,
};
use holdfast_protocol::recording::ingest::{
    Checked, Ingest, IngestAction, IngestState, UploadStream,
};
use holdfast_protocol::recording::reader::{ReadVerdict, RecordingReader};
use holdfast_protocol::recording::record::{Event, Stream};
use holdfast_protocol::recording::seal::RecordingSecret;
use holdfast_protocol::recording::segment::SegmentLink;
use holdfast_protocol::wire::{InventoryPart, SessionFinished, UploadAnswer, UploadMessage};

pub(super) struct SimRelay {
    pub(super) secrets: [RecordingSecret; 1],
    pub(super) sessions: BTreeMap<SessionId, Kept>,
}

/// An upload stream on its way: what it carries arrives in its order, and between what others carry.
#[derive(Default)]
pub(super) struct SimStream {
    number: UploadStream,
    /// The time when its tunnel was.
    opened: Duration,
    pub(super) messages: VecDeque<UploadMessage>,
    /// The segment that was offered last on it.
    offered: Option<(SessionId, u32)>,
    /// Recordings that are expected and were in no part of the inventory on it.
    missing: BTreeSet<SessionId>,
}

/// The data of a relay about one session: `ingest` and `working` die with its process.
pub(super) struct Kept {
    began: Duration,
    ingest: Ingest,
    working: Vec<u8>,
    pub(super) objects: BTreeMap<u32, Vec<u8>>,
    stored: Vec<(u64, SegmentLink)>,
    finished: Option<SessionFinished>,
    pub(super) state: IngestState,
    pub(super) settled: u32,
    deadline: Option<Duration>,
    pub(super) witness: StreamDigester,
    pub(super) key: ChainKey,
}

impl SimStream {
    pub(super) fn new(number: UploadStream, opened: Duration) -> Self {
        Self {
            number,
            opened,
            ..Self::default()
        }
    }
}

impl SimRelay {
    pub(super) fn new() -> Self {
        Self {
            secrets: [RecordingSecret::from_seed(&[1; 32])],
            sessions: BTreeMap::new(),
        }
    }

    pub(super) fn begin(&mut self, session: SessionId, key: ChainKey, began: Duration) {
        let kept = Kept {
            began,
            ingest: Ingest::new(session),
            working: vec![],
            objects: BTreeMap::new(),
            stored: vec![],
            finished: None,
            state: IngestState::Recording,
            settled: 0,
            deadline: None,
            witness: StreamDigester::new(&key, Stream::Stdout),
            key,
        };
        self.sessions.insert(session, kept);
    }

    pub(super) fn session_over(&mut self, session: SessionId, deadline: Duration) {
        let kept = self.sessions.get_mut(&session).unwrap();
        kept.deadline.get_or_insert(deadline);
        kept.ingest.handle_session_over(deadline);
        self.act(session);
    }

    /// The process dies and starts anew: what is not in the store is gone.
    pub(super) fn crash(&mut self) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            let kept = self.sessions.get_mut(&session).unwrap();
            let (stored, finished) = (kept.stored.clone(), kept.finished.clone());
            kept.ingest = Ingest::restore(session, kept.state, stored, finished);
            kept.working.clear();
            if let Some(deadline) = kept.deadline {
                kept.ingest.handle_session_over(deadline);
            }
            self.act(session);
        }
    }

    /// The next message of a stream arrives.
    pub(super) fn read(&mut self, stream: &mut SimStream, now: Duration) -> Vec<UploadAnswer> {
        match stream.messages.pop_front() {
            None => vec![],
            Some(UploadMessage::Inventory(part)) => {
                let before = now.saturating_sub(Duration::from_millis(part.age));
                self.inventory(&part, before.min(stream.opened), &mut stream.missing)
            }
            Some(message) => self.handle(stream.number, &message, &mut stream.offered),
        }
    }

    fn inventory(
        &mut self,
        part: &InventoryPart,
        before: Duration,
        missing: &mut BTreeSet<SessionId>,
    ) -> Vec<UploadAnswer> {
        if part.part == 0 {
            let expected = self.sessions.iter().filter(|(_, kept)| {
                kept.began < before && kept.deadline.is_some() && !kept.state.is_terminal()
            });
            *missing = expected.map(|(session, _)| *session).collect();
        }
        for session in &part.sessions {
            missing.remove(session);
        }
        if part.last {
            for session in std::mem::take(missing) {
                let kept = self.sessions.get_mut(&session).unwrap();
                kept.ingest.handle_not_held(part.why);
                self.act(session);
            }
        }
        vec![UploadAnswer::Listed(part.part)]
    }

    /// A message arrives on a stream on which `offered` was offered last.
    pub(super) fn handle(
        &mut self,
        stream: UploadStream,
        message: &UploadMessage,
        offered: &mut Option<(SessionId, u32)>,
    ) -> Vec<UploadAnswer> {
        let session = match message {
            UploadMessage::Finished(finished) => finished.session,
            UploadMessage::Gone(gone) => gone.session,
            UploadMessage::Offer(offer) => {
                *offered = Some((offer.session, offer.segment));
                offer.session
            }
            UploadMessage::Bytes(_) => match *offered {
                Some((session, _)) => session,
                None => return vec![],
            },
            UploadMessage::Inventory(_) => unreachable!("it is of no one session"),
        };
        let ingest = &mut self.sessions.get_mut(&session).unwrap().ingest;
        match message {
            UploadMessage::Finished(finished) => ingest.handle_finished(finished),
            UploadMessage::Gone(gone) => ingest.handle_gone(gone),
            UploadMessage::Offer(offer) => ingest.handle_offer(stream, offer),
            UploadMessage::Bytes(bytes) => {
                let (_, segment) = offered.unwrap();
                ingest.handle_bytes(segment, bytes);
            }
            UploadMessage::Inventory(_) => {}
        }
        self.act(session)
    }

    pub(super) fn pass_time(&mut self, now: Duration) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.sessions
                .get_mut(&session)
                .unwrap()
                .ingest
                .handle_timeout(now);
            self.act(session);
        }
    }

    fn act(&mut self, session: SessionId) -> Vec<UploadAnswer> {
        let mut answers = vec![];
        loop {
            let kept = self.sessions.get_mut(&session).unwrap();
            let Some(action) = kept.ingest.poll_action() else {
                return answers;
            };
            match action {
                IngestAction::Answer(answer) => answers.push(answer),
                IngestAction::Restart(_) => kept.working.clear(),
                IngestAction::Append(_, bytes) => kept.working.extend(bytes),
                IngestAction::Store(held) => {
                    let object = core::mem::take(&mut kept.working);
                    assert_eq!(object.len() as u64, held.offset);
                    let twice = kept.objects.insert(held.segment, object);
                    assert!(twice.is_none(), "an object was stored twice");
                    kept.stored.push((held.offset, held.hash));
                    kept.ingest.handle_stored(&held);
                }
                IngestAction::Keep(finished) => {
                    kept.finished = Some(finished.clone());
                    kept.ingest.handle_kept(finished);
                }
                IngestAction::Check => {
                    let checked = self.check(session);
                    let kept = self.sessions.get_mut(&session).unwrap();
                    kept.ingest.handle_checked(checked);
                }
                IngestAction::Settled(state) => {
                    assert!(
                        !kept.state.is_terminal(),
                        "{:?} became {state:?}",
                        kept.state
                    );
                    kept.state = state;
                    kept.settled += u32::from(state.is_terminal());
                }
            }
        }
    }

    /// Opens what is stored, and compares it with what passed.
    fn check(&self, session: SessionId) -> Checked {
        let kept = &self.sessions[&session];
        let mut seen: [_; 3] = Default::default();
        seen[Stream::Stdout.index()] = kept.witness.seen();
        let expected = expectation(seen);
        let mut checker = Checker::new(&kept.key, &expected);
        let mut reader = RecordingReader::new(session, &self.secrets);
        for object in kept.objects.values() {
            let _ = reader.read_segment(object, &mut |_, record| checker.handle(record));
        }
        let whole = matches!(reader.verdict(), ReadVerdict::Complete { .. });
        let proof = &checker.finish(whole).streams[Stream::Stdout.index()];
        if proof.lack.is_some_and(Unproved::is_contradiction) {
            return Checked::Contradicted;
        }
        match reader.verdict() {
            ReadVerdict::Complete { .. } => Checked::Whole,
            ReadVerdict::Truncated { .. } => Checked::Short,
            ReadVerdict::Tampered { at, fault } => Checked::Tampered {
                segment: at.segment,
                block: at.block,
                fault,
            },
        }
    }

    /// The output in the stored recording, with how much each gap says is missing.
    pub(super) fn output(&self, session: SessionId) -> Vec<Output> {
        let mut output = vec![];
        let mut reader = RecordingReader::new(session, &self.secrets);
        for object in self.sessions[&session].objects.values() {
            let _ = reader.read_segment(object, &mut |_, record| match &record.event {
                Event::Data(Stream::Stdout, bytes) | Event::Part(Stream::Stdout, bytes) => {
                    output.push(Output::Bytes(bytes.0.to_vec()));
                }
                Event::Gap(gap) => output.push(Output::Missing(gap.bytes[1])),
                _ => {}
            });
        }
        output
    }
}

pub(super) enum Output {
    Bytes(Vec<u8>),
    Missing(u64),
}

/// Returns what the relay knows of each of these sessions: it was cut off.
fn expectation(seen: [StreamDigest; 3]) -> Expectation {
    Expectation {
        user: UserName::new("alice").unwrap(),
        device: DeviceId([1; 16]),
        login: Login::new("pi").unwrap(),
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 4022)),
        kind: RecordedKind::Shell,
        begun: None,
        seen,
        control: None,
        content: None,
        closing: Some(Closing::default()),
        forwards: None,
        files: None,
    }
}
