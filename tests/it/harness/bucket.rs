//! A bucket on a server of S3 that others wrote, and which checks signatures.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{Daemon, SOON, command, needs_program};

/// The secret key for the bucket.
pub(crate) const SECRET: &str = "not-to-be-shown/anywhere+42";
const KEY_ID: &str = "AKIDEXAMPLE";
const BUCKET: &str = "tapes";
/// The number of times that it is started if another program takes one of its ports first.
const TRIES: usize = 3;
/// The bit of a mode, as the server's language has them, that a folder has.
const IS_FOLDER: u64 = 1 << 31;

/// A server with one bucket, on ports of its own.
pub(crate) struct BucketServer {
    daemon: Daemon,
    s3: SocketAddr,
    /// Shows the bucket as files, to all who ask.
    filer: SocketAddr,
    folder: TempDir,
}

impl BucketServer {
    /// Starts a server with an empty bucket; `None`: it is not installed.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        if !needs_program("weed", "from PyPI; `cargo xtask test` brings it") {
            return None;
        }
        for _ in 0..TRIES {
            if let Some(server) = Self::try_start() {
                return Some(server);
            }
        }
        panic!("the S3 server did not start");
    }

    /// Starts a server; `None`: it has ended, as it does where a port was taken meanwhile.
    fn try_start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut server = command("weed");
        server.args([
            "mini",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            // It would report to its makers.
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-bucket",
            BUCKET,
        ]);
        server.env("AWS_ACCESS_KEY_ID", KEY_ID);
        server.env("AWS_SECRET_ACCESS_KEY", SECRET);
        server.arg(format!("-dir={}", folder.path().display()));
        for service in ["filer", "s3"] {
            let socket = folder.path().join(service).with_extension("sock");
            server.arg(format!("-{service}.localSocket={}", socket.display()));
        }
        let services = ["master", "volume", "admin", "filer", "s3"];
        // All at once, so that no two are the same.
        let listeners =
            services.map(|_| [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()));
        let addresses = listeners.map(|pair| pair.map(|listener| listener.local_addr().unwrap()));
        for (service, [http, grpc]) in services.iter().zip(addresses) {
            server.arg(format!("-{service}.port={}", http.port()));
            server.arg(format!("-{service}.port.grpc={}", grpc.port()));
        }
        let daemon = Daemon::start("weed", &mut server, folder.path());
        let [_, _, _, [filer, _], [s3, _]] = addresses;
        let mut server = Self {
            daemon,
            s3,
            filer,
            folder,
        };
        let began = Instant::now();
        while !server.serves() {
            if server.daemon.ended().is_some() {
                return None;
            }
            let log = server.daemon.log();
            assert!(
                began.elapsed() < SOON,
                "the S3 server does not serve: {log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    /// Checks whether it takes what a relay sends, and has the bucket.
    fn serves(&self) -> bool {
        let status = |address, path: &str| {
            let answer = request(address, "GET", path).unwrap_or_default();
            answer.get(9..12).unwrap_or_default().to_owned()
        };
        // Without a signature it may not be read.
        status(self.s3, &format!("/{BUCKET}")) == "403"
            && status(self.filer, &format!("/buckets/{BUCKET}/")) == "200"
    }

    /// Stops it as a machine that hangs, or lets it go on.
    #[track_caller]
    pub(crate) fn hang(&self, hangs: bool) {
        self.daemon.signal(match hangs {
            true => Signal::STOP,
            false => Signal::CONT,
        });
    }

    /// The names of all objects, in order.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<String> {
        let root = format!("/buckets/{BUCKET}");
        let mut folders = vec![root.clone()];
        let mut names = Vec::new();
        while let Some(folder) = folders.pop() {
            let answer = request(self.filer, "GET", &format!("{folder}/?limit=1000")).unwrap();
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let listed: Value = serde_json::from_str(body).unwrap();
            for entry in listed["Entries"].as_array().into_iter().flatten() {
                let path = entry["FullPath"].as_str().unwrap().to_owned();
                match entry["Mode"].as_u64().unwrap() & IS_FOLDER {
                    0 => names.push(path[root.len() + 1..].to_owned()),
                    _ => folders.push(path),
                }
            }
        }
        names.sort();
        names
    }

    /// Removes all objects.
    #[track_caller]
    pub(crate) fn empty(&self) {
        for name in self.objects() {
            let path = format!("/buckets/{BUCKET}/{name}");
            let answer = request(self.filer, "DELETE", &path).unwrap();
            assert_eq!(answer.get(9..12), Some("204"), "{answer}");
        }
    }

    /// The file with the credentials, which [`Self::configuration`] writes.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials")
    }

    /// The relay's configuration for it.
    pub(crate) fn configuration(&self) -> String {
        let credentials = self.credentials();
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        let mut file = options.open(&credentials).unwrap();
        writeln!(
            file,
            "[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}"
        )
        .unwrap();
        let config = self.folder.path().join("relay.toml");
        let text = format!(
            "[recordings]\nstore = \"s3\"\nbucket = \"{BUCKET}\"\nprefix = \"fleet\"\nendpoint = \"http://{}\"\ncredentials = \"{}\"\n",
            self.s3,
            credentials.display()
        );
        std::fs::write(&config, text).unwrap();
        config.to_str().unwrap().to_owned()
    }
}

/// Makes a request, and returns the whole answer.
fn request(address: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
