//! A listing that folds nothing, a page after the other, and how far it has come.

use std::sync::Arc;
use std::time::Instant;

use crate::format::key::{BucketName, Prefix};
use crate::store::{self, ListPage, ListRequest, Store};

use super::names::{Names, Subtree, Whole};
use super::pages::Pages;

/// Pages that come one after the other, before it is worth guessing where the next ones end: a tree of so many is large.
const SINGLE_PAGES: usize = 16;

/// How far the listing of a walk has come.
pub(super) struct Scan {
    pub(super) subtree: Subtree,
    /// All keys begin with it.
    base: Prefix,
    /// Where the next page begins.
    next: Next,
    /// The first key of the last page that had any.
    page_first: Option<String>,
    /// How many the last page had.
    pub(super) page_keys: usize,
    /// How often in a row it began anew elsewhere.
    pub(super) restarts: usize,
    /// Whether the walk is over, for those who still wait for it.
    pub(super) over: bool,
    /// Whether it began where the base does.
    from_start: bool,
    /// Pages so far.
    pub(super) pages: usize,
}

enum Next {
    Start,
    After(String),
    Continuation(String),
    /// In one of these, several of which are asked for at once.
    Several(Box<Pages>),
    /// Nothing: it has come to its end.
    End,
}

impl Scan {
    /// A listing from a directory on.
    pub(super) fn new(base: &Prefix, first: &Prefix) -> Self {
        Scan {
            subtree: Subtree::new(base.as_str(), first.as_str()),
            base: base.clone(),
            // Among the names that sort before `first/` and after `first`, those that begin with `first.` come last.
            next: Next::After(format!("{}.~", first.as_str().trim_end_matches('/'))),
            page_first: None,
            page_keys: 0,
            restarts: 0,
            over: false,
            from_start: false,
            pages: 0,
        }
    }

    /// A listing from the beginning on.
    pub(super) fn from_start(base: &Prefix) -> Self {
        Scan { next: Next::Start, from_start: true, ..Scan::new(base, base) }
    }

    /// Begins anew at a directory.
    pub(super) fn begin_anew(&mut self, directory: &Prefix) {
        // A walk that comes back from the end goes in an order of its own, in no large tree.
        let comes_back = self.has_ended() && !self.from_start;
        let begun = if comes_back { Scan::from_start(&self.base) } else { Scan::new(&self.base, directory) };
        *self = Scan { restarts: self.restarts + 1, ..begun };
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.next, Next::End)
    }

    /// The walk is over.
    pub(super) fn end(&mut self) {
        (self.next, self.over) = (Next::End, true);
    }

    /// Whether the walk has come to the last page that is here.
    pub(super) fn is_reached_by(&self, prefix: &Prefix) -> bool {
        let last_page = self.page_first.as_ref().is_some_and(|first| prefix.as_str() >= first.as_str());
        last_page && !self.has_ended()
    }

    /// Takes the names of a directory that have come, if it is the innermost one, and goes on behind all that is in it.
    pub(super) fn take(&mut self, prefix: &Prefix) -> Option<(Names, Instant)> {
        let taken = self.subtree.take(prefix.as_str())?;
        self.next = Next::After(self.subtree.last_key().to_owned());
        Some(taken)
    }

    /// Asks for the next page; answers the directories that are known whole now, or nothing at the end.
    pub(super) async fn next_page(
        &mut self,
        store: &Arc<dyn Store>,
        bucket: &BucketName,
    ) -> store::Result<Option<Vec<Whole>>> {
        let Some((page, since)) = self.ask(store, bucket).await? else { return Ok(None) };
        (self.pages, self.page_keys) = (self.pages + 1, page.objects.len());
        if let Some(first) = page.objects.first() {
            self.page_first = Some(first.key.clone());
        }
        Ok(Some(self.subtree.add(page, since)))
    }

    /// The next page, and when it was asked for.
    async fn ask(&mut self, store: &Arc<dyn Store>, bucket: &BucketName) -> store::Result<Option<(ListPage, Instant)>> {
        if let Next::Several(pages) = &mut self.next {
            match pages.next().await {
                Ok(Some(came)) => {
                    if came.0.continuation.is_none() {
                        self.next = Next::End;
                    }
                    return Ok(Some(came));
                }
                // What was asked for behind it would leave a gap; it may have failed long ago, with nobody waiting.
                Ok(None) | Err(_) => self.next = Next::After(self.subtree.last_key().to_owned()),
            }
        }
        let prefix = self.base.as_str().to_owned();
        let request = match &self.next {
            Next::Start => ListRequest { prefix, ..ListRequest::default() },
            Next::After(key) => ListRequest { prefix, start_after: Some(key.clone()), ..ListRequest::default() },
            Next::Continuation(token) => {
                ListRequest { prefix, continuation: Some(token.clone()), ..ListRequest::default() }
            }
            Next::End | Next::Several(_) => return Ok(None),
        };
        let since = Instant::now();
        let page = store.list(bucket, &request).await?;
        self.next = match &page.continuation {
            None => Next::End,
            Some(_) if self.pages + 1 >= SINGLE_PAGES => {
                let below = (request.prefix, false);
                Next::Several(Box::new(Pages::behind(store.clone(), bucket.clone(), below, &page)))
            }
            Some(token) => Next::Continuation(token.clone()),
        };
        Ok(Some((page, since)))
    }
}
