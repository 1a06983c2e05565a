//! Numbers the distinct keys of a call's rows, in the order in which they first come.

use crate::key_index::KeyId;

/// Numbers keys within a call. A table of the call's size, so that it stays in the caches however many keys there are. Open
/// addressing, at most half full; keys are numbers that the host gives out, so nobody can make them
/// collide.
#[derive(Default)]
pub struct Grouping {
    /// A key and its group.
    slots: Vec<(KeyId, u32)>,
}

/// No group: a call has fewer rows.
const FREE: u32 = u32::MAX;

impl Grouping {
    /// The group of each row. `groups`, which is cleared first, gets each group's key.
    pub fn number(&mut self, ids: &[KeyId], groups: &mut Vec<KeyId>) -> Vec<u32> {
        groups.clear();
        let size = (2 * ids.len()).next_power_of_two().max(2);
        self.slots.clear();
        self.slots.resize(size, (0, FREE));
        let (shift, mask) = (u32::BITS - size.trailing_zeros(), size - 1);
        let group_of = |id: &KeyId| {
            // Fibonacci hashing (Knuth, 6.4).
            let mut at = (id.wrapping_mul(0x9E37_79B9) >> shift) as usize;
            loop {
                let slot = &mut self.slots[at & mask];
                if slot.1 == FREE {
                    *slot = (*id, groups.len() as u32);
                    groups.push(*id);
                }
                if slot.0 == *id {
                    return slot.1;
                }
                at += 1;
            }
        };
        ids.iter().map(group_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a search through the groups; one table for several calls.
        #[test]
        fn groups_are_in_the_order_of_first_occurrence(
            calls in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![0u32..50, any::<u32>()], 0..300),
                1..4,
            ),
        ) {
            let mut grouping = Grouping::default();
            let mut groups = vec![7];
            for ids in calls {
                let of_rows = grouping.number(&ids, &mut groups);
                let mut plain: Vec<KeyId> = Vec::new();
                for (id, group) in ids.iter().zip(of_rows) {
                    if !plain.contains(id) {
                        plain.push(*id);
                    }
                    prop_assert_eq!(plain.iter().position(|of| of == id), Some(group as usize));
                }
                prop_assert_eq!(&groups, &plain);
            }
        }
    }
}
