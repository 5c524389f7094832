//! Where requests come in: the only folder that names `fuser`.
//!
//! Methods here are thin: they own their arguments and hand them to one method of [`Fs`]. What memory knows is
//! answered at once; the rest is a task of its own, so that no FUSE thread ever waits for the network. A panic in a
//! verb is EIO and a log line, never a dead mount. Errors are logged here and only here.

mod answer;
pub mod host;
mod notify;
pub mod session;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Meaning, Result};
use crate::fs::attr::{Changes, SetTime};
use crate::fs::open::{Access, HandleId};
use crate::fs::xattr::SetFlag;
use crate::fs::{Caller, Fs};
use crate::tree::{FileKind, Ino, ROOT};

use answer::{Answer, Sized, entry_ttl, file_attr, file_type};

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

/// The kernel's side of a mount.
pub(crate) struct Bridge {
    fs: Arc<Fs>,
    runtime: Handle,
    tasks: TaskTracker,
    ended: UnboundedSender<()>,
}

impl Bridge {
    /// Serves `fs`; `ended` hears when the kernel has let go of the mount.
    pub(crate) fn new(fs: Arc<Fs>, runtime: Handle, tasks: TaskTracker, ended: UnboundedSender<()>) -> Self {
        Bridge { fs, runtime, tasks, ended }
    }

    /// Runs a verb as a task and replies with its result.
    fn serve<T, R, F>(
        &self,
        op: &'static str,
        req: &Request,
        ino: INodeNo,
        reply: R,
        verb: impl FnOnce(Arc<Fs>, Caller) -> F,
    ) where
        T: Send + 'static,
        R: Answer<T>,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (fs, caller, started) = (self.fs.clone(), caller_of(req), Instant::now());
        let work = AssertUnwindSafe(verb(fs.clone(), caller)).catch_unwind();
        let task = async move {
            let result = work.await.unwrap_or_else(|_| Err(Error::new(Meaning::Io, "a panic; please report it")));
            match result {
                Ok(value) => reply.ok(value),
                Err(error) => {
                    log_error(&fs, op, Ino(ino.0), caller, started, &error);
                    reply.error(Errno::from_i32(error.errno()));
                }
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
    }
}

fn caller_of(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

fn log_error(fs: &Fs, op: &str, ino: Ino, caller: Caller, started: Instant, error: &Error) {
    let level = if error.meaning().is_expected() { log::Level::Debug } else { log::Level::Warn };
    if !log::log_enabled!(level) {
        return;
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let (path, ms) = (fs.path(ino), started.elapsed().as_millis());
    log::log!(level, "{op} {path} (process {}, {ms} ms): {text}", caller.pid);
}

fn access_of(flags: OpenFlags) -> Access {
    let mode = flags.acc_mode();
    Access {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        truncate: session::truncates(flags.0),
    }
}

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(time),
    }
}

impl Filesystem for Bridge {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for capability in CAPABILITIES {
            if config.add_capabilities(capability).is_err() {
                log::info!("this kernel does not offer {capability:?}");
            }
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
            if !session::is_regular(mode) {
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
        let verb = move |fs: Arc<Fs>, caller| async move { fs.open(Ino(ino.0), access, caller).await };
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
        let verb = move |fs: Arc<Fs>, _| async move { fs.read(HandleId(handle.0), offset, size).await };
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
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = Bytes::copy_from_slice(data);
        let verb = move |fs: Arc<Fs>, caller| async move { fs.write(HandleId(handle.0), offset, bytes, caller).await };
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
        let verb =
            move |fs: Arc<Fs>, _| async move { fs.read_directory(Ino(ino.0), HandleId(handle.0), offset == 0).await };
        self.serve("readdir", req, ino, reply, verb);
    }

    fn readdirplus(&self, req: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let reply = ListedPlus { reply, ino, offset, fs: self.fs.clone() };
        let verb =
            move |fs: Arc<Fs>, _| async move { fs.read_directory(Ino(ino.0), HandleId(handle.0), offset == 0).await };
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
        let verb = move |fs: Arc<Fs>, _| async move { fs.removexattr(Ino(ino.0), &name).await };
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
}

/// A listing's reply and where in the directory it goes on. Offsets 1 and 2 are `.` and `..`.
struct Listed {
    reply: ReplyDirectory,
    ino: INodeNo,
    offset: u64,
}

impl Answer<crate::fs::list::Snapshot> for Listed {
    fn ok(mut self, names: crate::fs::list::Snapshot) {
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
struct ListedPlus {
    reply: ReplyDirectoryPlus,
    ino: INodeNo,
    offset: u64,
    fs: Arc<Fs>,
}

impl Answer<crate::fs::list::Snapshot> for ListedPlus {
    fn ok(mut self, names: crate::fs::list::Snapshot) {
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
