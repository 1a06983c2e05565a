//! A snapshot of 1 GiB of state in memory, written while every batch changes the state: how long the
//! subtask that owns it pauses.
//!
//! The state alone is driven, as a subtask drives it: batches of 1,000 rows with keys at random, each
//! with a look at the state and a change; while a snapshot is under way, a turn of sweeping after
//! each. What the snapshots give is compared row by row with plain counts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use model::job_graph::{State, StateKind};
use platform::{Clock, Random};
use state::backend::{StateChunk, Sweep};
use state::key_index::KeyId;
use state::memory::MemoryBackend;
use state::{Backend, Extent, StoreError};

use crate::measure::{self, median, resident};
use crate::report::Report;

const BENCH: &str = "snapshot";
const KEYS: usize = 10_000_000;
/// Numbers in a key's state: 12 × 8 bytes × 10 million keys are 0.9 GiB, and what says which are
/// there and the keys themselves make more than 1 GiB of it.
pub(crate) const NUMBERS: usize = 12;
pub(crate) const ROWS: usize = 1_000;
/// Sweeping between two batches ends when this has passed.
const TURN: Duration = Duration::from_micros(200);
/// A loop that does nothing, about as long as a batch: its longest turn is the machine's own pause.
const SPIN: Duration = Duration::from_micros(500);
pub(crate) const SPINNING: &str = "a loop that reads the clock for 0.5 ms";
/// Batches before each snapshot.
const BETWEEN: usize = 5_000;

/// A subtask's state, and what each key has been counted to.
pub(crate) struct Subtask {
    pub(crate) backend: Box<dyn Backend>,
    fields: Fields,
    pub(crate) counts: Vec<i64>,
    random: Random,
    ids: Vec<KeyId>,
    written: Vec<(usize, KeyId)>,
}

/// How long batches took, in milliseconds: all that lay between two batches' results.
#[derive(Default)]
struct Batches {
    /// In the middle, of each round.
    middle: Vec<f64>,
    /// All but one in a thousand, of each round.
    most: Vec<f64>,
    /// At most, in each round.
    longest: Vec<f64>,
}

impl Batches {
    fn add_round(&mut self, mut took: Vec<f64>) {
        took.sort_by(f64::total_cmp);
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
        self.middle.push(at(0.5));
        self.most.push(at(0.999));
        self.longest.push(at(1.0));
    }
}

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    measure::drive(report, BENCH, rounds)
}

pub(crate) fn drive(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let clock = Clock::system();
    let before = resident();
    let mut subtask = Subtask::new()?;
    let state = resident() - before;
    let [mut spinning, mut without, mut within] = [(); 3].map(|()| Batches::default());
    let (mut seals, mut snapshots) = (Vec::new(), Vec::new());
    for epoch in 1..=rounds as u64 {
        let mut took = Vec::new();
        for _ in 0..BETWEEN {
            let keys = subtask.keys();
            let begun = clock.now();
            subtask.batch(&keys)?;
            took.push(milliseconds(clock.now() - begun));
        }
        without.add_round(took);
        let mut took = Vec::new();
        for _ in 0..BETWEEN {
            took.push(spin(&clock));
        }
        spinning.add_round(took);
        let (sealed, begun) = (subtask.counts.clone(), clock.now());
        subtask.backend.seal(epoch, Extent::Whole)?;
        seals.push(milliseconds(clock.now() - begun));
        let (mut is_given, mut is_done, mut took) = (vec![false; KEYS], false, Vec::new());
        while !is_done {
            let (keys, mut chunks) = (subtask.keys(), Vec::new());
            let begun = clock.now();
            subtask.batch(&keys)?;
            let turn = clock.now();
            while !is_done && clock.now() - turn < TURN {
                match subtask.backend.sweep()? {
                    Sweep::Rows(chunk) => chunks.push(chunk),
                    Sweep::Nothing | Sweep::Waiting | Sweep::Files(_) => {}
                    Sweep::Done(of) => is_done = of == epoch,
                    Sweep::Idle => bail!("the snapshot was lost"),
                }
            }
            took.push(milliseconds(clock.now() - begun));
            chunks.iter().try_for_each(|chunk| check(chunk, &sealed, &mut is_given))?;
        }
        ensure!(is_given.iter().all(|given| *given), "keys are missing in the snapshot");
        snapshots.push(took.iter().sum());
        within.add_round(took);
    }
    let mut add = |subject: &str, values: Vec<f64>, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, rounds), subject, median(values), unit, against);
    };
    add("state and keys", vec![state as f64 / f64::from(1 << 30)], "GiB resident", None);
    let (batch, during) = ("batch of 1,000 updates", "the same and a turn of a snapshot");
    add(SPINNING, spinning.longest, "ms at most in a round", None);
    for (unit, without, within) in [
        ("ms", without.middle, within.middle),
        ("ms, all but one in a thousand", without.most, within.most),
        ("ms at most in a round", without.longest.clone(), within.longest.clone()),
        ("ms at most in all rounds", greatest(&without.longest), greatest(&within.longest)),
    ] {
        let against = Some((batch, median(without.clone())));
        add(batch, without, unit, None);
        add(during, within, unit, against);
    }
    add("sealing", seals, "ms", None);
    add("the whole snapshot", snapshots, "ms", None);
    Ok(())
}

fn greatest(values: &[f64]) -> Vec<f64> {
    values.iter().copied().reduce(f64::max).into_iter().collect()
}

/// How long a loop took that does nothing for [`SPIN`], in milliseconds.
pub(crate) fn spin(clock: &Clock) -> f64 {
    let begun = clock.now();
    while clock.now() - begun < SPIN {}
    milliseconds(clock.now() - begun)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Each key once, with what it had been counted to when the state was sealed.
fn check(chunk: &StateChunk, sealed: &[i64], is_given: &mut [bool]) -> anyhow::Result<()> {
    let keys = chunk.keys[0].as_primitive::<Int64Type>().values();
    let numbers = chunk.columns[0].as_struct();
    for number in numbers.columns() {
        for (key, count) in keys.iter().zip(number.as_primitive::<Int64Type>().values()) {
            ensure!(sealed[*key as usize] == *count, "key {key} is {count}, not {}", sealed[*key as usize]);
        }
    }
    for key in keys {
        ensure!(!std::mem::replace(&mut is_given[*key as usize], true), "key {key} comes twice");
    }
    Ok(())
}

impl Subtask {
    /// Every key has been counted once.
    fn new() -> anyhow::Result<Self> {
        let mut subtask =
            Self::empty(KEYS, |keys, states| Ok(Box::new(MemoryBackend::new(keys, states, 0)?)))?;
        for first in (0..KEYS as i64).step_by(ROWS) {
            let keys: Vec<i64> = (first..first + ROWS as i64).collect();
            subtask.batch(&keys)?;
        }
        Ok(subtask)
    }

    /// For so many keys, none of which is there.
    pub(crate) fn empty(
        keys: usize,
        backend: impl FnOnce(&[DataType], &[State]) -> anyhow::Result<Box<dyn Backend>>,
    ) -> anyhow::Result<Self> {
        let fields: Fields =
            (0..NUMBERS).map(|number| Field::new(format!("n{number}"), DataType::Int64, true)).collect();
        let value = Field::new("value", DataType::Struct(fields.clone()), true);
        let state = State {
            name: "counts".to_owned(),
            kind: StateKind::Value,
            key: Arc::new(Schema::empty()),
            value: Arc::new(Schema::new(vec![value])),
            ttl: None,
        };
        Ok(Self {
            backend: backend(&[DataType::Int64], &[state])?,
            fields,
            counts: vec![0; keys],
            random: Random::of_seed(1),
            ids: Vec::new(),
            written: Vec::new(),
        })
    }

    /// Distinct keys, most of [`ROWS`].
    pub(crate) fn keys(&mut self) -> Vec<i64> {
        let all = self.counts.len() as u64;
        let mut keys: Vec<i64> = (0..ROWS).map(|_| self.random.below(all) as i64).collect();
        keys.sort_unstable();
        keys.dedup();
        // In no order: a stream has none.
        for at in (1..keys.len()).rev() {
            keys.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        keys
    }

    /// Counts these keys on.
    pub(crate) fn batch(&mut self, keys: &[i64]) -> anyhow::Result<()> {
        let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        self.backend.ids(&[column], keys.len(), &mut self.ids)?;
        let before = self.backend.load(0, &self.ids, 0)?;
        let numbers = before.as_struct().columns().iter().map(|number| -> ArrayRef {
            let number = number.as_primitive::<Int64Type>();
            let counted = |row| if number.is_null(row) { 1 } else { number.value(row) + 1 };
            Arc::new((0..keys.len()).map(|row| Some(counted(row))).collect::<Int64Array>())
        });
        let after = StructArray::try_new(self.fields.clone(), numbers.collect(), None)?;
        self.written.clear();
        self.written.extend(self.ids.iter().copied().enumerate());
        let after: ArrayRef = Arc::new(after);
        self.backend
            .store(0, &self.written, &after, 0)
            .map_err(|error: StoreError| anyhow::anyhow!("{error}"))?;
        keys.iter().for_each(|key| self.counts[*key as usize] += 1);
        Ok(())
    }
}
