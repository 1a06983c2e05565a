//! The first few rows of each key in an order, over inserts.
//!
//! A key has a list of what its rows are ordered by, in their order, each with the number of the slot
//! in which its row lies: a value of its own under the key's columns and that number. So a row that
//! comes after the last of a full list costs no look at any row, and one that comes in is one row
//! written, and one read that it pushes out.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, Int64Array, StructArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Fields, SchemaRef};
use arrow_select::concat::concat;
use model::Batch;
use model::batch::RowKind;
use model::job_graph::Top;
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping};

use super::order::Order;
use crate::AggregateError;
use crate::keys::{FinalKeys, key_columns};
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};

/// The first few rows of each key, in one subtask.
pub(super) struct Few {
    keys: Vec<usize>,
    order: Order,
    limit: usize,
    fields: Fields,
    rank: bool,
    output: SchemaRef,
    backend: Box<dyn Backend>,
    grouping: Grouping,
    batch: bool,
    finals: FinalKeys,
    work: Option<Work>,
}

/// So many are few: a list is written whole.
pub(super) const FEW: u32 = 64;

/// Rows that have been taken.
struct Work {
    rows: Batch,
    keys: Vec<ArrayRef>,
    order: BinaryArray,
    bases: Vec<KeyId>,
    offsets: Vec<usize>,
    members: Vec<u32>,
    /// The next key.
    at: usize,
}

/// A row in a list.
#[derive(Clone, Copy)]
struct Item<'a> {
    order: &'a [u8],
    slot: u8,
    /// A row of the batch; none = it was there.
    new: Option<u32>,
}

/// A row that leaves: kept before, by its place among those that are read, or of the batch.
struct Leaving {
    place: Result<u32, u32>,
    kind: RowKind,
    rank: usize,
    /// A row of the batch, of the same key.
    of: u32,
}

/// What becomes of some keys.
#[derive(Default)]
struct Changes {
    leaving: Vec<Leaving>,
    /// Kept rows that are read: a row of their key, their slot, the key's first slot.
    read: Vec<(u32, u8, KeyId)>,
    /// Rows that are written: a row, its slot, the key's first slot.
    written: Vec<(u32, u8, KeyId)>,
    /// Lists that are written.
    lists: Vec<Vec<u8>>,
    of_lists: Vec<KeyId>,
}

const LIST: u32 = 0;
const ROW: u32 = 1;
/// Rows that may leave in one step, about.
const STEP_ROWS: usize = 4 * 1024;

impl Few {
    pub(super) fn new(top: &Top, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let input = &setting.inputs[0];
        let fields: Fields =
            input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let states =
            [value_state("list", DataType::Binary), value_state("row", DataType::Struct(fields.clone()))];
        let mut types = setting.key_types();
        types.push(DataType::Int64);
        let backend = (setting.backend)(&types, &states)?;
        Ok(Self {
            keys: setting.keys[0].clone(),
            order: Order::new(&top.order, input)?,
            limit: top.limit as usize,
            fields,
            rank: top.rank,
            output: Arc::clone(&setting.outputs[0]),
            backend,
            grouping: Grouping::default(),
            batch: setting.batch,
            finals: FinalKeys::default(),
            work: None,
        })
    }

    /// The next keys' rows.
    fn step(&mut self, now: i64, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        let Some(mut work) = self.work.take() else { return Ok(Fired::Done) };
        let start = work.at;
        let (mut end, mut rows) = (start, 0);
        let each = if self.rank { 2 * self.limit } else { 2 };
        while end < work.bases.len() && rows < STEP_ROWS {
            rows += each + work.offsets[end + 1] - work.offsets[end];
            end += 1;
        }
        work.at = end;
        let lists = self.backend.load(LIST, &work.bases[start..end], now)?;
        let changes = self.changes(&work, start..end, lists.as_binary::<i32>());
        self.make(&work, &changes, now, emit)?;
        if work.at >= work.bases.len() {
            return Ok(Fired::Done);
        }
        self.work = Some(work);
        Ok(Fired::More)
    }

    fn changes(&self, work: &Work, keys: std::ops::Range<usize>, lists: &BinaryArray) -> Changes {
        let mut changes = Changes::default();
        let (mut before, mut after): (Vec<Item<'_>>, Vec<Item<'_>>) = (Vec::new(), Vec::new());
        let mut coming: Vec<u32> = Vec::new();
        let order = |row: u32| work.order.value(row as usize);
        for (at, key) in keys.enumerate() {
            before.clear();
            if lists.is_valid(at) {
                before.extend(items(lists.value(at)));
            }
            let last = before.last().filter(|_| before.len() == self.limit).map(|item| item.order);
            let members = &work.members[work.offsets[key]..work.offsets[key + 1]];
            coming.clear();
            coming.extend(members.iter().filter(|row| last.is_none_or(|last| order(**row) < last)));
            if coming.is_empty() {
                continue;
            }
            coming.sort_by(|a, b| order(*a).cmp(order(*b)));
            coming.truncate(self.limit);
            let (mut kept, mut new) = (before.iter().peekable(), coming.iter().peekable());
            after.clear();
            while after.len() < self.limit {
                // Ties in the order of arrival.
                let is_kept = match (kept.peek(), new.peek()) {
                    (None, None) => break,
                    (Some(kept), Some(row)) => kept.order <= order(**row),
                    (kept, _) => kept.is_some(),
                };
                if is_kept {
                    after.extend(kept.next());
                } else if let Some(row) = new.next() {
                    after.push(Item { order: order(*row), slot: 0, new: Some(*row) });
                }
            }
            // Slots of rows that are pushed out, then those that nobody has had.
            let kept = after.iter().filter(|item| item.new.is_none()).count();
            let free = before[kept..].iter().map(|item| item.slot);
            // There are few.
            let mut free = free.chain(before.len() as u8..self.limit as u8);
            let base = work.bases[key];
            for item in &mut after {
                if let (Some(row), Some(slot)) =
                    (item.new, if item.new.is_some() { free.next() } else { None })
                {
                    item.slot = slot;
                    changes.written.push((row, slot, base));
                }
            }
            changes.of_lists.push(base);
            changes.lists.push(list_of(&after));
            if !self.batch {
                self.differ(&before, &after, (members[members.len() - 1], base), &mut changes);
            }
        }
        changes
    }

    /// What leaves as a key's list becomes another. What comes out is the end of the list.
    fn differ(
        &self,
        before: &[Item<'_>],
        after: &[Item<'_>],
        (of, base): (u32, KeyId),
        changes: &mut Changes,
    ) {
        let mut read = |item: &Item<'_>| {
            // As many as leave, of 32 bits.
            let place = changes.read.len() as u32;
            changes.read.push((of, item.slot, base));
            place
        };
        if !self.rank {
            let kept = after.iter().filter(|item| item.new.is_none()).count();
            for item in &before[kept..] {
                let place = Ok(read(item));
                changes.leaving.push(Leaving { place, kind: RowKind::Delete, rank: 0, of });
            }
            let come = after.iter().filter_map(|item| item.new);
            let leaving = come.map(|row| Leaving { place: Err(row), kind: RowKind::Insert, rank: 0, of });
            changes.leaving.extend(leaving);
            return;
        }
        let first = after.iter().position(|item| item.new.is_some()).unwrap_or(after.len());
        // Where those are read that were there from there on.
        let places: Vec<u32> = before[first..].iter().map(&mut read).collect();
        let mut kept = places.iter();
        for (at, item) in after.iter().enumerate().skip(first) {
            let (mut kinds, rank) = ((RowKind::UpdateBefore, RowKind::UpdateAfter), at + 1);
            match places.get(at - first) {
                Some(place) => {
                    changes.leaving.push(Leaving { place: Ok(*place), kind: kinds.0, rank, of });
                }
                None => kinds.1 = RowKind::Insert,
            }
            let place = match (item.new, kept.as_slice()) {
                (Some(row), _) => Err(row),
                (None, [place, ..]) => {
                    kept.next();
                    Ok(*place)
                }
                (None, []) => continue,
            };
            changes.leaving.push(Leaving { place, kind: kinds.1, rank, of });
        }
    }

    /// The numbers of slots: `(a row of the key, the slot, the key's first slot)`.
    fn slots(&mut self, work: &Work, wanted: &[(u32, u8, KeyId)]) -> Result<Vec<KeyId>, AggregateError> {
        let mut ids: Vec<KeyId> = wanted.iter().map(|slot| slot.2).collect();
        let sought: Vec<usize> = (0..wanted.len()).filter(|at| wanted[*at].1 > 0).collect();
        if !sought.is_empty() {
            let rows: Vec<u32> = sought.iter().map(|at| wanted[*at].0).collect();
            let mut columns =
                work.keys.iter().map(|key| model::gather(key, &rows)).collect::<Result<Vec<_>, _>>()?;
            let slots = sought.iter().map(|at| i64::from(wanted[*at].1));
            columns.push(Arc::new(Int64Array::from_iter_values(slots)));
            let mut found = Vec::new();
            self.backend.ids(&columns, rows.len(), &mut found)?;
            sought.iter().zip(found).for_each(|(at, id)| ids[*at] = id);
        }
        Ok(ids)
    }

    fn make(
        &mut self,
        work: &Work,
        changes: &Changes,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        if changes.of_lists.is_empty() {
            return Ok(());
        }
        // Before their slots are others'.
        let read = self.slots(work, &changes.read)?;
        let read = self.backend.load(ROW, &read, now)?;
        let rows: Vec<u32> = changes.written.iter().map(|row| row.0).collect();
        let columns = work.rows.rows().columns().iter();
        let columns = columns.map(|column| model::gather(column, &rows)).collect::<Result<Vec<_>, _>>()?;
        let values: ArrayRef =
            Arc::new(StructArray::try_new_with_length(self.fields.clone(), columns, None, rows.len())?);
        let ids = self.slots(work, &changes.written)?;
        store_all(&mut *self.backend, ROW, &ids, &values, now)?;
        let lists: ArrayRef = Arc::new(BinaryArray::from_iter_values(&changes.lists));
        store_all(&mut *self.backend, LIST, &changes.of_lists, &lists, now)?;
        if changes.leaving.is_empty() {
            return Ok(());
        }
        let length = read.len() as u32;
        let place = |row: &Leaving| row.place.unwrap_or_else(|place| length + place);
        let places: Vec<u32> = changes.leaving.iter().map(place).collect();
        let mut columns = Vec::with_capacity(self.fields.len() + 1);
        for (kept, new) in read.as_struct().columns().iter().zip(work.rows.rows().columns()) {
            columns.push(model::gather(&concat(&[kept.as_ref(), new.as_ref()])?, &places)?);
        }
        if self.rank {
            let ranks = changes.leaving.iter().map(|row| row.rank as i64);
            columns.push(Arc::new(Int64Array::from_iter_values(ranks)));
        }
        let times: Option<ScalarBuffer<i64>> = work
            .rows
            .event_times()
            .map(|times| changes.leaving.iter().map(|row| times[row.of as usize]).collect());
        let kinds: Vec<u8> = changes.leaving.iter().map(|row| row.kind as u8).collect();
        let rows = Batch::of(Arc::clone(&self.output), places.len(), columns)?;
        emit(0, rows.with_event_times(times).with_kinds(Some(kinds.into())));
        Ok(())
    }
}

/// The rows of a list.
fn items(mut list: &[u8]) -> impl Iterator<Item = Item<'_>> {
    std::iter::from_fn(move || {
        let (slot, rest) = list.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (order, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        list = rest;
        Some(Item { order, slot: *slot, new: None })
    })
}

fn list_of(items: &[Item<'_>]) -> Vec<u8> {
    let mut list = Vec::with_capacity(items.iter().map(|item| 5 + item.order.len()).sum());
    for item in items {
        list.push(item.slot);
        // A row has less than 2 GiB.
        list.extend_from_slice(&(item.order.len() as u32).to_le_bytes());
        list.extend_from_slice(item.order);
    }
    list
}

impl KeyedOperator for Few {
    fn prefetch(&mut self, _input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        let mut keys = key_columns(rows, &self.keys);
        keys.push(Arc::new(Int64Array::from(vec![0; rows.num_rows()])));
        Ok(self.backend.prefetch(&keys, rows.num_rows())?)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.backend)
    }

    fn process(
        &mut self,
        _input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        let keys = key_columns(rows, &self.keys);
        let mut firsts = keys.clone();
        firsts.push(Arc::new(Int64Array::from(vec![0; rows.num_rows()])));
        let (mut ids, mut bases) = (Vec::new(), Vec::new());
        self.backend.ids(&firsts, rows.num_rows(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut bases);
        let (offsets, members) = super::members(&groups, bases.len());
        let order = self.order.bytes(rows)?;
        self.work = Some(Work { rows: rows.clone(), keys, order, bases, offsets, members, at: 0 });
        self.step(now.processing_time, emit)
    }

    fn resume(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.step(now.processing_time, emit)
    }

    fn fire(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if !self.batch {
            return Ok(Fired::Done);
        }
        let Some(ids) = self.finals.next(&*self.backend, (STEP_ROWS / self.limit).max(1)) else {
            return Ok(Fired::Done);
        };
        let lists = self.backend.load(LIST, &ids, i64::MIN)?;
        let lists = lists.as_binary::<i32>();
        let there: Vec<usize> = (0..ids.len()).filter(|at| lists.is_valid(*at)).collect();
        let bases: Vec<KeyId> = there.iter().map(|at| ids[*at]).collect();
        let keys = self.backend.keys(&bases)?;
        let (mut rows, mut slots, mut ranks) = (Vec::new(), Vec::new(), Vec::new());
        for (row, at) in (0u32..).zip(&there) {
            for (rank, item) in (1i64..).zip(items(lists.value(*at))) {
                rows.push(row);
                slots.push(i64::from(item.slot));
                ranks.push(rank);
            }
        }
        if rows.is_empty() {
            return Ok(Fired::More);
        }
        let of_keys = &keys[..keys.len() - 1];
        let mut columns =
            of_keys.iter().map(|key| model::gather(key, &rows)).collect::<Result<Vec<_>, _>>()?;
        columns.push(Arc::new(Int64Array::from(slots)));
        let mut ids = Vec::new();
        self.backend.ids(&columns, rows.len(), &mut ids)?;
        let values = self.backend.load(ROW, &ids, i64::MIN)?;
        let mut columns = values.as_struct().columns().to_vec();
        columns.extend(self.rank.then(|| -> ArrayRef { Arc::new(Int64Array::from(ranks)) }));
        emit(0, Batch::of(Arc::clone(&self.output), rows.len(), columns)?);
        Ok(Fired::More)
    }
}
