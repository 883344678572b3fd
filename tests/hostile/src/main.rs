//! `cargo run -p hostile -- --help`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    hostile::cli::run().await
}
