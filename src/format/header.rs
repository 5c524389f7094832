//! POSIX attributes as object metadata (`x-amz-meta-*`) and back, and how any text or bytes fit into a header.
//!
//! Written: `mode` (decimal `st_mode`), `uid`, `gid`, `mtime`, `atime`, `ctime` (`seconds.nanoseconds`, nine digits),
//! which is s3fs's spelling. Read: also rclone's, geesefs's, s3sync's and gsutil's. Names here are without the
//! `x-amz-meta-` prefix and in lower case. A value that cannot be parsed is treated as absent, never as zero.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Bytes of all user metadata of an object at most: names and values (S3 user guide, "User-defined object metadata").
pub const METADATA_BYTES_MAX: usize = 2048;

/// The file type bits of `st_mode`.
pub const FORMAT_MASK: u32 = 0o170000;
/// The largest `st_mode`.
const MODE_MAX: u32 = 0o177777;
/// A regular file, in these bits.
pub const FORMAT_FILE: u32 = 0o100000;
/// A directory.
pub const FORMAT_DIRECTORY: u32 = 0o040000;
/// A symbolic link.
pub const FORMAT_SYMLINK: u32 = 0o120000;

/// The metadata name of a symbolic link's target as geesefs writes it: an object without bytes, and without a mode.
pub const LINK_TARGET: &str = "--symlink-target";

/// The target of a link that geesefs made.
pub fn link_target(metadata: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    metadata.get(LINK_TARGET).map(|target| decode_value(target))
}

/// What metadata tells of a file's POSIX attributes; what it does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posix {
    /// `st_mode`, with file type bits if the writer gave them.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of content.
    pub mtime: Option<SystemTime>,
    /// Last access.
    pub atime: Option<SystemTime>,
    /// Last change of attributes.
    pub ctime: Option<SystemTime>,
}

impl Posix {
    /// Whether metadata told anything at all.
    pub fn is_some(&self) -> bool {
        *self != Posix::default()
    }

    /// Reads every spelling that other programs use.
    pub fn read(metadata: &BTreeMap<String, String>) -> Self {
        let text = |names: &[&str]| names.iter().find_map(|name| metadata.get(*name)).map(String::as_str);
        let octal = |value: &str| u32::from_str_radix(value, 8).ok();
        let mode = text(&["mode", "permissions"]).and_then(parse_mode);
        let mode = mode.or_else(|| text(&["goog-reserved-posix-mode"]).and_then(octal));
        let mode = match metadata.contains_key(LINK_TARGET) {
            true => Some(FORMAT_SYMLINK | mode.map_or(0o777, |mode| mode & !FORMAT_MASK)),
            false => mode.filter(|mode| *mode != 0),
        };
        Posix {
            mode,
            uid: text(&["uid", "owner", "goog-reserved-posix-uid"]).and_then(|value| value.parse().ok()),
            gid: text(&["gid", "group", "goog-reserved-posix-gid"]).and_then(|value| value.parse().ok()),
            mtime: text(&["mtime", "goog-reserved-file-mtime", "gcsfuse_mtime"]).and_then(parse_time),
            atime: text(&["atime", "goog-reserved-file-atime"]).and_then(parse_time),
            ctime: text(&["ctime"]).and_then(parse_time),
        }
    }

    /// Writes what is told in dreamfs's own spelling, and takes other spellings of the same away.
    pub fn write(&self, metadata: &mut BTreeMap<String, String>) {
        metadata.retain(|name, _| !is_posix_name(name));
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                metadata.insert(name.to_owned(), value);
            }
        };
        put("mode", self.mode.map(|mode| mode.to_string()));
        put("uid", self.uid.map(|uid| uid.to_string()));
        put("gid", self.gid.map(|gid| gid.to_string()));
        put("mtime", self.mtime.map(format_time));
        put("atime", self.atime.map(format_time));
        put("ctime", self.ctime.map(format_time));
    }

    /// Takes the times away: whoever reads the metadata then goes by the store's own.
    pub fn clear_times(metadata: &mut BTreeMap<String, String>) {
        metadata.retain(|name, _| !matches!(name.as_str(), "mtime" | "atime" | "ctime"));
    }
}

/// Whether a metadata name holds a POSIX attribute, in any spelling, so that it is no extended attribute.
pub fn is_posix_name(name: &str) -> bool {
    matches!(name, "mode" | "uid" | "gid" | "mtime" | "atime" | "ctime" | "permissions" | "owner" | "group")
        || name == "gcsfuse_mtime"
        || name.starts_with("goog-reserved-posix-")
        || matches!(name, "goog-reserved-file-mtime" | "goog-reserved-file-atime")
}

/// A leading zero means octal, and so does a number too large for a mode (rclone, `100644`); else it is decimal (s3fs,
/// geesefs, s3sync).
fn parse_mode(value: &str) -> Option<u32> {
    let octal = || u32::from_str_radix(value, 8).ok();
    let mode = match value.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => octal(),
        _ => value.parse().ok().filter(|mode| *mode <= MODE_MAX).or_else(octal),
    };
    mode.filter(|mode| *mode <= MODE_MAX)
}

/// `seconds[.fraction]` since the epoch, possibly negative; or a date as rclone writes it.
fn parse_time(value: &str) -> Option<SystemTime> {
    if value.contains('T') {
        return OffsetDateTime::parse(value, &Rfc3339).ok().map(SystemTime::from);
    }
    let (negative, digits) = match value.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let seconds: u64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    let distance = Duration::new(seconds, nanoseconds);
    if negative { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

/// `seconds.nanoseconds`, nine digits.
fn format_time(time: SystemTime) -> String {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => format!("{}.{:09}", after.as_secs(), after.subsec_nanos()),
        Err(before) => format!("-{}.{:09}", before.duration().as_secs(), before.duration().subsec_nanos()),
    }
}

/// What of a metadata name or value must be escaped in a header. Upper case is escaped in names, since header names
/// have no case.
const NAME_ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'(')
    .add(b')')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}')
    .add(b'A')
    .add(b'B')
    .add(b'C')
    .add(b'D')
    .add(b'E')
    .add(b'F')
    .add(b'G')
    .add(b'H')
    .add(b'I')
    .add(b'J')
    .add(b'K')
    .add(b'L')
    .add(b'M')
    .add(b'N')
    .add(b'O')
    .add(b'P')
    .add(b'Q')
    .add(b'R')
    .add(b'S')
    .add(b'T')
    .add(b'U')
    .add(b'V')
    .add(b'W')
    .add(b'X')
    .add(b'Y')
    .add(b'Z');

const VALUE_ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The metadata name of the extended attribute `user.NAME`, given NAME.
pub fn encode_name(name: &str) -> String {
    percent_encode(name.as_bytes(), NAME_ESCAPED).to_string().to_lowercase()
}

/// The NAME of `user.NAME` for a metadata name; `None` where the name holds no UTF-8.
pub fn decode_name(name: &str) -> Option<String> {
    percent_decode_str(name).decode_utf8().ok().map(Cow::into_owned)
}

/// A header value that holds these bytes: plain text as it is, the rest percent-escaped. Blanks at either end and
/// double ones are escaped too, since HTTP folds them.
pub fn encode_value(value: &[u8]) -> String {
    let escaped = percent_encode(value, VALUE_ESCAPED).to_string();
    let mut out = String::with_capacity(escaped.len());
    let last = escaped.len().saturating_sub(1);
    for (at, character) in escaped.char_indices() {
        let folded = character == ' ' && (at == 0 || at == last || out.ends_with(' '));
        if folded { out.push_str("%20") } else { out.push(character) }
    }
    out
}

/// The bytes that a header value holds. A `%` that begins no escape is itself.
pub fn decode_value(value: &str) -> Vec<u8> {
    percent_decode_str(value).collect()
}

/// Bytes that metadata takes of the store's limit.
pub fn metadata_bytes(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn at(seconds: u64, nanoseconds: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanoseconds)
    }

    #[test]
    fn the_spellings_of_others_are_read() {
        let s3fs = Posix::read(&metadata(&[("mode", "33188"), ("uid", "1000"), ("mtime", "1700000000.000000005")]));
        assert_eq!((s3fs.mode, s3fs.uid, s3fs.mtime), (Some(0o100644), Some(1000), Some(at(1_700_000_000, 5))));
        let rclone = Posix::read(&metadata(&[("mtime", "1700000000.5"), ("mode", "0100600")]));
        assert_eq!((rclone.mode, rclone.mtime), (Some(0o100600), Some(at(1_700_000_000, 500_000_000))));
        let with_metadata =
            Posix::read(&metadata(&[("mode", "100640"), ("atime", "2023-11-14T22:13:20.5Z"), ("mtime", "5")]));
        assert_eq!(with_metadata.mode, Some(0o100640), "rclone --metadata");
        assert_eq!(with_metadata.atime, Some(at(1_700_000_000, 500_000_000)));
        let link = metadata(&[("--symlink-target", "a%20b"), ("uid", "7")]);
        assert_eq!((Posix::read(&link).mode, link_target(&link)), (Some(0o120777), Some(b"a b".to_vec())));
        let geesefs = Posix::read(&metadata(&[("mtime", "1700000000"), ("gid", "7")]));
        assert_eq!((geesefs.gid, geesefs.mtime), (Some(7), Some(at(1_700_000_000, 0))));
        let s3sync = Posix::read(&metadata(&[("permissions", "33188"), ("owner", "3"), ("group", "4")]));
        assert_eq!((s3sync.mode, s3sync.uid, s3sync.gid), (Some(33188), Some(3), Some(4)));
        let gsutil = Posix::read(&metadata(&[("goog-reserved-posix-mode", "640"), ("goog-reserved-file-mtime", "5")]));
        assert_eq!((gsutil.mode, gsutil.mtime), (Some(0o640), Some(at(5, 0))));
    }

    #[test]
    fn nonsense_is_absent_not_zero() {
        let read = Posix::read(&metadata(&[
            ("mode", "rw-r--r--"),
            ("uid", "-1"),
            ("gid", ""),
            ("mtime", "2023-11-14T22:13:20"),
            ("atime", "1.2.3"),
            ("ctime", "99999999999999999999"),
        ]));
        assert!(!read.is_some(), "{read:?}");
        assert_eq!(Posix::read(&metadata(&[("mode", "0")])).mode, None);
    }

    #[test]
    fn blanks_survive_http() {
        for value in ["", " ", "  ", " a", "a ", "a  b", "a   b", "100%", "%20"] {
            let header = encode_value(value.as_bytes());
            assert_eq!(decode_value(&header), value.as_bytes(), "{header:?}");
            assert!(!header.contains("  ") && header.trim() == header, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn attributes_round_trip(mode in 1u32..0o200000, uid: u32, gid: u32, seconds in -(1i64 << 34)..(1i64 << 34), ns in 0u32..1_000_000_000) {
            let distance = Duration::new(seconds.unsigned_abs(), ns);
            let time = if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
            let posix = Posix { mode: Some(mode), uid: Some(uid), gid: Some(gid), mtime: Some(time), atime: Some(time), ctime: None };
            let mut out = metadata(&[("owner", "9"), ("colour", "blue")]);
            posix.write(&mut out);
            prop_assert_eq!(Posix::read(&out), posix);
            prop_assert_eq!(out.get("colour").map(String::as_str), Some("blue"));
        }

        #[test]
        fn extended_attributes_round_trip(name in ".{1,30}", value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let header = encode_name(&name);
            prop_assert!(header.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
            prop_assert_eq!(decode_name(&header), Some(name));
            let text = encode_value(&value);
            prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert!(text.trim() == text && !text.contains("  "));
            prop_assert_eq!(decode_value(&text), value);
        }
    }
}
