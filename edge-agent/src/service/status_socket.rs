//! Answers on the Unix socket in the state folder at which commands reach the running agent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use smol::Timer;
use smol::net::unix::UnixListener;

use super::limits::{MAX_QUESTION, STATUS_TIMEOUT};
use super::status::{AgentStatus, Question, SOCKET};
use super::upgrade::trial::Upgrades;
use crate::os::runtime;
use crate::os::state::StateDir;
use crate::session::AgentSessions;
use crate::tunnel::status::TunnelStatus;
use crate::warn;

fn read(tunnel: &TunnelStatus, sessions: &AgentSessions, upgrades: &Upgrades) -> AgentStatus {
    let tunnel = tunnel.snapshot();
    AgentStatus {
        name: tunnel.name.to_string(),
        id: tunnel.id.to_string(),
        state: tunnel.state().to_owned(),
        relay: tunnel.relay,
        generation: tunnel.generation,
        observed_address: tunnel.observed_address,
        for_seconds: Some(tunnel.since.elapsed().as_secs()),
        sessions: sessions.live(),
        last_error: tunnel.last_error,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        spool: Some(sessions.recorder().status()),
        tasks: Some(sessions.task_limit().to_string()),
        program: Some(upgrades.program().to_owned()),
        arguments: std::env::args_os()
            .skip(1)
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        upgrade: upgrades.last().and_then(|journal| journal.trouble()),
        refused: None,
    }
}

/// Answers `status` for as long as the agent runs. An agent without its socket still serves.
pub fn serve(
    state: &StateDir,
    tunnel: Arc<TunnelStatus>,
    sessions: Arc<AgentSessions>,
    upgrades: Arc<Upgrades>,
) {
    let listener = match bind(state) {
        Ok(listener) => listener,
        Err(error) => return warn!("`edge-agent status` will not see this agent: {error}"),
    };
    let answer_all = async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                Timer::after(Duration::from_secs(1)).await;
                continue;
            };
            let answer = async {
                let mut asked = String::new();
                let most = MAX_QUESTION;
                (&mut stream).take(most).read_to_string(&mut asked).await?;
                let refused = match Question::parse(&asked) {
                    Some(Question::Upload) => {
                        sessions.recorder().request_upload();
                        None
                    }
                    Some(Question::Upgrade(by)) => {
                        upgrades.replace(by).err().map(|why| why.to_string())
                    }
                    Some(Question::Status) | None => None,
                };
                let status = read(&tunnel, &sessions, &upgrades);
                let answer = AgentStatus { refused, ..status };
                let answer = serde_json::to_vec(&answer).unwrap_or_default();
                stream.write_all(&answer).await
            };
            let late = async {
                Timer::after(STATUS_TIMEOUT).await;
                Ok(())
            };
            let _ = answer.or(late).await;
        }
    };
    runtime::spawn(answer_all).detach();
}

fn bind(state: &StateDir) -> Result<UnixListener, Box<dyn std::error::Error>> {
    // The lock is held: a socket that is there is a dead agent's.
    match std::fs::remove_file(state.file(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let (_dir, path) = state.short_path(SOCKET)?;
    Ok(UnixListener::bind(path)?)
}
