//! Metadata never vanishes: every road that makes a new version, with every attribute that an object can have, and
//! boto 2 as the witness of what lies in the bucket.

use crate::harness::{ALL, How, Kind, Mount, Rig, WITH_ACL, on};

/// What the bucket holds of `f` besides its bytes and times: headers, metadata and, where asked, grants and tags.
fn witness(rig: &Rig, bucket: &str, with_acl: bool) -> String {
    let acl = match with_acl {
        true => format!(
            "print(sorted((str(g.id or g.uri), g.permission) for g in k.get_acl().acl.grants))\n\
             print(conn.make_request('GET', '{bucket}', 'f', query_args='tagging').read().decode())"
        ),
        false => String::new(),
    };
    rig.boto(&format!(
        "k = conn.get_bucket('{bucket}').get_key('f')\n\
         print(k.content_type, k.cache_control, k.content_disposition, k.content_encoding, k.content_language)\n\
         print(sorted((n, v) for n, v in k.metadata.items() if n not in ('mode', 'uid', 'gid', 'mtime', 'atime', 'ctime')))\n\
         {acl}"
    ))
}

fn xattr(mount: &Mount, name: &str) -> String {
    mount.sh(&format!("getfattr --only-values -n user.{name} f"))
}

/// Content headers and the storage class are set, seen by boto and by a new look at the store, and removed.
#[test]
fn content_headers_are_set_and_removed() {
    on(ALL, "content_headers_are_set_and_removed", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo x > f && setfattr -n user.colour -v blue f && chmod 640 f");
        let headers = [
            ("content_type", "text/css; charset=utf-8"),
            ("cache_control", "max-age=60, public"),
            ("content_disposition", "attachment; filename=\"a b.css\""),
            ("content_encoding", "identity"),
            ("content_language", "de, en"),
        ];
        for (name, value) in headers {
            mount.sh(&format!("setfattr -n user.s3.{name} -v '{value}' f"));
        }
        mount.sh("setfattr -n user.s3.storage_class -v STANDARD f && setfattr -n user.s3.refresh -v 1 f");
        for (name, value) in headers {
            assert_eq!(xattr(&mount, &format!("s3.{name}")), value);
        }
        assert_eq!(xattr(&mount, "s3.storage_class"), "STANDARD");
        let seen = witness(rig, &bucket, false);
        assert!(headers.iter().all(|(_, value)| seen.contains(value)) && seen.contains("('colour', 'blue')"), "{seen}");
        mount.sh("setfattr -x user.s3.cache_control f && setfattr -n user.s3.refresh -v 1 f");
        assert_ne!(mount.try_sh("getfattr --only-values -n user.s3.cache_control f").0, 0, "it is gone");
        assert!(!witness(rig, &bucket, false).contains("max-age"));
        assert_eq!(mount.sh("stat -c %a f"), "640\n");
        assert_eq!(mount.sh("getfattr -d f | grep -c s3 || true"), "0\n", "they are in no listing");
    });
}

/// A new file has the type that its ending tells; one that has a type keeps it.
#[test]
fn a_new_file_has_the_type_of_its_ending() {
    on(ALL, "a_new_file_has_the_type_of_its_ending", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo '<p>' > page.html && echo x > plain && mkdir d.html && sync d.html");
        let key = |name: &str| format!("print(conn.get_bucket('{bucket}').get_key('{name}').content_type)");
        assert_eq!(rig.boto(&key("page.html")).trim(), "text/html");
        assert!(!rig.boto(&key("plain")).contains("text/"));
        assert_eq!(rig.boto(&key("d.html/")).trim(), "application/x-directory");
        mount.sh("setfattr -n user.s3.content_type -v text/x-mine page.html && echo more > page.html");
        assert_eq!(rig.boto(&key("page.html")).trim(), "text/x-mine");
    });
}

/// Values that no request can carry are refused before anything is sent, and change nothing.
#[test]
fn bad_headers_are_refused() {
    on(ALL, "bad_headers_are_refused", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo x > f && setfattr -n user.s3.content_type -v text/css f && mkdir d");
        let before = witness(rig, &bucket, false);
        let refused = |name: &str, value: &str, path: &str, words: &str| {
            let (status, told) = mount.try_sh(&format!("setfattr -n user.s3.{name} -v \"{value}\" {path}"));
            assert!(status != 0 && told.contains(words), "{name}={value:?} of {path}: {told}");
        };
        for value in ["", " a", "a ", "a\\012b", "\\303\\244", "$(printf 'x%.0s' $(seq 2049))"] {
            refused("cache_control", value, "f", "Invalid argument");
        }
        refused("storage_class", "not a class", "f", "Invalid argument");
        refused("content_type", "text/css", "d", "not supported");
        refused("etag", "1", "f", "not permitted");
        refused("content_type", "text/css", "missing", "No such file");
        assert_ne!(mount.try_sh("setfattr -x user.s3.cache_control f").0, 0, "what is not there cannot be removed");
        assert_eq!(witness(rig, &bucket, false), before);
    });
}

/// Every road × every attribute: ACL, tags, content headers, storage class, another program's metadata, xattrs; mode, owner
/// and time where the road does not change them.
#[test]
fn every_road_keeps_every_attribute() {
    on(WITH_ACL, "every_road_keeps_every_attribute", |rig| walk_roads(rig, &[]));
}

/// The same through a journal, which carries the changes out later.
#[test]
fn every_road_of_a_journal_keeps_every_attribute() {
    on(WITH_ACL, "every_road_of_a_journal_keeps_every_attribute", |rig| walk_roads(rig, &["--write-back"]));
}

/// How the store encrypts a file stays over every road, by copies on the server (B2-like) or, where the store copies
/// nothing encrypted (Ceph), by the bytes passing through here; each other road would leave it as the bucket says.
#[test]
fn encryption_is_set_and_kept_on_every_road() {
    on(&[Kind::Embedded, Kind::B2], "encryption_is_set_and_kept_on_every_road", |rig| {
        for flags in [&[][..], &["--write-back"]] {
            let bucket = rig.bucket();
            let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
            let how = |key: &str| {
                rig.boto(&format!(
                    "h = dict(conn.make_request('HEAD', '{bucket}', '{key}').getheaders())\n\
                     print(h.get('x-amz-server-side-encryption'), h.get('x-amz-server-side-encryption-aws-kms-key-id'))"
                ))
            };
            mount.sh("echo 0123456789 > f && setfattr -n user.colour -v blue f && setfattr -n user.s3.encryption -v AES256 f && sync f");
            assert_eq!(how("f"), "AES256 None\n");
            mount.sh("setfattr -n user.s3.encryption -v 'aws:kms key/1' f && setfattr -n user.s3.refresh -v 1 f");
            assert_eq!(xattr(&mount, "s3.encryption"), "aws:kms key/1");
            mount.sh("seq 3000000 > large && setfattr -n user.s3.encryption -v aws:kms large && sync large");
            let roads = [
                "chmod 604 %",
                "touch -d 2001-02-03 %",
                "mv % g && mv g %",
                "mkdir d && mv % d/% && mv d e && mv e/% % && rmdir e",
                "setfattr -n user.s3.content_type -v text/other %",
                "echo more >> %",
                "printf ab | dd of=% bs=1 seek=1 conv=notrunc status=none",
                "cp % copy && rm copy",
                "truncate -s 9000000 %",
            ];
            for (road, (file, wanted)) in roads
                .iter()
                .flat_map(|road| [("f", "aws:kms key/1\n"), ("large", "aws:kms None\n")].map(|of| (road, of)))
            {
                let road = road.replace('%', file);
                let content = mount.sh(&format!("{road} && sync . && md5sum < {file}"));
                mount.sh("setfattr -n user.s3.refresh -v 1 .");
                assert_eq!(how(file), wanted, "after {road}");
                let stored = rig.boto(&format!(
                    "import hashlib\nk = conn.get_bucket('{bucket}').get_key('{file}')\n\
                     print(hashlib.md5(k.get_contents_as_string()).hexdigest() + '  -')"
                ));
                assert_eq!(stored, content, "after {road}");
            }
            assert_eq!(xattr(&mount, "colour"), "blue");
            mount.sh("setfattr -x user.s3.encryption f && sync f && setfattr -n user.s3.refresh -v 1 f");
            assert_eq!(how("f"), "None None\n");
            assert!(mount.try_sh("setfattr -n user.s3.encryption -v ROT13 f").1.contains("Invalid argument"));
        }
    });
}

/// What a mount with `--sse` writes is encrypted so, markers and links too; what has an encryption of its own keeps it.
#[test]
fn a_mount_may_ask_for_encryption() {
    on(&[Kind::Embedded, Kind::B2], "a_mount_may_ask_for_encryption", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\nb.new_key('old').set_contents_from_string('old')\n\
             b.new_key('own').set_contents_from_string('own', headers={{'x-amz-server-side-encryption': 'AES256'}})"
        ));
        let flags = &["--sse", "aws:kms", "--sse-kms-key-id", "key/1"];
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
        mount.sh("mkdir d && ln -s old d/l && head -c 20M /dev/zero > d/large && echo x >> old && chmod 600 own && mv old d/old && chmod 700 d && sync own d");
        let told = rig.boto(&format!(
            "for k in conn.get_bucket('{bucket}').list():\n  \
             h = dict(conn.make_request('HEAD', '{bucket}', k.name).getheaders())\n  \
             print(k.name, h['x-amz-server-side-encryption'], h.get('x-amz-server-side-encryption-aws-kms-key-id'))"
        ));
        assert_eq!(
            told,
            "d/ aws:kms key/1\nd/l aws:kms key/1\nd/large aws:kms key/1\nd/old aws:kms key/1\nown AES256 None\n"
        );
        assert_eq!(mount.sh("getfattr --only-values -n user.s3.encryption d/l own"), "aws:kms key/1AES256");
    });
}

/// A store without keys for it (Ceph copies without a word, and refuses writes) is not said to encrypt.
#[test]
fn encryption_that_the_store_does_not_do_is_told() {
    on(&[Kind::Rgw], "encryption_that_the_store_does_not_do_is_told", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo x > f");
        assert_ne!(mount.try_sh("setfattr -n user.s3.encryption -v AES256 f").0, 0, "it has no keys");
        assert!(mount.try_sh("getfattr -n user.s3.encryption f").1.contains("No such attribute"));
        mount.sh("chmod 600 f && mv f g && echo y >> g && grep -q y g");
    });
}

fn walk_roads(rig: &Rig, flags: &[&str]) {
    let bucket = rig.bucket();
    let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
    rig.boto(&format!(
        "k = conn.get_bucket('{bucket}').new_key('f')\nk.set_metadata('theirs', 'kept')\n\
         k.set_contents_from_string('0123456789', headers={{'Content-Type': 'text/x-kept', 'Cache-Control': \
         'max-age=7', 'Content-Disposition': 'inline', 'Content-Encoding': 'identity', 'Content-Language': 'de'}})"
    ));
    mount.sh("setfattr -n user.s3.refresh -v 1 . && setfattr -n user.colour -v blue f && chown 12:34 f && chmod 640 f");
    let owner = xattr(&mount, "s3.owner");
    let grants = format!("FULL_CONTROL id={owner}\nREAD id=bob\nREAD_ACP group=AuthenticatedUsers");
    mount.sh("setfattr -n user.s3.tags -v \"$(printf 'project=apollo\\nnote=a b&c')\" f");
    mount.sh(&format!("setfattr -n user.s3.grants -v '{grants}' f && touch -d '2001-02-03 04:05:06.5 UTC' f"));
    let before = witness(rig, &bucket, true);
    for part in
        ["text/x-kept max-age=7 inline identity de", "theirs", "colour", "bob", "AuthenticatedUsers", "<Value>apollo<"]
    {
        assert!(before.contains(part), "{part}: {before}");
    }
    let stat = |format: &str| mount.sh(&format!("TZ=UTC stat -c '{format}' f"));
    let roads = [
        ("chmod 604 f && chmod 640 f", true),
        ("chown 1:2 f && chown 12:34 f", true),
        ("touch -d '2002-02-03 UTC' f && touch -d '2001-02-03 04:05:06.5 UTC' f", true),
        ("mv f g && mv g f", true),
        ("mkdir -p d && mv f d/f && mv d e && mv e/f f", true),
        ("setfattr -n user.s3.content_type -v text/other f && setfattr -n user.s3.content_type -v text/x-kept f", true),
        ("setfattr -n user.s3.storage_class -v STANDARD f", true),
        ("setfattr -n user.more -v 1 f && setfattr -x user.more f", true),
        ("echo more >> f", false),
        ("echo anew > f", false),
        ("truncate -s 3 f", false),
        ("truncate -s 0 f", false),
        ("printf ab | dd of=f bs=1 seek=1 conv=notrunc status=none", false),
    ];
    for (road, keeps_time) in roads {
        mount.sh(&format!(
            "touch -d '2001-02-03 04:05:06.5 UTC' f && {road} && sync . && setfattr -n user.s3.refresh -v 1 ."
        ));
        assert_eq!(witness(rig, &bucket, true), before, "after {road}");
        assert_eq!(stat("%a %u %g"), "640 12 34\n", "after {road}");
        assert_eq!(xattr(&mount, "colour"), "blue", "after {road}");
        if keeps_time {
            assert_eq!(stat("%.1Y"), "981173106.5\n", "after {road}");
        }
    }
}
