//! Wrong keys, wrong names, wrong places: one line that says what to do, an exit status, and nothing half mounted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{DREAMFS, Kind, Mount, Rig, on};

/// Runs `dreamfs mount` in the background form, as users do; answers whether it succeeded and what it said.
fn mount(endpoint: &str, arguments: &[&str], at: &Path, keys: (&str, &str)) -> (bool, String) {
    let output = Command::new(DREAMFS)
        .args(["mount", "--endpoint", endpoint, "--timeout", "3s"])
        .args(arguments)
        .arg(at)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("AWS_ACCESS_KEY_ID", keys.0)
        .env("AWS_SECRET_ACCESS_KEY", keys.1)
        .stdin(Stdio::null())
        .output()
        .expect("dreamfs runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mounts").expect("readable").contains(&path.display().to_string())
}

fn refused(what: &str, result: (bool, String), at: &Path, wanted: &str) {
    let (success, words) = result;
    assert!(!success, "{what}: must fail");
    assert!(words.contains(wanted), "{what}: says {words:?}, not {wanted:?}");
    assert_eq!(words.trim_end().lines().count(), 1, "{what}: one line: {words:?}");
    assert!(words.starts_with("dreamfs: "), "{what}: {words:?}");
    assert!(!is_mounted(at), "{what}: nothing half mounted");
}

const ALICE: (&str, &str) = ("alicekey", "alicesecret");

/// What the store refuses.
#[test]
fn wrong_keys_and_buckets_are_told_in_one_line() {
    on(&[Kind::Rgw, Kind::Embedded], "wrong_keys_and_buckets_are_told_in_one_line", |rig| {
        let folder = TempDir::new().expect("room");
        let (at, state) = (folder.path().join("mnt"), folder.path().join("state"));
        fs::create_dir(&at).expect("made");
        let state = state.to_str().expect("UTF-8");
        let with = |more: &[&str], keys| mount(&rig.endpoint, &[&["--state", state], more].concat(), &at, keys);
        refused("wrong key", with(&[], ("nobody", "x")), &at, "access key");
        refused("wrong secret", with(&[], ("alicekey", "wrong")), &at, "secret key is wrong");
        refused("unknown bucket", with(&["no-such-bucket-here"], ALICE), &at, "there is no bucket");
        refused("dots in the prefix", with(&["bucket/../x"], ALICE), &at, "cannot be mounted");
        refused("unknown option", with(&["-o", "alow_other"], ALICE), &at, "allow_other");
    });
}

/// What never reaches a store.
#[test]
fn wrong_places_are_told_in_one_line() {
    let folder = TempDir::new().expect("room");
    let (at, file) = (folder.path().join("mnt"), folder.path().join("file"));
    fs::create_dir(&at).expect("made");
    fs::write(&file, "K:S").expect("written");
    let state = folder.path().join("state");
    let state = ["--state", state.to_str().expect("UTF-8")];
    refused("no scheme", mount("store.example", &state, &at, ALICE), &at, "https://store.example");
    refused("no such host", mount("http://no-such-host.invalid", &state, &at, ALICE), &at, "is not known");
    refused("refused", mount("http://127.0.0.1:9", &state, &at, ALICE), &at, "nothing answers");
    refused("no mountpoint", mount("http://127.0.0.1:9", &state, &folder.path().join("none"), ALICE), &at, "mkdir -p");
    refused("no directory", mount("http://127.0.0.1:9", &state, &file, ALICE), &at, "not a directory");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
    let keys = [&state[..], &["--credentials", file.to_str().expect("UTF-8")]].concat();
    refused("readable by others", mount("http://127.0.0.1:9", &keys, &at, ALICE), &at, "chmod 600");
}

/// A certificate that nobody trusts.
#[test]
fn an_untrusted_certificate_is_told() {
    let folder = TempDir::new().expect("room");
    let at = folder.path().join("mnt");
    fs::create_dir(&at).expect("made");
    crate::harness::sh_in(
        folder.path(),
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost >/dev/null 2>&1",
    );
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "0", "-key", "k.pem", "-cert", "c.pem", "-www"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut words = std::io::BufReader::new(server.stdout.take().expect("piped"));
    let mut line = String::new();
    let port = loop {
        line.clear();
        std::io::BufRead::read_line(&mut words, &mut line).expect("its words");
        if let Some(address) = line.trim().strip_prefix("ACCEPT ") {
            break address.rsplit(':').next().expect("a port").to_owned();
        }
        assert!(!line.is_empty(), "openssl ended");
    };
    let state = folder.path().join("state");
    let result = mount(&format!("https://localhost:{port}"), &["--state", state.to_str().expect("UTF-8")], &at, ALICE);
    let _ = server.kill();
    let _ = server.wait();
    refused("untrusted certificate", result, &at, "--ca");
}

/// A mountpoint that is in use is refused; one whose daemon has died is cleared and taken over.
#[test]
fn mountpoints_in_use_are_refused_and_dead_ones_taken_over() {
    let Some(rig) = Rig::start(Kind::Embedded, "mountpoints_in_use_are_refused_and_dead_ones_taken_over") else {
        return;
    };
    let bucket = rig.bucket();
    let mut first = Mount::new(&rig, Some(&bucket));
    let state = first.folder.path().join("state2");
    let (success, words) =
        mount(&rig.endpoint, &["--state", state.to_str().expect("UTF-8"), &bucket], &first.path, ALICE);
    assert!(!success && words.contains("mounted already"), "{words}");
    first.sh("echo kept > f");
    first.kill_9();
    let (success, words) =
        mount(&rig.endpoint, &["--state", state.to_str().expect("UTF-8"), &bucket], &first.path, ALICE);
    assert!(success, "a dead mount is taken over: {words}");
    assert_eq!(first.sh("cat f"), "kept\n");
    let ended = Command::new(DREAMFS).arg("umount").arg(&first.path).status().expect("runs");
    assert!(ended.success());
}

/// A clock that is two hours wrong.
#[test]
fn a_skewed_clock_is_told() {
    on(&[Kind::Rgw, Kind::Embedded], "a_skewed_clock_is_told", |rig| {
        let folder = TempDir::new().expect("room");
        let line = format!(
            "mkdir mnt && AWS_ACCESS_KEY_ID=alicekey AWS_SECRET_ACCESS_KEY=alicesecret \
             faketime -f -2h {DREAMFS} mount --endpoint {} --state state mnt",
            rig.endpoint
        );
        let (status, words) = crate::harness::try_sh_as(folder.path(), &line, None);
        refused("skewed clock", (status == 0, words), &folder.path().join("mnt"), "clock");
    });
}

/// A machine, or a container, without the FUSE device.
#[test]
fn a_missing_fuse_device_is_told() {
    let folder = TempDir::new().expect("room");
    let mount = format!("{DREAMFS} mount --endpoint http://127.0.0.1:9 --state state mnt");
    let line = format!("mkdir mnt && unshare -m sh -c 'mount -t tmpfs none /dev && {mount}'");
    let (status, words) = crate::harness::try_sh_as(folder.path(), &line, None);
    if words.contains("unshare failed") {
        println!("skipped: a_missing_fuse_device_is_told: only root has mounts of its own here");
        return;
    }
    refused("no device", (status == 0, words), &folder.path().join("mnt"), "/dev/fuse");
}
