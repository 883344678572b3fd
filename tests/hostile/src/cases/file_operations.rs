//! Recordings of sftp sessions that list other file operations than those that were done.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::recording::record::{EndReason, Event, FileOperation, Stream};
use holdfast_protocol::sftp::{
    ClientPacket, Code, FileAction, FileOutcome, Followed, Follower, Operation, SftpAnswers,
    SftpRequest, decode, next_packet,
};
use holdfast_protocol::wire::Exit;

use super::sftp_answers::is_sftp;
use crate::Outcome;
use crate::device::{DeviceCase, HeardFrames, HostileDevice, HostileSession, Lie, Tape};

/// The input of a client that asks for these cases: its version, and the removal of two files.
pub const REMOVALS: &[u8] = b"\0\0\0\x05\x01\0\0\0\x03\
    \0\0\0\x0b\x0d\0\0\0\x01\0\0\0\x02/a\0\0\0\x0b\x0d\0\0\0\x02\0\0\0\x02/b";

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "invented-operation",
        what: "Records a removal that was not asked for, behind what was done.",
        lie: Lie::Session {
            on: is_sftp,
            play: |device, session| {
                Box::pin(recorded(device, session, |operations| {
                    operations.push(Operation {
                        action: FileAction::Remove,
                        path: b"/etc/shadow".to_vec(),
                        to: None,
                        outcome: FileOutcome::OK,
                        read: 0,
                        written: 0,
                    });
                }))
            },
        },
    },
    DeviceCase {
        name: "altered-operation",
        what: "Records what was done on another path.",
        lie: Lie::Session {
            on: is_sftp,
            play: |device, session| {
                Box::pin(recorded(device, session, |operations| {
                    for operation in operations.iter_mut().take(1) {
                        operation.path = b"/harmless".to_vec();
                    }
                }))
            },
        },
    },
    DeviceCase {
        name: "altered-status",
        what: "Records a failure of what was done.",
        lie: Lie::Session {
            on: is_sftp,
            play: |device, session| {
                Box::pin(recorded(device, session, |operations| {
                    for operation in operations.iter_mut().take(1) {
                        operation.outcome = FileOutcome::Status {
                            code: Code::PermissionDenied as u32,
                            text: vec![],
                        };
                    }
                }))
            },
        },
    },
    DeviceCase {
        name: "dropped-operation",
        what: "Leaves the last of what was done out of the recording.",
        lie: Lie::Session {
            on: is_sftp,
            play: |device, session| {
                Box::pin(recorded(device, session, |operations| {
                    drop(operations.pop());
                }))
            },
        },
    },
    DeviceCase {
        name: "swapped-operations",
        what: "Records what was done in another order.",
        lie: Lie::Session {
            on: is_sftp,
            play: |device, session| {
                Box::pin(recorded(device, session, |operations| operations.reverse()))
            },
        },
    },
    DeviceCase {
        name: "unanswered-operation",
        what: "Records the last of two removals as done, keeps its answer back, and breaks the session off.",
        lie: Lie::Session {
            on: is_sftp,
            play: |device, session| Box::pin(broken_off(device, session)),
        },
    },
    DeviceCase {
        name: "true-operations",
        what: "Records each file operation in truth, in a recording that it seals itself.",
        lie: Lie::Session {
            on: is_sftp,
            play: |device, session| Box::pin(recorded(device, session, |_| {})),
        },
    },
];

/// A session of sftp, from the device's side.
struct Served {
    tape: Tape,
    follower: Follower,
    /// Requests that are not whole.
    input: Vec<u8>,
    /// Answers so far.
    count: usize,
    /// Answers that are given; the rest is kept back.
    given: usize,
}

impl Served {
    fn new(device: &HostileDevice, session: &HostileSession, given: usize) -> Self {
        Self {
            tape: Tape::begin(device, &session.open).unwrap(),
            follower: Follower::default(),
            input: vec![],
            count: 0,
            given,
        }
    }

    /// Serves removals until the client asks for nothing more.
    async fn serve(&mut self, session: &mut HostileSession) -> Result<()> {
        session.say(&SessionMessage::Accepted).await?;
        while let Some(heard) = session.next().await {
            match heard {
                HeardFrames::Data(_, bytes, remaining) => {
                    self.tape.piece(Stream::Stdin, &bytes, remaining);
                    self.follower.handle_requests(&bytes);
                    self.input.extend_from_slice(&bytes);
                    for answer in answers(&mut self.input) {
                        self.answer(session, &answer).await?;
                    }
                }
                HeardFrames::Message(SessionMessage::Eof) => break,
                HeardFrames::Message(_) => {}
            }
        }
        Ok(())
    }

    async fn answer(&mut self, session: &mut HostileSession, answer: &[u8]) -> Result<()> {
        self.follower.handle_answers(answer);
        self.tape.frame(Stream::Stdout, answer);
        self.count += 1;
        if self.count <= self.given {
            session.data(DataStream::Stdout, answer).await?;
        }
        Ok(())
    }

    /// Records what `lie` makes of what was done, and returns the recording.
    fn record(mut self, lie: fn(&mut Vec<Operation>)) -> Tape {
        self.follower.finish();
        let seen = std::iter::from_fn(|| self.follower.poll());
        let mut operations: Vec<Operation> = seen
            .filter_map(|followed| match followed {
                Followed::Operation(operation) => Some(operation),
                Followed::Lost(_) => None,
            })
            .collect();
        lie(&mut operations);
        for operation in &operations {
            for record in FileOperation::of(operation) {
                self.tape.event(Event::File(record));
            }
        }
        self.tape
    }
}

async fn recorded(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
    lie: fn(&mut Vec<Operation>),
) -> Result<Outcome> {
    let mut served = Served::new(&device, &session, usize::MAX);
    served.serve(&mut session).await?;
    session.say(&SessionMessage::Eof).await?;
    session.say(&SessionMessage::Exit(Exit::Status(0))).await?;
    let _ = session.send.finish();
    while session.next().await.is_some() {}
    let mut tape = served.record(lie);
    tape.event(Event::Exit(Exit::Status(0)));
    upload(&device, tape, EndReason::Exited).await
}

async fn broken_off(device: Arc<HostileDevice>, mut session: HostileSession) -> Result<Outcome> {
    // The version, and the first removal.
    let mut served = Served::new(&device, &session, 2);
    served.serve(&mut session).await?;
    // No exit status comes before the end of the stream.
    let _ = session.send.finish();
    while session.next().await.is_some() {}
    upload(&device, served.record(|_| {}), EndReason::ClientGone).await
}

async fn upload(device: &HostileDevice, tape: Tape, why: EndReason) -> Result<Outcome> {
    match device.upload(&tape.end(why)).await {
        Ok(()) => Ok(Outcome::Done(
            "the relay has taken the recording".to_owned(),
        )),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}

/// Returns the answers to all whole packets of `input`, which are removed from it.
fn answers(input: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let (mut all, mut rest) = (vec![], input.as_slice());
    while let Ok(Some(packet)) = next_packet(&mut rest) {
        let mut answers = SftpAnswers::default();
        match decode(packet) {
            Ok(ClientPacket::Init { .. }) => answers.version(),
            Ok(ClientPacket::Request {
                id,
                request: Ok(SftpRequest::Remove(_)),
            }) => answers.status(id, Code::Ok, "Success"),
            Ok(ClientPacket::Request { id, .. }) => {
                answers.status(id, Code::OpUnsupported, "Unsupported");
            }
            Err(_) => break,
        }
        all.push(answers.bytes().to_vec());
    }
    let used = input.len() - rest.len();
    input.drain(..used);
    all
}
