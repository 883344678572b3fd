//! Accounts that exist for one device only: its agent runs in a mount namespace with files of its own
//! over /etc/passwd and its like. Nothing on the machine changes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::{Device, agent_program, command, run};

/// In the namespace: the folder's files over those of /etc, an empty /run, and then the command.
const ENTER: &str = "for file in passwd group shadow; do \
     mount --bind \"$0/$file\" \"/etc/$file\" || exit 99; done; \
     mount -t tmpfs none /run || exit 99; \
     if [ -e \"$0/environment\" ]; then mount --bind \"$0/environment\" /etc/environment || exit 99; fi; \
     if [ -e \"$0/limits.conf\" ]; then mount --bind \"$0/limits.conf\" /etc/security/limits.conf || exit 99; fi; \
     if [ -e \"$0/su\" ]; then mount --bind \"$0/su\" /etc/pam.d/su || exit 99; fi; \
     if [ -e \"$0/libraries\" ]; then \
         PATH=$PATH:/sbin:/usr/sbin ldconfig -X -C \"$0/ld.so.cache\" \"$(cat \"$0/libraries\")\" || exit 99; \
         for file in ld.so.cache nsswitch.conf; do mount --bind \"$0/$file\" \"/etc/$file\" || exit 99; done; \
     fi; \
     if [ -e \"$0/nologin\" ]; then cp \"$0/nologin\" /run/nologin; fi; \
     exec \"$@\"";

/// The accounts of a device, before it is made.
pub(crate) struct Accounts {
    passwd: String,
    group: String,
    shadow: String,
    nologin: Option<String>,
    files: Vec<(&'static str, String)>,
    agent: Option<u32>,
    homes: Vec<(String, u32)>,
}

impl Accounts {
    /// Those of this machine.
    pub(crate) fn new() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            passwd: read("/etc/passwd"),
            group: read("/etc/group"),
            shadow: read("/etc/shadow"),
            nologin: None,
            files: vec![],
            agent: None,
            homes: vec![],
        }
    }

    /// Returns whether this machine lets us do it; see [`super::is_root`].
    #[track_caller]
    pub(crate) fn are_possible() -> bool {
        if !super::is_root("accounts of its own") {
            return false;
        }
        let made = run(command("unshare").args(["--mount", "true"]));
        assert!(
            made.code() == 0 || std::env::var_os("CI").is_none(),
            "this test needs a mount namespace, and CI skips nothing: {made}"
        );
        if made.code() != 0 {
            eprintln!("skipped: it needs a mount namespace");
        }
        made.code() == 0
    }

    /// Adds an account with a home of its own and a group of the same name and number.
    pub(crate) fn add(mut self, name: &str, id: u32, shell: &str, password: &str) -> Self {
        self.passwd += &format!("{name}:x:{id}:{id}:{name}:@HOMES@/{name}:{shell}\n");
        self.group += &format!("{name}:x:{id}:\n");
        self.shadow += &format!("{name}:{password}:19000:0:99999:7:::\n");
        self.homes.push((name.to_owned(), id));
        self
    }

    /// Adds a group with members.
    pub(crate) fn group(mut self, name: &str, id: u32, members: &str) -> Self {
        self.group += &format!("{name}:x:{id}:{members}\n");
        self
    }

    /// Lets an account expire on a day since 1970.
    pub(crate) fn expires(mut self, name: &str, day: u32) -> Self {
        let old = format!("\n{name}:*:19000:0:99999:7:::\n");
        assert!(self.shadow.contains(&old));
        self.shadow = self
            .shadow
            .replace(&old, &format!("\n{name}:*:19000:0:99999:7::{day}:\n"));
        self
    }

    /// Puts up a notice that lets only root in.
    pub(crate) fn nologin(mut self, notice: &str) -> Self {
        self.nologin = Some(notice.to_owned());
        self
    }

    /// Puts a text in the place of `/etc/environment`.
    pub(crate) fn environment(mut self, text: &str) -> Self {
        self.files.push(("environment", text.to_owned()));
        self
    }

    /// Puts a text in the place of the limits of `/etc/security/limits.conf`.
    pub(crate) fn limits(mut self, text: &str) -> Self {
        self.files.push(("limits.conf", text.to_owned()));
        self
    }

    /// Has PAM open sessions by these rules.
    pub(crate) fn pam_rules(mut self, text: &str) -> Self {
        self.files.push(("su", text.to_owned()));
        self
    }

    /// Adds a source of accounts behind the files: `libnss_NAME.so.2` in this folder.
    pub(crate) fn directory(mut self, name: &str, folder: &Path) -> Self {
        let sources = ["passwd", "group", "shadow"].map(|of| format!("{of}: files {name}\n"));
        self.files.push(("nsswitch.conf", sources.concat()));
        let folder = folder.to_str().expect("a path in UTF-8");
        self.files.push(("libraries", folder.to_owned()));
        self
    }

    /// Has an account change its password before anything else.
    pub(crate) fn must_change(mut self, name: &str) -> Self {
        let old = format!("\n{name}:*:19000:");
        assert!(self.shadow.contains(&old));
        self.shadow = self.shadow.replace(&old, &format!("\n{name}:*:0:"));
        self
    }

    /// Runs the agent as this account instead of root.
    pub(crate) fn agent_as(mut self, id: u32) -> Self {
        self.agent = Some(id);
        self
    }

    /// The device that has these accounts.
    pub(crate) fn device(self, name: &str) -> Device {
        let device = Device::new(name);
        let (etc, homes) = (device.folder().join("etc"), device.folder().join("homes"));
        fs::create_dir(&etc).unwrap();
        fs::create_dir(&homes).unwrap();
        fs::set_permissions(device.folder(), Permissions::from_mode(0o755)).unwrap();
        for (account, id) in &self.homes {
            let home = homes.join(account);
            fs::create_dir(&home).unwrap();
            chown(&home, Some(*id), Some(*id)).unwrap();
        }
        let write = |name: &str, text: &str| fs::write(etc.join(name), text).unwrap();
        write(
            "passwd",
            &self.passwd.replace("@HOMES@", homes.to_str().unwrap()),
        );
        write("group", &self.group);
        write("shadow", &self.shadow);
        fs::set_permissions(etc.join("shadow"), Permissions::from_mode(0o600)).unwrap();
        if let Some(notice) = &self.nologin {
            write("nologin", notice);
        }
        for (name, text) in &self.files {
            write(name, text);
        }
        let mut wrapper = vec!["unshare", "--mount", "--propagation", "private"];
        wrapper.extend(["sh", "-c", ENTER, etc.to_str().unwrap()]);
        let Some(id) = self.agent else {
            return device.wrapped(&wrapper);
        };
        // Where the programs were built, that account may have no business.
        let program = copy_program(device.folder());
        fs::create_dir(device.state()).unwrap();
        chown(device.state(), Some(id), Some(id)).unwrap();
        let id = id.to_string();
        wrapper.extend(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        let flags = ["--allow-own-account"];
        device.wrapped(&wrapper).program(program).flags(&flags)
    }
}

fn copy_program(folder: &Path) -> PathBuf {
    let copy = folder.join("edge-agent");
    fs::copy(agent_program(), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    copy
}
