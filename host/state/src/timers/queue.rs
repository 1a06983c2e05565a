//! The order of keys by time: a radix heap, whose times only rise, and beside it what comes too late
//! for it.
//!
//! An entry goes into the bucket of the first bit in which its time differs from the last time that
//! was taken, at no cost; when the least bucket is due, its entries go to lower ones, or, where all
//! are due, are sorted. So entries are moved in bulk, in order of memory, and never one by one
//! through a tree. A bucket of very many entries is moved over several calls.
//!
//! Source: Ahuja, Mehlhorn, Orlin, Tarjan: Faster algorithms for the shortest path problem (1990).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::key_index::KeyId;

/// An instant (as an unsigned number of the same order) and a key.
type Entry = (u64, KeyId);

/// Entries of an allocation.
const PIECE: usize = 4_096;
/// So many entries are moved in one call, about.
const MOVED_MAX: usize = 32 * 1024;

pub(super) struct Queue {
    /// No entry of the buckets is earlier.
    last: u64,
    /// By the number of bits up to the first that differs from `last`'s.
    buckets: Vec<Bucket>,
    /// Of a bucket that is being moved: all from `last` on, before all others.
    moving: Vec<Vec<Entry>>,
    /// What has come since for times before `last`.
    early: BinaryHeap<Reverse<Entry>>,
    len: usize,
}

#[derive(Clone)]
struct Bucket {
    pieces: Vec<Vec<Entry>>,
    /// The least time.
    min: u64,
}

const EMPTY: Bucket = Bucket { pieces: Vec::new(), min: u64::MAX };

impl Default for Queue {
    fn default() -> Self {
        Self {
            last: 0,
            buckets: vec![EMPTY; u64::BITS as usize + 1],
            moving: Vec::new(),
            early: BinaryHeap::new(),
            len: 0,
        }
    }
}

impl Bucket {
    fn push(&mut self, entry: Entry) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(entry),
            Some(_) => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(entry);
                self.pieces.push(piece);
            }
            // Most buckets stay small.
            None => self.pieces.push(vec![entry]),
        }
        self.min = self.min.min(entry.0);
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

fn to_bits(time: i64) -> u64 {
    time.cast_unsigned() ^ (1 << 63)
}

fn to_time(bits: u64) -> i64 {
    (bits ^ (1 << 63)).cast_signed()
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, time: i64, key: KeyId) {
        self.len += 1;
        self.put((to_bits(time), key));
    }

    fn put(&mut self, entry: Entry) {
        if entry.0 < self.last {
            self.early.push(Reverse(entry));
        } else {
            self.buckets[bucket(entry.0, self.last)].push(entry);
        }
    }

    /// The least time.
    pub(super) fn next(&self) -> Option<i64> {
        let early = self.early.peek().map(|Reverse(entry)| entry.0);
        let moving = (!self.moving.is_empty()).then_some(self.last);
        let bucket = || self.buckets.iter().find(|bucket| !bucket.is_empty()).map(|bucket| bucket.min);
        early.or(moving).or_else(bucket).map(to_time)
    }

    /// Keeps the entries that `keeps` says.
    pub(super) fn retain(&mut self, keeps: impl Fn(i64, KeyId) -> bool) {
        let mut kept = Vec::new();
        let pieces = self.buckets.iter_mut().flat_map(|bucket| std::mem::replace(bucket, EMPTY).pieces);
        let pieces = pieces.chain(std::mem::take(&mut self.moving));
        let early = std::mem::take(&mut self.early).into_iter().map(|Reverse(entry)| entry);
        kept.extend(pieces.flatten().chain(early).filter(|(bits, key)| keeps(to_time(*bits), *key)));
        self.len = kept.len();
        kept.into_iter().for_each(|entry| self.put(entry));
    }

    /// Takes entries up to `now` out, in order, `max` at most. `place` says for each where it is now:
    /// there, later, or nowhere. The flag says, of none, that some may not have been reached.
    pub(super) fn take(
        &mut self,
        now: i64,
        max: usize,
        mut place: impl FnMut(i64, KeyId) -> Option<i64>,
    ) -> (Vec<(i64, KeyId)>, bool) {
        let now = to_bits(now);
        let mut taken: Vec<(i64, KeyId)> = Vec::new();
        let mut moved = 0;
        while taken.len() < max {
            if moved > MOVED_MAX {
                let is_partial = taken.is_empty();
                return (taken, is_partial);
            }
            if let Some(entry) = self.early.peek().map(|Reverse(entry)| *entry) {
                if entry.0 > now {
                    break;
                }
                self.early.pop();
                match place(to_time(entry.0), entry.1) {
                    Some(time) if to_bits(time) == entry.0 => {
                        self.len -= 1;
                        // A place that was left and come back to is there twice.
                        if taken.last() != Some(&(time, entry.1)) {
                            taken.push((time, entry.1));
                        }
                    }
                    Some(later) => self.put((to_bits(later), entry.1)),
                    None => self.len -= 1,
                }
            } else if let Some(piece) = self.moving.pop() {
                moved += piece.len();
                // What has become of them is asked when they are due.
                piece.into_iter().for_each(|entry| self.put(entry));
            } else {
                let Some(at) = self.buckets.iter().position(|bucket| !bucket.is_empty()) else { break };
                if self.buckets[at].min > now {
                    break;
                }
                let Bucket { mut pieces, min } = std::mem::replace(&mut self.buckets[at], EMPTY);
                self.last = min;
                let count = pieces.iter().map(Vec::len).sum::<usize>();
                if at == 0 && count > PIECE.max(max) {
                    // Very many of one instant: in no order of keys.
                    let piece = pieces.pop().unwrap_or_default();
                    self.buckets[at] = Bucket { pieces, min };
                    self.take_bucket(piece, max, &mut taken, &mut place);
                } else if at == 0 || (count <= max - taken.len() && all_by(&pieces, now)) {
                    moved += count;
                    self.take_bucket(pieces.concat(), max, &mut taken, &mut place);
                } else {
                    self.moving = pieces;
                }
            }
        }
        (taken, false)
    }

    /// Takes the entries of a bucket, all of which are due.
    fn take_bucket(
        &mut self,
        entries: Vec<Entry>,
        max: usize,
        taken: &mut Vec<(i64, KeyId)>,
        place: &mut impl FnMut(i64, KeyId) -> Option<i64>,
    ) {
        let greatest = entries.iter().map(|entry| entry.0).max().unwrap_or(self.last);
        let mut here = Vec::with_capacity(entries.len());
        for (bits, key) in entries {
            match place(to_time(bits), key).map(to_bits) {
                Some(bits) if bits <= greatest => here.push((bits, key)),
                Some(later) => self.put((later, key)),
                None => self.len -= 1,
            }
        }
        here.sort_unstable();
        // A place that was left and come back to is there twice.
        let count = here.len();
        here.dedup();
        self.len -= count - here.len();
        let some = here.len().min(max - taken.len());
        self.len -= some;
        taken.extend(here[..some].iter().map(|(bits, key)| (to_time(*bits), *key)));
        here[some..].iter().for_each(|entry| self.put(*entry));
    }
}

fn all_by(pieces: &[Vec<Entry>], now: u64) -> bool {
    pieces.iter().flatten().all(|entry| entry.0 <= now)
}

/// The bucket of a time, of those from `last` on.
fn bucket(time: u64, last: u64) -> usize {
    (u64::BITS - (time ^ last).leading_zeros()) as usize
}
