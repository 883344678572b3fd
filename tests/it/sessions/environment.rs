//! The environment of a session.

use std::collections::BTreeMap;

use crate::harness::{Device, SOON, Site, Terminal, Way, own_login, run};

fn parse(env: &str) -> BTreeMap<String, String> {
    let pairs = env.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The environment of a command, where the client asks for these variables.
#[track_caller]
fn environment(site: &Site, way: Way, asked: &[&str]) -> BTreeMap<String, String> {
    let mut ssh = site.ssh(way);
    if !asked.is_empty() {
        ssh.arg("-o").arg(format!("SetEnv={}", asked.join(" ")));
    }
    parse(&run(ssh.arg("env")).ok().out())
}

#[test]
fn only_what_is_allowed_comes_from_the_client() {
    let device = Device::new("kitchen-cam").env("LEAKED", "from the agent");
    // The config may widen the list, but never to what chooses the code that runs.
    let accepted = ["GIT_*", "LD_*", "GLIBC_*"].map(|pattern| ["--accept-env", pattern]);
    let site = Site::with(device.flags(accepted.as_flattened()));
    let asked = [
        "LANG=de_DE.UTF-8",
        "LC_TIME=C",
        "GIT_AUTHOR_NAME=alice",
        "LD_PRELOAD=/tmp/evil.so",
        "LD_LIBRARY_PATH=/tmp",
        "PATH=/tmp/evil",
        "GLIBC_TUNABLES=glibc.malloc.check=1",
        "HOME=/tmp",
        "SSH_CONNECTION=forged",
        "EDITOR=vi",
    ];
    for way in Way::BOTH {
        let env = environment(&site, way, &asked);
        assert_eq!(env["LANG"], "de_DE.UTF-8", "{way:?}");
        assert_eq!(env["LC_TIME"], "C");
        assert_eq!(env["GIT_AUTHOR_NAME"], "alice", "by --accept-env");
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "GLIBC_TUNABLES",
            "EDITOR",
            "LEAKED",
            "SSH_TTY",
        ] {
            assert!(!env.contains_key(name), "{way:?}: {name} in {env:?}");
        }
        for (name, forged) in [
            ("PATH", "/tmp/evil"),
            ("HOME", "/tmp"),
            ("SSH_CONNECTION", "forged"),
        ] {
            assert_ne!(env[name], forged, "{way:?}");
        }
    }
}

#[test]
fn a_session_knows_whose_it_is_and_where_it_came_from() {
    let site = Site::new();
    let login = own_login();
    let entry = std::fs::read_to_string("/etc/passwd").unwrap();
    let entry = entry
        .lines()
        .find(|line| line.starts_with(&format!("{login}:")))
        .unwrap();
    let fields: Vec<&str> = entry.split(':').collect();
    let (home, shell) = (fields[5], fields[6]);
    for way in Way::BOTH {
        let env = environment(&site, way, &[]);
        assert_eq!((&*env["USER"], &*env["LOGNAME"]), (&*login, &*login));
        assert_eq!((&*env["HOME"], &*env["SHELL"]), (home, shell));
        assert_eq!(site.exec(way, "pwd").ok().out().trim(), home);
        // The operator's address as the relay saw it, and the relay's own.
        let words: Vec<&str> = env["SSH_CONNECTION"].split(' ').collect();
        let [client, client_port, server, server_port] = words[..] else {
            panic!("{words:?}")
        };
        assert_eq!(client, "127.0.0.1", "{way:?}");
        assert_eq!(server, site.relay.ssh().ip().to_string());
        assert_eq!(server_port, site.relay.ssh().port().to_string());
        let wanted = format!("{client} {client_port} {server_port}");
        assert_eq!(env["SSH_CLIENT"], wanted, "{way:?}");
    }
}

#[test]
fn a_terminal_is_named_and_typed() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        ssh.args(["-t", "echo $SSH_TTY is $(tty), $TERM; ls -ln $(tty)"]);
        let mut terminal = Terminal::start(&ssh, 80, 24);
        assert_eq!(terminal.wait(SOON).code(), Some(0));
        let shown = terminal.shown();
        let (named, rest) = shown.split_once(" is ").unwrap();
        assert!(named.starts_with("/dev/pts/"), "{shown}");
        assert!(
            rest.starts_with(&format!("{named}, xterm-256color")),
            "{shown}"
        );
        assert!(shown.contains("\r\ncrw-"), "{shown}");
    }
}

#[test]
fn nothing_of_the_agent_is_open_in_a_session() {
    let site = Site::new();
    for way in Way::BOTH {
        let output = site.exec(way, "ls /proc/self/fd").ok();
        // `ls` itself has the fourth; the caller of the tests may have left the agent many more.
        assert_eq!(output.out(), "0\n1\n2\n3\n", "{way:?}");
        let signals = site
            .exec(way, "grep -E '^Sig(Ign|Blk)' /proc/self/status")
            .ok();
        // Above the lowest 31 are the C library's own.
        let none = signals.out().lines().all(|line| {
            let mask = line.rsplit('\t').next().unwrap();
            u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff == 0
        });
        assert!(none, "{signals}");
    }
}
