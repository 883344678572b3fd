//! Two machines with one device's identity: a card or an image that was copied after `join`. Both hold the key, so both
//! are the device; what gives them away is that neither run of the agent ends when the other one comes.
//!
//! A run of an agent has a random identifier. One device has one run at a time (a lock in its state folder), so a run
//! that another one has followed never says `Hello` again, but for one that was under way on a slow path. Two live
//! machines take the tunnel from each other, again and again: A, B, A, B, A. The fifth `Hello` is the proof (the
//! seventh if one of them calls itself another run each time). A restart, a new address, a new network and a device
//! moved to other hardware are none of that.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::str::FromStr;

use holdfast_protocol::ids::DeviceId;
use holdfast_protocol::wire::Instance;

use crate::clock::Timestamp;
use crate::model::limits::CLONE_MEMORY;
use crate::store::ClonePair;
use crate::sync::Mutex;
use crate::tunnel::limits::{CLONE_NOTE, CLONE_RETURNS, MAX_CLONE_RUNS};

/// The policy for the second of two machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnClone {
    /// The newest tunnel wins, as without a clone: they replace each other.
    #[default]
    Newest,
    /// The first machine keeps its tunnel for as long as it answers.
    First,
}

impl OnClone {
    /// Returns the word for the configuration and the audit log.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::First => "first",
        }
    }
}

impl FromStr for OnClone {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "newest" => Ok(Self::Newest),
            "first" => Ok(Self::First),
            _ => Err("expected \"newest\" or \"first\""),
        }
    }
}

/// A run of an agent that says `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The run and its machine.
    pub instance: Instance,
    /// The address.
    pub address: SocketAddr,
}

/// The result for a `Hello`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The tunnel that stays, if this one is refused for it.
    pub refused_for: Option<SocketAddr>,
    /// The two machines, if it is time to write down that there are two.
    pub note: Option<ClonePair>,
    /// True if it was not reported yet.
    pub is_news: bool,
}

/// The facts about one device's runs.
#[derive(Debug, Default)]
pub(crate) struct CloneWatch {
    /// The last one has the tunnel, or had it last.
    runs: Vec<KnownMachine>,
    cloned: Option<CloneSeen>,
}

#[derive(Clone, Copy, Debug)]
struct KnownMachine {
    run: Run,
    began: Timestamp,
    heard: Timestamp,
    /// The number of times that it has come back after another run had followed it.
    returns: u8,
    /// True if it is, or was, the first machine's.
    is_first: bool,
}

#[derive(Clone, Copy, Debug)]
struct CloneSeen {
    first: Run,
    second: SocketAddr,
    /// The time at which the two were last seen at odds.
    seen: Timestamp,
    noted: Option<Timestamp>,
    is_reported: bool,
}

impl CloneWatch {
    /// Takes a `Hello`. `holder` is the run whose tunnel is open and answers, if there is one.
    pub(crate) fn hello(
        &mut self,
        now: Timestamp,
        run: Run,
        holder: Option<Run>,
        policy: OnClone,
    ) -> Verdict {
        self.forget(now);
        if let Some(holder) = self.preferred(run, holder, policy)
            && let Some(cloned) = &mut self.cloned
        {
            cloned.second = run.address;
            cloned.seen = now;
            if let Some(at) = self.position(run)
                && let Some(known) = self.runs.get_mut(at)
            {
                (known.run.address, known.heard) = (run.address, now);
            }
            return Verdict {
                refused_for: Some(holder.address),
                ..self.note(now)
            };
        }
        self.follow(now, run);
        self.note(now)
    }

    /// Returns the two machines, for as long as they have been at odds lately.
    #[must_use]
    pub(crate) fn pair(&self, now: Timestamp) -> Option<ClonePair> {
        let cloned = self.cloned.as_ref();
        let cloned = cloned.filter(|cloned| now.since(cloned.seen) < CLONE_MEMORY)?;
        Some(ClonePair {
            first: cloned.first.address,
            second: cloned.second,
        })
    }

    /// Returns the run whose tunnel stays: the holder's, if there are two machines and it is not the first one that
    /// comes.
    fn preferred(&self, run: Run, holder: Option<Run>, policy: OnClone) -> Option<Run> {
        let cloned = self.cloned.as_ref()?;
        let holder = holder.filter(|holder| holder.instance.id != run.instance.id)?;
        if policy == OnClone::Newest || self.is_first(cloned, run) {
            return None;
        }
        let is_known = self.position(run).is_some();
        // A run that was never seen, on a machine that may be the holder's, may be its restart: if it is not, it is
        // known as soon as it comes back. A machine that has said what it is says it again.
        let other = run.instance.machine != holder.instance.machine;
        (is_known || (other && holder.instance.machine.is_some())).then_some(holder)
    }

    /// Returns whether a run is the first machine's: its own, or a later one on hardware that no other run here has.
    fn is_first(&self, cloned: &CloneSeen, run: Run) -> bool {
        let first = cloned.first;
        let alone = || {
            let mut others = self.runs.iter().filter(|known| !known.is_first);
            others.all(|known| are_apart(first, known.run))
        };
        let same_machine =
            run.instance.machine.is_some() && run.instance.machine == first.instance.machine;
        run.instance.id == first.instance.id || (same_machine && alone())
    }

    /// Notes that a run has the tunnel now.
    fn follow(&mut self, now: Timestamp, run: Run) {
        if let Some(cloned) = self.cloned
            && self.is_first(&cloned, run)
        {
            self.cloned = Some(CloneSeen {
                first: run,
                ..cloned
            });
        }
        let before = self.runs.last().copied();
        let known = match self.position(run) {
            Some(at) => {
                let mut known = self.runs.remove(at);
                // Not if it is the last one still: that was a new connection of the same run.
                if before.is_some_and(|before| before.run.instance.id != run.instance.id) {
                    known.returns = known.returns.saturating_add(1);
                }
                KnownMachine {
                    run,
                    heard: now,
                    ..known
                }
            }
            None => KnownMachine {
                run,
                began: now,
                heard: now,
                returns: 0,
                is_first: false,
            },
        };
        self.runs.push(known);
        if self.runs.len() > MAX_CLONE_RUNS {
            self.runs.remove(0);
        }
        let other = before.filter(|before| before.run.instance.id != run.instance.id);
        if let Some(before) = other
            && (known.returns > CLONE_RETURNS
                || (known.returns == CLONE_RETURNS && before.returns > 0))
        {
            let (first, second) = if known.began <= before.began {
                (known.run, before.run)
            } else {
                (before.run, known.run)
            };
            let old = self.cloned;
            self.cloned = Some(CloneSeen {
                first: old.map_or(first, |old| old.first),
                second: second.address,
                seen: now,
                noted: old.and_then(|old| old.noted),
                is_reported: old.is_some_and(|old| old.is_reported),
            });
        }
        if let Some(cloned) = &self.cloned {
            let first = cloned.first.instance.id;
            let is_first = |known: &&mut KnownMachine| known.run.instance.id == first;
            self.runs
                .iter_mut()
                .filter(is_first)
                .for_each(|known| known.is_first = true);
        }
    }

    fn note(&mut self, now: Timestamp) -> Verdict {
        let pair = self.pair(now);
        let Some(cloned) = &mut self.cloned else {
            return Verdict::default();
        };
        let is_due = cloned
            .noted
            .is_none_or(|noted| now.since(noted) >= CLONE_NOTE);
        if !is_due || cloned.noted.is_some_and(|noted| noted >= cloned.seen) {
            return Verdict::default();
        }
        cloned.noted = Some(now);
        let is_news = !std::mem::replace(&mut cloned.is_reported, true);
        Verdict {
            refused_for: None,
            note: pair,
            is_news,
        }
    }

    /// Forgets runs that have not come for long, and that there were two machines.
    fn forget(&mut self, now: Timestamp) {
        let holder = self.runs.last().map(|known| known.run.instance.id);
        self.runs.retain(|known| {
            Some(known.run.instance.id) == holder || now.since(known.heard) < CLONE_MEMORY
        });
        self.cloned
            .take_if(|cloned| now.since(cloned.seen) >= CLONE_MEMORY);
    }

    fn position(&self, run: Run) -> Option<usize> {
        let same = |known: &KnownMachine| known.run.instance.id == run.instance.id;
        self.runs.iter().position(same)
    }
}

/// Returns whether two runs are known to be on different machines.
fn are_apart(one: Run, other: Run) -> bool {
    match (one.instance.machine, other.instance.machine) {
        (Some(one), Some(other)) => one != other,
        _ => false,
    }
}

/// The runs of all devices, and what is done with clones.
#[derive(Debug)]
pub(crate) struct Clones {
    /// The policy for the second of two machines.
    pub policy: OnClone,
    devices: Mutex<HashMap<DeviceId, CloneWatch>>,
}

impl Clones {
    /// Knows no run yet.
    #[must_use]
    pub(crate) fn new(policy: OnClone) -> Self {
        Self {
            policy,
            devices: Mutex::default(),
        }
    }

    /// Takes a device's `Hello`, as [`CloneWatch::hello`]. Devices are members, so their number is bounded.
    pub(crate) fn hello(&self, device: DeviceId, run: Run, holder: Option<Run>) -> Verdict {
        let mut devices = self.devices.lock();
        let watch = devices.entry(device).or_default();
        watch.hello(Timestamp::now(), run, holder, self.policy)
    }

    /// Returns the two machines of a device that has been two lately.
    #[must_use]
    pub(crate) fn pair(&self, device: DeviceId) -> Option<ClonePair> {
        let devices = self.devices.lock();
        devices.get(&device)?.pair(Timestamp::now())
    }
}

#[cfg(test)]
mod tests;
