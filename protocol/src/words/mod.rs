//! Words for people: numbers of things, and the word that was meant.

pub mod count;
pub mod nearest;
