//! The agent's side of an established tunnel: when to be heard, when to doubt the path, what to do then.
//!
//! The relay never probes: an agent behind NAT is the only one that can open a path. So the agent beats
//! every [`KEEPALIVE`](crate::limits::KEEPALIVE) (each [`ACTIVE_KEEPALIVE`] while sessions live). A beat
//! that nothing answers, QUIC's own acknowledgement included, is repeated as a probe; then the socket is
//! rebound (same connection, new port: a new NAT mapping); if the path stays dead, the driver has to
//! dial a second tunnel beside this one, because the relay itself may have moved.

use core::time::Duration;

use crate::limits::{
    ACTIVE_KEEPALIVE, MAX_REBIND_INTERVAL, OTHER_DIAL_AFTER, PARALLEL_DIAL_AFTER, PROBE_TIMEOUT,
};
use crate::wire::Beat;

/// The next action of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkAction {
    /// Send this on the control stream.
    Beat(Beat),
    /// Bind a new socket for the same connection.
    Rebind,
    /// Dial a second tunnel; the first is kept until the second is established.
    Dial,
    /// The first tunnel is heard again: give up the second if it does not stand yet.
    StopDialling,
}

/// After this long a silence, probes come less often: it is an outage, not a hiccup.
const PATIENT_AFTER: Duration = Duration::from_secs(60);
const PATIENT_PROBE: Duration = Duration::from_secs(5);

/// The state machine. Drive it so: after each `handle_*`, call [`Self::poll_action`] until it gives
/// nothing, then wait for input or [`Self::poll_timeout`].
#[derive(Debug)]
pub struct Link {
    keepalive: Duration,
    /// The silence after which a second tunnel is dialled.
    dial_after: Duration,
    sessions: u32,
    /// The next beat is counted from here, whatever was heard since: a driver that sees only at its next
    /// timeout that a datagram came cannot say when, and a mapping in a NAT lives by what is sent.
    beat_at: Duration,
    /// Set while a beat waits for an answer.
    doubt: Option<Doubt>,
    actions: heapless::Deque<LinkAction, 8>,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// The time when the first unanswered beat was sent.
    since: Duration,
    /// Beats that were not answered in time.
    misses: u32,
    next_probe: Duration,
    next_rebind: Duration,
    rebind_interval: Duration,
    dialling: bool,
}

impl Link {
    /// Returns a tunnel that has just been welcomed. `keepalive` is the pause between beats of an idle agent.
    #[must_use]
    pub fn new(now: Duration, keepalive: Duration) -> Self {
        Self {
            keepalive,
            dial_after: PARALLEL_DIAL_AFTER,
            sessions: 0,
            beat_at: now,
            doubt: None,
            actions: heapless::Deque::new(),
        }
    }

    /// Handles a roster with so many relays: where there are others, one of them is dialled sooner.
    pub fn handle_roster(&mut self, relays: usize) {
        self.dial_after = match relays {
            0 | 1 => PARALLEL_DIAL_AFTER,
            _ => OTHER_DIAL_AFTER,
        };
    }

    /// Handles any datagram of the relay, an acknowledgement too.
    pub fn handle_heard(&mut self) {
        if self.doubt.take().is_some_and(|doubt| doubt.dialling) {
            self.push(LinkAction::StopDialling);
        }
    }

    /// Handles a change of the number of live sessions: with any, the path is watched closely.
    pub fn handle_sessions(&mut self, sessions: u32) {
        self.sessions = sessions;
    }

    /// Handles a change of the device's own address or route: the old path is dead.
    pub fn handle_address_change(&mut self, now: Duration) {
        self.push(LinkAction::Rebind);
        self.beat(now, true);
        if let Some(doubt) = &mut self.doubt {
            // A new network deserves the full sequence of quick probes again.
            *doubt = Doubt {
                dialling: doubt.dialling,
                ..Doubt::begin(now)
            };
        }
    }

    /// Links or routes changed, but the device's own address did not: if the path was in doubt, it may
    /// be alive again, and is asked at once.
    pub fn handle_route_change(&mut self, now: Duration) {
        if let Some(doubt) = self.doubt {
            self.doubt = Some(Doubt {
                dialling: doubt.dialling,
                ..Doubt::begin(now)
            });
            self.beat(now, true);
        }
    }

    /// Notes that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        match self.doubt {
            None if now >= self.next_beat() => self.beat(now, self.sessions > 0),
            Some(doubt) if now >= doubt.next_probe => self.probe(now, doubt),
            _ => {}
        }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.doubt
            .map_or_else(|| self.next_beat(), |doubt| doubt.next_probe)
    }

    /// Returns the next action, if any.
    pub fn poll_action(&mut self) -> Option<LinkAction> {
        self.actions.pop_front()
    }

    fn next_beat(&self) -> Duration {
        let pause = if self.sessions > 0 {
            ACTIVE_KEEPALIVE
        } else {
            self.keepalive
        };
        self.beat_at + pause.min(self.keepalive)
    }

    fn beat(&mut self, now: Duration, echo: bool) {
        self.beat_at = now;
        self.push(LinkAction::Beat(Beat { echo }));
        if self.doubt.is_none() {
            self.doubt = Some(Doubt::begin(now));
        }
    }

    fn probe(&mut self, now: Duration, mut doubt: Doubt) {
        doubt.misses = doubt.misses.saturating_add(1);
        let silence = now.saturating_sub(doubt.since);
        if doubt.misses >= 2 && now >= doubt.next_rebind {
            self.push(LinkAction::Rebind);
            doubt.next_rebind = now + doubt.rebind_interval;
            doubt.rebind_interval = (doubt.rebind_interval * 2).min(MAX_REBIND_INTERVAL);
        }
        if silence >= self.dial_after && !doubt.dialling {
            self.push(LinkAction::Dial);
            doubt.dialling = true;
        }
        let pause = if silence >= PATIENT_AFTER {
            PATIENT_PROBE
        } else {
            PROBE_TIMEOUT
        };
        doubt.next_probe = now + pause;
        self.doubt = Some(doubt);
        self.beat(now, true);
    }

    fn push(&mut self, action: LinkAction) {
        // A driver polls after each input, so at most four actions ever wait. Should one not poll, the
        // newest is dropped: a later probe says the same again.
        let _ = self.actions.push_back(action);
    }
}

impl Doubt {
    fn begin(now: Duration) -> Self {
        Self {
            since: now,
            misses: 0,
            next_probe: now + PROBE_TIMEOUT,
            next_rebind: now,
            rebind_interval: PROBE_TIMEOUT * 2,
            dialling: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::KEEPALIVE;
    use alloc::vec;
    use alloc::vec::Vec;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs the link in silence until `end` and returns what it did, and when.
    fn run(link: &mut Link, end: Duration) -> Vec<(Duration, LinkAction)> {
        let mut done = vec![];
        loop {
            let now = link.poll_timeout();
            if now > end {
                return done;
            }
            link.handle_timeout(now);
            while let Some(action) = link.poll_action() {
                done.push((now, action));
            }
        }
    }

    #[test]
    fn an_idle_link_that_is_answered_only_beats() {
        let mut link = Link::new(Duration::ZERO, KEEPALIVE);
        let mut beats = 0;
        while link.poll_timeout() < Duration::from_secs(3600) {
            let now = link.poll_timeout();
            link.handle_timeout(now);
            while let Some(action) = link.poll_action() {
                assert_eq!(action, LinkAction::Beat(Beat { echo: false }));
                beats += 1;
            }
            link.handle_heard();
        }
        assert!(
            (140..=144).contains(&beats),
            "{beats} beats in an hour at 25 s"
        );
    }

    #[test]
    fn with_a_session_a_dead_path_is_rebound_within_three_seconds() {
        let mut link = Link::new(Duration::ZERO, KEEPALIVE);
        link.handle_sessions(1);
        let done = run(&mut link, SECOND * 4);
        let first = |what: LinkAction| done.iter().find(|(_, a)| *a == what).map(|(at, _)| *at);
        assert_eq!(first(LinkAction::Beat(Beat { echo: true })), Some(SECOND));
        assert_eq!(first(LinkAction::Rebind), Some(SECOND * 3));
    }

    #[test]
    fn dead_path_gets_a_second_tunnel_and_ever_rarer_rebinds() {
        let mut link = Link::new(Duration::ZERO, KEEPALIVE);
        let done = run(&mut link, Duration::from_secs(1000));
        let times = |what: LinkAction| -> Vec<Duration> {
            done.iter()
                .filter(|(_, a)| *a == what)
                .map(|(at, _)| *at)
                .collect()
        };
        assert_eq!(times(LinkAction::Dial), [KEEPALIVE + PARALLEL_DIAL_AFTER]);
        let rebinds = times(LinkAction::Rebind);
        assert!(
            rebinds
                .windows(2)
                .all(|w| w[1] - w[0] <= MAX_REBIND_INTERVAL + PATIENT_PROBE)
        );
        assert!(
            (40..60).contains(&rebinds.len()),
            "{} rebinds",
            rebinds.len()
        );
        let last_probe = done.last().map(|(at, _)| *at);
        assert!(
            last_probe > Some(Duration::from_secs(990)),
            "it never gives up"
        );
    }

    #[test]
    fn relay_that_has_others_beside_it_is_left_sooner() {
        for (relays, after) in [(1, PARALLEL_DIAL_AFTER), (2, OTHER_DIAL_AFTER)] {
            let mut link = Link::new(Duration::ZERO, KEEPALIVE);
            link.handle_roster(relays);
            let done = run(&mut link, Duration::from_secs(100));
            let dialled = done.iter().find(|(_, a)| *a == LinkAction::Dial);
            assert_eq!(dialled.map(|(at, _)| *at), Some(KEEPALIVE + after));
        }
    }

    #[test]
    fn a_word_from_the_relay_ends_all_doubt() {
        let mut link = Link::new(Duration::ZERO, KEEPALIVE);
        run(&mut link, KEEPALIVE + PARALLEL_DIAL_AFTER);
        link.handle_heard();
        assert_eq!(link.poll_action(), Some(LinkAction::StopDialling));
        assert_eq!(link.poll_timeout(), KEEPALIVE * 2 + PARALLEL_DIAL_AFTER);
    }

    #[test]
    fn what_is_heard_delays_no_beat() {
        let mut link = Link::new(Duration::ZERO, KEEPALIVE);
        link.handle_heard();
        assert_eq!(link.poll_timeout(), KEEPALIVE);
    }

    #[test]
    fn a_new_address_is_used_at_once() {
        let mut link = Link::new(Duration::ZERO, KEEPALIVE);
        link.handle_address_change(SECOND);
        assert_eq!(link.poll_action(), Some(LinkAction::Rebind));
        assert_eq!(
            link.poll_action(),
            Some(LinkAction::Beat(Beat { echo: true }))
        );
        assert_eq!(link.poll_timeout(), SECOND + PROBE_TIMEOUT);
    }
}
