//! A session with a process on the device, input by input.

use super::*;
use crate::codec::frame::FramePiece;
use crate::ids::{SessionId, UserName};
use crate::session::opening;
use crate::wire::{ProcessRequest, Pty, SessionTerms};
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
        request: ProcessRequest::Shell.into(),
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

fn running(pty: bool) -> DeviceProcess {
    running_under(pty, None)
}

fn running_under(pty: bool, on_disconnect: Option<OnDisconnect>) -> DeviceProcess {
    let mut open = open(pty);
    open.terms.on_disconnect = on_disconnect;
    let mut session = DeviceProcess::new(&open);
    session.handle_started(T, vec![]);
    assert_eq!(
        drain(&mut session),
        [ProcessAction::Send(SessionMessage::Accepted)]
    );
    session
}

fn drain(session: &mut DeviceProcess) -> Vec<ProcessAction> {
    core::iter::from_fn(|| session.poll_action()).collect()
}

fn ending(exit: Exit) -> [ProcessAction; 2] {
    [
        ProcessAction::Send(SessionMessage::Exit(exit)),
        ProcessAction::Finish,
    ]
}

#[test]
fn other_names_of_the_account_come_before_the_answer() {
    let mut session = DeviceProcess::new(&open(false));
    let names = vec![Login::new("root").unwrap()];
    session.handle_started(T, names.clone());
    assert_eq!(
        drain(&mut session),
        [
            ProcessAction::Send(SessionMessage::Names(names)),
            ProcessAction::Send(SessionMessage::Accepted)
        ]
    );
}

#[test]
fn the_exit_status_comes_behind_the_last_output() {
    let exit = Exit::Status(7);
    let mut session = running(false);
    session.handle_exited(T, exit);
    assert_eq!(drain(&mut session), []);
    assert_eq!(session.poll_timeout(), None, "pipes are waited for");
    session.handle_output_ended();
    let eof = ProcessAction::Send(SessionMessage::Eof);
    assert_eq!(
        drain(&mut session),
        [[eof].as_slice(), &ending(exit)].concat()
    );
    assert!(session.is_done());
}

#[test]
fn output_that_is_not_read_is_closed_while_the_process_runs() {
    let close = || SessionMessage::CloseStdout;
    let mut session = running(false);
    session.handle_message(SessionMessage::Eof).unwrap();
    // It says nothing of the other direction, and may come twice.
    for _ in 0..2 {
        session.handle_message(close()).unwrap();
    }
    let expected = [
        ProcessAction::CloseStdin,
        ProcessAction::CloseStdout,
        ProcessAction::CloseStdout,
    ];
    assert_eq!(drain(&mut session), expected);
    session.handle_exited(T, Exit::Status(0));
    session.handle_message(close()).unwrap();
    assert_eq!(drain(&mut session), []);
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
                ProcessAction::StopOutput,
                ProcessAction::Send(SessionMessage::Eof)
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
        assert_eq!(drain(&mut session), [ProcessAction::Hangup]);
        session.handle_timeout(T + HANGUP_GRACE);
        assert_eq!(drain(&mut session), [ProcessAction::Kill]);
        session.handle_exited(
            T,
            Exit::Signal {
                signal: Signal::Kill,
                core_dumped: false,
            },
        );
        assert_eq!(
            drain(&mut session),
            [ProcessAction::Kill, ProcessAction::Finish]
        );
    }
}

#[test]
fn a_lost_observer_is_no_order_to_stop() {
    for pty in [false, true] {
        let mut session = running_under(pty, Some(OnDisconnect::Hup));
        session.handle_peer_gone(T, Departure::Lost);
        let detached = [ProcessAction::Detach, ProcessAction::Finish];
        assert_eq!(drain(&mut session), detached);
        assert_eq!(session.poll_timeout(), None, "no KILL follows");

        let mut session = running_under(pty, Some(OnDisconnect::Leave));
        session.handle_peer_gone(T, Departure::Lost);
        assert_eq!(drain(&mut session), [ProcessAction::Leave]);
        assert_eq!(session.poll_timeout(), None, "no KILL follows");
        session.handle_peer_gone(T, Departure::Ordered);
        session.handle_output_ended();
        assert_eq!(drain(&mut session), []);
        session.handle_exited(T, Exit::Status(0));
        assert_eq!(drain(&mut session), [ProcessAction::Finish]);
    }
}

#[test]
fn a_client_that_goes_away_during_the_start_is_not_forgotten() {
    let mut session = DeviceProcess::new(&open(false));
    session.handle_peer_gone(T, Departure::Lost);
    session.handle_started(T, vec![]);
    assert!(drain(&mut session).contains(&ProcessAction::Hangup));
}

#[test]
fn what_has_no_place_is_a_violation() {
    let data = FramePiece::Data(DataStream::Stdin, b"early");
    for first in [FramePiece::Message(SessionMessage::Eof), data] {
        assert_eq!(opening(first), Err(SessionViolation::Open));
    }
    let first = FramePiece::Message(SessionMessage::Open(open(false)));
    assert_eq!(opening(first), Ok(open(false)));
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
