//! Which slices of each key have something, and which of its windows end next: for who keeps what is in
//! the slices by key and slice.
//!
//! A key has a timer for the end of its next window, and where it has begun a slice ahead, one for the end
//! of that slice's first. So a row costs the same however many windows it is in, and windows without rows
//! are never looked at.

use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, ListArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, FieldRef};
use model::job_graph::{Assigner, TimeDomain};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::timers::Due;
use state::{Backend, Grouping, TimerChange};

use crate::AggregateError;
use crate::assigner::instants;
use crate::operator::NewBackend;
use crate::states::{store_all, value_state};
use crate::windows::sliced::edges::Edges;

/// The slices of each key, in one subtask. Its state: a list of their ends by key, in order of time.
pub struct SliceIndex {
    edges: Edges,
    domain: TimeDomain,
    item: FieldRef,
    backend: Box<dyn Backend>,
    grouping: Grouping,
}

/// Windows that end, each with the slices that it is made of.
#[derive(Debug, Default)]
pub struct Ending {
    /// The keys' columns, a row a window.
    pub keys: Vec<ArrayRef>,
    /// The windows' starts.
    pub starts: Vec<i64>,
    /// The windows' ends.
    pub ends: Vec<i64>,
    /// The window of each slice; they never fall.
    pub of_slices: Vec<u32>,
    /// The slices' keys: the key's columns, start and end.
    pub slices: Vec<ArrayRef>,
    /// Whether no later window needs it.
    pub is_last: Vec<bool>,
}

impl SliceIndex {
    /// That of sliding or cumulating windows without a zone, by keys of these types.
    ///
    /// # Errors
    /// If the keys cannot be kept.
    pub fn new(
        assigner: &Assigner,
        domain: TimeDomain,
        key_types: &[DataType],
        backend: &mut NewBackend<'_>,
    ) -> Result<Self, AggregateError> {
        let item = Arc::new(Field::new("item", DataType::Int64, false));
        let backend = backend(key_types, &[value_state("slices", DataType::List(Arc::clone(&item)))])?;
        Ok(Self { edges: Edges::of(assigner), domain, item, backend, grouping: Grouping::default() })
    }

    /// Begins to bring near the slices of rows of these keys.
    ///
    /// # Errors
    /// If the keys cannot be encoded.
    pub fn prefetch(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Ticket, AggregateError> {
        Ok(self.backend.prefetch(keys, rows)?)
    }

    /// The same of due timers.
    pub fn prefetch_due(&mut self, due: &[(i64, KeyId)]) -> Ticket {
        self.backend.prefetch_known(&due.iter().map(|(_, key)| *key).collect::<Vec<_>>())
    }

    /// Whether they are near.
    pub fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    /// Adds slices that have got their first rows, by their keys and ends; windows up to `passed` are over,
    /// `now` is the processing time.
    ///
    /// # Errors
    /// If the lists cannot be kept.
    pub fn add(
        &mut self,
        keys: &[ArrayRef],
        ends: &[i64],
        passed: i64,
        now: i64,
    ) -> Result<(), AggregateError> {
        let (mut ids, mut groups) = (Vec::new(), Vec::new());
        self.backend.ids(keys, ends.len(), &mut ids)?;
        let of_rows = self.grouping.number(&ids, &mut groups);
        let mut lists = self.load(&groups, now)?;
        let mut timers = Vec::new();
        for ((id, group), end) in ids.iter().zip(of_rows).zip(ends) {
            let list = &mut lists[group as usize];
            if let Err(at) = list.binary_search(end) {
                list.insert(at, *end);
                timers.push(self.timer(*id, self.edges.first_window(*end, passed)));
            }
        }
        self.store(&groups, &lists, now)?;
        Ok(self.backend.change_timers(&timers)?)
    }

    /// When the next window may end.
    #[must_use]
    pub fn next_timer(&self) -> Option<i64> {
        self.backend.next_timer(self.domain)
    }

    /// Takes due timers: the next one of each key, about `max` at most.
    ///
    /// # Errors
    /// If they cannot be taken.
    pub fn take_due(&mut self, now: i64, max: usize) -> Result<Due, AggregateError> {
        match self.backend.next_timer(self.domain) {
            Some(next) if next <= now => Ok(self.backend.take_due(self.domain, now, max)?),
            _ => Ok(Due::default()),
        }
    }

    /// Ends the windows of the last of these timers, which are near: so many that they have `max` slices at
    /// most, but one at least. The slices that no later window needs are out of the index then.
    ///
    /// # Errors
    /// If the lists cannot be kept.
    pub fn end(
        &mut self,
        due: &mut Vec<(i64, KeyId)>,
        max: usize,
        now: i64,
    ) -> Result<Ending, AggregateError> {
        // A window's slices lie between two edges of it each.
        let windows = (max / self.edges.slices_a_window()).max(1);
        let taken = due.split_off(due.len().saturating_sub(windows));
        let ids: Vec<KeyId> = taken.iter().map(|(_, id)| *id).collect();
        let mut lists = self.load(&ids, now)?;
        let edges = self.edges;
        let (mut ending, mut of_windows, mut timers) = (Ending::default(), Vec::new(), Vec::new());
        let (mut slice_starts, mut slice_ends) = (Vec::new(), Vec::new());
        for ((time, id), list) in taken.iter().zip(&mut lists) {
            let end = time + 1;
            let start = edges.window_start(end);
            let within =
                list.partition_point(|slice| *slice <= start)..list.partition_point(|slice| *slice <= end);
            if !within.is_empty() {
                let window = ending.ends.len() as u32;
                ending.starts.push(start);
                ending.ends.push(end);
                of_windows.push(*id);
                for slice in &list[within] {
                    ending.of_slices.push(window);
                    ending.is_last.push(edges.last_window(*slice) <= end);
                    slice_starts.push(edges.before(*slice));
                    slice_ends.push(*slice);
                }
            }
            list.retain(|slice| edges.last_window(*slice) > end);
            if let Some(first) = list.first() {
                timers.push(self.timer(*id, edges.first_window(*first, end - 1)));
            }
        }
        ending.keys = self.backend.keys(&of_windows)?;
        let gather = |key: &ArrayRef| model::gather(key, &ending.of_slices);
        ending.slices = ending.keys.iter().map(gather).collect::<Result<_, _>>()?;
        ending.slices.extend([instants(slice_starts), instants(slice_ends)]);
        self.store(&ids, &lists, now)?;
        self.backend.change_timers(&timers)?;
        self.backend.forget_empty(&ids);
        Ok(ending)
    }

    fn timer(&self, key: KeyId, window_end: i64) -> TimerChange {
        TimerChange { key, domain: self.domain, time: window_end - 1, set: true }
    }

    fn load(&mut self, ids: &[KeyId], now: i64) -> Result<Vec<Vec<i64>>, AggregateError> {
        let loaded = self.backend.load(0, ids, now)?;
        let lists = loaded.as_list::<i32>();
        let ends = lists.values().as_primitive::<Int64Type>().values();
        let offsets = lists.value_offsets();
        let list = |row: usize| match lists.is_valid(row) {
            true => ends[offsets[row] as usize..offsets[row + 1] as usize].to_vec(),
            false => Vec::new(),
        };
        Ok((0..ids.len()).map(list).collect())
    }

    fn store(&mut self, ids: &[KeyId], lists: &[Vec<i64>], now: i64) -> Result<(), AggregateError> {
        let mut present = BooleanBufferBuilder::new(lists.len());
        lists.iter().for_each(|list| present.append(!list.is_empty()));
        let offsets = OffsetBuffer::<i32>::from_lengths(lists.iter().map(Vec::len));
        let ends: ArrayRef = Arc::new(Int64Array::from(lists.concat()));
        let nulls = NullBuffer::new(present.finish());
        let lists: ArrayRef =
            Arc::new(ListArray::try_new(Arc::clone(&self.item), offsets, ends, Some(nulls))?);
        Ok(store_all(&mut *self.backend, 0, ids, &lists, now)?)
    }
}
