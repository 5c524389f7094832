//! Names: walks, large directories, and what other clients do to them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;

use dreamfs::fs::attr::Changes;
use dreamfs::store::fault::{Failure, Rule, When};
use tokio::time::Instant;

use crate::harness::{How as MountHow, Kind, Mount, Rig, wait_for};
use crate::stand::{Client, DIR_MODE, How, World};

/// The names in a directory, by the keys of the bucket.
fn names_of(keys: &BTreeSet<String>, directory: &str) -> BTreeSet<String> {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let below = keys.iter().filter_map(|key| key.strip_prefix(&prefix));
    below.filter_map(|rest| rest.split('/').next()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Reads a directory and all below it, as `ls -R` does, while this mount changes other ones.
async fn walk(client: &Client, keys: &mut BTreeSet<String>, rng: &mut Rng) {
    let mut next = vec![String::new()];
    while let Some(directory) = next.pop() {
        let Ok(listed) = client.list(&directory).await else {
            assert!(names_of(keys, &directory).is_empty(), "{directory} is there");
            continue;
        };
        let told: BTreeSet<String> = listed.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(listed.len(), told.len(), "some are told twice in {directory:?}");
        let differing: Vec<String> = told.symmetric_difference(&names_of(keys, &directory)).cloned().collect();
        assert!(differing.is_empty(), "in {directory:?}: {differing:?}");
        let is_directory = |name: &str| {
            keys.range(path(&directory, name) + "/"..)
                .next()
                .is_some_and(|key| key.starts_with(&(path(&directory, name) + "/")))
        };
        next.extend(told.iter().rev().filter(|name| is_directory(name)).map(|name| path(&directory, name)));
        if rng.u8(0..3) == 0 {
            change(client, keys, rng).await;
        }
    }
}

fn path(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// A file comes or goes.
async fn change(client: &Client, keys: &mut BTreeSet<String>, rng: &mut Rng) {
    let files: Vec<String> = keys.iter().filter(|key| !key.ends_with('/')).cloned().collect();
    let Some(file) = rng.choice(&files) else { return };
    let (directory, _) = file.rsplit_once('/').expect("all lie in a directory");
    if rng.bool() {
        let made = format!("{directory}/new{}", rng.u8(..));
        client.write(&made, b"x").await.expect("written");
        keys.insert(made);
    } else {
        client.unlink(file).await.expect("removed");
        keys.remove(file);
        // It stays, as an empty directory.
        keys.insert(format!("{directory}/"));
    }
}

/// Whatever the tree is, wherever pages end, and whatever this mount changes meanwhile: a walk sees what is there.
#[tokio::test]
async fn walks_see_what_is_there() {
    for seed in 0..150 {
        let mut rng = Rng::with_seed(seed);
        let world = World::new(rng.usize(1..20)).await;
        let mut keys = BTreeSet::new();
        for _ in 0..rng.usize(10..120) {
            let depth = rng.usize(1..4);
            let directory: Vec<&str> =
                (0..depth).map(|_| *rng.choice(&["a", "b", "b.c", "b-", "d"]).expect("some")).collect();
            keys.insert(format!("{}/f{}", directory.join("/"), rng.u8(0..30)));
        }
        keys.iter().for_each(|key| world.put(key, vec![1]));
        let client = world.client(How::default());
        walk(&client, &mut keys, &mut rng).await;
        walk(&client, &mut keys, &mut rng).await;
        let stranger = world.client(How::default());
        walk(&stranger, &mut keys, &mut rng).await;
    }
}

/// Files that are read in order, so that others are fetched ahead of them, while they are written, moved and removed
/// here and replaced by another client: everybody reads what the name stands for.
#[tokio::test]
async fn what_was_fetched_ahead_is_what_is_read() {
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let world = World::new(1000).await;
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for number in 0..60 {
            files.insert(format!("d{}/f{number:02}", number / 15), vec![number; rng.usize(1..3000)]);
        }
        files.iter().for_each(|(key, bytes)| world.put(key, bytes.clone()));
        let client = world.client(How::default());
        for directory in ["", "d0", "d1", "d2", "d3"] {
            client.list(directory).await.expect("listed");
        }
        for path in files.keys().cloned().collect::<Vec<_>>() {
            if let Some(expected) = files.get(&path) {
                assert!(client.read(&path).await.expect("read") == *expected, "seed {seed}: {path}");
            }
            let others: Vec<String> = files.keys().cloned().collect();
            let other = rng.choice(&others).expect("some are left").clone();
            let bytes = vec![rng.u8(..); rng.usize(1..3000)];
            match rng.u8(0..8) {
                0 => {
                    client.write(&other, &bytes).await.expect("written");
                    files.insert(other, bytes);
                }
                1 => {
                    client.unlink(&other).await.expect("removed");
                    files.remove(&other);
                }
                2 => {
                    let renamed = format!("{other}x");
                    client.rename(&other, &renamed, false).await.expect("renamed");
                    let moved = files.remove(&other).expect("known");
                    files.insert(renamed, moved);
                }
                3 => {
                    world.put(&other, bytes.clone());
                    files.insert(other, bytes);
                    client.refresh().await;
                }
                _ => {}
            }
        }
        for (path, expected) in &files {
            assert!(client.read(path).await.expect("read") == *expected, "seed {seed}: {path} at the end");
        }
    }
}

/// Names of a large directory that is not listed, or whose listing is old, are looked up by a few pages: those that are
/// there, those that are not, and those that another client added, replaced and deleted.
#[tokio::test]
async fn names_of_a_large_directory_cost_a_few_pages() {
    let world = World::new(1000).await;
    let name = |number: usize| format!("d/f{number:05}");
    (0..5000).for_each(|number| world.put(&name(number), vec![1]));
    let client = world.client(How { names_max: 20_000, ..How::default() });
    for round in ["never listed", "listed a while ago"] {
        let before = client.lists();
        for number in 0..5000 {
            assert_eq!(client.stat(&name(number)).await.expect("is there").attr.size_bytes, 1, "{round}");
        }
        assert!(client.lists() - before <= 12, "{round}: {} LIST", client.lists() - before);
        let before = client.lists();
        for number in 0..1000 {
            assert!(client.stat(&format!("d/f02000x{number:04}")).await.is_err(), "{round}");
        }
        assert!(client.lists() - before <= 1, "{round}: {} LIST", client.lists() - before);
        client.list("d").await.expect("listed");
        client.refresh().await;
    }
    for number in (0..5000).step_by(5) {
        match number % 3 {
            0 => world.put(&name(number), vec![1, 2]),
            1 => world.delete(&name(number)).await,
            _ => world.put(&format!("{}new", name(number)), vec![1, 2, 3]),
        }
    }
    client.refresh().await;
    for number in (0..5000).step_by(5) {
        let (old, new) = (client.stat(&name(number)).await, client.stat(&format!("{}new", name(number))).await);
        let sizes = [old, new].map(|found| found.ok().map(|entry| entry.attr.size_bytes));
        let expected = [[Some(2), None], [None, None], [Some(1), Some(3)]][number % 3];
        assert_eq!(sizes, expected, "{number}");
    }
}

/// A path costs a listing for each directory on it, once; what this mount made costs none; and attributes that are too
/// old cost a listing of their directory, also where each was learnt by a HEAD.
#[tokio::test]
async fn names_cost_a_listing_of_each_directory_at_most() {
    let world = World::new(1000).await;
    for key in ["a/b/c/d/f", "a/b/c/d/g", "a/b/x", "a/y"] {
        world.put(key, vec![1]);
    }
    let client = world.client(How::default());
    client.stat("a/b/c/d/f").await.expect("is there");
    assert!(client.lists() <= 5, "{} LIST", client.lists());
    let before = client.lists();
    for path in ["a/b/c/d/f", "a/b/c/d/g", "a/b/x", "a/y"] {
        client.stat(path).await.expect("is there");
    }
    for path in ["a/z", "a/b/z", "a/b/c/d/z", "z"] {
        assert!(client.stat(path).await.is_err(), "{path}");
    }
    client.mkdir("made", DIR_MODE).await.expect("made");
    assert!(client.stat("made/none").await.is_err());
    client.write("made/f", b"x").await.expect("written");
    assert_eq!(client.list("made").await.expect("listed").len(), 1);
    assert_eq!(client.lists(), before, "all is known");

    let writer = world.client(How::default());
    writer.mkdir("posix", 0o700).await.expect("made");
    for number in 0..50 {
        writer.write(&format!("posix/f{number:02}"), b"x").await.expect("written");
    }
    writer.fs.drain().await;
    let client = world.client(How { ttl: Duration::ZERO, ..How::default() });
    assert_eq!(client.list("posix").await.expect("listed").len(), 50);
    let (lists, heads) = (client.lists(), client.heads());
    assert!(heads >= 50, "each has metadata: {heads} HEAD");
    assert_eq!(client.list("posix").await.expect("listed").len(), 50);
    assert_eq!((client.lists() - lists, client.heads() - heads), (2, 0), "the root's names, and the directory's");
}

/// A directory beside files that sort between its name and its keys is found in any page.
#[tokio::test]
async fn a_directory_behind_its_neighbours_is_found() {
    let world = World::new(4).await;
    for key in ["a", "a!", "a!b", "a-", "a.b", "a.c", "a/x", "a0", "b", "b/y", "c"] {
        world.put(key, vec![1]);
    }
    for first in ["a", "a!", "a-", "a.b", "a/x", "b/y", "aa", "a0", "c", "none"] {
        let client = world.client(How::default());
        let found = client.stat(first).await.is_ok();
        assert_eq!(found, !["aa", "none"].contains(&first), "{first} at once");
        for (path, there) in [("a/x", true), ("b/y", true), ("a.c", true), ("a.d", false), ("c", true), ("a0", true)] {
            assert_eq!(client.stat(path).await.is_ok(), there, "{path} after {first}");
        }
    }
}

/// Another client replaces, deletes and adds a thousand names while a program keeps reading all of them: it meets no
/// error but ENOENT and ESTALE; each change is seen within the time to live, and at once after a refresh.
#[test]
fn what_another_client_does_to_a_thousand_names_is_seen() {
    let Some(rig) = Rig::start(Kind::Embedded, "what_another_client_does_to_a_thousand_names_is_seen") else { return };
    let bucket = rig.bucket();
    let put = |first: usize, last: usize, text: &str| {
        let keys =
            format!("b.new_key('many/f%04d' % n).set_contents_from_string('{text}') for n in range({first}, {last})");
        rig.boto(&format!("b = conn.get_bucket('{bucket}')\n[{keys}]"));
    };
    let delete = |first: usize, last: usize| {
        let keys = format!("'many/f%04d' % n for n in range({first}, {last})");
        rig.boto(&format!("conn.get_bucket('{bucket}').delete_keys([{keys}])"));
    };
    let read_all = "import os\nprint(sorted((f, len(open(f).read())) for f in os.listdir('.')) == \
                    sorted(('f%04d' % n, size) for first, last, size in EXPECTED for n in range(first, last)))";
    put(0, 700, "old");
    let ttl = Duration::from_secs(2);
    let mount = Mount::with(&rig, &MountHow { bucket: Some(&bucket), flags: &["--ttl", "2s"], ..MountHow::default() });
    let shows = |expected: &str| {
        let script = read_all.replace("EXPECTED", expected);
        mount.try_sh(&format!("cd many && python3 -c \"{script}\"")) == (0, "True\n".to_owned())
    };
    assert!(shows("[(0, 700, 3)]"));

    let loops = "import os\nseen = set()\nwhile not os.path.exists('../stop'):\n  for f in os.listdir('.'):\n    try: open(f).read()\n    \
                 except OSError as e: seen.add(e.errno)\nprint(sorted(seen - {2, 116}))";
    let reader = Command::new("python3")
        .args(["-c", loops])
        .current_dir(mount.path.join("many"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    put(0, 350, "newer");
    delete(350, 700);
    put(700, 1000, "added!");
    let expected = "[(0, 350, 5), (700, 1000, 6)]";
    // The listing, and then the names, may each be as old as that; the rest is for reading a thousand files.
    wait_for("what another client did", ttl * 2 + Duration::from_secs(20), || shows(expected));
    mount.sh("touch stop");
    let told = reader.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&told.stdout), "[]\n", "errors other than ENOENT and ESTALE");

    put(0, 350, "newest");
    delete(700, 1000);
    mount.sh("setfattr -n user.s3.refresh -v 1 many");
    assert!(shows("[(0, 350, 6)]"), "at once after a refresh");
}

/// What a listing finds changed is told to the kernel, which was told otherwise for an hour: names that went, that came,
/// and that have another content, of a directory that was not listed before.
#[test]
fn what_a_listing_finds_changed_is_seen_at_once() {
    let Some(rig) = Rig::start(Kind::Embedded, "what_a_listing_finds_changed_is_seen_at_once") else { return };
    let bucket = rig.bucket();
    let change = |script: &str| rig.boto(&format!("b = conn.get_bucket('{bucket}')\n{script}"));
    change("[b.new_key('many/f%04d' % n).set_contents_from_string('old') for n in range(2000)]");
    let mount = Mount::with(&rig, &MountHow { bucket: Some(&bucket), flags: &["--ttl", "1h"], ..MountHow::default() });
    let look = "import os\ndef look(n):\n  try: return open('many/f%04d' % n).read()\n  except FileNotFoundError: pass\n\
                def at(n): return os.path.getsize('many/f%04d' % n) if os.path.exists('many/f%04d' % n) else None\n";
    let holds = |expected: &str| {
        let script = format!("{look}print(all(look(n) == x and at(n) == (x and len(x)) for n, x in {expected}))");
        mount.try_sh(&format!("python3 -c \"{script}\"")) == (0, "True\n".to_owned())
    };
    assert!(holds("[(n, 'old') for n in range(0, 800)] + [(n, None) for n in range(2000, 2200)]"));
    change(
        "[b.new_key('many/f%04d' % n).set_contents_from_string('newer') for n in [*range(400), *range(2000, 2200)]]\n\
         b.delete_keys(['many/f%04d' % n for n in range(400, 800)])",
    );
    let told = "[(n, 'newer') for n in [*range(400), *range(2000, 2200)]] + [(n, None) for n in range(400, 800)]";
    assert!(!holds(told), "the time to live is long");
    let listed = mount.cost(|| assert_eq!(mount.sh("ls many | wc -l").trim(), "1800"));
    assert!(listed["ListObjects"] <= 4, "{listed:?}");
    // The kernel is told by a thread of its own, right behind the answer.
    wait_for("what the listing found", Duration::from_secs(5), || holds(told));
}

/// All requests of an operation take a second from now on.
fn slow_down(client: &Client, operation: &'static str) {
    let failure = Failure::Slow(Duration::from_secs(1));
    client.fault.set_rules(vec![Rule { operation: Some(operation), when: When::Chance(1.0), failure }]);
}

/// A tree of many pages is walked through several of them at once, once it is known to be large; nothing is asked for
/// beyond what the walk comes to.
#[tokio::test(start_paused = true)]
async fn a_large_tree_is_listed_several_pages_at_once() {
    let world = World::new(100).await;
    let directories: Vec<String> = (0..1000).map(|number| format!("t/d{number:03}")).collect();
    directories.iter().for_each(|directory| (0..10).for_each(|n| world.put(&format!("{directory}/f{n}"), vec![1])));
    let client = world.client(How { names_max: 50_000, ..How::default() });
    assert_eq!(client.list("t").await.expect("listed").len(), 1000);
    slow_down(&client, "ListObjects");
    let (began, before) = (Instant::now(), client.lists());
    for directory in &directories[..500] {
        assert_eq!(client.list(directory).await.expect("listed").len(), 10, "{directory}");
    }
    // What the walk asked for ahead of itself comes, and no more.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(client.lists() - before <= 65, "{} LIST for 50 pages", client.lists() - before);
    for directory in &directories[500..] {
        assert_eq!(client.list(directory).await.expect("listed").len(), 10, "{directory}");
    }
    let (seconds, lists) = (began.elapsed().as_secs() - 60, client.lists() - before);
    println!("100 pages: {seconds} s, {lists} LIST");
    assert!(seconds <= 50 && lists <= 115, "{seconds} s, {lists} LIST");
}

/// A walk through a tree whose pages come several at once sees what is there, whatever this mount changes meanwhile, and
/// goes on where a page failed.
#[tokio::test]
async fn walks_of_large_trees_see_what_is_there() {
    for seed in 0..4 {
        let mut rng = Rng::with_seed(seed);
        let world = World::new(100).await;
        let mut keys = BTreeSet::new();
        for number in 0..500 {
            keys.extend((0..rng.u8(5..12)).map(|n| format!("d{number:03}/f{n}")));
        }
        keys.iter().for_each(|key| world.put(key, vec![1]));
        let client = world.client(How { names_max: 50_000, seed, ..How::default() });
        let failure = Failure::ServerError;
        client.fault.set_rules(vec![Rule { operation: Some("ListObjects"), when: When::Chance(0.1), failure }]);
        walk(&client, &mut keys, &mut rng).await;
    }
}

/// A page that ends in a directory below a large one, for whose sake that large one was read or looked into: both are told
/// whole and each name once.
#[tokio::test]
async fn a_page_that_ends_below_a_large_directory_is_not_all_of_what_it_ends_in() {
    let world = World::new(1000).await;
    (0..600).for_each(|number| world.put(&format!("t/a/f{number:03}"), vec![1]));
    (0..1000).for_each(|number| world.put(&format!("t/a/sub/f{number:03}"), vec![1]));
    for other in ["b", "c", "d", "e"] {
        (0..700).for_each(|number| world.put(&format!("t/{other}/f{number:03}"), vec![1]));
    }
    let client = world.client(How { names_max: 50_000, ..How::default() });
    for (directory, count) in [("t", 5), ("t/a", 601), ("t/a/sub", 1000), ("t/b", 700), ("t/c", 700)] {
        let listed = client.list(directory).await.expect("listed");
        let names: BTreeSet<String> = listed.into_iter().map(|(name, _)| name).collect();
        assert_eq!((names.len(), client.list(directory).await.expect("listed").len()), (count, count), "{directory}");
    }
    let client = world.client(How { names_max: 50_000, ..How::default() });
    for directory in ["t/e", "t/d", "t/c", "t/b", "t/a", "t/a/sub"] {
        client.walk(&format!("{directory}/f599")).await.expect("is there");
        client.walk(&format!("{directory}/f600x")).await.expect_err("is not there");
    }
    client.walk("t/a/sub/f999").await.expect("is there");
}

/// What a walk brought ahead is believed no more after a refresh, nor of a directory that came to its place.
#[tokio::test]
async fn what_a_walk_brought_ahead_is_believed_only_of_what_it_was_brought_of() {
    for (c_count, d_count) in [(1500, 1000), (3000, 10)] {
        let world = World::new(1000).await;
        for (directory, count) in [("a", 10), ("b", 10), ("c", c_count), ("d", d_count)] {
            (0..count).for_each(|number| world.put(&format!("t/{directory}/f{number:04}"), vec![1]));
        }
        (0..1200).for_each(|number| world.put(&format!("new/c/g{number:04}"), vec![1]));
        let client = world.client(How { names_max: 50_000, ttl: Duration::from_secs(3600), ..How::default() });
        client.list("t").await.expect("listed");
        let before = client.lists();
        client.list("t/a").await.expect("listed");
        client.list("t/b").await.expect("listed");
        let page_ahead = async {
            while client.lists() < before + 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), page_ahead).await.expect("a page is brought ahead");
        if d_count == 1000 {
            world.delete("t/d/f0001").await;
            client.refresh().await;
            assert_eq!(client.list("t/d").await.expect("listed").len(), 999, "at once after a refresh");
        } else {
            client.rename("t/c", "t/old", false).await.expect("renamed");
            client.rename("new/c", "t/c", false).await.expect("renamed");
            let names = client.list("t/c").await.expect("listed");
            assert!(names.len() == 1200 && names.iter().all(|(name, _)| name.starts_with('g')), "{}", names.len());
        }
    }
}

/// Names that are looked up in directories with markers cost no HEAD of the markers beside them.
#[tokio::test]
async fn looking_names_up_asks_about_no_other_directory() {
    let world = World::new(1000).await;
    for number in 0..300 {
        world.put(&format!("t/d{number:03}/"), Vec::new());
        world.put(&format!("t/d{number:03}/f"), vec![1]);
    }
    let client = world.client(How::default());
    client.walk("t").await.expect("is there");
    let before = (client.heads(), client.lists());
    let looked = (0..20).map(|number| number * 127 % 300).collect::<Vec<_>>();
    for number in &looked {
        client.walk(&format!("t/d{number:03}/f")).await.expect("is there");
    }
    let (heads, lists) = (client.heads() - before.0, client.lists() - before.1);
    assert!(heads <= 20 && lists <= 25, "{heads} HEAD, {lists} LIST");
}

/// A walk sees all of directories that are larger than a page, with others in them and beside them, whatever this mount
/// changes meanwhile and whichever page fails.
#[tokio::test]
async fn walks_with_large_directories_see_what_is_there() {
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let world = World::new(1000).await;
        let mut keys = BTreeSet::new();
        for _ in 0..12 {
            let depth = rng.usize(1..4);
            let directory: Vec<&str> =
                (0..depth).map(|_| *rng.choice(&["a", "b", "b.c", "b-", "n"]).expect("some")).collect();
            let count = *rng.choice(&[3, 40, 900, 2500]).expect("some");
            let directory = directory.join("/");
            keys.extend((0..count).map(|number| format!("{directory}/{}{number:04}", ["f", "z"][number % 2])));
        }
        keys.iter().for_each(|key| world.put(key, vec![1]));
        let client = world.client(How { names_max: 100_000, seed, ..How::default() });
        let failure = Failure::ServerError;
        client.fault.set_rules(vec![Rule { operation: Some("ListObjects"), when: When::Chance(0.1), failure }]);
        walk(&client, &mut keys, &mut rng).await;
        client.refresh().await;
        walk(&client, &mut keys, &mut rng).await;
    }
}

/// The attributes of a POSIX directory are asked for as many at once as the mount may, not one after another.
#[tokio::test(start_paused = true)]
async fn attributes_come_many_at_once() {
    let world = World::new(1000).await;
    let other = world.client(How::default());
    other.mkdir("d", 0o750).await.expect("made");
    for number in 0..64 {
        other.write(&format!("d/f{number:02}"), b"x").await.expect("stored");
    }
    other.setattr("d", Changes { mode: Some(0o700), ..Changes::default() }).await.expect("a marker");
    let client = world.client(How::default());
    client.walk("d").await.expect("is there");
    slow_down(&client, "HeadObject");
    let (began, before) = (Instant::now(), client.heads());
    assert_eq!(client.list("d").await.expect("listed").len(), 64);
    let (seconds, heads) = (began.elapsed().as_secs(), client.heads() - before);
    // One of the marker, then four at once: so many are allowed here.
    assert!(heads >= 64 && seconds <= heads.div_ceil(4) + 2, "{heads} HEAD in {seconds} s");
}
