//! The relay's command line: `serve`, and the command tree that the console has too.

mod bulk;
mod database;
mod first_start;
mod join;
mod limits;
mod migrate;

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args as _, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use holdfast_protocol::causes::Causes;

use self::bulk::SshArgs;
use self::first_start::FirstStart;
use self::migrate::MigrateArgs;
use super::console::CommandConsole;
use crate::audit::{Actor, Audit, Event, EventKind, WhenUnwritable};
use crate::clock::Timestamp;
use crate::commands::{self, AnyCommand, Caller, CommandRow, Context, DONE, FAILED, RelayFacts};
use crate::config::{Config, DEFAULT_STATE, Flags, PublicHost, SSH_EXPECTED, TUNNEL_EXPECTED};
use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::model::invalid::Fault;
use crate::output::{complain, print};
use crate::recording::archive::Archive;
use crate::recording::objects::Objects;
use crate::recording::objects::backend::StorageBackend;
use crate::state::{DatabaseUrl, KeyFingerprint, State};
use crate::store::{AuditEntry, Durability, Store, StoreError};
use crate::web::health;
use crate::{log, serve};

#[derive(Parser)]
#[command(
    name = "relay",
    version,
    about = "Reach devices behind NAT with a stock ssh: the server's side",
    after_help = "Examples:
  relay serve --public relay.example.com
  relay user add alice --key alice.pub --role admin
  relay token create --label role=camera
  relay devices

Admin commands work beside a running relay and take effect on it within a second."
)]
struct Cli {
    #[command(subcommand)]
    command: TopCommand,
    /// The state folder: keys and database [default: /var/lib/holdfast]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Returns the command tree, for generators of manual pages.
#[must_use]
pub fn command() -> clap::Command {
    let fleet = |help| move |command| SshArgs::augment_args(command).after_help(help);
    Cli::command()
        .mut_subcommand("exec", fleet(bulk::EXEC_HELP))
        .mut_subcommand("cp", |command| {
            let file = |file: clap::Arg| file.help("The file; `-`: what comes on stdin");
            fleet(bulk::CP_HELP)(command.mut_arg("file", file))
        })
}

/// Parses what was typed, with what only the CLI has.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<(Cli, SshArgs), clap::Error> {
    let matches = command().try_get_matches_from(words)?;
    let ssh = match matches.subcommand() {
        Some(("exec" | "cp", matches)) => SshArgs::from_arg_matches(matches)?,
        _ => SshArgs::default(),
    };
    Ok((Cli::from_arg_matches(&matches)?, ssh))
}

#[derive(Subcommand)]
enum TopCommand {
    /// Serve operators and devices until SIGTERM
    Serve(ServeArgs),
    Migrate(MigrateArgs),
    #[command(flatten)]
    Admin(AnyCommand),
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  relay serve --public relay.example.com
  relay serve --state ./state --ssh 127.0.0.1:0 --tunnel 127.0.0.1:0     any free ports

Prints one line on stdout when it serves:  ready ssh=IP:PORT tunnel=IP:PORT
With [health]: health=IP:PORT, too.
Each flag beats the key of the same name in the configuration file (TOML).")]
struct ServeArgs {
    /// Configuration in TOML: state, database, ssh, tunnel, public, public_ssh, drain_grace, login_grace, penalty_exempt,
    /// proxy_protocol, release_key, on_clone, [cluster] with on_store_loss, [health] with listen, [audit] with file,
    /// when_unwritable, keep, and [recordings] with expect_within, keep, store, bucket, prefix, endpoint, region,
    /// credentials, device_max, max, min_free
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database on a PostgreSQL server, which the state folder remembers [default: a file in the state folder]
    #[arg(long, value_name = "postgres://USER@HOST/NAME", value_parser = DatabaseUrl::new)]
    database: Option<DatabaseUrl>,
    /// Listen address for operators, TCP [default: 0.0.0.0:2222]
    #[arg(long, value_name = "IP:PORT", value_parser = ssh_address)]
    ssh: Option<SocketAddr>,
    /// Listen address for devices, UDP [default: 0.0.0.0:4433]
    #[arg(long, value_name = "IP:PORT", value_parser = tunnel_address)]
    tunnel: Option<SocketAddr>,
    /// Public address of this relay alone, in tokens, roster and ssh-config; PORT is the tunnel's, if it is mapped
    /// [default: the bound address, or this machine's name]
    #[arg(long, value_name = "HOST[:PORT]")]
    public: Option<PublicHost>,
    /// Accept a key that was replaced on purpose, by its file's name in the state folder; may be given again
    #[arg(long, value_name = "FILE")]
    accept_key: Vec<String>,
}

fn ssh_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| SSH_EXPECTED)
}

fn tunnel_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| TUNNEL_EXPECTED)
}

/// Parses, builds, runs; gives the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let mut args = args.into_iter();
    let program = args.next();
    let words = program.into_iter().chain(commands::own_state(args, true));
    let (cli, ssh) = match parse(words) {
        Ok(typed) => typed,
        Err(error) => {
            let (text, code) = commands::usage(&error, &command());
            let printed = if code == DONE {
                print(io::stdout(), text.as_bytes())
            } else {
                print(io::stderr(), text.as_bytes())
            };
            return if printed { code } else { FAILED };
        }
    };
    let done = match cli.command {
        TopCommand::Serve(args) => run_serve(cli.state, args).map(|()| DONE),
        TopCommand::Migrate(args) => {
            let dir = cli.state.unwrap_or_else(|| PathBuf::from(DEFAULT_STATE));
            // It is done, whether or not the sentence that says so can be written.
            migrate::run(&dir, &args).map(|said| {
                print(io::stdout(), said.as_bytes());
                DONE
            })
        }
        TopCommand::Admin(command) => {
            let dir = cli.state.unwrap_or_else(|| PathBuf::from(DEFAULT_STATE));
            run_admin(&dir, command, &ssh)
        }
    };
    done.unwrap_or_else(|error| {
        complain(format_args!("{}", Causes(error.as_ref())));
        FAILED
    })
}

fn run_serve(state: Option<PathBuf>, args: ServeArgs) -> anyhow::Result<()> {
    let accepted = args.accept_key;
    let mut config = Config::load(Flags {
        state,
        config: args.config,
        database: args.database,
        ssh: args.ssh,
        tunnel: args.tunnel,
        public: args.public,
    })?;
    log::to_stderr();
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let served = runtime.block_on(async {
        let mut state = State::create_or_open(&config.state)?;
        // The store may take its time.
        let health = health::listen(config.health).await?;
        let store = database::open(&mut state, config.database.clone()).await?;
        let keys = state.key_fingerprints();
        let mut tx = store.begin(Durability::Disk).await?;
        if !accepted.is_empty() {
            // The cluster's key cannot be replaced: another is refused before anything is accepted.
            tx.bind_cluster(&state.cluster.public()).await?;
        }
        for (key, before) in tx.accept_keys(&keys, &accepted).await? {
            tx.audit(accepted_event(key, before.as_deref()));
        }
        tx.bind_keys(&keys).await?;
        tx.bind_cluster(&state.cluster.public()).await?;
        tx.commit().await?;
        if config.public.is_none()
            && let Some(member) = store.member(state.member).await?
            && let Some(public) = &member.public
        {
            // What it was given when it joined.
            config.public = public.parse().ok();
        }
        // Not before: a folder that was given another relay's database must not keep it.
        state.remember_database()?;
        serve::run(config, state, store, Arc::new(CommandConsole), health).await
    });
    // A stdout that is not read may hold up the audit log's thread for ever.
    runtime.shutdown_timeout(FINAL_STATUS_TIMEOUT);
    served
}

/// Returns the event that a key was accepted in the place of another one, for the audit log.
fn accepted_event(key: &KeyFingerprint, before: Option<&str>) -> AuditEntry {
    let event = Event::new(EventKind::RelayKeyAccepted).user(Actor::local(os_user()));
    let event = event.with("file", key.name).with("before", before);
    let event = event.with("fingerprint", key.fingerprint.as_str());
    event.entry(None, Timestamp::now())
}

/// Returns the exit status of a command where the state folder cannot be opened. What keeps everything else from
/// working is what `doctor` is asked for.
fn unopened(command: &AnyCommand, fault: Fault) -> anyhow::Result<u8> {
    let Some((text, code)) = command.unopened(&fault) else {
        return Err(fault.into());
    };
    let printed = print(io::stdout(), text.as_bytes());
    Ok(if printed { code } else { FAILED })
}

fn run_admin(dir: &Path, command: AnyCommand, ssh: &SshArgs) -> anyhow::Result<u8> {
    if let Some(args) = command.join() {
        let text = join::run(dir, args)?;
        let printed = print(io::stdout(), text.as_bytes());
        return Ok(if printed { DONE } else { FAILED });
    }
    // A bare word was most likely meant as a filter of recordings.
    let is_word = matches!(command, AnyCommand::Recordings(_))
        && !dir.as_os_str().as_encoded_bytes().contains(&b'/');
    // `doctor` reports the state as it is now, and does not wait for a first start.
    let answers_without_state = command.unopened(&Fault::default()).is_some();
    let waits = !answers_without_state && !is_word;
    let mut first_start = FirstStart::on(dir);
    let opened = match waits {
        true => first_start.state(),
        false => State::open(dir),
    };
    let state = match opened {
        Ok(state) => state,
        Err(error) if is_word => {
            bail!(
                "{error}. As a filter, --state is one of {}",
                commands::recording_states()
            );
        }
        Err(error) => return unopened(&command, error.fault()),
    };
    if command.bulk().is_some() {
        return bulk::run(&state, &command, ssh);
    }
    let stdin = if command.wants_stdin() {
        Some(read_stdin(command.max_input())?)
    } else {
        None
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        let store = match waits {
            true => first_start.store(state.database()).await?,
            false => match Store::open_existing(state.database()).await {
                Ok(store) => store,
                Err(error) => return unopened(&command, error.fault()),
            },
        };
        if let Err(error) = store.check_keys(&state.key_fingerprints()).await {
            return unopened(&command, error.fault());
        }
        let relay = match store.member(state.member).await? {
            Some(left) if !left.is_present() => {
                return unopened(&command, StoreError::MemberLeft(left.name).fault());
            }
            member => member.map(|member| member.name),
        };
        let place = StorageBackend::remembered(&store).await;
        let objects = Objects::open_or_unavailable(state.recordings(), place);
        let context = Context {
            row: CommandRow::default(),
            facts: RelayFacts::of(&state, Archive::of(&state, objects)),
            now: Timestamp::now(),
            audit: Audit::open(store.clone(), relay, WhenUnwritable::Refuse),
            actor: Actor::local(os_user()),
            client: None,
            stream: None,
            width: width(),
            store,
        };
        let (stdin, caller) = (stdin.as_deref(), Caller::Local);
        let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
        let code = commands::run(command, &caller, &context, stdin, &mut out, &mut err).await;
        context.audit.close().await;
        context.store.close().await;
        Ok(code)
    })
}

/// Returns how wide a table may be: the terminal's width; else what `COLUMNS` says; else anything goes.
fn width() -> Option<usize> {
    let terminal = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let terminal = terminal.map(|size| usize::from(size.ws_col));
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal.or_else(columns).filter(|columns| *columns > 0)
}

/// Returns the account that runs this program: by its name, where /etc/passwd has one.
fn os_user() -> String {
    let id = rustix::process::getuid().as_raw();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {id}"))
}

/// Returns the whole of stdin, or a byte more than `most`, which the command then refuses.
fn read_stdin(most: usize) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    io::stdin()
        .take(limit)
        .read_to_end(&mut text)
        .context("cannot read stdin")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns the keys that a section of the configuration may have, as its own error lists them.
    fn keys(section: &str) -> BTreeSet<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, format!("{section}no_such_key = 1\n").as_bytes()).unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            ..Flags::default()
        };
        let error = Config::load(flags).unwrap_err().to_string();
        let (_, known) = error.split_once("expected one of ").expect(&error);
        let known = known
            .split(", ")
            .map(|key| key.trim_matches('`').to_owned());
        known.collect()
    }

    #[test]
    fn an_address_of_a_database_is_not_repeated_in_a_mistake() {
        for (name, flag) in [("serve", "--database"), ("migrate", "--to")] {
            let words = ["relay", name, flag, "postgress://hf:s3cret@db/x"];
            let error = parse(words.map(OsString::from)).err().unwrap();
            let (said, _) = commands::usage(&error, &command());
            let invalid = format!("invalid value for {flag}");
            assert!(said.contains(&invalid), "{said}");
            assert!(said.contains("expected postgres://"), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn help_of_serve_names_every_key_of_the_configuration() {
        let mut tree = command();
        let serve = tree.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        let (_, after) = help.split_once("Configuration in TOML: ").unwrap();
        let (list, _) = after.split_once("--ssh").unwrap();
        let words = list.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '['));
        let named: BTreeSet<String> = words
            .map(|word| word.trim_start_matches('[').to_owned())
            .collect();
        for section in ["", "[audit]\n", "[recordings]\n"] {
            let missing: Vec<String> = keys(section).difference(&named).cloned().collect();
            assert!(missing.is_empty(), "{section}: {missing:?}");
        }
    }
}
