//! The honest part of a device: everything that its case does not lie about.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::recording::record::{EndReason, Event, Stream};
use holdfast_protocol::wire::{Exit, ForwardRequest, ProcessRequest, SessionRequest};

use super::HostileDevice;
use super::forwards::{self, SOME_PORT, address};
use super::session::{HeardFrames, HostileSession};
use super::tape::Tape;

/// The output of every command here.
pub const GREETING: &[u8] = b"greetings from a hostile device\n";

/// Serves a session to its end, and uploads a true recording of it.
pub async fn serve(device: Arc<HostileDevice>, mut session: HostileSession) {
    let mut tape = Tape::begin(&device, &session.open);
    let log = session.open.forward_log;
    if let Some(at) = log {
        device.forwards.begin(at, &session.open);
    }
    let why = match converse(&mut session, &mut tape).await {
        Ok(()) => EndReason::Exited,
        Err(_) => EndReason::ClientGone,
    };
    if let Some(at) = log {
        let echoed = session.echoed;
        device.forwards.end(at, echoed, echoed);
    }
    if let Some(mut tape) = tape {
        if session.open.request.is_forward_log() {
            let all = device.forwards.of(session.open.session).await;
            forwards::write(&mut tape, &all);
        }
        // The relay may take it later, or never.
        let _ = device.upload(&tape.end(why)).await;
    }
}

async fn converse(session: &mut HostileSession, tape: &mut Option<Tape>) -> Result<()> {
    session.say(&SessionMessage::Accepted).await?;
    match session.open.request.clone() {
        SessionRequest::Process(request) => run(session, request, tape).await,
        SessionRequest::Forward(request) => forward(session, request).await,
    }
}

async fn forward(session: &mut HostileSession, request: ForwardRequest) -> Result<()> {
    match request {
        ForwardRequest::Log | ForwardRequest::ListenPath(_) => stay(session).await,
        ForwardRequest::Listen(listen) => {
            let port = if listen.port == 0 {
                SOME_PORT
            } else {
                listen.port
            };
            session.say(&address(port)).await?;
            stay(session).await
        }
        ForwardRequest::Connect(connect) => {
            let port = connect.port;
            session.say(&address(port)).await?;
            echo(session, &mut None).await
        }
        ForwardRequest::Take(_) => {
            session.say(&address(SOME_PORT)).await?;
            finish(session, &mut None).await
        }
        ForwardRequest::ConnectPath(_) => echo(session, &mut None).await,
    }
}

async fn run(
    session: &mut HostileSession,
    request: ProcessRequest,
    tape: &mut Option<Tape>,
) -> Result<()> {
    match request {
        ProcessRequest::Shell => echo(session, tape).await,
        ProcessRequest::Exec(command) if command == b"cat" => echo(session, tape).await,
        ProcessRequest::Exec(_) | ProcessRequest::Subsystem(_) => {
            session.data(DataStream::Stdout, GREETING).await?;
            if let Some(tape) = tape {
                tape.frame(Stream::Stdout, GREETING);
            }
            finish(session, tape).await
        }
    }
}

/// Sends what comes back until it ends.
async fn echo(session: &mut HostileSession, tape: &mut Option<Tape>) -> Result<()> {
    loop {
        match session.next().await {
            Some(HeardFrames::Data(_, bytes, remaining)) => {
                if let Some(tape) = tape {
                    tape.piece(Stream::Stdin, &bytes, remaining);
                    tape.frame(Stream::Stdout, &bytes);
                }
                session.data(DataStream::Stdout, &bytes).await?;
                session.echoed += bytes.len() as u64;
            }
            Some(HeardFrames::Message(SessionMessage::Eof)) => {
                if let Some(tape) = tape {
                    tape.event(Event::Eof(Stream::Stdin));
                }
                return finish(session, tape).await;
            }
            Some(HeardFrames::Message(SessionMessage::Resize(size))) => {
                if let Some(tape) = tape {
                    tape.event(Event::Resize(size));
                }
            }
            Some(HeardFrames::Message(SessionMessage::Signal(signal))) => {
                if let Some(tape) = tape {
                    tape.event(Event::Signal(signal));
                }
            }
            Some(HeardFrames::Message(_)) => {}
            None => anyhow::bail!("the relay ended it"),
        }
    }
}

/// The end of all output, and the exit.
async fn finish(session: &mut HostileSession, tape: &mut Option<Tape>) -> Result<()> {
    if let Some(tape) = tape {
        tape.event(Event::Eof(Stream::Stdout));
        tape.event(Event::Exit(Exit::Status(0)));
    }
    session.say(&SessionMessage::Eof).await?;
    session.say(&SessionMessage::Exit(Exit::Status(0))).await?;
    let _ = session.send.finish();
    stay(session).await
}

/// Waits until the relay ends the stream.
async fn stay(session: &mut HostileSession) -> Result<()> {
    while session.next().await.is_some() {}
    Ok(())
}
