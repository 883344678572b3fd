//! Devices that say in a session what they may not.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::ids::{Login, SessionId};
use holdfast_protocol::wire::{Exit, Open, ProcessRequest, SessionRefusal, WindowSize};

use crate::Outcome;
use crate::device::{DeviceCase, GREETING, HostileDevice, HostileRun, HostileSession, Lie};

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "honest",
        what: "Keeps every rule: commands print one fixed line, shells repeat their input, recordings are true.",
        lie: Lie::Never,
    },
    session(
        "accepted-twice",
        "Accepts a session, and accepts it COUNT times more.",
        |device, session| Box::pin(repeat(device, session, |_| SessionMessage::Accepted)),
    ),
    session(
        "root-by-another-name",
        "Says that a session's account is root, which it was to refuse, and sends COUNT frames of output at once.",
        |device, session| Box::pin(root_by_another_name(device, session)),
    ),
    session(
        "eof-twice",
        "Ends the output of a session, and ends it COUNT times more.",
        |device, session| Box::pin(repeat(device, session, |_| SessionMessage::Eof)),
    ),
    session(
        "resize-back",
        "Sends COUNT messages that only a relay may send.",
        |device, session| {
            Box::pin(repeat(device, session, |_| {
                SessionMessage::Resize(WindowSize::default())
            }))
        },
    ),
    session(
        "refused-late",
        "Refuses a session that it has accepted, COUNT times.",
        |device, session| {
            Box::pin(repeat(device, session, |_| {
                SessionMessage::Refused(SessionRefusal::NoShell)
            }))
        },
    ),
    session(
        "exit-before-accepted",
        "Ends a session that it never accepted.",
        |device, session| Box::pin(exit_first(device, session)),
    ),
    session(
        "data-after-eof",
        "Sends COUNT frames of output behind the end of output.",
        |device, session| Box::pin(data_after_eof(device, session)),
    ),
    session(
        "stdin-back",
        "Sends COUNT frames of stdin to the relay.",
        |device, session| Box::pin(stdin_back(device, session)),
    ),
    session(
        "silent-start",
        "Neither accepts nor refuses a session.",
        |device, session| Box::pin(silent(device, session)),
    ),
    session(
        "open-back",
        "Sends the relay's own Open back, COUNT times.",
        |device, session| {
            let open = session.open.clone();
            Box::pin(repeat(device, session, move |number| {
                let session = SessionId([number.to_le_bytes()[0]; 16]);
                SessionMessage::Open(Open {
                    session,
                    ..open.clone()
                })
            }))
        },
    ),
];

const fn session(
    name: &'static str,
    what: &'static str,
    play: fn(Arc<HostileDevice>, HostileSession) -> HostileRun,
) -> DeviceCase {
    let on = is_process;
    DeviceCase {
        name,
        what,
        lie: Lie::Session { on, play },
    }
}

/// Returns whether a process is asked for.
#[must_use]
pub fn is_process(open: &Open) -> bool {
    open.request.process().is_some()
}

/// Accepts, and then says something over and over.
async fn repeat(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
    message: impl FnMut(u32) -> SessionMessage,
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    if matches!(
        session.open.request.process(),
        Some(ProcessRequest::Exec(_))
    ) {
        session.data(DataStream::Stdout, GREETING).await?;
    }
    let sent = session.flood(message, device.count()).await;
    let within = device.door.run.within;
    Ok(session
        .verdict(within, format!("{sent} messages sent"))
        .await)
}

async fn root_by_another_name(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
) -> Result<Outcome> {
    let names = vec![Login::new("root")?];
    session.say(&SessionMessage::Names(names)).await?;
    session.say(&SessionMessage::Accepted).await?;
    frames(device, session, DataStream::Stdout).await
}

async fn exit_first(device: Arc<HostileDevice>, mut session: HostileSession) -> Result<Outcome> {
    session.say(&SessionMessage::Exit(Exit::Status(0))).await?;
    let within = device.door.run.within;
    Ok(session.verdict(within, "an exit sent".to_owned()).await)
}

async fn data_after_eof(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    session.say(&SessionMessage::Eof).await?;
    frames(device, session, DataStream::Stdout).await
}

async fn stdin_back(device: Arc<HostileDevice>, mut session: HostileSession) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    frames(device, session, DataStream::Stdin).await
}

async fn frames(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
    stream: DataStream,
) -> Result<Outcome> {
    let mut sent = 0;
    while sent < device.count() && session.data(stream, GREETING).await.is_ok() {
        sent += 1;
    }
    let within = device.door.run.within;
    Ok(session.verdict(within, format!("{sent} frames sent")).await)
}

async fn silent(device: Arc<HostileDevice>, mut session: HostileSession) -> Result<Outcome> {
    let within = device.door.run.within;
    Ok(session.verdict(within, "nothing said".to_owned()).await)
}
