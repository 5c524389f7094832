//! How many requests a thing costs, counted by the daemon itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::{ALL, How, Kind, Mount, Rig, on, wait_for};

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

const BOTH: &[Kind] = &[Kind::Rgw, Kind::Embedded];

/// Opening and reading a small file after `ls` is one GET; a new small file is one PUT, also by `echo x > f`; `df` is
/// one HEAD where the store tells how full the bucket is.
#[test]
fn small_things_cost_one_request() {
    on(BOTH, "small_things_cost_one_request", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!("conn.get_bucket('{bucket}').new_key('d/ten').set_contents_from_string('x' * 10000)"));
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags: &["--ttl", "60s"], ..How::default() });
        mount.sh("ls -l d");
        let read = mount.cost(|| assert_eq!(mount.sh("wc -c < d/ten").trim(), "10000"));
        assert_eq!(read, counts(&[("GetObject", 1)]), "open + read of a small file after ls");
        let echo = mount.cost(|| drop(mount.sh("echo x > d/new")));
        assert_eq!(echo, counts(&[("PutObject", 1)]), "echo x > f");
        let copied = mount.cost(|| drop(mount.sh("head -c 10000 /dev/zero > d/new2")));
        assert_eq!(copied, counts(&[("PutObject", 1)]), "a new small file");
        let df = mount.cost(|| drop(mount.sh("df .")));
        assert_eq!(df, counts(&[("HeadBucket", 1)]), "df");
    });
}

/// `ls -l` of 10,000 objects without POSIX metadata: ten pages, and no HEAD of them.
#[test]
fn a_listing_costs_its_pages() {
    let Some(rig) = Rig::start(Kind::Embedded, "a_listing_costs_its_pages") else { return };
    let bucket = rig.bucket();
    rig.boto(&format!(
        "b = conn.get_bucket('{bucket}')\nfor n in range(10000): b.new_key('many/f%05d' % n).set_contents_from_string('x')"
    ));
    let mount = Mount::new(&rig, Some(&bucket));
    let cost = mount.cost(|| {
        assert_eq!(mount.sh("ls -l many | wc -l").trim(), "10001");
    });
    // One page more: the bucket's root, in which the directory is looked up. Up to three pages are asked for behind the
    // last one, before that is known to be the last.
    assert!((11..=14).contains(&cost["ListObjects"]) && cost.len() == 1, "{cost:?}");
    let again = mount.cost(|| drop(mount.sh("ls many/f00007 many/f09999; ls many/none || true")));
    assert!(again.values().sum::<u64>() <= 11, "names are answered from the listing: {again:?}");
}

/// Programs that read 1,000 directories of ten files one after another, in either order, cost the pages of one listing
/// that folds nothing, and no HEAD; a second time within the TTL nothing. So do 1,000 names that are not there.
#[test]
fn a_walk_costs_the_pages_of_one_listing() {
    let Some(rig) = Rig::start(Kind::Embedded, "a_walk_costs_the_pages_of_one_listing") else { return };
    let bucket = rig.bucket();
    rig.boto(&format!(
        "b = conn.get_bucket('{bucket}')\n\
         for n in range(10000): b.new_key('tree/d%03d/f%d' % (n / 10, n % 10)).set_contents_from_string('x')"
    ));
    let flags = &["--ttl", "60s"];
    for walk in ["ls -lR tree | grep -c '^-'", "find tree -type f -size -2 | wc -l", "du -a tree | grep -c /f"] {
        let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags, ..How::default() });
        let cold = mount.cost(|| assert_eq!(mount.sh(walk).trim(), "10000", "{walk}"));
        // `find` asks what file system this is, which costs one HEAD of the bucket.
        assert!(cold["ListObjects"] <= 15 && !cold.contains_key("HeadObject"), "{walk}: {cold:?}");
        let again = mount.cost(|| assert_eq!(mount.sh(walk).trim(), "10000", "{walk}"));
        assert!(!again.contains_key("ListObjects") && !again.contains_key("HeadObject"), "{walk} again: {again:?}");
    }
    let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags, ..How::default() });
    mount.sh("ls tree > /dev/null");
    let missing = mount.cost(|| drop(mount.sh("for n in $(seq 1000); do ! stat tree/d007/none$n 2> /dev/null; done")));
    assert_eq!(missing, counts(&[("ListObjects", 1)]), "names that are not there, in a directory that nobody has read");
    let some = mount.cost(|| drop(mount.sh("ls tree/d000 tree/d001 tree/d002 > /dev/null")));
    assert!(some["ListObjects"] <= 4, "a walk that stops is not run ahead of: {some:?}");
}

/// A program that reads 64 directories of one parent in an order of its own, and never the parent, costs a few pages of
/// one listing; again when they are no longer fresh.
#[test]
fn siblings_in_any_order_cost_a_few_pages() {
    let Some(rig) = Rig::start(Kind::Embedded, "siblings_in_any_order_cost_a_few_pages") else { return };
    let bucket = rig.bucket();
    rig.boto(&format!(
        "b = conn.get_bucket('{bucket}')\n\
         for n in range(640): b.new_key('objects/%02x/f%03d' % (n % 64, n)).set_contents_from_string('x')"
    ));
    let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags: &["--ttl", "60s"], ..How::default() });
    let order = "for n in $(seq 64); do printf 'objects/%02x ' $((n * 37 % 64)); done";
    for round in ["cold", "no longer fresh"] {
        let cost =
            mount.cost(|| assert_eq!(mount.sh(&format!("ls -U $({order}) | grep -c ^f")).trim(), "640", "{round}"));
        assert!(cost["ListObjects"] <= 8, "{round}: {cost:?}");
        mount.sh("setfattr -n user.s3.refresh -v 1 .");
    }
}

/// Who looks names up in one directory after the other, in the order of names or in one of his own, and reads none of
/// them, costs a few pages as well; again when they are no longer fresh. A path costs one LIST for each directory.
#[test]
fn names_looked_up_in_many_directories_cost_a_few_pages() {
    let Some(rig) = Rig::start(Kind::Embedded, "names_looked_up_in_many_directories_cost_a_few_pages") else { return };
    let bucket = rig.bucket();
    rig.boto(&format!(
        "b = conn.get_bucket('{bucket}')\n\
         for n in range(800): b.new_key('t/%02d/%02d/f' % (n / 40, n % 40)).set_contents_from_string('x')\n\
         b.new_key('p/a/b/c/d/f').set_contents_from_string('x')"
    ));
    let lines = "for i in $(seq -w 0 19); do for n in $(seq -w 0 39); do echo t/$i/$n/f; done; done";
    for (order, lists_max) in [("cat", 40), ("sort -R --random-source=/bin/ls", 25)] {
        let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags: &["--ttl", "60s"], ..How::default() });
        for round in ["cold", "no longer fresh"] {
            let look = format!("{{ {lines}; }} | {order} | xargs stat -c %s | grep -c ^1");
            let cost = mount.cost(|| assert_eq!(mount.sh(&look).trim(), "800", "{order} {round}"));
            // What the root's files carry is judged anew with the root.
            let heads = cost.get("HeadObject").copied().unwrap_or_default();
            assert!(cost["ListObjects"] <= lists_max && heads <= 2 && cost.len() <= 2, "{order} {round}: {cost:?}");
            mount.sh("setfattr -n user.s3.refresh -v 1 .");
        }
        let path = mount.cost(|| drop(mount.sh("stat p/a/b/c/d/f; ! stat p/a/b/c/d/none 2> /dev/null")));
        assert!(path["ListObjects"] <= 6, "{path:?}");
    }
}

/// Small files that programs open one after another cost one GET each, and no HEAD; those that nobody opens cost
/// nothing worth speaking of.
#[test]
fn small_files_cost_one_get_each() {
    let Some(rig) = Rig::start(Kind::Embedded, "small_files_cost_one_get_each") else { return };
    let bucket = rig.bucket();
    rig.boto(&format!(
        "b = conn.get_bucket('{bucket}')\n\
         for n in range(300): b.new_key('t/d%02d/f%03d' % (n / 8, n)).set_contents_from_string('%05d' % n * 6000)"
    ));
    let bytes = 300 * 30_000;
    let whole: [&str; 4] = [
        "tar cf - t | tar xOf - | wc -c",
        "cp -r t /dev/shm/$$ && cat $(find /dev/shm/$$ -type f) | wc -c; rm -r /dev/shm/$$",
        "find t -type f -exec cat {} + | wc -c",
        "grep -r 0 t | wc -l | sed 's/300/9000000/'",
    ];
    for reader in whole {
        let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags: &["--ttl", "60s"], ..How::default() });
        let cost = mount.cost(|| assert_eq!(mount.sh(reader).trim(), bytes.to_string(), "{reader}"));
        let (gets, lists) = (cost["GetObject"], cost["ListObjects"]);
        assert!(gets <= 300 && lists <= 5 && !cost.contains_key("HeadObject"), "{reader}: {cost:?}");
        assert!(mount.status()["reading"]["hits"].as_u64() >= Some(200), "{reader}: {}", mount.status()["reading"]);
    }
    // A run of files that ends: what was fetched ahead of it in vain is a small part of what was read.
    let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags: &["--ttl", "60s"], ..How::default() });
    mount.sh("find t > /dev/null; for d in 0 1 2; do cat t/d$d*/* | wc -c; done; cat t/d30/f240 t/d30/f241 t/d30/f242 t/d30/f243");
    let reading = &mount.status()["reading"];
    let (asked, fetched) = (reading["asked_bytes"].as_u64(), reading["fetched_bytes"].as_u64());
    let (asked, fetched) = (asked.expect("counted"), fetched.expect("counted"));
    assert!(asked >= 200 * 30_000 && fetched <= asked + asked / 20 + (1 << 20), "{asked} asked, {fetched} fetched");
    // Here and there: 200 of the files, in no order.
    let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags: &["--ttl", "60s"], ..How::default() });
    let mixed = "find t -type f | awk '{ print NR * 7919 % 9973, $0 }' | sort -n | head -200 | cut -d' ' -f2";
    let cost = mount.cost(|| drop(mount.sh(&format!("{mixed} | xargs -n1 cat | wc -c"))));
    assert!(cost["GetObject"] <= 210, "{cost:?}");
}

/// A directory that gets a name costs nothing of its own, and one that is emptied and removed neither. What would vanish
/// without a marker, or lose its mode or its time, has one within a second, at once where fsync asks for it, and when the
/// mount ends.
#[test]
fn directories_cost_what_only_they_tell() {
    on(BOTH, "directories_cost_what_only_they_tell", |rig| {
        let bucket = rig.bucket();
        let keys = || {
            let script = format!("print(' '.join(key.name for key in conn.get_bucket('{bucket}').list()))");
            rig.boto(&script).trim().to_owned()
        };
        for flags in [&["--ttl", "60s"][..], &["--ttl", "60s", "--write-back"]] {
            let mut mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
            mount.sh("echo x > first && ls > /dev/null && sync first");
            let tree = "mkdir -p t/a/b && for n in 1 2 3; do echo $n > t/a/b/$n; done && echo 4 > t/a/4 && sync t";
            let made = mount.cost(|| drop(mount.sh(tree)));
            assert_eq!(made, counts(&[("PutObject", 4)]), "{flags:?}: files tell of their directories");
            let removed = mount.cost(|| drop(mount.sh("rm -r t && sync .")));
            // A journal deletes alone or together, as they come.
            let (deletes, others): (Vec<_>, Vec<_>) = removed.iter().partition(|(name, _)| name.starts_with("Delete"));
            let deleted = deletes.iter().map(|(_, count)| **count).sum::<u64>();
            let ways = if flags.contains(&"--write-back") { 2 } else { 1 };
            assert!(deletes.len() <= ways && others.len() <= 1, "{flags:?}: {removed:?}");
            assert!(deleted <= 4, "{flags:?}: one DELETE for each file at most: {removed:?}");
            assert!(!removed.contains_key("PutObject"), "{flags:?}: {removed:?}");
            let vain = mount.cost(|| drop(mount.sh("mkdir v && chmod 700 v && rmdir v && sync .")));
            assert_eq!(vain, counts(&[]), "{flags:?}: a directory that nobody saw");
            mount.sh("mkdir late && mkdir now && sync now");
            assert!(keys().contains("now/"), "{flags:?}: {}", keys());
            wait_for("a marker", Duration::from_secs(10), || keys().contains("late/"));
            mount.sh("mkdir old mine && echo x > old/f && echo x > mine/f && touch -d 2001-02-03 old && chmod 750 mine && mkdir last");
            mount.sh("mkdir -p empty/e && echo x > empty/e/f && sync empty && rm empty/e/f");
            assert!(mount.umount().2, "all is stored");
            assert_eq!(keys(), "empty/e/ first last/ late/ mine/ mine/f now/ old/ old/f", "{flags:?}");
            let mount = Mount::new(rig, Some(&bucket));
            assert_eq!(
                mount.sh("date -r old +%F; stat -c %a mine; stat -c %F empty/e"),
                "2001-02-03\n750\ndirectory\n"
            );
            mount.sh("rm -r *");
        }
    });
}

/// POSIX attributes that a HEAD told are remembered over mounts, by version: the next mount's `ls -l` asks for none but
/// those of versions that it does not know.
#[test]
fn attributes_are_asked_for_once_per_version() {
    on(ALL, "attributes_are_asked_for_once_per_version", |rig| {
        let bucket = rig.bucket();
        let put = |names: &str, mode: u32| {
            rig.boto(&format!(
                "b = conn.get_bucket('{bucket}')\nfor name in {names}:\n  k = b.new_key('d/' + name)\n  \
                 k.set_metadata('mode', '{mode}')\n  k.set_metadata('uid', '7')\n  k.set_metadata('mtime', '1000000000')\n  \
                 k.set_contents_from_string('x' if name else '')"
            ));
            Instant::now()
        };
        put("['']", 0o40750);
        let put_at = put("['f%03d' % n for n in range(200)]", 0o100640);
        wait_for("settled objects", Duration::from_secs(10), || put_at.elapsed() > Duration::from_secs(4));
        let (state, root) = (tempfile::tempdir().expect("room"), format!("{bucket}/d"));
        let list = || {
            let how = How { bucket: Some(&root), state: Some(state.path()), ..How::default() };
            let mut mount = Mount::with(rig, &how);
            let mut words = String::new();
            let cost =
                mount.cost(|| words = mount.sh("ls -ln --time-style=+%s | awk 'NF > 2 { print $1, $3, $6, $7 }'"));
            assert!(mount.umount().2, "it ends well");
            (words, cost.get("HeadObject").copied().unwrap_or(0))
        };
        let (first, heads) = list();
        assert!(first.starts_with("-rw-r----- 7 1000000000 f000\n") && first.lines().count() == 200, "{first}");
        assert!((200..=201).contains(&heads), "one for each: {heads}");
        assert_eq!(list(), (first.clone(), 0), "all are remembered");
        put("['f007', 'f008']", 0o100600);
        let changed = ["f007", "f008"].iter().fold(first, |words, name| {
            words.replace(&format!("-rw-r----- 7 1000000000 {name}"), &format!("-rw------- 7 1000000000 {name}"))
        });
        assert_eq!(list(), (changed, 2), "those that another client replaced are asked for");
    });
}

/// `--markers never` stores no object for a directory, whatever is done to it; the directory is there all the same until
/// the mount ends, and files in it are stored. A marker that was there stays one.
#[test]
fn no_markers_are_stored_where_none_are_wanted() {
    on(ALL, "no_markers_are_stored_where_none_are_wanted", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!("conn.get_bucket('{bucket}').new_key('theirs/').set_contents_from_string('')"));
        let keys = || {
            let script = format!("print(' '.join(key.name for key in conn.get_bucket('{bucket}').list()))");
            rig.boto(&script).trim().to_owned()
        };
        for more in [&["--markers", "never"][..], &["--markers", "never", "--write-back"]] {
            let flags: Vec<&str> = ["--ttl", "0s"].iter().chain(more).copied().collect();
            let mut mount = Mount::with(rig, &How { bucket: Some(&bucket), flags: &flags, ..How::default() });
            mount.sh("mkdir -p a/b c d e && chmod 700 a && touch -d 2001-02-03 c && echo x > a/b/f && echo y > e/f && rm e/f");
            mount.sh("echo z > theirs/f && rm theirs/f && mv d a/d && chmod 600 a/b/f && sync .");
            assert_eq!(mount.sh("ls -d a a/b a/d c e theirs").lines().count(), 6, "{flags:?}: all are there");
            assert_eq!(mount.sh("stat -c %a a; date -r c +%F"), "700\n2001-02-03\n", "{flags:?}");
            assert_eq!(mount.sh("rmdir c && ls"), "a\ne\ntheirs\n", "{flags:?}");
            assert!(mount.umount().2, "{flags:?}: all is stored");
            assert_eq!(keys(), "a/b/f theirs/", "{flags:?}");
            let mount = Mount::new(rig, Some(&bucket));
            assert_eq!(mount.sh("ls && ls a && cat a/b/f && rm -r a"), "a\ntheirs\nb\nx\n", "{flags:?}");
        }
    });
}
