//! Typed → meant: what the command line, `-o` options and the environment say becomes one [`Mount`].
//!
//! * [`flags`]: the flags of `mount` as typed; [`options`]: `-o` into flags; [`units`]: sizes, times, modes.
//! * [`endpoint`]: which store; [`credentials`]: whose keys, in the formats of [`key_files`].
//! * [`environment`]: the only reader of the process's environment; [`folders`]: files that commands need.
//! * [`advice`]: what the first failure of a request means to the one who mounts.
//!
//! It refuses what contradicts itself, with one line: what is wrong, and what to do.

pub mod advice;
pub mod credentials;
pub mod endpoint;
pub mod environment;
pub mod flags;
pub mod folders;
pub mod key_files;
pub mod options;
pub mod units;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;
use crate::data::{Limits, disk, state::ALL_BUCKETS};
use crate::format::acl::CANNED_NAMES;
use crate::format::encryption;
use crate::format::key::{BucketName, Prefix};
use crate::fs::Attrs;
use crate::fuse::{host, session};
use crate::store::s3;
use crate::tree::{Place, Ttl};

pub use environment::{
    Environment, absolute, arguments, control_dir, current_program, leave_current_dir, state_dir, temporary_dir,
};
use flags::{Connection, Flags};

/// Memory below this leaves no room for a part and its successor.
const MEMORY_BYTES_MIN: u64 = 32 << 20;

/// What bytes that wait for the store may take of the local disk where `--stage-size` says nothing.
const STAGE_BYTES_MAX: u64 = 10 << 30;

/// What `--cache` may take where `--cache-size` says nothing.
const CACHE_BYTES_MAX: u64 = 10 << 30;

/// A mount as it was meant.
pub struct Mount {
    /// The account, or a bucket with a prefix.
    pub root: Place,
    /// Where: absolute.
    pub mountpoint: PathBuf,
    /// The store.
    pub store: s3::Config,
    /// Its keys.
    pub credentials: s3::CredentialSource,
    /// Requests at once.
    pub requests_max: NonZeroUsize,
    /// How long the store may be silent.
    pub timeout: Duration,
    /// What the kernel is told.
    pub session: session::Options,
    /// Owner of what has none.
    pub uid: u32,
    /// Group of what has none.
    pub gid: u32,
    /// Permissions of files that have none.
    pub file_mode: u32,
    /// Permissions of directories that have none.
    pub dir_mode: u32,
    /// Whether mkdir and rmdir reach buckets.
    pub bucket_ops: bool,
    /// Where attributes come from.
    pub attrs: Attrs,
    /// Whether directories get markers.
    pub markers: bool,
    /// Whether old versions are shown by their names.
    pub versions: bool,
    /// How long names are believed.
    pub ttl: Ttl,
    /// Canned ACL of what is created.
    pub acl: Option<String>,
    /// Storage class of what is created.
    pub storage_class: Option<String>,
    /// How the store encrypts what is written, where it is not known otherwise.
    pub encryption: Option<String>,
    /// Memory in bytes.
    pub memory_bytes_max: u64,
    /// Names remembered, where the memory has room for them.
    pub names_max: usize,
    /// Contents that outlive the mount.
    pub cache: Option<Cache>,
    /// Whether changes go through a journal, and how.
    pub journal: Option<Journal>,
    /// What bytes that wait for the store may take of the local disk.
    pub stage_bytes_max: u64,
    /// Where state lies: absolute.
    pub state_dir: PathBuf,
    /// Where control sockets lie.
    pub control_dir: PathBuf,
    /// What the store accepts; lowered by tests.
    pub limits: Limits,
}

/// How changes are journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Whether each survives a loss of power.
    pub sync: bool,
}

/// Where contents are kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The folder: absolute.
    pub dir: PathBuf,
    /// What it may take.
    pub bytes_max: u64,
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where keys are is left out, and what they are is behind a function.
        f.debug_struct("Mount")
            .field("root", &self.root)
            .field("mountpoint", &self.mountpoint)
            .field("store", &self.store)
            .field("session", &self.session)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

impl Mount {
    /// What is mounted, in words: `bucket/prefix` or `all buckets`.
    pub fn target(&self) -> String {
        match &self.root {
            Place::Directory { bucket, prefix } if prefix.as_str().is_empty() => bucket.to_string(),
            Place::Directory { bucket, prefix } => format!("{bucket}/{}", prefix.as_str().trim_end_matches('/')),
            _ => ALL_BUCKETS.to_owned(),
        }
    }
}

/// A mount as it was typed, after `-o` was expanded.
#[derive(Clone, Debug)]
pub struct Typed {
    /// `BUCKET[/PREFIX]`; nothing for every bucket of the account.
    pub target: Option<String>,
    /// `MOUNTPOINT`.
    pub mountpoint: PathBuf,
    /// The flags.
    pub flags: Flags,
}

impl Typed {
    /// What was meant, or one line that says what is wrong and what to do.
    pub fn meant(self, environment: &Environment) -> Result<Mount, String> {
        let Typed { target, mountpoint, flags } = self;
        check(&flags)?;
        let root = parse_target(target.as_deref())?;
        let mountpoint = place(&mountpoint)?;
        let cache = cache(&flags, &mountpoint)?;
        let journal = journal(&flags)?;
        let encryption = encryption(&flags)?;
        let bucket = target.as_deref().map(|target| target.split('/').next().unwrap_or(target).to_owned());
        let (requests_max, timeout) = (flags.connection.max_requests, flags.connection.timeout);
        let (store, credentials) = connection(flags.connection.clone(), bucket, environment)?;
        Ok(Mount {
            root,
            mountpoint,
            store,
            credentials,
            requests_max,
            timeout,
            limits: limits(&flags),
            session: session::Options {
                fs_name: flags
                    .fsname
                    .unwrap_or_else(|| format!("dreamfs#{}", target.as_deref().unwrap_or(ALL_BUCKETS))),
                read_only: flags.read_only,
                allow_other: flags.allow_other,
                others: flags.kernel_option,
            },
            uid: flags.uid.unwrap_or_else(host::effective_uid),
            gid: flags.gid.unwrap_or_else(host::effective_gid),
            file_mode: flags.file_mode & !flags.umask,
            dir_mode: flags.dir_mode & !flags.umask,
            bucket_ops: !flags.no_bucket_ops,
            attrs: flags.attrs,
            markers: flags.markers,
            versions: flags.versions,
            ttl: flags.ttl.map_or(Ttl::ADAPTIVE, Ttl::fixed),
            acl: flags.acl,
            encryption,
            storage_class: flags.storage_class,
            memory_bytes_max: flags.memory,
            names_max: flags.max_names.get(),
            cache,
            journal,
            stage_bytes_max: flags.stage_size.unwrap_or(STAGE_BYTES_MAX),
            state_dir: flags.state.as_deref().map(place).transpose()?.unwrap_or_else(|| state_dir(environment)),
            control_dir: control_dir(),
        })
    }
}

/// What is asked of the store for what this mount writes.
fn encryption(flags: &Flags) -> Result<Option<String>, String> {
    match (flags.sse.clone(), flags.sse_kms_key_id.clone()) {
        (method, None) => Ok(method),
        (Some(method), key_id) if method == "aws:kms" => {
            let text = encryption::join(Some(method), key_id);
            let is_valid = text.as_deref().is_some_and(encryption::is_valid);
            if is_valid {
                Ok(text)
            } else {
                Err("--sse-kms-key-id is no id of a key. Give it as the store spells it".to_owned())
            }
        }
        _ => Err("--sse-kms-key-id names a key for --sse aws:kms. Give both".to_owned()),
    }
}

/// The store that is meant, and where its keys come from; `bucket` finds the line of a file that names buckets.
pub fn connection(
    typed: Connection,
    bucket: Option<String>,
    environment: &Environment,
) -> Result<(s3::Config, s3::CredentialSource), String> {
    if typed.anonymous && (typed.credentials.is_some() || typed.profile.is_some()) {
        return Err("--anonymous uses no keys. Leave out either it or --credentials and --profile".to_owned());
    }
    let endpoint = endpoint::endpoint(typed.endpoint.as_deref(), environment)?;
    let ca_file = typed.ca.or_else(|| environment.get("AWS_CA_BUNDLE").map(PathBuf::from));
    let store = s3::Config {
        region: endpoint::region(typed.region.as_deref(), environment, &endpoint),
        endpoint,
        addressing: typed.addressing,
        signature: typed.signature,
        anonymous: typed.anonymous,
        ca_file: ca_file.as_deref().map(place).transpose()?,
        integrity: typed.integrity,
        stall_timeout: typed.timeout,
        clock: Clock::system(),
    };
    if typed.anonymous {
        return Ok((store, credentials::none()));
    }
    let file = typed.credentials.as_deref().map(place).transpose()?;
    let search = credentials::Search { file, profile: typed.profile, bucket, environment: environment.clone() };
    Ok((store, credentials::source(search)))
}

fn journal(flags: &Flags) -> Result<Option<Journal>, String> {
    match (flags.write_back, flags.read_only) {
        (true, true) => Err("--write-back has nothing to do on a read-only mount. Leave one of the two out".to_owned()),
        (false, _) => Ok(None),
        (true, false) => Ok(Some(Journal { sync: flags.journal_sync })),
    }
}

fn cache(flags: &Flags, mountpoint: &Path) -> Result<Option<Cache>, String> {
    let Some(dir) = flags.cache.as_deref() else {
        return match flags.cache_size {
            Some(_) => {
                Err("--cache-size says how large a cache may grow. Say where it lies with --cache DIR".to_owned())
            }
            None => Ok(None),
        };
    };
    let (dir, bytes_max) = (place(dir)?, flags.cache_size.unwrap_or(CACHE_BYTES_MAX));
    if bytes_max < disk::BYTES_MIN {
        return Err(format!("--cache-size is too small. Give at least {}MiB", disk::BYTES_MIN >> 20));
    }
    // It would wait for itself.
    if dir.starts_with(mountpoint) {
        return Err(format!("--cache {} lies inside of the mount. Choose a folder elsewhere", dir.display()));
    }
    Ok(Some(Cache { dir, bytes_max }))
}

fn check(flags: &Flags) -> Result<(), String> {
    if let Some(acl) = flags.acl.as_deref().filter(|acl| !CANNED_NAMES.contains(acl)) {
        return Err(format!("--acl {acl} is not a canned ACL. Use one of {}", CANNED_NAMES.join(", ")));
    }
    if flags.memory < MEMORY_BYTES_MIN {
        return Err(format!("--memory is too small. Give at least {}MiB", MEMORY_BYTES_MIN >> 20));
    }
    Ok(())
}

fn limits(flags: &Flags) -> Limits {
    let limits = Limits::default();
    let part_bytes = flags.test_part_bytes.map_or(limits.part_bytes, |bytes| bytes.max(1));
    Limits {
        part_bytes,
        part_bytes_min: limits.part_bytes_min.min(part_bytes),
        copy_bytes_max: flags.test_copy_bytes_max.map_or(limits.copy_bytes_max, |bytes| bytes.max(1)),
        ..limits
    }
}

/// An absolute path, so that the daemon may leave the folder it was started in.
fn place(path: &Path) -> Result<PathBuf, String> {
    absolute(path).map_err(|error| format!("{} cannot be found: {error}. Write the whole path", path.display()))
}

/// `BUCKET[/PREFIX]`, or nothing for every bucket.
fn parse_target(text: Option<&str>) -> Result<Place, String> {
    let Some(text) = text else { return Ok(Place::Account) };
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    let bucket =
        BucketName::new(bucket).map_err(|why| format!("{bucket:?} cannot be a bucket: {why}. Check the name"))?;
    let bad = |why: &dyn fmt::Display| format!("{text:?} cannot be mounted: {why}. Write BUCKET/FOLDER/SUBFOLDER");
    if text.contains("//") {
        return Err(bad(&"a segment of it is empty"));
    }
    let prefix = Prefix::new(prefix).map_err(|why| bad(&why))?;
    Ok(Place::Directory { bucket, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn meant(target: Option<&str>, words: &[&str], variables: &[(&str, &str)]) -> Result<Mount, String> {
        let command = Flags::augment_args(clap::Command::new("mount")).no_binary_name(true);
        let flags = Flags::from_arg_matches(&command.get_matches_from(words)).unwrap();
        let typed = Typed { target: target.map(str::to_owned), mountpoint: "/mnt".into(), flags };
        typed.meant(&Environment::of(variables))
    }

    #[test]
    fn nothing_typed_means_the_documented_defaults() {
        let mount = meant(None, &[], &[]).unwrap();
        assert_eq!(mount.root, Place::Account);
        assert_eq!(mount.target(), "all buckets");
        assert_eq!(mount.store.endpoint, "https://s3.us-east-005.dream.io");
        assert_eq!(mount.store.region, "us-east-005");
        assert_eq!((mount.file_mode, mount.dir_mode, mount.bucket_ops), (0o644, 0o755, true));
        assert_eq!((mount.ttl, mount.timeout), (Ttl::ADAPTIVE, Duration::from_secs(60)));
        assert_eq!((mount.memory_bytes_max, mount.requests_max.get()), (256 << 20, 64));
        assert_eq!((mount.uid, mount.gid), (host::effective_uid(), host::effective_gid()));
    }

    #[test]
    fn flags_are_carried_over() {
        let words =
            ["--umask=027", "--read-only", "--no-bucket-ops", "--test-part-bytes=64KiB", "--kernel-option=noexec"];
        let mount = meant(Some("photos/a/b/"), &words, &[]).unwrap();
        assert_eq!((mount.file_mode, mount.dir_mode), (0o640, 0o750));
        assert!(mount.session.read_only && !mount.bucket_ops);
        assert_eq!(mount.session.fs_name, "dreamfs#photos/a/b/");
        assert_eq!(mount.session.others, ["noexec"]);
        assert_eq!((mount.limits.part_bytes, mount.limits.part_bytes_min), (65536, 65536));
        assert_eq!(mount.target(), "photos/a/b");
        let cache = |words: &[&str]| meant(None, words, &[]).unwrap().cache.map(|cache| (cache.dir, cache.bytes_max));
        assert_eq!(cache(&[]), None);
        assert_eq!(cache(&["--cache=/x"]), Some(("/x".into(), 10 << 30)));
        assert_eq!(cache(&["--cache=/x", "--cache-size=1GiB"]), Some(("/x".into(), 1 << 30)));
    }

    #[test]
    fn bad_targets_are_refused_in_one_line() {
        for bad in ["photos/../x", "photos/a//b", "photos//", "photos/.", "a b", "x", "/photos", "", ".."] {
            let why = meant(Some(bad), &[], &[]).unwrap_err();
            assert!(!why.contains('\n') && why.contains(". "), "{why}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (words, advice) in [
            (vec!["--write-back", "--read-only"], "read-only"),
            (vec!["--cache-size=1GiB"], "--cache DIR"),
            (vec!["--cache=/x", "--cache-size=1MiB"], "16MiB"),
            (vec!["--cache=/mnt/x"], "inside of the mount"),
            (vec!["--acl=public"], "public-read"),
            (vec!["--anonymous", "--profile=x"], "--anonymous"),
            (vec!["--sse=AES256", "--sse-kms-key-id=x"], "aws:kms"),
            (vec!["--sse-kms-key-id=x"], "aws:kms"),
            (vec!["--memory=1MiB"], "32MiB"),
        ] {
            let why = meant(None, &words, &[]).unwrap_err();
            assert!(why.contains(advice) && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn no_secret_is_in_the_debug_output_of_a_mount() {
        let variables =
            [("AWS_ACCESS_KEY_ID", "KEY"), ("AWS_SECRET_ACCESS_KEY", "TOPSECRET"), ("AWS_SESSION_TOKEN", "TOPTOKEN")];
        let mount = meant(Some("photos"), &[], &variables).unwrap();
        let keys = (mount.credentials)().unwrap();
        assert_eq!(keys.secret_key, "TOPSECRET");
        let shown = format!("{mount:?} {keys:?}");
        assert!(shown.contains("photos") && !shown.contains("TOPSECRET") && !shown.contains("TOPTOKEN"), "{shown}");
    }
}
