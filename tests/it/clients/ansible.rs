//! Ansible: a playbook for a fleet, with and without pipelining, over connections that persist.

use std::fs;
use std::time::Duration;

use super::at_home;
use crate::harness::{Device, Relay, Running, is_root, needs_program, own_login};

/// `HOLDFAST_ANSIBLE_DEVICES=20` is the full size. Two cores take two minutes for them, which are
/// Ansible's own: six tasks of each device are as many programs of Python, here and there.
const DEVICES: usize = 4;

/// Without pipelining Ansible asks for a terminal, with it it must not.
const PLAYBOOK: &str = "
- hosts: fleet
  gather_facts: false
  tasks:
    - ping:
    - shell: echo ran >> ~/ran; tty || true
      register: shell
      failed_when: (shell.stdout == 'not a tty') != pipelined
    - copy: { src: file, dest: '{{ to }}', mode: '0640' }
";

#[test]
fn ansible_runs_a_playbook_on_a_fleet() {
    if !needs_program(
        "ansible-playbook",
        "ansible-core from PyPI; `cargo xtask test` brings it",
    ) || !is_root("homes of their own for the devices")
    {
        return;
    }
    let wanted = std::env::var("HOLDFAST_ANSIBLE_DEVICES").ok();
    let count = wanted.map_or(DEVICES, |text| text.parse().unwrap());
    let relay = Relay::start();
    let alice = relay.admin_user();
    let token = relay.token(&["--uses", &count.to_string()]);
    let mut devices: Vec<Device> = (1..=count)
        .map(|n| Device::new(&format!("cam-{n}")))
        .collect();
    for device in &mut devices {
        device.join(&token, &[]).ok();
        device.run();
    }
    for device in &devices {
        device.wait_online(&relay);
    }
    let hosts: String = devices
        .iter()
        .map(|device| format!("{}.fleet\n", device.name()))
        .collect();
    fs::write(alice.folder().join("hosts"), format!("[fleet]\n{hosts}")).unwrap();
    fs::write(alice.folder().join("play.yml"), PLAYBOOK).unwrap();
    fs::write(alice.folder().join("file"), "text of many\nlines").unwrap();
    // The direct way, with the folder for Ansible's files that is recommended for it.
    let inventory = relay.admin(&["ssh-config", "--for", "ansible"]).ok().out();
    let words = inventory.split_whitespace();
    let mut folder = words.filter(|word| word.starts_with("ansible_remote_tmp="));
    let folder = folder.next_back().unwrap_or_else(|| panic!("{inventory}"));
    let direct = format!(
        "[fleet]\ncam-1 ansible_host=relay ansible_user={}+cam-1 {folder}\n",
        own_login()
    );
    fs::write(alice.folder().join("direct"), direct).unwrap();
    // There `~` in a task's path leads nowhere, too.
    let whole = format!("{}/home/file", devices[0].folder().display());
    for (inventory, count, pipelining, to) in [
        ("hosts", count, "True", "~/file"),
        ("hosts", count, "False", "~/file"),
        ("direct", 1, "False", &whole),
    ] {
        let mut play = at_home(&alice, "ansible-playbook");
        let ssh = format!(
            "-F {} -o ControlMaster=auto -o ControlPersist=10s -o ControlPath={}/%C",
            alice.config().display(),
            alice.folder().display()
        );
        play.args(["-i", inventory, "-f", "4", "play.yml", "-e"])
            .arg(format!(
                "{{\"pipelined\": {}, \"to\": \"{to}\"}}",
                pipelining.to_lowercase()
            ))
            .env("ANSIBLE_PIPELINING", pipelining)
            .env("ANSIBLE_SSH_ARGS", ssh)
            .env("ANSIBLE_REMOTE_USER", own_login())
            .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3")
            .env("ANSIBLE_NOCOLOR", "1");
        let output = Running::start(&mut play)
            .wait(Duration::from_secs(200))
            .ok();
        let recap = output.out();
        assert_eq!(recap.matches("ok=3 ").count(), count, "{output}");
        assert!(
            !recap.contains("unreachable=1") && !recap.contains("failed=1"),
            "{output}"
        );
    }
    for device in &devices {
        let home = device.folder().join("home");
        let ran = fs::read_to_string(home.join("ran")).unwrap();
        let times = 2 + usize::from(device.name() == "cam-1");
        assert_eq!(ran.lines().count(), times, "{}", device.name());
        // In the account's own home, where no other account can make it first.
        assert!(home.join(".ansible/tmp").is_dir(), "{}", device.name());
        assert_eq!(fs::read(home.join("file")).unwrap(), b"text of many\nlines");
    }
}
