//! The entry of a session: its `Open` says which driver takes the stream.

use std::sync::Arc;

use holdfast_protocol::wire::SessionRequest;

use super::forward::ForwardDriver;
use super::process::ProcessDriver;
use super::pump::Pump;
use super::registry::AgentSessions;

impl AgentSessions {
    /// Runs one session to its end, from its `Open` on. A relay that has lost its client resets its half
    /// of the stream; one that merely finishes it before the exit status has gone away too.
    pub async fn serve(self: Arc<Self>, send: quinn::SendStream, recv: quinn::RecvStream) {
        let mut pump = Pump::new(&self.recorder, send, recv);
        let Some(open) = pump.opening().await else {
            return;
        };
        // Boxed: each would otherwise hold the room that the other needs.
        match &open.request {
            SessionRequest::Process(_) => Box::pin(ProcessDriver::run(self, pump, open)).await,
            SessionRequest::Forward(request) => {
                let request = request.clone();
                Box::pin(ForwardDriver::run(self, pump, open, request)).await;
            }
        }
    }
}
