//! What no header can say is kept over new versions too, whenever the daemon is killed.

use std::time::Duration;

use crate::harness::link::Gate;
use crate::harness::{How, Kind, Mount, Rig, WITH_ACL, on, try_sh_as, wait_for};

/// Every grant and tag of a name, or nothing where there is no object.
fn witness(rig: &Rig, bucket: &str, name: &str) -> String {
    rig.boto(&format!(
        "k = conn.get_bucket('{bucket}').get_key('{name}')\n\
         if k:\n  print(sorted((g.id, g.permission) for g in k.get_acl().acl.grants))\n  \
         print(conn.make_request('GET', '{bucket}', '{name}', query_args='tagging').read().decode())"
    ))
}

/// Runs each road as often as it sends requests, and kills the daemon before the first, the second and so on. The next
/// mount brings grants and tags back onto whatever version there is then.
fn killed_after_each_request(rig: &Rig, grants: &str, roads: &[&str], flags: &[&str]) {
    for road in roads {
        for requests in 0.. {
            let bucket = rig.bucket();
            rig.boto(&format!("conn.get_bucket('{bucket}').new_key('f').set_contents_from_string('0123456789')"));
            let state = tempfile::TempDir::new().expect("room");
            let how = How { bucket: Some(&bucket), state: Some(state.path()), flags, ..How::default() };
            let gate = Gate::new(&rig.endpoint);
            let through = Rig::at(gate.endpoint());
            let setting = Mount::with(&through, &how);
            setting.sh("setfattr -n user.s3.tags -v project=apollo f");
            if !grants.is_empty() {
                setting.sh(&format!("setfattr -n user.s3.grants -v '{grants}' f"));
            }
            drop(setting);
            let wanted = witness(rig, &bucket, "f");
            assert!(wanted.contains("apollo"), "{wanted}");

            let mut mount = Mount::with(&through, &how);
            mount.sh("stat f > /dev/null");
            gate.close_after(requests);
            let (folder, line) = (mount.path.clone(), format!("{road} && sync f g . 2> /dev/null; true"));
            let work = std::thread::spawn(move || try_sh_as(&folder, &line, None));
            wait_for("the road ends, or waits", Duration::from_secs(60), || work.is_finished() || gate.holds());
            let is_through = work.is_finished() && !gate.holds();
            mount.kill_9();
            drop(mount);
            work.join().expect("joined");
            gate.close_after(i64::MAX);
            let mount = Mount::with(&through, &how);
            let is_kept = || {
                ["f", "g"].iter().map(|name| witness(rig, &bucket, name)).all(|seen| seen.is_empty() || seen == wanted)
            };
            wait_for(&format!("{road}, killed after {requests} requests"), Duration::from_secs(30), is_kept);
            assert!(mount.sh("cat f g 2> /dev/null || true").contains("0123"), "{road} after {requests}");
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
    on(WITH_ACL, "tags_survive_a_daemon_that_is_killed_after_any_request", |rig| {
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
        killed_after_each_request(rig, "FULL_CONTROL id=alice\nREAD id=o,hara", &ROADS[..3], &["--write-back"]);
    });
}
