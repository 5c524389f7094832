//! Write-back: an upload that was under way when the daemon died, or the store went away, goes on where it stopped.

use std::time::Duration;

use tempfile::TempDir;

use crate::harness::link::{Fate, Gate};
use crate::harness::{How, Kind, Mount, Rig, on, sh_in, wait_for};

const BOTH: &[Kind] = &[Kind::Rgw, Kind::Embedded];

/// A file of eight parts, which are as small as stores take them.
const PARTS: u64 = 8;
const PART_BYTES: u64 = 5 << 20;
const FLAGS: [&str; 3] = ["--write-back", "--test-part-bytes", "5MiB"];

/// A file that a mount with a journal has taken in, and what it takes to mount again.
struct Scene<'a> {
    rig: &'a Rig,
    gate: Gate,
    bucket: String,
    state: TempDir,
    local: TempDir,
    md5: String,
}

impl<'a> Scene<'a> {
    fn new(rig: &'a Rig) -> Self {
        let (state, local) = (TempDir::new().expect("room"), TempDir::new().expect("room"));
        let md5 = sh_in(local.path(), &format!("head -c {} /dev/urandom > f && md5sum < f", PARTS * PART_BYTES));
        Scene { rig, gate: Gate::new(&rig.endpoint), bucket: rig.bucket(), state, local, md5 }
    }

    /// The file is written, and the daemon killed after so many requests.
    fn killed_after(rig: &'a Rig, requests: i64) -> Self {
        let scene = Scene::new(rig);
        let mount = scene.mount(&FLAGS);
        mount.sh("ls");
        scene.kill_after(mount, requests, Fate::Held);
        scene
    }

    fn kill_after(&self, mut mount: Mount, requests: i64, fate: Fate) {
        let answered = |mount: &Mount| mount.requests().values().sum::<u64>() as i64;
        let all = answered(&mount) + requests;
        self.gate.close_after(requests, fate);
        mount.sh(&self.copy("f"));
        wait_for("the upload is cut", Duration::from_secs(60), || self.gate.holds() && answered(&mount) == all);
        mount.kill_9();
        self.gate.open();
    }

    /// A line of shell that writes the file.
    fn copy(&self, name: &str) -> String {
        format!("cp {}/f {name}", self.local.path().display())
    }

    fn mount(&self, flags: &[&str]) -> Mount {
        let through = Rig::at(self.gate.endpoint());
        let (bucket, state) = (Some(self.bucket.as_str()), Some(self.state.path()));
        Mount::with(&through, &How { bucket, state, flags, ..How::default() })
    }

    /// Runs Python with the uploads of the bucket that are under way.
    fn uploads(&self, script: &str) -> String {
        let bucket = &self.bucket;
        let found =
            format!("bucket = conn.get_bucket('{bucket}')\nuploads = list(bucket.get_all_multipart_uploads())\n");
        self.rig.boto(&(found + script)).trim().to_owned()
    }

    /// How many parts of the one upload have arrived.
    fn arrived(&self) -> u64 {
        self.uploads("[upload] = uploads\nprint(len(list(upload)))").parse().expect("a number")
    }

    /// Mounts, waits until the file is stored, and answers how many (ListParts, CreateMultipartUpload, UploadPart) that
    /// cost, and how many bytes.
    fn costs(&self, flags: &[&str]) -> ([u64; 3], u64) {
        let mut mount = self.mount(flags);
        mount.sh("sync .");
        let (requests, bytes_up) = (mount.requests(), mount.status()["bytes_up"].as_u64().expect("a count"));
        assert!(mount.umount().2);
        let script = "import hashlib\n\
                      print([k.name for k in bucket.list()], len(uploads))\n\
                      print(hashlib.md5(bucket.get_key('f').get_contents_as_string()).hexdigest() + '  -')";
        assert_eq!(self.uploads(script), format!("['f'] 0\n{}", self.md5.trim()), "all is there, and nothing else");
        let count = |name: &str| requests.get(name).copied().unwrap_or(0);
        (["ListParts", "CreateMultipartUpload", "UploadPart"].map(count), bytes_up)
    }
}

/// What has arrived is not sent again, however often the daemon is killed.
#[test]
fn only_the_missing_parts_go_up() {
    on(BOTH, "only_the_missing_parts_go_up", |rig| {
        let scene = Scene::killed_after(rig, 5);
        let first = scene.arrived();
        assert!((2..5).contains(&first), "{first} parts");
        // The bucket is looked at, the parts are listed, and two go up.
        scene.gate.close_after(4, Fate::Held);
        let mut mount = scene.mount(&FLAGS);
        wait_for("it goes on", Duration::from_secs(60), || scene.gate.holds() && scene.arrived() == first + 2);
        mount.kill_9();
        drop(mount);
        scene.gate.open();
        let missing = PARTS - first - 2;
        assert_eq!(scene.costs(&FLAGS), ([1, 0, missing], missing * PART_BYTES));
    });
}

/// A part of the same length that has another tag is not ours.
#[test]
fn a_part_that_is_not_what_was_written_is_sent_again() {
    on(BOTH, "a_part_that_is_not_what_was_written_is_sent_again", |rig| {
        let scene = Scene::killed_after(rig, 6);
        let sent = scene.arrived();
        scene.uploads(&format!(
            "import io\n[upload] = uploads\nnumber = min(part.part_number for part in upload)\n\
             upload.upload_part_from_file(io.BytesIO(b'x' * {PART_BYTES}), number)"
        ));
        let missing = PARTS - sent + 1;
        assert_eq!(scene.costs(&FLAGS), ([1, 0, missing], missing * PART_BYTES));
    });
}

/// Parts of another size are of no use, and neither is an upload that somebody has aborted.
#[test]
fn what_cannot_be_gone_on_with_begins_anew() {
    on(BOTH, "what_cannot_be_gone_on_with_begins_anew", |rig| {
        let scene = Scene::killed_after(rig, 6);
        assert!(scene.arrived() > 0);
        let other_flags = ["--write-back", "--test-part-bytes", "10MiB"];
        assert_eq!(scene.costs(&other_flags), ([0, 1, PARTS / 2], PARTS * PART_BYTES));
        let scene = Scene::killed_after(rig, 6);
        scene.uploads("[upload.cancel_upload() for upload in uploads]");
        assert_eq!(scene.costs(&FLAGS), ([1, 1, PARTS], PARTS * PART_BYTES));
    });
}

/// An upload that was completed, though nobody heard so, is known by what lies under the name.
#[test]
fn what_was_completed_is_not_sent_again() {
    on(BOTH, "what_was_completed_is_not_sent_again", |rig| {
        let scene = Scene::new(rig);
        let mount = scene.mount(&FLAGS);
        mount.sh("ls");
        let cost = mount.cost(|| drop(mount.sh(&format!("{} && sync g", scene.copy("g")))));
        mount.sh("rm g && sync .");
        scene.kill_after(mount, cost.values().sum::<u64>() as i64 - 1, Fate::Unanswered);
        assert_eq!(scene.costs(&FLAGS), ([1, 0, 0], 0));
    });
}
