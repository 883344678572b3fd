//! Clients that are programs: PuTTY's, dropbear's, git.

use std::fs;
use std::process::Command;

use super::{MIB, at_home, bytes, direct, file, host_key, is_quiet};
use crate::harness::{
    Output, SOON, Site, Terminal, Way, command, needs_program, own_login, run, run_with_input,
};

struct Putty<'a> {
    site: &'a Site,
    key: std::path::PathBuf,
}

impl<'a> Putty<'a> {
    #[track_caller]
    fn new(site: &'a Site) -> Self {
        let key = site.alice.folder().join("key.ppk");
        let mut convert = at_home(&site.alice, "puttygen");
        convert.arg(site.alice.key()).args(["-O", "private", "-o"]);
        run(convert.arg(&key)).ok();
        Self { site, key }
    }

    fn tool(&self, program: &str) -> Command {
        let mut tool = at_home(&self.site.alice, program);
        let host_key = host_key(&self.site.alice);
        let blob = host_key.split(' ').nth(1).unwrap();
        tool.args(["-batch", "-hostkey", blob, "-i"]).arg(&self.key);
        tool.args(["-P", &self.site.relay.ssh().port().to_string()]);
        tool
    }

    fn host(&self) -> String {
        format!("{}@{}", direct(self.site), self.site.relay.ssh().ip())
    }
}

#[test]
fn puttys_programs_work() {
    if !needs_program("plink", "putty-tools") {
        return;
    }
    let site = Site::new();
    let putty = Putty::new(&site);
    let plink = |args: &[&str], input: &[u8]| -> Output {
        let mut plink = putty.tool("plink");
        run_with_input(plink.arg("-ssh").arg(putty.host()).args(args), input)
    };
    let output = plink(&["cat; echo err >&2; exit 7"], b"in\n").exits(7);
    assert_eq!(
        (output.out(), output.err()),
        ("in\n".into(), "err\n".into())
    );
    let data = bytes(MIB);
    assert!(plink(&["cat"], &data).ok().stdout == data);
    // It asks for a terminal with words and modes of its own.
    let shell = plink(&["-t", "tty; stty size"], b"").ok();
    assert!(shell.out().starts_with("/dev/pts/"), "{shell}");

    let (here, there) = (
        file(&site.alice, "here", &data),
        site.device.folder().join("there"),
    );
    let far = format!("{}:{}", putty.host(), there.display());
    run(putty.tool("pscp").arg("-q").arg(&here).arg(&far)).ok();
    assert!(fs::read(&there).unwrap() == data);
    let back = site.alice.folder().join("back");
    run(putty.tool("pscp").arg("-q").arg(&far).arg(&back)).ok();
    assert!(fs::read(&back).unwrap() == data);
    // The old way, which runs `scp` on the device.
    fs::remove_file(&back).unwrap();
    run(putty.tool("pscp").args(["-q", "-scp"]).arg(&far).arg(&back)).ok();
    assert!(fs::read(&back).unwrap() == data);

    let folder = site.device.folder().join("folder");
    let batch = format!(
        "mkdir {0}\ncd {0}\nput {1} one\nmv one two\nls\nchmod 600 two\nget two {2}\n",
        folder.display(),
        here.display(),
        site.alice.folder().join("got").display()
    );
    let batch = file(&site.alice, "batch", batch.as_bytes());
    let listed = run(putty.tool("psftp").arg("-b").arg(batch).arg(putty.host())).ok();
    assert!(listed.out().contains(" two"), "{listed}");
    assert!(fs::read(site.alice.folder().join("got")).unwrap() == data);
    is_quiet(&site);
}

#[test]
fn dropbears_client_works() {
    if !needs_program("dbclient", "dropbear-bin") {
        return;
    }
    let site = Site::new();
    let key = site.alice.folder().join("key.dropbear");
    let mut convert = at_home(&site.alice, "dropbearconvert");
    convert.args(["openssh", "dropbear"]).arg(site.alice.key());
    run(convert.arg(&key)).ok();
    let dbclient = |args: &[&str]| {
        let mut client = at_home(&site.alice, "dbclient");
        client.args(["-y", "-p", &site.relay.ssh().port().to_string(), "-i"]);
        client.arg(&key).args(args);
        client
    };
    let host = format!("{}@{}", direct(&site), site.relay.ssh().ip());
    let output = run_with_input(&mut dbclient(&[&host, "cat; exit 7"]), b"in\n").exits(7);
    assert_eq!(output.out(), "in\n");
    let data = bytes(MIB);
    let output = run_with_input(&mut dbclient(&[&host, "cat"]), &data).ok();
    assert!(output.stdout == data);
    let mut shell = Terminal::start(&dbclient(&[&host]), 80, 24);
    shell.send("stty size; exit 3\r");
    shell.expect("24 80\r\n");
    assert_eq!(shell.wait(SOON).code(), Some(3));
    is_quiet(&site);
}

#[test]
fn git_clones_from_a_device_and_pushes_to_it() {
    if !needs_program("git", "git") {
        return;
    }
    let site = Site::new();
    let there = site.device.folder().join("project.git");
    let git = |args: &[&str]| {
        let mut git = at_home(&site.alice, "git");
        let ssh = format!("ssh -F {}", site.alice.config().display());
        git.env("GIT_SSH_COMMAND", ssh)
            .env("GIT_CONFIG_NOSYSTEM", "1");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b"]);
        run(git.args(["-c", "protocol.version=2"]).args(args)).ok()
    };
    run(command("git")
        .args(["init", "-q", "--bare", "-b", "main"])
        .arg(&there))
    .ok();
    let data = bytes(MIB / 2);
    for (way, name) in [(Way::Direct, "one"), (Way::Jump, "two")] {
        let url = format!(
            "{}:{}",
            way.destination(&own_login(), "kitchen-cam"),
            there.display()
        );
        git(&["clone", "-q", &url, name]);
        fs::write(site.alice.folder().join(name).join(name), &data).unwrap();
        git(&["-C", name, "add", "."]);
        git(&["-C", name, "commit", "-q", "-m", name]);
        git(&["-C", name, "push", "-q", "origin", "HEAD:main"]);
    }
    git(&["-C", "one", "pull", "-q", "--ff-only", "origin", "main"]);
    assert!(fs::read(site.alice.folder().join("one/two")).unwrap() == data);
    is_quiet(&site);
}
