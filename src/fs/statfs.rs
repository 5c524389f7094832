//! statfs: what `df` shows. One HEAD of the bucket where the store tells how full it is, else a pebibyte of nothing.

use std::time::{Duration, Instant};

use crate::tree::{Ino, Place};

use super::Fs;

/// The size that a store without limits claims: 1 PiB, in blocks.
const BLOCKS: u64 = (1 << 50) / BLOCK_BYTES as u64;

/// The unit of [`Usage`] in bytes.
pub const BLOCK_BYTES: u32 = 4096;

/// How long an answer is good for, and how long the store may take to give one: `df` must not hang.
const USAGE_TTL: Duration = Duration::from_secs(10);
const USAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// How full a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All blocks.
    pub blocks: u64,
    /// Unused ones.
    pub blocks_free: u64,
    /// Objects, where the store tells.
    pub files: u64,
}

impl Fs {
    /// How full the bucket is that an inode lies in. Never fails: without an answer the last one stands.
    pub async fn statfs(&self, ino: Ino) -> Usage {
        let empty = Usage { blocks: BLOCKS, blocks_free: BLOCKS, files: 0 };
        let bucket = match self.tree.place(ino) {
            Some(Place::Directory { bucket, .. }) => bucket,
            Some(Place::File(location)) => location.bucket,
            Some(Place::Account) | None => return empty,
        };
        let last = self.usage.lock().expect("no panic under this lock").get(&bucket).copied();
        if let Some((_, usage)) = last.filter(|(at, _)| at.elapsed() < USAGE_TTL) {
            return usage;
        }
        let usage = match tokio::time::timeout(USAGE_TIMEOUT, self.store.head_bucket(&bucket)).await {
            Ok(Ok(head)) => {
                let used = head.used_bytes.unwrap_or(0).div_ceil(u64::from(BLOCK_BYTES)).min(BLOCKS);
                Usage { blocks: BLOCKS, blocks_free: BLOCKS - used, files: head.object_count.unwrap_or(0) }
            }
            Ok(Err(_)) | Err(_) => return last.map_or(empty, |(_, usage)| usage),
        };
        self.usage.lock().expect("no panic under this lock").insert(bucket, (Instant::now(), usage));
        usage
    }
}
