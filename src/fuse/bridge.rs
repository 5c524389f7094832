//! The kernel's side of a mount: runs each request, catches panics, logs errors once and replies.
//!
//! What memory can answer is answered on the thread that took the request, which saves two changes of threads; what has
//! to wait goes on as a task.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use fuser::{Errno, INodeNo, Request};
use futures_util::FutureExt;
use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Meaning, Result};
use crate::fs::{Caller, Fs};
use crate::tree::Ino;

use super::answer::Answer;
use super::passthrough::Passthrough;

/// The kernel's side of a mount.
pub(crate) struct Bridge {
    pub(super) fs: Arc<Fs>,
    runtime: Handle,
    tasks: TaskTracker,
    pub(super) ended: UnboundedSender<()>,
    /// Where the kernel may be handed files, which it says only when the session begins.
    pub(super) passthrough: Option<Arc<Passthrough>>,
}

impl Bridge {
    /// Serves `fs`; `ended` hears when the kernel has let go of the mount. With `pass_through` the kernel is handed what
    /// it can read by itself.
    pub(crate) fn new(
        fs: Arc<Fs>,
        runtime: Handle,
        tasks: TaskTracker,
        ended: UnboundedSender<()>,
        pass_through: bool,
    ) -> Self {
        Bridge { fs, runtime, tasks, ended, passthrough: pass_through.then(Arc::default) }
    }

    /// Timers and background work of what runs on this thread belong to the runtime while the guard lives.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Runs a verb, as far as it need not wait, and the rest of it as a task; replies with its result.
    pub(super) fn serve<T, R, F>(
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
        let mut task = Box::pin(async move {
            let result = work.await.unwrap_or_else(|_| Err(Error::new(Meaning::Io, "a panic; please report it")));
            match result {
                Ok(value) => reply.ok(value),
                Err(error) => {
                    log_error(&fs, op, Ino(ino.0), caller, started, &error);
                    reply.error(Errno::from_i32(error.errno()));
                }
            }
        });
        let _runtime = self.enter();
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.tasks.spawn_on(task, &self.runtime);
        }
    }
}

pub(super) fn caller_of(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

fn log_error(fs: &Fs, op: &str, ino: Ino, caller: Caller, started: Instant, error: &Error) {
    // Programs look for names and attributes that are not there all day; who sets one has seen the file.
    let is_lost = op == "setxattr" && error.meaning() == Meaning::NotFound;
    let level = if error.meaning().is_expected() && !is_lost { log::Level::Debug } else { log::Level::Warn };
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
