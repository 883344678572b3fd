//! The relay's host keys, for clients that keep `known_hosts` up to date. After the login the relay lists its keys
//! (`hostkeys-00@openssh.com`), and a client has it prove those that are new to it (`hostkeys-prove-00@openssh.com`;
//! both are in section 2.5 of OpenSSH's PROTOCOL file). So clients learn the next key while they trust the present one.

use std::sync::Arc;

use russh::keys::PrivateKey;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::{Decode as _, Encode as _, Error};

use crate::model::invalid::Invalid;
use crate::ssh::limits::MAX_HOST_KEY_PROOFS;
use crate::state::{State, StateError};
use crate::sync::Mutex;

/// The request that lists the relay's keys.
pub(super) const LIST: &str = "hostkeys-00@openssh.com";

/// The request for proofs, and the first string that each proof signs.
pub(super) const PROVE: &str = "hostkeys-prove-00@openssh.com";

/// The keys that the relay lists: the one that it serves with, and those that the state folder has by now.
#[derive(Debug)]
pub(crate) struct HostKeys(Mutex<Arc<[PrivateKey]>>);

impl HostKeys {
    /// Takes the keys that the state was opened with.
    pub(crate) fn new(state: &State) -> Self {
        let keys = [&state.ssh_host].into_iter().chain(&state.ssh_host_next);
        Self(Mutex::new(keys.cloned().collect()))
    }

    /// Reads the keys in the state folder again: `relay ca host-key rotate` changes them beside a relay that serves.
    ///
    /// # Errors
    /// [`StateError`]: a key cannot be read. The keys that were listed before remain.
    pub(crate) fn reload(&self, state: &State) -> Result<(), StateError> {
        let keys = state.host_keys()?;
        *self.0.lock() = keys.into();
        Ok(())
    }

    fn get(&self) -> Arc<[PrivateKey]> {
        let keys = self.0.lock();
        keys.clone()
    }
}

/// The keys that one connection was sent, and the number of times that its client asked for proofs.
#[derive(Debug, Default)]
pub(super) struct ListedKeys {
    keys: Arc<[PrivateKey]>,
    proofs: usize,
}

impl ListedKeys {
    /// Returns the data of [`LIST`], and keeps the keys in it: these can be proved from now on.
    pub(super) fn list(&mut self, keys: &HostKeys) -> Result<Vec<u8>, Error> {
        self.keys = keys.get();
        let mut list = Vec::new();
        for key in self.keys.iter() {
            blob(key)?.encode(&mut list)?;
        }
        Ok(list)
    }

    /// Returns the data of the reply to [`PROVE`]: a signature by each key of the request, in its order.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub(super) fn prove(&mut self, session_id: &[u8], request: &[u8]) -> Result<Vec<u8>, Invalid> {
        if self.proofs >= MAX_HOST_KEY_PROOFS {
            return Err(format!(
                "too many requests for proofs of host keys on this connection; the maximum is {MAX_HOST_KEY_PROOFS}"
            )
            .into());
        }
        self.proofs += 1;
        let damaged = |_| Invalid::from("the request for proofs of host keys is damaged");
        let (mut rest, mut reply, mut count) = (request, Vec::new(), 0);
        while !rest.is_empty() {
            count += 1;
            let listed = self.keys.len();
            if count > listed {
                return Err(format!(
                    "the relay proves at most the {listed} host keys that it listed"
                )
                .into());
            }
            let wanted = Vec::<u8>::decode(&mut rest).map_err(damaged)?;
            let found = self
                .keys
                .iter()
                .find(|key| blob(key).as_ref() == Ok(&wanted));
            let key = found.ok_or("the relay proves only host keys that it listed")?;
            let proof = proof(key, session_id, &wanted);
            let proof = proof.map_err(|_| "the relay cannot sign with its host key")?;
            proof.encode(&mut reply).map_err(damaged)?;
        }
        if count == 0 {
            return Err("the request for proofs of host keys names no key".into());
        }
        Ok(reply)
    }
}

/// Returns the public key as it is on the wire.
fn blob(key: &PrivateKey) -> Result<Vec<u8>, Error> {
    let mut blob = Vec::new();
    key.public_key().key_data().encode(&mut blob)?;
    Ok(blob)
}

/// Returns the signature that proves a key on the connection with this session identifier.
fn proof(key: &PrivateKey, session_id: &[u8], blob: &[u8]) -> Result<Vec<u8>, russh::keys::Error> {
    let mut signed = Vec::new();
    PROVE.encode(&mut signed)?;
    session_id.encode(&mut signed)?;
    blob.encode(&mut signed)?;
    let mut proof = Vec::new();
    let signature = key
        .try_sign(&signed)
        .map_err(russh::keys::ssh_key::Error::from)?;
    signature.encode(&mut proof)?;
    Ok(proof)
}

#[cfg(test)]
mod tests {
    use russh::keys::signature::Verifier as _;
    use russh::keys::ssh_key::Signature;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    const SESSION: &[u8] = b"the session";

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
    }

    fn listed(keys: &[PrivateKey]) -> ListedKeys {
        let keys = HostKeys(Mutex::new(keys.into()));
        let mut listed = ListedKeys::default();
        let list = listed.list(&keys).unwrap();
        assert_eq!(list, request(&keys.get()));
        listed
    }

    fn request(keys: &[PrivateKey]) -> Vec<u8> {
        let mut request = Vec::new();
        for key in keys {
            blob(key).unwrap().encode(&mut request).unwrap();
        }
        request
    }

    #[test]
    fn each_key_of_a_request_signs_for_this_session() {
        let (one, two) = (key(1), key(2));
        let mut listed = listed(&[one.clone(), two.clone()]);
        let reply = listed.prove(SESSION, &request(&[two.clone(), one.clone()]));
        let reply = reply.unwrap();
        let mut rest = &reply[..];
        for key in [two, one] {
            let proof = Vec::<u8>::decode(&mut rest).unwrap();
            let signature = Signature::decode(&mut &proof[..]).unwrap();
            let signed = |session: &[u8]| {
                let mut signed = Vec::new();
                for part in [PROVE.as_bytes(), session, &blob(&key).unwrap()] {
                    part.encode(&mut signed).unwrap();
                }
                signed
            };
            let verify = |session| {
                key.public_key()
                    .key_data()
                    .verify(&signed(session), &signature)
            };
            assert!(verify(SESSION).is_ok());
            assert!(verify(b"another").is_err());
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_was_not_listed_is_not_proved() {
        let (one, two) = (key(1), key(2));
        let short = request(std::slice::from_ref(&one));
        for (request, expected) in [
            (
                request(std::slice::from_ref(&two)),
                "only host keys that it listed",
            ),
            (
                request(&[one.clone(), one.clone()]),
                "at most the 1 host keys",
            ),
            (short[..short.len() - 1].to_vec(), "is damaged"),
            (vec![0xff; 4], "is damaged"),
            (vec![], "names no key"),
        ] {
            let refused = listed(std::slice::from_ref(&one)).prove(SESSION, &request);
            let refused = refused.unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        }
        let refused = ListedKeys::default().prove(SESSION, &short).unwrap_err();
        assert!(
            refused.to_string().contains("at most the 0 host keys"),
            "{refused}"
        );
    }

    #[test]
    fn proofs_of_one_connection_are_counted() {
        let mut listed = listed(&[key(1)]);
        let request = request(&[key(1)]);
        for _ in 0..MAX_HOST_KEY_PROOFS {
            listed.prove(SESSION, &request).unwrap();
        }
        let refused = listed.prove(SESSION, &request).unwrap_err();
        assert!(refused.to_string().contains("the maximum is"), "{refused}");
    }
}
