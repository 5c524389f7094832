//! `dreamfs purge`: deletes a bucket with all that it holds, also what a mount cannot show: old versions, keys that no
//! path can name, uploads under way.
//!
//! It refuses to begin unless somebody at a terminal agrees, or `--yes` stands on the command line.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::args::Purge;
use super::{complain, text};
use crate::config::advice::advice;
use crate::config::{self, Environment};
use crate::store::limit::Limit;
use crate::store::profile::Profile;
use crate::store::retry::{Retry, RetryConfig};
use crate::store::s3::S3Store;
use crate::store::versions::{UploadsPage, VersionFailure, VersionsPage, VersionsRequest};
use crate::store::{BucketName, Error, Key, Kind, Location, Store};

/// Batches of deletions on their way at once: the store works on a thousand keys for each.
const BATCHES_AT_ONCE: usize = 4;

/// How often all is listed again, because somebody stored something meanwhile.
const ROUNDS_MAX: u32 = 3;

/// Failures that are shown one by one.
const FAILURES_SHOWN_MAX: usize = 10;

/// Runs the command.
pub fn run(args: Purge) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(|error| format!("no runtime: {error}. Try again")).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                result = purge(args) => result,
                _ = tokio::signal::ctrl_c() => Err("ended; what was deleted is gone. Run it again to go on".to_owned()),
            }
        })
    });
    result.map_or_else(|why| complain(&why), |()| ExitCode::SUCCESS)
}

async fn purge(args: Purge) -> Result<(), String> {
    let bucket = BucketName::new(&args.bucket);
    let bucket = bucket.map_err(|why| format!("{:?} cannot be a bucket: {why}. Check the name", args.bucket))?;
    let (requests_max, timeout) = (args.connection.max_requests, args.connection.timeout);
    let environment = Environment::current();
    let (config, credentials) = config::connection(args.connection, Some(args.bucket.clone()), &environment)?;
    let endpoint = config.endpoint.clone();
    let s3 = S3Store::new(config, credentials, Arc::new(Profile::new())).map_err(|error| error.message)?;
    let limit = Limit::new(Arc::new(s3), requests_max);
    let store = Retry::new(Arc::new(limit), RetryConfig { timeout, ..RetryConfig::default() });
    let head = store.head_bucket(&bucket).await.map_err(|error| advice(&error, &endpoint))?;
    if !args.yes {
        let count = head.object_count.map_or_else(String::new, |count| format!("{} ", HumanCount(count)));
        let size = head.used_bytes.map_or_else(String::new, |bytes| format!(" ({})", HumanBytes(bytes)));
        ask(&format!(
            "Delete bucket {bucket} at {endpoint} with all its {count}objects{size}, old versions and uploads? It \
             cannot be undone. [y/N] "
        ))?;
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {pos} deleted, {per_sec}").expect("a template of ours"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let result = empty_and_delete(&store, &bucket, &bar).await;
    bar.finish_and_clear();
    match result {
        Ok(Outcome::Deleted) => {
            // When the terminal is gone there is nobody left to tell.
            let _ = writeln!(io::stderr(), "{} deleted, and bucket {bucket}", HumanCount(bar.position()));
            Ok(())
        }
        Ok(Outcome::Refused(failures)) => Err(refused(&bucket, &failures)),
        Ok(Outcome::StillFull) => Err(format!(
            "bucket {bucket} is still not empty. Somebody stores into it, or it has keys that no request can name; end \
             the former and run it again"
        )),
        Err(error) => Err(advice(&error, &endpoint)),
    }
}

/// Goes on only if somebody agrees.
fn ask(question: &str) -> Result<(), String> {
    if !io::stdin().is_terminal() {
        return Err("nobody is here to be asked. Write --yes to delete without a question".to_owned());
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{}", text::printable(question)).and_then(|()| io::stdin().read_line(&mut answer));
    match asked {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err("nothing was deleted. Answer y to delete".to_owned()),
    }
}

/// How it ended.
#[derive(Debug)]
enum Outcome {
    Deleted,
    Refused(Vec<VersionFailure>),
    StillFull,
}

async fn empty_and_delete(store: &dyn Store, bucket: &BucketName, bar: &ProgressBar) -> Result<Outcome, Error> {
    for _ in 0..ROUNDS_MAX {
        let failures = delete_all_versions(store, bucket, bar).await?;
        if !failures.is_empty() {
            return Ok(Outcome::Refused(failures));
        }
        abort_all_uploads(store, bucket).await?;
        match store.delete_bucket(bucket).await {
            Ok(()) => return Ok(Outcome::Deleted),
            Err(error) if error.kind == Kind::NotEmpty => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome::StillFull)
}

/// Deletes every version, several pages at once while the next is listed; answers what was refused.
async fn delete_all_versions(
    store: &dyn Store,
    bucket: &BucketName,
    bar: &ProgressBar,
) -> Result<Vec<VersionFailure>, Error> {
    let pages = stream::unfold(Some(VersionsRequest::default()), |request| async {
        let request = request?;
        let page = store.list_versions(bucket, &request).await;
        let next = page.as_ref().ok().and_then(|page| page.next.clone());
        Some((page, next.map(|after| VersionsRequest { after: Some(after), ..request })))
    });
    let deleted = pages.map(|page| async {
        let VersionsPage { versions, .. } = page?;
        let names: Vec<_> = versions.into_iter().map(|version| version.name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let failures = store.delete_versions(bucket, &names).await?;
        bar.inc((names.len() - failures.len()) as u64);
        Ok::<_, Error>(failures)
    });
    let mut deleted = Box::pin(deleted.buffer_unordered(BATCHES_AT_ONCE));
    let mut failures = Vec::new();
    while let Some(batch) = deleted.next().await {
        failures.extend(batch?);
    }
    Ok(failures)
}

/// Gives up every upload that a request can name; others go with the bucket.
async fn abort_all_uploads(store: &dyn Store, bucket: &BucketName) -> Result<(), Error> {
    let mut after = None;
    loop {
        let UploadsPage { uploads, next } = store.list_uploads(bucket, after.as_ref()).await?;
        for (key, id) in uploads {
            if let Ok(key) = Key::new(&key) {
                store.abort_upload(&Location { bucket: bucket.clone(), key }, &id).await?;
            }
        }
        if next.is_none() {
            return Ok(());
        }
        after = next;
    }
}

fn refused(bucket: &BucketName, failures: &[VersionFailure]) -> String {
    for failure in failures.iter().take(FAILURES_SHOWN_MAX) {
        text::complain(&format!("{}: {}", failure.key, failure.error.message));
    }
    format!(
        "{} of bucket {bucket} could not be deleted, so it stays. See what the store says, and run it again",
        HumanCount(failures.len() as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::ObjectHeaders;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn keys_that_no_path_can_name_and_uploads_go_too() {
        let store = MemoryStore::new(Clock::system());
        let bucket = BucketName::new("bucket").unwrap();
        store.create_bucket(&bucket).await.unwrap();
        for number in 0..2100 {
            store.put_raw(&bucket, &format!("a//{number}"), "x".into()).unwrap();
        }
        let location = Location { bucket: bucket.clone(), key: Key::new("k").unwrap() };
        store.create_upload(&location, &ObjectHeaders::default()).await.unwrap();
        let bar = ProgressBar::hidden();
        let outcome = empty_and_delete(&store, &bucket, &bar).await.unwrap();
        assert!(matches!(outcome, Outcome::Deleted), "{outcome:?}");
        assert_eq!(bar.position(), 2100);
        assert_eq!(store.head_bucket(&bucket).await.unwrap_err().kind, Kind::NoSuchBucket);
    }
}
