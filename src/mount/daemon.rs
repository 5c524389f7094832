//! A running mount as the control socket sees it: what it consists of, its status, its drain, its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::control::{self, Daemon, Link, Progress, Status, UnmountError, Unsaved};
use crate::data::journal::{self, Journal};
use crate::data::{Data, UploadState};
use crate::fs::Fs;
use crate::fs::commit::UnsavedFile;
use crate::fuse::host;
use crate::store::PresignRequest;
use crate::store::profile::Profile;
use crate::store::trace::Trace;

/// What a running mount consists of.
pub(super) struct Running {
    pub(super) fs: Arc<Fs>,
    pub(super) data: Data,
    pub(super) journal: Option<Journal>,
    pub(super) timeout: Duration,
    pub(super) trace: Arc<Trace>,
    pub(super) profile: Arc<Profile>,
    pub(super) mountpoint: PathBuf,
    pub(super) target: String,
    pub(super) endpoint: String,
    pub(super) memory_bytes_max: u64,
    pub(super) since: u64,
    pub(super) unmounting: AtomicBool,
}

impl Running {
    fn reading(&self) -> control::Reading {
        let cache = self.data.cache();
        let (counters, pace) = (cache.counters(), cache.pace());
        control::Reading {
            asked_bytes: counters.asked_bytes.load(Ordering::Relaxed),
            fetched_bytes: counters.fetched_bytes.load(Ordering::Relaxed),
            wasted_bytes: counters.wasted_bytes.load(Ordering::Relaxed),
            hits: counters.hits.load(Ordering::Relaxed),
            hedges: counters.hedges.load(Ordering::Relaxed),
            delay_us: u64::try_from(pace.delay().as_micros()).unwrap_or(u64::MAX),
            bytes_per_second: pace.bytes_per_second() as u64,
        }
    }

    /// Stores what can be stored, and parks the rest.
    pub(super) async fn finish(&self) -> Vec<UnsavedFile> {
        self.fs.drain().await;
        if let Some(journal) = &self.journal {
            journal.drain(self.timeout, |_| ()).await;
        }
        let parked = self.fs.park_unsaved();
        let journaled = self.fs.unsaved().into_iter().filter(|file| file.parked.is_some());
        parked.into_iter().chain(journaled).chain(self.fs.unsaved_attributes()).collect()
    }
}

/// An unsaved file as the control socket tells it.
fn told(file: UnsavedFile) -> Unsaved {
    Unsaved { path: file.path.into(), state: file.state.to_string(), bytes: file.size_bytes, staged: file.parked }
}

#[async_trait]
impl Daemon for Running {
    fn status(&self) -> Status {
        let counts = self.trace.snapshot();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mountpoint: self.mountpoint.clone(),
            target: self.target.clone(),
            endpoint: self.endpoint.clone(),
            pid: std::process::id(),
            since: self.since,
            store: format!("{:?}", self.profile.family()),
            errors: counts.operations.values().flat_map(|counts| counts.errors.values()).sum(),
            requests: counts.operations.into_iter().map(|(name, counts)| (name, counts.requests)).collect(),
            bytes_up: counts.up_bytes,
            bytes_down: counts.down_bytes,
            puts_with_acl: counts.puts_with_acl_header,
            open_files: self.fs.open_handles(),
            unsaved: self.fs.unsaved().into_iter().map(told).collect(),
            reading: self.reading(),
            memory_bytes: self.data.budget().used_bytes(),
            memory_bytes_max: self.memory_bytes_max,
            hidden_keys: self.fs.hidden_keys(),
            names: self.fs.names(),
        }
    }

    async fn drain(&self, report: mpsc::Sender<Progress>) -> Result<(), Vec<Unsaved>> {
        let left = self.fs.unsaved();
        let bytes_left = left.iter().map(|file| file.size_bytes).sum();
        let progress = Progress { files_left: left.len() as u64, bytes_left, message: None };
        // Whoever asked may have gone; the drain goes on.
        let _ = report.send(progress).await;
        self.fs.drain().await;
        if let Some(journal) = &self.journal {
            let told = |left: journal::Progress| {
                let progress = Progress { files_left: left.changes, bytes_left: left.bytes, message: left.failure };
                // One that finds no room is followed by others.
                let _ = report.try_send(progress);
            };
            journal.drain(self.timeout, told).await;
        }
        let is_left = |file: &UnsavedFile| matches!(file.state, UploadState::Failed { .. }) || file.parked.is_some();
        let failed = self.fs.unsaved().into_iter().filter(is_left);
        let failed: Vec<Unsaved> = failed.map(told).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    async fn link(&self, wanted: Link) -> Result<String, String> {
        let Link { location, method, seconds, download_name } = wanted;
        let request = PresignRequest { location, method, expires: Duration::from_secs(seconds), download_name };
        self.fs.link(&request).await.map_err(|error| error.to_string())
    }

    async fn unmount(&self, force: bool) -> Result<(), UnmountError> {
        if self.unmounting.swap(true, Ordering::Relaxed) {
            return Err(UnmountError::Failed("it is being unmounted already".to_owned()));
        }
        let mountpoint = self.mountpoint.clone();
        let done = tokio::task::spawn_blocking(move || match host::unmount(&mountpoint, force) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                Err(UnmountError::Busy(host::processes_using(&mountpoint)))
            }
            other => other.map_err(|error| UnmountError::Failed(error.to_string())),
        });
        let result = done.await.unwrap_or_else(|_| Err(UnmountError::Failed("it failed inside".to_owned())));
        if result.is_err() {
            self.unmounting.store(false, Ordering::Relaxed);
        }
        result
    }
}
