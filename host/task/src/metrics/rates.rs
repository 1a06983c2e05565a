//! Rates over a sliding window. Nothing in the engine takes samples: who shows metrics does, every few seconds.

use std::collections::VecDeque;
use std::time::Duration;

use super::JobMetrics;
use super::names::{OPERATOR_RATES, OperatorRate, TASK_RATES, TaskRate};

/// What rates are taken over. Flink: a meter's 60 seconds.
pub const WINDOW: Duration = Duration::from_secs(60);
/// How often a sample is to be taken. Flink: a view's update interval.
pub const EVERY: Duration = Duration::from_secs(5);

/// Takes samples of a job's counters, and gives rates of them.
#[derive(Debug)]
pub struct Sampler {
    window: Duration,
    /// The oldest first: those of the window, and the last one before it.
    samples: VecDeque<Sample>,
}

/// How much a job's counters rise in a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// By vertex and subtask.
    vertices: Vec<Vec<SubtaskRates>>,
}

/// Of a subtask: what counters were, or how much they rise.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SubtaskRates {
    /// In the order of [`TASK_RATES`].
    pub(crate) task: Vec<f64>,
    /// By stage, in the order of [`OPERATOR_RATES`].
    pub(crate) stages: Vec<Vec<f64>>,
}

#[derive(Debug)]
struct Sample {
    at: Duration,
    /// Of which attempt of the job.
    restarts: u32,
    counters: Rates,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new(WINDOW)
    }
}

impl Sampler {
    /// Rates over this window.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self { window, samples: VecDeque::new() }
    }

    /// Takes a sample; `now` never goes back. A job that was started again counts from 0 again, and so do its rates.
    pub fn sample(&mut self, now: Duration, metrics: &JobMetrics) {
        let counters = Rates::counters(metrics);
        let is_another = self.samples.back().is_some_and(|last| {
            last.restarts != metrics.restarts || !last.counters.pairs(&counters).all(|(was, is)| was <= is)
        });
        if is_another {
            self.samples.clear();
        }
        self.samples.push_back(Sample { at: now, restarts: metrics.restarts, counters });
        while self.samples.get(1).is_some_and(|second| now.saturating_sub(second.at) >= self.window) {
            self.samples.pop_front();
        }
    }

    /// From the oldest sample of the window to the newest; 0 where there is one only.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Rates::default();
        };
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        first.counters.with(&last.counters, |was, is| if seconds > 0.0 { (is - was) / seconds } else { 0.0 })
    }
}

impl Rates {
    /// A rate of a subtask by its name, `busyTimeMsPerSecond`; none = there is no such.
    #[must_use]
    pub fn of_task(&self, vertex: usize, subtask: u32, name: &str) -> Option<f64> {
        let place = TASK_RATES.iter().position(|TaskRate(about, _)| about.name == name)?;
        self.of(vertex, subtask)?.task.get(place).copied()
    }

    pub(crate) fn of(&self, vertex: usize, subtask: u32) -> Option<&SubtaskRates> {
        self.vertices.get(vertex)?.get(subtask as usize)
    }

    fn counters(metrics: &JobMetrics) -> Self {
        let vertices = metrics.vertices.iter().map(|vertex| {
            let of = |task| SubtaskRates {
                task: TASK_RATES.iter().map(|TaskRate(_, counter)| counter(task)).collect(),
                stages: task
                    .stages
                    .iter()
                    .map(|stage| {
                        OPERATOR_RATES.iter().map(|OperatorRate(_, counter)| counter(stage)).collect()
                    })
                    .collect(),
            };
            vertex.subtasks.iter().map(of).collect()
        });
        Self { vertices: vertices.collect() }
    }

    /// Each value with the other's.
    fn pairs<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (f64, f64)> + 'a {
        let all = |of: &'a Self| {
            of.vertices.iter().flatten().flat_map(|s| s.task.iter().chain(s.stages.iter().flatten())).copied()
        };
        all(self).zip(all(other))
    }

    fn with(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        let each = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| of(*a, *b)).collect::<Vec<f64>>();
        let subtask = |a: &SubtaskRates, b: &SubtaskRates| SubtaskRates {
            task: each(&a.task, &b.task),
            stages: a.stages.iter().zip(&b.stages).map(|(a, b)| each(a, b)).collect(),
        };
        let vertex = |a: &Vec<SubtaskRates>, b: &Vec<SubtaskRates>| {
            a.iter().zip(b).map(|(a, b)| subtask(a, b)).collect::<Vec<_>>()
        };
        Self { vertices: self.vertices.iter().zip(&other.vertices).map(|(a, b)| vertex(a, b)).collect() }
    }
}

#[cfg(test)]
mod tests;
