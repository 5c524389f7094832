//! `dreamfs recover`: what lies in the state folder and not in the store, listed or copied out, without a mount.
//!
//! It refuses to remove anything: what waits is stored by the next mount, the rest is a person's to decide about.

use std::path::Path;
use std::process::ExitCode;

use super::args::{self, RecoverAction};
use super::{complain, text};
use crate::config::{Environment, state_dir};
use crate::data::journal::recover::{Found, Kept, find};

/// Runs the command.
pub fn run(args: args::Recover) -> ExitCode {
    let state = args.state.unwrap_or_else(|| state_dir(&Environment::current()));
    let found = match find(&state) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return complain(&format!("{}: {}. Say where with --state", state.display(), text::reason(&error)));
        }
    };
    match args.action.unwrap_or(RecoverAction::List) {
        RecoverAction::List => list(&found),
        RecoverAction::Export { folder } => export(&found, &folder),
    }
}

fn list(found: &[Found]) -> ExitCode {
    for file in found {
        println!("{:>12}  {:<8}  {}{}", file.size_bytes, why(file.kept), file.name, missing(file));
    }
    ExitCode::SUCCESS
}

fn why(kept: Kept) -> &'static str {
    match kept {
        Kept::Waiting => "waiting",
        Kept::Aside => "aside",
        Kept::Parked => "parked",
    }
}

fn missing(file: &Found) -> String {
    match file.size_bytes - file.local_bytes() {
        0 => String::new(),
        bytes => format!("  ({bytes} bytes of it are zeros, or only in the store)"),
    }
}

fn export(found: &[Found], folder: &Path) -> ExitCode {
    let mut failed = false;
    for file in found {
        match file.export(folder) {
            Ok(path) => println!("{}{}", path.display(), missing(file)),
            Err(error) => {
                complain(&format!("{}: {}. Choose an empty folder", file.name, text::reason(&error)));
                failed = true;
            }
        }
    }
    text::exit(failed)
}
