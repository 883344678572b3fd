//! Work on many devices, asked for at the console.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::over;
use crate::access::policy::{Ability, Subject};
use crate::bulk::{self, BulkCaller, BulkJob, BulkRequest, Copy, Payload, PayloadError};
use crate::commands::call::Command as _;
use crate::commands::devices::{cp, exec};
use crate::commands::{self, AnyCommand, Bulk, Caller, Out};
use crate::identity::Principal;
use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::session::input::InputReceiver;
use crate::session::refusal::Refusal;
use crate::ssh::Front;

/// Does it, and gives the exit status; an error says whether the client wished its end, rather than being gone.
pub(super) async fn run(
    (front, client): (&Front, &BulkCaller),
    principal: &Principal,
    (command, caller): (&AnyCommand, &Caller),
    input: &mut InputReceiver,
    out: &mut Out<'_>,
    err: &mut Out<'_>,
) -> Result<u8, bool> {
    let asked = may(principal, caller, command);
    let failed = match asked.is_ok() && command.names_file() {
        true => commands::USAGE,
        false => commands::FAILED,
    };
    let asked = match (asked, command.bulk()) {
        (Ok(subject), Some(Bulk::Exec(args))) => exec(subject, args).map(|order| (subject, order)),
        (Ok(subject), Some(Bulk::Cp(args))) => {
            match cp((front, client), subject, args, input).await {
                Ok(order) => order.map(|order| (subject, order)),
                Err(ClientGone) => return Err(false),
            }
        }
        (Ok(_), None) => Err(Refusal::Command(
            "this command does not run on a fleet".into(),
        )),
        (Err(refusal), _) => Err(refusal),
    };
    let answer = async {
        let done = match asked {
            Ok((subject, order)) => bulk::work(client, subject, order, out, err).await,
            Err(refusal) => Err(refusal),
        };
        match done {
            Ok(status) => status,
            Err(refusal) => {
                let said = async {
                    err.write_all(format!("{refusal}\n").as_bytes()).await?;
                    err.flush().await
                };
                let _ = timeout(FINAL_STATUS_TIMEOUT, said).await;
                failed
            }
        }
    };
    let given_up = async {
        let interrupted = over(input, true, client.terminal, None).await;
        if interrupted {
            // Before the work is dropped, so that it knows.
            client.interrupted.cancel();
        }
        interrupted
    };
    tokio::select! {
        status = answer => Ok(status),
        interrupted = given_up => Err(interrupted),
    }
}

fn may<'c>(
    principal: &Principal,
    caller: &'c Caller,
    command: &AnyCommand,
) -> Result<&'c Subject, Refusal> {
    commands::permit(caller, command).map_err(Refusal::Command)?;
    // What is forced runs in place of any command, and so of each that would be run here.
    if principal.proof.grant().force.is_some() {
        return Err(Refusal::ForcedCommand);
    }
    match caller {
        Caller::User(subject) => Ok(subject),
        Caller::Local => Err(Refusal::NotAuthenticated),
    }
}

fn exec(subject: &Subject, args: &exec::Args) -> Result<BulkJob, Refusal> {
    Ok(BulkJob {
        on: args.on.clone(),
        login: args
            .order
            .login(&subject.user.name)
            .map_err(|error| Refusal::Command(error.to_string()))?,
        request: BulkRequest::Exec(Bytes::from(args.line())),
        pace: args.order.pace(),
        json: args.json,
    })
}

/// The client went away.
struct ClientGone;

async fn cp(
    (front, client): (&Front, &BulkCaller),
    subject: &Subject,
    args: &cp::Args,
    input: &mut InputReceiver,
) -> Result<Result<BulkJob, Refusal>, ClientGone> {
    // It lies on the operator's machine.
    if args.names_file() {
        let why = "the file comes on stdin: `cp - --on SELECTOR:PATH <FILE`";
        return Ok(Err(Refusal::Command(why.into())));
    }
    let login = match args.order.login(&subject.user.name) {
        Ok(login) => login,
        Err(error) => return Ok(Err(Refusal::Command(error.to_string()))),
    };
    // Before a byte is kept, and before one of the few places is taken.
    let on = &args.on.on;
    let right = bulk::check_right(client, subject, on, &login, Ability::Sftp).await;
    if let Err(refusal) = right {
        return Ok(Err(refusal));
    }
    let (places, user) = (&front.copies, &subject.user.name);
    let file = match Payload::receive(input, places, user, &front.state.dir).await {
        Ok(file) => Arc::new(file),
        Err(PayloadError::Gone) => return Err(ClientGone),
        Err(error) => return Ok(Err(Refusal::Command(error.to_string()))),
    };
    let (path, mode) = (args.on.path.clone(), args.mode);
    Ok(Ok(BulkJob {
        on: args.on.on.clone(),
        login,
        request: BulkRequest::Copy(Copy { file, path, mode }),
        pace: args.order.pace(),
        json: args.json,
    }))
}
