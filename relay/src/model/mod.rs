//! Nouns that several layers share. Nothing here decides, asks or waits.

pub(crate) mod source;
