//! Where the slices of sliding and cumulating windows lie: cut at every edge of a window.

use std::time::Duration;

use model::job_graph::{Assigner, Grid};

use super::super::millis;

/// Where slices and windows end, in milliseconds since the epoch. Without time zones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edges {
    size: i64,
    pub(crate) step: i64,
    offset: i64,
    /// Where a cumulating window begins, from the epoch.
    origin: i64,
    /// Where in a step windows begin: they end at its edges.
    begins: i64,
    pub(crate) is_cumulating: bool,
}

impl Edges {
    pub(crate) fn of(assigner: &Assigner) -> Self {
        let (grid, is_cumulating): (&Grid, bool) = match assigner {
            Assigner::Cumulating(grid) => (grid, true),
            Assigner::Tumbling(grid) | Assigner::Sliding(grid) => (grid, false),
            // Those without a grid have operators of their own.
            Assigner::Session(_) | Assigner::Count { .. } | Assigner::Everything => {
                (&Grid { size: Duration::MAX, step: Duration::MAX, offset: 0, zone: None }, false)
            }
        };
        let (size, step) = (millis(grid.size), millis(grid.step));
        // A window that starts at an edge of the grid ends `size` after it.
        let offset = grid.offset.saturating_add(size % step).rem_euclid(step);
        Self { size, step, offset, origin: grid.offset, begins: (step - size % step) % step, is_cumulating }
    }

    /// The first edge of the grid after an instant: where a window ends.
    pub(crate) fn window_end_after(&self, time: i64) -> i64 {
        let since = time.saturating_sub(self.offset).rem_euclid(self.step);
        time.saturating_sub(since).saturating_add(self.step)
    }

    /// The end of the slice that an instant is in.
    #[inline]
    pub(crate) fn slice_end(&self, time: i64) -> i64 {
        let end = self.window_end_after(time);
        // The other edge in a step, where windows begin.
        let begin = end.saturating_sub(self.step).saturating_add(self.begins);
        if self.begins > 0 && time < begin { begin } else { end }
    }

    /// The start of the slice that ends there.
    pub(crate) fn before(&self, slice_end: i64) -> i64 {
        let mut start = slice_end.saturating_sub(self.step);
        loop {
            let end = self.slice_end(start);
            if end >= slice_end {
                return start;
            }
            start = end;
        }
    }

    pub(crate) fn window_start(&self, window_end: i64) -> i64 {
        if self.is_cumulating {
            let since = (window_end - 1).saturating_sub(self.origin).rem_euclid(self.size);
            return (window_end - 1).saturating_sub(since);
        }
        window_end.saturating_sub(self.size)
    }

    /// How many slices a window has at most: two a step.
    pub(crate) fn slices_a_window(&self) -> usize {
        usize::try_from((self.size / self.step.max(1)).saturating_add(1).saturating_mul(2))
            .unwrap_or(usize::MAX)
    }

    /// The end of the last window that a slice is in.
    pub(crate) fn last_window(&self, slice_end: i64) -> i64 {
        if self.is_cumulating {
            return self.window_start(slice_end).saturating_add(self.size);
        }
        let start = self.before(slice_end);
        // The last window that begins at or before the slice.
        let since = start.saturating_add(self.size).saturating_sub(self.offset).rem_euclid(self.step);
        start.saturating_add(self.size).saturating_sub(since)
    }

    /// The end of the first window of a slice that has not passed.
    pub(crate) fn first_window(&self, slice_end: i64, passed: i64) -> i64 {
        self.window_end_after((slice_end - 1).max(passed.saturating_add(1)))
    }

    /// Whether a slice is in the window that ends there.
    pub(crate) fn is_within(&self, slice_end: i64, window_end: i64) -> bool {
        slice_end <= window_end && slice_end > self.window_start(window_end)
    }
}
