//! Statements that run on either database.
//!
//! A value is one of four types, so that nothing here or above is generic over a database, and so that what only one of
//! them takes is changed in one place: PostgreSQL has no unsigned integers, and no U+0000 in a text.

use std::borrow::Cow;
use std::marker::PhantomData;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow};
use tokio::time::timeout;

use super::connection::StatementTarget;
use crate::store::StoreError;
use crate::store::limits::ANSWER_TIMEOUT;

/// A value for a place of a statement.
#[derive(Clone, Debug)]
pub(crate) enum SqlValue {
    Integer(Option<i64>),
    Flag(bool),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// A row that can be read from both databases.
pub(crate) trait Readable:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Readable for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// A statement with its values.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    sql: Cow<'static, str>,
    values: Vec<SqlValue>,
}

/// A statement whose rows are read as `T`.
pub(crate) struct Select<T> {
    statement: Statement,
    row: PhantomData<fn() -> T>,
}

/// A statement whose rows have one column, which is read as `T`.
pub(crate) struct SelectScalar<T>(Select<(T,)>);

/// The effect of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Executed {
    rows_affected: u64,
}

/// Returns a statement.
pub(crate) fn query(sql: &'static str) -> Statement {
    Statement {
        sql: Cow::Borrowed(sql),
        values: Vec::new(),
    }
}

/// Returns a statement whose rows are read as `T`.
pub(crate) fn query_as<T>(sql: &'static str) -> Select<T> {
    query(sql).select()
}

/// Returns a statement whose rows have one column, which is read as `T`.
pub(crate) fn query_scalar<T>(sql: &'static str) -> SelectScalar<T> {
    SelectScalar(query_as(sql))
}

impl Statement {
    /// Binds the value of the next place.
    pub(crate) fn bind(mut self, value: impl Into<SqlValue>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Appends to the text, which must not hold anything from outside.
    pub(crate) fn push(&mut self, sql: &'static str) -> &mut Self {
        self.sql.to_mut().push_str(sql);
        self
    }

    /// Appends a place to the text, and binds its value.
    pub(crate) fn push_bind(&mut self, value: impl Into<SqlValue>) -> &mut Self {
        self.values.push(value.into());
        let place = format!("${}", self.values.len());
        self.sql.to_mut().push_str(&place);
        self
    }

    /// Returns the same statement, whose rows are read as `T`.
    pub(crate) fn select<T>(self) -> Select<T> {
        Select {
            statement: self,
            row: PhantomData,
        }
    }

    /// Runs it, and says how many rows it affected.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn execute<'c>(
        self,
        on: impl Into<StatementTarget<'c>>,
    ) -> Result<Executed, StoreError> {
        let target = on.into();
        let done: Result<u64, StoreError> = on!(target, self, sqlx::query, |query, db| async {
            query.execute(db).await.map(|done| done.rows_affected())
        });
        let rows_affected = done?;
        Ok(Executed { rows_affected })
    }

    /// Returns the text, all of which is constant or was made by [`Self::push`] and [`Self::push_bind`].
    fn text(&self) -> AssertSqlSafe<Cow<'static, str>> {
        AssertSqlSafe(self.sql.clone())
    }
}

impl<T> Select<T> {
    /// Binds the value of the next place.
    pub(crate) fn bind(mut self, value: impl Into<SqlValue>) -> Self {
        self.statement = self.statement.bind(value);
        self
    }
}

impl<T: Readable> Select<T> {
    /// Returns all rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn fetch_all<'c>(
        self,
        on: impl Into<StatementTarget<'c>>,
    ) -> Result<Vec<T>, StoreError> {
        let target = on.into();
        on!(target, self.statement, sqlx::query_as, |query, db| query
            .fetch_all(db))
    }

    /// Returns the first row, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn fetch_optional<'c>(
        self,
        on: impl Into<StatementTarget<'c>>,
    ) -> Result<Option<T>, StoreError> {
        let target = on.into();
        on!(target, self.statement, sqlx::query_as, |query, db| query
            .fetch_optional(db))
    }

    /// Returns the first row.
    ///
    /// # Errors
    /// [`StoreError`]; that there is none.
    pub(crate) async fn fetch_one<'c>(
        self,
        on: impl Into<StatementTarget<'c>>,
    ) -> Result<T, StoreError> {
        let row = self.fetch_optional(on).await?;
        row.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }
}

impl<T> SelectScalar<T> {
    /// Binds the value of the next place.
    pub(crate) fn bind(self, value: impl Into<SqlValue>) -> Self {
        Self(self.0.bind(value))
    }
}

impl<T> SelectScalar<T>
where
    (T,): Readable,
{
    /// Returns the column of all rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn fetch_all<'c>(
        self,
        on: impl Into<StatementTarget<'c>>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.0.fetch_all(on).await?;
        Ok(rows.into_iter().map(|(column,)| column).collect())
    }

    /// Returns the column of the first row, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn fetch_optional<'c>(
        self,
        on: impl Into<StatementTarget<'c>>,
    ) -> Result<Option<T>, StoreError> {
        let row = self.0.fetch_optional(on).await?;
        Ok(row.map(|(column,)| column))
    }

    /// Returns the column of the first row.
    ///
    /// # Errors
    /// [`StoreError`]; that there is none.
    pub(crate) async fn fetch_one<'c>(
        self,
        on: impl Into<StatementTarget<'c>>,
    ) -> Result<T, StoreError> {
        Ok(self.0.fetch_one(on).await?.0)
    }
}

impl Executed {
    /// Returns how many rows were affected.
    pub(crate) fn rows_affected(self) -> u64 {
        self.rows_affected
    }
}

/// Returns the text as both databases take it: U+0000 becomes U+FFFD.
fn storable(text: String) -> String {
    match text.contains('\0') {
        true => text.replace('\0', "\u{FFFD}"),
        false => text,
    }
}

impl From<i64> for SqlValue {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<u32> for SqlValue {
    fn from(value: u32) -> Self {
        i64::from(value).into()
    }
}

impl From<Option<i64>> for SqlValue {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for SqlValue {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<Option<String>> for SqlValue {
    fn from(value: Option<String>) -> Self {
        Self::Text(value.map(storable))
    }
}

impl From<&Option<String>> for SqlValue {
    fn from(value: &Option<String>) -> Self {
        value.clone().into()
    }
}

impl From<Option<&str>> for SqlValue {
    fn from(value: Option<&str>) -> Self {
        value.map(str::to_owned).into()
    }
}

impl From<String> for SqlValue {
    fn from(value: String) -> Self {
        Some(value).into()
    }
}

impl From<&String> for SqlValue {
    fn from(value: &String) -> Self {
        value.clone().into()
    }
}

impl From<&str> for SqlValue {
    fn from(value: &str) -> Self {
        value.to_owned().into()
    }
}

impl From<Option<Vec<u8>>> for SqlValue {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Bytes(value)
    }
}

impl From<Vec<u8>> for SqlValue {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

impl From<&[u8]> for SqlValue {
    fn from(value: &[u8]) -> Self {
        value.to_vec().into()
    }
}
