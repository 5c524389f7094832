//! The program: parse, dispatch, exit status.

use std::process::ExitCode;

use dreamfs::{cli, config};

fn main() -> ExitCode {
    cli::parse(config::arguments()).map_or_else(|status| status, cli::run)
}
