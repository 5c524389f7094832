//! `dreamfs refresh`: makes the daemon forget what it has cached of paths, so that the next look asks the store.
//!
//! It refuses files outside of a mount: on another file system the attribute would be stored as the file's own.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::{args, text};
use crate::control;

/// Runs the command.
pub fn run(args: args::Refresh) -> ExitCode {
    let mut failed = false;
    for path in &args.paths {
        if let Err(error) = refresh(path) {
            text::complain_of(path, &error, "Check the path, and `dreamfs status`.");
            failed = true;
        }
    }
    text::exit(failed)
}

fn refresh(path: &Path) -> io::Result<()> {
    if control::socket_of(path)?.is_none() {
        return Err(io::Error::other("it is not in a dreamfs mount"));
    }
    xattr::set_deref(path, "user.s3.refresh", b"1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_file_system_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(refresh(file.path()).unwrap_err().to_string().contains("not in a dreamfs mount"));
        assert_eq!(xattr::list(file.path()).map(|names| names.count()).unwrap_or(0), 0);
    }
}
