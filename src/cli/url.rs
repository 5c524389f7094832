//! `dreamfs url`: links to objects, signed for a while or public, one a line.
//!
//! It refuses to sign anything itself: the daemon has the credentials, and signs for its own user and root.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::args::{self, Method};
use super::attributes::{self, is};
use super::text;
use crate::control::{self, Client, Link};
use crate::error::Meaning;
use crate::store::link::LINK_EXPIRES_MAX;
use crate::store::{BucketName, Key, LinkMethod, Location};

/// Runs the command.
pub fn run(args: args::Url) -> ExitCode {
    if args.method == Method::Put && args.download_name.is_some() {
        return super::complain("--download-name is for links to get a file. Leave it out, or --method PUT.");
    }
    if !args.public && !(Duration::from_nanos(1)..=LINK_EXPIRES_MAX).contains(&args.expires) {
        return super::complain("a signed link lasts from 1 second to 7 days. Choose --expires between, such as 12h.");
    }
    let mut failed = false;
    for path in &args.paths {
        match link(path, &args) {
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

fn link(path: &Path, args: &args::Url) -> io::Result<String> {
    let is_new = args.method == Method::Put && !path.try_exists()?;
    let known = if is_new { parent(path) } else { path };
    attributes::check_mounted(known)?;
    if !is_new && path.is_dir() {
        return Err(io::Error::from_raw_os_error(Meaning::IsDirectory.errno()));
    }
    if args.public {
        return attributes::value(path, "user.s3.url");
    }
    let bucket = attributes::value(known, "user.s3.bucket")?;
    let key = match (attributes::value(known, "user.s3.key"), is_new) {
        // A bucket's root has no key of its own.
        (Err(error), true) if is(&error, Meaning::NoAttribute) => String::new(),
        (key, _) => key?,
    };
    let name = path.file_name().filter(|_| is_new).unwrap_or_default();
    let name = name.to_str().ok_or_else(|| io::Error::from_raw_os_error(Meaning::BadName.errno()))?;
    let invalid = |why: crate::format::key::BadName| io::Error::other(why.to_string());
    let location = Location {
        bucket: BucketName::new(&bucket).map_err(invalid)?,
        key: Key::new(&format!("{key}{name}")).map_err(invalid)?,
    };
    let method = match args.method {
        Method::Get => LinkMethod::Get,
        Method::Put => LinkMethod::Put,
    };
    // Parts of a second count as a whole one, so that no link is born expired.
    let seconds = args.expires.as_secs().saturating_add(u64::from(args.expires.subsec_nanos() > 0));
    let wanted = Link { location, method, seconds, download_name: args.download_name.clone() };
    let socket = control::socket_of(known)?.unwrap_or_default();
    Client::connect(&socket)?.link(wanted).map_err(|error| io::Error::other(error.to_string()))
}

/// The directory that a path is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "Only the user that mounted it and root get signed links; try --public.",
        io::ErrorKind::NotFound => "Check the path.",
        io::ErrorKind::IsADirectory => "Only files have links.",
        _ if error.raw_os_error().is_none() => "`dreamfs status` lists the mounts.",
        _ => "The daemon's log says more.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_outside_of_every_mount_has_no_link() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = args::Url {
            method: Method::Get,
            expires: Duration::from_secs(1),
            public: false,
            download_name: None,
            paths: vec![],
        };
        let error = link(file.path(), &args).unwrap_err();
        assert!(error.to_string().contains("not in a dreamfs mount"), "{error}");
    }

    #[test]
    fn a_name_alone_is_in_the_working_directory() {
        assert_eq!(parent(Path::new("f")), Path::new("."));
        assert_eq!(parent(Path::new("d/f")), Path::new("d"));
    }
}
