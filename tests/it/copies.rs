//! Scp, sftp, rsync, tar and ControlMaster, on both ways.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{
    Accounts, Device, Running, SOON, Site, Way, command, own_login, run, run_with_input, wait_until,
};

/// Files as people have them: empty, large, executable, with odd names, linked.
struct Tree {
    folder: TempDir,
}

impl Tree {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::write(root.join("empty"), "").unwrap();
        fs::write(root.join("with space and \u{e4}"), "text\n").unwrap();
        fs::write(root.join("sub/script"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("sub/script"), Permissions::from_mode(0o750)).unwrap();
        let every_byte: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        fs::write(root.join("sub/deep/large"), every_byte).unwrap();
        symlink("sub/script", root.join("link")).unwrap();
        let old = ["-d", "2001-02-03 04:05:06 UTC"];
        run(command("touch").args(old).arg(root.join("empty"))).ok();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// A new, empty folder beside it.
    fn place(&self, name: &str) -> PathBuf {
        let place = self.folder.path().join(name);
        fs::create_dir(&place).unwrap();
        place
    }
}

/// Both hold the same files with the same bytes; symbolic links count as what they name if `follow`.
#[track_caller]
fn assert_same(one: &Path, other: &Path, follow: bool) {
    let mut diff = command("diff");
    diff.arg("-r");
    if !follow {
        diff.arg("--no-dereference");
    }
    run(diff.arg(one).arg(other)).ok();
}

/// `LOGIN…HOST:` of this way, for what takes a remote path.
fn remote(way: Way, path: &Path) -> String {
    let destination = way.destination(&own_login(), "kitchen-cam");
    format!("{destination}:{}", path.display())
}

fn scp(site: &Site, flags: &[&str]) -> Command {
    let mut scp = site.alice.tool("scp");
    scp.arg("-rp").args(flags);
    scp
}

#[test]
fn scp_copies_both_ways_in_both_of_its_modes() {
    let (site, tree) = (Site::new(), Tree::new());
    for way in Way::BOTH {
        for (mode, flags) in [("sftp", &[][..]), ("scp", &["-O"])] {
            let place = tree.place(&format!("{way:?}-{mode}"));
            let (up, down) = (place.join("up"), place.join("down"));
            run(scp(&site, flags).arg(tree.root()).arg(remote(way, &up))).ok();
            assert_same(&tree.root(), &up, true);
            run(scp(&site, flags).arg(remote(way, &up)).arg(&down)).ok();
            assert_same(&tree.root(), &down, true);
            for copy in [up, down] {
                let mode = fs::metadata(copy.join("sub/script")).unwrap().mode();
                assert_eq!(mode & 0o777, 0o750, "{way:?}");
                assert_eq!(
                    fs::metadata(copy.join("empty")).unwrap().mtime(),
                    981_173_106
                );
            }
            let missing = remote(way, Path::new("/no/such/file"));
            let refused = run(scp(&site, flags).arg(missing).arg(&place)).exits(1);
            refused.says("No such file or directory");
        }
    }
}

#[test]
fn sftp_does_what_a_batch_says() {
    let (site, tree) = (Site::new(), Tree::new());
    for way in Way::BOTH {
        let place = tree.place(&format!("{way:?}"));
        let source = tree.root().join("sub/deep/large");
        let batch = format!(
            "cd {place}\nmkdir folder\nput {source} folder/one\nrename folder/one folder/two\n\
             chmod 600 folder/two\nln -s two folder/link\nls -l folder\nget folder/two {place}/back\n\
             df -h {place}\nrm folder/link\n-rm folder/missing\n",
            place = place.display(),
            source = source.display()
        );
        let mut sftp = site.alice.tool("sftp");
        sftp.args(["-b", "-"])
            .arg(way.destination(&own_login(), "kitchen-cam"));
        let output = run_with_input(&mut sftp, batch.as_bytes()).ok();
        assert!(output.out().contains("-rw-------"), "{output}");
        let wanted = fs::read(&source).unwrap();
        for copy in ["folder/two", "back"] {
            assert!(
                fs::read(place.join(copy)).unwrap() == wanted,
                "{way:?}: {copy} differs"
            );
        }
        assert!(!place.join("folder/link").exists());
        // A batch that fails says so by its status.
        let mut sftp = site.alice.tool("sftp");
        sftp.args(["-b", "-"])
            .arg(way.destination(&own_login(), "kitchen-cam"));
        run_with_input(&mut sftp, b"get /no/such/file\n").exits(1);
    }
}

#[test]
fn rsync_makes_a_mirror_and_then_finds_nothing_to_do() {
    let (site, tree) = (Site::new(), Tree::new());
    for way in Way::BOTH {
        let place = tree.place(&format!("{way:?}"));
        let (up, down) = (place.join("up"), place.join("down"));
        let from = format!("{}/", tree.root().display());
        let sync = |from: &str, to: &str| {
            run(site
                .alice
                .rsync()
                .args(["-a", "--delete", "--itemize-changes", from, to]))
            .ok()
        };
        let first = sync(&from, &remote(way, &up));
        assert!(first.out().contains("large"), "{first}");
        assert_same(&tree.root(), &up, false);
        assert_eq!(sync(&from, &remote(way, &up)).out(), "", "{way:?}");
        fs::write(up.join("not in the source"), "").unwrap();
        let third = sync(&from, &remote(way, &up));
        assert!(third.out().contains("*deleting"), "{third}");
        sync(&format!("{}/", remote(way, &up)), down.to_str().unwrap());
        assert_same(&tree.root(), &down, false);
    }
}

#[test]
fn tar_goes_through_a_pipe_in_either_direction() {
    let (site, tree) = (Site::new(), Tree::new());
    for way in Way::BOTH {
        let place = tree.place(&format!("{way:?}"));
        let (up, down) = (place.join("up"), place.join("down"));
        fs::create_dir(&up).unwrap();
        fs::create_dir(&down).unwrap();
        let archive = run(command("tar")
            .arg("-C")
            .arg(tree.root())
            .args(["-cf", "-", "."]))
        .ok();
        let line = format!("tar -C {} -xf -", up.display());
        run_with_input(site.ssh(way).arg(line), &archive.stdout).ok();
        assert_same(&tree.root(), &up, false);
        let archive = site
            .exec(way, &format!("tar -C {} -czf - .", up.display()))
            .ok();
        let mut unpack = command("tar");
        run_with_input(
            unpack.arg("-C").arg(&down).args(["-xzf", "-"]),
            &archive.stdout,
        )
        .ok();
        assert_same(&tree.root(), &down, false);
    }
}

#[test]
fn many_sessions_share_one_connection() {
    let site = Site::new();
    for way in Way::BOTH {
        // A socket's path is short.
        let folder = tempfile::Builder::new().prefix("cm").tempdir().unwrap();
        let socket = folder.path().join("s");
        let control = format!("ControlPath={}", socket.display());
        let mut master = site.ssh(way);
        master.args(["-N", "-o", "ControlMaster=yes", "-o", &control]);
        let master = Running::start(&mut master);
        wait_until(SOON, "the master's socket", || socket.exists());
        let logins = || site.relay.log().matches(" login user=").count();
        let before = logins();
        let sessions: Vec<_> = (0..12)
            .map(|n| {
                let mut ssh = site.ssh(way);
                let line = format!("cat; echo {n}; echo err {n} >&2; exit {n}");
                ssh.args(["-o", "ControlMaster=no", "-o", &control])
                    .arg(line);
                let mut session = Running::start(&mut ssh);
                session.write(&format!("input {n}\n"));
                session
            })
            .collect();
        // They run side by side: none ends before all have begun.
        for (n, mut session) in (0..).zip(sessions) {
            session.wait_out(&format!("input {n}\n"));
            session.end_input();
            let output = session.wait(SOON).exits(n);
            assert_eq!(output.out(), format!("input {n}\n{n}\n"), "{way:?}");
            assert_eq!(output.err(), format!("err {n}\n"), "{way:?}");
        }
        assert_eq!(
            logins(),
            before,
            "{way:?}: a session made a connection of its own"
        );
        let mut exit = site.ssh(way);
        run(exit.args(["-o", &control, "-O", "exit"])).ok();
        master.wait(SOON);
    }
}

/// Runs the agent where no `sftp-server` and no `scp` can be found. `HIDDEN` is an empty folder.
const BARE: &str = "for folder in /usr/lib/openssh /usr/libexec /usr/lib/ssh; do \
     if [ -d $folder ]; then mount -t tmpfs none $folder || exit 99; fi; done; \
     mount --bind /usr/bin $HIDDEN && mount -t tmpfs none /usr/bin || exit 99; \
     $HIDDEN/ln -s $HIDDEN/* /usr/bin/ && $HIDDEN/rm /usr/bin/scp || exit 99; \
     exec \"$@\"";

#[test]
fn a_bare_device_needs_neither_sftp_server_nor_scp() {
    if !Accounts::are_possible() {
        return;
    }
    let hidden = tempfile::tempdir().unwrap();
    let private = ["unshare", "--mount", "--propagation", "private"];
    let device = Device::new("kitchen-cam")
        .wrapped(&[&private[..], &["sh", "-c", BARE, "sh"]].concat())
        .env("HIDDEN", hidden.path());
    let (site, tree) = (Site::with(device), Tree::new());
    for way in Way::BOTH {
        let place = tree.place(&format!("{way:?}"));
        let (up, down) = (place.join("up"), place.join("down"));
        run(scp(&site, &[]).arg(tree.root()).arg(remote(way, &up))).ok();
        run(scp(&site, &[]).arg(remote(way, &up)).arg(&down)).ok();
        assert_same(&tree.root(), &down, true);
        let file = tree.root().join("empty");
        let refused = run(scp(&site, &["-O"]).arg(&file).arg(remote(way, &place)));
        let err = refused.err().replace('\r', "");
        let advice = "[holdfast] no scp on kitchen-cam: without -O, scp needs none there\n";
        assert!(err.contains(advice), "{refused}");
        assert!(!place.join("empty").exists());
        // Nor is there anything else.
        let mut other = site.ssh(way);
        let refused = run(other.args(["-s", "netconf"])).exits(255);
        refused.says("no subsystem \"netconf\" on kitchen-cam: sftp is the only one");
    }
}

#[test]
fn a_server_of_the_devices_own_is_run_if_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("sftp-server");
    let path = server.to_str().unwrap();
    let device = Device::new("kitchen-cam").flags(&["--sftp-server", path]);
    let site = Site::with(device);
    let way = Way::Direct;
    let sftp = || {
        let mut sftp = site.alice.tool("sftp");
        sftp.args(["-b", "-"])
            .arg(way.destination(&own_login(), "kitchen-cam"));
        run_with_input(&mut sftp, b"pwd\n")
    };
    let refused = sftp().exits(255);
    let sentence = "no sftp-server on kitchen-cam: run its agent without --sftp-server, or install one there, or use `scp -O`\n";
    assert!(
        refused.err().replace('\r', "").contains(sentence),
        "{refused}"
    );
    fs::write(&server, "#!/bin/sh\necho mine >&2\nexit 7\n").unwrap();
    fs::set_permissions(&server, Permissions::from_mode(0o755)).unwrap();
    assert!(sftp().err().contains("mine"));
}

/// Programs that are open while an agent is replaced live on, and so does sftp: it needs no file of the agent.
#[test]
fn sftp_goes_on_when_the_agent_was_replaced_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("edge-agent");
    fs::copy(crate::harness::agent_program(), &program).unwrap();
    let device = Device::new("kitchen-cam").program(program.clone());
    let (site, tree) = (Site::with(device), Tree::new());
    fs::remove_file(&program).unwrap();
    fs::write(&program, "#!/bin/sh\necho the new one\n").unwrap();
    let place = tree.place("copy");
    let up = remote(Way::Direct, &place.join("up"));
    run(scp(&site, &[]).arg(tree.root()).arg(up)).ok();
    assert_same(&tree.root(), &place.join("up"), true);
}

#[test]
fn a_folder_of_the_device_can_be_mounted() {
    let has = |name: &str| {
        run(command("sh").args(["-c", "command -v \"$0\"", name]))
            .status
            .success()
    };
    if !has("sshfs") || !has("fusermount3") || fs::File::open("/dev/fuse").is_err() {
        println!("no sshfs and /dev/fuse here: nothing is mounted");
        return;
    }
    let (site, tree) = (Site::new(), Tree::new());
    let (mount, seen) = (tree.place("mount"), tree.root());
    let mut sshfs = site.alice.tool("sshfs");
    sshfs.arg("-f").arg(remote(Way::Direct, &seen)).arg(&mount);
    let sshfs = Running::start(&mut sshfs);
    wait_until(SOON, "the mount", || mount.join("sub").exists());
    let unmount = || run(command("fusermount3").arg("-u").arg(&mount)).ok();
    let checked = std::panic::catch_unwind(|| {
        assert_same(&seen, &mount, false);
        fs::write(mount.join("sub/new"), "through the mount").unwrap();
        fs::rename(mount.join("sub/new"), mount.join("newer")).unwrap();
        assert_eq!(fs::read(seen.join("newer")).unwrap(), b"through the mount");
        fs::set_permissions(mount.join("newer"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            fs::metadata(seen.join("newer")).unwrap().mode() & 0o777,
            0o600
        );
        fs::remove_file(mount.join("newer")).unwrap();
        assert!(!seen.join("newer").exists());
    });
    unmount();
    sshfs.wait(SOON).exits(0);
    if let Err(failed) = checked {
        std::panic::resume_unwind(failed);
    }
}
