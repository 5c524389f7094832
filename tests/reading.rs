//! Reading through the engine of bytes alone: right under faults, at once where one GET stalls, inside its memory, and
//! without fetching much that nobody reads. The mounted tests of it are at the end.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use dreamfs::clock::Clock;
use dreamfs::data::state::State;
use dreamfs::data::{Config, Data, File, Limits, Version};
use dreamfs::error::Meaning;
use dreamfs::store::fault::{Failure, Fault, Rule, When};
use dreamfs::store::memory::MemoryStore;
use dreamfs::store::retry::{Retry, RetryConfig};
use dreamfs::store::{BucketName, Condition, Key, Location, ObjectHeaders, Store};
use tempfile::TempDir;

use crate::harness::link::Link;
use crate::harness::{How, Kind, Mount, Rig, on, sh_in, wait_for};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

/// An engine over `retry(fault(memory))`.
struct Stand {
    memory: Arc<MemoryStore>,
    fault: Arc<Fault>,
    data: Data,
    _state: TempDir,
}

impl Stand {
    async fn new(memory_bytes_max: u64, rules: Vec<Rule>) -> Stand {
        let memory = Arc::new(MemoryStore::new(Clock::fixed(SystemTime::UNIX_EPOCH)));
        memory.create_bucket(&BucketName::new("bucket").expect("plain")).await.expect("created");
        let fault = Arc::new(Fault::new(memory.clone(), 1, rules));
        let store = Arc::new(Retry::new(fault.clone(), RetryConfig::default()));
        let folder = TempDir::new().expect("room");
        let (state, _) = State::open(folder.path(), "memory", "bucket").expect("a state folder");
        let config = Config {
            memory_bytes_max,
            state: Arc::new(state),
            limits: Limits::default(),
            uploads_at_once: 1,
            journaled: false,
            stage_bytes_max: u64::MAX,
            disk: None,
        };
        Stand { memory, fault, data: Data::new(store, config), _state: folder }
    }

    /// Puts an object whose bytes tell where they are, and opens it.
    async fn file(&self, key: &str, size_bytes: u64) -> File {
        let location =
            Location { bucket: BucketName::new("bucket").expect("plain"), key: Key::new(key).expect("plain") };
        let body = content(0..size_bytes).into();
        let put = self.memory.put(&location, body, &ObjectHeaders::default(), &Condition::None).await.expect("stored");
        self.data.open(Version { location, etag: put.etag, size_bytes, version_id: None })
    }

    fn fetched_bytes(&self) -> u64 {
        self.data.cache().counters().fetched_bytes.load(Ordering::Relaxed)
    }
}

/// What lies at a range: each eight bytes say where they are.
fn content(range: Range<u64>) -> Vec<u8> {
    range.map(|at| ((at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 8 * 8)) as u8).collect()
}

async fn check(file: &File, range: Range<u64>) {
    let read = file.read_at(range.start, (range.end - range.start) as usize).await;
    let read = read.unwrap_or_else(|error| panic!("{range:?}: {error}"));
    assert!(read == content(range.clone()), "wrong bytes in {range:?}");
}

/// Bodies that are cut after any number of bytes, servers that fail and connections that are refused: all bytes are
/// right, forward and here and there.
#[tokio::test(start_paused = true)]
async fn bytes_are_right_whatever_breaks() {
    let cuts = [0, 1, 4095, 65_536, 300_001, MIB - 1, MIB];
    let failures = cuts.map(Failure::CutBody).into_iter().chain([Failure::ServerError, Failure::Refuse]);
    for failure in failures {
        let rule = Rule { operation: Some("GetObject"), when: When::Chance(0.4), failure };
        let stand = Stand::new(64 * MIB, vec![rule]).await;
        let file = stand.file("f", 5 * MIB + 77).await;
        for at in 0..40 {
            check(&file, at * 128 * KIB..(at + 1) * 128 * KIB).await;
        }
        for at in [4 * MIB + 5, 17, 2 * MIB, 3 * MIB - 4000, 5 * MIB] {
            check(&file, at..at + 77).await;
        }
        assert!(stand.fault.injected() > 0, "{failure:?} never happened");
    }
}

/// Bodies that break at every so many bytes, each of them, until the reader has all.
#[tokio::test(start_paused = true)]
async fn bodies_may_be_cut_anywhere() {
    for after_bytes in (1..MIB).step_by(9973) {
        let failure = Failure::CutBody(after_bytes);
        let rule = Rule { operation: Some("GetObject"), when: When::Chance(0.5), failure };
        let stand = Stand::new(64 * MIB, vec![rule]).await;
        let file = stand.file("f", MIB + 77).await;
        check(&file, 0..128 * KIB).await;
        check(&file, 128 * KIB..MIB + 77).await;
    }
}

/// A GET that brings nothing for 20 s, from its start or in its middle, costs the reader less than eight, and is
/// counted.
#[tokio::test(start_paused = true)]
async fn a_stalled_get_gets_a_rival() {
    let delay = Duration::from_secs(20);
    let failures = [Failure::Slow(delay), Failure::StallBody(0, delay), Failure::StallBody(100_000, delay)];
    for (failure, nth) in failures.into_iter().flat_map(|failure| (1..=4).map(move |nth| (failure, nth))) {
        let rule = Rule { operation: Some("GetObject"), when: When::Nth(nth), failure };
        let stand = Stand::new(64 * MIB, vec![rule]).await;
        let file = stand.file("f", 16 * MIB).await;
        let began = tokio::time::Instant::now();
        for at in 0..16 {
            check(&file, at * MIB..(at + 1) * MIB).await;
        }
        assert!(began.elapsed() < Duration::from_secs(8), "GET {nth}, {failure:?}: {:?}", began.elapsed());
        assert_eq!(stand.data.cache().counters().hedges.load(Ordering::Relaxed), 1);
    }
}

/// Two readers of one range make one GET, and the second sees the bytes of the first.
#[tokio::test(start_paused = true)]
async fn readers_of_one_range_share_a_get() {
    let rule =
        Rule { operation: Some("GetObject"), when: When::Chance(1.0), failure: Failure::Slow(Duration::from_secs(1)) };
    let stand = Stand::new(64 * MIB, vec![rule]).await;
    let file = stand.file("f", 64 * MIB).await;
    let range = 7 * MIB..7 * MIB + 64 * KIB;
    tokio::join!(check(&file, range.clone()), check(&file, range.clone()), check(&file, range));
    assert_eq!(stand.fault.calls("GetObject"), 1);
}

/// Who reads all fetches all, once; who stops early has fetched no more than twice what was asked; who jumps exactly
/// that.
#[tokio::test]
async fn little_is_fetched_in_vain() {
    let stand = Stand::new(64 * MIB, Vec::new()).await;
    let whole = stand.file("whole", 20 * MIB).await;
    for at in 0..160 {
        check(&whole, at * 128 * KIB..(at + 1) * 128 * KIB).await;
    }
    stand.data.close().await;
    assert_eq!(stand.fetched_bytes(), 20 * MIB);
    for (name, reads, at_most) in [
        ("head", vec![0..64 * KIB, 64 * KIB..128 * KIB], 256 * KIB),
        ("long head", (0..24).map(|at| at * 128 * KIB..(at + 1) * 128 * KIB).collect(), 6 * MIB),
        ("unzip -l", vec![20 * MIB - 64 * KIB..20 * MIB, 19 * MIB..19 * MIB + 128 * KIB], 384 * KIB),
        ("here and there", vec![9 * MIB + 5..9 * MIB + 70_000, 3 * MIB..3 * MIB + 4096], 70_000 - 5 + 4096),
    ] {
        let (before, file) = (stand.fetched_bytes(), stand.file(name, 20 * MIB).await);
        for range in reads {
            check(&file, range).await;
        }
        stand.data.close().await;
        let fetched = stand.fetched_bytes() - before;
        assert!(fetched <= at_most, "{name}: {fetched} bytes fetched");
    }
}

/// Sixty-four readers at once in little memory: all bytes are right, and no more memory is given out than there is.
#[tokio::test]
async fn many_readers_share_little_memory() {
    let stand = Stand::new(32 * MIB, Vec::new()).await;
    let readers = (0..64u64).map(|number| {
        let stand = &stand;
        async move {
            let file = stand.file(&format!("f{number}"), 2 * MIB).await;
            for at in 0..16 {
                check(&file, at * 128 * KIB..(at + 1) * 128 * KIB).await;
                assert!(stand.data.budget().used_bytes() <= stand.data.budget().bytes_max());
            }
        }
    });
    futures_util::future::join_all(readers).await;
}

/// A file that is read here and there is brought in once, and stays while it is open and memory is not short.
#[tokio::test(start_paused = true)]
async fn a_hot_file_stays_in_memory() {
    let rule =
        Rule { operation: Some("GetObject"), when: When::Chance(1.0), failure: Failure::Slow(Duration::from_secs(1)) };
    let stand = Stand::new(16 * MIB, vec![rule]).await;
    let file = stand.file("f", 16 * MIB).await;
    for at in 0..16 {
        let at = (at * 7 % 16 * MIB) + 64 * KIB;
        check(&file, at..at + 64 * KIB).await;
    }
    assert!(!file.take_hot(MIB), "more than there is room for");
    assert!(file.take_hot(64 * MIB) && !file.take_hot(64 * MIB), "told once");
    let mut offset = 0;
    while let Some(bytes) = file.read_through(offset).await.expect("read") {
        offset += bytes.len() as u64;
    }
    file.end_bringing_in().await;
    assert_eq!(offset, 16 * MIB);
    let gets = stand.fault.calls("GetObject");
    for _ in 0..2 {
        for at in [7, 200, 3, 111, 255, 0] {
            check(&file, at * 64 * KIB..(at + 1) * 64 * KIB).await;
        }
    }
    assert_eq!(stand.fault.calls("GetObject"), gets);
    check(&stand.file("other", 2 * MIB).await, 0..2 * MIB).await;
    check(&file, 0..64 * KIB).await;
    stand.data.close().await;
    drop(file);
    assert_eq!(stand.data.budget().used_bytes(), 0, "given back with the file");
}

/// An object that another client replaces or deletes while it is read: what is read on is ESTALE, never other bytes.
#[tokio::test]
async fn a_replaced_object_is_stale_and_never_mixed() {
    for deleted in [false, true] {
        let stand = Stand::new(64 * MIB, Vec::new()).await;
        let file = stand.file("f", 40 * MIB).await;
        check(&file, 0..128 * KIB).await;
        stand.data.close().await;
        let location = file.version().expect("stored").location;
        match deleted {
            true => stand.memory.delete(&location, None).await.expect("deleted"),
            false => drop(stand.file("f", 39 * MIB).await),
        }
        let error = file.read_at(30 * MIB, 4096).await.expect_err("the version is gone");
        assert_eq!(error.meaning(), Meaning::Stale, "{error}");
    }
}

/// A second read of a file comes from the kernel's pages, without a request; what another client wrote is not hidden
/// by them.
#[test]
fn pages_are_kept_while_the_version_is_the_same() {
    on(&[Kind::Rgw, Kind::Embedded], "pages_are_kept_while_the_version_is_the_same", |rig| {
        let bucket = rig.bucket();
        let put = |text: &str| {
            rig.boto(&format!("conn.get_bucket('{bucket}').new_key('f').set_contents_from_string('{text}' * 3000000)"))
        };
        put("a");
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags: &["--ttl", "60s"], ..How::default() });
        assert_eq!(mount.sh("cat f | wc -c").trim(), "3000000");
        // The kernel tells of the last close a little later.
        let closed = || mount.status()["open_files"] == 0;
        wait_for("the first reader's release", Duration::from_secs(10), closed);
        let again = mount.cost(|| drop(mount.sh("cat f > /dev/null")));
        assert!(again.is_empty(), "all of it is in the page cache: {again:?}");
        put("b");
        mount.sh("setfattr -n user.s3.refresh -v 1 f");
        assert_eq!(mount.sh("tail -c 3 f"), "bbb");
    });
}

/// With `--cache` a later mount reads without a GET; a flipped bit on disk is noticed and the bytes are fetched again.
#[test]
fn contents_on_disk_outlive_the_mount() {
    let Some(rig) = Rig::start(Kind::Embedded, "contents_on_disk_outlive_the_mount") else { return };
    let bucket = rig.bucket();
    let local = TempDir::new().expect("room");
    let cache = local.path().join("cache").display().to_string();
    sh_in(local.path(), "head -c 5000000 /dev/urandom > f");
    let flags = ["--cache", cache.as_str()];
    let mount = || Mount::with(&rig, &How { bucket: Some(&bucket), flags: &flags, ..How::default() });
    let source = local.path().join("f").display().to_string();
    Mount::new(&rig, Some(&bucket)).sh(&format!("cp {source} f"));
    let same = format!("cmp f {source}");
    let mut first = mount();
    first.sh(&same);
    assert!(first.umount().2, "all is stored");
    let mut second = mount();
    let cost = second.cost(|| drop(second.sh(&same)));
    assert_eq!(cost.get("GetObject"), None, "{cost:?}");
    assert!(second.umount().2, "all is stored");
    let flip = "import glob, sys\nfor name in glob.glob(sys.argv[1] + '/contents/*/*.data'):\n f = open(name, 'r+b')\n f.seek(2500000)\n b = f.read(1)\n f.seek(2500000)\n f.write(bytes([b[0] ^ 1]))";
    sh_in(local.path(), &format!("python3 -c \"{flip}\" {cache}"));
    let third = mount();
    let cost = third.cost(|| drop(third.sh(&same)));
    assert!(cost.contains_key("GetObject"), "{cost:?}");
}

/// Root's read-only mount with `--cache`: once all of a file is on disk the kernel reads it without the daemon, the
/// right bytes, beside readers that began before; where somebody damaged it, the store's bytes are read.
#[test]
fn the_kernel_reads_cached_files_by_itself() {
    let Some(rig) = Rig::start(Kind::Embedded, "the_kernel_reads_cached_files_by_itself") else { return };
    let bucket = rig.bucket();
    let local = TempDir::new().expect("room");
    let cache = local.path().join("cache").display().to_string();
    sh_in(local.path(), "head -c 30000000 /dev/urandom > f");
    let source = local.path().join("f").display().to_string();
    Mount::new(&rig, Some(&bucket)).sh(&format!("cp {source} f"));
    let flags = ["--read-only", "--cache", cache.as_str()];
    let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags: &flags, ..How::default() });
    // What the kernel has in its own pages is no proof: they are dropped before each look.
    let drop_pages = "python3 -c \"import os; os.posix_fadvise(os.open('f', 0), 0, 0, os.POSIX_FADV_DONTNEED)\"";
    let asked_bytes = || mount.status()["reading"]["asked_bytes"].as_u64().expect("a number");
    let past_us = || {
        mount.sh(drop_pages);
        let before = asked_bytes();
        mount.sh(&format!("cmp f {source}"));
        asked_bytes() == before
    };
    let line = format!("exec 3<f; head -c 1000000 <&3 > /dev/null; cmp f {source}");
    mount.sh(&format!("{line}; cat <&3 | cmp -i 0:1000000 - {source}"));
    assert!(asked_bytes() >= 30_000_000, "the first reader asks the daemon");
    wait_for("the kernel to read the file by itself", Duration::from_secs(20), past_us);
    mount.sh(&format!("exec 3<f; {drop_pages}; cmp f {source}; cat <&3 | cmp - {source}"));
    sh_in(
        local.path(),
        "for f in cache/contents/*/*.data; do printf X | dd of=$f bs=1 seek=20000000 conv=notrunc; done",
    );
    assert!(!past_us(), "damage is noticed");
    let writable = Mount::with(&rig, &How { bucket: Some(&bucket), flags: &flags[1..], ..How::default() });
    writable.sh(&format!("cmp f {source}; exec 3<f; printf Y | dd of=f bs=1 conv=notrunc; head -c 1 <&3 | grep -q Y"));
}

/// A zipped folder of photographs, a film: what is fetched for a look at them is little more than what is looked at.
#[test]
fn a_look_at_large_files_fetches_little() {
    let Some(rig) = Rig::start(Kind::Embedded, "a_look_at_large_files_fetches_little") else { return };
    let bucket = rig.bucket();
    let local = TempDir::new().expect("room");
    let zip = "import os, zipfile\nwith zipfile.ZipFile('photos.zip', 'w') as z:\n for n in range(500): z.writestr(f'photo{n}.jpg', os.urandom(100_000))";
    sh_in(local.path(), &format!("python3 -c \"{zip}\"; cp photos.zip film"));
    Mount::new(&rig, Some(&bucket)).sh(&format!("cp {}/* .", local.path().display()));
    let play = "f = open('film', 'rb')\nf.read(1 << 20)\nfor at in (30, 10, 40):\n f.seek(at << 20)\n for _ in range(64): f.read(1 << 16)";
    // The least that is fetched at a place: half of what an open brings of a large file's beginning.
    let grain_bytes = 128 * KIB;
    for (line, looked_at_bytes, places) in [
        // It reads seven MiB at each end.
        ("file photos.zip".to_owned(), 14 * MIB, 2),
        ("head -c 3000000 film > /dev/null".to_owned(), 3_000_000, 1),
        ("tail -c 1000 film > /dev/null".to_owned(), 1000, 2),
        ("unzip -l photos.zip | tail -n 1 | grep '500 files'".to_owned(), 64 * KIB, 3),
        (format!("python3 -c \"{play}\""), 13 * MIB, 4),
    ] {
        let mount = Mount::new(&rig, Some(&bucket));
        mount.sh(&line);
        let fetched = || mount.status()["reading"]["fetched_bytes"].as_u64().expect("a number");
        let at_most = 2 * (looked_at_bytes + places * grain_bytes);
        assert!((1..=at_most).contains(&fetched()), "{line}: {} of {at_most} bytes fetched", fetched());
    }
}

/// Connections that are reset in the middle of an answer, sooner or later each of them.
#[test]
fn reset_connections_cost_no_byte() {
    let Some(rig) = Rig::start(Kind::Embedded, "reset_connections_cost_no_byte") else { return };
    let bucket = rig.bucket();
    let local = TempDir::new().expect("room");
    sh_in(local.path(), "head -c 40000000 /dev/urandom > f");
    let source = local.path().join("f").display().to_string();
    Mount::new(&rig, Some(&bucket)).sh(&format!("cp {source} f"));
    let link = Link::new(&rig.endpoint, |number| Some(100_000 + number * 777_777 % 3_000_000));
    let mount = Mount::new(&Rig::at(link.endpoint()), Some(&bucket));
    mount.sh(&format!("cmp f {source}"));
    assert!(link.resets() > 5, "{} connections were reset", link.resets());
}

/// Two mounts on one cache folder, one of whose files is cut short, and then a folder that is full: all is read right,
/// and what is wrong is said once.
#[test]
fn a_shared_damaged_or_full_cache_is_only_slower() {
    let Some(rig) = Rig::start(Kind::Embedded, "a_shared_damaged_or_full_cache_is_only_slower") else { return };
    let bucket = rig.bucket();
    let local = TempDir::new().expect("room");
    let cache = local.path().join("cache");
    std::fs::create_dir(&cache).expect("room");
    sh_in(local.path(), "head -c 30000000 /dev/urandom > f");
    let source = local.path().join("f").display().to_string();
    Mount::new(&rig, Some(&bucket)).sh(&format!("cp {source} f"));
    let same = format!("cmp f {source}");
    let flags = ["--cache", cache.to_str().expect("UTF-8")];
    let mount = || Mount::with(&rig, &How { bucket: Some(&bucket), flags: &flags, ..How::default() });
    let (mut one, mut two) = (mount(), mount());
    std::thread::scope(|scope| [&one, &two].into_iter().for_each(|mount| drop(scope.spawn(|| mount.sh(&same)))));
    assert!(one.umount().2 && two.umount().2);
    sh_in(&cache, "truncate -s 12345678 contents/*/*.data");
    let damaged = mount();
    damaged.sh(&same);
    assert_eq!(damaged.log().matches("fetched again from the store").count(), 1, "{}", damaged.log());
    drop(damaged);
    sh_in(local.path(), "rm -r cache; mkdir cache; mount -t tmpfs -o size=16m tmpfs cache");
    let full = mount();
    let told = full.try_sh(&same);
    drop(full);
    sh_in(local.path(), "umount cache");
    assert_eq!(told, (0, String::new()));
}
