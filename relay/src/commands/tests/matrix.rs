//! Every command as everybody who may give one. The commands are taken from the grammar: a new one
//! without a row here fails the test.

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::*;
use crate::access::tests::fixture;
use crate::store::{User, UserId};

/// The callers, in the order of the columns.
const CALLERS: [&str; 5] = ["admin", "operator", "auditor", "no role", "disabled"];

/// Path in the grammar, a line that means something there, and whether each of [`CALLERS`] may give it.
const ROWS: &[(&str, &str, [bool; 5])] = &[
    ("apply", "apply -f -", ADMIN),
    ("audit", "audit", REVIEW),
    ("ca ls", "ca ls", REVIEW),
    ("ca revoke", "ca revoke -", ADMIN),
    ("ca host-key", "ca host-key", REVIEW),
    ("ca host-key rotate", "ca host-key rotate", ADMIN),
    ("ca revoked", "ca revoked", REVIEW),
    ("ca rm", "ca rm corp", ADMIN),
    ("ca trust", "ca trust - --name corp", ADMIN),
    ("ca unrevoke", "ca unrevoke 1", ADMIN),
    (
        "cluster join",
        "cluster join x --database postgres://x --public x",
        ADMIN,
    ),
    ("cluster drain", "cluster drain x", ADMIN),
    ("cluster leave", "cluster leave x", ADMIN),
    ("cluster ls", "cluster ls", REVIEW),
    ("cp", "cp - --on role=camera:/tmp/x", ROLE),
    ("devices", "devices", ROLE),
    ("devices ls", "devices ls --all", ROLE),
    ("devices show", "devices show cam", ROLE),
    ("devices rename", "devices rename cam cam", ADMIN),
    ("devices label", "devices label cam a=b", ADMIN),
    ("devices revoke", "devices revoke spare", ADMIN),
    ("doctor", "doctor", REVIEW),
    ("exec", "exec --on role=camera -- true", ROLE),
    ("export", "export x --format raw", ROLE),
    ("get roles", "get roles -o toml", REVIEW),
    ("get users", "get users", REVIEW),
    ("lock address", "lock address 203.0.113.7", ADMIN),
    ("lock device", "lock device cam", ADMIN),
    ("lock login", "lock login root", ADMIN),
    ("lock ls", "lock ls", REVIEW),
    ("lock role", "lock role spare", ADMIN),
    ("lock user", "lock user spare", ADMIN),
    ("play", "play x", ROLE),
    ("recordings", "recordings", ROLE),
    ("recordings grep", "recordings grep x", ROLE),
    ("recordings ls", "recordings ls", ROLE),
    ("recordings hold", "recordings hold x", ADMIN),
    ("recordings release", "recordings release x", ADMIN),
    ("recordings rm", "recordings rm x", ADMIN),
    ("recordings show", "recordings show x", ROLE),
    ("recordings verify", "recordings verify x", ROLE),
    ("role ls", "role ls", REVIEW),
    ("role rm", "role rm spare", ADMIN),
    ("sessions", "sessions", ROLE),
    ("sessions ls", "sessions ls", ROLE),
    ("sessions kill", "sessions kill x", ROLE),
    ("ssh-config", "ssh-config", ROLE),
    ("token create", "token create", ADMIN),
    ("token ls", "token ls", ADMIN),
    ("token rm", "token rm x", ADMIN),
    ("unlock", "unlock 1", ADMIN),
    ("user add", "user add eve --principal eve", ADMIN),
    ("user disable", "user disable spare", ADMIN),
    ("user email", "user email spare a@b", ADMIN),
    ("user enable", "user enable spare", ADMIN),
    ("user key add", "user key add spare --key -", ADMIN),
    ("user key rm", "user key rm spare SHA256:x", ADMIN),
    ("user ls", "user ls", REVIEW),
    (
        "user principal add",
        "user principal add spare spare",
        ADMIN,
    ),
    ("user principal rm", "user principal rm spare spare", ADMIN),
    ("user rm", "user rm spare", ADMIN),
    ("user role add", "user role add spare operator", ADMIN),
    ("user role rm", "user role rm spare operator", ADMIN),
    ("user show", "user show spare", REVIEW),
    ("wait", "wait cam --timeout 1s", ROLE),
    ("whoami", "whoami", ALL),
];
const ADMIN: [bool; 5] = [true, false, false, false, false];
const REVIEW: [bool; 5] = [true, false, true, false, false];
const ROLE: [bool; 5] = [true, true, true, false, false];
const ALL: [bool; 5] = [true, true, true, true, false];

/// Returns a line for each command there is.
pub(super) fn lines() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.1)
}

/// Collects the paths of all commands that do something.
fn paths(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
    let mut subcommands = command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
        .peekable();
    if !path.is_empty() && (subcommands.peek().is_none() || !command.is_subcommand_required_set()) {
        found.insert(path.to_owned());
    }
    for sub in subcommands {
        let path = format!("{path} {}", sub.get_name());
        paths(sub, path.trim_start(), found);
    }
}

/// Returns the users of the columns, one that was removed, and things to be changed.
async fn fixture() -> Fixture {
    let fixture = Fixture::serving().await;
    fixture.device(1, "cam", Labels::new()).await;
    fixture.device(2, "spare", Labels::new()).await;
    let policy = "[roles.spare]\n[users.admin]\nroles = ['admin']\n[users.operator]\nroles = ['operator']\n\
        [users.auditor]\nroles = ['auditor']\n[users.'no.role']\n[users.disabled]\nroles = ['admin']\ndisabled = true\n\
        [users.spare]\nroles = []\n[users.removed]\nroles = ['admin']\n";
    let said = fixture.by(&Caller::Local, "apply -f -", policy).await;
    assert_eq!(said.code, DONE, "{}", said.err);
    fixture.ok("user rm removed").await;
    fixture
}

async fn caller(fixture: &Fixture, name: &str) -> Result<Caller, String> {
    let name = name.replace(' ', ".").parse().unwrap();
    let user = fixture.context.store.user(&name).await.unwrap();
    let no_roles = User {
        id: UserId(0),
        name,
        email: None,
        roles: vec![],
        disabled: false,
    };
    let user = user.unwrap_or(no_roles);
    Caller::over_ssh(&fixture.context.store, &user, [203, 0, 113, 9].into()).await
}

/// Returns the exit status of a command that is refused: a search has that of grep.
fn failed(path: &str) -> u8 {
    if path == "recordings grep" { 2 } else { FAILED }
}

#[tokio::test]
async fn every_command_asks_who_may() {
    let mut found = BTreeSet::new();
    paths(&Console::command(), "", &mut found);
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(
        found, rows,
        "each command has one row, and each row a command"
    );

    for (column, who) in CALLERS.into_iter().enumerate() {
        for (path, line, expected) in ROWS {
            let fixture = fixture().await;
            let caller = caller(&fixture, who).await.unwrap();
            let before = everything(&fixture).await;
            let said = fixture.by(&caller, line, "").await;
            let refused = said.code == failed(path)
                && said.out.is_empty()
                && (said.err.contains("may not run this command")
                    || said.err.contains("is disabled"));
            assert_eq!(!refused, expected[column], "{path} as {who}: {}", said.err);
            assert!(refused || said.code != USAGE, "{path}: {}", said.err);
            if refused {
                assert_eq!(said.err.lines().count(), 1, "{path} as {who}: {}", said.err);
            }
            // Only an admin changes anything.
            if who != "admin" {
                assert_eq!(everything(&fixture).await, before, "{path} as {who}");
            }
        }
    }
    let fixture = fixture().await;
    let removed = caller(&fixture, "removed").await.unwrap_err();
    assert_eq!(removed, "user \"removed\" was removed: ask an admin");
    for (_, line, _) in ROWS {
        assert!(
            permit(&Caller::Local, &parse_console(line).unwrap()).is_ok(),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_role_that_does_not_count_from_here_names_the_place() {
    let fixture = fixture().await;
    let policy = "[roles.home]\nsource = '192.0.2.0/24'\n\
        allow = { abilities = ['admin'] }\n\
        [users.far]\nroles = ['home']\n[users.near]\nroles = ['home', 'operator']\n";
    let said = fixture.by(&Caller::Local, "apply -f -", policy).await;
    assert_eq!(said.code, DONE, "{}", said.err);
    let far = caller(&fixture, "far").await.unwrap();
    for line in ["devices", "token ls", "recordings"] {
        let said = fixture.by(&far, line, "").await;
        assert_eq!(
            (said.code, said.err.as_str()),
            (
                FAILED,
                "no role of user \"far\" may be used from 203.0.113.9: connect from a network that one names\n"
            )
        );
    }
    let near = caller(&fixture, "near").await.unwrap();
    let said = fixture.by(&near, "token ls", "").await;
    assert_eq!(
        (said.code, said.err.as_str()),
        (
            FAILED,
            "user \"near\" may not run this command: it needs the ability admin, \
             and not every role may be used from 203.0.113.9: see `whoami`\n"
        )
    );
}

/// Returns all that the commands can change.
async fn everything(fixture: &Fixture) -> String {
    let mut all = String::new();
    for line in [
        "get roles -o toml",
        "get users -o toml",
        "devices ls --all --json",
        "token ls",
        "lock ls",
    ] {
        all += &fixture.ok(line).await;
    }
    all
}

#[tokio::test]
async fn a_listing_shows_what_its_reader_may_see() {
    let fixture = Fixture::serving().await;
    let args::Label(key, value) = "site=berlin".parse().unwrap();
    fixture
        .device(1, "berlin-cam", Labels::from([(key, value)]))
        .await;
    fixture.device(2, "paris-cam", Labels::new()).await;
    let tech = fixture::role(
        "tech",
        "allow = { labels = { site = 'berlin' }, logins = ['pi'], abilities = ['exec'] }",
    );
    let alice = Caller::User(fixture::subject(vec![tech]));
    let listing = fixture.by(&alice, "devices", "").await.out;
    assert!(
        listing.contains("berlin-cam") && !listing.contains("paris-cam"),
        "{listing}"
    );
    let rows: Value =
        serde_json::from_str(&fixture.by(&alice, "devices --json", "").await.out).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(
        fixture.by(&alice, "devices show berlin-cam", "").await.code,
        DONE
    );
    let hidden = fixture.by(&alice, "devices show paris-cam", "").await;
    let absent = fixture.by(&alice, "devices show rome-cam", "").await;
    assert_eq!((hidden.code, absent.code), (FAILED, FAILED));
    assert_eq!(hidden.err.replace("paris", "rome"), absent.err);
    // A caller who waits for it gets the same, and at once.
    let hidden = fixture.by(&alice, "wait paris-cam --timeout 7d", "").await;
    assert_eq!(hidden.code, FAILED);
    assert_eq!(hidden.err.replace("paris", "rome"), absent.err);
    let waited = fixture.by(&alice, "wait berlin-cam --timeout 1s", "").await;
    let late = "berlin-cam is still offline after 1s (never seen yet)\n";
    assert_eq!((waited.code, waited.err.as_str()), (FAILED, late));
    fixture.ok("devices revoke paris-cam").await;
    let revoked = fixture.fails("wait paris-cam").await;
    assert!(revoked.starts_with("paris-cam was revoked "), "{revoked}");
}

/// Covers a wait of a user whose rights end while it runs: the live-session registry ends it with the reason, so that the
/// command says nothing of its own.
#[tokio::test]
async fn a_wait_leaves_lost_rights_to_the_registry() {
    let mut fixture = Fixture::serving().await;
    fixture.device(1, "cam", Labels::new()).await;
    fixture.ok("user add bob --principal bob").await;
    let tech = fixture::role(
        "tech",
        "allow = { labels = { '*' = '*' }, logins = ['pi'], abilities = ['exec'] }",
    );
    let mut subject = fixture::subject(vec![tech]);
    let name = "bob".parse().unwrap();
    subject.user = fixture.context.store.user(&name).await.unwrap().unwrap();
    fixture.context.client = Some(([203, 0, 113, 9], 22).into());
    let bob = Caller::User(subject);
    let waited = fixture.by(&bob, "wait cam --timeout 2s", "").await;
    let late = "cam is still offline after 2s (never seen yet)\n";
    assert_eq!((waited.code, waited.err.as_str()), (FAILED, late));
}
