//! Stores to test against, mounts of them, and the tools that work in those. Nothing is left behind: every guard here
//! takes down what it started, also when a test panics.

pub mod cut;
pub mod link;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The program under test.
pub const DREAMFS: &str = env!("CARGO_BIN_EXE_dreamfs");

/// How long anything here may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The stores that a test body can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A real Ceph RGW, given by `DREAMFS_TEST_RGW`.
    Rgw,
    /// The embedded server, playing RGW.
    Embedded,
    /// The embedded server, playing a B2-like store.
    B2,
}

/// A store with the users alice and bob; an embedded one has two more: one whose id no header can hold, and one with a long
/// one.
pub struct Rig {
    pub endpoint: String,
    server: Option<Server>,
}

/// An embedded server and all that it needs to come back.
struct Server {
    child: Child,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Rig {
    /// The store, or `None` with a printed reason where it cannot be had (a failure in CI).
    pub fn start(kind: Kind, test: &str) -> Option<Rig> {
        match kind {
            Kind::Rgw => match std::env::var("DREAMFS_TEST_RGW") {
                Ok(endpoint) => Some(Rig::at(endpoint)),
                Err(_) => {
                    assert!(std::env::var("CI").is_err(), "{test}: CI must have an RGW");
                    println!("skipped: {test}: no Ceph RGW here (scripts/test starts one)");
                    None
                }
            },
            Kind::Embedded => Some(Rig::embedded("rgw", &[])),
            Kind::B2 => Some(Rig::embedded("b2", &[])),
        }
    }

    /// The same store, or another, at this endpoint; it is nobody's to end.
    pub fn at(endpoint: String) -> Rig {
        Rig { endpoint, server: None }
    }

    /// An embedded server with further arguments.
    pub fn embedded(profile: &str, more: &[&str]) -> Rig {
        let folder = TempDir::new().expect("room");
        let users = folder.path().join("users");
        fs::write(
            &users,
            "alice alicekey alicesecret alice@example.com Alice\nbob bobkey bobsecret bob@example.com Bob\n\
             o,hara oharakey oharasecret - O'Hara\n\
             0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef longkey longsecret - Long\n",
        )
        .expect("written");
        let arguments = ["--profile", profile].iter().chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (child, endpoint) = serve(folder.path(), &arguments, "127.0.0.1:0");
        Rig { endpoint, server: Some(Server { child, folder, arguments }) }
    }

    /// Ends the embedded server as a crash does.
    pub fn kill_9(&mut self) {
        let server = self.server.as_mut().expect("an embedded server");
        server.child.kill().expect("it runs");
        server.child.wait().expect("its end");
    }

    /// Starts the embedded server again on the same data and address.
    pub fn restart(&mut self) {
        let server = self.server.as_mut().expect("an embedded server");
        let address = self.endpoint.trim_start_matches("http://");
        (server.child, self.endpoint) = serve(server.folder.path(), &server.arguments, address);
    }

    /// Puts empty objects into a bucket as if by copying one that is there, past the protocol: it would take too long to
    /// store a million of them. The server starts anew.
    pub fn fill(&mut self, bucket: &str, seed: &str, keys: impl Iterator<Item = String>) {
        self.kill_9();
        let server = self.server.as_ref().expect("an embedded server");
        let objects = server.folder.path().join("data/buckets").join(bucket).join("objects");
        let file = |key: &str| objects.join(hex::encode(Sha256::digest(key)));
        let record = fs::read_to_string(file(seed)).expect("a record");
        let (before, after) = record.split_once(&format!("\"key\":\"{seed}\"")).expect("it names the key");
        for key in keys {
            fs::write(file(&key), format!("{before}\"key\":\"{key}\"{after}")).expect("written");
        }
        self.restart();
    }

    /// A new bucket of alice's, made by boto.
    pub fn bucket(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.boto(&format!("conn.create_bucket('{name}')"));
        name
    }

    /// Runs Python with boto 2, the library of the store's manual: `conn` is alice's connection, `bob` is bob's.
    pub fn boto(&self, script: &str) -> String {
        let address = self.endpoint.strip_prefix("http://").expect("plain HTTP");
        let (host, port) = address.split_once(':').expect("a port");
        let prelude = format!(
            "import boto, boto.s3.connection, sys, time\n\
             def connect(k, s): return boto.connect_s3(aws_access_key_id=k, aws_secret_access_key=s, host='{host}', \
             port={port}, is_secure=False, calling_format=boto.s3.connection.OrdinaryCallingFormat())\n\
             conn = connect('alicekey', 'alicesecret')\nbob = connect('bobkey', 'bobsecret')\n"
        );
        let output = Command::new("/usr/bin/python3").arg("-c").arg(prelude + script).output().expect("python3 runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "boto failed on\n{script}\n{words}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // It may have ended by itself.
            let _ = server.child.kill();
            let _ = server.child.wait();
        }
    }
}

/// Starts a server on the data and the users in a folder; answers its endpoint too.
fn serve(folder: &Path, arguments: &[String], address: &str) -> (Child, String) {
    let mut child = Command::new(DREAMFS)
        .args(["serve", "--listen", address, "--data"])
        .arg(folder.join("data"))
        .arg("--users")
        .arg(folder.join("users"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("dreamfs serve starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
    let endpoint = line.trim().strip_prefix("listening on ").expect("the server tells its address").to_owned();
    (child, endpoint)
}

/// How to mount.
#[derive(Clone, Default)]
pub struct How<'a> {
    /// `BUCKET[/PREFIX]`; none is every bucket.
    pub bucket: Option<&'a str>,
    /// Further flags.
    pub flags: &'a [&'a str],
    /// Run as this user.
    pub uid: Option<u32>,
    /// The state folder; a new one if none.
    pub state: Option<&'a Path>,
    /// Where; a new directory if none.
    pub at: Option<&'a Path>,
}

/// A running mount.
pub struct Mount {
    pub path: PathBuf,
    pub folder: TempDir,
    child: Child,
    log: Arc<Mutex<String>>,
    uid: Option<u32>,
}

impl Mount {
    /// Mounts a bucket, or every bucket.
    pub fn new(rig: &Rig, bucket: Option<&str>) -> Mount {
        Mount::with(rig, &How { bucket, ..How::default() })
    }

    /// Mounts with flags.
    pub fn with(rig: &Rig, how: &How) -> Mount {
        Mount::try_with(rig, how).unwrap_or_else(|words| panic!("not mounted: {words}"))
    }

    /// Mounts, or answers what the program said.
    pub fn try_with(rig: &Rig, how: &How) -> Result<Mount, String> {
        let folder = TempDir::new().expect("room");
        open_to_all(folder.path(), how.uid);
        let path = how.at.map_or_else(|| folder.path().join("mnt"), Path::to_owned);
        fs::create_dir_all(&path).expect("a mountpoint");
        open_to_all(&path, how.uid);
        let state = how.state.map_or_else(|| folder.path().join("state"), Path::to_owned);
        let mut command = Command::new(DREAMFS);
        command.args(["mount", "-f", "--endpoint", &rig.endpoint, "--state"]).arg(&state).args(how.flags);
        command.args(how.bucket).arg(&path);
        command.env("AWS_ACCESS_KEY_ID", "alicekey").env("AWS_SECRET_ACCESS_KEY", "alicesecret");
        command.env("HOME", folder.path()).env("XDG_RUNTIME_DIR", folder.path());
        if let Some(uid) = how.uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("dreamfs mount starts");
        let log = Arc::<Mutex<String>>::default();
        let first = collect(child.stderr.take().expect("piped"), log.clone());
        match first.recv_timeout(PATIENCE) {
            Ok(true) => Ok(Mount { path, folder, child, log, uid: how.uid }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                Err(log.lock().expect("unpoisoned").clone())
            }
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("unpoisoned").clone()
    }

    /// What the control socket says.
    pub fn status(&self) -> serde_json::Value {
        let output = self.dreamfs(&["status", "--json", self.path.to_str().expect("UTF-8")]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {output:?}"));
        match value {
            serde_json::Value::Array(mut all) => all.remove(0),
            one => one,
        }
    }

    /// Requests sent so far, by S3 operation.
    pub fn requests(&self) -> std::collections::BTreeMap<String, u64> {
        serde_json::from_value(self.status()["requests"].clone()).expect("counts")
    }

    /// Requests that `work` cost.
    pub fn cost(&self, work: impl FnOnce()) -> std::collections::BTreeMap<String, u64> {
        let before = self.requests();
        work();
        let mut after = self.requests();
        after.retain(|name, count| {
            *count -= before.get(name).copied().unwrap_or(0);
            *count > 0
        });
        after
    }

    /// The daemon's largest resident size so far, in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Runs another command of dreamfs as the mount's user.
    pub fn dreamfs(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(DREAMFS);
        command.args(arguments).env("HOME", self.folder.path()).env("XDG_RUNTIME_DIR", self.folder.path());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command.output().expect("dreamfs runs")
    }

    /// Runs a line of shell in the mount.
    pub fn sh(&self, line: &str) -> String {
        sh_in(&self.path, line)
    }

    /// The same for a line that may take longer than most.
    pub fn sh_within(&self, line: &str, patience: Duration) -> String {
        succeeded(&self.path, line, try_sh_within(&self.path, line, None, patience))
    }

    /// The same, and answers (exit status, output and errors).
    pub fn try_sh(&self, line: &str) -> (i32, String) {
        try_sh_as(&self.path, line, self.uid)
    }

    /// Unmounts by `dreamfs umount`; answers its exit status and words, and the daemon's exit status.
    pub fn umount(&mut self) -> (bool, String, bool) {
        let output = self.dreamfs(&["umount", self.path.to_str().expect("UTF-8")]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let ended = output.status.success() && self.child.wait().expect("its end").success();
        (output.status.success(), words, ended)
    }

    /// Ends the daemon as a crash does.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("its end");
    }

    /// Waits for the daemon's end; answers whether it ended well.
    pub fn wait(&mut self) -> bool {
        self.child.wait().expect("its end").success()
    }

    /// Asks the daemon to end, as a service manager does.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        // SAFETY: kill takes two numbers and touches no memory; the process is our child, so its id is still its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the mount on {}:\n{}", self.path.display(), self.log());
        }
        // Each may have happened already.
        let _ = Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that the test's user may use.
fn open_to_all(path: &Path, uid: Option<u32>) {
    if let Some(uid) = uid {
        std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("root runs the tests of other users");
        run(Command::new("chmod").arg("755").arg(path));
    }
}

/// Collects a daemon's words; tells when it says that it is mounted, or that it never will be.
fn collect(words: ChildStderr, log: Arc<Mutex<String>>) -> mpsc::Receiver<bool> {
    let (told, first) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(words).lines().map_while(Result::ok) {
            let mounted = line.contains(" is mounted on ");
            log.lock().expect("unpoisoned").push_str(&format!("{line}\n"));
            if mounted {
                let _ = told.send(true);
            }
        }
        let _ = told.send(false);
    });
    first
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{words}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a line of shell that must succeed; answers what it printed.
pub fn sh_in(folder: &Path, line: &str) -> String {
    succeeded(folder, line, try_sh_as(folder, line, None))
}

fn succeeded(folder: &Path, line: &str, (status, words): (i32, String)) -> String {
    assert_eq!(status, 0, "in {}: {line}\n{words}", folder.display());
    words
}

/// Runs a line of shell, as another user if asked; answers exit status and all that it printed.
pub fn try_sh_as(folder: &Path, line: &str, uid: Option<u32>) -> (i32, String) {
    try_sh_within(folder, line, uid, PATIENCE)
}

fn try_sh_within(folder: &Path, line: &str, uid: Option<u32>, patience: Duration) -> (i32, String) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec 2>&1; {line}")]).current_dir(folder).env("LC_ALL", "C");
    command.env("HOME", folder).env("GIT_CONFIG_NOSYSTEM", "1").process_group(0);
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a shell");
    let pid = child.id();
    let (done, ended) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-9", "--", &format!("-{pid}")]).status();
        }
    });
    let mut words = String::new();
    let mut bytes = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut bytes).expect("its words");
    words.push_str(&String::from_utf8_lossy(&bytes));
    let status = child.wait().expect("its end");
    drop(done);
    guard.join().expect("the guard ends");
    (status.code().unwrap_or(-1), words)
}

/// Waits until something holds; the sign of life between two looks is the clock, since no event tells.
pub fn wait_for(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Runs a body on each of these stores.
pub fn on(kinds: &[Kind], test: &str, body: impl Fn(&Rig)) {
    for kind in kinds {
        if let Some(rig) = Rig::start(*kind, test) {
            body(&rig);
        }
    }
}

/// The stores with object ACLs.
pub const WITH_ACL: &[Kind] = &[Kind::Rgw, Kind::Embedded];

/// All stores.
pub const ALL: &[Kind] = &[Kind::Rgw, Kind::Embedded, Kind::B2];
