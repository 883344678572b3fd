//! Accounts of the device, and who may log in.
//!
//! A static program has no NSS and no PAM: it reads `/etc/passwd`, `/etc/group` and `/etc/shadow`, asks a program of
//! the device for names that are not there ([`nss`]), and decides as sshd does without PAM.

mod files;
mod nss;

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::Login;
use holdfast_protocol::limits::{MAX_ACCOUNT_NAMES, MAX_REASON};
use holdfast_protocol::wire::SessionRefusal;

use crate::os::clock::WallTime;
use crate::os::limits::{CLOCK_IS_SET, MAX_ACCOUNT_FILE};

pub(crate) use files::AccountFiles;

/// The facts of an account that a session needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// Its name.
    pub(crate) name: String,
    /// Its number.
    pub(crate) uid: u32,
    /// Its primary group.
    pub(crate) gid: u32,
    /// All its groups, the primary one first.
    pub(crate) groups: Vec<u32>,
    /// Its home directory.
    pub(crate) home: PathBuf,
    /// Its login shell.
    pub(crate) shell: PathBuf,
}

/// The files whose presence disables all logins but root's. systemd writes the second one while the
/// machine starts and stops.
const NOLOGIN_NOTICES: [&str; 2] = ["/etc/nologin", "/run/nologin"];

/// The place where the login shells of a device are listed.
const SHELLS: &str = "/etc/shells";

/// The shells that count where that file is not there, as in getusershell(3).
const DEFAULT_SHELLS: &[u8] = b"/bin/sh\n/bin/csh\n";

const SECONDS_OF_A_DAY: u64 = 24 * 60 * 60;

/// Decides whether `login` gets a session here, now, where the operator's roles deny the logins `denied`.
///
/// # Errors
/// The refusal, for the operator.
pub(crate) fn admit(login: &Login, denied: &[Login]) -> Result<Account, SessionRefusal> {
    let mut files = AccountFiles::read(Path::new("/etc")).map_err(|error| {
        SessionRefusal::Failed(format!("the device's accounts can't be read: {error}"))
    })?;
    add_directory(&mut files, login, denied).map_err(|error| {
        SessionRefusal::Failed(format!(
            "the device's directory of accounts can't be asked (getent): {error}"
        ))
    })?;
    let now = WallTime::now().since_1970();
    let agent = rustix::process::geteuid().as_raw();
    let account = decide(&files, login, denied, agent, now)?;
    match nologin_notice() {
        Some(text) if account.uid != 0 => Err(SessionRefusal::NoLogin(text)),
        _ => Ok(account),
    }
}

/// Adds what the device's directory knows of a login that the files do not have; and of those that are denied, because
/// one of them may be another name of the same account.
fn add_directory(files: &mut AccountFiles, login: &Login, denied: &[Login]) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    add_account(files, login.as_str())?;
    // Root is no account of a directory, and gets in when the directory is away.
    if files
        .account(login.as_str())
        .is_some_and(|account| account.uid != 0)
    {
        for other in denied {
            add_account(files, other.as_str())?;
        }
    }
    Ok(())
}

fn add_account(files: &mut AccountFiles, name: &str) -> io::Result<()> {
    if name == "root" || files.account(name).is_some() {
        return Ok(());
    }
    let Some(line) = nss::ask("passwd", name)? else {
        return Ok(());
    };
    let shadow = nss::ask("shadow", name)?.unwrap_or_default();
    let groups = nss::ask("initgroups", name)?.unwrap_or_default();
    files.add(name, &line, &shadow, &groups);
    Ok(())
}

/// Returns the other logins with the user id of `login`, by which the relay judges a session when access changes.
/// `root` is user id 0, also where the files do not say so. Accounts of a directory have none.
pub(crate) fn other_names(login: &Login) -> Vec<Login> {
    // What cannot be read was refused when the session was admitted.
    let files = AccountFiles::read(Path::new("/etc"));
    files.map_or_else(|_| Vec::new(), |files| names_beside(&files, login))
}

fn names_beside(files: &AccountFiles, login: &Login) -> Vec<Login> {
    let Some(uid) = uid_of(files, login) else {
        return Vec::new();
    };
    let root = (uid == 0).then(|| Login::new("root").ok()).flatten();
    let mut names: Vec<Login> = root.into_iter().chain(files.logins_of(uid)).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| name != login);
    // Whatever is cut, `root` stays.
    names.sort_by_key(|name| name.as_str() != "root");
    names.truncate(MAX_ACCOUNT_NAMES);
    names
}

/// Returns the rules: `agent` is who the agent runs as, `now` the time since 1970.
fn decide(
    files: &AccountFiles,
    login: &Login,
    denied: &[Login],
    agent: u32,
    now: Duration,
) -> Result<Account, SessionRefusal> {
    let account = files.account(login.as_str());
    if agent != 0 && account.as_ref().is_none_or(|account| account.uid != agent) {
        return Err(only_serves(files, agent));
    }
    let account = account.ok_or(SessionRefusal::NoAccount)?;
    let is_same = |other: &&Login| uid_of(files, other) == Some(account.uid);
    if let Some(other) = denied.iter().find(is_same) {
        return Err(SessionRefusal::DeniedAs(other.clone()));
    }
    if files.is_locked(&account.name) || is_expired(files, &account.name, now) {
        return Err(SessionRefusal::AccountLocked);
    }
    if refuses_logins(&account.shell) {
        return Err(SessionRefusal::NoShell);
    }
    if !account.shell.is_absolute() {
        let shell = account.shell.to_string_lossy();
        let text = format!(
            "the account's shell \"{}\" is not an absolute path",
            Escaped(&shell)
        );
        return Err(SessionRefusal::Failed(bounded(text)));
    }
    Ok(account)
}

/// Returns the user id that a login means to a policy. `root` is user id 0, whatever the files call it.
fn uid_of(files: &AccountFiles, login: &Login) -> Option<u32> {
    match login.as_str() {
        "root" => Some(0),
        name => files.account(name).map(|account| account.uid),
    }
}

fn only_serves(files: &AccountFiles, agent: u32) -> SessionRefusal {
    match files.name_of(agent).map(|name| Login::new(&name)) {
        Some(Ok(own)) => SessionRefusal::OnlyServes(own),
        _ => SessionRefusal::Failed(format!(
            "the agent is not root, and user {agent}, as which it runs, has no account: run it as root"
        )),
    }
}

fn is_expired(files: &AccountFiles, name: &str, now: Duration) -> bool {
    let today = now.as_secs() / SECONDS_OF_A_DAY;
    now >= CLOCK_IS_SET && files.expiry_day(name).is_some_and(|day| today > day)
}

fn refuses_logins(shell: &Path) -> bool {
    shell
        .file_name()
        .is_some_and(|name| name == "nologin" || name == "false")
}

/// Refuses an account whose shell is not among the login shells of the device (shells(5)). An sftp server under terms
/// runs without the shell, so that a shell that refuses everything could not refuse that.
///
/// # Errors
/// The refusal, for the operator.
pub(crate) fn require_login_shell(account: &Account) -> Result<(), SessionRefusal> {
    let listed = match files::read_bounded(Path::new(SHELLS), MAX_ACCOUNT_FILE) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => DEFAULT_SHELLS.to_vec(),
        Err(error) => return Err(SessionRefusal::Failed(format!("{SHELLS}: {error}"))),
    };
    if is_listed(&account.shell, &listed) {
        return Ok(());
    }
    let (name, shell) = (&account.name, account.shell.to_string_lossy());
    Err(SessionRefusal::Failed(bounded(format!(
        "your roles restrict sftp, which then runs without the account's shell, and \"{}\", the shell of \"{}\", is not \
         in {SHELLS} there: add it if it lets people in, or use another account",
        Escaped(&shell),
        Escaped(name)
    ))))
}

/// Returns whether a shell has a line of its own in this text of `/etc/shells`.
fn is_listed(shell: &Path, listed: &[u8]) -> bool {
    let mut lines = listed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.any(|line| line == shell.as_os_str().as_bytes())
}

fn nologin_notice() -> Option<String> {
    NOLOGIN_NOTICES.iter().find_map(|path| {
        let text = files::read_bounded(Path::new(path), MAX_REASON as u64);
        match text {
            Ok(text) => Some(bounded(String::from_utf8_lossy(&text).trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            // It exists, whatever it says.
            Err(_) => Some(String::new()),
        }
    })
}

/// Cuts a text to what a refusal may hold.
pub(crate) fn bounded(mut text: String) -> String {
    let end = text.floor_char_boundary(MAX_REASON);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(20_000 * SECONDS_OF_A_DAY);

    fn files() -> AccountFiles {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\
            pi:x:1000:1000:,,,:/home/pi:\n\
            daemon:*:1:1::/:/usr/sbin/nologin\n\
            locked:x:1001:1001::/home/l:/bin/sh\n\
            key-only:x:1002:1002::/home/k:/bin/sh\n\
            gone:x:1003:1003::/home/g:/bin/sh\n\
            last-day:x:1004:1004::/home/g:/bin/sh\n\
            false:x:1005:1005::/:/bin/false\n\
            odd:x:1006:1006::/:sh\n\
            toor:x:0:0::/root:/bin/sh\n\
            pi-too:x:1000:1000::/home/pi:/bin/sh\n";
        let shadow = "root:*:1::::::\nlocked:!$y$abc:1::::::\nkey-only:*:1::::::\n\
            gone:$y$abc:1:::::19999:\nlast-day:$y$abc:1:::::20000:\n";
        AccountFiles::new(passwd.into(), b"".to_vec(), shadow.into())
    }

    fn verdict(login: &str, agent: u32, now: Duration) -> Result<String, SessionRefusal> {
        let account = decide(&files(), &Login::new(login).unwrap(), &[], agent, now)?;
        Ok(account.shell.to_string_lossy().into_owned())
    }

    #[test]
    fn who_may_come_in_does() {
        assert_eq!(verdict("root", 0, NOW), Ok("/bin/bash".to_owned()));
        assert_eq!(
            verdict("pi", 0, NOW),
            Ok("/bin/sh".to_owned()),
            "no shell is /bin/sh"
        );
        assert_eq!(
            verdict("key-only", 0, NOW),
            Ok("/bin/sh".to_owned()),
            "`*` locks the password only"
        );
        assert_eq!(verdict("last-day", 0, NOW), Ok("/bin/sh".to_owned()));
        assert_eq!(verdict("pi", 1000, NOW), Ok("/bin/sh".to_owned()));
    }

    #[test]
    fn refused_login_has_its_reason() {
        assert_eq!(
            verdict("no-such-login", 0, NOW),
            Err(SessionRefusal::NoAccount)
        );
        assert_eq!(
            verdict("locked", 0, NOW),
            Err(SessionRefusal::AccountLocked)
        );
        assert_eq!(verdict("gone", 0, NOW), Err(SessionRefusal::AccountLocked));
        assert_eq!(verdict("daemon", 0, NOW), Err(SessionRefusal::NoShell));
        assert_eq!(verdict("false", 0, NOW), Err(SessionRefusal::NoShell));
        assert!(matches!(
            verdict("odd", 0, NOW),
            Err(SessionRefusal::Failed(_))
        ));
    }

    #[test]
    fn an_account_does_not_expire_by_a_clock_that_was_never_set() {
        let early = Duration::from_secs(100);
        assert!(verdict("gone", 0, early).is_ok());
    }

    #[test]
    fn an_agent_that_is_not_root_serves_its_own_account() {
        let own = SessionRefusal::OnlyServes(Login::new("pi").unwrap());
        assert_eq!(verdict("root", 1000, NOW), Err(own.clone()));
        assert_eq!(verdict("no-such-login", 1000, NOW), Err(own));
        assert!(matches!(
            verdict("root", 4242, NOW),
            Err(SessionRefusal::Failed(_))
        ));
    }

    #[test]
    fn a_denied_login_is_denied_under_every_name() {
        let login = |name: &str| Login::new(name).unwrap();
        let verdict = |name: &str, denied: &[&str]| {
            let denied: Vec<Login> = denied.iter().map(|name| login(name)).collect();
            decide(&files(), &login(name), &denied, 0, NOW).map(|account| account.uid)
        };
        let refused = |name| Err(SessionRefusal::DeniedAs(login(name)));
        assert_eq!(verdict("toor", &["pi", "root"]), refused("root"));
        assert_eq!(verdict("toor", &["pi", "no-such-login"]), Ok(0));
        assert_eq!(verdict("pi-too", &["root", "pi"]), refused("pi"));
        assert_eq!(verdict("pi", &["root", "locked"]), Ok(1000));
        // Without a line for it in the files, root is user id 0 still.
        let files = AccountFiles::new(b"toor:x:0:0::/:/bin/sh\n".to_vec(), vec![], vec![]);
        let toor = decide(&files, &login("toor"), &[login("root")], 0, NOW);
        assert_eq!(toor, Err(SessionRefusal::DeniedAs(login("root"))));
    }

    #[test]
    fn other_names_are_those_of_the_same_user_id() {
        let names = |login: &str| {
            let names = names_beside(&files(), &Login::new(login).unwrap());
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            names.join(" ")
        };
        assert_eq!(names("toor"), "root");
        assert_eq!(names("pi"), "pi-too");
        assert_eq!(names("pi-too"), "pi");
        assert_eq!(names("no-such"), "");
        let alone = AccountFiles::new(b"toor:x:0:0::/:/bin/sh\n".to_vec(), vec![], vec![]);
        let toor = names_beside(&alone, &Login::new("toor").unwrap());
        assert_eq!(toor, [Login::new("root").unwrap()]);
    }

    #[test]
    fn a_login_shell_has_a_line_of_its_own() {
        let listed = b"# comment\n/bin/sh\n /bin/dash \n/bin/rbash";
        for shell in ["/bin/sh", "/bin/dash", "/bin/rbash"] {
            assert!(is_listed(Path::new(shell), listed), "{shell}");
        }
        for shell in ["/bin/s", "sh", "/bin/shx", "/bin/false", "comment"] {
            assert!(!is_listed(Path::new(shell), listed), "{shell}");
        }
        assert!(is_listed(Path::new("/bin/sh"), DEFAULT_SHELLS));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let cut = bounded("\u{e4}".repeat(MAX_REASON));
        assert_eq!(cut.len(), MAX_REASON);
    }
}
