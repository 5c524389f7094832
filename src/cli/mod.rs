//! One file per command. Errors are one line, `dreamfs: WHAT. WHAT TO DO`, and the exit status is 1, or 2 for a
//! command line that cannot be understood.

pub mod acl;
pub mod args;
pub mod demo;
pub mod mount;
pub mod refresh;
pub mod serve;
pub mod stat;
pub mod status;
mod syslog;
pub mod text;
pub mod umount;
pub mod url;

use std::process::ExitCode;

use args::Command;

/// Runs a command.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Mount(args) => mount::run(*args),
        Command::Umount(args) => umount::run(args),
        Command::Status(args) => status::run(args),
        Command::Stat(args) => stat::run(args),
        Command::Acl(args) => acl::run(args),
        Command::Url(args) => url::run(args),
        Command::Refresh(args) => refresh::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(args),
    }
}

/// Says on one line what went wrong.
pub(crate) fn complain(why: &str) -> ExitCode {
    text::complain(why);
    ExitCode::FAILURE
}
