//! `edge-agent doctor`: what this device lacks. A *problem* is to be mended and makes the exit status 1; a *warning* is
//! a choice that may have been meant.
//!
//! A check is a function of [`DoctorFacts`] in [`CHECKS`].

use std::fmt;
use std::path::Path;

use clap::ValueEnum as _;
use rustix::process::geteuid;
use serde::Serialize;

use crate::os::clock::WallTime;
use crate::os::limits::CLOCK_IS_SET;
use crate::os::state::{StateDir, StateDirError};
use crate::service::status::{self, AgentStatus, Question};
use crate::session::launch::login::{self, LoginMode};
use crate::tunnel::enroll::ends_membership;
use crate::tunnel::membership::Membership;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    /// Nothing is to be done.
    Ok,
    /// It may have been meant.
    Warning,
    /// It is to be mended.
    Problem,
}

/// A finding of a check.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorFinding {
    /// The check's name.
    pub check: &'static str,
    /// The severity.
    pub level: FindingLevel,
    /// The finding itself.
    pub message: String,
    /// The remedy.
    pub remedy: Option<String>,
}

impl DoctorFinding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            level: FindingLevel::Ok,
            message: message.into(),
            remedy: None,
        }
    }

    fn bad(
        level: FindingLevel,
        check: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check,
            level,
            message: message.into(),
            remedy: Some(remedy.into()),
        }
    }
}

impl fmt::Display for DoctorFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            FindingLevel::Ok => "ok",
            FindingLevel::Warning => "warning",
            FindingLevel::Problem => "problem",
        };
        write!(f, "{level:8}{:10}{}", self.check, self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

/// The facts that the checks use.
#[derive(Debug, Default)]
pub struct DoctorFacts {
    /// The answer of the running agent, if one runs.
    pub status: Option<AgentStatus>,
    /// The reason why the folder or the agent cannot be looked at, with the remedy.
    pub unreadable: Option<String>,
    /// True if the device is a member of a fleet.
    pub has_joined: bool,
    /// True if root runs the checks.
    pub is_root: bool,
}

const AS_ITS_ACCOUNT: &str = "run `edge-agent doctor` as the agent's account";

/// All checks, in their order.
const CHECKS: [fn(&DoctorFacts) -> DoctorFinding; 4] = [service, accounts, spool, clock];

/// Gathers the facts of this state folder.
#[must_use]
pub fn look(folder: &Path) -> DoctorFacts {
    let facts = look_into(folder).unwrap_or_else(|error| DoctorFacts {
        unreadable: Some(error.to_string()),
        ..DoctorFacts::default()
    });
    DoctorFacts {
        is_root: geteuid().is_root(),
        ..facts
    }
}

fn look_into(folder: &Path) -> Result<DoctorFacts, StateDirError> {
    let Some(state) = StateDir::look_into(folder, "doctor")? else {
        return Ok(DoctorFacts::default());
    };
    let status = status::ask(&state, Question::Status)?;
    let has_joined = match Membership::load(&state) {
        Ok(membership) => membership.is_some(),
        Err(error @ StateDirError::Io { .. }) if status.is_none() => return Err(error),
        // A membership that is damaged is one.
        Err(_) => true,
    };
    Ok(DoctorFacts {
        status,
        has_joined,
        ..DoctorFacts::default()
    })
}

/// Runs all checks.
#[must_use]
pub fn run(facts: &DoctorFacts) -> Vec<DoctorFinding> {
    CHECKS.iter().map(|check| check(facts)).collect()
}

fn service(facts: &DoctorFacts) -> DoctorFinding {
    let check = "service";
    if let Some(why) = &facts.unreadable {
        let found = "whether an agent runs on this state folder cannot be seen";
        return DoctorFinding::bad(FindingLevel::Problem, check, found, why);
    }
    match &facts.status {
        None if !facts.has_joined => DoctorFinding::bad(
            FindingLevel::Problem,
            check,
            "this device has not joined a fleet yet",
            "run `edge-agent join TOKEN`, or name its state folder with --state",
        ),
        None => DoctorFinding::bad(
            FindingLevel::Problem,
            check,
            "no agent runs on this state folder",
            "start its service, or make it one with `edge-agent install`",
        ),
        Some(status) if status.state != "online" => {
            let why = status
                .last_error
                .as_deref()
                .unwrap_or("no reason was reported");
            // Such a refusal says by itself what to do, and nothing else helps.
            if ends_membership(why) {
                let found = format!("the agent has no tunnel ({})", status.state);
                return DoctorFinding::bad(FindingLevel::Problem, check, found, why);
            }
            DoctorFinding::bad(
                FindingLevel::Problem,
                check,
                format!("the agent has no tunnel ({}): {why}", status.state),
                "look at the network, and at the relay's address in `edge-agent status`",
            )
        }
        Some(status) => DoctorFinding::ok(
            check,
            format!(
                "the agent {} runs, and its tunnel is up",
                status.agent_version
            ),
        ),
    }
}

/// Returns what `--login` says among these arguments.
fn login_mode(arguments: &[String]) -> LoginMode {
    let mut words = arguments.iter();
    let value = words.find_map(|word| match word.strip_prefix("--login") {
        Some("") => Some(None),
        Some(value) => value.strip_prefix('=').map(Some),
        None => None,
    });
    let value = value.and_then(|value| value.or_else(|| words.next().map(String::as_str)));
    value
        .and_then(|value| LoginMode::from_str(value, false).ok())
        .unwrap_or_default()
}

fn accounts(facts: &DoctorFacts) -> DoctorFinding {
    let check = "accounts";
    let arguments = facts.status.as_ref().map(|status| &status.arguments);
    let mode = login_mode(arguments.map(Vec::as_slice).unwrap_or_default());
    let lacks = "sessions have /etc/environment and a loginuid, but no limits.conf, no XDG_RUNTIME_DIR and no account \
                 rules of PAM";
    if facts.unreadable.is_some() {
        return DoctorFinding::bad(
            FindingLevel::Warning,
            check,
            "only the agent's account can check whether PAM opens sessions",
            AS_ITS_ACCOUNT,
        );
    }
    if !facts.is_root && facts.has_joined {
        // Its files were read, and are closed to other accounts, so that this is the agent's account.
        return DoctorFinding::ok(
            check,
            "the agent is not root: its sessions are those of its own account, and PAM opens none",
        );
    }
    if !facts.is_root {
        return DoctorFinding::bad(
            FindingLevel::Warning,
            check,
            "only root can check whether PAM opens sessions",
            AS_ITS_ACCOUNT,
        );
    }
    if mode == LoginMode::Bare {
        return DoctorFinding::ok(check, format!("as `--login bare` has it, {lacks}"));
    }
    match login::find_su()
        .map_err(|missing| missing.text().to_owned())
        .and_then(|su| login::probe(&su).map(|()| su))
    {
        Ok(su) => DoctorFinding::ok(check, format!("PAM opens sessions, by {}", su.display())),
        Err(why) if mode == LoginMode::Pam => DoctorFinding::bad(
            FindingLevel::Problem,
            check,
            format!(
                "PAM opens no sessions, and `--login pam` refuses all logins without it: {why}"
            ),
            "repair PAM, or run the agent with `--login auto`",
        ),
        Err(why) => DoctorFinding::bad(
            FindingLevel::Warning,
            check,
            format!("PAM opens no sessions ({why}): {lacks}"),
            "install PAM and the su of util-linux, or use `--login bare` if that is intended",
        ),
    }
}

fn spool(facts: &DoctorFacts) -> DoctorFinding {
    let check = "spool";
    let Some(spool) = facts
        .status
        .as_ref()
        .and_then(|status| status.spool.as_ref())
    else {
        return DoctorFinding::bad(
            FindingLevel::Warning,
            check,
            "only a running agent reports on its spool",
            match facts.unreadable {
                Some(_) => AS_ITS_ACCOUNT,
                None => "start the agent",
            },
        );
    };
    match &spool.last_trouble {
        Some(trouble) if spool.trouble_is_relays => DoctorFinding::bad(
            FindingLevel::Problem,
            check,
            trouble,
            "nothing is to be done here: run `relay doctor` on the relay, and look for recording.refused in `relay audit`",
        ),
        Some(trouble) => DoctorFinding::bad(
            FindingLevel::Problem,
            check,
            format!("{}: {trouble}", spool.folder),
            "give it room on a safe folder with --spool and --spool-max, and look at `edge-agent status`",
        ),
        None if spool.volatile => DoctorFinding::bad(
            FindingLevel::Warning,
            check,
            format!(
                "{} is in memory: what waits there is lost with the power",
                spool.folder
            ),
            "name a folder on a disk with --spool",
        ),
        None => DoctorFinding::ok(check, spool.to_string()),
    }
}

fn clock(_: &DoctorFacts) -> DoctorFinding {
    let now = WallTime::now();
    match now.since_1970() < CLOCK_IS_SET {
        true => DoctorFinding::bad(
            FindingLevel::Warning,
            "clock",
            "the clock was never set: accounts do not expire, and upload windows do not apply",
            "set it, by NTP or a battery",
        ),
        false => DoctorFinding::ok("clock", "the clock is set"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_that_of_the_running_agent() {
        let mode = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            login_mode(&words)
        };
        assert_eq!(mode("run"), LoginMode::Auto);
        assert_eq!(mode("run --login pam --state x"), LoginMode::Pam);
        assert_eq!(mode("run --state x --login=bare"), LoginMode::Bare);
        assert_eq!(mode("run --login"), LoginMode::Auto);
    }

    #[test]
    fn without_an_agent_the_service_is_a_problem_that_has_a_remedy() {
        let found = run(&DoctorFacts::default());
        let names: Vec<_> = found.iter().map(|found| found.check).collect();
        assert_eq!(names, ["service", "accounts", "spool", "clock"]);
        assert_eq!(found[0].level, FindingLevel::Problem);
        let asks_to_join = |found: &DoctorFinding| found.to_string().contains("edge-agent join");
        assert!(found[0].message.contains("has not joined a fleet"));
        assert!(asks_to_join(&found[0]));
        // Nothing is known of an agent, not even its account.
        assert_eq!(found[1].level, FindingLevel::Warning, "{}", found[1]);
        let joined = DoctorFacts {
            has_joined: true,
            ..DoctorFacts::default()
        };
        let found = run(&joined);
        assert_eq!(found[0].message, "no agent runs on this state folder");
        assert!(!asks_to_join(&found[0]));
        assert_eq!(found[1].level, FindingLevel::Ok, "{}", found[1]);
        let bad = found.iter().filter(|found| found.level != FindingLevel::Ok);
        assert!(bad.clone().count() > 0 && bad.clone().all(|found| found.remedy.is_some()));
        let closed = DoctorFacts {
            unreadable: Some("run it as root".into()),
            ..DoctorFacts::default()
        };
        let found = run(&closed);
        assert_eq!(
            found[0].to_string(),
            "problem service   whether an agent runs on this state folder cannot be seen: run it as root"
        );
        for (found, level) in found.iter().zip(["problem", "warning", "warning"]).skip(1) {
            let found = found.to_string();
            assert!(
                found.starts_with(level) && found.ends_with(AS_ITS_ACCOUNT),
                "{found}"
            );
        }
    }
}
