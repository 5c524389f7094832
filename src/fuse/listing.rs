//! Replies of readdir and readdirplus: as many names of a snapshot as fit, from where the kernel goes on.

use std::sync::Arc;

use fuser::{Errno, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use crate::fs::Fs;
use crate::fs::list::Batch;
use crate::tree::{FileKind, Ino, ROOT};

use super::answer::{Answer, entry_ttl, file_attr, file_type};

/// The offset behind a directory's first name.
const FIRST_OFFSET: u64 = 3;

/// Where in the names of a directory an offset of the kernel leads, and whether to read them anew.
pub(super) fn place_of(offset: u64) -> (u64, bool) {
    (offset.saturating_sub(FIRST_OFFSET - 1), offset == 0)
}

/// A listing's reply and where in the directory it goes on. Offsets 1 and 2 are `.` and `..`.
pub(super) struct Listed {
    pub(super) reply: ReplyDirectory,
    pub(super) ino: INodeNo,
    pub(super) offset: u64,
}

impl Answer<Batch> for Listed {
    fn ok(mut self, batch: Batch) {
        for (offset, name) in [(1, "."), (2, "..")] {
            if self.offset < offset && self.reply.add(self.ino, offset, file_type(FileKind::Directory), name) {
                return self.reply.ok();
            }
        }
        for (index, told) in &batch.names {
            let next = index + FIRST_OFFSET;
            if self.reply.add(INodeNo(told.ino.0), next, file_type(told.kind), &*told.name) {
                break;
            }
        }
        self.reply.ok();
    }

    fn error(self, errno: Errno) {
        self.reply.error(errno);
    }
}

/// The same with attributes; every entry that is told counts as a lookup.
pub(super) struct ListedPlus {
    pub(super) reply: ReplyDirectoryPlus,
    pub(super) ino: INodeNo,
    pub(super) offset: u64,
    pub(super) fs: Arc<Fs>,
}

impl Answer<Batch> for ListedPlus {
    fn ok(mut self, batch: Batch) {
        let own = self.fs.getattr_known(Ino(self.ino.0)).or_else(|| self.fs.getattr_known(ROOT));
        for (offset, name) in [(1, "."), (2, "..")] {
            let Some(entry) = own.as_ref().filter(|_| self.offset < offset) else { continue };
            let attr = file_attr(Ino(self.ino.0), &entry.attr);
            if self.reply.add(self.ino, offset, name, &entry_ttl(entry), &attr, Generation(0)) {
                return self.reply.ok();
            }
        }
        for ((index, told), entry) in batch.names.iter().zip(&batch.entries) {
            // Counted first: the kernel may forget it before we have counted it else.
            self.fs.remember(entry.ino);
            let (ino, next) = (INodeNo(entry.ino.0), index + FIRST_OFFSET);
            let attr = file_attr(entry.ino, &entry.attr);
            if self.reply.add(ino, next, &*told.name, &entry_ttl(entry), &attr, Generation(0)) {
                self.fs.forget(entry.ino, 1);
                break;
            }
        }
        self.reply.ok();
    }

    fn error(self, errno: Errno) {
        self.reply.error(errno);
    }
}
