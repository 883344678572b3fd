//! The device of a test: with root's rights, one with accounts of its own, which the helper sees in a
//! mount namespace; otherwise the machine as it is, with the account that runs the test.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use edge_agent::session::SessionConfig;
use holdfast_protocol::ids::Login;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use smol::Async;

/// The number of the account `tester`.
pub(crate) const TESTER: u32 = 47_110;

const PASSWD: &str = "root:x:0:0:root:FOLDER/root:/bin/sh
tester:x:47110:47111:,,,:FOLDER/tester:/bin/sh
homeless:x:47112:47112::/no/such/home:/bin/sh
shell-less:x:47113:47113::/:
broken:x:47114:47114::/:/no/such/shell
locked:x:47115:47115::/:/bin/sh
nologin:x:47116:47116::/:/usr/sbin/nologin
refusing:x:47117:47117::/:FOLDER/refuse
busy:x:47118:47118::/:/bin/sh
";

const GROUP: &str =
    "root:x:0:\ntty:x:5:\ntesters:x:47111:\nvideo:x:47144:other,tester\naudio:x:47129:tester\n";

const SHADOW: &str = "root:*:1::::::\ntester:*:1::::::\nlocked:!*:1::::::\n";

/// The script that replaces the agent as a session's helper. It hides the machine's accounts
/// behind the device's, and whatever else a test put into the folder.
const PROGRAM: &str = r#"#!/bin/sh
exec unshare --mount --propagation private sh -c '
    for name in passwd group shadow; do
        mount --bind "$0/etc/$name" "/etc/$name" || exit 1
    done
    [ ! -e /etc/shells ] || mount --bind "$0/etc/shells" /etc/shells || exit 1
    for path in /run /usr/lib/openssh; do
        [ ! -e "$0$path" ] || mount --bind "$0$path" "$path" || exit 1
    done
    exec PREFIX "$1" internal-launch
' 'FOLDER' 'AGENT'
"#;

/// The device of one test.
pub(crate) struct Device {
    folder: tempfile::TempDir,
}

/// True if a test may make its own accounts.
pub(crate) static IS_ROOT: LazyLock<bool> = LazyLock::new(|| {
    let tried = Command::new("unshare")
        .args(["--mount", "true"])
        .stderr(Stdio::null())
        .status();
    let allowed = tried.is_ok_and(|status| status.success());
    if !allowed {
        println!("no mount namespace here (needs root): some of this test is skipped");
    }
    allowed
});

impl Device {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let device = Self { folder };
        for (path, text) in [
            ("etc/passwd", PASSWD),
            ("etc/group", GROUP),
            ("etc/shadow", SHADOW),
            ("etc/shells", "/bin/sh\n/bin/bash\n"),
        ] {
            device.write(path, text);
        }
        for home in ["root", "tester"] {
            fs::create_dir(device.path(home)).unwrap();
        }
        if *IS_ROOT {
            chown(device.path("tester"), Some(TESTER), Some(47_111)).unwrap();
        }
        device.runs_with("");
        device
    }

    /// A path of the device's folder. `tester` and `root` are the homes there.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file of the device. `FOLDER` in it means the folder.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            text.replace("FOLDER", &self.folder.path().to_string_lossy()),
        )
        .unwrap();
    }

    /// Lets the helper run under another command, such as `setpriv`.
    pub(crate) fn runs_with(&self, prefix: &str) {
        let program = PROGRAM.replace("PREFIX", prefix).replace("AGENT", AGENT);
        self.write("program", &program);
        let path = self.path("program");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn config(&self) -> SessionConfig {
        let program = if *IS_ROOT {
            self.path("program")
        } else {
            PathBuf::from(AGENT)
        };
        SessionConfig {
            program,
            ..SessionConfig::default()
        }
    }
}

/// The agent that was built with this test.
const AGENT: &str = env!("CARGO_BIN_EXE_edge-agent");

/// The account that tests use where it does not matter which: not root, where that can be.
pub(crate) fn login() -> Login {
    static OWN: LazyLock<String> = LazyLock::new(|| {
        let id = Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(id.stdout).unwrap().trim().to_owned()
    });
    Login::new(if *IS_ROOT { "tester" } else { OWN.as_str() }).unwrap()
}

/// Bytes that the test's process holds in memory; 0 where other tests share it (`cargo test`), which
/// would be counted too.
pub(crate) fn resident() -> u64 {
    if std::env::var_os("NEXTEST").is_none() {
        return 0;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// Any process of the device, to see whether it is still there.
pub(crate) struct Watched(Async<OwnedFd>);

impl Watched {
    pub(crate) fn new(pid: &str) -> Self {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        Self(Async::new(pidfd_open(pid, PidfdFlags::empty()).unwrap()).unwrap())
    }

    pub(crate) fn runs(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 0
    }

    /// Resolves when it has ended.
    pub(crate) async fn ended(&self) {
        self.0.readable().await.unwrap();
    }

    pub(crate) fn kill(&self) {
        pidfd_send_signal(&self.0, Signal::KILL).unwrap();
    }
}
