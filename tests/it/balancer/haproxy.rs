//! Debian's haproxy before a relay, with the configuration of docs/operating.md.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::{Daemon, Relay, SOON, command, wait_until};

const PROGRAM: &str = "/usr/sbin/haproxy";

pub(crate) struct Haproxy {
    _daemon: Daemon,
    folder: TempDir,
    address: SocketAddr,
}

impl Haproxy {
    /// Starts one whose connections to the relay come from this address. `more` is added to the backend.
    #[track_caller]
    pub(crate) fn before(relay: &Relay, from: Ipv4Addr, more: &[&str]) -> Self {
        assert!(
            Path::new(PROGRAM).exists(),
            "this test needs haproxy: sudo apt-get install haproxy"
        );
        let folder = tempfile::Builder::new().prefix("hf-").tempdir().unwrap();
        // No other test uses the relay's address, so the port stays free.
        let free = TcpListener::bind((relay.ssh().ip(), 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let (socket, more) = (socket(folder.path()), more.join("\n    "));
        let (socket, relay) = (socket.display(), relay.ssh());
        let text = format!(
            "global
    stats socket {socket} mode 600 level user
defaults
    mode tcp
    timeout connect 5s
    timeout client 5m
    timeout server 5m
frontend ssh
    bind {address}
    default_backend relays
backend relays
    {more}
    server relay1 {relay} send-proxy-v2 check inter 200ms source {from}
"
        );
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let mut haproxy = command(PROGRAM);
        // In the foreground.
        haproxy.arg("-db").arg("-f").arg(&file);
        let mut daemon = Daemon::start("haproxy", &mut haproxy, folder.path());
        wait_until(SOON, "haproxy listens", || {
            assert_eq!(daemon.ended(), None, "it ended: {}", daemon.log());
            UnixStream::connect(self::socket(folder.path())).is_ok()
        });
        Self {
            _daemon: daemon,
            folder,
            address,
        }
    }

    /// Returns where clients reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a client's configuration that leads through it, from this address of the client.
    pub(crate) fn client(&self, relay: &Relay, config: &str, from: &str) -> String {
        let (host, port) = (relay.ssh().ip(), relay.ssh().port());
        let direct = format!("  HostName {host}\n  Port {port}\n");
        assert!(config.contains(&direct), "{config}");
        let through = format!(
            "  HostName {}\n  Port {}\n  HostKeyAlias [{host}]:{port}\n  BindAddress {from}\n",
            self.address.ip(),
            self.address.port(),
        );
        config.replace(&direct, &through)
    }

    /// Waits until its checks have found the relay in this state.
    #[track_caller]
    pub(crate) fn await_state(&self, state: &str) {
        let what = format!("haproxy finds the relay {state}");
        wait_until(SOON, &what, || self.field(17).starts_with(state));
    }

    /// Returns a column of the relay's line in `show stat`.
    fn field(&self, column: usize) -> String {
        let mut stream = UnixStream::connect(socket(self.folder.path())).unwrap();
        stream.write_all(b"show stat\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        let line = said.lines().find(|line| line.starts_with("relays,relay1,"));
        let line = line.unwrap_or_else(|| panic!("{said}"));
        line.split(',').nth(column).unwrap_or_default().to_owned()
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("stats")
}
