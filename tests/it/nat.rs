//! A device behind a real NAT, in network namespaces: whatever the NAT or the network does, a live shell
//! goes on, and soon.

mod network;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Device, Relay, SOON, Terminal, Way, command, own_login, wait_until};
use network::Network;

/// The most that a shell may stall: 3 s is what the product promises; a loaded machine gets as much again.
const STALL: Duration = Duration::from_secs(6);

#[test]
fn the_nat_forgets_its_mappings_and_gets_another_address() {
    with_a_shell("another outside address", |network, _| {
        network.change_outside_address();
    });
}

#[test]
fn the_nat_forgets_its_mappings() {
    with_a_shell("mappings flushed", |network, _| network.flush());
}

#[test]
fn the_nat_silently_drops_what_comes_from_a_socket() {
    with_a_shell("socket blackholed", |network, device| {
        network.drop_sockets(device.id());
    });
}

#[test]
fn bulk_copies_beside_the_shell_do_not_delay_a_path_change() {
    let fault = |network: &mut Network, device: &Device| network.drop_sockets(device.id());
    with_a_shell_and("socket blackholed beside bulk copies", 4, fault);
}

#[test]
fn the_device_gets_another_address() {
    with_a_shell("another own address", |network, _| {
        network.change_device_address();
    });
}

#[test]
fn the_link_is_down_for_a_while() {
    with_a_shell("link down for 20 s", |network, _| {
        network.link(false);
        std::thread::sleep(Duration::from_secs(20));
        network.link(true);
    });
}

/// Opens a shell, has `fault` happen while the operator types, and sees that the shell goes on.
#[track_caller]
fn with_a_shell(what: &str, fault: impl FnOnce(&mut Network, &Device)) {
    with_a_shell_and(what, 0, fault);
}

/// The same with so many bulk copies beside it.
#[track_caller]
fn with_a_shell_and(what: &str, copies: usize, fault: impl FnOnce(&mut Network, &Device)) {
    let Some(mut network) = Network::new() else {
        return;
    };
    let mut relay = Relay::new(&[]).wrapped(&network.outside(), network::RELAY);
    relay.start_again();
    let alice = relay.admin_user();
    let mut device = Device::new("kitchen-cam").wrapped(&network.inside());
    device.join(&relay.token(&[]), &[]).ok();
    device.run_online(&relay);
    let address = relay.device("kitchen-cam").unwrap()["address"].to_string();
    assert!(address.contains("10.77.0."), "{address} is not the NAT's");

    let copies: Vec<Beside> = (0..copies)
        .map(|_| {
            let mut ssh = alice.ssh(Way::Direct, &own_login(), device.name());
            Beside::start(&network, ssh.arg("cat /dev/zero"))
        })
        .collect();
    let mut shell = Shell::open(
        &network,
        &alice.ssh(Way::Direct, &own_login(), device.name()),
    );
    for _ in 0..20 {
        shell.type_and_see();
    }
    // A person pauses now and then. What is still on its way here (the device's acknowledgement of the last
    // line, say) would open a new mapping by chance.
    std::thread::sleep(Duration::from_millis(300));
    fault(&mut network, &device);
    let stall = shell.type_until_seen();
    eprintln!("{what}: the shell stalls for {} ms", stall.as_millis());
    assert!(stall <= STALL, "{what}: the shell stalls for {stall:?}");
    for _ in 0..20 {
        shell.type_and_see();
    }
    shell.leave();
    drop(copies);
    assert!(!device.log().contains("tunnel lost"), "it was one tunnel");
}

/// A session beside the shell, until it is dropped.
struct Beside(Child);

impl Beside {
    fn start(network: &Network, ssh: &Command) -> Self {
        let words = network.outside();
        let mut wrapped = command(words[0]);
        wrapped.args(&words[1..]).arg(ssh.get_program());
        wrapped.args(ssh.get_args()).stdin(Stdio::null());
        let child = wrapped.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An interactive shell in which a program repeats each line.
struct Shell {
    terminal: Terminal,
    lines: u32,
}

impl Shell {
    fn open(network: &Network, ssh: &Command) -> Self {
        let [program, args @ ..] = &network.outside()[..] else {
            panic!("a wrapper has words")
        };
        let mut wrapped = command(program);
        wrapped
            .args(args)
            .arg(ssh.get_program())
            .args(ssh.get_args());
        let mut terminal = Terminal::start(&wrapped, 80, 24);
        // What is typed shows the quotes, what is said does not.
        terminal.send("sh -c 'stty -echo; echo list\"\"ening; cat'\r");
        terminal.expect("listening");
        Self { terminal, lines: 0 }
    }

    fn type_line(&mut self) -> String {
        self.lines += 1;
        let line = format!("<{}>", self.lines);
        self.terminal.send(&format!("{line}\r"));
        line
    }

    fn type_and_see(&mut self) {
        let line = self.type_line();
        self.terminal.expect(&line);
    }

    /// Types on until something of it is seen: the time from the first line to then.
    fn type_until_seen(&mut self) -> Duration {
        let began = Instant::now();
        let first = self.type_line();
        wait_until(SOON, "an echo", || {
            self.type_line();
            self.terminal.shown().contains(&first)
        });
        let stall = began.elapsed();
        let last = self.type_line();
        self.terminal.expect(&last);
        stall
    }

    /// Ends the program, and sees that the shell around it still lives.
    fn leave(mut self) {
        self.terminal.send("\u{4}");
        self.terminal.send("exit 5\r");
        assert_eq!(self.terminal.wait(SOON).code(), Some(5));
    }
}
