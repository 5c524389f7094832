//! Ordinary tools at work in a mount.

use crate::harness::{ALL, How, Kind, Mount, Rig, on, sh_in};

/// A folder with files of several sizes, modes and times, a link and an empty directory. Its directories are old: rsync
/// sets no time that is right to the second already, and then none is stored.
const SOURCE: &str = "mkdir -p s/a/b s/empty && echo one > s/a/one && head -c 300000 /dev/urandom > s/a/b/big && \
    : > s/zero && chmod 600 s/a/one && touch -d '2001-02-03 04:05:06' s/a/one && ln -s a/one s/link && chmod 750 s/a && \
    touch -d '2001-02-03 04:05:07' s s/a s/a/b s/empty";

/// cp -a, rsync -a (which finds nothing to do the second time), mv, rm -r, tar and grep.
#[test]
fn trees_are_copied_moved_packed_and_removed() {
    on(ALL, "trees_are_copied_moved_packed_and_removed", |rig| {
        let bucket = rig.bucket();
        let local = tempfile::TempDir::new().expect("room");
        let source = local.path().display().to_string();
        sh_in(local.path(), SOURCE);
        let mut mount = Mount::new(rig, Some(&bucket));
        mount.sh(&format!("mkdir top && cp -a {source}/s top/copy && diff -r --no-dereference {source}/s top/copy"));
        let shown = "find . -printf '%P %y %m %s %l\\n' | sed 's/^\\(.* d [0-9]*\\) .*/\\1/' | sort";
        let wanted = sh_in(&local.path().join("s"), shown);
        assert_eq!(mount.sh(&format!("cd top/copy && {shown}")), wanted);
        mount.sh(&format!("rsync -a {source}/s/ top/sync/"));
        assert_eq!(mount.sh(&format!("rsync -ai {source}/s/ top/sync/")), "", "the second rsync copies nothing");
        assert_eq!(mount.sh("stat -c %Y top/copy/a/one").trim(), sh_in(local.path(), "stat -c %Y s/a/one").trim());
        mount.sh("mv top/copy/a top/moved && cat top/moved/one && test ! -e top/copy/a");
        mount.sh(&format!("tar cf {source}/t.tar top/moved && mkdir top/un && tar xf {source}/t.tar -C top/un"));
        mount.sh("diff -r top/moved top/un/top/moved && grep -r one top | wc -l");
        assert!(mount.umount().2, "all is stored");
        // After a remount everything is what it was.
        let mount = Mount::new(rig, Some(&bucket));
        assert_eq!(mount.sh(&format!("rsync -ai {source}/s/ top/sync/")), "", "also after a remount");
        assert_eq!(mount.sh("readlink top/sync/link"), "a/one\n");
        mount.sh("rm -r top && test -z \"$(ls)\"");
        assert_eq!(rig.boto(&format!("print([k.name for k in conn.get_bucket('{bucket}').list()])")).trim(), "[]");
    });
}

/// git clone, status and fsck; sqlite3 commits.
#[test]
fn git_and_sqlite_work() {
    on(&[Kind::Rgw, Kind::Embedded], "git_and_sqlite_work", |rig| {
        let bucket = rig.bucket();
        let local = tempfile::TempDir::new().expect("room");
        sh_in(
            local.path(),
            "git init -q r && cd r && for n in 1 2 3 4 5; do echo $n > f$n; done && git add . && \
             git -c user.name=n -c user.email=e commit -qm one",
        );
        let mount = Mount::new(rig, Some(&bucket));
        let source = local.path().join("r");
        mount.sh(&format!("git clone -q {} clone && cd clone && git status --porcelain && git fsck", source.display()));
        assert_eq!(mount.sh("cd clone && git status --porcelain"), "");
        mount.sh("sqlite3 db 'create table t(n)'; for n in 1 2 3; do sqlite3 db \"insert into t values($n)\"; done");
        assert_eq!(mount.sh("sqlite3 db 'select sum(n) from t; pragma integrity_check'"), "6\nok\n");
    });
}

/// Edits in place: dd in the middle, append, truncate up and down, holes, mmap.
#[test]
fn edits_in_place_change_what_they_should() {
    on(ALL, "edits_in_place_change_what_they_should", |rig| {
        let bucket = rig.bucket();
        let local = tempfile::TempDir::new().expect("room");
        let mount = Mount::new(rig, Some(&bucket));
        sh_in(local.path(), "head -c 20000000 /dev/urandom > f");
        mount.sh(&format!("cp {}/f f", local.path().display()));
        let edits = "dd if=/dev/zero of=f bs=1000 seek=7000 count=3 conv=notrunc status=none && echo tail >> f && \
            truncate -s 20500000 f && dd if=/dev/zero of=f bs=1 count=1 seek=21000000 conv=notrunc status=none && \
            python3 -c 'import mmap; f = open(\"f\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); m[100:105] = b\"mmaps\"; m.flush(); m.close(); f.close()'";
        sh_in(local.path(), edits);
        mount.sh(edits);
        let sum = sh_in(local.path(), "sha256sum < f");
        assert_eq!(mount.sh("sha256sum < f"), sum);
        let theirs = rig.boto(&format!(
            "import hashlib\nprint(hashlib.sha256(conn.get_bucket('{bucket}').get_key('f').get_contents_as_string()).hexdigest())"
        ));
        assert!(sum.starts_with(theirs.trim()), "what boto reads is what the mount shows");
        mount.sh("truncate -s 5 f && test $(stat -c %s f) = 5 && : > f && test ! -s f");
    });
}

/// A gibibyte (an eighth of it in the short form) in and out compares equal, within 300 MiB of memory.
#[test]
fn large_files_fit_in_little_memory() {
    let full = std::env::var("DREAMFS_TEST_FULL").is_ok();
    let mebibytes = if full { 1024 } else { 128 };
    println!("large_files_fit_in_little_memory: {mebibytes} MiB");
    on(&[Kind::Rgw, Kind::Embedded], "large_files_fit_in_little_memory", |rig| {
        let bucket = rig.bucket();
        let local = tempfile::TempDir::new().expect("room");
        let source = local.path().join("f");
        sh_in(local.path(), &format!("head -c {} /dev/urandom > f", mebibytes << 20));
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh(&format!("cp {0} f && cmp {0} f", source.display()));
        let peak = mount.peak_rss_kib();
        assert!(peak < 300 << 10, "peak of {peak} KiB");
    });
}

/// Over the limit of a single copy, rename and chmod go by copies of parts. The limits are lowered.
#[test]
fn renames_over_the_copy_limit_go_in_parts() {
    let more = ["--test-copy-bytes-max", "12MiB"];
    let rig = Rig::embedded("rgw", &more);
    let bucket = rig.bucket();
    let flags = ["--test-copy-bytes-max", "12MiB"];
    let mount = Mount::with(&rig, &How { bucket: Some(&bucket), flags: &flags, ..How::default() });
    mount.sh("head -c 40000000 /dev/urandom > f && setfattr -n user.s3.acl -v public-read f");
    let sum = mount.sh("sha256sum < f");
    let cost = mount.cost(|| drop(mount.sh("mkdir d && mv f d/g && chmod 600 d/g && sync d/g")));
    assert_eq!(mount.sh("sha256sum < d/g"), sum);
    assert_eq!(mount.sh("getfattr --only-values -n user.s3.acl d/g"), "public-read");
    assert!(cost.get("UploadPartCopy").is_some_and(|parts| *parts >= 8), "{cost:?}");
    assert_eq!(cost.get("UploadPart"), None, "no byte goes through the client: {cost:?}");
}

/// Names that are awkward in a URL, a shell or XML.
#[test]
fn odd_names_are_names() {
    on(ALL, "odd_names_are_names", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        let names = [
            "a b",
            " lead",
            "trail ",
            "plus+",
            "%41",
            "q?&#=",
            "quote'\"",
            "back\\slash",
            "tilde~*",
            "new\nline",
            "tab\t",
            "cr\rx",
            "<&>",
            "ümläut",
            "😀",
            "...",
            "-dash",
            "%2F",
            "a  b",
            &"l".repeat(255),
        ];
        let theirs = serde_json::to_string(&names).expect("a list, in Python as well");
        rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\nfor name in {theirs}: b.new_key('theirs/' + name).set_contents_from_string(name)"
        ));
        std::fs::create_dir(mount.path.join("ours")).expect("made");
        for name in names {
            std::fs::write(mount.path.join("ours").join(name), name)
                .unwrap_or_else(|error| panic!("{name:?}: {error}"));
        }
        rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\n\
             for name in {theirs}: assert b.get_key('ours/' + name).get_contents_as_string().decode() == name, repr(name)"
        ));
        for folder in ["ours", "theirs"].map(|folder| mount.path.join(folder)) {
            odd_names_in(&folder, &names);
        }
        mount.sh("rmdir ours theirs");
    });
}

/// Lists, reads, renames and removes the files of a folder, each of which has its own name for content.
fn odd_names_in(folder: &std::path::Path, names: &[&str]) {
    xattr::set(folder, "user.s3.refresh", b"1").expect("forgotten");
    let mut seen: Vec<_> =
        std::fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
    seen.sort();
    let mut wanted: Vec<_> = names.iter().map(std::ffi::OsString::from).collect();
    wanted.sort();
    assert_eq!(seen, wanted);
    for name in names {
        assert_eq!(std::fs::read_to_string(folder.join(name)).expect("read"), *name);
    }
    for name in names {
        let renamed: String = name.chars().skip(1).chain("2".chars()).collect();
        std::fs::rename(folder.join(name), folder.join(&renamed)).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert_eq!(std::fs::read_to_string(folder.join(&renamed)).expect("read"), *name);
        std::fs::remove_file(folder.join(renamed)).expect("removed");
    }
}
