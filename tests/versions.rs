//! Buckets that keep versions, and what a mount cannot show: `dreamfs purge`, and rmdir that names it.

use std::process::{Command, Output, Stdio};

use crate::harness::{ALL, DREAMFS, Kind, Mount, PATIENCE, Rig, on, wait_for};

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
