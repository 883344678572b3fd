//! Reads that a client is expected to ask for.

use std::collections::VecDeque;

use holdfast_protocol::limits::{MAX_SFTP_HANDLE, MAX_SFTP_OPEN};
use holdfast_protocol::sftp::SftpRequest;
use holdfast_protocol::sftp::kind::DATA;
use tokio::time::Instant;

use super::{AheadState, FIRST_GUESS, fields, numbered};
use crate::clock;
use crate::session::limits::{MAX_SFTP_GUESS, MAX_SFTP_GUESSES, SFTP_GUESS_LIFE};

/// The bytes before the data of a file in their packet: its length, kind and number, and theirs. A status
/// with a long text has as much room as the bytes would have had.
const DATA_HEAD: usize = 13;

/// A read that the client is expected to ask for.
#[derive(Debug)]
pub(super) struct Guess {
    pub(super) id: u32,
    pub(super) handle: Vec<u8>,
    offset: u64,
    length: u32,
    stage: ReadStage,
    /// The time of the request.
    asked: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum ReadStage {
    /// The device was asked.
    Asked,
    /// The client has asked for it too, by this number.
    Wanted(u32),
    /// The device has answered this.
    Here(Vec<u8>),
    /// The client wants something else.
    Wrong,
}

impl AheadState {
    /// Returns whether a read has been asked for already; its answer goes to the client when it is there.
    pub(super) fn is_guessed(&mut self, id: u32, handle: &[u8], offset: u64, length: u32) -> bool {
        let now = clock::instant();
        forget(&mut self.guesses, |guess| {
            now.duration_since(guess.asked) > SFTP_GUESS_LIFE
        });
        let found = self.guesses.iter_mut().position(|guess| {
            (guess.offset, guess.length) == (offset, length)
                && guess.handle == handle
                && matches!(guess.stage, ReadStage::Asked | ReadStage::Here(_))
        });
        let Some(guess) = found.and_then(|found| self.guesses.get_mut(found)) else {
            return false;
        };
        if let ReadStage::Here(answer) = std::mem::replace(&mut guess.stage, ReadStage::Wanted(id))
        {
            self.for_client.extend_from_slice(&numbered(answer, id));
            // This one: a client may ask for two by one number.
            found.and_then(|found| self.guesses.remove(found));
        }
        true
    }

    /// Returns what the client gets of the answer to a read that was guessed, if anything.
    pub(super) fn read(&mut self, packet: Vec<u8>) -> Option<Vec<u8>> {
        let (kind, mut fields) = fields(&packet)?;
        let id = fields.number()?;
        let found = self.guesses.iter().position(|guess| guess.id == id)?;
        let rest = fields.number().filter(|_| kind == DATA);
        let guess = self.guesses.get_mut(found)?;
        // Behind less than was asked for the client asks for the rest.
        let next = rest.filter(|got| *got > 0 && *got < guess.length);
        let next = next.map(|got| {
            let offset = guess.offset.saturating_add(got.into());
            (guess.handle.clone(), offset, guess.length - got)
        });
        // More than was asked for is not kept: the client will ask by itself.
        let is_too_long = packet.len() > DATA_HEAD + guess.length as usize;
        let heard = match guess.stage {
            ReadStage::Asked if !is_too_long => {
                guess.stage = ReadStage::Here(packet);
                None
            }
            ReadStage::Wanted(id) => {
                self.guesses.remove(found);
                Some(numbered(packet, id))
            }
            ReadStage::Asked | ReadStage::Wrong | ReadStage::Here(_) => {
                self.guesses.remove(found);
                None
            }
        };
        if let Some((handle, offset, length)) = next
            && self.reading.contains(&handle)
        {
            self.guess(handle, offset, length);
        }
        heard
    }

    /// Notes that a file is open for reading.
    pub(super) fn opened(&mut self, handle: &[u8]) {
        if self.reading.len() >= MAX_SFTP_OPEN || handle.len() > MAX_SFTP_HANDLE {
            return;
        }
        self.reading.insert(handle.to_vec());
        if let Some(length) = self.length {
            self.guess(handle.to_vec(), 0, length);
        }
    }

    fn guess(&mut self, handle: Vec<u8>, offset: u64, length: u32) {
        // A guess that was not asked for makes room for one that may be.
        if self.guesses.len() >= MAX_SFTP_GUESSES {
            let idle = |guess: &Guess| matches!(guess.stage, ReadStage::Here(_));
            let Some(idle) = self.guesses.iter().position(idle) else {
                return;
            };
            self.guesses.remove(idle);
        }
        if self.over || length > MAX_SFTP_GUESS {
            return;
        }
        let id = FIRST_GUESS | self.count;
        self.next_number();
        let read = SftpRequest::Read {
            handle: &handle,
            offset,
            length,
        };
        self.for_device.extend_from_slice(&read.packet(id));
        self.guesses.push_back(Guess {
            id,
            handle,
            offset,
            length,
            stage: ReadStage::Asked,
            asked: clock::instant(),
        });
    }
}

/// Takes back the guesses that were not asked for yet, of those that `are`.
pub(super) fn forget(guesses: &mut VecDeque<Guess>, are: impl Fn(&Guess) -> bool) {
    guesses.retain(|guess| !are(guess) || !matches!(guess.stage, ReadStage::Here(_)));
    for guess in guesses.iter_mut() {
        if guess.stage == ReadStage::Asked && are(guess) {
            guess.stage = ReadStage::Wrong;
        }
    }
}
