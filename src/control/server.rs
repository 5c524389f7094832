//! The daemon's side of the socket: listens, checks who asks, answers line by line.
//!
//! It refuses to let a connection harm the daemon: lines are bounded, nonsense is answered with an error, and a client
//! that goes away or stops reading changes nothing about the work that it asked for.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Answer, Daemon, Progress, Request, SOCKET_SUFFIX, UnmountError, Unsaved, sockets_in};
use crate::fuse::host;

/// The longest question in bytes; the real ones have some forty.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// How long a client may leave an answer unread; then it counts as gone, so that it cannot hold up the daemon's end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be accepted (out of file descriptors) before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Progress reports on their way; only the newest matter, so few are enough.
const REPORTS_IN_FLIGHT: usize = 4;

/// Listens on `PID.sock` in `directory`, which is made with mode 0700, until `stop`; answers the socket's path.
///
/// Sockets of daemons that have died are removed first, ours when it stops. `tracker` holds the listener and every
/// connection: after `stop`, waiting for it lets the last answers go out and lasts at most some seconds longer than
/// the work that is being done for clients. Fails with `PermissionDenied` if the directory is another user's.
pub async fn serve(
    directory: &Path,
    daemon: Arc<dyn Daemon>,
    stop: CancellationToken,
    tracker: &TaskTracker,
) -> io::Result<PathBuf> {
    prepare_directory(directory)?;
    remove_dead_sockets(directory);
    let socket = directory.join(format!("{}{SOCKET_SUFFIX}", std::process::id()));
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    let path = socket.clone();
    let connections = tracker.clone();
    tracker.spawn(async move {
        accept_until(&listener, daemon, &stop, &connections).await;
        drop(listener);
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("cannot remove the control socket {}: {error}", path.display());
        }
    });
    Ok(socket)
}

/// Makes the folder of the sockets, or refuses one that someone else could put sockets into.
fn prepare_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.uid() != host::effective_uid() {
        let message = format!("{} is not a directory of this user", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Removes the sockets that nobody listens on and whose process is gone. Both are asked: a process that has bound its
/// socket and does not listen yet refuses connections, and a process id may have been given to someone else.
fn remove_dead_sockets(directory: &Path) {
    for socket in sockets_in(directory) {
        let pid = socket.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u32>().ok());
        let gone = pid.is_some_and(|pid| pid == std::process::id() || !host::process_runs(pid));
        if gone && is_refused(&socket) && fs::remove_file(&socket).is_ok() {
            log::debug!("removed the control socket {} of a daemon that had died", socket.display());
        }
    }
}

fn is_refused(socket: &Path) -> bool {
    let connected = std::os::unix::net::UnixStream::connect(socket);
    matches!(connected, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn accept_until(
    listener: &UnixListener,
    daemon: Arc<dyn Daemon>,
    stop: &CancellationToken,
    connections: &TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let daemon = Arc::clone(&daemon);
                let stop = stop.clone();
                connections.spawn(async move { converse(stream, daemon, stop).await });
            }
            Err(error) => {
                log::warn!("the control socket cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one client until it hangs up, sends a line without end, or the daemon stops.
async fn converse(stream: UnixStream, daemon: Arc<dyn Daemon>, stop: CancellationToken) {
    let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == host::effective_uid());
    let (reader, writer) = stream.into_split();
    let mut listener = Listener { writer: Some(writer) };
    if !allowed {
        return listener.tell(&Answer::Error("only the user that mounted it and root may ask".into())).await;
    }
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while listener.writer.is_some() {
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            read = read_line(&mut reader, &mut line) => read,
        };
        match read {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return listener.tell(&Answer::Error(error.to_string())).await,
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => carry_out(request, daemon.as_ref(), &mut listener).await,
            Err(error) => Answer::Error(format!("this is not a request: {error}")),
        };
        listener.tell(&answer).await;
    }
}

async fn carry_out(request: Request, daemon: &dyn Daemon, listener: &mut Listener) -> Answer {
    match request {
        Request::Status => Answer::Status(Box::new(daemon.status())),
        Request::Drain => match drain(daemon, listener).await {
            Ok(()) => Answer::Done { unsaved: Vec::new() },
            Err(unsaved) => Answer::Unsaved(unsaved),
        },
        Request::Link(wanted) => match daemon.link(wanted).await {
            Ok(link) => Answer::Link(link),
            Err(why) => Answer::Error(why),
        },
        Request::Unmount { force } => {
            let unsaved = drain(daemon, listener).await.err().unwrap_or_default();
            if !unsaved.is_empty() && !force {
                return Answer::Unsaved(unsaved);
            }
            match daemon.unmount(force).await {
                Ok(()) => Answer::Done { unsaved },
                Err(UnmountError::Busy(users)) => Answer::Busy(users),
                Err(UnmountError::Unsaved(unsaved)) => Answer::Unsaved(unsaved),
                Err(UnmountError::Failed(reason)) => Answer::Error(reason),
            }
        }
    }
}

/// Drains, and passes the reports on as long as someone listens. Never stops early: reports nobody hears are dropped.
async fn drain(daemon: &dyn Daemon, listener: &mut Listener) -> Result<(), Vec<Unsaved>> {
    let (report, mut reports) = mpsc::channel::<Progress>(REPORTS_IN_FLIGHT);
    let mut work = daemon.drain(report);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            Some(progress) = reports.recv() => listener.tell(&Answer::Progress(progress)).await,
        }
    };
    while let Ok(progress) = reports.try_recv() {
        listener.tell(&Answer::Progress(progress)).await;
    }
    result
}

/// The one who asked, while they listen.
struct Listener {
    /// Taken away at the first answer that did not arrive.
    writer: Option<OwnedWriteHalf>,
}

impl Listener {
    async fn tell(&mut self, answer: &Answer) {
        let Some(writer) = &mut self.writer else { return };
        let mut line = serde_json::to_vec(answer).expect("answers have text keys and lossy paths only");
        line.push(b'\n');
        if !matches!(timeout(ANSWER_TIMEOUT, writer.write_all(&line)).await, Ok(Ok(()))) {
            self.writer = None;
        }
    }
}

/// Reads the next line into `line`; false at the end. A line over the limit is an error.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let length = reader.take(REQUEST_BYTES_MAX).read_until(b'\n', line).await?;
    if length as u64 == REQUEST_BYTES_MAX && !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long for a request"));
    }
    Ok(length > 0)
}
