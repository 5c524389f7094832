//! Daemons that die and applications that die; umount and SIGTERM.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::cut::killed_at_each_request;
use crate::harness::link::Fate;
use crate::harness::{How, Kind, Mount, Rig, on, sh_in, try_sh_as, wait_for};

const BOTH: &[Kind] = &[Kind::Rgw, Kind::Embedded];

fn uploads(rig: &Rig, bucket: &str) -> String {
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
        let state = TempDir::new().expect("room");
        let how =
            How { bucket: Some(&bucket), state: Some(state.path()), flags: &["--max-requests", "1"], ..How::default() };
        let mut mount = Mount::with(rig, &how);
        mount.sh("echo old > f");
        // Another client's upload, and one that this daemon begins and cannot finish.
        rig.boto(&format!("conn.get_bucket('{bucket}').initiate_multipart_upload('stranger')"));
        // A process of its own: a handle of ours would be copied into, and closed by, whatever another test starts.
        let folder = mount.path.clone();
        let line = "dd if=/dev/zero of=f bs=1M count=200 conv=fsync";
        let writer = std::thread::spawn(move || try_sh_as(&folder, line, None));
        wait_for("an upload has begun", Duration::from_secs(60), || uploads(rig, &bucket).contains("'f'"));
        mount.kill_9();
        assert!(writer.join().expect("joined").0 != 0, "fsync does not claim what was not stored");
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
        let state = TempDir::new().expect("room");
        let slow =
            How { bucket: Some(&bucket), state: Some(state.path()), flags: &["--max-requests", "1"], ..How::default() };
        let first = Mount::with(rig, &slow);
        // A process of its own: a handle of ours would be copied into, and closed by, whatever another test starts.
        let folder = first.path.clone();
        let line = "dd if=/dev/zero of=f bs=1M count=150 conv=fsync";
        let writer = std::thread::spawn(move || try_sh_as(&folder, line, None));
        wait_for("an upload has begun", Duration::from_secs(60), || uploads(rig, &bucket).contains("'f'"));
        let second = Mount::with(rig, &slow);
        second.sh("ls > /dev/null");
        let (status, words) = writer.join().expect("joined");
        assert_eq!(status, 0, "stored, though another mount started meanwhile: {words}");
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
        // A process of its own: a handle of ours would be copied into, and closed by, whatever another test starts.
        let hold = "import sys; f = open('open', 'wb', 0); print('open', flush=True); sys.stdin.readline(); \
                    f.write(b'unsaved'); print('written', flush=True); sys.stdin.readline()";
        let mut holder = Command::new("python3")
            .args(["-c", hold])
            .current_dir(&mount.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut words = BufReader::new(holder.stdout.take().expect("piped")).lines();
        let mut orders = holder.stdin.take().expect("piped");
        assert_eq!(words.next().expect("a line").expect("UTF-8"), "open");
        let (gone, said, _) = mount.umount();
        assert!(!gone && said.contains(&holder.id().to_string()), "busy, and by whom: {said}");
        mount.sh("echo stored > closed");
        orders.write_all(b"\n").expect("ordered");
        assert_eq!(words.next().expect("a line").expect("UTF-8"), "written");
        mount.terminate();
        assert!(!mount.wait(), "the exit status tells that not all is stored");
        drop(orders);
        holder.wait().expect("its end");
        let parked = mount
            .log()
            .lines()
            .find_map(|line| line.split("bytes lie in ").nth(1).map(str::to_owned))
            .expect("says where");
        assert_eq!(std::fs::read_to_string(parked.trim()).expect("recoverable"), "unsaved");
        let names = rig.boto(&format!("print([k.name for k in conn.get_bucket('{bucket}').list()])"));
        assert_eq!(names.trim(), "['closed']", "no torso is published");
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
    let write = "python3 -c \"f = open('g', 'w'); f.write('y'); f.close()\"";
    let (status, words) = mount.try_sh(write);
    assert!(status != 0 && (words.contains("Errno 5") || words.contains("Errno 110")), "EIO or ETIMEDOUT: {words}");
}

/// What lies in a folder.
type Files = BTreeMap<String, String>;

/// Names and contents of a folder's files, told short.
fn files(folder: &Path) -> Files {
    let listed = sh_in(folder, "md5sum -- * 2> /dev/null || true");
    listed
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect()
}

/// The same of a bucket, by its own protocol.
fn objects(rig: &Rig, bucket: &str) -> Files {
    let told = rig.boto(&format!(
        "import hashlib\nfor k in conn.get_bucket('{bucket}').list(): \
         print(hashlib.md5(k.get_contents_as_string()).hexdigest() + '  ' + k.name)"
    ));
    told.lines().filter_map(|line| line.split_once("  ")).map(|(sum, name)| (name.to_owned(), sum.to_owned())).collect()
}

/// What is written in steps, each of which ends with a close or a change of names; the first file is 12 MB long. A shell
/// does not look at what its own closes answer, dd does.
const STEPS: [&[&str]; 6] = [
    &["printf new | dd of=small status=none", "printf newer | dd of=small status=none"],
    &["dd if=/dev/zero of=new bs=1M count=20 status=none"],
    &[
        "printf new | dd of=long bs=1 seek=6000000 conv=notrunc status=none",
        "printf more | dd of=long oflag=append conv=notrunc status=none",
    ],
    &["truncate -s 7000000 long"],
    &["printf new | dd of=other status=none", "mv other small", "mv long moved", "rm small"],
    &["cp long copy", "mkdir d", "rmdir d", "rm long"],
];

/// The daemon is killed at each request of each of these, before the store has it and before its answer is there. What a
/// step had told to be done is there after the next mount; what was under way is done or not; no bytes are mixed, and none
/// are lost. No upload stays, but for one whose name had not arrived yet: nobody can tell it from a stranger's.
fn every_step_is_done_or_not(rig: &Rig, flags: &[&str]) {
    let bucket = rig.bucket();
    let old = TempDir::new().expect("room");
    sh_in(old.path(), "head -c 12000000 /dev/urandom > long && printf old > small");
    let prepare = |mount: &Mount| {
        mount.sh(&format!("rm -rf -- * && cp {}/* . && sync .", old.path().display()));
    };
    for steps in STEPS {
        let model = TempDir::new().expect("room");
        sh_in(model.path(), &format!("cp {}/* .", old.path().display()));
        let mut states = vec![files(model.path())];
        for step in steps {
            sh_in(model.path(), step);
            states.push(files(model.path()));
        }
        let line =
            steps.iter().map(|step| format!("{step} && echo done")).collect::<Vec<_>>().join(" && ") + " && sync .";
        let nameless = Cell::new(0);
        let check = |mount: &Mount, said: &str, about: &str| {
            let done = said.lines().filter(|line| *line == "done").count();
            let (was, may_be) = (&states[done], states.get(done + 1).unwrap_or(&states[done]));
            mount.sh("sync .");
            let found = objects(rig, &bucket);
            assert_eq!(files(&mount.path), found, "{about}: {said}");
            for name in was.keys().chain(may_be.keys()).chain(found.keys()) {
                let is = found.get(name);
                assert!(is == was.get(name) || is == may_be.get(name), "{about}: {name} is {is:?}; {said}");
            }
            for content in was.values().filter(|content| may_be.values().any(|other| other == *content)) {
                assert!(found.values().any(|one| one == content), "{about}: {content} is lost; {said}");
            }
            if uploads(rig, &bucket) != "[]" {
                rig.boto(&format!(
                    "[u.cancel_upload() for u in conn.get_bucket('{bucket}').get_all_multipart_uploads()]"
                ));
                nameless.set(nameless.get() + 1);
            }
        };
        for fate in [Fate::Held, Fate::Unanswered] {
            killed_at_each_request((rig, &bucket), flags, fate, &line, prepare, check);
            assert!(nameless.take() <= steps.len(), "{line}, {fate:?}: uploads stay");
        }
    }
}

/// Where a close returns once the store has it.
#[test]
fn a_daemon_may_be_killed_at_any_request() {
    on(&[Kind::Rgw], "a_daemon_may_be_killed_at_any_request", |rig| every_step_is_done_or_not(rig, &[]));
}

/// Where a close returns once the journal has it.
#[test]
fn a_daemon_with_a_journal_may_be_killed_at_any_request() {
    on(&[Kind::Rgw], "a_daemon_with_a_journal_may_be_killed_at_any_request", |rig| {
        every_step_is_done_or_not(rig, &["--write-back"]);
    });
}
