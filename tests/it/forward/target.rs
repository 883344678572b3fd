//! A server on the device's network.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Listens on a port, of 127.0.0.1 unless said otherwise, and does the same with each connection. Its threads end with
/// the test.
pub(super) struct Target {
    port: u16,
    seen: Arc<TargetCounters>,
}

#[derive(Default)]
struct TargetCounters {
    connections: AtomicU64,
    sent: AtomicU64,
    over: AtomicBool,
}

impl Target {
    /// Reads to the end, and says how much it was.
    pub(super) fn counting() -> Self {
        Self::counting_on("127.0.0.1")
    }

    /// The same on another address of this machine.
    pub(super) fn counting_on(address: &str) -> Self {
        Self::start_on(address, |mut stream, _| {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(format!("{} bytes", all.len()).as_bytes());
            }
        })
    }

    /// Gives back what it gets.
    pub(super) fn echo() -> Self {
        Self::start(|mut stream, _| {
            let mut writer = stream.try_clone().unwrap();
            let _ = std::io::copy(&mut stream, &mut writer);
        })
    }

    /// Sends until it is not taken any more.
    pub(super) fn endless() -> Self {
        Self::start(|mut stream, seen| {
            let data = vec![0; 64 * 1024];
            while stream.write_all(&data).is_ok() {
                seen.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            seen.over.store(true, Ordering::Relaxed);
        })
    }

    fn start(serve: fn(TcpStream, &TargetCounters)) -> Self {
        Self::start_on("127.0.0.1", serve)
    }

    fn start_on(address: &str, serve: fn(TcpStream, &TargetCounters)) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(TargetCounters::default());
        let all = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let seen = all.clone();
                seen.connections.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || serve(stream.unwrap(), &seen));
            }
        });
        Self { port, seen }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the number of connections.
    pub(super) fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Returns the bytes that an endless one has sent.
    pub(super) fn sent(&self) -> u64 {
        self.seen.sent.load(Ordering::Relaxed)
    }

    /// Returns whether an endless one has heard that it is not taken any more.
    pub(super) fn is_over(&self) -> bool {
        self.seen.over.load(Ordering::Relaxed)
    }
}

/// A port of 127.0.0.1 on which nothing listened a moment ago.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
