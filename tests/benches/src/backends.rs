//! The two backends of state: word count in little memory, and, driven as a subtask drives it, state of 1 GiB: how
//! long the subtask pauses over RocksDB, and how many bytes snapshots of changes have.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use model::job_graph::StateKind;
use platform::{Clock, Faults, Inbox, IoPool, thread_cpu_time};
use state::Extent;
use state::backend::{FrozenFiles, Rest, StateChunk, StateTable, Sweep, Ticket};
use state::encoded::{Pieces, SnapshotWriter, TableReader};
use state::memory::MemoryBackend;
use state::tiered::{Rocks, RocksStore, Scratch, StoreFiles, StoreReader, TieredBackend};

use crate::measure::{self, Round, UNIT, guest, median, streamctl};
use crate::report::Report;
use crate::snapshot::{NUMBERS, ROWS, SPINNING, Subtask, spin};
use crate::text::{text, text_of};
use crate::totals::Totals;

const BENCH: &str = "backends";
/// Distinct words of the text whose counts are many times the memory.
const MANY_WORDS: u64 = 4_000_000;
/// Of the driven state: 12 numbers a key are 1 GiB.
const KEYS: usize = 10_000_000;
/// What RocksDB may have of that.
const BUDGET: usize = 256 << 20;
/// Batches between two snapshots of changes: so a hundredth of the keys change.
const BATCHES: usize = 100;
/// Snapshots of changes one upon the other.
const SNAPSHOTS: usize = 20;
/// Sweeping between two batches ends when this has passed.
const TURN: Duration = Duration::from_micros(200);

pub(crate) fn run(report: &mut Report, bytes: u64, rounds: usize) -> anyhow::Result<()> {
    for (subject, words, memory) in
        [("100,000 words", None, "64mb"), ("4,000,000 words", Some(MANY_WORDS), "16mb")]
    {
        word_count(report, (subject, words, memory), bytes, rounds)?;
    }
    measure::drive(report, BENCH, 1)
}

pub(crate) fn drive(report: &mut Report) -> anyhow::Result<()> {
    driven(report, Of::Memory)?;
    driven(report, Of::Rocks { has_own_core: false })?;
    if platform::available_parallelism() > 1 {
        driven(report, Of::Rocks { has_own_core: true })?;
    }
    Ok(())
}

fn word_count(
    report: &mut Report,
    (subject, words, memory): (&str, Option<u64>, &str),
    bytes: u64,
    rounds: usize,
) -> anyhow::Result<()> {
    let file = match words {
        None => text(bytes)?,
        Some(words) => text_of(bytes, words)?,
    };
    const BACKENDS: [&str; 2] = ["hashmap", "rocksdb"];
    let mut rows = 0;
    let (valid, void) = measure::steady_rounds(rounds, || {
        let mut round = Round::new();
        round.insert(UNIT, measure::run(&mut measure::subject(UNIT, &file)?)?);
        let expected = Totals::of_summary(&round[UNIT].said)?;
        rows = expected.rows;
        for backend in BACKENDS {
            let mut command: Command = streamctl()?;
            command.args(["run", "-p", "1", &format!("-Dstate.backend.type={backend}")]);
            command.arg(format!("-Dstate.backend.rocksdb.memory.fixed-per-slot={memory}"));
            command.arg(guest("word_count")?).arg("--input").arg(&file).args(["--output", "blackhole"]);
            let run = measure::run(&mut command)?;
            ensure!(Totals::of_summary(&run.said)? == expected, "{backend} counts otherwise");
            round.insert(backend, run);
        }
        Ok(round)
    })?;
    let of = |name: &str| {
        rows as f64 / median(valid.iter().map(|round| round[name].cpu.as_secs_f64()).collect()) / 1e6
    };
    let resident = |name: &str| median(valid.iter().map(|round| round[name].resident as f64 / 1e6).collect());
    let mut add = |name: String, value: f64, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, valid.len()), &name, value, unit, against);
    };
    let named = |backend: &str| match backend {
        "rocksdb" => format!("word count, {subject}, rocksdb with {memory}"),
        backend => format!("word count, {subject}, {backend}"),
    };
    let unit = "M words per CPU-second";
    add(UNIT.to_owned(), of(UNIT), unit, None);
    for (backend, baseline) in [("hashmap", UNIT), ("rocksdb", "hashmap")] {
        add(named(backend), of(backend), unit, Some((baseline, of(baseline))));
        add(named(backend), resident(backend), "MB resident at most", None);
    }
    add("rounds that were void".to_owned(), void as f64, "of all", None);
    Ok(())
}

#[derive(Clone, Copy)]
enum Of {
    Memory,
    Rocks {
        /// No other thread of the process is on the subtask's core.
        has_own_core: bool,
    },
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Rocks { has_own_core: false } => "RocksDB, 256 MiB of memory",
            Self::Rocks { has_own_core: true } => "RocksDB, 256 MiB of memory, a core of its own",
        }
    }
}

/// Lays this thread on the first core, and all others that the process has on the second.
fn lay_apart() -> anyhow::Result<()> {
    let this = std::fs::read_link("/proc/thread-self")?;
    let this = this.file_name().context("a thread's number")?;
    for (who, core) in [("--all-tasks", "1"), ("--pid", "0")] {
        let mut command = Command::new("taskset");
        command.args([who, "--cpu-list", "--pid", core]).arg(this).stdout(std::process::Stdio::null());
        ensure!(command.status().context("taskset cannot be run")?.success(), "no core {core}");
    }
    Ok(())
}

/// A pool whose one thread has been started.
fn pool(clock: &Clock) -> IoPool {
    let pool = IoPool::threads();
    let started = Inbox::new(Waker::noop().clone());
    pool.submit(&started, || ());
    while started.take().is_none() {
        clock.sleep(Duration::from_millis(1));
    }
    pool
}

/// State that is driven, and how long the thread was busy at a stretch.
struct Driven {
    subtask: Subtask,
    /// RocksDB's.
    store: Option<Arc<RocksStore>>,
    clock: Clock,
    /// In milliseconds, each from one moment when the subtask could have been left to the next; and CPU time of the
    /// thread meanwhile, as others may have had the cores.
    busy: Vec<f64>,
    cpu: Vec<f64>,
}

/// What each key has been counted to by the snapshots of the near state, the newest last.
struct Mirror(Vec<Option<i64>>);

impl Mirror {
    /// Takes rows in; by `is_far` they are of keys that have gone from the near state.
    fn take(&mut self, chunk: &StateChunk, is_far: bool) -> anyhow::Result<()> {
        let keys = chunk.keys[0].as_primitive::<Int64Type>().values();
        if chunk.table == StateTable::Gone {
            keys.iter().for_each(|key| self.0[*key as usize] = None);
            return Ok(());
        }
        let numbers = chunk.columns[0].as_struct();
        let columns: Vec<_> =
            numbers.columns().iter().map(|number| number.as_primitive::<Int64Type>().values()).collect();
        for (row, key) in keys.iter().enumerate() {
            let count = numbers.is_valid(row).then(|| columns[0][row]);
            ensure!(columns.iter().all(|column| column[row] == columns[0][row]), "key {key} is torn");
            let before = std::mem::replace(&mut self.0[*key as usize], count);
            ensure!(!is_far || before.is_none(), "key {key} comes twice");
        }
        Ok(())
    }
}

impl Driven {
    fn new(of: Of, folder: &std::path::Path) -> anyhow::Result<Self> {
        let (mut kept, clock) = (None, Clock::system());
        let subtask = match of {
            Of::Memory => {
                Subtask::empty(KEYS, |keys, states| Ok(Box::new(MemoryBackend::new(keys, states, 0)?)))?
            }
            Of::Rocks { has_own_core } => {
                let store = Arc::new(Rocks::new(folder, BUDGET / 2, 1, &Faults::none())?.store()?);
                kept = Some(Arc::clone(&store));
                let pool = (pool(&clock), Waker::noop());
                if has_own_core {
                    lay_apart()?;
                }
                let budget = Box::new(|| BUDGET / 2);
                Subtask::empty(KEYS, |keys, states| {
                    Ok(Box::new(TieredBackend::new(keys, states, 0, store, budget, pool)?))
                })?
            }
        };
        Ok(Self { subtask, store: kept, clock, busy: Vec::new(), cpu: Vec::new() })
    }

    fn timed<T>(&mut self, what: impl FnOnce(&mut Subtask) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let cpu = || thread_cpu_time().unwrap_or_default();
        let (begun, cpu_before) = (self.clock.now(), cpu());
        let result = what(&mut self.subtask);
        self.busy.push((self.clock.now() - begun).as_secs_f64() * 1e3);
        self.cpu.push((cpu() - cpu_before).as_secs_f64() * 1e3);
        result
    }

    /// A batch: asked for, waited for, counted on; then room is made.
    fn batch(&mut self, keys: &[i64]) -> anyhow::Result<()> {
        let column: arrow_array::ArrayRef = Arc::new(arrow_array::Int64Array::from(keys.to_vec()));
        let ticket: Ticket = self.timed(|of| Ok(of.backend.prefetch(&[column], keys.len())?))?;
        while !self.timed(|of| Ok(of.backend.is_ready(ticket)))? {
            self.clock.sleep(Duration::from_micros(50));
        }
        self.timed(|of| of.batch(keys))?;
        loop {
            match self.timed(|of| Ok(of.backend.rest()?))? {
                Rest::Done => return Ok(()),
                Rest::More => {}
                Rest::Waiting => self.clock.sleep(Duration::from_micros(50)),
            }
        }
    }

    /// A snapshot, between batches, written as a subtask writes it: its rows, and the files of its store.
    fn snapshot(&mut self, epoch: u64, extent: Extent) -> anyhow::Result<(Tables, Option<FrozenFiles>)> {
        self.timed(|of| Ok(of.backend.seal(epoch, extent)?))?;
        let (mut writer, mut files) = (SnapshotWriter::default(), None);
        loop {
            let turn = self.clock.now();
            let clock = self.clock.clone();
            let (mut is_done, mut is_waiting) = (false, false);
            self.timed(|of| {
                while !is_done && !is_waiting && clock.now() - turn < TURN {
                    match of.backend.sweep()? {
                        Sweep::Rows(chunk) => writer.add(&chunk)?,
                        Sweep::Files(found) => files = Some(found),
                        Sweep::Nothing => {}
                        Sweep::Waiting => is_waiting = true,
                        Sweep::Done(of) => is_done = of == epoch,
                        Sweep::Idle => bail!("the snapshot was lost"),
                    }
                }
                Ok(())
            })?;
            if is_done {
                return Ok((self.timed(|_| Ok(writer.finish()?))?, files));
            }
            if is_waiting {
                self.clock.sleep(Duration::from_micros(50));
            }
        }
    }
}

/// A snapshot's tables, as they are written.
type Tables = Vec<(StateTable, Pieces)>;

/// Takes a snapshot of the near state in.
fn take_all(tables: &Tables, mirror: &mut Mirror) -> anyhow::Result<()> {
    let (gone, others): (Vec<_>, Vec<_>) = tables.iter().partition(|(table, _)| *table == StateTable::Gone);
    for (table, pieces) in gone.into_iter().chain(others) {
        let bytes = pieces.joined();
        TableReader::new(*table, &bytes)?.try_for_each(|chunk| mirror.take(&chunk?, false))?;
    }
    Ok(())
}

fn driven(report: &mut Report, of: Of) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut driven = Driven::new(of, folder.path())?;
    for first in (0..KEYS as i64).step_by(ROWS) {
        let keys: Vec<i64> = (first..first + ROWS as i64).collect();
        driven.batch(&keys)?;
    }
    let (whole, _) = driven.snapshot(1, Extent::Whole)?;
    let (mut mirror, mut last_files) = (Mirror(vec![None; KEYS]), None);
    take_all(&whole, &mut mirror)?;
    drop(whole);
    driven.busy.clear();
    driven.cpu.clear();
    // A loop that does nothing, after each batch: how long the machine itself pauses.
    let mut spinning = Vec::new();
    let flushed = |of: &Driven| of.store.as_ref().and_then(|store| store.flushed_bytes());
    let flushed_before = flushed(&driven);
    let mut known: BTreeSet<String> = BTreeSet::new();
    let (mut bytes_of_rows, mut bytes_of_files, mut changed) = (0, 0, 0);
    for epoch in 2..2 + SNAPSHOTS as u64 {
        let mut keys = BTreeSet::new();
        for _ in 0..BATCHES {
            let batch = driven.subtask.keys();
            driven.batch(&batch)?;
            spinning.push(spin(&driven.clock));
            keys.extend(batch);
        }
        let (tables, files) = driven.snapshot(epoch, Extent::Changes)?;
        bytes_of_rows += tables.iter().map(|(_, pieces)| pieces.bytes()).sum::<usize>();
        take_all(&tables, &mut mirror)?;
        for file in files.iter().flat_map(|of| &of.files) {
            let identity = file.identity.clone().unwrap_or_else(|| format!("{epoch} {}", file.name));
            if known.insert(identity) && epoch > 2 {
                let store = &files.as_ref().context("a store")?.store;
                bytes_of_files += store.read_file(&file.name)?.len();
            }
        }
        // A key, and its numbers, of 8 bytes each.
        changed += keys.len() * 8 * (1 + NUMBERS);
        last_files = files;
    }
    let flushed = flushed(&driven).zip(flushed_before).map(|(after, before)| (after - before) as f64);
    // Together they have every key as it is.
    if let Some(FrozenFiles { store, files, types }) = last_files {
        let scratch = Scratch::new(folder.path())?;
        for file in files {
            std::fs::write(scratch.path().join(&file.name), store.read_file(&file.name)?)?;
        }
        let types: Vec<_> = types.into_iter().map(|chunk| (chunk, StateKind::Value)).collect();
        let mut reader = StoreReader::new(StoreFiles::Folder(scratch.path()), &types)?;
        while let Some(rows) = reader.next_rows()? {
            rows.iter().try_for_each(|chunk| mirror.take(chunk, true))?;
        }
    }
    let counts = &driven.subtask.counts;
    ensure!(
        mirror.0.iter().zip(counts).all(|(given, count)| *given == Some(*count)),
        "snapshots have other counts"
    );
    let at = |times: &mut Vec<f64>, part: f64| {
        times.sort_by(f64::total_cmp);
        times[((times.len() - 1) as f64 * part) as usize]
    };
    let mut add = |subject: &str, value: f64, unit: &str| {
        report.compare((BENCH, SNAPSHOTS), &format!("{}, 1 GiB: {subject}", of.name()), value, unit, None);
    };
    let Driven { mut busy, mut cpu, .. } = driven;
    add("longest pause of the subtask", at(&mut busy, 1.0), "ms");
    add("pause, all but one in a thousand", at(&mut busy, 0.999), "ms");
    add("longest pause of the subtask, its CPU time", at(&mut cpu, 1.0), "ms");
    add(&format!("longest pause of {SPINNING}"), at(&mut spinning, 1.0), "ms");
    add(
        "rows of snapshots of changes",
        bytes_of_rows as f64 / changed as f64,
        "bytes for one that has changed",
    );
    if let Some(flushed) = flushed {
        add(
            "files of the store, compaction apart",
            flushed / changed as f64,
            "bytes for one that has changed",
        );
        let files = bytes_of_files as f64 / changed as f64;
        add("files of the store, compaction among them", files, "bytes for one that has changed");
    }
    Ok(())
}
