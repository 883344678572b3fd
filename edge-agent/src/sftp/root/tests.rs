use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rustix::fs::{RenameFlags, fstat, renameat_with};

use super::*;

fn path(bytes: &[u8]) -> SftpPath<'_> {
    SftpPath::new(bytes).unwrap()
}

/// A root with links of all kinds, beside a folder that must not be reached.
struct RootFixture {
    folder: tempfile::TempDir,
    tree: SftpTree,
}

impl RootFixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let outside = folder.path().join("outside");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "outside").unwrap();
        fs::write(root.join("sub/file"), "inside").unwrap();
        symlink(outside.join("secret"), root.join("absolute")).unwrap();
        symlink("../outside/secret", root.join("relative")).unwrap();
        symlink("../../../outside", root.join("sub/folder")).unwrap();
        symlink(&outside, root.join("sub/deep/folder")).unwrap();
        symlink("/", root.join("top")).unwrap();
        symlink("/sub/file", root.join("fine")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("round", root.join("round")).unwrap();
        let tree = SftpTree::under(&root).unwrap();
        Self { folder, tree }
    }

    fn opened(&self, bytes: &[u8]) -> Result<OwnedFd, Errno> {
        self.tree.open(path(bytes), OFlags::RDONLY, Mode::empty())
    }
}

fn inode(of: &OwnedFd) -> (u64, u64) {
    let stat = fstat(of).unwrap();
    (stat.st_dev, stat.st_ino)
}

#[test]
fn no_path_leads_out_of_a_root() {
    let fixture = RootFixture::new();
    for out in [
        "absolute",
        "relative",
        "sub/folder/secret",
        "sub/deep/folder/secret",
        "../outside/secret",
        "/../../outside/secret",
        "sub/../../outside/secret",
        "top/../outside/secret",
        "magic/etc/passwd",
        "/etc/passwd",
    ] {
        let opened = fixture.opened(out.as_bytes()).map(|_| ());
        assert!(opened.is_err(), "{out}");
        // A file can't be made there either.
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let made = fixture.tree.open(path(out.as_bytes()), flags, Mode::RWXU);
        assert!(made.is_err() || !out.contains("outside"), "{out}");
        if let Ok(place) = fixture.tree.target(path(out.as_bytes())) {
            panic!("{out} is {place:?}");
        }
    }
    assert!(!fixture.folder.path().join("outside/made").exists());
    let file = inode(&fixture.opened(b"/sub/file").unwrap());
    let top = inode(&fixture.opened(b"/").unwrap());
    for (inside, is) in [
        (&b"fine"[..], file),
        (b"top/sub/file", file),
        (b"../../sub/./deep/../file", file),
        (b"..", top),
        (b"/../..", top),
        (b"sub/..", top),
        (b"top", top),
        (b".", top),
    ] {
        assert_eq!(inode(&fixture.opened(inside).unwrap()), is);
    }
    assert_eq!(fixture.opened(b"round").unwrap_err(), Errno::LOOP);
}

#[test]
fn a_name_is_looked_up_within_the_root_and_not_followed() {
    let fixture = RootFixture::new();
    let entry = |name: &'static [u8]| fixture.tree.entry(path(name)).unwrap();
    let kind = |place: &SftpLocation<'_>| {
        let stat = place.stat(AtFlags::SYMLINK_NOFOLLOW).unwrap();
        rustix::fs::FileType::from_raw_mode(stat.st_mode)
    };
    assert!(kind(&entry(b"absolute")).is_symlink());
    assert!(kind(&entry(b"absolute/")).is_symlink());
    assert!(kind(&entry(b"/sub//file")).is_file());
    for top in [
        &b".."[..],
        b"/",
        b"//",
        b".",
        b"sub/..",
        b"top/..",
        b"./../..",
    ] {
        let place = entry(top);
        assert_eq!(place.name(), b".", "{}", top.escape_ascii());
        let stat = place.stat(AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let top = inode(&fixture.opened(b"/").unwrap());
        assert_eq!((stat.st_dev, stat.st_ino), top);
    }
    assert_eq!(fixture.tree.entry(path(b"")).unwrap_err(), Errno::NOENT);
    assert_eq!(
        fixture.tree.entry(path(b"sub/folder/secret")).unwrap_err(),
        Errno::NOENT
    );
}

#[test]
fn a_real_path_is_one_of_the_root() {
    let fixture = RootFixture::new();
    for (from, real) in [
        ("", "/"),
        (".", "/"),
        ("/", "/"),
        ("..", "/"),
        ("sub", "/sub"),
        ("fine", "/sub/file"),
        ("top/sub/deep/..", "/sub"),
        ("new", "/new"),
        ("sub/new/", "/sub/new"),
    ] {
        let found = fixture.tree.real(path(from.as_bytes()));
        assert_eq!(found, Ok(real.as_bytes().to_vec()), "{from}");
    }
    for none in ["new/new", "sub/file/.."] {
        assert!(fixture.tree.real(path(none.as_bytes())).is_err(), "{none}");
    }
}

/// Tells a thread to stop, also where an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Exchanges a folder and a link to the outside, over and over, while paths are opened.
#[test]
fn a_race_leads_nowhere_else() {
    let fixture = RootFixture::new();
    let root = fixture.folder.path().join("root");
    fs::create_dir(root.join("swap")).unwrap();
    fs::write(root.join("swap/secret"), "inside").unwrap();
    symlink("../outside", root.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let folder = fs::File::open(&root).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let flags = RenameFlags::EXCHANGE;
                renameat_with(&folder, "swap", &folder, "link", flags).unwrap();
            }
        });
        let _stop = StopOnDrop(&stop);
        for round in 0..200_000 {
            if inside > 100 && refused > 100 && round > 5_000 {
                break;
            }
            match fixture.opened(b"swap/../swap/secret") {
                Ok(file) => {
                    let mut text = [0; 7];
                    let read = rustix::io::read(&file, &mut text).unwrap();
                    assert_eq!(&text[..read], b"inside");
                    inside += 1;
                }
                Err(_) => refused += 1,
            }
            let name = path(b"swap/secret");
            if let Ok(place) = fixture.tree.entry(name)
                && let Ok(stat) = place.stat(AtFlags::empty())
            {
                assert_eq!(stat.st_size, 6);
            }
        }
    });
    assert!(inside > 100 && refused > 100, "{inside} and {refused}");
}

#[test]
fn a_path_is_checked_before_the_kernel_sees_it() {
    let nul = SftpPath::new(b"/tmp/a\0b").unwrap_err();
    assert_eq!(nul.text, "the path holds a NUL byte");
    assert_eq!(nul.code, Code::Failure);
    assert!(SftpPath::new(&[b'a'; MAX_SFTP_PATH]).is_ok());
    let long = SftpPath::new(&[b'a'; MAX_SFTP_PATH + 1]).unwrap_err();
    assert_eq!(long.text, "File name too long");
}

#[test]
fn without_a_folder_there_is_no_root() {
    let missing = SftpTree::under(Path::new("/no/such\u{1b}[2J")).unwrap_err();
    let text = missing.to_string();
    assert!(text.contains("can't be opened"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(SftpTree::under(Path::new("/etc/passwd")).is_err());
}

/// The names that a walk is made of: those of the fixture, and some that lead out.
const STEPS: [&str; 12] = [
    "..", ".", "sub", "deep", "folder", "absolute", "relative", "top", "fine", "magic", "outside",
    "secret",
];

#[test]
fn no_walk_leads_out() {
    let fixture = RootFixture::new();
    let outside = fixture.folder.path().join("outside");
    let files = [outside.join("secret"), outside];
    let outside = files.map(|path| inode(&fs::File::open(path).unwrap().into()));
    let steps = prop::collection::vec(0..STEPS.len(), 0..12);
    proptest!(ProptestConfig::with_cases(2_000), |(steps in steps, absolute: bool)| {
        let mut walk: Vec<&str> = steps.iter().map(|step| STEPS[*step]).collect();
        if absolute {
            walk.insert(0, "");
        }
        let walk = walk.join("/");
        if let Ok(opened) = fixture.opened(walk.as_bytes()) {
            prop_assert!(!outside.contains(&inode(&opened)), "{}", walk);
        }
        if let Ok(place) = fixture.tree.entry(path(walk.as_bytes()))
            && let Ok(stat) = place.stat(AtFlags::SYMLINK_NOFOLLOW)
        {
            prop_assert!(!outside.contains(&(stat.st_dev, stat.st_ino)), "{}", walk);
        }
    });
}
