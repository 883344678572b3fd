//! `cargo xtask`: the developer's commands. One file per command; this one only picks it.

mod bench;
mod build;
mod demo;
mod fuzz;
mod package;
mod process;
mod reproduce;
mod soak;
mod target;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Try, test and build Holdfast",
    after_help = "Examples:
  cargo xtask demo                  a relay, a device and a shell on it, all on this machine
  cargo xtask test                  everything that CI checks
  cargo xtask build --target armv7-unknown-linux-musleabihf
                                    the agent for a 32-bit Raspberry Pi"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Test(test::Args),
    Build(build::Args),
    Reproduce(reproduce::Args),
    Package(package::Args),
    Fuzz(fuzz::Args),
    Soak(soak::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Package(args) => package::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
