//! Tells the kernel what it did not ask, on a thread of its own: the kernel may hold a lock that waits for one of our replies,
//! so that this must never be done from a verb, a worker of the runtime, or under a lock.

use std::sync::Arc;
use std::thread;

use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::fs::{Fs, Notice};

/// Starts the thread. It ends when the file system is gone.
pub(super) fn start(notifier: Notifier, fs: &Arc<Fs>, mut told: UnboundedReceiver<Notice>) -> std::io::Result<()> {
    let fs = Arc::downgrade(fs);
    let work = move || {
        while let Some(what) = told.blocking_recv() {
            let result = match &what {
                Notice::Entry(parent, name) => notifier.inval_entry(INodeNo(parent.0), OsStr::new(&**name)),
                Notice::Inode(ino) => {
                    let is_open = fs.upgrade().is_some_and(|fs| fs.is_open(*ino));
                    // A negative offset means attributes only: pages of an open file belong to its version.
                    notifier.inval_inode(INodeNo(ino.0), if is_open { -1 } else { 0 }, 0)
                }
                Notice::Pages { ino, offset, bytes, .. } => notifier.store(INodeNo(ino.0), *offset, bytes),
            };
            // What the kernel does not know it need not forget.
            if let Err(error) = result.filter_unknown() {
                log::debug!("a notice: {error}");
            }
            if let Notice::Pages { done, .. } = what {
                // Whoever sent it may have gone.
                let _ = done.send(());
            }
        }
    };
    thread::Builder::new().name("notify".to_owned()).spawn(work).map(drop)
}

trait FilterUnknown {
    fn filter_unknown(self) -> std::io::Result<()>;
}

impl FilterUnknown for std::io::Result<()> {
    fn filter_unknown(self) -> std::io::Result<()> {
        match self {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
