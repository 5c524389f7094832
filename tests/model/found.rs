//! What random sequences have found, each in the few calls that show it.

use std::time::Duration;

use bytes::Bytes;
use dreamfs::error::Meaning;

use crate::stand::{CALLER, How, WRITE, World};

/// A call that fails leaves nothing behind that would be read instead of another client's news.
#[tokio::test]
async fn an_error_leaves_no_old_content_behind() {
    let world = World::new(1000).await;
    let client = world.client(How { ttl: Duration::ZERO, ..How::default() });
    client.write("f", b"ours").await.expect("stored");
    let removed = client.removexattr("f", "user.none").await;
    assert_eq!(removed.map_err(|error| error.meaning()), Err(Meaning::NoAttribute));
    world.put("f", b"theirs".to_vec());
    assert_eq!(client.read("f").await.expect("read"), b"theirs");
}

/// More names than may be remembered: the directory is listed whole, and what is made in it is there.
#[tokio::test]
async fn a_directory_of_too_many_names_is_whole() {
    let world = World::new(7).await;
    let names: Vec<String> = (0..50).map(|number| format!("{number:02}")).collect();
    for name in &names {
        world.put(&format!("d/{name}"), name.clone().into_bytes());
    }
    let client = world.client(How { names_max: 8, ..How::default() });
    let listed: Vec<String> = client.list("d").await.expect("listed").into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, names);
    client.write("d/new", b"new").await.expect("stored");
    assert_eq!(client.read("d/new").await.expect("read"), b"new");
    assert_eq!(client.read("d/49").await.expect("read"), b"49");
}

/// A file that was created and not stored yet is there, also where each name of a large directory is asked for anew.
#[tokio::test]
async fn a_new_file_is_there_before_it_is_stored() {
    let world = World::new(2).await;
    for name in ["d/1", "d/2", "d/3"] {
        world.put(name, b"theirs".to_vec());
    }
    let client = world.client(How { ttl: Duration::ZERO, ..How::default() });
    let (ino, id) = client.create("d/new", 0o644, WRITE).await.expect("made");
    assert_eq!(client.walk("d/new").await.expect("it is there"), ino);
    client.close(id).await.expect("stored");
    assert_eq!(world.bytes("d/new").await.as_deref(), Some(&b""[..]));
}

/// A file that is renamed over another one before it is stored replaces it for good: when the new name goes, what it
/// replaced does not come back.
#[tokio::test]
async fn what_was_replaced_does_not_come_back() {
    let world = World::new(1000).await;
    world.put("f", b"replaced".to_vec());
    let client = world.client(How::default());
    let (_, id) = client.create("new", 0o644, WRITE).await.expect("made");
    client.fs.write(id, 0, Bytes::from_static(b"ours"), CALLER).await.expect("written");
    client.rename("new", "f", false).await.expect("renamed");
    client.rename("f", "g", false).await.expect("renamed");
    client.close(id).await.expect("stored");
    assert_eq!(world.keys("").await, ["g"]);
    assert_eq!(world.bytes("g").await.as_deref(), Some(&b"ours"[..]));
}

/// What another client removed is ESTALE to a handle that has not fetched it, as what it replaced is.
#[tokio::test]
async fn removed_by_another_client_is_stale() {
    let world = World::new(1000).await;
    world.put("f", vec![7; 3 << 20]);
    let client = world.client(How::default());
    let (_, id) = client.open("f", WRITE).await.expect("opened");
    world.delete("f").await;
    let read = client.fs.read(id, 2 << 20, 100).await;
    assert_eq!(read.map_err(|error| error.meaning()), Err(Meaning::Stale));
    client.fs.write(id, 0, Bytes::from_static(b"an edit"), CALLER).await.expect("written");
    assert_eq!(client.fs.fsync(id).await.map_err(|error| error.meaning()), Err(Meaning::Stale));
}
