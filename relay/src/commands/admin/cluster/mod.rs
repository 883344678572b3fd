//! `cluster`: the relays that share one database.

mod drain;

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use crate::audit::{Event, EventKind};
use crate::clock::{Coarse, Timestamp};
use crate::commands::Done;
use crate::commands::answer::table::{Narrow, narrowed, or_dash};
use crate::commands::args::ttl;
use crate::commands::call::{Call, Command, Right};
use crate::commands::{Context, Failure, json};
use crate::config::PublicHost;
use crate::recording::limits::EXPECT_WITHIN;
use crate::state::DatabaseUrl;
use crate::store::cluster::members::{Member, MemberState, present};
use crate::store::cluster::runs::MemberRun;

/// The word for a relay that has left.
const REMOVED: &str = MemberState::Removed.as_str();

/// Younger heartbeats are shown in seconds, and older ones coarsely: the relay is down then.
const SHOWN_IN_SECONDS: Duration = Duration::from_secs(100);

/// The way in which the table gives way in a narrow terminal: VERSION and CLOCK go, and whether a relay lives can be read.
const NARROW: Narrow<'static> = Narrow {
    left_out: &[6, 5, 3, 2],
    kept: &[(0, 24)],
};

/// The relays of the cluster: join, list, drain, leave
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay token create --relay                           on a member
  relay cluster join TOKEN --database 'postgres://…' --public relay2.example.com     on the new machine
  relay serve --config relay.toml                      there, with the others' configuration
  relay cluster ls
  relay cluster drain relay2.example.com --wait 8h     before it is upgraded
  relay cluster leave relay2.example.com

`drain` exits with 0 when nothing is left, be it that the sessions ended or that their time was over, and with 1 if it
was refused, or the relay stopped or was started again before.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ClusterCommand,
    /// Print JSON for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum ClusterCommand {
    /// Make this machine's relay a member, in an empty state folder; then start `relay serve`
    Join(JoinArgs),
    /// List the relays; with --json with their addresses, and those that have left
    #[command(visible_alias = "list")]
    Ls {
        /// Those that have left, too
        #[arg(long)]
        all: bool,
    },
    /// Take no new logins at a relay, send its devices to the others, and wait until its sessions have ended
    Drain {
        /// As `cluster ls` prints it
        name: String,
        /// The time that sessions have: those that are left then are closed
        #[arg(long, value_name = "SPAN", value_parser = ttl, default_value = "8h")]
        wait: Duration,
    },
    /// Remove a relay: it stops, and its devices come back at the others
    Leave {
        /// As `cluster ls` prints it
        name: String,
        /// Also if no other relay runs, so that its devices have nowhere to go
        #[arg(long)]
        force: bool,
    },
}

/// The arguments of `cluster join`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// The line that `relay token create --relay` printed on a member
    pub(crate) token: String,
    /// The cluster's database, which the state folder remembers
    #[arg(long, value_name = "postgres://USER@HOST/NAME", value_parser = DatabaseUrl::new)]
    pub(crate) database: DatabaseUrl,
    /// The address of this relay for devices, operators and the other relays; PORT is the tunnel's, if it is mapped
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) public: PublicHost,
}

/// A relay, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row {
    name: String,
    state: &'static str,
    tunnel: Option<String>,
    ssh: Option<String>,
    version: Option<String>,
    devices: i64,
    sessions: i64,
    heartbeat_age: Option<f64>,
    clock_offset: Option<f64>,
}

impl Args {
    /// Returns the arguments of a join, which is done without a state folder.
    pub(crate) fn join(&self) -> Option<&JoinArgs> {
        match &self.command {
            ClusterCommand::Join(args) => Some(args),
            _ => None,
        }
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        match self.command {
            ClusterCommand::Ls { .. } => Right::REVIEW,
            ClusterCommand::Join(_)
            | ClusterCommand::Drain { .. }
            | ClusterCommand::Leave { .. } => Right::ADMIN,
        }
    }

    fn event(&self) -> Option<Event> {
        match &self.command {
            ClusterCommand::Leave { name, .. } => {
                Some(Event::new(EventKind::RelayLeft).with("member", name.as_str()))
            }
            ClusterCommand::Drain { name, wait } => {
                let event = Event::new(EventKind::RelayDrained).with("member", name.as_str());
                Some(event.with("wait", humantime::format_duration(*wait).to_string()))
            }
            ClusterCommand::Join(_) | ClusterCommand::Ls { .. } => None,
        }
    }

    fn is_deed(&self) -> bool {
        matches!(
            self.command,
            ClusterCommand::Drain { .. } | ClusterCommand::Leave { .. }
        )
    }

    fn streams(&self) -> bool {
        matches!(self.command, ClusterCommand::Drain { .. })
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        let context = call.context;
        match self.command {
            ClusterCommand::Ls { all } => list(all, self.json, context).await.map(Done::from),
            ClusterCommand::Drain { name, wait } => {
                let drained = drain::run(&name, wait, context, call.out).await;
                drained.map(Done::from)
            }
            ClusterCommand::Leave { name, force } => {
                leave(&name, force, context).await.map(Done::from)
            }
            ClusterCommand::Join(_) => Err(Failure::new(
                "a relay joins on its own machine: run `relay cluster join` there",
            )),
        }
    }
}

async fn list(all: bool, as_json: bool, context: &Context) -> Result<String, Failure> {
    let members = context.store.members().await?;
    let runs = context.store.member_runs().await?;
    // Heartbeats are younger than the moment at which the command began.
    let now = Timestamp::now();
    let rows: Vec<Row> = members
        .into_iter()
        .map(|member| {
            let run = runs.get(&member.id);
            row(member, run, now)
        })
        .collect();
    if as_json {
        return json(&rows);
    }
    Ok(text(&rows, all, context.width))
}

/// Returns the table, which fits 80 characters: addresses are in the JSON.
fn text(rows: &[Row], all: bool, width: Option<usize>) -> String {
    let cells = |row: &Row| {
        let age = row.heartbeat_age.map(|age| {
            let age = Duration::from_secs_f64(age.max(0.0));
            match age < SHOWN_IN_SECONDS {
                true => format!("{:.1} s", age.as_secs_f64()),
                false => Coarse(age).to_string(),
            }
        });
        let offset = row.clock_offset.map(|offset| format!("{offset:+.3} s"));
        [
            row.name.clone(),
            row.state.to_owned(),
            row.devices.to_string(),
            row.sessions.to_string(),
            or_dash(&age.unwrap_or_default()),
            or_dash(&offset.unwrap_or_default()),
            or_dash(row.version.as_deref().unwrap_or_default()),
        ]
    };
    let shown = rows.iter().filter(|row| all || row.state != REMOVED);
    let rows: Vec<_> = shown.map(cells).collect();
    let head = [
        "NAME",
        "STATE",
        "DEVICES",
        "SESSIONS",
        "HEARTBEAT",
        "CLOCK",
        "VERSION",
    ];
    narrowed(width, head, &rows, NARROW)
}

fn row(member: Member, run: Option<&MemberRun>, now: Timestamp) -> Row {
    let living = run.filter(|run| run.lives(now));
    let state = match (member.state, living) {
        (MemberState::Removed, _) => REMOVED,
        (_, None) => "down",
        (state, Some(_)) => state.as_str(),
    };
    Row {
        name: member.name,
        state,
        tunnel: member.tunnel_address,
        ssh: member.ssh_address,
        version: run.map(|run| run.version.clone()),
        devices: living.map_or(0, |run| run.devices),
        sessions: living.map_or(0, |run| run.sessions),
        heartbeat_age: run.map(|run| now.since(run.heartbeat).as_secs_f64()),
        clock_offset: run.map(|run| seconds(run.clock_offset)),
    }
}

/// Returns microseconds as seconds. A clock is not so wrong that digits are lost.
#[expect(clippy::cast_precision_loss, reason = "of a clock's offset")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1_000_000.0
}

/// Returns the member of this name that has not left.
fn named<'m>(members: &'m [Member], name: &str) -> Result<&'m Member, Failure> {
    let member = present(members).find(|member| member.name == name);
    member.ok_or_else(|| {
        Failure(format!(
            "no relay \"{}\" in the cluster: see `relay cluster ls`",
            holdfast_protocol::escape::Escaped(name)
        ))
    })
}

async fn leave(name: &str, force: bool, context: &Context) -> Result<String, Failure> {
    let runs = context.store.member_runs().await?;
    let mut tx = context.begin().await?;
    let members = tx.members().await?;
    // Asked for twice, the answer to the second is that it is so.
    let has_left = |member: &Member| member.name == name && !member.is_present();
    if members.iter().any(has_left) && !present(&members).any(|member| member.name == name) {
        return Ok(format!("{name} has left the cluster already\n"));
    }
    let member = named(&members, name)?;
    if present(&members).count() == 1 {
        return Err(Failure(format!(
            "{name} is the only relay of the cluster: stop it instead"
        )));
    }
    let now = Timestamp::now();
    let runs_now = |member: &Member| runs.get(&member.id).is_some_and(|run| run.lives(now));
    let mut others = present(&members).filter(|other| other.id != member.id);
    if !force && !others.any(runs_now) {
        return Err(Failure(format!(
            "no other relay of the cluster runs, and the devices of {name} know no other until they have had a tunnel \
             while it does: start another first, or give --force"
        )));
    }
    tx.remove_member(member.id, now).await?;
    // Its recordings end as those of a run that was killed do.
    tx.recordings_of_ended_runs_over(now, now.after(EXPECT_WITHIN))
        .await?;
    tx.commit().await?;
    Ok(format!("{name} has left the cluster\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(name: &str, state: &'static str, age: Option<f64>) -> Row {
        Row {
            name: name.to_owned(),
            state,
            tunnel: Some(format!("{name}:4433")),
            ssh: Some(format!("{name}:2222")),
            version: age.map(|_| "0.12.0".to_owned()),
            devices: 12_000,
            sessions: 250,
            heartbeat_age: age,
            clock_offset: age.map(|_| -0.0421),
        }
    }

    #[test]
    fn table_fits_80_characters_and_leaves_out_who_left() {
        let rows = [
            relay("relay1.example.com", "draining", Some(1.23)),
            relay("relay2.example.com", "down", Some(7_300.0)),
            relay("relay3.example.com", "down", None),
            relay("relay4.example.com", "removed", None),
        ];
        let whole = text(&rows, false, Some(80));
        assert_eq!(
            whole,
            "NAME                STATE     DEVICES  SESSIONS  HEARTBEAT  CLOCK     VERSION\n\
             relay1.example.com  draining  12000    250       1.2 s      -0.042 s  0.12.0\n\
             relay2.example.com  down      12000    250       2 h        -0.042 s  0.12.0\n\
             relay3.example.com  down      12000    250       -          -         -\n"
        );
        assert_eq!(whole, text(&rows, false, None));
        let all = text(&rows, true, Some(80));
        assert!(all.contains("\nrelay4.example.com  removed "), "{all}");
        let narrow = text(&rows, false, Some(50));
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 50),
            "{narrow}"
        );
        assert!(narrow.contains("relay1.example.com  draining"), "{narrow}");
    }
}
