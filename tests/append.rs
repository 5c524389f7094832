//! Logs: files that are appended to again and again, where the store lets objects grow.

use std::time::Duration;

use bytes::Bytes;
use dreamfs::error::Meaning;
use dreamfs::format::header::Posix;
use dreamfs::fs::attr::Changes;
use dreamfs::fs::open::HandleId;
use dreamfs::store::append::{Append, pieces};
use dreamfs::store::fault::{Failure, Rule, When};
use dreamfs::store::{AclTarget, CopyHeaders, CopySource, ObjectHeaders, Store, operation as op};

use crate::harness::cut::killed_at_each_request;
use crate::harness::link::Fate;
use crate::harness::{How as MountHow, Kind, Mount, Rig, on};
use crate::stand::{CALLER, Client, How, WRITE, World};

/// Several parts of the stand's, and less than it turns into an object that grows.
const OLD_BYTES: usize = 30_000;

const LINE: &[u8] = b"one more\n";

/// Requests of each kind that were sent: appends, HEADs, all writes and reads of other kinds.
fn sent(client: &Client) -> [u64; 3] {
    let others = [
        op::GET_OBJECT,
        op::PUT_OBJECT,
        op::COPY_OBJECT,
        op::DELETE_OBJECT,
        op::CREATE_MULTIPART_UPLOAD,
        op::UPLOAD_PART,
        op::UPLOAD_PART_COPY,
        op::COMPLETE_MULTIPART_UPLOAD,
    ];
    let calls = |operation| client.fault.calls(operation);
    [calls(op::APPEND_OBJECT), calls(op::HEAD_OBJECT), others.into_iter().map(calls).sum()]
}

/// A log of another tool's, open for writing here, and what it holds.
struct Log {
    world: World,
    client: Client,
    handle: HandleId,
    bytes: Vec<u8>,
}

impl Log {
    async fn of(size_bytes: usize) -> Log {
        let world = World::new(1000).await;
        let bytes: Vec<u8> = (0..size_bytes).map(|at| (at % 251) as u8).collect();
        world.put("log", bytes.clone());
        let client = world.client(How::default());
        let (_, handle) = client.open("log", WRITE).await.expect("opened");
        Log { world, client, handle, bytes }
    }

    /// One that grows already.
    async fn growing() -> Log {
        let mut log = Log::of(OLD_BYTES).await;
        for _ in 0..4 {
            log.append().await.expect("stored");
        }
        assert_eq!(log.grows().await, Some(true));
        // The temporary key goes behind it.
        log.client.fs.drain().await;
        log
    }

    async fn append(&mut self) -> dreamfs::error::Result<()> {
        let fs = &self.client.fs;
        fs.append(self.handle, self.bytes.len() as u64, Bytes::from_static(LINE), CALLER).await?;
        self.bytes.extend_from_slice(LINE);
        fs.fsync(self.handle).await
    }

    async fn grows(&self) -> Option<bool> {
        self.world.object("log").await.expect("there").0.grows
    }

    async fn check_stored(&self) {
        assert!(self.world.bytes("log").await.as_ref() == Some(&self.bytes), "the store has other bytes");
    }

    /// All that lies in the store under other names than the log's.
    async fn beside(&self) -> Vec<String> {
        let mut keys = self.world.keys("").await;
        keys.retain(|key| key != "log");
        keys
    }
}

/// From the fourth append in a row on each costs one append and one look, and the store has it at once; what lies beside
/// the log meanwhile is gone.
#[tokio::test(start_paused = true)]
async fn an_append_costs_two_requests() {
    let mut log = Log::growing().await;
    for _ in 0..20 {
        let before = sent(&log.client);
        log.append().await.expect("stored");
        let after = sent(&log.client);
        assert_eq!([0, 1, 2].map(|kind| after[kind] - before[kind]), [1, 1, 0]);
        log.check_stored().await;
    }
    assert_eq!(log.beside().await, Vec::<String>::new());
    let read = log.client.read("log").await.expect("read");
    assert!(read == log.bytes, "what is read is what was written");
}

/// A log that is new, or short, goes up in one request as a whole; so does what is not at its end.
#[tokio::test(start_paused = true)]
async fn what_is_no_long_log_goes_by_the_ordinary_plan() {
    let mut log = Log::of(100).await;
    for _ in 0..2 {
        log.append().await.expect("stored");
    }
    assert_eq!((sent(&log.client)[0], log.grows().await), (0, Some(false)), "short");
    let mut log = Log::growing().await;
    let appends = sent(&log.client)[0];
    log.client.fs.write(log.handle, 5, Bytes::from_static(b"edited"), CALLER).await.expect("written");
    log.bytes[5..11].copy_from_slice(b"edited");
    log.client.fs.fsync(log.handle).await.expect("stored");
    log.check_stored().await;
    assert_eq!((sent(&log.client)[0], log.grows().await), (appends, Some(false)), "edited");
    log.append().await.expect("stored");
    assert_eq!(sent(&log.client)[0], appends, "it begins anew");
    log.check_stored().await;
}

/// A mount that has not seen it grow finds out at its first append; one that opens it after a change of attributes too.
#[tokio::test(start_paused = true)]
async fn another_mount_goes_on_where_the_last_one_ended() {
    let mut log = Log::growing().await;
    log.client.close(log.handle).await.expect("closed");
    log.client = log.world.client(How::default());
    log.handle = log.client.open("log", WRITE).await.expect("opened").1;
    log.append().await.expect("stored");
    assert_eq!((sent(&log.client)[0], log.grows().await), (1, Some(true)));
    log.check_stored().await;
    let mode = Changes { mode: Some(0o600), ..Changes::default() };
    log.client.setattr("log", mode).await.expect("set");
    log.client.fs.fsync(log.handle).await.expect("stored");
    assert_eq!(log.grows().await, Some(false), "a copy with other headers is plain");
    log.append().await.expect("stored");
    log.check_stored().await;
}

/// Headers, mode and ACL stay, and the time is that of the last append.
#[tokio::test(start_paused = true)]
async fn metadata_and_acl_survive_appends() {
    let mut log = Log::of(OLD_BYTES).await;
    log.client.setattr("log", Changes { mode: Some(0o640), ..Changes::default() }).await.expect("set");
    log.client.setxattr("log", "user.colour", b"blue").await.expect("set");
    log.client.setxattr("log", "user.s3.content_type", b"text/x-log").await.expect("set");
    log.client.setxattr("log", "user.s3.acl", b"public-read").await.expect("set");
    for _ in 0..6 {
        log.world.clock.advance(Duration::from_millis(1500));
        log.append().await.expect("stored");
    }
    let (head, _) = log.world.object("log").await.expect("stored");
    let (posix, headers) = (Posix::read(&head.headers.metadata), &head.headers);
    assert_eq!((head.grows, posix.mode.map(|mode| mode & 0o7777)), (Some(true), Some(0o640)));
    assert_eq!(posix.mtime, Some(log.world.clock.now()));
    assert_eq!(headers.metadata.get("colour").map(String::as_str), Some("blue"));
    assert_eq!(headers.content_type.as_deref(), Some("text/x-log"));
    let acl = log.world.memory.get_acl(&AclTarget::Object(log.world.location("log"))).await.expect("memory answers");
    assert_eq!(acl.canned_name(), Some("public-read"));
}

/// Before it has too many pieces it is made anew, of few.
#[tokio::test(start_paused = true)]
async fn a_log_of_many_pieces_is_made_anew() {
    let mut log = Log::growing().await;
    let mut most = 0;
    for _ in 0..1_010 {
        log.append().await.expect("stored");
        let (head, _) = log.world.object("log").await.expect("there");
        most = most.max(pieces(&head.etag).expect("a chain"));
    }
    let (head, _) = log.world.object("log").await.expect("there");
    assert_eq!((most, head.grows), (1_000, Some(true)));
    assert!(pieces(&head.etag) < Some(100), "{}", head.etag);
    log.check_stored().await;
    log.client.fs.drain().await;
    assert_eq!(log.beside().await, Vec::<String>::new());
}

/// What another client does between two appends.
#[derive(Clone, Copy, Debug)]
enum Other {
    Replaces,
    Deletes,
    Appends,
    /// By an object that grows and is as long as the one before.
    ReplacesByOneThatGrows,
    /// The content stays, and does not grow any more.
    ChangesHeaders,
    /// Its copy has grown.
    AppendsToACopy,
}

const OTHERS: [Other; 6] = [
    Other::Replaces,
    Other::Deletes,
    Other::Appends,
    Other::ReplacesByOneThatGrows,
    Other::ChangesHeaders,
    Other::AppendsToACopy,
];

impl Other {
    /// Does it, and answers what the store then has of the log.
    async fn act(self, world: &World, size_bytes: usize) -> Option<Vec<u8>> {
        let (memory, at, plain) = (&world.memory, world.location("log"), ObjectHeaders::default());
        let theirs = Bytes::from(vec![b'T'; size_bytes]);
        let source = CopySource { location: at.clone(), if_match: None };
        let acted = match self {
            Other::Replaces => {
                world.put("log", theirs.to_vec());
                Ok(())
            }
            Other::Deletes => memory.delete(&at, None).await,
            Other::Appends => memory.append(&at, size_bytes as u64, Bytes::from_static(b"theirs"), &plain).await,
            Other::ReplacesByOneThatGrows => {
                world.delete("log").await;
                memory.append(&at, 0, theirs, &plain).await
            }
            Other::ChangesHeaders => memory.copy(&source, &at, &CopyHeaders::Replace(plain)).await.map(drop),
            Other::AppendsToACopy => {
                let (copy, keep) = (world.location("copy"), CopyHeaders::Keep { acl: None, storage_class: None });
                memory.copy(&source, &copy, &keep).await.expect("copied");
                memory.append(&copy, size_bytes as u64, Bytes::from_static(b"theirs"), &plain).await
            }
        };
        acted.expect("memory answers");
        world.bytes("log").await
    }
}

/// Whatever another client does between two appends, or while one is on its way, what it stored stays, and the append is
/// stored or told to be stale.
#[tokio::test(start_paused = true)]
async fn another_clients_version_is_never_overwritten() {
    for other in OTHERS {
        let mut log = Log::growing().await;
        let theirs = other.act(&log.world, log.bytes.len()).await;
        let told = log.append().await.map_err(|error| error.meaning());
        let found = log.world.bytes("log").await;
        match other {
            // Nobody else changed its content.
            Other::AppendsToACopy => {
                assert_eq!(told, Ok(()));
                log.check_stored().await;
                assert!(log.world.bytes("copy").await.expect("there").ends_with(b"theirs"));
            }
            Other::ReplacesByOneThatGrows => {
                let theirs = theirs.expect("stored");
                assert_eq!(told, Err(Meaning::Stale));
                assert_eq!(found, Some([theirs.as_slice(), LINE].concat()), "behind theirs, and nothing is lost");
            }
            _ => {
                assert_eq!((told, found == theirs), (Err(Meaning::Stale), true), "{other:?}");
            }
        }
    }
}

/// An append whose answer was lost, and that nobody could ask about then, is taken for ours by its tag alone: it gave our
/// headers to whatever it was made to.
#[tokio::test(start_paused = true)]
async fn an_append_to_another_clients_version_is_not_taken_for_ours_later() {
    for other in [None, Some(Other::ReplacesByOneThatGrows)] {
        let mut log = Log::growing().await;
        if let Some(other) = other {
            other.act(&log.world, log.bytes.len()).await;
        }
        let lost = |operation, failure| Rule { operation: Some(operation), when: When::Chance(1.0), failure };
        let rules = [lost(op::APPEND_OBJECT, Failure::DoneThenFailed), lost(op::HEAD_OBJECT, Failure::ServerError)];
        log.client.fault.set_rules(rules.to_vec());
        assert_eq!(log.append().await.map_err(|error| error.meaning()), Err(Meaning::Io), "{other:?}");
        log.client.fault.set_rules(Vec::new());
        let told = log.client.fs.fsync(log.handle).await.map_err(|error| error.meaning());
        match other {
            None => {
                assert_eq!(told, Ok(()));
                log.check_stored().await;
            }
            Some(_) => {
                assert_eq!(told, Err(Meaning::Stale));
                let found = log.world.bytes("log").await.expect("there");
                assert!(found.starts_with(b"TTT") && found.ends_with(LINE), "their bytes stay");
            }
        }
    }
}

/// The same while an object is turned into one that grows: its bytes are on their way to the temporary key.
#[tokio::test(start_paused = true)]
async fn another_clients_version_is_not_replaced_by_one_that_grows() {
    for other in [Other::Replaces, Other::Deletes, Other::ReplacesByOneThatGrows] {
        let mut log = Log::of(OLD_BYTES).await;
        for _ in 0..2 {
            log.append().await.expect("stored");
        }
        let slow = Rule {
            operation: Some(op::APPEND_OBJECT),
            when: When::Nth(2),
            failure: Failure::Slow(Duration::from_secs(2)),
        };
        log.client.fault.set_rules(vec![slow]);
        let (memory, size_bytes) = (log.world.memory.clone(), log.bytes.len());
        let world = World { memory, bucket: log.world.bucket.clone(), clock: log.world.clock.clone() };
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            other.act(&world, size_bytes).await
        };
        let (told, theirs) = tokio::join!(log.append(), meanwhile);
        assert_eq!(log.client.fault.injected(), 1, "{other:?}: it was on its way");
        assert_eq!(told.map_err(|error| error.meaning()), Err(Meaning::Stale), "{other:?}");
        assert!(log.world.bytes("log").await == theirs, "{other:?}");
        log.client.fs.drain().await;
        let left = log.beside().await;
        assert!(!left.iter().any(|key| key.contains(".append-")), "{other:?}: {left:?}");
    }
}

/// A store that says of no object whether it grows is never sent an append; nor is a mount's journal, whose sender makes
/// them: see [`a_log_through_the_kernel`].
#[test]
fn a_store_without_appends_is_sent_none() {
    on(&[Kind::Embedded], "a_store_without_appends_is_sent_none", |rig| {
        let bucket = rig.bucket();
        let mount = log_of(rig, &bucket, 9, &[]);
        let cost = mount.cost(|| append_lines(&mount, "log", 6));
        assert!(!cost.contains_key("AppendObject"), "{cost:?}");
        check_in_store(rig, &bucket, "log", 9 << 20, 6);
    });
}

/// A mount of a bucket in which a log of so many mebibytes lies.
fn log_of(rig: &Rig, bucket: &str, mebibytes: u64, flags: &[&str]) -> Mount {
    rig.boto(&format!(
        "k = conn.get_bucket('{bucket}').new_key('log')\nk.set_metadata('colour', 'blue')\n\
         k.set_contents_from_string('o' * {}, headers={{'Content-Type': 'text/x-log'}}, policy='public-read')",
        mebibytes << 20
    ));
    Mount::with(rig, &MountHow { bucket: Some(bucket), flags, ..MountHow::default() })
}

/// Appends so many lines of 4096 bytes, each with fsync.
fn append_lines(mount: &Mount, name: &str, count: u32) {
    mount.sh(&format!(
        "/usr/bin/python3 -c \"import os\nf = os.open('{name}', os.O_WRONLY | os.O_APPEND)\n\
         for i in range({count}): os.write(f, bytes([65 + i % 26]) * 4096); os.fsync(f)\""
    ));
}

/// boto reads the old bytes, and so many lines behind them.
fn check_in_store(rig: &Rig, bucket: &str, name: &str, old_bytes: u64, count: u32) {
    let script = format!(
        "b = conn.get_bucket('{bucket}').get_key('{name}').get_contents_as_string()\n\
         w = b'o' * {old_bytes} + b''.join(bytes([65 + i % 26]) * 4096 for i in range({count}))\n\
         print(b == w, len(b), len(w))"
    );
    let said = rig.boto(&script);
    assert!(said.starts_with("True"), "{name}: {said}");
}

/// Twenty appends with fsync to a log on Ceph: two by the ordinary plan, one that brings the log through here once, and
/// from then on two requests each. boto reads what was written; headers, ACL and time are right.
#[test]
fn a_log_through_the_kernel() {
    on(&[Kind::Rgw], "a_log_through_the_kernel", |rig| {
        for (mebibytes, flags) in [(9, &[] as &[&str]), (32, &[]), (9, &["--write-back"])] {
            let bucket = rig.bucket();
            let mount = log_of(rig, &bucket, mebibytes, flags);
            let moved = |name: &str| mount.status()[name].as_u64().expect("a number");
            let (up, down) = (moved("bytes_up"), moved("bytes_down"));
            let cost = mount.cost(|| append_lines(&mount, "log", 20));
            let (up, down) = (moved("bytes_up") - up, moved("bytes_down") - down);
            println!("{mebibytes} MiB {flags:?}: {up} bytes up, {down} down, {cost:?}");
            let pieces = mebibytes.div_ceil(8) + u64::from(mebibytes % 8 == 0);
            assert_eq!(cost["AppendObject"], pieces + 17, "{cost:?}");
            assert!(cost["HeadObject"] <= 17 + 8, "{cost:?}");
            assert_eq!(cost["UploadPartCopy"], 2, "{cost:?}");
            assert!(up <= (mebibytes << 20) + 30 * 4096 && down <= (mebibytes << 20) + 30 * 4096);
            check_in_store(rig, &bucket, "log", mebibytes << 20, 20);
            let facts = rig.boto(&format!(
                "b = conn.get_bucket('{bucket}')\nk = b.get_key('log')\n\
                 print(k.get_metadata('colour'), k.content_type, sorted(g.permission for g in k.get_acl().acl.grants))\n\
                 print(sorted(k.name for k in b.list()))"
            ));
            assert_eq!(facts, "blue text/x-log ['FULL_CONTROL', 'READ']\n['log']\n");
            let age = mount.sh("echo $(( $(date +%s) - $(stat -c %Y log) ))");
            assert!(age.trim().parse::<i64>().is_ok_and(|seconds| (0..60).contains(&seconds)), "{age}");
            // What two names have in common grows under one of them only: the other goes by the ordinary plan.
            mount.sh("cp log copy");
            append_lines(&mount, "log", 1);
            append_lines(&mount, "copy", 5);
            append_lines(&mount, "log", 4);
            let common = (mebibytes << 20) + 20 * 4096;
            let ends =
                "for f in log copy; do tail -c +$((1 + N)) $f | fold -w 4096 | cut -c 1 | tr -d '\\n'; echo; done";
            mount.sh(&format!("setfattr -n user.s3.refresh -v 1 .; cmp -n {common} log copy"));
            assert_eq!(mount.sh(&ends.replace('N', &common.to_string())), "AABCD\nABCDE\n");
        }
    });
}

/// Another client replaces, removes or appends to a log on Ceph between appends: the next one is told, and what it
/// stored stays.
#[test]
fn another_client_at_a_log_on_ceph() {
    on(&[Kind::Rgw], "another_client_at_a_log_on_ceph", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        let script = format!(
            "import os\nb = conn.get_bucket('{bucket}')\nos.chdir('{}')\n\
             def theirs(name, do):\n    \
                 f = os.open(name, os.O_WRONLY | os.O_APPEND)\n    \
                 for i in range(5): os.write(f, b'line'); os.fsync(f)\n    \
                 size = b.get_key(name).size\n    \
                 do(name, size)\n    \
                 os.write(f, b'line')\n    \
                 try: os.fsync(f); print('stored')\n    except OSError as e: print(e.errno)\n    \
                 k = b.get_key(name)\n    print(size, k and k.get_contents_as_string()[-6:])\n\
             def append(name, size):\n    \
                 r = conn.make_request('PUT', b.name, name, data='theirs', query_args='append&position=%d' % size)\n    \
                 assert r.status == 200, r.read()\n\
             for name in 'replaced', 'deleted', 'appended': b.new_key(name).set_contents_from_string('o' * 300000)\n\
             theirs('replaced', lambda name, size: b.new_key(name).set_contents_from_string('theirs'))\n\
             theirs('deleted', lambda name, size: b.delete_key(name))\n\
             theirs('appended', append)\n",
            mount.path.display()
        );
        let said = rig.boto(&script);
        assert_eq!(said, "116\n300020 b'theirs'\n116\n300020 None\n116\n300020 b'theirs'\n");
        assert!(mount.requests()["AppendObject"] > 0);
    });
}

/// The daemon is killed at every request of five appends: the log is what it was after one of them, whole, all that
/// fsync answered is in it, and no temporary key is left.
#[test]
fn a_daemon_killed_in_mid_append_loses_nothing() {
    on(&[Kind::Rgw], "a_daemon_killed_in_mid_append_loses_nothing", |rig| {
        for fate in [Fate::Held, Fate::Unanswered] {
            let bucket = rig.bucket();
            let line = "/usr/bin/python3 -uc \"import os\nf = os.open('log', os.O_WRONLY | os.O_APPEND)\n\
                        for i in range(5): os.write(f, b'%d' % i * 1000); os.fsync(f); print(i)\"";
            let prepare = |mount: &Mount| {
                mount.sh("head -c 200000 /dev/zero > log");
            };
            let check = |mount: &Mount, said: &str, about: &str| {
                let told =
                    (0..5).take_while(|count: &usize| said.lines().any(|line| line == count.to_string())).count();
                let bytes = std::fs::read(mount.path.join("log")).unwrap_or_else(|error| panic!("{about}: {error}"));
                let stored = (bytes.len() - 200_000) / 1000;
                assert!(stored >= told, "{about}: {told} were answered, {stored} are stored");
                let wanted = (0..stored).flat_map(|count| [b'0' + count as u8; 1000]);
                assert!(bytes[200_000..].iter().copied().eq(wanted), "{about}");
                let keys = rig.boto(&format!("print(sorted(k.name for k in conn.get_bucket('{bucket}').list()))"));
                assert_eq!(keys.trim(), "['log']", "{about}");
            };
            killed_at_each_request((rig, &bucket), &[], fate, line, prepare, check);
        }
    });
}
