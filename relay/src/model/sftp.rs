//! The constraints of sftp: what one role says of it, and what all of a user's roles say together.

use std::fmt;
use std::str::FromStr;

use holdfast_protocol::limits::MAX_SFTP_ROOT;
use holdfast_protocol::wire::SftpTerms;
use thiserror::Error;

/// The options of a role for sftp. The default says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SftpOptions {
    /// True if nothing may be changed.
    pub read_only: bool,
    /// The folder that the user sees as the whole file system.
    pub root: Option<SftpRoot>,
}

/// A folder of a device: an absolute path in its plainest spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SftpRoot(String);

/// The reason why a text is not a valid [`SftpRoot`]. It does not repeat the text, which may come from anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a root is an absolute path of at most {MAX_SFTP_ROOT} bytes without \"..\" and control characters, as in /srv/data"
)]
pub(crate) struct SftpRootError;

impl FromStr for SftpRoot {
    type Err = SftpRootError;

    fn from_str(text: &str) -> Result<Self, SftpRootError> {
        let inside = text.strip_prefix('/').ok_or(SftpRootError)?;
        if text.len() > MAX_SFTP_ROOT || text.contains(char::is_control) {
            return Err(SftpRootError);
        }
        let names = inside
            .split('/')
            .filter(|name| !matches!(*name, "" | "."))
            .map(|name| match name {
                ".." => Err(SftpRootError),
                name => Ok(name),
            });
        let names: Vec<&str> = names.collect::<Result<_, _>>()?;
        Ok(Self(format!("/{}", names.join("/"))))
    }
}

impl fmt::Display for SftpRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SftpRoot {
    /// Returns whether a folder is this one, or lies within it.
    #[must_use]
    pub(crate) fn holds(&self, other: &Self) -> bool {
        let rest = other.0.strip_prefix(self.0.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The constraints of all roles together: read-only if one says so, and the innermost of the roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SftpConstraints {
    /// True if nothing may be changed.
    pub read_only: bool,
    /// The root of all paths.
    pub root: HeldRoot,
}

/// The root of all paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum HeldRoot {
    /// No role says anything.
    #[default]
    Whole,
    /// The folder that all paths are in.
    Within(SftpRoot),
    /// Nowhere: none of these lies within the other.
    Apart(SftpRoot, SftpRoot),
}

/// Two roles want two roots.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "sftp is refused: your roles restrict it to {0} and to {1}, and neither contains the other: tell an admin"
)]
pub(crate) struct RootsApart(SftpRoot, SftpRoot);

impl SftpConstraints {
    /// Combines the constraints of several roles.
    pub(crate) fn of<'a>(all: impl Iterator<Item = &'a SftpOptions>) -> Self {
        all.fold(Self::default(), |held, options| Self {
            read_only: held.read_only | options.read_only,
            root: match &options.root {
                Some(root) => held.root.and(root),
                None => held.root,
            },
        })
    }

    /// Returns the terms for the device; `None`: there are no constraints.
    ///
    /// # Errors
    /// [`RootsApart`]: nothing may be served.
    pub(crate) fn terms(&self) -> Result<Option<SftpTerms>, RootsApart> {
        let root = match &self.root {
            HeldRoot::Whole => None,
            HeldRoot::Within(root) => Some(root.to_string()),
            HeldRoot::Apart(one, other) => return Err(RootsApart(one.clone(), other.clone())),
        };
        let read_only = self.read_only;
        let holds = read_only || root.is_some();
        Ok(holds.then_some(SftpTerms { read_only, root }))
    }
}

impl HeldRoot {
    fn and(self, root: &SftpRoot) -> Self {
        match self {
            Self::Whole => Self::Within(root.clone()),
            Self::Within(present) if present.holds(root) => Self::Within(root.clone()),
            Self::Within(present) if root.holds(&present) => Self::Within(present),
            Self::Within(present) => Self::Apart(present, root.clone()),
            apart @ Self::Apart(..) => apart,
        }
    }
}

impl fmt::Display for SftpConstraints {
    /// Writes the text for people: `read-only, within /srv/data`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read_only = if self.read_only { "read-only" } else { "" };
        let comma = if self.read_only { ", " } else { "" };
        match &self.root {
            HeldRoot::Whole if self.read_only => f.write_str(read_only),
            HeldRoot::Whole => f.write_str("all that the account may"),
            HeldRoot::Within(root) => write!(f, "{read_only}{comma}within {root}"),
            HeldRoot::Apart(one, other) => write!(f, "refused: restricted to {one} and to {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(read_only: bool, root: &str) -> SftpOptions {
        let root = (!root.is_empty()).then(|| root.parse().unwrap());
        SftpOptions { read_only, root }
    }

    fn terms(all: &[SftpOptions]) -> Result<Option<(bool, Option<String>)>, String> {
        let terms = SftpConstraints::of(all.iter()).terms();
        let plain = |terms: SftpTerms| (terms.read_only, terms.root);
        terms
            .map(|terms| terms.map(plain))
            .map_err(|apart| apart.to_string())
    }

    #[test]
    fn a_root_has_one_spelling() {
        let spelt = |text: &str| text.parse::<SftpRoot>().map(|root| root.to_string());
        for (text, root) in [
            ("/srv/data", "/srv/data"),
            ("/srv//data/", "/srv/data"),
            ("/./srv/.", "/srv"),
            ("/", "/"),
            ("/srv/with space", "/srv/with space"),
        ] {
            assert_eq!(spelt(text), Ok(root.to_owned()), "{text}");
        }
        let long = format!("/{}", "x".repeat(MAX_SFTP_ROOT));
        for text in [
            "",
            "srv",
            "~/x",
            "/srv/../etc",
            "/..",
            "/a\0b",
            "/a\nb",
            &long,
        ] {
            assert_eq!(spelt(text), Err(SftpRootError), "{text}");
        }
    }

    #[test]
    fn the_strictest_wins_in_any_order() {
        let (wide, narrow) = (options(false, "/srv"), options(false, "/srv/data"));
        let (plain, read_only) = (options(false, ""), options(true, ""));
        assert_eq!(terms(&[]), Ok(None));
        assert_eq!(terms(std::slice::from_ref(&plain)), Ok(None));
        assert_eq!(
            terms(&[read_only.clone(), plain.clone()]),
            Ok(Some((true, None)))
        );
        let within = |read_only| Ok(Some((read_only, Some("/srv/data".to_owned()))));
        let all = [&wide, &narrow, &options(false, "/"), &plain];
        for turn in 0..all.len() {
            let mut turned: Vec<SftpOptions> = all.map(Clone::clone).into();
            turned.rotate_left(turn);
            assert_eq!(terms(&turned), within(false));
            turned.reverse();
            turned.push(read_only.clone());
            assert_eq!(terms(&turned), within(true));
        }
    }

    #[test]
    fn roots_that_lie_apart_leave_nothing() {
        // A name that begins like another is not within it.
        for (one, other) in [("/srv/a", "/srv/b"), ("/srv/data", "/srv/database")] {
            let all = [
                options(false, one),
                options(true, other),
                options(false, "/"),
            ];
            assert_eq!(
                terms(&all),
                Err(format!(
                    "sftp is refused: your roles restrict it to {one} and to {other}, and neither contains the other: tell an admin"
                ))
            );
        }
    }
}
