//! Sessions have the right account, folder and environment.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use edge_agent::session::SessionConfig;
use edge_agent::session::launch::TaskLimit;
use holdfast_protocol::ids::Login;
use holdfast_protocol::wire::{
    Exit, Open, ProcessRequest, SFTP, SessionRefusal, SessionTerms, SftpTerms,
};
use keyutils_raw::{add_key, keyctl_join_session_keyring};

use crate::harness::device::{Device, IS_ROOT, TESTER};
use crate::harness::{Outcome, Pair, exec, open, run, with_pty};

fn with_login(login: &str, open: Open) -> Open {
    Open {
        login: Login::new(login).unwrap(),
        ..open
    }
}

async fn exec_as(pair: &Pair, login: &str, command: &str) -> Outcome {
    pair.to_end(with_login(login, exec(command))).await
}

/// The signals of a mask in `/proc/self/status`, without those above 31, which glibc keeps to itself.
fn signals(line: &str) -> u64 {
    let mask = line.split_whitespace().last().unwrap();
    u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff
}

#[test]
fn the_account_has_its_groups_its_home_and_its_umask() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let pair = Pair::new().await;
        let command = "id -u; id -g; id -G; pwd; umask; grep Sig[IB] /proc/self/status; \
            ps -o sid=,pgid=,pid= -p $$ | tr -s ' '; ls -l /proc/self/fd | wc -l";
        let outcome = exec_as(&pair, "tester", command).await;
        let lines: Vec<_> = outcome.stdout().lines().collect();
        let home = pair.device.path("tester");
        let [uid, gid, groups, pwd, umask, blocked, ignored, ids, fds] = lines.as_slice() else {
            panic!("{outcome:?}");
        };
        assert_eq!(
            [*uid, *gid, *groups],
            ["47110", "47111", "47111 47129 47144"]
        );
        assert_eq!(*pwd, home.to_str().unwrap());
        assert_eq!(*umask, "0022");
        assert_eq!((signals(blocked), signals(ignored)), (0, 0));
        let ids: Vec<_> = ids.split_whitespace().collect();
        assert!(
            ids[0] == ids[1] && ids[1] == ids[2],
            "leads its session and group: {ids:?}"
        );
        // "total", 0, 1, 2, and the folder that ls itself has open.
        assert_eq!(*fds, "5", "nothing else is inherited");
    });
}

#[test]
fn signals_that_the_agent_ignores_are_not_ignored_by_the_shell() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let device = Device::new();
        device.runs_with("env --ignore-signal=HUP,INT,QUIT,USR1");
        let pair = Pair::with(device, |_| {}).await;
        let outcome = pair.exec("grep SigIgn /proc/self/status").await;
        assert_eq!(signals(outcome.stdout()), 0);
    });
}

#[test]
fn a_shell_is_a_login_shell_of_the_account() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let pair = Pair::new().await;
        let mut client = pair
            .open(with_pty(with_login("root", open(ProcessRequest::Shell))))
            .await;
        client
            .write(b"echo $0 $HOME; stat -c '%u %g %a' $SSH_TTY; exit 4\n")
            .await;
        let outcome = client.outcome().await;
        let home = pair.device.path("root");
        assert!(
            outcome
                .stdout()
                .contains(&format!("-sh {}", home.display())),
            "{outcome:?}"
        );
        assert!(outcome.stdout().contains("0 5 620"), "{outcome:?}");
        assert_eq!(outcome.exit, Some(Exit::Status(4)));
        let outcome = pair
            .to_end(with_pty(exec("stat -c '%u %g %a' $SSH_TTY")))
            .await;
        assert_eq!(outcome.stdout(), "47110 5 620\n");
    });
}

#[test]
fn the_environment_is_fresh_and_the_client_adds_what_is_allowed() {
    run(async {
        let pair = Pair::with(Device::new(), |config| {
            config.accept_env.push("MY_*".to_owned())
        })
        .await;
        let client = [
            ("LANG", "C.UTF-8"),
            ("MY_WORD", "a b"),
            ("OTHER", "x"),
            ("LD_PRELOAD", "/x.so"),
            ("PATH", "/x"),
        ];
        let env = client
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        let outcome = pair.to_end(Open { env, ..exec("env") }).await;
        let names = |line: &str| {
            line.split_once('=')
                .map(|(name, _)| name.to_owned())
                .unwrap()
        };
        let mut have: Vec<_> = outcome.stdout().lines().map(names).collect();
        // What shells set by themselves, and the agent's own time zone, may be there or not.
        have.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD", "TZ"].contains(&name.as_str()));
        have.sort();
        let wanted = [
            "HOME",
            "LANG",
            "LOGNAME",
            "MAIL",
            "MY_WORD",
            "PATH",
            "SHELL",
            "SSH_CLIENT",
            "SSH_CONNECTION",
            "USER",
        ];
        assert_eq!(have, wanted);
        let has = |line: &str| outcome.stdout().lines().any(|have| have == line);
        assert!(
            has("SSH_CONNECTION=203.0.113.9 50000 192.0.2.1 2222"),
            "{outcome:?}"
        );
        assert!(has("MY_WORD=a b"), "{outcome:?}");
        assert!(!has("PATH=/x"), "{outcome:?}");
    });
}

#[test]
fn account_without_home_starts_at_the_root_with_a_notice() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let pair = Pair::new().await;
        let outcome = exec_as(&pair, "homeless", "pwd").await;
        assert_eq!(outcome.stdout(), "/\n");
        let notice = "Could not chdir to home directory /no/such/home: No such file or directory (os error 2)\n";
        assert_eq!(outcome.stderr(), notice);
        let outcome = exec_as(&pair, "shell-less", "echo $SHELL").await;
        assert_eq!(outcome.stdout(), "/bin/sh\n");
    });
}

#[test]
fn refused_login_gets_the_reason() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let pair = Pair::new().await;
        for (login, refusal) in [
            ("stranger", SessionRefusal::NoAccount),
            ("locked", SessionRefusal::AccountLocked),
            ("nologin", SessionRefusal::NoShell),
        ] {
            let wanted = Outcome {
                refused: Some(refusal),
                ..Outcome::default()
            };
            assert_eq!(exec_as(&pair, login, "id").await, wanted, "{login}");
        }
        let broken = exec_as(&pair, "broken", "id").await;
        let text = "the account's shell /no/such/shell can't be run: No such file or directory (os error 2)";
        assert_eq!(
            broken.refused,
            Some(SessionRefusal::Failed(text.to_owned()))
        );
        pair.live(0).await;
    });
}

#[test]
fn a_notice_keeps_everybody_out_but_root() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let device = Device::new();
        device.write("run/nologin", "System is going down.\n");
        let pair = Pair::with(device, |_| {}).await;
        let text = "System is going down.".to_owned();
        assert_eq!(
            pair.exec("id").await.refused,
            Some(SessionRefusal::NoLogin(text))
        );
        assert_eq!(exec_as(&pair, "root", "id -u").await.stdout(), "0\n");
    });
}

#[test]
fn an_agent_that_is_not_root_serves_its_own_account() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let device = Device::new();
        device.runs_with(&format!(
            "setpriv --reuid {TESTER} --regid 47111 --clear-groups"
        ));
        let pair = Pair::with(device, |_| {}).await;
        let own = SessionRefusal::OnlyServes(Login::new("tester").unwrap());
        assert_eq!(exec_as(&pair, "root", "id").await.refused, Some(own));
        let outcome = pair.to_end(with_pty(exec("id -u; tty"))).await;
        assert!(
            outcome.stdout().starts_with("47110\n/dev/pts/"),
            "{outcome:?}"
        );
    });
}

#[test]
fn a_command_shows_in_no_arguments_before_the_shell_has_it() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let device = Device::new();
        let log = device.path("tester/arguments");
        device.runs_with("sh -c 'tr \"\\\\0\" \" \" < /proc/$$/cmdline > FOLDER/tester/arguments; exec \"$@\"' sh".replace('\'', "'\\''").as_str());
        let pair = Pair::with(device, |_| {}).await;
        assert_eq!(pair.exec("echo secret").await.stdout(), "secret\n");
        let arguments = fs::read_to_string(&log).unwrap();
        assert!(
            arguments.contains("internal-launch") && !arguments.contains("secret"),
            "{arguments}"
        );
        assert_eq!(fs::metadata(&log).unwrap().uid(), 0);
    });
}

#[test]
fn as_many_sessions_as_the_config_says_run_at_once() {
    run(async {
        let pair = Pair::with(Device::new(), |config| config.max_sessions = 2).await;
        let mut first = pair.open(exec("cat")).await;
        let mut second = pair.open(exec("cat")).await;
        first.write(b"1").await;
        first.until("1").await;
        second.write(b"2").await;
        second.until("2").await;
        assert_eq!(
            pair.exec("true").await.refused,
            Some(SessionRefusal::TooManySessions(2))
        );
        first
            .say(holdfast_protocol::codec::frame::SessionMessage::Eof)
            .await;
        first.outcome().await;
        pair.live(1).await;
        assert_eq!(pair.exec("true").await.exit, Some(Exit::Status(0)));
    });
}

/// A holder of a keyring may read what is in it: the agent's is no account's, and two accounts share none.
#[test]
fn each_session_has_a_keyring_of_its_own() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let keyring = keyctl_join_session_keyring(None).unwrap();
        let name = format!("holdfast-test-{}", std::process::id());
        add_key("user", &name, b"a secret of root", keyring).unwrap();
        let pair = Pair::new().await;
        // What a reader does not hold, and does not own, is not shown to it.
        let tester = exec_as(&pair, "tester", "cat /proc/keys").await;
        assert!(!tester.stdout().contains(&name), "{tester:?}");
        let session_keyrings = |outcome: &Outcome, uid: &str| {
            let keys = outcome.stdout().lines();
            let fields = keys.map(|line| line.split_whitespace().collect::<Vec<_>>());
            let own =
                fields.filter(|fields| fields.get(5) == Some(&uid) && fields.contains(&"_ses:"));
            own.count()
        };
        assert_ne!(session_keyrings(&tester, "47110"), 0, "{tester:?}");
        let other = exec_as(&pair, "shell-less", "cat /proc/keys").await;
        assert_ne!(session_keyrings(&other, "47113"), 0, "{other:?}");
        assert_eq!(session_keyrings(&other, "47110"), 0, "{other:?}");
    });
}

/// Returns a command that runs another with that timer slack, in nanoseconds.
fn timer_slack(device: &Device, nanoseconds: &str) -> String {
    let script = format!("#!/bin/sh\necho {nanoseconds} > /proc/$$/timerslack_ns\nexec \"$@\"\n");
    device.write("slack", &script);
    let path = device.path("slack");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// An agent whose service gives it more than an account has.
#[test]
fn what_the_agent_is_privileged_with_is_no_accounts() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let device = Device::new();
        // Not every machine that runs this allows all of it.
        let possible = |wrapper: &&str| {
            let mut words = wrapper.split(' ').chain(["true"]);
            let ran = Command::new(words.next().unwrap()).args(words).output();
            let is_possible = ran.is_ok_and(|ran| ran.status.success());
            if !is_possible {
                println!("not tried, because it is not allowed here: {wrapper}");
            }
            is_possible
        };
        let wrappers = [
            "choom -n -500 --",
            "nice -n -5",
            "chrt -r 1",
            "prlimit --nofile=4096:8192",
            "prlimit --rtprio=10 --nice=30",
            "setarch -R",
            "setpriv --inh-caps +net_admin --ambient-caps +net_admin --securebits +no_setuid_fixup",
        ];
        let wrappers: Vec<&str> = wrappers.into_iter().filter(possible).collect();
        let precise = timer_slack(&device, "1000");
        device.runs_with(&format!("{precise} {}", wrappers.join(" ")));
        let pair = Pair::with(device, |_| {}).await;
        let command = "grep ^Cap /proc/self/status | tr -d '\\t'; cat /proc/self/oom_score_adj; \
            ps -o cls=,ni= -p $$ | tr -s ' '; ulimit -Sn; ulimit -Hn; cat /proc/self/personality; \
            cat /proc/self/timerslack_ns; grep -E 'nice|realtime priority' /proc/self/limits | tr -s ' '";
        for login in ["tester", "root"] {
            let outcome = exec_as(&pair, login, command).await;
            let lines: Vec<_> = outcome.stdout().lines().map(str::trim).collect();
            let [
                inherited,
                permitted,
                effective,
                _bounding,
                ambient,
                rest @ ..,
            ] = lines.as_slice()
            else {
                panic!("{outcome:?}");
            };
            let none = "0000000000000000";
            assert_eq!(*inherited, format!("CapInh:{none}"), "{login}");
            assert_eq!(*ambient, format!("CapAmb:{none}"), "{login}");
            let has_none = [permitted, effective]
                .iter()
                .all(|line| line.ends_with(none));
            assert_eq!(has_none, login == "tester", "{outcome:?}");
            let [oom, rest @ ..] = rest else {
                panic!("{outcome:?}");
            };
            assert!(!oom.starts_with('-'), "{outcome:?}");
            let expected = [
                "TS 0",
                "1024",
                "8192",
                "00000000",
                "50000",
                "Max nice priority 0 0",
                "Max realtime priority 0 0",
            ];
            assert_eq!(rest, expected, "{login}");
        }
    });
}

/// With the real-time class, one account could keep all others from the disk.
#[test]
fn an_io_priority_above_the_usual_is_no_accounts() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        for (agents, sessions) in [
            ("-c 1 -n 0", "none: prio 0"),
            ("-c 2 -n 0", "none: prio 0"),
            ("-c 2 -n 6", "best-effort: prio 6"),
            ("-c 3", "idle"),
        ] {
            let mut ionice = Command::new("ionice");
            let ran = ionice.args(agents.split(' ')).arg("true").output();
            if !ran.is_ok_and(|ran| ran.status.success()) {
                println!("not tried, because it is not allowed here: ionice {agents}");
                continue;
            }
            let device = Device::new();
            device.runs_with(&format!("ionice {agents}"));
            let pair = Pair::with(device, |_| {}).await;
            for login in ["tester", "root"] {
                let outcome = exec_as(&pair, login, "ionice").await;
                assert_eq!(outcome.stdout().trim(), sessions, "{login}, {agents}");
            }
        }
    });
}

/// A right that the service manager takes away is not given back.
#[test]
fn what_the_agent_is_restricted_by_stays() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let device = Device::new();
        let imprecise = timer_slack(&device, "70000");
        let rest =
            "choom -n 300 -- nice -n 5 prlimit --nofile=512:600 --core=0:0 setpriv --no-new-privs";
        device.runs_with(&format!("{imprecise} {rest}"));
        let pair = Pair::with(device, |_| {}).await;
        let command = "cat /proc/self/oom_score_adj; ps -o ni= -p $$ | tr -d ' '; ulimit -Sn; ulimit -Hn; \
            ulimit -Hc; cat /proc/self/timerslack_ns; grep NoNewPrivs /proc/self/status | tr -d '\\t'";
        for login in ["tester", "root"] {
            let outcome = exec_as(&pair, login, command).await;
            let expected = ["300", "5", "512", "600", "0", "70000", "NoNewPrivs:1"];
            let lines: Vec<_> = outcome.stdout().lines().collect();
            assert_eq!(lines, expected, "{login}");
        }
    });
}

/// A server under terms runs without the shell, so a shell that refuses everything must not be passed by.
#[test]
fn restricted_sftp_is_for_accounts_with_a_login_shell() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let pair = Pair::new().await;
        let sftp = |login: &str| {
            let terms = SessionTerms {
                sftp: Some(SftpTerms {
                    read_only: true,
                    root: None,
                }),
                ..SessionTerms::default()
            };
            let work = ProcessRequest::Subsystem(SFTP.to_owned());
            let open = Open {
                terms,
                ..open(work)
            };
            with_login(login, open)
        };
        let outcome = pair.to_end(sftp("tester")).await;
        assert_eq!(outcome.exit, Some(Exit::Status(0)), "{outcome:?}");
        let refused = pair.to_end(sftp("refusing")).await.refused;
        assert!(
            matches!(&refused, Some(SessionRefusal::Failed(why)) if why.contains("/refuse") && why.contains("/etc/shells")),
            "{refused:?}"
        );
    });
}

/// Processes for some seconds, until no more are to be had or there are 200.
const BOMB: &str =
    "i=0; while [ $i -lt 200 ]; do sleep 5 >/dev/null 2>&1 & i=$((i + 1)); done; echo unbounded";

#[test]
fn a_fork_bomb_leaves_room_for_roots_login() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let bound = |config: &mut SessionConfig| config.tasks = TaskLimit::Account(40);
        let pair = Pair::with(Device::new(), bound).await;
        let bomb = exec_as(&pair, "busy", BOMB).await;
        assert!(!bomb.stdout().contains("unbounded"), "{bomb:?}");
        assert!(bomb.stderr().contains("fork"), "{bomb:?}");
        let root = exec_as(&pair, "root", "echo in").await;
        assert_eq!(root.stdout(), "in\n");
    });
}

#[test]
fn a_session_has_a_cgroup_of_its_own() {
    run(async {
        let TaskLimit::Cgroup { folder, .. } = TaskLimit::detect() else {
            return println!("no cgroup v2 with the pids controller here: skipped");
        };
        let bound = |config: &mut SessionConfig| {
            config.tasks = TaskLimit::Cgroup {
                folder: folder.clone(),
                account: 60,
                session: 40,
            };
        };
        let pair = Pair::with(Device::new(), bound).await;
        let cgroup = exec_as(&pair, "tester", "grep ^0:: /proc/self/cgroup").await;
        assert!(
            cgroup.stdout().contains("/holdfast-uid-47110/"),
            "{cgroup:?}"
        );
        let bomb = exec_as(&pair, "busy", BOMB).await;
        assert!(!bomb.stdout().contains("unbounded"), "{bomb:?}");
        let other = exec_as(&pair, "tester", "echo in").await;
        assert_eq!(other.stdout(), "in\n");
    });
}
