//! Buckets that keep versions, and what a mount cannot show: `dreamfs purge`, and rmdir that names it.

use std::process::{Command, Output, Stdio};

use crate::harness::{ALL, DREAMFS, How, Kind, Mount, PATIENCE, Rig, WITH_ACL, on, wait_for};

/// `dreamfs purge` without a terminal.
fn purge(rig: &Rig, bucket: &str, flags: &[&str]) -> Output {
    let mut command = Command::new(DREAMFS);
    command.args(["purge", bucket, "--endpoint", &rig.endpoint]).args(flags).stdin(Stdio::null());
    command.env("AWS_ACCESS_KEY_ID", "alicekey").env("AWS_SECRET_ACCESS_KEY", "alicesecret");
    command.output().expect("dreamfs runs")
}

/// Puts keys that no path can name, an upload and two thousand objects into a bucket.
fn fill(rig: &Rig, bucket: &str) {
    rig.boto(&format!(
        "b = conn.get_bucket('{bucket}')\n\
         for n in range(1100): b.new_key('f%04d' % n).set_contents_from_string('x')\n\
         b.initiate_multipart_upload('d/up')\n\
         [b.new_key(n).set_contents_from_string('x') for n in ('a/./b', 'tab\\tand é')]"
    ));
}

/// Whether boto finds the bucket.
fn is_there(rig: &Rig, bucket: &str) -> bool {
    rig.boto(&format!("print(conn.lookup('{bucket}') is not None)")).trim() == "True"
}

/// Purge asks, refuses where nobody can answer, and with `--yes` deletes objects, hidden keys, uploads and the bucket.
#[test]
fn purge_deletes_a_bucket_with_all_that_it_holds() {
    on(ALL, "purge_deletes_a_bucket_with_all_that_it_holds", |rig| {
        let bucket = rig.bucket();
        fill(rig, &bucket);
        let refused = purge(rig, &bucket, &[]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && words.contains("--yes") && words.lines().count() == 1, "{words}");
        assert_eq!(rig.boto(&format!("print(len(list(conn.get_bucket('{bucket}').list())))")).trim(), "1102");
        let done = purge(rig, &bucket, &["--yes"]);
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && words.contains("1,102 deleted"), "{words}");
        assert!(!is_there(rig, &bucket));
        let missing = purge(rig, &bucket, &["--yes"]);
        let words = String::from_utf8_lossy(&missing.stderr).into_owned();
        assert!(!missing.status.success() && words.contains("there is no bucket"), "{words}");
    });
}

/// rmdir of a bucket in which only versions or hidden keys are left is ENOTEMPTY, and the log counts them and names
/// purge, which deletes versions and delete markers too.
#[test]
fn rmdir_of_a_bucket_with_unseen_content_names_purge() {
    on(&[Kind::Rgw], "rmdir_of_a_bucket_with_unseen_content_names_purge", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\nb.configure_versioning(True)\n\
             [b.new_key('f').set_contents_from_string(t) for t in ('1', '2')]\nb.delete_key('f')"
        ));
        let mount = Mount::new(rig, None);
        let (status, words) = mount.try_sh(&format!("rmdir {bucket}"));
        assert!(status != 0 && words.contains("not empty"), "{words}");
        wait_for("the log", PATIENCE, || mount.log().contains("holds 3 old versions"));
        assert!(mount.log().contains(&format!("dreamfs purge {bucket}")), "{}", mount.log());
        drop(mount);
        assert!(purge(rig, &bucket, &["--yes"]).status.success());
        assert!(!is_there(rig, &bucket));
    });
    on(&[Kind::Embedded], "rmdir_of_a_bucket_with_unseen_content_names_purge", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!("conn.get_bucket('{bucket}').new_key('a/./b').set_contents_from_string('x')"));
        let mount = Mount::new(rig, None);
        assert!(mount.try_sh(&format!("rmdir {bucket}")).1.contains("not empty"));
        let counted = "0 old versions and delete markers, and 1 keys";
        wait_for("the log", PATIENCE, || mount.log().contains(counted));
    });
}

/// Old versions are opened by their ids, listed in `.versions` with the times when they were stored, copied back, and
/// never changed; neither name is in a listing.
#[test]
fn old_versions_are_read_and_restored() {
    on(&[Kind::Rgw], "old_versions_are_read_and_restored", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!("conn.get_bucket('{bucket}').configure_versioning(True)"));
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags: &["--ttl", "1s"], ..How::default() });
        mount.sh(
            "mkdir d && echo one > d/f && chmod 640 d/f && touch -d 2001-01-01 d/f && sync d/f && mkdir d/sub && echo s > d/sub/g",
        );
        let first = mount.sh("getfattr --only-values -n user.s3.version_id d/f");
        mount.sh("echo 'two, longer' > d/f && head -c 300000 /dev/zero > d/f && rm -r d/sub && echo x > 'd/a@b'");
        let old = format!("f@{first}");
        assert_eq!(mount.sh(&format!("cat 'd/{old}' && stat -c '%s %a' 'd/{old}'")), "one\n4 640\n");
        assert_eq!(mount.sh("ls -A d"), "a@b\nf\n");
        let listed = mount.sh("ls d/.versions");
        assert!(listed.contains(&old) && listed.contains("sub\n") && listed.contains("a@b@"), "{listed}");
        assert_eq!(mount.sh("ls d/.versions/sub | wc -l && cat d/.versions/sub/g@*"), "1\ns\n");
        assert!(mount.sh("cat d/.versions/f@* | wc -c").trim().parse::<u64>().expect("a number") > 300_000);
        let age = mount.sh(&format!("echo $(( $(date +%s) - $(stat -c %Y 'd/.versions/{old}') ))"));
        assert!((-5..600).contains(&age.trim().parse::<i64>().expect("a number")), "when it was stored: {age}");
        for change in
            ["echo x >>", "rm", "chmod 600", "touch", "truncate -s 0", "setfattr -n user.a -v b", "mv d/f", "mv -t d/g"]
        {
            let (status, words) = mount.try_sh(&format!("{change} 'd/.versions/{old}'"));
            assert!(status != 0 && !mount.sh("cat d/f | wc -c").starts_with('0'), "{change}: {words}");
        }
        for change in ["touch d/.versions/new", "mkdir d/.versions/new", "rmdir d/.versions", "mkdir d/.versions"] {
            assert_ne!(mount.try_sh(change).0, 0, "{change}");
        }
        assert!(mount.try_sh(&format!("echo x >> 'd/{old}'")).1.contains("Read-only file system"));
        mount.sh(&format!("cp 'd/.versions/{old}' d/f && cp -p 'd/{old}' d/copy"));
        assert_eq!(mount.sh("cat d/f d/copy && stat -c %a d/copy"), "one\none\n640\n");
        assert_ne!(mount.try_sh("cat d/f@nothing").0, 0);
        mount.sh("rm d/f d/copy 'd/a@b' && rmdir d && ls -A | wc -l");
        drop(mount);
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags: &["--versions", "off"], ..How::default() });
        assert_ne!(mount.try_sh("ls .versions").0, 0, "hidden");
        drop(mount);
        assert!(purge(rig, &bucket, &["--yes"]).status.success());
    });
}

/// What the store has under such a name wins; where no versions are kept there is no such directory, and looking for
/// one costs a request a minute.
#[test]
fn real_names_win_and_unversioned_buckets_have_no_versions() {
    on(WITH_ACL, "real_names_win_and_unversioned_buckets_have_no_versions", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!("conn.get_bucket('{bucket}').new_key('d/.versions/x').set_contents_from_string('real')"));
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags: &["--ttl", "60s"], ..How::default() });
        assert_eq!(mount.sh("cat d/.versions/x && ls -A d"), "real.versions\n");
        mount.sh("echo 1 > 'a@b' && cat 'a@b' && mkdir e && ls -A e");
        let cost = mount.cost(|| {
            mount.sh("for n in 1 2 3; do ! ls .versions e/.versions f@$n 2> /dev/null; done");
        });
        assert_eq!(cost.get("GetBucketVersioning"), None, "it was asked when a@b was made: {cost:?}");
        mount.sh("mkdir e/.versions && echo 2 > e/.versions/y && rm -r e && cat d/.versions/x");
    });
}

/// An archived object is seen, and refused when it is opened, with advice; asked for, it can be read.
#[test]
fn an_archived_object_is_read_once_it_was_asked_for() {
    on(&[Kind::Embedded], "an_archived_object_is_read_once_it_was_asked_for", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!(
            "conn.get_bucket('{bucket}').new_key('f').set_contents_from_string('old', headers={{'x-amz-storage-class': 'GLACIER'}})"
        ));
        let mount = Mount::new(rig, Some(&bucket));
        assert_eq!(mount.sh("stat -c %s f && getfattr --only-values -n user.s3.storage_class f"), "3\nGLACIER");
        assert!(mount.try_sh("cat f").1.contains("Object is remote"));
        wait_for("advice in the log", PATIENCE, || mount.log().contains("user.s3.restore"));
        for bad in ["", "0", "soon", "-1"] {
            let (status, words) = mount.try_sh(&format!("setfattr -n user.s3.restore -v '{bad}' f"));
            assert!(status != 0 && words.contains("Invalid argument"), "{bad}: {words}");
        }
        mount.sh("setfattr -n user.s3.restore -v 7 f");
        assert_eq!(mount.sh("cat f"), "old");
        assert!(mount.try_sh("setfattr -n user.s3.restore -v 7 f").1.contains("Invalid argument"), "it is at hand");
    });
}

/// Two clients that write a name of a bucket with versions: who comes second is told, and what was written is kept
/// beside the name, although Ceph heeds no condition there.
#[test]
fn a_lost_race_is_told_where_versions_are_kept() {
    on(&[Kind::Rgw], "a_lost_race_is_told_where_versions_are_kept", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!("conn.get_bucket('{bucket}').configure_versioning(True)"));
        let (ours, theirs) = (Mount::new(rig, Some(&bucket)), Mount::new(rig, Some(&bucket)));
        ours.sh("echo first > f && echo second > f");
        let there = theirs.path.display();
        assert_eq!(theirs.sh("cat f"), "second\n");
        ours.try_sh(&format!(
            "exec 3>>f; exec 4>g; echo theirs > {there}/f; echo theirs > {there}/g; echo ours >&3; echo ours >&4"
        ));
        let told = "print([b.get_key(n).get_contents_as_string() for n in 'fg'], len([k for k in b.list() if 'conflict' in k.name]))";
        let told = rig.boto(&format!("b = conn.get_bucket('{bucket}')\n{told}"));
        assert_eq!(told.trim(), "[b'theirs\\n', b'theirs\\n'] 1", "{}", ours.log());
        // What was appended to the first builds on bytes that nobody can read any more.
        wait_for("the log", PATIENCE, || {
            ours.log().contains("f: another client stored it meanwhile; what was written here is kept")
        });
        drop((ours, theirs));
        assert!(purge(rig, &bucket, &["--yes"]).status.success());
    });
}
