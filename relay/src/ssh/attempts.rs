//! What a connection offered as proof before it authenticated, or did not.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::audit::{Event, EventKind};
use crate::limits::MAX_TRIED;

/// The offers of one connection.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<Tried>);

#[derive(Debug, Default)]
struct Tried {
    count: u64,
    names: Vec<String>,
    keys: Vec<String>,
}

impl Attempts {
    /// Notes an offer: the name that was typed, and the key's fingerprint if it was one.
    pub fn note(&self, name: &str, key: Option<String>) {
        let mut tried = self.lock();
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

    /// Whether there were any.
    #[must_use]
    pub fn were_made(&self) -> bool {
        self.lock().count > 0
    }

    /// That they came to nothing, for the audit log.
    #[must_use]
    pub fn failed(&self, client: SocketAddr) -> Event {
        let tried = self.lock();
        Event::new(EventKind::UserLoginFailed)
            .client(client)
            .refused("no key or certificate of a user who may log in")
            .with("names", tried.names.clone())
            .with("keys", tried.keys.clone())
            .with("attempts", tried.count)
    }

    fn lock(&self) -> MutexGuard<'_, Tried> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
