//! The console: `ssh -p 2222 relay COMMAND`. The commands, and who may run them, are the command tree's;
//! here a channel's bytes become a line and a standard input, and back.

use std::net::IpAddr;
use std::sync::Arc;

use holdfast_protocol::escape::EscapedBytes;
use holdfast_protocol::wire::{Exit, Work};
use tokio::time::timeout;
use tracing::info;

use super::auth::Principal;
use super::outlet::{Gone, Outlet};
use super::queue::{Input, InputReceiver};
use crate::clock::Timestamp;
use crate::commands::{self, Caller, Context, Facts};
use crate::limits::CONSOLE_TIMEOUT;
use crate::serve::Relay;

/// What a shell on the relay itself would be: there is none, so the help is shown.
const GREETING: &str =
    "This is a Holdfast relay. It has no shell: give a command, or name a device.\n\n";

/// Runs one command, and closes the channel with its exit status.
pub async fn run(
    relay: Arc<Relay>,
    principal: Principal,
    client: IpAddr,
    work: Work,
    mut input: InputReceiver,
    outlet: Outlet,
    terminal: bool,
) {
    let answered = async {
        let answer = answer(&relay, principal, client, &work, &mut input).await;
        say(&outlet, answer, terminal).await
    };
    // A client that sends no end of its input, or reads no answer, does not keep the task.
    let _ = timeout(CONSOLE_TIMEOUT, answered).await;
    outlet.close().await;
}

#[derive(Default)]
struct Answer {
    out: Vec<u8>,
    err: Vec<u8>,
    status: u8,
}

async fn answer(
    relay: &Relay,
    principal: Principal,
    client: IpAddr,
    work: &Work,
    input: &mut InputReceiver,
) -> Answer {
    let line = match work {
        Work::Exec(line) => line.as_slice(),
        Work::Shell => {
            let (help, status) = match commands::parse_console("--help") {
                Ok(_) => (String::new(), commands::DONE),
                Err(help) => help,
            };
            return Answer {
                out: [GREETING, &help].concat().into_bytes(),
                err: vec![],
                status,
            };
        }
        Work::Subsystem(_) => {
            let err =
                b"the relay itself has no subsystems: name a device, as in LOGIN+DEVICE@relay\n";
            return Answer {
                err: err.to_vec(),
                status: commands::FAILED,
                ..Answer::default()
            };
        }
    };
    info!(user = %principal.user.name, command = %EscapedBytes(line), "console");
    let command = match commands::parse_console(&String::from_utf8_lossy(line)) {
        Ok(command) => command,
        Err((text, commands::DONE)) => {
            return Answer {
                out: text.into_bytes(),
                ..Answer::default()
            };
        }
        Err((text, status)) => {
            return Answer {
                err: text.into_bytes(),
                status,
                out: vec![],
            };
        }
    };
    // The roles may have changed since the login: the decision is made on what holds now.
    let name = &principal.user.name;
    let caller = Caller::over_ssh(&relay.store, name, client).await;
    // Who may not give the command does not fill the relay's memory with its input either.
    let allowed = caller.and_then(|caller| commands::permit(&caller, &command).map(|()| caller));
    let caller = match allowed {
        Ok(caller) => caller,
        Err(sentence) => {
            return Answer {
                err: format!("{sentence}\n").into_bytes(),
                status: commands::FAILED,
                out: vec![],
            };
        }
    };
    let stdin = if command.wants_stdin() {
        Some(read_all(input, command.max_input()).await)
    } else {
        None
    };
    let context = Context {
        store: relay.store.clone(),
        facts: Facts::of(&relay.state),
        now: Timestamp::now(),
    };
    let mut answer = Answer::default();
    answer.status = commands::run(
        command,
        &caller,
        &context,
        stdin.as_deref(),
        &mut answer.out,
        &mut answer.err,
    )
    .await;
    answer
}

/// The standard input up to its end, or a byte more than a command takes, which it then refuses.
async fn read_all(input: &mut InputReceiver, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(input) = input.next().await {
        match input {
            Input::Data(data) => bytes.extend_from_slice(&data),
            Input::Eof => break,
            Input::Resize(_) | Input::Signal(_) => {}
        }
        if bytes.len() > most {
            break;
        }
    }
    bytes
}

async fn say(outlet: &Outlet, answer: Answer, terminal: bool) -> Result<(), Gone> {
    // A terminal is in raw mode on the client's side, so that a line feed alone would make stairs.
    let shape = |text: Vec<u8>| match terminal {
        true => String::from_utf8_lossy(&text)
            .replace('\n', "\r\n")
            .into_bytes(),
        false => text,
    };
    outlet.stdout(shape(answer.out).into()).await?;
    outlet.stderr(shape(answer.err).into()).await?;
    outlet.exit(Exit::Status(answer.status.into())).await?;
    outlet.eof().await
}
