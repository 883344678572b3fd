//! Reports the events of sessions to the audit log: one function an event.

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::wire::{Exit, Open};
use tracing::info;

use crate::audit::{Audit, CLOCK_SKEW, Event, EventKind};
use crate::log_limit::{self, LimitedLine};
use crate::model::request::ProcessRequest;
use crate::model::role::RecordingMode;
use crate::session::client::Client;
use crate::session::client::target::SshTarget;
use crate::session::ending::{End, Ending, Process};
use crate::session::refusal::{ForwardEnd, Refusal};
use crate::session::registry::LiveSession;
use crate::session::registry::console::ConsoleStream;
use crate::session::registry::destination::{Destination, Endpoint};
use crate::session::sftp::Booked;
use crate::store::Device;

/// The way that the beginning of a forward was reported, if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardOpening {
    /// It did not.
    No,
    /// By a row of its own; its end has one too.
    Row,
    /// In a sum, with others that came to the same device.
    Summed,
}

/// Tells of sessions. Cloning it is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    audit: Audit,
}

/// The attributes of a forward's recording for the audit log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardLog {
    /// The mode: as the role says, `off`, or `unavailable`.
    pub mode: &'static str,
    /// The recording.
    pub recording: Option<SessionId>,
}

impl Report {
    /// Tells this log.
    #[must_use]
    pub(crate) fn new(audit: Audit) -> Self {
        Self { audit }
    }

    /// Reports that a session begins; with an error, which is a sentence for the operator, it must not: then it cannot
    /// be recorded, and none may go unrecorded.
    ///
    /// # Errors
    /// The log's.
    pub(crate) async fn session_start(
        &self,
        session: &LiveSession,
        open: &Open,
        request: &ProcessRequest,
    ) -> Result<(), Refusal> {
        info!(session = %session.id, user = %open.user, device = %session.device.name,
            login = %open.login, work = ?request, client = %open.client, "session start");
        let kind = session.authorized.ability().as_str();
        let event = of(session, Event::new(EventKind::SessionStart)).with("kind", kind);
        let event = event.with("terminal", open.pty.is_some());
        let terms = session.authorized.terms();
        let mode = match &open.recording {
            Some(_) => terms.recording.as_str(),
            None if terms.recording == RecordingMode::Off => "off",
            None => "unavailable",
        };
        let event = event.with("recording", mode);
        let held = open.terms.sftp.as_ref();
        let event = match held.filter(|held| held.read_only) {
            Some(_) => event.with("read_only", true),
            None => event,
        };
        let event = match held.and_then(|held| held.root.as_deref()) {
            Some(root) => event.with("root", root),
            None => event,
        };
        let event = match open.terms.agent {
            true => event.with("agent_forward", true),
            false => event,
        };
        let event = match session.device.clock_skew {
            Some(skew) => event.with(CLOCK_SKEW, skew),
            None => event,
        };
        // Loudly: users who may get into a device that cannot record are to be noticed.
        let event = match &open.recording {
            Some(terms) if terms.recover => event.with("recover", true),
            _ => event,
        };
        let work = match request {
            ProcessRequest::Shell => None,
            ProcessRequest::Exec(command) => Some(Event::exec(command)),
            ProcessRequest::Subsystem(name) => Some(Event::subsystem(name)),
        };
        let mut events = vec![event];
        events.extend(work.map(|work| at_terminal(of(session, work), session)));
        let recorded = self.audit.record_all(events).await;
        recorded.map_err(Refusal::from)
    }

    /// Reports that it is over; `process` is what became of its process, if that did not end by itself.
    pub(crate) async fn session_end(
        &self,
        session: &LiveSession,
        end: &End,
        process: Option<Process>,
    ) {
        let (traffic, age) = (session.traffic(), session.age());
        info!(session = %session.id, %end, bytes_in = traffic.bytes_in, bytes_out = traffic.bytes_out,
            seconds = age.as_secs(), "session end");
        if let End::Ordered(ending) = end {
            let event = Event::new(EventKind::ClientDisconnect);
            self.audit.note(ordered(of(session, event), ending)).await;
        }
        let event = at_terminal(of(session, Event::new(EventKind::SessionEnd)), session)
            .with("bytes_in", traffic.bytes_in)
            .with("bytes_out", traffic.bytes_out)
            .with("duration_seconds", age.as_secs_f64());
        let event = match process {
            Some(process) => event.with("process", process.as_str()),
            None => event,
        };
        let event = match end {
            End::Exited(Exit::Status(status)) => event.with("exit", *status),
            End::Exited(Exit::Signal { signal, .. }) => {
                event.with("signal", format!("{signal:?}").to_uppercase())
            }
            // The relay's own doing went as it should.
            End::Ordered(ending) => event.because(ending.cause.as_str()),
            End::ClientGone => event.because("the client went away"),
            End::Upgrading => event.because(end.to_string()),
            End::Refused(_) | End::NoAnswer(_) | End::DeviceLost(_) | End::Protocol(_) => {
                event.failed(end.to_string())
            }
        };
        self.audit.note(event).await;
    }

    /// Reports a file operation of an sftp session that was answered.
    pub(crate) async fn sftp(&self, session: &LiveSession, booked: Booked) {
        let Booked {
            name,
            path,
            to,
            result,
            bytes_read,
            bytes_written,
        } = booked;
        let event = of(session, Event::sftp(name, &path, &result))
            .with("bytes_read", bytes_read)
            .with("bytes_written", bytes_written);
        let event = match to {
            Some(to) => event.with_bytes("to", &to),
            None => event,
        };
        let event = match &*result {
            "ok" => event,
            _ => event.failed(result),
        };
        self.audit.note(event).await;
    }

    /// Reports that a connection, a channel or a session is refused.
    pub(crate) async fn session_rejected(
        &self,
        client: &Client,
        target: &SshTarget,
        device: Option<&Device>,
        reason: &Refusal,
    ) {
        info!(client = %client.address, ?target, %reason, "session rejected");
        let event = Event::new(EventKind::SessionRejected).refused(reason.to_string());
        let event = match device {
            Some(device) => event.device(device),
            None => event,
        };
        self.audit.note_refusal(on(client, target, event)).await;
    }

    /// Reports that a forwarding was asked for, and refused.
    pub(crate) async fn forward_refused(
        &self,
        client: &Client,
        place: &Endpoint,
        reason: &Refusal,
    ) {
        if let Some((_, target)) = client.principal() {
            let event = about(place).refused(reason.to_string());
            self.audit.note_refusal(on(client, target, event)).await;
        }
    }

    /// Reports that a forward's target answers; with an error, which is a sentence for the operator, nothing may pass.
    /// Returns how it was reported, for its end.
    ///
    /// # Errors
    /// The log's.
    pub(crate) async fn forward_open(
        &self,
        session: &LiveSession,
        to: &Destination,
        ForwardLog { mode, recording }: ForwardLog,
    ) -> Result<ForwardOpening, Refusal> {
        if let Some(left_out) = admits_line(session, to) {
            info!(session = %session.id, device = %session.device.name, %to, client = %session.client,
                left_out, "forward open");
        }
        let event = leading(session, to).with("state", "open");
        let event = event.with("recording", mode);
        let event = match recording {
            Some(id) => event.with("recorded_in", id.to_string()),
            None => event,
        };
        let device = session.device.id;
        let summed = match to.is_arrival() {
            // A device announces as many as it likes.
            true => self.audit.sum_arrival(device, event),
            false => Some(event),
        };
        let Some(event) = summed else {
            self.audit.admits()?;
            return Ok(ForwardOpening::Summed);
        };
        self.audit.record_all(vec![event]).await?;
        Ok(ForwardOpening::Row)
    }

    /// Reports that a forward is over; or it never came to be, if it was not `opened`.
    pub(crate) async fn forward_end(
        &self,
        session: &LiveSession,
        to: &Destination,
        reported: ForwardOpening,
        end: &ForwardEnd,
    ) {
        let (traffic, age) = (session.traffic(), session.age());
        let opened = reported != ForwardOpening::No;
        if let Some(left_out) = admits_line(session, to) {
            info!(session = %session.id, %to, %end, bytes_in = traffic.bytes_in,
                bytes_out = traffic.bytes_out, seconds = age.as_secs(), left_out, "forward end");
        }
        let event = leading(session, to);
        let event = match opened {
            false => event,
            true => event
                .with("state", "closed")
                .with("bytes_in", traffic.bytes_in)
                .with("bytes_out", traffic.bytes_out)
                .with("duration_seconds", age.as_secs_f64()),
        };
        let event = match end {
            ForwardEnd::Closed => event,
            ForwardEnd::Prohibited(why) => event.refused(why.as_str()),
            ForwardEnd::Refused(why) => event.refused(why.to_string()),
            ForwardEnd::Ordered(ending) if opened => event.because(ending.cause.as_str()),
            ForwardEnd::Ordered(ending) => event.refused(ending.why.as_str()),
            ForwardEnd::ClientGone | ForwardEnd::BrokenOff if opened => {
                event.because(end.to_string())
            }
            other => event.failed(other.to_string()),
        };
        // What came to nothing can be asked for at will, by the operator or by the device.
        match reported {
            ForwardOpening::No => self.audit.note_refusal(event).await,
            ForwardOpening::Row => self.audit.note(event).await,
            ForwardOpening::Summed => self.audit.sum_arrival_end(session.device.id, event),
        }
    }

    /// Reports that the relay ends a console command that would have gone on.
    pub(crate) async fn console_ended(&self, stream: &ConsoleStream, ending: &Ending) {
        info!(stream = %stream.id, user = %stream.user, reason = ending.cause.as_str(), "console command ended");
        let event = Event::new(EventKind::ClientDisconnect)
            .user(stream.actor.clone())
            .client(stream.client)
            .session(stream.id)
            .with("command", stream.command.as_str());
        self.audit.note(ordered(event, ending)).await;
    }

    /// Reports that the relay ends a connection that would have gone on.
    pub(crate) async fn connection_ended(&self, client: &Client, ending: &Ending) {
        let Some((_, target)) = client.principal() else {
            return;
        };
        info!(client = %client.address, reason = ending.cause.as_str(), "connection ended");
        let event = ordered(Event::new(EventKind::ClientDisconnect), ending);
        self.audit.note(on(client, target, event)).await;
    }

    /// Reports that an environment variable is not passed on. Its value may be a secret.
    pub(crate) async fn env_rejected(&self, client: &Client, name: &str) {
        if let Some((_, target)) = client.principal() {
            let event = Event::env_rejected(name);
            self.audit.note_refusal(on(client, target, event)).await;
        }
    }

    /// Checks whether a session may begin at all, as far as the log is concerned.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn admits(&self) -> Result<(), Refusal> {
        Ok(self.audit.admits()?)
    }
}

/// Returns whether a line about a forward may be written, and how many were left out before: what a device announces,
/// it can announce at will.
fn admits_line(session: &LiveSession, to: &Destination) -> Option<log_limit::LeftOut> {
    match to.is_arrival() {
        false => Some(0),
        true => log_limit::admits(LimitedLine::Arrival, session.device.id),
    }
}

fn about(place: &Endpoint) -> Event {
    match place {
        Endpoint::Agent => Event::new(EventKind::AgentForward),
        place => Event::port_forward(place.host(), place.port()),
    }
}

/// Returns a row about a forward.
fn leading(session: &LiveSession, to: &Destination) -> Event {
    let event = of(session, about(&to.place));
    let event = match to.place {
        Endpoint::Agent => event,
        _ => event.with("direction", to.direction.as_str()),
    };
    match to.address.get() {
        Some(address) => event.with("address", address.to_string()),
        None => event,
    }
}

/// Returns the event with whose session it is about.
fn of(session: &LiveSession, event: Event) -> Event {
    event
        .user(session.actor.clone())
        .client(session.client)
        .device(session.device.clone())
        .login(session.authorized.login())
        .session(session.id)
}

/// Returns the event, marked where its session has a terminal: what a person did is found by that.
fn at_terminal(event: Event, session: &LiveSession) -> Event {
    match session.terminal {
        true => event.with("terminal", true),
        false => event,
    }
}

/// Returns the event with whose connection it is about, and what was asked for on it.
fn on(client: &Client, target: &SshTarget, event: Event) -> Event {
    let event = event.client(client.address);
    let event = match client.principal() {
        Some((principal, _)) => event.user(principal),
        None => event,
    };
    match target {
        SshTarget::Device(login, device) => event.login(login).with("target", device.as_str()),
        SshTarget::Relay | SshTarget::Unusable(_) => event,
    }
}

fn ordered(event: Event, ending: &Ending) -> Event {
    let event = event.because(ending.cause.as_str());
    event.with("text", ending.why.as_str())
}
