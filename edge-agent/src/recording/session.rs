//! One session's way into the spool.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use event_listener::EventListener;
use futures_lite::FutureExt as _;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::{
    EndReason, EnvironmentRefused, Event, RecordedTerminal, RecordingStart, StartedWork, Stream,
};
use holdfast_protocol::recording::spool::{Accept, Begin, DataPiece};
use holdfast_protocol::wire::{Exit, Open, RecordingMode, RecordingTerms};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::clock::{monotonic_clock, wall_clock};
use super::commands;
use super::recorder::{NotRecordable, Recorder, RecorderState};
use super::sftp::FollowedTransfer;

/// The recording of a session, or the absence of one: then everything is let through.
#[derive(Debug)]
pub(crate) struct Recording {
    recorder: Arc<Recorder>,
    /// The session that is being recorded, if it is.
    session: Option<SessionId>,
    /// True if uploads stand back behind what passes here.
    interactive: bool,
    /// The operations of a file transfer; its data is not recorded.
    files: Option<Box<FollowedTransfer>>,
    /// The spool is asked again when this resolves.
    waits: Option<EventListener>,
}

impl Recording {
    /// Creates the recording of a session that has not begun.
    pub(crate) fn none(recorder: Arc<Recorder>) -> Self {
        Self {
            recorder,
            session: None,
            interactive: false,
            files: None,
            waits: None,
        }
    }

    /// Begins what the relay asks for.
    ///
    /// # Errors
    /// [`NotRecordable`]: the session must not begin.
    pub(crate) fn begin(&mut self, open: &Open) -> Result<(), NotRecordable> {
        self.interactive = open.pty.is_some();
        if self.interactive {
            self.recorder.notice_interactive();
        }
        let Some(terms) = &open.recording else {
            return Ok(());
        };
        if terms.mode == RecordingMode::Off {
            return Ok(());
        }
        let mut state = self.recorder.lock();
        let begun = begin(&self.recorder, &mut state, open, terms);
        self.recorder.wake(&state);
        match begun {
            Ok(()) => {
                state.live.insert(open.session);
                if open.request.is_forward_log() {
                    state.take_forwards(open.session);
                }
                self.session = Some(open.session);
                self.files = open.request.is_sftp().then(Box::default);
                drop(state);
                if self.interactive {
                    commands::watch(&self.recorder, open.session);
                }
                Ok(())
            }
            Err(why) if terms.mode == RecordingMode::Strict && !terms.recover => {
                Err(NotRecordable(why))
            }
            Err(why) => {
                state.note_unrecorded(open.session, &why);
                // The relay is informed.
                self.recorder.changed.notify(usize::MAX);
                Ok(())
            }
        }
    }

    /// Notes that the session's process runs: what it starts is recorded, too.
    pub(crate) fn started(&self, leader: u32) {
        if let Some(session) = self.session.filter(|_| self.interactive) {
            commands::claim(&*self.recorder, session, leader);
        }
    }

    /// Returns whether anything is recorded.
    pub(crate) fn is_on(&self) -> bool {
        self.session.is_some()
    }

    /// Takes a piece of a frame of data, before it is shown or given to the process. Pending: it has to be
    /// offered again.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        piece: DataPiece<'_>,
    ) -> Poll<Result<(), NotRecordable>> {
        if self.interactive && !piece.bytes.is_empty() {
            self.recorder.notice_interactive();
        }
        if let Err(why) = ready!(self.poll_files(cx)) {
            return Poll::Ready(Err(why));
        }
        let recorded = self.poll_accept(cx, &|recorder, state, session| {
            let now = recorder.now();
            match &mut state.spool {
                Ok(spool) => spool.accept_data(now, session, piece),
                Err(_) => Accept::Accepted,
            }
        });
        if let Err(why) = ready!(recorded) {
            return Poll::Ready(Err(why));
        }
        match (&mut self.files, piece.stream) {
            (Some(files), Stream::Stdin) => files.handle_requests(piece.bytes),
            (Some(files), Stream::Stdout) => files.handle_answers(piece.bytes),
            _ => return Poll::Ready(Ok(())),
        }
        // The piece is taken. What can't be recorded of it yet is, before the next one is.
        match self.poll_files(cx) {
            Poll::Ready(recorded) => Poll::Ready(recorded),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Records the operations that have ended.
    fn poll_files(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotRecordable>> {
        let Some(mut files) = self.files.take() else {
            return Poll::Ready(Ok(()));
        };
        let mut recorded = Poll::Ready(Ok(()));
        while let Some(event) = files.front() {
            recorded = self.poll_event(cx, &event);
            if !matches!(recorded, Poll::Ready(Ok(()))) {
                break;
            }
            files.pop();
        }
        self.files = Some(files);
        recorded
    }

    /// Takes something else than data. Pending: it has to be offered again.
    pub(crate) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        event: &Event<'_>,
    ) -> Poll<Result<(), NotRecordable>> {
        self.poll_accept(cx, &|recorder, state, session| {
            let now = recorder.now();
            match &mut state.spool {
                Ok(spool) => spool.accept(now, session, event.clone()),
                Err(_) => Accept::Accepted,
            }
        })
    }

    /// Records the names of environment variables that the session does not get.
    pub(crate) async fn refused_environment(
        &mut self,
        names: &[String],
    ) -> Result<(), NotRecordable> {
        if names.is_empty() {
            return Ok(());
        }
        let event = Event::EnvironmentRefused(EnvironmentRefused::of(names));
        poll_fn(|cx| self.poll_event(cx, &event)).await
    }

    /// Records the end of a stream.
    pub(crate) fn poll_eof(
        &mut self,
        cx: &mut Context<'_>,
        stream: Stream,
    ) -> Poll<Result<(), NotRecordable>> {
        self.poll_event(cx, &Event::Eof(stream))
    }

    /// Ends the recording. What comes later is let through.
    pub(crate) fn end(&mut self, exit: Option<Exit>, why: EndReason) {
        let Some(session) = self.session.take() else {
            return;
        };
        commands::leave(&*self.recorder, session);
        let now = self.recorder.now();
        let mut state = self.recorder.lock();
        state.live.remove(&session);
        state.end_forwards(now, session);
        if let Ok(spool) = &mut state.spool {
            if let Some(mut files) = self.files.take() {
                files.finish();
                while let Some(event) = files.front() {
                    // Where all must be recorded, the rest of the list is said to be missing.
                    if let Accept::Refused(why) = spool.accept_last(now, session, event) {
                        spool.unfollowed(now, session, &why.to_string());
                        break;
                    }
                    files.pop();
                }
            }
            spool.end(now, session, exit.map(Event::Exit), why);
        }
        self.recorder.wake(&state);
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        offer: &dyn Fn(&Recorder, &mut RecorderState, SessionId) -> Accept,
    ) -> Poll<Result<(), NotRecordable>> {
        let Some(session) = self.session else {
            return Poll::Ready(Ok(()));
        };
        loop {
            let accept = {
                let mut state = self.recorder.lock();
                let accept = offer(&self.recorder, &mut state, session);
                self.recorder.wake(&state);
                accept
            };
            match accept {
                Accept::Accepted | Accept::Gap => return Poll::Ready(Ok(())),
                Accept::Refused(why) => return Poll::Ready(Err(NotRecordable(why.to_string()))),
                Accept::Wait => {}
            }
            match &mut self.waits {
                // The spool is asked once more: what happened before this call was not heard.
                None => self.waits = Some(self.recorder.changed.listen()),
                Some(waits) => {
                    ready!(waits.poll(cx));
                    self.waits = None;
                }
            }
        }
    }
}

fn begin(
    recorder: &Recorder,
    state: &mut RecorderState,
    open: &Open,
    terms: &RecordingTerms,
) -> Result<(), String> {
    let spool = match &mut state.spool {
        Ok(spool) => spool,
        Err(why) => return Err(why.clone()),
    };
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| "the system gives no random numbers".to_owned())?;
    let (work, rest_of_command) = StartedWork::of(&open.request);
    let env = open.env.iter();
    let start = RecordingStart {
        session: open.session,
        device: state.device.id,
        name: state.device.name.clone(),
        agent: env!("CARGO_PKG_VERSION"),
        user: open.user.clone(),
        login: open.login.clone(),
        work,
        terminal: open.pty.as_ref().map(|pty| RecordedTerminal {
            term: &pty.term,
            size: pty.size,
        }),
        env: env.map(|(name, value)| (&**name, &**value)).collect(),
        client: open.client,
        wall: wall_clock(),
        monotonic: monotonic_clock(),
        mode: terms.mode,
        stdin: terms.stdin,
        // What a copy or a forward carries is only counted: it would fill any spool.
        streams: !open.request.is_sftp() && !open.request.is_forward_log(),
        volatile: recorder.is_volatile(),
    };
    let begin = Begin {
        terms,
        key: state.device.key,
        seed,
        start,
        content_max: open.terms.content_max,
        rest_of_command,
    };
    spool
        .begin(recorder.now(), &begin)
        .map_err(|unavailable| unavailable.to_string())
}
