//! Write-back: what a journal promises, with real tools, daemons that die and stores that go away.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{How, Kind, Mount, Rig, on, sh_in, wait_for};

const BOTH: &[Kind] = &[Kind::Rgw, Kind::Embedded, Kind::B2];

/// What else a file may be whose call was cut off; `None` is not there.
type Alternatives = BTreeMap<String, Vec<Option<String>>>;

/// Every object of a bucket and the MD5 of its bytes, as boto sees them.
fn stored(rig: &Rig, bucket: &str) -> BTreeMap<String, String> {
    let told = rig.boto(&format!(
        "import hashlib, json\n\
         print(json.dumps({{k.name: hashlib.md5(k.get_contents_as_string()).hexdigest() \
         for k in conn.get_bucket('{bucket}').list() if not k.name.endswith('/')}}))"
    ));
    serde_json::from_str(&told).expect("JSON")
}

/// Every file below the mount and the MD5 of its bytes.
fn seen(mount: &Mount) -> BTreeMap<String, String> {
    let lines = mount.sh("find . -type f -exec md5sum {} +");
    let pair = |line: &str| line.split_once("  ./").map(|(sum, name)| (name.to_owned(), sum.to_owned()));
    lines.lines().filter_map(pair).collect()
}

fn write_back<'a>(bucket: &'a str, state: &'a tempfile::TempDir) -> How<'a> {
    How { bucket: Some(bucket), state: Some(state.path()), flags: &["--write-back"], ..How::default() }
}

/// What was closed is read at once, by name, by listing and by content, and the store has all of it after umount: files
/// made, rewritten, appended to, cut, renamed, removed, with directories, links and attributes.
#[test]
fn what_is_closed_is_seen_at_once_and_stored_at_umount() {
    on(BOTH, "what_is_closed_is_seen_at_once_and_stored_at_umount", |rig| {
        let (bucket, state) = (rig.bucket(), tempfile::TempDir::new().expect("room"));
        let mut mount = Mount::with(rig, &write_back(&bucket, &state));
        mount.sh("mkdir -p a/b && for n in $(seq 60); do echo $n > a/b/$n; done && echo more >> a/b/1 && rm a/b/2 && \
             mv a/b/3 a/three && mv a/b a/c && truncate -s 1 a/c/4 && ln -s c/5 a/link && chmod 600 a/c/6 && \
             head -c 20000000 /dev/urandom > big && printf X | dd of=big bs=1 seek=9000000 conv=notrunc status=none && \
             cp big copy && setfattr -n user.colour -v red a/c/7 && touch -d 2001-02-03T04:05:06Z a/c/8");
        assert_eq!(
            mount.sh("cat a/c/1 a/three a/link; ls a/c | wc -l; stat -c %a a/c/6; cmp big copy && echo same"),
            "1\nmore\n3\n5\n58\n600\nsame\n"
        );
        let expected = seen(&mount);
        assert_eq!(expected.len(), 61);
        let (gone, words, well) = mount.umount();
        assert!(gone && well, "all is stored: {words}");
        assert_eq!(
            stored(rig, &bucket).into_iter().filter(|(name, _)| name != "a/link").collect::<BTreeMap<_, _>>(),
            expected
        );
        let after = Mount::new(rig, Some(&bucket));
        assert_eq!(seen(&after), expected);
        let kept =
            "stat -c %a a/c/6; getfattr --only-values -n user.colour a/c/7; echo; stat -c %Y a/c/8; readlink a/link";
        assert_eq!(after.sh(kept), "600\nred\n981173106\nc/5\n");
    });
}

/// The store is away, the daemon is killed, both come back: all that was closed arrives, once, and nothing waits any
/// longer.
#[test]
fn what_was_closed_while_the_store_was_away_survives_the_daemon() {
    let Some(mut rig) = Rig::start(Kind::Embedded, "what_was_closed_while_the_store_was_away_survives_the_daemon")
    else {
        return;
    };
    let count = if std::env::var("DREAMFS_TEST_FULL").is_ok() { 10_000 } else { 300 };
    let (bucket, state) = (rig.bucket(), tempfile::TempDir::new().expect("room"));
    // What was told of names and ACLs is soon too old to be believed, and the store cannot be asked again.
    let mut mount =
        Mount::with(&rig, &How { flags: &["--write-back", "--ttl", "100ms"], ..write_back(&bucket, &state) });
    mount.sh("mkdir d && echo old > d/old && ls d");
    wait_for("all is stored", Duration::from_secs(60), || mount.status()["unsaved"] == serde_json::json!([]));
    rig.kill_9();
    mount.sh(&format!(
        "for n in $(seq {count}); do echo $n > d/$n; done; rm d/{count}; mv d/{} d/moved; echo again > d/1",
        count - 1
    ));
    let upload = mount.sh("getfattr --only-values -n user.s3.upload d/7");
    assert!(["pending", "uploading", "failed"].iter().any(|state| upload.starts_with(state)), "{upload}");
    let expected = mount.sh("cd d && cat moved $(ls | grep '^[0-9]' | sort -V) | md5sum; ls | wc -l");
    mount.kill_9();
    drop(mount);
    rig.restart();
    let mut mount = Mount::with(&rig, &write_back(&bucket, &state));
    assert_eq!(
        mount.sh("cd d && cat moved $(ls | grep '^[0-9]' | sort -V) | md5sum; ls | wc -l"),
        expected,
        "seen before it is stored"
    );
    assert!(mount.umount().2);
    let names = stored(&rig, &bucket);
    assert_eq!(names.len(), count, "all but two of the new ones, the moved one and the old one");
    let plain = Mount::new(&rig, Some(&bucket));
    assert_eq!(plain.sh("cd d && cat moved $(ls | grep '^[0-9]' | sort -V) | md5sum; ls | wc -l"), expected);
    let uploads = rig.boto(&format!("print(len(list(conn.get_bucket('{bucket}').get_all_multipart_uploads())))"));
    assert_eq!(uploads.trim(), "0");
}

/// fsync returns when the store has the bytes, of a file and of all below a directory; `dreamfs wait` is the same.
#[test]
fn fsync_and_wait_mean_the_store() {
    on(BOTH, "fsync_and_wait_mean_the_store", |rig| {
        let (bucket, state) = (rig.bucket(), tempfile::TempDir::new().expect("room"));
        let mount = Mount::with(rig, &write_back(&bucket, &state));
        mount.sh("dd if=/dev/urandom of=f bs=1000 count=5 conv=fsync status=none");
        assert_eq!(stored(rig, &bucket).len(), 1);
        mount.sh("mkdir d && for n in $(seq 30); do echo $n > d/$n; done");
        let waited = mount.dreamfs(&["wait", mount.path.join("d").to_str().expect("UTF-8")]);
        assert!(waited.status.success(), "{waited:?}");
        assert_eq!(stored(rig, &bucket).len(), 31);
        assert_eq!(mount.sh("getfattr --only-values -n user.s3.upload d/30"), "stored");
    });
}

/// Another client takes the name while what was written here waits: its version stays, ours is beside it.
#[test]
fn a_lost_race_is_kept_beside_the_name() {
    on(&[Kind::Rgw, Kind::Embedded], "a_lost_race_is_kept_beside_the_name", |rig| {
        let (bucket, state) = (rig.bucket(), tempfile::TempDir::new().expect("room"));
        let mut mount = Mount::with(rig, &write_back(&bucket, &state));
        mount.sh("ls");
        rig.boto(&format!("conn.get_bucket('{bucket}').new_key('f').set_contents_from_string('theirs')"));
        mount.sh("echo ours > f");
        assert!(mount.umount().2);
        let names: Vec<String> = stored(rig, &bucket).into_keys().collect();
        assert!(names.len() == 2 && names[0] == "f" && names[1].starts_with("f.conflict-"), "{names:?}");
        let read = |name: &str| {
            rig.boto(&format!(
                "sys.stdout.write(conn.get_bucket('{bucket}').get_key('{name}').get_contents_as_string().decode())"
            ))
        };
        assert_eq!((read("f"), read(&names[1])), ("theirs".to_owned(), "ours\n".to_owned()));
    });
}

/// What a dead daemon left is listed and copied out without a mount, and nothing is taken away by that.
#[test]
fn recover_shows_and_exports_what_waits() {
    let Some(mut rig) = Rig::start(Kind::Embedded, "recover_shows_and_exports_what_waits") else { return };
    let (bucket, state) = (rig.bucket(), tempfile::TempDir::new().expect("room"));
    let mut mount = Mount::with(&rig, &write_back(&bucket, &state));
    mount.sh("ls");
    rig.kill_9();
    mount.sh("echo small > 'a b'; head -c 20000000 /dev/zero | tr '\\0' x > big");
    mount.kill_9();
    let words = |arguments: &[&str]| {
        let at = state.path().to_str().expect("UTF-8");
        let output = mount.dreamfs(&[&["recover", "--state", at], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for _ in 0..2 {
        let listed = words(&["list"]);
        assert_eq!(listed.lines().count(), 2, "{listed}");
        assert!(listed.contains(&format!("6  waiting   {bucket}/a b")), "{listed}");
        assert!(listed.contains(&format!("20000000  waiting   {bucket}/big")), "{listed}");
        let out = tempfile::TempDir::new().expect("room");
        words(&["export", out.path().to_str().expect("UTF-8")]);
        let read = |name: &str| std::fs::read(out.path().join(&bucket).join(name)).expect("exported");
        assert_eq!(read("a b"), b"small\n");
        assert!(read("big") == [b'x'; 20_000_000]);
    }
    drop(mount);
    rig.restart();
    let mut mount = Mount::new(&rig, Some(&bucket));
    assert_eq!(mount.sh("ls"), "", "another state folder knows nothing of it");
    assert!(mount.umount().2);
    let how = How { bucket: Some(&bucket), state: Some(state.path()), ..How::default() };
    let mut mount = Mount::with(&rig, &how);
    assert!(mount.umount().2, "a mount without a journal of its own stores it, too");
    assert_eq!(stored(&rig, &bucket).len(), 2);
}

/// Writes, appends, renames and removes files until the mount is gone; a dot for each call that has returned. Then it
/// says what every file must be, and what else those may be whose call was cut off.
const RESTLESS: &str = r#"
import hashlib, json, os, random, sys
root, seed, model = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
chance, cut = random.Random(seed), {}
def digest(data): return hashlib.md5(data).hexdigest()
def step():
    name, other = 'f%d' % chance.randrange(40), 'f%d' % chance.randrange(40)
    path, what = os.path.join(root, name), chance.randrange(6)
    cut.clear()
    if what <= 2 or name not in model:
        data = os.urandom(9000000 if chance.random() < 0.02 else chance.choice([10, 3000, 30000]))
        # It is empty before it is written; one that is only emptied is stored at its release, which nobody waits for.
        cut[name] = [digest(data), digest(b'')]
        with open(path, 'wb') as file: file.write(data)
        model[name] = digest(data)
    elif what == 3:
        cut[name] = [None]
        os.unlink(path)
        del model[name]
    elif what == 4 and other != name:
        cut.update({name: [None], other: [model[name]]})
        os.rename(path, os.path.join(root, other))
        model[other] = model.pop(name)
    elif what == 5:
        with open(path, 'rb') as file: data = file.read() + b'more'
        assert digest(data[:-4]) == model[name], name
        cut[name] = [digest(data)]
        with open(path, 'ab') as file: file.write(b'more')
        model[name] = digest(data)
    cut.clear()
try:
    while True:
        step()
        print('.', end='', flush=True)
except OSError:
    print(json.dumps([model, cut]))
"#;

/// The daemon is killed at a random moment of such work, again and again: after each remount every call that had
/// returned holds, and in the end the store has just that.
#[test]
fn a_daemon_that_is_killed_again_and_again_loses_nothing() {
    let rounds = if std::env::var("DREAMFS_TEST_FULL").is_ok() { 1000 } else { 15 };
    println!("a_daemon_that_is_killed_again_and_again_loses_nothing: {rounds} times");
    on(&[Kind::Rgw, Kind::Embedded], "a_daemon_that_is_killed_again_and_again_loses_nothing", |rig| {
        let (bucket, state) = (rig.bucket(), tempfile::TempDir::new().expect("room"));
        let mut random = fastrand::Rng::with_seed(7);
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        for round in 0..rounds {
            let mut mount = Mount::with(rig, &write_back(&bucket, &state));
            let mut worker = Command::new("/usr/bin/python3")
                .args(["-c", RESTLESS])
                .arg(&mount.path)
                .args([round.to_string(), serde_json::to_string(&model).expect("JSON")])
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3 runs");
            let mut told = worker.stdout.take().expect("piped");
            let mut dots = vec![0; random.usize(1..120)];
            told.read_exact(&mut dots).expect("it works");
            mount.kill_9();
            let mut rest = String::new();
            told.read_to_string(&mut rest).expect("its end");
            assert!(worker.wait().expect("its end").success(), "round {round}: {rest}");
            drop(mount);
            let end = rest.trim_start_matches('.');
            let (must, may): (BTreeMap<String, String>, Alternatives) =
                serde_json::from_str(end).unwrap_or_else(|error| panic!("round {round}: {error}: {end}"));
            let mount = Mount::with(rig, &write_back(&bucket, &state));
            let found = seen(&mount);
            for name in must.keys().chain(found.keys()) {
                let (is, was) = (found.get(name), must.get(name));
                let allowed = may.get(name).is_some_and(|others| others.contains(&is.cloned()));
                assert!(is == was || allowed, "round {round}: {name} is {is:?}, was {was:?}, or {:?}", may.get(name));
            }
            model = found;
        }
        let mut mount = Mount::with(rig, &write_back(&bucket, &state));
        assert!(mount.umount().2);
        assert_eq!(stored(rig, &bucket), model);
    });
}

/// A file that is longer than the local disk goes up as it is written, is read, changed and renamed while it is open,
/// and a full disk gets room again: through a journal and without.
#[test]
fn a_file_may_be_longer_than_the_local_disk() {
    let Some(rig) = Rig::start(Kind::Embedded, "a_file_may_be_longer_than_the_local_disk") else { return };
    let local = tempfile::TempDir::new().expect("room");
    sh_in(local.path(), "mkdir state && mount -t tmpfs -o size=64m tmpfs state && head -c 90000000 /dev/urandom > f");
    let source = local.path().join("f").display().to_string();
    let state = local.path().join("state");
    let works = std::panic::catch_unwind(|| {
        for flags in [&["--stage-size", "40MiB"][..], &[], &["--write-back", "--stage-size", "20MiB"]] {
            let bucket = rig.bucket();
            let how = How { bucket: Some(&bucket), state: Some(&state), flags, ..How::default() };
            let mut mount = Mount::with(&rig, &how);
            mount.sh(&format!("cp {source} copy && cmp copy {source}"));
            mount.sh(&format!(
                "exec 3<>open; cat {source} >&3; mv open renamed; printf end >&3; exec 3>&-; \
                 head -c 90000000 renamed | cmp - {source} && tail -c 3 renamed | grep -q end"
            ));
            let line = format!(
                "python3 -c \"\nimport os\nd = open('{source}', 'rb').read()\nf = os.open('again', os.O_CREAT | os.O_RDWR)\n\
                 for at in range(0, len(d), 1 << 20): os.pwrite(f, d[at:at + (1 << 20)], at)\n\
                 assert os.pread(f, 1000, 5) == d[5:1005]\nos.pwrite(f, b'X', 100)\n\
                 os.pwrite(f, b'Y' * 100, len(d))\nos.close(f)\""
            );
            mount.sh(&line);
            mount.sh(&format!(
                "(head -c 100 {source}; printf X; tail -c +102 {source}; head -c 100 /dev/zero | tr '\\0' Y) | cmp - again"
            ));
            mount.sh("for n in $(seq 40); do head -c 3000000 /dev/zero > zeros$n & done; wait; rm zeros*");
            let (_, words, well) = mount.umount();
            assert!(well, "{flags:?}: {words}");
        }
    });
    sh_in(local.path(), "umount state");
    works.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
