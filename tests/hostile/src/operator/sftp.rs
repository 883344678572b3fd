//! An sftp session, packet by packet.

use super::raw::{CHANNEL_CLOSE, CHANNEL_DATA, CHANNEL_FAILURE, CHANNEL_SUCCESS, Raw, SshMessage};
use super::{open, request};

/// `SSH_FXP_OPENDIR`.
pub const OPENDIR: u8 = 11;
/// `SSH_FXP_STAT`.
pub const STAT: u8 = 17;

/// A session whose version is agreed.
pub struct Sftp {
    /// Its connection.
    pub raw: Raw,
    channel: u32,
    heard: Vec<u8>,
}

impl Sftp {
    /// Begins it on channel 0; `None` if the relay refuses.
    #[must_use]
    pub fn begin(mut raw: Raw) -> Option<Self> {
        raw.say(open(0, u32::MAX, 1 << 15));
        let channel = raw.opened()?;
        raw.say(request(channel, "subsystem", true).string("sftp"));
        loop {
            match raw.next()?[0] {
                CHANNEL_SUCCESS => break,
                CHANNEL_FAILURE | CHANNEL_CLOSE => return None,
                _ => {}
            }
        }
        let mut sftp = Self {
            raw,
            channel,
            heard: vec![],
        };
        sftp.send(&[0, 0, 0, 5, 1, 0, 0, 0, 3]);
        sftp.answer()?;
        Some(sftp)
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(30_000) {
            let data = SshMessage::new(CHANNEL_DATA)
                .number(self.channel)
                .string(part);
            // What counts is how it ends.
            let _ = self.raw.try_say(&data);
        }
    }

    /// Sends a request about a path.
    pub fn ask(&mut self, kind: u8, id: u32, path: &[u8]) {
        self.ask_both(kind, id, &[path]);
    }

    /// Sends requests about some paths under one number, all before any can be answered.
    pub fn ask_both(&mut self, kind: u8, id: u32, paths: &[&[u8]]) {
        let mut requests = vec![];
        for path in paths {
            let message = SshMessage::new(kind).number(id).string(path);
            let body = message.payload();
            requests.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
            requests.extend(body);
        }
        self.send(&requests);
    }

    /// The next answer, from its kind on; `None` when the session or the connection is over.
    pub fn answer(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((length, rest)) = self.heard.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let answer = rest[..length].to_vec();
                    self.heard.drain(..4 + length);
                    return Some(answer);
                }
            }
            let message = self.raw.next()?;
            match message[0] {
                CHANNEL_DATA => self.heard.extend_from_slice(&message[9..]),
                CHANNEL_CLOSE => return None,
                _ => {}
            }
        }
    }
}
