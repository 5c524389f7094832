//! The wall clock behind a handle, so that tests can set it. Durations are measured with `Instant` elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time of day.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    fixed_ns: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Clock::default()
    }

    /// A clock that stands at `time` until [`Clock::advance`].
    pub fn fixed(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { fixed_ns: Some(Arc::new(AtomicU64::new(since.as_nanos() as u64))) }
    }

    /// Moves a fixed clock on; the system's clock is not ours to move.
    pub fn advance(&self, by: Duration) {
        if let Some(ns) = &self.fixed_ns {
            ns.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// What time it is.
    pub fn now(&self) -> SystemTime {
        match &self.fixed_ns {
            Some(ns) => UNIX_EPOCH + Duration::from_nanos(ns.load(Ordering::Relaxed)),
            None => SystemTime::now(),
        }
    }
}
