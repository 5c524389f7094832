//! The pages of a large directory, or of a large tree: what comes behind the first one is asked for several pages at
//! once. Where a page will end is guessed from where the last ones did, so that the names between two guesses are one
//! request; a wrong guess costs a request, never a name.

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio_util::task::AbortOnDropHandle;

use crate::format::key::BucketName;
use crate::store::{self, ListPage, ListRequest, Store, operation as op};

/// Pages asked for at once.
const AT_ONCE_MAX: usize = 4;

/// Fewer names than this tell too little of how the next ones are spread.
const NAMES_TELLING: usize = 100;

/// Characters that a guess calculates with.
const DIGITS_MAX: usize = 12;

/// What characters of names may be digits, the fewest first. Never `/`.
const DIGITS: [&str; 4] = [
    "0123456789",
    "0123456789abcdef",
    "0123456789abcdefghijklmnopqrstuvwxyz",
    "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
];

/// The pages behind the first one.
pub(super) struct Pages {
    store: Arc<dyn Store>,
    bucket: BucketName,
    prefix: String,
    /// Whether what lies deeper is folded.
    delimited: bool,
    /// On their way whether or not somebody waits for them.
    asked: FuturesOrdered<AbortOnDropHandle<store::Result<Range>>>,
    /// How to guess where the next pages end.
    guess: Option<Guess>,
    /// Up to where was asked for, below the prefix; `None` if that is the directory's end.
    reached: Option<String>,
    at_once: usize,
}

/// A page, up to where it was wanted, and when it was asked for.
struct Range {
    page: ListPage,
    to: Option<String>,
    since: Instant,
}

/// Where an even listing goes on, by its last page.
struct Guess {
    common: String,
    digits: &'static str,
    width: usize,
    last: u128,
    step: u128,
}

impl Guess {
    fn new(page: &ListPage, prefix: &str) -> Option<Guess> {
        let objects = page.objects.iter().map(|object| &object.key);
        let names = || objects.clone().chain(&page.prefixes).filter_map(|key| key.strip_prefix(prefix));
        let (first, last, count) = (names().filter(|name| !name.is_empty()).min()?, names().max()?, names().count());
        let differs = first.bytes().zip(last.bytes()).position(|(a, b)| a != b)?;
        if !last.is_ascii() || !first.is_ascii() {
            return None;
        }
        let beyond = |name: &str| name.bytes().skip(differs).take(4).collect::<Vec<_>>();
        let seen = [beyond(first), beyond(last)].concat();
        let digits = DIGITS.into_iter().find(|digits| {
            let known = seen.iter().take_while(|byte| byte.is_ascii_alphanumeric());
            known.clone().count() > 0 && known.into_iter().all(|byte| digits.as_bytes().contains(byte))
        })?;
        let is_digit = |byte: &u8| digits.as_bytes().contains(byte);
        let end = differs + last.bytes().skip(differs).take_while(|byte| is_digit(byte)).count();
        let run = last.as_bytes()[..differs].iter().rev().take_while(|byte| is_digit(byte)).count();
        let end = end.min(differs + DIGITS_MAX / 2);
        let start = (differs - run).max(end.saturating_sub(DIGITS_MAX));
        let value = |name: &str| number(&name.as_bytes()[start..], end - start, digits);
        let spread = value(last).saturating_sub(value(first));
        // Where none is left out, pages end where they are expected to: at the next name, or, where more follows the
        // digits, just before it. Where names are spread by chance, few pages have a fourteenth more of them than another.
        let step = match (spread + 1 == count as u128, end == last.len()) {
            (true, true) => spread + 1,
            (true, false) => spread,
            (false, _) => spread - spread / 14,
        };
        (step > 0 && count >= NAMES_TELLING).then(|| Guess {
            common: last[..start].to_owned(),
            digits,
            width: end - start,
            last: value(last),
            step,
        })
    }

    /// The end of the next page; `None` beyond all that can be guessed.
    fn next(&mut self) -> Option<String> {
        let base = self.digits.len() as u128;
        self.last += self.step;
        if self.last >= base.pow(self.width as u32) {
            return None;
        }
        let mut spelled = vec![0; self.width];
        let mut rest = self.last;
        for digit in spelled.iter_mut().rev() {
            *digit = self.digits.as_bytes()[(rest % base) as usize];
            rest /= base;
        }
        Some(format!("{}{}", self.common, String::from_utf8_lossy(&spelled)))
    }
}

/// What characters mean as a number of so many digits; what is no digit, or not there, is 0.
fn number(characters: &[u8], width: usize, digits: &str) -> u128 {
    let value = |at| characters.get(at).and_then(|byte| digits.bytes().position(|digit| digit == *byte)).unwrap_or(0);
    (0..width).fold(0, |number, at| number * digits.len() as u128 + value(at) as u128)
}

impl Pages {
    /// What comes behind a page of a directory's names, or, not `delimited`, of all keys below it.
    pub(super) fn behind(
        store: Arc<dyn Store>,
        bucket: BucketName,
        (prefix, delimited): (String, bool),
        first: &ListPage,
    ) -> Self {
        let mut pages = Pages::after(store, bucket, (prefix, delimited), "");
        pages.go_on(first);
        pages
    }

    /// What comes behind a name of a directory, or, not `delimited`, behind a key below it.
    pub(super) fn after(
        store: Arc<dyn Store>,
        bucket: BucketName,
        (prefix, delimited): (String, bool),
        name: &str,
    ) -> Self {
        let (asked, reached) = (FuturesOrdered::new(), Some(name.to_owned()));
        Pages { store, bucket, prefix, delimited, asked, guess: None, reached, at_once: 1 }
    }

    /// The next page and when it was asked for; `None` behind the last one, which alone has no continuation. Names come in
    /// order. After an error some are missing.
    pub(super) async fn next(&mut self) -> store::Result<Option<(ListPage, Instant)>> {
        self.ask();
        let Some(came) = self.asked.next().await else { return Ok(None) };
        let Range { mut page, to, since } = came.map_err(|error| self.broken(&error))??;
        let is_within = |key: &str| {
            let name = key.strip_prefix(&self.prefix).unwrap_or(key);
            to.as_deref().is_none_or(|to| name <= to)
        };
        let came = page.objects.len() + page.prefixes.len();
        let last = page.objects.last().map(|object| &object.key).max(page.prefixes.last()).cloned();
        let reached = last.as_deref().is_some_and(|last| !is_within(last));
        let exactly = last.is_some_and(|last| last.strip_prefix(&self.prefix) == to.as_deref());
        if page.continuation.is_none() && !reached {
            // All that was asked for beyond is nothing.
            self.asked.clear();
            self.reached = None;
            return Ok(Some((page, since)));
        }
        if reached || exactly {
            page.objects.retain(|object| is_within(&object.key));
            page.prefixes.retain(|prefix| is_within(prefix));
            page.continuation.get_or_insert_default();
            self.at_once = (self.at_once + 1).min(AT_ONCE_MAX);
            if (page.objects.len() + page.prefixes.len()) * 2 < came {
                // Far fewer than expected: what was asked for next would be as empty.
                self.guess = None;
            }
        } else {
            self.go_on(&page);
        }
        Ok(Some((page, since)))
    }

    fn broken(&self, error: &tokio::task::JoinError) -> store::Error {
        store::Error::new(store::Kind::Interrupted, op::LIST_OBJECTS, self.prefix.clone(), error.to_string())
    }

    /// Goes on behind a page, whatever was guessed.
    fn go_on(&mut self, page: &ListPage) {
        self.asked.clear();
        (self.at_once, self.reached) = (1, None);
        let Some(token) = page.continuation.clone() else { return };
        self.guess = Guess::new(page, &self.prefix);
        let to = self.guess.as_mut().and_then(Guess::next);
        self.reached = to.clone();
        self.send(ListRequest { continuation: Some(token), ..ListRequest::default() }, to);
    }

    /// Asks for as many pages as may be asked for at once.
    fn ask(&mut self) {
        while self.asked.len() < self.at_once {
            let Some(from) = self.reached.take() else { return };
            let to = self.guess.as_mut().and_then(Guess::next);
            self.reached = to.clone();
            let start_after = Some(format!("{}{from}", self.prefix));
            self.send(ListRequest { start_after, ..ListRequest::default() }, to);
        }
    }

    fn send(&mut self, request: ListRequest, to: Option<String>) {
        let request = ListRequest { prefix: self.prefix.clone(), delimited: self.delimited, ..request };
        let (store, bucket) = (self.store.clone(), self.bucket.clone());
        // In the order of the pages: they may be sent in another.
        let since = Instant::now();
        self.asked.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
            let page = store.list(&bucket, &request).await?;
            Ok(Range { page, to, since })
        })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::memory::{MemoryLimits, MemoryStore};
    use crate::store::trace::Trace;

    /// Lists keys of which a page holds a hundred; answers how many requests it took.
    async fn requests(keys: impl IntoIterator<Item = String>) -> u64 {
        let limits = MemoryLimits { page_keys_max: 100, ..Default::default() };
        let memory = Arc::new(MemoryStore::with_limits(Clock::system(), limits));
        let bucket = BucketName::new("bucket").expect("plain");
        memory.create_bucket(&bucket).await.expect("created");
        let mut expected = std::collections::BTreeSet::new();
        for key in keys {
            memory.put_raw(&bucket, &format!("d/{key}"), "x".into()).expect("taken");
            let name = key.split_inclusive('/').next().expect("not empty");
            expected.insert(format!("d/{name}"));
        }
        let trace = Arc::new(Trace::new(memory));
        let request = ListRequest { prefix: "d/".to_owned(), delimited: true, ..ListRequest::default() };
        let mut page = trace.list(&bucket, &request).await.expect("answered");
        let mut pages = Pages::behind(trace.clone(), bucket, ("d/".to_owned(), true), &page);
        let mut told = Vec::new();
        loop {
            let mut names: Vec<String> =
                page.objects.into_iter().map(|object| object.key).chain(page.prefixes).collect();
            names.sort();
            told.extend(names);
            match pages.next().await.expect("answered") {
                Some((next, _)) => page = next,
                None => break,
            }
        }
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>());
        trace.counts()["ListObjects"]
    }

    #[tokio::test]
    async fn all_names_come_in_order_and_once_however_they_are_spread() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut word = |count: usize, length: usize, letters: &str| -> Vec<String> {
            let letters: Vec<char> = letters.chars().collect();
            (0..count).map(|_| (0..length).map(|_| letters[rng.usize(..letters.len())]).collect()).collect()
        };
        let hashes = word(5000, 16, "0123456789abcdef");
        let words = word(3000, 6, "abcdefghijklmnopqrstuvwxyz");
        let odd = word(1000, 3, "a/.-~! \u{e9}z0").into_iter().filter(|key| !key.is_empty()).collect();
        let sparse = (0..3000).map(|n: u64| format!("f{:08}", n * n * n % 70_000_001)).collect();
        let table: [(&str, Vec<String>, u64); 8] = [
            ("numbers", (0..5000).map(|n| format!("name{n:06}")).collect(), 54),
            ("numbers with endings", (0..5000).map(|n| format!("img_{n:04}.jpg")).collect(), 54),
            ("directories", (0..2000).map(|n| format!("{n:04}/x")).collect(), 24),
            ("hashes", hashes, 80),
            ("words", words, 60),
            ("odd names", odd, 40),
            ("numbers here and there", sparse, 80),
            ("a page", (0..100).map(|n| format!("{n}")).collect(), 1),
        ];
        for (what, keys, most) in table {
            let count = requests(keys).await;
            println!("{what}: {count} requests");
            assert!(count <= most, "{what}: {count} requests");
        }
    }
}
