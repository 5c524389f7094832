//! What the store will be: its answers, with what waits here laid over them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::data::stage::local_work;
use crate::store::{
    Body, BucketName, Error, GetOptions, Key, Kind, ListPage, ListRequest, ListedObject, Location, ObjectBody,
    ObjectHead, Result, operation,
};

use super::record::{Pending, Segment, slice};
use super::{Inner, local_error};

/// Bytes of a local file that are read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// The first key of all.
const FIRST_KEY: &str = "\u{1}";

/// Where a page of a listing begins and ends. In a folded listing a name that ends in `/`, and is longer than what is
/// listed, stands for all below it.
#[derive(Clone, Copy)]
struct Span<'a> {
    after: &'a str,
    until: Option<&'a str>,
    folded_from: Option<usize>,
}

/// Names that wait, and what a listing is to show of them.
type Waiting = BTreeMap<String, Option<ListedObject>>;

impl Span<'_> {
    fn is_after(&self, key: &str, bound: &str) -> bool {
        let folds = self.folded_from.is_some_and(|length| bound.len() > length && bound.ends_with('/'));
        key > bound && !(folds && key.starts_with(bound))
    }

    fn has(&self, key: &str) -> bool {
        self.is_after(key, self.after) && self.until.is_none_or(|until| !self.is_after(key, until))
    }
}

impl Inner {
    pub(super) async fn head_of(&self, name: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
        if version_id.is_none()
            && let Some(pending) = self.lock().waiting(name, None)?
        {
            return Ok(pending.head());
        }
        let head = self.store.head(name, version_id).await?;
        let grows = head.grows.filter(|_| !self.config.accepts);
        Ok(ObjectHead { etag: self.lock().ours(name, head.etag), grows, ..head })
    }

    pub(super) async fn get_of(self: &Arc<Self>, name: &Location, options: &GetOptions) -> Result<ObjectBody> {
        if options.version_id.is_none() {
            let waiting = self.lock().waiting(name, options.if_match.as_ref())?;
            if let Some(pending) = waiting {
                return self.pending_body(name, &pending, options);
            }
        }
        self.stored_body(name, options).await
    }

    async fn stored_body(&self, name: &Location, options: &GetOptions) -> Result<ObjectBody> {
        let if_match = options.if_match.as_ref().map(|etag| self.lock().real(name, etag));
        let got = self.store.get(name, &GetOptions { if_match, ..options.clone() }).await?;
        let etag = self.lock().ours(name, got.head.etag);
        Ok(ObjectBody { head: ObjectHead { etag, ..got.head }, ..got })
    }

    fn pending_body(self: &Arc<Self>, name: &Location, pending: &Pending, options: &GetOptions) -> Result<ObjectBody> {
        let size_bytes = pending.size_bytes();
        let range = match &options.range {
            None => 0..size_bytes,
            Some(range) if range.start < size_bytes => range.start..range.end.min(size_bytes),
            Some(_) => {
                return Err(Error::new(Kind::BadRange, operation::GET_OBJECT, name.to_string(), "in the journal"));
            }
        };
        let again =
            GetOptions { range: Some(range.clone()), if_match: Some(pending.etag.clone()), ..GetOptions::default() };
        let body = self.clone().body_of(slice(&pending.segments, &range), name.clone(), again);
        Ok(ObjectBody { head: pending.head(), range, body })
    }

    /// The bytes of segments, which are those of the range in `again`.
    fn body_of(self: Arc<Self>, segments: Vec<Segment>, name: Location, again: GetOptions) -> Body {
        let mut at = again.range.as_ref().map_or(0, |range| range.start);
        let mut bodies = Vec::new();
        for segment in segments {
            let within = at..at + segment.length();
            at = within.end;
            let again = GetOptions { range: Some(within), ..again.clone() };
            bodies.push(self.clone().segment_body(segment, name.clone(), again));
        }
        Box::pin(stream::iter(bodies).flatten())
    }

    /// The bytes of a segment; if they have gone meanwhile, the object was stored, and `again` has them from there.
    fn segment_body(self: Arc<Self>, segment: Segment, name: Location, again: GetOptions) -> Body {
        match segment {
            Segment::Local { file, range } => {
                let first = again.range.as_ref().map_or(0, |range| range.start);
                let read = stream::iter(pieces(range.clone())).then(move |piece| {
                    let at = first + piece.start - range.start..first + piece.end - range.start;
                    let again = GetOptions { range: Some(at), ..again.clone() };
                    self.clone().local_piece(file.clone(), piece, name.clone(), again)
                });
                Box::pin(read.try_flatten())
            }
            Segment::Stored { source, etag, range, made_by, .. } => {
                let got = async move {
                    // It is to be stored under another name first.
                    let waiting = made_by.and_then(|order| {
                        let book = self.lock();
                        let pending = book.queue.get(order)?.record.pending()?;
                        Some(slice(&pending.segments, &range))
                    });
                    if let Some(segments) = waiting {
                        return Ok(self.body_of(segments, name, again));
                    }
                    let options = GetOptions { range: Some(range), if_match: Some(etag), ..GetOptions::default() };
                    match self.stored_body(&source, &options).await {
                        Err(error) if matches!(error.kind, Kind::NotFound | Kind::PreconditionFailed) => {
                            self.settled_body(&name, again).await
                        }
                        got => got.map(|got| got.body),
                    }
                };
                Box::pin(stream::once(got).try_flatten())
            }
        }
    }

    async fn local_piece(
        self: Arc<Self>,
        file: String,
        piece: Range<u64>,
        name: Location,
        again: GetOptions,
    ) -> Result<Body> {
        let (spool, read) = (self.spool.clone(), file.clone());
        let bytes = local_work((piece.end - piece.start) as usize, move || spool.read_content(&read, piece)).await;
        let (still_kept, elsewhere) = {
            let book = self.lock();
            let version = again.if_match.as_ref().and_then(|etag| book.waiting_version(&name, etag));
            let range = again.range.clone().unwrap_or_default();
            (book.files.contains_key(&file), version.map(|(_, pending)| slice(&pending.segments, &range)))
        };
        match (bytes, elsewhere) {
            // A file that nothing needed any more was used again, perhaps before it was read.
            (Ok(bytes), _) if still_kept => Ok(stream::once(async { Ok(bytes) }).boxed()),
            (Err(error), _) if still_kept => Err(local_error(error, &name)),
            (_, Some(segments)) => Ok(self.body_of(segments, name, again)),
            (_, None) => self.settled_body(&name, again).await,
        }
    }

    /// The bytes of a name from the store, once it has them.
    async fn settled_body(&self, name: &Location, options: GetOptions) -> Result<Body> {
        self.settle_name(name).await?;
        Ok(self.stored_body(name, &options).await?.body)
    }

    /// One page of keys.
    pub(super) async fn list_of(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage> {
        if request.continuation.is_none() && self.lock().queue.len() == 0 && self.lock().aliases.is_empty() {
            let mut page = self.store.list(bucket, request).await?;
            page.continuation =
                page.continuation.map(|token| join_token(&last_of(&page.objects, &page.prefixes), &token));
            return Ok(page);
        }
        let (mut after, token) = match request.continuation.as_deref().map(split_token) {
            Some((after, token)) => (after, Some(token).filter(|token| !token.is_empty())),
            None => (request.start_after.clone().unwrap_or_default(), None),
        };
        // Names that are deleted here may be all of a short page.
        let start_after = Some(after.clone()).filter(|after| token.is_none() && !after.is_empty());
        let mut wanted = ListRequest { continuation: token, start_after, keys_max: None, ..request.clone() };
        loop {
            let waiting = self.waiting_below(bucket, &request.prefix);
            let mut page = self.store.list(bucket, &wanted).await?;
            let last = last_of(&page.objects, &page.prefixes);
            let token = page.continuation.take();
            let until = token.as_ref().map(|_| last.as_str());
            let folded_from = request.delimited.then_some(request.prefix.len());
            let span = Span { after: &after, until, folded_from };
            page.objects.retain(|object| span.is_after(&object.key, span.after));
            page.prefixes.retain(|prefix| span.is_after(prefix, span.after));
            self.lay_over(bucket, request, span, &mut page, waiting).await?;
            if let Some(last) = cut(&mut page, request.keys_max) {
                page.continuation = Some(join_token(&last, ""));
                return Ok(page);
            }
            match token {
                Some(token) if page.objects.is_empty() && page.prefixes.is_empty() => {
                    after = last;
                    (wanted.continuation, wanted.start_after) = (Some(token), None);
                }
                token => {
                    page.continuation = token.map(|token| join_token(&last, &token));
                    return Ok(page);
                }
            }
        }
    }

    /// What waits under names that begin so: what a listing is to show of each, `None` where it is deleted.
    fn waiting_below(&self, bucket: &BucketName, prefix: &str) -> Waiting {
        let first = Key::new(prefix.trim_end_matches('/')).or_else(|_| Key::new(FIRST_KEY));
        let Ok(first) = first.map(|key| Location { bucket: bucket.clone(), key }) else { return Waiting::new() };
        let book = self.lock();
        let names = book.queue.names_from(&first).take_while(|(name, _)| {
            let key = name.key.as_str();
            name.bucket == *bucket && (key < prefix || key.starts_with(prefix))
        });
        let below = names.map(|(name, op)| (name.key.as_str(), op.record.pending()));
        let below = below.filter(|(key, _)| key.starts_with(prefix));
        below.map(|(key, pending)| (key.to_owned(), pending.map(|pending| pending.listed(key)))).collect()
    }

    /// Lays what waits over a page that was asked for when `waiting` was taken.
    async fn lay_over(
        &self,
        bucket: &BucketName,
        request: &ListRequest,
        span: Span<'_>,
        page: &mut ListPage,
        mut waiting: Waiting,
    ) -> Result<()> {
        // What was carried out meanwhile may be missing in the page.
        waiting.extend(self.waiting_below(bucket, &request.prefix));
        self.call_ours(bucket, page);
        let mut emptied: Vec<String> = Vec::new();
        for (key, listed) in waiting.into_iter().filter(|(key, _)| span.has(key)) {
            let fold = key[request.prefix.len()..].find('/').filter(|_| request.delimited);
            let folded = fold.map(|at| key[..=request.prefix.len() + at].to_owned());
            match (folded, listed) {
                (Some(prefix), Some(_)) => insert_sorted(&mut page.prefixes, prefix, |prefix| prefix.clone()),
                (Some(prefix), None) if page.prefixes.contains(&prefix) && emptied.last() != Some(&prefix) => {
                    emptied.push(prefix);
                }
                (Some(_), None) => {}
                (None, listed) => {
                    page.objects.retain(|object| object.key != key);
                    if let Some(listed) = listed {
                        insert_sorted(&mut page.objects, listed, |object| object.key.clone());
                    }
                }
            }
        }
        for prefix in emptied {
            let below = ListRequest { prefix: prefix.clone(), ..ListRequest::default() };
            if !self.has_any(bucket, below).await? {
                page.prefixes.retain(|other| *other != prefix);
            }
        }
        Ok(())
    }

    /// Calls versions as this mount does.
    fn call_ours(&self, bucket: &BucketName, page: &mut ListPage) {
        let book = self.lock();
        if book.aliases.is_empty() {
            return;
        }
        for object in &mut page.objects {
            if let Ok(key) = Key::new(&object.key) {
                object.etag = book.ours(&Location { bucket: bucket.clone(), key }, object.etag.clone());
            }
        }
    }

    /// Whether any key is left below a prefix.
    async fn has_any(&self, bucket: &BucketName, below: ListRequest) -> Result<bool> {
        let page = Box::pin(self.list_of(bucket, &below)).await?;
        Ok(!page.objects.is_empty())
    }
}

/// A range in pieces that are read at once.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let starts = std::iter::successors(Some(range.start), |at| Some(at + PIECE_BYTES));
    starts.take_while(move |at| *at < range.end).map(move |at| at..(at + PIECE_BYTES).min(range.end))
}

/// Puts an item where it belongs in a sorted list, unless it is there.
fn insert_sorted<T>(list: &mut Vec<T>, item: T, key: impl Fn(&T) -> String) {
    if let Err(at) = list.binary_search_by_key(&key(&item), &key) {
        list.insert(at, item);
    }
}

/// The last name of a page.
fn last_of(objects: &[ListedObject], prefixes: &[String]) -> String {
    let object = objects.last().map(|object| &object.key);
    object.max(prefixes.last()).cloned().unwrap_or_default()
}

/// Cuts a page to so many names; answers the last that stayed, if any went.
fn cut(page: &mut ListPage, names_max: Option<u32>) -> Option<String> {
    let names_max = names_max? as usize;
    let mut names: Vec<&String> = page.objects.iter().map(|object| &object.key).chain(&page.prefixes).collect();
    if names.len() <= names_max {
        return None;
    }
    names.sort_unstable();
    let last = names.get(names_max.saturating_sub(1)).map(|last| (*last).clone())?;
    page.objects.retain(|object| object.key <= last);
    page.prefixes.retain(|prefix| *prefix <= last);
    Some(last)
}

/// A page's continuation: the last name so far, and the store's own.
fn join_token(last: &str, token: &str) -> String {
    format!("{}:{last}{token}", last.len())
}

fn split_token(token: &str) -> (String, String) {
    let parts = token.split_once(':').and_then(|(length, rest)| rest.split_at_checked(length.parse().ok()?));
    parts.map_or_else(|| (String::new(), token.to_owned()), |(last, token)| (last.to_owned(), token.to_owned()))
}
