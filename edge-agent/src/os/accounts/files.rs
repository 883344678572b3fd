//! `/etc/passwd`, `/etc/group` and `/etc/shadow`: a bad line is skipped, as glibc does.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use holdfast_protocol::ids::Login;

use super::Account;
use crate::os::limits::{MAX_ACCOUNT_FILE, MAX_GROUPS};

/// sshd's sign of a locked account on Linux, and the one of Solaris, which some images carry.
const LOCKED: [&[u8]; 2] = [b"!", b"*LK*"];

/// The three files as they were at one moment.
#[derive(Default)]
pub(crate) struct AccountFiles {
    passwd: Vec<u8>,
    group: Vec<u8>,
    shadow: Vec<u8>,
}

impl AccountFiles {
    /// Reads them from a folder. Only `passwd` must be there. To who is not root, a `shadow` that it may
    /// not read counts as empty: such an agent serves only the account that already runs it.
    ///
    /// # Errors
    /// When a file can't be read, or is over its bound.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let optional = |name: &str| match read_whole(&folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_root => {
                Ok(Vec::new())
            }
            other => other,
        };
        let passwd = read_whole(&folder.join("passwd"))?;
        Ok(Self {
            passwd,
            group: optional("group")?,
            shadow: optional("shadow")?,
        })
    }

    /// Creates the files from their contents.
    #[cfg(test)]
    pub(crate) fn new(passwd: Vec<u8>, group: Vec<u8>, shadow: Vec<u8>) -> Self {
        Self {
            passwd,
            group,
            shadow,
        }
    }

    /// Adds an account of a directory, by the lines that `getent` prints for its `passwd`, `shadow` and `initgroups`.
    /// A line that is not that account's is left out, and so is one that would be root.
    pub(super) fn add(&mut self, name: &str, passwd: &[u8], shadow: &[u8], groups: &[u8]) {
        if passwd_line(passwd, Some(name)).is_none_or(|account| account.uid == 0) {
            return;
        }
        let append = |file: &mut Vec<u8>, line: &[u8]| {
            file.push(b'\n');
            file.extend_from_slice(line);
        };
        append(&mut self.passwd, passwd);
        if shadow
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.starts_with(b":"))
        {
            append(&mut self.shadow, shadow);
        }
        let mut words = groups
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        if words.next() == Some(name.as_bytes()) {
            let numbers = words.filter_map(|word| id(number(word)?)).take(MAX_GROUPS);
            for gid in numbers.collect::<Vec<_>>() {
                let line = format!("holdfast-{gid}:x:{gid}:{name}");
                append(&mut self.group, line.as_bytes());
            }
        }
    }

    /// Returns the account of this name. The first line that is whole counts.
    pub(crate) fn account(&self, name: &str) -> Option<Account> {
        let mut account = lines(&self.passwd).find_map(|line| passwd_line(line, Some(name)))?;
        account.groups = self.groups_of(name, account.gid);
        Some(account)
    }

    /// Returns the name of the first account with this number.
    pub(crate) fn name_of(&self, uid: u32) -> Option<String> {
        let mut accounts = lines(&self.passwd).filter_map(|line| passwd_line(line, None));
        accounts
            .find(|account| account.uid == uid)
            .map(|account| account.name)
    }

    /// Returns the names of all accounts with this number, as far as they can be logins.
    pub(crate) fn logins_of(&self, uid: u32) -> Vec<Login> {
        let accounts = lines(&self.passwd).filter_map(|line| passwd_line(line, None));
        let named = accounts.filter(|account| account.uid == uid);
        named
            .filter_map(|account| Login::new(&account.name).ok())
            .collect()
    }

    /// Returns the number of the group of this name.
    pub(crate) fn group_id(&self, name: &str) -> Option<u32> {
        lines(&self.group)
            .filter_map(group_line)
            .find(|group| group.name == name.as_bytes())
            .map(|group| group.gid)
    }

    /// Returns the name of the first group with this number.
    pub(crate) fn group_name_of(&self, gid: u32) -> Option<String> {
        let mut groups = lines(&self.group).filter_map(group_line);
        let group = groups.find(|group| group.gid == gid)?;
        Some(String::from_utf8_lossy(group.name).into_owned())
    }

    /// Returns whether the account's password forbids every login, by key too.
    pub(crate) fn is_locked(&self, name: &str) -> bool {
        let shadow = self
            .shadow_fields(name)
            .and_then(|fields| fields.get(1).copied());
        let passwd = fields_of(&self.passwd, name).and_then(|fields| fields.get(1).copied());
        let locked = |password: &[u8]| LOCKED.iter().any(|sign| password.starts_with(sign));
        shadow.is_some_and(locked) || passwd.is_some_and(locked)
    }

    /// Returns the last day, since 1970, on which the account may be used.
    pub(crate) fn expiry_day(&self, name: &str) -> Option<u64> {
        number(self.shadow_fields(name)?.get(7)?)
    }

    fn shadow_fields(&self, name: &str) -> Option<Vec<&[u8]>> {
        fields_of(&self.shadow, name)
    }

    fn groups_of(&self, name: &str, primary: u32) -> Vec<u32> {
        let mut groups = vec![primary];
        for group in lines(&self.group).filter_map(group_line) {
            let is_member = group
                .members
                .split(|b| *b == b',')
                .any(|member| member == name.as_bytes());
            if is_member && !groups.contains(&group.gid) && groups.len() < MAX_GROUPS {
                groups.push(group.gid);
            }
        }
        groups
    }
}

/// Reads a file up to `bound` bytes and no further.
pub(super) fn read_bounded(path: &Path, bound: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bound).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file that must not be over [`MAX_ACCOUNT_FILE`]: the half of a list would let people in, or
/// keep them out, by chance.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = read_bounded(path, MAX_ACCOUNT_FILE + 1)?;
    if bytes.len() as u64 > MAX_ACCOUNT_FILE {
        let text = format!("{} is over {MAX_ACCOUNT_FILE} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

struct AccountGroup<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|b| *b == b'\n')
}

/// Returns the fields of the first line that begins with `name:`.
fn fields_of<'a>(file: &'a [u8], name: &str) -> Option<Vec<&'a [u8]>> {
    let line = lines(file).find(|line| {
        line.strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.starts_with(b":"))
    })?;
    Some(line.split(|b| *b == b':').collect())
}

fn passwd_line(line: &[u8], wanted: Option<&str>) -> Option<Account> {
    let mut fields = line.split(|b| *b == b':');
    let name = std::str::from_utf8(fields.next()?).ok()?;
    if name.is_empty() || wanted.is_some_and(|wanted| wanted != name) {
        return None;
    }
    let (_password, uid, gid, _gecos) = (
        fields.next()?,
        number(fields.next()?)?,
        number(fields.next()?)?,
        fields.next()?,
    );
    let (home, shell) = (fields.next()?, fields.next()?);
    if [home, shell].iter().any(|field| field.contains(&0)) {
        return None;
    }
    let or = |field: &[u8], default: &str| {
        if field.is_empty() {
            PathBuf::from(default)
        } else {
            PathBuf::from(OsStr::from_bytes(field))
        }
    };
    Some(Account {
        name: name.to_owned(),
        uid: id(uid)?,
        gid: id(gid)?,
        groups: Vec::new(),
        home: or(home, "/"),
        shell: or(shell, "/bin/sh"),
    })
}

fn group_line(line: &[u8]) -> Option<AccountGroup<'_>> {
    let mut fields = line.split(|b| *b == b':');
    let (name, _password, gid) = (fields.next()?, fields.next()?, fields.next()?);
    let members = fields.next().unwrap_or_default();
    Some(AccountGroup {
        name,
        gid: id(number(gid)?)?,
        members,
    })
}

/// Returns a user or group number. The highest one means "leave as it is" to the kernel, and names no account.
fn id(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|id| *id != u32::MAX)
}

fn number(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(field).ok()?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bad_line_is_skipped_and_the_first_whole_one_counts() {
        let passwd = "pi\npi:x:nine:1::/home/pi:/bin/sh\npi:x:-1:1::/a:/bin/sh\n#pi:x:1:1::/:/bin/sh\n\
            pi:x:4294967295:1::/a:/b\npi:x:+1:1::/a:/b\npixie:x:8:8::/p:/bin/sh\n+::::::\n\
            pi:x:1000:1000:The Pi:/home/pi:/bin/zsh:more\npi:x:0:0::/root:/bin/sh";
        let group = "adm:x:4:pi,other\nbad\nvideo:x:44:other,pi\npi:x:1000:pi\naudio:x:29:pixie\n\
            twice:x:44:pi\nlast:x:90:a,pi";
        let files = AccountFiles::new(passwd.into(), group.into(), vec![]);
        let account = files.account("pi").unwrap();
        assert_eq!((account.uid, account.gid), (1000, 1000));
        assert_eq!(account.groups, [1000, 4, 44, 90]);
        assert_eq!(account.shell, Path::new("/bin/zsh"));
        assert_eq!(files.account(""), None);
        assert_eq!(files.account("+"), None);
        assert_eq!(files.name_of(8).as_deref(), Some("pixie"));
        assert_eq!(files.group_id("video"), Some(44));
    }

    #[test]
    fn a_lock_is_found_in_either_file() {
        let files = AccountFiles::new(
            "a:!:1:1::/:/b\nb:x:2:2::/:/b\nbb:x:3:3::/:/b".into(),
            vec![],
            "b:*LK*:::::::\nbb:*:::::::".into(),
        );
        assert!(files.is_locked("a"));
        assert!(files.is_locked("b"));
        assert!(!files.is_locked("bb"));
    }

    #[test]
    fn a_file_over_its_bound_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("passwd")).unwrap();
        file.set_len(MAX_ACCOUNT_FILE + 1).unwrap();
        let error = AccountFiles::read(folder.path()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        file.set_len(MAX_ACCOUNT_FILE).unwrap();
        assert!(
            AccountFiles::read(folder.path()).is_ok(),
            "group and shadow may be missing"
        );
    }

    #[test]
    fn an_account_of_a_directory_is_one_like_another() {
        let group = b"video:x:44:\n".to_vec();
        let mut files = AccountFiles::new(b"pi:x:1000:1000::/:/bin/sh".to_vec(), group, vec![]);
        let line = b"lena:*:20001:20000:Lena:/home/lena:/bin/bash";
        files.add("lena", line, b"lena:!:1::::::", b"lena   44 20000 20005");
        let account = files.account("lena").unwrap();
        assert_eq!((account.uid, account.gid), (20_001, 20_000));
        assert_eq!(account.groups, [20_000, 44, 20_005]);
        assert!(files.is_locked("lena"));
        assert_eq!(files.group_name_of(44).as_deref(), Some("video"));
        // Another's line, and a root that the device does not know.
        files.add("max", line, b"", b"");
        files.add("eve", b"eve:*:0:0::/:/bin/sh", b"", b"");
        files.add("odd", b"odd:*:x:0::/:/bin/sh", b"", b"");
        for name in ["max", "eve", "odd"] {
            assert_eq!(files.account(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_files_panic(passwd: Vec<u8>, group: Vec<u8>, shadow: Vec<u8>, name: String) {
            ask(&AccountFiles::new(passwd, group, shadow), &name);
        }

        #[test]
        fn no_lines_that_nearly_are_right_panic(
            passwd in "(a:[x!*]?:[0-9]{0,11}:[0-9]{0,11}:[^:]{0,3}:[^:]{0,3}:[^:]{0,3}\n){0,4}",
            group in "([ab]:x:[0-9]{0,11}:[ab,]{0,5}\n){0,4}",
            shadow in "(a:[!*]{0,2}:{1,7}[0-9]{0,22}\n){0,4}",
        ) {
            ask(&AccountFiles::new(passwd.into(), group.into(), shadow.into()), "a");
        }
    }

    fn ask(files: &AccountFiles, name: &str) {
        files.account(name);
        files.is_locked(name);
        files.expiry_day(name);
        files.group_id(name);
        files.name_of(0);
    }
}
