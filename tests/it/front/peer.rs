//! A TCP peer that speaks bytes, not SSH.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::harness::SOON;

pub(crate) struct Peer {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Peer {
    /// Connects, from this address if there is one given.
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr, from: Option<Ipv4Addr>) -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        if let Some(from) = from {
            bind(&socket, &SocketAddr::from((from, 0))).unwrap();
        }
        connect(&socket, &to).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self {
            stream,
            heard: vec![],
        }
    }

    /// Sends, whether or not anybody takes it.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends all of it, or says that the connection is gone.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Returns whether the other end closes within this time.
    pub(crate) fn is_closed(&mut self, within: Duration) -> bool {
        self.read_until(within, |_| false)
    }

    /// Waits for the other end's first line, which must hold `text`.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let first = self.first_line();
        assert!(first.contains(text), "no {text:?}, but {first:?}");
    }

    /// The first line that the other end says: its version, or why it takes no connection.
    pub(crate) fn first_line(&mut self) -> String {
        self.read_until(SOON, |heard| heard.contains('\n'));
        self.heard()
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    /// Reads until `enough` (false) or the end (true), or for so long (false).
    fn read_until(&mut self, within: Duration, enough: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut buffer = [0; 4096];
        while !enough(&self.heard()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.heard.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return false;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        false
    }
}
