//! What the tree promises, by example.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::store::ETag;

fn tree() -> Tree {
    tree_with(Ttl::fixed(Duration::from_secs(60)))
}

fn tree_with(ttl: Ttl) -> Tree {
    tree_of(1000, ttl)
}

fn tree_of(names_max: usize, ttl: Ttl) -> Tree {
    let defaults =
        Defaults { uid: 7, gid: 8, file_mode: 0o644, dir_mode: 0o755, dir_time: UNIX_EPOCH + Duration::from_secs(9) };
    let bucket = BucketName::new("bucket").expect("plain");
    Tree::new(Place::Directory { bucket, prefix: Prefix::default() }, defaults, ttl, names_max)
}

fn object(etag: &str, size_bytes: u64) -> Object {
    Object {
        etag: ETag::new(etag),
        size_bytes,
        modified: Some(UNIX_EPOCH + Duration::from_secs(size_bytes)),
        version_id: None,
        storage_class: None,
        headers: None,
    }
}

fn list(tree: &Tree, names: &[(&str, &str)]) {
    tree.begin_listing(ROOT);
    tree.end_listing(ROOT, Some(listing(names)));
}

fn listing(names: &[(&str, &str)]) -> Listing {
    let sighting = |etag: &str| match etag {
        "" => Sighting::Directory,
        etag => Sighting::Listed(object(etag, 1)),
    };
    Listing {
        names: names.iter().map(|(name, etag)| (name.to_string(), sighting(etag))).collect(),
        complete: true,
        unchanged: Duration::ZERO,
    }
}

fn found(tree: &Tree, name: &str) -> Option<Ino> {
    match tree.answer(ROOT, name) {
        Answer::Found(entry) => Some(entry.ino),
        _ => None,
    }
}

#[test]
fn a_complete_listing_answers_for_names_that_are_not_there() {
    let tree = tree();
    assert!(matches!(tree.answer(ROOT, "a"), Answer::Unknown));
    list(&tree, &[("a", "1"), ("d", "")]);
    assert!(found(&tree, "a").is_some());
    assert!(matches!(tree.answer(ROOT, "b"), Answer::Absent(_)));
    list(&tree, &[("d", "")]);
    assert!(matches!(tree.answer(ROOT, "a"), Answer::Absent(_)));
}

#[test]
fn a_replaced_object_changes_in_place_unless_it_is_open() {
    let tree = tree();
    list(&tree, &[("a", "1")]);
    let first = found(&tree, "a").expect("listed");
    list(&tree, &[("a", "2")]);
    assert_eq!(found(&tree, "a"), Some(first));
    tree.remember(first);
    tree.pin(first);
    list(&tree, &[("a", "3")]);
    let second = found(&tree, "a").expect("listed");
    assert_ne!(second, first);
    assert!(second.0 >= 1 << 63, "a newcomer takes a reserved number while the old inode lives");
    assert_eq!(tree.read(first, |inode| inode.object.clone().map(|object| object.etag)), Some(Some(ETag::new("2"))));
    assert_eq!(tree.place(first), None);
    tree.unpin(first);
    tree.forget(first, 1);
    assert_eq!(tree.read(first, |_| ()), None, "freed once nobody uses it");
}

#[test]
fn local_changes_outrank_a_listing_under_way() {
    let tree = tree();
    list(&tree, &[("old", "1")]);
    tree.begin_listing(ROOT);
    let attr = tree.entry(ROOT).expect("root").attr;
    let made = tree.insert(ROOT, "new", Attr { kind: FileKind::File, ..attr }, Some(object("9", 1)));
    tree.remove(ROOT, "old");
    tree.end_listing(ROOT, Some(listing(&[("old", "1")])));
    assert_eq!(found(&tree, "new"), made.map(|entry| entry.ino));
    assert!(matches!(tree.answer(ROOT, "old"), Answer::Absent(_)));
}

#[test]
fn what_is_only_here_survives_listings() {
    let tree = tree();
    let attr = tree.entry(ROOT).expect("root").attr;
    let made = tree.insert(ROOT, "unsaved", Attr { kind: FileKind::File, ..attr }, None).expect("room");
    tree.update(made.ino, |inode| inode.local = true);
    list(&tree, &[]);
    assert_eq!(found(&tree, "unsaved"), Some(made.ino));
}

#[test]
fn rename_keeps_the_inode_and_detaches_the_target() {
    let tree = tree();
    list(&tree, &[("a", "1"), ("b", "2"), ("d", "")]);
    let (a, b, d) = (found(&tree, "a").expect("a"), found(&tree, "b").expect("b"), found(&tree, "d").expect("d"));
    tree.remember(b);
    tree.rename(ROOT, "a", ROOT, "b");
    assert_eq!(found(&tree, "b"), Some(a));
    assert_eq!(tree.place(b), None);
    tree.rename(ROOT, "b", d, "c");
    assert!(tree.is_below(a, d));
    assert_eq!(tree.path(a), "d/c");
    assert_eq!(tree.resolve(ROOT, "d/c"), Some(a));
}

#[test]
fn a_kind_that_the_kernel_knows_does_not_change_under_its_number() {
    let tree = tree();
    list(&tree, &[("a", "1")]);
    let file = found(&tree, "a").expect("listed");
    tree.remember(file);
    list(&tree, &[("a", "")]);
    assert_ne!(found(&tree, "a"), Some(file));
}

#[test]
fn names_stay_bounded() {
    let tree = tree();
    let names: Vec<(String, String)> = (0..3000).map(|n| (format!("f{n:04}"), "1".to_owned())).collect();
    let names: Vec<(&str, &str)> = names.iter().map(|(name, etag)| (name.as_str(), etag.as_str())).collect();
    list(&tree, &names);
    assert!(tree.names() <= 1000, "{} names", tree.names());
    assert!(matches!(tree.answer(ROOT, "f0001"), Answer::Unknown), "what was forgotten is asked for again");
}

#[test]
fn what_only_the_kernel_knows_is_named_and_goes_with_it() {
    let tree = tree();
    for part in 0..6 {
        let directory = format!("d{part}");
        let found = tree.sight(ROOT, &directory, Sighting::Directory).expect("a directory").ino;
        let names: Vec<String> = (0..500).map(|n| format!("f{n:04}")).collect();
        let etag = "1".repeat(32);
        tree.begin_listing(found);
        tree.end_listing(found, Some(listing(&names.iter().map(|name| (name.as_str(), &*etag)).collect::<Vec<_>>())));
        tree.remember(found);
        tree.children(found).iter().for_each(|(_, entry)| tree.remember(entry.ino));
    }
    assert!(tree.names() >= 3000, "the kernel knows them: {}", tree.names());
    let mut unwanted = tree.take_unwanted();
    while !unwanted.is_empty() {
        for (directory, name) in unwanted {
            let ino = tree.child(directory, &name).expect("still there");
            tree.forget(ino, 1);
        }
        tree.sight(ROOT, "one more", Sighting::Listed(object("1", 1)));
        unwanted = tree.take_unwanted();
    }
    assert!(tree.names() <= 1000 + 1000 / 16, "{} names", tree.names());
}

#[test]
fn a_refresh_asks_again_and_loses_nothing_local() {
    let tree = tree();
    list(&tree, &[("a", "1")]);
    let a = found(&tree, "a").expect("listed");
    let expired = tree.expire(ROOT);
    assert!(expired.iter().any(|(ino, _, name)| *ino == a && &**name == "a"));
    assert!(matches!(tree.answer(ROOT, "a"), Answer::Unknown));
    assert_eq!(tree.knowledge(ROOT), Knowledge::Outdated);
    assert_eq!(tree.children(ROOT).len(), 1, "names stay for the time the store is away");
}

#[test]
fn a_directory_that_does_not_change_is_believed_longer() {
    let tree = tree_with(Ttl::ADAPTIVE);
    let believed = |names: &[(&str, &str)], unchanged| {
        tree.begin_listing(ROOT);
        tree.end_listing(ROOT, Some(Listing { unchanged: Duration::from_secs(unchanged), ..listing(names) }));
        let Answer::Found(entry) = tree.answer(ROOT, "a") else { panic!("a is there") };
        let Answer::Absent(absent) = tree.answer(ROOT, "none") else { panic!("nothing else is") };
        assert!(entry.ttl.abs_diff(absent) < Duration::from_secs(1));
        entry.ttl.as_secs_f64().round() as u64
    };
    assert_eq!(believed(&[("a", "1"), ("b", "1")], 3600), 60, "its newest object is old");
    assert_eq!(believed(&[("a", "1"), ("b", "2")], 1), 3, "one has just been replaced");
    assert_eq!(believed(&[("a", "1"), ("b", "2")], 200), 20);
    assert_eq!(believed(&[("a", "1")], 3600), 3, "one was removed, which no object's time tells");
}

#[test]
fn the_next_by_number_are_found_in_large_directories_too() {
    let tree = tree_of(50_000, Ttl::fixed(Duration::from_secs(60)));
    let names: Vec<String> = (0..5000).map(|number| format!("img_{number:05}.jpg")).collect();
    list(&tree, &names.iter().map(|name| (&**name, "1")).collect::<Vec<_>>());
    let mut by_number: Vec<Ino> = names.iter().map(|name| found(&tree, name).expect("listed")).collect();
    by_number.sort();
    assert_eq!(tree.files_after(by_number[100], Order::Number, 64), by_number[101..165]);
}

#[test]
fn the_kernel_is_told_of_what_it_knows_and_of_nothing_else() {
    let tree = tree();
    list(&tree, &[("gone", "1"), ("other", "1"), ("same", "1"), ("open", "1"), ("unknown", "1"), ("unknown too", "1")]);
    assert_eq!(tree.take_news(), [], "it is told anyway of what it asks for");
    let ino = |name: &str| found(&tree, name).expect("listed");
    ["gone", "other", "same", "open"].iter().for_each(|name| tree.remember(ino(name)));
    tree.pin(ino("open"));
    let other = ino("other");
    list(&tree, &[("other", "2"), ("same", "1"), ("open", "2"), ("unknown", "2"), ("new", "1")]);
    let mut news = tree.take_news();
    news.sort_by_key(|news| format!("{news:?}"));
    let name = |name: &str| News::Entry(ROOT, name.into());
    assert_eq!(news, [name("gone"), name("open"), News::Inode(other)]);
    assert!(matches!(tree.answer(ROOT, "later"), Answer::Absent(_)));
    list(&tree, &[("other", "2"), ("same", "1"), ("open", "2"), ("later", "1")]);
    assert_eq!(tree.take_news(), [name("later")], "it was told that there is none");
}
