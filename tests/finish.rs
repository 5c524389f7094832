//! What no header can say is kept over new versions too, whenever the daemon is killed.

use std::time::Duration;

use crate::harness::cut::killed_at_each_request;
use crate::harness::link::Fate;
use crate::harness::{Kind, Mount, Rig, on, wait_for};

/// Every grant and tag of what there is.
fn witness(rig: &Rig, bucket: &str) -> Vec<String> {
    let told = rig.boto(&format!(
        "for k in conn.get_bucket('{bucket}').list():\n  \
         tags = conn.make_request('GET', '{bucket}', k.name, query_args='tagging').read().decode()\n  \
         print([g.id for g in k.get_acl().acl.grants], tags.replace('\\n', ''))"
    ));
    told.lines().map(str::to_owned).collect()
}

/// Kills the daemon at each request of each road. The next mount brings grants and tags back onto whatever version there
/// is then.
fn killed_on_each_road(rig: &Rig, grants: &str, roads: &[&str], flags: &[&str]) {
    let bucket = rig.bucket();
    let prepare = |mount: &Mount| {
        rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\nb.delete_key('g')\nb.new_key('f').set_contents_from_string('0123456789')"
        ));
        mount.sh("setfattr -n user.s3.refresh -v 1 . && setfattr -n user.s3.tags -v project=apollo f");
        if !grants.is_empty() {
            mount.sh(&format!("setfattr -n user.s3.grants -v '{grants}' f"));
        }
        mount.sh("setfattr -n user.s3.refresh -v 1 . && stat f > /dev/null");
    };
    let check = |mount: &Mount, _: &str, about: &str| {
        let kept = |seen: String| seen.contains("apollo") && seen.contains("o,hara") != grants.is_empty();
        wait_for(about, Duration::from_secs(30), || witness(rig, &bucket).into_iter().all(kept));
        assert!(mount.sh("cat *").contains("0123"), "{about}");
    };
    for road in roads {
        let line = format!("{road} && sync f g . 2> /dev/null; true");
        killed_at_each_request((rig, &bucket), flags, Fate::Held, &line, prepare, check);
    }
}

const ROADS: [&str; 5] =
    ["chmod 640 f", "mv f g", "echo more >> f", "setfattr -n user.colour -v blue f", "truncate -s 5 f"];

/// Tags, which Ceph takes with few requests.
#[test]
fn tags_survive_a_daemon_that_is_killed_after_any_request() {
    on(&[Kind::Rgw], "tags_survive_a_daemon_that_is_killed_after_any_request", |rig| {
        killed_on_each_road(rig, "", &ROADS, &[]);
    });
}

/// A grant to an account whose name no header can hold.
#[test]
fn an_acl_survives_a_daemon_that_is_killed_after_any_request() {
    on(&[Kind::Embedded], "an_acl_survives_a_daemon_that_is_killed_after_any_request", |rig| {
        killed_on_each_road(rig, "FULL_CONTROL id=alice\nREAD id=o,hara", &ROADS, &[]);
    });
}

/// With a journal both wait for what it stores.
#[test]
fn a_journal_finishes_versions_too() {
    on(&[Kind::Embedded], "a_journal_finishes_versions_too", |rig| {
        killed_on_each_road(rig, "FULL_CONTROL id=alice\nREAD id=o,hara", &ROADS[..2], &["--write-back"]);
    });
}
