//! The side of the commands: finds the daemon of a path and asks it, blocking.
//!
//! It refuses to guess: an answer that breaks off is an error, never "all is well".

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Link, Progress, Request, SOCKET_ATTRIBUTE, SOCKET_SUFFIX, Status, Unsaved};
use crate::error::Meaning;
use crate::fuse::host::User;

/// How long a daemon may take for its status, which it has in memory.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer in bytes, so that a foreign socket cannot fill the memory; a status with 100,000 unsaved files
/// is some 20 MB.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The socket of the daemon that serves `path`, a mount point or anything inside a mount; links are followed. `None`
/// if no dreamfs serves it.
pub fn socket_of(path: &Path) -> io::Result<Option<PathBuf>> {
    match xattr::get_deref(path, SOCKET_ATTRIBUTE) {
        Ok(socket) => Ok(socket.map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes)))),
        Err(error) if error.raw_os_error() == Some(Meaning::Unsupported.errno()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The socket files in a control directory, sorted; dead ones too. None if the directory cannot be read.
pub fn sockets_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut sockets: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    sockets.retain(|path| path.to_str().is_some_and(|path| path.ends_with(SOCKET_SUFFIX)));
    sockets.sort();
    sockets
}

/// A connection to a daemon.
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// What a daemon answered instead of "done".
#[derive(Debug)]
pub enum ClientError {
    /// The mount is in use by these processes (unnamed where the daemon may not see them), and stays as it is.
    Busy(Vec<User>),
    /// These files could not be stored, and the mount stays.
    Unsaved(Vec<Unsaved>),
    /// The daemon could not, for this reason.
    Refused(String),
    /// The connection failed or broke off, so what came of the request is unknown.
    Lost(io::Error),
}

impl Client {
    /// Connects to the daemon that listens on `socket`. `NotFound` and `ConnectionRefused` mean that none does.
    pub fn connect(socket: &Path) -> io::Result<Client> {
        Ok(Client { stream: BufReader::new(UnixStream::connect(socket)?) })
    }

    /// Asks what the daemon knows of itself; `Lost` if it does not answer within ten seconds.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        self.stream.get_ref().set_read_timeout(Some(STATUS_TIMEOUT))?;
        self.ask(&Request::Status)?;
        match self.answer()? {
            Answer::Status(status) => Ok(*status),
            other => Err(unexpected(other)),
        }
    }

    /// Asks for a signed link.
    pub fn link(&mut self, wanted: Link) -> Result<String, ClientError> {
        match self.work(&Request::Link(wanted), |_| ())? {
            Answer::Link(link) => Ok(link),
            other => Err(unexpected(other)),
        }
    }

    /// Waits until what was closed is stored, however long that takes, and hears of it in `progress`.
    pub fn drain(&mut self, progress: impl FnMut(Progress)) -> Result<(), ClientError> {
        match self.work(&Request::Drain, progress)? {
            Answer::Done { .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Drains, then unmounts, with `force` even while it is in use or not all could be stored. Answers what was not
    /// stored, which without `force` is nothing. The daemon goes on with both if this client goes away.
    pub fn unmount(&mut self, force: bool, progress: impl FnMut(Progress)) -> Result<Vec<Unsaved>, ClientError> {
        match self.work(&Request::Unmount { force }, progress)? {
            Answer::Done { unsaved } => Ok(unsaved),
            other => Err(unexpected(other)),
        }
    }

    /// Waits until the daemon hangs up, which it does when it stops, at most for `limit`; whether it did.
    pub fn wait_closed(&mut self, limit: Duration) -> bool {
        if self.stream.get_ref().set_read_timeout(Some(limit)).is_err() {
            return false;
        }
        match self.stream.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    fn work(&mut self, request: &Request, mut progress: impl FnMut(Progress)) -> Result<Answer, ClientError> {
        self.stream.get_ref().set_read_timeout(None)?;
        self.ask(request)?;
        loop {
            match self.answer()? {
                Answer::Progress(report) => progress(report),
                last => return Ok(last),
            }
        }
    }

    fn ask(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        Ok(self.stream.get_mut().write_all(&line)?)
    }

    fn answer(&mut self) -> Result<Answer, ClientError> {
        let mut line = Vec::new();
        (&mut self.stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon hung up").into());
        }
        Ok(serde_json::from_slice(&line).map_err(io::Error::from)?)
    }
}

fn unexpected(answer: Answer) -> ClientError {
    match answer {
        Answer::Busy(users) => ClientError::Busy(users),
        Answer::Unsaved(unsaved) => ClientError::Unsaved(unsaved),
        Answer::Error(reason) => ClientError::Refused(reason),
        Answer::Status(_) | Answer::Progress(_) | Answer::Done { .. } | Answer::Link(_) => {
            io::Error::new(io::ErrorKind::InvalidData, "the daemon answered another question").into()
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        ClientError::Lost(error)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Busy(_) => f.write_str("it is in use"),
            ClientError::Unsaved(unsaved) => write!(f, "{} files are not stored", unsaved.len()),
            ClientError::Refused(reason) => f.write_str(reason),
            ClientError::Lost(error) => write!(f, "no answer from the daemon: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}
