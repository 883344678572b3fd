//! Links of relays, which a test can cut: to the database, and to each other.

use std::collections::HashMap;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use holdfast_tests::postgres::Server;
use tempfile::TempDir;

/// A socket beside that of a server, whose connections are passed on to it. While it is cut, nothing passes and nothing is
/// closed, as when a network loses all packets.
pub(crate) struct DatabaseLink {
    folder: TempDir,
    gate: Arc<Gate>,
    /// The socket that new connections are passed on to.
    to: Arc<Mutex<PathBuf>>,
}

#[derive(Default)]
struct Gate {
    is_cut: Mutex<bool>,
    mended: Condvar,
}

impl DatabaseLink {
    /// Starts one, which is whole.
    #[track_caller]
    pub(crate) fn to(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let to = server.socket_file();
        let own = folder.path().join(to.file_name().unwrap());
        let to = Arc::new(Mutex::new(to));
        let now_to = to.clone();
        let listener = UnixListener::bind(own).unwrap();
        let gate = Arc::<Gate>::default();
        let of_link = gate.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let to = now_to.lock().unwrap().clone();
                let Ok(far) = UnixStream::connect(to) else {
                    continue;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let gate = of_link.clone();
                    std::thread::spawn(move || gate.pass(from, to));
                }
            }
        });
        Self { folder, gate, to }
    }

    /// Leads new connections to another server, as an address that moves does.
    pub(crate) fn lead_to(&self, server: &Server) {
        *self.to.lock().unwrap() = server.socket_file();
    }

    /// Returns the address of a database by this link.
    pub(crate) fn url(&self, server: &Server, database: &str) -> String {
        server.url_by(self.folder.path(), database)
    }

    /// Cuts it, or mends it.
    pub(crate) fn cut(&self, is_cut: bool) {
        *self.gate.is_cut.lock().unwrap() = is_cut;
        self.gate.mended.notify_all();
    }
}

impl Gate {
    fn pass(&self, mut from: UnixStream, mut to: UnixStream) {
        let mut bytes = [0; 16 * 1024];
        loop {
            let read = from.read(&mut bytes).unwrap_or(0);
            let is_cut = self.is_cut.lock().unwrap();
            drop(self.mended.wait_while(is_cut, |is_cut| *is_cut).unwrap());
            if read == 0 || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }
}

/// The public address of a relay's tunnels, which passes its packets on. Those of other relays, which have addresses of
/// their own, can be dropped; those of devices, which come from 127.0.0.1, always pass.
pub(crate) struct TunnelLink {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl TunnelLink {
    /// Starts one, which is whole. It ends with the test's process.
    #[track_caller]
    pub(crate) fn to(relay: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = Self {
            address: front.local_addr().unwrap(),
            is_cut: Arc::default(),
        };
        let is_cut = link.is_cut.clone();
        std::thread::spawn(move || pass_packets(&front, relay, &is_cut));
        link
    }

    /// Returns the address that is dialled in the relay's place.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it for relays, or mends it.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

fn pass_packets(front: &UdpSocket, relay: SocketAddr, is_cut: &Arc<AtomicBool>) {
    let mut by_source: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut packet = [0; 2048];
    while let Ok((length, source)) = front.recv_from(&mut packet) {
        let is_relay = source.ip() != Ipv4Addr::LOCALHOST;
        if is_relay && is_cut.load(Ordering::Relaxed) {
            continue;
        }
        let back = by_source.entry(source).or_insert_with(|| {
            let back = UdpSocket::bind("127.0.0.1:0").unwrap();
            back.connect(relay).unwrap();
            let (answers, front) = (back.try_clone().unwrap(), front.try_clone().unwrap());
            let is_cut = is_cut.clone();
            std::thread::spawn(move || {
                let mut packet = [0; 2048];
                // An error is what the relay's machine answers while no relay is there.
                loop {
                    let Ok(length) = answers.recv(&mut packet) else {
                        continue;
                    };
                    if !(is_relay && is_cut.load(Ordering::Relaxed)) {
                        let _ = front.send_to(&packet[..length], source);
                    }
                }
            });
            back
        });
        let _ = back.send(&packet[..length]);
    }
}
