//! A device whose state does not outlast its next start.

use crate::harness::{Relay, agent_program, command, is_root, run};

/// A script that mounts an overlay at `$1/over`: its changes go to a tmpfs, or to the disk. It then runs the rest of
/// its line.
const MOUNT: &str = "set -e; d=$1; kind=$2; shift 2
mkdir -p $d/lower $d/upper $d/over
[ $kind = disk ] || mount -t tmpfs none $d/upper
mkdir -p $d/upper/up $d/upper/work
mount -t overlay overlay -o lowerdir=$d/lower,upperdir=$d/upper/up,workdir=$d/upper/work $d/over
exec \"$@\"";

#[test]
fn joining_with_a_state_folder_in_memory_warns() {
    if !is_root("it mounts") {
        return;
    }
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let join = |name: &str, wrapper: &[&str], state: &str| {
        let mut line = command("unshare");
        line.args(["--mount", "--propagation", "private"]);
        line.args(wrapper).arg(agent_program());
        run(line.args(["join", &relay.token(&[]), "--name", name, "--state", state])).ok()
    };
    let on_disk = join("disk", &[], &at("state"));
    assert!(!on_disk.err().contains("warning"), "{on_disk}");
    std::fs::create_dir(at("tmpfs")).unwrap();
    let tmpfs = "mount -t tmpfs none $0 && exec \"$@\"";
    join(
        "tmpfs",
        &["sh", "-c", tmpfs, &at("tmpfs")],
        &at("tmpfs/state"),
    )
    .says("is in memory: at its next start the device has lost its key");
    for kind in ["memory", "disk"] {
        let place = at(kind);
        let wrapper = ["sh", "-c", MOUNT, "sh", &place, kind];
        let name = format!("over-{kind}");
        let joined = join(&name, &wrapper, &format!("{place}/over/state"));
        let warned = "is on an overlay that keeps its changes in memory";
        assert_eq!(joined.err().contains(warned), kind == "memory", "{joined}");
    }
}
