//! Locks: what is shut out, and which lock matches a session.

use std::fmt;
use std::net::IpAddr;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{DeviceId, Login, UserName};
use ipnet::{IpNet, Ipv4Net};

use super::role::RoleName;
use crate::clock::Timestamp;

/// The subject that a lock shuts out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LockTarget {
    /// One user.
    User(UserName),
    /// Every user who has this role, from wherever they come.
    Role(RoleName),
    /// Every session under this account, on any device.
    Login(Login),
    /// Every session on this device, under whatever name it goes.
    Device(DeviceId),
    /// Everybody who connects from these addresses.
    Address(IpNet),
}

/// A lock in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    /// Its number.
    pub id: i64,
    /// The subject that it shuts out.
    pub target: LockTarget,
    /// The reason, in the words of the user who made it; may be empty.
    pub message: String,
    /// The user who made it; `None`: a command at the relay itself.
    pub by: Option<UserName>,
    /// The time of creation.
    pub created: Timestamp,
    /// The expiry time; `None`: it lasts until it is removed.
    pub expires: Option<Timestamp>,
}

/// The connection, or the session on one, that a lock may match.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockSubject<'a> {
    /// The user.
    pub user: &'a UserName,
    /// The names of the user's roles.
    pub roles: &'a [String],
    /// The client's address.
    pub client: IpAddr,
    /// The device, if the request is about one.
    pub device: Option<DeviceId>,
    /// The account on the device, if it is known.
    pub login: Option<&'a Login>,
}

/// Returns the first of the locks that matches, at this time.
#[must_use]
pub(crate) fn first_match<'l>(
    locks: &'l [Lock],
    lock_subject: &LockSubject<'_>,
    now: Timestamp,
) -> Option<&'l Lock> {
    locks
        .iter()
        .find(|lock| lock.is_valid(now) && lock.target.is_about(lock_subject))
}

impl Lock {
    /// Returns whether it holds at this time.
    #[must_use]
    pub(crate) fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Returns the sentence that a new session is refused with.
    #[must_use]
    pub(crate) fn refusal(&self) -> String {
        let by = By(self.by.as_ref());
        let colon = Colon(&self.message);
        let until = match self.expires {
            Some(expires) => format!(", until {expires}"),
            None => String::new(),
        };
        let target = match &self.target {
            LockTarget::Device(_) => "this device".to_owned(),
            LockTarget::Login(login) => format!("account {login}"),
            other => format!("{} {}", other.kind(), other.value()),
        };
        format!(
            "{target} is locked{colon} (lock {}, by {by}{until})",
            self.id
        )
    }

    /// Returns the reason that a live session ends with.
    #[must_use]
    pub(crate) fn reason(&self) -> String {
        format!("locked by {}{}", By(self.by.as_ref()), Colon(&self.message))
    }
}

impl LockTarget {
    /// Returns the word for its kind, as in `relay lock KIND VALUE`.
    #[must_use]
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Role(_) => "role",
            Self::Login(_) => "login",
            Self::Device(_) => "device",
            Self::Address(_) => "address",
        }
    }

    /// Returns its value as text; a device's is its identifier.
    #[must_use]
    pub(crate) fn value(&self) -> String {
        match self {
            Self::User(user) => user.to_string(),
            Self::Role(role) => role.to_string(),
            Self::Login(login) => login.to_string(),
            Self::Device(device) => device.to_string(),
            Self::Address(net) if net.prefix_len() == net.max_prefix_len() => {
                net.addr().to_string()
            }
            Self::Address(net) => net.to_string(),
        }
    }

    fn is_about(&self, lock_subject: &LockSubject<'_>) -> bool {
        match self {
            Self::User(user) => user == lock_subject.user,
            Self::Role(role) => lock_subject.roles.iter().any(|name| name == role.as_str()),
            Self::Login(login) => lock_subject.login == Some(login),
            Self::Device(device) => lock_subject.device == Some(*device),
            Self::Address(net) => net.contains(&lock_subject.client.to_canonical()),
        }
    }
}

/// Returns the network that a text names: one address is a network of itself. An IPv4-mapped IPv6 address is
/// an IPv4 address.
#[must_use]
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    match text.parse::<IpNet>() {
        Ok(net) => Some(unmapped(net.trunc())),
        Err(_) => address(text).map(IpNet::from),
    }
}

/// Returns a network of IPv4-mapped IPv6 addresses as the one of IPv4 that it is: addresses are compared so.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(six) = net else {
        return net;
    };
    let four = six.network().to_ipv4_mapped();
    let length = six.prefix_len().checked_sub(96);
    let four = four.zip(length);
    let four = four.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    four.map_or(net, IpNet::V4)
}

/// Returns what a network should be written as, if the text has bits beyond its prefix: a slip of the pen that may mean
/// far more than the one address.
#[must_use]
pub(crate) fn with_excess_bits(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok()?;
    (network != network.trunc()).then(|| network.trunc())
}

/// The user who made it, for a sentence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By<'a>(pub Option<&'a UserName>);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(user) => user.fmt(f),
            None => f.write_str("the relay's administrator"),
        }
    }
}

/// `: MESSAGE`, or nothing if there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Colon<'a>(pub &'a str);

impl fmt::Display for Colon<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            message => write!(f, ": {}", Escaped(message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_795_323_960_000_000);

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    fn lock(target: LockTarget) -> Lock {
        Lock {
            id: 41,
            target,
            message: "laptop reported stolen".into(),
            by: Some(user("bob")),
            created: NOW,
            expires: Some(Timestamp(NOW.0 + 86_400_000_000)),
        }
    }

    fn address(text: &str) -> LockTarget {
        LockTarget::Address(network(text).unwrap())
    }

    #[test]
    fn a_lock_hits_what_it_names_and_nothing_else() {
        let (alice, pi) = (user("alice"), Login::new("pi").unwrap());
        let roles = ["operator".to_owned(), "gone".to_owned()];
        let session = LockSubject {
            user: &alice,
            roles: &roles,
            client: "203.0.113.7".parse().unwrap(),
            device: Some(DeviceId([1; 16])),
            login: Some(&pi),
        };
        let connection = LockSubject {
            device: None,
            login: None,
            ..session
        };
        let role = |name: &str| LockTarget::Role(RoleName::new(name).unwrap());
        let login = |name: &str| LockTarget::Login(Login::new(name).unwrap());
        // target, matches the session, matches the mere connection
        let table = [
            (LockTarget::User(user("alice")), true, true),
            (LockTarget::User(user("alic")), false, false),
            (role("operator"), true, true),
            // A role that there is not any more still names who had it.
            (role("gone"), true, true),
            (role("admin"), false, false),
            (login("pi"), true, false),
            (login("root"), false, false),
            (LockTarget::Device(DeviceId([1; 16])), true, false),
            (LockTarget::Device(DeviceId([2; 16])), false, false),
            (address("203.0.113.7"), true, true),
            (address("203.0.113.0/24"), true, true),
            (address("::ffff:203.0.113.0/120"), true, true),
            (address("::ffff:203.0.114.0/120"), false, false),
            (address("203.0.113.99/24"), true, true),
            (address("::ffff:203.0.113.7"), true, true),
            (address("203.0.113.8"), false, false),
            (address("::/0"), false, false),
        ];
        for (target, hits_session, hits_connection) in table {
            let locks = [lock(target)];
            assert_eq!(
                first_match(&locks, &session, NOW).is_some(),
                hits_session,
                "{locks:?}"
            );
            assert_eq!(
                first_match(&locks, &connection, NOW).is_some(),
                hits_connection,
                "{locks:?}"
            );
        }
        let mapped = LockSubject {
            client: "::ffff:203.0.113.7".parse().unwrap(),
            ..session
        };
        assert!(first_match(&[lock(address("203.0.113.0/24"))], &mapped, NOW).is_some());
    }

    #[test]
    fn a_lock_ends_when_it_says_so() {
        let mut lock = lock(LockTarget::User(user("alice")));
        let expires = lock.expires.unwrap();
        assert!(lock.is_valid(Timestamp(expires.0 - 1)) && !lock.is_valid(expires));
        lock.expires = None;
        assert!(lock.is_valid(Timestamp(i64::MAX)));
    }

    #[test]
    fn the_sentences_say_who_and_why() {
        let mut lock = lock(LockTarget::User(user("alice")));
        assert_eq!(
            lock.refusal(),
            "user alice is locked: laptop reported stolen (lock 41, by bob, until 2026-11-23 05:06 UTC)"
        );
        assert_eq!(lock.reason(), "locked by bob: laptop reported stolen");
        (lock.message, lock.by, lock.expires) = (String::new(), None, None);
        assert_eq!(
            lock.refusal(),
            "user alice is locked (lock 41, by the relay's administrator)"
        );
        assert_eq!(lock.reason(), "locked by the relay's administrator");
        for (target, said) in [
            (LockTarget::Login(Login::new("pi").unwrap()), "account pi"),
            (LockTarget::Device(DeviceId([1; 16])), "this device"),
            (address("203.0.113.99/24"), "address 203.0.113.0/24"),
        ] {
            lock.target = target;
            let refusal = lock.refusal();
            assert!(
                refusal.starts_with(&format!("{said} is locked (")),
                "{refusal}"
            );
        }
        lock.message = "a\u{1b}[2J\r\n".into();
        assert!(!lock.refusal().contains(['\u{1b}', '\r', '\n']));
    }

    fn arbitrary_target() -> impl Strategy<Value = LockTarget> {
        prop_oneof![
            "[ab]".prop_map(|name| LockTarget::User(user(&name))),
            "[rs]".prop_map(|name| LockTarget::Role(RoleName::new(&name).unwrap())),
            "[xy]".prop_map(|name| LockTarget::Login(Login::new(&name).unwrap())),
            (0u8..2).prop_map(|id| LockTarget::Device(DeviceId([id; 16]))),
            (0u8..4, 30u8..=32)
                .prop_map(|(last, length)| { address(&format!("192.0.2.{last}/{length}")) }),
        ]
    }

    proptest! {
        /// Compares with a naive model over a small world.
        #[test]
        fn a_hit_is_what_the_model_says(
            targets in proptest::collection::vec((arbitrary_target(), -2i64..3), 0..6),
            name in "[ab]", has_r: bool, login in "[xy]", device in 0u8..2, last in 0u8..4,
        ) {
            let locks: Vec<Lock> = targets.iter().map(|(target, ttl)| Lock {
                expires: Some(Timestamp(NOW.0 + ttl)), ..lock(target.clone())
            }).collect();
            let (user, login) = (user(&name), Login::new(&login).unwrap());
            let roles = if has_r { vec!["r".to_owned()] } else { vec![] };
            let lock_subject = LockSubject {
                user: &user, roles: &roles, client: IpAddr::from([192, 0, 2, last]),
                device: Some(DeviceId([device; 16])), login: Some(&login),
            };
            let expected = targets.iter().any(|(target, ttl)| *ttl > 0 && match target {
                LockTarget::User(locked) => *locked == user,
                LockTarget::Role(role) => has_r && role.as_str() == "r",
                LockTarget::Login(locked) => *locked == login,
                LockTarget::Device(locked) => locked.0[0] == device,
                LockTarget::Address(net) => {
                    let shift = 32 - net.prefix_len();
                    let IpAddr::V4(base) = net.addr() else { unreachable!() };
                    base.octets()[3] >> shift == last >> shift
                }
            });
            prop_assert_eq!(first_match(&locks, &lock_subject, NOW).is_some(), expected);
        }
    }
}
