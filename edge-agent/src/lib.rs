//! The device's side of Holdfast: one static program that keeps a tunnel open and serves sessions.
//!
//! Nothing here knows about SSH: the relay speaks it, and hands on what a session needs as frames on a
//! QUIC stream.
//!
//! A module imports only from those below its own: [`cli`], [`service`], [`tunnel`], [`session`], [`recording`] and
//! [`sftp`], [`os`]. The bounds of each are in its `limits.rs`; those on which both ends must agree are in
//! [`holdfast_protocol::limits`].

#![warn(unreachable_pub)]

pub mod cli;
pub mod os;
pub mod recording;
pub mod service;
pub mod session;
pub mod sftp;
pub mod tunnel;
