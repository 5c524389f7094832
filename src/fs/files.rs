//! The table of open files: one [`OpenFile`] per inode, shared by all its handles, so that versions made through this
//! mount are one content for all of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::data::{File, UploadState};
use crate::error::{Error, Meaning, Result};
use crate::tree::Ino;

use super::open::{Access, HandleId};
use super::snapshot::Snapshot;

/// A file that is open, or that has bytes which are not yet stored.
pub struct OpenFile {
    /// Its inode.
    pub ino: Ino,
    /// Its bytes.
    pub bytes: File,
    /// Held by whoever changes what the store has of this file. First in the lock order.
    pub lock: tokio::sync::Mutex<()>,
    /// Read while bytes are put into the kernel's pages, written before anybody may change them.
    pages: tokio::sync::RwLock<Pages>,
    /// Whether storing it failed after the last handle was closed: the next open or fsync tells.
    failed_unheard: AtomicBool,
    /// Whether another client was faster: the name is the other's, and what was written here lies beside it.
    overtaken: AtomicBool,
}

/// Who fills the kernel's pages of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pages {
    /// The kernel asks for what it wants, and may be given more.
    #[default]
    Open,
    /// This mount changes the file: only the kernel knows which of its pages are newer than what we have.
    Closed,
}

impl OpenFile {
    /// From now on this mount may change the content: nothing more is put into the kernel's pages unasked. Waits for
    /// what is being put there.
    pub(crate) async fn close_pages(&self) {
        *self.pages.write().await = Pages::Closed;
    }

    /// Keeps the content from being changed through this mount while bytes are put into the kernel's pages; `None` if
    /// it may have been changed already.
    pub(crate) async fn keep_pages(&self) -> Option<tokio::sync::RwLockReadGuard<'_, Pages>> {
        Some(self.pages.read().await).filter(|pages| **pages == Pages::Open)
    }

    /// Notes that another client was faster. Whichever call stored the bytes is told at once, and from now on everyone
    /// who still has the file open: the bytes may have been theirs.
    pub(crate) fn note_overtaken(&self) {
        self.overtaken.store(true, Ordering::Relaxed);
    }

    /// ESTALE, if another client was faster.
    pub(crate) fn check_not_overtaken(&self) -> Result<()> {
        match self.overtaken.load(Ordering::Relaxed) {
            true => {
                Err(Error::new(Meaning::Stale, format!("inode {:#x}: another client stored it meanwhile", self.ino.0)))
            }
            false => Ok(()),
        }
    }

    /// Notes a failure that no call could return.
    pub(crate) fn fail_unheard(&self, reason: &Error) {
        self.bytes.set_failed(reason.to_string());
        self.failed_unheard.store(true, Ordering::Relaxed);
    }

    /// The failure that no call has returned yet, once.
    pub(crate) fn take_unheard_failure(&self) -> Option<Error> {
        if !self.failed_unheard.swap(false, Ordering::Relaxed) {
            return None;
        }
        match self.bytes.upload_state() {
            UploadState::Failed { reason } => Some(Error::new(Meaning::Io, reason)),
            UploadState::Stored | UploadState::Pending | UploadState::Uploading { .. } => None,
        }
    }
}

/// A handle that the kernel holds.
#[derive(Clone)]
pub(crate) enum Handle {
    File { file: Arc<OpenFile>, access: Access },
    Directory { snapshot: Option<Arc<Snapshot>> },
}

/// The table of open files and handles.
#[derive(Default)]
pub struct Files {
    open: Mutex<HashMap<Ino, Arc<OpenFile>>>,
    handles: Mutex<HashMap<HandleId, Handle>>,
    next_handle: AtomicU64,
}

impl Files {
    pub(crate) fn get(&self, ino: Ino) -> Option<Arc<OpenFile>> {
        self.open.lock().expect("no panic under this lock").get(&ino).cloned()
    }

    pub(crate) fn get_or_insert(&self, ino: Ino, make: impl FnOnce() -> Result<File>) -> Result<Arc<OpenFile>> {
        let mut open = self.open.lock().expect("no panic under this lock");
        if let Some(file) = open.get(&ino) {
            return Ok(file.clone());
        }
        let file = OpenFile {
            ino,
            bytes: make()?,
            lock: Default::default(),
            pages: Default::default(),
            failed_unheard: AtomicBool::new(false),
            overtaken: AtomicBool::new(false),
        };
        let file = Arc::new(file);
        open.insert(ino, file.clone());
        Ok(file)
    }

    /// Every file of the table.
    pub(crate) fn all(&self) -> Vec<Arc<OpenFile>> {
        let mut files: Vec<_> = self.open.lock().expect("no panic under this lock").values().cloned().collect();
        files.sort_by_key(|file| file.ino);
        files
    }

    /// Takes a file out of the table if the caller is the last who has it. Whoever opens it gets it from the table,
    /// so nobody can come to have it meanwhile: there are never two contents of one inode.
    pub(crate) fn remove_unused(&self, file: Arc<OpenFile>) {
        let mut open = self.open.lock().expect("no panic under this lock");
        let listed = open.get(&file.ino).is_some_and(|listed| Arc::ptr_eq(listed, &file));
        // Ours and the table's.
        if listed && Arc::strong_count(&file) <= 2 {
            open.remove(&file.ino);
        }
    }

    /// Takes a file out of the table.
    pub(crate) fn remove(&self, ino: Ino) {
        self.open.lock().expect("no panic under this lock").remove(&ino);
    }

    pub(crate) fn add_handle(&self, handle: Handle) -> HandleId {
        let id = HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed) + 1);
        self.handles.lock().expect("no panic under this lock").insert(id, handle);
        id
    }

    pub(crate) fn handle(&self, id: HandleId) -> Result<Handle> {
        let handles = self.handles.lock().expect("no panic under this lock");
        handles.get(&id).cloned().ok_or_else(|| Error::new(Meaning::BadHandle, format!("handle {}", id.0)))
    }

    pub(crate) fn set_snapshot(&self, id: HandleId, names: Arc<Snapshot>) {
        let mut handles = self.handles.lock().expect("no panic under this lock");
        if let Some(Handle::Directory { snapshot }) = handles.get_mut(&id) {
            *snapshot = Some(names);
        }
    }

    pub(crate) fn take_handle(&self, id: HandleId) -> Option<Handle> {
        self.handles.lock().expect("no panic under this lock").remove(&id)
    }

    /// The file of a handle that is open for `wanted`.
    pub(crate) fn file(&self, id: HandleId, wanted: impl Fn(Access) -> bool) -> Result<Arc<OpenFile>> {
        match self.handle(id)? {
            Handle::File { file, access } if wanted(access) => Ok(file),
            _ => Err(Error::new(Meaning::BadHandle, format!("handle {}", id.0))),
        }
    }

    /// Handles of files that are open now.
    pub(crate) fn open_handles(&self) -> u64 {
        let handles = self.handles.lock().expect("no panic under this lock");
        handles.values().filter(|handle| matches!(handle, Handle::File { .. })).count() as u64
    }
}
