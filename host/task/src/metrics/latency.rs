//! How long rows take from a source to an operator, measured by markers that wait where rows wait.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Of so many markers, the last. Flink: `metrics.latency.history-size`.
const SAMPLES: usize = 128;

/// How long markers of a source's vertex have taken to an operator's subtask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// All that have come.
    pub count: u64,
    /// The last of them, the shortest first.
    sorted: Vec<Duration>,
}

impl Latency {
    /// What a part of the last markers, 0 to 1, has not been above.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let place = (part * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(place.saturating_sub(1)).or(self.sorted.last()).copied().unwrap_or_default()
    }

    /// The mean of the last markers.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.sorted.len()).unwrap_or(u32::MAX).max(1);
        self.sorted.iter().sum::<Duration>() / count
    }
}

/// Markers that have come to an operator's subtask, by the source's vertex.
#[derive(Debug, Default)]
pub(crate) struct Latencies(BTreeMap<u32, (u64, VecDeque<Duration>)>);

impl Latencies {
    pub(crate) fn add(&mut self, source: u32, time: Duration) {
        let (count, last) = self.0.entry(source).or_default();
        *count += 1;
        if last.len() == SAMPLES {
            last.pop_front();
        }
        last.push_back(time);
    }

    pub(crate) fn all(&self) -> BTreeMap<u32, Latency> {
        let of = |(source, (count, last)): (&u32, &(u64, VecDeque<Duration>))| {
            let mut sorted: Vec<Duration> = last.iter().copied().collect();
            sorted.sort_unstable();
            (*source, Latency { count: *count, sorted })
        };
        self.0.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_last_markers() {
        let mut latencies = Latencies::default();
        assert!(latencies.all().is_empty());
        latencies.add(3, Duration::from_secs(1_000));
        (1..=128).rev().for_each(|ms| latencies.add(3, Duration::from_millis(ms)));
        let all = latencies.all();
        let of = &all[&3];
        assert_eq!((of.count, of.sorted.len()), (129, SAMPLES));
        let quantiles = [0.0, 0.5, 0.75, 0.99, 0.999, 1.0].map(|part| of.quantile(part).as_millis());
        assert_eq!(quantiles, [1, 64, 96, 127, 128, 128]);
        assert_eq!(of.mean(), Duration::from_micros(64_500));
        assert_eq!(Latency::default().quantile(0.5), Duration::ZERO);
        assert_eq!(Latency::default().mean(), Duration::ZERO);
    }
}
