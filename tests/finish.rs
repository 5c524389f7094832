//! What no header can say is kept over new versions too, whenever the daemon is killed.

use std::time::Duration;

use tempfile::TempDir;

use crate::harness::link::Gate;
use crate::harness::{How, Kind, Mount, Rig, on, try_sh_as, wait_for};

/// Every grant and tag of what there is.
fn witness(rig: &Rig, bucket: &str) -> Vec<String> {
    let told = rig.boto(&format!(
        "for k in conn.get_bucket('{bucket}').list():\n  \
         tags = conn.make_request('GET', '{bucket}', k.name, query_args='tagging').read().decode()\n  \
         print([g.id for g in k.get_acl().acl.grants], tags.replace('\\n', ''))"
    ));
    told.lines().map(str::to_owned).collect()
}

/// Runs each road as often as it sends requests, and kills the daemon before the first, the second and so on. The next
/// mount brings grants and tags back onto whatever version there is then.
fn killed_after_each_request(rig: &Rig, grants: &str, roads: &[&str], flags: &[&str]) {
    let (bucket, gate, state) = (rig.bucket(), Gate::new(&rig.endpoint), TempDir::new().expect("room"));
    let through = Rig::at(gate.endpoint());
    let how = How { bucket: Some(&bucket), state: Some(state.path()), flags, ..How::default() };
    let mut mount = Mount::with(&through, &how);
    for road in roads {
        for requests in 0.. {
            rig.boto(&format!(
                "b = conn.get_bucket('{bucket}')\nb.delete_key('g')\nb.new_key('f').set_contents_from_string('0123456789')"
            ));
            mount.sh("setfattr -n user.s3.refresh -v 1 . && setfattr -n user.s3.tags -v project=apollo f");
            if !grants.is_empty() {
                mount.sh(&format!("setfattr -n user.s3.grants -v '{grants}' f"));
            }
            mount.sh("setfattr -n user.s3.refresh -v 1 . && stat f > /dev/null");
            gate.close_after(requests);
            let (folder, line) = (mount.path.clone(), format!("{road} && sync f g . 2> /dev/null; true"));
            let work = std::thread::spawn(move || try_sh_as(&folder, &line, None));
            wait_for("the road ends, or waits", Duration::from_secs(60), || work.is_finished() || gate.holds());
            let is_through = work.is_finished() && !gate.holds();
            mount.kill_9();
            drop(mount);
            work.join().expect("joined");
            gate.close_after(i64::MAX);
            mount = Mount::with(&through, &how);
            let kept = |seen: String| seen.contains("apollo") && seen.contains("o,hara") != grants.is_empty();
            let is_kept = || witness(rig, &bucket).into_iter().all(kept);
            wait_for(&format!("{road}, killed after {requests} requests"), Duration::from_secs(30), is_kept);
            assert!(mount.sh("cat *").contains("0123"), "{road} after {requests}");
            if is_through {
                assert!(requests > 0, "{road} sends requests");
                break;
            }
        }
    }
}

const ROADS: [&str; 5] =
    ["chmod 640 f", "mv f g", "echo more >> f", "setfattr -n user.colour -v blue f", "truncate -s 5 f"];

/// Tags, which Ceph takes with few requests.
#[test]
fn tags_survive_a_daemon_that_is_killed_after_any_request() {
    on(&[Kind::Rgw], "tags_survive_a_daemon_that_is_killed_after_any_request", |rig| {
        killed_after_each_request(rig, "", &ROADS, &[]);
    });
}

/// A grant to an account whose name no header can hold.
#[test]
fn an_acl_survives_a_daemon_that_is_killed_after_any_request() {
    on(&[Kind::Embedded], "an_acl_survives_a_daemon_that_is_killed_after_any_request", |rig| {
        killed_after_each_request(rig, "FULL_CONTROL id=alice\nREAD id=o,hara", &ROADS, &[]);
    });
}

/// With a journal both wait for what it stores.
#[test]
fn a_journal_finishes_versions_too() {
    on(&[Kind::Embedded], "a_journal_finishes_versions_too", |rig| {
        killed_after_each_request(rig, "FULL_CONTROL id=alice\nREAD id=o,hara", &ROADS[..2], &["--write-back"]);
    });
}
