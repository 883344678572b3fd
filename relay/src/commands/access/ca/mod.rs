//! `ca`: certificate authorities, and what is revoked.

mod host_key;
mod list;
mod show;

use clap::Subcommand;
use holdfast_protocol::escape::Escaped;

use super::keys;
use crate::audit::{Event, EventKind};
use crate::commands::Done;
use crate::commands::call::input;
use crate::commands::call::{Call, Command, Right};
use crate::commands::limits::{MAX_AUTHORITY_NAME, MAX_REVOCATION_INPUT};
use crate::commands::{Caller, Context, Failure, json};
use crate::store::{Authority, Prints, Store, StoreError};
use show::{authorities, authority_json, changed, revoked};

/// Certificate authorities for users, and revoked keys and certificates
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay ca trust corp.pub --name corp
  relay ca ls
  relay ca revoke lost-laptop.pub")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: CaCommand,
    /// Print JSON for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum CaCommand {
    /// Trust the user certificates that an authority signs
    #[command(after_help = "Examples:
  relay ca trust corp_ca.pub --name corp
  ssh-keygen -s corp_ca -I alice-laptop -n alice -V +8h -z 17 id_ed25519.pub     on the authority's machine

A certificate identifies the user who has one of its principals. It may do what the user's roles allow and
the certificate permits: `-O no-pty`, `-O force-command=…` and `-O source-address=…` hold.")]
    Trust {
        /// The authority's public key; - reads stdin
        #[arg(value_name = "FILE|-")]
        file: String,
        /// Its name here [default: the key's comment]
        #[arg(long)]
        name: Option<String>,
    },
    /// List the authorities
    #[command(visible_alias = "list")]
    Ls,
    /// End trust in an authority: its certificates are refused, and their sessions end
    Rm {
        /// `SHA256:…` or its name
        #[arg(value_name = "FINGERPRINT|NAME")]
        authority: String,
    },
    /// Revoke certificates, and keys of users and authorities; live sessions that use them end
    #[command(after_help = "Examples:
  ssh-keygen -k -f revoked.krl -s corp_ca.pub spec && relay ca revoke revoked.krl
  relay ca revoke stolen_laptop.pub
  echo SHA256:3fQ… | relay ca revoke -
  relay ca revoke --replace revoked.krl      what is not in it is no longer revoked, as sshd's RevokedKeys
  relay ca revoke --replace empty.txt        nothing is revoked any more

FILE is a revocation list of `ssh-keygen -k` (its signature is not verified: it is you who hands it in), or
has a public key, SHA256:… or SHA1:… on each line. Without --replace it removes no revocation.")]
    Revoke {
        /// A revocation list, public keys or fingerprints; - reads stdin
        #[arg(value_name = "FILE|-")]
        file: String,
        /// Replace the whole list with FILE
        #[arg(long)]
        replace: bool,
    },
    /// Take revocations back
    Unrevoke {
        /// The number in `ca revoked`, or the fingerprint of a key
        #[arg(required = true, value_name = "ID|FINGERPRINT")]
        which: Vec<String>,
    },
    /// List what is revoked
    Revoked,
    /// Show the relay's own SSH host key, or replace it
    HostKey(host_key::Args),
}

impl Args {
    /// Returns whether it changes nothing.
    fn only_reads(&self) -> bool {
        match &self.command {
            CaCommand::Ls | CaCommand::Revoked => true,
            CaCommand::HostKey(args) => args.only_reads(),
            _ => false,
        }
    }
}

impl Command for Args {
    const MAX_INPUT: usize = MAX_REVOCATION_INPUT;

    fn need(&self) -> Right {
        Right::to_read_or_change(self.only_reads(), Right::REVIEW)
    }

    /// Returns the audit event of a change.
    fn event(&self) -> Option<Event> {
        let changed = |what: &str, target: &str| {
            let event = Event::new(EventKind::AccessChanged).with("change", what);
            Some(event.with("target", target))
        };
        match &self.command {
            CaCommand::Trust { file, name } => changed("ca.trust", name.as_ref().unwrap_or(file)),
            CaCommand::Rm { authority } => changed("ca.rm", authority),
            CaCommand::Revoke { file, .. } => changed("ca.revoke", file),
            CaCommand::Unrevoke { which } => changed("ca.unrevoke", &which.join(" ")),
            CaCommand::HostKey(args) => changed(args.change()?, "host key"),
            CaCommand::Ls | CaCommand::Revoked => None,
        }
    }

    fn is_deed(&self) -> bool {
        !self.only_reads()
    }

    fn wants_stdin(&self) -> bool {
        match &self.command {
            CaCommand::Trust { file, .. } | CaCommand::Revoke { file, .. } => file == "-",
            _ => false,
        }
    }

    fn names_file(&self) -> bool {
        match &self.command {
            CaCommand::Trust { file, .. } | CaCommand::Revoke { file, .. } => file != "-",
            _ => false,
        }
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.caller, call.context, call.stdin)
            .await
            .map(Done::from)
    }
}

async fn run(
    args: Args,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
) -> Result<String, Failure> {
    let as_json = args.json;
    match args.command {
        CaCommand::Trust { file, name } => {
            let remedy = "over ssh, the key comes by stdin: `ssh RELAY ca trust - < corp_ca.pub`";
            let text = input::read(&file, caller, stdin, MAX_REVOCATION_INPUT, remedy)?;
            let authority = authority(context, &file, &text, name)?;
            let mut tx = context.begin().await?;
            let new = tx.trust(&authority).await?;
            tx.commit().await?;
            if as_json {
                return json(&authority_json(context, &authority).await?);
            }
            let (name, fingerprint) = (&authority.name, &authority.fingerprint);
            let verb = if new { "trusted" } else { "is trusted already" };
            Ok(format!("authority {name} {verb}: {fingerprint}\n"))
        }
        CaCommand::Ls => authorities(context, as_json).await,
        CaCommand::Rm { authority: which } => {
            let shown = Escaped(&which).to_string();
            let mut tx = context.begin().await?;
            let removed = tx.distrust(&which).await?;
            let removed = removed
                .ok_or_else(|| Failure(format!("no authority \"{shown}\": see `relay ca ls`")))?;
            tx.commit().await?;
            if as_json {
                return json(&authority_json(context, &removed).await?);
            }
            let (name, fingerprint) = (removed.name, removed.fingerprint);
            Ok(format!(
                "authority {name} ({fingerprint}) is no longer trusted: its certificates are refused from now on\n"
            ))
        }
        CaCommand::Revoke { file, replace } => {
            let remedy = "over ssh, the list comes by stdin: `ssh RELAY ca revoke - < revoked.krl`";
            let text = input::read(&file, caller, stdin, MAX_REVOCATION_INPUT, remedy)?;
            // Nothing at all on stdin is more likely a command before the pipe that failed.
            let may_be_empty = replace && !(file == "-" && text.is_empty());
            let things = list::parse(input::name(&file), &text, may_be_empty)?;
            let mut tx = context.begin().await?;
            let change = tx.revoke(&things, replace, context.now).await?;
            tx.commit().await?;
            changed(change, as_json)
        }
        CaCommand::Unrevoke { which } => {
            let mut tx = context.begin().await?;
            let change = tx.unrevoke(&which).await?;
            tx.commit().await?;
            changed(change, as_json)
        }
        CaCommand::Revoked => revoked(context, as_json).await,
        CaCommand::HostKey(args) => host_key::run(&args, caller, context, as_json).await,
    }
}

/// Returns the one authority in a file.
fn authority(
    context: &Context,
    file: &str,
    text: &[u8],
    name: Option<String>,
) -> Result<Authority, Failure> {
    let mut found = keys::parse(input::name(file), text)?;
    let (Some(key), true) = (found.pop(), found.is_empty()) else {
        let shown = Escaped(input::name(file)).to_string();
        return Err(Failure(format!(
            "{shown} holds several keys: trust one authority at a time, each by a name of its own"
        )));
    };
    let own = [&context.facts.ssh_ca, &context.facts.ssh_host];
    if own.contains(&&key.public_key) {
        return Err(Failure::new(
            "this is a key of the relay's own, which certifies hosts: users' certificates need an authority of their own (`ssh-keygen -t ed25519 -f user_ca`)",
        ));
    }
    let name = match name {
        Some(name) if is_name(&name) => name,
        Some(_) => {
            return Err(Failure(format!(
                "an authority's name has 1 to {MAX_AUTHORITY_NAME} letters, digits, '.', '_', '-' and '@', and begins with a letter or digit"
            )));
        }
        None if is_name(&key.comment) => key.comment.clone(),
        None => {
            return Err(Failure::new(
                "the key's comment is not a valid name of an authority: give it one with --name",
            ));
        }
    };
    Ok(Authority {
        fingerprint: key.fingerprint,
        name,
        public_key: key.public_key,
        comment: key.comment,
        added: context.now,
    })
}

/// Returns whether a text can be a name: never a number or a fingerprint, so that one argument can be either.
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    let begins = text
        .as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric);
    begins && text.len() <= MAX_AUTHORITY_NAME && text.bytes().all(inner)
}

/// Checks whether there is an authority whose certificates can prove users: one that is trusted and not revoked.
pub(crate) async fn has_authority(store: &Store) -> Result<bool, StoreError> {
    for authority in store.authorities().await? {
        let key = Prints {
            sha256: authority.fingerprint,
            sha1: list::sha1_of_line(&authority.public_key),
        };
        if !store.policy().await?.is_key_revoked(&key) {
            return Ok(true);
        }
    }
    Ok(false)
}
