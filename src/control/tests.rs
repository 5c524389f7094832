//! The protocol over a real socket with a daemon that does what a test tells it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;

/// Answers as it is told; a drain reports `reports` times, each time after it got a permit.
struct Fake {
    reports: u64,
    permits: Semaphore,
    unsaved: Vec<Unsaved>,
    unmounted: Result<(), UnmountError>,
    calls: Mutex<Vec<String>>,
    drained: Semaphore,
}

impl Default for Fake {
    fn default() -> Self {
        Fake {
            reports: 0,
            permits: Semaphore::new(0),
            unsaved: Vec::new(),
            unmounted: Ok(()),
            calls: Mutex::default(),
            drained: Semaphore::new(0),
        }
    }
}

impl Fake {
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Daemon for Fake {
    fn status(&self) -> Status {
        Status { version: "1.2.3".into(), mountpoint: "/mnt/a b".into(), pid: 42, ..Status::default() }
    }

    async fn drain(&self, report: mpsc::Sender<Progress>) -> Result<(), Vec<Unsaved>> {
        for left in (0..self.reports).rev() {
            self.permits.acquire().await.unwrap().forget();
            report.send(Progress { files_left: left, bytes_left: left * 10, message: None }).await.unwrap();
        }
        self.calls.lock().unwrap().push("drained".into());
        self.drained.add_permits(1);
        if self.unsaved.is_empty() { Ok(()) } else { Err(self.unsaved.clone()) }
    }

    async fn link(&self, wanted: Link) -> Result<String, String> {
        match wanted.seconds {
            0 => Err("never".to_owned()),
            seconds => Ok(format!("{}?{}&{seconds}", wanted.location, wanted.method.name())),
        }
    }

    async fn unmount(&self, force: bool) -> Result<(), UnmountError> {
        self.calls.lock().unwrap().push(format!("unmount {force}"));
        self.unmounted.clone()
    }
}

/// A served daemon in a folder of its own. One at a time per folder, for the name is the process id.
struct Served {
    folder: tempfile::TempDir,
    socket: PathBuf,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Served {
    async fn start(daemon: Arc<dyn Daemon>) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let socket = serve(&folder.path().join("control"), daemon, stop.clone(), &tracker).await.unwrap();
        Served { folder, socket, stop, tracker }
    }

    async fn end(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        assert!(!self.socket.exists(), "a stopped daemon takes its socket away");
        self.folder.close().unwrap();
    }

    /// Lets a blocking client talk to the daemon.
    async fn ask<T: Send + 'static>(&self, talk: impl FnOnce(Client) -> T + Send + 'static) -> T {
        let client = Client::connect(&self.socket).unwrap();
        spawn_blocking(move || talk(client)).await.unwrap()
    }
}

fn unsaved(path: &str) -> Vec<Unsaved> {
    vec![Unsaved { path: path.into(), state: "pending".into(), bytes: 7, staged: Some("/var/x".into()) }]
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn status_travels_whole_and_the_socket_is_private() {
    let daemon = Arc::new(Fake::default());
    let served = Served::start(daemon.clone()).await;
    assert_eq!(mode(&served.socket), 0o600);
    assert_eq!(mode(served.socket.parent().unwrap()), 0o700);
    let (first, second) = served.ask(|mut client| (client.status().unwrap(), client.status().unwrap())).await;
    assert_eq!(first, daemon.status());
    assert_eq!(second, daemon.status());
    served.end().await;
}

#[tokio::test]
async fn drain_tells_its_progress_in_order_and_ends() {
    let daemon = Arc::new(Fake { reports: 9, permits: Semaphore::new(9), ..Fake::default() });
    let served = Served::start(daemon).await;
    let seen = served
        .ask(|mut client| {
            let mut seen = Vec::new();
            client.drain(|progress| seen.push(progress.files_left)).unwrap();
            seen
        })
        .await;
    assert_eq!(seen, (0..9).rev().collect::<Vec<_>>());
    served.end().await;
}

#[tokio::test]
async fn unmount_drains_first() {
    let daemon = Arc::new(Fake::default());
    let served = Served::start(daemon.clone()).await;
    assert!(served.ask(|mut client| client.unmount(false, |_| ()).unwrap()).await.is_empty());
    assert_eq!(daemon.calls(), ["drained", "unmount false"]);
    served.end().await;
}

#[tokio::test]
async fn links_are_asked_for_and_may_be_refused() {
    let served = Served::start(Arc::new(Fake::default())).await;
    let location =
        Location { bucket: "photos".to_owned().try_into().unwrap(), key: "a b".to_owned().try_into().unwrap() };
    let wanted = |seconds| Link { location: location.clone(), method: LinkMethod::Put, seconds, download_name: None };
    let (good, bad) = (wanted(60), wanted(0));
    let (good, bad) = served.ask(move |mut client| (client.link(good).unwrap(), client.link(bad).unwrap_err())).await;
    assert_eq!(good, "photos/a b?PUT&60");
    assert!(matches!(bad, ClientError::Refused(why) if why == "never"));
    served.end().await;
}

#[tokio::test]
async fn a_busy_mount_names_who_uses_it() {
    let users = vec![User { pid: 7, command: "vim".into(), what: "/mnt/a".into() }];
    let daemon = Fake { unmounted: Err(UnmountError::Busy(users.clone())), ..Fake::default() };
    let served = Served::start(Arc::new(daemon)).await;
    let answer = served.ask(|mut client| client.unmount(false, |_| ())).await;
    assert!(matches!(answer, Err(ClientError::Busy(found)) if found == users));
    served.end().await;
}

#[tokio::test]
async fn what_cannot_be_stored_keeps_the_mount_unless_forced() {
    let daemon = Arc::new(Fake { unsaved: unsaved("/a"), ..Fake::default() });
    let served = Served::start(daemon.clone()).await;
    let answer = served.ask(|mut client| client.unmount(false, |_| ())).await;
    assert!(matches!(answer, Err(ClientError::Unsaved(found)) if found == unsaved("/a")));
    assert_eq!(daemon.calls(), ["drained"]);
    let lost = served.ask(|mut client| client.unmount(true, |_| ()).unwrap()).await;
    assert_eq!(lost, unsaved("/a"));
    assert_eq!(daemon.calls(), ["drained", "drained", "unmount true"]);
    served.end().await;
}

#[tokio::test]
async fn a_malformed_line_is_answered_and_the_conversation_goes_on() {
    let served = Served::start(Arc::new(Fake::default())).await;
    let socket = served.socket.clone();
    let lines = spawn_blocking(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        let nonsense: [&[u8]; 4] = [b"hello\n", b"\xff\xfe\n", b"{\"request\":\"dance\"}\n", b"\n"];
        nonsense.iter().for_each(|line| stream.write_all(line).unwrap());
        stream.write_all(b"{\"request\":\"status\"}\n").unwrap();
        BufReader::new(stream).lines().take(5).map(Result::unwrap).collect::<Vec<_>>()
    })
    .await
    .unwrap();
    assert!(lines[..4].iter().all(|line| line.starts_with("{\"error\":")), "{lines:?}");
    assert!(lines[4].starts_with("{\"status\":"), "{lines:?}");
    served.end().await;
}

#[tokio::test]
async fn a_line_without_end_is_cut_off() {
    let served = Served::start(Arc::new(Fake::default())).await;
    let socket = served.socket.clone();
    let answer = spawn_blocking(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(&vec![b'x'; 64 * 1024]).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap();
    assert!(answer.contains("too long"), "{answer}");
    served.end().await;
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_the_drain() {
    let daemon = Arc::new(Fake { reports: 50, permits: Semaphore::new(1), ..Fake::default() });
    let served = Served::start(daemon.clone()).await;
    let socket = served.socket.clone();
    spawn_blocking(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(b"{\"request\":\"unmount\",\"force\":false}\n").unwrap();
        BufReader::new(stream).read_line(&mut String::new()).unwrap();
    })
    .await
    .unwrap();
    assert!(daemon.calls().is_empty(), "the client has gone in mid-drain");
    daemon.permits.add_permits(49);
    daemon.drained.acquire().await.unwrap().forget();
    served.end().await;
    assert_eq!(daemon.calls(), ["drained", "unmount false"]);
}

#[tokio::test]
async fn stopping_hangs_up_on_idle_clients_and_answers_busy_ones() {
    let daemon = Arc::new(Fake { reports: 1, ..Fake::default() });
    let served = Served::start(daemon.clone()).await;
    let mut idle = served.ask(|mut client| client.status().map(|_| client).unwrap()).await;
    let mut busy = Client::connect(&served.socket).unwrap();
    let (heard, mut hears) = mpsc::unbounded_channel();
    daemon.permits.add_permits(1);
    let working = spawn_blocking(move || {
        let result = busy.unmount(false, |progress| heard.send(progress).unwrap());
        (result.unwrap(), busy.wait_closed(Duration::from_secs(30)))
    });
    hears.recv().await.unwrap();
    served.end().await;
    assert_eq!(working.await.unwrap(), (Vec::new(), true));
    assert!(spawn_blocking(move || idle.wait_closed(Duration::from_secs(30))).await.unwrap());
}

#[tokio::test]
async fn a_daemon_that_hangs_up_in_mid_answer_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("1.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
        stream.write_all(b"{\"progress\":{\"files_left\":1,\"bytes_left\":1}}\n{\"done\":").unwrap();
    });
    let answer = spawn_blocking(move || Client::connect(&socket).unwrap().unmount(false, |_| ())).await.unwrap();
    assert!(matches!(answer, Err(ClientError::Lost(_))), "{answer:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn dead_sockets_are_removed_and_live_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let dead = folder.path().join(format!("{}.sock", child.id()));
    let live = folder.path().join("1.sock");
    let other = folder.path().join("notes.sock");
    drop(UnixListener::bind(&dead).unwrap());
    drop(UnixListener::bind(&other).unwrap());
    let listener = UnixListener::bind(&live).unwrap();
    drop(UnixListener::bind(folder.path().join(format!("{}.sock", std::process::id()))).unwrap());

    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let socket = serve(folder.path(), Arc::new(Fake::default()), stop.clone(), &tracker).await.unwrap();
    assert_eq!(sockets_in(folder.path()).len(), 3);
    assert!(!dead.exists() && live.exists() && other.exists() && socket.exists());
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    drop(listener);
}

#[tokio::test]
async fn a_directory_that_others_could_write_is_closed_and_a_file_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    serve(folder.path(), Arc::new(Fake::default()), stop.clone(), &tracker).await.unwrap();
    assert_eq!(mode(folder.path()), 0o700);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let refused = serve(&link, Arc::new(Fake::default()), stop.clone(), &tracker).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

#[test]
fn a_path_outside_of_every_mount_has_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(socket_of(folder.path()).unwrap(), None);
}

#[test]
fn a_mount_point_that_is_not_utf8_does_not_break_the_status() {
    use std::os::unix::ffi::OsStringExt;
    let mountpoint = std::ffi::OsString::from_vec(b"/mnt/\xff".to_vec()).into();
    let status = Status { mountpoint, ..Status::default() };
    let text = serde_json::to_string(&Answer::Status(Box::new(status))).unwrap();
    assert!(text.contains("/mnt/\u{fffd}"));
}
