//! A session on the device: between the stream to the relay and a process.

use core::time::Duration;

use super::SessionViolation;
use crate::codec::frame::{DataStream, SessionMessage};
use crate::limits::{DRAIN_GRACE, HANGUP_GRACE};
use crate::wire::{Exit, OnDisconnect, Open, SessionRefusal, Signal, WindowSize};

/// The next action of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceAction {
    /// Start the process, then report with `handle_started` or `handle_refused`.
    Start(Open),
    /// Send this to the relay, behind all data that was read before.
    Send(SessionMessage),
    /// Close the process's stdin, behind all data that came before. With a PTY it does nothing, as in sshd.
    CloseStdin,
    /// Set the terminal's size.
    Resize(WindowSize),
    /// Send a signal to the process group.
    Signal(Signal),
    /// The process is to stop: send HUP to the process group.
    Hangup,
    /// The observer is lost, as when sshd's connection closes: close the process's input, output and terminal, and let
    /// it go on. Nothing of it is observed any more.
    Detach,
    /// The observer is lost, and the process keeps its terminal: end its input, and discard its output until it exits.
    Leave,
    /// It did not go: send KILL to the process group.
    Kill,
    /// Stop reading output: what holds it open outlives the session (PTY only).
    StopOutput,
    /// The session is over: close the stream and forget it.
    Finish,
}

/// The reason why the relay's end of a session is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The observer is lost. What happens then is what the session's terms say.
    Lost,
    /// The session is to stop.
    Ordered,
}

/// The state machine. After each `handle_*`, call [`Self::poll_action`] until it gives nothing.
#[derive(Debug)]
pub struct DeviceSession {
    phase: SessionPhase,
    pty: bool,
    stdin_ended: bool,
    output_ended: bool,
    /// The reason why the relay is gone, if it is.
    departure: Option<Departure>,
    /// The action when the observer is lost; `None`: as if the session were ordered to stop.
    on_disconnect: Option<OnDisconnect>,
    exit: Option<Exit>,
    timeout: Option<Duration>,
    actions: heapless::Deque<DeviceAction, 8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionPhase {
    AwaitOpen,
    Starting,
    Running,
    /// `Hangup` was said; the process has until the timeout.
    HangingUp,
    /// The observer is lost, and the process goes on until it exits.
    Left,
    Done,
}

impl Default for DeviceSession {
    fn default() -> Self {
        Self {
            phase: SessionPhase::AwaitOpen,
            pty: false,
            stdin_ended: false,
            output_ended: false,
            departure: None,
            on_disconnect: None,
            exit: None,
            timeout: None,
            actions: heapless::Deque::new(),
        }
    }
}

impl DeviceSession {
    /// Notes that a message came from the relay.
    ///
    /// # Errors
    /// [`SessionViolation`] if it has no place here; treat it as [`Self::handle_peer_gone`].
    pub fn handle_message(&mut self, message: SessionMessage) -> Result<(), SessionViolation> {
        match (self.phase, message) {
            (SessionPhase::AwaitOpen, SessionMessage::Open(open)) => {
                self.pty = open.pty.is_some();
                self.on_disconnect = open.terms.on_disconnect;
                self.phase = SessionPhase::Starting;
                self.push(DeviceAction::Start(open));
            }
            (SessionPhase::AwaitOpen, _) | (_, SessionMessage::Open(_)) => {
                return Err(SessionViolation::Open);
            }
            (_, SessionMessage::Eof) if self.stdin_ended => return Err(SessionViolation::AfterEof),
            (_, SessionMessage::Eof) => {
                self.stdin_ended = true;
                self.push(DeviceAction::CloseStdin);
            }
            (_, SessionMessage::Resize(size)) => self.push_live(DeviceAction::Resize(size)),
            (_, SessionMessage::Signal(signal)) => self.push_live(DeviceAction::Signal(signal)),
            (
                _,
                SessionMessage::Accepted
                | SessionMessage::Refused(_)
                | SessionMessage::Exit(_)
                | SessionMessage::Address(_)
                | SessionMessage::Incoming(_)
                | SessionMessage::Names(_),
            ) => return Err(SessionViolation::Direction),
        }
        Ok(())
    }

    /// Notes that data came from the relay. The driver hands it to the process if this is `Ok(true)`, and drops it
    /// if `Ok(false)`: the process is gone.
    ///
    /// # Errors
    /// [`SessionViolation`] if there may be no such data here.
    pub fn handle_data(&self, stream: DataStream) -> Result<bool, SessionViolation> {
        if stream != DataStream::Stdin {
            return Err(SessionViolation::Direction);
        }
        if self.phase == SessionPhase::AwaitOpen {
            return Err(SessionViolation::Open);
        }
        if self.stdin_ended {
            return Err(SessionViolation::AfterEof);
        }
        Ok(self.exit.is_none() && self.phase != SessionPhase::Done)
    }

    /// Notes that the process runs.
    pub fn handle_started(&mut self, now: Duration) {
        if self.phase != SessionPhase::Starting {
            return;
        }
        self.phase = SessionPhase::Running;
        match self.departure {
            Some(departure) => self.depart(now, departure),
            None => self.push(DeviceAction::Send(SessionMessage::Accepted)),
        }
    }

    /// Notes that no process was started.
    pub fn handle_refused(&mut self, why: SessionRefusal) {
        if self.phase == SessionPhase::Starting {
            if self.departure.is_none() {
                self.push(DeviceAction::Send(SessionMessage::Refused(why)));
            }
            self.finish();
        }
    }

    /// Notes that the process (the leader of its group) has ended.
    pub fn handle_exited(&mut self, now: Duration, exit: Exit) {
        if self.exit.is_some() || self.phase == SessionPhase::Done {
            return;
        }
        self.exit = Some(exit);
        if self.phase == SessionPhase::Left {
            self.finish();
        } else if self.departure.is_some() {
            // The rest of the group has had its HUP; who ignores it is not waited for.
            self.push(DeviceAction::Kill);
            self.finish();
        } else if self.output_ended {
            self.conclude();
        } else if self.pty {
            // A job that was left in the background may hold the terminal open for ever, as with sshd;
            // without a PTY the pipes are waited for, as with sshd.
            self.timeout = Some(now + DRAIN_GRACE);
        }
    }

    /// Notes that every output of the process has come to its end and was handed to the relay's stream.
    pub fn handle_output_ended(&mut self) {
        if self.output_ended || self.phase == SessionPhase::Done {
            return;
        }
        self.output_ended = true;
        if self.departure.is_none() {
            self.push(DeviceAction::Send(SessionMessage::Eof));
        }
        if self.exit.is_some() {
            self.conclude();
        }
    }

    /// Notes that the relay reset the stream, closed it before the end, broke the protocol, or the tunnel is lost.
    pub fn handle_peer_gone(&mut self, now: Duration, departure: Departure) {
        if self.departure.is_some() {
            return;
        }
        self.departure = Some(departure);
        match self.phase {
            SessionPhase::AwaitOpen => self.finish(),
            SessionPhase::Running if self.exit.is_some() => self.finish(),
            SessionPhase::Running => self.depart(now, departure),
            SessionPhase::Starting
            | SessionPhase::HangingUp
            | SessionPhase::Left
            | SessionPhase::Done => {}
        }
    }

    /// Notes that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.timeout.is_none_or(|at| now < at) {
            return;
        }
        self.timeout = None;
        if self.phase == SessionPhase::HangingUp {
            self.push(DeviceAction::Kill);
        } else if self.exit.is_some() && !self.output_ended {
            self.push(DeviceAction::StopOutput);
            self.handle_output_ended();
        }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<DeviceAction> {
        self.actions.pop_front()
    }

    /// Returns whether the session is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == SessionPhase::Done
    }

    /// The relay is gone while the process runs.
    fn depart(&mut self, now: Duration, departure: Departure) {
        match (departure, self.on_disconnect) {
            (Departure::Lost, Some(OnDisconnect::Hup)) => {
                self.push(DeviceAction::Detach);
                self.finish();
            }
            (Departure::Lost, Some(OnDisconnect::Leave)) => {
                self.phase = SessionPhase::Left;
                self.push(DeviceAction::Leave);
            }
            (Departure::Lost, Some(OnDisconnect::Kill) | None) | (Departure::Ordered, _) => {
                self.hang_up(now);
            }
        }
    }

    fn hang_up(&mut self, now: Duration) {
        self.phase = SessionPhase::HangingUp;
        self.timeout = Some(now + HANGUP_GRACE);
        self.push(DeviceAction::Hangup);
    }

    /// Output and process have both ended and the relay still listens.
    fn conclude(&mut self) {
        if let Some(exit) = self.exit
            && self.phase == SessionPhase::Running
        {
            self.push(DeviceAction::Send(SessionMessage::Exit(exit)));
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.phase = SessionPhase::Done;
        self.timeout = None;
        self.push(DeviceAction::Finish);
    }

    /// Pushes what makes sense only while a process runs.
    fn push_live(&mut self, action: DeviceAction) {
        if self.exit.is_none()
            && matches!(self.phase, SessionPhase::Starting | SessionPhase::Running)
        {
            self.push(action);
        }
    }

    fn push(&mut self, action: DeviceAction) {
        // One input yields at most four actions and the driver polls after each: nothing is dropped.
        let _ = self.actions.push_back(action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Login, SessionId, UserName};
    use crate::wire::{Pty, SessionTerms, Work};
    use alloc::string::String;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::{Ipv4Addr, SocketAddr};

    const T: Duration = Duration::from_secs(100);

    fn open(pty: bool) -> Open {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 22));
        Open {
            session: SessionId([0; 16]),
            user: UserName::new("alice").unwrap(),
            login: Login::new("pi").unwrap(),
            work: Work::Shell,
            pty: pty.then(|| Pty {
                term: String::from("xterm"),
                size: WindowSize::default(),
                modes: vec![],
            }),
            env: vec![],
            client: address,
            server: address,
            original_command: None,
            recording: None,
            terms: SessionTerms::default(),
            forward_log: None,
        }
    }

    fn running(pty: bool) -> DeviceSession {
        running_under(pty, None)
    }

    fn running_under(pty: bool, on_disconnect: Option<OnDisconnect>) -> DeviceSession {
        let mut session = DeviceSession::default();
        let mut open = open(pty);
        open.terms.on_disconnect = on_disconnect;
        session
            .handle_message(SessionMessage::Open(open.clone()))
            .unwrap();
        assert_eq!(drain(&mut session), [DeviceAction::Start(open)]);
        session.handle_started(T);
        assert_eq!(
            drain(&mut session),
            [DeviceAction::Send(SessionMessage::Accepted)]
        );
        session
    }

    fn drain(session: &mut DeviceSession) -> Vec<DeviceAction> {
        core::iter::from_fn(|| session.poll_action()).collect()
    }

    fn ending(exit: Exit) -> [DeviceAction; 2] {
        [
            DeviceAction::Send(SessionMessage::Exit(exit)),
            DeviceAction::Finish,
        ]
    }

    #[test]
    fn the_exit_status_comes_behind_the_last_output() {
        let exit = Exit::Status(7);
        let mut session = running(false);
        session.handle_exited(T, exit);
        assert_eq!(drain(&mut session), []);
        assert_eq!(session.poll_timeout(), None, "pipes are waited for");
        session.handle_output_ended();
        let eof = DeviceAction::Send(SessionMessage::Eof);
        assert_eq!(
            drain(&mut session),
            [[eof].as_slice(), &ending(exit)].concat()
        );
        assert!(session.is_done());
    }

    #[test]
    fn a_job_that_keeps_the_terminal_open_does_not_keep_the_session() {
        let mut session = running(true);
        session.handle_exited(T, Exit::Status(0));
        assert_eq!(session.poll_timeout(), Some(T + DRAIN_GRACE));
        session.handle_timeout(T + DRAIN_GRACE);
        assert_eq!(
            drain(&mut session),
            [
                [
                    DeviceAction::StopOutput,
                    DeviceAction::Send(SessionMessage::Eof)
                ]
                .as_slice(),
                &ending(Exit::Status(0))
            ]
            .concat()
        );
    }

    #[test]
    fn an_order_to_stop_is_hup_then_kill_whatever_the_terms_say() {
        use Departure::{Lost, Ordered};
        use OnDisconnect::{Hup, Kill, Leave};
        let table = [
            (Ordered, None),
            (Ordered, Some(Hup)),
            (Ordered, Some(Leave)),
            (Ordered, Some(Kill)),
            (Lost, Some(Kill)),
            // A relay that cannot tell the two apart.
            (Lost, None),
        ];
        for (departure, on_disconnect) in table {
            let mut session = running_under(true, on_disconnect);
            session.handle_peer_gone(T, departure);
            assert_eq!(drain(&mut session), [DeviceAction::Hangup]);
            session.handle_timeout(T + HANGUP_GRACE);
            assert_eq!(drain(&mut session), [DeviceAction::Kill]);
            session.handle_exited(
                T,
                Exit::Signal {
                    signal: Signal::Kill,
                    core_dumped: false,
                },
            );
            assert_eq!(
                drain(&mut session),
                [DeviceAction::Kill, DeviceAction::Finish]
            );
        }
    }

    #[test]
    fn a_lost_observer_is_no_order_to_stop() {
        for pty in [false, true] {
            let mut session = running_under(pty, Some(OnDisconnect::Hup));
            session.handle_peer_gone(T, Departure::Lost);
            let detached = [DeviceAction::Detach, DeviceAction::Finish];
            assert_eq!(drain(&mut session), detached);
            assert_eq!(session.poll_timeout(), None, "no KILL follows");

            let mut session = running_under(pty, Some(OnDisconnect::Leave));
            session.handle_peer_gone(T, Departure::Lost);
            assert_eq!(drain(&mut session), [DeviceAction::Leave]);
            assert_eq!(session.poll_timeout(), None, "no KILL follows");
            session.handle_peer_gone(T, Departure::Ordered);
            session.handle_output_ended();
            assert_eq!(drain(&mut session), []);
            session.handle_exited(T, Exit::Status(0));
            assert_eq!(drain(&mut session), [DeviceAction::Finish]);
        }
    }

    #[test]
    fn a_client_that_goes_away_during_the_start_is_not_forgotten() {
        let mut session = DeviceSession::default();
        session
            .handle_message(SessionMessage::Open(open(false)))
            .unwrap();
        session.handle_peer_gone(T, Departure::Lost);
        session.handle_started(T);
        assert!(drain(&mut session).contains(&DeviceAction::Hangup));
    }

    #[test]
    fn what_has_no_place_is_a_violation() {
        let mut session = DeviceSession::default();
        assert_eq!(
            session.handle_message(SessionMessage::Eof),
            Err(SessionViolation::Open)
        );
        assert_eq!(
            session.handle_data(DataStream::Stdin),
            Err(SessionViolation::Open)
        );
        let mut session = running(false);
        let second = session.handle_message(SessionMessage::Open(open(false)));
        assert_eq!(second, Err(SessionViolation::Open));
        let exit = session.handle_message(SessionMessage::Exit(Exit::Status(0)));
        assert_eq!(exit, Err(SessionViolation::Direction));
        assert_eq!(
            session.handle_data(DataStream::Stdout),
            Err(SessionViolation::Direction)
        );
        session.handle_message(SessionMessage::Eof).unwrap();
        assert_eq!(
            session.handle_data(DataStream::Stdin),
            Err(SessionViolation::AfterEof)
        );
        let again = session.handle_message(SessionMessage::Eof);
        assert_eq!(again, Err(SessionViolation::AfterEof));
    }
}
