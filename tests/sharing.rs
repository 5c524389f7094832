//! What two handles, two programs or two clients see of each other: never bytes of two versions mixed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

use crate::harness::{ALL, Kind, Mount, on};

const WITH_REAL: &[Kind] = &[Kind::Rgw, Kind::Embedded];

fn rest(file: &mut File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).expect("read");
    text
}

/// vim's save, twice, with the old and the new file held open: everyone reads the bytes of what they opened.
#[test]
fn saves_by_rename_keep_open_files_right() {
    on(ALL, "saves_by_rename_keep_open_files_right", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        let (file, temp) = (mount.path.join("f"), mount.path.join("f.tmp"));
        let mut held = Vec::new();
        for round in 0..3 {
            fs::write(&temp, format!("round {round}")).expect("written");
            fs::rename(&temp, &file).expect("renamed");
            let mut now = File::open(&file).expect("opened");
            assert_eq!(rest(&mut now), format!("round {round}"));
            held.push((round, now));
        }
        for (round, file) in &mut held {
            file.seek(SeekFrom::Start(0)).expect("seekable");
            assert_eq!(rest(file), format!("round {round}"), "an open file keeps its bytes");
        }
        let numbers: std::collections::BTreeSet<u64> =
            held.iter().map(|(_, file)| file.metadata().expect("stat").ino()).collect();
        assert_eq!(numbers.len(), 3, "each is its own inode");
        assert_eq!(mount.sh("cat f"), "round 2");
    });
}

/// An unlinked file stays readable and writable for those who have it open.
#[test]
fn unlinked_files_live_while_they_are_open() {
    on(ALL, "unlinked_files_live_while_they_are_open", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        let path = mount.path.join("f");
        fs::write(&path, "stored").expect("written");
        let mut file = OpenOptions::new().read(true).write(true).open(&path).expect("opened");
        fs::remove_file(&path).expect("removed");
        assert!(!path.exists());
        assert_eq!(rest(&mut file), "stored");
        file.write_all(b" and more").expect("writable");
        file.seek(SeekFrom::Start(0)).expect("seekable");
        assert_eq!(rest(&mut file), "stored and more");
        drop(file);
        assert_eq!(rig.boto(&format!("print(len(list(conn.get_bucket('{bucket}').list())))")).trim(), "0");
    });
}

/// One content for all handles of this mount: a writer's bytes are there for a reader at once.
#[test]
fn handles_of_one_mount_share_one_content() {
    on(ALL, "handles_of_one_mount_share_one_content", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        let path = mount.path.join("log");
        let mut writer = File::create(&path).expect("made");
        let mut reader = File::open(&path).expect("opened");
        for line in ["one\n", "two\n"] {
            writer.write_all(line.as_bytes()).expect("written");
            assert_eq!(rest(&mut reader), line, "like tail -f");
        }
        writer.sync_all().expect("stored");
        writer.write_all(b"three\n").expect("writable after fsync");
        assert_eq!(rest(&mut reader), "three\n");
    });
}

/// A file half read here, replaced by another client, opened anew by a second process, then read on by the first: the
/// new reader has the new bytes, the old one its own or ESTALE, never a mixture.
#[test]
fn a_replaced_object_is_never_mixed() {
    on(WITH_REAL, "a_replaced_object_is_never_mixed", |rig| {
        let bucket = rig.bucket();
        let size = 24 << 20;
        let put = |letter: &str| {
            rig.boto(&format!(
                "conn.get_bucket('{bucket}').new_key('f').set_contents_from_string('{letter}' * {size})"
            ));
        };
        put("a");
        let mount = Mount::new(rig, Some(&bucket));
        let mut old = File::open(mount.path.join("f")).expect("opened");
        let mut bytes = vec![0; 1 << 20];
        old.read_exact(&mut bytes).expect("read");
        put("b");
        let new = mount.sh("head -c 3000000 f | tr -d b | wc -c; tail -c 3000000 f | tr -d b | wc -c");
        assert_eq!(new, "0\n0\n", "the new reader has new bytes only");
        let mut seen = bytes.clone();
        let stale = loop {
            match old.read(&mut bytes) {
                Ok(0) => break false,
                Ok(count) => seen.extend_from_slice(&bytes[..count]),
                Err(error) => {
                    assert!(error.to_string().contains("Stale"), "ESTALE, not {error}");
                    break true;
                }
            }
        };
        assert!(seen.iter().all(|byte| *byte == b'a'), "the old reader never sees the new bytes");
        assert!(stale || seen.len() == size, "it ends whole or stale, not short");
    });
}

/// Many who open, append and close one file, with readers in between, lose no line: there is one content per inode.
#[test]
fn appenders_and_readers_share_one_content() {
    on(WITH_REAL, "appenders_and_readers_share_one_content", |rig| {
        let bucket = rig.bucket();
        let mut mount = Mount::new(rig, Some(&bucket));
        mount.sh(
            ": > log; for w in 1 2 3; do (for n in 1 2 3 4 5 6 7 8 9 10; do flock lock sh -c \"echo $w $n >> log\" || exit 1; done) & \
             pids=\"$pids $!\"; done; for r in 1 2; do (for n in 1 2 3 4 5 6 7 8 9 10; do cat log > /dev/null || exit 1; done) & \
             pids=\"$pids $!\"; done; for p in $pids; do wait $p || exit 1; done",
        );
        assert_eq!(mount.sh("sort -u log | wc -l").trim(), "30");
        assert!(mount.umount().2);
        let stored = rig.boto(&format!(
            "print(len(conn.get_bucket('{bucket}').get_key('log').get_contents_as_string().splitlines()))"
        ));
        assert_eq!(stored.trim(), "30");
    });
}

/// What a writer writes to a file that another client has replaced meanwhile is ESTALE at fsync, never a quiet success.
#[test]
fn a_writer_of_a_replaced_file_is_told() {
    on(WITH_REAL, "a_writer_of_a_replaced_file_is_told", |rig| {
        let bucket = rig.bucket();
        let how = crate::harness::How { bucket: Some(&bucket), flags: &["--ttl", "1s"], ..Default::default() };
        let mount = Mount::with(rig, &how);
        mount.sh("echo ours > f");
        let mut writer = OpenOptions::new().append(true).open(mount.path.join("f")).expect("opened");
        rig.boto(&format!("conn.get_bucket('{bucket}').get_key('f').set_contents_from_string('theirs, and longer')"));
        mount.sh("setfattr -n user.s3.refresh -v 1 . && ls -l > /dev/null && cat f > /dev/null");
        let written = writer.write_all(b"more").and_then(|()| writer.sync_all());
        assert!(written.is_err(), "not stored, and said so");
        assert_eq!(mount.sh("cat f"), "theirs, and longer");
    });
}

/// A directory that moves takes along what is created in it meanwhile, or what comes later fails: nothing is left
/// behind under the old name.
#[test]
fn a_moving_directory_leaves_nothing_behind() {
    on(WITH_REAL, "a_moving_directory_leaves_nothing_behind", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("mkdir p && for n in $(seq 40); do echo $n > p/old$n; done");
        let made = mount.sh(
            "(cd p && n=0; while [ $n -lt 60 ]; do n=$((n+1)); echo $n > new$n || break; done; echo $n > ../made) & \
             mv p p2 && wait; cat made",
        );
        assert_eq!(made.trim(), "60", "who stands in the directory moves with it");
        let left = rig.boto(&format!("print([k.name for k in conn.get_bucket('{bucket}').list('p/')])"));
        assert_eq!(left.trim(), "[]", "nothing lies under the old name");
        let moved = rig.boto(&format!(
            "print(len([k for k in conn.get_bucket('{bucket}').list('p2/') if not k.name.endswith('/')]))"
        ));
        assert_eq!(moved.trim(), "100");
    });
}

/// Two who create one name exclusively: one of them is told.
#[test]
fn exclusive_creation_is_exclusive() {
    on(ALL, "exclusive_creation_is_exclusive", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("ls -l > /dev/null; echo x > f");
        let again = OpenOptions::new().write(true).create_new(true).open(mount.path.join("f"));
        assert_eq!(again.err().map(|error| error.kind()), Some(std::io::ErrorKind::AlreadyExists));
    });
}
