//! Judges the Unix sockets that a forward may reach, or be made as: the rules of a role, and the judgement of one path.
//!
//! As with addresses, the device judges, and on what is really used: the path without a link in it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{MAX_FORWARD_RULES, MAX_PATH_RULE};

/// The path that a forward may reach, or listen on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathPolicy {
    /// One of these must hit; `None`: any path.
    pub allow: Option<Vec<PathRule>>,
}

/// Some paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathRule {
    /// `*`: any.
    Any,
    /// Exactly this path.
    Exact(String),
    /// `FOLDER/*`: any within this folder, however deep. The folder has no slash at its end.
    Within(String),
}

impl PathPolicy {
    /// Returns whether a path may be used. Hand in an absolute one, without links, `.`, `..` and double slashes.
    #[must_use]
    pub fn permits(&self, path: &[u8]) -> bool {
        let hits = |rule: &PathRule| rule.matches(path);
        self.allow
            .as_ref()
            .is_none_or(|rules| rules.iter().any(hits))
    }

    /// Returns whether the bounds of the wire hold.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let rules = self.allow.as_deref().unwrap_or_default();
        let is_bounded = |rule: &PathRule| match rule {
            PathRule::Any => true,
            PathRule::Exact(path) | PathRule::Within(path) => path.len() <= MAX_PATH_RULE,
        };
        rules.len() <= MAX_FORWARD_RULES && rules.iter().all(is_bounded)
    }
}

impl PathRule {
    /// Returns whether it is about this path.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => path == wanted.as_bytes(),
            Self::Within(folder) => path
                .strip_prefix(folder.as_bytes())
                .is_some_and(|rest| matches!(rest, [b'/', _, ..])),
        }
    }
}

/// The reason why a text is no rule. It does not repeat the text, which may come from anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "expected an absolute path of at most {MAX_PATH_RULE} bytes without links, \"..\" and control characters, as in /run/app.sock, a folder as in /run/app/*, or *"
)]
pub struct PathRuleError;

impl FromStr for PathRule {
    type Err = PathRuleError;

    fn from_str(text: &str) -> Result<Self, PathRuleError> {
        if text == "*" || text == "/*" {
            return Ok(Self::Any);
        }
        let folder = text.strip_suffix("/*");
        let path = folder.unwrap_or(text);
        let names = path.strip_prefix('/').ok_or(PathRuleError)?;
        // Another spelling would match nothing.
        let plain = |name: &str| {
            !matches!(name, "" | "." | "..") && !name.contains(|c: char| c == '*' || c.is_control())
        };
        if path.len() > MAX_PATH_RULE || !names.split('/').all(plain) {
            return Err(PathRuleError);
        }
        Ok(match folder {
            Some(folder) => Self::Within(folder.into()),
            None => Self::Exact(path.into()),
        })
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(path) => f.write_str(path),
            Self::Within(folder) => write!(f, "{folder}/*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn policy(rules: &[&str]) -> PathPolicy {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        PathPolicy { allow: Some(rules) }
    }

    #[test]
    fn a_rule_is_about_one_path_or_what_is_within_a_folder() {
        let some = policy(&["/run/app.sock", "/srv/app/*"]);
        for path in ["/run/app.sock", "/srv/app/a", "/srv/app/sub/b"] {
            assert!(some.permits(path.as_bytes()), "{path}");
        }
        for path in [
            "/run/app.sock2",
            "/run/app.sock/x",
            "/run",
            "/srv/app",
            "/srv/app/",
            "/srv/application/a",
            "",
        ] {
            assert!(!some.permits(path.as_bytes()), "{path}");
        }
        assert!(policy(&["*"]).permits(b"/any\xff"));
        assert!(PathPolicy::default().permits(b"/any"));
        assert!(!policy(&[]).permits(b"/any"));
    }

    #[test]
    fn a_rule_is_written_as_it_was_read() {
        for text in ["*", "/run/app.sock", "/srv/app/*", "/with space/*"] {
            assert_eq!(text.parse::<PathRule>().unwrap().to_string(), text);
        }
        assert_eq!("/*".parse(), Ok(PathRule::Any));
        let long = alloc::format!("/{}", "x".repeat(MAX_PATH_RULE));
        for text in [
            "",
            "/",
            "run/x",
            "~/x",
            "/run/",
            "/run//x",
            "/run/./x",
            "/run/../x",
            "/run/*/x",
            "/a*",
            "/a\nb",
            "**",
            &long,
        ] {
            assert_eq!(text.parse::<PathRule>(), Err(PathRuleError), "{text:?}");
        }
    }

    #[test]
    fn more_than_the_wire_carries_is_noticed() {
        let exact = |length| PathRule::Exact("x".repeat(length));
        let of = |rules| PathPolicy { allow: Some(rules) };
        assert!(of(vec![exact(MAX_PATH_RULE); MAX_FORWARD_RULES]).is_bounded());
        assert!(!of(vec![exact(MAX_PATH_RULE + 1)]).is_bounded());
        assert!(!of(vec![PathRule::Any; MAX_FORWARD_RULES + 1]).is_bounded());
    }
}
