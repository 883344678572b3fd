//! Recordings in a bucket: the relay speaks S3 to a server that others wrote.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;

use tempfile::TempDir;

use super::{segments, wait_state};
use crate::harness::{Daemon, Device, Relay, SOON, Site, Way, command, needs_program, wait_for};

const SECRET: &str = "not-to-be-shown/anywhere+42";

/// A server on a port of its own.
struct Bucket {
    _daemon: Daemon,
    address: SocketAddr,
    folder: TempDir,
}

impl Bucket {
    #[track_caller]
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = command("moto_server");
        server.args(["--host", "127.0.0.1", "--port", "0"]);
        let daemon = Daemon::start("moto", &mut server, folder.path());
        let address = wait_for(SOON, "the S3 server", || {
            let log = daemon.log();
            let (_, rest) = log.split_once("Running on http://")?;
            rest.split_once('\n')?.0.trim().parse().ok()
        });
        Self {
            _daemon: daemon,
            address,
            folder,
        }
    }

    /// A request without a signature, which this server takes too; gives the answer.
    #[track_caller]
    fn ask(&self, method: &str, path: &str) -> String {
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
    fn objects(&self) -> Vec<String> {
        let list = self.ask("GET", "/tapes?list-type=2");
        let names = list.split("<Key>").skip(1);
        let names = names.map(|rest| rest.split_once("</Key>").unwrap().0.to_owned());
        names.collect()
    }

    /// The relay's configuration for it.
    fn configuration(&self) -> String {
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

#[test]
fn recordings_lie_in_a_bucket() {
    if !needs_program("moto_server", "from PyPI; `cargo xtask test` brings it") {
        return;
    }
    let bucket = Bucket::start();
    bucket.ask("PUT", "/tapes");
    let relay = Relay::start_with(&["--config", &bucket.configuration()]);
    let device = Device::new("kitchen-cam").flags(&["--upload", "always"]);
    let site = Site::on(relay, device);

    let line = "dd if=/dev/urandom bs=64k count=40 status=none";
    let said = site.exec(Way::Direct, line).ok();
    let row = wait_state(&site.relay, "complete");
    let id = row["id"].as_str().unwrap();
    assert_eq!(row["verified"], true, "{row}");
    let objects: Vec<String> = (0..3)
        .map(|segment| format!("fleet/{id}/{segment:08}.seg"))
        .collect();
    assert_eq!(bucket.objects(), objects);
    let folder = site.relay.state().join("recordings");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert!(segments(&site.device).is_empty());

    // Commands beside the relay find the bucket without its configuration.
    let export = ["export", id, "--format", "raw"];
    assert_eq!(site.relay.admin(&export).ok().stdout, said.stdout);
    let verified = site.relay.admin(&["recordings", "verify", id]).ok().out();
    assert!(verified.contains("complete and verified"), "{verified}");

    site.relay.admin(&["recordings", "rm", id]).ok();
    assert_eq!(bucket.objects(), Vec::<String>::new());

    site.exec(Way::Direct, "echo gone").ok();
    let row = wait_state(&site.relay, "complete");
    bucket.ask("POST", "/moto-api/reset");
    let verify = ["recordings", "verify", row["id"].as_str().unwrap()];
    let verified = site.relay.admin(&verify).exits(1);
    let error = verified.err();
    assert!(
        error.contains("cannot be read from where it is stored: a segment of it is gone"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    let log = site.relay.log();
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn a_bucket_that_cannot_be_opened_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("relay.toml");
    std::fs::write(
        &config,
        "[recordings]\nstore = \"s3\"\nbucket = \"tapes\"\n",
    )
    .unwrap();
    let relay = Relay::new(&["--config", config.to_str().unwrap()]);
    let mut serve = relay.serve_command();
    serve.env_remove("AWS_ACCESS_KEY_ID");
    let said = crate::harness::run(&mut serve);
    assert_eq!(said.code(), 1, "{said}");
    let error = said.err();
    assert!(
        error
            .contains("no credentials for the recordings' bucket \"tapes\": set AWS_ACCESS_KEY_ID"),
        "{error}"
    );
    // The others of the state folder's commands have no need of it.
    relay.admin(&["devices"]).ok();
}
