//! Two clients that write the same names: whoever comes second is told, and nobody's bytes vanish.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use dreamfs::error::Meaning;
use dreamfs::fs::open::Access;

use crate::harness::{ALL, Mount, on, wait_for};
use crate::stand::{CALLER, How, World};

/// Opens `f` as told, writes, and waits for `go` before it closes; says what close said.
const SLOW_WRITER: &str = "
import os, sys, time
flags = {'create': os.O_CREAT | os.O_WRONLY, 'truncate': os.O_TRUNC | os.O_WRONLY, 'append': os.O_APPEND | os.O_RDWR}
f = os.open('f', flags[sys.argv[1]])
os.write(f, b'mine' * int(sys.argv[2]))
open(sys.argv[3] + '/written', 'w').close()
while not os.path.exists(sys.argv[3] + '/go'): time.sleep(0.01)
try:
    os.close(f)
    print('stored')
except OSError as error:
    print(error.errno)
";

fn slow_writer(mount: &Mount, how: &str, count: usize, signs: &Path) -> Child {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", SLOW_WRITER, how, &count.to_string()]).arg(signs).current_dir(&mount.path);
    let writer = command.stdout(Stdio::piped()).spawn().expect("python3 runs");
    wait_for("the writer's bytes", Duration::from_secs(30), || signs.join("written").exists());
    writer
}

/// A writer who was overtaken gets EBUSY where it made the file and ESTALE where it changed it; the name has the other's
/// bytes, and its own lie beside it. Also for files of several parts.
#[test]
fn a_lost_race_is_told_and_the_loser_kept() {
    on(ALL, "a_lost_race_is_told_and_the_loser_kept", |rig| {
        for (how, count, told) in
            [("create", 5, "16"), ("truncate", 5, "116"), ("append", 5, "116"), ("create", 3_000_000, "16")]
        {
            let (bucket, signs) = (rig.bucket(), tempfile::tempdir().expect("room"));
            let theirs = |text: &str| {
                rig.boto(&format!("conn.get_bucket('{bucket}').new_key('f').set_contents_from_string('{text}')"))
            };
            if how != "create" {
                theirs("old");
            }
            let mount = Mount::new(rig, Some(&bucket));
            let writer = slow_writer(&mount, how, count, signs.path());
            theirs("theirs");
            std::fs::write(signs.path().join("go"), "").expect("written");
            let said = writer.wait_with_output().expect("its end").stdout;
            assert_eq!(String::from_utf8_lossy(&said).trim(), told, "{how} {count}");
            assert_eq!(mount.sh("cat f"), "theirs", "{how}");
            let beside =
                rig.boto(&format!("print([k.size for k in conn.get_bucket('{bucket}') if '.conflict-' in k.name])"));
            // What was appended to is gone in the store, and the whole of it can only be kept where it could be read.
            let size = if how == "append" { 3 + 4 * count } else { 4 * count };
            match how {
                "append" if beside.trim() == "[]" => assert!(mount.log().contains("kept in "), "{}", mount.log()),
                _ => assert_eq!(beside.trim(), format!("[{size}]"), "{how}: {}", mount.log()),
            }
            assert_eq!(
                rig.boto(&format!("print(conn.get_bucket('{bucket}').get_all_multipart_uploads())")).trim(),
                "[]"
            );
        }
    });
}

/// The last close of one descriptor comes late and stores what another descriptor wrote, and another client was faster:
/// whoever wrote is told by their own close, and what the other client stored stays.
#[tokio::test]
async fn a_race_that_another_descriptors_release_loses_is_told_to_the_writer() {
    let world = World::new(1000).await;
    world.put("k", b"old".to_vec());
    let client = world.client(How::default());
    let access = Access { read: true, write: true, ..Access::default() };
    let (_, late) = client.open("k", access).await.expect("opened");
    let (_, writer) = client.open("k", access).await.expect("opened");
    client.fs.write(writer, 0, Bytes::from_static(b"mine"), CALLER).await.expect("written");
    world.put("k", b"theirs".to_vec());
    client.fs.release(late).await;
    let told = [
        client.fs.write(writer, 4, Bytes::from_static(b"more"), CALLER).await.map(drop),
        client.fs.fsync(writer).await,
        client.fs.flush(writer).await,
    ];
    for told in told {
        assert_eq!(told.expect_err("it was not stored under its name").meaning(), Meaning::Stale);
    }
    client.fs.release(writer).await;
    assert_eq!(client.read("k").await.expect("read"), b"theirs");
    let beside = world.keys("k.conflict-").await;
    assert_eq!(world.bytes(&beside[0]).await.as_deref(), Some(b"mine".as_slice()), "{beside:?}");
}

/// Appends a line of its own to one of five files, again and again; prints the lines that close took.
const APPENDER: &str = "
import os, sys
for n in range(int(sys.argv[2])):
    line = f'{sys.argv[1]} {n}\\n'
    try:
        f = os.open(f'k{n % 5}', os.O_APPEND | os.O_RDWR)
        try: os.write(f, line.encode())
        finally: os.close(f)
        print(line, end='')
    except OSError as error:
        if error.errno not in (16, 116): raise
";

/// Two mounts append to the same files: every line that a close took is in its file, once.
#[test]
fn every_acknowledged_write_is_found() {
    let rounds = if std::env::var("DREAMFS_TEST_FULL").is_ok() { 1000 } else { 100 };
    on(ALL, "every_acknowledged_write_is_found", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\nfor n in range(5): b.new_key('k%d' % n).set_contents_from_string('begin\\n')"
        ));
        let (one, two) = (Mount::new(rig, Some(&bucket)), Mount::new(rig, Some(&bucket)));
        let writers = [("one", &one), ("two", &two)].map(|(name, mount)| {
            let mut command = Command::new("/usr/bin/python3");
            command.args(["-c", APPENDER, name, &rounds.to_string()]).current_dir(&mount.path);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python3 runs")
        });
        let mut taken = Vec::new();
        for writer in writers {
            let output = writer.wait_with_output().expect("its end");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            taken.extend(String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned));
        }
        let stored = rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\nfor n in range(5): sys.stdout.write(b.get_key('k%d' % n).get_contents_as_string().decode())"
        ));
        let lines: Vec<&str> = stored.lines().filter(|line| *line != "begin").collect();
        let found: BTreeSet<&str> = lines.iter().copied().collect();
        assert_eq!(found.len(), lines.len(), "a line twice");
        let missing: Vec<_> = taken.iter().filter(|line| !found.contains(line.as_str())).collect();
        assert!(missing.is_empty(), "{} of {} acknowledged lines are gone: {missing:?}", missing.len(), taken.len());
        let told = found.len() - taken.len();
        assert_eq!(told, 0, "{told} lines were stored whose close failed");
        println!("{} of {} appends were taken", taken.len(), 2 * rounds);
    });
}
