//! Reports to systemd, by sd_notify(3): that the agent is up, that it is alive, that it stops. Without
//! systemd nothing happens.

use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use smol::Timer;

/// The service manager that started this process, if it wants to hear of it.
#[derive(Debug)]
pub struct ServiceManager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads the environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    #[must_use]
    pub fn from_env() -> Self {
        let for_us = env::var("WATCHDOG_PID")
            .ok()
            .is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = env::var("WATCHDOG_USEC")
            .ok()
            .filter(|_| for_us)
            .and_then(|text| text.parse().ok())
            .filter(|&time| time > 0)
            .map(Duration::from_micros);
        Self {
            to: socket(),
            watchdog,
        }
    }

    /// Reports that the service is ready: units that wait for it may start.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// Reports that the service is stopping.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Sends a watchdog message twice as often as required, until it is dropped. It runs on the executor that
    /// everything runs on, so that it stops when that hangs. `status` is what `systemctl status` shows.
    pub async fn keep_alive(&self, status: impl Fn() -> String) {
        let Some(watchdog) = self.watchdog else {
            return std::future::pending().await;
        };
        loop {
            self.say(&format!("WATCHDOG=1\nSTATUS={}", status()));
            Timer::after(watchdog / 2).await;
        }
    }

    fn say(&self, text: &str) {
        if let Some((socket, to)) = &self.to {
            // A manager that does not listen must not stop the tunnel.
            let _ = socket.send_to_addr(text.as_bytes(), to);
        }
    }
}

fn socket() -> Option<(UnixDatagram, SocketAddr)> {
    let name = env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let socket = UnixDatagram::unbound().ok()?;
    // systemd may be slow to read; the agent must not be.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}
