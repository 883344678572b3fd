//! The users of a document: keys, e-mail addresses and principals, checked.

use holdfast_protocol::ids::UserName;
use thiserror::Error;

use super::super::keys::{self, KeyFileError};
use super::UserForm;
use crate::commands::limits::{MAX_EMAIL, MAX_KEYS_OF_USER, MAX_PRINCIPAL};
use crate::store::limits::{MAX_PRINCIPALS_OF_USER, MAX_ROLES_OF_USER};
use crate::store::{UserKey, UserPolicy};

/// The reason why a user of a document is not taken. It repeats neither keys nor what may drive a terminal.
#[derive(Debug, Error)]
pub(crate) enum UserError {
    #[error("users.{user}.{what}: {found} are given; the maximum is {most}")]
    TooMany {
        user: String,
        what: &'static str,
        found: usize,
        most: usize,
    },
    #[error("{0}")]
    Key(KeyFileError),
    #[error("users.{user}.keys: expected one key in each text, found {found}")]
    NotOneKey { user: String, found: usize },
    #[error("users.{user}: {problem}")]
    Text { user: String, problem: TextError },
}

/// The reason why a text is not a valid e-mail address, or no principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TextError {
    #[error("expected an e-mail address like alice@example.com, of at most {MAX_EMAIL} bytes")]
    Email,
    #[error(
        "expected a principal: 1 to {MAX_PRINCIPAL} printable characters without spaces, commas and quotes"
    )]
    Principal,
}

pub(crate) fn check_user(user: UserName, form: UserForm) -> Result<UserPolicy, UserError> {
    let lists = [
        (
            "roles",
            form.roles.as_ref().map(Vec::len),
            MAX_ROLES_OF_USER,
        ),
        ("keys", form.keys.as_ref().map(Vec::len), MAX_KEYS_OF_USER),
        (
            "principals",
            form.principals.as_ref().map(Vec::len),
            MAX_PRINCIPALS_OF_USER,
        ),
    ];
    for (what, found, most) in lists {
        if let Some(found) = found.filter(|found| *found > most) {
            return Err(UserError::TooMany {
                user: user.to_string(),
                what,
                found,
                most,
            });
        }
    }
    let text = |problem| UserError::Text {
        user: user.to_string(),
        problem,
    };
    // An empty text takes the address away.
    let email = match form.email {
        None => None,
        Some(none) if none.is_empty() => Some(None),
        Some(email) => Some(Some(check_email(&email).map_err(text)?)),
    };
    let principals = form.principals.map(|all| {
        let checked = all.iter().map(|one| check_principal(one));
        checked.collect::<Result<Vec<_>, _>>()
    });
    let principals = principals.transpose().map_err(text)?;
    let keys = form.keys.map(|all| {
        let one = |(index, text): (usize, &String)| one_key(&user, index, text);
        all.iter()
            .enumerate()
            .map(one)
            .collect::<Result<Vec<_>, _>>()
    });
    Ok(UserPolicy {
        email,
        disabled: form.disabled,
        roles: form.roles.map(distinct),
        keys: keys.transpose()?.map(distinct),
        principals: principals.map(distinct),
        name: user,
    })
}

/// Checks an e-mail address, as far as that is possible without writing to it.
pub(crate) fn check_email(text: &str) -> Result<String, TextError> {
    let parts = text.split_once('@');
    let split = parts.is_some_and(|(who, host)| !who.is_empty() && !host.is_empty());
    let good = split && text.len() <= MAX_EMAIL && plain(text);
    good.then(|| text.to_owned()).ok_or(TextError::Email)
}

/// Returns a principal of a certificate (`ssh-keygen -n`).
pub(crate) fn check_principal(text: &str) -> Result<String, TextError> {
    let good = !text.is_empty() && text.len() <= MAX_PRINCIPAL && plain(text);
    good.then(|| text.to_owned()).ok_or(TextError::Principal)
}

fn plain(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\\' | b'\'');
    text.bytes().all(good)
}

fn one_key(user: &UserName, index: usize, text: &str) -> Result<UserKey, UserError> {
    let place = format!("users.{user}.keys[{index}]");
    let mut keys = keys::parse(&place, text.as_bytes()).map_err(UserError::Key)?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (_, more) => Err(UserError::NotOneKey {
            user: user.to_string(),
            found: more + 1,
        }),
    }
}

/// Returns the same without repeats, in order.
fn distinct<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut once = Vec::with_capacity(all.len());
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}
