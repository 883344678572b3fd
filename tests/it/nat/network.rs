//! Three network namespaces: outside (relay and operator), a router that masquerades, and a device's.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::{command, is_root, run, run_with_input};

/// The address of the relay.
pub(crate) const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The router lets answers in, and nothing else.
const RULES: &str = "
table ip hf {
    set dead { type inet_service; }
    chain post {
        type nat hook postrouting priority srcnat;
        oifname \"out\" masquerade
    }
    chain pre {
        type filter hook prerouting priority raw;
        iifname \"in\" udp sport @dead drop
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        iifname \"in\" accept
        ct state established,related accept
    }
}";

pub(crate) struct Network {
    outside: String,
    router: String,
    inside: String,
}

impl Network {
    /// Makes the namespaces; `None`, with the reason printed, where that is not allowed. On CI it must be.
    #[track_caller]
    pub(crate) fn new() -> Option<Self> {
        if !is_root("network namespaces") {
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |part: &str| format!("hf-{}-{number}-{part}", std::process::id());
        let network = Self {
            outside: name("outside"),
            router: name("router"),
            inside: name("inside"),
        };
        for namespace in network.namespaces() {
            let made = run(ip().args(["netns", "add", namespace]));
            if made.code() != 0 {
                assert!(std::env::var_os("CI").is_none(), "CI skips nothing: {made}");
                eprintln!("skipped: no network namespaces here: {}", made.err().trim());
                return None;
            }
        }
        network.wire();
        Some(network)
    }

    /// Runs a program outside, where the relay is.
    pub(crate) fn outside(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.outside]
    }

    /// Runs a program inside, where the device is.
    pub(crate) fn inside(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.inside]
    }

    /// The router forgets every mapping.
    pub(crate) fn flush(&self) {
        let mut conntrack = command("ip");
        conntrack.args(["netns", "exec", &self.router, "conntrack", "-F"]);
        run(&mut conntrack).ok();
    }

    /// The router's provider gives it another address.
    pub(crate) fn change_outside_address(&self) {
        self.ip(&self.router, "addr del 10.77.0.2/24 dev out");
        self.ip(&self.router, "addr add 10.77.0.3/24 dev out");
        self.flush();
    }

    /// Nothing from the sockets that a process has now gets out any more.
    pub(crate) fn drop_sockets(&self, process: u32) {
        let table = fs::read_to_string(format!("/proc/{process}/net/udp")).unwrap();
        let port = |line: &str| {
            let (_, port) = line.split_whitespace().nth(1)?.split_once(':')?;
            u16::from_str_radix(port, 16).ok()
        };
        let ports: Vec<u16> = table.lines().skip(1).filter_map(port).collect();
        assert!(!ports.is_empty(), "the agent has a socket");
        for port in ports {
            self.nft(&format!("add element ip hf dead {{ {port} }}"));
        }
        self.flush();
    }

    /// The device's own network gives it another address.
    pub(crate) fn change_device_address(&self) {
        self.ip(&self.inside, "addr del 192.168.77.2/24 dev lan");
        self.ip(&self.inside, "addr add 192.168.77.9/24 dev lan");
        self.ip(&self.inside, "route add default via 192.168.77.1");
    }

    /// Pulls the device's cable, or puts it back.
    pub(crate) fn link(&self, up: bool) {
        if up {
            self.ip(&self.inside, "link set lan up");
            self.ip(&self.inside, "route add default via 192.168.77.1");
        } else {
            self.ip(&self.inside, "link set lan down");
        }
    }

    fn wire(&self) {
        let (outside, inside) = (&self.outside, &self.inside);
        let uplink = format!("link add wan netns {outside} type veth peer name out");
        self.ip(&self.router, &uplink);
        let downlink = format!("link add lan netns {inside} type veth peer name in");
        self.ip(&self.router, &downlink);
        self.ip(outside, "addr add 10.77.0.1/24 dev wan");
        self.ip(&self.router, "addr add 10.77.0.2/24 dev out");
        self.ip(&self.router, "addr add 192.168.77.1/24 dev in");
        self.ip(inside, "addr add 192.168.77.2/24 dev lan");
        for (namespace, link) in [
            (outside, "wan"),
            (&self.router, "out"),
            (&self.router, "in"),
            (inside, "lan"),
            (outside, "lo"),
            (inside, "lo"),
        ] {
            self.ip(namespace, &format!("link set {link} up"));
        }
        self.ip(inside, "route add default via 192.168.77.1");
        let mut forward = command("ip");
        forward.args(["netns", "exec", &self.router, "sysctl", "-qw"]);
        run(forward.arg("net.ipv4.ip_forward=1")).ok();
        self.nft(RULES);
    }

    #[track_caller]
    fn ip(&self, namespace: &str, words: &str) {
        let mut ip = ip();
        run(ip.args(["-n", namespace]).args(words.split(' '))).ok();
    }

    #[track_caller]
    fn nft(&self, rules: &str) {
        let mut nft = command("ip");
        nft.args(["netns", "exec", &self.router, "nft", "-f", "-"]);
        run_with_input(&mut nft, rules.as_bytes()).ok();
    }

    fn namespaces(&self) -> [&String; 3] {
        [&self.outside, &self.router, &self.inside]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.namespaces() {
            // Not `run`: a test that fails already must not panic again. What was not made cannot be removed.
            let _ = ip().args(["netns", "delete", namespace]).output();
        }
    }
}

fn ip() -> Command {
    command("ip")
}
