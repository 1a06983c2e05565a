//! stub
use model::job_graph::Assigner;
pub(crate) struct WindowGrid { size: i64, step: i64, offset: i64, cumulating: bool }
impl WindowGrid {
    pub(crate) fn new(a: &Assigner) -> Result<Self, crate::AggregateError> {
        let g = match a { Assigner::Tumbling(g) | Assigner::Sliding(g) | Assigner::Cumulating(g) => g, Assigner::Session(_) => unreachable!() };
        Ok(Self { size: g.size.as_millis() as i64, step: g.step.as_millis() as i64, offset: g.offset, cumulating: matches!(a, Assigner::Cumulating(_)) })
    }
    pub(crate) fn slice_end(&self, t: i64) -> i64 { t + 1 }
    pub(crate) fn windows_of_slice(&self, e: i64) -> impl Iterator<Item = (i64, i64)> + '_ {
        let t = e - 1;
        let (first, n) = if self.cumulating {
            let b = t - (t - self.offset).rem_euclid(self.size);
            (b + (t - b) / self.step * self.step + self.step, (b + self.size - (b + (t - b) / self.step * self.step)) / self.step)
        } else {
            let last = t - (t - self.offset).rem_euclid(self.step);
            let n = (last + self.size - 1 - t) / self.step + 1;
            (last - (n - 1) * self.step + self.size, if last + self.size > t { n } else { 0 })
        };
        (0..n).map(move |i| { let end = first + i * self.step; (self.window_start(end), end) })
    }
    pub(crate) fn window_start(&self, end: i64) -> i64 { if self.cumulating { let t = end - 1; t - (t - self.offset).rem_euclid(self.size) } else { end - self.size } }
}
