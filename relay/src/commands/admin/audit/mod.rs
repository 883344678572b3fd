//! `audit`: who did what, where, and how it went.

mod runs;

use std::io;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{DeviceId, DeviceName, SessionId};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{MissedTickBehavior, interval};

use crate::audit::limits::AUDIT_PAGE;
use crate::audit::{Event, EventKind, line};
use crate::commands::Done;
use crate::commands::answer::table::fitted;
use crate::commands::args::{Moment, ambiguous, limit};
use crate::commands::call::{Call, Command, Right};
use crate::commands::limits::WHOLE_ENTRY;
use crate::commands::{Context, Failure, Out};
use crate::limits::STORE_POLL;
use crate::model::invalid::Invalid;
use crate::model::user::LOCAL_USER;
use crate::session::registry::life::Activity;
use crate::store::limits::MAX_AMBIGUOUS;
use crate::store::{AuditEntry, AuditFilter, AuditKey, StoreError};
use runs::Runs;

/// Without `--limit`: what one can look through.
const DEFAULT_LIMIT: u32 = 100;

/// Print the audit log: who did what, where, and how it went
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay audit                                        the newest 100 events
  relay audit --since 1d --user alice --limit 0      all that alice did since yesterday
  relay audit --all                                  an automation's rows one by one
  relay audit --event user.login.failed --follow
  relay audit --since 2026-11-01 --json --limit 0 | jq -r 'select(.event == \"exec\") | .command'

Every reading is itself an event. Times are UTC; docs/session-control.md lists each event and its fields.")]
pub(crate) struct Args {
    /// Not before: a span back from now (30m, 1d) or a time (2026-11-22, '2026-11-22 05:06', RFC 3339)
    #[arg(long, value_name = "SPAN|TIME")]
    since: Option<Moment>,
    /// Before: as --since
    #[arg(long, value_name = "SPAN|TIME", conflicts_with = "follow")]
    until: Option<Moment>,
    /// By this user; `local` is the relay's own shell
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// About this device: a name it had then, or its id
    #[arg(long, value_name = "NAME|ID", value_parser = device)]
    device: Option<String>,
    /// Of this kind, as in user.login or session.start
    #[arg(long, value_name = "EVENT")]
    event: Option<EventKind>,
    /// Of this session: its id, or the beginning of it
    #[arg(long, value_name = "ID", value_parser = digits)]
    session: Option<String>,
    /// The newest so many; 0: all
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT, value_parser = limit)]
    limit: u32,
    /// Go on with what comes, until you stop it; nothing is folded then
    #[arg(long, short)]
    follow: bool,
    /// A row for each event, where equal ones of a run of sessions without a terminal are one row
    #[arg(long)]
    all: bool,
    /// Print one JSON object a line, for machines: always one for each event
    #[arg(long)]
    json: bool,
}

/// The reason why a listing ended early.
enum Stop {
    /// The reader has seen enough.
    Gone,
    Failed(Failure),
}

impl Args {
    /// Returns the audit event of reading with these arguments.
    fn entry(&self) -> Event {
        let mut event = Event::new(EventKind::AuditRead);
        let asked = [
            ("asked_since", self.since.as_ref().map(ToString::to_string)),
            ("asked_until", self.until.as_ref().map(ToString::to_string)),
            ("asked_user", self.user.clone()),
            ("asked_device", self.device.clone()),
            ("asked_event", self.event.map(|event| event.to_string())),
            ("asked_session", self.session.clone()),
        ];
        for (name, value) in asked {
            if let Some(value) = value {
                event = event.with(name, value);
            }
        }
        if self.follow {
            event = event.with("follow", true);
        }
        event.with("limit", self.limit)
    }

    async fn filter(&self, context: &Context) -> Result<AuditFilter, Failure> {
        let (mut device, mut device_id) = (self.device.clone(), None);
        if let Some(id) = device.as_deref().and_then(DeviceId::from_hex) {
            (device, device_id) = (None, Some(id.to_string()));
        }
        let session = match &self.session {
            None => None,
            Some(text) => Some(session(text, context).await?),
        };
        Ok(AuditFilter {
            since: self.since.as_ref().map(|since| since.at(context.now)),
            until: self.until.as_ref().map(|until| until.at(context.now)),
            user: self.user.clone(),
            device,
            device_id,
            event: self.event.map(|event| event.to_string()),
            session,
        })
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::REVIEW
    }

    fn event(&self) -> Option<Event> {
        Some(self.entry())
    }

    /// Returns true: the answer has no end by itself, or is as long as the log.
    fn streams(&self) -> bool {
        true
    }

    fn activity(&self, terminal: bool) -> Activity {
        match (self.follow, terminal) {
            (false, _) => Activity::Running,
            (true, true) => Activity::Input,
            (true, false) => Activity::Bytes,
        }
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.context, call.out).await.map(Done::from)
    }
}

/// Checks the name of a device, or its id.
fn device(text: &str) -> Result<String, Invalid> {
    if DeviceId::from_hex(text).is_none() {
        DeviceName::new(text).map_err(|error| error.to_string())?;
    }
    Ok(text.to_owned())
}

/// Returns the beginning of a session's id, in small letters.
fn digits(text: &str) -> Result<String, Invalid> {
    let digits = text.to_ascii_lowercase();
    if digits.is_empty() || digits.len() > 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(
            "expected a session's id as `audit` prints it, or the beginning of it: digits 0-9, a-f"
                .into(),
        );
    }
    Ok(digits)
}

/// Returns the identifier of the one session in the log that begins so. A whole one need not be there yet.
async fn session(digits: &str, context: &Context) -> Result<String, Failure> {
    if let Some(id) = SessionId::from_hex(digits) {
        return Ok(id.to_string());
    }
    let most = MAX_AMBIGUOUS + 1;
    let found = context.store.audit_sessions(digits, most).await?;
    match found.as_slice() {
        [] => Err(Failure(format!(
            "no session \"{digits}\" in the audit log: see `relay audit`"
        ))),
        [one] => Ok(one.clone()),
        several => Err(ambiguous("session", digits, several)),
    }
}

/// Checks that the log, or the relay, knows the user and the device that are asked for: an empty answer would say that
/// nothing happened, and a reader who follows would wait for ever, where a name is only misspelt.
async fn known(filter: &AuditFilter, head: i64, context: &Context) -> Result<(), Failure> {
    let store = &context.store;
    if let Some(text) = &filter.user {
        let user = store.user_of(text).await?;
        let only = AuditFilter {
            user: filter.user.clone(),
            ..AuditFilter::default()
        };
        if user.is_none() && text != LOCAL_USER && !is_in_log(&only, head, context).await? {
            return Err(unknown("user", text, "user ls"));
        }
    }
    if let Some(text) = filter.device.as_ref().or(filter.device_id.as_ref()) {
        let device = store.device_of(text).await?;
        let only = AuditFilter {
            device: filter.device.clone(),
            device_id: filter.device_id.clone(),
            ..AuditFilter::default()
        };
        if device.is_none() && !is_in_log(&only, head, context).await? {
            return Err(unknown("device", text, "devices"));
        }
    }
    Ok(())
}

fn unknown(what: &str, text: &str, listing: &str) -> Failure {
    let text = Escaped(text);
    Failure(format!(
        "no {what} \"{text}\", and no event about one of that name: see `relay {listing}`"
    ))
}

/// Returns whether the log has an event that the filter lets through.
async fn is_in_log(only: &AuditFilter, head: i64, context: &Context) -> Result<bool, Failure> {
    let newest = context.store.audit_newest(only, head, 0).await?;
    Ok(newest != AuditKey::START)
}

async fn run(args: Args, context: &Context, out: &mut Out<'_>) -> Result<String, Failure> {
    let filter = args.filter(context).await?;
    let head = context.store.audit_head().await?;
    known(&filter, head, context).await?;
    context.audit.note(context.event(args.entry())).await;
    let has_relay = !args.json && context.store.has_several_members().await?;
    let mut listing = Listing {
        context,
        filter,
        json: args.json,
        folds: !(args.all || args.json || args.follow),
        has_relay,
        out,
    };
    let listed = async {
        listing.list(head, args.limit).await?;
        if args.follow {
            listing.follow(head).await?;
        }
        Ok(())
    };
    match listed.await {
        Ok(()) | Err(Stop::Gone) => Ok(String::new()),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

struct Listing<'a, 'o> {
    context: &'a Context,
    filter: AuditFilter,
    json: bool,
    /// True if equal events of a run are one row.
    folds: bool,
    /// True if rows name their relay: there are several.
    has_relay: bool,
    out: &'a mut Out<'o>,
}

impl Listing<'_, '_> {
    /// Writes the newest `limit` entries up to `head`, the oldest of them first.
    async fn list(&mut self, head: i64, limit: u32) -> Result<(), Stop> {
        let store = &self.context.store;
        if !self.json {
            let head = line::head(self.is_narrow(), self.has_relay);
            self.rows(&head).await?;
        }
        let mut after = match limit {
            0 => AuditKey::START,
            count => store.audit_newest(&self.filter, head, count).await?,
        };
        let mut runs = Runs::default();
        loop {
            let page = store
                .audit_page(&self.filter, after, head, AUDIT_PAGE)
                .await?;
            let Some(last) = page.last() else {
                break;
            };
            after = last.key();
            if !self.folds {
                self.write(&page).await?;
                continue;
            }
            for entry in page {
                runs.add(entry);
                if runs.is_full() {
                    self.write_runs(&mut runs).await?;
                }
            }
        }
        self.write_runs(&mut runs).await?;
        Ok(self.out.flush().await?)
    }

    /// Writes what comes after `head`, in the order in which it is written down. Ends only with an error.
    async fn follow(&mut self, mut head: i64) -> Result<(), Stop> {
        let store = &self.context.store;
        let mut poll = interval(STORE_POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            poll.tick().await;
            let newest = store.audit_head().await?;
            while head < newest {
                let page = store.audit_after(&self.filter, head, AUDIT_PAGE).await?;
                // A page that is not full says that nothing up to `newest` was left out.
                let is_full = page.len() == AUDIT_PAGE as usize;
                let last = page.last().map_or(0, |entry| entry.id);
                head = if is_full { last } else { last.max(newest) };
                self.write(&page).await?;
            }
            self.out.flush().await?;
        }
    }

    async fn write(&mut self, entries: &[AuditEntry]) -> io::Result<()> {
        for entry in entries {
            match self.json {
                true => self.out.write_all(&line::json(entry)).await?,
                false => self.rows(&self.text(entry, 1)).await?,
            }
        }
        Ok(())
    }

    async fn write_runs(&mut self, runs: &mut Runs) -> io::Result<()> {
        for (entry, count) in runs.take() {
            self.rows(&self.text(&entry, count)).await?;
        }
        Ok(())
    }

    /// Returns whether the reader's terminal has no room for an entry in one line.
    fn is_narrow(&self) -> bool {
        self.context.width.is_some_and(|width| width < WHOLE_ENTRY)
    }

    fn text(&self, entry: &AuditEntry, count: usize) -> String {
        match self.is_narrow() {
            true => line::two_lines(entry, count, self.has_relay),
            false => line::text(entry, count, self.has_relay),
        }
    }

    /// Writes text within the reader's terminal.
    async fn rows(&mut self, text: &str) -> io::Result<()> {
        let text = fitted(text, self.context.width);
        self.out.write_all(text.as_bytes()).await
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Gone,
            _ => Self::Failed(Failure::unwritten(&error)),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}
