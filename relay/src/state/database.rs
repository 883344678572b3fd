//! The database of a state folder: the file in it, or one on a server.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::StateError;
use super::{DATABASE, State, files};

/// The file that remembers the address of a database on a server.
const REMEMBERED: &str = "database";

/// The beginning of the file [`DATABASE`] in a folder whose database is on a server. Without [`REMEMBERED`] the folder
/// must not begin anew there.
const ON_SERVER: &str = "the database of this relay is ";

/// The schemes of such an address.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// The expected form of such an address.
const EXPECTED: &str = "expected postgres://USER@HOST/DATABASE";

/// The parameters that name the place of a database, which may be in front of them too.
const PLACE: [&str; 5] = ["host", "hostaddr", "port", "dbname", "user"];

/// The other parameters that a connection takes. It ignores what it does not know, and logs its value.
const OTHERS: [&str; 6] = [
    "password",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "options",
];

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
    /// What is expected, in a sentence that holds nothing of the text but the name of a parameter.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let known = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
        let rest = known.ok_or(EXPECTED)?;
        if rest.is_empty() || text.contains(char::is_control) {
            return Err(EXPECTED.to_owned());
        }
        // Where the password ends has to be clear: what is behind it is shown.
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        if behind.contains(['@', '#']) {
            return Err(
                "a password in the address has % as %25, / as %2F, ? as %3F, # as %23 and @ as %40"
                    .to_owned(),
            );
        }
        let host = authority.rsplit('@').next().unwrap_or_default();
        let port = host.rsplit_once(':').map_or("", |(_, port)| port);
        if !host.ends_with(']') && port.contains(|c: char| !c.is_ascii_digit()) {
            return Err(EXPECTED.to_owned());
        }
        if let Some(unknown) = unknown_parameter(text) {
            return Err(format!(
                "{unknown}: expected no other parameters than host, hostaddr, port, dbname, user, password, sslmode, \
                 sslrootcert, sslcert, sslkey and options"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns whether there is a password in it.
    #[must_use]
    pub(crate) fn has_password(&self) -> bool {
        let (_, rest) = self.0.split_once("://").unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let login = rest
            .get(..end)
            .and_then(|authority| authority.rsplit_once('@'));
        login.is_some_and(|(login, _)| login.contains(':'))
            || parameters(&self.0).any(|(name, _)| name == "password")
    }

    /// Returns the whole address, with its password if it has one.
    #[must_use]
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    /// Shows scheme, user, host and database, some of which may be parameters: which database it is, and nothing else.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0.split('?').next().unwrap_or_default();
        let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        write!(f, "{scheme}://")?;
        if let Some(user) = login.and_then(|login| login.split(':').next()) {
            write!(f, "{user}@")?;
        }
        f.write_str(place)?;
        let shown = parameters(&self.0).filter(|(name, _)| PLACE.contains(name));
        for (number, (name, value)) in shown.enumerate() {
            let separator = if number == 0 { '?' } else { '&' };
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

/// Returns words for a parameter that the relay does not know, if there is one. It is named where it cannot be a piece of
/// a password.
fn unknown_parameter(url: &str) -> Option<String> {
    let is_known = |name: &str| PLACE.contains(&name) || OTHERS.contains(&name);
    let (_, query) = url.split_once('?').unwrap_or_default();
    let written = query.split('&').filter(|one| !one.is_empty());
    let mut before_a_password = true;
    for one in written {
        let name = one.split_once('=').map(|(name, _)| name);
        let is_word = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match name {
            Some("password") => before_a_password = false,
            Some(name) if is_known(name) => {}
            Some(name) if before_a_password && is_word(name) => {
                return Some(format!("the parameter {name} is not known"));
            }
            None if is_known(one) => {}
            _ => return Some("it has an unknown parameter".to_owned()),
        }
    }
    None
}

/// Returns the names and values of an address's parameters, as they are written.
fn parameters(url: &str) -> impl Iterator<Item = (&str, &str)> {
    let (_, query) = url.split_once('?').unwrap_or_default();
    let written = query.split('&').filter(|one| !one.is_empty());
    written.map(|one| one.split_once('=').unwrap_or((one, "")))
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
    /// remembered by [`Self::remember_database`], once it is bound to the folder's keys. `None` changes nothing.
    ///
    /// # Errors
    /// [`StateError::OtherDatabase`] if the folder has another database already.
    pub(crate) fn bind_database(&mut self, url: Option<DatabaseUrl>) -> Result<(), StateError> {
        let Some(url) = url else { return Ok(()) };
        let is_same = match &self.database {
            // Another password, or TLS.
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

    /// Has the folder remember that its state is on a server, or on another one than before.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn move_to_server(&mut self, url: DatabaseUrl) -> Result<(), StateError> {
        self.take_database(url);
        self.remember_database()
    }

    /// Takes a database on a server that has the state of this folder. It is remembered by [`Self::remember_database`].
    pub(crate) fn take_database(&mut self, url: DatabaseUrl) {
        self.database = Database::Server(url);
    }

    /// Remembers the address of the database, if it is on a server, for later starts and the commands on the folder.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn remember_database(&self) -> Result<(), StateError> {
        match &self.database {
            Database::Server(url) => remember(&self.dir, url),
            Database::File(_) => Ok(()),
        }
    }
}

impl Database {
    /// Returns the database on a server that a folder has in the place of this file, without a password: where the file
    /// is none of SQLite's, and says so.
    #[must_use]
    pub(crate) fn named_in_its_place(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        let text = files::read(path).ok()?;
        let text = text.strip_prefix(ON_SERVER.as_bytes())?;
        Some(String::from_utf8_lossy(text).trim_end().to_owned())
    }
}

/// Writes down which database on a server a folder has.
pub(super) fn remember(dir: &Path, url: &DatabaseUrl) -> Result<(), StateError> {
    let line = format!("{}\n", url.secret());
    let path = dir.join(REMEMBERED);
    if files::read(&path).ok().as_deref() != Some(line.as_bytes()) {
        files::write(&path, line.as_bytes())?;
    }
    let file = dir.join(DATABASE);
    let noted = Database::File(file.clone()).named_in_its_place();
    if noted.as_ref() == Some(&url.to_string()) || (noted.is_none() && !files::is_empty(&file)?) {
        return Ok(());
    }
    files::write(&file, format!("{ON_SERVER}{url}\n").as_bytes())
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
        let url = |text: &str| Some(DatabaseUrl::new(text).unwrap());
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
        for elsewhere in ["?dbname=y", "?host=/run/other", "?port=5433", "?user=z"] {
            let elsewhere = url(&format!("postgres://hf@db/x{elsewhere}"));
            let other = state.bind_database(elsewhere);
            assert!(matches!(other, Err(StateError::OtherDatabase { .. })));
        }
        let encrypted = url("postgres://hf@db/x?sslmode=require");
        state.bind_database(encrypted).unwrap();
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
            ("postgres://hf@[::1]:5433/x", "postgres://hf@[::1]:5433/x"),
            (
                "postgres://hf:s3%3Fcr%2F@[::1]:5433/x?sslmode=disable",
                "postgres://hf@[::1]:5433/x",
            ),
            (
                "postgres:///x?host=/run&password=s3cret&sslmode=require&user=hf",
                "postgres:///x?host=/run&user=hf",
            ),
        ] {
            let has_password = url.contains("s3");
            let url = DatabaseUrl::new(url).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.has_password(), has_password);
            assert!(!format!("{url:?}").contains("s3cr"), "{url:?}");
        }
        for bad in [
            "",
            "postgres://",
            "mysql://db/x",
            "db/x",
            "postgres://db/\nx",
            // Whatever is behind the host would be shown.
            "postgres://hf:12?s3cret@db/x",
            "postgres://hf:12/s3cret@db/x",
            "postgres://hf:12#s3cret@db/x",
            "postgres://hf:s3cret",
            "postgres://db/x?password=s3@cret",
            "postgres://db/x#s3cret",
            "postgres://hf@db/x?sslpassword=s3cret",
            "postgres://hf@db/x?pass%77ord=s3cret",
            "postgres://hf@db/x?password=12&s3cret=1",
            "postgres://hf@db/x?s3cret",
        ] {
            let refused = DatabaseUrl::new(bad).unwrap_err();
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }

    #[test]
    fn unknown_parameter_of_an_address_is_named() {
        for (url, name) in [
            ("postgres://hf@db/x?foo=1", "foo"),
            (
                "postgres://hf@db/x?sslmode=require&connect_timeout=3",
                "connect_timeout",
            ),
        ] {
            let refused = DatabaseUrl::new(url).unwrap_err();
            let named = format!("the parameter {name} is not known: expected no other");
            assert!(refused.starts_with(&named), "{refused}");
        }
    }
}
