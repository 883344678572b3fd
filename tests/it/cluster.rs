//! Several relays on one PostgreSQL database and one bucket.

mod across;
mod doctor;
mod drain;
mod evidence;
mod faults;
mod fence;
mod listings;
mod members;
mod operators;
mod quota;
mod rolling;
mod runs;
mod settings;
mod ways;
