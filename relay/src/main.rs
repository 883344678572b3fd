//! The relay's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(relay::cli::run(std::env::args_os()))
}
