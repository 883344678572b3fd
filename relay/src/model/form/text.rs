//! Roles as TOML, in the shape in which people write them: a table for each rule, labels on one line.

use std::fmt::Write as _;

use holdfast_protocol::escape::is_treacherous;

use super::{RoleForm, RuleForm};
use crate::model::role::RoleName;

/// TOML that is being written.
#[derive(Debug, Default)]
pub(crate) struct TomlText {
    text: String,
}

impl TomlText {
    /// Begins a table: `[PATH]`, or `[[PATH]]` for one of a list. The path's parts are quoted where needed.
    pub(crate) fn table(&mut self, path: &[&str], listed: bool) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let path: Vec<String> = path.iter().map(|part| bare_key(part)).collect();
        let (open, close) = if listed { ("[[", "]]") } else { ("[", "]") };
        // Writing into a String cannot fail.
        let _ = writeln!(self.text, "{open}{}{close}", path.join("."));
    }

    /// Adds `key = value`.
    pub(crate) fn value<T: serde::Serialize>(&mut self, key: &str, value: &T) {
        let _ = writeln!(self.text, "{} = {}", bare_key(key), inline(value));
    }

    /// Adds `[roles.NAME]` with all its tables.
    pub(crate) fn role(&mut self, name: &RoleName, role: &RoleForm) {
        let name = name.as_str();
        self.table(&["roles", name], false);
        if let Some(idle) = &role.idle_timeout {
            self.value("idle_timeout", idle);
        }
        if let Some(longest) = &role.max_session {
            self.value("max_session", longest);
        }
        if let Some(what) = &role.on_disconnect {
            self.value("on_disconnect", what);
        }
        if let Some(mode) = &role.recording {
            self.value("recording", mode);
        }
        if let Some(mode) = &role.record_stdin {
            self.value("record_stdin", mode);
        }
        if let Some(bound) = &role.record_content {
            self.value("record_content", bound);
        }
        if !role.source.is_empty() {
            let source: Vec<String> = role.source.iter().map(ToString::to_string).collect();
            self.value("source", &source);
        }
        if !role.limits.is_empty() {
            self.table(&["roles", name, "limits"], false);
            for (key, limit) in role.limits.named() {
                if let Some(limit) = limit {
                    self.value(key, &limit);
                }
            }
        }
        if !role.forward.is_empty() {
            self.table(&["roles", name, "forward"], false);
            if let Some(connect) = &role.forward.connect {
                self.value("connect", connect);
            }
            if let Some(listen) = &role.forward.listen {
                self.value("listen", listen);
            }
            if !role.forward.deny.is_empty() {
                self.value("deny", &role.forward.deny);
            }
            if let Some(paths) = &role.forward.connect_paths {
                self.value("connect_paths", paths);
            }
            if let Some(paths) = &role.forward.listen_paths {
                self.value("listen_paths", paths);
            }
        }
        if !role.sftp.is_empty() {
            self.table(&["roles", name, "sftp"], false);
            if role.sftp.read_only {
                self.value("read_only", &true);
            }
            if let Some(root) = &role.sftp.root {
                self.value("root", root);
            }
        }
        for (kind, rules) in [("allow", &role.allow), ("deny", &role.deny)] {
            for rule in rules {
                self.table(&["roles", name, kind], rules.len() > 1);
                self.rule(rule);
            }
        }
    }

    /// Returns the text.
    #[must_use]
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn rule(&mut self, rule: &RuleForm) {
        if let Some(labels) = &rule.labels {
            self.value("labels", labels);
        }
        if let Some(logins) = &rule.logins {
            self.value("logins", logins);
        }
        if let Some(abilities) = &rule.abilities {
            self.value("abilities", abilities);
        }
    }
}

/// Returns a value on one line.
#[must_use]
pub(crate) fn inline<T: serde::Serialize>(value: &T) -> String {
    // Texts, numbers, lists and maps of them always encode; there is no null in a form.
    let value = toml::Value::try_from(value);
    value.map_or_else(|_| String::new(), |value| one_line(&value))
}

fn one_line(value: &toml::Value) -> String {
    match value {
        toml::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(one_line).collect();
            format!("[{}]", items.join(", "))
        }
        toml::Value::Table(table) => {
            let entry = |(key, value): (&String, &toml::Value)| {
                format!("{} = {}", bare_key(key), one_line(value))
            };
            let entries: Vec<String> = table.iter().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        toml::Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// Returns a key, quoted where TOML requires it.
#[must_use]
fn bare_key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    match !key.is_empty() && key.bytes().all(bare) {
        true => key.to_owned(),
        false => quoted(key),
    }
}

/// Returns a basic string (TOML 1.0): on one line and harmless, whatever it holds.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_treacherous(c) => {
                let _ = match u32::from(c) {
                    c @ ..=0xffff => write!(quoted, "\\u{c:04X}"),
                    c => write!(quoted, "\\U{c:08X}"),
                };
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
