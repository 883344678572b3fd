//! The running agent's part: it counts its own starts on trial, puts a new program in its place when it is asked to,
//! and becomes another program.

use crate::os::sync::Mutex;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;

use futures_lite::FutureExt as _;
use smol::Timer;
use smol::channel::{self, Receiver, Sender};
use thiserror::Error;

use super::disk::Real;
use super::plan::{Counter, Journal, ProgramStart, UpgradePhase};
use super::swap::{self, SwapError, UpgradePaths};
use super::watch::{self, unmarked};
use crate::service::status::Successor;
use crate::tunnel::status::TunnelStatus;
use crate::{info, warn};

/// The upgrades of an agent that runs. It holds the lock of its state folder: no other process writes the journal.
#[derive(Debug)]
pub struct Upgrades {
    places: UpgradePaths,
    /// The last upgrade; this start is a trial if it says so.
    journal: Mutex<Option<Journal>>,
    asked: (Sender<()>, Receiver<()>),
}

/// The reason why an agent stops to be what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover {
    /// A new program is in its place.
    Replaced,
    /// It is a new program that got no tunnel, and is to be the old one again.
    PutBack(String),
}

/// The reason why an agent is not replaced, or not any more what it was to be.
#[derive(Debug, Error)]
pub enum TrialError {
    /// A step on the disk.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// One thing after the other.
    #[error(
        "version {0} is on trial already: wait until it is kept or rolled back (`edge-agent status`)"
    )]
    OnTrial(String),
    /// The system does not start it.
    #[error("cannot start {}: {source}", path.display())]
    Exec {
        /// The path.
        path: PathBuf,
        /// The reason why not.
        source: io::Error,
    },
}

/// Returns the path of this program, also after its file was replaced.
///
/// # Errors
/// Without `/proc`.
pub fn own_program() -> io::Result<PathBuf> {
    env::current_exe().map(unmarked)
}

impl Upgrades {
    /// Counts this start if this program is on trial. Call it first, when the state folder is locked. A program that
    /// had its chances puts the old program back, becomes it, and does not return.
    ///
    /// # Errors
    /// [`TrialError::Exec`] if the old program is back and cannot be started from here.
    pub fn at_start(state: &Path) -> Result<Self, TrialError> {
        let program = own_program().unwrap_or_default();
        let places = UpgradePaths {
            program,
            // It is also used by a process with another working folder.
            state: std::path::absolute(state).unwrap_or_else(|_| state.to_owned()),
        };
        let journal =
            swap::read_journal(&Real, &places).filter(|journal| journal.program == places.program);
        let upgrades = Self {
            places,
            journal: Mutex::new(journal),
            asked: channel::bounded(1),
        };
        if let Some(why) = upgrades.count() {
            upgrades.turn_into(&Handover::PutBack(why))?;
        }
        Ok(upgrades)
    }

    /// Counts this start; gives the reason if there were too many.
    fn count(&self) -> Option<String> {
        let mut journal = self.journal();
        let known = journal.as_ref()?;
        if known.phase != UpgradePhase::Trial {
            return None;
        }
        // Whatever fails here, an agent that runs is better than one that does not.
        let program = match swap::digest(&Real, Path::new("/proc/self/exe")) {
            Ok(program) => program,
            Err(error) => {
                warn!(
                    "the trial of version {} is not counted: {error}",
                    known.version
                );
                return None;
            }
        };
        let next = match known.at_start(&program, Counter::Agent) {
            ProgramStart::Usual => return None,
            ProgramStart::PutBack(why) => return Some(why),
            ProgramStart::Trial(next) | ProgramStart::Over(next) => next,
        };
        if let Err(error) = swap::write_journal(&Real, &self.places, &next) {
            warn!("{error}");
        }
        // Said when it is counted: a reader may cut the power.
        if next.phase == UpgradePhase::Trial {
            info!(
                "version {} is on trial: it has {} s to get a tunnel",
                next.version, next.trial_secs
            );
        }
        *journal = Some(next);
        None
    }

    /// Returns the path of this agent's program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.places.program
    }

    /// Returns the last upgrade.
    #[must_use]
    pub fn last(&self) -> Option<Journal> {
        self.journal().clone()
    }

    /// Puts the staged program in this one's place. [`Self::turn`] resolves then.
    ///
    /// # Errors
    /// [`TrialError`]; this program is in its place then.
    pub fn replace(&self, by: Successor) -> Result<(), TrialError> {
        let mut journal = self.journal();
        if let Some(known) = &*journal
            && known.phase == UpgradePhase::Trial
        {
            return Err(TrialError::OnTrial(known.version.clone()));
        }
        let next = Journal {
            program: self.places.program.clone(),
            old: swap::digest(&Real, &self.places.program)?,
            new: by.digest,
            version: by.version,
            trial_secs: by.trial.as_secs(),
            launched: 0,
            begun: 0,
            phase: UpgradePhase::Trial,
        };
        if let Err(error) = swap::take(&Real, &self.places, &next) {
            // Only if it was begun; and if not even that can be written, the next start finds out.
            if swap::read_journal(&Real, &self.places).as_ref() == Some(&next) {
                let _ = swap::put_back(&Real, &self.places, &next, &error.to_string());
            }
            return Err(error.into());
        }
        *journal = Some(next);
        // The agent that this resolves for is still here, and takes one only.
        let _ = self.asked.0.try_send(());
        Ok(())
    }

    /// Resolves when this agent has to become another program; on trial, notes when it has a tunnel.
    pub async fn turn(&self, tunnel: &TunnelStatus) -> Handover {
        let replaced = async {
            let _ = self.asked.1.recv().await;
            Handover::Replaced
        };
        let failed = async {
            match self.pass_trial(tunnel).await {
                Some(why) => Handover::PutBack(why),
                None => std::future::pending().await,
            }
        };
        replaced.or(failed).await
    }

    /// Gives the reason if the trial failed.
    async fn pass_trial(&self, tunnel: &TunnelStatus) -> Option<String> {
        let journal = self
            .last()
            .filter(|journal| journal.phase == UpgradePhase::Trial)?;
        let online = async {
            tunnel.online().await;
            true
        };
        let late = async {
            Timer::after(journal.trial()).await;
            false
        };
        if !online.or(late).await {
            let why = tunnel
                .last_error()
                .unwrap_or_else(|| "no reason known".into());
            let secs = journal.trial_secs;
            return Some(format!("it got no tunnel within {secs} s ({why})"));
        }
        info!("version {} has a tunnel: it is kept", journal.version);
        let kept = journal.kept();
        if let Err(error) = swap::write_journal(&Real, &self.places, &kept) {
            warn!("{error}");
        }
        *self.journal() = Some(kept);
        None
    }

    /// Becomes the program that is in this one's place then; on success it does not return.
    ///
    /// # Errors
    /// [`TrialError::Exec`]: an init has to start the program.
    pub fn turn_into(&self, turn: &Handover) -> Result<(), TrialError> {
        if let Handover::Replaced = turn {
            // It watches over the other one's trial, and ends with it.
            if let Err(error) = watch::start_aside(&self.places) {
                warn!("the trial is not watched by the previous program: {error}");
            }
            let refused = self.exec();
            warn!("{refused}");
            self.put_back(&refused.to_string());
            return Err(self.exec());
        }
        if let Handover::PutBack(why) = turn
            && !self.put_back(why)
        {
            // There is no other program: this one tries on.
            return Ok(());
        }
        Err(self.exec())
    }

    fn put_back(&self, why: &str) -> bool {
        let Some(journal) = self.last() else {
            return false;
        };
        let version = &journal.version;
        match swap::put_back(&Real, &self.places, &journal, why) {
            Ok(_) => {
                warn!("version {version} is rolled back: {why}");
                true
            }
            Err(error) => {
                warn!("version {version} should be rolled back ({why}), but {error}");
                false
            }
        }
    }

    fn exec(&self) -> TrialError {
        let args: Vec<OsString> = env::args_os().skip(1).collect();
        let path = self.places.program.clone();
        let source = Command::new(&path).args(args).exec();
        TrialError::Exec { path, source }
    }

    fn journal(&self) -> MutexGuard<'_, Option<Journal>> {
        self.journal.lock()
    }
}
