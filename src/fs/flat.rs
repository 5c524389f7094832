//! The listing behind a walk: one that folds nothing brings all directories of a subtree, a page at a time, where each
//! directory would cost a request of its own. It is a page ahead of the walk and stops where that stops. In a tree that
//! turns out to be large, the pages behind that one are on their way already, several at once.
//!
//! It never stands in the way: a directory that it does not bring is listed by itself, and a large one goes on by itself
//! behind the page that brought its first names.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use crate::error::Result;
use crate::format::key::{BucketName, Prefix};
use crate::store::{ListPage, ListRequest};
use crate::tree::{Ino, Knowledge, Place};

use super::Fs;
use super::names::{Names, Position, Subtree, Whole};
use super::pages::Pages;
use super::walk::{Course, Reads, Spot};

/// Walks at once.
const WALKS_MAX: usize = 4;

/// A walk that has not gone on for so long is over.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Pages of a walk among the directories of one parent, and those for the sake of one of them: who goes in an order of
/// its own may want little of a large tree.
const AMONG_PAGES_MAX: usize = 8;
const AMONG_PAGES_EACH: usize = 2;

/// Keys of a page that lie in a directory itself when a listing of its own need not tell them once more.
const OWN_MIN: usize = 500;

/// Pages that come one after the other, before it is worth guessing where the next ones end: a tree of so many is large.
const SINGLE_PAGES: usize = 16;

/// A walk below a directory.
pub(super) struct Walk {
    base: Spot,
    /// Whether it goes from one directory in the base to another in an order of its own.
    among: bool,
    /// Whether names are looked up in its directories, which nobody reads.
    looks: bool,
    scan: Arc<tokio::sync::Mutex<Scan>>,
}

/// How far the listing of a walk has come.
struct Scan {
    subtree: Subtree,
    /// Where the next page begins.
    next: Next,
    /// The first key of the last page, and how many it had.
    page_first: Option<String>,
    page_keys: usize,
    /// Whether it began where the base does.
    from_start: bool,
    /// Pages so far.
    pages: usize,
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

/// What a walk's listing brought of a directory.
pub(super) enum Brought {
    /// All names: they are known.
    All,
    /// The first names, which whoever reads it need not wait any longer for.
    First(Box<Names>),
    /// Nothing that would spare a listing of its own.
    Nothing,
}

/// A directory that is read in the course of a walk.
pub(super) struct Step {
    walk: Arc<Walk>,
    spot: Spot,
}

/// The walks under way.
#[derive(Default)]
pub(super) struct Walks(Mutex<State>);

#[derive(Default)]
struct State {
    reads: Reads,
    walks: VecDeque<(Arc<Walk>, Instant)>,
}

impl Spot {
    fn place(&self) -> Place {
        place(&self.bucket, &self.prefix)
    }
}

fn place(bucket: &BucketName, prefix: &Prefix) -> Place {
    Place::Directory { bucket: bucket.clone(), prefix: prefix.clone() }
}

impl Scan {
    /// A listing from a directory on.
    fn new(base: &Spot, first: &Prefix) -> Self {
        Scan {
            subtree: Subtree::new(base.prefix.as_str(), first.as_str()),
            // Among the names that sort before `first/` and after `first`, those that begin with `first.` come last.
            next: Next::After(format!("{}.~", first.as_str().trim_end_matches('/'))),
            page_first: None,
            page_keys: 0,
            from_start: false,
            pages: 0,
        }
    }

    /// A listing from the beginning on.
    fn from_start(base: &Spot) -> Self {
        let subtree = Subtree::new(base.prefix.as_str(), base.prefix.as_str());
        Scan { subtree, next: Next::Start, page_first: None, page_keys: 0, from_start: true, pages: 0 }
    }

    fn has_ended(&self) -> bool {
        matches!(self.next, Next::End)
    }

    /// Whether the walk has come to the last page that is here.
    fn is_reached_by(&self, prefix: &Prefix) -> bool {
        let last_page = self.page_first.as_ref().is_some_and(|first| prefix.as_str() >= first.as_str());
        last_page && !self.has_ended()
    }
}

impl State {
    /// The step to a directory on a course that was just recognised, or of a walk under way.
    fn step(&mut self, spot: Spot, course: Option<Course>, looks: bool, now: Instant) -> Option<Step> {
        let goes_there = |walk: &Walk| walk.looks == looks && walk.base.holds(&spot);
        self.walks.retain(|(_, used)| now.saturating_duration_since(*used) < IDLE_MAX);
        if let Some(Course::Below(_)) = course {
            // Who went in an order of its own goes in the order of names now.
            self.walks.retain(|(walk, _)| !walk.among || !goes_there(walk));
        }
        if let Some((walk, used)) = self.walks.iter_mut().find(|(walk, _)| goes_there(walk)) {
            *used = now;
            return Some(Step { walk: walk.clone(), spot });
        }
        let (base, scan, among) = match course? {
            Course::Below(base) => (base.clone(), Scan::new(&base, &spot.prefix), false),
            Course::Among(base) => (base.clone(), Scan::from_start(&base), true),
        };
        let walk = Arc::new(Walk { base, among, looks, scan: Arc::new(tokio::sync::Mutex::new(scan)) });
        if self.walks.len() == WALKS_MAX {
            self.walks.pop_front();
        }
        self.walks.push_back((walk.clone(), now));
        Some(Step { walk, spot })
    }
}

impl Walks {
    fn read(&self, spot: Spot, parent: Option<&Spot>, is_first: impl FnOnce() -> bool) -> Option<Step> {
        let mut state = self.0.lock().expect("no panic under this lock");
        let now = Instant::now();
        let course = state.reads.note(&spot, parent, is_first, now);
        state.step(spot, course, false, now)
    }

    fn look(&self, spot: Spot, parent: &Spot) -> Option<Step> {
        let mut state = self.0.lock().expect("no panic under this lock");
        let now = Instant::now();
        let course = state.reads.note_look(&spot, parent, now);
        state.step(spot, course, true, now)
    }

    /// The directory that was read last is still being read.
    pub(super) fn go_on(&self) {
        self.0.lock().expect("no panic under this lock").reads.go_on(Instant::now());
    }

    /// Whether a walk has come to a directory, and not gone on from there.
    pub(super) fn are_in(&self, directory: Ino) -> bool {
        let state = self.0.lock().expect("no panic under this lock");
        let last = state.reads.last().filter(|spot| spot.ino == directory);
        last.is_some_and(|spot| state.walks.iter().any(|(walk, _)| walk.base.holds(spot)))
    }

    fn end(&self, walk: &Arc<Walk>) {
        let mut state = self.0.lock().expect("no panic under this lock");
        state.walks.retain(|(other, _)| !Arc::ptr_eq(other, walk));
        if walk.looks && !walk.among {
            state.reads.forget_looks();
        }
    }
}

impl Fs {
    /// Notes that a directory is read; answers the walk that this is part of, if it is.
    pub(super) fn step(&self, directory: Ino) -> Result<Option<Step>> {
        let Some((spot, parent)) = self.spot(directory)? else { return Ok(None) };
        let step = self.walks.read(spot, parent.as_ref(), || self.tree.is_first_directory(directory));
        Ok(step.filter(|step| self.is_there(step)))
    }

    /// Notes that a directory is to be listed for the sake of a name in it; answers the walk that this is part of, if it
    /// is.
    pub(super) fn look(&self, directory: Ino) -> Result<Option<Step>> {
        let Some((spot, Some(parent))) = self.spot(directory)? else { return Ok(None) };
        Ok(self.walks.look(spot, &parent).filter(|step| self.is_there(step)))
    }

    /// Where a directory is and the one that it lies in; nothing where none may be brought ahead.
    fn spot(&self, directory: Ino) -> Result<Option<(Spot, Option<Spot>)>> {
        if self.config.ttl.is_zero() {
            // What is brought ahead may not be believed.
            return Ok(None);
        }
        let Place::Directory { bucket, prefix } = self.directory_place(directory)? else { return Ok(None) };
        if self.versions_prefix(&bucket, &prefix).is_some() {
            return Ok(None);
        }
        let parent = self.tree.read(directory, |inode| inode.parent_and_name().0).and_then(|ino| {
            let Some(Place::Directory { bucket, prefix }) = self.tree.place(ino) else { return None };
            Some(Spot { ino, bucket, prefix })
        });
        Ok(Some((Spot { ino: directory, bucket, prefix }, parent)))
    }

    /// Whether the base of a walk is still where it was; if not, it was moved or removed, and the walk is over.
    fn is_there(&self, step: &Step) -> bool {
        let base = &step.walk.base;
        let is_there = self.tree.place(base.ino).as_ref() == Some(&base.place());
        if !is_there {
            self.walks.end(&step.walk);
        }
        is_there
    }

    /// Goes on with the listing of a walk until it has brought a directory, or what a page can tell of a large one.
    pub(super) async fn bring(&self, directory: Ino, step: &Step) -> Result<Brought> {
        let Step { walk, spot } = step;
        let mut scan = walk.scan.lock().await;
        if walk.among {
            let brought = self.is_brought_among(directory, walk, &mut scan).await?;
            return Ok(if brought { Brought::All } else { Brought::Nothing });
        }
        let (mut pages, mut restarted) = (0, false);
        while self.tree.knowledge(directory) != Knowledge::Complete {
            match scan.subtree.position(spot.prefix.as_str()) {
                // Larger than a page.
                Position::Inside { own } if pages > 0 && own < OWN_MIN => return Ok(Brought::Nothing),
                Position::Inside { own } if pages > 0 || own == scan.page_keys.max(OWN_MIN) => {
                    return Ok(self.hand_over(directory, &mut scan, &spot.prefix));
                }
                Position::Inside { .. } => {}
                Position::Ahead if pages == 0 => {}
                Position::Ahead | Position::Behind if walk.looks => {
                    // It goes in no order after all: pages for the sake of one directory each would be in vain.
                    self.walks.end(walk);
                    return Ok(Brought::Nothing);
                }
                Position::Ahead | Position::Behind if restarted => return Ok(Brought::Nothing),
                Position::Ahead | Position::Behind => {
                    // A walk that comes back from the end goes in an order of its own, in no large tree.
                    let comes_back = scan.has_ended() && !scan.from_start;
                    *scan = match comes_back {
                        true => Scan::from_start(&walk.base),
                        false => Scan::new(&walk.base, &spot.prefix),
                    };
                    restarted = true;
                }
            }
            pages += usize::from(self.next_page(&walk.base, &mut scan).await?);
        }
        Ok(Brought::All)
    }

    /// Gives the names of a directory that have come to a listing of its own; the walk's goes on behind the directory.
    fn hand_over(&self, directory: Ino, scan: &mut Scan, prefix: &Prefix) -> Brought {
        let first = scan.subtree.take(prefix.as_str());
        scan.next = Next::After(format!("{prefix}{}", char::MAX));
        match first.filter(|first| self.tree.is_unchanged_since(directory, first.since)) {
            Some(first) => Brought::First(Box::new(first.names)),
            None => Brought::Nothing,
        }
    }

    /// The listing of a walk whose directories are read in any order: all of them are brought if they are few. Answers
    /// whether this one is.
    async fn is_brought_among(&self, directory: Ino, walk: &Arc<Walk>, scan: &mut Scan) -> Result<bool> {
        let mut pages = 0;
        while self.tree.knowledge(directory) != Knowledge::Complete {
            if scan.has_ended() {
                // What it has brought is no longer fresh.
                self.walks.end(walk);
                return Ok(false);
            }
            if pages == AMONG_PAGES_EACH || scan.pages >= AMONG_PAGES_MAX {
                return Ok(false);
            }
            self.next_page(&walk.base, scan).await?;
            pages += 1;
        }
        Ok(true)
    }

    /// Asks for the page after the one that the walk has come to.
    pub(super) fn run_ahead(self: &Arc<Self>, step: Option<Step>) {
        let Some(Step { walk, spot }) = step else { return };
        // Whoever has it is asking for a page.
        let Ok(mut scan) = walk.scan.clone().try_lock_owned() else { return };
        if !walk.among && scan.is_reached_by(&spot.prefix) {
            let fs = self.clone();
            self.data.spawn(async move {
                if let Err(error) = fs.next_page(&walk.base, &mut scan).await {
                    log::debug!("{}: the walk below it is not run ahead of: {error}", fs.path(walk.base.ino));
                }
            });
        }
    }

    /// Takes in the next page of a walk's listing; answers whether there was anything in it.
    async fn next_page(&self, base: &Spot, scan: &mut Scan) -> Result<bool> {
        let Some((page, since)) = self.ask_for_page(base, scan).await? else { return Ok(false) };
        (scan.pages, scan.page_keys) = (scan.pages + 1, page.objects.len());
        let first = page.objects.first().map(|object| object.key.clone());
        let was_empty = first.is_none();
        scan.page_first = first.or(scan.page_first.take());
        let whole = scan.subtree.add(page, since);
        let filled = stream::iter(whole).map(|whole| self.fill_directory(base, whole));
        filled.buffered(self.config.requests_max).for_each(|()| std::future::ready(())).await;
        self.tell_kernel();
        Ok(!was_empty)
    }

    /// The next page of a walk's listing, and when it was asked for.
    async fn ask_for_page(&self, base: &Spot, scan: &mut Scan) -> Result<Option<(ListPage, Instant)>> {
        let prefix = base.prefix.as_str().to_owned();
        let request = match &mut scan.next {
            Next::Start => ListRequest { prefix, ..ListRequest::default() },
            Next::After(key) => ListRequest { prefix, start_after: Some(key.clone()), ..ListRequest::default() },
            Next::Continuation(token) => {
                ListRequest { prefix, continuation: Some(token.clone()), ..ListRequest::default() }
            }
            Next::Several(pages) => {
                let came = pages.next().await;
                match &came {
                    Ok(Some((page, _))) if page.continuation.is_some() => {}
                    Ok(Some(_)) => scan.next = Next::End,
                    // What was asked for behind it would leave a gap.
                    Ok(None) | Err(_) => scan.next = Next::After(scan.subtree.last_key().to_owned()),
                }
                return Ok(came?);
            }
            Next::End => return Ok(None),
        };
        let since = Instant::now();
        let page = self.store.list(&base.bucket, &request).await?;
        scan.next = match &page.continuation {
            None => Next::End,
            Some(_) if scan.pages + 1 >= SINGLE_PAGES => {
                let below = (request.prefix, false);
                Next::Several(Box::new(Pages::behind(self.store.clone(), base.bucket.clone(), below, &page)))
            }
            Some(token) => Next::Continuation(token.clone()),
        };
        Ok(Some((page, since)))
    }

    /// Takes in all names of a directory of the walk. What cannot be taken in is asked for again when it is read.
    async fn fill_directory(&self, base: &Spot, Whole { names, since }: Whole) {
        let below = names.prefix()[base.prefix.as_str().len()..].to_owned();
        let Ok(prefix) = Prefix::new(names.prefix()) else { return };
        let Some(directory) = self.tree.reach(base.ino, &base.place(), &below, since) else { return };
        if let Err(error) = self.judge(directory, &base.bucket, &prefix, &names).await {
            log::debug!("{prefix}: its marker is not known: {error}");
            return;
        }
        self.tree.set_hidden_keys(directory, names.hidden_keys());
        let listing = names.into_listing(true, self.clock.now());
        self.tree.fill(directory, &place(&base.bucket, &prefix), listing, since);
    }
}
