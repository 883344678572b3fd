//! A relay's refusal, as text for the person at the device.

use std::fmt;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::wire::Refusal;

/// Shows a [`Refusal`] as one sentence that names the remedy.
#[derive(Debug)]
pub struct RelayRefusal(pub Refusal);

impl std::error::Error for RelayRefusal {}

impl fmt::Display for RelayRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Refusal::UnknownDevice => f.write_str(
                "the relay does not know this device: remove its state folder and join again with a token (`relay token create`)",
            ),
            Refusal::Revoked => f.write_str(
                "this device was revoked: remove its state folder and join again with a new token",
            ),
            Refusal::TokenUnknown => f.write_str(
                "the relay does not know this token: ask for a new one (`relay token create`)",
            ),
            Refusal::TokenExpired { ago_secs } => write!(
                f,
                "token expired {} ago: ask for a new one (`relay token create`)",
                Ago(*ago_secs)
            ),
            Refusal::TokenUsedUp => {
                f.write_str("token used up: ask for a new one (`relay token create`)")
            }
            Refusal::NameTaken { name, holder } => write!(
                f,
                "name \"{name}\" is taken by device {holder}: choose another with --name, or revoke the old one"
            ),
            Refusal::Version { oldest } => write!(
                f,
                "this agent is too old for the relay, which speaks holdfast/1.{oldest} or newer: upgrade the agent"
            ),
            Refusal::Unavailable => f.write_str("the relay cannot answer now: try again in a minute"),
            Refusal::Cloned { holder } => write!(
                f,
                "another machine, at {holder}, uses this device's key and holds its tunnel: one of the two is a copy. To enrol this one as a device of its own, remove its state folder and join with a new token (`relay token create`); if the other one is the copy, do so there"
            ),
            Refusal::Protocol(why) => write!(f, "the relay refused: {}", Escaped(why)),
        }
    }
}

/// Returns whether a sentence of an agent's status is that of a permanent refusal.
#[must_use]
pub fn ends_membership(sentence: &str) -> bool {
    let mut ends = [Refusal::Revoked, Refusal::UnknownDevice].into_iter();
    ends.any(|refusal| sentence.ends_with(&RelayRefusal(refusal).to_string()))
}

struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.0 {
            secs @ 0..120 => (secs, "second"),
            secs @ 120..7_200 => (secs / 60, "minute"),
            secs @ 7_200..172_800 => (secs / 3_600, "hour"),
            secs => (secs / 86_400, "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let said = RelayRefusal(Refusal::TokenExpired { ago_secs: 725 }).to_string();
        assert_eq!(
            said,
            "token expired 12 minutes ago: ask for a new one (`relay token create`)"
        );
        assert!(ends_membership(&RelayRefusal(Refusal::Revoked).to_string()));
        assert!(!ends_membership(&said));
        let said = RelayRefusal(Refusal::Protocol("a\u{1b}[2Jb".into())).to_string();
        assert!(!said.contains('\u{1b}'));
    }
}
