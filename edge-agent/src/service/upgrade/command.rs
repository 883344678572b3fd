//! `edge-agent upgrade FILE`: from a file and its signature to a program on trial. The running agent does the last
//! step, and this command only waits for what comes of it: it may be run in a session of that very agent, and end
//! with it.

use crate::os::clock;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::identity::release::ReleaseKey;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use super::candidate::{self, Candidate, CandidateError};
use super::disk::Real;
use super::plan::{Journal, UpgradePhase};
use super::signature::{Signature, SignatureError, TrustedComment};
use super::swap::{self, SwapError, UpgradePaths};
use crate::os::state::{StateDir, StateDirError};
use crate::service::digest::Digest;
use crate::service::limits::{
    MAX_PROGRAM, MAX_SIGNATURE, MAX_TRIAL_STARTS, TAKE_OVER_TIMEOUT, UPGRADE_GRACE, WATCH_MARGIN,
};
use crate::service::status::{self, AgentStatus, Question, Successor};
use crate::tunnel::release;

/// Sets how often it looks how the trial goes.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The action that was asked for.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The state folder of the running agent.
    pub state: PathBuf,
    /// The new program.
    pub file: PathBuf,
    /// Its signature, if it is not beside it.
    pub signature: Option<PathBuf>,
    /// True if it may be older than the running one.
    pub allow_downgrade: bool,
    /// The time that it has to get a tunnel.
    pub trial: Duration,
}

/// The reason why the agent was not upgraded. Nothing was changed then, but for [`UpgradeError::PutBack`].
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// Nothing to check with.
    #[error(
        "this device has pinned no release key: it joined when its relay had none to give, or when there were none yet. Pin it: `edge-agent join --release-key KEY` (the line of minisign.pub that begins with RW)"
    )]
    NoKey,
    /// No running agent to hand over to.
    #[error(
        "no agent runs on {}: start it first, because a new version is on trial until it has a tunnel", .0.display()
    )]
    NotRunning(PathBuf),
    /// One that knows nothing of this.
    #[error(
        "the running agent is of a version that cannot replace itself: install the new one with `edge-agent install` this once"
    )]
    TooOld,
    /// No signature.
    #[error(
        "{} is not signed: there is no signature {} (made by `minisign -S`)", file.display(), signature.display()
    )]
    Unsigned {
        /// The program.
        file: PathBuf,
        /// The place where its signature should be.
        signature: PathBuf,
    },
    /// A signature that does not hold.
    #[error("the signature {} is refused: {source}", path.display())]
    Signature {
        /// Its file.
        path: PathBuf,
        /// The reason why.
        source: SignatureError,
    },
    /// Longer than any agent.
    #[error("{} is too large for an agent; the maximum is {} MiB", .0.display(), MAX_PROGRAM >> 20)]
    TooLarge(PathBuf),
    /// The program is of no use here.
    #[error("{} is refused: {source}", path.display())]
    Candidate {
        /// Its file.
        path: PathBuf,
        /// The reason why.
        source: CandidateError,
    },
    /// Staging it failed.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another upgrade is under way.
    #[error("another upgrade of this agent is under way")]
    UnderWay,
    /// The running agent refused.
    #[error("the running agent refuses: {}", Escaped(.0))]
    Refused(String),
    /// The trial failed.
    #[error(
        "version {version} was rolled back, and the previous one runs: {}",
        Escaped(why)
    )]
    PutBack {
        /// The new one.
        version: String,
        /// The reason.
        why: String,
    },
    /// No end of the trial was seen.
    #[error(
        "version {0} is neither kept nor rolled back yet: look at `edge-agent status` and the agent's log"
    )]
    Undecided(String),
}

impl Upgrade {
    /// Does it, and says each step on `out`.
    ///
    /// # Errors
    /// [`UpgradeError`].
    pub fn run(&self, out: &mut dyn Write) -> Result<(), UpgradeError> {
        let state = StateDir::create_or_open(&self.state)?;
        let key = release::load(&state)?.ok_or(UpgradeError::NoKey)?;
        let running = status::ask(&state, Question::Status)?;
        let running = running.ok_or_else(|| UpgradeError::NotRunning(self.state.clone()))?;
        let program = running.program.clone().ok_or(UpgradeError::TooOld)?;
        let places = UpgradePaths {
            program,
            state: self.state.clone(),
        };
        let _lock = self.lock(&state)?;
        let staged = self.stage(&places, &key, out);
        let successor = staged.and_then(|digest| self.try_out(&places, digest, &running, out));
        let successor = match successor {
            Ok(Some(successor)) => successor,
            refused => {
                swap::unstage(&Real, &places);
                return refused.map(drop);
            }
        };
        let (digest, version) = (successor.digest, successor.version.clone());
        let question = Question::Upgrade(successor);
        let answer = status::ask(&state, question)?;
        let answer = answer.ok_or_else(|| UpgradeError::NotRunning(self.state.clone()))?;
        if let Some(why) = answer.refused {
            swap::unstage(&Real, &places);
            return Err(UpgradeError::Refused(why));
        }
        let (from, sessions) = (&running.agent_version, running.sessions);
        say(
            out,
            &format!(
                "version {version} takes the place of {from}; {}, with a notice",
                match sessions {
                    1 => "1 session ends".to_owned(),
                    _ => format!("{sessions} sessions end"),
                }
            ),
        );
        self.wait(&places, digest, version, out)
    }

    /// Takes the lock of upgrades: there is one path for the staged file.
    fn lock(&self, state: &StateDir) -> Result<File, UpgradeError> {
        let path = state.file("upgrade.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(|source| UpgradeError::Read { path, source })?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| UpgradeError::UnderWay)?;
        Ok(file)
    }

    /// Copies the program beside the running one, and checks what was copied: so it cannot be changed in between.
    fn stage(
        &self,
        places: &UpgradePaths,
        key: &ReleaseKey,
        out: &mut dyn Write,
    ) -> Result<Digest, UpgradeError> {
        let path = self.signature_path();
        let refused = |source| UpgradeError::Signature {
            path: path.clone(),
            source,
        };
        let signature = Signature::parse(&self.read_signature(&path)?).map_err(refused)?;
        signature.is_of(key).map_err(refused)?;

        let read = |source| UpgradeError::Read {
            path: self.file.clone(),
            source,
        };
        let file = File::open(&self.file).map_err(read)?;
        if file.metadata().map_err(read)?.len() > MAX_PROGRAM {
            return Err(UpgradeError::TooLarge(self.file.clone()));
        }
        // One that grows meanwhile does not fit its signature any more.
        let digest = swap::stage(&Real, places, file.take(MAX_PROGRAM))?;
        let TrustedComment(comment) = signature.verify(key, &digest).map_err(refused)?;
        say(out, &format!("signed by {key}: {}", Escaped(&comment)));
        Ok(digest)
    }

    fn read_signature(&self, path: &Path) -> Result<String, UpgradeError> {
        let mut text = String::new();
        let read =
            File::open(path).and_then(|file| file.take(MAX_SIGNATURE).read_to_string(&mut text));
        match read {
            Ok(_) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UpgradeError::Unsigned {
                file: self.file.clone(),
                signature: path.to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(UpgradeError::Signature {
                    path: path.to_owned(),
                    source: SignatureError::Malformed,
                })
            }
            Err(source) => Err(UpgradeError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn signature_path(&self) -> PathBuf {
        match &self.signature {
            Some(path) => path.clone(),
            None => {
                let mut name = self.file.clone().into_os_string();
                name.push(".minisig");
                name.into()
            }
        }
    }

    /// Runs the staged program, whose signature holds; `None` if it is the one that runs already.
    fn try_out(
        &self,
        places: &UpgradePaths,
        digest: Digest,
        running: &AgentStatus,
        out: &mut dyn Write,
    ) -> Result<Option<Successor>, UpgradeError> {
        if swap::digest(&Real, &places.program)? == digest {
            let version = &running.agent_version;
            say(
                out,
                &format!("version {version} of this file runs already: nothing to do"),
            );
            return Ok(None);
        }
        let refused = |source| UpgradeError::Candidate {
            path: self.file.clone(),
            source,
        };
        let staged = places.staged();
        let candidate = Candidate { path: &staged };
        candidate.check_machine().map_err(refused)?;
        let version = candidate.version().map_err(refused)?;
        if !self.allow_downgrade {
            candidate::refuse_older(&version, &running.agent_version).map_err(refused)?;
        }
        let tested = candidate.test_itself(&self.state, &running.arguments);
        let answer = tested.map_err(refused)?;
        say(
            out,
            &format!("version {version} runs here: {}", Escaped(&answer)),
        );
        Ok(Some(Successor {
            digest,
            version,
            trial: self.trial,
        }))
    }

    fn wait(
        &self,
        places: &UpgradePaths,
        digest: Digest,
        version: String,
        out: &mut dyn Write,
    ) -> Result<(), UpgradeError> {
        let began = clock::instant();
        // The old program's sessions, the new one's starts, and what the one aside takes.
        let others = UPGRADE_GRACE + *WATCH_MARGIN.end() + TAKE_OVER_TIMEOUT;
        let deadline = began + self.trial * MAX_TRIAL_STARTS + others;
        while clock::instant() < deadline {
            let journal = swap::read_journal(&Real, places);
            match journal {
                Some(Journal { new, phase, .. }) if new == digest => match phase {
                    UpgradePhase::Trial => {}
                    UpgradePhase::Kept => {
                        let took = began.elapsed().as_secs();
                        let previous = places.previous();
                        let previous = previous.display();
                        say(
                            out,
                            &format!(
                                "version {version} has a tunnel after {took} s and is kept; the one before is {previous}"
                            ),
                        );
                        return Ok(());
                    }
                    UpgradePhase::PutBack(why) => {
                        return Err(UpgradeError::PutBack { version, why });
                    }
                },
                _ => break,
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Err(UpgradeError::Undecided(version))
    }
}

/// Writes a text; there may be no reader, because the session that this runs in ends with the old agent.
fn say(out: &mut dyn Write, text: &str) {
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
