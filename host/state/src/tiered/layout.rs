//! How far state lies in its store.
//!
//! Rows of keys: `0`, the key as `arrow-row` encodes it, then `0` for the key's head (its values and timers), or
//! `1`, the state, the entry's own key for an entry: so all that a key has lies side by side, behind its head.
//! Rows of timers: `1`, the clock, the instant, the key. No encoded key begins another: both kinds are found
//! by the key alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, UInt8Array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType};
use arrow_select::filter::filter;
use model::job_graph::{State, StateKind};

use super::place_of;
use super::store::{OrderedStore, Row, StoreFailure, Write};
use crate::backend::{StateChunk, StateTable};
use crate::key_index::KeyId;
use crate::memory::TakenOut;

const OF_KEYS: u8 = 0;
const OF_TIMERS: u8 = 1;
const HEAD: u8 = 0;
const ENTRY: u8 = 1;
/// Bytes of a timer in a head: its clock, its instant.
const TIMER_BYTES: usize = 9;
/// Rows and bytes that are read at once of one key's entries.
const ENTRIES: (usize, usize) = (4_096, 8 << 20);

/// Between columns and the store's rows, for the states of one operator.
pub(super) struct Layout {
    keys: Option<RowConverter>,
    /// Of all states by value: the values, each with its time if it has one to live.
    values: Option<RowConverter>,
    states: Vec<Table>,
}

enum Table {
    /// By value; whether it has a time to live.
    Value { is_aging: bool },
    /// Of entries: their own keys, and each with its time.
    Entries { own_keys: RowConverter, entries: RowConverter, is_aging: bool },
    /// In memory, always.
    Broadcast,
}

/// What was found of keys.
pub(super) struct FarRows {
    /// Those that were looked for, encoded.
    pub(super) keys: Vec<Vec<u8>>,
    /// All rows that there were of them.
    pub(super) rows: Vec<Row>,
}

/// The same, as rows of tables.
pub(super) struct NearRows {
    /// Those that were looked for.
    pub(super) keys: Vec<ArrayRef>,
    /// How many they are.
    pub(super) count: usize,
    /// All that they have.
    pub(super) chunks: Vec<StateChunk>,
}

fn converter(types: impl Iterator<Item = DataType>) -> Result<RowConverter, ArrowError> {
    RowConverter::new(types.map(SortField::new).collect())
}

impl Layout {
    pub(super) fn new(key_types: &[DataType], states: &[State]) -> Result<Self, ArrowError> {
        let mut of_values = Vec::new();
        let mut tables = Vec::new();
        for state in states {
            let value = state.value.field(0).data_type().clone();
            let is_aging = state.ttl.is_some();
            tables.push(match state.kind {
                StateKind::Value => {
                    of_values.push(value);
                    of_values.extend(is_aging.then_some(DataType::Int64));
                    Table::Value { is_aging }
                }
                StateKind::Broadcast => Table::Broadcast,
                StateKind::Sequence | StateKind::Dictionary(_) => {
                    let own = state.key.fields().iter().map(|field| field.data_type().clone());
                    let own_keys = match state.kind {
                        StateKind::Sequence => converter(std::iter::once(DataType::Int64))?,
                        _ => converter(own)?,
                    };
                    let entries = converter([value, DataType::Int64].into_iter())?;
                    Table::Entries { own_keys, entries, is_aging }
                }
            });
        }
        let some = |types: &[DataType]| -> Result<Option<RowConverter>, ArrowError> {
            (!types.is_empty()).then(|| converter(types.iter().cloned())).transpose()
        };
        Ok(Self { keys: some(key_types)?, values: some(&of_values)?, states: tables })
    }

    fn has_entries(&self) -> bool {
        self.states.iter().any(|table| matches!(table, Table::Entries { .. }))
    }

    pub(super) fn encode_keys(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<Vec<u8>>, ArrowError> {
        let Some(converter) = &self.keys else { return Ok(vec![Vec::new(); rows]) };
        let encoded = converter.convert_columns(keys)?;
        Ok(encoded.iter().map(|row| row.data().to_vec()).collect())
    }

    pub(super) fn keys<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<ArrayRef>, ArrowError> {
        let Some(converter) = &self.keys else { return Ok(Vec::new()) };
        let parser = converter.parser();
        converter.convert_rows(keys.iter().map(|key| parser.parse(key.as_ref())))
    }

    /// The rows of what these keys have. A key that has nothing has none.
    pub(super) fn writes(&self, ids: &[KeyId], taken: TakenOut) -> Result<Vec<Write>, ArrowError> {
        let keys = self.encode_keys(&taken.keys, ids.len())?;
        let mut has_any = vec![false; ids.len()];
        let mut has_entries = vec![false; ids.len()];
        let mut writes = Vec::with_capacity(ids.len());
        let (mut values, mut there) = (Vec::new(), Vec::new());
        for (table, of_state) in self.states.iter().zip(taken.values) {
            let (Table::Value { is_aging }, Some((column, touched))) = (table, of_state) else { continue };
            let touched = is_aging.then(|| touched.unwrap_or_else(|| vec![i64::MIN; ids.len()].into()));
            there.push(Arc::clone(&column));
            values.push(column);
            values.extend(touched.map(|touched| Arc::new(touched) as ArrayRef));
        }
        for (at, any) in has_any.iter_mut().enumerate() {
            *any = there.iter().any(|column| column.is_valid(at));
        }
        let values = self.values.as_ref().map(|converter| converter.convert_columns(&values)).transpose()?;
        for (state, (table, of_state)) in self.states.iter().zip(taken.entries).enumerate() {
            let (Table::Entries { own_keys, entries, .. }, Some(rows)) = (table, of_state) else { continue };
            let Some((value, own)) = rows.columns.split_last() else { continue };
            let own = own_keys.convert_columns(own)?;
            let encoded = entries.convert_columns(&[Arc::clone(value), Arc::new(rows.touched)])?;
            // Both in the order of the keys.
            let mut at = 0;
            for (row, id) in rows.ids.iter().enumerate() {
                while ids[at] != *id {
                    at += 1;
                }
                has_entries[at] = true;
                // A state's place is below 2^16: an operator has a few.
                let key =
                    [&[OF_KEYS], &keys[at][..], &[ENTRY], &(state as u16).to_be_bytes(), own.row(row).data()]
                        .concat();
                // A key is shorter than a batch, and that than 2^32.
                let length = (keys[at].len() as u32).to_le_bytes();
                writes.push(Write::Put(key, [&[ENTRY], &length[..], encoded.row(row).data()].concat()));
            }
        }
        let mut timers = taken.timers.iter().peekable();
        for (at, (id, key)) in ids.iter().zip(&keys).enumerate() {
            let mut of_key = Vec::new();
            while let Some((_, domain, time)) = timers.next_if(|(of, ..)| of == id) {
                // There are two.
                of_key.push(place_of(*domain) as u8);
                of_key.extend(time.to_le_bytes());
                writes.push(Write::Put(timer(place_of(*domain), *time, key), Vec::new()));
            }
            if !has_any[at] && !has_entries[at] && of_key.is_empty() {
                continue;
            }
            // Fewer than 2^32: they were in memory.
            let count = ((of_key.len() / TIMER_BYTES) as u32).to_le_bytes();
            let values = values.as_ref().map(|values| values.row(at));
            let values = values.as_ref().map_or(&[][..], |values| values.data());
            let head = [&[HEAD, u8::from(has_entries[at])], &count[..], &of_key, values].concat();
            writes.push(Write::Put(head_of(key), head));
        }
        Ok(writes)
    }

    /// What was found of keys, of about so many rows each; all of a key is in one.
    pub(super) fn decode(&self, found: &FarRows, most: usize) -> Result<Vec<NearRows>, ArrowError> {
        let (mut parts, mut key, mut row) = (Vec::new(), 0, 0);
        let mut end = 0;
        for (at, of) in found.keys.iter().enumerate() {
            end += found.rows[end..].iter().take_while(|(row, value)| key_of(row, value) == of).count();
            let is_last = at + 1 == found.keys.len();
            if is_last || (at + 1 - key).max(end - row) >= most {
                let keys = self.keys(&found.keys[key..=at])?;
                let chunks = self.chunks(&found.rows[row..end])?;
                parts.push(NearRows { keys, count: at + 1 - key, chunks });
                (key, row) = (at + 1, end);
            }
        }
        if end < found.rows.len() {
            return Err(ArrowError::InvalidArgumentError(
                "rows of keys that nobody has looked for".to_owned(),
            ));
        }
        Ok(parts)
    }

    /// Rows of keys as rows of a snapshot.
    pub(super) fn chunks(&self, rows: &[Row]) -> Result<Vec<StateChunk>, ArrowError> {
        let mut chunks = Vec::new();
        let heads: Vec<(&[u8], Head<'_>)> = rows
            .iter()
            .filter_map(|(key, value)| Some((key.get(1..key.len() - 1)?, Head::of(value)?)))
            .collect();
        if let Some(converter) = self.values.as_ref().filter(|_| !heads.is_empty()) {
            let keys = self.keys(&heads.iter().map(|(key, _)| *key).collect::<Vec<_>>())?;
            let parser = converter.parser();
            let values = converter.convert_rows(heads.iter().map(|(_, head)| parser.parse(head.values)))?;
            let mut columns = values.into_iter();
            // A state's place is of 16 bits.
            for (state, table) in (0u32..).zip(&self.states) {
                let Table::Value { is_aging } = table else { continue };
                let (Some(value), touched) = (columns.next(), is_aging.then(|| columns.next()).flatten())
                else {
                    continue;
                };
                let there: BooleanArray = (0..value.len()).map(|row| Some(value.is_valid(row))).collect();
                if there.true_count() == 0 {
                    continue;
                }
                let cut = |column: &ArrayRef| filter(column, &there);
                chunks.push(StateChunk {
                    table: StateTable::Values(state),
                    keys: keys.iter().map(cut).collect::<Result<_, _>>()?,
                    columns: vec![cut(&value)?],
                    touched: touched.map(|touched| cut(&touched)).transpose()?.map(times),
                });
            }
        }
        let (mut of, mut domains, mut instants) = (Vec::new(), Vec::new(), Vec::new());
        for (key, head) in &heads {
            for (domain, time) in head.timers() {
                of.push(*key);
                domains.push(domain);
                instants.push(time);
            }
        }
        if !of.is_empty() {
            chunks.push(StateChunk {
                table: StateTable::Timers,
                keys: self.keys(&of)?,
                columns: vec![Arc::new(UInt8Array::from(domains)), Arc::new(Int64Array::from(instants))],
                touched: None,
            });
        }
        let entries: Vec<_> = rows.iter().filter_map(|(key, value)| Entry::of(key, value)).collect();
        for (state, table) in (0u16..).zip(&self.states) {
            let Table::Entries { own_keys, entries: converter, is_aging } = table else { continue };
            let of_state: Vec<_> = entries.iter().filter(|entry| entry.state == state).collect();
            if of_state.is_empty() {
                continue;
            }
            let (own, values) = (own_keys.parser(), converter.parser());
            let mut columns = own_keys.convert_rows(of_state.iter().map(|entry| own.parse(entry.own_key)))?;
            let read = converter.convert_rows(of_state.iter().map(|entry| values.parse(entry.value)))?;
            columns.push(Arc::clone(&read[0]));
            chunks.push(StateChunk {
                table: StateTable::Entries(u32::from(state)),
                keys: self.keys(&of_state.iter().map(|entry| entry.key).collect::<Vec<_>>())?,
                columns,
                touched: is_aging.then(|| times(Arc::clone(&read[1]))),
            });
        }
        Ok(chunks)
    }
}

fn times(column: ArrayRef) -> Int64Array {
    column.as_primitive::<Int64Type>().clone()
}

fn head_of(key: &[u8]) -> Vec<u8> {
    [&[OF_KEYS], key, &[HEAD]].concat()
}

/// An instant whose bytes are in its order.
fn sortable(time: i64) -> [u8; 8] {
    (time.cast_unsigned() ^ 1 << 63).to_be_bytes()
}

fn timer(domain: usize, time: i64, key: &[u8]) -> Vec<u8> {
    // There are two.
    [&[OF_TIMERS, domain as u8], &sortable(time)[..], key].concat()
}

/// The instant and the key of a row of a timer of this clock.
fn timer_of(row: &[u8], domain: usize) -> Option<(i64, &[u8])> {
    let row = row.strip_prefix(&[OF_TIMERS, domain as u8])?;
    let (time, key) = row.split_first_chunk::<8>()?;
    Some(((u64::from_be_bytes(*time) ^ 1 << 63).cast_signed(), key))
}

struct Head<'a> {
    has_entries: bool,
    timers: &'a [u8],
    values: &'a [u8],
}

impl<'a> Head<'a> {
    /// None = it is another row.
    fn of(value: &'a [u8]) -> Option<Self> {
        let rest = value.strip_prefix(&[HEAD])?;
        let (has_entries, rest) = rest.split_first()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (timers, values) = rest.split_at_checked(u32::from_le_bytes(*count) as usize * TIMER_BYTES)?;
        Some(Self { has_entries: *has_entries != 0, timers, values })
    }

    /// Clocks and instants.
    fn timers(&self) -> impl Iterator<Item = (u8, i64)> + use<'a> {
        self.timers
            .as_chunks::<TIMER_BYTES>()
            .0
            .iter()
            .map(|[domain, time @ ..]| (*domain, i64::from_le_bytes(*time)))
    }
}

struct Entry<'a> {
    key: &'a [u8],
    state: u16,
    own_key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// None = it is another row.
    fn of(key: &'a [u8], value: &'a [u8]) -> Option<Self> {
        let (length, value) = value.strip_prefix(&[ENTRY])?.split_first_chunk::<4>()?;
        let (key, rest) = key.get(1..)?.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (state, own_key) = rest.get(1..)?.split_first_chunk::<2>()?;
        Some(Self { key, state: u16::from_be_bytes(*state), own_key, value })
    }
}

impl FarRows {
    /// What takes them out of the store.
    pub(super) fn gone(&self) -> Vec<Write> {
        let of_row = |(row, value): &Row| -> Vec<Write> {
            let gone = std::iter::once(Write::Delete(row.clone()));
            match Entry::of(row, value) {
                Some(_) => gone.collect(),
                None => timers_of(key_of(row, value), value).chain(gone).collect(),
            }
        };
        self.rows.iter().flat_map(of_row).collect()
    }

    /// Leaves out those keys, and what there is of them.
    pub(super) fn leave_out(&mut self, is_out: impl Fn(&[u8]) -> bool) {
        self.rows.retain(|(row, value)| !is_out(key_of(row, value)));
        self.keys.retain(|key| !is_out(key));
    }
}

/// Whose row it is, encoded.
fn key_of<'a>(row: &'a [u8], value: &'a [u8]) -> &'a [u8] {
    match Entry::of(row, value) {
        Some(entry) => entry.key,
        None => row.get(1..row.len().saturating_sub(1)).unwrap_or_default(),
    }
}

impl Layout {
    /// Takes all that these keys have out of the store.
    pub(super) fn take(&self, store: &dyn OrderedStore, keys: Vec<Vec<u8>>) -> Result<FarRows, StoreFailure> {
        let rows = self.read(store, keys)?;
        let gone = rows.gone();
        if !gone.is_empty() {
            store.write(&gone)?;
        }
        Ok(rows)
    }

    /// All that these keys have.
    pub(super) fn read(&self, store: &dyn OrderedStore, keys: Vec<Vec<u8>>) -> Result<FarRows, StoreFailure> {
        let has_entries = self.has_entries();
        let heads: Vec<Vec<u8>> = keys.iter().map(|key| head_of(key)).collect();
        let found = store.get_many(&heads)?;
        let mut rows = Vec::new();
        for ((key, head), value) in keys.iter().zip(heads).zip(found) {
            let Some(value) = value else { continue };
            if has_entries && Head::of(&value).is_some_and(|head| head.has_entries) {
                let end = [&[OF_KEYS], &key[..], &[ENTRY + 1]].concat();
                let mut from = [&[OF_KEYS], &key[..], &[ENTRY]].concat();
                loop {
                    let entries = store.scan(&from, &end, ENTRIES.0, ENTRIES.1)?;
                    let Some((last, _)) = entries.last() else { break };
                    from = [last, &[0][..]].concat();
                    rows.extend(entries);
                }
            }
            rows.push((head, value));
        }
        Ok(FarRows { keys, rows })
    }

    /// All that the keys of the first timers of a clock that are due by `now` have, and when the next timer is due:
    /// one after these, or that of a key with more than one.
    pub(super) fn read_due(
        &self,
        store: &dyn OrderedStore,
        domain: usize,
        now: i64,
        most: usize,
    ) -> Result<(FarRows, Option<i64>), StoreFailure> {
        let (first, last) = (timer(domain, i64::MIN, &[]), timer(domain + 1, i64::MIN, &[]));
        let end = now.checked_add(1).map_or_else(|| last.clone(), |end| timer(domain, end, &[]));
        let due = store.scan(&first, &end, most, usize::MAX)?;
        let mut keys: Vec<Vec<u8>> =
            due.iter().filter_map(|(row, _)| timer_of(row, domain)).map(|(_, key)| key.to_vec()).collect();
        keys.sort_unstable();
        keys.dedup();
        let after = due.last().map_or(first, |(row, _)| [row, &[0][..]].concat());
        let next = store.scan(&after, &last, 1, usize::MAX)?;
        let next = next.first().and_then(|(row, _)| timer_of(row, domain)).map(|(time, _)| time);
        Ok((self.read(store, keys)?, next))
    }
}

/// What takes the timers in a key's head out.
fn timers_of(key: &[u8], head: &[u8]) -> impl Iterator<Item = Write> {
    let timers = Head::of(head).into_iter().flat_map(|head| head.timers());
    timers.map(move |(domain, time)| Write::Delete(timer(usize::from(domain), time, key)))
}

/// Which of these keys are in writes that may not have come to the store yet, the oldest first: their rows. The
/// others are left in `keys`.
pub(super) fn read_pending<'a>(
    pending: impl Iterator<Item = &'a [Write]>,
    keys: &mut Vec<Vec<u8>>,
) -> FarRows {
    let heads: BTreeMap<Vec<u8>, usize> = (0..).zip(&*keys).map(|(at, key)| (head_of(key), at)).collect();
    // The last that was said of each; a key's rows are written together.
    let mut found: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
    for writes in pending {
        let mut written: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    let head = match Entry::of(key, value) {
                        Some(entry) => heads.get(&head_of(entry.key)),
                        None => heads.get(key),
                    };
                    if let Some(at) = head {
                        written.entry(*at).or_default().push((key.clone(), value.clone()));
                    }
                }
                Write::Delete(key) => drop(heads.get(key).map(|at| written.insert(*at, Vec::new()))),
            }
        }
        found.append(&mut written);
    }
    let mut rows = FarRows { keys: Vec::new(), rows: Vec::new() };
    let is_found: Vec<bool> = (0..keys.len()).map(|at| found.contains_key(&at)).collect();
    for (at, of_key) in found {
        rows.rows.extend(of_key);
        rows.keys.push(std::mem::take(&mut keys[at]));
    }
    let mut is_found = is_found.into_iter();
    keys.retain(|_| is_found.next() == Some(false));
    rows
}

/// The next rows of keys.
pub(super) fn page(
    store: &dyn OrderedStore,
    after: Option<&[u8]>,
    (rows, bytes): (usize, usize),
) -> Result<Vec<Row>, StoreFailure> {
    let from = after.map_or_else(|| vec![OF_KEYS], |after| [after, &[0]].concat());
    store.scan(&from, &[OF_TIMERS], rows, bytes)
}
