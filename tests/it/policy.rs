//! Roles decide over labels, logins, abilities and networks, on both ways, with the real `ssh`.

use std::fs;

use serde_json::Value;

use crate::harness::{
    Accounts, Device, Output, Relay, Running, SOON, Site, User, Way, own_login, run, run_with_input,
};

/// Applies a document by the relay's own command.
#[track_caller]
fn apply(relay: &Relay, text: &str) -> Output {
    run_with_input(&mut relay.command(&["apply", "-f", "-"]), text.as_bytes()).ok()
}

/// Defines the role `tech` by an allow rule and more, and gives it to `bob`.
#[track_caller]
fn bob_with(relay: &Relay, allow: &str, more: &str) -> User {
    apply(
        relay,
        &format!("[roles.tech]\n{more}\n[roles.tech.allow]\n{allow}\n"),
    );
    relay.user("bob", &["tech"])
}

/// A shell without a terminal that gets its one line by stdin.
fn shell(user: &User, way: Way, login: &str, device: &str) -> Output {
    let mut ssh = user.ssh(way, login, device);
    run_with_input(ssh.arg("-T"), b"echo a shell\n")
}

/// Lists the root by sftp.
fn sftp(user: &User, way: Way, login: &str, device: &str) -> Output {
    let mut sftp = user.tool("sftp");
    sftp.args(["-b", "-"]).arg(way.destination(login, device));
    run_with_input(&mut sftp, b"ls /etc/hostname\n")
}

#[test]
fn each_ability_is_allowed_for_itself_on_both_ways() {
    let site = Site::new();
    let bob = site.relay.user("bob", &[]);
    let login = own_login();
    for allowed in ["shell", "exec", "sftp"] {
        let role = format!(
            "[roles.tech.allow]\nlabels = {{ '*' = '*' }}\nlogins = ['*']\nabilities = ['{allowed}']\n\
             [users.bob]\nroles = ['tech']\n"
        );
        apply(&site.relay, &role);
        for way in Way::BOTH {
            let exec = bob.exec(way, "kitchen-cam", "echo a command");
            let answers = [
                ("shell", "a shell", shell(&bob, way, &login, "kitchen-cam")),
                ("exec", "commands", exec),
                ("sftp", "sftp", sftp(&bob, way, &login, "kitchen-cam")),
            ];
            for (ability, noun, answer) in answers {
                if ability == allowed {
                    assert_eq!(answer.code(), 0, "{ability} {way:?}: {answer}");
                    continue;
                }
                assert_ne!(answer.code(), 0, "{ability} {way:?}: {answer}");
                answer.says(&format!(
                    "user \"bob\" may not use {noun} as {login} on kitchen-cam"
                ));
            }
        }
    }
}

#[test]
fn logins_are_those_of_the_rule_and_a_deny_rule_beats_it() {
    if !Accounts::are_possible() {
        return;
    }
    let accounts = Accounts::new()
        .add("hf-pi", 4001, "/bin/sh", "*")
        .add("bob", 4002, "/bin/sh", "*");
    let site = Site::with(accounts.device("kitchen-cam"));
    let allow = "labels = { '*' = '*' }\nabilities = ['exec']\n";
    let bob = bob_with(&site.relay, &format!("{allow}logins = ['{{user}}']"), "");
    let connect = |way, login: &str| run(bob.ssh(way, login, "kitchen-cam").arg("id -un"));
    for way in Way::BOTH {
        assert_eq!(connect(way, "bob").ok().out(), "bob\n", "{way:?}");
        for login in ["hf-pi", "root"] {
            connect(way, login).exits(255).says(&format!(
                "user \"bob\" may not use commands as {login} on kitchen-cam"
            ));
        }
    }
    let any = format!(
        "[roles.tech.allow]\n{allow}logins = ['*']\n[roles.no-root.deny]\nlogins = ['root']\n"
    );
    apply(
        &site.relay,
        &format!("{any}[users.bob]\nroles = ['tech', 'no-root']"),
    );
    for way in Way::BOTH {
        assert_eq!(connect(way, "hf-pi").ok().out(), "hf-pi\n", "{way:?}");
        connect(way, "root")
            .exits(255)
            .says("may not use commands as root");
    }
}

#[test]
fn a_device_that_one_may_not_see_is_as_one_that_there_is_not() {
    let site = Site::new();
    let _offline = Device::joined(&site.relay, "attic-node");
    let _revoked = Device::joined(&site.relay, "cellar-node");
    site.relay.admin(&["devices", "revoke", "cellar-node"]).ok();
    let label = |label: &str| {
        site.relay
            .admin(&["devices", "label", "kitchen-cam", label])
            .ok();
    };
    label("role=camera");
    let allow =
        "labels = { role = 'camera' }\nlogins = ['*']\nabilities = ['shell', 'exec', 'sftp']";
    let bob = bob_with(&site.relay, allow, "");
    for way in Way::BOTH {
        assert_eq!(bob.exec(way, "kitchen-cam", "echo in").ok().out(), "in\n");
    }
    label("role=door");
    for way in Way::BOTH {
        let absent = bob.exec(way, "no-such-node", "true").exits(255);
        absent_is_said(&absent, "no-such-node");
        for hidden in ["kitchen-cam", "attic-node", "cellar-node"] {
            let refused = bob.exec(way, hidden, "true").exits(255);
            assert_eq!(
                refused.err().replace(hidden, "no-such-node"),
                absent.err(),
                "{way:?} {hidden}"
            );
        }
    }
    let ask = |line: &str| run(bob.console().arg(line));
    let rows: Value = serde_json::from_slice(&ask("devices --json").ok().stdout).unwrap();
    assert_eq!(rows, Value::Array(vec![]));
    let hidden = ask("devices show kitchen-cam").exits(1);
    let absent = ask("devices show no-such-node").exits(1);
    assert_eq!(
        hidden.err().replace("kitchen-cam", "no-such-node"),
        absent.err()
    );
    // An auditor knows of all, and what is the matter with them, and gets into none.
    let carol = site.relay.user("carol", &["auditor"]);
    for way in Way::BOTH {
        let refused = carol.exec(way, "kitchen-cam", "true").exits(255);
        refused.says("user \"carol\" may not use commands");
        carol
            .exec(way, "attic-node", "true")
            .exits(255)
            .says("has not been online yet");
        carol
            .exec(way, "cellar-node", "true")
            .exits(255)
            .says("cellar-node was revoked");
    }
}

#[track_caller]
fn absent_is_said(output: &Output, device: &str) {
    let sentence = format!("no device \"{device}\" that you may reach");
    assert!(output.err().contains(&sentence), "{output}");
}

#[test]
fn a_role_counts_from_its_networks_alone() {
    let site = Site::new();
    let allow = "labels = { '*' = '*' }\nlogins = ['*']\nabilities = ['exec']";
    let bob = bob_with(&site.relay, allow, "source = ['127.77.0.0/16']");
    let config = fs::read_to_string(bob.config()).unwrap();
    let from = |address: &str| {
        let bind = config.replace(
            "Host relay\n",
            &format!("Host relay\n  BindAddress {address}\n"),
        );
        fs::write(bob.config(), bind).unwrap();
    };
    for way in Way::BOTH {
        from("127.77.1.2");
        assert_eq!(bob.exec(way, "kitchen-cam", "echo in").ok().out(), "in\n");
        from("127.78.1.2");
        let sentence = "no role of user \"bob\" may be used from 127.78.1.2";
        bob.exec(way, "kitchen-cam", "true")
            .exits(255)
            .says(sentence);
        // It does not depend on whether there is such a device.
        bob.exec(way, "no-such-node", "true")
            .exits(255)
            .says(sentence);
    }
    let refused = run(bob.console().arg("devices")).exits(1);
    refused.says("no role of user \"bob\" may be used from 127.78.1.2");
    let whoami = run(bob.console().arg("whoami")).ok();
    assert!(
        whoami.out().contains("tech (without effect from here)"),
        "{whoami}"
    );
}

#[test]
fn a_changed_role_holds_for_the_next_session_of_a_connection() {
    let site = Site::new();
    let allow = |ability: &str| {
        format!("labels = {{ '*' = '*' }}\nlogins = ['*']\nabilities = ['{ability}']")
    };
    let bob = bob_with(&site.relay, &allow("exec"), "");
    let socket = bob.folder().join("master");
    let mut master = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    master.arg("-MS").arg(&socket).arg("echo started; cat");
    let master = Running::start(&mut master);
    master.wait_out("started");
    let again = || {
        let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
        run(ssh
            .arg("-S")
            .arg(&socket)
            .args(["-o", "ControlMaster=no", "echo again"]))
    };
    assert_eq!(again().ok().out(), "again\n");
    apply(
        &site.relay,
        &format!("[roles.tech.allow]\n{}", allow("shell")),
    );
    let refused = again();
    assert_ne!(refused.code(), 0, "{refused}");
    assert!(!refused.out().contains("again"), "{refused}");
    // What takes the role away ends what runs.
    site.relay
        .admin(&["user", "role", "rm", "bob", "tech"])
        .ok();
    let ended = master.wait(SOON);
    assert_ne!(ended.code(), 0, "{ended}");
    assert!(ended.err().contains("access"), "{ended}");
    bob.exec(Way::Direct, "kitchen-cam", "true").exits(255);
}

const TEAM: &str = "[roles.team]\nidle_timeout = \"30m\"\n\n[roles.team.limits]\nmax_sessions = 5\n\n\
    [roles.team.allow]\nlabels = { \"*\" = \"*\" }\nlogins = [\"pi\", \"{user}\"]\nabilities = [\"shell\", \"exec\"]\n";

#[test]
fn policy_is_applied_and_exported_in_cli_and_console() {
    let site = Site::new();
    let console =
        |line: &str, input: &str| run_with_input(site.alice.console().arg(line), input.as_bytes());
    let planned = console("apply -f - --dry-run", TEAM).ok();
    assert_eq!(planned.out(), "+ role team\ndry run: nothing was changed\n");
    assert_eq!(console("get roles -o toml", "").ok().out(), "");
    assert_eq!(console("apply -f -", TEAM).ok().out(), "+ role team\n");
    assert_eq!(console("get roles -o toml", "").ok().out(), TEAM);
    let file = site.relay.folder().join("team.toml");
    fs::write(&file, TEAM).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        site.relay.admin(&["apply", "-f", file]).ok().out(),
        "unchanged\n"
    );
    let users = site.relay.admin(&["get", "users", "-o", "toml"]).ok().out();
    assert_eq!(console("apply -f -", &users).ok().out(), "unchanged\n");

    let bad = console("apply -f -", &TEAM.replace("idle_timeout", "idle_timeuot")).exits(1);
    assert!(
        bad.err()
            .starts_with("stdin: line 2: unknown field `idle_timeuot`, expected one of"),
        "{bad}"
    );
    console(&format!("apply -f {file}"), "")
        .exits(2)
        .says("over ssh, the file comes by stdin");
    let alone = console("apply -f - --prune", "[users.bob]\n").exits(1);
    alone.says("no user could administer the relay over ssh any more");
    let roles = run(site.alice.console().arg("get roles")).ok().out();
    assert!(roles.contains("team      own"), "{roles}");
    site.relay.admin(&["doctor"]).ok();
}

#[test]
fn the_console_asks_of_everybody_who_may() {
    let site = Site::new();
    let relay = &site.relay;
    let user = |name: &str, roles: &[&str]| relay.user(name, roles);
    let users = [
        ("admin", user("root", &["admin"])),
        ("operator", user("bob", &["operator"])),
        ("auditor", user("carol", &["auditor"])),
        ("none", user("dave", &[])),
        ("disabled", user("erin", &["admin"])),
        ("removed", user("frank", &["admin"])),
    ];
    relay.admin(&["user", "disable", "erin"]).ok();
    relay.admin(&["user", "rm", "frank"]).ok();
    let table: [(&str, &[&str]); 8] = [
        ("whoami", &["admin", "operator", "auditor", "none"]),
        ("devices --json", &["admin", "operator", "auditor"]),
        ("ssh-config", &["admin", "operator", "auditor"]),
        ("get roles -o toml", &["admin", "auditor"]),
        ("user ls", &["admin", "auditor"]),
        ("token create", &["admin"]),
        ("devices label kitchen-cam a=b", &["admin"]),
        ("user disable dave", &["admin"]),
    ];
    // The admin last: what the others may not do is not done yet.
    for (who, user) in users.iter().rev() {
        let outside = matches!(*who, "disabled" | "removed");
        // Who does not log in does not try so often that their whole network is kept out.
        let lines = if outside { &table[..1] } else { &table[..] };
        for (line, allowed) in lines {
            let output = run(user.console().arg(line));
            let expected = match *who {
                _ if outside => 255,
                who if allowed.contains(&who) => 0,
                _ => 1,
            };
            assert_eq!(output.code(), expected, "{line} as {who}: {output}");
            if expected == 1 {
                assert_eq!(output.out(), "");
                output.says("may not run this command");
            }
        }
        if *who != "admin" {
            assert_eq!(
                relay.device("kitchen-cam").unwrap()["labels"].get("a"),
                None
            );
        }
    }
}

/// The device looks at the account's user id: another name for root does not get past a rule that denies root.
#[test]
fn another_name_for_root_is_root() {
    if !Accounts::are_possible() {
        return;
    }
    let relay = Relay::start();
    let accounts = Accounts::new()
        .add("toor", 0, "/bin/sh", "*")
        .add("tester", 4001, "/bin/sh", "*");
    let mut device = accounts.device("kitchen-cam");
    device.join(&relay.token(&[]), &[]).ok();
    device.run_online(&relay);
    let allow = "labels = { '*' = '*' }\nlogins = ['*']\nabilities = ['exec', 'forward']";
    let bob = bob_with(&relay, allow, "deny = { logins = ['root'] }");
    let run_as = |login: &str| {
        let mut ssh = bob.ssh(Way::Direct, login, "kitchen-cam");
        run(ssh.args(["--", "id -u"]))
    };
    assert_eq!(run_as("tester").ok().out(), "4001\n");
    run_as("toor")
        .exits(255)
        .says("account \"toor\" on kitchen-cam has the user id of \"root\", which your roles deny");
    // Where nothing denies root, the name is an account as any other.
    apply(
        &relay,
        &format!("[roles.tech]\n[roles.tech.allow]\n{allow}\n"),
    );
    assert_eq!(run_as("toor").ok().out(), "0\n");
    // A rule that denies root from now on ends it under every name, and so does a lock.
    let start = |login: &str| {
        let mut ssh = bob.ssh(Way::Direct, login, "kitchen-cam");
        let session = Running::start(ssh.args(["--", "echo started; cat"]));
        session.wait_out("started");
        session
    };
    let (toor, mut tester) = (start("toor"), start("tester"));
    apply(
        &relay,
        &format!(
            "[roles.tech]\n[roles.tech.allow]\n{allow}\n[roles.tech.deny]\nlogins = ['root']\n"
        ),
    );
    let ended = toor.wait(SOON).exits(255);
    ended.says("[holdfast] closed: your access to this relay was changed");
    assert!(tester.is_alive());
    apply(
        &relay,
        &format!("[roles.tech]\n[roles.tech.allow]\n{allow}\n"),
    );
    let toor = start("toor");
    relay.admin(&["lock", "login", "root"]).ok();
    toor.wait(SOON)
        .exits(255)
        .says("[holdfast] closed: locked by the relay's administrator");
    // The device refuses what is locked by the account's other name, before anything runs.
    let trace = device.folder().join("trace");
    for way in Way::BOTH {
        let mut ssh = bob.ssh(way, "toor", "kitchen-cam");
        let late = run(ssh.arg(format!("echo in; touch {}", trace.display()))).exits(255);
        let late = late.says(
            "account \"toor\" on kitchen-cam has the user id of \"root\": account root is locked (lock ",
        );
        assert_eq!(late.out(), "", "{way:?}");
        assert!(!trace.exists(), "{way:?}");
    }
    assert!(tester.is_alive());
}
