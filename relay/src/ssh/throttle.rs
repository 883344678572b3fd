//! Limits the SSH connections that may begin: OpenSSH's `MaxStartups`, `PerSourceMaxStartups` and `PerSourcePenalties`
//! in spirit. One source's noise never keeps another out, unless the whole relay is full, and what proves nothing (a
//! key that is refused, a probe) is not held against a source, because many people share an address. Pure: the caller
//! gives the time.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;

use crate::model::source::Source;
use crate::ssh::limits::{
    MAX_CONNECTIONS, MAX_PENALISED_SOURCES, MAX_TRUSTED_SOURCES, MAX_UNAUTHENTICATED,
    MAX_UNAUTHENTICATED_PER_SOURCE, MAX_WITHOUT_HEADER, PENALTY_MAXIMUM, PENALTY_MINIMUM,
    TRUST_AFTER_LOGIN,
};

/// The reason why a connection is not taken. The text goes out before the SSH banner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ThrottleRefusal {
    /// Too many connections in all.
    #[error("Holdfast relay: too many connections, try again later")]
    Full,
    /// Too many that have not logged in yet, from this source or in all.
    #[error("Holdfast relay: too many connections that have not logged in, try again later")]
    TooManyUnauthenticated,
    /// This source signed wrongly too often.
    #[error("Holdfast relay: too many failed logins from your address, try again in {0} s")]
    Penalised(u64),
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    connections: usize,
    unauthenticated: usize,
    sources: HashMap<Source, usize>,
    /// The connections of each load balancer whose header has not come, and whose source is not known so.
    without_header: HashMap<Source, usize>,
    penalties: HashMap<Source, Penalty>,
    /// The time at which each source last logged in.
    logins: HashMap<Source, Duration>,
    /// Networks that never get a penalty.
    exempt: Vec<IpNet>,
}

/// A penalty runs until a time; it keeps a source out only while it is at least the minimum long.
#[derive(Clone, Copy, Debug)]
struct Penalty {
    until: Duration,
    enforced: bool,
}

impl Throttle {
    /// Creates empty books. Sources in `exempt` never get a penalty; an IPv6 network in it is at most a /64 long.
    #[must_use]
    pub(crate) fn new(exempt: Vec<IpNet>) -> Self {
        Self {
            exempt,
            ..Self::default()
        }
    }

    /// Takes a connection into the books.
    ///
    /// # Errors
    /// [`ThrottleRefusal`]; then nothing was taken.
    pub(crate) fn admit(&mut self, source: Source, now: Duration) -> Result<(), ThrottleRefusal> {
        if let Some(penalty) = self.penalties.get(&source) {
            if penalty.until <= now {
                self.penalties.remove(&source);
            } else if penalty.enforced && !self.is_trusted(source, now) {
                let left = (penalty.until - now).as_secs() + 1;
                return Err(ThrottleRefusal::Penalised(left));
            }
        }
        if self.connections >= MAX_CONNECTIONS {
            return Err(ThrottleRefusal::Full);
        }
        let own = self.sources.get(&source).copied().unwrap_or(0);
        if own >= MAX_UNAUTHENTICATED_PER_SOURCE || self.unauthenticated >= MAX_UNAUTHENTICATED {
            return Err(ThrottleRefusal::TooManyUnauthenticated);
        }
        self.connections += 1;
        self.unauthenticated += 1;
        self.sources.insert(source, own + 1);
        Ok(())
    }

    /// Takes a connection of a load balancer into the books, whose source follows with its header.
    ///
    /// # Errors
    /// [`ThrottleRefusal`]; then nothing was taken.
    pub(crate) fn admit_without_header(&mut self, balancer: Source) -> Result<(), ThrottleRefusal> {
        if self.connections >= MAX_CONNECTIONS {
            return Err(ThrottleRefusal::Full);
        }
        let own = self.without_header.get(&balancer).copied().unwrap_or(0);
        if own >= MAX_WITHOUT_HEADER || self.unauthenticated >= MAX_UNAUTHENTICATED {
            return Err(ThrottleRefusal::TooManyUnauthenticated);
        }
        self.connections += 1;
        self.unauthenticated += 1;
        self.without_header.insert(balancer, own + 1);
        Ok(())
    }

    /// Gives the place of such a connection back, whose header has come or never will.
    pub(crate) fn header_awaited(&mut self, balancer: Source) {
        self.connections = self.connections.saturating_sub(1);
        self.unauthenticated = self.unauthenticated.saturating_sub(1);
        count_down(&mut self.without_header, balancer);
    }

    /// Takes a connection into the books in the place of another one of its source that has not logged in and is being
    /// cut: only a source with a recent login has that right, so that who holds connections open there does not keep
    /// its other people out. Returns whether it is taken.
    pub(crate) fn admit_instead(&mut self, source: Source, now: Duration) -> bool {
        let is_taken = self.is_trusted(source, now)
            && self.connections < MAX_CONNECTIONS
            && self.unauthenticated < MAX_UNAUTHENTICATED;
        if is_taken {
            self.connections += 1;
            self.unauthenticated += 1;
            *self.sources.entry(source).or_default() += 1;
        }
        is_taken
    }

    /// Notes that an admitted connection was authenticated: its source's past is forgiven, and it is not kept out for
    /// [`TRUST_AFTER_LOGIN`].
    pub(crate) fn authenticated(&mut self, source: Source, now: Duration) {
        self.leave_unauthenticated(source);
        self.penalties.remove(&source);
        if self.logins.len() >= MAX_TRUSTED_SOURCES && !self.logins.contains_key(&source) {
            self.forget_login(now);
        }
        self.logins.insert(source, now);
    }

    /// Notes that an admitted connection has ended.
    pub(crate) fn ended(&mut self, source: Source, was_authenticated: bool) {
        self.connections = self.connections.saturating_sub(1);
        if !was_authenticated {
            self.leave_unauthenticated(source);
        }
    }

    /// Penalises a source: `penalty` is added to what it has, unless it is exempt.
    pub(crate) fn penalise(&mut self, source: Source, penalty: Duration, now: Duration) {
        if self
            .exempt
            .iter()
            .any(|network| network.contains(&source.address()))
        {
            return;
        }
        if self.penalties.len() >= MAX_PENALISED_SOURCES && !self.penalties.contains_key(&source) {
            self.forget_one(now);
        }
        let entry = self.penalties.entry(source).or_insert(Penalty {
            until: now,
            enforced: false,
        });
        entry.until = (entry.until.max(now) + penalty).min(now + PENALTY_MAXIMUM);
        entry.enforced = entry.until - now >= PENALTY_MINIMUM || entry.enforced;
    }

    /// Returns whether a user logged in from a source not long ago.
    fn is_trusted(&self, source: Source, now: Duration) -> bool {
        let login = self.logins.get(&source);
        login.is_some_and(|login| now.saturating_sub(*login) < TRUST_AFTER_LOGIN)
    }

    fn leave_unauthenticated(&mut self, source: Source) {
        self.unauthenticated = self.unauthenticated.saturating_sub(1);
        count_down(&mut self.sources, source);
    }

    /// Makes room for a login: all that are too old to count go, or else the oldest.
    fn forget_login(&mut self, now: Duration) {
        self.logins
            .retain(|_, login| now.saturating_sub(*login) < TRUST_AFTER_LOGIN);
        if self.logins.len() < MAX_TRUSTED_SOURCES {
            return;
        }
        let oldest = self.logins.iter().min_by_key(|(_, login)| **login);
        if let Some(source) = oldest.map(|(source, _)| *source) {
            self.logins.remove(&source);
        }
    }

    /// Makes room: all that are over go, or else the one that is over first.
    fn forget_one(&mut self, now: Duration) {
        self.penalties.retain(|_, penalty| penalty.until > now);
        if self.penalties.len() < MAX_PENALISED_SOURCES {
            return;
        }
        let soonest = self
            .penalties
            .iter()
            .min_by_key(|(_, penalty)| penalty.until);
        if let Some(source) = soonest.map(|(source, _)| *source) {
            self.penalties.remove(&source);
        }
    }
}

/// Takes one off a source's count, which goes with the last one.
fn count_down(counts: &mut HashMap<Source, usize>, source: Source) {
    if let Some(own) = counts.get_mut(&source) {
        *own = own.saturating_sub(1);
        if *own == 0 {
            counts.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::limits::PENALTY_FAILED;
    use std::net::IpAddr;

    fn source(n: u32) -> Source {
        Source::of(IpAddr::V4(n.into()))
    }

    #[test]
    fn one_source_cannot_fill_the_relay_for_others() {
        let mut throttle = Throttle::default();
        for _ in 0..MAX_UNAUTHENTICATED_PER_SOURCE {
            assert_eq!(throttle.admit(source(1), Duration::ZERO), Ok(()));
        }
        let full = throttle.admit(source(1), Duration::ZERO);
        assert_eq!(full, Err(ThrottleRefusal::TooManyUnauthenticated));
        assert_eq!(throttle.admit(source(2), Duration::ZERO), Ok(()));
        throttle.authenticated(source(1), Duration::ZERO);
        assert_eq!(throttle.admit(source(1), Duration::ZERO), Ok(()));
    }

    #[test]
    fn the_relay_as_a_whole_has_bounds() {
        let mut throttle = Throttle::default();
        let mut n = 0;
        while throttle.admit(source(n / 8), Duration::ZERO).is_ok() {
            n += 1;
        }
        assert_eq!(n as usize, MAX_UNAUTHENTICATED);
        let mut throttle = Throttle::default();
        for n in 0..MAX_CONNECTIONS {
            let source = source(u32::try_from(n).unwrap());
            assert_eq!(throttle.admit(source, Duration::ZERO), Ok(()));
            throttle.authenticated(source, Duration::ZERO);
        }
        assert_eq!(
            throttle.admit(source(7), Duration::ZERO),
            Err(ThrottleRefusal::Full)
        );
        throttle.ended(source(1), true);
        assert_eq!(throttle.admit(source(7), Duration::ZERO), Ok(()));
    }

    #[test]
    fn failures_add_up_and_are_over_one_day() {
        let mut throttle = Throttle::default();
        let mut failures = 0;
        while throttle.admit(source(1), Duration::ZERO).is_ok() {
            throttle.ended(source(1), false);
            throttle.penalise(source(1), PENALTY_FAILED, Duration::ZERO);
            failures += 1;
        }
        assert_eq!(failures, 12, "a typing error or two locks no user out");
        assert_eq!(
            throttle.admit(source(2), Duration::ZERO),
            Ok(()),
            "others are untouched"
        );
        let over = Duration::from_secs(61);
        assert_eq!(throttle.admit(source(1), over), Ok(()));
        for _ in 0..1000 {
            throttle.penalise(source(1), PENALTY_FAILED, over);
        }
        assert_eq!(throttle.admit(source(1), over + PENALTY_MAXIMUM), Ok(()));
    }

    /// Adds as many penalties as keep a source out.
    fn penalise(throttle: &mut Throttle, source: Source, now: Duration) {
        for _ in 0..12 {
            throttle.penalise(source, PENALTY_FAILED, now);
        }
    }

    #[test]
    fn connections_without_a_header_have_bounds_of_their_own() {
        let mut throttle = Throttle::default();
        let balancer = source(1);
        for _ in 0..MAX_WITHOUT_HEADER {
            assert_eq!(throttle.admit_without_header(balancer), Ok(()));
        }
        let full = throttle.admit_without_header(balancer);
        assert_eq!(full, Err(ThrottleRefusal::TooManyUnauthenticated));
        // Another balancer has room, and so have clients, those of the same address included.
        assert_eq!(throttle.admit_without_header(source(2)), Ok(()));
        assert_eq!(throttle.admit(balancer, Duration::ZERO), Ok(()));
        throttle.header_awaited(balancer);
        assert_eq!(throttle.admit_without_header(balancer), Ok(()));
        // In all they count as what they are: not logged in.
        let mut n = 10;
        while throttle.admit(source(n), Duration::ZERO).is_ok() {
            n += 1;
        }
        assert_eq!(throttle.unauthenticated, MAX_UNAUTHENTICATED);
        let full = throttle.admit_without_header(source(3));
        assert_eq!(full, Err(ThrottleRefusal::TooManyUnauthenticated));
    }

    #[test]
    fn recent_login_keeps_a_source_in() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(source(1), Duration::ZERO), Ok(()));
        throttle.authenticated(source(1), Duration::ZERO);
        penalise(&mut throttle, source(1), Duration::ZERO);
        assert_eq!(throttle.admit(source(1), Duration::ZERO), Ok(()));
        let later = TRUST_AFTER_LOGIN;
        penalise(&mut throttle, source(1), later);
        let refused = throttle.admit(source(1), later);
        assert!(
            matches!(refused, Err(ThrottleRefusal::Penalised(_))),
            "{refused:?}"
        );
    }

    #[test]
    fn only_a_source_with_a_login_replaces_its_own() {
        let mut throttle = Throttle::default();
        assert!(!throttle.admit_instead(source(1), Duration::ZERO));
        assert_eq!(throttle.admit(source(1), Duration::ZERO), Ok(()));
        throttle.authenticated(source(1), Duration::ZERO);
        while throttle.admit(source(1), Duration::ZERO).is_ok() {}
        assert!(throttle.admit_instead(source(1), Duration::ZERO));
        assert!(!throttle.admit_instead(source(2), Duration::ZERO));
        // The one that was cut ends.
        throttle.ended(source(1), false);
        assert_eq!(throttle.sources[&source(1)], MAX_UNAUTHENTICATED_PER_SOURCE);
        // The bound of the relay as a whole holds.
        let mut n = 2;
        while throttle.admit(source(n / 8), Duration::ZERO).is_ok() || n < 16 {
            n += 1;
        }
        assert!(!throttle.admit_instead(source(1), Duration::ZERO));
    }

    #[test]
    fn exempt_networks_get_no_penalty() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        let networks = ["203.0.113.0/24", "2001:db8:7::/48"];
        let networks = networks.map(|network| network.parse().unwrap());
        let mut throttle = Throttle::new(networks.to_vec());
        for (address, is_exempt) in [
            ("203.0.113.9", true),
            ("203.0.114.9", false),
            ("2001:db8:7:1::9", true),
            ("2001:db8:8::9", false),
        ] {
            penalise(&mut throttle, of(address), Duration::ZERO);
            let admitted = throttle.admit(of(address), Duration::ZERO);
            assert_eq!(admitted.is_ok(), is_exempt, "{address}");
        }
    }

    #[test]
    fn remembered_logins_stay_bounded() {
        let mut throttle = Throttle::default();
        let sources = u32::try_from(MAX_TRUSTED_SOURCES).unwrap() + 100;
        for n in 0..sources {
            throttle.authenticated(source(n), Duration::from_millis(u64::from(n)));
        }
        assert!(throttle.logins.len() <= MAX_TRUSTED_SOURCES);
        assert!(throttle.logins.contains_key(&source(sources - 1)));
    }

    #[test]
    fn an_ipv6_customer_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn the_books_stay_bounded() {
        let mut throttle = Throttle::default();
        let sources = u32::try_from(MAX_PENALISED_SOURCES).unwrap() + 100;
        for n in 0..sources {
            throttle.penalise(source(n), PENALTY_FAILED, Duration::ZERO);
        }
        assert_eq!(throttle.penalties.len(), MAX_PENALISED_SOURCES);
    }
}
