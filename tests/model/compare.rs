//! The whole tree, as a mount shows it and as it lies in the store, against the model.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

use dreamfs::format::header::{FORMAT_MASK, FORMAT_SYMLINK, Posix as Metadata};
use dreamfs::fs::Attrs;
use dreamfs::tree::{Entry, FileKind};

use super::XATTRS;
use super::posix::{Node, Posix};
use crate::stand::{Client, PART_BYTES, World, whole_seconds};

/// How much later than its last write a long file's time may be.
const LATE_MAX: Duration = Duration::from_secs(60);

/// Whether a file that was last written at `wanted` may show this time: a long one went up while it was written, and may
/// have the time at which it was stored, which the store tells in whole seconds.
fn is_time_of(node: &Node, wanted: SystemTime, time: SystemTime) -> bool {
    match node.bytes.len() > PART_BYTES {
        true => time.duration_since(whole_seconds(wanted)).is_ok_and(|late| late <= LATE_MAX),
        false => time == wanted,
    }
}

/// What a mount shows: names, kinds, sizes, bytes, modes, owners, times, targets, attributes.
pub async fn compare(client: &Client, world: &World, model: &Posix, attrs: Attrs) {
    let mut left: Vec<String> = client.list("").await.expect("listed").into_iter().map(|(name, _)| name).collect();
    let (mut seen, mut numbers) = (BTreeSet::new(), HashSet::new());
    while let Some(directory) = left.pop() {
        seen.insert(directory.clone());
        for (name, entry) in client.list(&directory).await.expect("listed") {
            let path = format!("{directory}/{name}");
            assert!(numbers.insert(entry.ino), "{path}: two names with one inode");
            let id = model.find(&path).unwrap_or_else(|why| panic!("{path} should not be there: {why:?}"));
            let node = model.node(id);
            compare_entry(client, &path, &entry, node).await;
            if attrs == Attrs::Full || has_metadata(world, &directory).await {
                let wanted = node.mtime.filter(|_| node.kind != FileKind::Directory);
                let time = entry.attr.mtime;
                assert!(wanted.is_none_or(|wanted| is_time_of(node, wanted, time)), "{path}: {time:?}, not {wanted:?}");
            }
            match entry.attr.kind {
                FileKind::Directory => left.push(path),
                FileKind::File | FileKind::Symlink => _ = seen.insert(path),
            }
        }
    }
    let wanted: BTreeSet<String> = model.all().map(|(path, _)| path.to_owned()).collect();
    assert_eq!(seen, wanted);
}

/// Everything but times. Those of a directory are kept while the mount lives only, since each new name would cost a
/// request; those of files in a directory without metadata are when the store got them.
async fn compare_entry(client: &Client, path: &str, entry: &Entry, node: &Node) {
    let attr = &entry.attr;
    assert_eq!((attr.kind, attr.uid, attr.gid), (node.kind, node.uid, node.gid), "{path}");
    assert_eq!(format!("{:o}", attr.mode), format!("{:o}", node.mode), "{path}");
    match node.kind {
        FileKind::Directory => {}
        FileKind::File => {
            assert_eq!(attr.size_bytes, node.bytes.len() as u64, "{path}");
            assert!(client.read(path).await.expect("read") == node.bytes, "{path}: other bytes");
        }
        FileKind::Symlink => {
            assert_eq!(client.readlink(path).await.expect("a link").as_bytes(), node.bytes, "{path}");
        }
    }
    for name in XATTRS {
        let value = client.getxattr(path, name).await.ok();
        assert_eq!(value.as_ref(), node.xattrs.get(name), "{path}: {name}");
    }
}

/// Whether a directory's marker says that its files carry metadata.
async fn has_metadata(world: &World, directory: &str) -> bool {
    let marker = world.object(&format!("{directory}/")).await;
    marker.is_some_and(|(head, _)| Metadata::read(&head.headers.metadata).is_some())
}

/// What lies in the store: every file under its key, byte for byte, with its metadata; a marker or a key below for
/// every directory; and nothing else.
pub async fn raw(world: &World, model: &Posix) {
    let keys = world.keys("").await;
    for key in &keys {
        let path = key.trim_end_matches('/');
        let id = model.find(path).unwrap_or_else(|why| panic!("{key} should not be stored: {why:?}"));
        let is_directory = model.node(id).kind == FileKind::Directory;
        assert_eq!(key.ends_with('/'), is_directory, "{key}");
    }
    for (path, node) in model.all() {
        if node.kind == FileKind::Directory {
            let below = format!("{path}/");
            assert!(keys.iter().any(|key| key.starts_with(&below)), "{path}: nothing holds it in the store");
            continue;
        }
        let (head, bytes) = world.object(path).await.unwrap_or_else(|| panic!("{path} is not stored"));
        assert!(bytes == node.bytes, "{path}: other bytes in the store");
        let metadata = Metadata::read(&head.headers.metadata);
        // Objects of other tools have no metadata.
        let times = metadata.mtime.zip(node.mtime);
        assert!(times.is_none_or(|(stored, wanted)| is_time_of(node, wanted, stored)), "{path}: {metadata:?}");
        assert!(metadata.is_some() || node.foreign, "{path}: without metadata");
        let is_link = metadata.mode.is_some_and(|mode| mode & FORMAT_MASK == FORMAT_SYMLINK);
        assert_eq!(is_link, node.kind == FileKind::Symlink, "{path}: {metadata:?}");
    }
}
