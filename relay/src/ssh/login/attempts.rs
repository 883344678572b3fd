//! The proofs that a connection offered before it authenticated, or did not.

use std::net::SocketAddr;
use std::sync::MutexGuard;

use crate::audit::{Event, EventKind};
use crate::ssh::limits::{MAX_TRIED, MAX_TRIED_NAME};
use crate::sync::Mutex;

/// The offers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<Tried>);

#[derive(Debug, Default)]
struct Tried {
    count: u64,
    wrong_signatures: usize,
    unanswered: bool,
    names: Vec<String>,
    keys: Vec<String>,
}

impl Attempts {
    /// Notes an offer: the name that was typed, and the key's fingerprint if it was one.
    pub(crate) fn note(&self, name: &str, key: Option<String>) {
        let (name, mut tried) = (shortened(name), self.lock());
        tried.count += 1;
        if tried.names.len() < MAX_TRIED && tried.names.iter().all(|other| other != name) {
            tried.names.push(name.to_owned());
        }
        if let Some(key) = key
            && tried.keys.len() < MAX_TRIED
            && !tried.keys.contains(&key)
        {
            tried.keys.push(key);
        }
    }

    /// Returns whether there were any.
    #[must_use]
    pub(crate) fn were_made(&self) -> bool {
        self.lock().count > 0
    }

    /// Counts a signature that did not fit its key.
    pub(crate) fn note_wrong_signature(&self) {
        self.lock().wrong_signatures += 1;
    }

    /// Notes that the store did not say whose a key is.
    pub(crate) fn note_unanswered(&self) {
        self.lock().unanswered = true;
    }

    /// Returns the number of wrong signatures.
    #[must_use]
    pub(crate) fn wrong_signatures(&self) -> usize {
        self.lock().wrong_signatures
    }

    /// Returns the event that they came to nothing, for the audit log.
    #[must_use]
    pub(crate) fn failed(&self, client: SocketAddr) -> Event {
        let tried = self.lock();
        let event = Event::new(EventKind::UserLoginFailed).client(client);
        let event = match tried.unanswered {
            true => event.failed("the database did not answer"),
            false => event.refused("no key or certificate of a user who may log in"),
        };
        event
            .with("names", tried.names.clone())
            .with("keys", tried.keys.clone())
            .with("attempts", tried.count)
            .with("wrong_signatures", tried.wrong_signatures)
    }

    fn lock(&self) -> MutexGuard<'_, Tried> {
        self.0.lock()
    }
}

/// Returns a name as it was typed, cut where it is longer than any name of ours.
#[must_use]
pub(crate) fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_TRIED_NAME)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_much_is_tried_little_is_kept_and_all_is_counted() {
        let attempts = Attempts::default();
        assert!(!attempts.were_made());
        for n in 0..100 {
            let name = format!("{n:03}{}", "\u{e4}".repeat(10_000));
            attempts.note(&name, Some(format!("SHA256:{n}")));
        }
        let event = attempts.failed("203.0.113.9:1".parse().unwrap());
        assert_eq!(event.more["attempts"], 100);
        let names = event.more["names"].as_array().unwrap();
        assert_eq!(names.len(), MAX_TRIED);
        let length = |name: &serde_json::Value| name.as_str().unwrap().len();
        assert!(names.iter().all(|name| length(name) <= MAX_TRIED_NAME));
        assert_eq!(event.more["keys"].as_array().unwrap().len(), MAX_TRIED);
    }
}
