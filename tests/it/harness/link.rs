//! The link of one relay to its database, which a test can cut.

use std::io::{Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};

use holdfast_tests::postgres::Server;
use tempfile::TempDir;

/// A socket beside that of a server, whose connections are passed on to it. While it is cut, nothing passes and nothing is
/// closed, as when a network loses all packets.
pub(crate) struct DatabaseLink {
    folder: TempDir,
    gate: Arc<Gate>,
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
        let listener = UnixListener::bind(own).unwrap();
        let gate = Arc::<Gate>::default();
        let of_link = gate.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = UnixStream::connect(&to) else {
                    continue;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let gate = of_link.clone();
                    std::thread::spawn(move || gate.pass(from, to));
                }
            }
        });
        Self { folder, gate }
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
