//! The relay's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(relay::entry::cli::run(std::env::args_os()))
}
