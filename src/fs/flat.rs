//! The listing behind a walk: one that folds nothing brings all directories of a subtree, a page at a time, where each
//! directory would cost a request of its own. It is a page ahead of the walk and stops where that stops. In a tree that
//! turns out to be large, the pages behind that one are on their way already, several at once.
//!
//! It never stands in the way: a directory that it does not bring is listed by itself, and a large one goes on by itself
//! behind the page that brought its first names. What it brings is as old as the request for it: a page that lay here too
//! long, or from before somebody asked to forget what is known, brings nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use crate::error::Result;
use crate::format::key::{BucketName, Prefix};
use crate::tree::{Ino, Knowledge, Place};

use super::Fs;
use super::names::{Names, Position, Whole};
use super::scan::Scan;
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

/// How old the first names of a large directory may be when its own listing goes on behind them.
const FIRST_AGE_MAX: Duration = Duration::from_secs(1);

/// How often in a row a walk may turn out to be elsewhere than where it was expected.
const RESTARTS_MAX: usize = 3;

/// A walk below a directory.
pub(super) struct Walk {
    base: Spot,
    /// Whether it goes from one directory in the base to another in an order of its own.
    among: bool,
    /// Whether names are looked up in its directories, which nobody reads.
    looks: bool,
    /// Whether it has brought all that it may.
    spent: AtomicBool,
    scan: Arc<tokio::sync::Mutex<Scan>>,
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

impl State {
    /// The step to a directory on a course that was just recognised, or of a walk under way.
    fn step(&mut self, spot: Spot, course: Option<Course>, looks: bool, now: Instant) -> Option<Step> {
        let goes_there = |walk: &Walk| walk.looks == looks && walk.base.holds(&spot);
        self.walks.retain(|(_, used)| now.saturating_duration_since(*used) < IDLE_MAX);
        if let Some(Course::Below(_)) = course {
            // Who went in an order of its own goes in the order of names now.
            self.walks.retain(|(walk, _)| !walk.among || !goes_there(walk));
        }
        let is_spent = |walk: &Walk| walk.spent.load(Ordering::Relaxed);
        let under_way = self.walks.iter().position(|(walk, _)| goes_there(walk) && !is_spent(walk));
        let walk = match under_way.and_then(|at| self.walks.remove(at)) {
            Some((walk, _)) => walk,
            None => {
                let (base, scan, among) = match course? {
                    Course::Below(base) => (base.clone(), Scan::new(&base.prefix, &spot.prefix), false),
                    Course::Among(base) => (base.clone(), Scan::from_start(&base.prefix), true),
                };
                if let Some((_, used)) = self.walks.iter_mut().find(|(walk, _)| goes_there(walk) && walk.base == base) {
                    *used = now;
                    return None;
                }
                let (spent, scan) = (AtomicBool::new(false), Arc::new(tokio::sync::Mutex::new(scan)));
                Arc::new(Walk { base, among, looks, spent, scan })
            }
        };
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
        last.is_some_and(|spot| state.walks.iter().any(|(walk, _)| !walk.looks && walk.base.holds(spot)))
    }

    fn end(&self, walk: &Arc<Walk>) {
        self.0.lock().expect("no panic under this lock").walks.retain(|(other, _)| !Arc::ptr_eq(other, walk));
    }

    /// Ends a walk that goes in no order after all: pages for the sake of one directory each would be in vain.
    fn give_up(&self, walk: &Arc<Walk>, scan: &mut Scan) {
        scan.end();
        self.end(walk);
        self.0.lock().expect("no panic under this lock").reads.forget(walk.looks);
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
            let brought = self.is_brought_among(directory, walk, &mut scan, &spot.prefix).await?;
            return Ok(if brought { Brought::All } else { Brought::Nothing });
        }
        let (mut pages, mut restarted) = (0, false);
        while self.tree.knowledge(directory) != Knowledge::Complete {
            if scan.over {
                return Ok(Brought::Nothing);
            }
            match scan.subtree.position(spot.prefix.as_str()) {
                // Larger than a page.
                Position::Inside { own } if pages > 0 || own == scan.page_keys.max(OWN_MIN) => {
                    let is_worth = own >= OWN_MIN && !walk.looks;
                    let first = is_worth.then(|| self.hand_over(directory, walk, &mut scan, &spot.prefix)).flatten();
                    return Ok(first.map_or(Brought::Nothing, |names| Brought::First(Box::new(names))));
                }
                Position::Inside { .. } => {}
                Position::Ahead if pages == 0 => {}
                Position::Ahead | Position::Behind if restarted => return Ok(Brought::Nothing),
                Position::Ahead | Position::Behind => {
                    if walk.looks || scan.restarts == RESTARTS_MAX {
                        self.walks.give_up(walk, &mut scan);
                        continue;
                    }
                    scan.begin_anew(&spot.prefix);
                    restarted = true;
                }
            }
            let wanted = walk.looks.then_some(&spot.prefix);
            pages += usize::from(self.next_page(&walk.base, &mut scan, wanted).await?);
        }
        if !restarted {
            scan.restarts = 0;
        }
        Ok(Brought::All)
    }

    /// Gives the names of a directory that have come to a listing of its own; the walk's goes on behind the directory and
    /// all below it.
    fn hand_over(&self, directory: Ino, walk: &Walk, scan: &mut Scan, prefix: &Prefix) -> Option<Names> {
        let (names, since) = scan.take(prefix)?;
        let base = &walk.base;
        let below = &prefix.as_str()[base.prefix.as_str().len()..];
        let is_same = self.tree.reach(base.ino, &base.place(), below, since) == Some(directory);
        (is_same && self.tree.may_tell_of(directory, since) && since.elapsed() < FIRST_AGE_MAX).then_some(names)
    }

    /// The listing of a walk whose directories are read in any order: all of them are brought if they are few. Answers
    /// whether this one is.
    async fn is_brought_among(
        &self,
        directory: Ino,
        walk: &Arc<Walk>,
        scan: &mut Scan,
        wanted: &Prefix,
    ) -> Result<bool> {
        let mut pages = 0;
        while self.tree.knowledge(directory) != Knowledge::Complete {
            if scan.has_ended() {
                // What it has brought is no longer fresh.
                self.walks.end(walk);
                return Ok(false);
            }
            if scan.pages >= AMONG_PAGES_MAX {
                walk.spent.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            if pages == AMONG_PAGES_EACH {
                return Ok(false);
            }
            self.next_page(&walk.base, scan, walk.looks.then_some(wanted)).await?;
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
                if let Err(error) = fs.next_page(&walk.base, &mut scan, None).await {
                    log::debug!("{}: the walk below it is not run ahead of: {error}", fs.path(walk.base.ino));
                }
            });
        }
    }

    /// Takes in the next page of a walk's listing, without asking the store about directories but the one that is `wanted`,
    /// if one is; answers whether there was anything in the page.
    async fn next_page(&self, base: &Spot, scan: &mut Scan, wanted: Option<&Prefix>) -> Result<bool> {
        let Some(whole) = scan.next_page(&self.store, &base.bucket).await? else { return Ok(false) };
        let filled = stream::iter(whole).map(|whole| self.fill_directory(base, whole, wanted));
        filled.buffered(self.config.requests_max).for_each(|()| std::future::ready(())).await;
        self.tell_kernel();
        Ok(scan.page_keys > 0)
    }

    /// Takes in all names of a directory of the walk. What cannot be taken in is asked for again when it is read.
    async fn fill_directory(&self, base: &Spot, Whole { names, since }: Whole, wanted: Option<&Prefix>) {
        let below = names.prefix()[base.prefix.as_str().len()..].to_owned();
        let Ok(prefix) = Prefix::new(names.prefix()) else { return };
        let Some(directory) = self.tree.reach(base.ino, &base.place(), &below, since) else { return };
        // Many markers are many requests, for somebody who asked for a name elsewhere.
        let is_asked_about = wanted.is_none_or(|wanted| *wanted == prefix);
        if !is_asked_about && self.judged(directory, &prefix, &names).is_none() {
            return;
        }
        if let Err(error) = self.judge(directory, &base.bucket, &prefix, &names).await {
            log::debug!("{prefix}: its marker is not known: {error}");
            return;
        }
        self.tree.set_hidden_keys(directory, names.hidden_keys());
        let listing = names.into_listing(true, self.clock.now());
        self.tree.fill(directory, &place(&base.bucket, &prefix), listing, since);
    }
}
