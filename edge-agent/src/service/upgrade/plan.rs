//! The decisions of an upgrade: what a start of the agent means while a new program is on trial. Nothing here reads
//! a clock or a file; `swap.rs` does what is decided, and tests it with the power cut after every step.
//!
//! The journal is in the state folder from just before the new program takes its place until the next upgrade
//! begins. Which of the two programs runs is decided by its digest, never by what the journal hopes for: so a cut
//! between the journal and the swap needs no case of its own.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_protocol::count::Count;
use serde::{Deserialize, Serialize};

use crate::service::digest::Digest;
use crate::service::limits::MAX_TRIAL_STARTS;

/// The state of the last upgrade. Other versions of the agent read it too: fields are only added, with a
/// default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The path of the program.
    pub program: PathBuf,
    /// The program before.
    pub old: Digest,
    /// The program that is to follow it.
    pub new: Digest,
    /// The version of the new one, as it says.
    pub version: String,
    /// The time that the new one has to get a tunnel, from each of its starts, in seconds.
    pub trial_secs: u64,
    /// The number of times that the device's init was about to start the new one: counted by the old one.
    #[serde(default)]
    pub launched: u32,
    /// The number of times that the new one began to run: counted by itself.
    #[serde(default)]
    pub begun: u32,
    /// The phase that it is in.
    pub phase: UpgradePhase,
}

/// Describes how far an upgrade is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradePhase {
    /// The new program is in its place, or about to be, and has not had a tunnel yet.
    Trial,
    /// It had one.
    Kept,
    /// The old program is back, or never left, for this reason.
    PutBack(String),
}

/// The program that counts a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The old program, run by the device's init before each start.
    Init,
    /// The agent that has started.
    Agent,
}

/// The consequence of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramStart {
    /// Nothing is under way.
    Usual,
    /// The new program may try (once more): this journal is to be written first.
    Trial(Journal),
    /// The trial is over without the new program's doing: this journal is to be written.
    Over(Journal),
    /// The new program had its chances: the old one is to be put back, for this reason.
    PutBack(String),
}

impl Journal {
    /// Returns how long the new program has from each of its starts.
    #[must_use]
    pub fn trial(&self) -> Duration {
        Duration::from_secs(self.trial_secs)
    }

    /// Returns what there is to tell of it, unless all went well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let version = &self.version;
        match &self.phase {
            UpgradePhase::Kept => None,
            UpgradePhase::Trial => Some(format!("version {version} is on trial")),
            UpgradePhase::PutBack(why) => Some(format!("version {version} was rolled back: {why}")),
        }
    }

    /// Returns what the start of the program with this digest means; `counter` says who asks.
    #[must_use]
    pub fn at_start(&self, program: &Digest, counter: Counter) -> ProgramStart {
        if self.phase != UpgradePhase::Trial {
            return ProgramStart::Usual;
        }
        if *program == self.old {
            return ProgramStart::Over(
                self.put_back("the device stopped before it was in its place"),
            );
        }
        if *program != self.new {
            return ProgramStart::Over(
                self.put_back("another program was put in its place by hand"),
            );
        }
        let mut counted = self.clone();
        let count = match counter {
            Counter::Init => &mut counted.launched,
            Counter::Agent => &mut counted.begun,
        };
        if *count >= MAX_TRIAL_STARTS {
            let why = format!(
                "it was started {} and never got a tunnel",
                Count(u64::from(*count), "time")
            );
            return ProgramStart::PutBack(why);
        }
        *count += 1;
        ProgramStart::Trial(counted)
    }

    /// Returns the journal of a new program that has a tunnel.
    #[must_use]
    pub fn kept(&self) -> Self {
        Self {
            phase: UpgradePhase::Kept,
            ..self.clone()
        }
    }

    /// Returns the journal after the old program has stayed, or was restored.
    #[must_use]
    pub fn put_back(&self, why: &str) -> Self {
        Self {
            phase: UpgradePhase::PutBack(why.to_owned()),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Digest = Digest([1; 64]);
    const NEW: Digest = Digest([2; 64]);

    fn journal() -> Journal {
        Journal {
            program: "/usr/local/bin/edge-agent".into(),
            old: OLD,
            new: NEW,
            version: "0.2.0".into(),
            trial_secs: 120,
            launched: 0,
            begun: 0,
            phase: UpgradePhase::Trial,
        }
    }

    #[test]
    fn a_new_program_has_so_many_starts_by_either_count() {
        for counter in [Counter::Init, Counter::Agent] {
            let mut journal = journal();
            for _ in 0..MAX_TRIAL_STARTS {
                match journal.at_start(&NEW, counter) {
                    ProgramStart::Trial(counted) => journal = counted,
                    other => panic!("{other:?}"),
                }
            }
            let last = journal.at_start(&NEW, counter);
            assert!(matches!(last, ProgramStart::PutBack(_)), "{last:?}");
        }
    }

    #[test]
    fn what_runs_counts_and_not_what_was_hoped_for() {
        for program in [OLD, Digest([3; 64])] {
            let start = journal().at_start(&program, Counter::Agent);
            let ProgramStart::Over(over) = start else {
                panic!("{start:?}");
            };
            assert!(matches!(over.phase, UpgradePhase::PutBack(_)));
            assert_eq!(over.at_start(&program, Counter::Agent), ProgramStart::Usual);
        }
        for program in [OLD, NEW] {
            let kept = journal().kept();
            assert_eq!(kept.at_start(&program, Counter::Init), ProgramStart::Usual);
        }
    }

    /// Devices in the field have this in their state folders, and other versions read it.
    #[test]
    fn the_journal_keeps_its_form() {
        let text = serde_json::to_string(&journal().put_back("why")).unwrap();
        let (old, new) = (OLD.to_string(), NEW.to_string());
        let known = format!(
            "{{\"program\":\"/usr/local/bin/edge-agent\",\"old\":\"{old}\",\"new\":\"{new}\",\
             \"version\":\"0.2.0\",\"trial_secs\":120,\"launched\":0,\"begun\":0,\
             \"phase\":{{\"put-back\":\"why\"}}}}"
        );
        assert_eq!(text, known);
        let newer = known.replace("\"launched\":0,", "\"of_a_newer_version\":[],");
        let read: Journal = serde_json::from_str(&newer).unwrap();
        assert_eq!(read, journal().put_back("why"));
    }
}
