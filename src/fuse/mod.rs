//! Where requests come in: the only folder that names `fuser`.
//!
//! Methods here are thin: they own their arguments and hand them to one method of [`Fs`]. What memory knows is
//! answered at once; the rest is a task of its own, so that no FUSE thread ever waits for the network. A panic in a
//! verb is EIO and a log line, never a dead mount. Errors are logged here and only here.

mod answer;
mod arguments;
mod bridge;
pub mod host;
mod listing;
mod notify;
mod passthrough;
pub mod session;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::error::{Error, Meaning};
use crate::fs::Fs;
use crate::fs::attr::Changes;
use crate::fs::copy::End;
use crate::fs::open::HandleId;
use crate::fs::xattr::SetFlag;
use crate::tree::Ino;

use answer::{Answer, Sized};
use arguments::{access_of, set_time};
use listing::{Listed, ListedPlus, place_of};
use passthrough::Passthrough;

pub(crate) use bridge::Bridge;
use bridge::caller_of;

/// Requests that the kernel may have waiting in the background: read-ahead and the like.
const BACKGROUND_MAX: u16 = 128;

/// What is asked of the kernel. Never `FUSE_SETXATTR_EXT`: this version of fuser misreads it and dies.
const CAPABILITIES: [InitFlags; 6] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Without it the kernel asks for security.capability before every write.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

impl Filesystem for Bridge {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for capability in CAPABILITIES {
            if config.add_capabilities(capability).is_err() {
                log::info!("this kernel does not offer {capability:?}");
            }
        }
        if self.passthrough.is_some() && !Passthrough::ask(config) {
            self.passthrough = None;
        }
        // The kernel's own maximum is returned where ours is too high, and holds then.
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn destroy(&mut self) {
        // Nobody listens when the mount is already being taken down.
        let _ = self.ended.send(());
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if let Some(found) = self.fs.lookup_known(Ino(parent.0), name) {
            return Answer::ok(reply, found);
        }
        let name = name.to_owned();
        self.serve("lookup", req, parent, reply, move |fs, _| async move { fs.lookup(Ino(parent.0), &name).await });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        self.fs.forget(Ino(ino.0), lookups);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        if let Some(entry) = self.fs.getattr_known(Ino(ino.0)) {
            return Answer::ok(reply, entry);
        }
        self.serve("getattr", req, ino, reply, move |fs, _| async move { fs.getattr(Ino(ino.0)).await });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(set_time), mtime.map(set_time));
        let set = Changes { mode, uid, gid, size_bytes: size, atime, mtime };
        let handle = handle.map(|handle| HandleId(handle.0));
        let verb = move |fs: Arc<Fs>, caller| async move { fs.setattr(Ino(ino.0), handle, set, caller).await };
        self.serve("setattr", req, ino, reply, verb);
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve("readlink", req, ino, reply, move |fs, _| async move { fs.readlink(Ino(ino.0)).await });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let name = name.to_owned();
        self.serve("mknod", req, parent, reply, move |fs, caller| async move {
            if !arguments::is_regular(mode) {
                return Err(Error::new(Meaning::NotPermitted, "only regular files can be made"));
            }
            fs.mknod(Ino(parent.0), &name, mode, caller).await
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let name = name.to_owned();
        let verb = move |fs: Arc<Fs>, caller| async move { fs.mkdir(Ino(parent.0), &name, mode, caller).await };
        self.serve("mkdir", req, parent, reply, verb);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.serve("unlink", req, parent, reply, move |fs, _| async move { fs.unlink(Ino(parent.0), &name).await });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.serve("rmdir", req, parent, reply, move |fs, _| async move { fs.rmdir(Ino(parent.0), &name).await });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (name, target) = (name.to_owned(), Bytes::copy_from_slice(target.as_os_str().as_bytes()));
        let verb = move |fs: Arc<Fs>, caller| async move { fs.symlink(Ino(parent.0), &name, target, caller).await };
        self.serve("symlink", req, parent, reply, verb);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (name.to_owned(), newname.to_owned());
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let unknown = flags.difference(RenameFlags::RENAME_NOREPLACE);
        self.serve("rename", req, parent, reply, move |fs, _| async move {
            if !unknown.is_empty() {
                return Err(Error::new(Meaning::InvalidArgument, "names cannot be exchanged"));
            }
            fs.rename(Ino(parent.0), &name, Ino(newparent.0), &newname, no_replace).await
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let access = access_of(flags);
        let past_us = self.passthrough.clone();
        let verb = move |fs, caller| passthrough::open(fs, past_us, Ino(ino.0), access, caller);
        self.serve("open", req, ino, reply, verb);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let id = HandleId(handle.0);
        if let Some(bytes) = self.fs.read_ready(id, offset, size) {
            return Answer::ok(reply, bytes);
        }
        let verb = move |fs: Arc<Fs>, _| async move { fs.read(id, offset, size).await };
        self.serve("read", req, ino, reply, verb);
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (id, appends) = (HandleId(handle.0), arguments::appends(flags));
        let _runtime = self.enter();
        if self.fs.write_ready(id, offset, data, appends, caller_of(req)) {
            return reply.written(data.len() as u32);
        }
        let bytes = self.fs.hold_bytes(data);
        let verb = move |fs: Arc<Fs>, caller| async move {
            match appends {
                true => fs.append(id, offset, bytes, caller).await,
                false => fs.write(id, offset, bytes, caller).await,
            }
        };
        self.serve("write", req, ino, reply, verb);
    }

    fn flush(&self, req: &Request, ino: INodeNo, handle: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        self.serve("flush", req, ino, reply, move |fs, _| async move { fs.flush(HandleId(handle.0)).await });
    }

    fn release(
        &self,
        req: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(passthrough) = &self.passthrough {
            passthrough.close(Ino(ino.0));
        }
        self.serve("release", req, ino, reply, move |fs, _| async move {
            fs.release(HandleId(handle.0)).await;
            Ok(())
        });
    }

    fn fsync(&self, req: &Request, ino: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.serve("fsync", req, ino, reply, move |fs, _| async move { fs.fsync(HandleId(handle.0)).await });
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        Answer::ok(reply, self.fs.open_directory());
    }

    fn readdir(&self, req: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let reply = Listed { reply, ino, offset };
        let (id, place) = (HandleId(handle.0), place_of(offset));
        let verb = move |fs: Arc<Fs>, _| async move { fs.read_directory(Ino(ino.0), id, place, false).await };
        self.serve("readdir", req, ino, reply, verb);
    }

    fn readdirplus(&self, req: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let reply = ListedPlus { reply, ino, offset, fs: self.fs.clone() };
        let (id, place) = (HandleId(handle.0), place_of(offset));
        let verb = move |fs: Arc<Fs>, _| async move { fs.read_directory(Ino(ino.0), id, place, true).await };
        self.serve("readdirplus", req, ino, reply, verb);
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.fs.close_directory(HandleId(handle.0));
        reply.ok();
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.serve("fsyncdir", req, ino, reply, move |fs, _| async move { fs.fsync_directory(Ino(ino.0)).await });
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.serve("statfs", req, ino, reply, move |fs, _| async move { Ok(fs.statfs(Ino(ino.0)).await) });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (name, value) = (name.to_owned(), Bytes::copy_from_slice(value));
        let flag = match flags {
            libc::XATTR_CREATE => SetFlag::Create,
            libc::XATTR_REPLACE => SetFlag::Replace,
            _ => SetFlag::Any,
        };
        self.serve("setxattr", req, ino, reply, move |fs, caller| async move {
            fs.setxattr(Ino(ino.0), &name, &value, flag, caller).await
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        let verb = move |fs: Arc<Fs>, caller| async move { fs.getxattr(Ino(ino.0), &name, caller).await };
        self.serve("getxattr", req, ino, Sized(reply, size), verb);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let verb = move |fs: Arc<Fs>, _| async move { fs.listxattr(Ino(ino.0)).await };
        self.serve("listxattr", req, ino, Sized(reply, size), verb);
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        let verb = move |fs: Arc<Fs>, caller| async move { fs.removexattr(Ino(ino.0), &name, caller).await };
        self.serve("removexattr", req, ino, reply, verb);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, access) = (name.to_owned(), access_of(OpenFlags(flags)));
        let verb =
            move |fs: Arc<Fs>, caller| async move { fs.create(Ino(parent.0), &name, mode, access, caller).await };
        self.serve("create", req, parent, reply, verb);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let verb = move |fs: Arc<Fs>, caller| async move {
            fs.fallocate(HandleId(handle.0), offset, length, mode, caller).await
        };
        self.serve("fallocate", req, ino, reply, verb);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = End { id: HandleId(handle_in.0), offset: offset_in };
        let to = End { id: HandleId(handle_out.0), offset: offset_out };
        let verb = move |fs: Arc<Fs>, caller| async move { fs.copy_file_range(from, to, length, caller).await };
        self.serve("copy_file_range", req, ino_in, reply, verb);
    }
}
