//! The timeouts beside a splice: of a device that does not answer, of an operator who does nothing, and of a relay that
//! has lost its store.

use std::convert::Infallible;
use std::time::Duration;

use holdfast_protocol::ids::DeviceName;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::notices::Notices;
use crate::access::idle::{IdleTimer, Step};
use crate::clock::{self, Coarse, Timestamp, rest};
use crate::fence::{OnStoreLoss, StoreFence, StorePhase};
use crate::session::ending::{Cause, End, Ending};
use crate::session::limits::{SILENCE_NOTICE, SILENCE_POLL, START_TIMEOUT};
use crate::session::registry::drain;
use crate::session::registry::life::Life;
use crate::tunnel::peer::drains::DrainWatch;
use crate::tunnel::peer::route::DeviceRoute;

/// Warns an operator whose session is about to end by the clock, where there is a place for words, and resolves when
/// it does: when it was idle for too long, or has lasted as long as it may.
pub(crate) async fn cutoff(life: &Life, notices: Option<Notices<'_>>) -> Ending {
    let mut terms = life.cutoffs();
    let mut clocks = {
        let terms = terms.borrow_and_update();
        [
            (Cause::Idle, IdleTimer::new(&terms.idle)),
            (Cause::MaxSession, IdleTimer::longest(&terms.longest)),
        ]
    };
    loop {
        let now = life.age();
        let mut until: Option<Duration> = None;
        for (cause, timer) in &mut clocks {
            timer.activity(if life.works() { now } else { life.active() });
            let mut step = timer.poll(now);
            if step == Step::Warn {
                if let Some(notices) = notices {
                    notices.say(&timer.warning(notices.terminal)).await;
                }
                step = timer.poll(now);
            }
            match step {
                Step::Never | Step::Warn => {}
                Step::Wait(at) => until = Some(until.map_or(at, |until| until.min(at))),
                Step::Close => {
                    let (cause, why) = (*cause, timer.reason());
                    return Ending { cause, why };
                }
            }
        }
        tokio::select! {
            () = rest(until.map(|until| until.saturating_sub(life.age()))) => {}
            Ok(()) = terms.changed() => {
                let (terms, now) = (terms.borrow_and_update(), life.age());
                for (cause, timer) in &mut clocks {
                    timer.activity(if life.works() { now } else { life.active() });
                    match cause {
                        Cause::MaxSession => timer.change_longest(&terms.longest, now),
                        _ => timer.change(&terms.idle, now),
                    }
                }
            }
        }
    }
}

/// Says when the relay, or the one that has the device, closes its sessions, if one of them is drained, and resolves
/// then, even if the operator's client takes no words.
pub(crate) async fn drained(mut drain: DrainWatch, notices: Option<Notices<'_>>) -> Ending {
    let notices = notices.filter(|notices| notices.outlet.shows_notices());
    let mut said = None;
    loop {
        let until = drain.deadline();
        let left = until.map(|until| until.since(Timestamp::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return drain::ending();
        }
        let news = until
            .zip(left)
            .filter(|(until, _)| said.replace(*until) != Some(*until));
        let saying = async {
            if let Some((until, left)) = news {
                let left = Coarse(left).words();
                let text =
                    format!("the relay is drained: this session is closed at {until}, in {left}");
                say(notices, &text).await;
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            never = saying => match never {},
            () = rest(left) => {}
            () = drain.changed() => {}
        }
    }
}

/// Gives up a device that neither accepts nor refuses, with a sentence: its tunnel lives for minutes after it lost its
/// power. Never ends once it has started.
pub(crate) async fn late(
    has_started: impl Fn() -> bool,
    route: &DeviceRoute,
    device: &DeviceName,
) -> String {
    sleep(START_TIMEOUT).await;
    if has_started() {
        return std::future::pending().await;
    }
    let seconds = route.silence().as_secs();
    format!("{device} does not answer (silent for {seconds} s): try again when it is back")
}

/// Tells a terminal when its device falls silent, and when it is back; to be called when the session's first
/// byte is on its way. Never ends.
pub(crate) async fn silence(route: &DeviceRoute, device: &DeviceName, notices: Notices<'_>) -> End {
    if !notices.terminal {
        return std::future::pending().await;
    }
    let began = clock::instant();
    let mut ticks = interval(SILENCE_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    loop {
        ticks.tick().await;
        match watch.look(route.silence(), began.elapsed()) {
            None => {}
            Some(Silence::Began(silence)) => {
                let seconds = silence.as_secs();
                let text =
                    format!("{device} is not answering ({seconds} s). Waiting; ~. gives up.");
                notices.say(&text).await;
            }
            Some(Silence::Over) => notices.say(&format!("{device} is back")).await,
        }
    }
}

/// Tells an operator, where there is a place for words, when the relay loses its store and when it has it again. Resolves
/// when it was without for too long, even if the operator's client takes no words.
pub(crate) async fn store_loss(fence: &StoreFence, notices: Option<Notices<'_>>) -> Ending {
    tokio::select! {
        biased;
        never = say_phases(fence, notices) => match never {},
        () = fence.given_up() => Ending {
            cause: Cause::StoreLost,
            why: "the relay has lost its store".into(),
        },
    }
}

async fn say_phases(fence: &StoreFence, notices: Option<Notices<'_>>) -> Infallible {
    let Some(mut phases) = fence.phases() else {
        return std::future::pending().await;
    };
    let notices = notices.filter(|notices| notices.outlet.shows_notices());
    let mut is_reported = false;
    loop {
        let phase = *phases.borrow_and_update();
        match phase {
            StorePhase::Lost(silence) if !is_reported => {
                is_reported = true;
                let seconds = silence.as_secs();
                let what = match fence.on_loss() {
                    OnStoreLoss::Freeze => "Waiting",
                    OnStoreLoss::Continue => "Going on without it",
                };
                let text = format!("the relay has lost its store ({seconds} s). {what}");
                say(notices, &text).await;
            }
            StorePhase::Held if is_reported => {
                is_reported = false;
                say(notices, "the relay has its store again").await;
            }
            StorePhase::Held | StorePhase::Lost(_) | StorePhase::GivenUp | StorePhase::Over => {}
        }
        if phases.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn say(notices: Option<Notices<'_>>, text: &str) {
    if let Some(notices) = notices {
        notices.say(text).await;
    }
}

/// The state of the device as reported on the terminal.
#[derive(Debug, Default)]
struct Watch {
    is_reported: bool,
}

/// The event to report.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// The device leaves the session without an answer, for so long.
    Began(Duration),
    /// It was heard again.
    Over,
}

impl Watch {
    /// Looks at a tunnel that is silent for so long, `age` after the session asked its first thing of the
    /// device: an idle device is silent up to a keepalive, and owes no answer for that time.
    fn look(&mut self, silence: Duration, age: Duration) -> Option<Silence> {
        let unanswered = silence.min(age);
        let is_silent = unanswered >= SILENCE_NOTICE;
        if is_silent == self.is_reported {
            return None;
        }
        self.is_reported = is_silent;
        Some(match is_silent {
            true => Silence::Began(unanswered),
            false => Silence::Over,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_beginning_of_the_session() {
        let seconds = Duration::from_secs;
        // Seconds since anything was heard, age of the session, what the terminal shows.
        let table = [
            (24, 0, None),
            (25, 1, None),
            (0, 2, None),
            (11, 13, None),
            (12, 14, Some(Silence::Began(seconds(12)))),
            (13, 15, None),
            (1, 16, Some(Silence::Over)),
            (2, 17, None),
        ];
        let mut watch = Watch::default();
        for (silence, age, expected) in table {
            assert_eq!(
                watch.look(seconds(silence), seconds(age)),
                expected,
                "at {age}"
            );
        }
        // A device that was gone before the session began.
        let mut watch = Watch::default();
        assert_eq!(watch.look(seconds(36), seconds(11)), None);
        let began = Some(Silence::Began(seconds(12)));
        assert_eq!(watch.look(seconds(37), seconds(12)), began);
    }
}
