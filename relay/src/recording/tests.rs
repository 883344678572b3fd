//! Recordings that the device's own code makes, taken in as they come from a tunnel: whole, cut, twice, and
//! changed by a user who is root there.

use std::collections::BTreeMap;
use std::time::Duration;

use embedded_io::ErrorKind;
use holdfast_protocol::ids::{DeviceId, DeviceName, Login, UserName};
use holdfast_protocol::limits::MAX_UPLOAD_CHUNK;
use holdfast_protocol::recording::medium::{self, FileName, Medium, SegmentName};
use holdfast_protocol::recording::record::{self, EndReason, RecordingStart, StartedWork, Stream};
use holdfast_protocol::recording::spool::{self, Accept, Begin, DataPiece, Spool, SpoolConfig};
use holdfast_protocol::wire::{
    Exit, OfferedSegment, ProcessRequest, RecordingMode, RecordingTerms, SegmentBytes,
    SessionRequest, StdinMode, UploadAnswer, UploadMessage,
};
use tempfile::TempDir;

mod content;
mod evidence;
mod excess;
mod forwards;
mod holes;
mod inventory;
mod notes;
mod removed;
mod room;

use super::notes::NotedSessions;
use super::verify::signed_verdict;
use super::*;
use crate::access::decision::{self, Facts};
use crate::access::policy::Ability;
use crate::access::tests::fixture;
use crate::audit::{Actor, DeviceFacts, WhenUnwritable};
use crate::session::client::Client;
use crate::session::registry::life::Activity;
use crate::session::registry::{About, Live, LiveGuard};
use crate::store::tests::database::bind_chosen;
use crate::store::{AuditFilter, AuditKey, Hold, MemberId, RecordingFacts, RecordingState};

const DEVICE: DeviceId = DeviceId([1; 16]);
const SESSION: SessionId = SessionId([0x5a; 16]);
const NOW: Duration = Duration::from_secs(50);

struct Fixture {
    state: State,
    store: Store,
    recordings: Recordings,
    live: Arc<Live>,
    _dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::within(Duration::from_secs(3_600)).await
    }

    async fn within(expect_within: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::create_or_open(&dir.path().join("state")).unwrap();
        bind_chosen(&mut state);
        let store = Store::open(state.database()).await.unwrap();
        let recordings = start(&state, &store, expect_within, None, Bounds::default()).await;
        Self {
            state,
            store,
            recordings,
            live: Arc::default(),
            _dir: dir,
        }
    }

    /// Starts another run of the relay on the same state.
    async fn restart(&mut self) {
        let bounds = Bounds::default();
        let within = Duration::from_secs(3_600);
        self.recordings = start(&self.state, &self.store, within, None, bounds).await;
    }

    /// Does the same that keeps recordings for so long.
    async fn keep(&mut self, keep: Duration) {
        let within = Duration::from_secs(3_600);
        self.recordings = start(
            &self.state,
            &self.store,
            within,
            Some(keep),
            Bounds::default(),
        )
        .await;
    }

    async fn begin(&self) -> (LiveGuard, ChainKey, StreamDigests) {
        self.begin_as(SESSION).await
    }

    /// Returns what the relay knows of a session of this kind.
    fn facts_of(&self, id: SessionId, kind: Ability) -> SessionFacts {
        let command = None;
        SessionFacts {
            kind,
            command,
            ..self.enter(id).session().facts()
        }
    }

    async fn begin_as(&self, id: SessionId) -> (LiveGuard, ChainKey, StreamDigests) {
        self.begin_bounded(id, None).await
    }

    /// Begins a recording that keeps so many bytes of each stream.
    async fn begin_bounded(
        &self,
        id: SessionId,
        content_max: Option<u64>,
    ) -> (LiveGuard, ChainKey, StreamDigests) {
        let guard = self.enter(id);
        let (key, watched) = self
            .recordings
            .begin(
                guard.session().facts(),
                begun,
                RecordingSupport {
                    content_max,
                    follows_files: true,
                },
            )
            .await
            .unwrap();
        (guard, key, watched)
    }

    fn enter(&self, id: SessionId) -> LiveGuard {
        let device = fixture::device(crate::store::Labels::new(), None);
        let subject = fixture::with_preset("operator");
        let client = Client::for_test("203.0.113.9:50000".parse().unwrap());
        let facts = Facts {
            subject: &subject,
            client: [203, 0, 113, 9].into(),
            name: "kitchen-cam",
            device: Some(&device),
        };
        let reach = decision::reach(facts).unwrap();
        let authorized = reach
            .authorize(&fixture::login("pi"), Ability::Exec)
            .unwrap();
        let about = About {
            actor: Actor::default(),
            device: DeviceFacts::from(&device),
            command: Some("uptime".to_owned()),
            terminal: false,
            destination: None,
            activity: Activity::Running,
        };
        self.live.enter(id, authorized, about, &client)
    }

    async fn facts(&self) -> RecordingFacts {
        self.store.recording(SESSION).await.unwrap().unwrap()
    }

    /// Ends the session, uploads all that the device has, and returns the recording when its verdict is signed.
    async fn ended(
        &self,
        watched: &StreamDigests,
        closing: Closing,
        device: &Device,
    ) -> RecordingFacts {
        let over = self.recordings.over(watched, closing, false);
        over.await.unwrap();
        self.upload_all(device).await;
        self.judged().await
    }

    /// Returns the recording when its verdict is signed.
    async fn judged(&self) -> RecordingFacts {
        let wait = async {
            loop {
                let facts = self.facts().await;
                if facts.row.state.is_terminal() && facts.key.is_none() {
                    return facts;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("a verdict")
    }

    async fn say(&self, message: UploadMessage, offered: u32) -> Vec<UploadAnswer> {
        let stream = UploadStream::default();
        let taken = self
            .recordings
            .take(DEVICE, SESSION, stream, message, Some(offered));
        taken.await.unwrap().expect("a recording of this device")
    }

    /// Uploads a segment from where the relay has it, but no more than so many bytes; gives the last answer.
    async fn upload(&self, offer: &OfferedSegment, file: &[u8], most: usize) -> UploadAnswer {
        let segment = offer.segment;
        let mut answers = self.say(UploadMessage::Offer(offer.clone()), segment).await;
        let mut at = match answers.last() {
            Some(UploadAnswer::Have(held)) => usize::try_from(held.offset).unwrap(),
            _ => return answers.pop().unwrap(),
        };
        let (end, mut last) = (
            file.len().min(at.saturating_add(most)),
            answers.pop().unwrap(),
        );
        while at < end {
            let bytes = file[at..end.min(at + MAX_UPLOAD_CHUNK)].to_vec();
            let offset = at as u64;
            at += bytes.len();
            let bytes = UploadMessage::Bytes(SegmentBytes { offset, bytes });
            if let Some(answer) = self.say(bytes, segment).await.pop() {
                last = answer;
            }
            if matches!(last, UploadAnswer::Refused(_)) {
                break;
            }
        }
        last
    }

    /// Uploads all that the device has, and its report.
    async fn upload_all(&self, device: &Device) {
        for offer in device.spool.offers() {
            self.upload(&offer, device.file(offer.segment), usize::MAX)
                .await;
        }
        for report in device.spool.reports() {
            self.say(report, 0).await;
        }
    }

    async fn events(&self) -> Vec<String> {
        let head = self.store.audit_head().await.unwrap();
        let filter = AuditFilter::default();
        let page = self.store.audit_page(&filter, AuditKey::START, head, 100);
        page.await
            .unwrap()
            .into_iter()
            .map(|entry| entry.event)
            .collect()
    }
}

async fn start(
    state: &State,
    store: &Store,
    expect_within: Duration,
    keep: Option<Duration>,
    bounds: Bounds,
) -> Recordings {
    let audit = Audit::open(store.clone(), None, WhenUnwritable::Refuse);
    let settings = RecordingSettings {
        expect_within,
        keep,
        place: StorageBackend::Folder,
        bounds,
    };
    let relay = RelayId::random().unwrap();
    store
        .change(async |tx| {
            tx.relay_started(relay, MemberId::FIRST, Timestamp::now())
                .await
        })
        .await
        .unwrap();
    Recordings::start(relay, state, store.clone(), audit, settings)
        .await
        .unwrap()
}

/// Returns how all of these are recorded.
fn terms(key: &ChainKey) -> RecordingTerms {
    RecordingTerms {
        mode: RecordingMode::Strict,
        stdin: StdinMode::Full,
        key: key.clone(),
        recover: false,
    }
}

/// Returns what all of these sessions run.
fn uptime() -> SessionRequest {
    ProcessRequest::Exec(b"uptime".to_vec()).into()
}

fn begun(key: &ChainKey) -> SessionStart {
    SessionStart::of(&uptime(), None, &[], &terms(key))
}

/// Returns the relay saw the command end well.
fn exited() -> Closing {
    Closing {
        exit: Some(Exit::Status(0)),
    }
}

/// The device's side, on a medium that keeps everything.
struct Device {
    spool: Spool,
    files: Memory,
}

#[derive(Default)]
struct Memory(BTreeMap<SegmentName, Vec<u8>>);

impl Device {
    fn recording(bed: &Fixture, id: SessionId, key: &ChainKey) -> Self {
        Self::recording_as(bed, id, key, |_| {})
    }

    /// Makes a recording whose start says something else than the session was begun with.
    fn recording_as(
        bed: &Fixture,
        id: SessionId,
        key: &ChainKey,
        change: impl FnOnce(&mut RecordingStart<'_>),
    ) -> Self {
        Self::recording_bounded(bed, id, key, change, None)
    }

    /// Returns a device's recording that keeps so many bytes of each stream.
    fn recording_bounded(
        bed: &Fixture,
        id: SessionId,
        key: &ChainKey,
        change: impl FnOnce(&mut RecordingStart<'_>),
        content_max: Option<u64>,
    ) -> Self {
        let mut files = Memory::default();
        let (spool, _) = Spool::recover(SpoolConfig::default(), &mut files).unwrap();
        let mut device = Self { spool, files };
        let terms = terms(key);
        let work = uptime();
        let mut start = RecordingStart {
            session: id,
            device: DEVICE,
            name: DeviceName::new("kitchen-cam").unwrap(),
            agent: "0.1.0",
            user: UserName::new("alice").unwrap(),
            login: Login::new("pi").unwrap(),
            work: StartedWork::of(&work).0,
            terminal: None,
            env: vec![],
            client: "203.0.113.9:50000".parse().unwrap(),
            wall: 0,
            monotonic: 0,
            mode: RecordingMode::Strict,
            stdin: StdinMode::Full,
            streams: true,
            volatile: false,
        };
        change(&mut start);
        let begin = Begin {
            terms: &terms,
            key: Some(bed.state.recording.public()),
            seed: [7; 32],
            start,
            content_max,
            rest_of_command: &[],
        };
        device.spool.begin(NOW, &begin).unwrap();
        device
    }

    fn show(&mut self, id: SessionId, bytes: &[u8]) {
        for bytes in bytes.chunks(8 * 1024) {
            let piece = DataPiece {
                stream: Stream::Stdout,
                bytes,
                remaining: 0,
                hidden: false,
            };
            assert_eq!(self.spool.accept_data(NOW, id, piece), Accept::Accepted);
            self.work();
        }
    }

    /// Records something else.
    fn say(&mut self, event: record::Event<'_>) {
        let accepted = self.spool.accept(NOW, SESSION, event);
        assert_eq!(accepted, Accept::Accepted);
        self.work();
    }

    fn end(&mut self, id: SessionId) {
        let exit = record::Event::Exit(Exit::Status(0));
        self.spool.end(NOW, id, Some(exit), EndReason::Exited);
        self.work();
    }

    /// Restarts its agent after a kill in the same boot.
    fn restart(&mut self) {
        let config = SpoolConfig::default();
        let (spool, _) = Spool::recover_after(config, &mut self.files, &|_| false).unwrap();
        self.spool = spool;
    }

    fn work(&mut self) {
        self.work_until(NOW);
    }

    fn work_until(&mut self, now: Duration) {
        while let Some(work) = self.spool.poll_work(now) {
            let done = spool::perform(&mut self.files, &work);
            self.spool.handle_done(now, work, done);
        }
    }

    fn file(&self, segment: u32) -> &[u8] {
        let mut files = self.files.0.iter();
        files.find(|(name, _)| name.index == segment).unwrap().1
    }
}

/// Returns a session that shows these bytes and ends, seen so by the relay and recorded so by the device.
async fn recorded(bed: &Fixture, shown: &[u8]) -> Device {
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording(bed, SESSION, &key);
    device.show(SESSION, shown);
    for frame in shown.chunks(8 * 1024) {
        watched.pass(Stream::Stdout, frame, 0);
    }
    device.end(SESSION);
    bed.recordings
        .over(&watched, exited(), false)
        .await
        .unwrap();
    device
}

/// Returns bytes that do not compress: a megabyte of them is a segment.
fn noise(length: usize) -> Vec<u8> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let byte = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[3]
    };
    std::iter::repeat_with(byte).take(length).collect()
}

/// Returns a recording's state, and whether all of it is proved.
fn outcome(facts: &RecordingFacts) -> (RecordingState, Option<bool>) {
    (facts.row.state, facts.row.verified)
}

/// Checks that a recording is complete, and that all of it is proved.
#[track_caller]
fn assert_proved(facts: &RecordingFacts) {
    assert_eq!(
        outcome(facts),
        (RecordingState::Complete, Some(true)),
        "{:?}",
        facts.row.reason
    );
}

#[tokio::test]
async fn what_comes_whole_is_complete_signed_and_its_key_erased() {
    let bed = Fixture::new().await;
    let device = recorded(&bed, b"hello").await;
    assert_eq!(bed.facts().await.row.state, RecordingState::Uploading);
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_eq!(
        (facts.row.state, facts.row.verified, facts.row.reason),
        (RecordingState::Complete, Some(true), None)
    );
    let (text, signature) = (facts.row.verdict.unwrap(), facts.row.signature.unwrap());
    let verdict = signed_verdict(&text, &signature, &bed.state.cluster.public()).unwrap();
    assert_eq!(
        (verdict.streams[1].relayed, verdict.streams[1].proved),
        (5, 5)
    );
    let forged = text.replace("complete", "tampered");
    assert!(signed_verdict(&forged, &signature, &bed.state.cluster.public()).is_none());
    assert_eq!(bed.events().await, ["recording.complete"]);
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut_even_by_a_restart() {
    let mut bed = Fixture::new().await;
    let device = recorded(&bed, &noise(400_000)).await;
    let offer = device.spool.offers().next().unwrap();
    let half = bed.upload(&offer, device.file(0), 200_000).await;
    assert!(matches!(half, UploadAnswer::Have(_)), "{half:?}");
    bed.restart().await;
    let answers = bed.say(UploadMessage::Offer(offer), 0).await;
    let goes_on =
        |answer: &UploadAnswer| matches!(answer, UploadAnswer::Have(held) if held.offset > 150_000);
    assert!(
        !answers.is_empty() && answers.iter().all(goes_on),
        "{answers:?}"
    );
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_proved(&facts);
}

#[tokio::test]
async fn a_torn_working_file_is_no_tampering() {
    let mut bed = Fixture::new().await;
    let device = recorded(&bed, &noise(400_000)).await;
    let offer = device.spool.offers().next().unwrap();
    bed.upload(&offer, device.file(0), 200_000).await;
    bed.restart().await;
    // What a power cut of the relay may leave: zeros where data was not written yet.
    let part = bed
        .state
        .recordings()
        .join(SESSION.to_string())
        .join("00000000.part");
    let mut bytes = std::fs::read(&part).unwrap();
    let end = bytes.len();
    bytes[end / 2..].fill(0);
    std::fs::write(&part, bytes).unwrap();
    bed.upload_all(&device).await;
    assert_eq!(bed.judged().await.row.state, RecordingState::Complete);
}

#[tokio::test]
async fn the_same_upload_twice_is_one_object() {
    let bed = Fixture::new().await;
    let device = recorded(&bed, &noise(100_000)).await;
    bed.upload_all(&device).await;
    let first = bed.judged().await;
    for offer in device.spool.offers() {
        let again = bed
            .upload(&offer, device.file(offer.segment), usize::MAX)
            .await;
        assert!(matches!(again, UploadAnswer::Stored(_)), "{again:?}");
    }
    bed.upload_all(&device).await;
    let second = bed.judged().await;
    assert_eq!((first.row, first.segments), (second.row, second.segments));
    assert_eq!(bed.events().await, ["recording.complete"]);
}

#[tokio::test]
async fn what_is_changed_on_the_device_is_named() {
    type Change = fn(&mut Vec<(OfferedSegment, Vec<u8>)>);
    let changes: [(&str, Change, &str); 5] = [
        (
            "flipped",
            |files| files[1].1[5_000] ^= 1,
            "segment 1, block",
        ),
        (
            "cut",
            |files| {
                let file = &mut files[1].1;
                file.truncate(file.len() - 1_000);
                files[1].0.length -= 1_000;
            },
            "segment 1, block",
        ),
        (
            "swapped",
            |files| {
                let [_, one, two] = files.as_mut_slice() else {
                    panic!("not three segments")
                };
                std::mem::swap(&mut one.1, &mut two.1);
                (one.0.length, two.0.length) = (two.0.length, one.0.length);
                std::mem::swap(&mut one.0.hash, &mut two.0.hash);
            },
            "segment 1, block 0",
        ),
        (
            "dropped",
            |files| drop(files.remove(1)),
            "segment 1 is missing",
        ),
        (
            "cut behind a whole block, with the report of the rest",
            |files| drop(files.pop()),
            "",
        ),
    ];
    for (what, change, named) in changes {
        let bed = Fixture::new().await;
        let device = recorded(&bed, &noise(2_500_000)).await;
        let offers = device.spool.offers();
        let mut files: Vec<_> = offers
            .map(|offer| {
                let file = device.file(offer.segment).to_vec();
                (offer, file)
            })
            .collect();
        assert_eq!(files.len(), 3);
        change(&mut files);
        for (offer, file) in &files {
            bed.upload(offer, file, usize::MAX).await;
        }
        for report in device.spool.reports() {
            bed.say(report, 0).await;
        }
        if named.is_empty() {
            // It is not reported as gone: it is waited for.
            assert_eq!(
                bed.facts().await.row.state,
                RecordingState::Uploading,
                "{what}"
            );
            continue;
        }
        let facts = bed.judged().await;
        let reason = facts.row.reason.unwrap();
        assert_eq!(
            facts.row.state,
            RecordingState::Tampered,
            "{what}: {reason}"
        );
        assert!(reason.contains(named), "{what}: {reason}");
        assert_eq!(bed.events().await, ["recording.tampered"], "{what}");
    }
}

#[tokio::test]
async fn a_segment_of_another_session_is_named_and_kept() {
    let bed = Fixture::new().await;
    let device = recorded(&bed, b"mine").await;
    let other = SessionId([0x77; 16]);
    let mut theirs = Device::recording(&bed, other, &ChainKey([9; 32]));
    theirs.show(other, b"theirs");
    theirs.end(other);
    let file = theirs.file(0).to_vec();
    let mut offer = theirs.spool.offers().next().unwrap();
    offer.session = SESSION;
    // It is evidence, too.
    let answer = bed.upload(&offer, &file, usize::MAX).await;
    assert!(matches!(answer, UploadAnswer::Stored(_)), "{answer:?}");
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Tampered);
    let reason = facts.row.reason.unwrap();
    assert!(
        reason.contains(&format!("it belongs to session {other}")),
        "{reason}"
    );
    drop(device);
}

#[tokio::test]
async fn remade_recording_contradicts_relay_digests() {
    let bed = Fixture::new().await;
    let (_guard, key, watched) = bed.begin().await;
    watched.pass(Stream::Stdout, b"before ", 0);
    watched.pass(Stream::Stdout, b"rm -rf /", 0);
    // A user who is root on the device has the session's key, and seals what they like.
    let mut device = Device::recording(&bed, SESSION, &key);
    device.show(SESSION, b"before ");
    device.show(SESSION, b"ls -la /");
    device.end(SESSION);
    let facts = bed.ended(&watched, exited(), &device).await;
    assert_eq!(facts.row.state, RecordingState::Tampered);
    assert_eq!(facts.row.reason.unwrap(), "stdout differs from 00:00");
}

#[tokio::test]
async fn nothing_is_judged_before_the_relay_has_seen_the_end() {
    let bed = Fixture::new().await;
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording(&bed, SESSION, &key);
    device.show(SESSION, b"slow client");
    device.end(SESSION);
    // The device is done, and its output still waits for the operator.
    bed.upload_all(&device).await;
    assert_eq!(bed.facts().await.row.state, RecordingState::Uploading);
    assert!(
        bed.recordings.0.judged.lock().is_empty(),
        "it is judged early"
    );
    watched.pass(Stream::Stdout, b"slow client", 0);
    bed.recordings
        .over(&watched, exited(), false)
        .await
        .unwrap();
    let facts = bed.judged().await;
    assert_proved(&facts);
}

#[tokio::test]
async fn input_in_flight_at_exit_is_not_tampering() {
    let bed = Fixture::new().await;
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording(&bed, SESSION, &key);
    device.show(SESSION, b"head");
    watched.pass(Stream::Stdout, b"head", 0);
    watched.pass(Stream::Stdin, b"more than `head -1` reads", 0);
    device.end(SESSION);
    let facts = bed.ended(&watched, exited(), &device).await;
    // It is not all that the operator sent, and only the device says that it did not arrive.
    assert_eq!(
        (facts.row.state, facts.row.verified),
        (RecordingState::Complete, Some(false))
    );
    assert!(
        facts
            .row
            .verdict
            .unwrap()
            .contains("did not reach the device")
    );
}

#[tokio::test]
async fn what_is_never_delivered_is_lost() {
    let bed = Fixture::within(Duration::ZERO).await;
    let _device = recorded(&bed, b"never seen").await;
    bed.recordings.look(Timestamp::now()).await.unwrap();
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Lost);
    assert_eq!(bed.events().await, ["recording.lost"]);
}

#[tokio::test]
async fn what_is_older_than_keep_is_removed_unless_it_is_held() {
    const DAY: Duration = Duration::from_secs(86_400);
    let mut bed = Fixture::new().await;
    bed.keep(90 * DAY).await;
    let device = recorded(&bed, b"once upon a time").await;
    bed.upload_all(&device).await;
    let began = bed.judged().await.row.session.started;
    let folder = bed.state.recordings().join(SESSION.to_string());
    bed.recordings.look(began.after(89 * DAY)).await.unwrap();
    assert!(bed.store.recording(SESSION).await.unwrap().is_some());

    let hold = Hold {
        since: began,
        by: None,
        reason: "case 17".to_owned(),
    };
    assert!(
        bed.store
            .change(async |tx| tx.recording_held(SESSION, &hold).await)
            .await
            .unwrap()
    );
    assert!(
        !bed.store
            .change(async |tx| tx.recording_held(SESSION, &hold).await)
            .await
            .unwrap()
    );
    bed.recordings.look(began.after(400 * DAY)).await.unwrap();
    assert_eq!(bed.facts().await.row.hold, Some(hold));
    assert!(
        !bed.store
            .change(async |tx| tx.recording_removed(SESSION).await)
            .await
            .unwrap()
    );
    assert!(folder.exists());

    assert!(
        bed.store
            .change(async |tx| tx.recording_released(SESSION).await)
            .await
            .unwrap()
    );
    assert!(
        !bed.store
            .change(async |tx| tx.recording_released(SESSION).await)
            .await
            .unwrap()
    );
    bed.recordings.look(began.after(91 * DAY)).await.unwrap();
    assert!(bed.store.recording(SESSION).await.unwrap().is_none());
    assert!(!folder.exists());
    assert_eq!(
        bed.events().await,
        ["recording.complete", "recording.removed"]
    );
}

#[tokio::test]
async fn recordings_are_found_by_id_prefix_and_paged() {
    let bed = Fixture::new().await;
    let ids: Vec<SessionId> = (0_u8..)
        .zip([0x10, 0x12, 0x12, 0xff])
        .map(|(n, first)| {
            let mut id = [first; 16];
            id[15] = n;
            SessionId(id)
        })
        .collect();
    let mut guards = vec![];
    for id in &ids {
        guards.push(bed.begin_as(*id).await);
    }
    let found = async |digits: &str| {
        let rows = bed.store.recordings_named(digits, None).await.unwrap();
        rows.len()
    };
    assert_eq!(found("1").await, 3);
    assert_eq!(found("10").await, 1);
    assert_eq!(found("101").await, 1);
    assert_eq!(found("12").await, 2);
    assert_eq!(found(&ids[1].to_string()).await, 1);
    assert_eq!(found("f").await, 1);
    for none in ["", "2", "1%", "x", "é", &"1".repeat(33)] {
        assert_eq!(found(none).await, 0, "{none}");
    }
    // Those of the user with that id, whatever user has the name.
    let by = async |own: i64| {
        let own = Some(crate::store::UserId(own));
        let rows = bed.store.recordings_named("10", own).await.unwrap();
        rows.len()
    };
    assert_eq!([by(1).await, by(2).await], [1, 0]);

    let filter = crate::store::RecordingFilter::default();
    let whole = bed.store.recordings(&filter).await.unwrap();
    let mut paged: Vec<crate::store::RecordingRow> = vec![];
    loop {
        let page = bed
            .store
            .recordings_page(&filter, paged.last(), 2)
            .await
            .unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, whole);
    assert_eq!(paged.len(), 4);
}

#[tokio::test]
async fn a_session_that_was_refused_leaves_nothing() {
    let bed = Fixture::within(Duration::ZERO).await;
    let (_guard, _, watched) = bed.begin().await;
    bed.recordings
        .over(&watched, Closing::default(), true)
        .await
        .unwrap();
    let filter = crate::store::RecordingFilter::default();
    assert!(bed.store.recordings(&filter).await.unwrap().is_empty());
    bed.recordings.look(Timestamp::now()).await.unwrap();
    assert!(bed.store.recording(SESSION).await.unwrap().is_none());
    assert!(bed.events().await.is_empty());
}

#[tokio::test]
async fn another_device_knows_of_no_such_recording() {
    let bed = Fixture::new().await;
    let device = recorded(&bed, b"mine").await;
    let offer = device.spool.offers().next().unwrap();
    let taken = bed.recordings.take(
        DeviceId([2; 16]),
        SESSION,
        UploadStream::default(),
        UploadMessage::Offer(offer),
        Some(0),
    );
    assert!(taken.await.unwrap().is_none());
}

impl Medium for Memory {
    type Error = ErrorKind;

    fn create(&mut self, name: FileName) -> Result<(), ErrorKind> {
        if let FileName::Segment(name) = name {
            self.0.insert(name, Vec::new());
        }
        Ok(())
    }

    fn append(&mut self, name: FileName, at: u64, bytes: &[u8]) -> Result<(), ErrorKind> {
        if let FileName::Segment(name) = name {
            let file = self.0.entry(name).or_default();
            file.truncate(usize::try_from(at).unwrap());
            file.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn sync(&mut self, _: FileName) -> Result<(), ErrorKind> {
        Ok(())
    }

    fn rename(&mut self, _: FileName, _: FileName) -> Result<(), ErrorKind> {
        Ok(())
    }

    fn read(&mut self, name: FileName, at: u64, to: &mut [u8]) -> Result<usize, ErrorKind> {
        let FileName::Segment(name) = name else {
            return Ok(0);
        };
        let file = self.0.get(&name).ok_or(ErrorKind::NotFound)?;
        let rest = file.get(usize::try_from(at).unwrap()..).unwrap_or_default();
        let length = rest.len().min(to.len());
        to[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn remove(&mut self, _: FileName) -> Result<(), ErrorKind> {
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<medium::MediumEntry>, ErrorKind> {
        let entry = |(name, file): (&SegmentName, &Vec<u8>)| medium::MediumEntry {
            name: FileName::Segment(*name),
            length: file.len() as u64,
            modified: 0,
        };
        Ok(self.0.iter().map(entry).collect())
    }

    fn free(&mut self) -> Result<u64, ErrorKind> {
        Ok(1 << 40)
    }
}
