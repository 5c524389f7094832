//! One file per command. Errors are one line, `dreamfs: WHAT. WHAT TO DO`, and the exit status is 1, or 2 for a
//! command line that cannot be understood.

pub mod acl;
pub mod args;
mod attributes;
pub mod demo;
mod each;
mod log_output;
pub mod mount;
pub mod purge;
pub mod recover;
pub mod refresh;
pub mod serve;
pub mod stat;
pub mod status;
mod syslog;
pub mod text;
pub mod umount;
pub mod url;
pub mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::config::options;
use args::{Cli, Command, Mount};

/// The exit status of a command line that cannot be understood.
const USAGE: u8 = 2;

/// Reads a command line, the program's name first. `-o` options become flags before the ones that were typed, so that
/// these win. The error is the exit status after help, or after what was wrong has been said.
pub fn parse(words: Vec<OsString>) -> Result<Command, ExitCode> {
    let cli = Cli::try_parse_from(&words).map_err(|error| show(&error))?;
    let Command::Mount(mount) = &cli.command else { return Ok(cli.command) };
    if mount.options.is_empty() {
        return Ok(cli.command);
    }
    let flags = options::expand(&mount.options, &mount_command()).map_err(|why| {
        text::complain(&why);
        ExitCode::from(USAGE)
    })?;
    let mut expanded = words;
    // The first word is the program, the second `mount`: nothing else can stand before it.
    let after_command = expanded.len().min(2);
    expanded.splice(after_command..after_command, flags.into_iter().map(OsString::from));
    Cli::try_parse_from(expanded).map(|cli| cli.command).map_err(|error| show(&error))
}

/// `mount` with its flags, for the names of options.
fn mount_command() -> clap::Command {
    <Mount as clap::Args>::augment_args(clap::Command::new("mount"))
}

fn show(error: &clap::Error) -> ExitCode {
    // When the terminal is gone there is nobody left to tell.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Runs a command.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Mount(args) => mount::run(*args),
        Command::Umount(args) => umount::run(args),
        Command::Status(args) => status::run(args),
        Command::Stat(args) => stat::run(args),
        Command::Acl(args) => acl::run(args),
        Command::Url(args) => url::run(args),
        Command::Wait(args) => wait::run(args),
        Command::Refresh(args) => refresh::run(args),
        Command::Recover(args) => recover::run(args),
        Command::Purge(args) => purge::run(*args),
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(args),
    }
}

/// Says on one line what went wrong.
pub(crate) fn complain(why: &str) -> ExitCode {
    text::complain(why);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn mount(line: &str) -> Box<Mount> {
        match parse(line.split(' ').map(OsString::from).collect()) {
            Ok(Command::Mount(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_are_read_like_flags_and_typed_flags_win() {
        let args = mount("dreamfs mount photos /mnt -o ro,ttl=9s,umask=077 --ttl 3s -o uid=7");
        assert!(args.flags.read_only);
        assert_eq!(args.flags.ttl.map(|ttl| ttl.as_secs()), Some(3));
        assert_eq!((args.flags.umask, args.flags.uid), (0o077, Some(7)));
        assert_eq!(args.places, ["photos", "/mnt"]);
        let args = mount("dreamfs mount -f -o _netdev,noexec -- /mnt");
        assert_eq!((args.foreground, args.flags.kernel_option), (true, vec!["noexec".to_owned()]));
    }

    #[test]
    fn a_flag_may_be_given_twice_and_the_last_counts() {
        assert_eq!(mount("dreamfs mount /mnt --ttl 1s --ttl 2s").flags.ttl.map(|ttl| ttl.as_secs()), Some(2));
    }

    #[test]
    fn the_definition_of_the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_eighty_columns() {
        for name in ["mount", "umount", "status", "stat", "acl", "url", "refresh", "purge", "demo", "serve"] {
            let mut command = Cli::command();
            let help = command.find_subcommand_mut(name).unwrap().clone().term_width(80).render_long_help().to_string();
            let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= 80, "{name}: {help}");
        }
    }
}
