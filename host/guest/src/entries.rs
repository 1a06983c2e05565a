//! What a guest reads of its states that do not travel by value: the interface `state`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::{DataType, Field};
use model::job_graph::{State, StateKind};
use wasmtime::Result;

use crate::GuestError;
use crate::bindings::millstream::job::rows::ColumnResult;
use crate::bindings::millstream::job::state;
use crate::hooks::Host;
use crate::lift::{self, lied};
use crate::lower;

/// Reads states for the call that runs; `groups` are the call's, `state` is a place in
/// [`Opening::states`](crate::Opening::states). Called within guest calls, with what has been checked.
pub trait StateReader: Send + Sync {
    /// The entries with these own keys, one of each group (of a broadcast state `groups` is empty), null
    /// where there is none.
    ///
    /// # Errors
    /// If they cannot be read: the call traps with this.
    fn get(&self, state: u32, groups: &[u32], keys: &[ArrayRef]) -> std::result::Result<ArrayRef, String>;

    /// The first entries of each group, or the first after these own keys, at most `limit` of each.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn scan(
        &self,
        state: u32,
        groups: &[u32],
        after: Option<&[ArrayRef]>,
        limit: usize,
    ) -> std::result::Result<Entries, String>;

    /// A number that changes whenever a broadcast state does.
    fn version(&self, state: u32) -> u64;
}

/// Entries of several groups.
#[derive(Debug)]
pub struct Entries {
    /// Those of the i-th group are rows `offsets[i] .. offsets[i + 1]`.
    pub offsets: Vec<u32>,
    /// Their own keys; of a sequence their places, one int64.
    pub keys: Vec<ArrayRef>,
    /// The entries.
    pub values: ArrayRef,
    /// Whether the group has more.
    pub more: Vec<bool>,
}

/// What the states of a guest's head are, and who reads them.
#[derive(Clone)]
pub(crate) struct StateAccess {
    pub(crate) states: Arc<[State]>,
    pub(crate) reader: Option<Arc<dyn StateReader>>,
    /// How many groups the call that runs has; none = it has no state.
    pub(crate) groups: Option<u32>,
    pub(crate) reading: Reading,
}

/// How far the call that runs has come with reading sequences: a call with much to read may take longer.
#[derive(Clone, Default)]
pub(crate) struct Reading {
    /// Counts the pages that the call's time begins anew with.
    pages: Arc<AtomicU64>,
    /// By state and group: the place after the last entry that it has seen.
    seen: HashMap<(u32, u32), i64>,
    /// Entries that it has seen, and those that it has been given, again and again.
    distinct: i64,
    given: i64,
}

/// So often a call may read an entry, for the time that it takes.
const READINGS: i64 = 16;

impl Reading {
    pub(crate) fn new(pages: Arc<AtomicU64>) -> Self {
        Self { pages, ..Self::default() }
    }

    /// A call begins.
    pub(crate) fn restart(&mut self) {
        self.seen.clear();
        (self.distinct, self.given) = (0, 0);
    }

    fn on_page(&mut self, state: u32, groups: &[u32], page: &Entries) {
        let Some(places) = page.keys.first().and_then(|keys| keys.as_primitive_opt::<Int64Type>()) else {
            return;
        };
        if places.is_empty() {
            return;
        }
        for (group, ends) in groups.iter().zip(page.offsets.windows(2)) {
            let (from, to) = (ends[0] as usize, ends[1] as usize);
            if from == to {
                continue;
            }
            let seen = self.seen.entry((state, *group)).or_insert(places.value(from));
            let next = places.value(to - 1) + 1;
            self.distinct += (next - *seen).clamp(0, (to - from) as i64);
            *seen = next.max(*seen);
        }
        self.given += places.len() as i64;
        if self.given <= READINGS * self.distinct {
            self.pages.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl StateAccess {
    pub(crate) fn none() -> Self {
        Self { states: Arc::new([]), reader: None, groups: None, reading: Reading::default() }
    }

    /// The state, if the call may read it, with these groups.
    fn of(
        &self,
        place: u32,
        groups: &[u32],
    ) -> std::result::Result<(&State, &Arc<dyn StateReader>), GuestError> {
        let wrong = |what: &str| lied(format!("a read of state {place}: {what}"));
        let (Some(reader), Some(count)) = (&self.reader, self.groups) else {
            return Err(wrong("no call with such state runs"));
        };
        let state = self.states.get(place as usize).ok_or_else(|| wrong("there is no such state"))?;
        match state.kind {
            StateKind::Value => Err(wrong("it travels by value")),
            StateKind::Broadcast if !groups.is_empty() => Err(wrong("a broadcast state has no groups")),
            StateKind::Dictionary(_) | StateKind::Sequence if groups.iter().any(|group| *group >= count) => {
                Err(wrong(&format!("a group that is none of {count}")))
            }
            _ => Ok((state, reader)),
        }
    }

    fn get(
        &self,
        place: u32,
        count: u32,
        groups: &[u32],
        keys: Vec<ColumnResult>,
    ) -> std::result::Result<Vec<ColumnResult>, GuestError> {
        let (state, reader) = self.of(place, groups)?;
        if state.kind == StateKind::Sequence {
            return Err(lied(format!("a look-up in state {place}, a sequence")));
        }
        if state.kind != StateKind::Broadcast && groups.len() != count as usize {
            return Err(lied(format!("a look-up of {count} entries of {} groups", groups.len())));
        }
        let keys = lift::nullable(state.key.fields(), count as usize, keys)?;
        let values = reader.get(place, groups, &keys).map_err(lied)?;
        Ok(lower::owned(&[values]))
    }

    fn scan(
        &mut self,
        place: u32,
        groups: &[u32],
        after: Vec<ColumnResult>,
        limit: u32,
    ) -> std::result::Result<state::Entries, GuestError> {
        let (state, reader) = self.of(place, groups)?;
        let count = if state.kind == StateKind::Broadcast { 1 } else { groups.len() };
        let after = match after {
            after if after.is_empty() => None,
            after if state.kind == StateKind::Sequence => {
                let place = Arc::new(Field::new("place", DataType::Int64, false));
                Some(lift::columns(&[place], count, after)?)
            }
            after => Some(lift::nullable(state.key.fields(), count, after)?),
        };
        let entries = reader.scan(place, groups, after.as_deref(), limit.max(1) as usize).map_err(lied)?;
        if state.kind == StateKind::Sequence {
            self.reading.on_page(place, groups, &entries);
        }
        let mut more = vec![0; entries.more.len().div_ceil(8)];
        for (group, _) in entries.more.iter().enumerate().filter(|(_, more)| **more) {
            more[group / 8] |= 1 << (group % 8);
        }
        Ok(state::Entries {
            offsets: entries.offsets,
            keys: lower::owned(&entries.keys),
            values: lower::owned(&[entries.values]),
            more,
        })
    }
}

impl state::Host for Host {
    fn get(
        &mut self,
        state: u32,
        count: u32,
        groups: Vec<u32>,
        keys: Vec<ColumnResult>,
    ) -> Result<Vec<ColumnResult>> {
        self.state.get(state, count, &groups, keys).map_err(wasmtime::Error::from)
    }

    fn scan(
        &mut self,
        state: u32,
        groups: Vec<u32>,
        after: Vec<ColumnResult>,
        limit: u32,
    ) -> Result<state::Entries> {
        self.state.scan(state, &groups, after, limit).map_err(wasmtime::Error::from)
    }

    fn version(&mut self, state: u32) -> Result<u64> {
        let (_, reader) = self.state.of(state, &[])?;
        Ok(reader.version(state))
    }
}
