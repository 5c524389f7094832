//! The cache on disk as its callers see it, and what damage, a crash, a full disk and other mounts do to it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tempfile::TempDir;

use super::health::Room;
use super::*;
use crate::store::{BucketName, ETag, Key, Location};

/// The unit of these tests: small, so that many fit.
const UNIT: u64 = 4096;
const AMPLE: u64 = 64 << 20;

/// What may wait to be written in these tests.
const QUEUE_BYTES_MAX: u64 = 16 << 20;

struct Place {
    dir: TempDir,
    bytes_max: u64,
    clock: Clock,
}

impl Place {
    fn new(bytes_max: u64) -> Place {
        let now = Clock::system().now();
        Place { dir: tempfile::tempdir().expect("room"), bytes_max, clock: Clock::fixed(now) }
    }

    fn open(&self) -> DiskCache {
        self.open_with(|_| Ok(Room { total: 1 << 40, available: 1 << 40 }))
    }

    fn open_with(&self, room: impl Fn(&File) -> io::Result<Room> + Send + Sync + 'static) -> DiskCache {
        self.open_for("https://store", room)
    }

    fn open_for(&self, store: &str, room: impl Fn(&File) -> io::Result<Room> + Send + Sync + 'static) -> DiskCache {
        let config = Config { store, ..config(self.dir.path(), self.bytes_max) };
        let setup = Setup { config, chunk_bytes: UNIT, clock: self.clock.clone(), room: Box::new(room) };
        DiskCache::open_with(setup).expect("opens")
    }

    fn path(&self, version: &Version, ending: &str) -> PathBuf {
        let entry = Entry::of("https://store", version, UNIT);
        entry.data_path(&self.dir.path().join("contents")).with_extension(ending)
    }

    /// What lies in the folder, in bytes of the disk.
    fn on_disk(&self) -> u64 {
        evict::scan(&self.dir.path().join("contents"), 0, None).expect("readable").used_bytes
    }
}

fn config(folder: &Path, bytes_max: u64) -> Config<'_> {
    Config { folder, bytes_max, store: "s", queue_bytes_max: QUEUE_BYTES_MAX }
}

fn version(key: &str, etag: &str, size_bytes: u64) -> Version {
    let location = Location { bucket: BucketName::new("bucket").expect("plain"), key: Key::new(key).expect("plain") };
    Version { location, etag: ETag::new(etag), size_bytes, version_id: None }
}

/// Bytes that differ from chunk to chunk and from version to version.
fn content(version: &Version) -> Bytes {
    let seed = twox_hash::XxHash3_64::oneshot(format!("{}{}", version.location, version.etag).as_bytes());
    (0..version.size_bytes).map(|at| (at.wrapping_mul(seed | 1) >> 7) as u8).collect()
}

fn keep_chunk(cache: &DiskCache, version: &Version, index: u64) {
    let (start, end) = (index * UNIT, ((index + 1) * UNIT).min(version.size_bytes));
    cache.keep(version, start, content(version).slice(start as usize..end as usize));
}

async fn keep_all(cache: &DiskCache, version: &Version) {
    for index in 0..version.size_bytes.div_ceil(UNIT) {
        keep_chunk(cache, version, index);
        cache.settled().await;
    }
}

/// Whether all of it is here; what is answered is always right.
async fn serves(cache: &DiskCache, version: &Version) -> bool {
    let read = cache.read(version, 0..version.size_bytes, Vec::new()).await;
    read.is_some_and(|bytes| {
        assert!(bytes == content(version), "wrong bytes of {}", version.location);
        true
    })
}

fn damage(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("that long");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
}

#[tokio::test]
async fn what_was_kept_is_read_in_any_range_and_counted() {
    let place = Place::new(AMPLE);
    let cache = place.open();
    let file = version("a/b", "1", 3 * UNIT + 100);
    assert!(!serves(&cache, &file).await);
    keep_all(&cache, &file).await;
    let whole = content(&file);
    for range in [0..file.size_bytes, 0..1, UNIT - 1..UNIT + 1, 3 * UNIT..file.size_bytes, UNIT + 7..3 * UNIT + 9, 5..5]
    {
        let expected = whole.slice(range.start as usize..range.end as usize);
        assert_eq!(cache.read(&file, range, Vec::new()).await, Some(expected));
    }
    assert_eq!(cache.read(&file, 0..file.size_bytes + 1, Vec::new()).await, None, "past the end");
    assert_eq!(cache.recorded(&file, 0..6).await, [true, true, true, true, false, false]);
    assert_eq!(cache.counts(), Counts { hits: 5, misses: 2, kept: 4, dropped: 0 });
    assert!(cache.used_bytes() >= file.size_bytes && cache.used_bytes() <= cache.bytes_max());
}

#[tokio::test]
async fn a_later_mount_finds_it_and_nobody_else_may_look() {
    let place = Place::new(AMPLE);
    fs::create_dir(place.dir.path().join("contents")).expect("made");
    let file = version("a", "1", 2 * UNIT);
    let cache = place.open();
    keep_all(&cache, &file).await;
    drop(cache);
    let cache = place.open();
    assert!(serves(&cache, &file).await);
    cache.settled().await;
    assert_eq!(cache.used_bytes(), place.on_disk());
    for (path, mode) in [
        (place.dir.path().join("contents"), 0o700),
        (place.path(&file, "data").parent().expect("a folder").to_owned(), 0o700),
        (place.path(&file, "data"), 0o600),
        (place.path(&file, "sums"), 0o600),
    ] {
        assert_eq!(path.metadata().expect("there").mode() & 0o777, mode, "{}", path.display());
    }
}

#[tokio::test]
async fn only_the_version_that_was_kept_is_served() {
    let place = Place::new(AMPLE);
    let cache = place.open();
    let file = version("a", "1", 2 * UNIT);
    keep_all(&cache, &file).await;
    for other in [version("a", "2", 2 * UNIT), version("a", "1", 2 * UNIT - 1), version("b", "1", 2 * UNIT)] {
        assert_eq!(cache.read(&other, 0..UNIT, Vec::new()).await, None);
    }
    let elsewhere = place.open_for("https://other", health::room);
    assert!(!serves(&elsewhere, &file).await, "another store's object of that name");
    let unknown = version("c", "", UNIT);
    keep_all(&cache, &unknown).await;
    assert!(!serves(&cache, &unknown).await, "without an ETag nothing tells versions apart");
}

#[tokio::test]
async fn a_new_version_takes_the_place_of_the_old_one() {
    let place = Place::new(AMPLE);
    let cache = place.open();
    let (old, new, other) = (version("a", "1", 2 * UNIT), version("a", "2", 3 * UNIT), version("b", "1", UNIT));
    keep_all(&cache, &old).await;
    keep_all(&cache, &other).await;
    keep_all(&cache, &new).await;
    assert!(serves(&cache, &new).await);
    assert!(serves(&cache, &other).await);
    assert!(!place.path(&old, "data").exists() && !place.path(&old, "sums").exists());
}

#[tokio::test]
async fn only_whole_chunks_in_their_places_are_kept() {
    let place = Place::new(AMPLE);
    let cache = place.open();
    let file = version("a", "1", 2 * UNIT + 10);
    let all = content(&file);
    for (offset, range) in [(1, 1..UNIT + 1), (0, 0..10), (2 * UNIT, 0..UNIT), (3 * UNIT, 0..10), (2 * UNIT, 0..0)] {
        cache.keep(&file, offset, all.slice(range.start as usize..range.end as usize));
    }
    cache.settled().await;
    assert_eq!(cache.counts(), Counts::default());
    assert!(!place.path(&file, "data").exists());
}

#[tokio::test]
async fn a_flipped_bit_is_noticed_and_the_chunk_kept_again() {
    let place = Place::new(AMPLE);
    let cache = place.open();
    let file = version("a", "1", 3 * UNIT);
    keep_all(&cache, &file).await;
    damage(&place.path(&file, "data"), UNIT + 5);
    assert!(!serves(&cache, &file).await);
    assert_eq!(cache.recorded(&file, 0..3).await, [true, false, true]);
    assert!(cache.whole(&file).await.is_none());
    assert_eq!(cache.read(&file, 0..UNIT, Vec::new()).await, Some(content(&file).slice(..UNIT as usize)));
    keep_chunk(&cache, &file, 1);
    cache.settled().await;
    assert!(serves(&cache, &file).await);
}

#[tokio::test]
async fn a_checksum_that_is_damaged_or_of_another_chunk_serves_nothing() {
    let place = Place::new(AMPLE);
    let cache = place.open();
    let file = version("a", "1", 3 * UNIT);
    keep_all(&cache, &file).await;
    damage(&place.path(&file, "sums"), 40);
    assert_eq!(cache.read(&file, 0..UNIT, Vec::new()).await, None);
    // The bytes and the checksum of the third chunk in the place of the second.
    let (data, sums) = (place.path(&file, "data"), place.path(&file, "sums"));
    let writable = |path: &Path| OpenOptions::new().write(true).open(path).expect("there");
    let third = content(&file).slice(2 * UNIT as usize..);
    writable(&data).write_all_at(&third, UNIT).expect("written");
    let sum = fs::read(&sums).expect("there")[40 + 16..40 + 24].to_vec();
    writable(&sums).write_all_at(&sum, 40 + 8).expect("written");
    assert_eq!(cache.read(&file, UNIT..2 * UNIT, Vec::new()).await, None);
    assert_eq!(cache.read(&file, 2 * UNIT..3 * UNIT, Vec::new()).await, Some(third));
}

#[tokio::test]
async fn files_that_were_cut_or_lost_or_garbage_are_made_again() {
    let place = Place::new(AMPLE);
    let cache = place.open();
    let file = version("a", "1", 3 * UNIT);
    let (data, sums) = (place.path(&file, "data"), place.path(&file, "sums"));
    let cut = |path: &Path, length: u64| {
        OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length)).expect("cut")
    };
    let breaks: [&dyn Fn(); 9] = [
        &|| fs::remove_dir_all(place.dir.path().join("contents")).expect("removed"),
        &|| cut(&data, UNIT + 1),
        &|| cut(&data, 0),
        &|| fs::remove_file(&data).expect("removed"),
        &|| fs::remove_file(&sums).expect("removed"),
        &|| cut(&sums, 0),
        &|| cut(&sums, 45),
        &|| fs::write(&sums, [0xA5; 5000]).expect("written"),
        &|| fs::write(&sums, [0; 64]).expect("written"),
    ];
    for (number, damage) in breaks.iter().enumerate() {
        for read_first in [true, false] {
            keep_all(&cache, &file).await;
            assert!(serves(&cache, &file).await, "before damage {number}");
            damage();
            if read_first {
                assert!(!serves(&cache, &file).await, "damage {number}");
                assert!(cache.whole(&file).await.is_none());
            }
            // The first keep may be lost on the damage; what it finds is gone for the second.
            keep_all(&cache, &file).await;
        }
        keep_all(&cache, &file).await;
    }
    assert!(serves(&cache, &file).await);
}

#[tokio::test]
async fn what_a_crash_leaves_is_never_served() {
    let place = Place::new(AMPLE);
    let file = version("a", "1", 4 * UNIT);
    let cache = place.open();
    keep_chunk(&cache, &file, 0);
    keep_chunk(&cache, &file, 1);
    keep_chunk(&cache, &file, 2);
    cache.settled().await;
    drop(cache);
    let data = OpenOptions::new().write(true).open(place.path(&file, "data")).expect("there");
    let sums = OpenOptions::new().write(true).open(place.path(&file, "sums")).expect("there");
    // The first chunk's end did not reach the disk although its checksum did; the second one's checksum did not; of
    // the third nothing did but the checksum; of the fourth a part, without a checksum.
    data.write_all_at(&[0; UNIT as usize / 2], UNIT / 2).expect("written");
    sums.write_all_at(&[0; 8], 40 + 8).expect("written");
    data.write_all_at(&[0; UNIT as usize], 2 * UNIT).expect("written");
    data.write_all_at(&content(&file)[3 * UNIT as usize..][..100], 3 * UNIT).expect("written");
    let cache = place.open();
    assert_eq!(cache.recorded(&file, 0..4).await, [true, false, true, false]);
    for index in 0..4 {
        assert_eq!(cache.read(&file, index * UNIT..(index + 1) * UNIT, Vec::new()).await, None, "chunk {index}");
    }
    keep_all(&cache, &file).await;
    assert!(serves(&cache, &file).await);
}

#[tokio::test]
async fn the_least_recently_used_go_and_the_bound_holds() {
    let place = Place::new(64 * UNIT);
    let cache = place.open();
    let files: Vec<Version> = (0..60).map(|number| version(&format!("f{number}"), "1", 3 * UNIT)).collect();
    keep_all(&cache, &files[0]).await;
    for file in &files[1..] {
        place.clock.advance(std::time::Duration::from_secs(3600));
        assert!(serves(&cache, &files[0]).await, "in use all the time");
        keep_all(&cache, file).await;
        assert!(place.on_disk() <= place.bytes_max && cache.used_bytes() <= place.bytes_max);
    }
    assert!(!serves(&cache, &files[1]).await, "the oldest is gone");
    assert!(serves(&cache, &files[59]).await && serves(&cache, &files[58]).await);
    drop(cache);
    // A smaller bound holds from the start.
    let smaller = Place { bytes_max: 16 * UNIT, ..place };
    let cache = smaller.open();
    cache.settled().await;
    assert!(smaller.on_disk() <= smaller.bytes_max && smaller.on_disk() > 0, "{}", smaller.on_disk());
}

#[tokio::test]
async fn a_file_larger_than_the_cache_keeps_its_first_part_and_goes_for_others() {
    let place = Place::new(32 * UNIT);
    let cache = place.open();
    let large = version("large", "1", 100 * UNIT);
    keep_all(&cache, &large).await;
    assert!(cache.read(&large, 0..20 * UNIT, Vec::new()).await.is_some());
    assert!(place.on_disk() <= place.bytes_max);
    assert!(cache.counts().dropped > 60, "{:?}", cache.counts());
    place.clock.advance(std::time::Duration::from_secs(3600));
    let small = version("small", "1", 3 * UNIT);
    keep_all(&cache, &small).await;
    assert!(serves(&cache, &small).await);
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let place = Place::new(16 * UNIT);
    let cache = place.open();
    let theirs = [place.dir.path().join("x.data"), place.dir.path().join("contents/x.data")];
    theirs.iter().for_each(|path| fs::write(path, [1; 100_000]).expect("written"));
    for number in 0..20 {
        keep_all(&cache, &version(&format!("f{number}"), "1", 2 * UNIT)).await;
    }
    assert!(theirs.iter().all(|path| path.exists()));
}

#[tokio::test]
async fn the_disk_is_never_filled() {
    let place = Place::new(AMPLE);
    let available = Arc::new(AtomicU64::new(6 << 20));
    let told = available.clone();
    let total = 100 << 20;
    let cache = place.open_with(move |_| Ok(Room { total, available: told.load(Ordering::Relaxed) }));
    let (first, second) = (version("a", "1", UNIT), version("b", "1", UNIT));
    keep_all(&cache, &first).await;
    available.store(total / 20, Ordering::Relaxed);
    keep_all(&cache, &second).await;
    assert!(!serves(&cache, &second).await);
    assert!(serves(&cache, &first).await, "what is there is served");
    assert_eq!(cache.counts().dropped, 1);
    available.store(6 << 20, Ordering::Relaxed);
    keep_all(&cache, &second).await;
    assert!(serves(&cache, &second).await, "there is room again");
}

#[tokio::test]
async fn a_disk_that_fails_stops_being_written_and_readers_go_on() {
    let place = Place::new(AMPLE);
    let broken = Arc::new(AtomicBool::new(false));
    let told = broken.clone();
    let cache = place.open_with(move |_| match told.load(Ordering::Relaxed) {
        true => Err(io::Error::other("the disk is broken")),
        false => Ok(Room { total: 1 << 40, available: 1 << 40 }),
    });
    let file = version("a", "1", 20 * UNIT);
    keep_chunk(&cache, &file, 0);
    cache.settled().await;
    broken.store(true, Ordering::Relaxed);
    for index in 1..20 {
        keep_chunk(&cache, &file, index);
        cache.settled().await;
    }
    assert_eq!(cache.counts().dropped, 8, "after a few failures it is not tried any more");
    assert_eq!(cache.read(&file, 0..UNIT, Vec::new()).await, Some(content(&file).slice(..UNIT as usize)));
    assert_eq!(cache.read(&file, UNIT..2 * UNIT, Vec::new()).await, None);
    // A folder in the place of a file: neither missing nor damaged, it cannot be read at all.
    let other = version("b", "1", UNIT);
    fs::create_dir_all(place.path(&other, "sums")).expect("made");
    for _ in 0..10 {
        assert!(!serves(&cache, &other).await);
    }
    assert_eq!(cache.read(&file, 0..UNIT, Vec::new()).await, None, "off until the next mount");
    assert!(place.open().read(&file, 0..UNIT, Vec::new()).await.is_some());
}

#[tokio::test]
async fn what_comes_faster_than_the_disk_takes_it_is_dropped_and_nobody_waits() {
    let place = Place::new(AMPLE);
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let cache = place.open_with(move |_| {
        // Ends when the other side is dropped.
        let _ = held.lock().expect("alone").recv();
        Ok(Room { total: 1 << 40, available: 1 << 40 })
    });
    let queue = QUEUE_BYTES_MAX / UNIT;
    let file = version("a", "1", (queue + 10) * UNIT);
    let zeros = Bytes::from(vec![0; UNIT as usize]);
    (0..queue + 10).for_each(|index| cache.keep(&file, index * UNIT, zeros.clone()));
    assert_eq!(cache.counts().dropped, 10);
    drop(let_go);
    cache.settled().await;
    assert_eq!(cache.counts().kept, queue);
    keep_chunk(&cache, &file, queue);
    cache.settled().await;
    assert_eq!(cache.counts().kept, queue + 1, "there is room in the queue again");
}

#[tokio::test]
async fn two_live_mounts_share_one_folder() {
    let place = Place::new(64 * UNIT);
    let (one, two) = (place.open(), place.open());
    let file = version("shared", "1", 4 * UNIT);
    keep_chunk(&one, &file, 0);
    keep_chunk(&two, &file, 1);
    keep_chunk(&one, &file, 2);
    one.settled().await;
    two.settled().await;
    keep_chunk(&two, &file, 2);
    keep_chunk(&two, &file, 3);
    two.settled().await;
    for cache in [&one, &two] {
        assert!(serves(cache, &file).await);
        assert!(cache.whole(&file).await.is_some());
    }
    for number in 0..40 {
        place.clock.advance(std::time::Duration::from_secs(3600));
        let (mine, theirs) = (version(&format!("m{number}"), "1", UNIT), version(&format!("t{number}"), "1", UNIT));
        keep_all(&one, &mine).await;
        keep_all(&two, &theirs).await;
        assert!(serves(&two, &mine).await, "{number}");
        let slack = 2 * (place.bytes_max / 32 + 3 * UNIT);
        assert!(place.on_disk() <= place.bytes_max + slack, "{} at {number}", place.on_disk());
    }
    assert!(!serves(&one, &file).await, "evicted for both");
}

#[tokio::test]
async fn a_whole_file_is_handed_out_and_verified_again_when_it_was_changed() {
    let place = Place::new(AMPLE);
    let cache = place.open();
    let file = version("a", "1", 3 * UNIT + 1);
    for index in [0, 1, 3] {
        keep_chunk(&cache, &file, index);
    }
    cache.settled().await;
    assert!(cache.whole(&file).await.is_none(), "one chunk is missing");
    keep_chunk(&cache, &file, 2);
    cache.settled().await;
    let mut handle = cache.whole(&file).await.expect("whole");
    let missing = |cache: &DiskCache| {
        let data = File::open(place.path(&file, "data")).expect("there");
        let entry = Entry::of("https://store", &file, UNIT);
        cache.shared.verified.missing(&entry, Fingerprint::of(&data).expect("asked"))
    };
    assert!(missing(&cache).is_empty(), "it wrote them itself");
    let later = place.open();
    assert_eq!(missing(&later), [0, 1, 2, 3], "another mount compares what it has not written");
    assert!(later.whole(&file).await.is_some() && missing(&later).is_empty());
    damage(&place.path(&file, "data"), 7);
    assert!(cache.whole(&file).await.is_none(), "changed since");
    keep_chunk(&cache, &file, 0);
    cache.settled().await;
    assert!(cache.whole(&file).await.is_some());
    // Eviction does not take it from whoever holds it, and nobody can write through the handle.
    Entry::of("https://store", &file, UNIT).remove(&place.dir.path().join("contents"));
    let mut bytes = Vec::new();
    handle.read_to_end(&mut bytes).expect("readable");
    assert_eq!(bytes, content(&file));
    assert!(handle.write_all_at(&[0], 0).is_err());
    assert!(cache.whole(&file).await.is_none());
    assert!(cache.whole(&version("empty", "1", 0)).await.is_none());
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_an_error() {
    let dir = tempfile::tempdir().expect("room");
    let plain = dir.path().join("plain");
    fs::write(&plain, "x").expect("written");
    assert!(DiskCache::open(config(&plain, AMPLE)).is_err());
    let linked = dir.path().join("linked");
    fs::create_dir(&linked).expect("made");
    std::os::unix::fs::symlink(dir.path(), linked.join("contents")).expect("linked");
    let error = DiskCache::open(config(&linked, AMPLE)).err().expect("refused");
    assert!(error.to_string().contains("another user"), "{error}");
    assert!(DiskCache::open(config(&dir.path().join("new/folder"), AMPLE)).is_ok());
}

#[test]
fn the_free_space_of_this_machine_can_be_asked() {
    let room = health::room(&File::open("/").expect("there")).expect("asked");
    assert!(room.total > 0 && room.available <= room.total);
    assert!(Room { total: 100, available: 15 }.fits(10) && !Room { total: 100, available: 14 }.fits(10));
    assert!(!Room { total: 100, available: 5 }.fits(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_and_keepers_at_once_see_right_bytes_or_none() {
    let place = Place::new(48 * UNIT);
    let caches = [place.open(), place.open()];
    let files: Vec<Version> =
        (0..12).map(|number| version(&format!("f{}", number % 6), &number.to_string(), 8 * UNIT)).collect();
    let mut tasks = Vec::new();
    for seed in 0..8u64 {
        let (cache, files) = (caches[seed as usize % 2].clone(), files.clone());
        tasks.push(tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..60 {
                let file = &files[random.usize(..files.len())];
                let index = random.u64(..8);
                match random.u8(..4) {
                    0 => keep_chunk(&cache, file, index),
                    1 => keep_all(&cache, file).await,
                    2 => {
                        if let Some(mut handle) = cache.whole(file).await {
                            let mut bytes = Vec::new();
                            handle.read_to_end(&mut bytes).expect("readable");
                            assert_eq!(bytes, content(file));
                        }
                    }
                    _ => {
                        let end = random.u64(index * UNIT..=8 * UNIT);
                        if let Some(bytes) = cache.read(file, index * UNIT..end, Vec::new()).await {
                            assert_eq!(bytes, content(file).slice((index * UNIT) as usize..end as usize));
                        }
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    assert!(caches[0].counts().kept > 0);
}

/// What can happen to a cache.
#[derive(Clone, Debug)]
enum Event {
    Keep(u8, u64),
    Damage(u8, u64),
    CutData(u8, u64),
    CutSums(u8, u64),
    Reopen,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..3u8, 0..4u64).prop_map(|(file, index)| Event::Keep(file, index)),
        1 => (0..3u8, 0..3 * UNIT + 9).prop_map(|(file, at)| Event::Damage(file, at)),
        1 => (0..3u8, 0..3 * UNIT + 9).prop_map(|(file, at)| Event::CutData(file, at)),
        1 => (0..3u8, 0..80u64).prop_map(|(file, at)| Event::CutSums(file, at)),
        1 => Just(Event::Reopen),
    ]
}

async fn follow(events: Vec<Event>) {
    let place = Place::new(AMPLE);
    let mut cache = place.open();
    let files: Vec<Version> = (0..3).map(|number| version(&format!("f{number}"), "1", 3 * UNIT + 9)).collect();
    // The chunks that must be there: kept, and nothing happened to their file since.
    let mut surely: BTreeMap<(u8, u64), ()> = BTreeMap::new();
    for event in events {
        match event {
            Event::Keep(number, index) => {
                keep_chunk(&cache, &files[number as usize], index);
                cache.settled().await;
                let file = &files[number as usize];
                let found = cache.recorded(file, index..index + 1).await;
                // A keep that meets a damaged file may clear it away instead.
                if found == [true] {
                    surely.insert((number, index), ());
                }
            }
            Event::Damage(number, at) => {
                let path = place.path(&files[number as usize], "data");
                if path.metadata().is_ok_and(|found| found.len() > at) {
                    damage(&path, at);
                }
                surely.retain(|(other, _), ()| *other != number);
            }
            Event::CutData(number, at) | Event::CutSums(number, at) => {
                let ending = if matches!(event, Event::CutData(..)) { "data" } else { "sums" };
                if let Ok(file) = OpenOptions::new().write(true).open(place.path(&files[number as usize], ending)) {
                    file.set_len(at).expect("cut");
                }
                surely.retain(|(other, _), ()| *other != number);
            }
            Event::Reopen => cache = place.open(),
        }
        for (number, file) in (0..).zip(&files) {
            for index in 0..4 {
                let range = index * UNIT..((index + 1) * UNIT).min(file.size_bytes);
                match cache.read(file, range.clone(), Vec::new()).await {
                    Some(bytes) => assert_eq!(bytes, content(file).slice(range.start as usize..range.end as usize)),
                    None => assert!(!surely.contains_key(&(number, index)), "chunk {index} of {number} is lost"),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_to_the_files_right_bytes_or_none_are_read(events in prop::collection::vec(event(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(follow(events));
    }
}
