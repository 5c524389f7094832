//! An `Fs` without a kernel: over a store in memory, stacked as `mount.rs` stacks the real one, with faults where a
//! network would fail. A [`Client`] calls the verbs in the order in which the kernel does.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use dreamfs::clock::Clock;
use dreamfs::data::state::State;
use dreamfs::data::{self, Data, Limits};
use dreamfs::error::{Error, Meaning, Result};
use dreamfs::fs::attr::Changes;
use dreamfs::fs::lookup::Found;
use dreamfs::fs::open::{Access, HandleId};
use dreamfs::fs::{self, Attrs, Caller, Fs};
use dreamfs::store::fault::Fault;
use dreamfs::store::limit::Limit;
use dreamfs::store::memory::{MemoryLimits, MemoryStore};
use dreamfs::store::profile::{Family, Profile};
use dreamfs::store::retry::{Retry, RetryConfig};
use dreamfs::store::trace::Trace;
use dreamfs::store::{BucketName, GetOptions, Key, ListRequest, Location, ObjectHead, Store};
use dreamfs::tree::{Defaults, Entry, FileKind, Ino, Place, ROOT, Ttl};
use futures_util::TryStreamExt;
use tempfile::TempDir;

/// Who calls: also the owner of what carries no owner.
pub const CALLER: Caller = Caller { uid: 1000, gid: 1000, pid: 1 };

/// Permissions of what carries none.
pub const FILE_MODE: u32 = 0o644;
pub const DIR_MODE: u32 = 0o755;

/// When all tests begin; not a whole second, so that times which a store rounds show.
const BEGIN: Duration = Duration::from_millis(1_700_000_000_250);

/// The limits of S3 at a thousandth of their size: kilobytes are large files here.
const PART_BYTES_MIN: u64 = 4_000;
/// A file up to this is one PUT.
pub const PART_BYTES: usize = 8_000;
const LIMITS: Limits = Limits {
    put_bytes_max: 5_000_000,
    part_bytes_min: PART_BYTES_MIN,
    part_bytes: PART_BYTES as u64,
    parts_max: 10_000,
    copy_bytes_max: 20_000,
};

/// A store with one bucket, and the time.
pub struct World {
    pub memory: Arc<MemoryStore>,
    pub bucket: BucketName,
    pub clock: Clock,
}

/// How a client mounts.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub attrs: Attrs,
    pub ttl: Duration,
    pub names_max: usize,
    pub stage_bytes_max: u64,
    pub seed: u64,
}

impl Default for How {
    fn default() -> Self {
        How { attrs: Attrs::Auto, ttl: Duration::from_secs(3600), names_max: 3000, stage_bytes_max: 1 << 30, seed: 0 }
    }
}

/// One mount of the world's bucket.
pub struct Client {
    pub fs: Arc<Fs>,
    pub fault: Arc<Fault>,
    trace: Arc<Trace>,
    _state: TempDir,
}

impl World {
    /// An empty bucket whose listings come in pages of so many names.
    pub async fn new(page_keys_max: usize) -> World {
        let clock = Clock::fixed(UNIX_EPOCH + BEGIN);
        let limits = MemoryLimits { page_keys_max, part_bytes_min: PART_BYTES_MIN as usize, ..Default::default() };
        let memory = Arc::new(MemoryStore::with_limits(clock.clone(), limits));
        let bucket = BucketName::new("bucket").expect("a plain name");
        memory.create_bucket(&bucket).await.expect("created");
        World { memory, bucket, clock }
    }

    /// A mount with a state folder of its own, as another machine has.
    pub fn client(&self, how: How) -> Client {
        // In memory where there is such a place: each upload syncs its record, and hundreds of syncs take long on a disk.
        let state_folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("room");
        let (state, _) = State::open(state_folder.path(), "memory", self.bucket.as_str()).expect("a state folder");
        let fault = Arc::new(Fault::new(self.memory.clone(), how.seed, Vec::new()));
        let limit = Arc::new(Limit::new(fault.clone(), NonZeroUsize::new(16).expect("not zero")));
        let retry = Arc::new(Retry::new(limit, RetryConfig::default()));
        let store = Arc::new(Trace::new(retry));
        let config = data::Config {
            memory_bytes_max: 16 << 20,
            state: Arc::new(state),
            limits: LIMITS,
            uploads_at_once: 3,
            journaled: false,
            stage_bytes_max: how.stage_bytes_max,
            disk: None,
        };
        let trace = store.clone();
        let data = Data::new(store.clone(), config);
        let profile = Arc::new(Profile::new());
        // The store in memory has ACLs of objects, as RGW has.
        profile.learn(Family::Rgw);
        let defaults = Defaults {
            uid: CALLER.uid,
            gid: CALLER.gid,
            file_mode: FILE_MODE,
            dir_mode: DIR_MODE,
            dir_time: self.clock.now(),
        };
        let config = fs::Config {
            root: Place::Directory { bucket: self.bucket.clone(), prefix: Default::default() },
            defaults,
            read_only: false,
            bucket_ops: true,
            attrs: how.attrs,
            markers: true,
            versions: true,
            ttl: Ttl::fixed(how.ttl),
            acl: None,
            encryption: None,
            storage_class: None,
            requests_max: 4,
            names_max: how.names_max,
            whole_file_bytes_max: 1 << 30,
            host_name: "here".to_owned(),
            daemon_uid: CALLER.uid,
            socket: "/nowhere".into(),
        };
        // Nobody is told: there is no kernel.
        let (told, _) = tokio::sync::mpsc::unbounded_channel();
        let fs = Arc::new(Fs::new(store, data, None, profile, config, self.clock.clone(), told));
        Client { fs, fault, trace, _state: state_folder }
    }

    pub fn location(&self, key: &str) -> Location {
        Location { bucket: self.bucket.clone(), key: Key::new(key).expect("a plain key") }
    }

    /// All keys that begin so.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut request = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
        loop {
            let page = self.memory.list(&self.bucket, &request).await.expect("memory answers");
            keys.extend(page.objects.into_iter().map(|object| object.key));
            match page.continuation {
                Some(continuation) => request.continuation = Some(continuation),
                None => return keys,
            }
        }
    }

    /// An object as another tool sees it.
    pub async fn object(&self, key: &str) -> Option<(ObjectHead, Vec<u8>)> {
        let got = self.memory.get(&self.location(key), &GetOptions::default()).await.ok()?;
        let bytes: BytesMut = got.body.try_collect().await.expect("memory answers");
        Some((got.head, bytes.to_vec()))
    }

    /// The bytes of an object, if there is one.
    pub async fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.object(key).await.map(|(_, bytes)| bytes)
    }

    /// Another tool stores an object.
    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        self.memory.put_raw(&self.bucket, key, bytes.into()).expect("memory takes it");
    }

    /// Another tool deletes an object.
    pub async fn delete(&self, key: &str) {
        self.memory.delete(&self.location(key), None).await.expect("memory answers");
    }
}

/// A path as its directory and its name.
pub fn split(path: &str) -> (&str, &OsStr) {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    (directory, OsStr::new(name))
}

/// A time as a store keeps it: whole seconds.
pub fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).expect("after 1970");
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

pub const READ: Access = Access { read: true, write: false, truncate: false, exclusive: false };
pub const WRITE: Access = Access { read: true, write: true, truncate: false, exclusive: false };

impl Client {
    /// Pages of listings that were asked for.
    pub fn lists(&self) -> u64 {
        self.trace.counts().get("ListObjects").copied().unwrap_or(0)
    }

    /// HEADs of objects that were sent.
    pub fn heads(&self) -> u64 {
        self.trace.counts().get("HeadObject").copied().unwrap_or(0)
    }

    /// The inode of a path, name by name.
    pub async fn walk(&self, path: &str) -> Result<Ino> {
        if path.is_empty() { Ok(ROOT) } else { self.stat(path).await.map(|entry| entry.ino) }
    }

    /// A path as its directory, which must be one, and its name.
    async fn parent<'a>(&self, path: &'a str) -> Result<(Ino, &'a OsStr)> {
        let (directory, name) = split(path);
        if directory.is_empty() {
            return Ok((ROOT, name));
        }
        let entry = self.stat(directory).await?;
        match entry.attr.kind {
            FileKind::Directory => Ok((entry.ino, name)),
            FileKind::File | FileKind::Symlink => Err(Error::new(Meaning::NotDirectory, directory)),
        }
    }

    /// What a path leads to.
    pub async fn stat(&self, path: &str) -> Result<Entry> {
        let mut at = ROOT;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let found = match self.fs.lookup_known(at, OsStr::new(name)) {
                Some(found) => found,
                None => self.fs.lookup(at, OsStr::new(name)).await?,
            };
            let Found::Entry(entry) = found else { return Err(Error::new(Meaning::NotFound, path)) };
            match names.peek() {
                None => return Ok(entry),
                Some(_) if entry.attr.kind != FileKind::Directory => {
                    return Err(Error::new(Meaning::NotDirectory, path));
                }
                Some(_) => at = entry.ino,
            }
        }
        Err(Error::new(Meaning::NotFound, path))
    }

    /// Opens a path. On ESTALE the kernel looks the name up again, once.
    pub async fn open(&self, path: &str, access: Access) -> Result<(Ino, HandleId)> {
        let ino = self.walk(path).await?;
        match self.fs.open(ino, access, CALLER).await {
            Err(error) if error.meaning() == Meaning::Stale => {
                let ino = self.walk(path).await?;
                Ok((ino, self.fs.open(ino, access, CALLER).await?.id))
            }
            opened => Ok((ino, opened?.id)),
        }
    }

    pub async fn create(&self, path: &str, mode: u32, access: Access) -> Result<(Ino, HandleId)> {
        let (parent, name) = self.parent(path).await?;
        let (entry, id) = self.fs.create(parent, name, mode, access, CALLER).await?;
        Ok((entry.ino, id))
    }

    /// close(2) of the last descriptor of a handle.
    pub async fn close(&self, id: HandleId) -> Result<()> {
        let flushed = self.fs.flush(id).await;
        self.fs.release(id).await;
        flushed
    }

    /// All bytes of a path.
    pub async fn read(&self, path: &str) -> Result<Vec<u8>> {
        let (_, id) = self.open(path, READ).await?;
        let bytes = self.fs.read(id, 0, 1 << 20).await;
        self.close(id).await?;
        bytes.map(|bytes| bytes.to_vec())
    }

    /// Replaces a path's bytes, as `cp` does.
    pub async fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let access = Access { truncate: true, ..WRITE };
        let (_, id) = self.create(path, FILE_MODE, access).await?;
        let written = self.fs.write(id, 0, Bytes::copy_from_slice(bytes), CALLER).await;
        let closed = self.close(id).await;
        written.and(closed)
    }

    pub async fn mkdir(&self, path: &str, mode: u32) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        self.fs.mkdir(parent, name, mode, CALLER).await.map(drop)
    }

    pub async fn symlink(&self, path: &str, target: &str) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        let target = Bytes::copy_from_slice(target.as_bytes());
        self.fs.symlink(parent, name, target, CALLER).await.map(drop)
    }

    pub async fn readlink(&self, path: &str) -> Result<String> {
        let target = self.fs.readlink(self.walk(path).await?).await?;
        Ok(String::from_utf8_lossy(&target).into_owned())
    }

    pub async fn unlink(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        self.fs.unlink(parent, name).await
    }

    pub async fn rmdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        self.fs.rmdir(parent, name).await
    }

    pub async fn rename(&self, from: &str, to: &str, no_replace: bool) -> Result<()> {
        let ((parent, name), (new_parent, new_name)) = (self.parent(from).await?, self.parent(to).await?);
        self.fs.rename(parent, name, new_parent, new_name, no_replace).await
    }

    pub async fn setattr(&self, path: &str, set: Changes) -> Result<Entry> {
        let ino = self.walk(path).await?;
        self.fs.setattr(ino, None, set, CALLER).await
    }

    /// The names in a directory, sorted as `ls` does it, with what they lead to.
    pub async fn list(&self, path: &str) -> Result<Vec<(String, Entry)>> {
        let ino = self.walk(path).await?;
        let names = self.fs.list(ino).await?;
        let mut names: Vec<_> = names.into_iter().map(|(name, entry)| (name.to_string(), entry)).collect();
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(names)
    }

    pub async fn getxattr(&self, path: &str, name: &str) -> Result<Vec<u8>> {
        let ino = self.walk(path).await?;
        self.fs.getxattr(ino, OsStr::new(name), CALLER).await
    }

    pub async fn setxattr(&self, path: &str, name: &str, value: &[u8]) -> Result<()> {
        let ino = self.walk(path).await?;
        self.fs.setxattr(ino, OsStr::new(name), value, fs::xattr::SetFlag::Any, CALLER).await
    }

    pub async fn removexattr(&self, path: &str, name: &str) -> Result<()> {
        let ino = self.walk(path).await?;
        self.fs.removexattr(ino, OsStr::new(name), CALLER).await
    }

    /// Forgets all that is cached, as `dreamfs refresh` of the mountpoint does.
    pub async fn refresh(&self) {
        self.setxattr("", "user.s3.refresh", b"1").await.expect("nothing is asked of the store");
    }
}
