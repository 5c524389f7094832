//! Mounting: options for the kernel, the FUSE threads, and the end of a session.

use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::task::TaskTracker;

use crate::fs::{Fs, Notice};

use super::{Bridge, host, notify};

/// Threads that read requests. They only decode and answer from memory.
const THREADS: usize = 4;

/// How far the kernel reads ahead where root mounts: enough that several requests of 1 MiB are under way, and no more,
/// because a page fault in a mapped file brings as much.
const READ_AHEAD_KIBIBYTES: u32 = 2048;

/// How the kernel is asked to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// The source that `df` and mountinfo show.
    pub fs_name: String,
    /// Refuse changes.
    pub read_only: bool,
    /// Let other users in.
    pub allow_other: bool,
    /// Further options as mount(8) spells them.
    pub others: Vec<String>,
}

/// A mounted session.
pub struct Mounted {
    ended: UnboundedReceiver<()>,
    /// Requests that are being worked on.
    pub tasks: TaskTracker,
}

impl Mounted {
    /// Waits until the kernel has let go of the mount.
    pub async fn ended(&mut self) {
        // `None` means that the session is gone without having said so, which is the same.
        let _ = self.ended.recv().await;
    }
}

/// Mounts `fs` and serves it on threads of its own.
pub fn mount(
    fs: &Arc<Fs>,
    mountpoint: &Path,
    options: &Options,
    told: UnboundedReceiver<Notice>,
) -> io::Result<Mounted> {
    let (ended, heard) = unbounded_channel();
    let tasks = TaskTracker::new();
    let pass_through = options.read_only && host::is_root() && fs.data.cache().has_disk();
    let bridge = Bridge::new(fs.clone(), Handle::current(), tasks.clone(), ended, pass_through);
    let session = Session::new(bridge, mountpoint, &config(options))?;
    notify::start(session.notifier(), fs, told)?;
    if host::is_root() {
        match host::set_read_ahead(mountpoint, READ_AHEAD_KIBIBYTES) {
            Ok(()) => fs.data.cache().set_kernel_ahead(u64::from(READ_AHEAD_KIBIBYTES) << 10),
            Err(error) => log::info!("the kernel reads ahead as little as by default: {error}"),
        }
    }
    // Never dropped: after someone else has unmounted us, this version of fuser would unmount whatever lies at the
    // path then. Unmounting is done by `host::unmount`.
    let _session = ManuallyDrop::new(session.spawn()?);
    Ok(Mounted { ended: heard, tasks })
}

fn config(options: &Options) -> Config {
    // A comma would end the option: this version of fuser does not escape it.
    let mut mount_options = vec![
        MountOption::FSName(options.fs_name.replace(',', "_")),
        MountOption::Subtype("dreamfs".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.read_only {
        mount_options.push(MountOption::RO);
    }
    mount_options.extend(options.others.iter().filter_map(|option| match option.as_str() {
        "noexec" => Some(MountOption::NoExec),
        "noatime" => Some(MountOption::NoAtime),
        "sync" => Some(MountOption::Sync),
        "dirsync" => Some(MountOption::DirSync),
        _ => None,
    }));
    let mut config = Config::default();
    config.mount_options = mount_options;
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    config
}
