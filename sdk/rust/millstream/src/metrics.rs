//! The user's own counters, gauges and histograms, gathered in a call and sent at its end. What runs
//! again, muted, gathers nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use millstream_sys::host;

use crate::logging;

thread_local! {
    static METRICS: RefCell<Vec<Rc<dyn Metric>>> = const { RefCell::new(Vec::new()) };
}

trait Metric {
    /// Sends what has gathered, as the metric of a node.
    fn flush(&self, node: u32);
}

/// Sends what a function has gathered.
pub(crate) fn flush(node: u32) {
    METRICS.with_borrow(|metrics| {
        for metric in metrics {
            metric.flush(node);
        }
    });
}

fn register<M: Metric + 'static>(metric: M) -> Rc<M> {
    let metric = Rc::new(metric);
    METRICS.with_borrow_mut(|metrics| metrics.push(Rc::<M>::clone(&metric) as Rc<dyn Metric>));
    metric
}

/// A counter: make it in the job function, move a clone into each closure that counts. It
/// counts for the function that adds to it.
#[derive(Clone)]
pub struct Counter(Rc<CounterCell>);

struct CounterCell {
    name: String,
    delta: Cell<u64>,
}

impl Counter {
    /// A counter of this name.
    pub fn new(name: &str) -> Counter {
        Counter(register(CounterCell { name: name.into(), delta: Cell::new(0) }))
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds.
    pub fn add(&self, delta: u64) {
        if !logging::is_muted() {
            self.0.delta.set(self.0.delta.get().saturating_add(delta));
        }
    }
}

impl Metric for CounterCell {
    fn flush(&self, node: u32) {
        let delta = self.delta.take();
        if delta > 0 {
            host::count(node, &self.name, delta);
        }
    }
}

/// A gauge: the last value that was set.
#[derive(Clone)]
pub struct Gauge(Rc<GaugeCell>);

struct GaugeCell {
    name: String,
    value: Cell<Option<f64>>,
}

impl Gauge {
    /// A gauge of this name.
    pub fn new(name: &str) -> Gauge {
        Gauge(register(GaugeCell { name: name.into(), value: Cell::new(None) }))
    }

    /// Sets it.
    pub fn set(&self, value: f64) {
        if !logging::is_muted() {
            self.0.value.set(Some(value));
        }
    }
}

impl Metric for GaugeCell {
    fn flush(&self, node: u32) {
        if let Some(value) = self.value.take() {
            host::gauge(node, &self.name, value);
        }
    }
}

/// A histogram of samples.
#[derive(Clone)]
pub struct Histogram(Rc<HistogramCell>);

struct HistogramCell {
    name: String,
    samples: RefCell<Vec<f64>>,
}

impl Histogram {
    /// A histogram of this name.
    pub fn new(name: &str) -> Histogram {
        Histogram(register(HistogramCell { name: name.into(), samples: RefCell::default() }))
    }

    /// Adds a sample.
    pub fn record(&self, sample: f64) {
        if !logging::is_muted() {
            self.0.samples.borrow_mut().push(sample);
        }
    }
}

impl Metric for HistogramCell {
    fn flush(&self, node: u32) {
        let samples = self.samples.take();
        if !samples.is_empty() {
            host::histogram(node, &self.name, &samples);
        }
    }
}
