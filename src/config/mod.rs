//! Typed → meant: what the command line, `-o` options and the environment say becomes one [`Mount`].
//!
//! The only reader of the environment. It refuses what contradicts itself, with one line that says what to do.

pub mod advice;
pub mod credentials;
pub mod endpoint;
pub mod options;
pub mod units;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;
use crate::data::Limits;
use crate::format::acl::CANNED_NAMES;
use crate::format::key::{BucketName, Prefix};
use crate::fs::Attrs;
use crate::fuse::{host, session};
use crate::store::s3;
use crate::tree::Place;

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
    /// How long names are believed.
    pub ttl: Duration,
    /// ACL of what is created.
    pub acl: Option<String>,
    /// Storage class of what is created.
    pub storage_class: Option<String>,
    /// Memory in bytes.
    pub memory_bytes_max: u64,
    /// Where state lies.
    pub state_dir: PathBuf,
    /// Where control sockets lie.
    pub control_dir: PathBuf,
    /// What the store accepts; lowered by tests.
    pub limits: Limits,
}

impl Mount {
    /// What is mounted, in words: `bucket/prefix` or `all buckets`.
    pub fn target(&self) -> String {
        match &self.root {
            Place::Directory { bucket, prefix } if prefix.as_str().is_empty() => bucket.to_string(),
            Place::Directory { bucket, prefix } => format!("{bucket}/{}", prefix.as_str().trim_end_matches('/')),
            _ => crate::data::state::ALL_BUCKETS.to_owned(),
        }
    }
}

/// The flags of `dreamfs mount` as typed, after `-o` was expanded.
pub struct Typed {
    /// `BUCKET[/PREFIX]`.
    pub bucket: Option<String>,
    /// `MOUNTPOINT`.
    pub mountpoint: PathBuf,
    /// `--endpoint`.
    pub endpoint: Option<String>,
    /// `--region`.
    pub region: Option<String>,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--credentials`.
    pub credentials: Option<PathBuf>,
    /// `--anonymous`.
    pub anonymous: bool,
    /// `--addressing`.
    pub addressing: s3::Addressing,
    /// `--ca`.
    pub ca: Option<PathBuf>,
    /// `--integrity`.
    pub integrity: s3::Integrity,
    /// `--read-only`.
    pub read_only: bool,
    /// `--allow-other`.
    pub allow_other: bool,
    /// `--uid`.
    pub uid: Option<u32>,
    /// `--gid`.
    pub gid: Option<u32>,
    /// `--file-mode`.
    pub file_mode: u32,
    /// `--dir-mode`.
    pub dir_mode: u32,
    /// `--umask`.
    pub umask: u32,
    /// `--no-bucket-ops`.
    pub no_bucket_ops: bool,
    /// `--attrs`.
    pub attrs: Attrs,
    /// `--ttl`.
    pub ttl: Duration,
    /// `--acl`.
    pub acl: Option<String>,
    /// `--storage-class`.
    pub storage_class: Option<String>,
    /// `--memory`.
    pub memory_bytes_max: u64,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--max-requests`.
    pub requests_max: usize,
    /// `--timeout`.
    pub timeout: Duration,
    /// Options for the kernel.
    pub kernel_options: Vec<String>,
    /// `--test-copy-bytes-max`.
    pub copy_bytes_max: Option<u64>,
    /// `--test-part-bytes`.
    pub part_bytes: Option<u64>,
}

impl Typed {
    /// What was meant, or one line that says what is wrong and what to do.
    pub fn meant(self, environment: &Environment) -> Result<Mount, String> {
        let root = parse_target(self.bucket.as_deref())?;
        let endpoint = endpoint::endpoint(self.endpoint.as_deref(), environment)?;
        let region = endpoint::region(self.region.as_deref(), environment, &endpoint);
        if let Some(acl) = self.acl.as_deref().filter(|acl| !CANNED_NAMES.contains(acl)) {
            return Err(format!("--acl {acl} is no canned ACL. Use one of {}", CANNED_NAMES.join(", ")));
        }
        let bucket = match &root {
            Place::Directory { bucket, .. } => Some(bucket.to_string()),
            _ => None,
        };
        let search = credentials::Search {
            file: self.credentials,
            profile: self.profile.or_else(|| environment.get("AWS_PROFILE")),
            bucket,
            environment: environment.clone(),
        };
        let fs_name = format!("dreamfs#{}", self.bucket.as_deref().unwrap_or(crate::data::state::ALL_BUCKETS));
        let limits = Limits::default();
        let part_bytes = self.part_bytes.unwrap_or(limits.part_bytes);
        Ok(Mount {
            root,
            mountpoint: self.mountpoint,
            store: s3::Config {
                endpoint,
                region,
                addressing: self.addressing,
                anonymous: self.anonymous,
                ca_file: self.ca.or_else(|| environment.get("AWS_CA_BUNDLE").map(PathBuf::from)),
                integrity: self.integrity,
                stall_timeout: self.timeout,
                clock: Clock::system(),
            },
            credentials: credentials::source(search),
            requests_max: NonZeroUsize::new(self.requests_max).unwrap_or(NonZeroUsize::MIN),
            timeout: self.timeout,
            session: session::Options {
                fs_name,
                read_only: self.read_only,
                allow_other: self.allow_other,
                others: self.kernel_options,
            },
            uid: self.uid.unwrap_or_else(host::effective_uid),
            gid: self.gid.unwrap_or_else(host::effective_gid),
            file_mode: self.file_mode & !self.umask,
            dir_mode: self.dir_mode & !self.umask,
            bucket_ops: !self.no_bucket_ops,
            attrs: self.attrs,
            ttl: self.ttl,
            acl: self.acl,
            storage_class: self.storage_class,
            memory_bytes_max: self.memory_bytes_max,
            state_dir: self.state.unwrap_or_else(|| state_dir(environment)),
            control_dir: control_dir_of(environment),
            limits: Limits {
                part_bytes,
                part_bytes_min: limits.part_bytes_min.min(part_bytes),
                copy_bytes_max: self.copy_bytes_max.unwrap_or(limits.copy_bytes_max),
                ..limits
            },
        })
    }
}

/// `BUCKET[/PREFIX]`, or nothing for every bucket.
fn parse_target(text: Option<&str>) -> Result<Place, String> {
    let Some(text) = text else { return Ok(Place::Account) };
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    let bucket = BucketName::new(bucket).map_err(|why| format!("{bucket:?} is no bucket: {why}"))?;
    let prefix = Prefix::new(prefix)
        .map_err(|why| format!("the prefix {prefix:?} cannot be mounted: {why}. Write BUCKET/FOLDER/SUBFOLDER"))?;
    Ok(Place::Directory { bucket, prefix })
}

/// The environment as it was at the start.
#[derive(Clone)]
pub struct Environment {
    values: BTreeMap<String, String>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets live here.
        f.debug_struct("Environment").field("names", &self.values.keys().collect::<Vec<_>>()).finish()
    }
}

impl Environment {
    /// This process's environment. What is not UTF-8 is left out.
    pub fn current() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment { values: std::env::vars_os().filter_map(text).collect() }
    }

    /// An environment of these variables.
    pub fn of(values: &[(&str, &str)]) -> Self {
        Environment { values: values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect() }
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// The home folder.
    pub fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }
}

/// Where state lies by default.
pub fn state_dir(environment: &Environment) -> PathBuf {
    if host::is_root() {
        return PathBuf::from("/var/lib/dreamfs");
    }
    let at_home = || environment.home().map(|home| home.join(".local/state"));
    let base = environment.get("XDG_STATE_HOME").map(PathBuf::from).or_else(at_home);
    base.map_or_else(|| private_temp(environment, "state"), |base| base.join("dreamfs"))
}

/// Where the control sockets of this user's mounts lie.
pub fn control_dir() -> PathBuf {
    control_dir_of(&Environment::current())
}

/// Where control sockets lie.
fn control_dir_of(environment: &Environment) -> PathBuf {
    if host::is_root() {
        return PathBuf::from("/run/dreamfs");
    }
    match environment.get("XDG_RUNTIME_DIR") {
        Some(runtime) => Path::new(&runtime).join("dreamfs"),
        None => private_temp(environment, "run"),
    }
}

/// A folder of this user's for a machine that gives none.
fn private_temp(environment: &Environment, what: &str) -> PathBuf {
    let temp = environment.get("TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    temp.join(format!("dreamfs-{}-{what}", host::effective_uid()))
}

/// The path of the program that runs.
pub fn current_program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// The arguments that this process was started with.
pub fn arguments() -> Vec<std::ffi::OsString> {
    std::env::args_os().collect()
}

/// The folder of a demo: the one that was named, or a new one that only its owner can enter.
pub fn demo_folder(named: Option<PathBuf>) -> std::io::Result<PathBuf> {
    let folder = named.unwrap_or_else(|| std::env::temp_dir().join(format!("dreamfs-demo-{}", std::process::id())));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    std::fs::create_dir_all(folder.join("mnt"))?;
    folder.canonicalize()
}

/// Removes the folder of a demo that is over. Its mountpoint must be empty: the data of a mount is never removed here.
pub fn remove_demo_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::remove_dir(folder.join("mnt"))?;
    std::fs::remove_dir_all(folder)
}

/// An absolute path of what may not exist.
pub fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    path.canonicalize().or_else(|_| std::path::absolute(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_bad_ones_refused() {
        assert_eq!(parse_target(None), Ok(Place::Account));
        let place = parse_target(Some("photos/2024/")).expect("plain");
        assert_eq!(place.location().map(|location| location.key.to_string()), Some("2024/".to_owned()));
        for bad in ["photos/../x", "photos/a//b", "a b", "x", "/photos"] {
            assert!(parse_target(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_of_the_environment_hides_its_values() {
        let environment = Environment::of(&[("AWS_SECRET_ACCESS_KEY", "TOPSECRET")]);
        assert!(!format!("{environment:?}").contains("TOPSECRET"));
    }
}
