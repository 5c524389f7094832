//! The daemon's socket: status, drain and unmount, asked by the small commands.
//!
//! One JSON object a line each way over a unix socket `PID.sock`, mode 0600, in a folder of mode 0700. A question is
//! `{"request":"status"}`, `{"request":"drain"}`, `{"request":"unmount","force":false}` or `{"request":"link",…}`. Answers
//! are `progress` lines, then one last line: `status`, `done`, `link`, `busy`, `unsaved` or `error`. A connection may ask
//! again and again.
//!
//! It refuses everyone but the daemon's own user and root, and it decides nothing: what the questions mean is behind
//! the trait [`Daemon`].

mod client;
mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::fuse::host::{self, User};
use crate::store::{LinkMethod, Location};

pub use client::{Client, ClientError, socket_of, sockets_in};
pub use server::serve;

/// The attribute that answers the socket's path on every inode of a mount.
pub const SOCKET_ATTRIBUTE: &str = "user.dreamfs.socket";

/// What the name of a socket file ends in, after the process id.
const SOCKET_SUFFIX: &str = ".sock";

/// What a daemon knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of dreamfs that runs.
    pub version: String,
    /// Where it is mounted: absolute, without links.
    #[serde(serialize_with = "host::serialize_path")]
    pub mountpoint: PathBuf,
    /// What is mounted: `BUCKET[/PREFIX]` or `all buckets`.
    pub target: String,
    /// The store's address, without credentials.
    pub endpoint: String,
    /// The daemon's process.
    pub pid: u32,
    /// When it was mounted, in seconds since 1970.
    pub since: u64,
    /// Which family of stores it talks to.
    pub store: String,
    /// Requests sent to the store since the mount, by name.
    pub requests: BTreeMap<String, u64>,
    /// Bytes of bodies sent.
    pub bytes_up: u64,
    /// Bytes of bodies received.
    pub bytes_down: u64,
    /// Requests that failed for good.
    pub errors: u64,
    /// Writes that carried an ACL.
    pub puts_with_acl: u64,
    /// Files that are open now.
    pub open_files: u64,
    /// Files whose newest bytes are not in the store yet.
    pub unsaved: Vec<Unsaved>,
    /// Memory that the budget has given out, in bytes.
    pub memory_bytes: u64,
    /// The budget, in bytes.
    pub memory_bytes_max: u64,
    /// What reading has cost.
    pub reading: Reading,
    /// Keys that were seen and that no path can name.
    pub hidden_keys: u64,
    /// Names that are remembered.
    pub names: u64,
}

/// What reading has cost since the mount, and how fast the store is. Pages that the kernel still had cost nothing and
/// are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Bytes that the kernel asked for.
    pub asked_bytes: u64,
    /// Bytes that came from the store for it.
    pub fetched_bytes: u64,
    /// Bytes of these that were given up without having been asked for.
    pub wasted_bytes: u64,
    /// Requests of the kernel that found their bytes in memory.
    pub hits: u64,
    /// GETs that were sent because another one stalled.
    pub hedges: u64,
    /// Time from a GET to its first byte, at best, in microseconds.
    pub delay_us: u64,
    /// Bytes that one GET brings in a second.
    pub bytes_per_second: u64,
}

/// A file whose newest bytes are not in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsaved {
    /// Where it is in the mount.
    #[serde(serialize_with = "host::serialize_path")]
    pub path: PathBuf,
    /// What `user.s3.upload` says of it.
    pub state: String,
    /// How many bytes are missing in the store.
    pub bytes: u64,
    /// Where they lie on the local disk, if they do.
    #[serde(serialize_with = "serialize_staged")]
    pub staged: Option<PathBuf>,
}

/// How far a drain has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Files that are still to be stored.
    pub files_left: u64,
    /// Bytes that are still to be sent.
    pub bytes_left: u64,
    /// What holds it up, if something does.
    pub message: Option<String>,
}

/// What a daemon can be asked. All may be called at any time and by several connections at once.
#[async_trait]
pub trait Daemon: Send + Sync {
    /// What it knows of itself; answers from memory.
    fn status(&self) -> Status;

    /// Finishes the work of closed files, and tells how far it is. Fails with what cannot be stored. Repeatable.
    /// `report` stays open until the end, whether or not the one who asked still listens.
    async fn drain(&self, report: mpsc::Sender<Progress>) -> Result<(), Vec<Unsaved>>;

    /// Signs a link, which lends the mounter's credentials; or says why not.
    async fn link(&self, wanted: Link) -> Result<String, String>;

    /// Takes the mount away; with `force` also while it is in use. After `Ok` the daemon ends by itself, once the
    /// tracker that was given to [`serve`] is empty.
    async fn unmount(&self, force: bool) -> Result<(), UnmountError>;
}

/// A link that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The object, which need not be there.
    pub location: Location,
    /// What the link lets its holder do.
    pub method: LinkMethod,
    /// For how long.
    pub seconds: u64,
    /// The name under which browsers keep what they get by it.
    pub download_name: Option<String>,
}

/// Why a mount is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnmountError {
    /// It is in use by these processes; none are named where the daemon may not see them.
    Busy(Vec<User>),
    /// These files are not stored.
    Unsaved(Vec<Unsaved>),
    /// Another reason, as a sentence.
    Failed(String),
}

/// A question, one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
enum Request {
    Status,
    Drain,
    Unmount { force: bool },
    Link(Link),
}

/// An answer, one line. All but `Progress` are the last of their question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Status(Box<Status>),
    Progress(Progress),
    /// It is done; what could not be stored (only after a forced unmount) is listed.
    Done {
        unsaved: Vec<Unsaved>,
    },
    Link(String),
    Busy(Vec<User>),
    Unsaved(Vec<Unsaved>),
    Error(String),
}

fn serialize_staged<S: serde::Serializer>(staged: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match staged {
        Some(path) => host::serialize_path(path, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
