//! The quotas of one user. Counting is the store's, in one transaction with the taking; the meaning of the count is
//! decided here.

use std::fmt;
use std::num::NonZeroU32;

use holdfast_protocol::ids::UserName;
use thiserror::Error;

use super::role::Limits;

/// The kind of thing that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Quota {
    /// SSH connections of one user, over all relays. A jump is one: what runs inside it is not counted again.
    Connections,
    /// Session channels of one user to devices, over all connections: shells, commands and sftp. The console
    /// does not count, so that who is at the limit can still see and end what there is.
    Sessions,
    /// Channels of one connection, of whatever kind.
    Channels,
}

/// There is no room for one more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) struct Full {
    /// The user.
    pub user: UserName,
    /// The quota.
    pub quota: Quota,
    /// The maximum.
    pub max: NonZeroU32,
}

impl Quota {
    /// Returns the limit of this kind; `None`: there is none.
    #[must_use]
    pub(crate) fn limit(self, limits: &Limits) -> Option<NonZeroU32> {
        match self {
            Self::Connections => limits.max_connections,
            Self::Sessions => limits.max_sessions,
            Self::Channels => limits.max_channels,
        }
    }

    /// Checks whether there may be one more besides those in use. A limit that was lowered below what is in use
    /// ends nothing: it only admits nothing more.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn admit(
        self,
        limit: Option<NonZeroU32>,
        in_use: u32,
        user: &UserName,
    ) -> Result<(), Full> {
        match limit {
            Some(max) if in_use >= max.get() => Err(Full {
                user: user.clone(),
                quota: self,
                max,
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, quota, max } = self;
        match quota {
            Quota::Connections => write!(
                f,
                "too many concurrent connections for user \"{user}\" (max {max})"
            ),
            Quota::Sessions => write!(
                f,
                "too many concurrent sessions for user \"{user}\" (max {max})"
            ),
            Quota::Channels => write!(
                f,
                "too many channels on one connection of user \"{user}\" (max {max})"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Quota; 3] = [Quota::Connections, Quota::Sessions, Quota::Channels];

    fn alice() -> UserName {
        UserName::new("alice").unwrap()
    }

    fn limit(max: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(max)
    }

    #[test]
    fn a_limit_admits_up_to_itself() {
        let table = [
            (0, 0, true),
            (0, u32::MAX, true),
            (1, 0, true),
            (1, 1, false),
            (3, 2, true),
            (3, 3, false),
            // Lowered below what is in use.
            (3, 50, false),
            (u32::MAX, u32::MAX, false),
        ];
        for (max, in_use, admitted) in table {
            for quota in ALL {
                let said = quota.admit(limit(max), in_use, &alice());
                assert_eq!(said.is_ok(), admitted, "{quota:?} {max} {in_use}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_limit() {
        let said = |quota: Quota| quota.admit(limit(3), 3, &alice()).unwrap_err().to_string();
        assert_eq!(
            said(Quota::Connections),
            "too many concurrent connections for user \"alice\" (max 3)"
        );
        assert_eq!(
            said(Quota::Sessions),
            "too many concurrent sessions for user \"alice\" (max 3)"
        );
        assert_eq!(
            said(Quota::Channels),
            "too many channels on one connection of user \"alice\" (max 3)"
        );
    }

    proptest! {
        /// Compares with a naive model: takes and releases in any order, with a limit that changes on the way.
        #[test]
        fn no_order_gets_past_the_limit(steps in proptest::collection::vec((0u8..4, 0u32..6), 0..200)) {
            let (mut in_use, mut max) = (0_u32, 3_u32);
            for (what, number) in steps {
                match what {
                    0 | 1 => {
                        let admitted = Quota::Sessions.admit(limit(max), in_use, &alice()).is_ok();
                        prop_assert_eq!(admitted, max == 0 || in_use < max);
                        in_use += u32::from(admitted);
                    }
                    2 => in_use = in_use.saturating_sub(1),
                    _ => max = number,
                }
            }
        }
    }
}
