//! read: bytes of an open file, never of two versions.

use bytes::Bytes;

use crate::error::Result;

use super::Fs;
use super::open::HandleId;

impl Fs {
    /// The same as [`Fs::read`], if the bytes are in memory; does not wait.
    pub fn read_ready(&self, id: HandleId, offset: u64, size: u32) -> Option<Bytes> {
        let file = self.files.file(id, |access| access.read || access.write).ok()?;
        file.bytes.read_ready(offset, size as usize)
    }

    /// Up to `size` bytes from `offset`; fewer only at the end of the file.
    pub async fn read(&self, id: HandleId, offset: u64, size: u32) -> Result<Bytes> {
        let file = self.files.file(id, |access| access.read || access.write)?;
        file.bytes.read_at(offset, size as usize).await
    }
}
