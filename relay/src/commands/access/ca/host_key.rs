//! `ca host-key`: the relay's own SSH host key, and its replacement.

use clap::Subcommand;
use russh::keys::{HashAlg, PublicKey};
use serde::Serialize;

use crate::commands::{Caller, Context, Failure, json};
use crate::identity::keys;
use crate::state::State;
use crate::store::cluster::members::present;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<HostKeyCommand>,
}

#[derive(Clone, Debug, Subcommand)]
enum HostKeyCommand {
    /// Replace the relay's SSH host key, in two steps
    #[command(after_help = "Examples:
  relay ca host-key rotate               makes the next key; the relay lists both to its clients from now on, and
                                         `relay ssh-config --known-hosts` prints both
  relay ca host-key rotate --finish      when clients have both: the relay shows the next key from its next start on

OpenSSH's clients with `UpdateHostKeys yes` learn the next key at a login between the two steps. Clients that have the
line `@cert-authority` of `relay ssh-config` for the relay need no update: both keys are certified by the relay's host
CA, which stays.")]
    Rotate {
        /// Replace the current key with the next one
        #[arg(long)]
        finish: bool,
    },
}

/// The keys, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct HostKeyJson {
    fingerprint: String,
    public_key: String,
    next_fingerprint: Option<String>,
    next_public_key: Option<String>,
    /// The key before the present one, which clients are shown until the relay starts again.
    served_fingerprint: Option<String>,
    served_public_key: Option<String>,
}

impl Args {
    /// Returns whether it changes nothing.
    pub(crate) fn only_reads(&self) -> bool {
        self.command.is_none()
    }

    /// Returns the name of the change in the audit log.
    pub(crate) fn change(&self) -> Option<&'static str> {
        match self.command.as_ref()? {
            HostKeyCommand::Rotate { finish: false } => Some("ca.host-key.rotate"),
            HostKeyCommand::Rotate { finish: true } => Some("ca.host-key.finish"),
        }
    }
}

pub(crate) async fn run(
    args: &Args,
    caller: &Caller,
    context: &Context,
    as_json: bool,
) -> Result<String, Failure> {
    // Read anew: a relay that runs may have begun with other keys.
    let mut state = State::open(&context.facts.folder)?;
    let mut advice = String::new();
    if let Some(HostKeyCommand::Rotate { finish }) = args.command {
        if matches!(caller, Caller::User(_)) {
            return Err(Failure::new(
                "the host key is replaced on the relay's machine: `relay ca host-key rotate`",
            ));
        }
        if present(&context.store.members().await?).count() > 1 {
            return Err(Failure::new(
                "all relays of a cluster show one host key, and each has it in its own state folder: it can be replaced \
                 only while there is one relay (see `relay cluster ls`)",
            ));
        }
        if let Some(served) = &state.ssh_host_served {
            return Err(Failure(format!(
                "the host key was replaced already, and the relay has not started since: clients are still shown {}; restart the relay first",
                fingerprint(served)
            )));
        }
        if !finish {
            state.make_next_host_key()?;
            // The store has nothing of the next key but the row: a relay that serves looks at its keys again for it.
            context.begin().await?.commit().await?;
            advice = "the next host key is made: hand out `relay ssh-config --known-hosts`, then `relay ca host-key rotate --finish`\n".into();
        } else if state.use_next_host_key()? {
            // Replaced on purpose: the store takes it, and the relay starts with it.
            let mut tx = context.begin().await?;
            for key in state.key_fingerprints() {
                if key.fingerprint == fingerprint(state.ssh_host.public_key()) {
                    tx.set_key_fingerprint(key.name, &key.fingerprint).await?;
                }
            }
            tx.commit().await?;
            advice = "the host key is replaced: the relay shows it from its next start on, so restart it; until then hand out both\n".into();
        } else {
            return Err(Failure::new(
                "there is no next host key: make one with `relay ca host-key rotate`",
            ));
        }
    }
    let next = state.ssh_host_next.as_ref().map(|key| key.public_key());
    let served = state.ssh_host_served.as_ref();
    let row = HostKeyJson {
        fingerprint: fingerprint(state.ssh_host.public_key()),
        public_key: keys::line_of(state.ssh_host.public_key()),
        next_fingerprint: next.map(fingerprint),
        next_public_key: next.map(keys::line_of),
        served_fingerprint: served.map(fingerprint),
        served_public_key: served.map(keys::line_of),
    };
    if as_json {
        return json(&row);
    }
    let present = format!("host key       {}\n", row.fingerprint);
    let next = row.next_fingerprint;
    let next = next.map_or_else(String::new, |next| format!("next host key  {next}\n"));
    let served = row.served_fingerprint;
    let served = served.map_or_else(String::new, |served| {
        format!("shown now      {served}, until the relay is restarted\n")
    });
    Ok(format!("{present}{served}{next}{advice}"))
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
