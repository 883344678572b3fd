//! Asks the device for what an sftp client is about to ask, so that the answer is here when it does.
//!
//! OpenSSH's client fetches one file after the other and waits for each answer: for a small file it opens it, reads it,
//! reads on to hear that it is over, and closes it, four times the way to the device and back. The relay is
//! in between and knows what comes next. When a file is opened for reading, it asks for its beginning at once, as long
//! as the client read last time; behind an answer that is short it asks for the rest; and a file that was only read is
//! closed for the client as soon as it says so. Three of the four ways are then to the relay alone.
//!
//! Files that are written are in `puts.rs`.
//!
//! The client gets what the device has answered, never earlier than the file was opened. What was written is
//! answered by the device alone: a write or a close that fails is no guess. A guess that does not come true is
//! forgotten; so is one that has become old, and all of them when the client asks for a change: it reads what it wrote.

mod reads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::MutexGuard;

use bytes::{Bytes, BytesMut};
use holdfast_protocol::limits::{MAX_SFTP_OPEN, MAX_SFTP_PREFIX};
use holdfast_protocol::sftp::cut::{FilterStep, PacketFilter, PacketHead};
use holdfast_protocol::sftp::kind::{
    CLOSE, EXTENDED, FSETSTAT, HANDLE, OPEN, READ, VERSION, WRITE,
};
use holdfast_protocol::sftp::{Attributes, Code, SftpAnswers, SftpFields, WRITING};
use tokio::sync::Notify;

use self::reads::{Guess, forget};
use super::puts::{Closed, Heard, Puts};
use crate::session::limits::MAX_SFTP_CLOSING;
use crate::sync::Mutex;

/// Requests that change nothing: `LSTAT`, `FSTAT`, `OPENDIR`, `READDIR`, `REALPATH`, `STAT`, `READLINK`.
const LOOKS: [u8; 7] = [7, 8, 11, 12, 16, 17, 19];

/// The only version that is spoken with OpenSSH.
const SPOKEN: u32 = 3;

/// Numbers from here on are ours. Clients count from 0; one that gets here is left alone.
const FIRST_GUESS: u32 = 0xf000_0000;

/// The guesses of one session, shared by both ways of its splice.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    state: Mutex<AheadState>,
    to_client: Notify,
    to_device: Notify,
}

/// A part of what passes on: a range of what came, or something else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadPart {
    /// A range of what came, unchanged.
    Same(Range<usize>),
    /// This.
    Other(Vec<u8>),
}

#[derive(Debug, Default)]
struct AheadState {
    requests: PacketFilter,
    answers: PacketFilter,
    /// The device speaks the version that is known here.
    spoken: bool,
    /// Nothing is guessed any more.
    over: bool,
    /// Numbers of unanswered requests to open a file for reading.
    opening: BTreeSet<u32>,
    /// Handles of files that are open for reading.
    reading: BTreeSet<Vec<u8>>,
    /// Requests to close a file that have a number of ours, because the client may use its own again: it has had its
    /// answer (`None`), or gets it from what comes first, this one or that of a release.
    closing: BTreeMap<u32, Option<u32>>,
    /// The length that the client reads at a time.
    length: Option<u32>,
    guesses: VecDeque<Guess>,
    puts: Puts,
    count: u32,
    for_client: BytesMut,
    for_device: BytesMut,
}

impl Ahead {
    /// Returns what goes to the device of what the client sent.
    pub(crate) fn requests(&self, bytes: &[u8]) -> Vec<ReadPart> {
        let mut state = self.lock();
        let parts = state.requests(bytes);
        self.wake(&state);
        parts
    }

    /// Returns what goes to the client of what the device sent.
    pub(crate) fn answers(&self, bytes: &[u8]) -> Vec<ReadPart> {
        let mut state = self.lock();
        let parts = state.answers(bytes);
        self.wake(&state);
        parts
    }

    /// Ends the requests of the client, who asks for nothing more. Returns what was guessed last, which must go before
    /// its end, and what has come of a last packet.
    pub(crate) fn end(&self) -> Bytes {
        let mut state = self.lock();
        state.over = true;
        let rest = state.requests.rest();
        state.for_device.extend_from_slice(&rest);
        state.for_device.split().freeze()
    }

    /// Stops asking and answering ahead: the session does something that is not understood.
    pub(crate) fn give_up(&self) {
        self.lock().over = true;
    }

    /// Returns what has come of the last packet of a device that answers nothing more.
    pub(crate) fn rest(&self) -> Vec<u8> {
        self.lock().answers.rest()
    }

    /// Waits for something to ask the device for.
    pub(crate) async fn for_device(&self) -> Bytes {
        loop {
            let asked = self.lock().for_device.split().freeze();
            if !asked.is_empty() {
                return asked;
            }
            self.to_device.notified().await;
        }
    }

    /// Waits for an answer to the client that can go now.
    pub(crate) async fn for_client(&self) -> Bytes {
        loop {
            let answers = self.lock().take_answers();
            if let Some(answers) = answers {
                return answers.freeze();
            }
            self.to_client.notified().await;
        }
    }

    fn wake(&self, state: &AheadState) {
        if !state.for_device.is_empty() {
            self.to_device.notify_one();
        }
        if !state.for_client.is_empty() {
            self.to_client.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, AheadState> {
        self.state.lock()
    }
}

impl AheadState {
    fn requests(&mut self, bytes: &[u8]) -> Vec<ReadPart> {
        let (mut parts, mut at) = (Vec::new(), 0);
        loop {
            let Self {
                spoken,
                over,
                guesses,
                puts,
                ..
            } = self;
            let takes = |head: &PacketHead| {
                *over |= head.id >= FIRST_GUESS;
                let is_put = puts.comes(head);
                if !matches!(head.kind, OPEN | READ | CLOSE) && !LOOKS.contains(&head.kind) {
                    forget(guesses, |_| true);
                }
                let known = matches!(head.kind, OPEN | READ | CLOSE);
                let is_short = known && head.bytes <= MAX_SFTP_PREFIX;
                (is_short || is_put) && *spoken && !*over
            };
            match self.requests.step(bytes, &mut at, takes) {
                None => return parts,
                Some(FilterStep::Pass(range)) => pass(&mut parts, range),
                Some(FilterStep::PassHeld(held)) => parts.push(ReadPart::Other(held)),
                Some(FilterStep::Taken(packet)) => {
                    if let Some(other) = self.put(&packet).or_else(|| self.close_read(&packet)) {
                        parts.push(ReadPart::Other(other));
                    } else if self.passes_on(&packet).unwrap_or(true) {
                        parts.push(ReadPart::Other(packet));
                    }
                }
            }
        }
    }

    /// Returns what the device gets instead of a request, if that is one of a file that is written.
    fn put(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let (kind, mut fields) = fields(packet)?;
        let id = fields.number()?;
        let first = fields.string()?;
        let number = FIRST_GUESS | self.count;
        match kind {
            OPEN => {
                let flags = fields.number().filter(|flags| flags & WRITING != 0)?;
                // It may be cut off by that, or made.
                forget(&mut self.guesses, |_| true);
                let attributes = Attributes::take(&mut fields)?;
                let how = (flags, attributes);
                let (asked, answer) = self.puts.open(id, first, how, number)?;
                self.for_client.extend_from_slice(&answer);
                self.next_number();
                Some(asked)
            }
            WRITE | FSETSTAT => {
                let behind = self.puts.used(kind, first, number)?;
                self.next_number();
                Some([packet, &behind].concat())
            }
            EXTENDED => {
                self.puts.extended(first);
                None
            }
            CLOSE if self.closing.len() < MAX_SFTP_CLOSING => {
                let waits = match self.puts.close(first, number)? {
                    Closed::Already(answer) => {
                        self.for_client.extend_from_slice(&numbered(answer, id));
                        None
                    }
                    Closed::Asked => Some(id),
                };
                Some(self.close_as(packet, number, waits))
            }
            _ => None,
        }
    }

    /// Returns the same request to close a file, under a number of ours.
    fn close_as(&mut self, packet: &[u8], number: u32, waits: Option<u32>) -> Vec<u8> {
        self.closing.insert(number, waits);
        self.next_number();
        numbered(packet.to_vec(), number)
    }

    /// Returns what the device gets instead of the close of a file that was only read: the client has its answer at
    /// once.
    fn close_read(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let (kind, mut fields) = fields(packet)?;
        let id = fields.number()?;
        let first = fields.string()?;
        if kind != CLOSE || !self.reading.remove(first) {
            return None;
        }
        forget(&mut self.guesses, |guess| guess.handle == first);
        if self.closing.len() >= MAX_SFTP_CLOSING {
            return None;
        }
        self.for_client.extend_from_slice(&well(id));
        let number = FIRST_GUESS | self.count;
        Some(self.close_as(packet, number, None))
    }

    /// Returns whether the device is to hear of a request; `None` if it can't be read.
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
            _ => {}
        }
        Some(true)
    }

    fn answers(&mut self, bytes: &[u8]) -> Vec<ReadPart> {
        let (mut parts, mut at) = (Vec::new(), 0);
        loop {
            if let Some(answers) = self.take_answers() {
                parts.push(ReadPart::Other(answers.into()));
            }
            let Self {
                spoken,
                opening,
                closing,
                guesses,
                puts,
                ..
            } = self;
            let takes = |head: &PacketHead| {
                if head.kind == VERSION {
                    *spoken = head.id == SPOKEN;
                    return *spoken && head.bytes <= MAX_SFTP_PREFIX;
                }
                let is_guess = guesses.iter().any(|guess| guess.id == head.id);
                let is_opened = opening.contains(&head.id);
                is_guess || is_opened || closing.contains_key(&head.id) || puts.awaits(head.id)
            };
            match self.answers.step(bytes, &mut at, takes) {
                None => return parts,
                Some(FilterStep::Pass(range)) => pass(&mut parts, range),
                Some(FilterStep::PassHeld(held)) => parts.push(ReadPart::Other(held)),
                Some(FilterStep::Taken(packet)) => {
                    let packet = self.answer(packet);
                    parts.extend(packet.map(ReadPart::Other));
                }
            }
        }
    }

    /// Returns what the client gets of an answer that was taken, if anything.
    fn answer(&mut self, packet: Vec<u8>) -> Option<Vec<u8>> {
        let Some((kind, mut fields)) = fields(&packet) else {
            return Some(packet);
        };
        let id = fields.number()?;
        if kind == VERSION {
            self.puts.version(fields);
            return Some(packet);
        }
        if let Some(waits) = self.closing.remove(&id) {
            self.puts.closed(id);
            return waits.map(|id| numbered(packet, id));
        }
        match self.puts.answer(id, kind, &packet) {
            None => {}
            Some(Heard::AsItIs) => return Some(packet),
            Some(Heard::Close(number)) => {
                let waits = self.closing.get_mut(&number).and_then(Option::take);
                return waits.map(|id| numbered(packet, id));
            }
            Some(Heard::Discarded) => return None,
        }
        if self.opening.remove(&id) {
            if let Some(handle) = fields.string().filter(|_| kind == HANDLE) {
                self.opened(handle);
            }
            return Some(packet);
        }
        self.read(packet)
    }

    fn next_number(&mut self) {
        self.count = (self.count + 1) & !FIRST_GUESS;
    }

    /// Answers that can go to the client now: between two packets of the device's.
    fn take_answers(&mut self) -> Option<BytesMut> {
        let can = self.answers.is_between() && !self.for_client.is_empty();
        can.then(|| self.for_client.split())
    }
}

/// Appends a range, merged with the last one if they are adjacent.
fn pass(parts: &mut Vec<ReadPart>, range: Range<usize>) {
    match parts.last_mut() {
        Some(ReadPart::Same(last)) if last.end == range.start => last.end = range.end,
        _ => parts.push(ReadPart::Same(range)),
    }
}

fn fields(packet: &[u8]) -> Option<(u8, SftpFields<'_>)> {
    let (kind, rest) = packet.get(4..)?.split_first()?;
    Some((*kind, SftpFields::of(rest)))
}

/// Returns the same answer to another request.
fn numbered(mut packet: Vec<u8>, id: u32) -> Vec<u8> {
    if let Some(number) = packet.get_mut(5..9) {
        number.copy_from_slice(&id.to_be_bytes());
    }
    packet
}

/// Returns the answer that all is well.
fn well(id: u32) -> Vec<u8> {
    let mut answers = SftpAnswers::default();
    answers.status(id, Code::Ok, "Success");
    answers.take()
}

#[cfg(test)]
pub(super) mod tests;
