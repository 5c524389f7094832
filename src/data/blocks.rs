//! Which bytes of which versions are held, by place and by age. Pure.
//!
//! A block is any range of a version: a random reader's is what it asked for, a forward reader's are pieces of its
//! window. Blocks never overlap, so that two readers of a byte share one fetch. What a block is made of is not known
//! here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use lru::LruCache;

/// A version's identity in memory, and the offset at which a block of it begins.
type Place = (u64, u64);

struct Held<B> {
    end: u64,
    block: Arc<B>,
}

/// The blocks that are held.
pub struct Blocks<B> {
    by_place: BTreeMap<Place, Held<B>>,
    by_age: LruCache<Place, ()>,
}

impl<B> Default for Blocks<B> {
    fn default() -> Self {
        Blocks { by_place: BTreeMap::new(), by_age: LruCache::unbounded() }
    }
}

impl<B> Blocks<B> {
    fn last_before(&self, version: u64, end: u64) -> Option<(&Place, &Held<B>)> {
        self.by_place.range((version, 0)..(version, end)).next_back()
    }

    /// The block that has the byte at `offset`, and its range. It counts as used now.
    pub fn covering(&mut self, version: u64, offset: u64) -> Option<(Range<u64>, Arc<B>)> {
        let (place, held) = self.last_before(version, offset + 1).filter(|(_, held)| held.end > offset)?;
        let (place, found) = (*place, (place.1..held.end, held.block.clone()));
        self.by_age.promote(&place);
        Some(found)
    }

    /// The parts of a range that no block covers, in order.
    pub fn gaps(&self, version: u64, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let first = self.last_before(version, range.start + 1).map_or(range.start, |(place, _)| place.1);
        for (place, held) in self.by_place.range((version, first)..(version, range.end)) {
            if place.1 > at {
                gaps.push(at..place.1);
            }
            at = at.max(held.end);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Whether any block that has bytes of a range is such a one.
    pub fn any_in(&self, version: u64, range: &Range<u64>, is_such: impl Fn(&B) -> bool) -> bool {
        let first = self.last_before(version, range.start + 1).map_or(range.start, |(place, _)| place.1);
        let mut within = self.by_place.range((version, first)..(version, range.end.max(first)));
        within.any(|(_, held)| held.end > range.start && is_such(&held.block))
    }

    /// Adds a block, which must lie in a gap.
    pub fn insert(&mut self, version: u64, range: Range<u64>, block: Arc<B>) {
        debug_assert_eq!(self.gaps(version, &range), std::slice::from_ref(&range), "blocks never overlap");
        self.by_place.insert((version, range.start), Held { end: range.end, block });
        self.by_age.put((version, range.start), ());
    }

    /// Takes a block out, if it is still the one that begins there.
    pub fn remove(&mut self, version: u64, start: u64, block: &Arc<B>) {
        let place = (version, start);
        if self.by_place.get(&place).is_some_and(|held| Arc::ptr_eq(&held.block, block)) {
            self.by_place.remove(&place);
            self.by_age.pop(&place);
        }
    }

    /// Takes all blocks of a version out that `may` go.
    pub fn remove_version(&mut self, version: u64, may: impl Fn(&B) -> bool) {
        let of_version = self.by_place.range((version, 0)..=(version, u64::MAX));
        let gone: Vec<Place> = of_version.filter(|(_, held)| may(&held.block)).map(|(place, _)| *place).collect();
        for place in gone {
            self.by_place.remove(&place);
            self.by_age.pop(&place);
        }
    }

    /// Gives back blocks that `may` go, the longest unused first, until about so many bytes are
    /// free; answers the ranges' lengths and the blocks.
    pub fn evict(&mut self, bytes: u64, may: impl Fn(&B) -> bool) -> Vec<(u64, Arc<B>)> {
        let mut gone = Vec::new();
        let (mut freed, mut kept) = (0, Vec::new());
        while freed < bytes {
            let Some((place, ())) = self.by_age.pop_lru() else { break };
            match self.by_place.get(&place) {
                Some(held) if may(&held.block) => {
                    let length = held.end - place.1;
                    freed += length;
                    gone.extend(self.by_place.remove(&place).map(|held| (length, held.block)));
                }
                _ => kept.push(place),
            }
        }
        for place in kept.into_iter().rev() {
            self.by_age.put(place, ());
            self.by_age.demote(&place);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_unused_go_first() {
        let mut blocks = Blocks::default();
        for start in [0, 10, 20, 30] {
            blocks.insert(1, start..start + 10, Arc::new(start));
        }
        blocks.covering(1, 5);
        let order: Vec<u64> = (0..4).flat_map(|_| blocks.evict(1, |_| true)).map(|(_, block)| *block).collect();
        assert_eq!(order, [10, 20, 30, 0]);
    }

    #[test]
    fn one_versions_blocks_go_and_others_stay() {
        let mut blocks = Blocks::default();
        for (version, start) in [(1, 0), (2, 0), (2, 10), (2, 20), (3, 0)] {
            blocks.insert(version, start..start + 10, Arc::new(start));
        }
        blocks.remove_version(2, |block| *block != 10);
        assert_eq!(blocks.gaps(2, &(0..30)), [0..10, 20..30]);
        let order: Vec<u64> = (0..4).flat_map(|_| blocks.evict(1, |_| true)).map(|(_, block)| *block).collect();
        assert_eq!(order, [0, 10, 0]);
    }

    #[test]
    fn what_may_not_go_stays_in_its_place() {
        let mut blocks = Blocks::default();
        for start in [0, 10, 20] {
            blocks.insert(1, start..start + 10, Arc::new(start));
        }
        let gone: Vec<u64> = blocks.evict(15, |block| *block > 0).iter().map(|(_, block)| **block).collect();
        assert_eq!(gone, [10, 20]);
        assert_eq!(blocks.evict(1, |_| true).len(), 1);
        assert!(blocks.covering(1, 0).is_none());
    }

    proptest! {
        /// Against a model that knows of each byte which block has it.
        #[test]
        fn gaps_and_blocks_are_what_a_table_of_bytes_says(
            steps in prop::collection::vec((0u64..2, 0u64..60, 1u64..20, 0u8..4), 1..40)
        ) {
            let mut blocks = Blocks::<u64>::default();
            let mut model = [[None; 100]; 2];
            for (number, (version, start, length, step)) in (0u64..).zip(steps) {
                let range = start..start + length;
                let bytes = &mut model[version as usize];
                let gaps = blocks.gaps(version, &range);
                let free: Vec<u64> = gaps.iter().cloned().flatten().collect();
                let wanted: Vec<u64> = range.clone().filter(|at| bytes[*at as usize].is_none()).collect();
                prop_assert_eq!(free, wanted);
                match (step, blocks.covering(version, start)) {
                    (0, Some((range, block))) => {
                        prop_assert_eq!(bytes[start as usize], Some(*block));
                        blocks.remove(version, range.start, &block);
                        range.for_each(|at| bytes[at as usize] = None);
                    }
                    (_, found) => {
                        prop_assert_eq!(found.map(|(_, block)| *block), bytes[start as usize]);
                        for gap in gaps {
                            let block = Arc::new(number * 100 + gap.start);
                            gap.clone().for_each(|at| bytes[at as usize] = Some(*block));
                            blocks.insert(version, gap, block);
                        }
                    }
                }
            }
        }
    }
}
