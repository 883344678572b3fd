//! Bounds of the SSH front end, each with its reason.

use std::time::Duration;

/// Wrong signatures on one SSH connection: no client signs wrongly by mistake, and none needs a second try.
pub(crate) const MAX_AUTH_FAILURES: usize = 6;

/// Keys that one SSH connection may offer. OpenSSH's server takes six, which locks out users with more keys in
/// their agent; each offer costs a look-up by an index and [`AUTH_REJECTION_TIME`].
pub(crate) const MAX_KEY_OFFERS: usize = 32;

/// Bytes that a peer may send before it has authenticated: a handshake with a large key and six attempts
/// takes less than a tenth.
pub(crate) const MAX_UNAUTHENTICATED_BYTES: u64 = 512 * 1024;

/// Every rejected authentication takes at least so long, so that its time tells nothing.
pub(crate) const AUTH_REJECTION_TIME: Duration = Duration::from_millis(50);

/// SSH connections in all: each costs about 100 KiB.
pub(crate) const MAX_CONNECTIONS: usize = 10_000;

/// SSH connections that have not authenticated yet, of all sources (`MaxStartups`).
pub(crate) const MAX_UNAUTHENTICATED: usize = 512;

/// The same of one source: an IPv4 address or an IPv6 /64.
pub(crate) const MAX_UNAUTHENTICATED_PER_SOURCE: usize = 64;

/// The time in which the header of a connection from a load balancer has to come. A balancer sends it with the first
/// packet; what is later is on no way through a balancer.
pub(crate) const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of such a header: addresses take 52, and what balancers add (names, certificates' subjects, ids of networks)
/// some hundred.
pub(crate) const MAX_PROXY_HEADER: usize = 1_024;

/// Connections of one balancer whose header has not come: half of [`MAX_UNAUTHENTICATED`], so that one that sends none
/// leaves room for others.
pub(crate) const MAX_WITHOUT_HEADER: usize = 256;

/// Sources that are remembered for their penalties; above it the one that ends soonest is forgotten.
pub(crate) const MAX_PENALISED_SOURCES: usize = 16_384;

/// A connection with a wrong signature costs its source so much time (as `PerSourcePenalties authfail`). Keys that are
/// refused and connections without an attempt cost nothing: an address is shared by many people.
pub(crate) const PENALTY_FAILED: Duration = Duration::from_secs(5);

/// A source is not kept out for so long after a login from it: who works there is not shut out for a neighbor.
pub(crate) const TRUST_AFTER_LOGIN: Duration = Duration::from_secs(3600);

/// Sources whose last login is remembered; above it the one with the oldest login is forgotten.
pub(crate) const MAX_TRUSTED_SOURCES: usize = 16_384;

/// Refused connections that are kept open for a moment, so that their clients read why; others are closed at once.
pub(crate) const MAX_LINGERING_REFUSALS: usize = 64;

/// The time that such a connection is kept open.
pub(crate) const REFUSAL_LINGER: Duration = Duration::from_secs(2);

/// Penalties count only from here on.
pub(crate) const PENALTY_MINIMUM: Duration = Duration::from_secs(60);

/// No source is kept out longer.
pub(crate) const PENALTY_MAXIMUM: Duration = Duration::from_secs(600);

/// Requests of one SSH connection for proofs of host keys. OpenSSH's client sends one at most; each costs a signature a
/// key.
pub(crate) const MAX_HOST_KEY_PROOFS: usize = 4;

/// See [`SSH_WINDOW`](crate::session::limits::SSH_WINDOW).
pub(crate) const SSH_PACKET: u32 = 32 * 1024;

/// russh's queue of outgoing messages of one connection, of at most 32 KiB each.
pub(crate) const SSH_EVENTS: usize = 16;

/// Environment variables that one channel may ask for, those that are not allowed included.
pub(crate) const MAX_ENV_REQUESTS: usize = 256;

/// Host certificates of the jump way that are kept ready.
pub(crate) const MAX_HOST_CERTIFICATES: usize = 1_024;

/// The time that a host certificate is valid. It is made anew at every start of the relay.
pub(crate) const HOST_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time that one console command may take, its input and the reading of its answer included.
pub(crate) const CONSOLE_TIMEOUT: Duration = Duration::from_secs(60);

/// An operator's client that is silent for so long is asked whether it lives (`ClientAliveInterval`);
/// after [`SSH_KEEPALIVE_MAX`] questions without an answer its connection is closed.
pub(crate) const SSH_KEEPALIVE: Duration = Duration::from_secs(60);

/// See [`SSH_KEEPALIVE`].
pub(crate) const SSH_KEEPALIVE_MAX: usize = 3;

/// The time that a connection that was ordered to end may take before its socket is closed.
pub(crate) const DISCONNECT_GRACE: Duration = Duration::from_secs(1);

/// The time that the wait for an overlong sentence of a connection's life may be: bytes of a description.
pub(crate) const MAX_DESCRIPTION: usize = 1_024;

/// Names and keys that are kept of one connection that does not log in: as many as it may try.
pub(crate) const MAX_TRIED: usize = MAX_AUTH_FAILURES;

/// Bytes that are kept of a name that was tried: longer ones are no user's.
pub(crate) const MAX_TRIED_NAME: usize = 256;

/// Sentences that a channel's client reads before anything runs on it: a flood of refused requests is not answered with
/// a flood of words.
pub(crate) const MAX_CHANNEL_SENTENCES: usize = 8;

/// Characters of a variable's name in such a sentence.
pub(crate) const MAX_SHOWN_VARIABLE: usize = 64;

/// Characters of a sentence that waits for a connection's next session: it may quote a path of any length.
pub(crate) const MAX_SHOWN_SENTENCE: usize = 512;
