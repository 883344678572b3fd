//! A bucket on a server of S3 that others wrote.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;

use tempfile::TempDir;

use super::{Daemon, SOON, command, needs_program, wait_for};

/// The secret key for the bucket.
pub(crate) const SECRET: &str = "not-to-be-shown/anywhere+42";

/// A server on a port of its own.
pub(crate) struct BucketServer {
    _daemon: Daemon,
    address: SocketAddr,
    folder: TempDir,
}

impl BucketServer {
    /// Starts a server without a bucket; `None`: it is not installed.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        if !needs_program("moto_server", "from PyPI; `cargo xtask test` brings it") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut server = command("moto_server");
        server.args(["--host", "127.0.0.1", "--port", "0"]);
        let daemon = Daemon::start("moto", &mut server, folder.path());
        let address = wait_for(SOON, "the S3 server", || {
            let log = daemon.log();
            let (_, rest) = log.split_once("Running on http://")?;
            rest.split_once('\n')?.0.trim().parse().ok()
        });
        Some(Self {
            _daemon: daemon,
            address,
            folder,
        })
    }

    /// Makes a request without a signature, which this server takes too, and returns the answer.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let host = self.address;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    /// The names of all objects.
    pub(crate) fn objects(&self) -> Vec<String> {
        let list = self.ask("GET", "/tapes?list-type=2");
        let names = list.split("<Key>").skip(1);
        let names = names.map(|rest| rest.split_once("</Key>").unwrap().0.to_owned());
        names.collect()
    }

    /// The relay's configuration for it.
    pub(crate) fn configuration(&self) -> String {
        let credentials = self.folder.path().join("credentials");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        let mut file = options.open(&credentials).unwrap();
        writeln!(
            file,
            "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}"
        )
        .unwrap();
        let config = self.folder.path().join("relay.toml");
        let text = format!(
            "[recordings]\nstore = \"s3\"\nbucket = \"tapes\"\nprefix = \"fleet\"\nendpoint = \"http://{}\"\ncredentials = \"{}\"\n",
            self.address,
            credentials.display()
        );
        std::fs::write(&config, text).unwrap();
        config.to_str().unwrap().to_owned()
    }
}
