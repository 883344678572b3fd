//! The login of one SSH connection: who may be at its other end, and by which proof.

use std::sync::Arc;

use holdfast_protocol::ids::DeviceName;
use russh::keys::{Certificate, HashAlg, PublicKey};
use russh::server::{Auth, PublicKeyOffer};
use russh::{MethodKind, MethodSet};
use tracing::info;

use super::algorithms;
use super::attempts::{Attempts, shortened};
use super::auth::{self, Principal};
use super::connection::Connection;
use super::server;
use super::target::Target;
use super::throttle::Source;
use crate::audit::{Event, EventKind};
use crate::clock::Timestamp;
use crate::limits::MAX_AUTH_FAILURES;
use crate::serve::Relay;

/// How the other end proves who it is.
pub enum Proof {
    /// By a key, on a TCP connection from this source.
    Key(Source),
    /// It is the inside of a jump: the outer connection's proof stands, and the device is fixed.
    Jump(Box<Principal>, DeviceName),
}

/// The login of one connection.
pub struct Login {
    relay: Arc<Relay>,
    connection: Arc<Connection>,
    proof: Proof,
    attempts: Arc<Attempts>,
    /// Keys that were refused. After [`MAX_AUTH_FAILURES`] of them no key is good enough.
    failures: usize,
}

impl Login {
    /// Nobody has logged in yet.
    #[must_use]
    pub fn new(relay: Arc<Relay>, connection: Arc<Connection>, proof: Proof) -> Self {
        Self {
            relay,
            connection,
            proof,
            attempts: Arc::default(),
            failures: 0,
        }
    }

    /// Counts what the other end offered as proof.
    #[must_use]
    pub fn attempts(&self) -> Arc<Attempts> {
        self.attempts.clone()
    }

    /// Whether the connection is inside a jump.
    #[must_use]
    pub fn is_inner(&self) -> bool {
        matches!(self.proof, Proof::Jump(..))
    }

    /// The other end gives a name and no proof: enough inside a jump, where the outer connection has proved
    /// who this is, and the name is the login on the device.
    pub async fn by_nothing(&self, user: &str) -> Auth {
        let Proof::Jump(principal, device) = &self.proof else {
            return only_keys();
        };
        match format!("{user}+{device}").parse::<Target>() {
            Ok(target) => self.accept((**principal).clone(), target),
            Err(error) => {
                let client = self.connection.client;
                info!(%client, %error, "jump refused");
                let event = Event::new(EventKind::UserLoginFailed).user(&**principal);
                let event = event.client(client).with("way", "jump");
                let event = event
                    .with("names", vec![shortened(user)])
                    .refused(error.to_string());
                let source = Source::of(client.ip());
                self.relay.audit.note_failure(source, event).await;
                Auth::reject()
            }
        }
    }

    /// The other end asks whether it is worth proving that it has this key. That changes nothing and proves
    /// nothing.
    pub async fn offered(&mut self, user: &str, offer: &PublicKeyOffer<'_>) -> Auth {
        let key = offer.public_key;
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        self.attempts.note(user, Some(fingerprint));
        let worth = algorithms::may_sign_with(offer.algorithm)
            && auth::is_worth_a_try(&self.relay.store, key).await;
        if worth && self.failures < MAX_AUTH_FAILURES {
            return Auth::Accept;
        }
        self.failures += 1;
        only_keys()
    }

    /// The other end proved that it has this key.
    pub async fn by_key(&mut self, user: &str, key: &PublicKey) -> Auth {
        let proved = auth::principal(&self.relay.store, key).await;
        self.admit(user, proved)
    }

    /// The other end proved that it has the key of this certificate.
    pub async fn by_certificate(&mut self, user: &str, certificate: &Certificate) -> Auth {
        let (store, client) = (&self.relay.store, self.connection.client.ip());
        let proved = auth::by_certificate(store, certificate, client, Timestamp::now()).await;
        self.admit(user, proved)
    }

    /// The client was told that it is in: it is told to the log, and the connection takes its slot. What is
    /// inside a jump was admitted with the connection around it.
    ///
    /// # Errors
    /// A sentence to disconnect with.
    pub async fn succeeded(&self) -> Result<(), String> {
        if let Some((principal, target)) = self.connection.principal() {
            // In the log before all that is recorded of this connection later: nothing waits for it here.
            let event = event(&self.proof, principal, target).client(self.connection.client);
            self.relay.audit.note(event).await;
        }
        let Proof::Key(source) = self.proof else {
            return Ok(());
        };
        server::authenticated(&self.relay, source);
        self.relay.admit(&self.connection).await
    }

    /// Lets in whom a key or certificate proved, if it proved anybody.
    fn admit(&mut self, user: &str, proved: Option<Principal>) -> Auth {
        match proved {
            // Inside a jump the outer proof stands alone.
            Some(principal) if self.failures < MAX_AUTH_FAILURES && !self.is_inner() => {
                // A name that names nothing is refused when something is opened, with a sentence; a failed
                // login would only say "permission denied".
                let target = user.parse::<Target>();
                let target = target.unwrap_or_else(|error| Target::Unusable(error.to_string()));
                self.accept(principal, target)
            }
            _ => {
                self.failures += 1;
                only_keys()
            }
        }
    }

    /// Notes who the other end is and what it asked for.
    fn accept(&self, principal: Principal, target: Target) -> Auth {
        info!(user = %principal.user.name, proof = %principal.proof,
            client = %self.connection.client, "login");
        self.connection.set_principal(principal, target);
        Auth::Accept
    }
}

/// A login, with how it was proved and by which way it came.
fn event(proof: &Proof, principal: &Principal, target: &Target) -> Event {
    let event = Event::new(EventKind::UserLogin).user(principal);
    let proved = match principal.proof {
        auth::Proof::Key(_) => "key",
        auth::Proof::Certificate(_) => "certificate",
    };
    let (way, how) = match (proof, target) {
        (Proof::Jump(..), _) => ("jump", "outer connection"),
        (Proof::Key(_), Target::Relay) => ("console", proved),
        (Proof::Key(_), _) => ("direct", proved),
    };
    let event = event.with("way", way).with("how", how);
    match target {
        Target::Device(login, device) => event.login(login).with("target", device.as_str()),
        Target::Relay | Target::Unusable(_) => event,
    }
}

fn only_keys() -> Auth {
    Auth::Reject {
        proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
        partial_success: false,
    }
}
