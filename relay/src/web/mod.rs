//! The relay's answers over HTTP.

pub(crate) mod health;
mod limits;
