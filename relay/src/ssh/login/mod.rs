//! The login of one SSH connection: who may be at its other end, and by which proof.

pub(crate) mod attempts;

use std::sync::Arc;

use holdfast_protocol::ids::DeviceName;
use russh::keys::{Certificate, HashAlg, PublicKey};
use russh::server::{Auth, PublicKeyOffer};
use russh::{MethodKind, MethodSet};
use tracing::info;

use super::algorithms;
use super::connection::Connection;
use crate::audit::{Event, EventKind};
use crate::clock::Timestamp;
use crate::identity::{self as auth, Principal, StoreUnanswered};
use crate::log_limit::{self, LimitedLine};
use crate::model::source::Source;
use crate::session::client::target::SshTarget;
use crate::session::refusal::Refusal;
use crate::ssh::Front;
use crate::ssh::limits::{MAX_AUTH_FAILURES, MAX_KEY_OFFERS};
use crate::ssh::login::attempts::{Attempts, shortened};

/// The sentence for a client whose key cannot be looked up.
const STORE_UNANSWERED: &str = "the relay's database does not answer, so no login is possible: try again in a minute, or \
    ask who runs the relay, whose log has the cause";

/// The way in which the other end proves its identity.
pub(crate) enum LoginProof {
    /// A key, on a TCP connection from this source.
    Key(Source),
    /// It is the inside of a jump: the outer connection's proof counts, and the device is fixed.
    Jump(Box<Principal>, DeviceName),
}

/// The login of one connection.
pub(crate) struct Login {
    front: Arc<Front>,
    connection: Arc<Connection>,
    proof: LoginProof,
    attempts: Arc<Attempts>,
    /// Keys that were offered. After [`MAX_KEY_OFFERS`] of them no key is good enough.
    offers: usize,
    /// True if the connection is about to end, for its many keys or without the store.
    is_ending: bool,
}

impl Login {
    /// Creates the state before any user is authenticated.
    #[must_use]
    pub(crate) fn new(front: Arc<Front>, connection: Arc<Connection>, proof: LoginProof) -> Self {
        Self {
            front,
            connection,
            proof,
            attempts: Arc::default(),
            offers: 0,
            is_ending: false,
        }
    }

    /// Counts what the other end offered as proof.
    #[must_use]
    pub(crate) fn attempts(&self) -> Arc<Attempts> {
        self.attempts.clone()
    }

    /// Returns the banner: without the store, why no login is possible. A client with one key hears nothing else.
    #[must_use]
    pub(crate) fn banner(&self) -> Option<String> {
        (!self.front.sessions.store.answers()).then(|| format!("{STORE_UNANSWERED}\r\n"))
    }

    /// Handles a name without a proof: enough inside a jump, where the outer connection has proved
    /// who this is, and the name is the login on the device.
    pub(crate) async fn by_nothing(&self, user: &str) -> Auth {
        let LoginProof::Jump(principal, device) = &self.proof else {
            return only_keys();
        };
        match format!("{user}+{device}").parse::<SshTarget>() {
            Ok(target) => self.accept((**principal).clone(), target),
            Err(error) => {
                let event = Event::new(EventKind::UserLoginFailed);
                let event = event.with("names", vec![shortened(user)]);
                self.jump_refused(principal, event, error.to_string()).await;
                Auth::reject()
            }
        }
    }

    /// Notes that a jump came to nothing.
    async fn jump_refused(&self, principal: &Principal, event: Event, why: String) {
        let client = self.connection.client.address;
        let source = Source::of(client.ip());
        if let Some(left_out) = log_limit::admits(LimitedLine::Jump, source) {
            info!(%client, user = %principal.user.name, left_out, "jump refused: {why}");
        }
        let event = event.user(principal).client(client).with("way", "jump");
        self.front
            .audit
            .note_failure(source, event.refused(why))
            .await;
    }

    /// Handles the question whether it is worth proving a key. That changes nothing and proves
    /// nothing.
    pub(crate) async fn offered(&mut self, user: &str, offer: &PublicKeyOffer<'_>) -> Auth {
        let key = offer.public_key;
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        self.attempts.note(user, Some(fingerprint));
        self.offers += 1;
        if self.is_exhausted() {
            return self.refuse();
        }
        if !algorithms::may_sign_with(offer.algorithm) {
            return self.refuse();
        }
        match auth::is_worth_a_try(&self.front.sessions.store, key).await {
            Ok(true) => Auth::Accept,
            Ok(false) => self.refuse(),
            Err(StoreUnanswered) => self.refuse_unknown(),
        }
    }

    /// Counts a signature that does not fit a key that was worth proving. The client hears that it is refused.
    pub(crate) fn signature_wrong(&self) {
        self.attempts.note_wrong_signature();
    }

    /// Handles the proof of a key.
    pub(crate) async fn by_key(&mut self, user: &str, key: &PublicKey) -> Auth {
        let proved = auth::principal(&self.front.sessions.store, key).await;
        self.admit(user, proved).await
    }

    /// Handles the proof of the key of a certificate.
    pub(crate) async fn by_certificate(&mut self, user: &str, certificate: &Certificate) -> Auth {
        let (store, client) = (
            &self.front.sessions.store,
            self.connection.client.address.ip(),
        );
        let proved = auth::by_certificate(store, certificate, client, Timestamp::now()).await;
        self.admit(user, proved).await
    }

    /// Notes a certificate that the SSH library refuses before its key is proved.
    pub(crate) async fn certificate_refused(&self, certificate: &Certificate) {
        if !self.is_exhausted() {
            let (store, client) = (
                &self.front.sessions.store,
                self.connection.client.address.ip(),
            );
            auth::note_refused(store, certificate, client, Timestamp::now()).await;
        }
    }

    /// Notes that the client was authenticated: it is recorded in the log, and the connection takes its slot. What is
    /// inside a jump was admitted with the connection around it.
    ///
    /// # Errors
    /// A sentence to disconnect with.
    pub(crate) async fn succeeded(&self) -> Result<(), Refusal> {
        if let Some((principal, target)) = self.connection.principal() {
            // In the log before all that is recorded of this connection later: nothing waits for it here.
            let event =
                event(&self.proof, principal, target).client(self.connection.client.address);
            self.front.audit.note(event).await;
        }
        let LoginProof::Key(source) = self.proof else {
            return Ok(());
        };
        self.front.connections.authenticated(source);
        log_limit::forget(source);
        self.front.sessions.admit(&self.connection.client).await
    }

    /// Admits the user that a key or certificate proved, if it proved any.
    async fn admit(
        &mut self,
        user: &str,
        proved: Result<Option<Principal>, StoreUnanswered>,
    ) -> Auth {
        let Ok(proved) = proved else {
            return self.refuse_unknown();
        };
        let Some(proved) = proved.filter(|_| !self.is_exhausted()) else {
            return self.refuse();
        };
        match &self.proof {
            LoginProof::Key(_) => {
                // A name that names nothing is refused when something is opened, with a sentence; a failed
                // login would only say "permission denied".
                let target = user.parse::<SshTarget>();
                let target = target.unwrap_or_else(SshTarget::Unusable);
                self.accept(proved, target)
            }
            // It proves nothing new: what is permitted follows from the outer proof.
            LoginProof::Jump(outer, _) if outer.user.id == proved.user.id => {
                self.by_nothing(user).await
            }
            LoginProof::Jump(outer, _) => {
                let event = Event::new(EventKind::UserLoginFailed);
                let event = event.with("keys", vec![proved.proof.fingerprint()]);
                let why = format!(
                    "the key is of user \"{}\", and the connection around it of \"{}\"",
                    proved.user.name, outer.user.name
                );
                self.jump_refused(outer, event, why).await;
                self.refuse()
            }
        }
    }

    /// Returns whether no key is good enough any more.
    fn is_exhausted(&self) -> bool {
        self.offers > MAX_KEY_OFFERS || self.attempts.wrong_signatures() >= MAX_AUTH_FAILURES
    }

    /// Refuses a key. After as many keys as may be offered, the client hears why no other one is looked at: the
    /// usual reason is an agent with many keys.
    fn refuse(&mut self) -> Auth {
        if self.offers >= MAX_KEY_OFFERS {
            self.end(too_many_keys());
        }
        only_keys()
    }

    /// Refuses a key of which nothing is known, because the store did not answer: not for the key's sake, so the
    /// client hears it. The database and its error are in the relay's log alone.
    fn refuse_unknown(&mut self) -> Auth {
        self.attempts.note_unanswered();
        self.end(STORE_UNANSWERED.to_owned());
        only_keys()
    }

    /// Ends the connection with a sentence.
    fn end(&mut self, why: String) {
        if !self.is_ending {
            self.is_ending = true;
            let connection = self.connection.clone();
            // russh sends it when this handler has returned.
            tokio::spawn(async move { connection.client.close(&why).await });
        }
    }

    /// Notes who the other end is and what it asked for.
    fn accept(&self, principal: Principal, target: SshTarget) -> Auth {
        info!(user = %principal.user.name, proof = %principal.proof,
            client = %self.connection.client.address, "login");
        self.connection.set_principal(principal, target);
        Auth::Accept
    }
}

/// Returns the text with which a client that offered too many keys is disconnected.
fn too_many_keys() -> String {
    format!(
        "no user has any of the {MAX_KEY_OFFERS} keys that were offered, and no more are looked at: name yours with \
         `ssh -i KEY -o IdentitiesOnly=yes`"
    )
}

/// Returns the event of a login, with how it was proved and by which way it came.
fn event(proof: &LoginProof, principal: &Principal, target: &SshTarget) -> Event {
    let event = Event::new(EventKind::UserLogin).user(principal);
    let proved = match principal.proof {
        auth::Proof::Key(_) => "key",
        auth::Proof::Certificate(_) => "certificate",
    };
    let (way, how) = match (proof, target) {
        (LoginProof::Jump(..), _) => ("jump", "outer connection"),
        (LoginProof::Key(_), SshTarget::Relay) => ("console", proved),
        (LoginProof::Key(_), _) => ("direct", proved),
    };
    let event = event.with("way", way).with("how", how);
    match target {
        SshTarget::Device(login, device) => event.login(login).with("target", device.as_str()),
        SshTarget::Relay | SshTarget::Unusable(_) => event,
    }
}

fn only_keys() -> Auth {
    Auth::Reject {
        proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
        partial_success: false,
    }
}
