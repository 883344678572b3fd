//! A FIDO security key in software, and the ssh-agent that holds it (OpenSSH's PROTOCOL.u2f and
//! draft-ietf-sshm-ssh-agent).

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};

/// The application of a key made by `ssh-keygen -t ed25519-sk`.
const APPLICATION: &[u8] = b"ssh:";

/// The flag that says that the key was touched.
const USER_PRESENT: u8 = 1;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// A fault of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It signs something else than it is asked to.
    OtherMessage,
    /// It was made for another application than it says.
    OtherApplication,
    /// It sends another counter than it signed.
    OtherCounter,
}

pub(crate) struct SecurityKey {
    key: Key,
    fault: Fault,
}

enum Key {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl SecurityKey {
    pub(crate) fn ed25519() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        Self::of(Key::Ed25519(key))
    }

    pub(crate) fn ecdsa() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
        Self::of(Key::P256(key))
    }

    fn of(key: Key) -> Self {
        let fault = Fault::None;
        Self { key, fault }
    }

    pub(crate) fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    /// The line of its `.pub` file.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} {} in-software\n",
            self.kind(),
            STANDARD.encode(self.blob())
        )
    }

    /// Serves it at this path for as long as the test runs.
    pub(crate) fn serve(self, path: &Path) -> PathBuf {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away in the middle is its own affair.
                let _ = self.answer(stream.unwrap());
            }
        });
        path.to_owned()
    }

    fn kind(&self) -> &'static str {
        match self.key {
            Key::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Key::P256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn blob(&self) -> Vec<u8> {
        match &self.key {
            Key::Ed25519(key) => strings(&[
                self.kind().as_bytes(),
                key.public_key().as_ref(),
                APPLICATION,
            ]),
            Key::P256(key) => strings(&[
                self.kind().as_bytes(),
                b"nistp256",
                key.public_key().as_ref(),
                APPLICATION,
            ]),
        }
    }

    fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut request = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            stream.read_exact(&mut request)?;
            let answer = match request.split_first() {
                Some((&REQUEST_IDENTITIES, _)) => {
                    let list = strings(&[&self.blob(), b"in-software"]);
                    [&[IDENTITIES_ANSWER, 0, 0, 0, 1], &list[..]].concat()
                }
                Some((&SIGN_REQUEST, rest)) => {
                    let (_, rest) = string(rest);
                    let (message, _) = string(rest);
                    [vec![SIGN_RESPONSE], strings(&[&self.sign(message)])].concat()
                }
                _ => vec![FAILURE],
            };
            stream.write_all(&strings(&[&answer]))?;
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let application = match self.fault {
            Fault::OtherApplication => b"web:",
            _ => APPLICATION,
        };
        let message = match self.fault {
            Fault::OtherMessage => b"something else",
            _ => message,
        };
        let counter = 42_u32;
        let signed = [
            digest(&SHA256, application).as_ref(),
            &[USER_PRESENT],
            &counter.to_be_bytes(),
            digest(&SHA256, message).as_ref(),
        ]
        .concat();
        let signature = match &self.key {
            Key::Ed25519(key) => key.sign(&signed).as_ref().to_vec(),
            Key::P256(key) => {
                let pair = key.sign(&SystemRandom::new(), &signed).unwrap();
                let (r, s) = pair.as_ref().split_at(32);
                strings(&[&positive(r), &positive(s)])
            }
        };
        let counter = match self.fault {
            Fault::OtherCounter => counter + 1,
            _ => counter,
        };
        let behind = [&[USER_PRESENT][..], &counter.to_be_bytes()].concat();
        [strings(&[self.kind().as_bytes(), &signature]), behind].concat()
    }
}

/// SSH's strings, one behind the other.
fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let with_length = |part: &&[u8]| {
        let length = u32::try_from(part.len()).unwrap();
        [&length.to_be_bytes(), *part].concat()
    };
    parts.iter().flat_map(with_length).collect()
}

/// The first string, and what is behind it.
fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk().unwrap();
    rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap())
}

/// SSH's `mpint` of a number without a sign.
fn positive(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    match digits.first() {
        Some(first) if *first >= 0x80 => [&[0], digits].concat(),
        _ => digits.to_vec(),
    }
}
