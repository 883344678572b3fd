//! `cluster drain`: no new logins at a relay, and a wait until nothing of it is left.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::named;
use crate::clock::{self, Timestamp};
use crate::commands::answer::table::count;
use crate::commands::limits::{DRAIN_BEGINS, DRAIN_OVERDUE, WAIT_POLL};
use crate::commands::{Context, Failure};
use crate::output::Out;
use crate::state::MemberId;
use crate::store::cluster::drain::DrainLeft;
use crate::store::cluster::members::{Member, MemberState};

/// Drains a member, and waits until nothing of it is left.
pub(super) async fn run(
    name: &str,
    wait: Duration,
    context: &Context,
    out: &mut Out<'_>,
) -> Result<String, Failure> {
    let id = begin(name, wait, context).await?;
    let began = clock::instant();
    let mut shown = None;
    loop {
        let until = deadline(id, name, context).await?;
        let runs = context.store.member_runs().await?;
        let now = Timestamp::now();
        let Some(run) = runs.get(&id).filter(|run| run.lives(now)) else {
            return Err(Failure(format!(
                "{name} stopped before it was drained: its sessions have ended"
            )));
        };
        match run.left {
            Some(left) if left.is_nothing() => {
                return Ok(format!(
                    "{name} is drained: stop it, or restart it to take logins again\n"
                ));
            }
            None if began.elapsed() > DRAIN_BEGINS => {
                let version = &run.version;
                return Err(Failure(format!(
                    "{name} does not act on this: its program, of version {version}, may be too old"
                )));
            }
            None => {}
            Some(left) if now > until.after(DRAIN_OVERDUE) => {
                let left = Left(left);
                return Err(Failure(format!(
                    "{name} still has {left}, though its time is over"
                )));
            }
            Some(left) if shown != Some((left, until)) => {
                shown = Some((left, until));
                let left = Left(left);
                let line = format!("{name} still has {left}; closed at {until}\n");
                // A reader that has seen enough does not end the wait.
                if out.write_all(line.as_bytes()).await.is_ok() {
                    let _ = out.flush().await;
                }
            }
            Some(_) => {}
        }
        sleep(WAIT_POLL).await;
    }
}

/// Makes a member drain.
async fn begin(name: &str, wait: Duration, context: &Context) -> Result<MemberId, Failure> {
    let mut tx = context.begin().await?;
    let members = tx.members().await?;
    let member = named(&members, name)?;
    let runs = context.store.member_runs().await?;
    let now = Timestamp::now();
    let lives = |member: &Member| runs.get(&member.id).is_some_and(|run| run.lives(now));
    if !lives(member) {
        return Err(Failure(format!(
            "{name} does not run: it has no logins and devices to drain"
        )));
    }
    let takes_over = |other: &Member| {
        other.id != member.id && other.state == MemberState::Active && lives(other)
    };
    if !members.iter().any(takes_over) {
        return Err(Failure(format!(
            "{name} is the last relay that takes logins: its devices and operators would have nowhere to go. \
             Start another one first, or stop it"
        )));
    }
    tx.drain_member(member.id, now.after(wait)).await?;
    tx.commit().await?;
    Ok(member.id)
}

/// Returns until when a member drains.
async fn deadline(id: MemberId, name: &str, context: &Context) -> Result<Timestamp, Failure> {
    let member = context.store.member(id).await?;
    let member = member.filter(Member::is_present);
    let Some(member) = member else {
        return Err(Failure(format!("{name} has left the cluster")));
    };
    member.drains_until().ok_or_else(|| {
        Failure(format!(
            "{name} was started again before it was drained: it is active"
        ))
    })
}

/// The tunnels and sessions that are left, in words.
struct Left(DrainLeft);

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: i64| usize::try_from(number).unwrap_or(0);
        let tunnels = count(number(self.0.tunnels), "tunnel");
        let sessions = count(number(self.0.sessions), "session");
        write!(f, "{tunnels} and {sessions}")
    }
}
