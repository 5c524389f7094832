//! The system's log, for a daemon without a file of its own: one datagram a line to `/dev/log` (RFC 3164). Where there
//! is none, the lines go nowhere.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

/// Facility daemon, severity notice.
const PRIORITY: u8 = 3 * 8 + 5;

/// A writer of log lines.
pub(super) struct Syslog {
    socket: Option<UnixDatagram>,
}

impl Syslog {
    pub(super) fn new() -> Self {
        let connect = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect("/dev/log")?;
            io::Result::Ok(socket)
        };
        Syslog { socket: connect().ok() }
    }
}

impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(socket) = &self.socket {
            let text = String::from_utf8_lossy(line);
            let message = format!("<{PRIORITY}>dreamfs[{}]: {}", std::process::id(), text.trim_end());
            // A full log is no reason to fail a file operation.
            let _ = socket.send(message.as_bytes());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
