//! Signs of life: what the time limit of a request counts from.
//!
//! The limit runs from the last answer or byte that the store gave. [`crate::store::retry`] keeps the watch, but it
//! cannot see what happens below it: that a request waits in the queue of [`crate::store::limit`] while the store is
//! busy answering others, or that the bytes of a slow upload still move. Whoever sees it tells the [`Watch`] of the
//! running request, found by [`current`]. Nothing here knows requests or kinds of stores.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::store::Kind;

tokio::task_local! {
    static WATCH: Arc<Watch>;
}

/// When something last showed life.
#[derive(Debug)]
pub struct Heartbeat(Mutex<Instant>);

impl Default for Heartbeat {
    fn default() -> Self {
        Heartbeat(Mutex::new(Instant::now()))
    }
}

impl Heartbeat {
    /// It is alive now.
    pub fn beat(&self) {
        self.raise(Instant::now());
    }

    /// When it was last alive.
    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self, to: Instant) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = to.max(*last);
    }
}

/// The watch over one request, its repetitions included.
#[derive(Debug, Default)]
pub struct Watch {
    own: Heartbeat,
    queue: Mutex<Option<Arc<Heartbeat>>>,
}

impl Watch {
    /// The store gave a byte or an answer, or took bytes of an upload.
    pub fn beat(&self) {
        self.own.beat();
    }

    /// When the store last showed life to this request, or to others while this one stands in the queue.
    pub fn last(&self) -> Instant {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|queue| queue.last());
        queue.map_or(self.own.last(), |queue| queue.max(self.own.last()))
    }

    /// Runs `request` under this watch; `None` when the store showed no life for `silence_max`.
    pub async fn run<T>(self: &Arc<Self>, silence_max: Duration, request: impl Future<Output = T>) -> Option<T> {
        let mut request = std::pin::pin!(WATCH.scope(self.clone(), request));
        loop {
            let deadline = self.last() + silence_max;
            match timeout_at(deadline, &mut request).await {
                Ok(done) => return Some(done),
                Err(_) if self.last() + silence_max > deadline => {}
                Err(_) => return None,
            }
        }
    }

    fn enqueue(&self, queue: Option<Arc<Heartbeat>>) -> Option<Arc<Heartbeat>> {
        std::mem::replace(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), queue)
    }
}

/// The watch that this task's request runs under, if any.
pub fn current() -> Option<Arc<Watch>> {
    WATCH.try_with(Arc::clone).ok()
}

/// Waits in a queue. Meanwhile the life that the store shows to those who are served counts for the one who waits.
pub async fn queued<T>(queue: &Arc<Heartbeat>, waiting: impl Future<Output = T>) -> T {
    let _place = current().map(|watch| {
        watch.enqueue(Some(queue.clone()));
        Place(watch)
    });
    waiting.await
}

/// A place in a queue, left when dropped.
struct Place(Arc<Watch>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(queue) = self.0.enqueue(None) {
            self.0.own.raise(queue.last());
        }
    }
}

/// Whether this error is the store's own word, rather than silence or a transport's complaint.
pub fn is_answer(kind: Kind) -> bool {
    use Kind::{Interrupted, TimedOut, Unreachable, Unresolvable, UntrustedCertificate};
    !matches!(kind, Interrupted | TimedOut | Unreachable | Unresolvable | UntrustedCertificate)
}
