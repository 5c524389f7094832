//! `dreamfs stat`: all that is known of an object, read through the mount like any tool could.
//!
//! It refuses to make signed links: those are secrets, and `dreamfs url` gives them to whoever asks.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use indicatif::{BinaryBytes, HumanCount};
use time::OffsetDateTime;
use time::macros::format_description;

use super::{args, text};
use crate::error::Meaning;

/// The virtual attributes that answer by name; they are in no listing of attributes.
const VIRTUAL: [&str; 18] = [
    "bucket",
    "key",
    "etag",
    "version_id",
    "upload",
    "storage_class",
    "content_type",
    "cache_control",
    "content_disposition",
    "content_encoding",
    "content_language",
    "tags",
    "owner",
    "acl",
    "grants",
    "url",
    "created",
    "region",
];

/// Runs the command. Links are followed, for a link has no attributes of its own.
pub fn run(args: args::Stat) -> ExitCode {
    let mut failed = false;
    for (index, path) in args.paths.iter().enumerate() {
        let rows = match known_of(path) {
            Ok(rows) => rows,
            Err(error) => {
                text::complain_of(path, &error, "Nothing is shown of it.");
                failed = true;
                continue;
            }
        };
        let gap = if index > 0 { "\n" } else { "" };
        if !text::print(&format!("{gap}{}", text::aligned(&rows))) {
            break;
        }
    }
    text::exit(failed)
}

fn known_of(path: &Path) -> io::Result<Vec<(String, String)>> {
    let found = path.metadata()?;
    text::check_mounted(path)?;
    let mut rows = vec![
        ("path".to_owned(), path.display().to_string()),
        ("size".to_owned(), size_text(found.len())),
        ("mode".to_owned(), format!("{:06o}", found.mode())),
        ("owner".to_owned(), format!("{}:{}", found.uid(), found.gid())),
        ("modified".to_owned(), time_text(found.mtime())),
    ];
    for name in VIRTUAL {
        if let Some(value) = attribute(path, OsStr::new(&format!("user.s3.{name}")))? {
            rows.push((name.to_owned(), value));
        }
    }
    for name in xattr::list_deref(path)? {
        if let Some(value) = attribute(path, &name)? {
            rows.push((name.to_string_lossy().into_owned(), value));
        }
    }
    Ok(rows)
}

/// The attribute's value; `None` if the object has none or the store knows no such thing.
fn attribute(path: &Path, name: &OsStr) -> io::Result<Option<String>> {
    match xattr::get_deref(path, name) {
        Ok(value) => Ok(value.map(|value| String::from_utf8_lossy(&value).trim_end_matches('\n').to_owned())),
        Err(error) if error.raw_os_error() == Some(Meaning::Unsupported.errno()) => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {}", name.display(), text::reason(&error)))),
    }
}

fn size_text(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { format!("{} B ({})", HumanCount(bytes), BinaryBytes(bytes)) }
}

fn time_text(seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(format).ok());
    time.unwrap_or_else(|| format!("{seconds} s since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_readable() {
        assert_eq!(size_text(12), "12 B");
        assert_eq!(size_text(1_572_864), "1,572,864 B (1.50 MiB)");
        assert_eq!(time_text(1_700_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!(time_text(i64::MAX), "9223372036854775807 s since 1970");
    }

    #[test]
    fn a_file_outside_of_every_mount_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(known_of(file.path()).unwrap_err().to_string().contains("not in a dreamfs mount"));
        assert_eq!(known_of(Path::new("/no/such")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_attribute_that_is_not_there_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(attribute(file.path(), OsStr::new("user.s3.acl")).unwrap(), None);
    }
}
