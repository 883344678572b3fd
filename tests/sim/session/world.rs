//! One session: an operator, a relay, a channel in each direction, a device and a process.
//!
//! The channels carry the real bytes and are read in random pieces. What the machines do is checked where
//! it happens, against plain facts about the process and the operator; what must hold over the whole is
//! checked by [`World::check`].

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_protocol::codec::frame::{
    DataStream, FramePiece, FrameReader, SessionMessage, data_header,
};
use holdfast_protocol::ids::{Login, SessionId, UserName};
use holdfast_protocol::limits::{DRAIN_GRACE, HANGUP_GRACE};
use holdfast_protocol::session::{
    Departure, DeviceAction, DeviceSession, RelayEvent, RelaySession,
};
use holdfast_protocol::wire::{
    Exit, OnDisconnect, Open, Pty, SessionRefusal, SessionTerms, Signal, WindowSize, Work,
};

use crate::random::Random;

/// The most time that passes at once.
const STEP: Duration = Duration::from_secs(2);

/// How the relay's end of the stream goes away before the session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A reset, or a lost tunnel: what was on its way is gone.
    Reset,
    /// The stream is finished: the device reads all of it, and then sees that nobody is there.
    AfterAllWasRead,
    /// A reset that orders the session to stop.
    Order,
}

impl Cut {
    fn departure(self) -> Departure {
        match self {
            Self::Reset | Self::AfterAllWasRead => Departure::Lost,
            Self::Order => Departure::Ordered,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    None,
    Starting,
    Running,
    /// It ended then.
    Ended(Duration, Exit),
}

pub(crate) struct World<'a> {
    pub(crate) random: &'a mut Random,
    now: Duration,
    operator: Operator,
    to_device: VecDeque<u8>,
    to_relay: VecDeque<u8>,
    cut: Option<Cut>,
    relay: RelaySession,
    relay_reader: FrameReader,
    /// What the relay learned, in order: data is `Ok`.
    learned: Vec<RelayEvent>,
    output_received: Vec<u8>,
    device: DeviceSession,
    device_reader: FrameReader,
    peer_gone_at: Option<Duration>,
    process: Process,
    pty: bool,
    on_disconnect: Option<OnDisconnect>,
    refusing: bool,
    ignores_hangup: bool,
    /// A job in the background keeps the terminal open for ever.
    background_job: bool,
    output_open: bool,
    output_sent: Vec<u8>,
    input_taken: Vec<u8>,
    input_closed: bool,
    /// What was done to the process, in order.
    done: Vec<DeviceAction>,
    hung_up_at: Option<Duration>,
    /// The process goes on with nobody who sees it.
    left: bool,
    finished: bool,
    finished_at: Duration,
}

/// What the operator has sent.
#[derive(Default)]
struct Operator {
    input: Vec<u8>,
    ended: bool,
    controls: Vec<DeviceAction>,
}

impl<'a> World<'a> {
    /// A session whose `Open` is on its way.
    pub(crate) fn new(random: &'a mut Random) -> Self {
        let pty = random.chance(50);
        let (refusing, ignores_hangup) = (random.chance(10), random.chance(40));
        let background_job = pty && random.chance(30);
        let on_disconnect = [
            None,
            Some(OnDisconnect::Hup),
            Some(OnDisconnect::Leave),
            Some(OnDisconnect::Kill),
        ][random.index(4)];
        let open = SessionMessage::Open(open(pty, on_disconnect));
        let open = open.encode().unwrap();
        Self {
            random,
            now: Duration::from_secs(1_000),
            operator: Operator::default(),
            to_device: open.into(),
            to_relay: VecDeque::new(),
            cut: None,
            relay: RelaySession::default(),
            relay_reader: FrameReader::default(),
            learned: vec![],
            output_received: vec![],
            device: DeviceSession::default(),
            device_reader: FrameReader::default(),
            peer_gone_at: None,
            process: Process::None,
            pty,
            on_disconnect,
            refusing,
            ignores_hangup,
            background_job,
            output_open: true,
            output_sent: vec![],
            input_taken: vec![],
            input_closed: false,
            done: vec![],
            hung_up_at: None,
            left: false,
            finished: false,
            finished_at: Duration::ZERO,
        }
    }

    pub(crate) fn operator_sends_data(&mut self) {
        if self.operator_is_there() && !self.operator.ended {
            let length = self.random.index(300);
            let data: Vec<u8> = (0..length).map(|_| self.any_byte()).collect();
            self.to_device
                .extend(data_header(DataStream::Stdin, length));
            self.to_device.extend(&data);
            self.operator.input.extend(data);
        }
    }

    pub(crate) fn operator_ends_input(&mut self) {
        if self.operator_is_there() && !self.operator.ended {
            self.operator.ended = true;
            self.send_to_device(&SessionMessage::Eof);
        }
    }

    pub(crate) fn operator_resizes(&mut self) {
        if self.operator_is_there() {
            let size = WindowSize::clamped(self.any_byte().into(), 24, 0, 0);
            self.operator.controls.push(DeviceAction::Resize(size));
            self.send_to_device(&SessionMessage::Resize(size));
        }
    }

    pub(crate) fn operator_signals(&mut self) {
        if self.operator_is_there() {
            let signal = Signal::Other(self.any_byte());
            self.operator.controls.push(DeviceAction::Signal(signal));
            self.send_to_device(&SessionMessage::Signal(signal));
        }
    }

    /// The operator's end goes away, if the session still lives there.
    pub(crate) fn cut(&mut self, cut: Cut) {
        if !self.operator_is_there() {
            return;
        }
        self.cut = Some(cut);
        self.to_relay.clear();
        if cut != Cut::AfterAllWasRead {
            self.to_device.clear();
            self.device_sees_the_cut();
        }
    }

    /// The device reads some of what is there.
    pub(crate) fn deliver_to_device(&mut self) {
        let count = self.random.index(self.to_device.len() + 1);
        let bytes: Vec<u8> = self.to_device.drain(..count).collect();
        let mut input = bytes.as_slice();
        while !self.finished {
            let Some(piece) = self.device_reader.read(&mut input).unwrap() else {
                break;
            };
            match piece {
                FramePiece::Data(stream, data) => {
                    // An honest relay breaks no rule, whatever happens on the device meanwhile.
                    if self.device.handle_data(stream).unwrap() {
                        self.input_taken.extend_from_slice(data);
                    }
                }
                FramePiece::Message(message) => self.device.handle_message(message).unwrap(),
            }
            self.act();
        }
        if self.cut == Some(Cut::AfterAllWasRead) && self.to_device.is_empty() {
            self.device_sees_the_cut();
        }
    }

    /// The relay reads some of what is there.
    pub(crate) fn deliver_to_relay(&mut self) {
        let count = self.random.index(self.to_relay.len() + 1);
        let bytes: Vec<u8> = self.to_relay.drain(..count).collect();
        let mut input = bytes.as_slice();
        while let Some(piece) = self.relay_reader.read(&mut input).unwrap() {
            match piece {
                FramePiece::Data(stream, data) => {
                    self.relay.handle_data(stream).unwrap();
                    self.output_received.extend_from_slice(data);
                }
                FramePiece::Message(message) => {
                    let event = self.relay.handle_message(message).unwrap();
                    self.learned.push(event);
                }
            }
        }
    }

    /// The process that is being started runs, or cannot be.
    pub(crate) fn start_completes(&mut self) {
        if self.process != Process::Starting {
            return;
        }
        if self.refusing {
            self.process = Process::None;
            self.device.handle_refused(SessionRefusal::NoAccount);
        } else {
            self.process = Process::Running;
            self.device.handle_started(self.now);
        }
        self.act();
    }

    pub(crate) fn process_writes(&mut self) {
        let started = matches!(self.process, Process::Running | Process::Ended(..));
        if !started || !self.output_open || self.finished {
            return;
        }
        let length = self.random.index(300);
        let data: Vec<u8> = (0..length).map(|_| self.any_byte()).collect();
        let stream = if self.pty || self.random.chance(70) {
            DataStream::Stdout
        } else {
            DataStream::Stderr
        };
        if self.cut.is_none() {
            self.to_relay.extend(data_header(stream, length));
            self.to_relay.extend(&data);
            self.output_sent.extend(data);
        }
    }

    /// The process ends, or its output does.
    pub(crate) fn process_does_something_final(&mut self) {
        if self.process == Process::Running && self.random.chance(60) {
            let exit = Exit::Status(self.any_byte().into());
            self.end_process(exit);
        } else if matches!(self.process, Process::Running | Process::Ended(..)) {
            self.end_output();
        }
    }

    /// Up to [`STEP`].
    pub(crate) fn time_passes(&mut self) {
        self.now += self.random.millis(0..2_000);
        self.device.handle_timeout(self.now);
        self.act();
    }

    /// Everything that was begun is brought to its end: nobody sends any more, all is read, and who does
    /// not go by himself is waited for.
    pub(crate) fn bring_to_an_end(&mut self) {
        let mut rounds = 0;
        while !(self.finished && self.to_relay.is_empty()) {
            rounds += 1;
            assert!(rounds < 1_000, "it does not end: {:?}", self.process);
            self.deliver_to_device();
            self.start_completes();
            if (self.operator_is_there() || self.left) && self.random.chance(30) {
                self.process_does_something_final();
            }
            self.deliver_to_relay();
            self.time_passes();
        }
        assert!(self.device.is_done());
        if let Some(hung_up) = self.hung_up_at {
            let took = self.finished_at - hung_up;
            assert!(took <= HANGUP_GRACE + STEP * 2, "it lingers for {took:?}");
        }
    }

    /// What holds of every session when it is over.
    pub(crate) fn check(&mut self) {
        self.nothing_follows_the_end();
        let taken = &self.input_taken;
        assert_eq!(*taken, self.operator.input[..taken.len()], "input in order");
        let mut controls = self.operator.controls.iter();
        let in_order = self.done.iter().all(|did| controls.any(|sent| sent == did));
        assert!(in_order, "sizes and signals, each once and in order");
        if self.cut.is_some() {
            return;
        }
        assert_eq!(self.output_received, self.output_sent, "no output is lost");
        let ended = match self.process {
            Process::Ended(_, exit) => exit,
            _ => {
                let refused = RelayEvent::Refused(SessionRefusal::NoAccount);
                assert_eq!(self.learned, [refused]);
                return;
            }
        };
        let told = [
            RelayEvent::Accepted,
            RelayEvent::OutputEnded,
            RelayEvent::Exited(ended),
        ];
        assert_eq!(
            self.learned, told,
            "the exit comes last, and is the right one"
        );
        assert!(self.relay.is_over());
        assert_eq!(self.hung_up_at, None);
    }

    /// Whatever still comes in after its end, the device's machine does nothing more.
    fn nothing_follows_the_end(&mut self) {
        for _ in 0..10 {
            self.now += self.random.millis(0..5_000);
            match self.random.pick(0..6) {
                0 => self.device.handle_peer_gone(self.now, Departure::Ordered),
                1 => self.device.handle_exited(self.now, Exit::Status(9)),
                2 => self.device.handle_output_ended(),
                3 => self.device.handle_started(self.now),
                4 => drop(
                    self.device
                        .handle_message(SessionMessage::Signal(Signal::Term)),
                ),
                _ => self.device.handle_timeout(self.now),
            }
            assert_eq!(self.device.poll_action(), None, "an action after Finish");
            assert_eq!(self.device.poll_timeout(), None, "a timeout after Finish");
        }
    }

    /// Does what the device's machine wants, as the agent's driver does, and checks that it may want it.
    fn act(&mut self) {
        while let Some(action) = self.device.poll_action() {
            assert!(!self.finished, "{action:?} after Finish");
            match action {
                DeviceAction::Start(asked) => {
                    assert_eq!(
                        (self.process, asked),
                        (Process::None, open(self.pty, self.on_disconnect))
                    );
                    self.process = Process::Starting;
                }
                DeviceAction::Send(message) => self.send_to_relay(&message),
                DeviceAction::CloseStdin => {
                    assert!(self.operator.ended && !self.input_closed);
                    self.input_closed = true;
                }
                DeviceAction::Resize(_) | DeviceAction::Signal(_) => {
                    assert!(!matches!(self.process, Process::Ended(..)), "{action:?}");
                    assert_eq!(self.peer_gone_at, None, "{action:?}");
                    self.done.push(action);
                }
                DeviceAction::Hangup => self.hang_up(),
                DeviceAction::Kill => self.kill(),
                DeviceAction::Detach => self.leave(OnDisconnect::Hup),
                DeviceAction::Leave => {
                    self.leave(OnDisconnect::Leave);
                    self.left = true;
                }
                DeviceAction::StopOutput => {
                    let Process::Ended(at, _) = self.process else {
                        panic!("the output of a living process was given up");
                    };
                    assert!(self.pty && self.output_open && self.now >= at + DRAIN_GRACE);
                    self.output_open = false;
                }
                DeviceAction::Finish => {
                    self.finished = true;
                    self.finished_at = self.now;
                }
            }
        }
    }

    /// Only a lost observer leaves a process, where the terms say so, and nothing is sent to it.
    fn leave(&self, as_said: OnDisconnect) {
        assert_eq!(self.process, Process::Running, "there is nothing to leave");
        assert_eq!(self.on_disconnect, Some(as_said));
        let departure = self.cut.map(Cut::departure);
        assert_eq!(departure, Some(Departure::Lost));
        assert_eq!(self.hung_up_at, None);
    }

    fn hang_up(&mut self) {
        let stays = matches!(
            self.on_disconnect,
            Some(OnDisconnect::Hup | OnDisconnect::Leave)
        );
        assert!(
            self.cut == Some(Cut::Order) || !stays,
            "a lost observer was taken for an order"
        );
        assert_eq!(
            self.process,
            Process::Running,
            "there is nothing to hang up"
        );
        assert!(self.peer_gone_at.is_some() && self.hung_up_at.is_none());
        self.hung_up_at = Some(self.now);
        if !self.ignores_hangup {
            let (signal, core_dumped) = (Signal::Hup, false);
            self.end_process(Exit::Signal {
                signal,
                core_dumped,
            });
        }
    }

    fn kill(&mut self) {
        // After the leader's end the rest of its group gets its KILL at once; before it there is a grace.
        let hung_up = self.hung_up_at.unwrap_or_else(|| panic!("KILL before HUP"));
        if self.process == Process::Running {
            assert!(self.now >= hung_up + HANGUP_GRACE, "KILL without a grace");
            let (signal, core_dumped) = (Signal::Kill, false);
            self.end_process(Exit::Signal {
                signal,
                core_dumped,
            });
        }
    }

    fn end_process(&mut self, exit: Exit) {
        self.process = Process::Ended(self.now, exit);
        self.device.handle_exited(self.now, exit);
        self.act();
    }

    fn end_output(&mut self) {
        if self.output_open && !self.background_job {
            self.output_open = false;
            self.device.handle_output_ended();
            self.act();
        }
    }

    fn device_sees_the_cut(&mut self) {
        if let Some(cut) = self.cut
            && self.peer_gone_at.is_none()
            && !self.finished
        {
            self.peer_gone_at = Some(self.now);
            self.device.handle_peer_gone(self.now, cut.departure());
            self.act();
        }
    }

    fn operator_is_there(&self) -> bool {
        self.cut.is_none() && !self.relay.is_over()
    }

    fn send_to_device(&mut self, message: &SessionMessage) {
        self.to_device.extend(message.encode().unwrap());
    }

    fn send_to_relay(&mut self, message: &SessionMessage) {
        assert_eq!(self.peer_gone_at, None, "{message:?} to nobody");
        if self.cut.is_none() {
            self.to_relay.extend(message.encode().unwrap());
        }
    }

    fn any_byte(&mut self) -> u8 {
        u8::try_from(self.random.pick(0..256)).unwrap()
    }
}

fn open(pty: bool, on_disconnect: Option<OnDisconnect>) -> Open {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 22));
    Open {
        session: SessionId([7; 16]),
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        work: Work::Shell,
        pty: pty.then(|| Pty {
            term: "xterm".to_owned(),
            size: WindowSize::default(),
            modes: vec![],
        }),
        env: vec![],
        client: address,
        server: address,
        original_command: None,
        recording: None,
        terms: SessionTerms {
            on_disconnect,
            ..SessionTerms::default()
        },
        forward_log: None,
    }
}
