//! The first rows of each key in an order, several, or over a changelog.
//!
//! Rows lie in their order: under what they are ordered by, as bytes, then the number of their arrival.
//! Over inserts only the first rows are kept, and a row that comes after the last of them costs no look
//! at the others.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BinaryArray, Int64Array, StructArray};
use arrow_buffer::ScalarBuffer;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::concat::concat;
use model::Batch;
use model::batch::RowKind;
use model::job_graph::{StateKind, Top};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, EntryChange, Grouping};

use super::order::Order;
use crate::AggregateError;
use crate::changes::is_taken_back;
use crate::keys::{FinalKeys, key_columns};
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{state, store_all, value_state};

/// The first rows of each key, in one subtask.
pub(super) struct Ranked {
    keys: Vec<usize>,
    order: Order,
    /// Tells equal rows.
    converter: RowConverter,
    limit: usize,
    fields: Fields,
    rank: bool,
    is_changelog: bool,
    output: SchemaRef,
    backend: Box<dyn Backend>,
    grouping: Grouping,
    batch: bool,
    finals: FinalKeys,
    work: Option<Work>,
}

/// Rows that have been taken.
struct Work {
    rows: Batch,
    order: BinaryArray,
    /// The keys, and each one's rows.
    bases: Vec<KeyId>,
    offsets: Vec<usize>,
    members: Vec<u32>,
    /// The next key.
    at: usize,
}

/// Rows of several keys, each key's in their order.
#[derive(Default)]
struct Lists {
    /// Those of the i-th key are `offsets[i] .. offsets[i + 1]`.
    offsets: Vec<usize>,
    orders: Vec<Vec<u8>>,
    arrivals: Vec<i64>,
    /// Where each row is in `rows`.
    places: Vec<u32>,
    rows: Vec<ArrayRef>,
}

/// A row that leaves: of the rows before or after, its place there, its kind, its rank, its key.
struct Leaving {
    is_after: bool,
    place: u32,
    kind: RowKind,
    rank: i64,
    key: usize,
}

const ENTRIES: u32 = 0;
const NEXT: u32 = 1;
const LAST: u32 = 2;
/// Rows that are read in one step, about.
const STEP_ROWS: usize = 2 * 1024;
/// Rows that are looked through at once for the one that is taken back.
const SOUGHT_ROWS: usize = 64;

impl Ranked {
    pub(super) fn new(top: &Top, setting: Setting<'_>, is_changelog: bool) -> Result<Self, AggregateError> {
        let input = &setting.inputs[0];
        let fields: Fields =
            input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let own_key = Schema::new(vec![
            Field::new("order", DataType::Binary, false),
            Field::new("arrival", DataType::Int64, false),
        ]);
        let row_type = DataType::Struct(fields.clone());
        let states = [
            state("rows", StateKind::Dictionary(Vec::new()), own_key, row_type),
            value_state("next", DataType::Int64),
            value_state("last", DataType::Binary),
        ];
        let sorted = input.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(sorted.collect())?;
        let types = setting.key_types();
        let backend = (setting.backend)(&types, &states)?;
        Ok(Self {
            keys: setting.keys[0].clone(),
            order: Order::new(&top.order, input)?,
            converter,
            limit: top.limit as usize,
            fields,
            rank: top.rank,
            is_changelog,
            output: Arc::clone(&setting.outputs[0]),
            backend,
            grouping: Grouping::default(),
            batch: setting.batch,
            finals: FinalKeys::default(),
            work: None,
        })
    }

    /// The first rows of keys, at most `limit` each, as they are kept.
    fn first_rows(&mut self, bases: &[KeyId], now: i64) -> Result<Lists, AggregateError> {
        type Own = (Vec<u8>, i64, u32);
        let mut found: Vec<Vec<Own>> = vec![Vec::new(); bases.len()];
        let mut pages: Vec<ArrayRef> = Vec::new();
        let mut length = 0u32;
        let mut open: Vec<usize> = (0..bases.len()).collect();
        let mut after: Option<Vec<ArrayRef>> = None;
        while !open.is_empty() {
            let ids: Vec<KeyId> = open.iter().map(|at| bases[*at]).collect();
            let least = open.iter().map(|at| found[*at].len()).min().unwrap_or_default();
            let page = self.backend.scan(ENTRIES, &ids, after.as_deref(), self.limit - least, now)?;
            let (orders, arrivals) =
                (page.keys[0].as_binary::<i32>(), page.keys[1].as_primitive::<Int64Type>());
            let mut still = Vec::new();
            for (at, key) in open.iter().enumerate() {
                let list = &mut found[*key];
                for place in page.offsets[at]..page.offsets[at + 1] {
                    let entry = place as usize;
                    list.push((orders.value(entry).to_vec(), arrivals.value(entry), length + place));
                }
                list.truncate(self.limit);
                if page.more[at] && list.len() < self.limit {
                    still.push(*key);
                }
            }
            length += page.values.len() as u32;
            pages.push(page.values);
            open = still;
            // Of a key for which a page had no room: what is before all.
            let last = |key: &usize| found[*key].last().map_or((&b""[..], i64::MIN), |own| (&own.0, own.1));
            let (orders, arrivals): (Vec<&[u8]>, Vec<i64>) = open.iter().map(last).unzip();
            after = Some(vec![Arc::new(BinaryArray::from_vec(orders)), Arc::new(Int64Array::from(arrivals))]);
        }
        let mut lists = Lists { offsets: vec![0], ..Lists::default() };
        for (order, arrival, place) in found.into_iter().flat_map(|list| {
            lists.offsets.push(lists.offsets[lists.offsets.len() - 1] + list.len());
            list
        }) {
            lists.orders.push(order);
            lists.arrivals.push(arrival);
            lists.places.push(place);
        }
        let pages: Vec<&dyn Array> = pages.iter().map(|page| page.as_ref()).collect();
        let rows = match pages[..] {
            [] => arrow_array::new_empty_array(&DataType::Struct(self.fields.clone())),
            _ => concat(&pages)?,
        };
        lists.rows = rows.as_struct().columns().to_vec();
        Ok(lists)
    }

    /// The next keys' rows.
    fn step(&mut self, now: i64, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        let Some(mut work) = self.work.take() else { return Ok(Fired::Done) };
        let start = work.at;
        let (mut end, mut rows) = (start, 0);
        while end < work.bases.len() && (end == start || rows < STEP_ROWS) {
            rows += self.limit.min(STEP_ROWS) + work.offsets[end + 1] - work.offsets[end];
            end += 1;
        }
        work.at = end;
        match self.is_changelog {
            true => self.change(&work, start..end, now, emit)?,
            false => self.insert(&work, start..end, now, emit)?,
        }
        if work.at >= work.bases.len() {
            return Ok(Fired::Done);
        }
        self.work = Some(work);
        Ok(Fired::More)
    }

    /// Over inserts: rows that are among the first push others out, which are forgotten.
    fn insert(
        &mut self,
        work: &Work,
        keys: std::ops::Range<usize>,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let lasts = self.backend.load(LAST, &work.bases[keys.clone()], now)?;
        let lasts = lasts.as_binary::<i32>();
        // Rows of each key that may be among the first, in their order.
        let mut candidates: Vec<(usize, Vec<u32>)> = Vec::new();
        for (at, key) in keys.enumerate() {
            let members = &work.members[work.offsets[key]..work.offsets[key + 1]];
            let is_fit = |row: &&u32| lasts.is_null(at) || work.order.value(**row as usize) < lasts.value(at);
            let mut rows: Vec<u32> = members.iter().filter(is_fit).copied().collect();
            if !rows.is_empty() {
                rows.sort_by(|a, b| work.order.value(*a as usize).cmp(work.order.value(*b as usize)));
                rows.truncate(self.limit);
                candidates.push((key, rows));
            }
        }
        if candidates.is_empty() {
            return Ok(());
        }
        let ids: Vec<KeyId> = candidates.iter().map(|(key, _)| work.bases[*key]).collect();
        let before = self.first_rows(&ids, now)?;
        let next = self.backend.load(NEXT, &ids, now)?;
        let next = next.as_primitive::<Int64Type>();
        let mut after =
            Lists { offsets: vec![0], rows: work.rows.rows().columns().to_vec(), ..Lists::default() };
        // Rows that come in, and rows that go: of which key, where.
        let mut put: Vec<(KeyId, u32, i64)> = Vec::new();
        let mut gone: Vec<(KeyId, usize)> = Vec::new();
        let mut nexts: Vec<i64> = Vec::new();
        let mut last_orders: Vec<Option<Vec<u8>>> = Vec::new();
        // Of the rows after: those that were there, by their place before.
        let mut origins: Vec<Option<usize>> = Vec::new();
        for (at, (_, rows)) in candidates.iter().enumerate() {
            let mut arrival = if next.is_valid(at) { next.value(at) } else { 0 };
            let (mut kept, kept_end) = (before.offsets[at], before.offsets[at + 1]);
            let mut coming = rows.iter().peekable();
            let mut length = 0;
            while length < self.limit {
                let is_kept = match (kept < kept_end, coming.peek()) {
                    (false, None) => break,
                    (true, Some(row)) => before.orders[kept][..] <= *work.order.value(**row as usize),
                    (is_kept, _) => is_kept,
                };
                if is_kept {
                    after.push(before.orders[kept].clone(), before.arrivals[kept], before.places[kept]);
                    origins.push(Some(kept));
                    kept += 1;
                } else if let Some(row) = coming.next() {
                    after.push(work.order.value(*row as usize).to_vec(), arrival, *row);
                    origins.push(None);
                    put.push((ids[at], *row, arrival));
                    arrival += 1;
                }
                length += 1;
            }
            gone.extend((kept..kept_end).map(|place| (ids[at], place)));
            after.offsets.push(after.orders.len());
            nexts.push(arrival);
            last_orders.push((length == self.limit).then(|| after.orders[after.orders.len() - 1].clone()));
        }
        self.write(&work.rows, &work.order, &put, &before, &gone, now)?;
        let nexts: ArrayRef = Arc::new(Int64Array::from(nexts));
        store_all(&mut *self.backend, NEXT, &ids, &nexts, now)?;
        let last_orders: ArrayRef =
            Arc::new(last_orders.iter().map(Option::as_deref).collect::<BinaryArray>());
        store_all(&mut *self.backend, LAST, &ids, &last_orders, now)?;
        if self.batch {
            return Ok(());
        }
        let keys: Vec<usize> = candidates.iter().map(|(key, _)| *key).collect();
        let leaving = self.differences(&before, &after);
        let source = |leaving: &Leaving| match (leaving.is_after, origins.get(leaving.place as usize)) {
            (true, Some(None)) => (true, after.places[leaving.place as usize]),
            (true, Some(Some(kept))) => (false, before.places[*kept]),
            _ => (false, before.places[leaving.place as usize]),
        };
        self.give(work, &keys, &leaving, (&before.rows, &after.rows), source, emit)
    }

    /// Writes rows of a batch, and removes kept ones.
    fn write(
        &mut self,
        rows: &Batch,
        order: &BinaryArray,
        put: &[(KeyId, u32, i64)],
        before: &Lists,
        gone: &[(KeyId, usize)],
        now: i64,
    ) -> Result<(), AggregateError> {
        if put.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let removed =
            gone.iter().map(|(id, place)| (*id, &before.orders[*place][..], before.arrivals[*place]));
        let removed: Vec<(KeyId, &[u8], i64)> = removed.collect();
        self.change_entries(rows, order, put, &removed, now)
    }

    fn change_entries(
        &mut self,
        rows: &Batch,
        order: &BinaryArray,
        put: &[(KeyId, u32, i64)],
        removed: &[(KeyId, &[u8], i64)],
        now: i64,
    ) -> Result<(), AggregateError> {
        let mut changes = vec![EntryChange::Remove; removed.len()];
        changes.resize(removed.len() + put.len(), EntryChange::Put);
        let ids: Vec<KeyId> =
            removed.iter().map(|entry| entry.0).chain(put.iter().map(|entry| entry.0)).collect();
        let orders =
            removed.iter().map(|entry| entry.1).chain(put.iter().map(|entry| order.value(entry.1 as usize)));
        let orders: ArrayRef = Arc::new(BinaryArray::from_iter_values(orders));
        let arrivals = removed.iter().map(|entry| entry.2).chain(put.iter().map(|entry| entry.2));
        let arrivals: ArrayRef = Arc::new(Int64Array::from_iter_values(arrivals));
        let places: Vec<u32> = put.iter().map(|entry| entry.1).collect();
        let columns = rows.rows().columns().iter();
        let columns = columns.map(|column| model::gather(column, &places)).collect::<Result<Vec<_>, _>>()?;
        let added: ArrayRef =
            Arc::new(StructArray::try_new_with_length(self.fields.clone(), columns, None, places.len())?);
        let nothing = arrow_array::new_null_array(added.data_type(), removed.len());
        let values = concat(&[nothing.as_ref(), added.as_ref()])?;
        Ok(self.backend.change_entries(ENTRIES, (&changes, &ids), &[orders, arrivals], &values, now)?)
    }

    /// Over a changelog: rows come and are taken back; what is first is read before and after.
    fn change(
        &mut self,
        work: &Work,
        keys: std::ops::Range<usize>,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let ids = &work.bases[keys.clone()];
        let before = if self.batch { Lists::default() } else { self.first_rows(ids, now)? };
        let next = self.backend.load(NEXT, ids, now)?;
        let next = next.as_primitive::<Int64Type>();
        let encoded = self.converter.convert_columns(work.rows.rows().columns())?;
        let kinds = work.rows.kinds();
        let (mut put, mut nexts) = (Vec::new(), Vec::new());
        // Rows to be taken back: of which key, which row, how often.
        let mut sought: Vec<(KeyId, u32, usize)> = Vec::new();
        for (at, key) in keys.clone().enumerate() {
            let mut members: Vec<u32> = work.members[work.offsets[key]..work.offsets[key + 1]].to_vec();
            // Equal rows side by side, in the order of their arrival.
            members.sort_by(|a, b| encoded.row(*a as usize).cmp(&encoded.row(*b as usize)));
            let mut came: Vec<u32> = Vec::new();
            for equal in members.chunk_by(|a, b| encoded.row(*a as usize) == encoded.row(*b as usize)) {
                let is_back = |row: &&u32| kinds.is_some_and(|kinds| is_taken_back(kinds[**row as usize]));
                let backs = equal.iter().filter(is_back).count();
                let coming = equal.len() - backs;
                if coming > backs {
                    came.extend(equal.iter().filter(|row| !is_back(row)).skip(backs));
                } else if backs > coming {
                    sought.push((ids[at], equal[0], backs - coming));
                }
            }
            came.sort_unstable();
            let mut arrival = if next.is_valid(at) { next.value(at) } else { 0 };
            for row in came {
                put.push((ids[at], row, arrival));
                arrival += 1;
            }
            nexts.push(arrival);
        }
        let gone = self.find(work, &encoded, sought, now)?;
        let removed: Vec<(KeyId, &[u8], i64)> =
            gone.iter().map(|(id, row, arrival)| (*id, work.order.value(*row as usize), *arrival)).collect();
        self.change_entries(&work.rows, &work.order, &put, &removed, now)?;
        let after = match self.batch {
            true => Lists::default(),
            false => self.first_rows(ids, now)?,
        };
        // A key without rows has no state.
        let is_empty = |at: usize| !self.batch && after.offsets[at] == after.offsets[at + 1];
        let nexts: ArrayRef = Arc::new(
            nexts
                .iter()
                .enumerate()
                .map(|(at, next)| (!is_empty(at)).then_some(*next))
                .collect::<Int64Array>(),
        );
        let empty: Vec<KeyId> = (0..ids.len()).filter(|at| is_empty(*at)).map(|at| ids[at]).collect();
        store_all(&mut *self.backend, NEXT, ids, &nexts, now)?;
        self.backend.forget_empty(&empty);
        if self.batch {
            return Ok(());
        }
        let keys: Vec<usize> = keys.collect();
        let leaving = self.differences(&before, &after);
        let source = |leaving: &Leaving| match leaving.is_after {
            true => (true, after.places[leaving.place as usize]),
            false => (false, before.places[leaving.place as usize]),
        };
        self.give(work, &keys, &leaving, (&before.rows, &after.rows), source, emit)
    }

    /// The kept rows that are equal to rows, the last that came first: their arrivals.
    fn find(
        &mut self,
        work: &Work,
        encoded: &Rows,
        mut sought: Vec<(KeyId, u32, usize)>,
        now: i64,
    ) -> Result<Vec<(KeyId, u32, i64)>, AggregateError> {
        let mut found = Vec::new();
        let mut after: Vec<i64> = vec![i64::MIN; sought.len()];
        while !sought.is_empty() {
            let ids: Vec<KeyId> = sought.iter().map(|row| row.0).collect();
            let orders = sought.iter().map(|row| work.order.value(row.1 as usize));
            let orders: ArrayRef = Arc::new(BinaryArray::from_iter_values(orders));
            let from: Vec<ArrayRef> = vec![orders, Arc::new(Int64Array::from(after.clone()))];
            let page = self.backend.scan(ENTRIES, &ids, Some(&from), SOUGHT_ROWS, now)?;
            let (orders, arrivals) =
                (page.keys[0].as_binary::<i32>(), page.keys[1].as_primitive::<Int64Type>());
            let contents = self.converter.convert_columns(page.values.as_struct().columns())?;
            let (mut still, mut still_after) = (Vec::new(), Vec::new());
            for (at, (id, row, mut wanted)) in sought.into_iter().enumerate() {
                let mut last = after[at];
                let mut is_over = !page.more[at];
                for entry in page.offsets[at] as usize..page.offsets[at + 1] as usize {
                    if orders.value(entry) != work.order.value(row as usize) || wanted == 0 {
                        is_over = true;
                        break;
                    }
                    last = arrivals.value(entry);
                    if contents.row(entry) == encoded.row(row as usize) {
                        found.push((id, row, last));
                        wanted -= 1;
                    }
                }
                // What is not there cannot be taken back.
                if wanted > 0 && !is_over {
                    still.push((id, row, wanted));
                    still_after.push(last);
                }
            }
            (sought, after) = (still, still_after);
        }
        Ok(found)
    }

    /// What has changed of keys' first rows.
    fn differences(&self, before: &Lists, after: &Lists) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        for key in 0..before.offsets.len().saturating_sub(1) {
            let (old, new) =
                (before.offsets[key]..before.offsets[key + 1], after.offsets[key]..after.offsets[key + 1]);
            if self.rank {
                for rank in 0..old.len().max(new.len()) {
                    let (was, is) = (old.start + rank, new.start + rank);
                    let (had, has) = (was < old.end, is < new.end);
                    if had && has && before.own(was) == after.own(is) {
                        continue;
                    }
                    let kinds = match had && has {
                        true => (RowKind::UpdateBefore, RowKind::UpdateAfter),
                        false => (RowKind::Delete, RowKind::Insert),
                    };
                    // Ranks are below 2^32.
                    let rank = rank as i64 + 1;
                    let row = |is_after, place: usize, kind| Leaving {
                        is_after,
                        place: place as u32,
                        kind,
                        rank,
                        key,
                    };
                    leaving.extend(had.then(|| row(false, was, kinds.0)));
                    leaving.extend(has.then(|| row(true, is, kinds.1)));
                }
                continue;
            }
            let (mut gone, mut come) = (Vec::new(), Vec::new());
            let (mut was, mut is) = (old.start, new.start);
            while was < old.end || is < new.end {
                let order = match (was < old.end, is < new.end) {
                    (true, true) => before.own(was).cmp(&after.own(is)),
                    (true, false) => std::cmp::Ordering::Less,
                    _ => std::cmp::Ordering::Greater,
                };
                match order {
                    std::cmp::Ordering::Less => gone.push(was),
                    std::cmp::Ordering::Greater => come.push(is),
                    std::cmp::Ordering::Equal => is += 1,
                }
                match order {
                    std::cmp::Ordering::Greater => is += 1,
                    _ => was += 1,
                }
            }
            let is_update = self.limit == 1 && gone.len() == 1 && come.len() == 1;
            let kinds = match is_update {
                true => (RowKind::UpdateBefore, RowKind::UpdateAfter),
                false => (RowKind::Delete, RowKind::Insert),
            };
            let row =
                |is_after, place: usize, kind| Leaving { is_after, place: place as u32, kind, rank: 0, key };
            leaving.extend(gone.into_iter().map(|place| row(false, place, kinds.0)));
            leaving.extend(come.into_iter().map(|place| row(true, place, kinds.1)));
        }
        leaving
    }

    /// Gives rows. `source`: whether a row is of the rows after, and where. Keys by their places in the work.
    fn give(
        &self,
        work: &Work,
        keys: &[usize],
        leaving: &[Leaving],
        (before, after): (&[ArrayRef], &[ArrayRef]),
        source: impl Fn(&Leaving) -> (bool, u32),
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        if leaving.is_empty() {
            return Ok(());
        }
        let first = before.first().map_or(0, |column| column.len() as u32);
        let place = |row: &Leaving| match source(row) {
            (true, place) => first + place,
            (false, place) => place,
        };
        let places: Vec<u32> = leaving.iter().map(place).collect();
        let columns = before.iter().zip(after).map(|(before, after)| {
            let both = concat(&[before.as_ref(), after.as_ref()])?;
            model::gather(&both, &places)
        });
        let mut columns = columns.collect::<Result<Vec<_>, _>>()?;
        if self.rank {
            columns.push(Arc::new(leaving.iter().map(|row| Some(row.rank)).collect::<Int64Array>()));
        }
        let times: Option<ScalarBuffer<i64>> = work.rows.event_times().map(|times| {
            let last = |row: &Leaving| work.members[work.offsets[keys[row.key] + 1] - 1];
            leaving.iter().map(|row| times[last(row) as usize]).collect()
        });
        let kinds: Vec<u8> = leaving.iter().map(|row| row.kind as u8).collect();
        let kinds = kinds.iter().any(|kind| *kind != 0).then(|| kinds.into());
        let rows = Batch::of(Arc::clone(&self.output), leaving.len(), columns)?;
        emit(0, rows.with_event_times(times).with_kinds(kinds));
        Ok(())
    }
}

impl Lists {
    fn push(&mut self, order: Vec<u8>, arrival: i64, place: u32) {
        self.orders.push(order);
        self.arrivals.push(arrival);
        self.places.push(place);
    }

    /// What tells a row of a key from all others.
    fn own(&self, place: usize) -> (&[u8], i64) {
        (&self.orders[place], self.arrivals[place])
    }
}

impl KeyedOperator for Ranked {
    fn prefetch(&mut self, _input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        Ok(self.backend.prefetch(&key_columns(rows, &self.keys), rows.num_rows())?)
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
        let (mut ids, mut bases) = (Vec::new(), Vec::new());
        self.backend.ids(&key_columns(rows, &self.keys), rows.num_rows(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut bases);
        let (offsets, members) = super::members(&groups, bases.len());
        let order = self.order.bytes(rows)?;
        self.work = Some(Work { rows: rows.clone(), order, bases, offsets, members, at: 0 });
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
        let lists = self.first_rows(&ids, i64::MIN)?;
        if lists.places.is_empty() {
            return Ok(Fired::More);
        }
        let columns = lists.rows.iter().map(|column| model::gather(column, &lists.places));
        let mut columns = columns.collect::<Result<Vec<_>, _>>()?;
        if self.rank {
            let ranks = lists.offsets.windows(2).flat_map(|ends| 1..=(ends[1] - ends[0]) as i64);
            columns.push(Arc::new(Int64Array::from_iter_values(ranks)));
        }
        emit(0, Batch::of(Arc::clone(&self.output), lists.places.len(), columns)?);
        Ok(Fired::More)
    }
}
