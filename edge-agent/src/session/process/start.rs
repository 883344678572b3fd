//! Starts the process of a session, and connects it to the stream.

use std::mem::take;
use std::sync::Arc;

use holdfast_protocol::wire::{Open, SessionRefusal};

use super::ProcessDriver;
use crate::os::{accounts, environment};
use crate::recording::NotRecordable;
use crate::session::agent_socket::AgentSocket;
use crate::session::launch::{Common, Ends, launch};
use crate::session::limits::{BULK_PRIORITY, INTERACTIVE_PRIORITY};
use crate::session::pump::InputSink;
use crate::session::registry::SlotKind;
use crate::warn;

impl ProcessDriver {
    /// Starts what `open` asks for, and reports to the state machine that it runs, or why it does not.
    pub(super) async fn start(&mut self, open: Open) {
        if let Some(gone) = self.pump.withdrawn().await {
            self.peer_gone(gone);
            let why = SessionRefusal::Unreachable("it was cancelled before it started".to_owned());
            return self.core.handle_refused(why);
        }
        let names = accounts::other_names(&open.login);
        match self.launch(open).await {
            Ok(()) => self.core.handle_started(self.epoch.elapsed(), names),
            Err(why) => self.core.handle_refused(why),
        }
    }

    async fn launch(&mut self, mut open: Open) -> Result<(), SessionRefusal> {
        self.slot = Some(self.sessions.occupy(SlotKind::Session)?);
        let priority = match open.pty.is_some() {
            true => INTERACTIVE_PRIORITY,
            false => BULK_PRIORITY,
        };
        self.pump.outbound.set_priority(priority);
        // Before the recording begins: a value that the session does not get is kept nowhere.
        let accepted = &self.sessions.config.accept_env;
        let filtered = environment::filter(take(&mut open.env), accepted);
        open.env = filtered.allowed;
        let recording = &mut self.pump.recording;
        let recorded = match recording.begin(&open) {
            Ok(()) => Box::pin(recording.refused_environment(&filtered.refused)).await,
            Err(why) => Err(why),
        };
        recorded.map_err(|NotRecordable(why)| SessionRefusal::RecordingUnavailable(why))?;
        if open.terms.agent {
            let (sessions, denied) = (Arc::clone(&self.sessions), &open.terms.denied_logins);
            let made =
                AgentSocket::make(sessions, open.session, open.login.clone(), denied.clone());
            match Box::pin(made).await {
                Ok(agent) => self.agent = Some(agent),
                // As with sshd, the session does without.
                Err(why) => warn!(
                    "session {}: no socket for its SSH agent: {why:?}",
                    open.session
                ),
            }
        }
        let agent_socket = self.agent.as_ref().and_then(AgentSocket::path);
        let config = &self.sessions.config;
        // Boxed: what a start needs would otherwise be held for the session's whole life.
        let common = Common {
            program: &config.program,
            sftp_server: &config.sftp_server,
            tasks: &config.tasks,
            mode: config.login,
            logins: &self.sessions.logins,
        };
        let launched = Box::pin(launch(common, open, agent_socket)).await?;
        self.pump.recording.started(launched.process.id());
        self.process = Some(launched.process);
        self.login = launched.login;
        self.connect(launched.ends);
        Ok(())
    }

    fn connect(&mut self, ends: Ends) {
        let (stdin, outbound) = (&mut self.pump.inbound.stdin, &mut self.pump.outbound);
        match ends {
            Ends::Terminal(master) => {
                let master = Arc::new(master);
                stdin.open(Arc::clone(&master), InputSink::Terminal);
                outbound.open(Some(Arc::clone(&master)), None);
                self.terminal = Some(master);
            }
            Ends::Pipes {
                stdin: input,
                stdout,
                stderr,
            } => {
                stdin.open(Arc::new(input), InputSink::Pipe);
                outbound.open(Some(Arc::new(stdout)), Some(Arc::new(stderr)));
            }
        }
    }
}
