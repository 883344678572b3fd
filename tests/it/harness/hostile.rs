//! A device that lies: a case of the crate `hostile` on a thread of its own.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use hostile::Outcome;
use hostile::cases;
use hostile::device::{self, DeviceRun};
use tokio::sync::oneshot;

use super::{Device, Relay, SOON, wait_until};

pub(crate) struct Hostile {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<Outcome>>>,
    device: Device,
}

impl Hostile {
    /// A device that has joined and plays this case so often.
    #[track_caller]
    pub(crate) fn start(relay: &Relay, name: &str, case: &str, count: u32) -> Self {
        Self::start_within(relay, name, case, count, SOON)
    }

    /// The same that waits so long for what the relay does.
    #[track_caller]
    pub(crate) fn start_within(
        relay: &Relay,
        name: &str,
        case: &str,
        count: u32,
        within: Duration,
    ) -> Self {
        Self::play(relay, Device::joined(relay, name), case, count, within)
    }

    /// A device that has joined already and plays this case so often.
    pub(crate) fn play(
        relay: &Relay,
        device: Device,
        case: &str,
        count: u32,
        within: Duration,
    ) -> Self {
        let run = DeviceRun {
            state: device.state(),
            relay: Some(relay.tunnel()),
            count,
            within,
        };
        let case = cases::of_device(case).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                tokio::select! {
                    played = device::play(case, run) => played,
                    _ = stopped => Ok(Outcome::Done("stopped by the test".to_owned())),
                }
            })
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
            device,
        }
    }

    /// The same, when it is online.
    #[track_caller]
    pub(crate) fn online(relay: &Relay, name: &str, case: &str, count: u32) -> Self {
        let hostile = Self::start(relay, name, case, count);
        relay.wait_state(name, "online", SOON);
        hostile
    }

    /// Its name in the fleet.
    pub(crate) fn name(&self) -> &str {
        self.device.name()
    }

    /// Returns whether its case is over.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Returns how its case ended.
    #[track_caller]
    pub(crate) fn outcome(mut self, within: Duration) -> Outcome {
        wait_until(within, "the case is over", || self.is_over());
        let thread = self.thread.take().expect("it is joined once");
        thread.join().expect("it does not panic").unwrap()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
