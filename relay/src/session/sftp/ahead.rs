//! Asks the device for what an sftp client is about to ask, so that the answer is here when it does.
//!
//! OpenSSH's client fetches one file after the other and waits for each answer: for a small file it opens it, reads it,
//! reads on to hear that it is over, and closes it, four times the way to the device and back. The relay stands
//! in between and knows what comes next. When a file is opened for reading, it asks for its beginning at once, as long as the
//! client read last time; behind an answer that is short it asks for the rest; and a file that was only read is closed for
//! the client as soon as it says so. Three of the four ways are then to the relay alone.
//!
//! What is told is what the device has answered, never earlier than the file was opened. What was written is
//! told by the device alone: a write or a close that fails is no guess. A guess that does not come true is forgotten.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::Notify;

use super::cut::{Cut, Head, Step};
use super::packet::Fields;
use super::{CLOSE, DATA, HANDLE, OPEN, READ, STATUS, VERSION, WRITING};
use crate::limits::{
    MAX_SFTP_GUESS, MAX_SFTP_GUESSES, MAX_SFTP_OPEN, MAX_SFTP_PENDING, MAX_SFTP_PREFIX,
};

/// The only version that is spoken with OpenSSH.
const SPOKEN: u32 = 3;

/// Numbers from here on are ours. Clients count from 0; one that gets here is left alone.
const FIRST_GUESS: u32 = 0xf000_0000;

/// Most bytes of a handle, section 6.3 of the draft.
const MAX_HANDLE: usize = 256;

/// What stands before the bytes of a file in their packet: its length, kind and number, and theirs. A status
/// with a long text has as much room as the bytes would have had.
const DATA_HEAD: usize = 13;

/// The guesses of one session, shared by both ways of its splice.
#[derive(Debug, Default)]
pub struct Ahead {
    state: Mutex<State>,
    to_client: Notify,
    to_device: Notify,
}

/// What passes on: a part of what came, or something else.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// From here to there.
    Same(Range<usize>),
    /// This.
    Other(Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    requests: Cut,
    answers: Cut,
    /// The device speaks the version that is known here.
    spoken: bool,
    /// Nothing is guessed any more.
    over: bool,
    /// Numbers of unanswered requests to open a file for reading.
    opening: BTreeSet<u32>,
    /// Handles of files that are open for reading.
    reading: BTreeSet<Vec<u8>>,
    /// Numbers of requests whose answers the client has had.
    answered: BTreeSet<u32>,
    /// How much the client reads at a time.
    length: Option<u32>,
    guesses: VecDeque<Guess>,
    count: u32,
    for_client: BytesMut,
    for_device: BytesMut,
}

/// A read that the client is expected to ask for.
#[derive(Debug)]
struct Guess {
    id: u32,
    handle: Vec<u8>,
    offset: u64,
    length: u32,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The device was asked.
    Asked,
    /// And so was the relay, by this number.
    Wanted(u32),
    /// The device has answered this.
    Here(Vec<u8>),
    /// The client wants something else.
    Wrong,
}

impl Ahead {
    /// What goes to the device of what the client sent.
    pub fn requests(&self, bytes: &[u8]) -> Vec<Part> {
        let mut state = self.lock();
        let parts = state.requests(bytes);
        self.wake(&state);
        parts
    }

    /// What goes to the client of what the device sent.
    pub fn answers(&self, bytes: &[u8]) -> Vec<Part> {
        let mut state = self.lock();
        let parts = state.answers(bytes);
        self.wake(&state);
        parts
    }

    /// The client asks for nothing more: what was guessed last, which must go before its end, and what has come of
    /// a last packet.
    pub fn end(&self) -> Bytes {
        let mut state = self.lock();
        state.over = true;
        let rest = state.requests.rest();
        state.for_device.extend_from_slice(&rest);
        state.for_device.split().freeze()
    }

    /// The device answers nothing more: what has come of its last packet.
    pub fn rest(&self) -> Vec<u8> {
        self.lock().answers.rest()
    }

    /// Waits for something to ask the device for.
    pub async fn for_device(&self) -> Bytes {
        loop {
            let asked = self.lock().for_device.split().freeze();
            if !asked.is_empty() {
                return asked;
            }
            self.to_device.notified().await;
        }
    }

    /// Waits for an answer to the client that can go now.
    pub async fn for_client(&self) -> Bytes {
        loop {
            let told = self.lock().told();
            if let Some(told) = told {
                return told.freeze();
            }
            self.to_client.notified().await;
        }
    }

    fn wake(&self, state: &State) {
        if !state.for_device.is_empty() {
            self.to_device.notify_one();
        }
        if !state.for_client.is_empty() {
            self.to_client.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn requests(&mut self, bytes: &[u8]) -> Vec<Part> {
        let (mut parts, mut at) = (Vec::new(), 0);
        loop {
            let Self { spoken, over, .. } = self;
            let takes = |head: &Head| {
                *over |= head.id >= FIRST_GUESS;
                let known = matches!(head.kind, OPEN | READ | CLOSE);
                known && *spoken && !*over && head.bytes <= MAX_SFTP_PREFIX
            };
            match self.requests.step(bytes, &mut at, takes) {
                None => return parts,
                Some(Step::Pass(range)) => pass(&mut parts, range),
                Some(Step::PassHeld(held)) => parts.push(Part::Other(held)),
                Some(Step::Taken(packet)) => {
                    if self.passes_on(&packet).unwrap_or(true) {
                        parts.push(Part::Other(packet));
                    }
                }
            }
        }
    }

    /// Whether the device is to hear of a request; `None` if it can't be read.
    fn passes_on(&mut self, packet: &[u8]) -> Option<bool> {
        let (kind, mut fields) = fields(packet)?;
        let id = fields.number()?;
        let first = fields.string()?;
        match kind {
            OPEN => {
                let is_read = fields.number()? & WRITING == 0;
                if is_read && self.opening.len() < MAX_SFTP_OPEN {
                    self.opening.insert(id);
                }
            }
            READ if self.reading.contains(first) => {
                let (high, low) = (fields.number()?, fields.number()?);
                let offset = u64::from(high) << 32 | u64::from(low);
                let length = fields.number()?;
                if offset == 0 {
                    self.length = Some(length);
                }
                return Some(!self.is_guessed(id, first, offset, length));
            }
            CLOSE if self.reading.remove(first) => {
                let is_idle = |guess: &Guess| matches!(guess.stage, Stage::Here(_));
                self.guesses
                    .retain(|guess| guess.handle != first || !is_idle(guess));
                for guess in &mut self.guesses {
                    if guess.handle == first && guess.stage == Stage::Asked {
                        guess.stage = Stage::Wrong;
                    }
                }
                if self.answered.len() < MAX_SFTP_PENDING && self.answered.insert(id) {
                    self.for_client.extend_from_slice(&well(id));
                }
            }
            _ => {}
        }
        Some(true)
    }

    fn is_guessed(&mut self, id: u32, handle: &[u8], offset: u64, length: u32) -> bool {
        let found = self.guesses.iter_mut().position(|guess| {
            (guess.offset, guess.length) == (offset, length)
                && guess.handle == handle
                && matches!(guess.stage, Stage::Asked | Stage::Here(_))
        });
        let Some(guess) = found.and_then(|found| self.guesses.get_mut(found)) else {
            return false;
        };
        if let Stage::Here(answer) = std::mem::replace(&mut guess.stage, Stage::Wanted(id)) {
            self.for_client.extend_from_slice(&numbered(answer, id));
            self.guesses
                .retain(|guess| guess.stage != Stage::Wanted(id));
        }
        true
    }

    fn answers(&mut self, bytes: &[u8]) -> Vec<Part> {
        let (mut parts, mut at) = (Vec::new(), 0);
        loop {
            if let Some(told) = self.told() {
                parts.push(Part::Other(told.into()));
            }
            let Self {
                spoken,
                opening,
                answered,
                guesses,
                ..
            } = self;
            let takes = |head: &Head| {
                if head.kind == VERSION {
                    *spoken = head.id == SPOKEN;
                    return false;
                }
                let is_guess = guesses.iter().any(|guess| guess.id == head.id);
                is_guess || opening.contains(&head.id) || answered.contains(&head.id)
            };
            match self.answers.step(bytes, &mut at, takes) {
                None => return parts,
                Some(Step::Pass(range)) => pass(&mut parts, range),
                Some(Step::PassHeld(held)) => parts.push(Part::Other(held)),
                Some(Step::Taken(packet)) => {
                    let packet = self.answer(packet);
                    parts.extend(packet.map(Part::Other));
                }
            }
        }
    }

    /// What the client hears of an answer that was taken, if anything.
    fn answer(&mut self, packet: Vec<u8>) -> Option<Vec<u8>> {
        let Some((kind, mut fields)) = fields(&packet) else {
            return Some(packet);
        };
        let id = fields.number()?;
        if self.answered.remove(&id) {
            return None;
        }
        if self.opening.remove(&id) {
            if let Some(handle) = fields.string().filter(|_| kind == HANDLE) {
                self.opened(handle);
            }
            return Some(packet);
        }
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
            Stage::Asked if !is_too_long => {
                guess.stage = Stage::Here(packet);
                None
            }
            Stage::Wanted(id) => {
                self.guesses.remove(found);
                Some(numbered(packet, id))
            }
            Stage::Asked | Stage::Wrong | Stage::Here(_) => {
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

    fn opened(&mut self, handle: &[u8]) {
        if self.reading.len() >= MAX_SFTP_OPEN || handle.len() > MAX_HANDLE {
            return;
        }
        self.reading.insert(handle.to_vec());
        if let Some(length) = self.length {
            self.guess(handle.to_vec(), 0, length);
        }
    }

    fn guess(&mut self, handle: Vec<u8>, offset: u64, length: u32) {
        // A guess that nobody asked for makes room for one that may be.
        if self.guesses.len() >= MAX_SFTP_GUESSES {
            let idle = |guess: &Guess| matches!(guess.stage, Stage::Here(_));
            let Some(idle) = self.guesses.iter().position(idle) else {
                return;
            };
            self.guesses.remove(idle);
        }
        if self.over || length > MAX_SFTP_GUESS {
            return;
        }
        let id = FIRST_GUESS | self.count;
        self.count = (self.count + 1) & !FIRST_GUESS;
        let to = &mut self.for_device;
        to.put_u32(u32::try_from(21 + handle.len()).unwrap_or(u32::MAX));
        to.put_u8(READ);
        to.put_u32(id);
        to.put_u32(u32::try_from(handle.len()).unwrap_or(u32::MAX));
        to.put_slice(&handle);
        to.put_u64(offset);
        to.put_u32(length);
        self.guesses.push_back(Guess {
            id,
            handle,
            offset,
            length,
            stage: Stage::Asked,
        });
    }

    /// Answers that can go to the client now: between two packets of the device's.
    fn told(&mut self) -> Option<BytesMut> {
        let can = self.answers.is_between() && !self.for_client.is_empty();
        can.then(|| self.for_client.split())
    }
}

/// One part for what stands together.
fn pass(parts: &mut Vec<Part>, range: Range<usize>) {
    match parts.last_mut() {
        Some(Part::Same(last)) if last.end == range.start => last.end = range.end,
        _ => parts.push(Part::Same(range)),
    }
}

fn fields(packet: &[u8]) -> Option<(u8, Fields<'_>)> {
    let (kind, rest) = packet.get(4..)?.split_first()?;
    Some((*kind, Fields::of(rest)))
}

/// The same answer to another request.
fn numbered(mut packet: Vec<u8>, id: u32) -> Vec<u8> {
    if let Some(number) = packet.get_mut(5..9) {
        number.copy_from_slice(&id.to_be_bytes());
    }
    packet
}

/// The answer that all is well.
fn well(id: u32) -> Vec<u8> {
    let (head, rest) = ([0, 0, 0, 24, STATUS], b"\0\0\0\0\0\0\0\x07Success\0\0\0\0");
    [&head[..], &id.to_be_bytes(), rest].concat()
}

#[cfg(test)]
mod tests;
