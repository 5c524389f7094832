//! `dreamfs mount`: checks that need no store, then mounts here (`-f`) or in a process of its own, which reports on its
//! standard output when the mount can be used, or on its standard error why it cannot.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use super::args::Mount;
use super::{complain, log_output, text};
use crate::config::{self, Environment, Typed};
use crate::fuse::host;

/// What the process in the background prints when the mount can be used.
const READY: &str = "ready";

/// Runs `dreamfs mount`.
pub fn run(args: Mount) -> ExitCode {
    let in_background = args.daemon;
    let result = if args.foreground || in_background {
        mount_here(args)
    } else {
        check(&args.places).and_then(|()| {
            let words: Vec<OsString> = config::arguments().into_iter().skip(1).collect();
            start_daemon(&words, &[]).map(drop)
        })
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            if in_background {
                // The line on standard error reaches nobody once the mount was usable.
                log::error!("{why}");
            }
            complain(&why)
        }
    }
}

/// Mounts in this process until the mount is gone.
fn mount_here(args: Mount) -> Result<(), String> {
    check(&args.places)?;
    log_output::start(&args.flags.log, args.daemon)?;
    for option in &args.flags.without_effect {
        log::debug!("-o {option} is accepted and has no effect here");
    }
    let (target, mountpoint) = places(&args.places)?;
    let mount = Typed { target, mountpoint, flags: args.flags }.meant(&Environment::current())?;
    let shown = format!("{} is mounted on {}", mount.target(), mount.mountpoint.display());
    config::leave_current_dir();
    crate::mount::run(mount, || {
        if args.daemon {
            host::leave_session();
            text::print(&format!("{READY}\n"));
        } else {
            text::complain(&shown);
        }
    })
}

/// Starts `dreamfs WORDS`, whose first word is `mount`, in the background with these variables too, and waits until the
/// mount can be used. The error is the daemon's own line.
pub(super) fn start_daemon(words: &[OsString], variables: &[(&str, &str)]) -> Result<Child, String> {
    let (command, rest) = words.split_first().ok_or("dreamfs mount cannot find its own command line. Use -f")?;
    let spawned = config::current_program().and_then(|program| {
        Command::new(program)
            .arg(command)
            .arg("--daemon")
            .args(rest)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    });
    let mut child = spawned.map_err(|error| format!("the background process cannot be started: {error}. Use -f"))?;
    let mut answer = String::new();
    if let Some(stdout) = child.stdout.take() {
        // A broken pipe is the end of the daemon, and its own words follow below.
        let _ = BufReader::new(stdout).read_line(&mut answer);
    }
    if answer.trim() == READY {
        // From here on it speaks to the log alone: a pipe that nobody reads would fill and hold it up.
        drop(child.stderr.take());
        return Ok(child);
    }
    let mut words = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut words);
    }
    let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    match words.trim().rsplit('\n').next().map(|line| line.trim_start_matches("dreamfs: ")) {
        Some(line) if !line.is_empty() => Err(line.to_owned()),
        _ => Err(format!("the background process ended with {ended}. Try again with -f to see more")),
    }
}

/// `[BUCKET] MOUNTPOINT`.
fn places(places: &[OsString]) -> Result<(Option<String>, PathBuf), String> {
    match places {
        [mountpoint] => Ok((None, mountpoint.into())),
        [target, mountpoint] => match target.to_str() {
            Some(target) => Ok((Some(target.to_owned()), mountpoint.into())),
            None => Err(format!("{} is not UTF-8, and buckets' names are. Check the name", target.display())),
        },
        _ => Err("a mount has at most a bucket and a mountpoint. Run: dreamfs mount --help".to_owned()),
    }
}

/// What can be known to fail before the store is asked.
fn check(words: &[OsString]) -> Result<(), String> {
    let (_, mountpoint) = places(words)?;
    check_mountpoint(&mountpoint)?;
    check_fuse()?;
    if !host::is_root() && !Environment::current().has_program("fusermount3") {
        return Err("fusermount3 is not installed, and only root mounts without it. Run: apt install fuse3".to_owned());
    }
    Ok(())
}

fn check_mountpoint(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let absolute =
        config::absolute(path).map_err(|error| format!("{shown} cannot be found: {error}. Check the path"))?;
    if let Err(error) = clear_dead(&absolute) {
        return Err(format!("{shown} has a dead mount that cannot be cleared: {error}. Run: umount -l {shown}"));
    }
    match absolute.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(format!("{shown} is not a directory. Choose a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let swapped = looks_like_bucket(path);
            let hint = if swapped { " (the bucket goes before the mountpoint)" } else { "" };
            return Err(format!("{shown} does not exist. Run: mkdir -p {shown}{hint}"));
        }
        Err(error) => return Err(format!("{shown} cannot be entered: {}. Check the path", text::reason(&error))),
    }
    match host::mounted_at(&absolute) {
        // The subtype is missing where root mounts, so any file system in user space counts.
        Some(there) if there.fs_type.starts_with("fuse") => {
            Err(format!("{shown} has {} mounted already. Run: dreamfs umount {shown}", there.source.display()))
        }
        _ => Ok(()),
    }
}

/// Takes away a mount whose daemon has died. The kernel may still answer `stat` from its cache, so the folder is read.
fn clear_dead(path: &Path) -> io::Result<()> {
    let is_fuse = host::mounted_at(path).is_some_and(|there| there.fs_type.starts_with("fuse"));
    if !is_fuse {
        return Ok(());
    }
    match path.read_dir().and_then(|mut entries| entries.next().transpose()) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => host::unmount(path, true),
        _ => Ok(()),
    }
}

/// Whether someone may have typed a bucket where the mountpoint goes.
fn looks_like_bucket(path: &Path) -> bool {
    !path.is_absolute() && !path.starts_with(".")
}

fn check_fuse() -> Result<(), String> {
    match host::fuse_device() {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("there is no /dev/fuse. Run: modprobe fuse (in a container: give it --device /dev/fuse)".to_owned())
        }
        Err(error) => {
            let reason = text::reason(&error);
            Err(format!(
                "/dev/fuse cannot be opened: {reason}. Ask the administrator (in a container: --device /dev/fuse)"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountpoints_are_checked_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        assert!(check_mountpoint(&gone).unwrap_err().ends_with(&format!("Run: mkdir -p {}", gone.display())));
        let file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        assert!(check_mountpoint(file.path()).unwrap_err().contains("not a directory"));
        assert_eq!(check_mountpoint(folder.path()), Ok(()));
        assert!(check_mountpoint(Path::new("photos-no-such")).unwrap_err().contains("before the mountpoint"));
    }

    #[test]
    fn one_place_is_the_mountpoint_and_two_have_the_bucket_first() {
        let words = |words: &[&str]| places(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(words(&["/mnt"]), Ok((None, "/mnt".into())));
        assert_eq!(words(&["b/p", "/mnt"]), Ok((Some("b/p".to_owned()), "/mnt".into())));
        assert!(words(&[]).is_err());
    }
}
