//! Text that others chose, in each column that can hold it: no command, in no form, lets it drive a terminal, forge a
//! line, or hide.

use holdfast_protocol::escape::is_treacherous;
use holdfast_protocol::ids::{DeviceId, Login, SessionId};
use holdfast_protocol::recording::chain::{ChainKey, SessionStart};
use holdfast_protocol::wire::{RecordingMode, StdinMode};
use sqlx::{Connection as _, SqliteConnection};

use super::*;
use crate::audit::EventKind;
use crate::model::lock::LockTarget;
use crate::model::role::Ability;
use crate::store::{
    BoardChange, NewLock, NewRecording, RecordingState, RevokedThing, SeenSession, SessionFacts,
    SessionRow, Traffic,
};

/// The bytes that a name, a comment, a reason or a command may hold.
const HOSTILE: &str = "x\r\nforged\u{1b}[2J\u{9b}31m\u{85}\u{7f}\u{61c}\u{202e}\u{2066}\u{200f}\u{2028}\u{200b}\u{e0041}\"\\z";

const RECORDING: SessionId = SessionId([7; 16]);

/// Columns of text that others chose. What has an alphabet of its own is not read back if it breaks it.
const FOREIGN: &[&str] = &[
    "UPDATE devices SET agent_version = $1, target = $1",
    "UPDATE user_keys SET comment = $1",
    "UPDATE authorities SET comment = $1",
    "UPDATE locks SET message = $1",
    "UPDATE sessions SET command = $1",
    "UPDATE recordings SET command = $1, reason = $1, hold_reason = $1",
    "UPDATE users SET email = $1",
    "UPDATE revocations SET value = $1 WHERE kind = 'key-id'",
];

async fn fixture() -> Fixture {
    let fixture = Fixture::serving().await;
    let device = fixture.device(1, "cam", Labels::new()).await;
    let store = &fixture.context.store;
    let (here, key) = (Caller::Local, ED25519.replace('\u{1b}', "x"));
    for (line, stdin) in [
        ("user add alice --key - --role admin", key.as_str()),
        ("user email alice alice@example.com", ""),
        ("ca trust - --name corp", key.as_str()),
    ] {
        let said = fixture.by(&here, line, stdin).await;
        assert_eq!(said.code, DONE, "{line}: {}", said.err);
    }
    fixture.online(&device).await;
    let session = SessionFacts {
        user_id: None,
        id: RECORDING,
        user: UserName::new("alice").unwrap(),
        device: device.id,
        device_name: device.name.clone(),
        login: Login::new("pi").unwrap(),
        kind: Ability::Exec,
        command: Some("x".to_owned()),
        client: "203.0.113.9:50022".parse().unwrap(),
        started: T0,
        terminal: false,
    };
    let (relay, now) = (RelayId::random().unwrap(), Timestamp::now());
    store
        .change(async |tx| tx.relay_started(relay, MemberId::FIRST, now).await)
        .await
        .unwrap();
    let recording = NewRecording {
        session: session.clone(),
        key: ChainKey([1; 32]),
        begun: SessionStart {
            command: None,
            subsystem: None,
            terminal: None,
            env: Vec::new(),
            mode: RecordingMode::Strict,
            stdin: StdinMode::Full,
            recover: false,
        },
        seen: SeenSession::default(),
    };
    store
        .change(async |tx| tx.recording_begun(relay, &recording).await)
        .await
        .unwrap();
    fixture
        .ok(&format!("recordings hold {RECORDING} --reason x"))
        .await;
    let traffic = Traffic {
        bytes_in: 1,
        bytes_out: 1,
        active: T0,
    };
    let begun = vec![SessionRow { session, traffic }];
    let change = BoardChange {
        begun,
        ..BoardChange::default()
    };
    store
        .change(async |tx| tx.publish_sessions(relay, &change).await)
        .await
        .unwrap();
    let lock = NewLock {
        target: LockTarget::Device(DeviceId([9; 16])),
        message: "x".to_owned(),
        by: None,
        expires: None,
    };
    store
        .change(async |tx| tx.add_lock(lock, T0).await)
        .await
        .unwrap();
    let revoked = RevokedThing::KeyId {
        authority: None,
        id: "x".to_owned(),
    };
    store
        .change(async |tx| tx.revoke(&[revoked], false, T0).await)
        .await
        .unwrap();
    let event = Event::new(EventKind::SessionRejected)
        .user(Actor::by_key(HOSTILE, HOSTILE).email(Some(HOSTILE)))
        .with("target", HOSTILE)
        .with("names", vec![HOSTILE.to_owned()])
        .refused(HOSTILE);
    fixture.context.audit.note(event).await;

    let database = fixture.context.facts.folder.join("relay.db");
    let address = format!("sqlite://{}", database.display());
    let mut sql = SqliteConnection::connect(&address).await.unwrap();
    for statement in FOREIGN {
        let query = sqlx::query(*statement).bind(HOSTILE);
        let changed = query.execute(&mut sql).await.unwrap().rows_affected();
        assert!(changed > 0, "{statement}: nothing there");
    }
    sql.close().await.unwrap();
    fixture
}

#[tokio::test]
async fn no_command_lets_foreign_text_out_as_it_is() {
    let fixture = fixture().await;
    let mut shown = 0;
    let lines = matrix::lines().filter(|line| !line.contains("play"));
    let lines: Vec<String> = lines
        .map(|line| match line.split_once(" x") {
            // Of the recording that there is.
            Some((verb, rest)) if verb.starts_with("recordings ") || verb == "export" => {
                format!("{verb} {RECORDING}{rest}")
            }
            _ => line.to_owned(),
        })
        .chain(["audit --limit 0", "audit --all", "lock ls", "ca revoked"].map(str::to_owned))
        .collect();
    for line in &lines {
        for line in [line.clone(), format!("{line} --json")] {
            if matches!(parse_console(&line), Err((_, USAGE))) {
                continue;
            }
            let said = fixture.run(&line).await;
            for text in [&said.out, &said.err] {
                let plain = text.replace('\n', "");
                assert!(!plain.contains(is_treacherous), "{line}: {text:?}");
                assert!(!text.contains("\nforged"), "{line}: {text:?}");
                shown += usize::from(text.contains("forged"));
            }
        }
    }
    // A test of nothing would pass as well: the text is in these answers, escaped.
    assert!(shown > 20, "{shown}");
}

#[tokio::test]
async fn json_holds_foreign_text_as_it_was() {
    let fixture = fixture().await;
    assert_eq!(fixture.json("devices --json").await[0]["target"], HOSTILE);
    assert_eq!(
        fixture.json("recordings --json").await[0]["reason"],
        HOSTILE
    );
    let roles = fixture.ok("get users -o toml").await;
    let read: toml::Value = toml::from_str(&roles).unwrap();
    assert_eq!(read["users"]["alice"]["email"].as_str(), Some(HOSTILE));
}

#[tokio::test]
async fn a_recording_that_has_not_arrived_is_no_empty_one() {
    let fixture = fixture().await;
    for command in ["play X", "export X --format raw", "export X --format txt"] {
        let said = fixture
            .run(&command.replace('X', &RECORDING.to_string()))
            .await;
        let expected = format!("recording {RECORDING} is not here yet: it is recording\n");
        assert_eq!((said.code, said.err), (FAILED, expected), "{command}");
    }
}

#[tokio::test]
async fn a_lost_recording_is_no_empty_one() {
    let fixture = fixture().await;
    let store = &fixture.context.store;
    let lost = RecordingState::Lost;
    let settle = async |tx: &mut store::Tx| {
        tx.recording_settled(RECORDING, lost, Some("gone"), None)
            .await
    };
    store.change(settle).await.unwrap();
    for command in [
        "play X",
        "export X --format raw",
        "export X --format txt",
        "export X --format json",
        "export X --format asciicast",
    ] {
        let said = fixture
            .run(&command.replace('X', &RECORDING.to_string()))
            .await;
        let expected = format!("recording {RECORDING} is lost, nothing of it can be shown: gone\n");
        assert_eq!((said.code, said.err), (6, expected), "{command}");
    }
}

#[tokio::test]
async fn a_narrow_table_shows_state_and_hold() {
    let mut fixture = fixture().await;
    let store = &fixture.context.store;
    let lost = RecordingState::Lost;
    let reason = Some("the device no longer has it: its list of recordings lacks it");
    let settle =
        async |tx: &mut store::Tx| tx.recording_settled(RECORDING, lost, reason, None).await;
    store.change(settle).await.unwrap();
    let shown = fixture.ok(&format!("recordings show {RECORDING}")).await;
    assert!(shown.contains("\nhold     since "), "{shown}");
    for width in [40, 60, 80, 100] {
        fixture.context.width = Some(width);
        let table = fixture.ok("recordings").await;
        let row = table.lines().nth(1).unwrap();
        assert!(row.contains("lost"), "{table}");
        assert!(row.contains("held, the dev"), "{table}");
        assert!(row.chars().count() <= width, "{table}");
        if width >= 80 {
            assert!(table.contains("STARTED UTC"), "{table}");
            assert!(row.contains("11-22 05:06 "), "{table}");
        }
    }
}
