//! The recorder of an agent: one spool, one thread that writes, and what `status` says of it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use embedded_io::ErrorKind;
use futures_lite::FutureExt as _;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{DeviceId, DeviceName, SessionId};
use holdfast_protocol::limits::{SPOOL_BYTES, SPOOL_RESERVE};
use holdfast_protocol::recording::medium::SegmentName;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::recording::seal::RecordingKey;
use holdfast_protocol::recording::spool::{Recovered, Spool, SpoolConfig, Sync, Unavailable, Work};
use holdfast_protocol::recording::upload::{UploadAction, UploadConfig, UploadPolicy, Uploader};
use holdfast_protocol::wire::{Refused, SegmentLost, UploadAnswer, UploadMessage};
use serde::{Deserialize, Serialize};
use smol::Timer;

use super::spool_fs::Folder;
use super::writer;
use crate::limits::{EARLIEST_CLOCK, RECORDING_STOP_GRACE, SPOOL_SHARE, WRITER_STACK};
use crate::membership::Membership;
use crate::{info, warn};

/// Where recordings wait, and when they are uploaded.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// The spool's folder.
    pub folder: PathBuf,
    /// The most that it may hold.
    pub max_bytes: u64,
    /// Free space of the file system that it leaves alone; by default 16 MiB, or a fourth of a small one.
    pub reserve: Option<u64>,
    /// When it makes sure that a power cut takes nothing; by default with each write, unless it lies in
    /// memory anyway.
    pub sync: Option<Sync>,
    /// When and how much is uploaded.
    pub upload: UploadConfig,
}

impl RecorderConfig {
    /// With defaults for everything but the folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            max_bytes: SPOOL_BYTES,
            reserve: None,
            sync: None,
            upload: UploadConfig {
                policy: UploadPolicy::Idle,
                rate: None,
                daily: None,
            },
        }
    }
}

/// What the recorder knows of its device.
#[derive(Clone, Debug)]
pub struct RecordingDevice {
    /// Its identifier.
    pub id: DeviceId,
    /// Its present name.
    pub name: DeviceName,
    /// To what recordings are sealed; `None` until a roster brings it.
    pub key: Option<RecordingKey>,
}

impl From<&Membership> for RecordingDevice {
    fn from(membership: &Membership) -> Self {
        Self {
            id: membership.id(),
            name: membership.name().clone(),
            key: membership.roster().recording,
        }
    }
}

/// The recorder. Sessions put in, one thread writes, the tunnel's upload takes out.
#[derive(Debug)]
pub struct Recorder {
    state: Mutex<State>,
    /// Wakes the thread that writes.
    pub(super) work: Condvar,
    /// Notified when work was done, or something waits for the relay.
    pub(super) changed: event_listener::Event,
    folder: PathBuf,
    volatile: bool,
    /// The spool's time begins here.
    epoch: Instant,
    /// When data of an interactive session passed last, in microseconds of that time.
    interactive: AtomicU64,
}

/// What the lock guards. It is never held during I/O.
#[derive(Debug)]
pub(super) struct State {
    /// Or why there is none.
    pub(super) spool: Result<Spool, String>,
    pub(super) device: RecordingDevice,
    /// Sessions that are being recorded.
    pub(super) live: BTreeSet<SessionId>,
    uploader: Uploader,
    /// Counts upload streams: what was read for an older one is of no use.
    stream: u64,
    /// What the uploader wants read.
    pub(super) wanted: Option<SegmentRead>,
    /// What it sends next.
    outgoing: Option<UploadMessage>,
    /// Until when the writer sleeps; `None` while it works.
    pub(super) sleeps_until: Option<Duration>,
    pub(super) stopping: bool,
    pub(super) stopped: bool,
    /// Sessions that went on without a recording, since the agent's start.
    unrecorded: u64,
    trouble: Option<String>,
}

/// A part of a segment that is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentRead {
    pub(super) segment: SegmentName,
    pub(super) at: u64,
    pub(super) length: usize,
    stream: u64,
}

/// What `status` shows of the spool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Its folder.
    pub folder: String,
    /// Bytes that it holds or has promised to hold.
    pub used: u64,
    /// The most that it may hold.
    pub max: u64,
    /// Segments that wait for the relay.
    pub waiting: u64,
    /// When the oldest of them was begun, in seconds since 1970 by the device's clock.
    pub waiting_since: Option<i64>,
    /// Whether it lies in memory: a power cut takes what waits there.
    pub volatile: bool,
    /// Sessions that are being recorded now.
    pub recording: u32,
    /// Sessions that went on without a recording since the agent's start.
    pub unrecorded: u64,
    /// Bytes of data that were recorded since then, and bytes that were written to the folder for it.
    pub recorded: u64,
    /// See [`Self::recorded`].
    pub written: u64,
    /// Bytes written for each recorded one.
    pub flash_per_byte: Option<f64>,
    /// The last thing that went wrong.
    pub last_trouble: Option<String>,
}

impl Recorder {
    /// Takes over what is in the folder and begins to write. Where the folder can't be used, a session that
    /// must be recorded is refused, and `status` says why.
    #[must_use]
    pub fn open(config: &RecorderConfig, device: RecordingDevice) -> Arc<Self> {
        let opened = open_spool(config);
        let volatile = opened
            .as_ref()
            .is_ok_and(|(_, folder)| folder.is_volatile());
        let (spool, folder) = match opened {
            Ok((spool, folder)) => (Ok(spool), Some(folder)),
            Err(why) => (Err(why), None),
        };
        let trouble = spool.as_ref().err().cloned();
        if let Some(why) = &trouble {
            warn!("sessions cannot be recorded: {why}");
        }
        let recorder = Arc::new(Self {
            state: Mutex::new(State {
                spool,
                device,
                live: BTreeSet::new(),
                uploader: Uploader::new(config.upload),
                stream: 0,
                wanted: None,
                outgoing: None,
                sleeps_until: None,
                stopping: false,
                stopped: folder.is_none(),
                unrecorded: 0,
                trouble,
            }),
            work: Condvar::new(),
            changed: event_listener::Event::new(),
            folder: config.folder.clone(),
            volatile,
            epoch: Instant::now(),
            interactive: AtomicU64::new(u64::MAX),
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
            state.trouble = Some(why.clone());
            state.spool = Err(why);
            state.stopped = true;
        }
    }

    /// What a newer roster or name says of the device.
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

    /// What `status` shows.
    #[must_use]
    pub fn status(&self) -> SpoolStatus {
        let state = self.lock();
        let spool = state.spool.as_ref().ok();
        let flash = spool.map(Spool::flash).unwrap_or_default();
        let failing = spool.and_then(Spool::trouble).map(Unavailable::Medium);
        SpoolStatus {
            folder: self.folder.display().to_string(),
            used: spool.map_or(0, Spool::used),
            max: spool.map_or(0, |spool| spool.config().max_bytes),
            waiting: spool.map_or(0, |spool| spool.offers().count() as u64),
            waiting_since: spool.and_then(Spool::oldest),
            volatile: self.volatile,
            recording: u32::try_from(state.live.len()).unwrap_or(u32::MAX),
            unrecorded: state.unrecorded,
            recorded: flash.recorded,
            written: flash.written,
            // Bytes on flash are far below 2^52.
            flash_per_byte: (flash.recorded > 0)
                .then(|| flash.written as f64 / flash.recorded as f64),
            last_trouble: failing
                .map(|failing| failing.to_string())
                .or_else(|| state.trouble.clone()),
        }
    }

    /// Asks for an upload, whatever the policy.
    pub fn request_upload(&self) {
        self.lock().uploader.handle_request();
        self.changed.notify(usize::MAX);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is made whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spool's time.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Whether what is in the spool is lost with the power.
    pub(super) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Data of an interactive session has passed: uploads stand back.
    pub(super) fn notice_interactive(&self) {
        let micros = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        self.interactive.store(micros, Ordering::Relaxed);
    }

    /// Wakes the writer if it would sleep for too long.
    pub(super) fn wake(&self, state: &State) {
        let due = state.poll_timeout();
        let is_late = |until: Duration| due.is_some_and(|due| due < until);
        if state.wanted.is_some() || state.sleeps_until.is_some_and(is_late) {
            self.work.notify_one();
        }
    }

    /// An upload stream stands; there is one at a time.
    pub(super) fn handle_upload_connected(&self) {
        let mut state = self.lock();
        state.stream += 1;
        (state.wanted, state.outgoing) = (None, None);
        state.uploader.handle_connected();
    }

    pub(super) fn handle_upload_answer(&self, answer: &UploadAnswer) {
        let now = self.now();
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Ok(spool) = &mut state.spool {
            state.uploader.handle_answer(now, answer, spool);
        }
        if let UploadAnswer::Refused(refusal) = answer {
            let why = match refusal.why {
                Refused::Unavailable => "cannot be stored by the relay now: it is offered again",
                Refused::Tampered => {
                    "is no part of its recording, says the relay: it was set aside"
                }
                Refused::UnknownSession => {
                    "is of a session that the relay does not know: it was set aside"
                }
            };
            let text = format!(
                "segment {} of session {} {why}",
                refusal.segment, refusal.session
            );
            if state.trouble.as_ref() != Some(&text) {
                warn!("{text}");
            }
            state.trouble = Some(text);
        }
        // There may be something to remove.
        self.work.notify_one();
        self.changed.notify(usize::MAX);
    }

    /// The next message for the upload stream; if there is none, when to ask again although nothing changed.
    pub(super) fn poll_upload(&self) -> Result<UploadMessage, Option<Duration>> {
        let now = self.now();
        let mut guard = self.lock();
        let state = &mut *guard;
        let interactive = self.interactive.load(Ordering::Relaxed);
        if interactive != u64::MAX {
            state
                .uploader
                .handle_interactive(Duration::from_micros(interactive));
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

impl State {
    pub(super) fn poll_work(&mut self, now: Duration) -> Option<Work> {
        self.spool.as_mut().ok()?.poll_work(now)
    }

    pub(super) fn handle_done(
        &mut self,
        now: Duration,
        work: Work,
        outcome: Result<u64, ErrorKind>,
    ) {
        if let Err(kind) = outcome {
            let text = Unavailable::Medium(kind).to_string();
            if self.trouble.as_ref() != Some(&text) {
                warn!("{text}");
            }
            self.trouble = Some(text);
        }
        if let Ok(spool) = &mut self.spool {
            spool.handle_clock(trusted_clock());
            spool.handle_done(now, work, outcome);
        }
    }

    pub(super) fn handle_read(
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
                let text = format!("segment {} is lost ({lost:?})", read.segment);
                warn!("{text}");
                self.trouble = Some(text);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.spool.as_ref().ok()?.poll_timeout()
    }

    pub(super) fn is_written(&self) -> bool {
        self.spool.as_ref().map_or(true, Spool::is_written)
    }

    /// A session goes on without a recording.
    pub(super) fn note_unrecorded(&mut self, session: SessionId, why: &str) {
        let text = format!("session {session} is not recorded: {why}");
        warn!("{text}");
        self.unrecorded += 1;
        self.trouble = Some(text);
    }
}

fn open_spool(config: &RecorderConfig) -> Result<(Spool, Folder), String> {
    let mut folder = Folder::open(&config.folder).map_err(|error| error.to_string())?;
    let small = folder
        .size()
        .map_or(SPOOL_RESERVE, |size| size / SPOOL_SHARE);
    let sync = match config.sync {
        Some(sync) => sync,
        None if folder.is_volatile() => Sync::Off,
        None => Sync::Block,
    };
    let spool = SpoolConfig {
        max_bytes: config.max_bytes,
        reserve: config.reserve.unwrap_or(small.min(SPOOL_RESERVE)),
        sync,
    };
    let (spool, recovered) = Spool::recover(spool, &mut folder).map_err(|kind| {
        format!(
            "the spool {} cannot be read: {kind:?}",
            config.folder.display()
        )
    })?;
    report(&config.folder, &recovered);
    Ok((spool, folder))
}

fn report(folder: &Path, recovered: &Recovered) {
    for session in &recovered.unfinished {
        info!("the recording of session {session} ends where the agent stopped without a word");
    }
    for (segment, fault) in &recovered.corrupt {
        let folder = folder.to_string_lossy();
        let folder = Escaped(&folder);
        warn!("segment {segment} in {folder} is corrupt and was set aside: {fault}");
    }
}

/// Seconds since 1970, unless the clock has plainly never been set.
fn trusted_clock() -> Option<i64> {
    let passed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    let seconds = i64::try_from(passed.as_secs()).ok()?;
    (seconds >= EARLIEST_CLOCK).then_some(seconds)
}

/// The minute of the day in UTC, if the clock can be trusted.
fn minute_of_day() -> Option<u16> {
    let seconds = trusted_clock()?;
    u16::try_from(seconds.rem_euclid(86_400) / 60).ok()
}

impl fmt::Display for SpoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "spool: {:.1} of {:.1} MiB",
            mib(self.used),
            mib(self.max)
        )?;
        match (self.waiting, self.waiting_since) {
            (0, _) => {}
            (count, None) => write!(f, ", {count} segments wait for the relay")?,
            (count, Some(since)) => {
                let now = trusted_clock().unwrap_or(since);
                let ago = now.saturating_sub(since).max(0);
                write!(
                    f,
                    ", {count} segments wait for the relay, the oldest for {ago} s"
                )?;
            }
        }
        if self.volatile {
            f.write_str(", in memory: lost with the power")?;
        }
        if let Some(ratio) = self.flash_per_byte {
            write!(f, ", {ratio:.2} bytes written for each recorded one")?;
        }
        if self.recording > 0 {
            write!(f, ", {} sessions being recorded", self.recording)?;
        }
        if self.unrecorded > 0 {
            write!(f, ", {} sessions not recorded", self.unrecorded)?;
        }
        if let Some(trouble) = &self.last_trouble {
            write!(f, "\nlast trouble of the spool: {}", Escaped(trouble))?;
        }
        Ok(())
    }
}
