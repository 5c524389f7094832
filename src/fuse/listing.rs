//! Replies of readdir and readdirplus: as many names of a snapshot as fit, from where the kernel goes on.

use std::sync::Arc;

use fuser::{Errno, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use crate::fs::Fs;
use crate::fs::list::Snapshot;
use crate::tree::{FileKind, Ino, ROOT};

use super::answer::{Answer, entry_ttl, file_attr, file_type};

/// A listing's reply and where in the directory it goes on. Offsets 1 and 2 are `.` and `..`.
pub(super) struct Listed {
    pub(super) reply: ReplyDirectory,
    pub(super) ino: INodeNo,
    pub(super) offset: u64,
}

impl Answer<Snapshot> for Listed {
    fn ok(mut self, names: Snapshot) {
        for (offset, name) in [(1, "."), (2, "..")] {
            if self.offset < offset && self.reply.add(self.ino, offset, file_type(FileKind::Directory), name) {
                return self.reply.ok();
            }
        }
        let skipped = self.offset.saturating_sub(2) as usize;
        for (index, (name, entry)) in names.iter().enumerate().skip(skipped) {
            let next = index as u64 + 3;
            if self.reply.add(INodeNo(entry.ino.0), next, file_type(entry.attr.kind), &**name) {
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

impl Answer<Snapshot> for ListedPlus {
    fn ok(mut self, names: Snapshot) {
        let own = self.fs.getattr_known(Ino(self.ino.0)).or_else(|| self.fs.getattr_known(ROOT));
        for (offset, name) in [(1, "."), (2, "..")] {
            let Some(entry) = own.as_ref().filter(|_| self.offset < offset) else { continue };
            let attr = file_attr(Ino(self.ino.0), &entry.attr);
            if self.reply.add(self.ino, offset, name, &entry_ttl(entry), &attr, Generation(0)) {
                return self.reply.ok();
            }
        }
        let skipped = self.offset.saturating_sub(2) as usize;
        for (index, (name, entry)) in names.iter().enumerate().skip(skipped) {
            // Counted first: the kernel may forget it before we have counted it else.
            self.fs.remember(entry.ino);
            let (ino, next) = (INodeNo(entry.ino.0), index as u64 + 3);
            let attr = file_attr(entry.ino, &entry.attr);
            if self.reply.add(ino, next, &**name, &entry_ttl(entry), &attr, Generation(0)) {
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
