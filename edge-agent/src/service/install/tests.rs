use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

fn into(root: &Path, init: Option<Init>) -> Install {
    Install {
        root: root.to_owned(),
        init,
        program: None,
        state: "/var/lib/edge-agent".into(),
        run: vec!["--keepalive".into(), "45s".into()],
    }
}

fn install(install: &Install, dry_run: bool) -> String {
    let mut out = Vec::new();
    install.install(dry_run, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn uninstall(install: &Install, purge: bool) -> String {
    let mut out = Vec::new();
    install.uninstall(purge, false, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Lists every file and link below, with its mode.
fn tree(root: &Path) -> BTreeMap<PathBuf, u32> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_owned();
                found.insert(name, meta.permissions().mode() & 0o777);
            }
        }
    }
    found
}

#[test]
fn each_init_gets_its_files_once_and_loses_them_again() {
    let of = |init| match init {
        Init::Systemd => vec![
            ("etc/systemd/system/edge-agent.service", 0o644),
            (
                "etc/systemd/system/multi-user.target.wants/edge-agent.service",
                0o777,
            ),
            ("usr/local/bin/edge-agent", 0o755),
        ],
        Init::Openrc => vec![
            ("etc/init.d/edge-agent", 0o755),
            ("etc/runlevels/default/edge-agent", 0o777),
            ("usr/local/bin/edge-agent", 0o755),
        ],
        Init::Procd => vec![
            ("etc/init.d/edge-agent", 0o755),
            ("etc/rc.d/K10edge-agent", 0o777),
            ("etc/rc.d/S95edge-agent", 0o777),
            ("lib/upgrade/keep.d/edge-agent", 0o644),
            ("usr/bin/edge-agent", 0o755),
        ],
    };
    for init in [Init::Systemd, Init::Openrc, Init::Procd] {
        let root = tempfile::tempdir().unwrap();
        let asked = into(root.path(), Some(init));
        let wanted = of(init).into_iter();
        let wanted: BTreeMap<PathBuf, u32> =
            wanted.map(|(path, mode)| (path.into(), mode)).collect();

        let shown = install(&asked, true);
        assert_eq!(
            tree(root.path()),
            BTreeMap::new(),
            "a dry run writes nothing"
        );
        assert!(
            shown.lines().any(|line| line.contains("--keepalive 45s")),
            "{shown}"
        );

        let said = install(&asked, false);
        assert_eq!(said.lines().count(), wanted.len(), "{said}");
        assert_eq!(tree(root.path()), wanted);
        let again = install(&asked, false);
        assert!(
            again.starts_with("unchanged: the service of edge-agent is installed in "),
            "a second run changes nothing, and says so: {again}"
        );

        let state = root.path().join("var/lib/edge-agent");
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("identity.key"), "key").unwrap();
        assert!(uninstall(&asked, false).contains("--purge"));
        assert_eq!(tree(root.path()).len(), 1, "the key stays");
        let said = uninstall(&asked, true);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(tree(root.path()), BTreeMap::new());
        let said = uninstall(&asked, true);
        assert!(
            said.starts_with("nothing to remove: no service of edge-agent is installed in "),
            "{said}"
        );
    }
}

/// Applies the list by the shell, as the firmware's script does: `find $(cat LISTS)`.
#[test]
fn firmware_upgrade_of_openwrt_keeps_all_that_is_installed() {
    for state in ["/etc/edge-agent", "/mnt/my data/a*b [1]"] {
        let root = tempfile::tempdir().unwrap();
        let asked = Install {
            state: state.into(),
            ..into(root.path(), Some(Init::Procd))
        };
        install(&asked, false);
        let folder = root.path().join(state.strip_prefix('/').unwrap());
        fs::create_dir_all(folder.join("spool")).unwrap();
        fs::write(folder.join("identity.key"), "key").unwrap();
        fs::write(folder.join("spool/1"), "recording").unwrap();
        // Not ours.
        fs::write(root.path().join("etc/passwd"), "").unwrap();
        let find = "cd \"$0\" && find $(sed 's/^/./;/^.#/d;/^.$/d' lib/upgrade/keep.d/*) \\( -type f -o -type l \\) 2>/dev/null";
        let found = Command::new("sh")
            .args(["-c", find])
            .arg(root.path())
            .output();
        let found = String::from_utf8(found.unwrap().stdout).unwrap();
        let kept: std::collections::BTreeSet<PathBuf> = found
            .lines()
            .map(|line| line.strip_prefix("./").unwrap().into())
            .collect();
        let mut wanted = tree(root.path());
        wanted.remove(Path::new("etc/passwd"));
        assert_eq!(kept, wanted.into_keys().collect(), "{state}");
    }
}

#[test]
fn no_runlevel_keeps_what_is_uninstalled() {
    let root = tempfile::tempdir().unwrap();
    let asked = into(root.path(), Some(Init::Openrc));
    install(&asked, false);
    let boot = root.path().join("etc/runlevels/boot");
    fs::create_dir_all(&boot).unwrap();
    symlink("/etc/init.d/edge-agent", boot.join("edge-agent")).unwrap();
    symlink("/etc/init.d/other", boot.join("other")).unwrap();
    uninstall(&asked, false);
    let left: Vec<PathBuf> = tree(root.path()).into_keys().collect();
    assert_eq!(left, [Path::new("etc/runlevels/boot/other")]);
}

#[test]
fn what_was_changed_by_hand_is_put_right() {
    let root = tempfile::tempdir().unwrap();
    let asked = into(root.path(), Some(Init::Systemd));
    install(&asked, false);
    let unit = root.path().join("etc/systemd/system/edge-agent.service");
    let program = root.path().join("usr/local/bin/edge-agent");
    fs::write(&unit, "[Service]\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o600)).unwrap();
    let said = install(&asked, false);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(fs::read_to_string(&unit).unwrap().contains("Type=notify"));
    assert_eq!(
        fs::metadata(&program).unwrap().permissions().mode() & 0o777,
        0o755
    );
}

#[test]
fn the_init_of_an_image_is_found() {
    for (file, init) in [
        (
            "usr/lib/systemd/systemd",
            "etc/systemd/system/edge-agent.service",
        ),
        ("sbin/procd", "etc/rc.d/S95edge-agent"),
        ("sbin/openrc-run", "etc/runlevels/default/edge-agent"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let asked = into(root.path(), None);
        let error = asked.install(false, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("--init"), "{error}");

        let found = root.path().join(file);
        fs::create_dir_all(found.parent().unwrap()).unwrap();
        fs::write(found, "").unwrap();
        install(&asked, false);
        assert!(tree(root.path()).contains_key(Path::new(init)), "{file}");
    }
}

#[test]
fn another_program_can_be_installed_than_the_one_that_runs() {
    let root = tempfile::tempdir().unwrap();
    let built = root.path().join("built");
    fs::write(&built, "for another processor").unwrap();
    let asked = Install {
        program: Some(built),
        ..into(root.path(), Some(Init::Procd))
    };
    install(&asked, false);
    let installed = fs::read_to_string(root.path().join("usr/bin/edge-agent"));
    assert_eq!(installed.unwrap(), "for another processor");
}

#[test]
fn only_an_agents_state_is_purged() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("home/pi");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("diary"), "dear").unwrap();
    for state in ["/home/pi", "/home", "/"] {
        let asked = Install {
            state: state.into(),
            ..into(root.path(), Some(Init::Systemd))
        };
        let error = asked.uninstall(true, false, &mut Vec::new()).unwrap_err();
        assert!(
            error.to_string().contains("is not an agent's state folder"),
            "{error}"
        );
        assert!(home.join("diary").exists(), "{state}");
    }
}

#[test]
fn a_state_folder_has_one_meaning_wherever_the_service_starts() {
    let root = tempfile::tempdir().unwrap();
    let asked = Install {
        state: "state".into(),
        ..into(root.path(), Some(Init::Systemd))
    };
    let error = asked.install(true, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("begins with /"), "{error}");
}
