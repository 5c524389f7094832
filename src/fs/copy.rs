//! copy_file_range: a copy inside the mount moves no bytes through the client.
//!
//! The target refers to what the source has in the store until it is stored itself, by a copy on the server. What the
//! source has only here is copied here. Overlapping ranges of one file are refused, as the kernel refuses them.

use crate::error::{Error, Meaning, Result};
use crate::store::Location;
use crate::tree::Ino;

use super::open::HandleId;
use super::{Caller, Fs};

/// One end of a copy.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The open file.
    pub id: HandleId,
    /// Where the range begins.
    pub offset: u64,
}

/// Bytes of one call at most, in whole pages: its answer has 32 bits. Callers go on from there.
const COPY_BYTES_MAX: u64 = (4 << 30) - 4096;

impl Fs {
    /// Copies a range; answers how many bytes, fewer at the end of the source.
    pub async fn copy_file_range(&self, from: End, to: End, length: u64, caller: Caller) -> Result<u32> {
        let source = self.files.file(from.id, |access| access.read)?;
        let target = self.files.file(to.id, |access| access.write)?;
        if self.is_old(source.ino) {
            return Err(Error::new(Meaning::CrossDevice, "an old version is read, not copied by the server"));
        }
        let length = length.min(COPY_BYTES_MAX);
        let too_large = || Error::new(Meaning::TooLarge, "copy_file_range");
        let end = from.offset.checked_add(length).ok_or_else(too_large)?;
        let target_end = to.offset.checked_add(length).ok_or_else(too_large)?;
        if source.ino == target.ino && from.offset < target_end && to.offset < end {
            return Err(Error::new(Meaning::InvalidArgument, "the ranges of a copy within one file overlap"));
        }
        // Nobody stores, moves or removes the source before the target is known to refer to it.
        let _guard = source.lock.lock().await;
        if source.bytes.has_given_back() {
            self.commit_locked(&source).await?;
        }
        let copied = target.bytes.take_over(&source.bytes, from.offset..end, to.offset).await?;
        if copied > 0 {
            self.note_change(&target, caller);
        }
        Ok(copied as u32)
    }

    /// Objects are about to be replaced or removed through this mount: copies of them that are not stored yet get
    /// their bytes first. `taker` is the file that does it.
    pub(crate) async fn keep_copies(&self, taker: Option<Ino>, fits: impl Fn(&Location) -> bool) -> Result<()> {
        for file in self.files.all() {
            if Some(file.ino) != taker && file.bytes.borrows(&fits) {
                file.bytes.keep_borrowed().await?;
            }
        }
        Ok(())
    }
}
