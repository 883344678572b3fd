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
    Departure, DeviceProcess, ProcessAction, ProcessReport, RelayProcess, opening,
};
use holdfast_protocol::wire::{
    Exit, OnDisconnect, Open, ProcessRequest, Pty, SessionRefusal, SessionTerms, Signal, WindowSize,
};

use crate::random::Random;

/// The most time that passes at once.
const STEP: Duration = Duration::from_secs(2);

/// The way in which the relay's end of the stream goes away before the session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A reset, or a lost tunnel: what was on its way is gone.
    Reset,
    /// The stream is finished: the device reads all of it, and then sees that the relay is gone.
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
    channel: Channel,
    relay: RelayEnd,
    device: DeviceEnd,
    process: ProcessModel,
}

/// The frames on their way, and the way in which the relay's end went away, if it did.
struct Channel {
    to_device: VecDeque<u8>,
    to_relay: VecDeque<u8>,
    cut: Option<Cut>,
}

#[derive(Default)]
struct RelayEnd {
    machine: RelayProcess,
    reader: FrameReader,
    /// The events that the relay received, in order.
    learned: Vec<ProcessReport>,
    output_received: Vec<u8>,
}

#[derive(Default)]
struct DeviceEnd {
    /// The session, since its `Open` was read.
    machine: Option<DeviceProcess>,
    reader: FrameReader,
    peer_gone_at: Option<Duration>,
    /// The actions on the process, in order.
    done: Vec<ProcessAction>,
    hung_up_at: Option<Duration>,
    /// The process goes on, and its output is not observed.
    left: bool,
    finished: bool,
    finished_at: Duration,
}

/// The process, and what it does of its own accord.
struct ProcessModel {
    state: Process,
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
}

/// The input that the operator has sent.
#[derive(Default)]
struct Operator {
    input: Vec<u8>,
    ended: bool,
    controls: Vec<ProcessAction>,
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
            channel: Channel {
                to_device: open.into(),
                to_relay: VecDeque::new(),
                cut: None,
            },
            relay: RelayEnd::default(),
            device: DeviceEnd::default(),
            process: ProcessModel {
                state: Process::None,
                pty,
                on_disconnect,
                refusing,
                ignores_hangup,
                background_job,
                output_open: true,
                output_sent: vec![],
                input_taken: vec![],
                input_closed: false,
            },
        }
    }

    pub(crate) fn operator_sends_data(&mut self) {
        if self.operator_is_there() && !self.operator.ended {
            let length = self.random.index(300);
            let data: Vec<u8> = (0..length).map(|_| self.any_byte()).collect();
            self.channel
                .to_device
                .extend(data_header(DataStream::Stdin, length));
            self.channel.to_device.extend(&data);
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
            self.operator.controls.push(ProcessAction::Resize(size));
            self.send_to_device(&SessionMessage::Resize(size));
        }
    }

    pub(crate) fn operator_signals(&mut self) {
        if self.operator_is_there() {
            let signal = Signal::Other(self.any_byte());
            self.operator.controls.push(ProcessAction::Signal(signal));
            self.send_to_device(&SessionMessage::Signal(signal));
        }
    }

    /// The operator's end goes away, if the session still lives there.
    pub(crate) fn cut(&mut self, cut: Cut) {
        if !self.operator_is_there() {
            return;
        }
        self.channel.cut = Some(cut);
        self.channel.to_relay.clear();
        if cut != Cut::AfterAllWasRead {
            self.channel.to_device.clear();
            self.device_sees_the_cut();
        }
    }

    /// The device reads some of what is there.
    pub(crate) fn deliver_to_device(&mut self) {
        let count = self.random.index(self.channel.to_device.len() + 1);
        let bytes: Vec<u8> = self.channel.to_device.drain(..count).collect();
        let mut input = bytes.as_slice();
        while !self.device.finished {
            let Some(piece) = self.device.reader.read(&mut input).unwrap() else {
                break;
            };
            match (&mut self.device.machine, piece) {
                (None, first) => {
                    let asked = opening(first).unwrap();
                    let expected = open(self.process.pty, self.process.on_disconnect);
                    assert_eq!((self.process.state, &asked), (Process::None, &expected));
                    self.device.machine = Some(DeviceProcess::new(&asked));
                    self.process.state = Process::Starting;
                }
                (Some(machine), FramePiece::Data(stream, data)) => {
                    // An honest relay breaks no rule, whatever happens on the device meanwhile.
                    if machine.handle_data(stream).unwrap() {
                        self.process.input_taken.extend_from_slice(data);
                    }
                }
                (Some(machine), FramePiece::Message(message)) => {
                    machine.handle_message(message).unwrap();
                }
            }
            self.act();
        }
        if self.channel.cut == Some(Cut::AfterAllWasRead) && self.channel.to_device.is_empty() {
            self.device_sees_the_cut();
        }
    }

    /// The relay reads some of what is there.
    pub(crate) fn deliver_to_relay(&mut self) {
        let count = self.random.index(self.channel.to_relay.len() + 1);
        let bytes: Vec<u8> = self.channel.to_relay.drain(..count).collect();
        let mut input = bytes.as_slice();
        while let Some(piece) = self.relay.reader.read(&mut input).unwrap() {
            match piece {
                FramePiece::Data(stream, data) => {
                    self.relay.machine.handle_data(stream).unwrap();
                    self.relay.output_received.extend_from_slice(data);
                }
                FramePiece::Message(message) => {
                    let event = self.relay.machine.handle_message(message).unwrap();
                    self.relay.learned.push(event);
                }
            }
        }
    }

    /// The process that is being started runs, or cannot be.
    pub(crate) fn start_completes(&mut self) {
        if self.process.state != Process::Starting {
            return;
        }
        if self.process.refusing {
            self.process.state = Process::None;
            self.session().handle_refused(SessionRefusal::NoAccount);
        } else {
            self.process.state = Process::Running;
            let now = self.now;
            self.session().handle_started(now, vec![]);
        }
        self.act();
    }

    pub(crate) fn process_writes(&mut self) {
        let started = matches!(self.process.state, Process::Running | Process::Ended(..));
        if !started || !self.process.output_open || self.device.finished {
            return;
        }
        let length = self.random.index(300);
        let data: Vec<u8> = (0..length).map(|_| self.any_byte()).collect();
        let stream = if self.process.pty || self.random.chance(70) {
            DataStream::Stdout
        } else {
            DataStream::Stderr
        };
        if self.channel.cut.is_none() {
            self.channel.to_relay.extend(data_header(stream, length));
            self.channel.to_relay.extend(&data);
            self.process.output_sent.extend(data);
        }
    }

    /// The process ends, or its output does.
    pub(crate) fn process_does_something_final(&mut self) {
        if self.process.state == Process::Running && self.random.chance(60) {
            let exit = Exit::Status(self.any_byte().into());
            self.end_process(exit);
        } else if matches!(self.process.state, Process::Running | Process::Ended(..)) {
            self.end_output();
        }
    }

    /// Up to [`STEP`].
    pub(crate) fn time_passes(&mut self) {
        self.now += self.random.millis(0..2_000);
        if let Some(machine) = &mut self.device.machine {
            machine.handle_timeout(self.now);
        }
        self.act();
    }

    /// Everything that was begun is brought to its end: no more is sent, all is read, and what does
    /// not end by itself is waited for.
    pub(crate) fn bring_to_an_end(&mut self) {
        let mut rounds = 0;
        while !(self.device.finished && self.channel.to_relay.is_empty()) {
            rounds += 1;
            assert!(rounds < 1_000, "it does not end: {:?}", self.process.state);
            self.deliver_to_device();
            self.start_completes();
            if (self.operator_is_there() || self.device.left) && self.random.chance(30) {
                self.process_does_something_final();
            }
            self.deliver_to_relay();
            self.time_passes();
        }
        let machine = self.device.machine.as_ref();
        assert!(machine.is_none_or(DeviceProcess::is_done));
        if let Some(hung_up) = self.device.hung_up_at {
            let took = self.device.finished_at - hung_up;
            assert!(took <= HANGUP_GRACE + STEP * 2, "it lingers for {took:?}");
        }
    }

    /// Checks what holds of every session when it is over.
    pub(crate) fn check(&mut self) {
        self.nothing_follows_the_end();
        let taken = &self.process.input_taken;
        assert_eq!(*taken, self.operator.input[..taken.len()], "input in order");
        let mut controls = self.operator.controls.iter();
        let in_order = self
            .device
            .done
            .iter()
            .all(|did| controls.any(|sent| sent == did));
        assert!(in_order, "sizes and signals, each once and in order");
        if self.channel.cut.is_some() {
            return;
        }
        assert_eq!(
            self.relay.output_received, self.process.output_sent,
            "no output is lost"
        );
        let ended = match self.process.state {
            Process::Ended(_, exit) => exit,
            _ => {
                let refused = ProcessReport::Refused(SessionRefusal::NoAccount);
                assert_eq!(self.relay.learned, [refused]);
                return;
            }
        };
        let expected = [
            ProcessReport::Accepted,
            ProcessReport::OutputEnded,
            ProcessReport::Exited(ended),
        ];
        assert_eq!(
            self.relay.learned, expected,
            "the exit comes last, and is the right one"
        );
        assert!(self.relay.machine.is_over());
        assert_eq!(self.device.hung_up_at, None);
    }

    /// Checks that the device's machine does nothing more after its end, whatever comes in.
    fn nothing_follows_the_end(&mut self) {
        let Some(machine) = &mut self.device.machine else {
            return;
        };
        for _ in 0..10 {
            self.now += self.random.millis(0..5_000);
            match self.random.pick(0..6) {
                0 => machine.handle_peer_gone(self.now, Departure::Ordered),
                1 => machine.handle_exited(self.now, Exit::Status(9)),
                2 => machine.handle_output_ended(),
                3 => machine.handle_started(self.now, vec![]),
                4 => drop(machine.handle_message(SessionMessage::Signal(Signal::Term))),
                _ => machine.handle_timeout(self.now),
            }
            assert_eq!(machine.poll_action(), None, "an action after Finish");
            assert_eq!(machine.poll_timeout(), None, "a timeout after Finish");
        }
    }

    /// Returns the session, which has been opened.
    fn session(&mut self) -> &mut DeviceProcess {
        self.device
            .machine
            .as_mut()
            .unwrap_or_else(|| panic!("nothing was opened"))
    }

    /// Does what the device's machine wants, as the agent's driver does, and checks that it may want it.
    fn act(&mut self) {
        while let Some(machine) = &mut self.device.machine
            && let Some(action) = machine.poll_action()
        {
            assert!(!self.device.finished, "{action:?} after Finish");
            match action {
                ProcessAction::Send(message) => self.send_to_relay(&message),
                ProcessAction::CloseStdin => {
                    assert!(self.operator.ended && !self.process.input_closed);
                    self.process.input_closed = true;
                }
                ProcessAction::Resize(_)
                | ProcessAction::Signal(_)
                | ProcessAction::CloseStdout => {
                    assert!(
                        !matches!(self.process.state, Process::Ended(..)),
                        "{action:?}"
                    );
                    assert_eq!(self.device.peer_gone_at, None, "{action:?}");
                    self.device.done.push(action);
                }
                ProcessAction::Hangup => self.hang_up(),
                ProcessAction::Kill => self.kill(),
                ProcessAction::Detach => self.leave(OnDisconnect::Hup),
                ProcessAction::Leave => {
                    self.leave(OnDisconnect::Leave);
                    self.device.left = true;
                }
                ProcessAction::StopOutput => {
                    let Process::Ended(at, _) = self.process.state else {
                        panic!("the output of a living process was given up");
                    };
                    assert!(
                        self.process.pty
                            && self.process.output_open
                            && self.now >= at + DRAIN_GRACE
                    );
                    self.process.output_open = false;
                }
                ProcessAction::Finish => {
                    self.device.finished = true;
                    self.device.finished_at = self.now;
                }
            }
        }
    }

    /// Only a lost observer leaves a process, where the terms say so, and nothing is sent to it.
    fn leave(&self, as_said: OnDisconnect) {
        assert_eq!(
            self.process.state,
            Process::Running,
            "there is nothing to leave"
        );
        assert_eq!(self.process.on_disconnect, Some(as_said));
        let departure = self.channel.cut.map(Cut::departure);
        assert_eq!(departure, Some(Departure::Lost));
        assert_eq!(self.device.hung_up_at, None);
    }

    fn hang_up(&mut self) {
        let stays = matches!(
            self.process.on_disconnect,
            Some(OnDisconnect::Hup | OnDisconnect::Leave)
        );
        assert!(
            self.channel.cut == Some(Cut::Order) || !stays,
            "a lost observer was taken for an order"
        );
        assert_eq!(
            self.process.state,
            Process::Running,
            "there is nothing to hang up"
        );
        assert!(self.device.peer_gone_at.is_some() && self.device.hung_up_at.is_none());
        self.device.hung_up_at = Some(self.now);
        if !self.process.ignores_hangup {
            let (signal, core_dumped) = (Signal::Hup, false);
            self.end_process(Exit::Signal {
                signal,
                core_dumped,
            });
        }
    }

    fn kill(&mut self) {
        // After the leader's end the rest of its group gets its KILL at once; before it there is a grace.
        let hung_up = self
            .device
            .hung_up_at
            .unwrap_or_else(|| panic!("KILL before HUP"));
        if self.process.state == Process::Running {
            assert!(self.now >= hung_up + HANGUP_GRACE, "KILL without a grace");
            let (signal, core_dumped) = (Signal::Kill, false);
            self.end_process(Exit::Signal {
                signal,
                core_dumped,
            });
        }
    }

    fn end_process(&mut self, exit: Exit) {
        self.process.state = Process::Ended(self.now, exit);
        let now = self.now;
        self.session().handle_exited(now, exit);
        self.act();
    }

    fn end_output(&mut self) {
        if self.process.output_open && !self.process.background_job {
            self.process.output_open = false;
            self.session().handle_output_ended();
            self.act();
        }
    }

    fn device_sees_the_cut(&mut self) {
        if let Some(cut) = self.channel.cut
            && self.device.peer_gone_at.is_none()
            && !self.device.finished
        {
            self.device.peer_gone_at = Some(self.now);
            match &mut self.device.machine {
                Some(machine) => machine.handle_peer_gone(self.now, cut.departure()),
                // The stream is gone before it was opened.
                None => self.device.finished = true,
            }
            self.act();
        }
    }

    fn operator_is_there(&self) -> bool {
        self.channel.cut.is_none() && !self.relay.machine.is_over()
    }

    fn send_to_device(&mut self, message: &SessionMessage) {
        self.channel.to_device.extend(message.encode().unwrap());
    }

    fn send_to_relay(&mut self, message: &SessionMessage) {
        assert_eq!(
            self.device.peer_gone_at, None,
            "{message:?} to a relay that is gone"
        );
        if self.channel.cut.is_none() {
            self.channel.to_relay.extend(message.encode().unwrap());
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
        request: ProcessRequest::Shell.into(),
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
