//! What the cache's disk can bear: room that stays free, and failures that are told once and end in doing without.
//! Refuses to pass a failure on: nothing here is an error of the one who reads.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The part of the file system that stays free: one in so many bytes.
const FREE_PART: u64 = 20;

/// Failures in a row after which a disk is left alone until the next mount: each may cost seconds.
const FAILURES_MAX: u32 = 8;

/// How full a file system is.
#[derive(Clone, Copy, Debug)]
pub(in crate::data) struct Room {
    /// Its size in bytes.
    pub(super) total: u64,
    /// What may still be written by us.
    pub(super) available: u64,
}

impl Room {
    /// Whether so many bytes can be written and enough stays free.
    pub(in crate::data) fn fits(&self, bytes: u64) -> bool {
        self.available.saturating_sub(bytes) >= self.total / FREE_PART
    }
}

/// Asks for the room on the file system of a file; tests have their own answers.
pub(super) type AskRoom = Box<dyn Fn(&File) -> io::Result<Room> + Send + Sync>;

/// Asks the file system that holds a file.
pub(in crate::data) fn room(file: &File) -> io::Result<Room> {
    let told = rustix::fs::fstatvfs(file)?;
    Ok(Room {
        total: told.f_blocks.saturating_mul(told.f_frsize),
        available: told.f_bavail.saturating_mul(told.f_frsize),
    })
}

/// One kind of failure.
pub(super) struct Trouble {
    what: &'static str,
    told: AtomicBool,
    in_a_row: AtomicU32,
}

impl Trouble {
    pub(super) fn new(what: &'static str) -> Self {
        Trouble { what, told: AtomicBool::new(false), in_a_row: AtomicU32::new(0) }
    }

    /// It happened: the first time it is told.
    pub(super) fn happened(&self, folder: &Path, why: &dyn std::fmt::Display) {
        self.in_a_row.fetch_add(1, Ordering::Relaxed);
        let level = if self.told.swap(true, Ordering::Relaxed) { log::Level::Debug } else { log::Level::Warn };
        log::log!(level, "the cache {} {}: {why}; the store is asked instead", folder.display(), self.what);
    }

    /// It went well.
    pub(super) fn passed(&self) {
        if !self.is_lasting() {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Whether there is no use in trying.
    pub(super) fn is_lasting(&self) -> bool {
        self.in_a_row.load(Ordering::Relaxed) >= FAILURES_MAX
    }
}
