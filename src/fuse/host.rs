//! What the machine knows: which mounts there are, who uses them, which processes live.
//!
//! The only file that reads `/proc`. It refuses to ask a mount about itself: whoever uses a mount is found from the
//! text of links in `/proc`, because a `stat` inside would wait for the very daemon that asks.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize, Serializer};

/// What the source of every mount of ours begins with.
pub const SOURCE_PREFIX: &str = "dreamfs#";

/// The helper that unmounts for those who are not root.
const FUSERMOUNT: &str = "fusermount3";

/// A mount as the kernel lists it (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// What is mounted, as the mounter named it.
    pub source: OsString,
    /// The file system type with its subtype, such as `fuse.dreamfs`.
    pub fs_type: String,
    /// Unique among the mounts that exist at one time.
    pub mount_id: u64,
    /// Major and minor number, which `st_dev` of every file in it has.
    pub device: (u32, u32),
}

/// A process that uses a mount, and what it uses of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The process.
    pub pid: u32,
    /// Its short name.
    pub command: String,
    /// The open file, working directory, root or program inside the mount. Text that is not UTF-8 travels lossily.
    #[serde(serialize_with = "serialize_path")]
    pub what: PathBuf,
}

/// Writes a path as text; bytes that are not UTF-8 become U+FFFD, because JSON has no other spelling and a report with
/// one odd letter is better than none.
pub fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// What is mounted at exactly this absolute path without links; of several mounts on top of each other the upper.
pub fn mounted_at(path: &Path) -> Option<MountInfo> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    find_mount(&table, path)
}

/// Whether a mount is one of ours. The type alone does not tell: it is plain `fuse` where root mounts.
pub fn is_dreamfs(mount: &MountInfo) -> bool {
    mount.fs_type.starts_with("fuse") && mount.source.as_encoded_bytes().starts_with(SOURCE_PREFIX.as_bytes())
}

/// Memory that could be used without pushing out what is in use (`MemAvailable` of proc_meminfo(5)), in bytes; 0 if it
/// cannot be told.
pub fn available_memory_bytes() -> u64 {
    let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// This machine's name, of characters that a key can bear anywhere.
pub fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect()
}

/// Lets the kernel read further ahead in the mount at `path` than the 128 KiB of a bdi's default, so that several
/// requests are on their way at once (Documentation/ABI/testing/sysfs-class-bdi). Only root may.
pub fn set_read_ahead(path: &Path, kibibytes: u32) -> io::Result<()> {
    let mount = mounted_at(path).ok_or(io::ErrorKind::NotFound)?;
    let (major, minor) = mount.device;
    fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kibibytes.to_string())
}

/// Whether the daemon of the mount at `path` has died: the kernel answers "not connected".
pub fn is_stale(path: &Path) -> bool {
    matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotConnected)
}

/// Detaches the mount at `path` if its daemon has died; answers whether it had.
pub fn clear_stale(path: &Path) -> io::Result<bool> {
    if !is_stale(path) {
        return Ok(false);
    }
    unmount(path, true)?;
    Ok(true)
}

/// Unmounts what is mounted at `path`, which must be absolute; with `detach` even while it is in use: it disappears
/// at once and lives on for those who have files open.
///
/// A mount that is in use is [`io::ErrorKind::ResourceBusy`] and a path where nothing is mounted `InvalidInput`,
/// whether root or fusermount3 asked. Waits for the kernel,
/// so never call it on a thread that answers the same mount.
pub fn unmount(path: &Path, detach: bool) -> io::Result<()> {
    if !is_root() {
        return unmount_by_helper(path, detach);
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = if detach { libc::MNT_DETACH } else { 0 };
    // SAFETY: `path` is a C string that outlives the call, and umount2 touches no memory of ours.
    if unsafe { libc::umount2(path.as_ptr(), flags | libc::UMOUNT_NOFOLLOW) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// The processes that keep the mount at `path` (absolute, without links) busy, as far as the caller may see them:
/// everyone's for root, their own for others. One entry for each process and thing used, in the order of process ids.
/// Reads some files per process: too slow for a thread that serves requests.
pub fn processes_using(path: &Path) -> Vec<User> {
    let mut users = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else { return users };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let used = used_by(&entry.path(), path);
        if used.is_empty() {
            continue;
        }
        let command = fs::read(entry.path().join("comm")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).trim_end().to_owned();
        users.extend(used.into_iter().map(|what| User { pid, command: command.clone(), what }));
    }
    users.sort_by_key(|user| user.pid);
    users
}

/// Whether a process runs: it exists and is not merely waiting for its parent to collect its exit status.
pub fn process_runs(pid: u32) -> bool {
    // The state is the first field after the command, which is in parentheses and may hold any character.
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return false };
    let end = stat.iter().rposition(|byte| *byte == b')').unwrap_or(0);
    !matches!(stat.get(end + 2), Some(b'Z' | b'X') | None)
}

/// The user that this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether the FUSE device is there and may be opened.
pub fn fuse_device() -> io::Result<()> {
    fs::File::options().read(true).write(true).open("/dev/fuse").map(drop)
}

/// The group that this process acts as.
pub fn effective_gid() -> u32 {
    // SAFETY: getegid takes nothing, touches no memory and cannot fail.
    unsafe { libc::getegid() }
}

/// Leaves the terminal's session, so that closing the terminal does not end the daemon.
pub fn leave_session() {
    // SAFETY: setsid takes nothing and touches no memory; it fails only for a group's leader, which is as good.
    unsafe { libc::setsid() };
}

/// Whether this process acts as root.
pub fn is_root() -> bool {
    effective_uid() == 0
}

/// Everything inside `mount` that the process with this folder in `/proc` uses, each thing once.
fn used_by(process: &Path, mount: &Path) -> Vec<PathBuf> {
    let mut used = Vec::new();
    let mut note = |path: PathBuf| {
        if path.starts_with(mount) && !used.contains(&path) {
            used.push(path);
        }
    };
    for link in ["cwd", "root", "exe"] {
        fs::read_link(process.join(link)).into_iter().for_each(&mut note);
    }
    if let Ok(descriptors) = fs::read_dir(process.join("fd")) {
        for descriptor in descriptors.flatten() {
            fs::read_link(descriptor.path()).into_iter().for_each(&mut note);
        }
    }
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    mapped_files(&maps).for_each(&mut note);
    used
}

/// The files in a `maps` table (proc_pid_maps(5)): what follows the first slash of a line.
fn mapped_files(maps: &[u8]) -> impl Iterator<Item = PathBuf> {
    maps.split(|byte| *byte == b'\n').filter_map(|line| {
        let start = line.iter().position(|byte| *byte == b'/')?;
        Some(PathBuf::from(OsString::from_vec(line[start..].to_vec())))
    })
}

/// Lets fusermount3 unmount, and turns its words back into an error kind.
fn unmount_by_helper(path: &Path, detach: bool) -> io::Result<()> {
    let flags = if detach { "-uz" } else { "-u" };
    let output = Command::new(FUSERMOUNT)
        .args([OsStr::new(flags), OsStr::new("--"), path.as_os_str()])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run {FUSERMOUNT}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::new(helper_error_kind(&message), message))
}

/// What fusermount3 meant: it prints the C library's text for the error of umount2.
fn helper_error_kind(message: &str) -> io::ErrorKind {
    if message.contains("resource busy") {
        io::ErrorKind::ResourceBusy
    } else if message.contains("not found in") {
        io::ErrorKind::InvalidInput
    } else {
        io::ErrorKind::Other
    }
}

/// The last line of a mountinfo table whose mount point is `path`. Lines that do not parse are passed over.
fn find_mount(table: &[u8], path: &Path) -> Option<MountInfo> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(parse_mount).rfind(|(point, _)| point == path).map(|(_, info)| info)
}

/// One line of mountinfo: `ID PARENT MAJ:MIN ROOT POINT OPTIONS [FIELDS…] - TYPE SOURCE OPTIONS`.
fn parse_mount(line: &[u8]) -> Option<(PathBuf, MountInfo)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mount_id = parse_number(fields.next()?)?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let point = PathBuf::from(unescape(fields.nth(1)?));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(unescape(fields.next()?).as_bytes()).into_owned();
    let source = unescape(fields.next()?);
    Some((point, MountInfo { source, fs_type, mount_id, device }))
}

fn parse_number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Decodes `\040` and its kind: blank, tab, newline, backslash and `#` are three octal digits in mountinfo.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        90 22 0:44 / /mnt/my\\040bucket rw,nosuid master:3 shared:9 - fuse.sshfs host: rw,user_id=0\n\
        torn line\n\
        91 90 0:45 / /mnt/my\\040bucket rw - fuse.dreamfs bucket\\134x rw\n\
        92 22 0:46 / /mnt/my\\040bucket2 rw - tmpfs none rw\n";

    #[test]
    fn the_last_mount_at_a_path_wins_and_escapes_are_decoded() {
        let info = find_mount(TABLE, Path::new("/mnt/my bucket")).unwrap();
        let expected =
            MountInfo { source: "bucket\\x".into(), fs_type: "fuse.dreamfs".into(), mount_id: 91, device: (0, 45) };
        assert_eq!(info, expected);
    }

    #[test]
    fn a_path_inside_a_mount_or_beside_it_is_no_mount() {
        assert_eq!(find_mount(TABLE, Path::new("/mnt/my bucket/a")), None);
        assert_eq!(find_mount(TABLE, Path::new("/mnt/my")), None);
        assert_eq!(find_mount(TABLE, Path::new("/")).unwrap().source, "/dev/sda1");
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        assert_eq!(unescape(b"a\\040b\\01\\9\\"), OsString::from("a b\\01\\9\\"));
        assert_eq!(unescape(b"\\377"), OsString::from_vec(vec![255]));
    }

    #[test]
    fn the_proc_mount_of_this_machine_is_found() {
        assert_eq!(mounted_at(Path::new("/proc")).unwrap().fs_type, "proc");
    }

    #[test]
    fn what_fusermount_says_of_a_busy_mount_is_resource_busy() {
        let message = "fusermount3: failed to unmount /mnt/a: Device or resource busy";
        assert_eq!(helper_error_kind(message), io::ErrorKind::ResourceBusy);
        let message = "fusermount3: entry for /mnt/a not found in /etc/mtab";
        assert_eq!(helper_error_kind(message), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn mapped_files_are_the_lines_with_a_path() {
        let maps = b"7f-80 r-xp 00000000 fe:01 42      /mnt/a b/lib.so\n80-81 rw-p 00000000 00:00 0   [heap]\n";
        assert_eq!(mapped_files(maps).collect::<Vec<_>>(), [PathBuf::from("/mnt/a b/lib.so")]);
    }

    #[test]
    fn an_open_file_names_this_process() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let beside = folder.with_extension("beside");
        let open = fs::File::create(folder.join("open")).unwrap();
        let mine = |path: &Path| -> Vec<User> {
            processes_using(path).into_iter().filter(|user| user.pid == std::process::id()).collect()
        };
        let users = mine(&folder);
        assert_eq!(users.len(), 1);
        assert_eq!(users[0].what, folder.join("open"));
        assert!(!users[0].command.is_empty());
        assert!(mine(&beside).is_empty());
        drop(open);
        assert!(mine(&folder).is_empty());
    }

    #[test]
    fn this_process_runs_and_a_collected_one_does_not() {
        assert!(process_runs(std::process::id()));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(!process_runs(pid));
    }

    #[test]
    fn a_folder_that_answers_is_not_stale() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!clear_stale(folder.path()).unwrap());
    }
}
