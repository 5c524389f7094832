//! The embedded server, killed in mid-traffic: what it acknowledged is there, and nothing is there by halves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dreamfs::store::s3::S3Store;
use dreamfs::store::{
    BucketName, Condition, GetOptions, Key, Kind, ListRequest, Location, ObjectHeaders, Result, Store,
};
use fastrand::Rng;
use futures_util::TryStreamExt;
use tokio::sync::mpsc;

use crate::conformance::real::client;
use crate::harness::Rig;

const ROUNDS: usize = 3;
const WRITERS: usize = 4;
const KEYS_PER_WRITER: usize = 60;
/// The server is killed when it has acknowledged so many writes of a round.
const ACKNOWLEDGED: Range<usize> = 200..300;
/// Of so many writes one goes as a multipart upload.
const UPLOAD_EVERY: u32 = 8;
/// Every block of a body begins with a line that says whose it is.
const BLOCK_BYTES: usize = 4096;

/// What the server owes for a key.
#[derive(Default)]
struct Debt {
    /// The version that must be there, unless the pending one is; `None` if nothing was ever acknowledged.
    acknowledged: Option<u32>,
    /// A version that was sent and got no answer. It may be there, or not.
    pending: Option<u32>,
}

/// Writes to keys of its own, one after the other, so that it knows which write of a key is the last.
struct Writer {
    chance: Rng,
    /// Counts its writes; the number of a write is the version that it makes.
    writes: u32,
    /// How many multipart uploads were completed.
    uploads: u32,
    debts: BTreeMap<String, Debt>,
}

impl Writer {
    fn new(number: usize, seed: u64) -> Writer {
        let debts = (0..KEYS_PER_WRITER).map(|key| (format!("{number}/{key:02}"), Debt::default())).collect();
        Writer { chance: Rng::with_seed(seed.wrapping_add(number as u64)), writes: 0, uploads: 0, debts }
    }

    /// Writes until the server dies; each write is told to `told` once it is acknowledged.
    async fn write(mut self, site: Site, dying: Arc<AtomicBool>, told: mpsc::UnboundedSender<()>) -> Writer {
        loop {
            let (key, debt) = self.debts.iter_mut().nth(self.chance.usize(..KEYS_PER_WRITER)).expect("a key");
            self.writes += 1;
            debt.pending = Some(self.writes);
            let uploads = self.writes.is_multiple_of(UPLOAD_EVERY);
            if let Err(error) = site.store(key, self.writes, uploads).await {
                assert!(dying.load(Ordering::SeqCst), "refused while the server was well: {error}");
                assert!(matches!(error.kind, Kind::Interrupted | Kind::Unreachable), "{error}");
                return self;
            }
            *debt = Debt { acknowledged: debt.pending, pending: None };
            self.uploads += u32::from(uploads);
            // Nobody listens any more when the server is about to be killed.
            let _ = told.send(());
        }
    }
}

/// The bucket of a run of the server.
#[derive(Clone)]
struct Site {
    store: Arc<S3Store>,
    bucket: BucketName,
    seed: u64,
}

impl Site {
    fn at(&self, key: &str) -> Location {
        Location { bucket: self.bucket.clone(), key: Key::new(key).expect("a key") }
    }

    async fn store(&self, key: &str, version: u32, as_upload: bool) -> Result<()> {
        let (location, body) = (self.at(key), body(self.seed, key, version));
        let metadata = BTreeMap::from([("version".to_owned(), version.to_string())]);
        let headers = ObjectHeaders { metadata, ..ObjectHeaders::default() };
        if !as_upload {
            return self.store.put(&location, body, &headers, &Condition::None).await.map(|_| ());
        }
        let id = self.store.create_upload(&location, &headers).await?;
        let mut parts = Vec::new();
        let middle = body.len() / 2;
        for (number, part) in [(1, body.slice(..middle)), (2, body.slice(middle..))] {
            parts.push(self.store.upload_part(&location, &id, number, part).await?);
        }
        self.store.complete_upload(&location, &id, &parts, &Condition::None).await.map(|_| ())
    }

    /// The version that is there, after a proof that it is whole; the size in bytes and the entity tag.
    async fn read(&self, key: &str) -> Option<(u32, (u64, String))> {
        let got = match self.store.get(&self.at(key), &GetOptions::default()).await {
            Err(error) if error.kind == Kind::NotFound => return None,
            got => got.unwrap_or_else(|error| panic!("{key}: {error}")),
        };
        let version = got.head.headers.metadata["version"].parse().expect("a number");
        let chunks: Vec<Bytes> = got.body.try_collect().await.unwrap_or_else(|error| panic!("{key}: {error}"));
        let (found, expected) = (chunks.concat(), body(self.seed, key, version));
        let mut blocks = found.chunks(BLOCK_BYTES).zip(expected.chunks(BLOCK_BYTES));
        if let Some((foreign, own)) = blocks.find(|(foreign, own)| foreign != own) {
            let line = |block: &[u8]| String::from_utf8_lossy(block).lines().next().unwrap_or_default().to_owned();
            panic!("torn: {:?} in place of {:?}", line(foreign), line(own));
        }
        assert_eq!(found.len(), expected.len(), "{key}: torn at its end");
        Some((version, (got.head.size_bytes, got.head.etag.to_string())))
    }

    /// Proves that the server has what it owes and nothing else, and takes what it has as what it owes from now on.
    async fn check(&self, debts: impl Iterator<Item = (&String, &mut Debt)>) {
        let mut stored = BTreeMap::new();
        for (key, debt) in debts {
            let read = self.read(key).await;
            let version = read.as_ref().map(|(version, _)| *version);
            let possible = version == debt.acknowledged || version.is_some() && version == debt.pending;
            let Debt { acknowledged, pending } = debt;
            assert!(possible, "{key}: version {version:?}; acknowledged {acknowledged:?}, pending {pending:?}");
            *debt = Debt { acknowledged: version, pending: None };
            stored.extend(read.map(|(_, facts)| (key.clone(), facts)));
        }
        let page = self.store.list(&self.bucket, &ListRequest::default()).await.expect("listed");
        assert!(page.continuation.is_none() && page.prefixes.is_empty(), "one page");
        let listed = page.objects.into_iter().map(|entry| (entry.key, (entry.size_bytes, entry.etag.to_string())));
        assert_eq!(listed.collect::<BTreeMap<_, _>>(), stored, "what is listed is what can be read");
        let buckets = self.store.list_buckets().await.expect("listed");
        assert!(buckets.len() == 1 && buckets[0].name == self.bucket, "{buckets:?}");
        let head = self.store.head_bucket(&self.bucket).await.expect("told");
        assert_eq!(head.object_count, Some(stored.len() as u64));
        assert_eq!(head.used_bytes, Some(stored.values().map(|(size, _)| size).sum()));
    }
}

/// The bytes of a version: 0 B to 2 MiB, on both sides of the size up to which the server keeps bytes and record in
/// one file. Two versions share no block, so that a mixture of them is neither.
fn body(seed: u64, key: &str, version: u32) -> Bytes {
    let salt = key.bytes().fold(u64::from(version), |salt, byte| salt.wrapping_mul(257).wrapping_add(byte.into()));
    let mut chance = Rng::with_seed(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let size = match chance.u8(..16) {
        0 => 0,
        1..=7 => chance.usize(1..5000),
        8..=9 => chance.usize((64 << 10) - 2..=(64 << 10) + 2),
        10..=13 => chance.usize(5000..300_000),
        _ => chance.usize(1 << 20..=2 << 20),
    };
    let mut bytes = vec![0; size];
    chance.fill(&mut bytes);
    for (number, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
        let line = format!("block {number} of {size} B of version {version} of {key}\n");
        let length = line.len().min(block.len());
        block[..length].copy_from_slice(&line.as_bytes()[..length]);
    }
    Bytes::from(bytes)
}

/// A write that was acknowledged survives `kill -9`, one that was not is there whole or not at all, and so again and
/// again on the same folder.
///
/// A killed process takes nothing out of the page cache with it: this proves the order of writes and renames and the
/// start after a crash, and cannot prove that anything was synced. Bytes that are written in place while they arrive
/// are found out in most runs; what is torn only between two system calls needs a few hundred rounds.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_atomic_and_survives_kill_9() {
    let seed = std::env::var("DREAMFS_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("u64"));
    println!("DREAMFS_TEST_SEED={seed}");
    let mut chance = Rng::with_seed(seed);
    let mut rig = Rig::embedded("rgw", &["--test-part-bytes-min", "0"]);
    let bucket = BucketName::new("killed").expect("a name");
    let mut site = Site { store: Arc::new(client(&rig.endpoint)), bucket, seed };
    site.store.create_bucket(&site.bucket).await.expect("created");
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
    for _ in 0..ROUNDS {
        let dying = Arc::new(AtomicBool::new(false));
        let (told, mut acknowledged) = mpsc::unbounded_channel();
        let start = |writer: Writer| tokio::spawn(writer.write(site.clone(), dying.clone(), told.clone()));
        let writing: Vec<_> = writers.drain(..).map(start).collect();
        drop(told);
        for _ in 0..chance.usize(ACKNOWLEDGED) {
            acknowledged.recv().await.expect("a writer that is still at work");
        }
        dying.store(true, Ordering::SeqCst);
        rig.kill_9();
        for writer in writing {
            // Each ends with a write that the server did not answer: the kill hit all of them at work.
            writers.push(writer.await.expect("a writer that was refused nothing"));
        }
        rig.restart();
        site.store = Arc::new(client(&rig.endpoint));
        site.check(writers.iter_mut().flat_map(|writer| &mut writer.debts)).await;
    }
    assert!(writers.iter().any(|writer| writer.uploads > 0), "some multipart uploads were completed");
}
