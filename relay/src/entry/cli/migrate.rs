//! `relay migrate`: a stopped relay's whole state, from the file in its folder to a server.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use holdfast_protocol::count::Count;
use serde::Serialize;

use super::limits::PROGRESS_INTERVAL;
use crate::clock;
use crate::json;
use crate::output::complain;
use crate::recording::objects::backend::StorageBackend;
use crate::state::{Database, DatabaseUrl, State, StateError};
use crate::store::{
    Store, StoreError, TransferProgress, TransferReport, transfer, transfer_target,
};

/// Move a stopped relay's state to a PostgreSQL server
#[derive(clap::Args)]
#[command(after_help = "Examples:
  relay migrate --to 'postgres://holdfast@db.example.com/holdfast?sslmode=verify-full'

The database must be empty. All tables are copied and compared, and the state folder remembers the database: then
`relay serve` goes on with it. If that is interrupted, the state is where it was: run it again. Once it is done,
running it again changes nothing. Recordings stay where they are. Back up the state folder before.")]
pub(super) struct MigrateArgs {
    /// Empty database on a PostgreSQL server
    #[arg(long, value_name = "postgres://USER@HOST/NAME", value_parser = DatabaseUrl::new)]
    to: DatabaseUrl,
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
}

/// The answer.
#[derive(Serialize)]
struct Answer<'a> {
    /// The database, without a password.
    database: String,
    /// False if the state was there already.
    moved: bool,
    #[serde(flatten)]
    report: Option<&'a TransferReport>,
    /// The folder of recordings, if they are in one.
    recordings: Option<PathBuf>,
}

/// Moves the state, unless it is there already, and returns what to print.
pub(super) fn run(dir: &Path, args: &MigrateArgs) -> anyhow::Result<String> {
    let state = State::open(dir)?;
    if let Database::Server(known) = state.database() {
        if known.to_string() != args.to.to_string() {
            bail!(
                "{} has the database {known} already, and --to is {}: a state is moved from a file to a server, and from \
                 one server to another by a dump of the database and `relay serve --database`",
                dir.display(),
                args.to
            );
        }
        let answer = Answer {
            database: known.to_string(),
            moved: false,
            report: None,
            recordings: None,
        };
        return said(args, &answer, dir);
    }
    let mut state = match State::open_exclusively(dir) {
        Err(StateError::Locked { dir, pid }) => {
            bail!(
                "a relay already serves from {} (pid {pid}): stop it first",
                dir.display()
            );
        }
        opened => opened?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(move_state(&mut state, args))
}

async fn move_state(state: &mut State, args: &MigrateArgs) -> anyhow::Result<String> {
    let dir = state.dir.clone();
    let before = Store::moved_to(state.database()).await?;
    // A file that was sealed is looked at once more for the same database: the one in the folder was not remembered.
    let is_other =
        |to: &String| *to != args.to.to_string() || state.database().named_in_its_place().is_some();
    if let Some(database) = before.filter(is_other) {
        let file = state.database().to_string();
        return Err(StoreError::Elsewhere { file, database }.into());
    }
    let from = Store::open_source(state.database()).await?;
    from.check_keys(&state.key_fingerprints()).await?;
    let place = StorageBackend::remembered(&from).await?;
    let to = transfer_target(Database::Server(args.to.clone())).await?;
    let mut last = clock::instant();
    let progress = |at: TransferProgress<'_>| {
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = clock::instant();
            complain(format_args!(
                "{}: {} of {} copied",
                at.table,
                at.rows,
                Count(at.of, "row")
            ));
        }
    };
    let cluster = state.cluster.public();
    let moved = transfer((&from, &to), &cluster, progress).await?;
    state.move_to_server(args.to.clone())?;
    let report = moved.report.clone();
    if let Err(error) = moved.seal(state.database()).await {
        // Nothing but a command that began before this one could still write there.
        complain(format_args!(
            "the file still takes changes, which are lost: {error}"
        ));
    }
    from.close().await;
    to.close().await;
    let recordings = matches!(place, StorageBackend::Folder).then(|| state.recordings());
    let answer = Answer {
        database: args.to.to_string(),
        moved: true,
        report: Some(&report),
        recordings,
    };
    said(args, &answer, &dir)
}

fn said(args: &MigrateArgs, answer: &Answer<'_>, dir: &Path) -> anyhow::Result<String> {
    match args.json {
        true => Ok(json::pretty(answer)?),
        false => Ok(words(answer, dir)),
    }
}

fn words(answer: &Answer<'_>, dir: &Path) -> String {
    let (database, dir) = (&answer.database, dir.display());
    let Some(report) = answer.report else {
        return format!("the state of {dir} is in {database} already: nothing was changed\n");
    };
    let rows: u64 = report.tables.values().sum();
    let (tables, rows) = (
        Count(report.tables.len() as u64, "table"),
        Count(rows, "row"),
    );
    let audit = match report.audit_ids {
        Some((first, last)) => format!("the audit log with the ids {first} to {last}"),
        None => "an empty audit log".to_owned(),
    };
    let mut text = format!("moved to {database} and compared: {tables} with {rows}, {audit}\n");
    if report.replaced > 0 {
        text += &format!(
            "PostgreSQL stores no U+0000, and U+FFFD is in its place in {}: {}\n",
            Count(report.replaced, "row"),
            report.replaced_in.join(", ")
        );
    }
    if let Some(recordings) = &answer.recordings {
        text += &format!("recordings stay in {}\n", recordings.display());
    }
    text + &format!("{dir} remembers the database: start `relay serve` without --database\n")
}
