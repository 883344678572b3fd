//! The recorder of an agent: one spool, one thread that writes, and what `status` says of it.

mod commands;
mod config;
pub(super) mod forwards;
mod open;
mod trouble;
mod writer;

use crate::os::clock;
use crate::os::sync::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

use embedded_io::ErrorKind;
use futures_lite::FutureExt as _;
use holdfast_protocol::ids::{DeviceId, DeviceName, SessionId};
use holdfast_protocol::recording::medium::SegmentName;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::recording::seal::RecordingKey;
use holdfast_protocol::recording::spool::{Spool, SpoolWork, Unavailable};
use holdfast_protocol::recording::upload::{UploadAction, Uploader};
use holdfast_protocol::wire::{SegmentLost, UploadAnswer, UploadMessage};
use smol::Timer;

pub use self::config::RecorderConfig;
use self::forwards::OpenForwards;
use self::open::open_spool;
use self::trouble::Troubles;
use crate::recording::clock::{minute_of_day, trusted_clock};
use crate::recording::commands::Commands;
use crate::recording::limits::{RECORDING_STOP_GRACE, WRITER_STACK};
use crate::recording::spool_fs::Folder;
use crate::warn;

/// The facts that the recorder keeps of its device.
#[derive(Clone, Debug)]
pub struct RecordingDevice {
    /// Its identifier.
    pub id: DeviceId,
    /// Its present name.
    pub name: DeviceName,
    /// To what recordings are sealed; `None` until a roster brings it.
    pub key: Option<RecordingKey>,
}

/// The reason why something must not be shown, in words for the operator.
#[derive(Debug)]
pub(crate) struct NotRecordable(pub(crate) String);

/// The recorder. Sessions put in, one thread writes, the tunnel's upload takes out.
#[derive(Debug)]
pub struct Recorder {
    state: Mutex<RecorderState>,
    /// Wakes the thread that writes.
    pub(in crate::recording) work: Condvar,
    /// Notified when work was done, or something waits for the relay.
    pub(in crate::recording) changed: event_listener::Event,
    pub(in crate::recording) folder: PathBuf,
    volatile: bool,
    /// The spool's time begins here.
    epoch: Instant,
    /// The time when data of an interactive session passed last, of that time. (A lock of its own, held for an instant:
    /// not every processor has atomic numbers that are large enough.)
    interactive: Mutex<Option<Duration>>,
    commands: Commands,
    /// Notified when a forward that is recorded in a shared log begins or ends, or can't.
    pub(in crate::recording) forwards: event_listener::Event,
}

/// The data behind the lock. It is never held during I/O.
#[derive(Debug)]
pub(in crate::recording) struct RecorderState {
    /// Or why there is none.
    pub(in crate::recording) spool: Result<Spool, String>,
    pub(in crate::recording) device: RecordingDevice,
    /// Sessions that are being recorded.
    pub(in crate::recording) live: BTreeSet<SessionId>,
    /// The open forwards of each shared log.
    pub(in crate::recording) forwards: BTreeMap<SessionId, OpenForwards>,
    uploader: Uploader,
    /// Counts upload streams: what was read for an older one is of no use.
    stream: u64,
    /// The block that the uploader wants read.
    pub(in crate::recording) wanted: Option<SegmentRead>,
    /// The block that it sends next.
    outgoing: Option<UploadMessage>,
    /// Until when the writer sleeps; `None` while it works.
    pub(in crate::recording) sleeps_until: Option<Duration>,
    pub(in crate::recording) stopping: bool,
    pub(in crate::recording) stopped: bool,
    /// Sessions that went on without a recording, since the agent's start.
    pub(in crate::recording) unrecorded: u64,
    pub(in crate::recording) troubles: Troubles,
}

/// A part of a segment that is to be read.
#[derive(Clone, Copy, Debug)]
pub(in crate::recording) struct SegmentRead {
    pub(in crate::recording) segment: SegmentName,
    pub(in crate::recording) at: u64,
    pub(in crate::recording) length: usize,
    stream: u64,
}

impl Recorder {
    /// Takes over what is in the folder and begins to write. Where the folder can't be used, a session that
    /// must be recorded is refused, and `status` says why.
    #[must_use]
    pub fn open(config: &RecorderConfig, device: RecordingDevice) -> Arc<Self> {
        let opened = open_spool(config);
        let volatile = opened
            .as_ref()
            .is_ok_and(|opened| opened.folder.is_volatile());
        let (spool, folder, absence) = match opened {
            Ok(opened) => (Ok(opened.spool), Some(opened.folder), opened.absence),
            Err(why) => (Err(why), None, None),
        };
        let mut uploader = Uploader::new(config.upload);
        if let Some(why) = absence {
            uploader.handle_recovered(Duration::ZERO, why);
        }
        let mut troubles = Troubles::default();
        if let Err(why) = &spool {
            warn!("sessions cannot be recorded: {why}");
            troubles.note(why.clone());
        }
        let recorder = Arc::new(Self {
            state: Mutex::new(RecorderState {
                spool,
                device,
                live: BTreeSet::new(),
                forwards: BTreeMap::new(),
                uploader,
                stream: 0,
                wanted: None,
                outgoing: None,
                sleeps_until: None,
                stopping: false,
                stopped: folder.is_none(),
                unrecorded: 0,
                troubles,
            }),
            work: Condvar::new(),
            changed: event_listener::Event::new(),
            folder: config.folder.clone(),
            volatile,
            epoch: clock::instant(),
            interactive: Mutex::new(None),
            commands: Commands::default(),
            forwards: event_listener::Event::new(),
        });
        if let Some(folder) = folder {
            recorder.start_writer(folder);
        }
        recorder
    }

    fn start_writer(self: &Arc<Self>, folder: Folder) {
        let recorder = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("spool".to_owned())
            .stack_size(WRITER_STACK)
            .spawn(move || writer::work(&recorder, folder));
        if let Err(error) = started {
            let mut state = self.lock();
            let why = format!("no thread for the spool: {error}");
            state.troubles.note(why.clone());
            state.spool = Err(why);
            state.stopped = true;
        }
    }

    /// Takes over what a newer roster or name says of the device.
    pub fn update(&self, device: RecordingDevice) {
        self.lock().device = device;
    }

    /// Ends all recordings because the agent stops, and waits until they are written, but not for ever.
    pub async fn stop(&self) {
        {
            let now = self.now();
            let mut state = self.lock();
            state.stopping = true;
            let live = std::mem::take(&mut state.live);
            for session in &live {
                state.end_forwards(now, *session);
            }
            if let Ok(spool) = &mut state.spool {
                for session in live {
                    spool.end(now, session, None, EndReason::AgentStopped);
                }
            }
        }
        self.work.notify_one();
        let written = async {
            loop {
                let changed = self.changed.listen();
                if self.lock().stopped {
                    return;
                }
                changed.await;
            }
        };
        let late = async {
            Timer::after(RECORDING_STOP_GRACE).await;
        };
        written.or(late).await;
    }

    /// Asks for an upload, whatever the policy.
    pub fn request_upload(&self) {
        self.lock().uploader.handle_request();
        self.changed.notify(usize::MAX);
    }

    pub(in crate::recording) fn lock(&self) -> MutexGuard<'_, RecorderState> {
        // Each change is made whole before anything can panic.
        self.state.lock()
    }

    /// Returns the spool's time.
    pub(in crate::recording) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Returns whether what is in the spool is lost with the power.
    pub(in crate::recording) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Notes that data of an interactive session has passed: uploads stand back.
    pub(in crate::recording) fn notice_interactive(&self) {
        *self.last_interactive() = Some(self.now());
    }

    fn last_interactive(&self) -> MutexGuard<'_, Option<Duration>> {
        self.interactive.lock()
    }

    /// Wakes the writer if it would sleep for too long.
    pub(in crate::recording) fn wake(&self, state: &RecorderState) {
        let due = state.poll_timeout();
        let is_late = |until: Duration| due.is_some_and(|due| due < until);
        if state.wanted.is_some() || state.sleeps_until.is_some_and(is_late) {
            self.work.notify_one();
        }
    }

    /// Notes that a tunnel has begun.
    pub(in crate::recording) fn handle_tunnel(&self) {
        let now = self.now();
        self.lock().uploader.handle_tunnel(now);
    }

    /// Notes that an upload stream is open to a relay of this minor version; there is one at a time.
    pub(in crate::recording) fn handle_upload_connected(&self, minor: u16) {
        let mut state = self.lock();
        state.stream += 1;
        (state.wanted, state.outgoing) = (None, None);
        state.uploader.handle_connected(minor);
    }

    pub(in crate::recording) fn handle_upload_answer(&self, answer: &UploadAnswer) {
        let now = self.now();
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Ok(spool) = &mut state.spool {
            state.uploader.handle_answer(now, answer, spool);
            state.troubles.handle_answer(answer, spool);
        }
        // There may be something to remove.
        self.work.notify_one();
        self.changed.notify(usize::MAX);
    }

    /// Returns the next message for the upload stream; if there is none, when to ask again although nothing changed.
    pub(in crate::recording) fn poll_upload(&self) -> Result<UploadMessage, Option<Duration>> {
        let now = self.now();
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(interactive) = *self.last_interactive() {
            state.uploader.handle_interactive(interactive);
        }
        if let Some(message) = state.outgoing.take() {
            return Ok(message);
        }
        let Ok(spool) = &state.spool else {
            return Err(None);
        };
        while let Some(action) = state.uploader.poll_action(now, minute_of_day(), spool) {
            match action {
                UploadAction::Send(message) => return Ok(message),
                UploadAction::Read {
                    segment,
                    at,
                    length,
                } => {
                    let stream = state.stream;
                    state.wanted = Some(SegmentRead {
                        segment,
                        at,
                        length,
                        stream,
                    });
                    self.work.notify_one();
                }
            }
        }
        let timeout = state.uploader.poll_timeout(now);
        Err(timeout.map(|at| at.saturating_sub(now)))
    }
}

impl RecorderState {
    pub(in crate::recording) fn poll_work(&mut self, now: Duration) -> Option<SpoolWork> {
        self.spool.as_mut().ok()?.poll_work(now)
    }

    pub(in crate::recording) fn handle_done(
        &mut self,
        now: Duration,
        work: SpoolWork,
        outcome: Result<u64, ErrorKind>,
    ) {
        let refused = outcome
            .err()
            .map(|kind| Unavailable::Medium(kind).to_string());
        self.troubles.handle_work(&work, refused);
        if let Ok(spool) = &mut self.spool {
            spool.handle_clock(trusted_clock());
            spool.handle_done(now, work, outcome);
        }
    }

    pub(in crate::recording) fn handle_read(
        &mut self,
        now: Duration,
        read: &SegmentRead,
        outcome: Result<Vec<u8>, SegmentLost>,
    ) {
        if read.stream != self.stream {
            return;
        }
        if let Ok(spool) = &mut self.spool {
            let lost = outcome.as_ref().err().copied();
            self.outgoing = self.uploader.handle_read(now, outcome, spool);
            if let Some(lost) = lost {
                self.troubles.handle_lost(read.segment, lost);
            }
        }
    }

    pub(in crate::recording) fn poll_timeout(&self) -> Option<Duration> {
        self.spool.as_ref().ok()?.poll_timeout()
    }

    pub(in crate::recording) fn is_written(&self) -> bool {
        self.spool.as_ref().map_or(true, Spool::is_written)
    }

    /// Notes that a session goes on without a recording.
    pub(in crate::recording) fn note_unrecorded(&mut self, session: SessionId, why: &str) {
        let text = format!("session {session} is not recorded: {why}");
        warn!("{text}");
        self.unrecorded += 1;
        self.troubles.note(text);
    }
}
