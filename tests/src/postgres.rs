//! PostgreSQL for tests: Debian's programs in a temporary folder, as a user without rights, on a Unix socket alone.
//!
//! All test processes of a run share one server, each test has a database of its own. The first process starts it, and a
//! watcher beside it ends it and removes its files when no process has used it for a while: also if the tests panicked or
//! were killed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a test fails the test; clippy knows this only of functions marked as tests"
)]

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The user that owns everything on the server.
const USER: &str = "holdfast";
/// `initdb` takes a second, and half a minute on a machine that is very busy.
const START_TIMEOUT: Duration = Duration::from_secs(150);
/// Ends the server `$1` with the files in `$2` once nothing has held the lock `$3` for 15 s. A server that has ended and
/// that its parent, in a container perhaps no real init, does not wait for does not run.
const WATCHER: &str = r#"
    runs() { grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }
    exec 9<"$3"; idle=0
    while runs "$1"; do
        sleep 1
        if flock --nonblock --exclusive 9; then
            idle=$((idle + 1))
            [ "$idle" -ge 15 ] && break
            flock --unlock 9
        else
            idle=0
        fi
    done
    kill -INT "$1" 2>/dev/null
    while runs "$1"; do sleep 0.1; done
    rm -rf "$2"
"#;

/// A running server, which is not ended with this value.
pub struct Server {
    folder: PathBuf,
    child: Option<Child>,
    /// It outlives the process that starts it, and its signals are not for it.
    is_shared: bool,
    /// More settings, of the form `NAME=VALUE`.
    settings: Vec<String>,
}

/// A server of one test, which ends with this value, and with the test's process group.
pub struct OwnServer {
    server: Server,
    _folder: tempfile::TempDir,
}

/// Returns the server that all tests share.
pub fn shared() -> &'static Server {
    static SERVER: OnceLock<(Server, File)> = OnceLock::new();
    let (server, _used) = SERVER.get_or_init(|| {
        let user = rustix::process::getuid().as_raw();
        // Each version has one.
        let version = Command::new(programs().join("postgres"))
            .arg("--version")
            .output();
        let version = version.map(|said| said.stdout).unwrap_or_default();
        let version: String = String::from_utf8_lossy(&version)
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let root = std::env::temp_dir().join(format!("holdfast-postgres-{user}-{version}"));
        fs::create_dir_all(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let lock = |name: &str| {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).read(true);
            file.open(root.join(name)).unwrap()
        };
        let used = lock("used");
        used.lock_shared().unwrap();
        let starting = lock("starting");
        starting.lock().unwrap();
        let folder = root.join("server");
        let mut server = Server {
            folder,
            child: None,
            is_shared: true,
            settings: vec![],
        };
        if !server.answers() {
            let _ = fs::remove_dir_all(&server.folder);
            server.start();
            server.watch(&root.join("used"));
        }
        (server, used)
    });
    server
}

impl Server {
    /// Returns the address of a database on it.
    pub fn url(&self, database: &str) -> String {
        self.url_by(&self.socket(), database)
    }

    /// Returns the address of a database on it, by a socket of the same name in another folder.
    pub fn url_by(&self, folder: &Path, database: &str) -> String {
        format!(
            "postgres://{USER}@localhost/{database}?host={}",
            folder.display()
        )
    }

    /// Returns its socket.
    pub fn socket_file(&self) -> PathBuf {
        self.socket().join(format!(".s.PGSQL.{}", self.port()))
    }

    /// Runs a statement that no transaction may hold, as `CREATE DATABASE`.
    pub fn psql(&self, statement: &str) -> Result<(), String> {
        let mut psql = Command::new(programs().join("psql"));
        psql.args([
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            USER,
            "-d",
            "postgres",
            "-h",
        ]);
        psql.arg(self.socket())
            .args(["-p", &self.port(), "-c", statement]);
        let done = psql.stdin(Stdio::null()).output().unwrap();
        match done.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    /// Dumps a database into another, which is empty, by `pg_dump`.
    pub fn dump_into(&self, from: &str, to: &str) {
        let on_server = |name: &str, database: &str| {
            let mut program = Command::new(programs().join(name));
            program.args(["-U", USER, "-d", database, "-h"]);
            program.arg(self.socket()).args(["-p", &self.port()]);
            program
        };
        let mut dump = on_server("pg_dump", from);
        let mut dump = dump.stdout(Stdio::piped()).spawn().unwrap();
        let mut restore = on_server("psql", to);
        restore.args(["-q", "-v", "ON_ERROR_STOP=1"]);
        let restored = restore.stdin(dump.stdout.take().unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&restored.stderr);
        assert!(restored.status.success(), "{said}");
        assert!(dump.wait().unwrap().success());
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn answers(&self) -> bool {
        self.socket_file().exists() && self.psql("SELECT 1").is_ok()
    }

    /// Returns its port, which is a part of the socket's name as well.
    fn port(&self) -> String {
        let mut settings = self.settings.iter();
        let port = settings.find_map(|setting| setting.strip_prefix("port="));
        port.unwrap_or("5432").to_owned()
    }

    fn start(&mut self) {
        self.make_folders();
        let mut initdb = program("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        initdb.args(["-U", USER, "-D"]).arg(self.data());
        let made = initdb.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb failed: {said}");
        self.run();
    }

    fn make_folders(&self) {
        for folder in [self.folder.clone(), self.data(), self.socket()] {
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for folder in [self.data(), self.socket()] {
            if let Some((user, group)) = unprivileged() {
                chown(&folder, Some(user), Some(group)).unwrap();
            }
        }
    }

    /// Copies the data of another server, whose standby it is from then on.
    fn copy(&self, from: &Self) {
        fs::set_permissions(self.data(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut copy = program("pg_basebackup");
        copy.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf"]);
        copy.args(["-U", USER, "-h"]).arg(from.socket());
        copy.args(["-p", &from.port(), "-D"]).arg(self.data());
        let done = copy.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "pg_basebackup failed: {said}");
    }

    /// Runs the server on the data that is there.
    fn run(&mut self) {
        let log = File::create(self.folder.join("log")).unwrap();
        let mut postgres = program("postgres");
        postgres.arg("-D").arg(self.data());
        postgres.arg("-k").arg(self.socket());
        for setting in [
            "listen_addresses=",
            // The machine's power is not what is tested.
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=32MB",
            "max_connections=400",
        ] {
            postgres.args(["-c", setting]);
        }
        for setting in &self.settings {
            postgres.args(["-c", setting]);
        }
        postgres.stdin(Stdio::null()).stdout(Stdio::null());
        if self.is_shared {
            postgres.process_group(0);
        }
        self.child = Some(postgres.stderr(log).spawn().unwrap());
        let began = Instant::now();
        while !self.answers() {
            let said = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(
                began.elapsed() < START_TIMEOUT,
                "postgres does not start: {said}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[expect(
        clippy::zombie_processes,
        reason = "it outlives this process on purpose"
    )]
    fn watch(&self, used: &Path) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let mut watcher = Command::new("sh");
        watcher.args(["-c", WATCHER, "sh", &pid]);
        watcher.arg(&self.folder).arg(used);
        watcher.stdin(Stdio::null()).stdout(Stdio::null());
        watcher.stderr(Stdio::null()).process_group(0);
        watcher.spawn().unwrap();
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().unwrap())
    }
}

impl OwnServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(world_readable(), vec![])
    }

    /// Starts one that syncs each commit, as a real one does: for measurements.
    #[must_use]
    pub fn start_durable() -> Self {
        let settings = ["fsync=on", "full_page_writes=on"].map(ToOwned::to_owned);
        Self::start_with(world_readable(), settings.to_vec())
    }

    /// Starts one that takes TLS on `localhost`, and returns it with its port and the certificate of its authority.
    #[must_use]
    pub fn start_with_tls() -> (Self, u16, PathBuf) {
        let folder = world_readable();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for line in [
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout ca.key -out ca.pem",
            "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile name -out server.pem",
        ] {
            fs::write(path("name"), "subjectAltName=DNS:localhost\n").unwrap();
            let mut openssl = Command::new("openssl");
            openssl.args(line.split(' ')).current_dir(folder.path());
            let done = openssl.stdin(Stdio::null()).output();
            let done = done.expect("openssl is not installed: sudo apt-get install openssl");
            assert!(done.status.success(), "{done:?}");
        }
        if let Some((user, group)) = unprivileged() {
            chown(path("server.key"), Some(user), Some(group)).unwrap();
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let settings = vec![
            format!("port={port}"),
            "listen_addresses=localhost".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", path("server.pem")),
            format!("ssl_key_file={}", path("server.key")),
        ];
        let authority = folder.path().join("ca.pem");
        (Self::start_with(folder, settings), port, authority)
    }

    fn start_with(folder: tempfile::TempDir, settings: Vec<String>) -> Self {
        let mut server = Server {
            folder: folder.path().join("server"),
            child: None,
            is_shared: false,
            settings,
        };
        server.start();
        Self {
            server,
            _folder: folder,
        }
    }

    /// Returns the server.
    #[must_use]
    pub fn get(&self) -> &Server {
        &self.server
    }

    /// Starts a standby of this server, which acknowledges no write from then on before the standby has it.
    #[must_use]
    pub fn start_standby(&self) -> Self {
        let folder = world_readable();
        let mut server = Server {
            folder: folder.path().join("server"),
            child: None,
            is_shared: false,
            settings: vec![],
        };
        server.make_folders();
        server.copy(&self.server);
        server.run();
        for statement in [
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        ] {
            self.server.psql(statement).unwrap();
        }
        Self {
            server,
            _folder: folder,
        }
    }

    /// Makes a standby the server that takes writes.
    pub fn promote(&self) {
        // The setting came with the copy, or will have come.
        for statement in [
            "SELECT pg_promote()",
            "ALTER SYSTEM RESET synchronous_standby_names",
            "SELECT pg_reload_conf()",
        ] {
            self.server.psql(statement).unwrap();
        }
    }

    /// Ends the server without a farewell, as a crash does.
    pub fn crash(&mut self) {
        // SIGQUIT ends all of its processes at once.
        self.signal(rustix::process::Signal::QUIT);
        self.server.child.take().unwrap().wait().unwrap();
    }

    /// Starts it again after a crash.
    pub fn restart(&mut self) {
        self.server.run();
    }

    /// Stops all processes of the server, as a machine that hangs does, or lets them go on.
    pub fn hang(&self, hangs: bool) {
        let signal = match hangs {
            true => rustix::process::Signal::STOP,
            false => rustix::process::Signal::CONT,
        };
        // Its workers are leaders of groups of their own.
        let parent = self.server.pid().as_raw_nonzero().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let is_worker = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.split(' ').nth(1))
                == Some(parent.as_str());
            if is_worker && let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
        self.signal(signal);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.server.pid(), signal).unwrap();
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if self.server.child.is_some() {
            self.hang(false);
            self.crash();
        }
    }
}

/// Returns a folder that the server's user can come through.
fn world_readable() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Returns the folder of PostgreSQL's programs: what `HOLDFAST_TEST_POSTGRES` names, or Debian's newest.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("HOLDFAST_TEST_POSTGRES") {
        return folder.into();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    let mut found: Vec<PathBuf> = folders.filter(|bin| bin.join("initdb").exists()).collect();
    found.sort();
    found.pop().expect(
        "PostgreSQL is not installed: expected initdb in /usr/lib/postgresql/VERSION/bin; on Debian: \
         sudo apt-get install postgresql",
    )
}

/// Returns a program of PostgreSQL, which does not run as root.
fn program(name: &str) -> Command {
    let mut command = Command::new(programs().join(name));
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command.current_dir("/");
    command
}

/// Returns the user and group that the server runs as, if we are root.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = accounts
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres")
}
