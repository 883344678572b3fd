//! Reads an OpenSSH user certificate (PROTOCOL.certkeys): the user that it identifies, and what it permits. The rules
//! are those of OpenSSH's server for authorities that it trusts (`TrustedUserCAKeys`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::limits::{MAX_COMMAND, MAX_ORIGINAL_COMMAND};
use holdfast_protocol::wire::SFTP;
use ipnet::IpNet;
use thiserror::Error;

use crate::access::limits::{MAX_CERTIFICATE_PRINCIPALS, MIN_RSA_BITS};
use crate::clock::Timestamp;
use crate::model::request::ProcessRequest;
use crate::model::user::{Prints, User};

/// The contents of a certificate. Its signature is good, by the key that it names; nothing else is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    /// The kind: for users or for hosts.
    pub kind: CertificateKind,
    /// The key that signed it.
    pub authority: Prints,
    /// The algorithm of that signature, by its SSH name.
    pub signature: String,
    /// The length of the shorter of its RSA keys, the certified one and the authority's, if it has any.
    pub rsa_bits: Option<usize>,
    /// Zero: not numbered.
    pub serial: u64,
    /// The key id that the authority gave it: from outside, so escape it.
    pub key_id: String,
    /// The principals that it is for: from outside.
    pub principals: Vec<String>,
    /// Valid from this time on, in seconds since 1970.
    pub valid_after: u64,
    /// Valid before this time, in seconds since 1970; [`u64::MAX`]: for ever.
    pub valid_before: u64,
    /// The critical options, which must be understood, by name.
    pub critical: BTreeMap<String, String>,
    /// The extensions, which may be ignored, by name.
    pub extensions: BTreeMap<String, String>,
}

/// The kind of certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateKind {
    /// A user.
    User,
    /// A host: it proves no user.
    Host,
}

/// The facts about a certificate, as the input of the decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateFacts<'a> {
    /// The contents of the certificate.
    pub claims: &'a Claims,
    /// True if its authority is trusted.
    pub trusted: bool,
    /// The part of it that is revoked, if any is.
    pub revoked: Option<CertificateRevocations>,
    /// Those of its principals that are users here, in its order.
    pub users: &'a [(String, User)],
    /// The client's address.
    pub client: IpAddr,
}

/// The part of a certificate that is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateRevocations {
    /// The authority's key.
    Authority,
    /// The certified key.
    Key,
    /// The certificate, by its serial number or its key id.
    Certificate,
}

/// The result for a valid certificate: the user that it identifies, and what it permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// The user.
    pub user: User,
    /// The principal of the certificate that matched.
    pub principal: String,
    /// The permissions.
    pub grant: CertGrant,
}

/// The permissions of a proof of identity, before any role is asked. A plain key permits everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertGrant {
    /// The command that runs, whatever is asked for.
    pub force: Option<Forced>,
    /// A terminal.
    pub pty: bool,
    /// Forwarding of the operator's agent.
    pub agent_forwarding: bool,
    /// Forwarding of ports through a device. The way to a device through the relay is none.
    pub port_forwarding: bool,
    /// Forwarding of a display.
    pub x11_forwarding: bool,
    /// `~/.ssh/rc` on the device.
    pub user_rc: bool,
}

/// The command that a certificate's `force-command` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Forced {
    /// A command line, by the account's shell.
    Command(String),
    /// The subsystem of file transfer: `internal-sftp`.
    Sftp,
}

impl CertGrant {
    /// The permissions of a plain key.
    pub(crate) const EVERYTHING: Self = Self {
        force: None,
        pty: true,
        agent_forwarding: true,
        port_forwarding: true,
        x11_forwarding: true,
        user_rc: true,
    };

    /// Returns what runs where `work` is asked for, and what was asked for if that is something else: bytes for
    /// `SSH_ORIGINAL_COMMAND`, as OpenSSH's server sets it. `None`: the two are too long to be passed on.
    #[must_use]
    pub(crate) fn enforce(
        &self,
        work: ProcessRequest,
    ) -> Option<(ProcessRequest, Option<Vec<u8>>)> {
        let forced = match &self.force {
            None => return Some((work, None)),
            Some(Forced::Sftp) => ProcessRequest::Subsystem(SFTP.to_owned()),
            Some(Forced::Command(line)) => ProcessRequest::Exec(line.clone().into_bytes()),
        };
        let original = match work {
            ProcessRequest::Shell => None,
            ProcessRequest::Exec(line) => Some(line),
            // sshd passes on the program that it runs for the subsystem; this is its own for sftp.
            ProcessRequest::Subsystem(name) if name == SFTP => Some(INTERNAL_SFTP.into()),
            ProcessRequest::Subsystem(name) => Some(name.into_bytes()),
        };
        let fits = original
            .as_ref()
            .is_none_or(|line| line.len() <= MAX_ORIGINAL_COMMAND);
        fits.then_some((forced, original))
    }
}

/// The reason why a certificate proves nothing. It is for the log: the client hears of no reason.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CertificateDenied {
    /// A signature that is not of the authority that it names.
    #[error("its signature is not that of the authority that it names")]
    NotSigned,
    /// It is signed by an authority that is not trusted.
    #[error("its authority is not trusted: `relay ca trust` would")]
    Untrusted,
    /// Revoked.
    #[error("its authority's key is revoked")]
    AuthorityRevoked,
    /// Revoked.
    #[error("its key is revoked")]
    KeyRevoked,
    /// Revoked.
    #[error("it is revoked")]
    CertificateRevoked,
    /// A certificate of a host.
    #[error("it is a host's certificate")]
    Host,
    /// A signature that is within an attacker's reach, or unknown.
    #[error("it is signed with {}: sign with Ed25519, ECDSA, or RSA with SHA-2 (`ssh-keygen -t rsa-sha2-512 -s`)", Escaped(.0))]
    Signature(String),
    /// An RSA key within an attacker's reach.
    #[error("an RSA key in it has {0} bits; the minimum is {MIN_RSA_BITS}")]
    WeakRsa(usize),
    /// Too early.
    #[error("it is not valid yet")]
    NotYet,
    /// Too late.
    #[error("it has expired")]
    Expired,
    /// A certificate for any user.
    #[error("it names no principal, so it would be valid for any user: sign with -n")]
    NoPrincipal,
    /// More principals than are looked up.
    #[error("it names {0} principals; the maximum is {MAX_CERTIFICATE_PRINCIPALS}")]
    TooManyPrincipals(usize),
    /// None of its principals is a user's.
    #[error("none of its principals is a user's")]
    NoUser,
    /// It does not identify one user.
    #[error(
        "its principals are those of several users, {0} and {1}: it does not identify one user"
    )]
    SeveralUsers(String, String),
    /// The user is disabled.
    #[error("user \"{0}\" is disabled")]
    Disabled(String),
    /// The client is elsewhere.
    #[error("it is not for clients at {0}")]
    Source(IpAddr),
    /// An option that cannot be enforced, because it is not known.
    #[error("its critical option \"{}\" is not known", Escaped(.0))]
    UnknownOption(String),
    /// An option that is known, with a value that is not.
    #[error("its option \"{}\" has an invalid value", Escaped(.0))]
    OptionValue(String),
    /// An option that the SSH library gives no means to enforce.
    #[error(
        "it asks for verification of the user at the security key, which the relay cannot check"
    )]
    VerifyRequired,
}

/// The algorithms that a CA may sign with. RSA with SHA-1 (`ssh-rsa`) and DSA are not among them.
const SIGNATURES: [&str; 8] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-256",
    "rsa-sha2-512",
];

/// The command that selects the subsystem of file transfer.
const INTERNAL_SFTP: &str = "internal-sftp";

/// Checks whether a certificate proves a user now, and what it permits then.
///
/// # Errors
/// [`CertificateDenied`].
pub(crate) fn judge(
    facts: CertificateFacts<'_>,
    now: Timestamp,
) -> Result<Admission, CertificateDenied> {
    // Trust first: what an unknown authority says is not worth a more precise reason.
    trusted(&facts)?;
    // PROTOCOL.certkeys: valid after <= now < valid before.
    let seconds = u64::try_from(now.0 / 1_000_000).unwrap_or(0);
    if seconds < facts.claims.valid_after {
        return Err(CertificateDenied::NotYet);
    }
    if seconds >= facts.claims.valid_before && facts.claims.valid_before != u64::MAX {
        return Err(CertificateDenied::Expired);
    }
    is_still_allowed(facts)
}

/// Checks whether a certificate that proved a user once still does: all but its dates, because a session outlives
/// the certificate that opened it, as it does with OpenSSH.
///
/// # Errors
/// [`CertificateDenied`].
pub(crate) fn is_still_allowed(
    facts: CertificateFacts<'_>,
) -> Result<Admission, CertificateDenied> {
    trusted(&facts)?;
    let claims = facts.claims;
    if claims.kind != CertificateKind::User {
        return Err(CertificateDenied::Host);
    }
    if !SIGNATURES.contains(&claims.signature.as_str()) {
        return Err(CertificateDenied::Signature(claims.signature.clone()));
    }
    if let Some(bits) = claims.rsa_bits.filter(|bits| *bits < MIN_RSA_BITS) {
        return Err(CertificateDenied::WeakRsa(bits));
    }
    let grant = grant(claims, facts.client)?;
    let (principal, user) = user(claims, facts.users)?;
    Ok(Admission {
        user,
        principal,
        grant,
    })
}

fn trusted(facts: &CertificateFacts<'_>) -> Result<(), CertificateDenied> {
    if !facts.trusted {
        return Err(CertificateDenied::Untrusted);
    }
    match facts.revoked {
        None => Ok(()),
        Some(CertificateRevocations::Authority) => Err(CertificateDenied::AuthorityRevoked),
        Some(CertificateRevocations::Key) => Err(CertificateDenied::KeyRevoked),
        Some(CertificateRevocations::Certificate) => Err(CertificateDenied::CertificateRevoked),
    }
}

/// Returns the one user that the principals name.
fn user(claims: &Claims, users: &[(String, User)]) -> Result<(String, User), CertificateDenied> {
    match claims.principals.len() {
        0 => return Err(CertificateDenied::NoPrincipal),
        many if many > MAX_CERTIFICATE_PRINCIPALS => {
            return Err(CertificateDenied::TooManyPrincipals(many));
        }
        _ => {}
    }
    let mut named = users
        .iter()
        .filter(|(name, _)| claims.principals.contains(name));
    let (principal, user) = named.next().ok_or(CertificateDenied::NoUser)?;
    if let Some((_, other)) = named.find(|(_, other)| other.name != user.name) {
        let (one, other) = (user.name.to_string(), other.name.to_string());
        return Err(CertificateDenied::SeveralUsers(one, other));
    }
    if user.disabled {
        return Err(CertificateDenied::Disabled(user.name.to_string()));
    }
    Ok((principal.clone(), user.clone()))
}

/// Returns what the options permit. Names are those of PROTOCOL.certkeys; an extension that is absent permits
/// nothing, one that is unknown is ignored.
fn grant(claims: &Claims, client: IpAddr) -> Result<CertGrant, CertificateDenied> {
    let mut force = None;
    for (name, value) in &claims.critical {
        match name.as_str() {
            "force-command" => force = Some(forced(value)?),
            "source-address" => match networks(value) {
                None => return Err(CertificateDenied::OptionValue(name.clone())),
                Some(networks) => {
                    // A client that comes over an IPv6 socket by IPv4 is what it is.
                    let client = client.to_canonical();
                    if !networks.iter().any(|network| network.contains(&client)) {
                        return Err(CertificateDenied::Source(client));
                    }
                }
            },
            "verify-required" => return Err(CertificateDenied::VerifyRequired),
            _ => return Err(CertificateDenied::UnknownOption(name.clone())),
        }
    }
    let permits = |name: &str| match claims.extensions.get(name) {
        None => Ok(false),
        Some(value) if value.is_empty() => Ok(true),
        // A flag has no value (OpenSSH: "certificate option corrupt").
        Some(_) => Err(CertificateDenied::OptionValue(name.to_owned())),
    };
    Ok(CertGrant {
        force,
        pty: permits("permit-pty")?,
        agent_forwarding: permits("permit-agent-forwarding")?,
        port_forwarding: permits("permit-port-forwarding")?,
        x11_forwarding: permits("permit-X11-forwarding")?,
        user_rc: permits("permit-user-rc")?,
    })
}

fn forced(value: &str) -> Result<Forced, CertificateDenied> {
    let unclear = || CertificateDenied::OptionValue("force-command".to_owned());
    if value.is_empty() || value.contains('\0') || value.len() > MAX_COMMAND {
        return Err(unclear());
    }
    match value.strip_prefix(INTERNAL_SFTP) {
        Some("") => Ok(Forced::Sftp),
        // Its arguments (`-R`, read-only) would narrow what can be done, and the device knows none.
        Some(arguments) if arguments.starts_with([' ', '\t']) => Err(unclear()),
        _ => Ok(Forced::Command(value.to_owned())),
    }
}

/// Returns the networks of a list: addresses, or addresses with a prefix length and no bits behind it.
fn networks(list: &str) -> Option<Vec<IpNet>> {
    let network = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text
            .parse::<IpNet>()
            .ok()
            .filter(|network| *network == network.trunc()),
    };
    list.split(',').map(network).collect()
}

#[cfg(test)]
mod tests;
