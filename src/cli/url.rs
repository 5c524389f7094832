//! `dreamfs url`: links to objects, signed for a while or public, one a line.
//!
//! It refuses to sign anything itself: the daemon has the credentials, and decides who gets a link.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{args, text};
use crate::error::Meaning;

/// Runs the command.
pub fn run(args: args::Url) -> ExitCode {
    let attribute = attribute_name(args.expires, args.public);
    let mut failed = false;
    for path in &args.paths {
        match link(path, &attribute) {
            Ok(link) => {
                if !text::print(&format!("{}\n", text::printable(&link))) {
                    break;
                }
            }
            Err(error) => {
                text::complain_of(path, &error, advice(&error));
                failed = true;
            }
        }
    }
    text::exit(failed)
}

/// The attribute that answers the link. Parts of a second count as a whole one, so that no link is born expired.
fn attribute_name(expires: Duration, public: bool) -> String {
    if public {
        return "user.s3.url".into();
    }
    let seconds = expires.as_secs().saturating_add(u64::from(expires.subsec_nanos() > 0));
    format!("user.s3.signed_url.{seconds}")
}

fn link(path: &Path, attribute: &str) -> io::Result<String> {
    let value = xattr::get_deref(path, attribute)?;
    let value = value.ok_or_else(|| io::Error::from_raw_os_error(Meaning::NoAttribute.errno()))?;
    Ok(String::from_utf8_lossy(&value).trim_end().to_owned())
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "Only the user that mounted it and root get signed links; try --public.",
        io::ErrorKind::InvalidInput => "A link lasts from 1 second to 7 days.",
        io::ErrorKind::NotFound => "Check the path.",
        _ if error.raw_os_error() == Some(Meaning::NoAttribute.errno()) => "Only files of a dreamfs mount have links.",
        _ => "The daemon's log says more.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_in_the_name() {
        assert_eq!(attribute_name(Duration::from_secs(3600), false), "user.s3.signed_url.3600");
        assert_eq!(attribute_name(Duration::from_millis(1), false), "user.s3.signed_url.1");
        assert_eq!(attribute_name(Duration::MAX, true), "user.s3.url");
    }

    #[test]
    fn a_file_outside_of_every_mount_has_no_link() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = link(file.path(), "user.s3.url").unwrap_err();
        assert!(advice(&error).starts_with("Only files of a dreamfs mount"), "{error}");
    }
}
