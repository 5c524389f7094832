//! Results become the kernel's replies: one [`Answer`] per reply type, so that every verb is served alike.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use crate::fs::lookup::Found;
use crate::fs::open::{HandleId, Opened};
use crate::fs::statfs::{BLOCK_BYTES, Usage};
use crate::tree::{Attr, Entry, FileKind, Ino};

/// The size that `stat` advises for reads and writes: one FUSE request.
const IO_BYTES: u32 = 1 << 20;

/// The longest name (NAME_MAX).
const NAME_BYTES_MAX: u32 = 255;

/// A reply that can carry a `T` or an error.
pub(super) trait Answer<T>: Send + 'static {
    fn ok(self, value: T);
    fn error(self, errno: Errno);
}

/// An extended attribute's reply, with the room that the caller has.
pub(super) struct Sized<R>(pub(super) R, pub(super) u32);

macro_rules! answer {
    ($reply:ty, $value:ty, |$self:ident, $result:ident| $ok:expr) => {
        impl Answer<$value> for $reply {
            fn ok(self, $result: $value) {
                let $self = self;
                $ok
            }
            fn error(self, errno: Errno) {
                self.error(errno);
            }
        }
    };
}

answer!(ReplyEmpty, (), |reply, _done| reply.ok());
answer!(ReplyData, Bytes, |reply, bytes| reply.data(&bytes));
answer!(ReplyWrite, u32, |reply, written| reply.written(written));
answer!(ReplyAttr, Entry, |reply, entry| reply.attr(&entry.ttl, &file_attr(entry.ino, &entry.attr)));
answer!(ReplyOpen, HandleId, |reply, id| reply.opened(FileHandle(id.0), FopenFlags::empty()));
answer!(ReplyOpen, Opened, |reply, opened| {
    let flags = if opened.keep_pages { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
    reply.opened(FileHandle(opened.id.0), flags)
});
answer!(ReplyEntry, Entry, |reply, entry| reply.entry(&entry.ttl, &file_attr(entry.ino, &entry.attr), Generation(0)));
answer!(ReplyEntry, Found, |reply, found| match found {
    Found::Entry(entry) => reply.entry(&entry.ttl, &file_attr(entry.ino, &entry.attr), Generation(0)),
    Found::Nothing(ttl) if ttl.is_zero() => reply.error(Errno::ENOENT),
    // An entry without an inode: the kernel remembers that there is nothing.
    Found::Nothing(ttl) => reply.entry(&ttl, &nothing(), Generation(0)),
});
answer!(ReplyCreate, (Entry, HandleId), |reply, made| {
    let (entry, id) = made;
    let attr = file_attr(entry.ino, &entry.attr);
    reply.created(&entry.ttl, &attr, Generation(0), FileHandle(id.0), FopenFlags::empty())
});
answer!(ReplyStatfs, Usage, |reply, usage| reply.statfs(
    usage.blocks,
    usage.blocks_free,
    usage.blocks_free,
    usage.files,
    u64::MAX / 2,
    BLOCK_BYTES,
    NAME_BYTES_MAX,
    BLOCK_BYTES,
));

impl Answer<Vec<u8>> for Sized<ReplyXattr> {
    fn ok(self, value: Vec<u8>) {
        let Sized(reply, room) = self;
        match (room as usize, value.len()) {
            (0, length) => reply.size(length as u32),
            (room, length) if length > room => reply.error(Errno::ERANGE),
            _ => reply.data(&value),
        }
    }

    fn error(self, errno: Errno) {
        self.0.error(errno);
    }
}

/// Attributes as the kernel wants them.
pub(super) fn file_attr(ino: Ino, attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino.0),
        size: attr.size_bytes,
        blocks: attr.size_bytes.div_ceil(512),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: if attr.kind == FileKind::Directory { 2 } else { 1 },
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: IO_BYTES,
        flags: 0,
    }
}

fn nothing() -> FileAttr {
    let attr = Attr {
        kind: FileKind::File,
        size_bytes: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: SystemTime::UNIX_EPOCH,
        atime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
    };
    file_attr(Ino(0), &attr)
}

/// The kind as the kernel spells it.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
    }
}

/// The time to live of names in a directory's listing.
pub(super) fn entry_ttl(entry: &Entry) -> Duration {
    entry.ttl
}
