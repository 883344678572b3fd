//! The environment of a session: built fresh, with what the client sent only where a pattern allows it, and over it
//! what the device gives all its sessions.

mod file;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use holdfast_protocol::limits::{
    MAX_ENV, MAX_ENV_BYTES, MAX_ENV_NAME, MAX_ENV_VALUE, MAX_ORIGINAL_COMMAND, MAX_TERM,
};
use holdfast_protocol::wire::Open;

use crate::os::accounts::Account;
use crate::os::limits::MAX_ENV_PATTERNS;

pub(crate) use file::of_device;

/// The variables that a client may always set: how it wants to be spoken to.
pub(crate) const DEFAULT_PATTERNS: [&str; 4] = ["LANG", "LC_*", "COLORTERM", "NO_COLOR"];

/// The variables that no client may set, whatever the config says: they would choose the code that runs before the
/// account's shell has had a say, or speak for the agent itself.
const NEVER: [&str; 35] = [
    "LD_*",
    "DYLD_*",
    "_RLD*",
    "LIBPATH",
    "SHLIB_PATH",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "MALLOC_*",
    "NLSPATH",
    "LOCPATH",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "HOSTALIASES",
    "RESOLV_*",
    "PATH",
    "IFS",
    "ENV",
    "BASH_*",
    "SHELLOPTS",
    "BASHOPTS",
    "CDPATH",
    "GLOBIGNORE",
    "PS4",
    "PROMPT_COMMAND",
    "ZDOTDIR",
    "FPATH",
    "USER",
    "LOGNAME",
    "HOME",
    "SHELL",
    "MAIL",
    "TERM",
    "SSH_*",
    "TMPDIR",
];

/// The variables that the agent alone sets in a session: neither `/etc/environment` nor a file of the account sets
/// them.
const OURS: [&str; 8] = [
    "USER",
    "LOGNAME",
    "HOME",
    "SHELL",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SSH_ORIGINAL_COMMAND",
];

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the patterns of the config behind the default ones, bounded.
pub(crate) fn patterns(configured: &[String]) -> impl Iterator<Item = &str> {
    let defaults = DEFAULT_PATTERNS.into_iter();
    defaults.chain(configured.iter().take(MAX_ENV_PATTERNS).map(String::as_str))
}

/// The variables that a client asked for, sorted by what the device makes of them.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    /// The variables that the session gets.
    pub(crate) allowed: Vec<(String, String)>,
    /// The names of what it does not get.
    pub(crate) refused: Vec<String>,
}

/// Takes out the variables that no pattern allows, and what is over a bound of the protocol.
pub(crate) fn filter(env: Vec<(String, String)>, configured: &[String]) -> Filtered {
    let (mut filtered, mut bytes) = (Filtered::default(), 0);
    for (name, value) in env {
        let fits = name.len() <= MAX_ENV_NAME
            && value.len() <= MAX_ENV_VALUE
            && bytes + name.len() + value.len() <= MAX_ENV_BYTES
            && filtered.allowed.len() < MAX_ENV;
        let allowed = fits
            && is_name(&name)
            && !value.contains('\0')
            && !NEVER.iter().any(|pattern| matches(pattern, &name))
            && patterns(configured).any(|pattern| matches(pattern, &name));
        if allowed {
            bytes += name.len() + value.len();
            filtered.allowed.push((name, value));
        } else {
            filtered.refused.push(name);
        }
    }
    filtered
}

/// Returns the whole environment: `open.env` (already filtered), over it what the account has by itself, then the
/// variables `device`, and what the agent knows.
pub(crate) fn build(
    account: &Account,
    open: &Open,
    tty: Option<&Path>,
    time_zone: Option<&str>,
    device: Vec<(OsString, OsString)>,
) -> BTreeMap<OsString, OsString> {
    let client = open
        .env
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    let mut env: BTreeMap<OsString, OsString> = client.collect();
    let mut set = |name: &str, value: OsString| env.insert(name.into(), value);
    set("USER", account.name.clone().into());
    set("LOGNAME", account.name.clone().into());
    set("HOME", account.home.clone().into());
    set("SHELL", account.shell.clone().into());
    set(
        "PATH",
        if account.uid == 0 { ROOT_PATH } else { PATH }.into(),
    );
    set("MAIL", format!("/var/mail/{}", account.name).into());
    if let Some(time_zone) = time_zone {
        set("TZ", time_zone.into());
    }
    for (name, value) in device {
        if let Some(name) = name.to_str().filter(|name| !OURS.contains(name)) {
            set(name, value);
        }
    }
    let (client, server) = (open.client, open.server);
    set(
        "SSH_CLIENT",
        format!("{} {} {}", ip(client), client.port(), server.port()).into(),
    );
    let connection = format!(
        "{} {} {} {}",
        ip(client),
        client.port(),
        ip(server),
        server.port()
    );
    set("SSH_CONNECTION", connection.into());
    // Over the filter, which keeps clients from it: the relay says it where a certificate forces a command.
    if let Some(command) = &open.original_command
        && command.len() <= MAX_ORIGINAL_COMMAND
        && !command.contains(&0)
    {
        let command = OsString::from_vec(command.clone());
        set("SSH_ORIGINAL_COMMAND", command);
    }
    if let (Some(tty), Some(pty)) = (tty, &open.pty) {
        set("SSH_TTY", tty.into());
        if !pty.term.is_empty() && pty.term.len() <= MAX_TERM && !pty.term.contains('\0') {
            set("TERM", pty.term.clone().into());
        }
    }
    env
}

/// Returns an IPv4-mapped IPv6 address as the IPv4 address that it is.
fn ip(address: SocketAddr) -> std::net::IpAddr {
    address.ip().to_canonical()
}

/// Returns whether shells can hold a variable of this name.
fn is_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(word) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// Matches with `*` and `?` as in sshd's `AcceptEnv`, in time that is linear in both for one `*`.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut of) = (0, 0);
    // Where to try again when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while of < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, of));
                at += 1;
            }
            Some(&b) if b == b'?' || b == name[of] => {
                at += 1;
                of += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (at, of) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::ids::{Login, SessionId, UserName};
    use holdfast_protocol::wire::{ProcessRequest, Pty, SessionTerms, WindowSize};
    use proptest::prelude::*;

    fn kept(names: &[&str], configured: &[&str]) -> Vec<String> {
        let env = names
            .iter()
            .map(|name| ((*name).to_owned(), "1".to_owned()))
            .collect();
        let configured: Vec<_> = configured.iter().map(|name| (*name).to_owned()).collect();
        filter(env, &configured)
            .allowed
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn only_what_a_pattern_allows_passes() {
        let names = [
            "LANG",
            "LC_ALL",
            "LC_",
            "LANGUAGE",
            "GIT_AUTHOR",
            "EDITOR",
            "LC_=x",
            "",
            "LC_\u{e4}",
        ];
        assert_eq!(kept(&names, &[]), ["LANG", "LC_ALL", "LC_"]);
        assert_eq!(
            kept(&names, &["GIT_?UTH*", "ED*OR"]),
            ["LANG", "LC_ALL", "LC_", "GIT_AUTHOR", "EDITOR"]
        );
    }

    #[test]
    fn what_chooses_code_never_passes() {
        let names = [
            "LD_PRELOAD",
            "PATH",
            "DYLD_INSERT_LIBRARIES",
            "IFS",
            "SHELLOPTS",
            "BASH_ENV",
            "ENV",
            "BASH_FUNC_ls",
            "HOME",
            "SSH_CONNECTION",
            "GLIBC_TUNABLES",
            "TERM",
            "SHELL",
        ];
        assert_eq!(kept(&names, &["*"]), [""; 0]);
    }

    #[test]
    fn the_bounds_of_the_protocol_hold() {
        let long = |n: usize| "x".repeat(n);
        let env = vec![
            (format!("LC_{}", long(MAX_ENV_NAME)), String::new()),
            ("LC_LONG".to_owned(), long(MAX_ENV_VALUE + 1)),
            ("LC_NUL".to_owned(), "a\0b".to_owned()),
            ("LC_OK".to_owned(), long(MAX_ENV_VALUE)),
        ];
        let filtered = filter(env, &[]);
        let names = filtered.allowed.iter().map(|(name, _)| &**name);
        assert_eq!(names.collect::<Vec<_>>(), ["LC_OK"]);
        let long_name = format!("LC_{}", long(MAX_ENV_NAME));
        assert_eq!(filtered.refused, [&*long_name, "LC_LONG", "LC_NUL"]);
        let many = (0..2 * MAX_ENV)
            .map(|n| (format!("LC_{n}"), String::new()))
            .collect();
        assert_eq!(filter(many, &[]).allowed.len(), MAX_ENV);
        let large = (0..8)
            .map(|n| (format!("LC_{n}"), long(MAX_ENV_VALUE / 4)))
            .collect();
        assert_eq!(filter(large, &[]).allowed.len(), 4);
    }

    #[test]
    fn session_variables_name_who_and_where_it_is() {
        let account = Account {
            name: "pi".to_owned(),
            uid: 1000,
            gid: 1000,
            groups: vec![1000],
            home: "/home/pi".into(),
            shell: "/bin/bash".into(),
        };
        let open = Open {
            session: SessionId([0; 16]),
            user: UserName::new("alice").unwrap(),
            login: Login::new("pi").unwrap(),
            request: ProcessRequest::Shell.into(),
            pty: Some(Pty {
                term: "xterm".to_owned(),
                size: WindowSize::default(),
                modes: vec![],
            }),
            env: vec![("LANG".to_owned(), "de_DE.UTF-8".to_owned())],
            client: "[::ffff:203.0.113.9]:50000".parse().unwrap(),
            server: "[2001:db8::1]:2222".parse().unwrap(),
            original_command: Some(b"rsync --server \xff".to_vec()),
            recording: None,
            terms: SessionTerms::default(),
            forward_log: None,
        };
        let device = [
            ("http_proxy", "http://proxy.example:3128"),
            ("PATH", "/opt/bin:/bin"),
            ("TERM", "dumb"),
            ("USER", "forged"),
            ("SSH_CONNECTION", "forged"),
        ];
        let device = device.map(|(name, value)| (name.into(), value.into()));
        let tty = Some(Path::new("/dev/pts/7"));
        let env = build(&account, &open, tty, Some("UTC"), device.into());
        let shown: Vec<_> = env
            .iter()
            .map(|(k, v)| format!("{}={}", k.display(), v.display()))
            .collect();
        assert_eq!(
            shown,
            [
                "HOME=/home/pi",
                "LANG=de_DE.UTF-8",
                "LOGNAME=pi",
                "MAIL=/var/mail/pi",
                "PATH=/opt/bin:/bin",
                "SHELL=/bin/bash",
                "SSH_CLIENT=203.0.113.9 50000 2222",
                "SSH_CONNECTION=203.0.113.9 50000 2001:db8::1 2222",
                "SSH_ORIGINAL_COMMAND=rsync --server \u{fffd}",
                "SSH_TTY=/dev/pts/7",
                "TERM=xterm",
                "TZ=UTC",
                "USER=pi",
                "http_proxy=http://proxy.example:3128",
            ]
        );
    }

    proptest! {
        #[test]
        fn no_environment_panics(
            env in proptest::collection::vec(("\\PC{0,8}", "\\PC{0,8}"), 0..8),
            patterns in proptest::collection::vec("[A-Z*?_]{0,8}", 0..4),
        ) {
            let count = env.len();
            let Filtered { allowed: kept, refused } = filter(env, &patterns);
            prop_assert_eq!(kept.len() + refused.len(), count);
            prop_assert!(kept.iter().all(|(name, _)| is_name(name)));
        }

        #[test]
        fn a_star_matches_anything(a in "[A-Z]{0,5}", b in "[A-Z]{0,5}", c in "[A-Z]{0,5}") {
            let pattern = format!("{a}*{c}");
            let name = format!("{a}{b}{c}");
            prop_assert!(matches(&pattern, &name));
        }
    }
}
