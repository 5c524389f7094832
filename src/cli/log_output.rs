//! Where log lines go: a file that `--log LEVEL:FILE` names, else the terminal in the foreground, else the system's log.

use std::io::Write;
use std::path::{Path, PathBuf};

use env_logger::{Builder, Target};
use log::LevelFilter;

use super::syslog::Syslog;
use crate::config::{self, folders};

/// Starts logging as `--log` says. Call it once, before anything is logged.
pub(super) fn start(told: &str, in_background: bool) -> Result<(), String> {
    let (filter, file) = split(told)?;
    let mut builder = Builder::new();
    // What fuser does not offer it says at every call; the kernel knows what to do then.
    builder.filter_module("fuser", LevelFilter::Error).parse_filters(filter).format_timestamp_millis();
    if let Some(path) = file {
        let opened = config::absolute(&path).and_then(|path| folders::open_log(&path));
        let file =
            opened.map_err(|error| format!("--log {}: {error}. Name a file that can be written", path.display()))?;
        builder.target(Target::Pipe(Box::new(file)));
    } else if in_background {
        builder.target(Target::Pipe(Box::new(Syslog::new())));
        builder.format(|buffer, record| {
            write!(buffer, "{}: {}", record.level().as_str().to_ascii_lowercase(), record.args())
        });
    }
    builder.init();
    Ok(())
}

/// `LEVEL` or `LEVEL:FILE`. A level is a word, or env_logger's filter such as `warn,dreamfs=debug`; as that knows
/// `path::to::module`, one colon alone begins the file.
fn split(told: &str) -> Result<(&str, Option<PathBuf>), String> {
    let lone = told.match_indices(':').map(|(at, _)| at).find(|at| {
        let neighbour = |at: Option<usize>| at.and_then(|at| told.as_bytes().get(at)) == Some(&b':');
        !neighbour(at.checked_sub(1)) && !neighbour(Some(at + 1))
    });
    let (filter, file) = match lone {
        Some(at) => (&told[..at], Some(&told[at + 1..])),
        None => (told, None),
    };
    let bad = || format!("--log {told} is not understood. Write error, warn, info, debug or trace, or LEVEL:FILE");
    // env_logger takes a single word that is no level for the name of a module, and then logs everything of it.
    let is_level = filter.parse::<LevelFilter>().is_ok();
    if !(is_level || filter.contains(['=', ','])) || file.is_some_and(|file| Path::new(file).file_name().is_none()) {
        return Err(bad());
    }
    Ok((filter, file.map(PathBuf::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_and_a_file_are_told_apart() {
        assert_eq!(split("warn"), Ok(("warn", None)));
        assert_eq!(split("debug:/var/log/x:1"), Ok(("debug", Some(PathBuf::from("/var/log/x:1")))));
        assert_eq!(split("info:here.log"), Ok(("info", Some(PathBuf::from("here.log")))));
        assert_eq!(split("warn,dreamfs::store=trace"), Ok(("warn,dreamfs::store=trace", None)));
        let both = split("warn,dreamfs::store=trace:/x");
        assert_eq!(both, Ok(("warn,dreamfs::store=trace", Some(PathBuf::from("/x")))));
        for bad in ["loud", "", ":/x", "warn:", "warn:/"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
