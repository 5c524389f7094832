//! Daemons that die and applications that die; umount and SIGTERM.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use crate::harness::{How, Kind, Mount, on, wait_for};

const BOTH: &[Kind] = &[Kind::Rgw, Kind::Embedded];

fn uploads(rig: &crate::harness::Rig, bucket: &str) -> String {
    rig.boto(&format!("print(sorted(u.key_name for u in conn.get_bucket('{bucket}').get_all_multipart_uploads()))"))
        .trim()
        .to_owned()
}

/// The daemon killed in mid-write leaves the old object; the upload that it had begun is aborted by the next mount, and
/// the upload of a mount that lives is not.
#[test]
fn a_killed_daemon_leaves_the_old_object_and_no_upload() {
    on(BOTH, "a_killed_daemon_leaves_the_old_object_and_no_upload", |rig| {
        let bucket = rig.bucket();
        let state = tempfile::TempDir::new().expect("room");
        let how =
            How { bucket: Some(&bucket), state: Some(state.path()), flags: &["--max-requests", "1"], ..How::default() };
        let mut mount = Mount::with(rig, &how);
        mount.sh("echo old > f");
        // Another client's upload, and one that this daemon begins and cannot finish.
        rig.boto(&format!("conn.get_bucket('{bucket}').initiate_multipart_upload('stranger')"));
        let path = mount.path.join("f");
        let writer = std::thread::spawn(move || {
            let mut file = File::create(path).expect("opened");
            let block = vec![7; 1 << 20];
            (0..200).try_for_each(|_| file.write_all(&block)).and_then(|()| file.sync_all())
        });
        wait_for("an upload has begun", Duration::from_secs(60), || uploads(rig, &bucket).contains("'f'"));
        mount.kill_9();
        assert!(writer.join().expect("joined").is_err(), "fsync does not claim what was not stored");
        let read = rig.boto(&format!(
            "sys.stdout.write(conn.get_bucket('{bucket}').get_key('f').get_contents_as_string().decode())"
        ));
        assert_eq!(read, "old\n", "the old object stands");
        drop(mount);
        let mount = Mount::with(rig, &how);
        assert_eq!(uploads(rig, &bucket), "['stranger']", "ours is aborted, a stranger's is not");
        assert_eq!(mount.sh("cat f"), "old\n");
    });
}

/// A second live mount of the same bucket keeps its upload while another one starts.
#[test]
fn a_live_mounts_upload_survives_ours() {
    on(&[Kind::Embedded], "a_live_mounts_upload_survives_ours", |rig| {
        let bucket = rig.bucket();
        let state = tempfile::TempDir::new().expect("room");
        let slow =
            How { bucket: Some(&bucket), state: Some(state.path()), flags: &["--max-requests", "1"], ..How::default() };
        let first = Mount::with(rig, &slow);
        let path = first.path.join("f");
        let writer = std::thread::spawn(move || {
            let mut file = File::create(path).expect("opened");
            let block = vec![7; 1 << 20];
            (0..150).try_for_each(|_| file.write_all(&block)).and_then(|()| file.sync_all())
        });
        wait_for("an upload has begun", Duration::from_secs(60), || uploads(rig, &bucket).contains("'f'"));
        let second = Mount::with(rig, &slow);
        second.sh("ls > /dev/null");
        writer.join().expect("joined").expect("stored, though another mount started meanwhile");
        assert_eq!(first.sh("stat -c %s f").trim(), (150u64 << 20).to_string());
    });
}

/// An application killed in mid-write is a close: what it wrote becomes the object.
#[test]
fn a_killed_application_is_a_close() {
    on(BOTH, "a_killed_application_is_a_close", |rig| {
        let bucket = rig.bucket();
        let mut mount = Mount::new(rig, Some(&bucket));
        mount.try_sh("sh -c 'exec > f; echo written; kill -9 $$'");
        assert_eq!(mount.sh("cat f"), "written\n");
        assert!(mount.umount().2);
        let read = rig.boto(&format!(
            "sys.stdout.write(conn.get_bucket('{bucket}').get_key('f').get_contents_as_string().decode())"
        ));
        assert_eq!(read, "written\n");
    });
}

/// umount with open files is refused and names the process; SIGTERM parks open unsaved bytes and says where.
#[test]
fn the_end_of_a_mount_loses_nothing() {
    on(BOTH, "the_end_of_a_mount_loses_nothing", |rig| {
        let bucket = rig.bucket();
        let mut mount = Mount::new(rig, Some(&bucket));
        let mut file = File::create(mount.path.join("open")).expect("made");
        let (gone, words, _) = mount.umount();
        assert!(!gone && words.contains(&std::process::id().to_string()), "busy, and by whom: {words}");
        mount.sh("echo stored > closed");
        // From here on no process is started: a child's copy of the handle would be closed, and so stored.
        file.write_all(b"unsaved").expect("written");
        mount.terminate();
        assert!(!mount.wait(), "the exit status tells that not all is stored");
        let parked = mount
            .log()
            .lines()
            .find_map(|line| line.split("bytes lie in ").nth(1).map(str::to_owned))
            .expect("says where");
        assert_eq!(std::fs::read_to_string(parked.trim()).expect("recoverable"), "unsaved");
        let names = rig.boto(&format!("print([k.name for k in conn.get_bucket('{bucket}').list()])"));
        assert_eq!(names.trim(), "['closed']", "no torso is published");
        drop(file);
    });
}

/// Names that are known, `df` and `stat` of the root answer while the store is away.
#[test]
fn what_is_known_answers_while_the_store_is_away() {
    let Some(rig) = crate::harness::Rig::start(Kind::Embedded, "what_is_known_answers_while_the_store_is_away") else {
        return;
    };
    let bucket = rig.bucket();
    let mount = Mount::with(
        &rig,
        &How { bucket: Some(&bucket), flags: &["--timeout", "10s", "--ttl", "1s"], ..How::default() },
    );
    mount.sh("echo x > f && ls -l && df .");
    drop(rig);
    let listed = mount.sh("stat . > /dev/null && df . > /dev/null && ls");
    assert_eq!(listed, "f\n");
    let (status, words) = mount.try_sh("echo y > g");
    assert!(
        status != 0 && (words.contains("I/O error") || words.contains("timed out") || words.contains("Input/output")),
        "{words}"
    );
}
