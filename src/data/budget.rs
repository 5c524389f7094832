//! The one budget of memory: whoever holds bytes claims them here first, waits if there are none, and gives them back
//! by dropping the claim. Too little memory makes dreamfs slower, never wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in pages, since a semaphore counts in 32 bits.
const PAGE_BYTES: u64 = 4096;

/// Buffers from 512 KiB on are mapped one by one and go back when freed; shorter ones, such as those in which the HTTP
/// client receives, are kept warm, up to 4 MiB in each of few arenas.
#[cfg(target_env = "gnu")]
const ALLOCATOR_SETTINGS: [(libc::c_int, libc::c_int); 3] =
    [(libc::M_MMAP_THRESHOLD, 512 << 10), (libc::M_TRIM_THRESHOLD, 4 << 20), (libc::M_ARENA_MAX, 4)];

/// How long a claim waits before it asks holders again.
const SHRINK_AGAIN: std::time::Duration = std::time::Duration::from_millis(20);

/// For whom memory is asked back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// For something that could be useful: what was fetched for others and not yet read stays.
    Spare,
    /// For somebody who waits.
    Waiting,
}

/// Asks holders to give back about so many bytes.
type Shrink = Box<dyn Fn(u64, Need) + Send + Sync>;

/// A budget of bytes. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    pages: Arc<Semaphore>,
    pages_max: u32,
    shrink: Arc<OnceLock<Shrink>>,
    waiting: Arc<AtomicU64>,
}

/// Counts somebody who waits, as long as it lives.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that are held; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    pages: OwnedSemaphorePermit,
}

impl Claim {
    /// Takes a part of it out, as much of `bytes` as there is.
    pub fn split(&mut self, bytes: u64) -> Claim {
        let pages = usize::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(usize::MAX).min(self.pages.num_permits());
        Claim { pages: self.pages.split(pages).expect("no more than there is") }
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes_max: u64) -> Self {
        let pages_max = u32::try_from(bytes_max.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX).max(1);
        Budget {
            pages: Arc::new(Semaphore::new(pages_max as usize)),
            pages_max,
            shrink: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// Sets who gives memory back when it runs out. Once.
    pub fn on_shortage(&self, shrink: impl Fn(u64, Need) + Send + Sync + 'static) {
        // A second holder would replace the first: there is one cache.
        let _ = self.shrink.set(Box::new(shrink));
    }

    fn pages(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX).min(self.pages_max)
    }

    /// Claims bytes if there are any left, and nobody has to give any back for it.
    pub fn claim_if_free(&self, bytes: u64) -> Option<Claim> {
        Some(Claim { pages: self.pages.clone().try_acquire_many_owned(self.pages(bytes)).ok()? })
    }

    /// Claims bytes if there are any left, after asking the cache to give back what has served.
    pub fn try_claim(&self, bytes: u64) -> Option<Claim> {
        self.claim_now(bytes, Need::Spare)
    }

    fn claim_now(&self, bytes: u64, need: Need) -> Option<Claim> {
        self.claim_if_free(bytes).or_else(|| {
            self.shrink.get().iter().for_each(|shrink| shrink(bytes, need));
            self.claim_if_free(bytes)
        })
    }

    /// Claims bytes, waiting for them. More than the whole budget is the whole budget.
    pub async fn claim(&self, bytes: u64) -> Claim {
        if let Some(claim) = self.claim_now(bytes, Need::Waiting) {
            return claim;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let waiting = self.pages.clone().acquire_many_owned(self.pages(bytes));
        tokio::pin!(waiting);
        loop {
            // What was in use a moment ago may be given back by now, and nobody else would ask for it.
            if let Ok(permits) = tokio::time::timeout(SHRINK_AGAIN, &mut waiting).await {
                return Claim { pages: permits.expect("the semaphore is never closed") };
            }
            self.shrink.get().iter().for_each(|shrink| shrink(bytes, Need::Waiting));
        }
    }

    /// Whether somebody waits for bytes.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Bytes that are claimed now.
    pub fn used_bytes(&self) -> u64 {
        (u64::from(self.pages_max) - self.pages.available_permits() as u64) * PAGE_BYTES
    }

    /// Bytes that can be claimed in all.
    pub fn bytes_max(&self) -> u64 {
        u64::from(self.pages_max) * PAGE_BYTES
    }
}

/// Settings of the allocator under which freed memory is used again or goes back to the system. Without them it raises
/// its own threshold as soon as it has seen a large buffer freed, keeps such buffers in one arena per thread, and holds
/// twice what is claimed here. To be called before the first buffer is made.
pub fn set_up_allocator() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in ALLOCATOR_SETTINGS {
        // SAFETY: mallopt(3) takes two numbers and touches only the allocator's own settings.
        unsafe { libc::mallopt(setting, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn claims_wait_shrink_and_never_exceed() {
        let budget = Budget::new(1 << 20);
        let held: Arc<Mutex<Vec<Claim>>> = Arc::default();
        let holder = held.clone();
        budget.on_shortage(move |_, _| drop(holder.lock().expect("unpoisoned").pop()));
        let first = budget.claim(1 << 20).await;
        held.lock().expect("unpoisoned").push(first);
        assert_eq!(budget.used_bytes(), 1 << 20);
        let second = budget.claim(512 << 10).await;
        assert_eq!(budget.used_bytes(), 512 << 10, "the holder gave its memory back");
        assert!(budget.try_claim(1 << 20).is_none());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.claim(8 << 20).await }
        });
        tokio::task::yield_now().await;
        drop(second);
        let all = waiting.await.expect("joined");
        assert_eq!(budget.used_bytes(), budget.bytes_max(), "more than all is all");
        drop(all);
        assert_eq!(budget.used_bytes(), 0);
    }
}
