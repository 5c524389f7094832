//! Small files ahead of their readers: where files are opened in an order that is known (`tar`, `cp -r`, `grep -r`), the
//! next ones are fetched whole and at once. What comes waits in the cache, held here by a file that nobody has opened
//! yet; an open takes it over if it is still the version that the name stands for.
//!
//! Which ones, and how many, is decided in [`super::sequence`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::data::readahead::WHOLE_BYTES_MAX;
use crate::error::Result;
use crate::store::ObjectHead;
use crate::tree::{FileKind, Ino, Order};

use super::Fs;
use super::files::OpenFile;
use super::sequence::{Record, Sequence};

/// Sequences that are told apart.
const SEQUENCES_MAX: usize = 6;

/// What nobody has opened for so long was fetched in vain.
const HELD_MAX: Duration = Duration::from_secs(30);

/// A file that was fetched ahead.
struct Held {
    file: Arc<OpenFile>,
    since: Instant,
    size_bytes: u64,
}

/// What is expected to be opened.
#[derive(Default)]
pub(super) struct Ahead(Mutex<State>);

#[derive(Default)]
struct State {
    /// The latest at the end.
    sequences: VecDeque<Sequence>,
    held: HashMap<Ino, Held>,
    held_bytes: u64,
    record: Record,
}

impl State {
    fn take(&mut self, ino: Ino) -> Option<Held> {
        let held = self.held.remove(&ino)?;
        self.held_bytes -= held.size_bytes;
        Some(held)
    }

    /// Takes out what was fetched in vain.
    fn take_missed(&mut self) -> Vec<Held> {
        let old = self.held.iter().filter(|(_, held)| held.since.elapsed() > HELD_MAX);
        let old: Vec<Ino> = old.map(|(ino, _)| *ino).collect();
        let missed: Vec<Held> = old.into_iter().filter_map(|ino| self.take(ino)).collect();
        self.record.missed_bytes += missed.iter().map(|held| held.size_bytes).sum::<u64>();
        missed
    }

    /// Comes to a file, maybe in a walk; the sequence that it goes on with, or may begin, is the last one then.
    fn come_to(&mut self, ino: Ino, walking: bool) {
        let found = self.sequences.iter_mut().rposition(|sequence| sequence.goes_on_with(ino));
        match found.and_then(|at| self.sequences.remove(at)) {
            Some(sequence) => self.sequences.push_back(sequence),
            None => {
                self.sequences.iter_mut().for_each(Sequence::doubt);
                let begin = if walking { Sequence::of_walk } else { Sequence::new };
                self.sequences.extend([Order::Number, Order::Name].map(|order| begin(ino, order)));
            }
        }
        let surplus = self.sequences.len().saturating_sub(SEQUENCES_MAX);
        self.sequences.drain(..surplus);
    }
}

impl Ahead {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic under this lock")
    }
}

impl Fs {
    /// A file is opened for reading: fetches those that will be opened next.
    pub(super) fn expect_next(self: &Arc<Self>, ino: Ino) {
        if self.config.ttl.is_zero() {
            // Every open is to ask the store.
            return;
        }
        let parent = self.tree.read(ino, |inode| inode.parent_and_name().0);
        let walking = parent.is_some_and(|parent| self.walks.are_in(parent));
        let mut state = self.ahead.lock();
        let missed = state.take_missed();
        let size_bytes = self.tree.read(ino, |inode| inode.attr.size_bytes).unwrap_or(0);
        state.record.opened_bytes += if size_bytes <= WHOLE_BYTES_MAX { size_bytes } else { 0 };
        state.come_to(ino, walking);
        for sequence in state.sequences.iter_mut().rev().take(2) {
            let (after, order, count) = sequence.lacks();
            sequence.extend(self.tree.files_after(after, order, count));
        }
        let wanted: Vec<Ino> = state.sequences.back().into_iter().flat_map(Sequence::wanted).collect();
        let bytes_max = state.record.ahead_bytes_max(self.data.budget().bytes_max());
        for ino in wanted {
            let Some(size_bytes) = self.missing_bytes(ino).filter(|_| !state.held.contains_key(&ino)) else { continue };
            if state.held_bytes + size_bytes > bytes_max {
                break;
            }
            // What cannot be opened will say so to whoever opens it.
            let Ok(file) = self.file_of(ino) else { continue };
            state.held_bytes += size_bytes;
            if let Some(warming) = file.bytes.warming() {
                self.data.spawn(self.clone().bring_ahead(ino, warming));
            }
            state.held.insert(ino, Held { file, since: Instant::now(), size_bytes });
        }
        drop(state);
        missed.into_iter().for_each(|held| self.files.remove_unused(held.file));
    }

    /// The length of a small file whose bytes neither we nor the kernel have, if its version is known for sure.
    fn missing_bytes(&self, ino: Ino) -> Option<u64> {
        if !self.is_fresh(ino) {
            return None;
        }
        let small = self.tree.read(ino, |inode| {
            let object = inode.object.as_ref().filter(|object| (1..=WHOLE_BYTES_MAX).contains(&object.size_bytes))?;
            let elsewhere = inode.local || inode.handles() > 0 || inode.pages.as_ref() == Some(&object.etag);
            (!elsewhere && inode.attr.kind == FileKind::File).then_some(object.size_bytes)
        });
        small.flatten()
    }

    /// Whether an inode's attributes may still be believed.
    fn is_fresh(&self, ino: Ino) -> bool {
        self.tree.entry(ino).is_some_and(|entry| !entry.ttl.is_zero())
    }

    /// Does not keep the file: whoever opens it must see whether somebody else has.
    async fn bring_ahead(self: Arc<Self>, ino: Ino, warming: impl Future<Output = Result<Option<ObjectHead>>>) {
        if !self.ahead.lock().held.contains_key(&ino) {
            // Whoever has opened it meanwhile fetches it himself.
            return;
        }
        match warming.await {
            // Old news would count as fresh where somebody asked to forget what is known.
            Ok(Some(head)) if self.is_fresh(ino) => self.learn_head(ino, &head),
            Ok(_) => {}
            Err(error) => log::debug!("{}: not fetched ahead: {error}", self.path(ino)),
        }
    }

    /// Gives up a file that was fetched ahead to whoever opens it; where its version is no longer known to be the
    /// present one, it is opened anew.
    pub(super) fn take_ahead(&self, ino: Ino) {
        let Some(held) = self.ahead.lock().take(ino) else { return };
        let etag = held.file.bytes.version().map(|version| version.etag);
        let present = self.tree.read(ino, |inode| inode.object.as_ref().map(|object| &object.etag) == etag.as_ref());
        if present != Some(true) || !self.is_fresh(ino) {
            self.ahead.lock().record.missed_bytes += held.size_bytes;
            self.files.remove_unused(held.file);
        }
    }
}
