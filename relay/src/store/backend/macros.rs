//! The macros that run one statement on either database.

/// Binds the values of a statement to a query of sqlx.
macro_rules! bound {
    ($statement:expr, $query:expr) => {{
        let mut query = $query;
        for value in $statement.values.iter().cloned() {
            query = match value {
                SqlValue::Integer(value) => query.bind(value),
                SqlValue::Flag(value) => query.bind(value),
                SqlValue::Text(value) => query.bind(value),
                SqlValue::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

/// Runs a statement where the target is: `$run` is compiled for both databases, with `$db` as the connection and
/// `$query` as the query of sqlx that `$make` makes of the statement's text.
///
/// A read from PostgreSQL over a connection that turns out to be dead is repeated over a new one; a write never is.
macro_rules! on {
    ($target:expr, $statement:expr, $make:path, |$query:ident, $db:ident| $run:expr) => {
        match $target {
            StatementTarget::SqlitePool($db) => {
                let $query = bound!($statement, $make($statement.text()));
                $run.await.map_err(StoreError::from)
            }
            StatementTarget::Sqlite($db) => {
                let $query = bound!($statement, $make($statement.text()));
                $run.await.map_err(StoreError::from)
            }
            StatementTarget::PostgresPool(pool) => loop {
                let mut lent = pool.take().await?;
                let done = {
                    let $db = lent.connection()?;
                    let $query = bound!($statement, $make($statement.text()));
                    timeout(ANSWER_TIMEOUT, $run).await
                };
                if let Some(done) = lent.settle(done) {
                    break done;
                }
            },
            StatementTarget::Postgres(transaction) => {
                let done = {
                    let $db = transaction.connection()?;
                    let $query = bound!($statement, $make($statement.text()));
                    timeout(ANSWER_TIMEOUT, $run).await
                };
                transaction.settle(done)
            }
        }
    };
}
