//! Measurements that need the inside of the relay. They take minutes and are ignored; `cargo xtask bench audit` and
//! `bench control` run them.

mod audit;
mod control;
