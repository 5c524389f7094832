//! The suite over the store in memory, over each decorator, and over the whole stack.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use dreamfs::clock::Clock;
use dreamfs::data::Limits;
use dreamfs::data::journal::{self, Journal};
use dreamfs::data::state::State;
use dreamfs::store::fault::{Failure, Fault, Rule, When};
use dreamfs::store::limit::Limit;
use dreamfs::store::memory::{MemoryLimits, MemoryStore};
use dreamfs::store::retry::{Retry, RetryConfig};
use dreamfs::store::trace::Trace;
use dreamfs::store::{Store, operation};
use tokio_util::sync::CancellationToken;

use super::{Expectations, run_all};

/// Smaller than S3's, so that the suite over memory moves kilobytes.
const PART_BYTES_MIN: usize = 100_000;

fn memory() -> Arc<dyn Store> {
    let limits = MemoryLimits { part_bytes_min: PART_BYTES_MIN, ..MemoryLimits::default() };
    Arc::new(MemoryStore::with_limits(Clock::system(), limits))
}

fn expectations() -> Expectations {
    Expectations { appends: true, part_bytes_min: PART_BYTES_MIN, ..Expectations::default() }
}

fn requests_max(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

#[tokio::test]
async fn memory_alone() {
    run_all(memory(), expectations()).await;
}

#[tokio::test]
async fn memory_with_the_limits_of_s3() {
    run_all(Arc::new(MemoryStore::new(Clock::system())), Expectations { appends: true, ..Expectations::default() })
        .await;
}

#[tokio::test]
async fn trace_over_memory() {
    let trace = Arc::new(Trace::new(memory()));
    run_all(trace.clone(), expectations()).await;
    let counts = trace.counts();
    assert_eq!(counts.len(), 26, "every operation was asked for: {counts:?}");
    assert!(trace.puts_with_acl_header() > 0);
}

#[tokio::test]
async fn retry_over_memory() {
    run_all(Arc::new(Retry::new(memory(), RetryConfig::default())), expectations()).await;
}

/// One permit: a body that is not let go would stop the suite.
#[tokio::test]
async fn limit_over_memory() {
    let limit = Arc::new(Limit::new(memory(), requests_max(1)));
    run_all(limit.clone(), expectations()).await;
    assert_eq!(limit.free(), 1);
}

#[tokio::test]
async fn quiet_faults_over_memory() {
    let fault = Arc::new(Fault::new(memory(), 1, vec![]));
    run_all(fault.clone(), expectations()).await;
    assert_eq!(fault.injected(), 0);
}

#[tokio::test]
async fn whole_stack() {
    let limit = Arc::new(Limit::new(memory(), requests_max(4)));
    let retry = Arc::new(Retry::new(limit, RetryConfig::default()));
    run_all(Arc::new(Trace::new(retry)), expectations()).await;
}

/// Operations that may be repeated after any transient error.
const REPEATABLE: [&str; 15] = [
    operation::LIST_BUCKETS,
    operation::DELETE_BUCKET,
    operation::HEAD_BUCKET,
    operation::LIST_OBJECTS,
    operation::HEAD_OBJECT,
    operation::GET_OBJECT,
    operation::COPY_OBJECT,
    operation::DELETE_OBJECT,
    operation::DELETE_OBJECTS,
    operation::CREATE_MULTIPART_UPLOAD,
    operation::UPLOAD_PART,
    operation::UPLOAD_PART_COPY,
    operation::ABORT_MULTIPART_UPLOAD,
    operation::GET_ACL,
    operation::PUT_ACL,
];

fn noise() -> Vec<Rule> {
    let rule = |operation, chance, failure| Rule { operation, when: When::Chance(chance), failure };
    let cuts = [0, 1, 70_000].map(|bytes| rule(Some(operation::GET_OBJECT), 0.1, Failure::CutBody(bytes)));
    let repeatable = REPEATABLE.into_iter().flat_map(|name| {
        let failures = [Failure::DoneThenFailed, Failure::ServerError];
        failures.map(|failure| rule(Some(name), 0.08, failure))
    });
    // After a server error retry takes a bucket that is missing for one that it deleted: right for the caller, who
    // wants it gone, but the suite deletes a missing one to see the refusal.
    let repeatable = repeatable
        .filter(|rule| rule.operation != Some(operation::DELETE_BUCKET) || rule.failure != Failure::ServerError);
    let any = [Failure::Refuse, Failure::Slow(Duration::from_secs(5))].map(|failure| rule(None, 0.1, failure));
    cuts.into_iter().chain(repeatable).chain(any).collect()
}

/// What the module of faults says must be survived is survived, whatever the seed.
#[tokio::test(start_paused = true)]
async fn retry_survives_noise() {
    for seed in 0..10 {
        println!("seed {seed}");
        let fault = Arc::new(Fault::new(memory(), seed, noise()));
        let limit = Arc::new(Limit::new(fault.clone(), requests_max(2)));
        run_all(Arc::new(Retry::new(limit, RetryConfig::default())), expectations()).await;
        assert!(fault.injected() > 100, "seed {seed}: {}", fault.injected());
    }
}

/// What is asked right after a change is answered as if the store had carried it out.
#[tokio::test]
async fn journal_over_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (state, _) = State::open(folder.path(), "memory", "bucket").unwrap();
    let limits =
        Limits { part_bytes_min: PART_BYTES_MIN as u64, part_bytes: PART_BYTES_MIN as u64, ..Limits::default() };
    let config = journal::Config {
        accepts: true,
        sync: false,
        bytes_max: 1 << 30,
        memory_bytes_max: 16 << 20,
        requests_max: 4,
        limits,
        state: Arc::new(state),
        clock: Clock::system(),
        host_name: "here".to_owned(),
    };
    let store = memory();
    let journal = Journal::open(store.clone(), config, Vec::new()).unwrap();
    let stop = CancellationToken::new();
    let sending = tokio::spawn(journal.clone().run(stop.clone()));
    let expectations =
        Expectations { deferred: true, appends: false, metadata_bound: false, strict_uploads: false, ..expectations() };
    run_all(Arc::new(journal.clone()), expectations).await;
    journal.drain(Duration::from_secs(60), |_| ()).await;
    assert_eq!(journal.left(), []);
    stop.cancel();
    sending.await.unwrap();
}
