//! Assigns processes to sessions: by descent from the process that the agent has started for a session, or by the
//! kernel's session of its leader.
//!
//! The kernel reports a process before the agent knows what it is for. What was observed of those that descend
//! from a child of the agent waits until a session claims that child, or it ends.

use std::collections::BTreeMap;

use holdfast_protocol::ids::SessionId;

use super::proc_event::ProcessEvent;
use crate::recording::limits::{MAX_WAITING_COMMANDS, MAX_WATCHED_PROCESSES};

/// The processes of all sessions. `T` is what was observed of one.
#[derive(Debug)]
pub(super) struct Tracker<T> {
    /// The agent's own process.
    own: u32,
    processes: BTreeMap<u32, Tracked>,
    /// By the process that all of them descend from.
    families: BTreeMap<u32, Family<T>>,
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    family: u32,
    parent: u32,
    /// It is a command, not only a copy of the shell.
    ran: bool,
}

#[derive(Debug)]
struct Family<T> {
    session: Option<SessionId>,
    waiting: Vec<T>,
    living: usize,
}

/// The consequence of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrackerStep {
    /// Nothing.
    Nothing,
    /// A command has begun: look at it before it has ended.
    Ran {
        family: u32,
        pid: u32,
        /// `None`: the kernel did not say.
        parent: Option<u32>,
    },
    /// A command has ended.
    Ended { family: u32, pid: u32, status: u32 },
    /// There are more processes than can be followed.
    TooMany { family: u32 },
}

impl<T> Tracker<T> {
    pub(super) fn new(own: u32) -> Self {
        Self {
            own,
            processes: BTreeMap::new(),
            families: BTreeMap::new(),
        }
    }

    /// Takes an event. `leader` gives the leader of a process' session.
    pub(super) fn handle(
        &mut self,
        event: ProcessEvent,
        leader: impl FnOnce(u32) -> Option<u32>,
    ) -> TrackerStep {
        match event {
            ProcessEvent::Answer(_) => TrackerStep::Nothing,
            ProcessEvent::Fork { parent, child } => {
                let family = if parent == self.own {
                    child
                } else if let Some(tracked) = self.processes.get(&parent) {
                    tracked.family
                } else {
                    return TrackerStep::Nothing;
                };
                self.add(child, family, parent)
            }
            ProcessEvent::Exec(pid) => self.ran(pid, leader),
            ProcessEvent::Exit { pid, status } => match self.forget(pid) {
                Some(Tracked {
                    family, ran: true, ..
                }) => TrackerStep::Ended {
                    family,
                    pid,
                    status,
                },
                _ => TrackerStep::Nothing,
            },
        }
    }

    fn ran(&mut self, pid: u32, leader: impl FnOnce(u32) -> Option<u32>) -> TrackerStep {
        if let Some(tracked) = self.processes.get_mut(&pid) {
            let family = tracked.family;
            let claimed = self.families.get(&family);
            // The agent's helper, which is about to become the shell.
            if pid == family && claimed.is_none_or(|family| family.session.is_none()) {
                return TrackerStep::Nothing;
            }
            tracked.ran = true;
            return TrackerStep::Ran {
                family,
                pid,
                parent: Some(tracked.parent),
            };
        }
        // The kernel did not tell of its birth: too much was going on.
        let claimed = leader(pid).filter(|leader| {
            let family = self.families.get(leader);
            family.is_some_and(|family| family.session.is_some())
        });
        let Some(family) = claimed else {
            return TrackerStep::Nothing;
        };
        if let TrackerStep::TooMany { family } = self.add(pid, family, 0) {
            return TrackerStep::TooMany { family };
        }
        if let Some(tracked) = self.processes.get_mut(&pid) {
            tracked.ran = true;
        }
        TrackerStep::Ran {
            family,
            pid,
            parent: None,
        }
    }

    fn add(&mut self, pid: u32, family: u32, parent: u32) -> TrackerStep {
        // A number that is given again tells that the one before has ended.
        self.forget(pid);
        if self.processes.len() >= MAX_WATCHED_PROCESSES {
            return TrackerStep::TooMany { family };
        }
        let tracked = Tracked {
            family,
            parent,
            ran: false,
        };
        self.processes.insert(pid, tracked);
        let families = self.families.entry(family);
        families.or_insert_with(Family::new).living += 1;
        TrackerStep::Nothing
    }

    fn forget(&mut self, pid: u32) -> Option<Tracked> {
        let tracked = self.processes.remove(&pid)?;
        if let Some(family) = self.families.get_mut(&tracked.family) {
            family.living = family.living.saturating_sub(1);
            if family.living == 0 && family.session.is_none() {
                self.families.remove(&tracked.family);
            }
        }
        Some(tracked)
    }

    /// Notes that the process is a session's leader. Gives what has waited for that.
    pub(super) fn claim(&mut self, session: SessionId, leader: u32) -> Vec<T> {
        if !self.processes.contains_key(&leader) {
            self.add(leader, leader, self.own);
        }
        let family = self.families.entry(leader).or_insert_with(Family::new);
        family.session = Some(session);
        std::mem::take(&mut family.waiting)
    }

    /// Forgets a session, which gets no more events.
    pub(super) fn leave(&mut self, session: SessionId) {
        self.families
            .retain(|_, family| family.session != Some(session));
        let families = &self.families;
        self.processes
            .retain(|_, tracked| families.contains_key(&tracked.family));
    }

    /// Routes an observation: returns it with its session, or keeps it for the session that claims the family.
    pub(super) fn route(&mut self, family: u32, observed: T) -> Option<(SessionId, T)> {
        let waiting: usize = self.families.values().map(|one| one.waiting.len()).sum();
        let family = self.families.get_mut(&family)?;
        match family.session {
            Some(session) => Some((session, observed)),
            None => {
                if waiting < MAX_WAITING_COMMANDS {
                    family.waiting.push(observed);
                }
                None
            }
        }
    }
}

impl<T> Family<T> {
    fn new() -> Self {
        Self {
            session: None,
            waiting: Vec::new(),
            living: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGENT: u32 = 1;
    const SHELL: u32 = 100;
    const SESSION: SessionId = SessionId([7; 16]);

    fn fork(parent: u32, child: u32) -> ProcessEvent {
        ProcessEvent::Fork { parent, child }
    }

    fn exit(pid: u32) -> ProcessEvent {
        ProcessEvent::Exit { pid, status: 0 }
    }

    fn give(tracker: &mut Tracker<u32>, event: ProcessEvent) -> TrackerStep {
        tracker.handle(event, |_| None)
    }

    #[test]
    fn a_command_is_found_by_its_descent() {
        let mut tracker = Tracker::new(AGENT);
        assert_eq!(give(&mut tracker, fork(AGENT, SHELL)), TrackerStep::Nothing);
        assert_eq!(
            give(&mut tracker, ProcessEvent::Exec(SHELL)),
            TrackerStep::Nothing,
            "the helper is none"
        );
        // What the shell starts before the agent says whose it is waits.
        give(&mut tracker, fork(SHELL, 101));
        let ran = TrackerStep::Ran {
            family: SHELL,
            pid: 101,
            parent: Some(SHELL),
        };
        assert_eq!(give(&mut tracker, ProcessEvent::Exec(101)), ran);
        assert_eq!(tracker.route(SHELL, 101), None);
        assert_eq!(tracker.claim(SESSION, SHELL), [101]);
        assert_eq!(tracker.route(SHELL, 5), Some((SESSION, 5)));
        // A copy of the shell that runs nothing is no command, but what it starts is.
        give(&mut tracker, fork(101, 102));
        give(&mut tracker, fork(102, 103));
        assert_eq!(give(&mut tracker, exit(102)), TrackerStep::Nothing);
        assert!(matches!(
            give(&mut tracker, ProcessEvent::Exec(103)),
            TrackerStep::Ran { pid: 103, .. }
        ));
        let ended = TrackerStep::Ended {
            family: SHELL,
            pid: 103,
            status: 0,
        };
        assert_eq!(give(&mut tracker, exit(103)), ended);
        tracker.leave(SESSION);
        assert!(tracker.processes.is_empty() && tracker.families.is_empty());
    }

    #[test]
    fn others_belong_to_none_unless_their_session_says_so() {
        let mut tracker = Tracker::new(AGENT);
        tracker.claim(SESSION, SHELL);
        assert_eq!(give(&mut tracker, fork(50, 51)), TrackerStep::Nothing);
        assert_eq!(
            give(&mut tracker, ProcessEvent::Exec(51)),
            TrackerStep::Nothing
        );
        assert_eq!(give(&mut tracker, exit(51)), TrackerStep::Nothing);
        let found = tracker.handle(ProcessEvent::Exec(52), |_| Some(SHELL));
        let ran = TrackerStep::Ran {
            family: SHELL,
            pid: 52,
            parent: None,
        };
        assert_eq!(found, ran);
    }

    #[test]
    fn unclaimed_child_leaves_nothing() {
        let mut tracker = Tracker::new(AGENT);
        give(&mut tracker, fork(AGENT, SHELL));
        tracker.route(SHELL, 1);
        give(&mut tracker, exit(SHELL));
        assert!(tracker.processes.is_empty() && tracker.families.is_empty());
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            events in prop::collection::vec((0u8..4, 0u32..9, 0u32..9), 0..400)
        ) {
            let mut tracker: Tracker<u32> = Tracker::new(AGENT);
            for (kind, a, b) in events {
                let step = match kind {
                    0 => give(&mut tracker, fork(a, b)),
                    1 => tracker.handle(ProcessEvent::Exec(a), |_| Some(b)),
                    2 => give(&mut tracker, exit(a)),
                    _ => {
                        tracker.claim(SessionId([u8::try_from(a).unwrap(); 16]), b);
                        tracker.leave(SessionId([u8::try_from(b).unwrap(); 16]));
                        TrackerStep::Nothing
                    }
                };
                if let TrackerStep::Ran { family, pid, .. } = step {
                    tracker.route(family, pid);
                }
                let living: usize = tracker.families.values().map(|family| family.living).sum();
                prop_assert_eq!(living, tracker.processes.len());
                let waiting: usize = tracker.families.values().map(|family| family.waiting.len()).sum();
                prop_assert!(waiting <= MAX_WAITING_COMMANDS);
            }
        }
    }
}
