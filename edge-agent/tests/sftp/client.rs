//! OpenSSH's `sftp`, with the server as its child: all its commands, in both directions.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use std::io::Write as _;

use crate::{AGENT, OPENSSH};

/// Runs a batch in `folder` with this server.
pub(crate) fn sftp(server: &str, folder: &Path, batch: &str) -> Output {
    let mut sftp = Command::new("sftp")
        .args(["-q", "-b", "-", "-D", server])
        .current_dir(folder)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = sftp.stdin.take().unwrap();
    stdin.write_all(batch.as_bytes()).unwrap();
    drop(stdin);
    sftp.wait_with_output().unwrap()
}

/// The same, and it must go well.
pub(crate) fn ok(server: &str, folder: &Path, batch: &str) -> String {
    let output = sftp(server, folder, batch);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    String::from_utf8(output.stdout).unwrap()
}

fn ours() -> String {
    format!("{AGENT} internal-sftp")
}

/// Every command that changes something, and what it left, on which both servers must agree.
const BATCH: &str = "mkdir made\n\
    put local made/one\n\
    put -p local made/kept\n\
    put -r tree made/tree\n\
    get made/one back\n\
    get -p made/kept back-kept\n\
    get -r made/tree back-tree\n\
    chmod 640 made/one\n\
    ln made/one made/hard\n\
    ln -s one made/soft\n\
    rename made/hard made/renamed\n\
    -rename made/one made/missing/one\n\
    copy made/one made/copied\n\
    put part made/part\n\
    reput local made/part\n\
    reget made/one part-back\n\
    -rm made/missing\n\
    -rmdir made\n\
    -mkdir made\n\
    -chmod 600 made/missing\n\
    -get made/missing\n\
    -put local made/missing/one\n\
    -ln made/missing made/link\n\
    symlink /nowhere made/dangling\n\
    -get made/dangling\n\
    rm made/copied\n\
    mkdir made/empty\n\
    rmdir made/empty\n\
    cd made\n\
    pwd\n\
    ls\n\
    ls -1a\n\
    ls -l tree\n\
    ls -n tree\n\
    cd ..\n\
    -cd made/one\n\
    -ls made/missing\n\
    ls made/r*\n\
    version\n";

#[test]
fn a_client_sees_what_it_sees_of_openssh() {
    let mut shown = Vec::new();
    for server in [ours(), OPENSSH.to_owned()] {
        if server == OPENSSH && !Path::new(OPENSSH).exists() {
            println!("{OPENSSH} is not here: nothing to compare with");
            continue;
        }
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("work");
        fs::create_dir_all(folder.join("tree/deep")).unwrap();
        let data: Vec<u8> = (0..3_000_017_u32).map(|n| (n % 251) as u8).collect();
        fs::write(folder.join("local"), &data).unwrap();
        fs::set_permissions(folder.join("local"), fs::Permissions::from_mode(0o604)).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(981_173_106);
        let local = fs::File::options().write(true).open(folder.join("local"));
        local.unwrap().set_modified(old).unwrap();
        fs::write(folder.join("part"), &data[..1_000_000]).unwrap();
        fs::write(folder.join("part-back"), &data[..2_000_000]).unwrap();
        for name in ["a", "with space", "deep/\u{e4}"] {
            fs::write(folder.join("tree").join(name), name).unwrap();
        }
        let output = sftp(&server, &folder, BATCH);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(output.status.success(), "{text}");
        for copy in [
            "made/one",
            "made/kept",
            "back",
            "back-kept",
            "made/renamed",
            "made/part",
            "part-back",
        ] {
            assert!(
                fs::read(folder.join(copy)).unwrap() == data,
                "{copy} differs"
            );
        }
        for kept in ["made/kept", "back-kept"] {
            let kept = fs::metadata(folder.join(kept)).unwrap();
            assert_eq!(kept.mtime(), 981_173_106);
            assert_eq!(kept.mode() & 0o777, 0o604);
        }
        assert_eq!(
            fs::metadata(folder.join("made/one")).unwrap().mode() & 0o777,
            0o640
        );
        assert_eq!(fs::metadata(folder.join("made/one")).unwrap().nlink(), 2);
        assert_eq!(
            fs::read_link(folder.join("made/soft")).unwrap(),
            Path::new("one")
        );
        for copy in ["made/tree", "back-tree"] {
            let text = fs::read_to_string(folder.join(copy).join("deep/\u{e4}"));
            assert_eq!(text.unwrap(), "deep/\u{e4}");
        }
        let folder = fs::canonicalize(&folder).unwrap();
        shown.push(text.replace(folder.to_str().unwrap(), "FOLDER"));
    }
    let (ours, theirs) = (&shown[0], shown.last().unwrap());
    assert_eq!(ours, theirs);
}

#[test]
fn a_client_may_only_read_where_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    let server = format!("{AGENT} internal-sftp --read-only");
    ok(&server, folder.path(), "get file copy\nls -l\ndf\n");
    assert_eq!(fs::read(folder.path().join("copy")).unwrap(), b"text");
    for change in [
        "put file new",
        "rm file",
        "mkdir new",
        "rmdir new",
        "rename file new",
        "rename -l file new",
        "chmod 600 file",
        "ln file new",
        "ln -s file new",
        "copy file new",
    ] {
        let output = sftp(&server, folder.path(), &format!("{change}\n"));
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{change}");
        assert!(err.contains("ermission denied"), "{change}: {err}");
    }
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 2);
}

#[test]
fn home_is_where_the_account_is_at_home() {
    let folder = tempfile::tempdir().unwrap();
    let home = fs::canonicalize(folder.path()).unwrap();
    fs::create_dir(home.join("sub")).unwrap();
    // Through the environment: `sftp` passes its own on.
    let output = Command::new("sh")
        .args(["-c", "printf 'cd ~/sub\\npwd\\n' | sftp -q -b - -D \"$0\""])
        .arg(ours())
        .env("HOME", &home)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        let expected = format!("Remote working directory: {}/sub", home.display());
        assert!(out.contains(&expected), "{out}");
    } else {
        // Older clients don't expand.
        assert!(String::from_utf8_lossy(&output.stderr).contains("~/sub"));
    }
}
