//! The other relays of a cluster: whether they run and are reached, and whether all agree on the time and the version.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::join_all;

use super::Finding;
use crate::clock::{Coarse, Timestamp};
use crate::commands::limits::{MAX_CLOCK_OFFSET, PEER_PROBE};
use crate::commands::{Context, Failure};
use crate::state::MemberId;
use crate::store::cluster::members::Member;
use crate::store::cluster::runs::MemberRun;
use crate::tunnel::enroll::join::key_at;

const CHECK: &str = "cluster";

type MemberRuns = HashMap<MemberId, MemberRun>;

/// Checks the members, where the database is one that relays can share.
pub(super) async fn check(context: &Context) -> Result<Vec<Finding>, Failure> {
    let store = &context.store;
    if !store.is_shared() {
        return Ok(Vec::new());
    }
    let (mut members, runs) = (store.members().await?, store.member_runs().await?);
    members.retain(Member::is_present);
    // Live or not is a matter of heartbeats, and those go by the clock on the wall.
    let now = Timestamp::now();
    let own = context.facts.member;
    let mut found = judge(&members, &runs, own, now);
    let living = members.iter().filter(|member| lives(member, &runs, now));
    let others = living.filter(|member| member.id != own);
    let probed = join_all(others.map(probe)).await;
    found.extend(probed.into_iter().flatten());
    if found.is_empty() && members.len() > 1 {
        let message = format!("{} relays, and each of them is reached", members.len());
        found.push(Finding::ok(CHECK, message));
    }
    Ok(found)
}

fn lives(member: &Member, runs: &MemberRuns, now: Timestamp) -> bool {
    runs.get(&member.id).is_some_and(|run| run.lives(now))
}

/// Returns what is wrong by what is stored of the relays. Whether the one of this folder serves is said elsewhere.
fn judge(members: &[Member], runs: &MemberRuns, own: MemberId, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    for member in members.iter().filter(|member| member.id != own) {
        found.extend(down(member, runs.get(&member.id), now));
    }
    let living = |member: &&Member| lives(member, runs, now);
    let living: Vec<_> = members.iter().filter(living).collect();
    for member in &living {
        let offset = runs.get(&member.id).map_or(0, |run| run.clock_offset);
        let most = i64::try_from(MAX_CLOCK_OFFSET.as_micros()).unwrap_or(i64::MAX);
        if offset.abs() > most {
            let amount = Coarse(std::time::Duration::from_micros(offset.unsigned_abs())).words();
            let side = if offset > 0 { "ahead of" } else { "behind" };
            let message = format!(
                "the clock of {}'s machine is {amount} {side} the database's",
                member.name
            );
            let remedy =
                "let NTP set it: certificates expire, and the relay's own log is written, by it";
            found.push(Finding::warning(CHECK, message, remedy));
        }
    }
    let version = |member: &&Member| Some(runs.get(&member.id)?.version.as_str());
    let versions: BTreeSet<&str> = living.iter().filter_map(version).collect();
    if versions.len() > 1 {
        let run = |member: &&Member| Some(format!("{} {}", member.name, version(member)?));
        let all: Vec<String> = living.iter().filter_map(run).collect();
        let message = format!("the relays run different versions: {}", all.join(", "));
        let remedy = "upgrade all to one: different ones are for the time of an upgrade";
        found.push(Finding::warning(CHECK, message, remedy));
    }
    found
}

/// Returns that a relay does not run, if it does not.
fn down(member: &Member, run: Option<&MemberRun>, now: Timestamp) -> Option<Finding> {
    let name = &member.name;
    let remedy = format!("start it, or remove it with `relay cluster leave {name}`");
    match run {
        Some(run) if run.lives(now) => None,
        Some(run) if run.stopped.is_some() => {
            let message = format!("{name} was stopped: its devices are at the others");
            Some(Finding::warning(CHECK, message, remedy))
        }
        Some(run) => {
            let ago = Coarse(now.since(run.heartbeat)).words();
            let message = format!("{name} is down: its last heartbeat was {ago} ago");
            Some(Finding::problem(CHECK, message, remedy))
        }
        None if member.tunnel_address.is_none() => {
            let message = format!("{name} has joined, and never served");
            Some(Finding::warning(CHECK, message, remedy))
        }
        None => {
            let message = format!("{name} is down: it was killed, or cut off from the database");
            Some(Finding::problem(CHECK, message, remedy))
        }
    }
}

/// Dials a relay from here, as the others and devices do. Returns what is wrong.
async fn probe(member: &Member) -> Option<Finding> {
    let (name, address) = (&member.name, member.tunnel_address.as_ref()?);
    let asked = tokio::time::timeout(PEER_PROBE, key_at(address)).await;
    let seconds = PEER_PROBE.as_secs();
    let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {seconds} s")));
    let (message, remedy) = match asked {
        Ok(Some(key)) if key == member.tunnel_key => return None,
        Ok(_) => (
            format!("another relay than {name} answers at {address}, which is {name}'s"),
            "let the `--public` of each relay lead to that relay alone",
        ),
        Err(why) => (
            format!("{name} runs, and is not reached from here at {address} (UDP): {why}"),
            "open the port between the relays: no session passes from one to the other",
        ),
    };
    Some(Finding::problem(CHECK, message, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::admin::doctor::Level;
    use crate::store::cluster::members::MemberState;
    use holdfast_protocol::ids::PublicKey;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp(1_795_323_960_000_000);

    fn member(number: u8) -> Member {
        Member {
            id: MemberId([number; 16]),
            name: format!("relay{number}"),
            tunnel_key: PublicKey([number; 32]),
            public: None,
            tunnel_address: Some(format!("relay{number}:4433")),
            ssh_address: None,
            bound_ssh: None,
            added: NOW,
            state: MemberState::Active,
            drain_until: None,
        }
    }

    fn run(beat: u64) -> MemberRun {
        MemberRun {
            version: "0.1.0".to_owned(),
            stopped: None,
            heartbeat: NOW.before(Duration::from_secs(beat)),
            clock_offset: 200_000,
            devices: 0,
            sessions: 0,
            left: None,
        }
    }

    /// Returns what is found of a second relay with this run, beside one that runs well.
    fn found(second: &Member, second_run: Option<MemberRun>) -> Vec<(Level, String)> {
        let members = [member(1), second.clone()];
        let runs = [
            Some((members[0].id, run(1))),
            second_run.map(|run| (members[1].id, run)),
        ];
        let runs = runs.into_iter().flatten().collect();
        let found = judge(&members, &runs, members[0].id, NOW);
        found
            .into_iter()
            .map(|found| (found.level, found.message))
            .collect()
    }

    #[test]
    fn relay_that_does_not_run_is_found() {
        let second = member(2);
        assert_eq!(found(&second, Some(run(3))), []);
        let said = |found: Vec<(Level, String)>| {
            let [(level, message)] = found.try_into().unwrap();
            (level, message)
        };
        let (level, message) = said(found(&second, Some(run(180))));
        assert_eq!(
            (level, &*message),
            (
                Level::Problem,
                "relay2 is down: its last heartbeat was 3 minutes ago"
            )
        );
        let (level, message) = said(found(&second, None));
        assert_eq!(level, Level::Problem);
        assert!(message.starts_with("relay2 is down"), "{message}");
        let stopped = MemberRun {
            stopped: Some(NOW),
            ..run(180)
        };
        assert_eq!(said(found(&second, Some(stopped))).0, Level::Warning);
        let new = Member {
            tunnel_address: None,
            ..second
        };
        let (level, message) = said(found(&new, None));
        assert_eq!(
            (level, &*message),
            (Level::Warning, "relay2 has joined, and never served")
        );
    }

    #[test]
    fn wrong_clock_and_other_version_are_found() {
        for (offset, said) in [
            (
                3_600_000_000,
                "the clock of relay2's machine is 1 hour ahead of the database's",
            ),
            (
                -5_000_000,
                "the clock of relay2's machine is 5 seconds behind the database's",
            ),
        ] {
            let wrong = MemberRun {
                clock_offset: offset,
                ..run(1)
            };
            assert_eq!(
                found(&member(2), Some(wrong.clone())),
                [(Level::Warning, said.to_owned())]
            );
            // Of a relay that does not run, it was long ago.
            let dead = MemberRun {
                heartbeat: NOW.before(Duration::from_secs(180)),
                ..wrong
            };
            assert_eq!(found(&member(2), Some(dead)).len(), 1);
        }
        let newer = MemberRun {
            version: "0.2.0".to_owned(),
            ..run(1)
        };
        let said = "the relays run different versions: relay1 0.1.0, relay2 0.2.0";
        assert_eq!(
            found(&member(2), Some(newer)),
            [(Level::Warning, said.to_owned())]
        );
    }
}
