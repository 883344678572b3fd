//! Sessions with a terminal.

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::wire::{Exit, ProcessRequest, Pty, WindowSize};

use crate::harness::{Pair, exec, open, run, with_pty};

#[test]
fn a_command_has_the_terminal_that_was_asked_for() {
    run(async {
        let pair = Pair::new().await;
        let command = "test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM $SSH_TTY && tty; exit 6";
        let outcome = pair.to_end(with_pty(exec(command))).await;
        let lines: Vec<_> = outcome.stdout().lines().collect();
        let [size, term, tty] = lines.as_slice() else {
            panic!("{outcome:?}")
        };
        assert_eq!(*size, "27 91");
        assert_eq!(*term, format!("xterm-256color {tty}"));
        assert!(tty.starts_with("/dev/pts/"), "{tty}");
        assert_eq!(outcome.exit, Some(Exit::Status(6)));
        pair.live(0).await;
    });
}

#[test]
fn a_new_size_reaches_the_process_by_winch() {
    run(async {
        let pair = Pair::new().await;
        let command = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done";
        let mut client = pair.open(with_pty(exec(command))).await;
        client.until("ready\n").await;
        client
            .say(SessionMessage::Resize(WindowSize::clamped(120, 40, 0, 0)))
            .await;
        assert_eq!(client.outcome().await.stdout(), "40 120\n");
    });
}

#[test]
fn modes_of_the_client_are_set_before_the_start() {
    run(async {
        let pair = Pair::new().await;
        let modes = vec![(3, 8), (1, 255), (53, 1), (36, 0)];
        let pty = Pty {
            term: String::new(),
            size: WindowSize::default(),
            modes,
        };
        let command = open(ProcessRequest::Exec(b"stty -a; echo TERM=$TERM.".to_vec()));
        let outcome = pair
            .open(holdfast_protocol::wire::Open {
                pty: Some(pty),
                ..command
            })
            .await
            .outcome()
            .await;
        let text = outcome.stdout();
        for wanted in [
            "erase = ^H;",
            "intr = <undef>;",
            "-icrnl",
            " echo ",
            "TERM=",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    });
}

#[test]
fn what_is_typed_is_echoed_and_the_interrupt_key_interrupts() {
    run(async {
        let pair = Pair::new().await;
        let mut open = with_pty(exec(
            "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.01; done",
        ));
        open.pty.as_mut().unwrap().modes = vec![(53, 1), (1, 3)];
        let mut client = pair.open(open).await;
        client.until("ready").await;
        client.write(b"hello").await;
        client.until("hello").await;
        client.write(b"\x03").await;
        let outcome = client.outcome().await;
        assert!(outcome.stdout().contains("caught"), "{outcome:?}");
        assert_eq!(outcome.exit, Some(Exit::Status(7)));
    });
}
