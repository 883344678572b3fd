//! A new program before it takes the place of the old one: what it is built for, which version it is, and whether it
//! reaches the relay. It is run for that, so its signature has to be checked before.

use crate::os::clock;
use std::cmp::Ordering;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use holdfast_protocol::escape::Escaped;
use thiserror::Error;

use super::self_test;
use crate::service::limits::{MAX_CANDIDATE_ANSWER, SELF_TEST_TIMEOUT};

/// The start of an ELF file, up to the machine (elf(5)).
const HEADER: usize = 20;

/// The reason why a program is of no use here.
#[derive(Debug, Error)]
pub enum CandidateError {
    /// Not the kind of file that this device runs.
    #[error("wrong architecture: expected a program for {}", env!("TARGET"))]
    OtherMachine,
    /// Not this program.
    #[error("not an edge-agent: its version text is {}", Escaped(.0))]
    NotAgent(String),
    /// An older one.
    #[error(
        "it is version {found}, older than the running {present}: add --allow-downgrade if that is intended"
    )]
    Older {
        /// Its version.
        found: String,
        /// The running one's.
        present: String,
    },
    /// It does not run here.
    #[error("it does not run on this device: {0}")]
    DoesNotRun(String),
    /// It reaches no relay.
    #[error("its self-test failed: {}", Escaped(.0))]
    SelfTest(String),
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A checked file that may be run.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    /// The place where it is staged.
    pub path: &'a Path,
}

impl Candidate<'_> {
    /// Checks that it is for the same processor as this program.
    ///
    /// # Errors
    /// [`CandidateError::OtherMachine`].
    pub(super) fn check_machine(&self) -> Result<(), CandidateError> {
        let own = machine(Path::new("/proc/self/exe"))?;
        match machine(self.path)? {
            Some(machine) if Some(machine) == own => Ok(()),
            _ => Err(CandidateError::OtherMachine),
        }
    }

    /// Returns the version that it says it is.
    ///
    /// # Errors
    /// [`CandidateError`] if it does not run, or says something else.
    pub(super) fn version(&self) -> Result<String, CandidateError> {
        let (answer, _) = self.run(&["--version".into()])?;
        let version = answer
            .trim()
            .strip_prefix("edge-agent ")
            .filter(|version| Version::parse(version).is_some());
        match version {
            Some(version) => Ok(version.to_owned()),
            None => Err(CandidateError::NotAgent(answer.trim().to_owned())),
        }
    }

    /// Lets it test itself with the running agent's state and arguments, and gives what it says.
    ///
    /// # Errors
    /// [`CandidateError`].
    pub(super) fn test_itself(
        &self,
        state: &Path,
        args: &[String],
    ) -> Result<String, CandidateError> {
        let mut line: Vec<OsString> = vec![self_test::ARGUMENT.into(), "--state".into()];
        line.push(state.into());
        line.push("--".into());
        line.extend(args.iter().map(OsString::from));
        match self.run(&line)? {
            (answer, true) => Ok(answer.trim().to_owned()),
            (answer, false) => Err(CandidateError::SelfTest(answer.trim().to_owned())),
        }
    }

    /// Returns what it writes, and whether it was content.
    fn run(&self, args: &[OsString]) -> Result<(String, bool), CandidateError> {
        let does_not_run = |error: std::io::Error| CandidateError::DoesNotRun(error.to_string());
        let mut child = Command::new(self.path)
            .args(args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(does_not_run)?;
        let deadline = clock::instant() + SELF_TEST_TIMEOUT;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(does_not_run)? {
                break status;
            }
            if clock::instant() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                let seconds = SELF_TEST_TIMEOUT.as_secs();
                let why = format!("it gave no answer within {seconds} s");
                return Err(CandidateError::DoesNotRun(why));
            }
            thread::sleep(Duration::from_millis(20));
        };
        // It has ended, and a pipe holds more than is read.
        let mut answer = String::new();
        if let Some(out) = child.stdout.take() {
            let _ = out.take(MAX_CANDIDATE_ANSWER).read_to_string(&mut answer);
        }
        if let Some(errors) = child.stderr.take().filter(|_| !status.success()) {
            let _ = errors
                .take(MAX_CANDIDATE_ANSWER)
                .read_to_string(&mut answer);
        }
        if status.code().is_none() {
            return Err(CandidateError::DoesNotRun(status.to_string()));
        }
        Ok((answer, status.success()))
    }
}

/// Refuses `found` if it is older than `present`.
///
/// # Errors
/// [`CandidateError::Older`].
pub(super) fn refuse_older(found: &str, present: &str) -> Result<(), CandidateError> {
    match (Version::parse(found), Version::parse(present)) {
        (Some(new), Some(old)) if new < old => Err(CandidateError::Older {
            found: found.to_owned(),
            present: present.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Class, byte order and machine of a program; `None` if it is none.
fn machine(path: &Path) -> Result<Option<[u8; 4]>, CandidateError> {
    let mut header = [0; HEADER];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(CandidateError::Read { path, source });
        }
        Ok(()) => {}
    }
    let is_elf = header.starts_with(b"\x7fELF");
    Ok(is_elf.then_some([header[4], header[5], header[18], header[19]]))
}

/// A version of the agent: three numbers, and a pre-release suffix.
#[derive(Debug, PartialEq, Eq)]
struct Version<'a> {
    numbers: [u64; 3],
    before: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (numbers, before) = match text.split_once('-') {
            Some((numbers, before)) => (numbers, Some(before)),
            None => (text, None),
        };
        let parts: Vec<&str> = numbers.split('.').collect();
        let [major, minor, patch] = *parts.as_slice() else {
            return None;
        };
        let numbers = [
            major.parse().ok()?,
            minor.parse().ok()?,
            patch.parse().ok()?,
        ];
        Some(Self { numbers, before })
    }
}

impl PartialOrd for Version<'_> {
    /// Compares versions: a pre-release is older than its release, and two of them are not ordered here.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.numbers.cmp(&other.numbers) {
            Ordering::Equal => match (self.before, other.before) {
                (None, None) => Some(Ordering::Equal),
                (Some(_), None) => Some(Ordering::Less),
                (None, Some(_)) => Some(Ordering::Greater),
                (Some(one), Some(two)) => (one == two).then_some(Ordering::Equal),
            },
            order => Some(order),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_older_version_differs_from_a_newer_one() {
        for (found, present) in [
            ("0.1.0", "0.2.0"),
            ("0.9.9", "0.10.0"),
            ("1.0.0", "1.0.1"),
            ("1.0.0-rc1", "1.0.0"),
        ] {
            assert!(refuse_older(found, present).is_err(), "{found} {present}");
            assert!(refuse_older(present, found).is_ok(), "{found} {present}");
            assert!(refuse_older(found, found).is_ok(), "{found}");
        }
        for bad in ["", "1", "1.2", "1.2.3.4", "a.b.c", "1.2.-3", "1..2"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_program_is_for_this_machine_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        bytes.truncate(HEADER);
        for change in [None, Some(4), Some(18), Some(0)] {
            let mut bytes = bytes.clone();
            if let Some(at) = change {
                bytes[at] ^= 1;
            }
            std::fs::write(&path, &bytes).unwrap();
            let checked = Candidate { path: &path }.check_machine();
            assert_eq!(checked.is_ok(), change.is_none(), "{change:?}");
        }
        std::fs::write(&path, b"\x7fELF").unwrap();
        let short = Candidate { path: &path }.check_machine();
        assert!(matches!(short, Err(CandidateError::OtherMachine)));
    }

    proptest! {
        #[test]
        fn no_version_panics(one: String, two: String) {
            let _ = refuse_older(&one, &two);
        }
    }
}
