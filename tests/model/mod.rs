//! `Fs` against a model of what a POSIX user expects: seeded random sequences of calls, several handles open at once,
//! and another client at work in the same bucket. The seed of a sequence that fails is printed with all that was done;
//! `DREAMFS_TEST_SEED=n` runs that sequence alone.

mod compare;
mod found;
mod posix;

use std::ffi::OsStr;
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use dreamfs::error::{Meaning, Result};
use dreamfs::fs::Attrs;
use dreamfs::fs::attr::{Changes, SetTime};
use dreamfs::fs::open::{Access, HandleId};
use dreamfs::tree::{FileKind, Ino};
use fastrand::Rng;

use crate::stand::{CALLER, Client, How, READ, WRITE, World, whole_seconds};
use compare::compare;
use posix::{Id, Posix};

/// Sequences of the short form and of the full one, and calls of a sequence.
const SEQUENCES: u64 = 150;
const SEQUENCES_FULL: u64 = 5000;
const CALLS: usize = 80;

/// A local disk that holds little more than the longest write.
const STAGE_BYTES_SMALL: u64 = 64 << 10;

/// Handles open at once.
const HANDLES_MAX: usize = 5;

/// Lengths on both sides of every limit: one PUT, one part, one copy.
const SIZE_MAX: usize = 30_000;

/// Where things happen. `top` is made through the mount and has a marker with metadata; `plain` comes to be by another
/// client's keys. A bucket's root is judged by three objects, so that files in it would be a matter of luck.
const DIRECTORIES: [&str; 6] = ["top", "top/a", "top/b", "top/a/c", "plain", "plain/a"];
const NAMES: [&str; 6] = ["a", "b", "c", "f", "G h", "é"];
const XATTRS: [&str; 2] = ["user.colour", "user.Tag 2"];

/// A handle that is open on both sides.
struct Open {
    id: HandleId,
    ino: Ino,
    node: Id,
    write: bool,
}

/// One sequence.
struct Run {
    rng: Rng,
    world: World,
    how: How,
    client: Client,
    model: Posix,
    open: Vec<Open>,
    history: History,
}

/// What was done, told when the test fails.
struct History {
    seed: u64,
    calls: Vec<String>,
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("DREAMFS_TEST_SEED={}\n{}", self.seed, self.calls.join("\n"));
        }
    }
}

/// What a user of this mount, of the raw store and of a second mount sees is what the model says.
#[tokio::test]
async fn random_calls_agree_with_the_model() {
    if let Some(seed) = std::env::var("DREAMFS_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return sequence(seed).await;
    }
    let full = std::env::var("DREAMFS_TEST_FULL").is_ok();
    let count = if full { SEQUENCES_FULL } else { SEQUENCES };
    println!("random_calls_agree_with_the_model: {count} sequences of {CALLS} calls");
    for seed in 0..count {
        sequence(seed).await;
    }
}

async fn sequence(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let page_keys_max = if rng.bool() { 1000 } else { 2 };
    let how = How {
        attrs: if rng.bool() { Attrs::Auto } else { Attrs::Full },
        // Without a time to live everything is asked for anew each time.
        ttl: if rng.bool() { Duration::from_secs(3600) } else { Duration::ZERO },
        // So few that names are forgotten all the time.
        names_max: if rng.u8(0..4) == 0 { 8 } else { 1000 },
        // So little that files are stored as they stand, and parts given back, all the time.
        stage_bytes_max: if rng.u8(0..4) == 0 { STAGE_BYTES_SMALL } else { 1 << 30 },
        seed,
    };
    let world = World::new(page_keys_max).await;
    let client = world.client(how);
    let history = History { seed, calls: vec![format!("{how:?}, pages of {page_keys_max}")] };
    let mut run = Run { rng, world, how, client, model: Posix::default(), open: Vec::new(), history };
    run.prepare().await;
    for _ in 0..CALLS {
        run.world.clock.advance(Duration::from_millis(run.rng.u64(1..3000)));
        run.call().await;
    }
    run.finish().await;
}

impl Run {
    async fn prepare(&mut self) {
        let now = self.world.clock.now();
        self.world.put("plain/f", b"another client's".to_vec());
        self.model.foreign_put("plain/f", b"another client's", whole_seconds(now), now);
        let directories: &[&str] = if self.rng.bool() { &["top"] } else { &["top", "top/a", "top/b", "top/a/c"] };
        for directory in directories {
            self.client.mkdir(directory, 0o750).await.expect("made");
            self.model.mkdir(directory, 0o750, now).expect("made");
        }
    }

    fn note(&mut self, call: String) {
        self.history.calls.push(call);
    }

    fn path(&mut self) -> String {
        let directory = self.rng.choice(DIRECTORIES).expect("not empty");
        format!("{directory}/{}", self.rng.choice(NAMES).expect("not empty"))
    }

    fn bytes(&mut self) -> Vec<u8> {
        let largest = if self.rng.bool() { SIZE_MAX / 3 } else { 100 };
        let length = self.rng.usize(1..largest);
        std::iter::repeat_with(|| self.rng.u8(..)).take(length).collect()
    }

    /// A handle, if any is open.
    fn handle(&mut self) -> Option<usize> {
        if self.open.is_empty() { None } else { Some(self.rng.usize(..self.open.len())) }
    }

    async fn call(&mut self) {
        match self.rng.u8(0..34) {
            0..6 => self.create().await,
            6..8 => self.open_existing().await,
            8..13 => self.write().await,
            13..15 => self.read().await,
            15..17 => self.flush_or_fsync().await,
            17..20 => self.close().await,
            20 => self.truncate_handle().await,
            21 => self.unlink().await,
            22 => self.mkdir().await,
            23 => self.rmdir().await,
            24..27 => self.rename().await,
            27..29 => self.setattr().await,
            29 => self.xattr().await,
            30 => self.symlink().await,
            31 => self.look().await,
            _ => self.other_client().await,
        }
    }

    async fn create(&mut self) {
        if self.open.len() == HANDLES_MAX {
            return;
        }
        let (path, mode) = (self.path(), self.rng.choice([0o644, 0o600, 0o4755]).expect("not empty"));
        let access = Access { truncate: self.rng.bool(), exclusive: self.rng.u8(0..4) == 0, ..WRITE };
        if self.model.find(&path).is_ok_and(|id| self.model.node(id).kind == FileKind::Symlink) {
            // The kernel follows links itself.
            return;
        }
        self.note(format!("create {path} {mode:o} {access:?}"));
        let (now, existed) = (self.world.clock.now(), self.model.find(&path).is_ok());
        let wanted = self.model.create(&path, mode, access.exclusive, now);
        let got = self.client.create(&path, mode, access).await;
        agree("create", &got, &wanted.map(drop));
        if let (Ok((ino, id)), Ok(node)) = (got, wanted) {
            if existed && access.truncate {
                self.model.empty(node, now);
            }
            self.open.push(Open { id, ino, node, write: true });
        }
    }

    async fn open_existing(&mut self) {
        let path = self.path();
        let Ok(node) = self.model.find(&path) else { return };
        if self.open.len() == HANDLES_MAX || self.model.node(node).kind != FileKind::File {
            return;
        }
        let write = self.rng.bool();
        self.note(format!("open {path} write: {write}"));
        let (ino, id) = self.client.open(&path, if write { WRITE } else { READ }).await.expect("it is there");
        self.open.push(Open { id, ino, node, write });
    }

    async fn write(&mut self) {
        let Some(Open { id, node, write: true, .. }) = self.handle().map(|at| &self.open[at]) else { return };
        let (id, node) = (*id, *node);
        let size = self.model.node(node).bytes.len();
        // O_APPEND is the kernel's: it knows the size and sends the offset.
        let append = self.rng.bool();
        let offset = if append { size } else { self.rng.usize(..=size + 100).min(SIZE_MAX) };
        let bytes = self.bytes();
        self.note(format!("write {id:?} node {node} at {offset}, {} bytes", bytes.len()));
        let got = self.client.fs.write(id, offset as u64, Bytes::from(bytes.clone()), CALLER).await;
        assert_eq!(got.expect("written here"), bytes.len() as u32);
        self.model.write(node, offset, &bytes, self.world.clock.now());
    }

    async fn truncate_handle(&mut self) {
        let Some(Open { id, ino, node, write: true }) = self.handle().map(|at| &self.open[at]) else { return };
        let (id, ino, node) = (*id, *ino, *node);
        let size = self.rng.usize(..=SIZE_MAX / 2);
        self.note(format!("ftruncate {id:?} node {node} to {size}"));
        let set = Changes { size_bytes: Some(size as u64), ..Changes::default() };
        self.client.fs.setattr(ino, Some(id), set, CALLER).await.expect("cut here");
        self.model.truncate(node, size, self.world.clock.now());
    }

    async fn read(&mut self) {
        let Some(at) = self.handle() else { return };
        let Open { id, node, .. } = self.open[at];
        let expected = self.model.node(node);
        let (lost, size) = (expected.lost, expected.bytes.len());
        let (start, length) = (self.rng.usize(..=size), self.rng.usize(1..SIZE_MAX));
        self.note(format!("read {id:?} node {node} from {start}, {length} bytes"));
        let expected = &self.model.node(node).bytes[start..(start + length).min(size)];
        match self.client.fs.read(id, start as u64, length as u32).await {
            Ok(bytes) => assert!(bytes == expected, "other bytes than were written"),
            // Bytes that were never fetched here have gone with the version that another client replaced.
            Err(error) if lost => assert_eq!(error.meaning(), Meaning::Stale),
            Err(error) => panic!("read: {error}"),
        }
    }

    async fn flush_or_fsync(&mut self) {
        let Some(at) = self.handle() else { return };
        let Open { id, node, write, .. } = self.open[at];
        let fsync = self.rng.bool();
        self.note(format!("{} {id:?} node {node}", if fsync { "fsync" } else { "flush" }));
        let got = if fsync { self.client.fs.fsync(id).await } else { self.client.fs.flush(id).await };
        self.check_stored(node, got, if fsync { Stores::All } else { Stores::written(write) }).await;
    }

    async fn close(&mut self) {
        let Some(at) = self.handle() else { return };
        let Open { id, node, write, .. } = self.open.swap_remove(at);
        self.note(format!("close {id:?} node {node}"));
        let got = self.client.fs.flush(id).await;
        self.check_stored(node, got, Stores::written(write)).await;
        self.client.fs.release(id).await;
        if write && !self.model.node(node).lost {
            self.model.stored(node);
        }
    }

    /// Promises 1 to 3: an Ok means that the bytes are in the store; what cannot be stored is told.
    async fn check_stored(&mut self, node: Id, got: Result<()>, stores: Stores) {
        let expected = self.model.node(node);
        let due = match stores {
            Stores::All => expected.dirty,
            Stores::Written => expected.written,
            Stores::Nothing => false,
        };
        if !due {
            return got.expect("nothing to store");
        }
        if expected.lost {
            return assert_eq!(got.map_err(|error| error.meaning()), Err(Meaning::Stale), "written into the void");
        }
        got.expect("the store is well");
        // Stored as it stood, for want of room, and emptied by an open since: that waits for its release.
        if self.how.stage_bytes_max == STAGE_BYTES_SMALL && self.model.node(node).bytes.is_empty() {
            return;
        }
        self.model.stored(node);
        if let Some(path) = self.model.path_of(node) {
            let stored = self.world.bytes(path).await;
            assert!(stored.as_ref() == Some(&self.model.node(node).bytes), "{path}: the store has other bytes");
        }
    }

    async fn unlink(&mut self) {
        let path = self.path();
        self.note(format!("unlink {path}"));
        agree("unlink", &self.client.unlink(&path).await, &self.model.unlink(&path));
    }

    async fn mkdir(&mut self) {
        let (directory, mode) = (self.rng.choice(DIRECTORIES), self.rng.choice([0o755, 0o700]).expect("not empty"));
        let path = match directory {
            Some(path) if path.contains('/') => path.to_owned(),
            _ => self.path(),
        };
        self.note(format!("mkdir {path} {mode:o}"));
        let wanted = self.model.mkdir(&path, mode, self.world.clock.now());
        agree("mkdir", &self.client.mkdir(&path, mode).await, &wanted);
    }

    async fn rmdir(&mut self) {
        let path = self.path();
        self.note(format!("rmdir {path}"));
        agree("rmdir", &self.client.rmdir(&path).await, &self.model.rmdir(&path));
    }

    async fn rename(&mut self) {
        let (from, to, no_replace) = (self.path(), self.path(), self.rng.u8(0..5) == 0);
        self.note(format!("rename {from} to {to} no_replace: {no_replace}"));
        let wanted = self.model.rename(&from, &to, no_replace);
        agree("rename", &self.client.rename(&from, &to, no_replace).await, &wanted);
    }

    async fn setattr(&mut self) {
        let path = self.path();
        let Ok(id) = self.model.find(&path) else { return };
        let (now, kind) = (self.world.clock.now(), self.model.node(id).kind);
        let mut set = Changes::default();
        match self.rng.u8(0..4) {
            0 if kind != FileKind::Symlink => set.mode = self.rng.choice([0o640, 0o4711, 0o755]),
            1 => set.mtime = Some(SetTime::At(now - Duration::from_secs(1_000_000_000))),
            2 if kind == FileKind::File => set.size_bytes = Some(self.rng.u64(..SIZE_MAX as u64)),
            3 => set.gid = Some(self.rng.u32(1000..1003)),
            _ => return,
        }
        self.note(format!("setattr {path} {set:?}"));
        self.client.setattr(&path, set).await.expect("set");
        if let Some(size_bytes) = set.size_bytes {
            self.model.truncate(id, size_bytes as usize, now);
            self.model.stored(id);
        }
        let node = self.model.node_mut(id);
        let before = (node.mode, node.gid, node.mtime);
        node.mode = set.mode.unwrap_or(node.mode);
        if let Some(gid) = set.gid {
            node.gid = gid;
            node.mode &= if kind == FileKind::File { !0o6000 } else { !0 };
        }
        if let Some(SetTime::At(time)) = set.mtime {
            node.mtime = Some(time);
        }
        // What changes nothing stores nothing.
        node.foreign &= before == (node.mode, node.gid, node.mtime);
    }

    async fn xattr(&mut self) {
        let (path, name) = (self.path(), self.rng.choice(XATTRS).expect("not empty"));
        let Ok(id) = self.model.find(&path) else { return };
        if self.model.node(id).kind == FileKind::Symlink {
            // Linux keeps user attributes off symbolic links.
            return;
        }
        if self.rng.u8(0..4) == 0 {
            self.note(format!("removexattr {path} {name}"));
            let wanted = self.model.node_mut(id).xattrs.remove(name).map(drop).ok_or(Meaning::NoAttribute);
            return agree("removexattr", &self.client.removexattr(&path, name).await, &wanted);
        }
        let length = self.rng.usize(..20);
        let value: Vec<u8> = std::iter::repeat_with(|| self.rng.u8(..)).take(length).collect();
        self.note(format!("setxattr {path} {name} {value:?}"));
        self.client.setxattr(&path, name, &value).await.expect("set");
        let node = self.model.node_mut(id);
        node.foreign = false;
        node.xattrs.insert(name.to_owned(), value);
    }

    async fn symlink(&mut self) {
        let (path, target) = (self.path(), self.path());
        self.note(format!("symlink {path} to {target}"));
        let wanted = self.model.symlink(&path, &target, self.world.clock.now());
        agree("symlink", &self.client.symlink(&path, &target).await, &wanted);
    }

    /// lookup, getattr, readlink, readdir and getxattr of one path.
    async fn look(&mut self) {
        let path = self.path();
        self.note(format!("look at {path}"));
        let wanted = self.model.find(&path);
        let got = self.client.stat(&path).await;
        agree("stat", &got, &wanted.map(drop));
        let (Ok(entry), Ok(id)) = (got, wanted) else { return };
        let node = self.model.node(id);
        assert_eq!((entry.attr.kind, entry.attr.mode), (node.kind, node.mode), "{path}");
        let again = self.client.fs.getattr(entry.ino).await.expect("it was there just now");
        assert_eq!(again.attr, entry.attr);
        match node.kind {
            FileKind::Symlink => {
                assert_eq!(self.client.readlink(&path).await.expect("a link").as_bytes(), node.bytes);
            }
            FileKind::File => assert_eq!(entry.attr.size_bytes, node.bytes.len() as u64, "{path}"),
            FileKind::Directory => {
                let names: Vec<String> =
                    self.client.list(&path).await.expect("listed").into_iter().map(|(name, _)| name).collect();
                assert_eq!(names, self.model.children(&path), "{path}");
            }
        }
        for name in XATTRS {
            let got = self.client.fs.getxattr(entry.ino, OsStr::new(name), CALLER).await;
            assert_eq!(got.ok().as_ref(), node.xattrs.get(name), "{path}: {name}");
        }
    }

    /// Another client puts or deletes an object, and this one is told to look again.
    ///
    /// Never where this mount has unsaved changes: who wins such a race is a matter of conditional writes, and of
    /// tests of their own.
    async fn other_client(&mut self) {
        let (path, now) = (self.path(), self.world.clock.now());
        if !self.model.is_free_for_others(&path) {
            return;
        }
        if self.rng.bool() {
            let bytes = self.bytes();
            self.note(format!("another client puts {path}, {} bytes", bytes.len()));
            self.world.put(&path, bytes.clone());
            let dir_time = now;
            self.model.foreign_put(&path, &bytes, whole_seconds(now), dir_time);
        } else if self.model.find(&path).is_ok() {
            self.note(format!("another client deletes {path}"));
            self.world.delete(&path).await;
            self.model.foreign_delete(&path);
            self.vanish_empty(&path).await;
        } else {
            return;
        }
        if !self.how.ttl.is_zero() {
            self.client.refresh().await;
        }
        // What the kernel does with the invalidation: it asks.
        let got = self.client.stat(&path).await;
        agree("stat", &got, &self.model.find(&path).map(drop));
    }

    /// Directories without a marker go with the last key below them.
    async fn vanish_empty(&mut self, path: &str) {
        for (at, _) in path.rmatch_indices('/') {
            let directory = &path[..at];
            if !self.model.children(directory).is_empty() || !self.world.keys(&format!("{directory}/")).await.is_empty()
            {
                return;
            }
            self.model.vanish(directory);
        }
    }

    /// All is closed: this mount, the store, and mounts that start from nothing agree with the model.
    async fn finish(mut self) {
        while !self.open.is_empty() {
            self.close().await;
        }
        self.note("all is closed".to_owned());
        let unsaved = self.client.fs.drain().await;
        assert!(unsaved.is_empty(), "{unsaved:?}");
        compare::raw(&self.world, &self.model).await;
        compare(&self.client, &self.world, &self.model, self.how.attrs).await;
        // A mount with `--attrs full` writes no markers for one without.
        for attrs in [Attrs::Full, self.how.attrs] {
            self.note(format!("a second mount, {attrs:?}"));
            compare(&self.world.client(How { attrs, ..How::default() }), &self.world, &self.model, attrs).await;
        }
        compare::raw(&self.world, &self.model).await;
    }
}

/// What a call brings into the store.
#[derive(Clone, Copy)]
enum Stores {
    All,
    Written,
    Nothing,
}

impl Stores {
    fn written(write: bool) -> Self {
        if write { Stores::Written } else { Stores::Nothing }
    }
}

/// Both worked, or both failed and mean the same.
fn agree<T: Debug>(what: &str, got: &Result<T>, wanted: &std::result::Result<(), Meaning>) {
    let meaning = got.as_ref().map(drop).map_err(|error| error.meaning());
    assert_eq!(meaning, *wanted, "{what}: {got:?}");
}
