//! copy_file_range: copies inside a mount are made by the server, and are what the source was.

use crate::harness::{How, Kind, Mount, Rig, on, sh_in};

const BOTH: &[Kind] = &[Kind::Rgw, Kind::Embedded];

/// All that may pass through the client when a large file is copied on the server, both ways and with headers.
const COPY_BYTES_MAX: u64 = 50_000;

/// Defines `copy(source, from, target, to, length)`, which goes on until all is copied.
const PYTHON: &str = "import os\ndef copy(source, at, target, to, length):\n    while length > 0:\n        \
    done = os.copy_file_range(source, target, length, at, to)\n        assert done > 0\n        \
    at, to, length = at + done, to + done, length - done\n";

/// Runs Python in a mount, in a process of its own.
fn python(mount: &Mount, script: &str) -> String {
    std::fs::write(mount.folder.path().join("script"), format!("{PYTHON}{script}\n")).expect("written");
    mount.sh(&format!("/usr/bin/python3 {}/script", mount.folder.path().display()))
}

fn moved_bytes(mount: &Mount) -> u64 {
    let status = mount.status();
    let number = |name: &str| status[name].as_u64().expect("a number");
    number("bytes_up") + number("bytes_down")
}

fn put_random(rig: &Rig, bucket: &str, key: &str, mebibytes: u64) {
    rig.boto(&format!(
        "import os\nconn.get_bucket('{bucket}').new_key('{key}').set_contents_from_string(os.urandom({}))",
        mebibytes << 20
    ));
}

fn same_in_store(rig: &Rig, bucket: &str, keys: [&str; 2]) -> bool {
    let [one, other] = keys;
    let script = format!(
        "b = conn.get_bucket('{bucket}')\nprint(b.get_key('{one}').get_contents_as_string() == b.get_key('{other}').get_contents_as_string())"
    );
    rig.boto(&script).trim() == "True"
}

/// `cp` of 256 MiB (a quarter of it in the short form) is one copy on the server, with the attributes of the target, and
/// moves at most 50 kB; `--reflink=never` reads and writes, and comes to the same.
#[test]
fn cp_moves_no_bytes_through_the_client() {
    let mebibytes = if std::env::var("DREAMFS_TEST_FULL").is_ok() { 256 } else { 64 };
    println!("cp_moves_no_bytes_through_the_client: {mebibytes} MiB");
    on(BOTH, "cp_moves_no_bytes_through_the_client", |rig| {
        let bucket = rig.bucket();
        put_random(rig, &bucket, "big", mebibytes);
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("ls -l > /dev/null");
        let before = moved_bytes(&mount);
        let cost = mount.cost(|| drop(mount.sh("cp big copy")));
        let moved = moved_bytes(&mount) - before;
        println!("{moved} bytes moved, {cost:?}");
        assert!(moved <= COPY_BYTES_MAX, "{moved} bytes moved by {cost:?}");
        assert_eq!(cost.get("CopyObject"), Some(&1), "{cost:?}");
        assert!(!cost.keys().any(|name| name.contains("Part") || name == "PutObject"), "{cost:?}");
        assert!(same_in_store(rig, &bucket, ["big", "copy"]));
        mount.sh("cmp big copy && chmod 600 big && cp big copy2 && cp -p big copy3 && cp --reflink=never big copy4");
        mount.sh("setfattr -n user.s3.refresh -v 1 . && cmp big copy4");
        assert_eq!(mount.sh("stat -c %a copy copy3"), "644\n600\n", "each has its own attributes");
        assert_eq!(mount.sh("stat -c %Y copy3"), mount.sh("stat -c %Y big"), "cp -p keeps the time");
        assert!(same_in_store(rig, &bucket, ["big", "copy3"]));
    });
}

/// Ranges go into the middle of another file and of the same file, beyond its end and from a hole; what is unaligned and
/// what is long both come out as pwrite would have made it; overlapping ranges of one file are EINVAL.
#[test]
fn ranges_are_copied_as_bytes_would_be() {
    on(BOTH, "ranges_are_copied_as_bytes_would_be", |rig| {
        let bucket = rig.bucket();
        put_random(rig, &bucket, "source", 24);
        put_random(rig, &bucket, "target", 20);
        let mount = Mount::new(rig, Some(&bucket));
        let local = tempfile::TempDir::new().expect("room");
        mount.sh(&format!("cp source target {}", local.path().display()));
        let copies = "copy(s, 1 << 20, t, 5 << 20, 12 << 20); copy(s, 12345, t, 777, 4321); \
            copy(s, 20 << 20, t, 25 << 20, 4 << 20); copy(t, 0, t, 30 << 20, 6 << 20); copy(t, 24 << 20, t, 0, 1000)";
        let script =
            |folder: &str| format!("s, t = os.open('{folder}/source', 0), os.open('{folder}/target', 2)\n{copies}\n");
        let cost = mount.cost(|| drop(python(&mount, &script("."))));
        assert_eq!(cost.get("UploadPartCopy"), Some(&1), "the long range is copied there: {cost:?}");
        python(&mount, &script(local.path().to_str().expect("UTF-8")));
        assert_eq!(mount.sh("sha256sum < target"), sh_in(local.path(), "sha256sum < target"));
        let theirs = rig.boto(&format!(
            "import hashlib\nprint(hashlib.sha256(conn.get_bucket('{bucket}').get_key('target').get_contents_as_string()).hexdigest())"
        ));
        assert!(sh_in(local.path(), "sha256sum < target").starts_with(theirs.trim()), "boto reads the same");
        let refused = python(
            &mount,
            "t = os.open('target', 2)\ntry: os.copy_file_range(t, t, 1000, 0, 500)\nexcept OSError as e: print(e.errno)",
        );
        assert_eq!(refused.trim(), libc::EINVAL.to_string());
    });
}

/// In a mount of the account, a file goes from bucket to bucket without passing through the client.
#[test]
fn a_copy_crosses_buckets() {
    on(BOTH, "a_copy_crosses_buckets", |rig| {
        let (one, other) = (rig.bucket(), rig.bucket());
        put_random(rig, &one, "f", 16);
        let mount = Mount::new(rig, None);
        mount.sh(&format!("ls {one} {other} > /dev/null"));
        let before = moved_bytes(&mount);
        mount.sh(&format!("cp {one}/f {other}/g"));
        let moved = moved_bytes(&mount) - before;
        assert!(moved <= COPY_BYTES_MAX, "{moved} bytes");
        mount.sh(&format!("cmp {one}/f {other}/g"));
    });
}

/// What the source has not stored yet is copied too; what this mount changes, moves or removes of the source before the
/// target is stored does not change the copy.
#[test]
fn a_copy_is_what_the_source_was() {
    on(BOTH, "a_copy_is_what_the_source_was", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        let unsaved = "s, t = os.open('unsaved', os.O_RDWR | os.O_CREAT), os.open('of_unsaved', os.O_RDWR | os.O_CREAT)\n\
            os.pwrite(s, b'a' * 9000000, 1000); copy(s, 500, t, 0, 9000500); os.close(t)\n\
            assert open('of_unsaved', 'rb').read() == bytes(500) + b'a' * 9000000\n";
        python(&mount, unsaved);
        for (name, change) in [
            ("written", "open('written', 'r+b').write(b'new')"),
            ("emptied", "open('emptied', 'wb').close()"),
            ("removed", "os.remove('removed')"),
            ("moved", "os.rename('moved', 'elsewhere')"),
            ("covered", "open('x', 'w').write('x'); os.rename('x', 'covered')"),
            ("d/below", "os.rename('d', 'e')"),
        ] {
            put_random(rig, &bucket, name, 9);
            let folder = mount.folder.path().join("was");
            mount.sh(&format!("setfattr -n user.s3.refresh -v 1 . ; cat {name} > {}", folder.display()));
            let script = format!(
                "s, t = os.open('{name}', 0), os.open('copy', os.O_RDWR | os.O_CREAT | os.O_TRUNC)\n\
                 copy(s, 0, t, 0, 9 << 20); os.close(s)\n{change}\nos.close(t)"
            );
            python(&mount, &script);
            mount.sh(&format!("cmp copy {}", folder.display()));
            let size = rig.boto(&format!("print(conn.get_bucket('{bucket}').lookup('copy').size)"));
            assert_eq!(size.trim(), (9 << 20).to_string(), "{name}");
        }
    });
}

/// Another client replaces the source before the copy is stored: close tells ESTALE and the target's name has what it
/// had, also where the store ignores conditions; whole copies and ranges.
#[test]
fn a_source_that_another_client_replaced_is_stale() {
    on(BOTH, "a_source_that_another_client_replaced_is_stale", |rig| {
        let bucket = rig.bucket();
        put_random(rig, &bucket, "whole", 9);
        put_random(rig, &bucket, "range", 9);
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), ..How::default() });
        let script = format!(
            "{PYTHON}\nb = conn.get_bucket('{bucket}')\nos.chdir('{}')\n\
             for name, length in ('whole', 9 << 20), ('range', 8 << 20):\n    \
             s, t = os.open(name, 0), os.open('of_' + name, os.O_RDWR | os.O_CREAT)\n    \
             if name == 'range': os.pwrite(t, b'x' * 1000, 9 << 20)\n    \
             copy(s, 0, t, 0, length)\n    b.new_key(name).set_contents_from_string('other')\n    \
             try: os.close(t); print(name, 'stored')\n    except OSError as e: print(name, e.errno)\n    \
             print(b.lookup('of_' + name))\n",
            mount.path.display()
        );
        let told = rig.boto(&script);
        assert_eq!(told, "whole 116\nNone\nrange 116\nNone\n");
    });
}
