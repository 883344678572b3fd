//! The beginning of a session's recording: the terms for its device, and the digests of what passes.

use holdfast_protocol::limits::FILE_OPERATIONS_MINOR;
use holdfast_protocol::recording::chain::{ChainKey, Closing, SessionStart};
use holdfast_protocol::wire::{Open, RecordingTerms};
use tokio::time::timeout;
use tracing::{error, warn};

use crate::access::policy::Ability;
use crate::access::recording::{Unrecordable, wanted};
use crate::limits::STORE_TIMEOUT;
use crate::recording::stream_digests::StreamDigests;
use crate::recording::{RecordingSupport, Recordings};
use crate::session::Sessions;
use crate::session::refusal::Refusal;
use crate::session::registry::LiveSession;
use crate::store::SessionFacts;
use crate::tunnel::peer::route::DeviceRoute;

/// The minor version from which on devices record.
const RECORDING_MINOR: u16 = 1;

/// A session that is recorded.
pub(crate) struct Recorded {
    /// The recordings that are notified of it.
    pub recordings: Recordings,
    /// The digests of what passes.
    pub watched: StreamDigests,
}

/// Begins the recording of a session that is opened so, if there is to be one.
///
/// # Errors
/// A sentence for the operator: it cannot be recorded, and may not run unrecorded.
pub(crate) async fn begin(
    sessions: &Sessions,
    session: &LiveSession,
    route: &DeviceRoute,
    open: &Open,
) -> Result<Option<(RecordingTerms, Recorded)>, Refusal> {
    let authorized = &session.authorized;
    let recover = authorized.check_also(Ability::Recover).is_ok();
    let Some(wanted) = wanted(authorized.terms(), recover) else {
        return Ok(None);
    };
    let begun = if route.minor() < RECORDING_MINOR {
        let device = authorized.device().name.clone();
        Err(Unrecordable::OldAgent(device))
    } else {
        let begun = |key: &ChainKey| {
            let terms = wanted.terms(key.clone());
            SessionStart::of(&open.request, open.pty.as_ref(), &open.env, &terms)
        };
        let device = RecordingSupport {
            content_max: open.terms.content_max,
            follows_files: route.minor() >= FILE_OPERATIONS_MINOR,
        };
        note(sessions, session.facts(), begun, device).await
    };
    match begun {
        Ok((key, recorded)) => Ok(Some((wanted.terms(key), recorded))),
        Err(why) => {
            let without = wanted.without(why.clone());
            without?;
            warn!(session = %session.id, %why, "the session is not recorded");
            Ok(None)
        }
    }
}

/// Removes the recording of a session that does not begin after all.
pub(crate) async fn forget(recorded: Option<Recorded>) {
    if let Some(Recorded {
        recordings,
        watched,
    }) = recorded
        && let Err(error) = recordings.over(&watched, Closing::default(), true).await
    {
        error!(%error, "cannot remove the entry of a recording that did not begin");
    }
}

/// Notes that there is a recording, before its device hears of it. `device` is what the device does for it.
///
/// # Errors
/// [`Unrecordable::Store`].
pub(crate) async fn note(
    sessions: &Sessions,
    session: SessionFacts,
    begun: impl FnOnce(&ChainKey) -> SessionStart,
    device: RecordingSupport,
) -> Result<(ChainKey, Recorded), Unrecordable> {
    let id = session.id;
    let recordings = sessions.recordings.clone();
    match timeout(STORE_TIMEOUT, recordings.begin(session, begun, device)).await {
        Ok(Ok((key, watched))) => {
            let recorded = Recorded {
                recordings,
                watched,
            };
            return Ok((key, recorded));
        }
        Ok(Err(error)) => error!(%error, "no recording can begin"),
        Err(_) => {
            error!("no recording can begin: the store does not answer");
            recordings.not_begun(id);
        }
    }
    Err(Unrecordable::Store)
}
