//! Records forwards: in one recording for all that go through a device on one SSH connection.
//!
//! A browser behind `ssh -D` makes thousands of connections, so none has a recording of its own. The first one has the
//! device begin a recording on a stream without data, and each is noted there by the device, before its first byte
//! passes. It lasts until the SSH connection is over, or the tunnel. It is no session: it takes no slot, is in no
//! registry, and keeps no connection from being idle.

use std::sync::{Arc, OnceLock};

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::limits::{FORWARD_LOG_MINOR, RECORDING_PER_FORWARD};
use holdfast_protocol::recording::chain::{ChainKey, Closing, SeenForward, SessionStart};
use holdfast_protocol::session::{ForwardKind, ForwardReport};
use holdfast_protocol::wire::{
    self, ForwardLogRef, ForwardRequest, Open, SessionRefusal, SessionTerms,
};
use quinn::{SendStream, VarInt};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::events::EventReader;
use crate::access::policy::Ability;
use crate::access::recording::{self, Unrecordable};
use crate::clock::{self, Timestamp};
use crate::fence::StoreFence;
use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::model::role::RecordingMode;
use crate::recording::RecordingSupport;
use crate::session::Sessions;
use crate::session::admission::recorded::{self, Recorded};
use crate::session::client::Client;
use crate::session::client::forwards::{LogRoom, Need, Standing};
use crate::session::ending::{Cause, Ending};
use crate::session::limits::LISTEN_TIMEOUT;
use crate::session::refusal::{ForwardEnd, Refusal, device as refusal};
use crate::session::registry::LiveSession;
use crate::session::registry::destination::Destination;
use crate::session::report::ForwardLog;
use crate::session::stream::{self, OpenError};
use crate::store::SessionFacts;
use crate::tunnel::peer::route::{DeviceRoute, DeviceStream};

/// The place where a forward is recorded, for as long as it is under way.
#[derive(Debug)]
pub(crate) struct RecordedForward {
    place: Option<(Arc<Standing>, u32)>,
    mode: &'static str,
}

impl RecordedForward {
    const fn nowhere(mode: &'static str) -> Self {
        Self { place: None, mode }
    }

    /// Returns the reference for the device.
    pub(crate) fn log_ref(&self) -> Option<ForwardLogRef> {
        let (standing, number) = self.place.as_ref()?;
        Some(ForwardLogRef {
            session: standing.id,
            number: *number,
            mode: match standing.need.wanted.is_strict() {
                true => wire::RecordingMode::Strict,
                false => wire::RecordingMode::BestEffort,
            },
        })
    }

    /// Returns the attributes for the audit log.
    pub(crate) fn summary(&self) -> ForwardLog {
        ForwardLog {
            mode: self.mode,
            recording: self.place.as_ref().map(|(standing, _)| standing.id),
        }
    }

    /// Resolves when it may not go on, because it is not recorded any more.
    pub(crate) async fn cut(&self) -> ForwardEnd {
        let Some((standing, _)) = &self.place else {
            return std::future::pending().await;
        };
        standing.cut.cancelled().await;
        match standing.ending.get() {
            Some(ending) => ForwardEnd::Ordered(ending.clone()),
            // It is set before.
            None => std::future::pending().await,
        }
    }

    /// Notes how it ended and what passed on it; `opened` says whether the device accepted it. What a lock or
    /// a change of access ends takes the recording with it when nothing else is under way there.
    pub(crate) async fn end(
        &self,
        session: &LiveSession,
        to: &Destination,
        opened: bool,
        end: &ForwardEnd,
    ) {
        let Some((standing, number)) = &self.place else {
            return;
        };
        if let ForwardEnd::Ordered(ending) = end
            && matches!(ending.cause, Cause::Locked | Cause::Access)
        {
            standing.room.close();
        }
        let traffic = session.traffic();
        let seen = SeenForward {
            sent: traffic.bytes_in,
            received: traffic.bytes_out,
            opened,
            orderly: matches!(end, ForwardEnd::Closed | ForwardEnd::BrokenOff),
            ..to.recorded()
        };
        let Standing {
            recordings, room, ..
        } = &**standing;
        if let Err(error) = recordings.forward_over(&room.watched, *number, &seen).await {
            warn!(recording = %standing.id, number, %error, "cannot store a forward's counters");
        }
    }
}

impl Drop for RecordedForward {
    fn drop(&mut self) {
        if let Some((standing, _)) = &self.place {
            standing.room.leave();
        }
    }
}

impl Sessions {
    /// Begins to record a forward that is in the registry; an error is a sentence for its operator, who has none.
    pub(crate) async fn record_forward(
        self: &Arc<Self>,
        client: &Arc<Client>,
        session: &LiveSession,
        route: &DeviceRoute,
    ) -> Result<RecordedForward, Refusal> {
        let authorized = &session.authorized;
        let recover = authorized.check_also(Ability::Recover).is_ok();
        let Some(wanted) = recording::wanted(authorized.terms(), recover) else {
            return Ok(RecordedForward::nowhere(RecordingMode::Off.as_str()));
        };
        let standing = if route.minor() < FORWARD_LOG_MINOR {
            let device = authorized.device().name.clone();
            Err(Unrecordable::OldForwards(device))
        } else {
            let route = route.clone();
            let need = Need { route, wanted };
            let begun = self.begin_log(client, session, need.clone());
            client.forwards.0.get(need, begun).await
        };
        match standing {
            Ok(place) => {
                let (standing, _) = &place;
                let to = session.destination.as_ref();
                let named = to.map_or(0, |to| to.place.host().len() as u64);
                standing.room.watched.book(RECORDING_PER_FORWARD + named);
                Ok(RecordedForward {
                    place: Some(place),
                    mode: authorized.terms().recording.as_str(),
                })
            }
            Err(why) => {
                let without = wanted.without(why.clone());
                without?;
                warn!(session = %session.id, %why, "the forward is not recorded");
                Ok(RecordedForward::nowhere("unavailable"))
            }
        }
    }

    /// Begins a recording of the connection's forwards.
    async fn begin_log(
        self: &Arc<Self>,
        client: &Arc<Client>,
        session: &LiveSession,
        need: Need,
    ) -> Result<Arc<Standing>, Unrecordable> {
        let id =
            Self::new_session_id().map_err(|refusal| Unrecordable::Device(refusal.to_string()))?;
        let about = SessionFacts {
            id,
            kind: Ability::Forward,
            command: None,
            terminal: false,
            started: Timestamp::now(),
            ..session.facts()
        };
        let begun = |key: &ChainKey| {
            let terms = need.wanted.terms(key.clone());
            SessionStart::of(&ForwardRequest::Log.into(), None, &[], &terms)
        };
        let (key, recorded) =
            recorded::note(self, about, begun, RecordingSupport::default()).await?;
        let open = Open {
            session: id,
            user: session.authorized.user().name.clone(),
            login: session.authorized.login().clone(),
            request: ForwardRequest::Log.into(),
            pty: None,
            env: Vec::new(),
            client: client.address,
            server: client.server,
            original_command: None,
            recording: Some(need.wanted.terms(key)),
            terms: SessionTerms::default(),
            forward_log: None,
        };
        let (send, ear) = match begin(open, session, &need.route, &self.tunnels.fence).await {
            Ok(stream) => stream,
            Err(why) => {
                recorded::forget(Some(recorded)).await;
                return Err(why);
            }
        };
        let standing = Arc::new(Standing {
            id,
            need,
            recordings: recorded.recordings.clone(),
            room: LogRoom::new(recorded.watched.clone()),
            cut: CancellationToken::new(),
            ending: OnceLock::new(),
        });
        let device = session.authorized.device().name.to_string();
        tokio::spawn(keep(
            client.clone(),
            standing.clone(),
            device,
            send,
            ear,
            recorded,
        ));
        Ok(standing)
    }
}

/// Has the device begin the recording; an error is a sentence.
async fn begin(
    open: Open,
    session: &LiveSession,
    route: &DeviceRoute,
    fence: &StoreFence,
) -> Result<(SendStream, EventReader), Unrecordable> {
    let authorized = &session.authorized;
    let (device, login) = (&authorized.device().name, authorized.login());
    let lost = |error: &str| Unrecordable::Device(format!("{device} was lost: {error}"));
    let deadline = clock::instant() + LISTEN_TIMEOUT;
    let silent = || {
        let why = format!("recording unavailable on {device}: it does not answer");
        Unrecordable::Device(why)
    };
    let mut slot = None;
    let opened = stream::open(&mut slot, route, fence, open, LISTEN_TIMEOUT);
    match timeout_at(deadline, opened).await {
        Ok(Ok(_)) => {}
        Ok(Err(OpenError::Request(error))) => return Err(Unrecordable::Device(error.to_string())),
        Ok(Err(OpenError::Lost(error))) => return Err(lost(&error)),
        Ok(Err(OpenError::Busy)) | Err(_) => return Err(silent()),
    }
    let Some(DeviceStream { mut send, receive }) = slot else {
        return Err(silent());
    };
    let mut ear = EventReader::new(receive, ForwardKind::Log);
    let answer = timeout_at(deadline, ear.next()).await;
    if answer.is_err() {
        // A device that wakes up later finds that it is not wanted any more.
        let _ = send.reset(VarInt::from_u32(0));
    }
    match answer.map_err(|_| silent())? {
        Ok(ForwardReport::Accepted) => Ok((send, ear)),
        Ok(ForwardReport::Refused(why)) => {
            Err(Unrecordable::Device(refusal::sentence(device, login, &why)))
        }
        Ok(_) => Err(Unrecordable::Device(format!("{device} broke the protocol"))),
        Err(end) => Err(Unrecordable::Device(end.to_string())),
    }
}

/// Keeps a recording until nothing will be recorded in it any more.
async fn keep(
    client: Arc<Client>,
    standing: Arc<Standing>,
    device: String,
    mut send: SendStream,
    mut ear: EventReader,
    Recorded {
        recordings,
        watched,
    }: Recorded,
) {
    let over = async {
        tokio::select! {
            () = client.over() => {}
            () = standing.room.closed() => {}
        }
        standing.room.empty().await;
    };
    let ended = tokio::select! {
        biased;
        () = over => None,
        why = ended(&mut ear) => why,
    };
    standing.room.close();
    if let Some(why) = ended {
        if standing.need.wanted.is_strict() {
            let _ = standing.ending.set(Ending {
                cause: Cause::Unrecorded,
                why: format!("recording unavailable on {device}: {why}"),
            });
            standing.cut.cancel();
        }
        // They end first, so that the device can tell how.
        let _ = timeout(FINAL_STATUS_TIMEOUT, standing.room.empty()).await;
    }
    // The device may have ended it, or be gone.
    let _ = send.finish();
    if let Err(error) = recordings.over(&watched, Closing::default(), false).await {
        error!(recording = %standing.id, %error, "cannot store the end of a recording of forwards");
    }
}

/// Resolves when the device takes no more, with the reason; `None`: it is gone, and so are the forwards.
async fn ended(ear: &mut EventReader) -> Option<String> {
    loop {
        match ear.next().await {
            Ok(ForwardReport::Refused(SessionRefusal::RecordingUnavailable(why))) => {
                return Some(Escaped(&why).to_string());
            }
            Ok(ForwardReport::Accepted | ForwardReport::OutputEnded) => {}
            Ok(_) => return Some("it was ended there".to_owned()),
            Err(ForwardEnd::DeviceLost(_)) => return None,
            Err(end) => return Some(end.to_string()),
        }
    }
}
