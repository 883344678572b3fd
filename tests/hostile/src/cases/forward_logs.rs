//! Recordings of forwards that do not tell what passed.

use std::sync::Arc;

use anyhow::Result;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::wire::Open;

use crate::Outcome;
use crate::device::forwards::{self, HostileForwards};
use crate::device::{DeviceCase, HostileDevice, HostileSession, Lie, Tape, tape};

/// The table.
pub const CASES: &[DeviceCase] = &[
    DeviceCase {
        name: "lying-forward-counts",
        what: "Records less than a forward's target has sent.",
        lie: Lie::Session {
            on: is_forward_log,
            play: |device, session| {
                Box::pin(recorded(device, session, |forwards| {
                    for forward in forwards.values_mut() {
                        forward.closed = Some((0, 0));
                    }
                }))
            },
        },
    },
    DeviceCase {
        name: "dropped-forward",
        what: "Records no forward where there was one.",
        lie: Lie::Session {
            on: is_forward_log,
            play: |device, session| Box::pin(recorded(device, session, HostileForwards::clear)),
        },
    },
    DeviceCase {
        name: "true-forward-log",
        what: "Records each forward in truth, in a recording that it seals itself.",
        lie: Lie::Session {
            on: is_forward_log,
            play: |device, session| Box::pin(recorded(device, session, |_| {})),
        },
    },
];

fn is_forward_log(open: &Open) -> bool {
    open.request.is_forward_log() && tape::terms(open).is_some()
}

async fn recorded(
    device: Arc<HostileDevice>,
    mut session: HostileSession,
    lie: fn(&mut HostileForwards),
) -> Result<Outcome> {
    session.say(&SessionMessage::Accepted).await?;
    while session.next().await.is_some() {}
    let mut all = device.forwards.of(session.open.session).await;
    lie(&mut all);
    let mut tape = Tape::begin(&device, &session.open).unwrap();
    forwards::write(&mut tape, &all);
    match device.upload(&tape.end(EndReason::ClientGone)).await {
        Ok(()) => Ok(Outcome::Done(
            "the relay has taken the recording".to_owned(),
        )),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}
