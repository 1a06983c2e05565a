//! Collects the rows that a function gives.

use millstream_sys::bindings::millstream::job::rows::Batch;

use crate::record::{Builder, Record, Row, finish_rows};

/// Where a function puts its rows.
pub struct Emit<O: Record> {
    rows: O::Builder,
    length: usize,
    /// For each input row so far, how many rows there were after it; kept only where rows carry
    /// something over.
    ends: Vec<u32>,
}

impl<O: Record> Default for Emit<O> {
    fn default() -> Emit<O> {
        Emit { rows: O::Builder::default(), length: 0, ends: Vec::new() }
    }
}

impl<O: Record> Emit<O> {
    /// Emits a row: a value, a reference to one, or its borrowed form.
    #[inline(always)]
    pub fn emit(&mut self, row: impl Row<O>) {
        row.append_to(&mut self.rows);
        self.length += 1;
    }
}

/// A batch that a function has made, and for each of its rows the input's row that it is of.
pub(crate) struct Made {
    pub(crate) rows: Batch,
    pub(crate) origins: Option<Vec<u32>>,
}

/// What is carried over from an input row to the rows that are made of it.
pub(crate) struct Carried<'a> {
    /// number of rows
    pub(crate) length: u32,
    pub(crate) event_times: Option<&'a [i64]>,
    pub(crate) kinds: Option<&'a [u8]>,
    /// whether the input's row numbers are wanted
    pub(crate) origins: bool,
}

impl<'a> Carried<'a> {
    pub(crate) fn of(input: &'a Batch, origins: bool) -> Carried<'a> {
        Carried {
            length: input.length,
            event_times: input.event_times.as_deref(),
            kinds: input.kinds.as_deref(),
            origins,
        }
    }

    pub(crate) fn is_needed(&self) -> bool {
        self.origins || self.event_times.is_some() || self.kinds.is_some()
    }
}

/// The outputs of a function: one [`Emit`] for each port.
pub(crate) trait Emits: Default {
    /// Rows at each port.
    fn lengths(&self) -> [usize; 3];
    /// Takes back the rows after these.
    fn truncate(&mut self, lengths: [usize; 3]);
    /// Ends an input row.
    fn mark(&mut self);
    /// Takes a batch out for each port that has rows.
    fn finish(&mut self, carried: &Carried<'_>) -> Vec<(u32, Made)>;
}

impl<O: Record> Emit<O> {
    fn truncate_one(&mut self, length: usize) {
        // Also if no row was finished: what a row has begun goes.
        self.rows.truncate(length);
        self.length = length;
    }

    fn mark_one(&mut self) {
        // A column holds fewer than 2^31 values.
        self.ends.push(self.length as u32);
    }

    fn finish_one(&mut self, port: u32, carried: &Carried<'_>, made: &mut Vec<(u32, Made)>) {
        let length = std::mem::take(&mut self.length);
        let ends = std::mem::take(&mut self.ends);
        if length == 0 {
            return;
        }
        let rows = Batch {
            // As in `mark_one`.
            length: length as u32,
            event_times: carried.event_times.map(|times| spread(&ends, times)),
            kinds: carried.kinds.map(|kinds| spread(&ends, kinds)),
            columns: finish_rows::<O>(&mut self.rows),
        };
        let origins = carried.origins.then(|| {
            let numbers: Vec<u32> = (0..carried.length).collect();
            spread(&ends, &numbers)
        });
        made.push((port, Made { rows, origins }));
    }
}

/// Repeats each input row's value for the rows that were made of it.
fn spread<V: Copy>(ends: &[u32], values: &[V]) -> Vec<V> {
    let mut spread = Vec::with_capacity(ends.last().map_or(0, |end| *end as usize));
    for (end, value) in ends.iter().zip(values) {
        spread.resize(*end as usize, *value);
    }
    spread
}

impl<A: Record> Emits for Emit<A> {
    fn lengths(&self) -> [usize; 3] {
        [self.length, 0, 0]
    }

    fn truncate(&mut self, lengths: [usize; 3]) {
        self.truncate_one(lengths[0]);
    }

    fn mark(&mut self) {
        self.mark_one();
    }

    fn finish(&mut self, carried: &Carried<'_>) -> Vec<(u32, Made)> {
        let mut made = Vec::with_capacity(1);
        self.finish_one(0, carried, &mut made);
        made
    }
}

impl<A: Record, B: Record> Emits for (Emit<A>, Emit<B>) {
    fn lengths(&self) -> [usize; 3] {
        [self.0.length, self.1.length, 0]
    }

    fn truncate(&mut self, lengths: [usize; 3]) {
        self.0.truncate_one(lengths[0]);
        self.1.truncate_one(lengths[1]);
    }

    fn mark(&mut self) {
        self.0.mark_one();
        self.1.mark_one();
    }

    fn finish(&mut self, carried: &Carried<'_>) -> Vec<(u32, Made)> {
        let mut made = Vec::with_capacity(2);
        self.0.finish_one(0, carried, &mut made);
        self.1.finish_one(1, carried, &mut made);
        made
    }
}

impl<A: Record, B: Record, C: Record> Emits for (Emit<A>, Emit<B>, Emit<C>) {
    fn lengths(&self) -> [usize; 3] {
        [self.0.length, self.1.length, self.2.length]
    }

    fn truncate(&mut self, lengths: [usize; 3]) {
        self.0.truncate_one(lengths[0]);
        self.1.truncate_one(lengths[1]);
        self.2.truncate_one(lengths[2]);
    }

    fn mark(&mut self) {
        self.0.mark_one();
        self.1.mark_one();
        self.2.mark_one();
    }

    fn finish(&mut self, carried: &Carried<'_>) -> Vec<(u32, Made)> {
        let mut made = Vec::with_capacity(3);
        self.0.finish_one(0, carried, &mut made);
        self.1.finish_one(1, carried, &mut made);
        self.2.finish_one(2, carried, &mut made);
        made
    }
}
