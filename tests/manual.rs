//! Every row of the table "the user's own list" as a test body: dreamfs does it, boto 2 sees it, and the other way.

use std::time::Duration;

use crate::harness::{ALL, Kind, Mount, WITH_ACL, on, wait_for};

fn xattr(mount: &Mount, name: &str, path: &str) -> String {
    mount.sh(&format!("getfattr --only-values -n user.s3.{name} '{path}'"))
}

fn http_status(mount: &Mount, url: &str) -> String {
    mount.sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' '{url}'"))
}

/// Buckets are directories with their date of creation; mkdir and rmdir create and delete them.
#[test]
fn buckets_are_listed_created_and_deleted() {
    on(ALL, "buckets_are_listed_created_and_deleted", |rig| {
        let theirs = rig.bucket();
        let mount = Mount::new(rig, None);
        let ours = format!("{theirs}-ours");
        mount.sh(&format!("mkdir {ours}"));
        let seen = rig.boto("print('\\n'.join(b.name + ' ' + b.creation_date for b in conn.get_all_buckets()))");
        for bucket in [&theirs, &ours] {
            let line = seen.lines().find(|line| line.starts_with(&format!("{bucket} "))).expect("boto sees it");
            let created = line.split_whitespace().nth(1).expect("a date")[..16].replace('T', " ");
            let shown = mount.sh(&format!("TZ=UTC ls -ld --time-style='+%Y-%m-%d %H:%M' {bucket}"));
            if *bucket == theirs {
                assert!(shown.contains(&created), "ls shows the date of creation {created}: {shown}");
            }
        }
        mount.sh(&format!("echo x > {ours}/f"));
        let (status, words) = mount.try_sh(&format!("rmdir {ours}"));
        assert!(status != 0 && words.contains("not empty"), "a bucket that is not empty refuses: {words}");
        mount.sh(&format!("mkdir {ours}/d && echo y > {ours}/d/g && rm -r {ours}"));
        let left = rig.boto("print('\\n'.join(b.name for b in conn.get_all_buckets()))");
        assert!(!left.lines().any(|name| name == ours), "forced delete of a bucket with all in it: {left}");
        mount.sh(&format!("rmdir {theirs}"));
    });
}

/// What one writes the other reads: name, size and date.
#[test]
fn objects_are_created_listed_downloaded_and_deleted() {
    on(ALL, "objects_are_created_listed_downloaded_and_deleted", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo 'Hello World!' > hello.txt");
        let read = rig.boto(&format!(
            "sys.stdout.write(conn.get_bucket('{bucket}').get_key('hello.txt').get_contents_as_string().decode())"
        ));
        assert_eq!(read, "Hello World!\n", "boto reads what echo wrote");
        let list = format!("print([(k.name, k.size) for k in conn.get_bucket('{bucket}').list()])");
        assert_eq!(rig.boto(&list).trim(), "[('hello.txt', 13)]");
        rig.boto(&format!(
            "conn.get_bucket('{bucket}').new_key('d/from boto.txt').set_contents_from_string('by boto')"
        ));
        mount.sh("setfattr -n user.s3.refresh -v 1 .");
        assert_eq!(mount.sh("cat 'd/from boto.txt'"), "by boto");
        let shown = mount.sh("ls -l d");
        assert!(shown.contains(" 7 ") && shown.contains("from boto.txt"), "{shown}");
        mount.sh("cp hello.txt /dev/null && rm hello.txt");
        assert_eq!(rig.boto(&list).trim(), "[('d/from boto.txt', 7)]");
    });
}

/// `setfattr -n user.s3.acl` changes the ACL; the plain link works for a stranger only then.
#[test]
fn an_acl_is_changed_and_opens_the_unsigned_link() {
    on(WITH_ACL, "an_acl_is_changed_and_opens_the_unsigned_link", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo 'Hello World!' > hello.txt");
        let url = xattr(&mount, "url", "hello.txt");
        assert_eq!(xattr(&mount, "acl", "hello.txt"), "private");
        assert_eq!(http_status(&mount, &url), "403", "a stranger gets nothing of a private object");
        mount.sh("setfattr -n user.s3.acl -v public-read hello.txt");
        assert_eq!(xattr(&mount, "acl", "hello.txt"), "public-read");
        assert_eq!(mount.sh(&format!("curl -fsS '{url}'")), "Hello World!\n");
        let grants = rig.boto(&format!(
            "print([(g.uri, g.permission) for g in conn.get_bucket('{bucket}').get_key('hello.txt').get_acl().acl.grants if g.uri])"
        ));
        assert!(grants.contains("AllUsers") && grants.contains("READ"), "boto sees the grant: {grants}");
        rig.boto(&format!("conn.get_bucket('{bucket}').get_key('hello.txt').set_canned_acl('private')"));
        mount.sh("setfattr -n user.s3.refresh -v 1 hello.txt");
        assert_eq!(xattr(&mount, "acl", "hello.txt"), "private", "boto's change is seen after a refresh");
        assert!(!xattr(&mount, "owner", "hello.txt").is_empty());
        let grants = xattr(&mount, "grants", "hello.txt");
        assert!(grants.starts_with("FULL_CONTROL id="), "{grants}");
        let with_bob = format!("{grants}\nREAD id=bob");
        mount.sh(&format!("setfattr -n user.s3.grants -v '{with_bob}' hello.txt"));
        let read = format!(
            "sys.stdout.write(bob.get_bucket('{bucket}', validate=False).get_key('hello.txt').get_contents_as_string().decode())"
        );
        assert_eq!(rig.boto(&read), "Hello World!\n", "bob reads what was granted to him");
    });
}

/// Metadata never vanishes, and the ACL is metadata: it stays over chmod, append, truncate and rename.
#[test]
fn an_acl_survives_what_makes_new_versions() {
    on(WITH_ACL, "an_acl_survives_what_makes_new_versions", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo one > f && setfattr -n user.s3.acl -v public-read f && setfattr -n user.colour -v blue f");
        for step in ["chmod 600 f", "echo two >> f", "truncate -s 2 f", "touch -d 2001-02-03 f", "mv f g && mv g f"] {
            mount.sh(step);
            mount.sh("setfattr -n user.s3.refresh -v 1 f");
            assert_eq!(xattr(&mount, "acl", "f"), "public-read", "after {step}");
            assert_eq!(mount.sh("getfattr --only-values -n user.colour f"), "blue", "after {step}");
        }
        assert_eq!(mount.sh("stat -c '%a %s' f"), "600 2\n");
        // Also one that another client has set since, which leaves no trace in a listing.
        mount.sh("echo h > h");
        rig.boto(&format!("conn.get_bucket('{bucket}').get_key('h').set_canned_acl('public-read')"));
        crate::harness::wait_for("what is known of the ACL grows old", Duration::from_secs(20), || {
            xattr(&mount, "acl", "h") == "public-read"
        });
        mount.sh("echo more >> h && setfattr -n user.s3.refresh -v 1 h");
        assert_eq!(xattr(&mount, "acl", "h"), "public-read");
    });
}

/// A signed link works for a stranger on a private object, and stops after its time.
#[test]
fn a_signed_link_works_for_its_time() {
    on(ALL, "a_signed_link_works_for_its_time", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo 'the plans' > 'secret plans+.txt'");
        let hour = xattr(&mount, "signed_url", "secret plans+.txt");
        assert_eq!(mount.sh(&format!("curl -fsS '{hour}'")), "the plans\n");
        let by_command =
            mount.dreamfs(&["url", "--expires", "1h", mount.path.join("secret plans+.txt").to_str().expect("UTF-8")]);
        let by_command = String::from_utf8_lossy(&by_command.stdout).trim().to_owned();
        assert_eq!(mount.sh(&format!("curl -fsS '{by_command}'")), "the plans\n");
        let brief = xattr(&mount, "signed_url.1", "secret plans+.txt");
        let expired = || http_status(&mount, &brief) == "403";
        wait_for("a link of one second stops working", Duration::from_secs(20), expired);
    });
}

/// A store without object ACLs says so, and no write ever carries one.
#[test]
fn a_store_without_object_acls_is_told_apart() {
    on(&[Kind::B2], "a_store_without_object_acls_is_told_apart", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo x > f && chmod 600 f && mv f g && echo y >> g");
        let (status, words) = mount.try_sh("setfattr -n user.s3.acl -v public-read g");
        assert!(status != 0 && words.contains("not supported"), "EOPNOTSUPP: {words}");
        mount.sh("chmod 640 g");
        assert_eq!(mount.status()["puts_with_acl"], 0);
    });
}
