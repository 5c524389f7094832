//! Files that the kernel reads from the local disk by itself (Documentation/filesystems/fuse/fuse-passthrough.rst,
//! Linux 6.9): of a version that lies whole and compared in the disk cache, it is handed the file.
//!
//! Only where root mounts read-only. An inode is read either through us or past us for as long as any handle of it is
//! open, and the kernel refuses an open that says otherwise; a writer must go through us, so that beside one a reader
//! past us would keep an old content. Refuses nothing: where it cannot be done, the file is read through us.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex};

use fuser::{BackingId, FileHandle, FopenFlags, InitFlags, KernelConfig, ReplyOpen};

use crate::data::LocalCopy;
use crate::error::Result;
use crate::fs::open::{Access, Opened};
use crate::fs::{Caller, Fs};
use crate::tree::Ino;

use super::answer::Answer;

/// Which inodes are open, and which of them past us. To the kernel a handle is closed before we hear of it: what is
/// counted here is never less than what is open there, and sticking to its way is right in both.
#[derive(Default)]
pub(super) struct Passthrough {
    open: Mutex<HashMap<Ino, Way>>,
}

/// How an open inode is read.
struct Way {
    handles: u64,
    /// The file that the kernel reads from; `None` if it asks us.
    backing: Option<Arc<BackingId>>,
}

/// An opened file, and what the kernel may read it from.
pub(super) struct Offered {
    opened: Opened,
    ino: Ino,
    copy: Option<LocalCopy>,
    passthrough: Option<Arc<Passthrough>>,
}

impl Passthrough {
    /// Asks the kernel for it; answers whether it can.
    pub(super) fn ask(config: &mut KernelConfig) -> bool {
        // The cache lies on a file system that is not stacked on another: one level, us above it.
        config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(1).is_ok()
    }

    /// One more handle of an inode: what the kernel is to read it from. `register` makes its file known to the kernel.
    fn open(&self, ino: Ino, register: impl FnOnce() -> Option<BackingId>) -> Option<Arc<BackingId>> {
        let mut open = self.open.lock().expect("no panic under this lock");
        let way = match open.entry(ino) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Way { handles: 0, backing: register().map(Arc::new) }),
        };
        way.handles += 1;
        way.backing.clone()
    }

    /// A handle was closed.
    pub(super) fn close(&self, ino: Ino) {
        let mut open = self.open.lock().expect("no panic under this lock");
        if let Entry::Occupied(mut known) = open.entry(ino) {
            known.get_mut().handles -= 1;
            if known.get().handles == 0 {
                known.remove();
            }
        }
    }
}

/// Opens a file, and looks for its copy on the local disk where the kernel may be handed it.
pub(super) async fn open(
    fs: Arc<Fs>,
    passthrough: Option<Arc<Passthrough>>,
    ino: Ino,
    access: Access,
    caller: Caller,
) -> Result<Offered> {
    let opened = fs.open(ino, access, caller).await?;
    let copy = if passthrough.is_some() { fs.local_copy(ino).await } else { None };
    Ok(Offered { opened, ino, copy, passthrough })
}

impl Answer<Offered> for ReplyOpen {
    fn ok(self, offered: Offered) {
        let Offered { opened, ino, copy, passthrough } = offered;
        let register = || copy.and_then(|copy| self.open_backing(&copy).map_err(|error| tell(&error)).ok());
        match passthrough.and_then(|passthrough| passthrough.open(ino, register)) {
            // The kernel refuses every other flag beside this one.
            Some(backing) => self.opened_passthrough(FileHandle(opened.id.0), FopenFlags::empty(), &backing),
            None => Answer::ok(self, opened),
        }
    }

    fn error(self, errno: fuser::Errno) {
        self.error(errno);
    }
}

fn tell(error: &io::Error) {
    log::debug!("the kernel does not take a cached file, which is read through dreamfs: {error}");
}
