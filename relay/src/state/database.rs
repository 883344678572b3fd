//! The database of a state folder: the file in it, or one on a server.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::StateError;
use super::{DATABASE, State, files};

/// The file that remembers the address of a database on a server.
const REMEMBERED: &str = "database";

/// The schemes of such an address.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// SQLite, in a file.
    File(PathBuf),
    /// PostgreSQL, on a server.
    Server(DatabaseUrl),
}

/// The address of a database on a server. It may hold a password: what is shown of it is without.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is expected, in a sentence that holds nothing of the text.
    pub(crate) fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let known = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
        match known {
            Some(rest) if !rest.is_empty() && !text.contains(char::is_control) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err("expected postgres://USER@HOST/DATABASE"),
        }
    }

    /// Returns the whole address, with its password if it has one.
    #[must_use]
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    /// Shows scheme, user, host and database: the password may be in front of the host or in a parameter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        write!(f, "{scheme}://")?;
        if let Some(user) = login.and_then(|login| login.split(':').next()) {
            write!(f, "{user}@")?;
        }
        f.write_str(place)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(url) => url.fmt(f),
        }
    }
}

impl From<&Database> for Database {
    fn from(database: &Database) -> Self {
        database.clone()
    }
}

impl From<&Path> for Database {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<&PathBuf> for Database {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

impl State {
    /// Returns the folder's database.
    #[must_use]
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Takes the database on a server for this folder at its first start, or another way to the one that it has. It is
    /// remembered by [`Self::remember_database`], once it was reached. `None` changes nothing.
    ///
    /// # Errors
    /// [`StateError::OtherDatabase`] if the folder has another database already.
    pub(crate) fn bind_database(&mut self, url: Option<DatabaseUrl>) -> Result<(), StateError> {
        let Some(url) = url else { return Ok(()) };
        let is_same = match &self.database {
            // The password, or a parameter.
            Database::Server(known) => known.to_string() == url.to_string(),
            Database::File(file) => files::is_empty(file)?,
        };
        if !is_same {
            return Err(StateError::OtherDatabase {
                dir: self.dir.clone(),
                known: self.database.to_string(),
                asked: url.to_string(),
            });
        }
        self.database = Database::Server(url);
        Ok(())
    }

    /// Remembers the address of the database, if it is on a server, for later starts and the commands on the folder.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn remember_database(&self) -> Result<(), StateError> {
        match &self.database {
            Database::Server(_) if of_folder(&self.dir).ok().as_ref() == Some(&self.database) => {
                Ok(())
            }
            Database::Server(url) => {
                let line = format!("{}\n", url.secret());
                files::write(&self.dir.join(REMEMBERED), line.as_bytes())
            }
            Database::File(_) => Ok(()),
        }
    }
}

/// Reads which database a folder has.
pub(super) fn of_folder(dir: &Path) -> Result<Database, StateError> {
    let path = dir.join(REMEMBERED);
    if !path.exists() {
        return Ok(Database::File(dir.join(DATABASE)));
    }
    let text = files::read(&path)?;
    let url = std::str::from_utf8(&text).ok().map(DatabaseUrl::new);
    match url {
        Some(Ok(url)) => Ok(Database::Server(url)),
        _ => Err(StateError::Damaged {
            file: path,
            expected: "postgres://USER@HOST/DATABASE",
            // It may hold a password.
            found: "something else".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_of_a_folder_is_remembered_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        let url = |text| Some(DatabaseUrl::new(text).unwrap());
        let mut state = State::create_or_open(&folder).unwrap();
        state.bind_database(url("postgres://hf@wrong/x")).unwrap();
        drop(state);
        // It was never reached, so it was not remembered.
        let mut state = State::create_or_open(&folder).unwrap();
        assert!(matches!(state.database(), Database::File(_)));
        state
            .bind_database(url("postgres://hf:s3cret@db/x"))
            .unwrap();
        state.remember_database().unwrap();
        drop(state);
        let mut state = State::create_or_open(&folder).unwrap();
        let other = state
            .bind_database(url("postgres://hf:s3cret@db/y"))
            .unwrap_err();
        assert!(
            other
                .to_string()
                .contains("has the database postgres://hf@db/x")
        );
        assert!(!other.to_string().contains("s3cret"), "{other}");
        // The password was changed.
        state.bind_database(url("postgres://hf:new@db/x")).unwrap();
        state.remember_database().unwrap();
        let state = State::open(&folder).unwrap();
        assert_eq!(
            state.database(),
            &Database::Server(url("postgres://hf:new@db/x").unwrap())
        );
        std::fs::write(folder.join(REMEMBERED), "postgres://").unwrap();
        assert!(matches!(
            State::open(&folder),
            Err(StateError::Damaged { .. })
        ));
    }

    #[test]
    fn password_is_in_no_text_of_an_address() {
        for (url, shown) in [
            (
                "postgres://hf:s3cret@db/holdfast",
                "postgres://hf@db/holdfast",
            ),
            ("postgres://hf:s3cr@et@db:5433/x", "postgres://hf@db:5433/x"),
            ("postgresql://db/x?password=s3cret", "postgresql://db/x"),
            ("postgres:///x?host=/run#s3cret", "postgres:///x"),
        ] {
            let url = DatabaseUrl::new(url).unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("s3cr"), "{url:?}");
        }
        for bad in [
            "",
            "postgres://",
            "mysql://db/x",
            "db/x",
            "postgres://db/\nx",
        ] {
            assert!(DatabaseUrl::new(bad).is_err(), "{bad}");
        }
    }
}
