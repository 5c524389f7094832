//! The thread that writes chunks behind the readers' backs, and makes room for them. Refuses what the disk has no room
//! for; whatever fails here costs a fetch later and nobody hears of it twice.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::entry::{self, Entry};
use super::{Shared, evict};
use crate::data::Version;

/// After writing this part of the bound the folder is looked through again, for what other mounts wrote to it.
const LOOK_AGAIN_PART: u64 = 32;

/// What the thread is asked.
pub(super) enum Job {
    /// To write a chunk.
    Keep { version: Version, offset: u64, bytes: Bytes },
    /// To tell that all before this is done.
    Mark(oneshot::Sender<()>),
}

/// Works until the last handle of the cache is gone and the queue is empty.
pub(super) fn run(shared: &Shared, jobs: &mpsc::Receiver<Job>) {
    let mut unseen_bytes = 0;
    look(shared);
    for job in jobs {
        match job {
            Job::Keep { version, offset, bytes } => {
                unseen_bytes += keep(shared, &version, offset, &bytes);
                shared.queued_bytes.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
                if unseen_bytes > shared.bytes_max / LOOK_AGAIN_PART {
                    unseen_bytes = 0;
                    look(shared);
                }
            }
            // Who asked may have gone.
            Job::Mark(reached) => drop(reached.send(())),
        }
    }
}

/// Finds out what the folder holds, and evicts if that is too much.
fn look(shared: &Shared) {
    let looked = evict::scan(&shared.folder, 0, None).and_then(|scan| {
        shared.used_bytes.store(scan.used_bytes, Ordering::Relaxed);
        evict::make_room(shared, 0, None)
    });
    if let Err(error) = looked {
        shared.writes.happened(&shared.folder, &error);
    }
}

/// Writes a chunk; answers how many bytes that took.
fn keep(shared: &Shared, version: &Version, offset: u64, bytes: &[u8]) -> u64 {
    let entry = Entry::of(&shared.store, version, shared.chunk_bytes);
    let index = offset / shared.chunk_bytes;
    match try_keep(shared, &entry, index, bytes) {
        Ok(Some(taken)) => {
            shared.writes.passed();
            shared.kept.fetch_add(1, Ordering::Relaxed);
            return taken;
        }
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            shared.complain(&entry, &error.to_string());
            entry.remove(&shared.folder);
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            shared.full.happened(&shared.folder, &error);
        }
        Err(error) => shared.writes.happened(&shared.folder, &error),
    }
    shared.dropped.fetch_add(1, Ordering::Relaxed);
    0
}

fn try_keep(shared: &Shared, entry: &Entry, index: u64, bytes: &[u8]) -> io::Result<Option<u64>> {
    let wanted = entry::on_disk(bytes.len() as u64) + entry::on_disk(1);
    if shared.writes.is_lasting() {
        return Ok(None);
    }
    if !(shared.room)(&shared.lock)?.fits(wanted) {
        shared.full.happened(&shared.folder, &"less than 5 % of its file system is free");
        return Ok(None);
    }
    // A version that does not fit as a whole keeps its first part, rather than pushing itself out over and over.
    if !evict::make_room(shared, wanted, Some(&entry.stem))? {
        return Ok(None);
    }
    let written = entry.write(&shared.folder, index, bytes, shared.clock.now())?;
    if let Some((before, after)) = written.fingerprints {
        shared.verified.note(entry, before, after, index);
    }
    shared.used_bytes.fetch_add(written.taken_bytes, Ordering::Relaxed);
    if written.is_new {
        let freed = entry.remove_others(&shared.folder)?;
        let used = shared.used_bytes.load(Ordering::Relaxed);
        shared.used_bytes.store(used.saturating_sub(freed), Ordering::Relaxed);
    }
    Ok(Some(written.taken_bytes))
}
