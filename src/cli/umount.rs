//! `dreamfs umount`: has the daemon store everything, shows how far it is, unmounts, and waits until the daemon is gone.
//!
//! It refuses to say "done" (exit status 0) before everything is stored, and to touch mounts that are not dreamfs's.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

use super::args;
use super::text::{self, complain};
use crate::control::{self, Client, ClientError, Progress, Unsaved};
use crate::fuse::host::{self, User};

/// How long the daemon may take to end after it has unmounted: it closes connections and local files, nothing more.
const DAEMON_END_TIMEOUT: Duration = Duration::from_secs(30);

/// How often to look whether the process has gone: no event tells a stranger.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How often a line of progress is printed where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How many users of a busy mount are named; more do not fit on a line that someone reads.
const USERS_NAMED_MAX: usize = 8;

/// Runs the command.
pub fn run(args: args::Umount) -> ExitCode {
    match unmount(&args.mountpoint, args.force) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            complain(&line);
            ExitCode::FAILURE
        }
    }
}

fn unmount(typed: &Path, force: bool) -> Result<(), String> {
    let path = resolve(typed);
    let shown = typed.display();
    if host::is_stale(&path) {
        return clear(&path);
    }
    let socket = control::socket_of(&path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{shown} does not let this user in. Run the command as the user that mounted it.")
        }
        _ => format!("{shown}: {}. `dreamfs status` lists the mounts.", text::reason(&error)),
    })?;
    let Some(socket) = socket else {
        return Err(format!("{shown} is not a dreamfs mount. `dreamfs status` lists the mounts."));
    };
    let mut client = Client::connect(&socket).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{shown} is another user's mount. Run the command as the user that mounted it, or as root.")
        }
        _ => format!(
            "the daemon of {shown} does not listen on {}: {}. `fusermount3 -u` unmounts, and the daemon drains then.",
            socket.display(),
            text::reason(&error)
        ),
    })?;
    let status = client.status().map_err(|error| failure(typed, error))?;
    let mountpoint = if host::mounted_at(&path).is_some() { path } else { status.mountpoint };
    let mount_id = host::mounted_at(&mountpoint).map(|mount| mount.mount_id);
    let mut display = Display::new();
    let result = client.unmount(force, |progress| display.show(&progress));
    display.clear();
    let unsaved = result.map_err(|error| failure(&mountpoint, error))?;
    wait_gone(&mut client, &mountpoint, mount_id, status.pid)?;
    if unsaved.is_empty() {
        return Ok(());
    }
    Err(format!("{} is unmounted, but {}", mountpoint.display(), unsaved_text(&unsaved)))
}

/// Takes a mount away whose daemon has died.
fn clear(path: &Path) -> Result<(), String> {
    let found = path.ancestors().find_map(|path| host::mounted_at(path).map(|mount| (path, mount)));
    let Some((mountpoint, mount)) = found else {
        return Err(format!("{} is not connected and not in the mount table. Try umount(8).", path.display()));
    };
    let shown = mountpoint.display();
    if !host::is_dreamfs(&mount) {
        return Err(format!("{shown} is a dead mount of {}, not of dreamfs. Try `fusermount3 -uz`.", mount.fs_type));
    }
    host::clear_stale(mountpoint).map_err(|error| {
        format!("{shown} is dead and cannot be cleared: {}. Run the command as root.", text::reason(&error))
    })?;
    complain(&format!(
        "the daemon of {shown} had died; the mount is cleared. What it had not stored is in the state folder: \
         `dreamfs recover list` shows it."
    ));
    Ok(())
}

/// Waits until the daemon has hung up, the mount is out of the kernel's table and the process is gone.
fn wait_gone(client: &mut Client, mountpoint: &Path, mount_id: Option<u64>, pid: u32) -> Result<(), String> {
    let start = Instant::now();
    let mut closed = client.wait_closed(DAEMON_END_TIMEOUT);
    loop {
        let mounted = mount_id.is_some() && host::mounted_at(mountpoint).map(|mount| mount.mount_id) == mount_id;
        let runs = host::process_runs(pid);
        closed |= !runs;
        if closed && !mounted && !runs {
            return Ok(());
        }
        if start.elapsed() >= DAEMON_END_TIMEOUT {
            let shown = mountpoint.display();
            if mounted {
                return Err(format!("{shown} is still mounted although the daemon let go. Try --force."));
            }
            complain(&format!("{shown} is unmounted, but its daemon still runs. Look at the log of process {pid}."));
            return Ok(());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The line for a mount that stays.
fn failure(mountpoint: &Path, error: ClientError) -> String {
    let shown = mountpoint.display();
    match error {
        ClientError::Busy(users) => format!(
            "{shown} is in use by {}. Close what uses it and try again, or detach it with --force.",
            users_text(&users)
        ),
        ClientError::Unsaved(unsaved) => format!("{shown} stays mounted: {}", unsaved_text(&unsaved)),
        ClientError::Refused(reason) => format!("{shown} cannot be unmounted: {reason}."),
        ClientError::Lost(error) => format!(
            "the daemon of {shown} broke off ({}), so it is not sure that all is stored. See `dreamfs recover list`.",
            text::reason(&error)
        ),
    }
}

fn users_text(users: &[User]) -> String {
    if users.is_empty() {
        return "a process that this user may not see, or by another mount inside it".into();
    }
    let named = users.iter().take(USERS_NAMED_MAX);
    let mut names: Vec<String> =
        named.map(|user| format!("{} (pid {}, {})", user.command, user.pid, user.what.display())).collect();
    if users.len() > USERS_NAMED_MAX {
        names.push(format!("{} more", users.len() - USERS_NAMED_MAX));
    }
    names.join(", ")
}

fn unsaved_text(unsaved: &[Unsaved]) -> String {
    let each = |file: &Unsaved| match &file.staged {
        Some(staged) => format!("{} ({}, kept in {})", file.path.display(), file.state, staged.display()),
        None => format!("{} ({})", file.path.display(), file.state),
    };
    let files: Vec<String> = unsaved.iter().map(each).collect();
    format!("not stored are {}. `dreamfs recover list` shows what is kept.", files.join(", "))
}

/// The path without links, as far as it can be looked at: a dead mount answers nothing, not even for itself.
fn resolve(typed: &Path) -> PathBuf {
    let Ok(path) = std::path::absolute(typed) else { return typed.to_owned() };
    for ancestor in path.ancestors() {
        if let (Ok(found), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return found.components().chain(rest.components()).collect();
        }
    }
    path
}

/// Shows how far the drain is: a bar on a terminal, else a line now and then.
struct Display {
    bar: Option<ProgressBar>,
    bytes_total: u64,
    last_line: Option<Instant>,
}

impl Display {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("storing {bar:30} {binary_bytes} of {binary_total_bytes}  {msg}")
                .expect("the template is a constant that a test draws");
            ProgressBar::new(0).with_style(style)
        });
        Display { bar, bytes_total: 0, last_line: None }
    }

    fn show(&mut self, progress: &Progress) {
        // What is left may grow: files are still being closed while others are stored.
        let bytes_done = self.bytes_total.saturating_sub(progress.bytes_left);
        self.bytes_total = self.bytes_total.max(progress.bytes_left);
        match &self.bar {
            Some(bar) => {
                bar.set_length(self.bytes_total);
                bar.set_position(bytes_done);
                bar.set_message(text::printable(&left_text(progress)));
            }
            None if self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) => {
                complain(&format!("storing {}, {}", BinaryBytes(progress.bytes_left), left_text(progress)));
                self.last_line = Some(Instant::now());
            }
            None => {}
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn left_text(progress: &Progress) -> String {
    let files = match progress.files_left {
        1 => "1 file left".to_owned(),
        files => format!("{files} files left"),
    };
    match &progress.message {
        Some(message) => format!("{files} ({message})"),
        None => files,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(pid: u32) -> User {
        User { pid, command: "vim".into(), what: "/mnt/a".into() }
    }

    #[test]
    fn a_busy_mount_is_one_line_that_names_who_uses_it() {
        let line = failure(Path::new("/mnt"), ClientError::Busy(vec![user(1), user(2)]));
        assert!(line.starts_with("/mnt is in use by vim (pid 1, /mnt/a), vim (pid 2, /mnt/a). "), "{line}");
        let many: Vec<User> = (0..20).map(user).collect();
        assert!(users_text(&many).ends_with(", 12 more"));
        assert!(users_text(&[]).contains("another mount"));
    }

    #[test]
    fn unsaved_files_are_named_with_where_they_are_kept() {
        let mut file =
            Unsaved { path: "/mnt/a".into(), state: "failed quota".into(), bytes: 7, staged: Some("/var/x".into()) };
        assert!(unsaved_text(&[file.clone()]).contains("/mnt/a (failed quota, kept in /var/x)"));
        file.staged = None;
        assert!(unsaved_text(&[file]).contains("/mnt/a (failed quota). "));
    }

    #[test]
    fn links_are_followed_and_what_is_missing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link")), real);
        assert_eq!(resolve(&real.join("link/no/such")), real.join("no/such"));
    }

    #[test]
    fn a_folder_that_is_no_mount_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(unmount(folder.path(), false).unwrap_err().contains("is not a dreamfs mount"));
        assert!(unmount(&folder.path().join("missing"), true).unwrap_err().contains("No such file"));
    }

    #[test]
    fn the_bar_can_be_drawn_while_the_work_grows() {
        let mut display = Display::new();
        for bytes_left in [10, 30, 0] {
            display.show(&Progress { files_left: 1, bytes_left, message: Some("store is slow".into()) });
        }
        assert_eq!(display.bytes_total, 30);
        display.clear();
        assert!(ProgressStyle::with_template("{bar:30} {binary_bytes} of {binary_total_bytes}").is_ok());
        assert_eq!(left_text(&Progress { files_left: 1, bytes_left: 0, message: None }), "1 file left");
    }
}
