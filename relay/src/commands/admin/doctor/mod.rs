//! `doctor`: what is wrong with this relay, or unsafe. A *problem* has to be repaired and makes the exit
//! status 1; a *warning* is a choice that may have been meant.

mod access;
mod cluster;
mod folder;
mod health;
mod recordings;
mod settings;

use std::time::Duration;

use holdfast_protocol::count::Count;
use serde::Serialize;

use crate::audit::Event;
use crate::clock::{Coarse, Timestamp};
use crate::commands::answer::table::table;
use crate::commands::call::{Call, Command, Right};
use crate::commands::{Context, DONE, Done, FAILED, Failure, json};
use crate::model::invalid::Fault;
use crate::store::{ClonePair, Device, MemberId, Store, meta};

/// 2026-01-01: this program is younger.
const EARLIEST: Timestamp = Timestamp(1_767_225_600_000_000);

/// The time that other relays' clocks may be ahead.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// Check this relay and show remedies
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay doctor
  relay doctor --json | jq -r '.[] | select(.level == \"problem\") | .message, .remedy'

The exit status is 1 if there is a problem; a warning leaves it 0.")]
pub(crate) struct Args {
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::REVIEW
    }

    fn event(&self) -> Option<Event> {
        None
    }

    fn unopened(&self, fault: &Fault) -> Option<(String, u8)> {
        Some(unopened(self, fault))
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(&self, call.context).await
    }
}

/// The severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// The finding of a check.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    message: String,
    /// The remedy; `None` if nothing is to be done.
    remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            message: message.into(),
            remedy: None,
        }
    }

    fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::problem(check, message, remedy)
        }
    }

    fn problem(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Problem,
            message: message.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// Returns the finding and its remedy, for people.
    fn text(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}: {remedy}", self.message),
            None => self.message.clone(),
        }
    }
}

async fn run(args: &Args, context: &Context) -> Result<Done, Failure> {
    let mut findings = folder::check(&context.facts.folder);
    findings.extend(database(&context.store).await);
    let member = context.facts.member;
    // Live or not is a matter of heartbeats, and those go by the clock on the wall.
    let serves = context.store.relay_serves(member, Timestamp::now()).await?;
    findings.push(serving(context, serves));
    if serves {
        findings.extend(audit_log(&context.store, member).await?);
        findings.extend(health::check(&context.store, member).await?);
    }
    findings.extend(settings::check(&context.store, member).await?);
    findings.extend(clock(context).await);
    findings.extend(cluster::check(context).await?);
    findings.extend(access::check(&context.store).await?);
    findings.extend(recordings::check(&context.facts.folder, &context.store).await?);
    findings.extend(recordings::bucket(&context.facts.archive).await);
    findings.extend(clones(context).await?);
    let [connections, sessions, channels] = context.store.refusals().await?;
    let message = format!(
        "refused {}, {}, {} since the relay began",
        Count(connections.unsigned_abs(), "connection"),
        Count(sessions.unsigned_abs(), "session"),
        Count(channels.unsigned_abs(), "channel")
    );
    findings.push(Finding::ok("quotas", message));
    report(args, &findings)
}

/// Returns the text for when not even the state can be opened, and the exit status.
fn unopened(args: &Args, fault: &Fault) -> (String, u8) {
    let remedy = fault.remedy.as_deref().unwrap_or(
        "run this as the relay's account, repair it, or name the right folder with --state",
    );
    let finding = Finding::problem("state", fault.found.as_str(), remedy);
    match report(args, &[finding]) {
        Ok(done) => (done.text, done.code),
        Err(failure) => (format!("{failure}\n"), FAILED),
    }
}

fn report(args: &Args, findings: &[Finding]) -> Result<Done, Failure> {
    let failed = findings.iter().any(|found| found.level == Level::Problem);
    let code = if failed { FAILED } else { DONE };
    if args.json {
        let text = json(&findings)?;
        return Ok(Done::with_code(text, code));
    }
    let row = |found: &Finding| {
        let level = match found.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        [level.to_owned(), found.check.to_owned(), found.text()]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    // Nothing is cut: what to do is at the end of a line.
    let text = table(None, ["LEVEL", "CHECK", "FOUND"], &rows);
    Ok(Done::with_code(text, code))
}

async fn database(store: &Store) -> Vec<Finding> {
    const CHECK: &str = "database";
    let looked = async {
        let (faults, version) = (store.faults().await?, store.version().await?);
        Ok::<_, crate::store::StoreError>((faults, version, store.server_version().await?))
    };
    match looked.await {
        Err(error) => {
            let fault = error.fault();
            let fault = fault.or_remedy("restore it from a backup if it stays so");
            let remedy = fault.remedy.unwrap_or_default();
            vec![Finding::problem(CHECK, fault.found, remedy)]
        }
        Ok((faults, version, server)) if faults.is_empty() => {
            let state = match server {
                Some(server) => format!("PostgreSQL {server} answers"),
                None => "whole".to_owned(),
            };
            let message = format!("{state}, tables of version {version}");
            vec![Finding::ok(CHECK, message)]
        }
        Ok((faults, _, _)) => {
            let found = |fault: &String| Finding::problem(CHECK, fault, "restore it from a backup");
            faults.iter().map(found).collect()
        }
    }
}

/// Returns whether a relay serves from the folder: without one all else may be well, and nothing works.
fn serving(context: &Context, serves: bool) -> Finding {
    const CHECK: &str = "relay";
    if serves {
        return Finding::ok(CHECK, "a relay serves from this folder");
    }
    let folder = context.facts.folder.display();
    Finding::warning(
        CHECK,
        format!("no relay serves from {folder}"),
        format!("start `relay serve --state {folder}`"),
    )
}

/// Returns whether the serving relay can write the audit log, as it noted itself.
async fn audit_log(store: &Store, member: MemberId) -> Result<Option<Finding>, Failure> {
    let noted = async |fact| store.meta_get(&meta::of_member(fact, member)).await;
    let Some(found) = noted(meta::AUDIT_FAULT).await? else {
        return Ok(None);
    };
    if found.is_empty() {
        return Ok(Some(Finding::ok("audit", "the audit log is written")));
    }
    let remedy = noted(meta::AUDIT_REMEDY).await?;
    let remedy = remedy.filter(|remedy| !remedy.is_empty());
    Ok(Some(audit_fault(Fault { found, remedy })))
}

/// Returns the finding that the audit log cannot be written.
fn audit_fault(fault: Fault) -> Finding {
    let message = format!("the relay cannot write the audit log: {}", fault.found);
    let remedy = fault
        .remedy
        .as_deref()
        .unwrap_or("make the place of `[audit] file` writable for the relay, with free space");
    let remedy = format!(
        "{remedy}; until then new sessions are refused, unless `when_unwritable` is `continue`"
    );
    Finding::problem("audit", message, remedy)
}

async fn clones(context: &Context) -> Result<Vec<Finding>, Failure> {
    let devices = context.store.devices(context.now).await?;
    let found = |device: &Device| {
        let cloned = device
            .cloned
            .filter(|cloned| cloned.is_current(context.now))?;
        let ClonePair { first, second } = cloned.pair;
        let name = &device.name;
        Some(Finding::problem(
            "clones",
            format!(
                "two machines use the key of {name}, at {first} and {second}: a copy of its card or image"
            ),
            format!(
                "on the copy, remove the agent's state folder and join with a new token; if you cannot tell them apart, `relay devices revoke {name}` and join both anew"
            ),
        ))
    };
    let known = devices.iter().filter(|device| device.revoked.is_none());
    Ok(known.filter_map(found).collect())
}

async fn clock(context: &Context) -> Vec<Finding> {
    const CHECK: &str = "clock";
    let now = context.now;
    if now < EARLIEST {
        let message = format!("it is {now}, which is not possible");
        let remedy = "set the clock, or wait for NTP";
        return vec![Finding::problem(CHECK, message, remedy)];
    }
    match context.store.newest_time().await {
        // That the database does not answer is reported already.
        Err(_) => vec![],
        Ok(Some(newest)) if newest > now.after(CLOCK_SLACK) => {
            let ahead = Coarse(newest.since(now)).words();
            let message =
                format!("it is {now}, and something was written {ahead} later, at {newest}");
            vec![Finding::problem(CHECK, message, "set the clock")]
        }
        Ok(_) => vec![Finding::ok(CHECK, format!("{now}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateError;

    #[test]
    fn an_unwritten_audit_log_has_one_remedy() {
        let found = "cannot write /x/log (No such file or directory (os error 2))";
        assert_eq!(
            audit_fault(Fault::with_remedy(found, "make its folder")).text(),
            "the relay cannot write the audit log: cannot write /x/log (No such file or directory (os error 2)): make its folder; until then new sessions are refused, unless `when_unwritable` is `continue`"
        );
        let other = audit_fault(Fault::new("the disk is gone")).text();
        assert!(other.contains("gone: make the place of"), "{other}");
    }

    #[test]
    fn a_remedy_is_no_error_of_the_system() {
        let unopened = |error: StateError| {
            let (said, code) = unopened(&Args { json: true }, &error.fault());
            assert_eq!(code, FAILED);
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            let said = &said[0];
            [&said["message"], &said["remedy"]].map(|text| text.as_str().unwrap().to_owned())
        };
        let [message, remedy] = unopened(StateError::Io {
            action: "open",
            path: "/x/cluster.key".into(),
            source: std::io::Error::from_raw_os_error(13),
        });
        assert_eq!(
            message,
            "cannot open /x/cluster.key: Permission denied (os error 13)"
        );
        assert!(
            remedy.starts_with("run this as the relay's account"),
            "{remedy}"
        );
        let [message, remedy] = unopened(StateError::Crypto("a number: even"));
        assert!(message.ends_with("a key: a number: even"), "{message}");
        assert!(
            remedy.starts_with("run this as the relay's account"),
            "{remedy}"
        );
        let [message, remedy] = unopened(StateError::NoState("/x: y".into()));
        assert_eq!(message, "no relay state in /x: y");
        assert!(
            remedy.starts_with("start `relay serve --state /x: y`"),
            "{remedy}"
        );
    }
}
