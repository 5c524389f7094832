//! Waiting until names are settled, and what is left.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::data::UploadState;
use crate::error::{Error, Result};
use crate::store::{self, AclHeaders, Kind, Location, Tags};

use super::queue::Op;
use super::{Inner, Journal};

/// A change that the store does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its name.
    pub name: Location,
    /// How far it is.
    pub state: UploadState,
    /// How many bytes it brings.
    pub bytes: u64,
}

/// How much is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Changes.
    pub changes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why one of them could not be carried out so far.
    pub failure: Option<String>,
}

impl Journal {
    /// Waits until nothing waits under names that are `wanted`; what failed before is tried again at once. The error
    /// is the first that is met on the way.
    pub async fn settle(&self, wanted: impl Fn(&Location) -> bool) -> Result<()> {
        self.inner.settle(wanted).await.map_err(Error::from)
    }

    /// How far a name's present content is stored; `None` if nothing of it waits here.
    pub fn state(&self, name: &Location) -> Option<UploadState> {
        self.inner.lock().queue.last(name).map(state_of)
    }

    /// The ACL that a name has once it is stored, if that waits here: what rides on the request that stores it.
    pub fn riding_acl(&self, name: &Location) -> Option<Option<AclHeaders>> {
        let book = self.inner.lock();
        book.queue.last(name)?.record.pending().map(|pending| pending.headers.acl.clone())
    }

    /// The tags with which a name waits to be stored, where the change tells them.
    pub fn riding_tags(&self, name: &Location) -> Option<Tags> {
        let book = self.inner.lock();
        let tags = book.queue.last(name)?.record.pending().map(|pending| pending.headers.tags.clone());
        tags.filter(|tags| *tags != Tags::Untold)
    }

    /// Where the bytes of a name are that lost a race, if the name did in this mount.
    pub fn conflict(&self, name: &Location) -> Option<String> {
        self.inner.lock().conflicts.get(name).cloned()
    }

    /// Where what is left lies on the local disk.
    pub fn folder(&self) -> PathBuf {
        self.inner.config.state.journal_folder()
    }

    /// All that is left, in order.
    pub fn left(&self) -> Vec<Left> {
        let book = self.inner.lock();
        let left = book.queue.iter().map(|op| Left {
            name: op.record.to.clone(),
            state: state_of(op),
            bytes: op.record.pending().map_or(0, |pending| pending.size_bytes()),
        });
        left.collect()
    }

    /// Carries out all that is left, and tells how far it is; gives up when nothing was carried out for so long.
    pub async fn drain(&self, silence_max: Duration, mut report: impl FnMut(Progress)) {
        self.inner.lock().queue.wake(|_| true);
        self.inner.kick.notify_one();
        let mut changed = self.inner.changed.subscribe();
        let (mut fewest, mut until) = (usize::MAX, Instant::now() + silence_max);
        loop {
            let progress = self.inner.progress();
            let changes = progress.changes as usize;
            report(progress);
            if changes == 0 {
                return;
            }
            if changes < fewest {
                (fewest, until) = (changes, Instant::now() + silence_max);
            }
            // The sender is ours, so this ends by a change or the time.
            if timeout_at(until, changed.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Inner {
    /// Names that are wanted, and what they wait for, rest no longer.
    fn wake_what_holds_back(&self, last: u64, wanted: &impl Fn(&Location) -> bool) {
        let mut book = self.lock();
        let behind = book.queue.iter().filter(|op| op.record.after_closes && wanted(&op.record.to));
        let behind = behind.map(|op| op.record.order).filter(|order| *order < last).last();
        book.queue.wake(|op| {
            let order = op.record.order;
            let before = op.record.is_close() && behind.is_some_and(|behind| order < behind);
            before || order < last && op.record.names().into_iter().any(wanted)
        });
        drop(book);
        self.kick.notify_one();
    }

    fn progress(&self) -> Progress {
        let book = self.lock();
        let mut progress = Progress { changes: book.queue.len() as u64, ..Progress::default() };
        for op in book.queue.iter() {
            progress.bytes += op.record.pending().map_or(0, |pending| pending.size_bytes());
            if let (None, Some((reason, _))) = (&progress.failure, &op.failure) {
                progress.failure = Some(format!("{}: {reason}", op.record.to));
            }
        }
        progress
    }

    /// The same for one name.
    pub(super) async fn settle_name(&self, name: &Location) -> store::Result<()> {
        self.settle(|one| one == name).await
    }

    pub(super) async fn settle(&self, wanted: impl Fn(&Location) -> bool) -> store::Result<()> {
        let mut changed = self.changed.subscribe();
        let mut failed_before: Option<HashMap<u64, u32>> = None;
        // Only what was there at the beginning: a busy mount would be waited for without an end.
        let last = self.lock().next_order;
        self.wake_what_holds_back(last, &wanted);
        loop {
            {
                let book = self.lock();
                let waiting: Vec<&Op> =
                    book.queue.iter().filter(|op| op.record.order < last && wanted(&op.record.to)).collect();
                let Some(latest) = waiting.last().map(|op| op.record.order) else { return Ok(()) };
                let after_closes = waiting.iter().any(|op| op.record.after_closes);
                // What holds these back counts too.
                let in_the_way = book.queue.iter().filter(|op| {
                    wanted(&op.record.to)
                        || after_closes && op.record.order < latest && op.record.is_close() && !op.refused
                });
                let failures: HashMap<u64, u32> = in_the_way
                    .filter_map(|op| op.failure.as_ref().map(|(_, times)| (op.record.order, *times)))
                    .collect();
                let before = failed_before.get_or_insert_with(|| failures.clone());
                let new = failures.iter().find(|(order, times)| before.get(order).is_none_or(|known| known < times));
                if let Some((order, _)) = new {
                    return Err(failure(book.queue.iter().find(|op| op.record.order == *order)));
                }
            }
            // The sender is ours.
            let _ = changed.changed().await;
        }
    }
}

fn failure(op: Option<&Op>) -> store::Error {
    let (name, reason) = match op {
        Some(Op { record, failure: Some((reason, _)), .. }) => (record.to.to_string(), reason.clone()),
        _ => (String::new(), "not stored".to_owned()),
    };
    store::Error::new(Kind::ServerError, "Journal", name, reason)
}

fn state_of(op: &Op) -> UploadState {
    match (&op.failure, op.started) {
        (Some((reason, _)), false) => UploadState::Failed { reason: reason.clone() },
        (_, true) => {
            let all = op.record.pending().map_or(0, |pending| pending.size_bytes()).max(1);
            let percent = op.stored_bytes.load(Ordering::Relaxed) * 100 / all;
            UploadState::Uploading { percent: percent.min(100) as u8 }
        }
        (None, false) => UploadState::Pending,
    }
}
