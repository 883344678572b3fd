//! The order of the control stream: what each end may say, when, and how often. The relay checks each message with
//! [`ControlOrder`] before it means anything, the agent with [`RelayOrder`].

use thiserror::Error;

use crate::wire::{AgentMessage, Intent, RelayMessage};

/// A message that has no place where it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlViolation {
    /// Anything before `Hello`.
    #[error("another message before its Hello")]
    BeforeHello,
    /// A second `Hello`, or what belongs before the first.
    #[error("a second Hello")]
    HelloTwice,
    /// Something else than `Enrol` of an agent that joins.
    #[error("another message than its Enrol")]
    NotEnrol,
    /// An `Enrol` of an agent that does not join, or a second one.
    #[error("an unexpected Enrol")]
    Enrol,
}

/// The order of an agent's messages: at most one `Instance`, one `Hello`; then, to join, one `Enrol` and nothing more,
/// or, to stand as a tunnel, `Beat` as often as it likes. A relay that joins the cluster says `EnrolRelay` for `Enrol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ControlOrder {
    /// Nothing has come.
    #[default]
    AwaitHello,
    /// It has said which run of the agent it is.
    AwaitHelloOfRun,
    /// It joins.
    AwaitEnrol,
    /// It is a relay, and joins.
    AwaitEnrolRelay,
    /// It has asked for membership, and says no more.
    Enrolling,
    /// It is a tunnel.
    Standing,
}

impl ControlOrder {
    /// Handles a message.
    ///
    /// # Errors
    /// [`ControlViolation`]; the connection cannot go on.
    pub fn handle(&mut self, message: &AgentMessage) -> Result<(), ControlViolation> {
        *self = match (*self, message) {
            (Self::AwaitHello, AgentMessage::Instance(_)) => Self::AwaitHelloOfRun,
            (Self::AwaitHello | Self::AwaitHelloOfRun, AgentMessage::Hello(hello)) => {
                match hello.intent {
                    Intent::Join => Self::AwaitEnrol,
                    Intent::Run => Self::Standing,
                    Intent::JoinRelay => Self::AwaitEnrolRelay,
                }
            }
            (Self::AwaitHello | Self::AwaitHelloOfRun, _) => {
                return Err(ControlViolation::BeforeHello);
            }
            (_, AgentMessage::Hello(_) | AgentMessage::Instance(_)) => {
                return Err(ControlViolation::HelloTwice);
            }
            (Self::AwaitEnrol, AgentMessage::Enrol(_))
            | (Self::AwaitEnrolRelay, AgentMessage::EnrolRelay(_)) => Self::Enrolling,
            (Self::AwaitEnrol | Self::AwaitEnrolRelay, _) => {
                return Err(ControlViolation::NotEnrol);
            }
            (Self::Standing, AgentMessage::Beat(_)) => Self::Standing,
            (
                Self::Standing | Self::Enrolling,
                AgentMessage::Enrol(_) | AgentMessage::EnrolRelay(_),
            )
            | (Self::Enrolling, AgentMessage::Beat(_)) => return Err(ControlViolation::Enrol),
        };
        Ok(())
    }
}

/// A message of the relay that is not due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a message that is not due")]
pub struct NotDue;

/// The order of a relay's messages: the answers to `Hello` and `Enrol`, each once, and on a tunnel a `Roster`, `Drain`,
/// `Renamed` or `Echo` at any time. A `Refused` in place of any of them is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayOrder {
    /// The `Identity` is due.
    AwaitIdentity,
    /// The `Enrolled` is due, and a `ReleaseKey` may come before it.
    AwaitGrant,
    /// The `Enrolled` is due.
    AwaitEnrolled,
    /// The `Identity` is due, for a relay that joins.
    AwaitIdentityForRelay,
    /// The `EnrolledRelay` is due.
    AwaitEnrolledRelay,
    /// The `Welcome` is due.
    AwaitWelcome,
    /// The tunnel is established.
    Established,
    /// Nothing more is due.
    Over,
}

impl RelayOrder {
    /// Returns the order behind a `Hello` with this intent.
    #[must_use]
    pub const fn new(intent: Intent) -> Self {
        match intent {
            Intent::Join => Self::AwaitIdentity,
            Intent::Run => Self::AwaitWelcome,
            Intent::JoinRelay => Self::AwaitIdentityForRelay,
        }
    }

    /// Handles a message. One that is not due changes nothing.
    ///
    /// # Errors
    /// [`NotDue`].
    pub fn handle(&mut self, message: &RelayMessage) -> Result<(), NotDue> {
        *self = match (*self, message) {
            (Self::Over, _) => return Err(NotDue),
            (_, RelayMessage::Refused(_)) => Self::Over,
            (Self::AwaitIdentity, RelayMessage::Identity(_)) => Self::AwaitGrant,
            (Self::AwaitGrant, RelayMessage::ReleaseKey(_)) => Self::AwaitEnrolled,
            (Self::AwaitGrant | Self::AwaitEnrolled, RelayMessage::Enrolled(_)) => Self::Over,
            (Self::AwaitIdentityForRelay, RelayMessage::Identity(_)) => Self::AwaitEnrolledRelay,
            (Self::AwaitEnrolledRelay, RelayMessage::EnrolledRelay(_)) => Self::Over,
            (Self::AwaitWelcome, RelayMessage::Welcome(_)) => Self::Established,
            (
                Self::Established,
                RelayMessage::Roster(_)
                | RelayMessage::Drain(_)
                | RelayMessage::Renamed(_)
                | RelayMessage::Echo,
            ) => Self::Established,
            _ => return Err(NotDue),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::release::ReleaseKey;
    use crate::identity::roster::SignedRoster;
    use crate::identity::token::TokenSecret;
    use crate::ids::{DeviceId, DeviceName, PublicKey};
    use crate::wire::{
        Beat, Enrol, EnrolRelay, Hello, Instance, MembershipGrant, Refusal, RelayGrant,
    };
    use alloc::string::String;
    use alloc::vec;

    fn hello(intent: Intent) -> AgentMessage {
        AgentMessage::Hello(Hello {
            minor: 0,
            intent,
            agent_version: String::new(),
            target: String::new(),
            keepalive_secs: 25,
            clock: 0,
            local_address: None,
        })
    }

    fn enrol() -> AgentMessage {
        AgentMessage::Enrol(Enrol {
            secret: TokenSecret([0; 20]),
            name: None,
            labels: vec![],
        })
    }

    #[test]
    fn answers_of_a_relay_are_due_once() {
        let roster = SignedRoster {
            body: vec![],
            signature: vec![],
        };
        let identity = RelayMessage::Identity(roster.clone());
        let key = RelayMessage::ReleaseKey(ReleaseKey {
            id: [1; 8],
            key: PublicKey([2; 32]),
        });
        let refused = RelayMessage::Refused(Refusal::UnknownDevice);
        let enrolled = RelayMessage::Enrolled(MembershipGrant {
            id: DeviceId([3; 16]),
            name: DeviceName::new("kitchen-cam").unwrap(),
            roster: roster.clone(),
        });
        let mut join = RelayOrder::new(Intent::Join);
        for (message, due) in [
            (&key, false),
            (&enrolled, false),
            (&identity, true),
            (&identity, false),
            (&RelayMessage::Echo, false),
            (&key, true),
            (&key, false),
            (&enrolled, true),
            (&enrolled, false),
            (&refused, false),
        ] {
            assert_eq!(join.handle(message).is_ok(), due, "{message:?}");
        }
        let granted = RelayMessage::EnrolledRelay(RelayGrant {
            member: [1; 16],
            name: String::new(),
            keys: vec![],
        });
        assert_eq!(RelayOrder::AwaitGrant.handle(&granted), Err(NotDue));
        let mut relay = RelayOrder::new(Intent::JoinRelay);
        for (message, due) in [
            (&granted, false),
            (&identity, true),
            (&enrolled, false),
            (&granted, true),
            (&granted, false),
        ] {
            assert_eq!(relay.handle(message).is_ok(), due, "{message:?}");
        }
        let mut run = RelayOrder::new(Intent::Run);
        assert_eq!(run.handle(&RelayMessage::Roster(roster)), Err(NotDue));
        assert_eq!(run.handle(&identity), Err(NotDue));
        assert_eq!(run.handle(&refused), Ok(()));
        assert_eq!(run.handle(&RelayMessage::Drain(0)), Err(NotDue));
    }

    const BEAT: AgentMessage = AgentMessage::Beat(Beat { echo: false });

    #[test]
    fn each_message_has_its_place() {
        let mut run = ControlOrder::default();
        assert_eq!(run.handle(&BEAT), Err(ControlViolation::BeforeHello));
        assert_eq!(run.handle(&enrol()), Err(ControlViolation::BeforeHello));
        assert_eq!(run.handle(&hello(Intent::Run)), Ok(()));
        for _ in 0..3 {
            assert_eq!(run.handle(&BEAT), Ok(()));
        }
        for intent in [Intent::Run, Intent::Join] {
            let again = run.handle(&hello(intent));
            assert_eq!(again, Err(ControlViolation::HelloTwice));
        }
        assert_eq!(run.handle(&enrol()), Err(ControlViolation::Enrol));
        let instance = AgentMessage::Instance(Instance {
            id: [1; 16],
            machine: None,
        });
        assert_eq!(run.handle(&instance), Err(ControlViolation::HelloTwice));
        let mut member = ControlOrder::default();
        assert_eq!(member.handle(&instance), Ok(()));
        assert_eq!(member.handle(&instance), Err(ControlViolation::BeforeHello));
        assert_eq!(member.handle(&hello(Intent::Run)), Ok(()));
        let mut join = ControlOrder::default();
        assert_eq!(join.handle(&hello(Intent::Join)), Ok(()));
        assert_eq!(join.handle(&BEAT), Err(ControlViolation::NotEnrol));
        assert_eq!(join.handle(&enrol()), Ok(()));
        assert_eq!(join.handle(&enrol()), Err(ControlViolation::Enrol));
        assert_eq!(join.handle(&BEAT), Err(ControlViolation::Enrol));

        // A device's token gives no relay's keys, and the other way round.
        let enrol_relay = AgentMessage::EnrolRelay(EnrolRelay {
            secret: TokenSecret([0; 20]),
            public: String::new(),
        });
        let mut join = ControlOrder::default();
        assert_eq!(join.handle(&hello(Intent::Join)), Ok(()));
        assert_eq!(join.handle(&enrol_relay), Err(ControlViolation::NotEnrol));
        let mut relay = ControlOrder::default();
        assert_eq!(relay.handle(&hello(Intent::JoinRelay)), Ok(()));
        assert_eq!(relay.handle(&enrol()), Err(ControlViolation::NotEnrol));
        assert_eq!(relay.handle(&enrol_relay), Ok(()));
        assert_eq!(relay.handle(&enrol_relay), Err(ControlViolation::Enrol));
        assert_eq!(run.handle(&enrol_relay), Err(ControlViolation::Enrol));
    }
}
