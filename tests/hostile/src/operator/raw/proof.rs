//! Requests to log in.

use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::Ed25519KeyPair;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, load_secret_key};

use super::{Raw, SshMessage, USERAUTH_REQUEST};

impl Raw {
    /// A request to log in by this key: with a signature, or to know whether one would do.
    #[must_use]
    pub fn proof(&self, key: &Path, name: &str, signs: bool) -> SshMessage {
        match signs {
            true => self.proof_by(key, name, &pair(&load_secret_key(key, None).unwrap())),
            false => Self::request(&public(key), "ssh-ed25519", name, false),
        }
    }

    /// A request to log in by this key that is bound to this host key (`publickey-hostbound-v00@openssh.com`).
    #[must_use]
    pub fn bound_proof(&self, key: &Path, name: &str, host_key: &[u8]) -> SshMessage {
        let request = SshMessage::new(USERAUTH_REQUEST).string(name);
        let request = request.string("ssh-connection");
        let request = request.string("publickey-hostbound-v00@openssh.com");
        let request = request.byte(1).string("ssh-ed25519").string(public(key));
        let pair = pair(&load_secret_key(key, None).unwrap());
        self.signed(request.string(host_key), &pair)
    }

    /// The same with a signature that does not fit the key.
    #[must_use]
    pub fn forgery(&self, key: &Path, name: &str) -> SshMessage {
        let mut proof = self.proof(key, name, true);
        if let Some(last) = proof.0.last_mut() {
            *last ^= 1;
        }
        proof
    }

    /// The same for this key, signed by whatever other one.
    #[must_use]
    pub fn proof_by(&self, key: &Path, name: &str, signer: &Ed25519KeyPair) -> SshMessage {
        let request = Self::request(&public(key), "ssh-ed25519", name, true);
        self.signed(request, signer)
    }

    /// A request to log in by a certificate for this key, of an authority that was made just now.
    #[must_use]
    pub fn certificate_proof(&self, key: &Path, name: &str, serial: u64) -> SshMessage {
        self.certificate_until(key, name, serial, u64::MAX - 1)
    }

    /// The same by a certificate that has expired in 1970.
    #[must_use]
    pub fn expired_proof(&self, key: &Path, name: &str) -> SshMessage {
        self.certificate_until(key, name, 1, 1)
    }

    fn certificate_until(&self, key: &Path, name: &str, serial: u64, until: u64) -> SshMessage {
        const KIND: &str = "ssh-ed25519-cert-v01@openssh.com";
        let key = load_secret_key(key, None).unwrap();
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).unwrap();
        let authority = KeypairData::from(Ed25519Keypair::from_seed(&seed));
        let authority = PrivateKey::new(authority, "").unwrap();
        let subject = key.public_key().key_data().clone();
        let mut builder = Builder::new(seed, subject, 0, until).unwrap();
        builder.serial(serial).unwrap();
        builder.cert_type(CertType::User).unwrap();
        builder.key_id(name).unwrap();
        builder.valid_principal(name).unwrap();
        let certificate = builder.sign(&authority).unwrap();
        let request = Self::request(&certificate.to_bytes().unwrap(), KIND, name, true);
        self.signed(request, &pair(&key))
    }

    fn signed(&self, request: SshMessage, signer: &Ed25519KeyPair) -> SshMessage {
        let signed = SshMessage(vec![]).string(&self.session).0;
        let signed = [signed, request.0.clone()].concat();
        let signature = signer.sign(&signed);
        let blob = SshMessage(vec![]).string("ssh-ed25519").string(signature).0;
        request.string(blob)
    }

    fn request(blob: &[u8], kind: &str, name: &str, signs: bool) -> SshMessage {
        let request = SshMessage::new(USERAUTH_REQUEST).string(name);
        let request = request.string("ssh-connection").string("publickey");
        request.byte(signs.into()).string(kind).string(blob)
    }
}

fn public(key: &Path) -> Vec<u8> {
    let key = load_secret_key(key, None).unwrap();
    key.public_key().to_bytes().unwrap()
}

fn pair(key: &PrivateKey) -> Ed25519KeyPair {
    let pair = key.key_data().ed25519().expect("an Ed25519 key").clone();
    let seed = pair.private.to_bytes();
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}
