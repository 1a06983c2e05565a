//! Where the rows of both sides of a join are kept: by key, bucket and place.
//!
//! Rows of a key (and, of joins by time, of a bucket of times) lie at places 0, 1, 2 …, each a value
//! of its own under the key's columns, the bucket and the place; beside place 0, how many there are.
//! So any rows of a key are found without a search, many at once come as columns, and a key with one
//! row of each side is one key of the backend. The key's own columns come first: they are what tells
//! the key group.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, StructArray};
use arrow_schema::{DataType, Fields, Schema, SchemaRef};
use model::Batch;
use model::job_graph::{State, Ttl};
use state::Backend;
use state::backend::Ticket;
use state::key_index::KeyId;

use super::{LEFT, RIGHT};
use crate::AggregateError;
use crate::operator::Setting;
use crate::states::value_state;

/// Rows of both sides, by key.
pub(super) struct RowStore {
    pub(super) backend: Box<dyn Backend>,
    has_buckets: bool,
    /// What a kept row is made of, by side.
    fields: [Fields; 2],
    schemas: [SchemaRef; 2],
    /// The same, of whose columns all may be null.
    kept_schemas: [SchemaRef; 2],
    /// Whether a row has notes, by side.
    notes: [bool; 2],
    has_ttl: bool,
    /// Kept between calls.
    ids: Vec<KeyId>,
    slots: Option<u32>,
}

/// Rows of one key (and bucket) of a side: those at places 0 .. count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The number of the key's place 0.
    pub(super) id: KeyId,
    /// Where its key is in the columns of keys.
    pub(super) key: u32,
    pub(super) bucket: i64,
    pub(super) count: i64,
    /// Which rows of the other side it meets.
    pub(super) group: u32,
}

/// Some kept rows of a side.
pub(super) struct Page {
    /// Their columns; what is not there any more is null.
    pub(super) rows: StructArray,
    /// Of which run each is.
    pub(super) runs: Vec<u32>,
    pub(super) ids: Vec<KeyId>,
}

/// How far runs have been read: a run, and a place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) run: usize,
    pub(super) place: i64,
}

const COUNTS: [u32; 2] = [0, 1];
const ROWS: [u32; 2] = [2, 3];
const NOTES: u32 = 4;

impl RowStore {
    /// `notes`: what is kept beside each row, by side, made of numbers; `has_slots`: whether numbers
    /// are kept at places without rows.
    pub(super) fn new(
        setting: Setting<'_>,
        has_buckets: bool,
        notes: [Option<DataType>; 2],
        has_slots: bool,
        ttl: Option<Ttl>,
    ) -> Result<Self, AggregateError> {
        let mut types = setting.key_types();
        types.extend(has_buckets.then_some(DataType::Int64));
        types.push(DataType::Int64);
        let state = |name: &str, data_type: DataType| State { ttl, ..value_state(name, data_type) };
        let schemas = [LEFT, RIGHT].map(|side| Arc::clone(&setting.inputs[side]));
        let fields = [LEFT, RIGHT].map(|side| -> Fields {
            let fields = schemas[side].fields().iter();
            fields.map(|field| field.as_ref().clone().with_nullable(true)).collect()
        });
        let mut states = vec![
            state("left-count", DataType::Int64),
            state("right-count", DataType::Int64),
            state("left", DataType::Struct(fields[LEFT].clone())),
            state("right", DataType::Struct(fields[RIGHT].clone())),
        ];
        let has_notes = [LEFT, RIGHT].map(|side| notes[side].is_some());
        if has_notes.contains(&true) || has_slots {
            for (name, notes) in ["left-notes", "right-notes"].into_iter().zip(notes) {
                states.push(state(name, notes.unwrap_or(DataType::Boolean)));
            }
        }
        // A state's place is of 32 bits.
        let slots = has_slots.then_some(states.len() as u32);
        if has_slots {
            states.push(state("left-slots", DataType::Int64));
            states.push(state("right-slots", DataType::Int64));
        }
        let backend = (setting.backend)(&types, &states)?;
        let has_ttl = ttl.is_some();
        let kept_schemas = [LEFT, RIGHT].map(|side| Arc::new(Schema::new(fields[side].clone())));
        Ok(Self {
            backend,
            has_buckets,
            fields,
            schemas,
            kept_schemas,
            notes: has_notes,
            has_ttl,
            ids: Vec::new(),
            slots,
        })
    }

    /// What the rows of a side are.
    pub(super) fn schema(&self, side: usize) -> &SchemaRef {
        &self.schemas[side]
    }

    /// The same for rows of which some may be missing.
    pub(super) fn kept_schema(&self, side: usize) -> &SchemaRef {
        &self.kept_schemas[side]
    }

    /// Begins to bring near the first places of these keys.
    pub(super) fn prefetch(
        &mut self,
        keys: &[ArrayRef],
        buckets: &[i64],
        rows: usize,
    ) -> Result<Ticket, AggregateError> {
        let columns = self.columns(keys, buckets, vec![0; rows]);
        Ok(self.backend.prefetch(&columns, rows)?)
    }

    fn columns(&self, keys: &[ArrayRef], buckets: &[i64], places: Vec<i64>) -> Vec<ArrayRef> {
        let mut columns = Vec::with_capacity(keys.len() + 2);
        columns.extend(keys.iter().cloned());
        if self.has_buckets {
            columns.push(Arc::new(Int64Array::from(buckets.to_vec())));
        }
        columns.push(Arc::new(Int64Array::from(places)));
        columns
    }

    /// The numbers of places of keys. `buckets` are not looked at where there are none.
    pub(super) fn ids(
        &mut self,
        keys: &[ArrayRef],
        buckets: &[i64],
        places: Vec<i64>,
        ids: &mut Vec<KeyId>,
    ) -> Result<(), AggregateError> {
        let rows = places.len();
        let columns = self.columns(keys, buckets, places);
        Ok(self.backend.ids(&columns, rows, ids)?)
    }

    /// How many rows of a side there are, by the keys' first places.
    pub(super) fn counts(
        &mut self,
        side: usize,
        ids: &[KeyId],
        now: i64,
    ) -> Result<Vec<i64>, AggregateError> {
        let counts = self.backend.load(COUNTS[side], ids, now)?;
        let counts = counts.as_primitive::<Int64Type>();
        Ok(counts.iter().map(Option::unwrap_or_default).collect())
    }

    /// Writes how many there are; 0 removes.
    pub(super) fn store_counts(
        &mut self,
        side: usize,
        written: &[(usize, KeyId)],
        counts: &[i64],
        now: i64,
    ) -> Result<(), AggregateError> {
        let counts: ArrayRef =
            Arc::new(counts.iter().map(|n| (*n != 0).then_some(*n)).collect::<Int64Array>());
        Ok(self.backend.store(COUNTS[side], written, &counts, now)?)
    }

    /// The rows of places, null where there is none.
    pub(super) fn rows(
        &mut self,
        side: usize,
        ids: &[KeyId],
        now: i64,
    ) -> Result<StructArray, AggregateError> {
        Ok(self.backend.load(ROWS[side], ids, now)?.as_struct().clone())
    }

    /// Writes rows to places: `(row, place's number)`.
    pub(super) fn store_rows(
        &mut self,
        side: usize,
        written: &[(usize, KeyId)],
        rows: &Batch,
        now: i64,
    ) -> Result<(), AggregateError> {
        if self.has_ttl {
            self.look_for_old(side, written, now)?;
        }
        let columns = rows.rows().columns().to_vec();
        let rows =
            StructArray::try_new_with_length(self.fields[side].clone(), columns, None, rows.num_rows())?;
        let rows: ArrayRef = Arc::new(rows);
        Ok(self.backend.store(ROWS[side], written, &rows, now)?)
    }

    /// A backend looks for what has grown too old as it is asked for something. These places are mostly
    /// empty, and asking for them keeps ahead of the places that are new: with slots two a row.
    fn look_for_old(
        &mut self,
        side: usize,
        written: &[(usize, KeyId)],
        now: i64,
    ) -> Result<(), AggregateError> {
        let ids: Vec<KeyId> = written.iter().map(|place| place.1).collect();
        // A side is 0 or 1.
        let offset = side as u32;
        let notes = self.notes[side].then_some(NOTES + offset);
        let slots = self.slots.map(|slots| slots + offset);
        for _ in 0..1 + usize::from(slots.is_some()) {
            for state in [Some(ROWS[side]), notes, slots].into_iter().flatten() {
                self.backend.load(state, &ids, now)?;
            }
        }
        Ok(())
    }

    /// Removes what is kept of places of a side: rows, notes, counts.
    pub(super) fn remove(&mut self, side: usize, ids: &[KeyId], now: i64) -> Result<(), AggregateError> {
        let written: Vec<(usize, KeyId)> = ids.iter().copied().enumerate().collect();
        let rows = arrow_array::new_null_array(&DataType::Struct(self.fields[side].clone()), ids.len());
        self.backend.store(ROWS[side], &written, &rows, now)?;
        if self.notes[side] {
            let notes = self.notes(side, &[], now)?;
            let notes = arrow_array::new_null_array(notes.data_type(), ids.len());
            self.store_notes(side, &written, &notes, now)?;
        }
        Ok(())
    }

    /// Removes the next rows of runs of a side, from a position on; with the last, how many there are.
    pub(super) fn remove_next(
        &mut self,
        side: usize,
        keys: &[ArrayRef],
        runs: &[Run],
        at: &mut Position,
        max: usize,
        now: i64,
    ) -> Result<(), AggregateError> {
        let (of_runs, ids) = self.next_places(keys, runs, at, max)?;
        self.remove(side, &ids, now)?;
        // The first places are forgotten with the counts.
        let is_further = |(run, id): &(&u32, &KeyId)| runs[**run as usize].id != **id;
        let further: Vec<KeyId> = of_runs.iter().zip(&ids).filter(is_further).map(|(_, id)| *id).collect();
        self.backend.forget_empty(&further);
        if at.run >= runs.len() {
            let bases: Vec<KeyId> = runs.iter().map(|run| run.id).collect();
            let written: Vec<(usize, KeyId)> = bases.iter().copied().enumerate().collect();
            self.store_counts(side, &written, &vec![0; bases.len()], now)?;
            self.backend.forget_empty(&bases);
        }
        Ok(())
    }

    /// What is noted of the rows of places.
    pub(super) fn notes(&mut self, side: usize, ids: &[KeyId], now: i64) -> Result<ArrayRef, AggregateError> {
        Ok(self.backend.load(NOTES + side as u32, ids, now)?)
    }

    /// Notes something of the rows of places.
    pub(super) fn store_notes(
        &mut self,
        side: usize,
        written: &[(usize, KeyId)],
        notes: &ArrayRef,
        now: i64,
    ) -> Result<(), AggregateError> {
        Ok(self.backend.store(NOTES + side as u32, written, notes, now)?)
    }

    /// The numbers that are kept at places.
    pub(super) fn slots(
        &mut self,
        side: usize,
        ids: &[KeyId],
        now: i64,
    ) -> Result<Int64Array, AggregateError> {
        let slots = self.backend.load(self.slots.unwrap_or_default() + side as u32, ids, now)?;
        Ok(slots.as_primitive::<Int64Type>().clone())
    }

    /// Keeps numbers at places; none removes.
    pub(super) fn store_slots(
        &mut self,
        side: usize,
        written: &[(usize, KeyId)],
        numbers: Int64Array,
        now: i64,
    ) -> Result<(), AggregateError> {
        let numbers: ArrayRef = Arc::new(numbers);
        Ok(self.backend.store(self.slots.unwrap_or_default() + side as u32, written, &numbers, now)?)
    }

    /// The numbers of the next places of runs, at most `max`, from a position on, which is moved on.
    pub(super) fn next_places(
        &mut self,
        keys: &[ArrayRef],
        runs: &[Run],
        at: &mut Position,
        max: usize,
    ) -> Result<(Vec<u32>, Vec<KeyId>), AggregateError> {
        let (mut of_runs, mut ids): (Vec<u32>, Vec<KeyId>) = (Vec::new(), Vec::new());
        // Those that are not a run's first are looked up.
        let (mut sought, mut key_rows, mut buckets, mut places) = (vec![], vec![], vec![], vec![]);
        while ids.len() < max
            && let Some(run) = runs.get(at.run)
        {
            let end = run.count.min(at.place + (max - ids.len()) as i64);
            for place in at.place..end {
                if place > 0 {
                    sought.push(ids.len());
                    key_rows.push(run.key);
                    buckets.push(run.bucket);
                    places.push(place);
                }
                of_runs.push(at.run as u32);
                ids.push(run.id);
            }
            *at = match end >= run.count {
                true => Position { run: at.run + 1, place: 0 },
                false => Position { run: at.run, place: end },
            };
        }
        if !sought.is_empty() {
            let keys = keys.iter().map(|key| model::gather(key, &key_rows)).collect::<Result<Vec<_>, _>>()?;
            let mut found = std::mem::take(&mut self.ids);
            self.ids(&keys, &buckets, places, &mut found)?;
            sought.iter().zip(&found).for_each(|(at, id)| ids[*at] = *id);
            self.ids = found;
        }
        Ok((of_runs, ids))
    }

    /// The next rows of runs of a side, as [`next_places`](Self::next_places).
    pub(super) fn next_page(
        &mut self,
        side: usize,
        keys: &[ArrayRef],
        runs: &[Run],
        at: &mut Position,
        max: usize,
        now: i64,
    ) -> Result<Page, AggregateError> {
        let (of_runs, ids) = self.next_places(keys, runs, at, max)?;
        let rows = self.rows(side, &ids, now)?;
        Ok(Page { rows, runs: of_runs, ids })
    }

    /// Adds rows to a side, each behind those of its key: of these groups, whose keys' first places are
    /// `bases`, and of which there are `counts`, which are raised. Gives the rows' places' numbers.
    pub(super) fn append(
        &mut self,
        side: usize,
        rows: &Batch,
        (keys, buckets): (&[ArrayRef], &[i64]),
        (groups, bases): (&[u32], &[KeyId]),
        counts: &mut [i64],
        now: i64,
    ) -> Result<Vec<KeyId>, AggregateError> {
        let mut ids: Vec<KeyId> = Vec::with_capacity(groups.len());
        let (mut sought, mut places) = (Vec::new(), Vec::new());
        for (row, group) in (0u32..).zip(groups) {
            let count = &mut counts[*group as usize];
            if *count > 0 {
                sought.push(row);
                places.push(*count);
            }
            *count += 1;
            ids.push(bases[*group as usize]);
        }
        if !sought.is_empty() {
            let keys = keys.iter().map(|key| model::gather(key, &sought)).collect::<Result<Vec<_>, _>>()?;
            let buckets: Vec<i64> = match self.has_buckets {
                true => sought.iter().map(|row| buckets[*row as usize]).collect(),
                false => Vec::new(),
            };
            let mut found = std::mem::take(&mut self.ids);
            self.ids(&keys, &buckets, places, &mut found)?;
            sought.iter().zip(&found).for_each(|(row, id)| ids[*row as usize] = *id);
            self.ids = found;
        }
        let written: Vec<(usize, KeyId)> = ids.iter().copied().enumerate().collect();
        self.store_rows(side, &written, rows, now)?;
        let written: Vec<(usize, KeyId)> = bases.iter().copied().enumerate().collect();
        self.store_counts(side, &written, counts, now)?;
        Ok(ids)
    }
}
