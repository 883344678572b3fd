//! Sessions with a terminal, driven as a person would.

use rustix::termios::LocalModes;

use crate::harness::{SOON, Site, Terminal, Way, command, run_with_input, wait_until};

#[test]
fn a_shell_has_the_terminals_size_and_hears_of_a_new_one() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut terminal = Terminal::start(&site.ssh(way), 91, 27);
        terminal.send("PS1=; stty size; echo $TERM; tty\r");
        terminal.expect("27 91\r\n");
        terminal.expect("xterm-256color\r\n");
        terminal.expect("/dev/pts/");
        terminal.send("trap 'echo now $(stty size)' WINCH; echo rea''dy\r");
        terminal.expect("ready\r\n");
        terminal.resize(132, 43);
        // A shell that waits for a key runs its traps at the next one.
        terminal.send("\r");
        terminal.expect("now 43 132\r\n");
        terminal.send("exit 6\r");
        assert_eq!(terminal.wait(SOON).code(), Some(6), "{way:?}");
    }
}

#[test]
fn the_clients_modes_are_the_devices() {
    let site = Site::new();
    for way in Way::BOTH {
        let ssh = site.ssh(way);
        let mut line = command("sh");
        line.args([
            "-c",
            "stty erase ^H intr ^K -onlcr ixany && exec \"$@\"",
            "sh",
        ]);
        line.arg(ssh.get_program()).args(ssh.get_args());
        line.args(["-t", "stty -a; exit 4"]);
        let mut terminal = Terminal::start(&line, 80, 24);
        assert_eq!(terminal.wait(SOON).code(), Some(4));
        let shown = terminal.shown();
        for mode in [
            "erase = ^H;",
            "intr = ^K;",
            " -onlcr",
            " ixany",
            " icanon",
            " echo ",
        ] {
            assert!(shown.contains(mode), "no {mode:?} ({way:?}): {shown}");
        }
    }
}

#[test]
fn keys_do_what_they_do() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut terminal = site.shell(way);
        // The client's own terminal passes every key on while the session lives.
        terminal.send("stty -echo; PS1=; echo rea''dy\r");
        terminal.expect("ready\r\n");
        let raw = terminal.modes().local_modes;
        assert!(!raw.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        // By then the shell has put the terminal's modes back, and Return ends a line.
        terminal.send("echo c''at; cat\r");
        terminal.expect("cat\r\n");
        terminal.send("some words\r");
        terminal.expect("some words\r\n");
        terminal.send("\x04");
        terminal.send("sleep 600; echo interrup''ted $?\r");
        wait_until(SOON, "the interrupt key interrupts", || {
            terminal.send("\x03");
            terminal.send("echo by 'the' key $?\r");
            terminal.shown().contains("by the key 130")
        });
        terminal.send("exit\r");
        terminal.wait(SOON);
        let cooked = terminal.modes().local_modes;
        assert!(
            cooked.contains(LocalModes::ICANON | LocalModes::ECHO),
            "{way:?}"
        );
    }
}

#[test]
fn a_command_can_have_a_terminal_too() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        ssh.args([
            "-t",
            "test -t 0 && test -t 1 && test -t 2 && echo on $SSH_TTY; echo err >&2; exit 8",
        ]);
        let mut terminal = Terminal::start(&ssh, 80, 24);
        terminal.expect("on /dev/pts/");
        terminal.expect("err\r\n");
        assert_eq!(terminal.wait(SOON).code(), Some(8), "{way:?}");
    }
}

#[test]
fn a_shell_without_a_terminal_reads_its_commands() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        let script = b"test -t 0 || echo no terminal\necho $0\nexit 3\n";
        let output = run_with_input(ssh.arg("-T"), script).exits(3);
        let out = output.out();
        let lines: Vec<&str> = out.lines().rev().take(2).collect();
        assert_eq!(lines[1], "no terminal", "{way:?}");
        assert!(lines[0].starts_with('-'), "no login shell: {out}");
    }
}
