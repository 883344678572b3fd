//! An SSH client (RFC 4253, 4252) that says whatever a case asks, one packet after the other, and keeps no rule by
//! itself.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;

/// Limits how long the relay may say nothing where it owes an answer. It waits half a minute for a device that starts
/// something, and a loaded device may take all of that.
const ANSWER: Duration = Duration::from_secs(60);

mod proof;

pub use self::numbers::*;

/// The numbers of messages (RFC 4250 section 4.1.2).
#[expect(missing_docs, reason = "each is the message of its name")]
mod numbers {
    pub const DISCONNECT: u8 = 1;
    pub const IGNORE: u8 = 2;
    pub const UNIMPLEMENTED: u8 = 3;
    pub const DEBUG: u8 = 4;
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    pub const KEX_ECDH_INIT: u8 = 30;
    pub const KEX_ECDH_REPLY: u8 = 31;
    pub const USERAUTH_REQUEST: u8 = 50;
    pub const USERAUTH_FAILURE: u8 = 51;
    pub const USERAUTH_SUCCESS: u8 = 52;
    pub const USERAUTH_PK_OK: u8 = 60;
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_SUCCESS: u8 = 81;
    pub const REQUEST_FAILURE: u8 = 82;
    pub const CHANNEL_OPEN: u8 = 90;
    pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub const CHANNEL_DATA: u8 = 94;
    pub const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub const CHANNEL_EOF: u8 = 96;
    pub const CHANNEL_CLOSE: u8 = 97;
    pub const CHANNEL_REQUEST: u8 = 98;
    pub const CHANNEL_SUCCESS: u8 = 99;
    pub const CHANNEL_FAILURE: u8 = 100;
}

const VERSION: &str = "SSH-2.0-abuse";

/// A message, field by field.
#[derive(Clone, Debug)]
pub struct SshMessage(Vec<u8>);

impl SshMessage {
    /// One of this kind, without fields.
    #[must_use]
    pub fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    /// Its bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0
    }

    /// With one more byte.
    #[must_use]
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// With one more number.
    #[must_use]
    pub fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// With one more string.
    #[must_use]
    pub fn string(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let mut this = self.number(u32::try_from(bytes.len()).unwrap());
        this.0.extend_from_slice(bytes);
        this
    }
}

/// A message that came, taken apart.
pub struct PacketFields<'a>(&'a [u8]);

impl<'a> PacketFields<'a> {
    /// Behind the message's kind.
    #[must_use]
    pub fn of(payload: &'a [u8]) -> Self {
        Self(&payload[1..])
    }

    /// The next number.
    pub fn number(&mut self) -> u32 {
        let (number, rest) = self.0.split_at(4);
        self.0 = rest;
        u32::from_be_bytes(number.try_into().unwrap())
    }

    /// The next string.
    pub fn string(&mut self) -> &'a [u8] {
        let length = self.number() as usize;
        let (string, rest) = self.0.split_at(length);
        self.0 = rest;
        string
    }
}

struct Cipher {
    key: LessSafeKey,
    iv: [u8; 12],
}

impl Cipher {
    fn nonce(&mut self) -> Nonce {
        let now = self.iv;
        let count = u64::from_be_bytes(now[4..].try_into().unwrap());
        self.iv[4..].copy_from_slice(&count.wrapping_add(1).to_be_bytes());
        Nonce::assume_unique_for_key(now)
    }
}

/// A connection.
pub struct Raw {
    stream: TcpStream,
    heard: Vec<u8>,
    banner: String,
    sends: Option<Cipher>,
    receives: Option<Cipher>,
    session: Vec<u8>,
    host_key: Vec<u8>,
}

impl Raw {
    /// Connects, and agrees on keys.
    #[track_caller]
    pub fn connect(relay: SocketAddr) -> Self {
        let mut raw = Self::greet(relay);
        raw.exchange_keys();
        raw
    }

    /// Connects, and says its version.
    #[track_caller]
    pub fn greet(relay: SocketAddr) -> Self {
        Self::greet_on(TcpStream::connect(relay).unwrap())
    }

    #[track_caller]
    fn greet_on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        stream.set_write_timeout(Some(ANSWER)).unwrap();
        let mut raw = Self {
            stream,
            heard: vec![],
            banner: String::new(),
            sends: None,
            receives: None,
            session: vec![],
            host_key: vec![],
        };
        raw.write(format!("{VERSION}\r\n").as_bytes()).unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(raw.take(1).expect("the relay's version"));
        }
        raw.banner = String::from_utf8(line).unwrap().trim_end().to_owned();
        raw
    }

    /// Logs in by the user's key, under this name.
    #[track_caller]
    pub fn login(relay: SocketAddr, key: &Path, name: &str) -> Self {
        Self::try_login(relay, key, name).expect("the relay lets it in")
    }

    /// The same; `None` if the relay does not let it in.
    #[must_use]
    pub fn try_login(relay: SocketAddr, key: &Path, name: &str) -> Option<Self> {
        let mut raw = Self::try_connect(relay)?;
        raw.begin_login();
        raw.say(raw.proof(key, name, true));
        (raw.next()?[0] == USERAUTH_SUCCESS).then_some(raw)
    }

    /// Connects and agrees on keys; `None` if the relay takes no connection now.
    #[must_use]
    pub fn try_connect(relay: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(relay).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        // A source that is kept out is closed before the relay has said its version.
        let open = stream.peek(&mut [0]).is_ok_and(|read| read > 0);
        if !open {
            return None;
        }
        let mut raw = Self::greet_on(stream);
        raw.exchange_keys();
        Some(raw)
    }

    /// Asks for the service that logs in.
    #[track_caller]
    pub fn begin_login(&mut self) {
        self.say(SshMessage::new(SERVICE_REQUEST).string("ssh-userauth"));
        assert_eq!(self.next().unwrap()[0], SERVICE_ACCEPT);
    }

    /// The host key of the first key exchange, as it came.
    #[must_use]
    pub fn host_key(&self) -> &[u8] {
        &self.host_key
    }

    /// The session identifier.
    #[must_use]
    pub fn session_id(&self) -> &[u8] {
        &self.session
    }

    /// The number of the channel that the relay confirms next; `None` if it refuses it or ends the connection.
    pub fn opened(&mut self) -> Option<u32> {
        loop {
            let message = self.next()?;
            match message[0] {
                CHANNEL_OPEN_CONFIRMATION => {
                    let mut fields = PacketFields::of(&message);
                    fields.number();
                    return Some(fields.number());
                }
                CHANNEL_OPEN_FAILURE => return None,
                _ => {}
            }
        }
    }

    /// Sends one message.
    #[track_caller]
    pub fn say(&mut self, message: SshMessage) {
        self.try_say(&message).expect("the relay takes it");
    }

    /// Sends one message; an error says that the connection is over.
    pub fn try_say(&mut self, message: &SshMessage) -> io::Result<()> {
        let packet = self.packet(&message.0);
        self.write(&packet)
    }

    /// The packet of a message, ready to be sent: many can go in one write.
    pub fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let block = if self.sends.is_some() { 16 } else { 8 };
        // The length itself counts among what is padded unless it is outside of the encryption.
        let outside = if self.sends.is_some() { 0 } else { 4 };
        let padding = block - (outside + 1 + payload.len()) % block;
        let padding = if padding < 4 {
            padding + block
        } else {
            padding
        };
        let length = u32::try_from(1 + payload.len() + padding).unwrap();
        let mut body = vec![u8::try_from(padding).unwrap()];
        body.extend_from_slice(payload);
        body.resize(length as usize, 0);
        let head = length.to_be_bytes();
        if let Some(cipher) = &mut self.sends {
            let nonce = cipher.nonce();
            let key = &cipher.key;
            key.seal_in_place_append_tag(nonce, Aad::from(head), &mut body)
                .unwrap();
        }
        [head.to_vec(), body].concat()
    }

    /// Another end to write to, for a thread of its own.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Waits no longer than this for the relay to take something.
    pub fn set_timeout(&self, within: Duration) {
        self.stream.set_write_timeout(Some(within)).unwrap();
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next message, other than those that mean nothing; `None` when the connection is over.
    #[expect(clippy::should_implement_trait, reason = "what waits is no iterator")]
    #[track_caller]
    pub fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let payload = self.receive()?;
            if !matches!(payload[0], IGNORE | DEBUG | GLOBAL_REQUEST) {
                return Some(payload);
            }
        }
    }

    /// Waits for a message of this kind, past all others.
    #[track_caller]
    pub fn wait(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let payload = self.next();
            let payload = payload.unwrap_or_else(|| panic!("it ended without message {kind}"));
            if payload[0] == kind {
                return payload;
            }
        }
    }

    /// Waits for the global request of this name, past all other messages, and returns its data.
    #[track_caller]
    pub fn requested(&mut self, name: &str) -> Vec<u8> {
        loop {
            let payload = self.receive();
            let payload = payload.unwrap_or_else(|| panic!("it ended without {name}"));
            if payload[0] == GLOBAL_REQUEST {
                let mut fields = PacketFields::of(&payload);
                if fields.string() == name.as_bytes() {
                    // Behind the flag that wants a reply.
                    return fields.0[1..].to_vec();
                }
            }
        }
    }

    /// Waits for the end of the connection; says whether it came in time.
    pub fn ends(&mut self, within: Duration) -> bool {
        let mut buffer = [0; 4096];
        self.stream.set_read_timeout(Some(within)).unwrap();
        let ended = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break true,
                // What comes meanwhile is kept: more may be said after this.
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                Err(error) => {
                    let waits = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                    break !waits.contains(&error.kind());
                }
            }
        };
        self.stream.set_read_timeout(Some(ANSWER)).unwrap();
        ended
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let head: [u8; 4] = self.take(4)?.try_into().unwrap();
        let length = u32::from_be_bytes(head) as usize;
        assert!(length <= 256 * 1024, "the relay sends {length} bytes");
        let body = match &mut self.receives {
            None => self.take(length)?,
            Some(_) => {
                let mut body = self.take(length + 16)?;
                let cipher = self.receives.as_mut().unwrap();
                let nonce = cipher.nonce();
                let opened = cipher.key.open_in_place(nonce, Aad::from(head), &mut body);
                opened.expect("the relay's packet opens").to_vec()
            }
        };
        let padding = usize::from(body[0]);
        Some(body[1..length - padding].to_vec())
    }

    /// So many bytes; `None` when the connection is over.
    #[track_caller]
    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        match self.try_take(count) {
            Ok(bytes) => bytes,
            Err(error) => {
                let silent = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                assert!(
                    !silent.contains(&error.kind()),
                    "the relay says nothing for {ANSWER:?}"
                );
                None
            }
        }
    }

    fn try_take(&mut self, count: usize) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; 32 * 1024];
        while self.heard.len() < count {
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                read => self.heard.extend_from_slice(&buffer[..read]),
            }
        }
        Ok(Some(self.heard.drain(..count).collect()))
    }

    /// Our proposal: one algorithm of each kind.
    pub fn proposal() -> SshMessage {
        let mut message = SshMessage::new(KEXINIT);
        message.0.extend_from_slice(&[7; 16]);
        let cipher = "aes256-gcm@openssh.com";
        for list in ["curve25519-sha256", "ssh-ed25519", cipher, cipher] {
            message = message.string(list);
        }
        for list in ["hmac-sha2-256", "hmac-sha2-256", "none", "none", "", ""] {
            message = message.string(list);
        }
        message.byte(0).number(0)
    }

    /// Exchanges keys, the first time or once more.
    #[track_caller]
    pub fn exchange_keys(&mut self) {
        let ours = Self::proposal();
        self.say(ours.clone());
        let theirs = self.wait(KEXINIT);
        let secret = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
        let public = secret.compute_public_key().unwrap();
        self.say(SshMessage::new(KEX_ECDH_INIT).string(&public));
        let reply = self.wait(KEX_ECDH_REPLY);
        let mut fields = PacketFields::of(&reply);
        let (host_key, point) = (fields.string(), fields.string());
        let peer = UnparsedPublicKey::new(&X25519, point);
        let shared = agree_ephemeral(secret, &peer, <[u8]>::to_vec).unwrap();
        let shared = mpint(&shared);
        let hashed = SshMessage(vec![]).string(VERSION).string(&self.banner);
        let hashed = hashed.string(&ours.0).string(&theirs).string(host_key);
        let hashed = hashed.string(&public).string(point).0;
        let hash = digest(&SHA256, &[hashed, shared.clone()].concat());
        let hash = hash.as_ref().to_vec();
        if self.session.is_empty() {
            self.session.clone_from(&hash);
            self.host_key = host_key.to_vec();
        }
        self.say(SshMessage::new(NEWKEYS));
        self.wait(NEWKEYS);
        let derive = |letter: u8| {
            let parts = [&shared[..], &hash, &[letter], &self.session].concat();
            digest(&SHA256, &parts).as_ref().to_vec()
        };
        let cipher = |iv: u8, key: u8| Cipher {
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derive(key)).unwrap()),
            iv: derive(iv)[..12].try_into().unwrap(),
        };
        let (sends, receives) = (cipher(b'A', b'C'), cipher(b'B', b'D'));
        (self.sends, self.receives) = (Some(sends), Some(receives));
    }
}

/// A positive number as SSH has it: without zeros in front, and with one where it would seem negative.
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut number = bytes[zeros..].to_vec();
    if number.first().is_some_and(|byte| *byte >= 0x80) {
        number.insert(0, 0);
    }
    SshMessage(vec![]).string(number).0
}
