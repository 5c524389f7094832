//! Composition root: runtime, store stack, file system, session; drain, then unmount.

mod daemon;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, UNIX_EPOCH};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::{self, advice::advice};
use crate::control;
use crate::data::disk::{self, DiskCache};
use crate::data::journal::{self, Journal};
use crate::data::state::{Leftovers, State};
use crate::data::{self, Data};
use crate::fs::commit::UnsavedFile;
use crate::fs::{self, Fs};
use crate::fuse::{host, session};
use crate::store::limit::Limit;
use crate::store::profile::Profile;
use crate::store::retry::{Retry, RetryConfig};
use crate::store::s3::S3Store;
use crate::store::trace::Trace;
use crate::store::{self, ListPage, ListRequest, Store};
use crate::tree::{Defaults, Place};

use daemon::Running;

/// Parts of one file in flight.
const UPLOADS_AT_ONCE: usize = 8;

/// Memory for content with which one more request may be under way: each has receive buffers of its own besides.
const BYTES_PER_REQUEST: u64 = 2 << 20;

/// Memory that one remembered name takes, as a test measures it. Half of the budget at most goes to names.
const NAME_BYTES: u64 = 200;

/// The part of the memory in which what was read may wait for the cache's disk.
const CACHE_QUEUE_SHARE: u64 = 4;

/// The part of the memory in which the journal sends what waits in it.
const JOURNAL_MEMORY_SHARE: u64 = 8;

/// A file of up to this part of the machine's free memory may be brought into the kernel's page cache as a whole.
const WHOLE_FILE_SHARE: u64 = 4;

/// How long the kernel may take to let go of a mount that was detached.
const DETACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Mounts and serves until the mount is gone; `ready` is called when it can be used. The error is one line.
pub fn run(config: config::Mount, ready: impl FnOnce()) -> Result<(), String> {
    data::budget::set_up_allocator();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let result = runtime.block_on(serve(config, ready));
    // A request that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(config: config::Mount, ready: impl FnOnce()) -> Result<(), String> {
    let profile = Arc::new(Profile::new());
    let endpoint = config.store.endpoint.clone();
    let s3 = S3Store::new(config.store.clone(), config.credentials.clone(), profile.clone());
    let s3 = Arc::new(s3.map_err(|error| error.message)?);
    let retry = RetryConfig { timeout: config.timeout, ..RetryConfig::default() };
    let limit = Arc::new(Limit::new(s3.clone(), config.requests_max.min(affordable_requests(&config))));
    let trace = Arc::new(Trace::new(Arc::new(Retry::new(limit, retry))));
    let root_page = check(&s3, &config.root).await.map_err(|error| advice(&error, &endpoint))?;

    let target = config.target();
    let state_target = target.split('/').next().unwrap_or(&target).to_owned();
    let opened = State::open(&config.state_dir, &endpoint, &state_target);
    let (state, mut leftovers) = opened.map_err(|error| {
        format!("the state folder {} cannot be used: {error}. Choose another with --state", config.state_dir.display())
    })?;
    let state = Arc::new(state);
    let journal = open_journal(&config, trace.clone(), state.clone(), &mut leftovers)?;
    let sending = journal.clone().map(Sending::begin);
    let store = journal.clone().map_or(trace.clone() as Arc<dyn Store>, |journal| Arc::new(journal));
    let data = Data::new(store.clone(), data_config(&config, state, journal.is_some(), &endpoint)?);

    let socket = config.control_dir.join(format!("{}.sock", std::process::id()));
    let (told, invalidations) = mpsc::unbounded_channel();
    let fs_config = fs_config(&config, socket);
    let fs = Arc::new(Fs::new(store, data.clone(), journal.clone(), profile.clone(), fs_config, Clock::system(), told));
    fs.judge_ahead(root_page).await;
    work_off(&config, &fs, &data, leftovers).await;
    let mounted = session::mount(&fs, &config.mountpoint, &config.session, invalidations);
    let mut mounted = mounted.map_err(|error| format!("cannot mount on {}: {error}", config.mountpoint.display()))?;

    let since = Clock::system().now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let running = Arc::new(Running {
        fs,
        data,
        journal,
        timeout: config.timeout,
        trace,
        profile,
        mountpoint: config.mountpoint.clone(),
        target,
        endpoint,
        memory_bytes_max: config.memory_bytes_max,
        since,
        unmounting: AtomicBool::new(false),
    });
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    let listening = control::serve(&config.control_dir, running.clone(), stop.clone(), &connections).await;
    if let Err(error) = listening {
        log::warn!(
            "no control socket in {}: {error}; dreamfs umount and status will not work",
            config.control_dir.display()
        );
    }
    ready();
    tokio::select! {
        () = until_end(&running, &mut mounted, &s3) => {}
        never = running.fs.store_owed() => never,
    }
    mounted.tasks.close();
    mounted.tasks.wait().await;
    let unsaved = running.finish().await;
    if let Some(sending) = sending {
        sending.end(unsaved.is_empty()).await;
    }
    stop.cancel();
    connections.close();
    connections.wait().await;
    report(&unsaved)
}

/// Aborts the uploads of mounts that died and that nobody goes on with, deletes their temporary keys, and finishes the
/// versions that they left unfinished in the background.
async fn work_off(config: &config::Mount, fs: &Arc<Fs>, data: &Data, leftovers: Leftovers) {
    let Leftovers { uploads, temporaries, finishes, .. } = leftovers;
    data.abort_leftovers(uploads).await;
    if config.session.read_only {
        return;
    }
    let (fs, deleting) = (fs.clone(), data.clone());
    data.spawn(async move {
        for (location, record) in temporaries {
            deleting.clone().delete_temporary(location, record).await;
        }
        fs.finish_leftovers(finishes).await;
    });
}

fn data_config(
    config: &config::Mount,
    state: Arc<State>,
    has_journal: bool,
    endpoint: &str,
) -> Result<data::Config, String> {
    let taken_bytes = if has_journal { config.memory_bytes_max / JOURNAL_MEMORY_SHARE } else { 0 };
    Ok(data::Config {
        memory_bytes_max: config.memory_bytes_max - taken_bytes,
        state,
        limits: config.limits,
        uploads_at_once: UPLOADS_AT_ONCE,
        journaled: config.journal.is_some(),
        stage_bytes_max: config.stage_bytes_max,
        disk: config.cache.as_ref().map(|cache| open_cache(cache, config, endpoint)).transpose()?,
    })
}

/// Opens the journal, if the mount is to have one or a former one left changes in it. It goes on with uploads of theirs.
fn open_journal(
    config: &config::Mount,
    store: Arc<dyn Store>,
    state: Arc<State>,
    leftovers: &mut Leftovers,
) -> Result<Option<Journal>, String> {
    if config.session.read_only {
        // Those of a journal wait for a mount that may store what is in it.
        leftovers.uploads.retain(|upload| upload.plan.is_none());
        return Ok(None);
    }
    let journal_config = journal::Config {
        accepts: config.journal.is_some(),
        sync: config.journal.is_some_and(|journal| journal.sync),
        bytes_max: config.stage_bytes_max,
        memory_bytes_max: config.memory_bytes_max / JOURNAL_MEMORY_SHARE,
        requests_max: config.requests_max.get(),
        limits: config.limits,
        state,
        clock: Clock::system(),
        host_name: host::name(),
    };
    let opened = Journal::open(store, journal_config, std::mem::take(&mut leftovers.journals));
    let journal = opened.map_err(|error| {
        format!(
            "the journal in {} cannot be used: {error}. Choose another place with --state",
            config.state_dir.display()
        )
    })?;
    leftovers.uploads = journal.go_on_with(std::mem::take(&mut leftovers.uploads));
    Ok(Some(journal).filter(|journal| config.journal.is_some() || !journal.left().is_empty()))
}

/// The task that carries the journal's changes out.
struct Sending {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Sending {
    fn begin(journal: Journal) -> Self {
        let stop = CancellationToken::new();
        Sending { task: tokio::spawn(journal.run(stop.clone())), stop }
    }

    /// Ends it. If something is left, the store is silent, and what is under way is not waited for any longer: the next
    /// mount finds out what became of it.
    async fn end(self, all_stored: bool) {
        self.stop.cancel();
        if !all_stored {
            self.task.abort();
        }
        if let Err(error) = self.task.await
            && !error.is_cancelled()
        {
            log::error!("the journal's sender failed: {error}");
        }
    }
}

fn affordable_requests(config: &config::Mount) -> NonZeroUsize {
    let affordable = usize::try_from(config.memory_bytes_max / BYTES_PER_REQUEST).unwrap_or(usize::MAX);
    NonZeroUsize::new(affordable).unwrap_or(NonZeroUsize::MIN)
}

fn open_cache(cache: &config::Cache, config: &config::Mount, endpoint: &str) -> Result<DiskCache, String> {
    let disk_config = disk::Config {
        folder: &cache.dir,
        bytes_max: cache.bytes_max,
        store: endpoint,
        queue_bytes_max: config.memory_bytes_max / CACHE_QUEUE_SHARE,
    };
    DiskCache::open(disk_config).map_err(|error| {
        format!("the cache folder {} cannot be used: {error}. Choose another with --cache", cache.dir.display())
    })
}

/// The first request: whether the store answers, takes the keys and has the bucket, and what lies there.
async fn check(s3: &S3Store, root: &Place) -> store::Result<Option<ListPage>> {
    match root {
        Place::Directory { bucket, prefix } => {
            let prefix = prefix.as_str().to_owned();
            s3.list(bucket, &ListRequest { prefix, delimited: true, ..ListRequest::default() }).await.map(Some)
        }
        _ => s3.list_buckets().await.map(|_| None),
    }
}

fn fs_config(config: &config::Mount, socket: PathBuf) -> fs::Config {
    let defaults = Defaults {
        uid: config.uid,
        gid: config.gid,
        file_mode: config.file_mode,
        dir_mode: config.dir_mode,
        dir_time: Clock::system().now(),
    };
    fs::Config {
        root: config.root.clone(),
        defaults,
        read_only: config.session.read_only,
        bucket_ops: config.bucket_ops,
        attrs: config.attrs,
        markers: config.markers,
        versions: config.versions,
        ttl: config.ttl,
        acl: config.acl.clone(),
        storage_class: config.storage_class.clone(),
        encryption: config.encryption.clone(),
        requests_max: config.requests_max.get(),
        whole_file_bytes_max: host::available_memory_bytes() / WHOLE_FILE_SHARE,
        names_max: usize::try_from(config.memory_bytes_max / 2 / NAME_BYTES)
            .unwrap_or(usize::MAX)
            .min(config.names_max),
        host_name: host::name(),
        daemon_uid: host::effective_uid(),
        socket,
    }
}

/// Waits until the kernel has let go of the mount, or a signal asks for the end.
async fn until_end(running: &Running, mounted: &mut session::Mounted, s3: &S3Store) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        return mounted.ended().await;
    };
    loop {
        tokio::select! {
            () = mounted.ended() => return,
            _ = hangup.recv() => match s3.reload_credentials().await {
                Ok(changed) => log::info!("credentials read again; {}", if changed { "they are new" } else { "unchanged" }),
                Err(error) => log::warn!("credentials cannot be read again: {error}"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    log::info!("asked to end: storing what is closed");
    for file in running.fs.drain().await {
        log::warn!("{}: open and not stored", file.path);
    }
    for file in running.fs.park_unsaved() {
        let place = file.parked.map_or_else(|| "nowhere".to_owned(), |path| path.display().to_string());
        log::error!("{}: not stored; its {} bytes lie in {place}", file.path, file.size_bytes);
    }
    if let Err(error) = host::unmount(&running.mountpoint, true) {
        log::warn!("{} cannot be unmounted: {error}", running.mountpoint.display());
    }
    // A process that still holds a file open keeps the detached mount; it does not keep us.
    let _ = tokio::time::timeout(DETACH_TIMEOUT, mounted.ended()).await;
}

/// The end of a mount: an error if anything is not stored.
fn report(unsaved: &[UnsavedFile]) -> Result<(), String> {
    match unsaved {
        [] => Ok(()),
        [first, ..] => {
            let place = first.parked.as_ref().map_or_else(|| "nowhere".to_owned(), |path| path.display().to_string());
            let count = unsaved.len();
            Err(format!("{count} files are not stored, first {}; its bytes lie in {place}", first.path))
        }
    }
}
