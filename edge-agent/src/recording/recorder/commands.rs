//! The commands of interactive sessions, as their recordings take them.

use std::time::Duration;

use event_listener::Listener as _;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::Event;
use holdfast_protocol::recording::spool::Accept;

use super::Recorder;
use crate::os::clock;
use crate::recording::commands::{CommandRecorder, Commands};
use crate::recording::limits::COMMAND_RECORD_TIMEOUT;

impl CommandRecorder for Recorder {
    fn commands(&self) -> &Commands {
        &self.commands
    }

    fn now(&self) -> Duration {
        Recorder::now(self)
    }

    fn record_command(&self, session: SessionId, event: &Event<'_>) {
        let until = clock::instant() + COMMAND_RECORD_TIMEOUT;
        loop {
            let changed = self.changed.listen();
            {
                let now = self.now();
                let mut state = self.lock();
                let Ok(spool) = &mut state.spool else {
                    return;
                };
                let accepted = spool.accept(now, session, event.clone());
                self.wake(&state);
                if !matches!(accepted, Accept::Wait) {
                    return;
                }
            }
            if changed.wait_deadline(until).is_none() {
                return;
            }
        }
    }
}
