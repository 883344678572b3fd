use std::time::Duration;

use holdfast_protocol::identity::token::Token;
use holdfast_protocol::ids::{PublicKey, UserName};
use serde_json::Value;
use tempfile::TempDir;

use super::grammar::Console;
use super::*;
use crate::access::policy::Subject;
use crate::audit::WhenUnwritable;
use crate::audit::{Actor, Audit};
use crate::clock::Timestamp;
use crate::commands::limits::{MAX_CONSOLE_LINE, MAX_POLICY_INPUT};
use crate::model::presets;
use crate::recording::archive::Archive;
use crate::recording::objects::Objects;
use crate::recording::objects::backend::StorageBackend;
use crate::state::State;
use crate::store::meta::{PUBLIC_SSH, PUBLIC_TUNNEL};
use crate::store::tests::database::bind_chosen;
use crate::store::{self, Store};
use crate::store::{Device, Enrolment, Labels, MemberId, NewToken, RelayId, TunnelFacts, User};

mod authorities;
mod cluster;
mod console;
mod control;
mod fleet;
mod foreign;
mod matrix;
mod named;
mod people;
mod policy;

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti a\u{1b}[2Jb";
const FINGERPRINT: &str = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ";
const T0: Timestamp = Timestamp(1_795_323_960_000_000);

/// A relay's state and store in a folder of their own.
struct Fixture {
    context: Context,
    _dir: TempDir,
}

/// The answer of a command.
struct Said {
    code: u8,
    out: String,
    err: String,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::create_or_open(&dir.path().join("state")).unwrap();
        bind_chosen(&mut state);
        let store = Store::open(state.database()).await.unwrap();
        let objects = Objects::open_or_unavailable(state.recordings(), Ok(StorageBackend::Folder));
        let context = Context {
            row: CommandRow::default(),
            audit: Audit::open(store.clone(), None, WhenUnwritable::Refuse),
            actor: Actor::local("root".to_owned()),
            client: None,
            stream: None,
            width: None,
            store,
            facts: RelayFacts::of(&state, Archive::of(&state, objects)),
            now: T0,
        };
        Self { context, _dir: dir }
    }

    async fn serving() -> Self {
        let fixture = Self::new().await;
        let store = &fixture.context.store;
        store
            .change(async |tx| tx.meta_set(PUBLIC_TUNNEL, "relay.example.com:4433").await)
            .await
            .unwrap();
        store
            .change(async |tx| tx.meta_set(PUBLIC_SSH, "relay.example.com:2222").await)
            .await
            .unwrap();
        fixture
    }

    /// Runs a line as the console parses it.
    async fn by(&self, caller: &Caller, line: &str, stdin: &str) -> Said {
        let command = match parse_console(line) {
            Ok(command) => command,
            Err((err, code)) => {
                return Said {
                    code,
                    out: String::new(),
                    err,
                };
            }
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let stdin = command.wants_stdin().then_some(stdin.as_bytes());
        let code = run(command, caller, &self.context, stdin, &mut out, &mut err).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            code,
            out: text(out),
            err: text(err),
        }
    }

    async fn run(&self, line: &str) -> Said {
        self.by(&Caller::Local, line, "").await
    }

    async fn ok(&self, line: &str) -> String {
        let said = self.run(line).await;
        assert_eq!((said.code, said.err.as_str()), (DONE, ""), "{line}");
        said.out
    }

    /// Returns the text on stderr of a command that fails.
    async fn fails(&self, line: &str) -> String {
        let said = self.run(line).await;
        assert_eq!((said.code, said.out.as_str()), (FAILED, ""), "{line}");
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        said.err
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line).await).unwrap()
    }

    async fn device(&self, key: u8, name: &str, labels: Labels) -> Device {
        let ttl = Duration::from_secs(60);
        let store = &self.context.store;
        let token = NewToken {
            for_relay: false,
            uses: 1,
            ttl,
            labels,
        };
        let (_, secret) = store
            .change(async |tx| tx.create_token(token, T0).await)
            .await
            .unwrap();
        let enrolment = Enrolment {
            secret: &secret,
            key: PublicKey([key; 32]),
            name: name.parse().ok(),
            labels: Labels::new(),
            agent_version: "0.1.0\u{1b}]0;x".to_owned(),
            target: "armv7-unknown-linux-musleabihf".to_owned(),
            now: T0,
        };
        store
            .change(async |tx| tx.enrol(enrolment).await)
            .await
            .unwrap()
    }

    async fn online(&self, device: &Device) {
        let (store, relay) = (&self.context.store, RelayId::random().unwrap());
        let facts = TunnelFacts {
            connection_id: None,
            address: "198.51.100.7:41822".parse().unwrap(),
            agent_version: "0.1.0".to_owned(),
            target: device.target.clone(),
            keepalive_secs: 25,
            local_address: None,
        };
        store
            .change(async |tx| tx.relay_started(relay, MemberId(relay.0), T0).await)
            .await
            .unwrap();
        store
            .change(async |tx| tx.tunnel_opened(device.id, relay, facts, T0).await)
            .await
            .unwrap();
    }
}

/// Returns `bob` with these presets.
fn operator(roles: &[&str], disabled: bool) -> Caller {
    let presets = roles.iter().filter_map(|name| presets::preset(name));
    Caller::User(Subject {
        user: User {
            id: crate::store::UserId(1),
            name: UserName::new("bob").unwrap(),
            email: None,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            disabled,
        },
        roles: presets.collect(),
        elsewhere: None,
    })
}
