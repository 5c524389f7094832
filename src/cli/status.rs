//! `dreamfs status`: what running mounts know of themselves, as a table or as JSON.
//!
//! It refuses to look into mounts: daemons answer from memory over their sockets, also while the store is down.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::{BinaryBytes, HumanCount, HumanDuration};

use super::args;
use super::text::{self, complain};
use crate::clock::Clock;
use crate::control::{self, Client, Reading, Status};

/// How often `--watch` asks again.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Clears a terminal and goes to its upper left corner (ECMA-48: ED, CUP).
const CLEAR_SCREEN: &str = "\x1b[2J\x1b[H";

/// Runs the command; with `--watch` until it is interrupted, nobody reads any more, or the mount is gone.
pub fn run(args: args::Status) -> ExitCode {
    let clock = Clock::system();
    loop {
        let (statuses, failed) = match &args.mountpoint {
            Some(path) => match status_of(path) {
                Ok(status) => (vec![status], false),
                Err(line) => {
                    complain(&line);
                    return ExitCode::FAILURE;
                }
            },
            None => all_in(&crate::config::control_dir()),
        };
        let clear = if args.watch && !args.json && io::stdout().is_terminal() { CLEAR_SCREEN } else { "" };
        let shown = if args.json {
            json(&statuses, args.mountpoint.is_some(), args.watch)
        } else {
            table(&statuses, clock.now())
        };
        if !text::print(&format!("{clear}{shown}")) || !args.watch {
            return text::exit(failed);
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// Asks the daemon of one mount, or says why it cannot be asked.
fn status_of(path: &Path) -> Result<Status, String> {
    let shown = path.display();
    let socket = control::socket_of(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotConnected => format!("the daemon of {shown} has died. `dreamfs umount` clears the mount."),
        _ => format!("{shown}: {}. `dreamfs status` without a path lists the mounts.", text::reason(&error)),
    })?;
    let Some(socket) = socket else {
        return Err(format!("{shown} is not in a dreamfs mount. `dreamfs status` without a path lists the mounts."));
    };
    let mut client = Client::connect(&socket).map_err(|error| {
        format!("{shown}: {}. Run the command as the user that mounted it, or as root.", text::reason(&error))
    })?;
    client.status().map_err(|error| format!("{shown}: {error}. Try again, or look at the daemon's log."))
}

/// Asks every daemon in the folder; whether one that listens failed to answer. Sockets left by the dead are no mounts.
fn all_in(directory: &Path) -> (Vec<Status>, bool) {
    let mut statuses = Vec::new();
    let mut failed = false;
    for socket in control::sockets_in(directory) {
        let Ok(mut client) = Client::connect(&socket) else { continue };
        match client.status() {
            Ok(status) => statuses.push(status),
            Err(error) => {
                complain(&format!("{}: {error}. Look at the daemon's log.", socket.display()));
                failed = true;
            }
        }
    }
    (statuses, failed)
}

/// An object for a mount that was named, else a list; on one line when more will follow.
fn json(statuses: &[Status], single: bool, watch: bool) -> String {
    let text = match statuses {
        [status] if single && watch => serde_json::to_string(status),
        [status] if single => serde_json::to_string_pretty(status),
        _ if watch => serde_json::to_string(statuses),
        _ => serde_json::to_string_pretty(statuses),
    };
    text.expect("a status has text keys and lossy paths only") + "\n"
}

fn table(statuses: &[Status], now: SystemTime) -> String {
    if statuses.is_empty() {
        return "No dreamfs mount of this user is running.\n".into();
    }
    let tables: Vec<String> = statuses.iter().map(|status| text::aligned(&rows(status, now))).collect();
    tables.join("\n")
}

fn rows(status: &Status, now: SystemTime) -> Vec<(String, String)> {
    let since = UNIX_EPOCH + Duration::from_secs(status.since);
    let uptime = HumanDuration(now.duration_since(since).unwrap_or_default());
    let mut rows = vec![
        ("mount", status.mountpoint.display().to_string()),
        ("of", format!("{} at {}", status.target, status.endpoint)),
        ("store", status.store.clone()),
        ("running", format!("for {uptime}, process {}, version {}", status.pid, status.version)),
        ("requests", requests_text(status)),
        ("sent", BinaryBytes(status.bytes_up).to_string()),
        ("received", BinaryBytes(status.bytes_down).to_string()),
        ("read", reading_text(&status.reading)),
        ("ACL writes", HumanCount(status.puts_with_acl).to_string()),
        ("open files", HumanCount(status.open_files).to_string()),
        ("names", HumanCount(status.names).to_string()),
        ("memory", format!("{} of {}", BinaryBytes(status.memory_bytes), BinaryBytes(status.memory_bytes_max))),
    ];
    if status.hidden_keys > 0 {
        let keys = HumanCount(status.hidden_keys);
        rows.push(("hidden keys", format!("{keys} that no path can name: `dreamfs doctor` lists them")));
    }
    rows.push(("not stored", unsaved_text(status)));
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn reading_text(reading: &Reading) -> String {
    let [asked, fetched, wasted] = [reading.asked_bytes, reading.fetched_bytes, reading.wasted_bytes].map(BinaryBytes);
    let pace = BinaryBytes(reading.bytes_per_second);
    let delay = Duration::from_micros(reading.delay_us);
    let hedges = if reading.hedges == 0 { String::new() } else { format!(", {} stalled", HumanCount(reading.hedges)) };
    format!("{asked} of {fetched} fetched, {wasted} in vain; a GET waits {delay:.1?}, then {pace}/s{hedges}")
}

fn requests_text(status: &Status) -> String {
    let total = HumanCount(status.requests.values().sum());
    let each: Vec<String> =
        status.requests.iter().map(|(name, count)| format!("{name} {}", HumanCount(*count))).collect();
    let each = if each.is_empty() { String::new() } else { format!(" ({})", each.join(", ")) };
    format!("{total}{each}, {} failed", HumanCount(status.errors))
}

/// A sum, then a line for each file.
fn unsaved_text(status: &Status) -> String {
    if status.unsaved.is_empty() {
        return "nothing".into();
    }
    let bytes = BinaryBytes(status.unsaved.iter().map(|file| file.bytes).sum());
    let mut lines = vec![format!("{} files, {bytes}", HumanCount(status.unsaved.len() as u64))];
    for file in &status.unsaved {
        let path = text::printable(&file.path.to_string_lossy());
        let bytes = BinaryBytes(file.bytes);
        let state = text::printable(&file.state);
        lines.push(format!("{path}  {bytes}  {state}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Unsaved;

    fn status() -> Status {
        Status {
            version: "0.1.0".into(),
            mountpoint: "/mnt".into(),
            target: "photos/2024".into(),
            endpoint: "https://s3.example".into(),
            pid: 42,
            since: 1_000,
            store: "Ceph RGW".into(),
            requests: [("GET".to_owned(), 12_000), ("LIST".to_owned(), 3)].into(),
            bytes_up: 3 << 20,
            memory_bytes_max: 256 << 20,
            unsaved: vec![Unsaved { path: "/mnt/a\nb".into(), state: "pending".into(), bytes: 1536, staged: None }],
            ..Status::default()
        }
    }

    #[test]
    fn the_table_is_readable() {
        let shown = table(&[status()], UNIX_EPOCH + Duration::from_secs(1_000 + 3 * 3600));
        let expected = "\
mount       /mnt
of          photos/2024 at https://s3.example
store       Ceph RGW
running     for 3 hours, process 42, version 0.1.0
requests    12,003 (GET 12,000, LIST 3), 0 failed
sent        3.00 MiB
received    0 B
read        0 B of 0 B fetched, 0 B in vain; a GET waits 0.0ns, then 0 B/s
ACL writes  0
open files  0
names       0
memory      0 B of 256.00 MiB
not stored  1 files, 1.50 KiB
            /mnt/a\\nb  1.50 KiB  pending
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn hidden_keys_and_a_clock_that_went_back_are_shown() {
        let shown = table(&[Status { hidden_keys: 2, unsaved: Vec::new(), ..status() }], UNIX_EPOCH);
        assert!(shown.contains("for 0 seconds"), "{shown}");
        assert!(shown.contains("hidden keys  2 that"), "{shown}");
        assert!(shown.contains("not stored   nothing"), "{shown}");
        assert!(table(&[], UNIX_EPOCH).contains("No dreamfs mount"));
    }

    #[test]
    fn json_is_an_object_for_one_mount_and_a_list_for_all() {
        let one: Status = serde_json::from_str(&json(&[status()], true, true)).unwrap();
        assert_eq!(one, status());
        let all: Vec<Status> = serde_json::from_str(&json(&[status()], false, false)).unwrap();
        assert_eq!(all, [status()]);
        assert_eq!(json(&[], false, true), "[]\n");
        assert_eq!(json(&[status(), status()], false, true).lines().count(), 1);
    }

    #[test]
    fn sockets_of_the_dead_are_no_mounts() {
        let folder = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("1.sock")).unwrap());
        assert_eq!(all_in(folder.path()), (Vec::new(), false));
    }
}
