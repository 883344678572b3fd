//! What waits beside a splice: for a device that does not answer, and for an operator who does nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_protocol::ids::DeviceName;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ending::{End, Notices};
use super::live::{Cause, Ending, LiveSession};
use crate::access::idle::{IdleTimer, Step};
use crate::limits::{SILENCE_NOTICE, SILENCE_POLL, START_TIMEOUT};
use crate::tunnel::registry::Tunnel;

/// Warns an operator who does nothing, and resolves when the session's idle timeout is over.
pub async fn idle(session: &LiveSession, notices: Notices<'_>) -> Ending {
    let mut timer = IdleTimer::new(&session.authorized.terms().idle);
    loop {
        timer.activity(session.active());
        let now = session.age();
        match timer.poll(now) {
            Step::Never => return std::future::pending().await,
            Step::Wait(until) => sleep(until.saturating_sub(now)).await,
            Step::Warn => notices.say(&timer.warning(notices.terminal)).await,
            Step::Close => {
                return Ending {
                    cause: Cause::Idle,
                    why: timer.reason(),
                };
            }
        }
    }
}

/// Gives up a device that neither accepts nor refuses: its tunnel stands for minutes after it lost its
/// power. Never ends once the session has started.
pub async fn start(started: &AtomicBool, tunnel: &Tunnel, device: &DeviceName) -> End {
    sleep(START_TIMEOUT).await;
    if started.load(Ordering::Relaxed) {
        return std::future::pending().await;
    }
    let seconds = tunnel.silence().as_secs();
    End::NoAnswer(format!(
        "{device} does not answer (silent for {seconds} s): try again when it is back"
    ))
}

/// Tells a terminal when its device falls silent, and when it is back. Never ends.
pub async fn silence(tunnel: &Tunnel, device: &DeviceName, notices: Notices<'_>) -> End {
    if !notices.terminal {
        return std::future::pending().await;
    }
    let mut ticks = interval(SILENCE_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        ticks.tick().await;
        let silence = tunnel.silence();
        if !told && silence >= SILENCE_NOTICE {
            told = true;
            let seconds = silence.as_secs();
            let text = format!("{device} is not answering ({seconds} s). Waiting; ~. gives up.");
            notices.say(&text).await;
        } else if told && silence < SILENCE_NOTICE {
            told = false;
            notices.say(&format!("{device} is back")).await;
        }
    }
}
