//! Reads what a process was given from the kernel: nothing here is that process's own word.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use serde::{Deserialize, Serialize};

use crate::os::limits::MAX_GROUPS;
use crate::session::launch::account::UMASK;
use crate::session::limits::MAX_LOGIN_ENVIRONMENT;

/// The kernel's names of the limits, in `/proc/PID/limits`.
const LIMITS: [(&str, Resource); 16] = [
    ("Max cpu time", Resource::Cpu),
    ("Max file size", Resource::Fsize),
    ("Max data size", Resource::Data),
    ("Max stack size", Resource::Stack),
    ("Max core file size", Resource::Core),
    ("Max resident set", Resource::Rss),
    ("Max processes", Resource::Nproc),
    ("Max open files", Resource::Nofile),
    ("Max locked memory", Resource::Memlock),
    ("Max address space", Resource::As),
    ("Max file locks", Resource::Locks),
    ("Max pending signals", Resource::Sigpending),
    ("Max msgqueue size", Resource::Msgqueue),
    ("Max nice priority", Resource::Nice),
    ("Max realtime priority", Resource::Rtprio),
    ("Max realtime timeout", Resource::Rttime),
];

/// A limit; `None` is no bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Limit {
    /// The kernel's name of it.
    name: String,
    current: Option<u64>,
    maximum: Option<u64>,
}

/// The attributes that PAM gave the process that holds its session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::session::launch) struct PamResult {
    /// The variables, a name and a value each.
    env: Vec<(Vec<u8>, Vec<u8>)>,
    limits: Vec<Limit>,
    /// All its groups.
    pub(in crate::session::launch) groups: Vec<u32>,
    umask: u32,
    /// The messages of PAM for the user who logs in.
    pub(in crate::session::launch) notice: String,
}

impl PamResult {
    /// Reads it of a process, which must be a child of `parent` and the account `uid` for good.
    ///
    /// # Errors
    /// When it is not, or can't be read.
    pub(super) fn of(pid: u32, parent: u32, uid: u32, notice: String) -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let status = ProcessStatus::parse(&read("status")?).ok_or(io::ErrorKind::InvalidData)?;
        if status.parent != parent || status.uids != [uid; 4] {
            return Err(io::Error::other("another process answers in its place"));
        }
        let mut env = Vec::new();
        File::open(format!("/proc/{pid}/environ"))?
            .take(MAX_LOGIN_ENVIRONMENT as u64 + 1)
            .read_to_end(&mut env)?;
        if env.len() > MAX_LOGIN_ENVIRONMENT {
            let text = format!("the environment is over {MAX_LOGIN_ENVIRONMENT} bytes");
            return Err(io::Error::other(text));
        }
        Ok(Self {
            env: variables(&env),
            limits: limits(&read("limits")?),
            groups: status.groups,
            umask: status.umask,
            notice,
        })
    }

    /// Returns the variables.
    pub(in crate::session::launch) fn env(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        self.env
            .iter()
            .map(move |(name, value)| (text(name), text(value)))
    }

    /// Gives the limits and the umask to this process. A limit that it may not raise stays.
    pub(in crate::session::launch) fn apply(&self) {
        for limit in &self.limits {
            let Some((_, resource)) = LIMITS.iter().find(|(name, _)| *name == limit.name) else {
                continue;
            };
            let wanted = Rlimit {
                current: limit.current,
                maximum: limit.maximum,
            };
            if getrlimit(*resource) != wanted {
                let _ = setrlimit(*resource, wanted);
            }
        }
        umask(Mode::from_raw_mode(self.umask));
    }
}

/// The part of `/proc/PID/status` that is read.
#[derive(Debug, PartialEq, Eq)]
struct ProcessStatus {
    parent: u32,
    /// Real, effective, saved, and of the file system.
    uids: [u32; 4],
    groups: Vec<u32>,
    umask: u32,
}

impl ProcessStatus {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
        };
        let numbers = |text: &str| {
            let numbers = text.split_ascii_whitespace().take(MAX_GROUPS);
            numbers.map(str::parse).collect::<Result<Vec<u32>, _>>()
        };
        // Kernels before 4.7 do not say it.
        let umask = field("Umask").map_or(Ok(UMASK), |octal| u32::from_str_radix(octal, 8));
        Some(Self {
            parent: field("PPid")?.parse().ok()?,
            uids: numbers(field("Uid")?).ok()?.try_into().ok()?,
            groups: numbers(field("Groups")?).ok()?,
            umask: umask.ok()? & 0o777,
        })
    }
}

/// Returns the limits on the lines of `/proc/PID/limits`.
fn limits(text: &str) -> Vec<Limit> {
    let value = |word: &str| match word {
        "unlimited" => Some(None),
        _ => word.parse().ok().map(Some),
    };
    let limits = text.lines().filter_map(|line| {
        let (name, rest) = LIMITS
            .iter()
            .find_map(|(name, _)| Some((*name, line.strip_prefix(name)?)))?;
        let mut words = rest.split_ascii_whitespace();
        Some(Limit {
            name: name.to_owned(),
            current: value(words.next()?)?,
            maximum: value(words.next()?)?,
        })
    });
    limits.collect()
}

/// Returns the variables of `/proc/PID/environ`.
fn variables(environ: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let variables = environ.split(|byte| *byte == 0).filter_map(|variable| {
        let at = variable.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (variable.get(..at)?, variable.get(at + 1..)?);
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    });
    variables.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_process_is_read_as_the_kernel_shows_it() {
        let status =
            "Name:\tsh\nUmask:\t0027\nPid:\t7\nPPid:\t6\nUid:\t1\t1\t1\t1\nGroups:\t4 1000 \n";
        let wanted = ProcessStatus {
            parent: 6,
            uids: [1; 4],
            groups: vec![4, 1000],
            umask: 0o027,
        };
        assert_eq!(ProcessStatus::parse(status), Some(wanted));
        assert_eq!(ProcessStatus::parse("PPid:\t6\nUid:\t1\t1\n"), None);
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max open files            1234                 unlimited            files     \n\
            Max nice priority         0                    5                    \n\
            Max unheard of            1                    2                    \n";
        let limit = |name: &str, current, maximum| Limit {
            name: name.to_owned(),
            current,
            maximum,
        };
        let wanted = [
            limit("Max open files", Some(1234), None),
            limit("Max nice priority", Some(0), Some(5)),
        ];
        assert_eq!(limits(text), wanted);
        let wanted = [(b"A".to_vec(), b"b=c".to_vec()), (b"E".to_vec(), vec![])];
        assert_eq!(variables(b"A=b=c\0odd\0=x\0E=\0"), wanted);
    }

    #[test]
    fn only_the_child_of_the_one_parent_answers() {
        let (own, uid) = (std::process::id(), rustix::process::geteuid().as_raw());
        let parent = std::os::unix::process::parent_id();
        let given = PamResult::of(own, parent, uid, String::new()).unwrap();
        assert_eq!(given.limits.len(), LIMITS.len(), "every limit has a name");
        assert!(PamResult::of(own, own, uid, String::new()).is_err());
        assert!(PamResult::of(own, parent, uid + 1, String::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "((Max open files|Umask:\t|Uid:\t|Groups:\t|PPid:\t)?\\PC{0,8}\n){0,6}", env: Vec<u8>) {
            ProcessStatus::parse(&text);
            limits(&text);
            variables(&env);
        }
    }
}
