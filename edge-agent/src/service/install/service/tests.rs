use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const ODD: [&str; 4] = ["window 02:00-05:00", "a\"b\\c", "100%$HOME`id`", "it's"];

fn odd(init: Init) -> Service {
    let run: Vec<String> = ODD.map(str::to_owned).into();
    Service::new(init, Path::new("/mnt/my data"), &run)
}

#[test]
fn systemd_is_given_each_argument_whole() {
    let unit = odd(Init::Systemd).unit();
    let exec = unit.lines().find(|line| line.starts_with("ExecStart="));
    assert_eq!(
        exec,
        Some(
            "ExecStart=/usr/local/bin/edge-agent run --state \"/mnt/my data\" \
             \"window 02:00-05:00\" \"a\\\"b\\\\c\" \"100%%$$HOME`id`\" \"it's\""
        )
    );
    assert!(unit.contains("ConditionPathExists=/mnt/my data/membership\n"));
    let guard = "/usr/local/bin/edge-agent.previous internal-guard --state \"/mnt/my data\"\n";
    assert!(unit.contains(guard), "{unit}");
}

/// Runs the script in a shell: the function that procd would call prints its words.
#[test]
fn a_shell_is_given_each_argument_whole() {
    let wanted = ["run", "--state", "/mnt/my data"];
    let wanted: Vec<&str> = wanted.into_iter().chain(ODD).collect();

    let procd = odd(Init::Procd).procd();
    let probe = "procd_open_instance() { :; }; procd_close_instance() { :; }
        procd_set_param() { [ $1 = command ] && shift 2 && printf '%s\\n' \"$@\"; :; }
        start_service";
    assert_eq!(shell(&format!("{procd}\n{probe}")), wanted);

    let openrc = odd(Init::Openrc).openrc();
    let probe = "eval \"set -- $command_args\"; printf '%s\\n' \"$@\"";
    assert_eq!(shell(&format!("{openrc}\n{probe}")), wanted);
}

/// Uses a previous program that only prints its arguments.
#[test]
fn the_program_before_is_asked_before_each_start_if_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("edge agent");
    let previous = folder.path().join("edge agent.previous");
    let asked = ["internal-guard", "--state", "/mnt/my data"];
    for is_there in [false, true] {
        if is_there {
            fs::write(&previous, "#!/bin/sh\nprintf '%s\\n' \"$@\"; exit 1\n").unwrap();
            fs::set_permissions(&previous, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let wanted: Vec<&str> = asked.into_iter().filter(|_| is_there).collect();
        for init in [Init::Openrc, Init::Procd] {
            let service = Service {
                program: program.clone(),
                ..odd(init)
            };
            let script = match init {
                Init::Openrc => format!("{}\nstart_pre || echo failed", service.openrc()),
                _ => format!(
                    "procd_open_instance() {{ exit 0; }}\n{}\nstart_service",
                    service.procd()
                ),
            };
            assert_eq!(shell(&script), wanted, "{init:?}");
        }
    }
}

#[test]
fn procd_is_not_asked_to_stop_what_it_does_not_know() {
    let service = Service::new(Init::Procd, Path::new("/etc/edge-agent"), &[]);
    let last = |changed, known| service.start(changed, known).pop().unwrap().pop().unwrap();
    assert_eq!(last(true, false), "start");
    assert_eq!(last(true, true), "restart");
    assert_eq!(last(false, true), "start");
}

#[test]
fn a_line_break_cannot_smuggle_in_a_setting() {
    for init in [Init::Systemd, Init::Openrc, Init::Procd] {
        let run = vec!["x\nExecStartPre=/bin/evil".to_owned()];
        let service = Service::new(init, Path::new("/var/lib/edge-agent"), &run);
        assert!(service.files().is_err());
    }
}

fn shell(script: &str) -> Vec<String> {
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}
