//! Where windows and their slices lie: which of them a time is in.
//!
//! A slice is what lies between two neighbouring edges of windows, of any: so a row is in exactly one
//! slice, and a window is a run of slices. Edges are counted: edge `k` is `k` slices after the
//! grid's origin. Where the grid follows a zone's days, it is even in local time, and an edge is the
//! first instant at which the clocks of the zone have come so far: a day is 23, 24 or 25 hours long.
//!
//! Source: Traub et al., General stream slicing (EDBT 2019); Flink, `SliceAssigners`.

mod zone;

use model::job_graph::{Assigner, Grid};

use crate::AggregateError;
use zone::Zone;

/// The windows of an assigner that has an even grid: tumbling, sliding, cumulating.
///
/// Times are in milliseconds since the epoch; windows and slices are half open, `[start, end)`. Times
/// whose windows would not lie within all time count as the nearest whose do: see
/// [`holds`](Self::holds).
#[derive(Clone, Debug)]
pub(crate) struct WindowGrid {
    /// Of edge 0, in local time where there is a zone.
    offset: i64,
    /// The length of a slice.
    slice: i64,
    /// How many slices a window of full length has.
    size: i64,
    /// How many slices are between the edges that windows have.
    step: i64,
    /// Windows begin each `size` and grow by `step` until then; else they begin each `step`.
    is_cumulating: bool,
    zone: Option<Zone>,
    /// The times whose windows lie within all time.
    first: i64,
    last: i64,
}

/// The edges of a grid of a zone's days are within so much of those of one without.
const ZONE_REACH: i64 = 4 * 24 * 60 * 60 * 1_000;

impl WindowGrid {
    /// The grid of an assigner.
    ///
    /// # Errors
    /// If it has none (session windows), a length of it is 0 or beyond all time, or there is no such
    /// zone; such plans are refused.
    pub(crate) fn new(assigner: &Assigner) -> Result<Self, AggregateError> {
        let (grid, is_cumulating) = match assigner {
            Assigner::Tumbling(grid) | Assigner::Sliding(grid) => (grid, false),
            Assigner::Cumulating(grid) => (grid, true),
            Assigner::Session(_) | Assigner::Count { .. } | Assigner::Everything => {
                return Err(AggregateError::Grid("such windows have none".into()));
            }
        };
        let Grid { size, step, offset, zone } = grid;
        let millis = |length: &std::time::Duration| {
            i64::try_from(length.as_millis()).ok().filter(|length| (1..=i64::MAX / 8).contains(length))
        };
        let (Some(size), Some(step)) = (millis(size), millis(step)) else {
            return Err(AggregateError::Grid(format!(
                "a size of {} ms and a step of {} ms",
                size.as_millis(),
                step.as_millis()
            )));
        };
        if step > size || (is_cumulating && size % step != 0) {
            return Err(AggregateError::Grid(format!("a size of {size} ms and a step of {step} ms")));
        }
        let slice = greatest_common_divisor(size, step);
        let zone = zone.as_deref().map(Zone::new).transpose()?;
        // A window of a time begins and ends within its size of it, and edge 0 is near the epoch.
        let reach = (2 * size).saturating_add(offset.saturating_abs()).saturating_add(ZONE_REACH);
        let (first, last) = (i64::MIN.saturating_add(reach), i64::MAX.saturating_sub(reach));
        let (size, step) = (size / slice, step / slice);
        Ok(Self { offset: *offset, slice, size, step, is_cumulating, zone, first, last })
    }

    /// The end of the slice that a time is in.
    #[cfg(test)]
    pub(crate) fn slice_end(&self, time: i64) -> i64 {
        self.edge(self.slice_of(time) + 1)
    }

    /// The ends of the slices that these times are in, into `ends`, which is cleared first.
    pub(crate) fn slice_ends(&self, times: &[i64], ends: &mut Vec<i64>) {
        ends.clear();
        ends.reserve(times.len());
        // Neighbours are mostly in one slice: it is divided only where they are not.
        let (mut start, mut end) = (i64::MAX, i64::MIN);
        for time in times {
            if !(start..end).contains(time) {
                let slice = self.slice_of(*time);
                (start, end) = (self.edge(slice), self.edge(slice + 1));
            }
            ends.push(end);
        }
    }

    /// The windows that hold the slice of this end, `(start, end)`, in rising order of their ends.
    pub(crate) fn windows_of_slice(&self, slice_end: i64) -> impl Iterator<Item = (i64, i64)> + '_ {
        let slice = self.slice_before(slice_end);
        let (first, last) = self.windows_around(slice);
        let step = self.step;
        let ends = (0..=(last - first) / step).map(move |place| first + place * step);
        // Where a zone's clocks skip a whole day, windows end together.
        ends.filter(|end| self.edge(*end) > self.edge(*end - 1))
            .map(|end| (self.edge(self.start_of(end)), self.edge(end)))
    }

    /// The end of the last window that holds the slice of this end: then it is needed no more.
    pub(crate) fn last_window_end(&self, slice_end: i64) -> i64 {
        self.edge(self.windows_around(self.slice_before(slice_end)).1)
    }

    /// The start of the window of this end.
    pub(crate) fn window_start(&self, end: i64) -> i64 {
        self.edge(self.start_of(self.slice_before(end) + 1))
    }

    /// The ends of the slices of the window of this end, in rising order.
    pub(crate) fn slices_of_window(&self, end: i64) -> impl Iterator<Item = i64> + '_ {
        let end = self.slice_before(end) + 1;
        (self.start_of(end) + 1..=end)
            .filter(|edge| self.edge(*edge) > self.edge(*edge - 1))
            .map(|edge| self.edge(edge))
    }

    /// Each row once for every window that its time is in and that is kept: places, and what `window` makes
    /// of the window's start and end. Then the places of the rows that are in none.
    pub(crate) fn assign<T: Copy>(
        &self,
        times: &[i64],
        is_kept: impl Fn(i64) -> bool,
        window: impl Fn(i64, i64) -> T,
    ) -> (Vec<u32>, Vec<T>, Vec<u32>) {
        let (mut places, mut all) = (Vec::with_capacity(times.len()), Vec::with_capacity(times.len()));
        let (mut late, mut slices) = (Vec::new(), Vec::new());
        self.slice_ends(times, &mut slices);
        // Neighbours are mostly in one slice.
        let (mut last, mut windows) = (None, Vec::new());
        for (row, slice) in (0u32..).zip(&slices) {
            if last != Some(slice) {
                let kept = self.windows_of_slice(*slice).filter(|(_, end)| is_kept(*end));
                windows.clear();
                windows.extend(kept.map(|(start, end)| window(start, end)));
                last = Some(slice);
            }
            if windows.is_empty() {
                late.push(row);
            }
            places.extend(windows.iter().map(|_| row));
            all.extend(&windows);
        }
        (places, all, late)
    }

    /// How many windows a time is in, at most.
    pub(crate) fn windows_a_time(&self) -> i64 {
        (self.size + self.step - 1) / self.step
    }

    /// How many slices a window has at most.
    pub(crate) fn slices_a_window(&self) -> i64 {
        self.size
    }

    /// Whether all windows that a time is in lie within all time; rows of other times have no windows.
    pub(crate) fn holds(&self, time: i64) -> bool {
        (self.first..=self.last).contains(&time)
    }

    /// The slice that a time is in: between this edge and the next.
    #[inline]
    fn slice_of(&self, time: i64) -> i64 {
        self.locate(time.clamp(self.first, self.last))
    }

    #[inline]
    fn locate(&self, time: i64) -> i64 {
        let Some(zone) = &self.zone else {
            return (time - self.offset).div_euclid(self.slice);
        };
        let mut slice = (zone.local(time) - self.offset).div_euclid(self.slice);
        // An hour that comes twice is local time before an edge again, and one that is skipped after it.
        while self.edge(slice) > time {
            slice -= 1;
        }
        while self.edge(slice + 1) <= time {
            slice += 1;
        }
        slice
    }

    /// The slice of this end.
    fn slice_before(&self, end: i64) -> i64 {
        // Ends of windows lie within a size of the times that are in them.
        let size = self.size * self.slice;
        self.locate(end.clamp(self.first - size, self.last + size) - 1)
    }

    #[inline]
    fn edge(&self, edge: i64) -> i64 {
        let local = edge * self.slice + self.offset;
        self.zone.as_ref().map_or(local, |zone| zone.instant(local))
    }

    /// The end edges of the first and the last window that hold a slice.
    fn windows_around(&self, slice: i64) -> (i64, i64) {
        let floor = |length: i64| slice.div_euclid(length) * length;
        if self.is_cumulating {
            let start = floor(self.size);
            return (floor(self.step) + self.step, start + self.size);
        }
        let last_start = floor(self.step);
        // The windows that begin on this edge or before, but not so long before that they have ended.
        let before = (self.size - 1 - (slice - last_start)).div_euclid(self.step);
        let first_start = last_start - before * self.step;
        (first_start + self.size, last_start + self.size)
    }

    /// The start edge of the window of this end edge.
    fn start_of(&self, end: i64) -> i64 {
        match self.is_cumulating {
            true => (end - 1).div_euclid(self.size) * self.size,
            false => end - self.size,
        }
    }
}

fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests;
