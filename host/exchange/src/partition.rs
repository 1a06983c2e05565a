//! To which subtask of the consumer each row goes.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_schema::ArrowError;
use model::job_graph::Partition;
use model::key::{KeyHash, hash_keys, owners_of_keys};
use model::{Batch, BatchRange};

/// Splits batches over the subtasks of a consumer.
///
/// Rows are scattered once into one new batch, sorted by destination (a counting sort, so that
/// rows for one destination keep their order), and shipped as ranges of it.
pub struct Partitioner {
    kind: Kind,
    consumers: u32,
    // Kept between calls so that a call allocates only what it ships.
    hashes: Vec<KeyHash>,
    destinations: Vec<u16>,
    starts: Vec<u32>,
    counts: Vec<u32>,
    places: Vec<u32>,
    lasts: Vec<u32>,
}

/// So many destinations are few.
const FEW: u32 = 4;

enum Kind {
    One(u32),
    Hash { columns: Vec<usize>, owners: Arc<[u16]> },
    Rebalance { next: u32 },
    Broadcast,
    Chosen { column: usize },
}

impl Partitioner {
    /// For the producer's subtask number `subtask`. `key_group_owners` has the consumer's subtask
    /// for each key group, and is looked at for `Hash` only.
    #[must_use]
    pub fn new(partition: &Partition, subtask: u32, consumers: u32, key_group_owners: Arc<[u16]>) -> Self {
        let kind = match partition {
            Partition::Forward => Kind::One(subtask),
            Partition::Global => Kind::One(0),
            Partition::Chosen(column) => Kind::Chosen { column: *column as usize },
            Partition::Broadcast if consumers > 1 => Kind::Broadcast,
            Partition::Hash(_) | Partition::Rebalance | Partition::Broadcast if consumers == 1 => {
                Kind::One(0)
            }
            Partition::Hash(columns) => Kind::Hash {
                columns: columns.iter().map(|c| *c as usize).collect(),
                owners: key_group_owners,
            },
            // Subtasks begin at different consumers, so that few rows spread too.
            Partition::Rebalance => Kind::Rebalance { next: subtask % consumers },
            Partition::Broadcast => Kind::Broadcast,
        };
        Self {
            kind,
            consumers,
            hashes: Vec::new(),
            destinations: Vec::new(),
            starts: Vec::new(),
            counts: Vec::new(),
            places: Vec::new(),
            lasts: Vec::new(),
        }
    }

    /// Calls `ship` with each destination that gets rows of `batch`, and those rows.
    ///
    /// # Errors
    /// If rows cannot be copied (a text column of more than 2 GiB).
    pub fn split(&mut self, batch: Batch, mut ship: impl FnMut(u32, BatchRange)) -> Result<(), ArrowError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        match &mut self.kind {
            Kind::One(destination) => ship(*destination, batch.into()),
            Kind::Broadcast => {
                let all = BatchRange::from(batch);
                (0..self.consumers).for_each(|destination| ship(destination, all.clone()));
            }
            Kind::Rebalance { next } => {
                // Contiguous shares: no row is copied, and the first share rotates.
                let shares = rows.min(self.consumers as usize);
                let all = BatchRange::from(batch);
                for share in 0..shares {
                    let (start, end) = (rows * share / shares, rows * (share + 1) / shares);
                    ship(*next, all.part(start, end - start));
                    *next = (*next + 1) % self.consumers;
                }
            }
            Kind::Hash { columns, owners } => {
                let keys: Vec<&ArrayRef> = columns.iter().map(|c| batch.column(*c)).collect();
                hash_keys(&keys, rows, &mut self.hashes);
                owners_of_keys(&self.hashes, owners, &mut self.destinations);
                self.scatter(&batch, ship)?;
            }
            Kind::Chosen { column } => {
                let column = *column;
                let chosen = batch.column(column).as_primitive::<Int32Type>().values().clone();
                let consumers = i32::try_from(self.consumers).unwrap_or(i32::MAX);
                self.destinations.clear();
                self.destinations.extend(
                    chosen.iter().map(|number| u16::try_from(number.rem_euclid(consumers)).unwrap_or(0)),
                );
                self.scatter(&without_column(&batch, column)?, ship)?;
            }
        }
        Ok(())
    }

    fn scatter(&mut self, batch: &Batch, mut ship: impl FnMut(u32, BatchRange)) -> Result<(), ArrowError> {
        let first = self.destinations[0];
        if self.destinations.iter().all(|d| *d == first) {
            ship(u32::from(first), batch.clone().into());
            return Ok(());
        }
        match self.consumers {
            ..=FEW => self.place_by_passes(),
            _ => self.place_by_counting(),
        }
        let scattered = BatchRange::from(batch.take(&self.places)?);
        let mut start = 0;
        for (destination, count) in (0u32..).zip(&self.counts) {
            if *count > 0 {
                ship(destination, scattered.part(start, *count as usize));
                start += *count as usize;
            }
        }
        Ok(())
    }

    /// Sets `places`, the rows of each destination, one after the other, and `counts`.
    ///
    /// A pass for each destination but the last, which only ever adds to registers: with few
    /// destinations, counters in memory would make each row wait for the one before.
    fn place_by_passes(&mut self) {
        let rows = self.destinations.len();
        // One place more than there are rows: what is written last may be written over.
        self.places.resize(rows + 1, 0);
        self.lasts.resize(rows + 1, 0);
        self.counts.clear();
        let last = (self.consumers - 1) as u16;
        let (mut at, mut lasts) = (0, 0);
        for destination in 0..last {
            let before = at;
            // The last destination's rows are found on the way, in every pass anew.
            lasts = 0;
            let (places, places_of_last) = (&mut self.places[..], &mut self.lasts[..]);
            for (row, of_row) in (0u32..).zip(&self.destinations) {
                places[at] = row;
                at += usize::from(*of_row == destination);
                places_of_last[lasts] = row;
                lasts += usize::from(*of_row == last);
            }
            // A batch has fewer than 2^32 rows.
            self.counts.push((at - before) as u32);
        }
        self.places.truncate(at);
        self.places.extend_from_slice(&self.lasts[..lasts]);
        self.counts.push(lasts as u32);
    }

    /// The same by a counting sort.
    fn place_by_counting(&mut self) {
        self.counts.clear();
        self.counts.resize(self.consumers as usize, 0);
        for destination in &self.destinations {
            self.counts[usize::from(*destination)] += 1;
        }
        self.starts.clear();
        let mut start = 0;
        for count in &self.counts {
            self.starts.push(start);
            start += count;
        }
        self.places.resize(self.destinations.len(), 0);
        for (row, destination) in (0u32..).zip(&self.destinations) {
            let at = &mut self.starts[usize::from(*destination)];
            self.places[*at as usize] = row;
            *at += 1;
        }
    }
}

fn without_column(batch: &Batch, column: usize) -> Result<Batch, ArrowError> {
    let kept: Vec<usize> = (0..batch.rows().num_columns()).filter(|c| *c != column).collect();
    Ok(Batch::new(batch.rows().project(&kept)?)
        .with_event_times(batch.event_times().cloned())
        .with_kinds(batch.kinds().cloned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::types::Int64Type;
    use arrow_array::{Int32Array, Int64Array, RecordBatch};
    use model::key::key_group_owners;

    fn batch(values: &[i64]) -> Batch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        Batch::new(RecordBatch::try_from_iter([("n", numbers)]).unwrap())
    }

    fn split(partitioner: &mut Partitioner, batch: Batch) -> Vec<(u32, Vec<i64>)> {
        let mut out = Vec::new();
        partitioner
            .split(batch, |to, rows| {
                out.push((to, rows.to_batch().column(0).as_primitive::<Int64Type>().values().to_vec()));
            })
            .unwrap();
        out
    }

    #[test]
    fn equal_keys_meet_and_keep_their_order() {
        let owners: Arc<[u16]> = key_group_owners(128, 5).into();
        let mut partitioner = Partitioner::new(&Partition::Hash(vec![0]), 0, 5, owners);
        let values: Vec<i64> = (0..1_000).map(|i| i * 7 % 50).collect();
        let pieces = split(&mut partitioner, batch(&values));
        assert_eq!(pieces.len(), 5);
        let mut owner = std::collections::BTreeMap::new();
        for (to, rows) in &pieces {
            rows.iter().for_each(|v| assert_eq!(owner.insert(*v, *to).unwrap_or(*to), *to));
            let expected: Vec<i64> = values.iter().copied().filter(|v| owner.get(v) == Some(to)).collect();
            assert_eq!(rows, &expected);
        }
        assert_eq!(owner.len(), 50);
    }

    #[test]
    fn both_ways_of_sorting_give_the_same() {
        for consumers in 2..=FEW {
            let owners: Arc<[u16]> = key_group_owners(128, consumers).into();
            let mut partitioner = Partitioner::new(&Partition::Hash(vec![0]), 0, consumers, owners);
            partitioner.destinations = (0..1_000u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u16 % consumers as u16)
                .collect();
            partitioner.place_by_passes();
            let passes = (partitioner.places.clone(), partitioner.counts.clone());
            partitioner.place_by_counting();
            assert_eq!((partitioner.places, partitioner.counts), passes, "{consumers} consumers");
        }
    }

    #[test]
    fn rebalance_is_even_over_batches() {
        let mut partitioner = Partitioner::new(&Partition::Rebalance, 1, 3, Arc::from([]));
        assert_eq!(split(&mut partitioner, batch(&[1])), [(1, vec![1])]);
        assert_eq!(split(&mut partitioner, batch(&[2, 3])), [(2, vec![2]), (0, vec![3])]);
        assert_eq!(split(&mut partitioner, batch(&[4, 5, 6])), [(1, vec![4]), (2, vec![5]), (0, vec![6])]);
    }

    #[test]
    fn broadcast_global_forward() {
        let mut all = Partitioner::new(&Partition::Broadcast, 0, 2, Arc::from([]));
        assert_eq!(split(&mut all, batch(&[1])), [(0, vec![1]), (1, vec![1])]);
        let mut global = Partitioner::new(&Partition::Global, 2, 3, Arc::from([]));
        assert_eq!(split(&mut global, batch(&[1, 2])), [(0, vec![1, 2])]);
        let mut forward = Partitioner::new(&Partition::Forward, 2, 3, Arc::from([]));
        assert_eq!(split(&mut forward, batch(&[1, 2])), [(2, vec![1, 2])]);
    }

    #[test]
    fn the_chosen_column_is_taken_off() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![10, 11, 12]));
        let to: ArrayRef = Arc::new(Int32Array::from(vec![-1, 0, 5]));
        let rows = Batch::new(RecordBatch::try_from_iter([("n", numbers), ("to", to)]).unwrap());
        let mut chosen = Partitioner::new(&Partition::Chosen(1), 0, 3, Arc::from([]));
        let mut out = Vec::new();
        chosen
            .split(rows, |to, rows| {
                let rows = rows.to_batch();
                assert_eq!(rows.rows().num_columns(), 1);
                out.push((to, rows.column(0).as_primitive::<Int64Type>().values().to_vec()));
            })
            .unwrap();
        assert_eq!(out, [(0, vec![11]), (2, vec![10, 12])]);
    }
}
