//! Which change may be carried out next. Pure.
//!
//! Changes that touch one name happen one after the other. A delete, and a rename's copy, waits besides for all
//! content that was closed before it: nobody who looks at the store sees what came later without what came earlier.
//! All else goes side by side, but that markers of directories take no turn from content: a directory is there as soon
//! as a file in it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{BucketName, Location};

use super::record::{Change, Record};

/// How long an object waits before it goes up: what changes it right after its close, such as its times, its mode or its
/// name, then costs no request of its own.
const LINGER: Duration = Duration::from_millis(100);

/// How long a directory's marker waits: most directories get a name soon that makes it superfluous, and some go again.
const MARKER_LINGER: Duration = Duration::from_secs(1);

/// With more changes than that nothing lingers: they wait for their turn long enough.
const LINGERING_MAX: usize = 1000;

/// While changes come in without such a pause, few go up at once: more would take processor, disk and network from the
/// programs that this journal lets go on.
const PAUSE: Duration = Duration::from_millis(50);
const FEW: usize = 8;

/// More go up at once the longer the first of them waits, and after so long as many as may: what is written for a long
/// time goes up as fast as it comes, or the store takes it.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Whose turn comes first: what somebody waits for, then content, then markers. What has failed comes after all that, the
/// later the more often it has.
const WANTED: u32 = 0;
const CONTENT: u32 = 1;
const MARKER: u32 = 2;

/// How long a change rests that could not be carried out; each further time it rests twice as long, up to the bound.
const REST: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(60);

/// A change that is not carried out yet.
pub(super) struct Op {
    pub(super) record: Arc<Record>,
    pub(super) started: bool,
    /// Whether it was ever begun, by this mount or one that died: the store may have carried it out.
    pub(super) tried: bool,
    /// Whether it is being written anew, and must not start meanwhile.
    held: bool,
    /// Until when it lingers, or rests after a failure.
    rests: Option<Instant>,
    /// Bytes that have arrived in the store.
    pub(super) stored_bytes: Arc<AtomicU64>,
    /// Why it could not be carried out, and how often.
    pub(super) failure: Option<(String, u32)>,
    /// Of those that are ready, the lowest goes first.
    rank: u32,
    /// When it came in; not told of what a dead mount has left.
    pushed: Option<Instant>,
    /// Whether the store refuses it for good: it is tried now and then, and nothing but its own name waits for it.
    pub(super) refused: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Queue {
    ops: BTreeMap<u64, Op>,
    /// Who touches a name, in order.
    names: BTreeMap<Location, VecDeque<u64>>,
    closes: BTreeSet<u64>,
    /// By rank, then in order.
    ready: BTreeSet<(u32, u64)>,
    /// Ready but for what was closed before them.
    behind: BTreeSet<u64>,
    resting: BTreeSet<(Instant, u64)>,
    last_pushed: Option<Instant>,
}

impl Queue {
    /// How many changes wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Adds a change; its order must be the highest yet. Answers whether there is something to start sooner than before.
    pub(super) fn push(&mut self, record: Arc<Record>, now: Instant) -> bool {
        let looks_again = self.next_turn(now).is_some();
        let lingers = record.pending().is_some() && self.ops.len() < LINGERING_MAX;
        let linger = if record.is_marker() { MARKER_LINGER } else { LINGER };
        self.last_pushed = Some(now);
        self.add(record, Some(now), lingers.then_some(now + linger));
        !(lingers && looks_again)
    }

    /// Adds a change that a dead mount may have begun.
    pub(super) fn push_tried(&mut self, record: Arc<Record>) {
        self.add(record, None, None);
    }

    fn add(&mut self, record: Arc<Record>, pushed: Option<Instant>, rests: Option<Instant>) {
        let order = record.order;
        for name in record.names() {
            self.names.entry(name.clone()).or_default().push_back(order);
        }
        if record.is_close() {
            self.closes.insert(order);
        }
        let (started, tried, held, failure, refused) = (false, pushed.is_none(), false, None, false);
        let rank = if record.is_marker() { MARKER } else { CONTENT };
        let stored_bytes = Arc::default();
        let op = Op { record, started, tried, held, rests, stored_bytes, failure, rank, pushed, refused };
        self.ops.insert(order, op);
        match rests {
            Some(until) => drop(self.resting.insert((until, order))),
            None => self.consider(order),
        }
    }

    /// The change that decides what a name stands for.
    pub(super) fn last(&self, name: &Location) -> Option<&Op> {
        let orders = self.names.get(name)?;
        orders.iter().rev().filter_map(|order| self.ops.get(order)).find(|op| op.record.to == *name)
    }

    /// A change that waits or is under way.
    pub(super) fn get(&self, order: u64) -> Option<&Op> {
        self.ops.get(&order)
    }

    /// Every change of a name, in order.
    pub(super) fn of(&self, name: &Location) -> impl Iterator<Item = &Op> {
        self.touching(name).filter(move |op| op.record.to == *name)
    }

    /// Every change of a name, and those that need what it stands for, in order.
    pub(super) fn touching(&self, name: &Location) -> impl Iterator<Item = &Op> {
        self.names.get(name).into_iter().flatten().filter_map(|order| self.ops.get(order))
    }

    /// Whether no later change needs what this one makes of its name.
    pub(super) fn is_free(&self, op: &Op) -> bool {
        self.names.get(&op.record.to).and_then(VecDeque::back) == Some(&op.record.order)
    }

    /// Every change, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Op> {
        self.ops.values()
    }

    /// What the names from `first` on stand for that change, in their order; names without a change of their own are
    /// left out.
    pub(super) fn names_from(&self, first: &Location) -> impl Iterator<Item = (&Location, &Op)> {
        self.names.range(first.clone()..).filter_map(|(name, _)| self.last(name).map(|op| (name, op)))
    }

    /// Keeps a change from starting, if it has not.
    pub(super) fn hold(&mut self, order: u64) -> bool {
        match self.ops.get_mut(&order) {
            Some(op) if !op.started => {
                op.held = true;
                true
            }
            _ => false,
        }
    }

    /// A held change may start, as this record says if it is another now, which touches the same names.
    pub(super) fn release(&mut self, order: u64, new: Option<Arc<Record>>) -> Option<Arc<Record>> {
        let op = self.ops.get_mut(&order)?;
        op.held = false;
        let new = new?;
        match new.is_close() {
            true => self.closes.insert(order),
            false => self.closes.remove(&order),
        };
        Some(std::mem::replace(&mut op.record, new))
    }

    /// The record is another, for what it builds on is called otherwise.
    pub(super) fn rewrite(&mut self, record: Arc<Record>) {
        if let Some(op) = self.ops.get_mut(&record.order) {
            op.record = record;
        }
    }

    /// How many changes may be under way at once now, of `at_once_max`.
    pub(super) fn turns(&self, now: Instant, at_once_max: usize) -> usize {
        let is_busy = self.last_pushed.is_some_and(|last| now < last + PAUSE);
        let first = self.ready.first().and_then(|(rank, order)| Some((*rank, self.ops.get(order)?.pushed?)));
        match first.filter(|(rank, _)| is_busy && *rank != WANTED) {
            None => at_once_max,
            Some((_, pushed)) => {
                let waited = now.saturating_duration_since(pushed).as_secs_f64() / WAIT_MAX.as_secs_f64();
                let at_once = (at_once_max as f64 * waited * waited) as usize;
                at_once.max(FEW).min(at_once_max)
            }
        }
    }

    /// When more may be under way though nothing has happened.
    pub(super) fn next_turn(&self, now: Instant) -> Option<Instant> {
        let pause = self.last_pushed.filter(|_| !self.ready.is_empty()).map(|last| last + PAUSE);
        let rest = self.resting.first().map(|(until, _)| *until);
        let marker = self.ready.first().and_then(|(rank, order)| self.marker_turn(*rank, *order));
        pause.into_iter().chain(marker).filter(|turn| now < *turn).chain(rest).min()
    }

    /// The next change that may be carried out, with so many under way; it counts as started.
    pub(super) fn start(&mut self, now: Instant, under_way: usize, at_once_max: usize) -> Option<Arc<Record>> {
        while let Some(&(until, order)) = self.resting.first()
            && until <= now
        {
            self.resting.pop_first();
            self.rested(order);
        }
        if under_way >= self.turns(now, at_once_max) {
            return None;
        }
        // The first marker has waited for longest. What failed before comes behind all of them, and is content they wait for.
        let markers = self.ready.range((MARKER, 0)..(MARKER + 1, 0)).next();
        let turn = markers.and_then(|(rank, order)| self.marker_turn(*rank, *order));
        let go_on_at = if turn.is_some_and(|turn| now < turn) { (MARKER + 1, 0) } else { (MARKER, 0) };
        let ready = self.ready.range(..(MARKER, 0)).chain(self.ready.range(go_on_at..));
        let order = ready.map(|(_, order)| *order).find(|order| self.ops.get(order).is_some_and(|op| !op.held))?;
        self.begin(order)
    }

    /// When a marker goes up at the latest, if it waits for content.
    fn marker_turn(&self, rank: u32, order: u64) -> Option<Instant> {
        let waits = rank == MARKER && !self.closes.is_empty();
        Some(self.ops.get(&order).filter(|_| waits)?.pushed? + WAIT_MAX)
    }

    /// Further deletes in a bucket that may be carried out now: one in `share` of those that are ready, so that as many
    /// requests can go side by side. Some stores work off the keys of one request in turn.
    pub(super) fn start_deletes(&mut self, bucket: &BucketName, share: usize, count_max: usize) -> Vec<Arc<Record>> {
        let is_delete = |order: &u64| {
            let op = self.ops.get(order);
            op.is_some_and(|op| !op.held && op.record.change == Change::Delete && op.record.to.bucket == *bucket)
        };
        let count = (self.ready.len() / share.max(1)).min(count_max);
        let ready = self.ready.iter().map(|(_, order)| *order);
        let orders: Vec<u64> = ready.filter(is_delete).take(count).collect();
        orders.into_iter().filter_map(|order| self.begin(order)).collect()
    }

    fn begin(&mut self, order: u64) -> Option<Arc<Record>> {
        let op = self.ops.get_mut(&order)?;
        self.ready.remove(&(op.rank, order));
        (op.started, op.tried) = (true, true);
        Some(op.record.clone())
    }

    /// Changes that are `wanted` rest no longer, and go before others.
    pub(super) fn wake(&mut self, wanted: impl Fn(&Op) -> bool) {
        for op in self.ops.values_mut().filter(|op| wanted(op)) {
            let order = op.record.order;
            if self.ready.remove(&(op.rank, order)) {
                self.ready.insert((WANTED, order));
            }
            op.rank = WANTED;
        }
        let (woken, resting) = std::mem::take(&mut self.resting)
            .into_iter()
            .partition(|(_, order)| self.ops.get(order).is_some_and(&wanted));
        self.resting = resting;
        let woken: BTreeSet<(Instant, u64)> = woken;
        woken.into_iter().for_each(|(_, order)| self.rested(order));
    }

    fn rested(&mut self, order: u64) {
        if let Some(op) = self.ops.get_mut(&order) {
            op.rests = None;
            self.consider(order);
        }
    }

    /// A change could not be carried out: it rests. One that is `refused` for good holds back its own name alone.
    pub(super) fn fail(&mut self, order: u64, reason: String, refused: bool, now: Instant) {
        let Some(op) = self.ops.get_mut(&order) else { return };
        let times = op.failure.as_ref().map_or(0, |(_, times)| *times) + 1;
        (op.started, op.refused, op.rank) = (false, refused, MARKER + times);
        op.failure = Some((reason, times));
        let rest = REST.saturating_mul(2u32.saturating_pow(times - 1)).min(REST_MAX);
        op.rests = Some(now + rest);
        self.resting.insert((now + rest, order));
        if refused {
            self.closes.remove(&order);
            self.let_behind_go();
        }
    }

    /// A change is carried out, or given up: what waited for it may go.
    pub(super) fn finish(&mut self, order: u64) -> Option<Arc<Record>> {
        let op = self.ops.remove(&order)?;
        self.ready.remove(&(op.rank, order));
        self.behind.remove(&order);
        if let Some(until) = op.rests {
            self.resting.remove(&(until, order));
        }
        for name in op.record.names() {
            let Some(orders) = self.names.get_mut(name) else { continue };
            orders.retain(|other| *other != order);
            match orders.front().copied() {
                Some(next) => self.consider(next),
                None => drop(self.names.remove(name)),
            }
        }
        self.closes.remove(&order);
        self.let_behind_go();
        Some(op.record)
    }

    /// What waited for closes that are stored is ready.
    fn let_behind_go(&mut self) {
        while let Some(&first) = self.behind.first()
            && self.closes.first().is_none_or(|close| *close >= first)
        {
            self.behind.pop_first();
            let rank = self.ops.get(&first).map_or(CONTENT, |op| op.rank);
            self.ready.insert((rank, first));
        }
    }

    /// A change that has not started is not wanted any more.
    pub(super) fn cancel(&mut self, order: u64) -> Option<Arc<Record>> {
        match self.ops.get(&order) {
            Some(op) if !op.started && !op.held => self.finish(order),
            _ => None,
        }
    }

    fn consider(&mut self, order: u64) {
        let Some(op) = self.ops.get(&order).filter(|op| !op.started && op.rests.is_none()) else { return };
        let first = |name: &&Location| self.names.get(name).and_then(VecDeque::front) == Some(&order);
        if !op.record.names().iter().all(first) {
            return;
        }
        let waits = op.record.after_closes && self.closes.first().is_some_and(|close| *close < order);
        match waits {
            true => self.behind.insert(order),
            false => self.ready.insert((op.rank, order)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::journal::record::{Pending, Segment};
    use crate::store::{Condition, ETag, Key, ObjectHeaders};
    use proptest::prelude::*;
    use std::time::SystemTime;

    const MANY: usize = 64;

    fn name(key: &str) -> Location {
        Location { bucket: BucketName::new("bucket").expect("plain"), key: Key::new(key).expect("plain") }
    }

    fn put(order: u64, key: &str, segments: Vec<Segment>, after_closes: bool) -> Arc<Record> {
        let pending = Pending {
            segments,
            headers: ObjectHeaders::default(),
            keeps_headers: false,
            condition: Condition::None,
            etag: ETag::new("e"),
            modified: SystemTime::UNIX_EPOCH,
        };
        Arc::new(Record { order, after_closes, to: name(key), change: Change::Store(Box::new(pending)) })
    }

    fn close(order: u64, key: &str) -> Arc<Record> {
        put(order, key, vec![Segment::Local { file: order.to_string(), range: 0..1 }], false)
    }

    fn copy(order: u64, from: &str, to: &str) -> Arc<Record> {
        put(
            order,
            to,
            vec![Segment::Stored { source: name(from), etag: ETag::new("e"), range: 0..1, whole: true, made_by: None }],
            true,
        )
    }

    fn delete(order: u64, key: &str) -> Arc<Record> {
        Arc::new(Record { order, after_closes: true, to: name(key), change: Change::Delete })
    }

    fn started(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.start(Instant::now(), 0, MANY).map(|record| record.order)).collect()
    }

    #[test]
    fn what_failed_does_not_wait_for_a_marker_that_waits_for_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push_tried(close(1, "a"));
        assert_eq!(started(&mut queue), [1]);
        queue.fail(1, "the store is away".to_owned(), false, now);
        queue.push(put(2, "d/", Vec::new(), false), now);
        let due = now + REST.max(LINGER);
        assert!(due < now + WAIT_MAX);
        let next = std::iter::from_fn(|| queue.start(due, 0, MANY).map(|record| record.order));
        assert_eq!(next.collect::<Vec<_>>(), [1], "the marker waits");
    }

    #[test]
    fn what_was_closed_comes_before_what_was_removed_after_it() {
        let mut queue = Queue::default();
        for record in [close(1, "a"), close(2, "b"), delete(3, "old"), copy(4, "x", "y"), delete(5, "x"), close(6, "c")]
        {
            queue.push_tried(record);
        }
        assert_eq!(started(&mut queue), [1, 2, 6], "the delete and the copy wait, a later close does not");
        queue.finish(2);
        assert_eq!(started(&mut queue), [0u64; 0]);
        queue.finish(1);
        assert_eq!(started(&mut queue), [3, 4], "the source of a copy is deleted after it");
        queue.finish(4);
        assert_eq!(started(&mut queue), [5]);
    }

    #[test]
    fn what_is_changed_right_after_its_close_goes_up_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(close(1, "a"), now);
        assert!(queue.start(now, 0, MANY).is_none());
        assert!(queue.hold(1) && queue.release(1, Some(close(1, "a"))).is_some(), "it can still be replaced");
        assert!(queue.start(now, 0, MANY).is_none());
        assert_eq!(queue.start(now + LINGER, 0, MANY).map(|record| record.order), Some(1));
        queue.push(close(2, "b"), now);
        queue.wake(|_| true);
        assert!(queue.start(now, 0, MANY).is_some(), "whoever waits for it need not wait for that");
    }

    #[test]
    fn few_go_up_while_changes_come_in_but_for_what_waits_long_or_is_wanted() {
        let (mut queue, began) = (Queue::default(), Instant::now());
        (1..=5).for_each(|order| assert_eq!(queue.push(close(order, &order.to_string()), began), order == 1));
        let now = began + LINGER;
        queue.push(close(6, "busy"), now);
        assert_eq!(queue.start(now, 1, MANY).map(|record| record.order), Some(1));
        assert!(queue.start(now, FEW, MANY).is_none());
        assert_eq!(queue.next_turn(now), Some(now + PAUSE));
        assert!(queue.start(now + PAUSE, FEW, MANY).is_some(), "nobody is in the way after a pause");
        queue.push(close(7, "busy too"), began + WAIT_MAX);
        let turns = |after: u32| queue.turns(began + WAIT_MAX * after / 4, MANY);
        assert_eq!([turns(0), turns(1), turns(2), turns(4)], [FEW, FEW, MANY / 4, MANY]);
        queue.wake(|op| op.record.order == 5);
        assert_eq!(queue.start(began, FEW, MANY).map(|record| record.order), Some(5), "somebody waits for it");
        assert!(queue.start(began, FEW, MANY).is_none());
    }

    #[test]
    fn markers_take_no_turn_from_content_but_wait_for_it_only_so_long() {
        let (mut queue, began) = (Queue::default(), Instant::now());
        queue.push(put(1, "d/", Vec::new(), false), began);
        queue.push(close(2, "d/a"), began);
        let now = began + MARKER_LINGER;
        assert_eq!(queue.start(now, 0, MANY).map(|record| record.order), Some(2));
        assert_eq!(queue.start(now, 1, MANY), None, "the content is not stored yet");
        assert_eq!(queue.next_turn(now), Some(began + WAIT_MAX));
        assert!(queue.start(began + WAIT_MAX, 1, MANY).is_some());
        queue.push(put(3, "e/", Vec::new(), false), began);
        queue.push(close(4, "d/b"), now);
        queue.finish(2);
        assert_eq!(queue.start(now + MARKER_LINGER, 1, MANY).map(|record| record.order), Some(4));
        queue.finish(4);
        assert_eq!(queue.start(now + MARKER_LINGER, 1, MANY).map(|record| record.order), Some(3));
    }

    #[test]
    fn a_failure_rests_and_holds_back_its_name_alone() {
        let mut queue = Queue::default();
        [close(1, "a"), close(2, "a"), close(3, "b")].into_iter().for_each(|record| queue.push_tried(record));
        assert_eq!(started(&mut queue), [1, 3]);
        queue.fail(1, "no".to_owned(), false, Instant::now());
        assert_eq!(started(&mut queue), [0u64; 0]);
        assert!(queue.next_turn(Instant::now()).is_some());
        queue.wake(|_| true);
        assert_eq!(started(&mut queue), [1]);
        queue.finish(1);
        assert_eq!(started(&mut queue), [2]);
    }

    /// However few turns there are, what fails takes none from what was not tried yet; what is waited for is next.
    #[test]
    fn a_failure_lets_others_go_before_it_until_it_is_waited_for() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        (1..=4).for_each(|order| queue.push_tried(close(order, &order.to_string())));
        let turn = |queue: &mut Queue| {
            let order = queue.start(now + REST_MAX, 0, MANY).expect("one is ready").order;
            queue.fail(order, "no".to_owned(), false, now);
            order
        };
        assert_eq!([(); 5].map(|()| turn(&mut queue)), [1, 2, 3, 4, 1]);
        queue.wake(|op| op.record.to == name("4"));
        assert_eq!([(); 3].map(|()| turn(&mut queue)), [4, 2, 3]);
    }

    #[test]
    fn what_is_cancelled_or_held_does_not_start() {
        let mut queue = Queue::default();
        [close(1, "a"), close(2, "b"), delete(3, "c")].into_iter().for_each(|record| queue.push_tried(record));
        assert!(queue.hold(1) && queue.cancel(1).is_none());
        assert!(queue.cancel(2).is_some());
        assert_eq!(started(&mut queue), [0u64; 0]);
        queue.release(1, None);
        assert_eq!(started(&mut queue), [1]);
        assert!(queue.cancel(1).is_none() && !queue.hold(1));
        queue.finish(1);
        assert_eq!(started(&mut queue), [3]);
    }

    proptest! {
        /// Whatever is queued is carried out once, changes of a name in order, and nothing that waits for closes
        /// before them.
        #[test]
        fn every_change_is_carried_out_once_and_in_order(
            kinds in prop::collection::vec((0..3u8, 0..4usize, 0..4usize), 1..40), picks in prop::collection::vec(0..8usize, 400)
        ) {
            let keys = ["a", "b", "c", "d"];
            let mut queue = Queue::default();
            let mut all = Vec::new();
            for (order, (kind, a, b)) in (1..).zip(&kinds) {
                let record = match kind {
                    0 => close(order, keys[*a]),
                    1 if a != b => copy(order, keys[*a], keys[*b]),
                    _ => delete(order, keys[*a]),
                };
                all.push(record.clone());
                queue.push_tried(record);
            }
            let (mut under_way, mut done) = (Vec::new(), Vec::new());
            for pick in picks {
                under_way.extend(started(&mut queue));
                for order in &under_way {
                    let record = &all[*order as usize - 1];
                    for earlier in all.iter().filter(|other| other.order < *order && !done.contains(&other.order)) {
                        let shared = record.names().iter().any(|name| earlier.names().contains(name));
                        prop_assert!(!shared, "{order} beside {}", earlier.order);
                        prop_assert!(!(record.after_closes && earlier.is_close()));
                    }
                }
                if !under_way.is_empty() {
                    let order = under_way.swap_remove(pick % under_way.len());
                    queue.finish(order);
                    done.push(order);
                }
            }
            done.sort_unstable();
            prop_assert_eq!(done, (1..=kinds.len() as u64).collect::<Vec<_>>());
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
