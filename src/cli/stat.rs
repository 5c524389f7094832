//! `dreamfs stat`: all that is known of an object, read through the mount like any tool could.
//!
//! It refuses to make signed links: those are secrets, and `dreamfs url` gives them to whoever asks.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indicatif::{BinaryBytes, HumanCount};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::{args, attributes, text};
use crate::error::Meaning;

/// The virtual attributes that answer by name; they are in no listing of attributes.
const VIRTUAL: [&str; 20] = [
    "bucket",
    "key",
    "etag",
    "version_id",
    "upload",
    "storage_class",
    "encryption",
    "content_type",
    "cache_control",
    "content_disposition",
    "content_encoding",
    "content_language",
    "tags",
    "owner",
    "acl",
    "grants",
    "default_acl",
    "url",
    "created",
    "region",
];

/// Of these each line is a value of its own.
const LISTS: [&str; 2] = ["tags", "grants"];

/// What is known of a path.
struct Known {
    path: String,
    kind: &'static str,
    mode: String,
    size_bytes: u64,
    owner: (u32, u32),
    inode: u64,
    /// Each in seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
    accessed: (i64, i64),
    /// Of `user.s3`.
    object: Vec<(&'static str, String)>,
    /// The file's own.
    attributes: Vec<(String, Vec<u8>)>,
}

/// Runs the command. Links are followed, for a link has no attributes of its own.
pub fn run(args: args::Stat) -> ExitCode {
    let mut failed = false;
    for (index, path) in args.paths.iter().enumerate() {
        let known = match known_of(path) {
            Ok(known) => known,
            Err(error) => {
                text::complain_of(path, &error, "Nothing is shown of it.");
                failed = true;
                continue;
            }
        };
        let gap = if index > 0 { "\n" } else { "" };
        let shown = match args.json {
            true => format!("{}\n", known.json()),
            false => format!("{gap}{}", text::aligned(&known.rows())),
        };
        if !text::print(&shown) {
            break;
        }
    }
    text::exit(failed)
}

fn known_of(path: &Path) -> io::Result<Known> {
    let found = path.metadata()?;
    attributes::check_mounted(path)?;
    let told = |name: &str, value: io::Result<Option<Vec<u8>>>| match value {
        // The store has nothing of the kind.
        Err(error) if attributes::is(&error, Meaning::Unsupported) => Ok(None),
        value => value.map_err(|error| io::Error::new(error.kind(), format!("{name}: {}", text::reason(&error)))),
    };
    let mut known = Known {
        path: path.display().to_string(),
        kind: if found.is_dir() { "directory" } else { "file" },
        mode: format!("{:04o}", found.mode() & 0o7777),
        size_bytes: found.len(),
        owner: (found.uid(), found.gid()),
        inode: found.ino(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        accessed: (found.atime(), found.atime_nsec()),
        object: vec![],
        attributes: vec![],
    };
    // A directory has no link, and is not asked for one.
    for name in VIRTUAL.into_iter().filter(|name| *name != "url" || !found.is_dir()) {
        let full_name = format!("user.s3.{name}");
        if let Some(value) = told(&full_name, xattr::get_deref(path, &full_name))? {
            known.object.push((name, String::from_utf8_lossy(&value).trim_end_matches('\n').to_owned()));
        }
    }
    for name in xattr::list_deref(path)? {
        let shown = name.to_string_lossy().into_owned();
        if let Some(value) = told(&shown, xattr::get_deref(path, &name))? {
            known.attributes.push((shown, value));
        }
    }
    Ok(known)
}

impl Known {
    fn rows(&self) -> Vec<(String, String)> {
        let fixed = [
            ("path", self.path.clone()),
            ("kind", self.kind.to_owned()),
            ("size", size_text(self.size_bytes)),
            ("mode", self.mode.clone()),
            ("user:group", format!("{}:{}", self.owner.0, self.owner.1)),
            ("modified", time_text(self.modified.0)),
            ("changed", time_text(self.changed.0)),
            ("accessed", time_text(self.accessed.0)),
            ("inode", self.inode.to_string()),
        ];
        let object = self.object.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let own =
            self.attributes.iter().map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()));
        fixed.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(object).chain(own).collect()
    }

    /// One object: times in RFC 3339, lists as lists; bytes that are no text as `{"base64": …}`.
    fn json(&self) -> Value {
        let object = self.object.iter().map(|(name, value)| {
            let value = match LISTS.contains(name) {
                true => value.lines().collect(),
                false => Value::from(value.as_str()),
            };
            ((*name).to_owned(), value)
        });
        let own = self.attributes.iter().map(|(name, value)| match std::str::from_utf8(value) {
            Ok(text) => (name.clone(), Value::from(text)),
            Err(_) => (name.clone(), json!({ "base64": STANDARD.encode(value) })),
        });
        json!({
            "path": self.path,
            "kind": self.kind,
            "size": self.size_bytes,
            "mode": self.mode,
            "uid": self.owner.0,
            "gid": self.owner.1,
            "modified": exact_time(self.modified),
            "changed": exact_time(self.changed),
            "accessed": exact_time(self.accessed),
            "inode": self.inode,
            "s3": object.collect::<Map<_, _>>(),
            "attributes": own.collect::<Map<_, _>>(),
        })
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

/// A time to the nanosecond; nothing where a date cannot say it.
fn exact_time((seconds, nanoseconds): (i64, i64)) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds));
    time.ok().and_then(|time| time.format(&Rfc3339).ok())
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
        assert_eq!(exact_time((1_700_000_000, 5)).as_deref(), Some("2023-11-14T22:13:20.000000005Z"));
        assert_eq!(exact_time((i64::MAX, 0)), None);
    }

    #[test]
    fn a_file_outside_of_every_mount_is_refused() {
        let refusal = |path: &Path| known_of(path).err().expect("a refusal");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(refusal(file.path()).to_string().contains("not in a dreamfs mount"));
        assert_eq!(refusal(Path::new("/no/such")).kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn programs_get_lists_and_bytes_whole() {
        let known = Known {
            path: "a".into(),
            kind: "file",
            mode: "0600".into(),
            size_bytes: 7,
            owner: (1, 2),
            inode: 3,
            modified: (0, 0),
            changed: (0, 0),
            accessed: (0, 0),
            object: vec![("etag", "e".into()), ("grants", "READ id=a\nREAD id=b".into())],
            attributes: vec![("user.a".into(), b"text".to_vec()), ("user.b".into(), vec![0xff])],
        };
        let json = known.json();
        assert_eq!(json["s3"], json!({ "etag": "e", "grants": ["READ id=a", "READ id=b"] }));
        assert_eq!(json["attributes"], json!({ "user.a": "text", "user.b": { "base64": "/w==" } }));
        assert_eq!((&json["mode"], &json["size"]), (&json!("0600"), &json!(7)));
        assert!(known.rows().contains(&("grants".into(), "READ id=a\nREAD id=b".into())));
    }
}
