//! The hash table under the key index: from a key's hash to its number.
//!
//! Slots of 8 bytes (32 bits of the hash, and the number) in segments that grow one by one, so that
//! no insert moves more than one segment and memory follows the keys. The first bits of the hash
//! name the segment (extendible hashing: Fagin et al., 1979), the next ones the place in it, from
//! where a key is looked for slot by slot; so growing and splitting read and write in order, and
//! look at no key.

use super::KeyId;

/// A segment that would need more slots is split.
const SEGMENT_SLOTS_MAX: usize = 1 << 15;
const SEGMENT_SLOTS_MIN: usize = 64;
/// Of so many slots at most so many are taken; a segment that grows has a quarter more.
const LOAD_MAX: (usize, usize) = (5, 4);
/// A segment is not split further: that many keys there cannot be, unless hashes are no hashes.
const DEPTH_MAX: u32 = 17;

/// A slot: the hash's first 32 bits above the key's number plus 1; 0 = free.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    pub(super) const FREE: Self = Self(0);

    fn new(hash: u64, id: KeyId) -> Self {
        Self(hash & TAG | (u64::from(id) + 1))
    }

    /// The number, if this is a key's whose hash begins so.
    #[inline]
    pub(super) fn id_of(self, hash: u64) -> Option<KeyId> {
        let is_free_or_other = (self.0 ^ hash) & TAG != 0 || self.0 as u32 == 0;
        (!is_free_or_other).then(|| self.0 as u32 - 1)
    }

    fn is_free(self) -> bool {
        self.0 as u32 == 0
    }
}

/// The bits of a slot that are the hash's.
const TAG: u64 = !0 << 32;

/// Where to go on looking.
#[derive(Clone, Copy)]
pub(super) struct Place {
    segment: usize,
    slot: usize,
}

pub(super) struct KeyTable {
    /// Which segment has the keys whose hashes begin with these bits.
    directory: Vec<u32>,
    /// How many bits of the hash the directory has.
    bits: u32,
    segments: Vec<Segment>,
}

struct Segment {
    slots: Vec<Slot>,
    /// How many first bits of the hash all its keys share.
    depth: u32,
    len: usize,
}

impl Segment {
    fn new(slots: usize, depth: u32) -> Self {
        Self { slots: vec![Slot::FREE; slots], depth, len: 0 }
    }

    /// Where a key with this hash would best be: in the order of the hashes.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash & TAG) << self.depth) >> 32) as usize * self.slots.len() >> 32
    }

    #[inline]
    fn after(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }

    /// How many slots on from one to the other.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    fn is_full(&self) -> bool {
        (self.len + 1) * LOAD_MAX.0 > self.slots.len() * LOAD_MAX.1
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot.0);
        while !self.slots[at].is_free() {
            at = self.after(at);
        }
        self.slots[at] = slot;
        self.len += 1;
    }

    fn grown(&self) -> Self {
        let mut grown = Self::new(self.slots.len() / 4 * 5, self.depth);
        self.keys().for_each(|slot| grown.put(slot));
        grown
    }

    fn keys(&self) -> impl Iterator<Item = Slot> + '_ {
        self.slots.iter().copied().filter(|slot| !slot.is_free())
    }
}

impl KeyTable {
    pub(super) fn new() -> Self {
        Self { directory: vec![0], bits: 0, segments: vec![Segment::new(SEGMENT_SLOTS_MIN, 0)] }
    }

    pub(super) fn memory(&self) -> usize {
        self.directory.capacity() * size_of::<u32>()
            + self.segments.iter().map(|s| s.slots.capacity() * size_of::<Slot>()).sum::<usize>()
            + self.segments.capacity() * size_of::<Segment>()
    }

    /// Where a key with this hash is looked for first.
    #[inline]
    pub(super) fn first(&self, hash: u64) -> Place {
        // In two shifts, as the directory may have no bit.
        let segment = self.directory[(hash >> 1 >> (u64::BITS - 1 - self.bits)) as usize] as usize;
        Place { segment, slot: self.segments[segment].home(hash) }
    }

    #[inline]
    pub(super) fn slot(&self, place: Place) -> Slot {
        self.segments[place.segment].slots[place.slot]
    }

    /// The number of the key with this hash that `is` says it is.
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(KeyId) -> bool) -> Option<KeyId> {
        let Place { segment, slot: mut at } = self.first(hash);
        let segment = &self.segments[segment];
        while !segment.slots[at].is_free() {
            if let Some(id) = segment.slots[at].id_of(hash).filter(|id| is(*id)) {
                return Some(id);
            }
            at = segment.after(at);
        }
        None
    }

    /// Adds a key that it does not have.
    pub(super) fn insert(&mut self, hash: u64, id: KeyId) {
        let mut segment = self.first(hash).segment;
        while self.segments[segment].is_full() {
            let Segment { slots, depth, .. } = &self.segments[segment];
            if slots.len() < SEGMENT_SLOTS_MAX || *depth == DEPTH_MAX {
                self.grow(segment);
            } else {
                self.split(segment);
                segment = self.first(hash).segment;
            }
        }
        self.segments[segment].put(Slot::new(hash, id));
    }

    /// Takes a key out; whether it was there.
    pub(super) fn remove(&mut self, hash: u64, id: KeyId) -> bool {
        let Place { segment, slot: mut hole } = self.first(hash);
        let segment = &mut self.segments[segment];
        while segment.slots[hole].id_of(hash) != Some(id) {
            if segment.slots[hole].is_free() {
                return false;
            }
            hole = segment.after(hole);
        }
        // What follows moves up, unless it would come before its home (Knuth, 6.4, algorithm R).
        let mut at = hole;
        loop {
            at = segment.after(at);
            let slot = segment.slots[at];
            if slot.is_free() {
                break;
            }
            if segment.distance(segment.home(slot.0), at) >= segment.distance(hole, at) {
                segment.slots[hole] = slot;
                hole = at;
            }
        }
        segment.slots[hole] = Slot::FREE;
        segment.len -= 1;
        true
    }

    #[cold]
    fn grow(&mut self, segment: usize) {
        self.segments[segment] = self.segments[segment].grown();
    }

    #[cold]
    fn split(&mut self, segment: usize) {
        let old = &self.segments[segment];
        let depth = old.depth + 1;
        let mut halves = [0, 1].map(|_| Segment::new(old.slots.len() / 8 * 5, depth));
        for slot in old.keys() {
            let half = &mut halves[(slot.0 >> (u64::BITS - depth)) as usize & 1];
            if half.is_full() {
                *half = half.grown();
            }
            half.put(slot);
        }
        if depth > self.bits {
            self.directory = self.directory.iter().flat_map(|segment| [*segment, *segment]).collect();
            self.bits = depth;
        }
        let [first, second] = halves;
        // There are fewer segments than keys.
        let (first_number, second_number) = (segment as u32, self.segments.len() as u32);
        self.segments[segment] = first;
        self.segments.push(second);
        let bit = 1 << (self.bits - depth);
        for (prefix, of) in self.directory.iter_mut().enumerate() {
            if *of == first_number && prefix & bit != 0 {
                *of = second_number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Against a map, with hashes that collide in their first bits, all bits, or not at all.
        #[test]
        fn as_a_map(
            deeds in proptest::collection::vec((any::<bool>(), 0u32..400), 0..1_500),
            shift in prop_oneof![Just(0u32), Just(40), Just(58), Just(64)],
        ) {
            let hash = |id: u32| {
                let mixed = (u64::from(id) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                mixed.checked_shr(shift).unwrap_or(0)
            };
            let mut table = KeyTable::new();
            let mut plain: HashMap<u32, ()> = HashMap::new();
            for (adds, id) in deeds {
                if adds && plain.insert(id, ()).is_none() {
                    table.insert(hash(id), id);
                } else if !adds {
                    prop_assert_eq!(table.remove(hash(id), id), plain.remove(&id).is_some());
                }
            }
            for id in 0..400 {
                let found = table.find(hash(id), |found| found == id);
                prop_assert_eq!(found.is_some(), plain.contains_key(&id));
            }
        }
    }

    #[test]
    fn many_keys_take_few_bytes_and_leave_no_trace() {
        let hash = |id: u32| (u64::from(id) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut table = KeyTable::new();
        for id in 0..300_000 {
            table.insert(hash(id), id);
            if (id + 1) % 50_000 == 0 {
                let each = table.memory() / (id as usize + 1);
                assert!(each <= 13, "{each} bytes a key");
            }
        }
        assert!((0..300_000).all(|id| table.find(hash(id), |found| found == id) == Some(id)));
        assert!((0..300_000).all(|id| table.remove(hash(id), id)));
        assert!(table.segments.iter().all(|segment| segment.slots.iter().all(|slot| slot.is_free())));
    }
}
