//! Which sessions each key has: for who keeps what is in them by key and session.
//!
//! A session is known by an id of its own, so that nothing moves when it grows: the time of the row that
//! began it. It lies within the session for ever, and no other session of the key has it, as sessions that
//! meet are one.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, ListArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, FieldRef, Fields};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping};

use crate::AggregateError;
use crate::assigner::WindowClock;
use crate::meeting::{Session, join, root};
use crate::operator::NewBackend;
use crate::states::{store_all, value_state};

/// The sessions of each key, in one subtask. Its state: a list of start, end and id by key, in order of time.
pub struct SessionIndex {
    /// In milliseconds.
    gap: i64,
    clock: WindowClock,
    fields: Fields,
    item: FieldRef,
    backend: Box<dyn Backend>,
    grouping: Grouping,
}

/// A session as it is, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What it is known by.
    pub id: i64,
    /// Its start, in milliseconds since the epoch.
    pub start: i64,
    /// Its end.
    pub end: i64,
}

/// A session that rows have come to.
#[derive(Debug)]
pub struct Touched {
    /// The place of a row of its key.
    pub row: u32,
    /// As it is now. Its id is that of the earliest that it was before.
    pub now: Extent,
    /// The sessions that have become this one, in order of time.
    pub before: Vec<Extent>,
}

/// Rows in their sessions.
#[derive(Debug, Default)]
pub struct Joined {
    /// The places of the rows that are in one.
    pub places: Vec<u32>,
    /// For each of these its place in `sessions`.
    pub of_places: Vec<u32>,
    /// Sessions with rows.
    pub sessions: Vec<Touched>,
    /// The places of the rows whose sessions are over.
    pub late: Vec<u32>,
}

/// A key's sessions, and their numbers.
struct Lists {
    of_keys: Vec<Vec<Session>>,
    /// By number, as they were.
    before: Vec<Extent>,
}

impl SessionIndex {
    /// That of sessions which end after a gap without rows, by keys of these types.
    ///
    /// # Errors
    /// If the keys cannot be kept.
    pub fn new(
        gap: Duration,
        clock: WindowClock,
        key_types: &[DataType],
        backend: &mut NewBackend<'_>,
    ) -> Result<Self, AggregateError> {
        let fields: Fields =
            ["start", "end", "id"].map(|name| Field::new(name, DataType::Int64, false)).to_vec().into();
        let item = Arc::new(Field::new("item", DataType::Struct(fields.clone()), false));
        let backend = backend(key_types, &[value_state("sessions", DataType::List(Arc::clone(&item)))])?;
        let gap = crate::windows::millis(gap);
        Ok(Self { gap, clock, fields, item, backend, grouping: Grouping::default() })
    }

    /// Goes on by another clock.
    pub fn set_clock(&mut self, clock: WindowClock) {
        self.clock = clock;
    }

    /// Begins to bring near the sessions of rows of these keys.
    ///
    /// # Errors
    /// If the keys cannot be encoded.
    pub fn prefetch(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Ticket, AggregateError> {
        Ok(self.backend.prefetch(keys, rows)?)
    }

    /// Whether they are near.
    pub fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    /// Puts rows of these keys and times into sessions; windows up to `passed` are over, `now` is the
    /// processing time.
    ///
    /// # Errors
    /// If the lists cannot be kept.
    pub fn join(
        &mut self,
        keys: &[ArrayRef],
        times: &[i64],
        passed: i64,
        now: i64,
    ) -> Result<Joined, AggregateError> {
        let (mut ids, mut groups) = (Vec::new(), Vec::new());
        self.backend.ids(keys, times.len(), &mut ids)?;
        let of_rows = self.grouping.number(&ids, &mut groups);
        let Lists { mut of_keys, before } = self.load(&groups, now)?;
        // A session that ends up to this instant has gone, or goes in a moment.
        let cleared = self.clock.cleared_by(passed);
        of_keys.iter_mut().for_each(|sessions| sessions.retain(|session| session.end > cleared));
        // The session of each row, by a number that merged ones share in the end.
        let mut merged: Vec<u32> = (0..before.len() as u32).collect();
        let mut began: Vec<i64> = before.iter().map(|extent| extent.id).collect();
        let (mut joined, mut numbers) = (Joined::default(), Vec::new());
        for ((row, time), key) in (0u32..).zip(times).zip(&of_rows) {
            let sessions = &mut of_keys[*key as usize];
            match join(sessions, *time, self.gap, cleared, &mut merged) {
                Some(number) => {
                    if number as usize == began.len() {
                        began.push(*time);
                    }
                    joined.places.push(row);
                    numbers.push(number);
                }
                None => joined.late.push(row),
            }
        }
        // A session that is not touched is as it was.
        let mut place_of = vec![u32::MAX; merged.len()];
        for session in of_keys.iter().flatten().filter(|session| session.is_changed) {
            let Session { start, end, group, .. } = *session;
            place_of[group as usize] = joined.sessions.len() as u32;
            let now = Extent { id: began[group as usize], start, end };
            joined.sessions.push(Touched { row: 0, now, before: Vec::new() });
        }
        for (row, number) in joined.places.iter().zip(numbers) {
            let place = place_of[root(&merged, number) as usize];
            joined.sessions[place as usize].row = *row;
            joined.of_places.push(place);
        }
        for (number, extent) in (0u32..).zip(&before) {
            if let Some(session) = joined.sessions.get_mut(place_of[root(&merged, number) as usize] as usize)
            {
                session.before.push(*extent);
                session.now.id = session.before[0].id;
            }
        }
        // Those with a row in them are found by their places from here on.
        let id_of = |session: &Session| match joined.sessions.get(place_of[session.group as usize] as usize) {
            Some(touched) => touched.now.id,
            None => began[session.group as usize],
        };
        self.store(&groups, &of_keys, id_of, now)?;
        self.backend.forget_empty(&groups);
        Ok(joined)
    }

    /// Removes a session, by its id, of each of these keys. They are near.
    ///
    /// # Errors
    /// If the lists cannot be kept.
    pub fn remove(&mut self, keys: &[ArrayRef], of: &[i64], now: i64) -> Result<(), AggregateError> {
        let (mut ids, mut groups) = (Vec::new(), Vec::new());
        self.backend.ids(keys, of.len(), &mut ids)?;
        let of_rows = self.grouping.number(&ids, &mut groups);
        let Lists { mut of_keys, before } = self.load(&groups, now)?;
        let mut gone = vec![Vec::new(); groups.len()];
        of_rows.iter().zip(of).for_each(|(group, id)| gone[*group as usize].push(*id));
        for (sessions, gone) in of_keys.iter_mut().zip(&gone) {
            sessions.retain(|session| !gone.contains(&before[session.group as usize].id));
        }
        self.store(&groups, &of_keys, |session| before[session.group as usize].id, now)?;
        self.backend.forget_empty(&groups);
        Ok(())
    }

    fn load(&mut self, ids: &[KeyId], now: i64) -> Result<Lists, AggregateError> {
        let loaded = self.backend.load(0, ids, now)?;
        let lists = loaded.as_list::<i32>();
        let items = lists.values().as_struct();
        let [starts, ends, names] = [0, 1, 2].map(|at| items.column(at).as_primitive::<Int64Type>());
        let extent = |at: usize| Extent { id: names.value(at), start: starts.value(at), end: ends.value(at) };
        let offsets = lists.value_offsets();
        let mut before = Vec::new();
        let mut of_key = |row: usize| -> Vec<Session> {
            if lists.is_null(row) {
                return Vec::new();
            }
            let of_list = offsets[row] as usize..offsets[row + 1] as usize;
            of_list
                .map(|at| {
                    // Sessions of a call are fewer than 2^32.
                    let group = before.len() as u32;
                    before.push(extent(at));
                    Session { start: starts.value(at), end: ends.value(at), group, is_changed: false }
                })
                .collect()
        };
        let of_keys = (0..ids.len()).map(&mut of_key).collect();
        Ok(Lists { of_keys, before })
    }

    fn store(
        &mut self,
        ids: &[KeyId],
        of_keys: &[Vec<Session>],
        id_of: impl Fn(&Session) -> i64,
        now: i64,
    ) -> Result<(), AggregateError> {
        let column = |of: &dyn Fn(&Session) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(of_keys.iter().flatten().map(of)))
        };
        let columns = vec![column(&|session| session.start), column(&|session| session.end), column(&id_of)];
        let items = StructArray::try_new(self.fields.clone(), columns, None)?;
        let mut present = BooleanBufferBuilder::new(of_keys.len());
        of_keys.iter().for_each(|sessions| present.append(!sessions.is_empty()));
        let offsets = OffsetBuffer::<i32>::from_lengths(of_keys.iter().map(Vec::len));
        let nulls = NullBuffer::new(present.finish());
        let lists: ArrayRef =
            Arc::new(ListArray::try_new(Arc::clone(&self.item), offsets, Arc::new(items), Some(nulls))?);
        Ok(store_all(&mut *self.backend, 0, ids, &lists, now)?)
    }
}
