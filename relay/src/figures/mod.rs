//! Measurements that need the inside of the relay. They take minutes and are ignored; `cargo xtask bench audit`,
//! `bench control` and `bench cluster` run them.

mod audit;
mod cluster;
mod control;
