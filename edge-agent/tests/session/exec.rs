//! Commands without a terminal.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::wire::{Exit, ProcessRequest, SessionRefusal, Signal};

use crate::harness::{Pair, exec, open, run};

#[test]
fn a_command_gives_its_output_and_its_status() {
    run(async {
        let pair = Pair::new().await;
        let outcome = pair.exec("echo out; echo err >&2; exit 42").await;
        assert_eq!(outcome.stdout(), "out\n");
        assert_eq!(outcome.stderr(), "err\n");
        assert_eq!(outcome.exit, Some(Exit::Status(42)));
        pair.live(0).await;
    });
}

#[test]
fn signal_of_the_process_has_its_name() {
    run(async {
        let pair = Pair::new().await;
        for (name, signal) in [
            ("TERM", Signal::Term),
            ("KILL", Signal::Kill),
            ("USR2", Signal::Usr2),
        ] {
            let outcome = pair.exec(&format!("kill -{name} $$")).await;
            assert_eq!(
                outcome.exit,
                Some(Exit::Signal {
                    signal,
                    core_dumped: false
                })
            );
        }
    });
}

#[test]
fn a_signal_of_the_client_reaches_the_whole_group() {
    run(async {
        let pair = Pair::new().await;
        for (name, signal) in [
            ("INT", Signal::Int),
            ("HUP", Signal::Hup),
            ("QUIT", Signal::Quit),
            ("USR1", Signal::Usr1),
            ("WINCH", Signal::Winch),
        ] {
            let script = format!(
                "trap 'echo shell' {name}; sh -c \"trap 'echo child; exit' {name}; echo ready; \
                 while :; do sleep 0.01; done\"; exit 5"
            );
            let mut client = pair.open(exec(&script)).await;
            client.until("ready").await;
            client.say(SessionMessage::Signal(signal)).await;
            let outcome = client.outcome().await;
            let mut lines: Vec<_> = outcome.stdout().lines().collect();
            lines.sort_unstable();
            assert_eq!(lines, ["child", "shell"], "{name}");
            assert_eq!(outcome.exit, Some(Exit::Status(5)), "{name}");
        }
    });
}

#[test]
fn the_end_of_input_reaches_the_process_and_not_its_output() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair.open(exec("sort; echo done >&2")).await;
        client.write(b"b\na\n").await;
        client.say(SessionMessage::Eof).await;
        let outcome = client.outcome().await;
        assert_eq!((outcome.stdout(), outcome.stderr()), ("a\nb\n", "done\n"));
    });
}

#[test]
fn stderr_goes_on_after_the_end_of_stdout() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair
            .open(exec("echo a; exec >&-; read x; echo $x >&2; exit 3"))
            .await;
        client.until("a\n").await;
        client.write(b"late\n").await;
        let outcome = client.outcome().await;
        assert_eq!((outcome.stdout(), outcome.stderr()), ("", "late\n"));
        assert_eq!(outcome.exit, Some(Exit::Status(3)));
    });
}

#[test]
fn output_that_is_left_behind_is_waited_for() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair.open(exec("(read x; echo $x) <&0 & exit 4")).await;
        // The leader's exit ends the job's input, too, as with sshd: the client need not.
        let outcome = client.outcome().await;
        assert_eq!(
            outcome.stdout(),
            "\n",
            "the job writes after its leader's exit"
        );
        assert_eq!(outcome.exit, Some(Exit::Status(4)));
    });
}

#[test]
fn a_login_shell_reads_its_commands_from_a_pipe() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair.open(open(ProcessRequest::Shell)).await;
        client.write(b"echo $0; tty; exit 9\n").await;
        let outcome = client.outcome().await;
        assert!(outcome.stdout().contains("\nnot a tty\n"), "{outcome:?}");
        assert!(outcome.stdout().starts_with('-'), "{outcome:?}");
        assert_eq!(outcome.exit, Some(Exit::Status(9)));
    });
}

#[test]
fn core_dump_is_reported_as_by_the_kernel() {
    run(async {
        let pair = Pair::new().await;
        let command = "ulimit -c unlimited; kill -ABRT $$";
        let folder = tempfile::tempdir().unwrap();
        let local = Command::new("sh")
            .args(["-c", command])
            .current_dir(folder.path())
            .status();
        let core_dumped = local.unwrap().core_dumped();
        let exit = pair.exec(command).await.exit;
        assert_eq!(
            exit,
            Some(Exit::Signal {
                signal: Signal::Abrt,
                core_dumped
            })
        );
    });
}

#[test]
fn command_may_be_as_long_as_the_kernel_allows() {
    run(async {
        let pair = Pair::new().await;
        let command = format!("echo {} | wc -c", "x".repeat(120 * 1024));
        assert_eq!(pair.exec(&command).await.stdout().trim(), "122881");
        let refused = pair.exec(&"x".repeat(128 * 1024)).await.refused;
        let Some(SessionRefusal::Failed(text)) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            text.ends_with("Argument list too long (os error 7)"),
            "{text}"
        );
        let refused = pair.exec("echo a\0b").await.refused;
        assert_eq!(
            refused,
            Some(SessionRefusal::Failed(
                "the command holds a NUL byte".to_owned()
            ))
        );
    });
}
