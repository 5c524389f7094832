//! The program: parse, dispatch, exit status.

use std::process::ExitCode;

use clap::Parser;
use dreamfs::cli::{self, args::Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse().command)
}
