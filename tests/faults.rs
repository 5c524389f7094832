//! Every verb × every fault: what a network or a store can do to a request, done to each request of each verb.
//!
//! A fault that passes is survived: the verb works. One that lasts is told by the verb with the errno that README
//! names, nothing is lost, and when it has passed the same verb works. Time is tokio's own and stands still while
//! anything is at work, so that no test waits.

use std::ffi::OsStr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use dreamfs::error::{Error, Meaning, Result};
use dreamfs::format::header::Posix;
use dreamfs::fs::attr::Changes;
use dreamfs::fs::open::HandleId;
use dreamfs::store::fault::{Failure, Rule, When};
use dreamfs::store::{AclTarget, Store, operation as op};
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::stand::{CALLER, Client, How, READ, WRITE, World};

/// What the store has of a file before a verb, and what a verb writes. Large files are stored in parts.
const OLD: &[u8] = b"what was there before";
const NEW: &[u8] = b"what is written now, which is longer";
const LARGE_BYTES: usize = 30_000;

/// The verbs, each in the form that needs the most requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Lookup,
    List,
    Read,
    Create,
    Write,
    WriteLarge,
    Append,
    /// The append that makes the file one that grows.
    Turn,
    Fsync,
    SetMode,
    SetSize,
    SetXattr,
    GetAcl,
    SetAcl,
    Mkdir,
    Rmdir,
    Unlink,
    UnlinkOpen,
    RenameFile,
    RenameOver,
    RenameLarge,
    RenameDirectory,
    Symlink,
    Readlink,
    Statfs,
    Drain,
}

const VERBS: [Verb; 26] = [
    Verb::Lookup,
    Verb::List,
    Verb::Read,
    Verb::Create,
    Verb::Write,
    Verb::WriteLarge,
    Verb::Append,
    Verb::Turn,
    Verb::Fsync,
    Verb::SetMode,
    Verb::SetSize,
    Verb::SetXattr,
    Verb::GetAcl,
    Verb::SetAcl,
    Verb::Mkdir,
    Verb::Rmdir,
    Verb::Unlink,
    Verb::UnlinkOpen,
    Verb::RenameFile,
    Verb::RenameOver,
    Verb::RenameLarge,
    Verb::RenameDirectory,
    Verb::Symlink,
    Verb::Readlink,
    Verb::Statfs,
    Verb::Drain,
];

/// Every request that a mounted bucket can need.
const OPERATIONS: [&str; 15] = [
    op::HEAD_BUCKET,
    op::LIST_OBJECTS,
    op::HEAD_OBJECT,
    op::GET_OBJECT,
    op::PUT_OBJECT,
    op::APPEND_OBJECT,
    op::COPY_OBJECT,
    op::DELETE_OBJECT,
    op::DELETE_OBJECTS,
    op::CREATE_MULTIPART_UPLOAD,
    op::UPLOAD_PART,
    op::UPLOAD_PART_COPY,
    op::COMPLETE_MULTIPART_UPLOAD,
    op::GET_ACL,
    op::PUT_ACL,
];

/// Faults that pass: a delay is shorter than the time limit, a body breaks in its middle.
const PASSING: [Failure; 5] = [
    Failure::Refuse,
    Failure::ServerError,
    Failure::CutBody(7),
    Failure::Slow(Duration::from_secs(30)),
    Failure::DoneThenFailed,
];

/// Faults that last, and what they mean to the caller: a body that brings no byte, an answer that never comes.
const LASTING: [(Failure, Meaning); 5] = [
    (Failure::Refuse, Meaning::Io),
    (Failure::ServerError, Meaning::Io),
    (Failure::CutBody(0), Meaning::Io),
    (Failure::Slow(Duration::from_secs(1_000_000)), Meaning::TimedOut),
    (Failure::DoneThenFailed, Meaning::Io),
];

/// How long a verb may take while the store is silent: the time limit of a request, and once more for tidying up behind
/// it. A store that answers, with errors, is asked a bounded number of times.
const PATIENCE_WITH_SILENCE: Duration = Duration::from_secs(125);
const PATIENCE: Duration = Duration::from_secs(250);

/// A verb in a world of its own.
struct Cell {
    verb: Verb,
    world: World,
    client: Client,
    handle: Option<HandleId>,
}

fn large() -> Vec<u8> {
    (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect()
}

/// A store with files that have a mode, an attribute and an ACL of their own.
async fn furnished() -> World {
    let world = World::new(1000).await;
    let other = world.client(How::default());
    let make = async {
        for directory in ["d", "d/empty", "d/sub"] {
            other.mkdir(directory, 0o755).await?;
        }
        other.symlink("d/link", "old").await?;
        for (path, bytes) in [("d/old", OLD), ("d/other", b"another file"), ("d/sub/1", OLD), ("d/sub/2", OLD)] {
            other.write(path, bytes).await?;
        }
        other.write("d/large", &large()).await?;
        for path in ["d/old", "d/large", "d/sub/1", "d/sub/2"] {
            other.setattr(path, Changes { mode: Some(0o640), ..Changes::default() }).await?;
            other.setxattr(path, "user.colour", b"blue").await?;
            other.setxattr(path, "user.s3.acl", b"public-read").await?;
        }
        Ok::<_, Error>(())
    };
    make.await.expect("the store is well");
    world
}

impl Cell {
    async fn new(verb: Verb, seed: u64) -> Cell {
        let world = furnished().await;
        let client = world.client(How { seed, ..How::default() });
        let mut cell = Cell { verb, world, client, handle: None };
        cell.prepare().await.expect("the store is well");
        cell
    }

    /// What happens before things go wrong. The kernel knows the names that a verb is about; lookup itself and list
    /// start from nothing.
    async fn prepare(&mut self) -> Result<()> {
        match self.verb {
            Verb::Lookup | Verb::List => return Ok(()),
            Verb::Create => self.handle = Some(self.client.create("d/new", 0o640, WRITE).await?.1),
            Verb::Write => self.handle = Some(self.client.open("d/old", WRITE).await?.1),
            Verb::WriteLarge => self.handle = Some(self.client.open("d/large", WRITE).await?.1),
            Verb::Append | Verb::Turn => {
                self.handle = Some(self.client.open("d/large", WRITE).await?.1);
                for count in 0..self.appends() - 1 {
                    self.write_at((LARGE_BYTES + count * NEW.len()) as u64).await?;
                    self.client.fs.fsync(self.handle()).await?;
                }
                // What was turned leaves something to delete behind.
                self.client.fs.drain().await;
            }
            Verb::Fsync => {
                self.handle = Some(self.client.open("d/old", WRITE).await?.1);
                self.write_at(0).await?;
            }
            Verb::UnlinkOpen => self.handle = Some(self.client.open("d/old", READ).await?.1),
            Verb::Drain => {
                let (_, id) = self.client.create("d/new", 0o640, WRITE).await?;
                self.fail(None, When::Chance(1.0), Failure::Refuse);
                self.client.fs.write(id, 0, Bytes::from_static(NEW), CALLER).await?;
                self.client.fs.release(id).await;
                self.client.fault.set_rules(Vec::new());
            }
            _ => _ = self.client.stat("d/old").await?,
        }
        Ok(())
    }

    fn fail(&self, operation: Option<&'static str>, when: When, failure: Failure) {
        self.client.fault.set_rules(vec![Rule { operation, when, failure }]);
    }

    fn handle(&self) -> HandleId {
        self.handle.expect("opened before")
    }

    /// How many appends there are, the one of the verb included. From the third on the file grows.
    fn appends(&self) -> usize {
        if self.verb == Verb::Append { 4 } else { 3 }
    }

    async fn write_at(&self, offset: u64) -> Result<()> {
        self.client.fs.write(self.handle(), offset, Bytes::from_static(NEW), CALLER).await.map(drop)
    }

    /// The verb itself.
    async fn act(&self) -> Result<()> {
        let (client, fs) = (&self.client, &self.client.fs);
        match self.verb {
            Verb::Lookup => client.stat("d/old").await.map(drop),
            Verb::List => client.list("d").await.map(drop),
            Verb::Read => client.read("d/old").await.map(|bytes| assert_eq!(bytes, OLD)),
            Verb::Create | Verb::Write => {
                self.write_at(0).await?;
                fs.flush(self.handle()).await
            }
            Verb::WriteLarge => {
                self.write_at(LARGE_BYTES as u64 - 10_000).await?;
                fs.flush(self.handle()).await
            }
            Verb::Append | Verb::Turn => {
                self.write_at((LARGE_BYTES + (self.appends() - 1) * NEW.len()) as u64).await?;
                fs.fsync(self.handle()).await
            }
            Verb::Fsync => fs.fsync(self.handle()).await,
            Verb::SetMode => set(client, Changes { mode: Some(0o600), ..Changes::default() }).await,
            Verb::SetSize => set(client, Changes { size_bytes: Some(4), ..Changes::default() }).await,
            Verb::SetXattr => client.setxattr("d/old", "user.shape", b"round").await,
            Verb::GetAcl => {
                let acl = client.getxattr("d/old", "user.s3.acl").await;
                acl.map(|acl| assert_eq!(acl, b"public-read"))
            }
            Verb::SetAcl => client.setxattr("d/old", "user.s3.acl", b"authenticated-read").await,
            Verb::Mkdir => client.mkdir("d/made", 0o755).await,
            Verb::Rmdir => client.rmdir("d/empty").await,
            Verb::Unlink | Verb::UnlinkOpen => client.unlink("d/old").await,
            Verb::RenameFile => client.rename("d/old", "d/moved", false).await,
            Verb::RenameOver => client.rename("d/old", "d/other", false).await,
            Verb::RenameLarge => client.rename("d/large", "d/moved", false).await,
            Verb::RenameDirectory => client.rename("d/sub", "d/moved", false).await,
            Verb::Symlink => client.symlink("d/made", "old").await,
            Verb::Readlink => client.readlink("d/link").await.map(|target| assert_eq!(target, "old")),
            Verb::Statfs => {
                fs.statfs(client.walk("d").await?).await;
                Ok(())
            }
            Verb::Drain => match fs.drain().await.as_slice() {
                [] => Ok(()),
                [unsaved] => Err(Error::new(Meaning::Io, unsaved.path.clone())),
                more => panic!("one file was written: {more:?}"),
            },
        }
    }

    /// The same once more, after an error: what was written is still in the file, and fsync stores it.
    async fn act_again(&self) -> Result<()> {
        match self.verb {
            Verb::Create | Verb::Write | Verb::WriteLarge | Verb::Append | Verb::Turn | Verb::Fsync => {
                self.client.fs.fsync(self.handle()).await
            }
            _ => self.act().await,
        }
    }

    /// What an error of the first try, which yet was carried out, makes of the second.
    fn was_done(&self) -> Option<Meaning> {
        match self.verb {
            Verb::Mkdir | Verb::Symlink => Some(Meaning::Exists),
            Verb::Rmdir | Verb::Unlink | Verb::UnlinkOpen => Some(Meaning::NotFound),
            Verb::RenameFile | Verb::RenameOver | Verb::RenameLarge | Verb::RenameDirectory => Some(Meaning::NotFound),
            _ => None,
        }
    }

    /// The store has what the verb is to make of it.
    async fn check_done(&self) {
        let absent = |key: &'static str| async move { assert_eq!(self.world.bytes(key).await, None, "{key}") };
        match self.verb {
            Verb::Lookup | Verb::List | Verb::Read | Verb::GetAcl | Verb::Readlink | Verb::Statfs => {
                self.check_file("d/old", OLD, 0o640, "public-read").await;
            }
            Verb::Create | Verb::Drain => self.check_bytes("d/new", NEW).await,
            Verb::Write | Verb::Fsync => self.check_file("d/old", NEW, 0o640, "public-read").await,
            Verb::WriteLarge => self.check_file("d/large", &edited(), 0o640, "public-read").await,
            Verb::Append | Verb::Turn => {
                self.check_file("d/large", &appended(self.appends()), 0o640, "public-read").await;
            }
            Verb::SetMode => self.check_file("d/old", OLD, 0o600, "public-read").await,
            Verb::SetSize => self.check_file("d/old", &OLD[..4], 0o640, "public-read").await,
            Verb::SetXattr => {
                self.check_file("d/old", OLD, 0o640, "public-read").await;
                let (head, _) = self.world.object("d/old").await.expect("stored");
                assert_eq!(head.headers.metadata.get("shape").map(String::as_str), Some("round"));
            }
            Verb::SetAcl => self.check_file("d/old", OLD, 0o640, "authenticated-read").await,
            Verb::Mkdir => self.check_bytes("d/made/", b"").await,
            Verb::Rmdir => absent("d/empty/").await,
            Verb::Unlink | Verb::UnlinkOpen => absent("d/old").await,
            Verb::RenameFile => {
                self.check_file("d/moved", OLD, 0o640, "public-read").await;
                absent("d/old").await;
            }
            Verb::RenameOver => {
                self.check_file("d/other", OLD, 0o640, "public-read").await;
                absent("d/old").await;
            }
            Verb::RenameLarge => {
                self.check_file("d/moved", &large(), 0o640, "public-read").await;
                absent("d/large").await;
            }
            Verb::RenameDirectory => {
                self.check_file("d/moved/1", OLD, 0o640, "public-read").await;
                self.check_file("d/moved/2", OLD, 0o640, "public-read").await;
                assert_eq!(self.world.keys("d/sub").await, Vec::<String>::new());
            }
            Verb::Symlink => self.check_bytes("d/made", b"old").await,
        }
        if self.verb == Verb::UnlinkOpen {
            let read = self.client.fs.read(self.handle(), 0, 100).await.expect("an open file keeps its bytes");
            assert_eq!(read, OLD);
        }
    }

    /// After an error: every object is whole, the old one or the new one, under its old name or its new one.
    async fn check_nothing_lost(&self) {
        let whole: [(&[&str], &[&[u8]]); 5] = [
            (&["d/old", "d/moved", "d/other"], &[OLD, NEW, &OLD[..4]]),
            (&["d/large", "d/moved"], &[&large(), &edited(), &appended(2), &appended(3), &appended(4)]),
            (&["d/sub/1", "d/moved/1"], &[OLD]),
            (&["d/sub/2", "d/moved/2"], &[OLD]),
            (&["d/other"], &[b"another file", OLD]),
        ];
        let is_removed = matches!(self.verb, Verb::Unlink | Verb::UnlinkOpen);
        for (keys, contents) in whole.iter().skip(usize::from(is_removed)) {
            let mut found = false;
            for key in *keys {
                let bytes = self.world.bytes(key).await;
                found |= bytes.is_some_and(|bytes| contents.contains(&bytes.as_slice()));
            }
            assert!(found, "lost: {keys:?}");
        }
        if let (Some(id), false) = (self.handle, self.verb == Verb::UnlinkOpen) {
            let read = self.client.fs.read(id, 0, LARGE_BYTES as u32).await;
            let written = read.is_ok_and(|bytes| bytes.windows(NEW.len()).any(|window| window == NEW));
            // Old bytes may be out of reach; what was written is here.
            let is_large = matches!(self.verb, Verb::WriteLarge | Verb::Append | Verb::Turn);
            assert!(written || is_large, "what was written is gone from the file");
        }
    }

    async fn check_bytes(&self, key: &str, wanted: &[u8]) {
        let bytes = self.world.bytes(key).await.unwrap_or_else(|| panic!("{key} is not stored"));
        assert!(bytes == wanted, "{key}: {:?}", String::from_utf8_lossy(&bytes));
    }

    /// Promise 6: content changes, or metadata, or the name; the rest stays.
    async fn check_file(&self, key: &str, wanted: &[u8], mode: u32, acl: &str) {
        self.check_bytes(key, wanted).await;
        let (head, _) = self.world.object(key).await.expect("just seen");
        let stored_mode = Posix::read(&head.headers.metadata).mode.map(|mode| mode & 0o7777);
        assert_eq!(stored_mode, Some(mode), "{key}");
        assert_eq!(head.headers.metadata.get("colour").map(String::as_str), Some("blue"), "{key}");
        let target = AclTarget::Object(self.world.location(key));
        let stored_acl = self.world.memory.get_acl(&target).await.expect("memory answers");
        assert_eq!(stored_acl.canned_name(), Some(acl), "{key}");
    }
}

async fn set(client: &Client, set: Changes) -> Result<()> {
    client.setattr("d/old", set).await.map(drop)
}

/// The large file after an edit near its end.
fn edited() -> Vec<u8> {
    let mut bytes = large();
    bytes[LARGE_BYTES - 10_000..][..NEW.len()].copy_from_slice(NEW);
    bytes
}

/// The large file after so many appends.
fn appended(count: usize) -> Vec<u8> {
    [large(), NEW.repeat(count)].concat()
}

/// All cells run, and those that fail are named together.
#[derive(Default)]
struct Cells {
    count: u64,
    failed: Vec<String>,
}

impl Cells {
    async fn run<F: Future<Output = ()>>(&mut self, name: String, cell: impl FnOnce(u64) -> F) {
        let seed = self.count;
        self.count += 1;
        println!("{name}, seed {seed}");
        if AssertUnwindSafe(cell(seed)).catch_unwind().await.is_err() {
            self.failed.push(name);
        }
    }

    fn report(self, test: &str) {
        println!("{test}: {} cells", self.count);
        assert!(self.failed.is_empty(), "{} of {} failed:\n{}", self.failed.len(), self.count, self.failed.join("\n"));
    }
}

/// How often each operation is called by a verb to which nothing happens.
async fn calls_of(verb: Verb) -> Vec<(&'static str, u64)> {
    let cell = Cell::new(verb, 0).await;
    let before = OPERATIONS.map(|operation| cell.client.fault.calls(operation));
    cell.act().await.unwrap_or_else(|error| panic!("{verb:?}: {error}"));
    cell.check_done().await;
    let calls = OPERATIONS.iter().zip(before).map(|(name, before)| (*name, cell.client.fault.calls(name) - before));
    // What is deleted behind a file that was turned nobody waits for.
    let awaited = calls.filter(|(name, _)| verb != Verb::Turn || *name != op::DELETE_OBJECT);
    awaited.filter(|(_, count)| *count > 0).collect()
}

/// The nth request of an operation fails once: the verb works as if nothing had been.
#[tokio::test(start_paused = true)]
async fn faults_that_pass_are_survived() {
    let mut cells = Cells::default();
    for verb in VERBS {
        for (operation, count) in calls_of(verb).await {
            for failure in PASSING {
                if matches!(failure, Failure::CutBody(_)) && operation != op::GET_OBJECT {
                    continue;
                }
                for nth in 1..=count {
                    let name = format!("{verb:?}: request {nth} of {operation}: {failure:?}");
                    cells.run(name, |seed| pass(verb, operation, nth, failure, seed)).await;
                }
            }
        }
    }
    cells.report("faults_that_pass_are_survived");
}

async fn pass(verb: Verb, operation: &'static str, nth: u64, failure: Failure, seed: u64) {
    let cell = Cell::new(verb, seed).await;
    let fault = &cell.client.fault;
    let before = fault.injected();
    cell.fail(Some(operation), When::Nth(fault.calls(operation) + nth), failure);
    cell.act().await.unwrap_or_else(|error| panic!("{error}"));
    assert!(fault.injected() > before, "nothing went wrong");
    cell.check_done().await;
}

/// An operation fails for as long as the verb tries: the verb says so, loses nothing, and works when the store does.
#[tokio::test(start_paused = true)]
async fn faults_that_last_are_told_and_lose_nothing() {
    let mut cells = Cells::default();
    for verb in VERBS {
        let operations = calls_of(verb).await.into_iter().map(|(operation, _)| Some(operation));
        for operation in operations.chain([None]) {
            for (failure, meaning) in LASTING {
                if matches!(failure, Failure::CutBody(_)) && operation != Some(op::GET_OBJECT) {
                    continue;
                }
                let name = format!("{verb:?}: every {}: {failure:?}", operation.unwrap_or("request"));
                cells.run(name, |seed| last(verb, operation, failure, meaning, seed)).await;
            }
        }
    }
    cells.report("faults_that_last_are_told_and_lose_nothing");
}

async fn last(verb: Verb, operation: Option<&'static str>, failure: Failure, meaning: Meaning, seed: u64) {
    let cell = Cell::new(verb, seed).await;
    let (before, started) = (cell.client.fault.injected(), Instant::now());
    cell.fail(operation, When::Chance(1.0), failure);
    let told = cell.act().await;
    assert!(cell.client.fault.injected() > before, "nothing went wrong");
    let patience = if meaning == Meaning::TimedOut { PATIENCE_WITH_SILENCE } else { PATIENCE };
    assert!(started.elapsed() <= patience, "it took {:?}", started.elapsed());
    cell.client.fault.set_rules(Vec::new());
    match told {
        // df shows what was last known, and never fails or hangs.
        Ok(()) if verb == Verb::Statfs => assert!(started.elapsed() <= Duration::from_secs(2)),
        // The look behind an append that was answered is for the sake of the next one.
        Ok(()) if verb == Verb::Append && operation == Some(op::HEAD_OBJECT) => {}
        // The answer was lost and the verb looked for itself.
        Ok(()) if failure == Failure::DoneThenFailed => {}
        Ok(()) => panic!("it should have failed"),
        Err(error) => {
            let meaning = if verb == Verb::Drain { Meaning::Io } else { meaning };
            assert_eq!(error.meaning(), meaning, "{error}");
        }
    }
    cell.check_nothing_lost().await;
    match cell.act_again().await {
        Err(error) if failure == Failure::DoneThenFailed => {
            assert_eq!(Some(error.meaning()), cell.was_done(), "{error}");
        }
        again => again.unwrap_or_else(|error| panic!("the store is well again: {error}")),
    }
    cell.check_done().await;
}

/// A file whose close could not be heard: its state says why, and the next open tells, once.
#[tokio::test(start_paused = true)]
async fn what_nobody_heard_is_told_by_the_next_open() {
    let cell = Cell::new(Verb::Drain, 0).await;
    let state = cell.client.getxattr("d/new", "user.s3.upload").await.expect("virtual");
    assert!(state.starts_with(b"failed "), "{}", String::from_utf8_lossy(&state));
    let told = cell.client.open("d/new", READ).await;
    assert_eq!(told.map(drop).map_err(|error| error.meaning()), Err(Meaning::Io));
    let (ino, id) = cell.client.open("d/new", READ).await.expect("it was told");
    assert_eq!(cell.client.fs.read(id, 0, 100).await.expect("its bytes are here"), NEW);
    cell.client.fs.fsync(id).await.expect("the store is well again");
    let state = cell.client.fs.getxattr(ino, OsStr::new("user.s3.upload"), CALLER).await.expect("virtual");
    assert_eq!(state, b"stored");
    cell.check_done().await;
}

/// A file that is opened while its directory moves goes with it: it is read, and moved on, where it lies then.
#[tokio::test(start_paused = true)]
async fn a_file_opened_while_its_directory_moves_goes_with_it() {
    let cell = Cell::new(Verb::RenameDirectory, 0).await;
    cell.fail(Some(op::COPY_OBJECT), When::Chance(1.0), Failure::Slow(Duration::from_secs(30)));
    let opening = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cell.client.open("d/old", READ).await
    };
    let (moved, opened) = tokio::join!(cell.client.rename("d", "moved", false), opening);
    moved.expect("moved");
    let (_, id) = opened.expect("opened in mid-move");
    cell.client.fault.set_rules(Vec::new());
    assert!(!cell.client.fs.read(id, 0, 100).await.expect("read").is_empty());
    cell.client.rename("moved/old", "old", false).await.expect("it lies where its name says");
    cell.client.close(id).await.expect("closed");
    assert!(!cell.client.read("old").await.expect("read").is_empty());
}
