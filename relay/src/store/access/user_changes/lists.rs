//! The lists that belong to a user, put in inside a transaction; each function returns how much of it is new.

use holdfast_protocol::ids::UserName;

use super::KeyError;
use crate::clock::Timestamp;
use crate::store::access::roles;
use crate::store::backend::sql;
use crate::store::limits::{MAX_PRINCIPALS_OF_USER, MAX_ROLES_OF_USER};
use crate::store::{Tx, UserKey};

const ADD_ROLE: &str =
    "INSERT INTO user_roles (user_name, role) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const COUNT_ROLES: &str = "SELECT COUNT(*) FROM user_roles WHERE user_name = $1";
const OWNER: &str = "SELECT user_name FROM user_keys WHERE fingerprint = $1";
const ADD_KEY: &str = "INSERT INTO user_keys (fingerprint, user_name, public_key, comment, added)
    VALUES ($1, $2, $3, $4, $5)";
const PRINCIPAL_OWNER: &str = "SELECT user_name FROM user_principals WHERE principal = $1";
const ADD_PRINCIPAL: &str = "INSERT INTO user_principals (user_name, principal) VALUES ($1, $2)";
const COUNT_PRINCIPALS: &str = "SELECT COUNT(*) FROM user_principals WHERE user_name = $1";

pub(crate) async fn insert_roles(
    tx: &mut Tx,
    name: &UserName,
    names: &[String],
) -> Result<usize, KeyError> {
    let mut added = 0;
    for role in names {
        if !roles::exists(tx, role).await? {
            return Err(KeyError::UnknownRole(role.clone()));
        }
        let add = sql::query(ADD_ROLE).bind(name.as_str()).bind(role);
        added += usize::from(
            add.execute(&mut *tx.connection().await?)
                .await?
                .rows_affected()
                > 0,
        );
    }
    at_most(tx, COUNT_ROLES, name, "roles", MAX_ROLES_OF_USER).await?;
    Ok(added)
}

pub(crate) async fn insert_principals(
    tx: &mut Tx,
    name: &UserName,
    principals: &[String],
) -> Result<usize, KeyError> {
    let mut added = 0;
    for principal in principals {
        let owner = sql::query_scalar(PRINCIPAL_OWNER).bind(principal);
        let owner: Option<String> = owner.fetch_optional(&mut *tx.connection().await?).await?;
        match owner {
            Some(owner) if owner == name.as_str() => continue,
            Some(owner) => {
                let principal = principal.clone();
                return Err(KeyError::PrincipalTaken { principal, owner });
            }
            None => {}
        }
        let add = sql::query(ADD_PRINCIPAL)
            .bind(name.as_str())
            .bind(principal);
        add.execute(&mut *tx.connection().await?).await?;
        added += 1;
    }
    let most = MAX_PRINCIPALS_OF_USER;
    at_most(tx, COUNT_PRINCIPALS, name, "principals", most).await?;
    Ok(added)
}

async fn at_most(
    tx: &mut Tx,
    count: &'static str,
    name: &UserName,
    what: &'static str,
    most: usize,
) -> Result<(), KeyError> {
    let found = sql::query_scalar(count).bind(name.as_str());
    let found: i64 = found.fetch_one(&mut *tx.connection().await?).await?;
    match usize::try_from(found).is_ok_and(|found| found <= most) {
        true => Ok(()),
        false => Err(KeyError::TooMany {
            user: name.clone(),
            what,
            found,
            most,
        }),
    }
}

pub(crate) async fn insert_keys(
    tx: &mut Tx,
    name: &UserName,
    keys: &[UserKey],
    now: Timestamp,
) -> Result<usize, KeyError> {
    let fingerprints: Vec<&str> = keys.iter().map(|key| key.fingerprint.as_str()).collect();
    tx.fact("keys", fingerprints);
    let mut added = 0;
    for key in keys {
        let owner = sql::query_scalar(OWNER).bind(&key.fingerprint);
        let owner: Option<String> = owner.fetch_optional(&mut *tx.connection().await?).await?;
        match owner {
            Some(owner) if owner == name.as_str() => continue,
            Some(owner) => {
                let fingerprint = key.fingerprint.clone();
                return Err(KeyError::Taken { fingerprint, owner });
            }
            None => {}
        }
        sql::query(ADD_KEY)
            .bind(&key.fingerprint)
            .bind(name.as_str())
            .bind(&key.public_key)
            .bind(&key.comment)
            .bind(now.0)
            .execute(&mut *tx.connection().await?)
            .await?;
        added += 1;
    }
    Ok(added)
}
