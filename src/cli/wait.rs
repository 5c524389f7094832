//! `dreamfs wait`: returns when the store has all that was written under the paths: files, or directories with all
//! below them. It is fsync(2) by hand.
//!
//! It refuses files outside of a mount, which no store is to have.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags, fsync, open};

use super::{args, text};
use crate::control;

/// Runs the command.
pub fn run(args: args::Wait) -> ExitCode {
    let mut failed = false;
    for path in &args.paths {
        if let Err(error) = wait(path) {
            text::complain_of(path, &error, "`dreamfs status` shows what is not stored and why.");
            failed = true;
        }
    }
    text::exit(failed)
}

fn wait(path: &Path) -> io::Result<()> {
    if control::socket_of(path)?.is_none() {
        return Err(io::Error::other("it is not in a dreamfs mount"));
    }
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    Ok(fsync(file)?)
}
