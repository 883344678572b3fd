//! Under which account a session runs, and which accounts refuse every login.

use std::fs;

use crate::harness::{Accounts, Output, Relay, SOON, Site, Terminal, Way, run, run_with_input};

/// An account's password field that lets it in by key: no password is the right one.
const NO_PASSWORD: &str = "*";

fn accounts() -> Accounts {
    Accounts::new()
        .add("hf-pi", 4001, "/bin/sh", NO_PASSWORD)
        .group("hf-video", 4100, "hf-pi,hf-locked")
        .group("hf-other", 4101, "hf-locked")
}

#[track_caller]
fn exec(site: &Site, way: Way, login: &str, line: &str) -> Output {
    run(site.alice.ssh(way, login, site.device.name()).arg(line))
}

#[test]
fn a_session_is_the_accounts_in_every_way() {
    if !Accounts::are_possible() {
        return;
    }
    let site = Site::with(accounts().device("kitchen-cam"));
    let home = site.device.folder().join("homes/hf-pi");
    fs::write(home.join(".profile"), "echo profile read\nPS1=\n").unwrap();
    for way in Way::BOTH {
        let id = exec(&site, way, "hf-pi", "id -un; id -gn; id -Gn; id -u; id -G").ok();
        assert_eq!(
            id.out(),
            "hf-pi\nhf-pi\nhf-pi hf-video\n4001\n4001 4100\n",
            "{way:?}"
        );
        // Saved and effective numbers too: there is no way back.
        let status = exec(&site, way, "hf-pi", "grep -E '^[UG]id' /proc/self/status").ok();
        assert_eq!(
            status.out(),
            "Uid:\t4001\t4001\t4001\t4001\nGid:\t4001\t4001\t4001\t4001\n"
        );
        let line = "echo $HOME $SHELL $USER; pwd; umask; touch made && stat -c %U:%G made; cat /etc/shadow";
        let output = exec(&site, way, "hf-pi", line)
            .exits(1)
            .says("ermission denied");
        let home = home.display();
        let wanted = format!("{home} /bin/sh hf-pi\n{home}\n0022\nhf-pi:hf-pi\n");
        assert_eq!(output.out(), wanted, "{way:?}");
        // Its streams are its own: who opens one once more may.
        let line = "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin";
        let mut streams = site.alice.ssh(way, "hf-pi", site.device.name());
        let output = run_with_input(streams.arg(line), b"in\n").ok();
        assert_eq!(output.out(), "out\nin\n", "{way:?}");
        assert_eq!(output.err(), "err\n", "{way:?}");
        // A shell is a login shell: it reads the account's profile.
        let mut shell = site.alice.ssh(way, "hf-pi", site.device.name());
        let output = run_with_input(shell.arg("-T"), b"echo $0\n").ok();
        assert_eq!(output.out(), "profile read\n-sh\n", "{way:?}");
        let mut shell = site.alice.ssh(way, "hf-pi", site.device.name());
        shell.args(["-t", "stat -c %U:%a $(tty)"]);
        let mut terminal = Terminal::start(&shell, 80, 24);
        terminal.expect("hf-pi:620\r\n");
        terminal.wait(SOON);
    }
}

#[test]
fn an_account_that_is_not_there_or_refuses_logins_is_named() {
    if !Accounts::are_possible() {
        return;
    }
    let accounts = accounts()
        .add("hf-locked", 4002, "/bin/sh", "!$y$j9T$abc")
        .add("hf-nologin", 4003, "/usr/sbin/nologin", NO_PASSWORD)
        .add("hf-false", 4004, "/bin/false", NO_PASSWORD)
        .add("hf-expired", 4005, "/bin/sh", NO_PASSWORD)
        .expires("hf-expired", 15_000);
    let site = Site::with(accounts.device("kitchen-cam"));
    for way in Way::BOTH {
        let refused = |login: &str, sentence: &str| {
            let refused = exec(&site, way, login, "echo inside")
                .exits(255)
                .says(sentence);
            assert_eq!(refused.out(), "", "{way:?} {login}");
            let sftp = site.alice.ssh(way, login, site.device.name());
            let mut sftp = sftp;
            run(sftp.args(["-s", "sftp"])).exits(255).says(sentence);
        };
        refused("deploy", "kitchen-cam runs no account \"deploy\"");
        for login in ["hf-locked", "hf-expired"] {
            let sentence = format!("account \"{login}\" on kitchen-cam is locked or expired");
            refused(login, &sentence);
        }
        for login in ["hf-nologin", "hf-false"] {
            refused(
                login,
                &format!("account \"{login}\" on kitchen-cam allows no logins"),
            );
        }
        exec(&site, way, "hf-pi", "true").ok();
    }
}

#[test]
fn a_notice_keeps_out_all_but_root() {
    if !Accounts::are_possible() {
        return;
    }
    let accounts = accounts().nologin("down for repairs until noon\n");
    let site = Site::with(accounts.device("kitchen-cam"));
    for way in Way::BOTH {
        let refused = exec(&site, way, "hf-pi", "true").exits(255);
        refused
            .says("logins are disabled on kitchen-cam (/etc/nologin): down for repairs until noon");
        exec(&site, way, "root", "true").ok();
    }
}

#[test]
fn an_agent_that_is_not_root_serves_its_own_account_only() {
    if !Accounts::are_possible() {
        return;
    }
    let site = Site::with(accounts().agent_as(4001).device("kitchen-cam"));
    for way in Way::BOTH {
        let id = exec(&site, way, "hf-pi", "id -un; pwd").ok();
        let home = site.device.folder().join("homes/hf-pi");
        assert_eq!(id.out(), format!("hf-pi\n{}\n", home.display()), "{way:?}");
        for login in ["root", "deploy"] {
            let refused = exec(&site, way, login, "id").exits(255);
            let sentence = "agent on kitchen-cam is not root: it serves account \"hf-pi\" only";
            assert_eq!(refused.says(sentence).out(), "", "{way:?} {login}");
        }
        let mut shell = site.alice.ssh(way, "hf-pi", site.device.name());
        let mut terminal = Terminal::start(shell.args(["-t", "tty; echo $((6 * 7))"]), 80, 24);
        terminal.expect("42\r\n");
        assert_eq!(terminal.wait(SOON).code(), Some(0));
    }
}

/// Every operator would be the account that holds the device's key.
#[test]
fn an_agent_that_is_not_root_asks_for_consent() {
    if !Accounts::are_possible() {
        return;
    }
    let relay = Relay::start();
    let device = accounts().agent_as(4001).device("kitchen-cam");
    device.join(&relay.token(&[]), &[]).ok();
    let refused = run(&mut device.command(&["run"])).exits(1);
    refused
        .says("the agent is not root")
        .says("--allow-own-account");
}
