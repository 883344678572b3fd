//! From the device to the operator.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::session::{ProcessReport, RelayProcess, SessionViolation};

use super::context::SpliceContext;
use super::files::Files;
use crate::recording::stream_digests::StreamDigests;
use crate::session::admission::names;
use crate::session::ending::End;
use crate::session::forward::agent::AgentForwarding;
use crate::session::output::Gone;
use crate::session::registry::LiveSession;
use crate::session::sftp::ahead::ReadPart;
use crate::session::stream::{BrokenStream, Downward, Gather};
use crate::store::Store;

/// The downward half of a splice.
pub(crate) struct ProcessDown<'a> {
    session: &'a LiveSession,
    /// True if the device has accepted the session.
    started: &'a AtomicBool,
    store: &'a Store,
    files: &'a Files<'a>,
    agent: Option<&'a AgentForwarding>,
    /// Takes the digests of what passes, if the session is recorded.
    watched: Option<&'a StreamDigests>,
    state: RelayProcess,
}

impl<'a> ProcessDown<'a> {
    /// Returns the half of a session; `started` is set when the device accepts it.
    #[must_use]
    pub(crate) fn new(session: &'a LiveSession, ways: SpliceContext<'a>) -> Self {
        let SpliceContext {
            started,
            watched,
            store,
            files,
            agent,
            fence: _,
        } = ways;
        Self {
            session,
            started,
            store,
            files,
            agent,
            watched,
            state: RelayProcess::new(agent.is_some()),
        }
    }

    async fn follow(&mut self, event: ProcessReport) -> Result<(), End> {
        match event {
            ProcessReport::Accepted => {
                self.started.store(true, Ordering::Relaxed);
                Ok(())
            }
            // The operator's EOF comes behind the exit status. OpenSSH closes a channel as soon as both
            // sides have sent EOF, and russh forgets a channel that is closed: a status sent after that
            // would be lost, and `ssh` would exit with 255.
            ProcessReport::OutputEnded => Ok(()),
            ProcessReport::Exited(exit) => Err(End::Exited(exit)),
            ProcessReport::Incoming(incoming) => match self.agent {
                Some(agent) => {
                    agent.come(self.session.id, incoming).await;
                    Ok(())
                }
                None => Err(SessionViolation::Kind.into()),
            },
            ProcessReport::Names(names) => {
                names::accept(self.store, self.session, names).map_err(End::Ordered)
            }
            ProcessReport::Refused(why) => {
                let sentence = names::sentence(self.store, self.session, &why);
                Err(End::Refused(sentence))
            }
        }
    }

    /// Passes on what the device sent, but for what only the relay asked for.
    async fn pass(
        &mut self,
        gather: &mut Gather<'_>,
        stream: DataStream,
        data: &[u8],
    ) -> Result<(), Gone> {
        let ahead = self.files.ahead();
        let Some(ahead) = ahead.filter(|_| stream == DataStream::Stdout) else {
            return gather.add(stream, data).await;
        };
        for part in ahead.answers(data) {
            match part {
                ReadPart::Same(range) => {
                    let data = data.get(range).unwrap_or_default();
                    gather.add(stream, data).await?;
                }
                ReadPart::Other(bytes) => gather.add(stream, &bytes).await?,
            }
        }
        Ok(())
    }

    /// Flushes at the end of the output: half of a packet is shown as it is.
    async fn rest(&mut self, gather: &mut Gather<'_>) -> Result<(), Gone> {
        let rest = self.files.ahead().map(|ahead| ahead.rest());
        match rest.filter(|rest| !rest.is_empty()) {
            Some(rest) => gather.add(DataStream::Stdout, &rest).await,
            None => Ok(()),
        }
    }
}

impl Downward for ProcessDown<'_> {
    type End = End;

    const MISSING: &'static str = "its stream ended before the exit status";

    /// Returns what the relay tells the client on its own, when there is something.
    async fn own(&self) -> Bytes {
        match self.files.ahead() {
            Some(ahead) => ahead.for_client().await,
            None => std::future::pending().await,
        }
    }

    async fn data(
        &mut self,
        gather: &mut Gather<'_>,
        stream: DataStream,
        data: &[u8],
        remaining: usize,
    ) -> Result<(), End> {
        self.state.handle_data(stream)?;
        if stream == DataStream::Stdout {
            self.files.answered(data).await;
        }
        if let Some(watched) = self.watched {
            watched.pass(stream, data, remaining);
        }
        Ok(self
            .pass(gather, stream, data)
            .await
            .map_err(BrokenStream::from)?)
    }

    async fn message(
        &mut self,
        gather: &mut Gather<'_>,
        message: SessionMessage,
    ) -> Result<(), End> {
        if let SessionMessage::Eof | SessionMessage::Exit(_) = message {
            self.rest(gather).await.map_err(BrokenStream::from)?;
        }
        gather.flush().await.map_err(BrokenStream::from)?;
        let event = self.state.handle_message(message)?;
        self.follow(event).await
    }
}
