//! What names cost in memory, counted where it is given out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dreamfs::store::{BucketName, ETag};
use dreamfs::tree::{Defaults, Listing, Object, Place, ROOT, Sighting, Tree, Ttl};

/// Counts the bytes that each thread has, so that tests beside each other do not disturb.
struct Counting;

thread_local! {
    static HELD_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // A thread that ends frees its last bytes after its counter.
    let _ = HELD_BYTES.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promises are the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A name takes at most 200 bytes, of a million in one directory.
#[test]
fn a_name_takes_two_hundred_bytes_at_most() {
    const NAMES: usize = 1_000_000;
    let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let defaults = Defaults { uid: 7, gid: 8, file_mode: 0o644, dir_mode: 0o755, dir_time: SystemTime::now() };
    let bucket = BucketName::new("bucket").expect("plain");
    let root = Place::Directory { bucket, prefix: Default::default() };
    let tree = Tree::new(root, defaults, Ttl::fixed(Duration::from_secs(60)), 2 * NAMES);
    let file = |number: usize| {
        let object = Object {
            etag: ETag::new(&format!("{number:032x}")),
            size_bytes: number as u64,
            modified: Some(time),
            version_id: None,
            storage_class: None,
            headers: None,
        };
        (format!("name{number:07}.txt"), Sighting::Listed(object))
    };
    let before = HELD_BYTES.get();
    for page in 0..NAMES / 1000 {
        tree.take_page(ROOT, (page * 1000..(page + 1) * 1000).map(file).collect());
    }
    assert_eq!(tree.names() as usize, NAMES + 1);
    let each = (HELD_BYTES.get() - before) / NAMES as i64;
    println!("{each} bytes a name in one directory");
    assert!(each <= 200, "{each} bytes a name");

    let told = |number: usize| tree.sight(ROOT, &format!("d{number}"), Sighting::Directory).expect("made").ino;
    let before = HELD_BYTES.get();
    for number in 0..1000 {
        let names = (number * 10..number * 10 + 10).map(file).collect();
        let directory = told(number);
        tree.begin_listing(directory);
        tree.end_listing(directory, Some(Listing { names, complete: true, unchanged: Duration::ZERO }));
    }
    println!("{} bytes a name in directories of ten", (HELD_BYTES.get() - before) / 10_000);
}
