//! Very many names: 100,000, and a million where `scripts/test --full` asks for it.

use std::time::{Duration, Instant};

use dreamfs::store::fault::{Failure, Rule, When};

use crate::harness::{How as MountHow, Kind, Mount, PATIENCE, Rig, wait_for};
use crate::stand::{How, World};

fn is_full() -> bool {
    std::env::var("DREAMFS_TEST_FULL").is_ok()
}

/// How many names there are.
fn count() -> usize {
    if is_full() { 1_000_000 } else { 100_000 }
}

/// A mount whose memory has room for some of the names only, and what it may take in KiB: 64 MiB more.
fn mount(rig: &Rig, bucket: &str) -> (Mount, u64) {
    // A million names have what the promise says; fewer have the least that can be given and some more.
    let memory_mib = if is_full() { 384 } else { 70 };
    let memory = format!("{memory_mib}MiB");
    let flags = ["--memory", &memory, "--ttl", "1h"];
    let mount = Mount::with(rig, &MountHow { bucket: Some(bucket), flags: &flags, ..MountHow::default() });
    (mount, (memory_mib + 64) << 10)
}

/// All names of one directory are told, the first ones after a page, within the memory that the mount was given.
#[test]
fn a_giant_directory_is_told_page_by_page() {
    let Some(mut rig) = Rig::start(Kind::Embedded, "a_giant_directory_is_told_page_by_page") else { return };
    let bucket = rig.bucket();
    rig.boto(&format!("conn.get_bucket('{bucket}').new_key('seed').set_contents_from_string('')"));
    rig.fill(&bucket, "seed", (0..count()).map(|number| format!("big/name{number:07}")));
    let (mount, kib_max) = mount(&rig, &bucket);
    mount.sh("ls > /dev/null");
    let began = Instant::now();
    let first = mount.cost(|| assert_eq!(mount.sh("ls -U big | head -n 1").trim(), "name0000000"));
    let first_after = began.elapsed();
    assert!(first["ListObjects"] <= 20, "the first names wait for few pages: {first:?}");
    let told = |line: &str| {
        let began = Instant::now();
        assert_eq!(mount.sh(line).trim(), count().to_string(), "{line}");
        began.elapsed()
    };
    let names = told("ls -U big | sort -u | wc -l");
    // Most of them were forgotten meanwhile.
    let sizes = is_full().then(|| told("find big -type f -size 0 | sort -u | wc -l"));
    assert!(mount.sh("stat -c %s big/name0000007 big/name0099999; ! stat big/none 2> /dev/null").starts_with("0\n0\n"));
    let peak_kib = mount.peak_rss_kib();
    println!(
        "{} names: first after {first_after:?}, all {names:?}, with sizes {sizes:?}, {} MiB",
        count(),
        peak_kib >> 10
    );
    assert!(peak_kib <= kib_max, "{peak_kib} KiB of {kib_max}");
}

/// As many in directories of ten, whose names `find` sorts by inode number, as it does with more than 10,000: no name is
/// asked for twice.
#[test]
fn a_giant_tree_is_walked_within_its_memory() {
    let Some(mut rig) = Rig::start(Kind::Embedded, "a_giant_tree_is_walked_within_its_memory") else { return };
    let bucket = rig.bucket();
    rig.boto(&format!("conn.get_bucket('{bucket}').new_key('seed').set_contents_from_string('')"));
    let names_each = if is_full() { 10 } else { 9 };
    let key = |number: usize| format!("tree/d{:05}/f{}", number / names_each, number % names_each);
    rig.fill(&bucket, "seed", (0..count()).map(key));
    let (mount, kib_max) = mount(&rig, &bucket);
    let began = Instant::now();
    let walk = || mount.sh_within("find tree -type f | sort -u | wc -l", 5 * PATIENCE);
    let cost = mount.cost(|| assert_eq!(walk().trim(), count().to_string()));
    let (took, peak_kib) = (began.elapsed(), mount.peak_rss_kib());
    println!("{} names in directories of {names_each}: {took:?}, {cost:?}, {} MiB", count(), peak_kib >> 10);
    // Those that tell the directories, and those that tell what is in them.
    let pages = (count() + count() / names_each) as u64 / 1000;
    assert!(cost["ListObjects"] <= pages + pages / 10 + 20, "{cost:?}");
    assert!(peak_kib <= kib_max, "{peak_kib} KiB of {kib_max}");
}

/// With `--max-names` few names stay remembered, however many are read, and all that is told of them is right: what was
/// forgotten, what is not there, and what was changed here meanwhile.
#[test]
fn few_names_are_remembered_where_few_may_be() {
    let Some(mut rig) = Rig::start(Kind::Embedded, "few_names_are_remembered_where_few_may_be") else { return };
    let bucket = rig.bucket();
    rig.boto(&format!("conn.get_bucket('{bucket}').new_key('seed').set_contents_from_string('')"));
    rig.fill(&bucket, "seed", (0..20_000).map(|number| format!("tree/d{:03}/f{:02}", number / 100, number % 100)));
    let flags = ["--max-names", "2000", "--ttl", "1h"];
    let mount = Mount::with(&rig, &MountHow { bucket: Some(&bucket), flags: &flags, ..MountHow::default() });
    let names = || mount.status()["names"].as_u64().expect("a count");
    for round in ["first", "again"] {
        assert_eq!(mount.sh("find tree -type f -size 0 | sort -u | wc -l").trim(), "20000", "{round}");
        println!("{round}: {} names", names());
        wait_for("names to be forgotten", PATIENCE, || names() <= 3000);
    }
    mount.sh("echo hello > tree/d150/f10 && rm tree/d150/f11 && mv tree/d150/f12 tree/d003/moved");
    assert_eq!(mount.sh("find tree -type f | sort -u | wc -l").trim(), "19999");
    assert_eq!(
        mount.sh("cat tree/d150/f10; ls tree/d150 | wc -l; stat -c %s tree/d003/moved tree/d003/f99"),
        "hello\n98\n0\n0\n"
    );
    mount.sh("! ls tree/d150/f11 tree/d150/f12 tree/d003/none 2> /dev/null");
    wait_for("names to be forgotten", PATIENCE, || names() <= 3000);
}

/// As many in the memory store, in one directory and in directories of ten: all are told, by little more than their pages.
#[tokio::test(start_paused = true)]
async fn a_giant_directory_and_a_giant_tree_in_memory_are_told() {
    let world = World::new(1000).await;
    for number in 0..count() {
        world.put(&format!("big/name{number:07}"), Vec::new());
        world.put(&format!("tree/d{:05}/f{}", number / 10, number % 10), Vec::new());
    }
    let client = world.client(How { names_max: 3 * count(), ..How::default() });
    let pages = count() as u64 / 1000;
    assert_eq!(client.list("big").await.expect("listed").len(), count());
    let before = client.lists();
    assert!(before <= pages + pages / 4 + 20, "{before} LIST for {pages} pages");
    let mut names = 0;
    for (directory, _) in client.list("tree").await.expect("listed") {
        names += client.list(&format!("tree/{directory}")).await.expect("listed").len();
    }
    assert_eq!(names, count());
    let walked = client.lists() - before;
    assert!(walked <= pages + pages / 4 + 20, "{walked} LIST for {pages} pages");
}

/// The first names of a directory are there when its first page is, and a second client's changes when it is read anew.
#[tokio::test(start_paused = true)]
async fn the_first_names_do_not_wait_for_the_last() {
    let world = World::new(1000).await;
    (0..20_000).for_each(|number| world.put(&format!("d/f{number:05}"), vec![1]));
    let client = world.client(How { names_max: 50_000, ttl: Duration::from_secs(3600), ..How::default() });
    let ino = client.walk("d").await.expect("is there");
    let id = client.fs.open_directory();
    let failure = Failure::Slow(Duration::from_secs(1));
    client.fault.set_rules(vec![Rule { operation: Some("ListObjects"), when: When::Chance(1.0), failure }]);
    let (began, before) = (tokio::time::Instant::now(), client.lists());
    let batch = client.fs.read_directory(ino, id, (0, false), true).await.expect("told");
    assert_eq!((batch.names[0].0, &*batch.names[0].1.name), (0, "f00000"));
    assert!(client.lists() - before <= 6, "{} LIST", client.lists() - before);
    assert!(began.elapsed() < Duration::from_secs(2), "one page's time: {:?}", began.elapsed());
    client.fault.set_rules(Vec::new());
    let last = batch.names.last().expect("some").0;
    drop(batch);
    client.unlink("d/f19999").await.expect("removed");
    client.write("d/new", b"x").await.expect("stored");
    let mut next = last + 1;
    loop {
        let batch = client.fs.read_directory(ino, id, (next, false), true).await.expect("told");
        let Some((at, _)) = batch.names.last() else { break };
        next = at + 1;
    }
    let again = client.fs.read_directory(ino, id, (10_000, false), true).await.expect("told");
    assert_eq!(&*again.names[0].1.name, "f10000", "a place in the directory stays");
    drop(again);
    client.fs.close_directory(id);
    let names = client.list("d").await.expect("listed");
    assert_eq!(names.len(), 20_000, "one was removed and one was made");
    assert_eq!((names[0].0.as_str(), names[19_999].0.as_str()), ("f00000", "new"));
    let before = client.lists();
    assert_eq!(client.list("d").await.expect("listed").len(), 20_000);
    assert_eq!(client.lists(), before, "all names are known");
    world.delete("d/f00001").await;
    client.refresh().await;
    assert_eq!(client.list("d").await.expect("listed").len(), 19_999);
}

/// A walk that comes to a large directory is told its first names after a page as well, and goes on behind it.
#[tokio::test(start_paused = true)]
async fn a_walk_does_not_wait_for_the_last_name_of_a_directory() {
    let world = World::new(1000).await;
    let large = ["t/c", "t/f"];
    for directory in ["t/a", "t/b", "t/c/in", "t/d", "t/e", "t/g"] {
        (0..10).for_each(|number| world.put(&format!("{directory}/f{number}"), vec![1]));
    }
    for directory in large {
        (0..5000).for_each(|number| world.put(&format!("{directory}/f{number:04}"), vec![1]));
    }
    let client = world.client(How { names_max: 50_000, ttl: Duration::from_secs(3600), ..How::default() });
    let before = client.lists();
    for (directory, count) in [("t", 7), ("t/a", 10), ("t/b", 10)] {
        assert_eq!(client.list(directory).await.expect("listed").len(), count, "{directory}");
    }
    let failure = Failure::Slow(Duration::from_secs(1));
    client.fault.set_rules(vec![Rule { operation: Some("ListObjects"), when: When::Chance(1.0), failure }]);
    for (directory, count) in [("t/c", 5001), ("t/c/in", 10), ("t/d", 10), ("t/e", 10), ("t/f", 5000), ("t/g", 10)] {
        let ino = client.walk(directory).await.expect("is there");
        let id = client.fs.open_directory();
        let (began, mut told) = (tokio::time::Instant::now(), 0);
        loop {
            let batch = client.fs.read_directory(ino, id, (told, false), true).await.expect("told");
            let page = if large.contains(&directory) { 2 } else { 4 };
            assert!(told > 0 || began.elapsed() < Duration::from_secs(page), "{directory}: {:?}", began.elapsed());
            if batch.names.is_empty() {
                break;
            }
            told += batch.names.len() as u64;
        }
        assert_eq!(told, count, "{directory}");
        client.fs.close_directory(id);
    }
    println!("{} LIST", client.lists() - before);
    assert!(client.lists() - before <= 22, "{} LIST for 10 pages", client.lists() - before);
}
