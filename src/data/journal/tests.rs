//! The journal against a model: a store that is told everything at once. Whatever happens between, and wherever the
//! process dies, reads answer as the model does, and in the end the store holds what the model holds. And uploads that
//! do not come through at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Config, Journal};
use crate::clock::Clock;
use crate::data::Limits;
use crate::data::state::{ALL_BUCKETS, State};
use crate::store::fault::{Failure, Fault, Rule, When};
use crate::store::memory::{MemoryLimits, MemoryStore};
use crate::store::trace::Trace;
use crate::store::{
    BucketName, Condition, CopyHeaders, CopySource, GetOptions, Key, Kind, ListRequest, Location, ObjectHeaders, Part,
    Store, operation,
};

const PART_BYTES_MIN: u64 = 100;

const KEYS: [&str; 7] = ["a", "b", "d/", "d/x", "d/y", "e/f/z", "g"];

fn at(key: &str) -> Location {
    Location { bucket: BucketName::new("bucket").expect("plain"), key: Key::new(key).expect("plain") }
}

fn memory() -> Arc<MemoryStore> {
    let limits = MemoryLimits { part_bytes_min: PART_BYTES_MIN as usize, page_keys_max: 3, ..MemoryLimits::default() };
    Arc::new(MemoryStore::with_limits(Clock::system(), limits))
}

/// A mount's journal that may die.
struct Mount {
    journal: Journal,
    stop: CancellationToken,
    sending: Option<JoinHandle<()>>,
}

impl Mount {
    async fn open(store: Arc<dyn Store>, folder: &TempDir, target: &str) -> Self {
        let (state, leftovers) = State::open(folder.path(), "memory", target).expect("a state folder");
        let limits = Limits { part_bytes_min: PART_BYTES_MIN, part_bytes: PART_BYTES_MIN, ..Limits::default() };
        let config = Config {
            accepts: true,
            sync: false,
            bytes_max: 1 << 20,
            memory_bytes_max: 16 << 20,
            requests_max: 4,
            limits,
            state: Arc::new(state),
            clock: Clock::system(),
            host_name: "here".to_owned(),
        };
        let journal = Journal::open(store, config, leftovers.journals).expect("a journal");
        let unwanted = journal.go_on_with(leftovers.uploads);
        journal.inner.sender.abort_leftovers(unwanted).await;
        Mount { journal, stop: CancellationToken::new(), sending: None }
    }

    fn send(&mut self) {
        self.sending.get_or_insert_with(|| tokio::spawn(self.journal.clone().run(self.stop.clone())));
    }

    /// As a killed process: whatever is under way is gone.
    async fn kill(mut self) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
            let _ = sending.await;
        }
        let lock = self.journal.folder().with_file_name("lock");
        drop(self);
        // What was under way, on other threads as well, lets go of the folder.
        let is_free = || std::fs::File::open(&lock).is_ok_and(|lock| lock.try_lock().is_ok());
        while !is_free() {
            tokio::task::yield_now().await;
        }
    }

    async fn drain(&mut self) {
        self.send();
        self.journal.drain(Duration::from_secs(3600), |_| ()).await;
        assert_eq!(self.journal.left(), []);
    }
}

async fn content(store: &dyn Store, key: &str) -> Option<(Bytes, BTreeMap<String, String>)> {
    match store.get(&at(key), &GetOptions::default()).await {
        Ok(got) => {
            let pieces: Vec<Bytes> = got.body.try_collect().await.expect("a whole body");
            Some((pieces.concat().into(), got.head.headers.metadata))
        }
        Err(error) => {
            assert_eq!(error.kind, Kind::NotFound, "{key}: {error}");
            None
        }
    }
}

async fn names(store: &dyn Store, delimited: bool, prefix: &str) -> (Vec<String>, Vec<String>) {
    let mut request = ListRequest { prefix: prefix.to_owned(), delimited, ..ListRequest::default() };
    request.keys_max = [None, Some(1), Some(2)][fastrand::usize(..3)];
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    loop {
        let page = store.list(&at("a").bucket, &request).await.expect("listed");
        keys.extend(page.objects.into_iter().map(|object| format!("{} {}", object.key, object.size_bytes)));
        prefixes.extend(page.prefixes);
        match page.continuation {
            Some(token) => request.continuation = Some(token),
            None => return (keys, prefixes),
        }
    }
}

fn headers(random: &mut fastrand::Rng) -> ObjectHeaders {
    // Times to the nanosecond are what our own versions are recognized by.
    let metadata = BTreeMap::from([("mtime".to_owned(), format!("{}.{:09}", 1, random.u32(..1_000_000_000)))]);
    ObjectHeaders { metadata, ..ObjectHeaders::default() }
}

/// What one step does, to the model and to the journal alike; the answer's kind.
#[derive(Clone, Debug)]
enum Step {
    Put(&'static str, Bytes, ObjectHeaders),
    Delete(&'static str),
    Copy(&'static str, &'static str, Option<ObjectHeaders>),
    /// A part of its own, then a part of another object.
    Parts(&'static str, Bytes, &'static str, u64, ObjectHeaders),
}

impl Step {
    fn random(random: &mut fastrand::Rng) -> Self {
        let mut key = || KEYS[random.usize(..KEYS.len())];
        let (one, other) = (key(), key());
        let bytes = Bytes::from(vec![random.u8(..); random.usize(..350)]);
        match random.u8(..8) {
            0..=2 => Step::Put(one, bytes, headers(random)),
            3..=4 => Step::Delete(one),
            5..=6 => Step::Copy(
                one,
                other,
                random.bool().then(|| headers(random)).or_else(|| (one == other).then(|| headers(random))),
            ),
            _ => Step::Parts(one, Bytes::from(vec![random.u8(..); 120]), other, random.u64(1..300), headers(random)),
        }
    }

    async fn run(&self, store: &dyn Store) -> Option<Kind> {
        let done = match self {
            Step::Put(key, bytes, headers) => {
                store.put(&at(key), bytes.clone(), headers, &Condition::None).await.map(drop)
            }
            Step::Delete(key) => store.delete(&at(key), None).await,
            Step::Copy(from, to, headers) => {
                let source = CopySource { location: at(from), if_match: None };
                let headers =
                    headers.clone().map_or(CopyHeaders::Keep { acl: None, storage_class: None }, CopyHeaders::Replace);
                store.copy(&source, &at(to), &headers).await.map(drop)
            }
            Step::Parts(key, bytes, from, length, headers) => {
                Self::parts(store, key, bytes, from, *length, headers).await
            }
        };
        done.err().map(|error| error.kind)
    }

    async fn parts(
        store: &dyn Store,
        key: &str,
        bytes: &Bytes,
        from: &str,
        length: u64,
        headers: &ObjectHeaders,
    ) -> crate::store::Result<()> {
        let head = store.head(&at(from), None).await?;
        let id = store.create_upload(&at(key), headers).await?;
        let mut parts: Vec<Part> = vec![store.upload_part(&at(key), &id, 1, bytes.clone()).await?];
        let range = 0..length.min(head.size_bytes);
        if !range.is_empty() {
            let source = CopySource { location: at(from), if_match: Some(head.etag) };
            parts.push(store.upload_part_copy(&at(key), &id, 2, &source, range).await?);
        }
        store.complete_upload(&at(key), &id, &parts, &Condition::None).await.map(drop)
    }
}

async fn compare(model: &dyn Store, mount: &dyn Store, about: &str) {
    for key in KEYS {
        assert_eq!(content(mount, key).await, content(model, key).await, "{about}: {key}");
        let size = |head: crate::store::Result<crate::store::ObjectHead>| head.ok().map(|head| head.size_bytes);
        assert_eq!(size(mount.head(&at(key), None).await), size(model.head(&at(key), None).await), "{about}: {key}");
    }
    for (delimited, prefix) in [(false, ""), (true, ""), (true, "d/"), (false, "e/")] {
        assert_eq!(names(mount, delimited, prefix).await, names(model, delimited, prefix).await, "{about}: {prefix}");
    }
}

/// Random changes, with the store carrying them out now and then, failing now and then, and the process dying now and
/// then.
#[tokio::test(start_paused = true)]
async fn the_journal_answers_like_the_store_will() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (model, real) = (memory(), memory());
        model.create_bucket(&at("a").bucket).await.expect("made");
        real.create_bucket(&at("a").bucket).await.expect("made");
        let rules = [
            operation::PUT_OBJECT,
            operation::COPY_OBJECT,
            operation::COMPLETE_MULTIPART_UPLOAD,
            operation::DELETE_OBJECT,
            operation::UPLOAD_PART,
        ]
        .into_iter()
        .flat_map(|name| {
            let rule = |failure| Rule { operation: Some(name), when: When::Chance(0.15), failure };
            [rule(Failure::Refuse), rule(Failure::DoneThenFailed)]
        });
        let store = Arc::new(Fault::new(real.clone(), seed, rules.collect()));
        let folder = tempfile::tempdir().expect("room");
        let mut mount = Mount::open(store.clone(), &folder, "bucket").await;
        for number in 0..random.usize(1..25) {
            let step = Step::random(&mut random);
            let about = format!("seed {seed}, step {number}: {step:?}");
            assert_eq!(step.run(&mount.journal).await, step.run(&*model).await, "{about}");
            match random.u8(..10) {
                0 => mount.send(),
                1 => mount.drain().await,
                2 => {
                    mount.kill().await;
                    // The next one may have a folder of its own, and takes over.
                    mount = Mount::open(store.clone(), &folder, ["bucket", ALL_BUCKETS][random.usize(..2)]).await;
                    // What was carried out and not marked is only told apart by asking: readers wait for that.
                    mount.send();
                }
                3..=5 => tokio::task::yield_now().await,
                _ => {}
            }
            compare(&*model, &mount.journal, &about).await;
        }
        mount.drain().await;
        compare(&*model, &*real, &format!("seed {seed}, at the end")).await;
        assert_eq!(uploads(&*real).await, [], "seed {seed}");
        mount.kill().await;
        for target in ["bucket", ALL_BUCKETS] {
            let mount = Mount::open(store.clone(), &folder, target).await;
            let contents = mount.journal.folder().join("content");
            assert_eq!(std::fs::read_dir(contents).expect("there").count(), 0, "seed {seed}: nothing is left on disk");
            mount.kill().await;
        }
    }
}

/// Ten parts.
fn long() -> Bytes {
    (0..10 * PART_BYTES_MIN).map(|at| (at / 7) as u8).collect()
}

/// A journal that has taken a long object in, over a store in which the part that is sent as the `nth` fails so.
async fn with_a_failing_part(nth: u64, failure: Failure) -> (Arc<MemoryStore>, Arc<Trace>, Mount, TempDir) {
    let (real, folder) = (memory(), tempfile::tempdir().expect("room"));
    real.create_bucket(&at("a").bucket).await.expect("made");
    let rule = Rule { operation: Some(operation::UPLOAD_PART), when: When::Nth(nth), failure };
    let store = Arc::new(Trace::new(Arc::new(Fault::new(real.clone(), 0, vec![rule]))));
    let mount = Mount::open(store.clone(), &folder, "bucket").await;
    let headers = headers(&mut fastrand::Rng::with_seed(0));
    mount.journal.put(&at("a"), long(), &headers, &Condition::IfAbsent).await.expect("taken in");
    (real, store, mount, folder)
}

async fn uploads(store: &dyn Store) -> Vec<(String, String)> {
    store.list_uploads(&at("a").bucket, None).await.expect("listed").uploads
}

fn counts(trace: &Trace) -> [u64; 4] {
    let counts = trace.counts();
    let of = [
        operation::CREATE_MULTIPART_UPLOAD,
        operation::UPLOAD_PART,
        operation::LIST_PARTS,
        operation::ABORT_MULTIPART_UPLOAD,
    ];
    of.map(|name| counts.get(name).copied().unwrap_or(0))
}

/// Time stands still: this waits for nothing but the work.
async fn six_parts_arrive(mount: &mut Mount, trace: &Trace) {
    mount.send();
    while counts(trace)[1] < 6 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The store goes away and comes back: the one part is sent again that has not arrived.
#[tokio::test(start_paused = true)]
async fn what_fails_in_the_middle_goes_on_there() {
    let (real, trace, mut mount, _folder) = with_a_failing_part(7, Failure::Refuse).await;
    mount.drain().await;
    // The store here lists three parts at once.
    assert_eq!(counts(&trace), [1, 11, 2, 0]);
    assert_eq!(content(&*real, "a").await.expect("stored").0, long());
    assert_eq!(uploads(&*real).await, []);
}

/// Somebody aborts the upload while it is under way. That is no rival's version: nothing goes beside the name.
#[tokio::test(start_paused = true)]
async fn an_upload_that_somebody_aborts_begins_anew() {
    let (real, trace, mut mount, _folder) = with_a_failing_part(7, Failure::Slow(Duration::from_secs(10))).await;
    six_parts_arrive(&mut mount, &trace).await;
    for (key, id) in uploads(&*real).await {
        real.abort_upload(&at(&key), &id).await.expect("aborted");
    }
    mount.drain().await;
    let page = real.list(&at("a").bucket, &ListRequest::default()).await.expect("listed");
    assert_eq!(page.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(content(&*real, "a").await.expect("stored").0, long());
    assert_eq!(uploads(&*real).await, []);
}

/// Another client deletes an object that a change takes bytes from: that change can never go up, and is given up, so that
/// what waits behind it goes.
#[tokio::test(start_paused = true)]
async fn a_source_that_is_gone_holds_up_nothing() {
    let (real, folder) = (memory(), tempfile::tempdir().expect("room"));
    real.create_bucket(&at("a").bucket).await.expect("made");
    let headers = headers(&mut fastrand::Rng::with_seed(0));
    for key in ["a", "old"] {
        real.put(&at(key), long(), &headers, &Condition::None).await.expect("stored");
    }
    let mut mount = Mount::open(real.clone(), &folder, "bucket").await;
    let (bytes, length) = (long().slice(..PART_BYTES_MIN as usize), 3 * PART_BYTES_MIN);
    Step::parts(&mount.journal, "b", &bytes, "a", length, &headers).await.expect("taken in");
    mount.journal.delete(&at("old"), None).await.expect("taken in");
    real.delete(&at("a"), None).await.expect("deleted");
    mount.drain().await;
    assert_eq!((content(&*real, "b").await, content(&*real, "old").await), (None, None));
}

/// The next mount deletes the name before it goes on with its upload, which is aborted then.
#[tokio::test(start_paused = true)]
async fn nobody_goes_on_with_what_is_deleted() {
    let (real, trace, mut mount, folder) = with_a_failing_part(7, Failure::Slow(Duration::MAX)).await;
    six_parts_arrive(&mut mount, &trace).await;
    mount.kill().await;
    assert_eq!(uploads(&*real).await.len(), 1);
    let mut mount = Mount::open(trace.clone(), &folder, "bucket").await;
    mount.journal.delete(&at("a"), None).await.expect("taken in");
    mount.drain().await;
    assert_eq!((uploads(&*real).await, content(&*real, "a").await), (vec![], None));
    assert_eq!(counts(&trace)[2..], [0, 1]);
}
