//! An entry as one line: JSON for machines, a table's row for people. Whatever its values contain, it stays one line.

use std::fmt::Write as _;

use holdfast_protocol::escape::Escaped;
use serde::Serialize;
use serde::ser::SerializeMap as _;
use serde_json::Value;

use crate::json;
use crate::output::cut;
use crate::store::AuditEntry;

/// The names of the fields that every event has, in their order. They are relied upon.
pub(crate) const FIELDS: [&str; 15] = [
    "time",
    "id",
    "event",
    "user",
    "key",
    "email",
    "client",
    "relay",
    "device",
    "device_id",
    "device_address",
    "login",
    "session",
    "outcome",
    "reason",
];

/// Returns the table's head; its columns are as wide as those of [`text`], or of [`two_lines`].
#[must_use]
pub(crate) fn head(is_two_lines: bool, has_relay: bool) -> String {
    if is_two_lines {
        return first_line("TIME (UTC)", "N", ["EVENT", "USER", "DEVICE", "OUTCOME"]);
    }
    let [event, user, device, outcome, count] = WIDTHS;
    let (time, width) = ("TIME (UTC)", TIME_WIDTH);
    let relay = relay_column(has_relay.then_some("RELAY"));
    format!(
        "{time:<width$}  {:<event$}  {:<user$}  {:<device$}  {:<outcome$}  {relay}{:>count$}  DETAILS\n",
        "EVENT", "USER", "DEVICE", "OUTCOME", "N"
    )
}

/// Returns the column with the name of the relay, which there is where the cluster has several.
fn relay_column(relay: Option<&str>) -> String {
    relay.map_or_else(String::new, |relay| format!("{relay:<RELAY_WIDTH$}  "))
}

/// `2026-11-22 05:06:07.000000`.
const TIME_WIDTH: usize = 26;
/// The widths of the columns of event, user, device, outcome and how many. A longer value moves the rest of its line,
/// so that lines can be written as they come.
const WIDTHS: [usize; 5] = [17, 10, 14, 7, 4];
/// `relay1.example.com`.
const RELAY_WIDTH: usize = 18;

/// Returns the entry as a row of a table, which represents `count` like it, with its line feed; `has_relay` says whether
/// it names the relay. Every value from outside is escaped.
#[must_use]
pub(crate) fn text(entry: &AuditEntry, count: usize, has_relay: bool) -> String {
    let time = entry.time.rfc3339().replace('T', " ").replace('Z', "");
    let shown = |text: &Option<String>| match text {
        Some(text) if !text.is_empty() => Escaped(text).to_string(),
        _ => "-".to_owned(),
    };
    let (user, device) = (shown(&entry.user), shown(&entry.device));
    let relay = has_relay.then(|| shown(&entry.relay));
    let relay = relay_column(relay.as_deref());
    let [e, u, d, o, n] = WIDTHS;
    let mut line = format!(
        "{time:<TIME_WIDTH$}  {:<e$}  {user:<u$}  {device:<d$}  {:<o$}  {relay}{count:>n$} ",
        Escaped(&entry.event).to_string(),
        Escaped(&entry.outcome).to_string(),
    );
    reason(&mut line, entry);
    origin(&mut line, entry);
    more(&mut line, entry);
    let mut line = line.trim_end().to_owned();
    line.push('\n');
    line
}

/// Returns the entry as [`text`] does, for a narrow terminal: the details are a line of their own, and begin with the
/// reason and what the event adds, such as a command.
#[must_use]
pub(crate) fn two_lines(entry: &AuditEntry, count: usize, has_relay: bool) -> String {
    let time = entry.time.rfc3339().replace('T', " ");
    // Without the year and what is below a second.
    let time = time.get(5..19).unwrap_or(&time);
    let shown = |text: &Option<String>| match text {
        Some(text) if !text.is_empty() => Escaped(text).to_string(),
        _ => "-".to_owned(),
    };
    let (user, device) = (shown(&entry.user), shown(&entry.device));
    let event = Escaped(&entry.event).to_string();
    let outcome = Escaped(&entry.outcome).to_string();
    let count = count.to_string();
    let mut text = first_line(time, &count, [&event, &user, &device, &outcome]);
    let mut details = String::new();
    reason(&mut details, entry);
    more(&mut details, entry);
    if let Some(relay) = entry.relay.as_ref().filter(|_| has_relay) {
        detail(&mut details, "relay", relay);
    }
    origin(&mut details, entry);
    if !details.is_empty() {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "   {details}");
    }
    text
}

/// Returns the first of two lines. What comes before the outcome is cut to its column, but for the event.
fn first_line(time: &str, count: &str, [event, user, device, outcome]: [&str; 4]) -> String {
    let [e, u, d, _, n] = WIDTHS;
    let (user, device) = (cut(user, u), cut(device, d));
    format!(
        "{time:<SHORT_TIME_WIDTH$}  {count:>n$}  {event:<e$}  {user:<u$}  {device:<d$}  {outcome}\n"
    )
}

/// `11-22 05:06:07`.
const SHORT_TIME_WIDTH: usize = 14;

fn reason(line: &mut String, entry: &AuditEntry) {
    if let Some(reason) = &entry.reason {
        detail(line, "reason", reason);
    }
}

/// Appends the account, and where the one who acted came from.
fn origin(line: &mut String, entry: &AuditEntry) {
    let origin = [
        ("login", &entry.login),
        ("client", &entry.client),
        ("session", &entry.session),
        ("key", &entry.key),
    ];
    for (name, value) in origin {
        if let Some(value) = value {
            detail(line, name, value);
        }
    }
}

/// Appends what the event adds.
fn more(line: &mut String, entry: &AuditEntry) {
    for (name, value) in &entry.more {
        detail(line, name, &words(value));
    }
}

/// Returns a value in words: a list's items with commas between them.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(words).collect();
            items.join(",")
        }
        other => other.to_string(),
    }
}

/// Appends ` name=value`, in quotes where it would not be one word.
fn detail(line: &mut String, name: &str, value: &str) {
    let (name, shown) = (Escaped(name), Escaped(value).to_string());
    let one_word = shown == value && !value.is_empty() && !value.contains([' ', '=']);
    // Writing into a String cannot fail.
    let _ = if one_word {
        write!(line, " {name}={shown}")
    } else {
        write!(line, " {name}=\"{shown}\"")
    };
}

/// Returns the entry as one line of JSON, with its line feed: the fields that all events have, and then what this
/// one adds.
#[must_use]
pub(crate) fn json(entry: &AuditEntry) -> Vec<u8> {
    json::line(entry)
}

impl Serialize for AuditEntry {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("time", &self.time.rfc3339())?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("event", &self.event)?;
        map.serialize_entry("user", &self.user)?;
        map.serialize_entry("key", &self.key)?;
        map.serialize_entry("email", &self.email)?;
        map.serialize_entry("client", &self.client)?;
        map.serialize_entry("relay", &self.relay)?;
        map.serialize_entry("device", &self.device)?;
        map.serialize_entry("device_id", &self.device_id)?;
        map.serialize_entry("device_address", &self.device_address)?;
        map.serialize_entry("login", &self.login)?;
        map.serialize_entry("session", &self.session)?;
        map.serialize_entry("outcome", &self.outcome)?;
        map.serialize_entry("reason", &self.reason)?;
        for (name, value) in &self.more {
            if !FIELDS.contains(&name.as_str()) {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Actor, Event, EventKind};
    use crate::clock::Timestamp;
    use holdfast_protocol::escape::is_treacherous;
    use holdfast_protocol::ids::Login;
    use proptest::prelude::*;

    const T0: Timestamp = Timestamp(1_795_323_960_000_000 + 7_000_001);

    fn parse(line: &[u8]) -> Value {
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn a_line_of_json_has_every_field_and_what_the_event_adds() {
        let event = Event::exec(b"uptime \"now\"")
            .user(Actor::by_key("alice", "SHA256:x").email(Some("alice@example.com")))
            .client("203.0.113.9:4711".parse().unwrap())
            .login(&Login::new("pi").unwrap())
            .with("kind", "exec");
        let line = json(&event.entry(Some("relay.example.com:4433"), T0));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"time\":\"2026-11-22T05:06:07.000001Z\",\"id\":0,\"event\":\"exec\",\"user\":\"alice\",\
             \"key\":\"SHA256:x\",\"email\":\"alice@example.com\",\"client\":\"203.0.113.9:4711\",\
             \"relay\":\"relay.example.com:4433\",\"device\":null,\"device_id\":null,\
             \"device_address\":null,\"login\":\"pi\",\"session\":null,\"outcome\":\"success\",\
             \"reason\":null,\"command\":\"uptime \\\"now\\\"\",\"kind\":\"exec\"}\n"
        );
    }

    #[test]
    fn a_row_of_the_table_is_one_line() {
        let event = Event::exec(b"echo a\r\nb\x1b[2J \"c\"")
            .user(Actor::by_key("alice", "SHA256:x"))
            .because("two words");
        assert_eq!(
            text(&event.entry(None, T0), 30, false),
            "2026-11-22 05:06:07.000001  exec               alice       -               success    30  \
             reason=\"two words\" key=SHA256:x command=\"echo a\\r\\nb\\u{1b}[2J \\\"c\\\"\"\n"
        );
        let event = Event::new(EventKind::UserLoginFailed)
            .with("names", vec!["root", "a b"])
            .with("keys", Vec::<String>::new())
            .with("attempts", 2);
        let row = text(&event.entry(None, T0), 1, false);
        assert!(
            row.ends_with("  names=\"root,a b\" keys=\"\" attempts=2\n")
                || row.contains(" names=\"root,a b\""),
            "{row}"
        );
        assert!(!row.contains('['), "{row}");
        assert!(
            head(false, false)
                .starts_with("TIME (UTC)                  EVENT              USER        DEVICE")
        );
    }

    #[test]
    fn narrow_row_keeps_reason_command_and_count() {
        let event = Event::exec(b"echo a\r\nb")
            .user(Actor::by_key("alice-of-the-long-name", "SHA256:x"))
            .client("203.0.113.9:4711".parse().unwrap())
            .because("two words");
        let shown = head(true, false) + &two_lines(&event.entry(None, T0), 30, false);
        assert_eq!(
            shown,
            "TIME (UTC)         N  EVENT              USER        DEVICE          OUTCOME\n\
             11-22 05:06:07    30  exec               alice-of-…  -               success\n    \
             reason=\"two words\" command=\"echo a\\r\\nb\" client=203.0.113.9:4711 key=SHA256:x\n"
        );
        let mut columns = shown.lines().filter(|line| !line.starts_with("  "));
        assert!(columns.all(|line| line.chars().count() <= 80), "{shown}");
    }

    #[test]
    fn row_names_the_relay_where_there_are_several() {
        let event = Event::new(EventKind::RelayStopped);
        let entry = event.entry(Some("relay1.example.com"), T0);
        assert_eq!(
            head(false, true) + &text(&entry, 1, true),
            "TIME (UTC)                  EVENT              USER        DEVICE          OUTCOME  RELAY                  N  DETAILS\n\
             2026-11-22 05:06:07.000001  relay.stopped      -           -               success  relay1.example.com     1\n"
        );
        let narrow = two_lines(&entry, 1, true);
        assert!(
            narrow.ends_with("\n    relay=relay1.example.com\n"),
            "{narrow}"
        );
        for one in [text(&entry, 1, false), two_lines(&entry, 1, false)] {
            assert!(!one.contains("example"), "{one}");
        }
    }

    #[test]
    fn non_utf8_bytes_are_shown_escaped_and_kept() {
        let value = parse(&json(&Event::exec(b"a\xff\0b").entry(None, T0)));
        assert_eq!(value["command"], "a\\xff\\u{0}b");
        assert_eq!(value["command_hex"], "61ff0062");
    }

    #[test]
    fn an_event_cannot_overwrite_a_field_of_all_events() {
        let event = Event::new(EventKind::Exec).with("user", "mallory");
        let line = String::from_utf8(json(&event.entry(None, T0))).unwrap();
        assert!(!line.contains("mallory") && line.matches("\"user\"").count() == 1);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_says_so() {
        let long = "ä".repeat(crate::store::limits::MAX_AUDIT_TEXT);
        let event = Event::exec(long.as_bytes()).because(long.clone());
        let value = parse(&json(&event.entry(None, T0)));
        assert_eq!(value["command_length"], long.len());
        assert_eq!(value["reason_length"], long.len());
        let kept = value["command"].as_str().unwrap();
        assert!(kept.len() <= crate::store::limits::MAX_AUDIT_TEXT && long.starts_with(kept));
    }

    proptest! {
        #[test]
        fn any_text_stays_one_line_and_reads_back(command: String, user: String, reason in "(\r|\n|\u{1b}|\"|\\\\|\u{85}|\u{2028}|\u{9b}|\u{e0041}|a){0,20}") {
            let event = Event::exec(command.as_bytes())
                .user(Actor::by_key(&user, "SHA256:x"))
                .because(reason.clone());
            let entry = event.entry(None, T0);
            let line = String::from_utf8(json(&entry)).unwrap();
            let body = line.strip_suffix('\n').unwrap();
            prop_assert!(!body.contains(is_treacherous), "{body:?}");
            let value: Value = serde_json::from_str(body).unwrap();
            prop_assert_eq!(value["command"].as_str(), Some(command.as_str()));
            prop_assert_eq!(value["user"].as_str(), Some(user.as_str()));
            prop_assert_eq!(value["reason"].as_str(), Some(reason.as_str()));
            let row = text(&entry, 1, true);
            prop_assert!(!row.strip_suffix('\n').unwrap().contains(is_treacherous), "{row:?}");
            let rows = two_lines(&entry, 1, true);
            prop_assert!(rows.lines().count() <= 2 && !rows.replace('\n', "").contains(is_treacherous), "{rows:?}");
        }

        #[test]
        fn any_bytes_stay_one_line(bytes: Vec<u8>) {
            let line = json(&Event::exec(&bytes).entry(None, T0));
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let value: Value = serde_json::from_slice(&line).unwrap();
            if let Some(hex) = value["command_hex"].as_str() {
                prop_assert_eq!(hex, crate::hex::hex(&bytes));
            }
        }
    }
}
