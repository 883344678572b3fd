//! A client that sends what it likes.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Packs fields into a packet: `string` and numbers.
#[derive(Debug, Default)]
pub(crate) struct Packet(Vec<u8>);

impl Packet {
    pub(crate) fn new(kind: u8, id: u32) -> Self {
        Self(vec![kind]).number(id)
    }

    pub(crate) fn extended(name: &str, id: u32) -> Self {
        Self::new(200, id).string(name.as_bytes())
    }

    pub(crate) fn number(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn string(mut self, string: &[u8]) -> Self {
        self = self.number(u32::try_from(string.len()).unwrap());
        self.0.extend(string);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap().to_be_bytes();
        [&length[..], &self.0].concat()
    }
}

/// A server that runs.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
}

/// An answer: its kind, and its fields behind the number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: u8,
    pub(crate) id: u32,
    pub(crate) fields: Vec<u8>,
}

impl Answer {
    /// Of a status.
    pub(crate) fn code(&self) -> u32 {
        assert_eq!(self.kind, 101, "{self:?}");
        u32::from_be_bytes(self.fields[..4].try_into().unwrap())
    }

    /// The text of a status, or a handle.
    pub(crate) fn string(&self) -> &[u8] {
        let fields = match self.kind {
            101 => &self.fields[4..],
            _ => &self.fields,
        };
        let (length, rest) = fields.split_first_chunk().unwrap();
        &rest[..usize::try_from(u32::from_be_bytes(*length)).unwrap()]
    }
}

impl Server {
    /// Starts it in `folder`, and agrees on the version.
    pub(crate) fn start(program: &[&str], folder: &Path) -> Self {
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .current_dir(folder)
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut server = Self {
            child,
            stdin,
            stdout,
        };
        let version = server.ask(&Packet::new(1, 3));
        assert_eq!((version.kind, version.id), (2, 3));
        server
    }

    pub(crate) fn ask(&mut self, packet: &Packet) -> Answer {
        self.stdin.write_all(&packet.bytes()).unwrap();
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Answer {
        answer(&mut self.stdout)
    }

    /// No more requests: it must end well.
    pub(crate) fn end(self) {
        let Self {
            mut child, stdin, ..
        } = self;
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
}

pub(crate) fn answer(stdout: &mut ChildStdout) -> Answer {
    let mut length = [0; 4];
    stdout.read_exact(&mut length).unwrap();
    let mut packet = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stdout.read_exact(&mut packet).unwrap();
    Answer {
        kind: packet[0],
        id: u32::from_be_bytes(packet[1..5].try_into().unwrap()),
        fields: packet.split_off(5),
    }
}
