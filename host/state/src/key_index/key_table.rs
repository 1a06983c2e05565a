//! The hash table under the key index: from a key's hash to its number.
//!
//! Slots of 8 bytes (32 bits of the hash, and the number; of few keys, the key too) in segments that
//! grow one by one, so that no insert moves more than one segment and memory follows the keys. The
//! first bits of the hash name the segment (extendible hashing: Fagin et al., 1979), the next ones the
//! place in it, from where a key is looked for slot by slot; so growing and splitting read and write
//! in order, and look at no key.

use super::KeyId;

/// A segment that would need more slots is split.
const SEGMENT_SLOTS_MAX: usize = 1 << 15;
const SEGMENT_SLOTS_MIN: usize = 64;
/// A table of more segments is dense: of 5 slots at most 4 are taken, segments grow by a quarter, and
/// keys lie apart. Before that it is quick: of 2 slots at most one is taken, segments double, and each
/// slot has its key beside it.
const QUICK_SEGMENTS_MAX: usize = 16;
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

    /// Whether this is a key's whose hash begins so.
    #[inline]
    pub(super) fn is_of(self, hash: u64) -> bool {
        (self.0 ^ hash) & TAG == 0 && !self.is_free()
    }

    /// The key's number; of a free slot, one that no key has.
    #[inline]
    pub(super) fn id(self) -> KeyId {
        (self.0 as u32).wrapping_sub(1)
    }

    #[inline]
    fn is_free(self) -> bool {
        self.0 as u32 == 0
    }
}

/// The bits of a slot that are the hash's.
const TAG: u64 = !0 << 32;

/// What is at a place of a segment: the slot, and the key if it lies beside it.
#[derive(Clone, Copy)]
pub(super) struct Found<K> {
    pub(super) slot: Slot,
    pub(super) key: Option<K>,
}

/// `K` is what is kept of a key by its number, and copied beside its slot while there are few keys.
pub(super) struct KeyTable<K> {
    /// Which segment has the keys whose hashes begin with these bits.
    directory: Vec<u32>,
    /// How many bits of the hash the directory has.
    bits: u32,
    segments: Vec<Segment<K>>,
}

struct Segment<K> {
    slots: Slots<K>,
    /// How many first bits of the hash all its keys share.
    depth: u32,
    len: usize,
}

enum Slots<K> {
    Quick(Vec<(Slot, K)>),
    Dense(Vec<Slot>),
}

impl<K: Copy + Default> Slots<K> {
    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::Quick(slots) => slots.len(),
            Self::Dense(slots) => slots.len(),
        }
    }

    #[inline]
    fn get(&self, at: usize) -> Found<K> {
        match self {
            Self::Quick(slots) => {
                let (slot, key) = slots[at];
                Found { slot, key: Some(key) }
            }
            Self::Dense(slots) => Found { slot: slots[at], key: None },
        }
    }

    fn set(&mut self, at: usize, slot: Slot, key: K) {
        match self {
            Self::Quick(slots) => slots[at] = (slot, key),
            Self::Dense(slots) => slots[at] = slot,
        }
    }

    fn keys(&self) -> impl Iterator<Item = Found<K>> + '_ {
        (0..self.len()).map(|at| self.get(at)).filter(|found| !found.slot.is_free())
    }
}

impl<K: Copy + Default> Segment<K> {
    fn new(slots: usize, depth: u32, is_dense: bool) -> Self {
        let slots = match is_dense {
            true => Slots::Dense(vec![Slot::FREE; slots]),
            false => Slots::Quick(vec![(Slot::FREE, K::default()); slots]),
        };
        Self { slots, depth, len: 0 }
    }

    /// Where a key with this hash would best be: in the order of the hashes.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((((hash & TAG) << self.depth) >> 32) as usize * self.slots.len()) >> 32
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// How many slots on from one to the other.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    fn is_full(&self, is_dense: bool) -> bool {
        let (slots, keys) = if is_dense { (5, 4) } else { (2, 1) };
        (self.len + 1) * slots > self.slots.len() * keys
    }

    fn put(&mut self, slot: Slot, key: K) {
        let mut at = self.home(slot.0);
        while !self.slots.get(at).slot.is_free() {
            at = self.after(at);
        }
        self.slots.set(at, slot, key);
        self.len += 1;
    }

    fn grown(&self, is_dense: bool) -> Self {
        let slots = if is_dense { self.slots.len() / 4 * 5 } else { self.slots.len() * 2 };
        let mut grown = Self::new(slots, self.depth, is_dense);
        self.slots.keys().for_each(|found| grown.put(found.slot, found.key.unwrap_or_default()));
        grown
    }

    /// Takes a key out; whether it was there.
    fn remove(&mut self, slot: Slot) -> bool {
        let mut hole = self.home(slot.0);
        while self.slots.get(hole).slot != slot {
            if self.slots.get(hole).slot.is_free() {
                return false;
            }
            hole = self.after(hole);
        }
        // What follows moves up, unless it would come before its home (Knuth, 6.4, algorithm R).
        let mut at = hole;
        loop {
            at = self.after(at);
            let found = self.slots.get(at);
            if found.slot.is_free() {
                break;
            }
            if self.distance(self.home(found.slot.0), at) >= self.distance(hole, at) {
                self.slots.set(hole, found.slot, found.key.unwrap_or_default());
                hole = at;
            }
        }
        self.slots.set(hole, Slot::FREE, K::default());
        self.len -= 1;
        true
    }
}

impl<K: Copy + Default> KeyTable<K> {
    pub(super) fn new() -> Self {
        Self { directory: vec![0], bits: 0, segments: vec![Segment::new(SEGMENT_SLOTS_MIN, 0, false)] }
    }

    /// Whether keys lie apart from their slots.
    #[inline]
    pub(super) fn is_dense(&self) -> bool {
        self.segments.len() > QUICK_SEGMENTS_MAX
    }

    pub(super) fn memory(&self) -> usize {
        let of_segment = |segment: &Segment<K>| match &segment.slots {
            Slots::Quick(slots) => slots.capacity() * size_of::<(Slot, K)>(),
            Slots::Dense(slots) => slots.capacity() * size_of::<Slot>(),
        };
        self.directory.capacity() * size_of::<u32>()
            + self.segments.iter().map(of_segment).sum::<usize>()
            + self.segments.capacity() * size_of::<Segment<K>>()
    }

    #[inline]
    fn segment(&self, hash: u64) -> usize {
        // In two shifts, as the directory may have no bit.
        self.directory[(hash >> 1 >> (u64::BITS - 1 - self.bits)) as usize] as usize
    }

    /// Where a key with this hash is looked for first: the segment, and the place in it.
    #[inline]
    pub(super) fn place(&self, hash: u64) -> (u32, u32) {
        let segment = self.segment(hash);
        // A segment has fewer than 2^32 slots, and there are fewer segments than keys.
        (segment as u32, self.segments[segment].home(hash) as u32)
    }

    /// What is at a place.
    #[inline]
    pub(super) fn at(&self, (segment, at): (u32, u32)) -> Found<K> {
        self.segments[segment as usize].slots.get(at as usize)
    }

    /// The first key whose hash begins so and that `is` says it is.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(Found<K>) -> bool) -> Option<Found<K>> {
        let segment = &self.segments[self.segment(hash)];
        let mut at = segment.home(hash);
        loop {
            let found = segment.slots.get(at);
            if found.slot.is_free() {
                return None;
            }
            if found.slot.is_of(hash) && is(found) {
                return Some(found);
            }
            at = segment.after(at);
        }
    }

    /// Adds a key that it does not have.
    pub(super) fn insert(&mut self, hash: u64, id: KeyId, key: K) {
        let mut at = self.segment(hash);
        while self.segments[at].is_full(self.is_dense()) {
            let Segment { slots, depth, .. } = &self.segments[at];
            if slots.len() < SEGMENT_SLOTS_MAX || *depth == DEPTH_MAX {
                self.segments[at] = self.segments[at].grown(self.is_dense());
            } else {
                self.split(at);
                at = self.segment(hash);
            }
        }
        self.segments[at].put(Slot::new(hash, id), key);
    }

    /// Takes a key out; whether it was there.
    pub(super) fn remove(&mut self, hash: u64, id: KeyId) -> bool {
        let at = self.segment(hash);
        self.segments[at].remove(Slot::new(hash, id))
    }

    #[cold]
    fn split(&mut self, segment: usize) {
        let is_dense = self.is_dense();
        let old = &self.segments[segment];
        let depth = old.depth + 1;
        let slots = if is_dense { old.slots.len() / 8 * 5 } else { old.slots.len() };
        let mut halves = [0, 1].map(|_| Segment::new(slots, depth, is_dense));
        for Found { slot, key } in old.slots.keys() {
            let half = &mut halves[(slot.0 >> (u64::BITS - depth)) as usize & 1];
            if half.is_full(is_dense) {
                *half = half.grown(is_dense);
            }
            half.put(slot, key.unwrap_or_default());
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
                    table.insert(hash(id), id, id);
                } else if !adds {
                    prop_assert_eq!(table.remove(hash(id), id), plain.remove(&id).is_some());
                }
            }
            for id in 0..400 {
                let is = |found: Found<u32>| found.slot.id() == id && found.key.is_none_or(|key| key == id);
                let found = table.find(hash(id), is);
                prop_assert_eq!(found.is_some(), plain.contains_key(&id));
            }
        }
    }

    #[test]
    fn many_keys_take_few_bytes_and_leave_no_trace() {
        let hash = |id: u32| (u64::from(id) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut table = KeyTable::new();
        const COUNT: u32 = 1_000_000;
        for id in 0..COUNT {
            table.insert(hash(id), id, id);
        }
        let each = table.memory() / COUNT as usize;
        assert!(each <= 13, "{each} bytes a key");
        assert!((0..COUNT).all(|id| table.find(hash(id), |found| found.slot.id() == id).is_some()));
        assert!((0..COUNT).all(|id| table.remove(hash(id), id)));
        assert!(table.segments.iter().all(|segment| segment.slots.keys().next().is_none()));
    }
}
