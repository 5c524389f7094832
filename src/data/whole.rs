//! Versions of which every byte is on disk, compared with its checksums once: they are read from there as local files
//! are, without a block in memory and without a request.

use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};

use super::cache::Cache;
use super::stage::off_worker;
use super::{File as OpenFile, Stored};

/// How long an open waits for a version to be compared with its checksums: about what reading it here costs, where it
/// is of the usual size. The comparison goes on, for the next one.
const COMPARE_MAX: Duration = Duration::from_millis(50);

/// All bytes of a stored version, compared with their checksums, in a local file that nobody changes.
pub struct LocalCopy(Arc<Stored>);

impl AsFd for LocalCopy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.whole.get().expect("there is none without it").as_fd()
    }
}

impl OpenFile {
    /// The local copy of the file's version, if all of it is in the disk cache.
    pub async fn local_copy(&self) -> Option<LocalCopy> {
        let stored = {
            let state = self.lock();
            state.extents.as_whole().filter(|_| !state.dirty).cloned()?
        };
        // Longer than this the file is read through us, as it is when the disk has only some of it.
        let _ = tokio::time::timeout(COMPARE_MAX, self.data.inner.cache.find_whole(&stored)).await;
        stored.whole.get().is_some().then_some(LocalCopy(stored))
    }
}

impl Cache {
    /// Whether contents are kept on disk.
    pub fn has_disk(&self) -> bool {
        self.inner.disk.is_some()
    }

    /// Looks whether all of a version is on disk now.
    pub(super) async fn find_whole(&self, stored: &Stored) {
        if let Some(disk) = &self.inner.disk
            && stored.whole.get().is_none()
            && let Some(file) = disk.whole(&stored.version).await
        {
            // Another caller may have found it too.
            let _ = stored.whole.set(file);
        }
    }

    /// Bytes of a whole version, if the kernel has them in memory. Does not wait for the disk.
    pub(super) fn whole_ready(&self, stored: &Stored, range: &Range<u64>) -> Option<Bytes> {
        let file = stored.whole.get()?;
        let length = range.end - range.start;
        let mut room = self.inner.buffers.try_room(length)?;
        let bytes = room.bytes_mut();
        bytes.resize(length as usize, 0);
        let read = preadv2(file, &mut [IoSliceMut::new(bytes)], range.start, ReadWriteFlags::NOWAIT);
        // An error says that the disk would have to be asked, or cannot be asked like that: then one of us waits for it.
        if read.is_ok_and(|read| read as u64 == length) {
            return Some(self.inner.buffers.hold(room));
        }
        self.inner.buffers.give_back(room);
        None
    }

    /// Bytes of a whole version; `None` if it is not whole or its file cannot be read.
    pub(super) async fn read_whole(&self, stored: &Arc<Stored>, range: &Range<u64>) -> Option<Bytes> {
        stored.whole.get()?;
        let length = range.end - range.start;
        let mut room = self.inner.buffers.room(length).await;
        room.bytes_mut().resize(length as usize, 0);
        let (stored, start) = (stored.clone(), range.start);
        let work = move || {
            let file: &File = stored.whole.get().expect("set once and never taken back");
            file.read_exact_at(room.bytes_mut(), start).map(|()| room)
        };
        match off_worker(work).await {
            Ok(room) => Some(self.inner.buffers.hold(room)),
            Err(error) => {
                log::debug!("a file of the disk cache cannot be read: {error}");
                None
            }
        }
    }
}
