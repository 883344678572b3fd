//! The fence before all that passes between operators and devices: closed while this relay cannot store its heartbeats in
//! a store that it shares with others. The rule is [`holdfast_protocol::session::fence`].
//!
//! What passes bytes asks [`StoreFence::is_open`] for each piece: one number, compared with a clock that goes on while
//! the process is stopped. So a relay that was stopped, or whose machine slept, finds the fence closed before it has
//! noticed anything. What a tunnel's buffers have for devices leaves them only by [`StoreFence::may_send`]. Where no other relay can use the store there is no fence, and the number is compared with a
//! constant.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use holdfast_protocol::session::fence::{Fence, FenceState, FenceTimes};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock;
use crate::limits::{FENCE_LOOK, STORE_HOLD, STORE_LAG, STORE_PATIENCE};
use crate::sync::Mutex;

/// The moment until which bytes pass where there is no fence.
const ALWAYS: u64 = u64::MAX;

/// The reaction of sessions to the loss of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnStoreLoss {
    /// They wait for it, and end if it stays away.
    #[default]
    Freeze,
    /// They go on. A lock reaches them when the store is back.
    Continue,
}

/// The fence of this relay. Cloning it is cheap and shares it.
#[derive(Clone, Debug)]
pub(crate) struct StoreFence(Arc<FenceInner>);

#[derive(Debug)]
struct FenceInner {
    /// The moment until which bytes pass, in nanoseconds of [`clock::since_boot`]; [`ALWAYS`].
    until: AtomicU64,
    /// The rule; `None`: no other relay can use the store.
    rule: Option<Mutex<Fence>>,
    /// True while packets pass although nothing else does: see [`StoreFence::may_send`].
    sends: AtomicBool,
    on_loss: OnStoreLoss,
    phase: watch::Sender<StorePhase>,
}

/// The state of the store for those who wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StorePhase {
    /// It is there.
    Held,
    /// It is lost: no heartbeat was stored for so long when that was noticed.
    Lost(Duration),
    /// It has been away for so long that what waits for it is to end.
    GivenUp,
    /// This run of the relay is over.
    Over,
}

impl FromStr for OnStoreLoss {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "freeze" => Ok(Self::Freeze),
            "continue" => Ok(Self::Continue),
            _ => Err("expected \"freeze\" or \"continue\""),
        }
    }
}

impl StoreFence {
    /// Returns the fence of a relay that has its store for itself: none.
    #[must_use]
    pub(crate) fn none() -> Self {
        Self(Arc::new(FenceInner {
            until: AtomicU64::new(ALWAYS),
            sends: AtomicBool::new(true),
            rule: None,
            on_loss: OnStoreLoss::Continue,
            phase: watch::Sender::new(StorePhase::Held),
        }))
    }

    /// Returns the fence of a run whose beginning is in a store that others may use, as of `sent`.
    #[must_use]
    pub(crate) fn new(on_loss: OnStoreLoss, sent: Duration) -> Self {
        let times = FenceTimes {
            hold: STORE_HOLD,
            patience: STORE_PATIENCE,
        };
        let rule = Fence::new(times, sent);
        let until = match on_loss {
            OnStoreLoss::Freeze => nanos(rule.until()),
            OnStoreLoss::Continue => ALWAYS,
        };
        Self(Arc::new(FenceInner {
            until: AtomicU64::new(until),
            sends: AtomicBool::new(false),
            rule: Some(Mutex::new(rule)),
            on_loss,
            phase: watch::Sender::new(StorePhase::Held),
        }))
    }

    /// Returns whether bytes may pass now.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        let until = self.0.until.load(Ordering::Relaxed);
        until == ALWAYS || nanos(clock::since_boot()) < until
    }

    /// Returns whether packets may leave now. They do while the fence is closed, so that tunnels live on, and what passed
    /// before arrives. But after a pause of the process or its machine nothing may, until the store is back: the buffers
    /// of tunnels are full of what came before, and a lock may have been acknowledged since.
    #[must_use]
    pub(crate) fn may_send(&self) -> bool {
        let until = self.0.until.load(Ordering::Relaxed);
        until == ALWAYS || self.0.sends.load(Ordering::Relaxed) || is_soon_after(until)
    }

    /// Lets packets leave again: all that a tunnel's buffers had for devices is gone.
    pub(crate) fn let_packets_go(&self) {
        self.0.sends.store(true, Ordering::Relaxed);
    }

    /// Returns whether there is a fence at all.
    #[must_use]
    pub(crate) fn is_needed(&self) -> bool {
        self.0.rule.is_some()
    }

    /// Returns what sessions do while the store is lost.
    #[must_use]
    pub(crate) fn on_loss(&self) -> OnStoreLoss {
        self.0.on_loss
    }

    /// Does something that passes bytes, whenever the fence is open: each step of it is taken with a look at the fence.
    pub(crate) async fn pass<F: Future>(&self, passing: F) -> F::Output {
        let mut passing = pin!(passing);
        loop {
            let step = poll_fn(|cx| match self.is_open() {
                true => passing.as_mut().poll(cx).map(Some),
                false => Poll::Ready(None),
            });
            if let Some(passed) = step.await {
                return passed;
            }
            self.opened().await;
        }
    }

    /// Waits until the fence is open.
    pub(crate) async fn opened(&self) {
        let mut phases = self.0.phase.subscribe();
        while !self.is_open() {
            // The sender lives in `self`.
            if phases.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Waits until the store is given up; for ever where there is no fence, or sessions go on without it.
    pub(crate) async fn given_up(&self) {
        self.until(&[StorePhase::GivenUp]).await;
    }

    /// Waits until the store is given up or this run of the relay is over; for ever where there is no fence.
    pub(crate) async fn given_up_or_over(&self) {
        self.until(&[StorePhase::GivenUp, StorePhase::Over]).await;
    }

    async fn until(&self, phases: &[StorePhase]) {
        if self.is_needed() {
            let mut known = self.0.phase.subscribe();
            if known.wait_for(|known| phases.contains(known)).await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Returns the phases of the store as they come; `None` where there is no fence.
    #[must_use]
    pub(crate) fn phases(&self) -> Option<watch::Receiver<StorePhase>> {
        self.is_needed().then(|| self.0.phase.subscribe())
    }

    /// Returns for how long no heartbeat was stored, if the store counts as lost.
    #[must_use]
    pub(crate) fn lost_for(&self) -> Option<Duration> {
        let mut rule = self.0.rule.as_ref()?.lock();
        match rule.look(clock::since_boot()) {
            FenceState::Open => None,
            FenceState::Frozen { silence } | FenceState::GivenUp { silence } => Some(silence),
        }
    }

    /// Notes that a heartbeat is stored. `sent`, of [`clock::since_boot`], is no later than the time that it names.
    pub(crate) fn beat(&self, sent: Duration) {
        self.change(|rule, now| rule.beat(sent, now));
    }

    /// Returns whether the newest policy has to be enforced, because the store is back.
    #[must_use]
    pub(crate) fn awaits_enforcement(&self) -> bool {
        let rule = self.0.rule.as_ref();
        rule.is_some_and(|rule| rule.lock().awaits_enforcement())
    }

    /// Notes that the policy is enforced that was the newest at `began`, of [`clock::since_boot`].
    pub(crate) fn enforced(&self, began: Duration) {
        self.change(|rule, now| rule.enforced(began, now));
    }

    /// Lets nothing pass any more, because this run of the relay is over.
    pub(crate) fn shut(&self) {
        self.change(|rule, now| {
            rule.shut();
            rule.look(now)
        });
    }

    /// Looks regularly whether the store is lost, for ever.
    pub(crate) async fn watch(&self) -> Infallible {
        if !self.is_needed() {
            return std::future::pending().await;
        }
        let mut looks = interval(FENCE_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.change(Fence::look);
        }
    }

    /// Changes the rule, and publishes what follows.
    fn change(&self, change: impl FnOnce(&mut Fence, Duration) -> FenceState) {
        let Some(rule) = &self.0.rule else {
            return;
        };
        let mut rule = rule.lock();
        let now = clock::since_boot();
        let state = change(&mut rule, now);
        let until = match self.0.on_loss {
            OnStoreLoss::Continue if !rule.is_shut() => ALWAYS,
            OnStoreLoss::Continue | OnStoreLoss::Freeze => nanos(rule.until()),
        };
        let before = self.0.until.load(Ordering::Relaxed);
        if before != 0 || until != 0 {
            let closes_in_time = until == 0 && is_soon_after(before);
            self.0.sends.store(closes_in_time, Ordering::Relaxed);
        }
        self.0.until.store(until, Ordering::Relaxed);
        // It may have been found closed without a change of the phase.
        let opens = before <= nanos(now) && nanos(now) < until;
        let phase = match state {
            _ if rule.is_shut() => StorePhase::Over,
            FenceState::Open => StorePhase::Held,
            FenceState::GivenUp { .. } if self.0.on_loss == OnStoreLoss::Freeze => {
                StorePhase::GivenUp
            }
            FenceState::Frozen { silence } | FenceState::GivenUp { silence } => {
                StorePhase::Lost(silence)
            }
        };
        self.0.phase.send_if_modified(|known| {
            let is_same = match (*known, phase) {
                (StorePhase::Lost(_), StorePhase::Lost(_)) => true,
                (known, phase) => known == phase,
            };
            if !is_same {
                *known = phase;
                log(phase, self.0.on_loss);
            }
            !is_same || opens
        });
    }
}

fn log(phase: StorePhase, on_loss: OnStoreLoss) {
    match (phase, on_loss) {
        (StorePhase::Held, _) => info!("the database is back, and the newest policy is enforced"),
        (StorePhase::Lost(silence), OnStoreLoss::Freeze) => {
            let seconds = silence.as_secs();
            warn!("no heartbeat was stored for {seconds} s: sessions are frozen");
        }
        (StorePhase::Lost(silence), OnStoreLoss::Continue) => {
            let seconds = silence.as_secs();
            warn!(
                "no heartbeat was stored for {seconds} s: sessions go on, and no lock reaches them"
            );
        }
        (StorePhase::GivenUp, _) => warn!("the database stays away: frozen sessions end"),
        // The relay's last words say it.
        (StorePhase::Over, _) => {}
    }
}

/// Returns whether a moment is to come, or has passed so lately that the process was not stopped since.
fn is_soon_after(moment: u64) -> bool {
    nanos(clock::since_boot()) < moment.saturating_add(nanos(STORE_LAG))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(ALWAYS - 1)
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    /// Returns the time now, less so many seconds.
    fn ago(seconds: u64) -> Duration {
        clock::since_boot().saturating_sub(Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn closed_fence_holds_up_what_passes_until_it_opens() {
        let fence = StoreFence::new(OnStoreLoss::Freeze, ago(9));
        assert!(!fence.is_open());
        let passing = tokio::spawn({
            let fence = fence.clone();
            async move { fence.pass(async { 7 }).await }
        });
        let phases = fence.phases().unwrap();
        fence.change(Fence::look);
        assert!(matches!(*phases.borrow(), StorePhase::Lost(_)));
        assert!(fence.lost_for().unwrap() >= Duration::from_secs(9));
        // A heartbeat alone opens nothing.
        fence.beat(ago(0));
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!passing.is_finished() && !fence.is_open());
        assert!(fence.awaits_enforcement());
        fence.enforced(ago(0));
        assert_eq!(passing.await.unwrap(), 7);
        assert_eq!(*phases.borrow(), StorePhase::Held);
        assert_eq!(fence.lost_for(), None);
    }

    #[tokio::test]
    async fn fence_that_closes_stops_what_is_under_way() {
        let fence = StoreFence::new(OnStoreLoss::Freeze, ago(0));
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let passing = tokio::spawn({
            let fence = fence.clone();
            async move { fence.pass(async { receiver.recv().await }).await }
        });
        for _ in 0..10 {
            yield_now().await;
        }
        fence.shut();
        sender.send(1).await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!passing.is_finished());
        // It is shut for good.
        fence.beat(ago(0));
        fence.enforced(ago(0));
        assert!(!fence.is_open());
    }

    #[test]
    fn packets_leave_a_closed_fence_unless_the_process_was_stopped() {
        let hold = STORE_HOLD.as_secs();
        let noticed = StoreFence::new(OnStoreLoss::Freeze, ago(hold));
        noticed.change(Fence::look);
        assert!(!noticed.is_open() && noticed.may_send());
        let stopped = StoreFence::new(OnStoreLoss::Freeze, ago(hold + 1));
        assert!(!stopped.may_send());
        stopped.change(Fence::look);
        stopped.beat(ago(0));
        assert!(!stopped.may_send());
        stopped.enforced(ago(0));
        assert!(stopped.may_send());
        // A run that was declared dead meanwhile closes its tunnels at the end.
        let dead = StoreFence::new(OnStoreLoss::Freeze, ago(hold + 1));
        dead.shut();
        assert!(!dead.may_send());
        dead.let_packets_go();
        assert!(dead.may_send());
        let live = StoreFence::new(OnStoreLoss::Freeze, ago(0));
        live.shut();
        assert!(!live.is_open() && live.may_send());
    }

    #[tokio::test]
    async fn run_that_is_over_gives_up_what_waits() {
        let fence = StoreFence::new(OnStoreLoss::Continue, ago(0));
        let waiting = tokio::spawn({
            let fence = fence.clone();
            async move { fence.given_up_or_over().await }
        });
        fence.shut();
        fence.enforced(ago(0));
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn sessions_that_go_on_know_of_the_loss() {
        let fence = StoreFence::new(OnStoreLoss::Continue, ago(100));
        fence.change(Fence::look);
        assert!(fence.is_open());
        let phases = fence.phases().unwrap();
        assert!(matches!(*phases.borrow(), StorePhase::Lost(_)));
        assert!(fence.lost_for().is_some());
        fence.shut();
        assert!(!fence.is_open());
    }

    #[test]
    fn relay_with_a_store_of_its_own_has_no_fence() {
        let fence = StoreFence::none();
        assert!(fence.is_open() && fence.may_send() && !fence.is_needed());
        assert!(fence.phases().is_none());
        fence.shut();
        assert!(fence.is_open() && !fence.awaits_enforcement());
        assert_eq!(fence.lost_for(), None);
    }
}
