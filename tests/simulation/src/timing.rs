//! Jobs whose windows take late rows for another time, are emitted at other times, and whose watermarks follow
//! otherwise, from a barrier on: against accounts in which that is between two rows.
//!
//! With batches of one row at parallelism 1 each row is followed by its watermark, and a barrier lies between two rows.
//! Between which, the engine does not say: what has come out must be that of one account, whichever rows they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checkpoint::Storage;
use model::job_graph::{JobGraph, NodeKind};
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Clock, Faults, Random};
use task::simulation::{Fault, options};
use task::swap::SwapOptions;
use task::{Checkpoints, JobOutcome, Restored};

use crate::checkpoints::{JOB_ID, settings, with_files};
use crate::simulated::{Simulated, load, seeds};
use crate::windows::{Account, Case, DELETE, Row, SAY, SET, Sessions, args_of, rows};

/// A version of a job.
#[derive(Clone, Debug)]
struct Version {
    case: Case,
    /// The native aggregate, by this trigger.
    native: Option<Emitted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Emitted {
    AtEnd,
    Early(i64),
    Count(i64),
}

/// Each row that comes out, as text, with how often it is there.
type Out = BTreeMap<String, usize>;

fn put(out: &mut Out, row: String) {
    *out.entry(row).or_default() += 1;
}

impl Version {
    fn args(&self, of: &[String]) -> Vec<String> {
        let mut args = of.to_vec();
        args.extend(self.case.args());
        if let Some(emitted) = self.native {
            let trigger = match emitted {
                Emitted::AtEnd => "end".to_owned(),
                Emitted::Early(each) => format!("early:{each}"),
                Emitted::Count(rows) => format!("count:{rows}"),
            };
            args.extend(["--native", "true", "--trigger", &trigger].map(str::to_owned));
        }
        args
    }

    /// The same windows at other times.
    fn draw_other(&self, random: &mut Random) -> Self {
        let mut draw = |below: u64| random.below(below) as i64;
        let case =
            Case { lateness: [0, 3, 10, 25, 60][draw(5) as usize], bound: draw(31), ..self.case.clone() };
        let native = self.native.map(|emitted| match emitted {
            Emitted::Count(_) => Emitted::Count(1 + draw(4)),
            _ if case.windows == "session" || draw(3) == 0 => Emitted::AtEnd,
            _ => Emitted::Early(1 + draw(6)),
        });
        Self { case, native }
    }

    fn draw(random: &mut Random, native: bool) -> Self {
        let (windows, kept) = match (native, random.below(4)) {
            (_, 0) => ("session", "merges"),
            (true, _) => ("tumbling", "each"),
            (false, 1) => ("tumbling", "collects"),
            (false, 2) => ("sliding", "each"),
            (false, _) => ("tumbling", "each"),
        };
        let timers = !native && kept == "each" && random.one_in(2);
        let case = Case { late_port: true, ..Case::draw(random, windows, kept, timers) };
        let native = native.then(|| match (windows, random.below(3)) {
            ("tumbling", 0) => Emitted::Count(1 + random.below(4) as i64),
            _ => Emitted::AtEnd,
        });
        Self { case, native }.draw_other(random)
    }
}

/// A native window, as the account has it.
#[derive(Clone, Debug, Default)]
struct Open {
    count: i64,
    sum: i64,
    since: i64,
    is_changed: bool,
    early: Option<i64>,
}

/// The account of native windows that do not merge.
struct Native<'a> {
    version: &'a Version,
    open: BTreeMap<(i64, i64, i64), Open>,
    out: Out,
    watermark: i64,
    gone: i64,
}

impl<'a> Native<'a> {
    fn new(version: &'a Version) -> Self {
        Self { version, open: BTreeMap::new(), out: Out::new(), watermark: i64::MIN, gone: i64::MIN }
    }

    fn early(&self, (_, start, end): (i64, i64, i64), after: i64) -> Option<i64> {
        let Some(Emitted::Early(each)) = self.version.native else { return None };
        (1..).map(|k| start + k * each - 1).take_while(|due| *due < end - 1).find(|due| *due > after)
    }

    fn change(&mut self, version: &'a Version) {
        let lateness = self.version.case.lateness;
        self.gone = self.gone.max(self.watermark.saturating_sub(lateness).saturating_add(1));
        let is_other = self.version.native != version.native;
        self.version = version;
        for name in self.open.keys().copied().collect::<Vec<_>>() {
            let early = self.early(name, self.watermark);
            self.open.get_mut(&name).unwrap().early = if is_other { early } else { self.open[&name].early };
        }
        self.clear();
    }

    fn give(&mut self, name: (i64, i64, i64)) {
        let open = self.open.get_mut(&name).unwrap();
        (open.is_changed, open.since) = (false, 0);
        put(&mut self.out, format!("{},{},{}", name.0, open.count, open.sum));
    }

    fn row(&mut self, row: &Row) {
        let case = &self.version.case;
        let mut windows = case.windows_of(row.at);
        windows.retain(|(_, end)| *end > self.gone && case.cleared_at(*end) > self.watermark);
        if windows.is_empty() {
            put(&mut self.out, late(row));
        }
        for (start, end) in windows {
            let name = (row.key, start, end);
            let early = self.early(name, self.watermark);
            let open = self.open.entry(name).or_insert_with(|| Open { early, ..Open::default() });
            (open.count, open.sum, open.since) = (open.count + 1, open.sum + row.value, open.since + 1);
            open.is_changed = true;
            match self.version.native {
                Some(Emitted::Count(each)) if open.since >= each => self.give(name),
                Some(Emitted::Count(_)) => {}
                _ if end - 1 <= self.watermark => self.give(name),
                _ => {}
            }
        }
    }

    fn clear(&mut self) {
        let (case, watermark) = (&self.version.case, self.watermark);
        self.open.retain(|(_, _, end), _| case.cleared_at(*end) > watermark);
    }

    fn fire(&mut self, watermark: i64) {
        self.watermark = self.watermark.max(watermark);
        for name in self.open.keys().copied().collect::<Vec<_>>() {
            if self.open[&name].early.is_some_and(|due| due <= self.watermark) {
                let next = self.early(name, self.watermark);
                self.open.get_mut(&name).unwrap().early = next;
                if self.open[&name].is_changed {
                    self.give(name);
                }
            }
            let counts = matches!(self.version.native, Some(Emitted::Count(_)));
            if name.2 - 1 <= self.watermark && self.open[&name].is_changed && !counts {
                self.give(name);
            }
        }
        self.clear();
    }
}

/// A late row.
fn late(row: &Row) -> String {
    format!("late {},{},{}", row.key, row.deed, row.value)
}

/// What comes out of rows, each followed by its watermark, where the version `versions[n + 1]` follows after so many of
/// them as `changes[n]` says.
fn expected(versions: &[Version], rows: &[Row], changes: &[usize]) -> Out {
    enum Any<'a> {
        Native(Native<'a>),
        Each(Account<'a>),
        Sessions(Sessions<'a>),
    }
    let first = &versions[0];
    let mut account = match (first.case.windows, first.native) {
        ("session", _) => Any::Sessions(Sessions::new(&first.case)),
        (_, Some(_)) => Any::Native(Native::new(first)),
        _ => Any::Each(Account::new(&first.case)),
    };
    let (mut now, mut watermark) = (first, i64::MIN);
    let mut late_rows = Out::new();
    for at in 0..=rows.len() {
        for (_, version) in changes.iter().zip(&versions[1..]).filter(|(after, _)| **after == at) {
            now = version;
            match &mut account {
                Any::Native(native) => native.change(version),
                Any::Each(each) => each.change(&version.case),
                Any::Sessions(sessions) => sessions.change(&version.case),
            }
        }
        let row = rows.get(at);
        watermark = row.map_or(i64::MAX, |row| watermark.max(row.at - now.case.bound - 1));
        match &mut account {
            Any::Native(native) => {
                row.into_iter().for_each(|row| native.row(row));
                native.fire(watermark);
            }
            Any::Each(each) => {
                let before = each.late.len();
                row.into_iter().for_each(|row| each.row(row));
                row.filter(|_| each.late.len() > before)
                    .into_iter()
                    .for_each(|row| put(&mut late_rows, late(row)));
                each.fire();
                each.watermark = watermark;
                each.fire();
            }
            Any::Sessions(sessions) => {
                let before = sessions.late.len();
                row.into_iter().for_each(|row| sessions.row(row));
                let is_late = sessions.late.len() > before;
                row.filter(|_| is_late).into_iter().for_each(|row| put(&mut late_rows, late(row)));
                sessions.fire();
                sessions.watermark = watermark;
                sessions.fire();
            }
        }
    }
    let given = match account {
        Any::Native(native) => return native.out,
        Any::Each(each) => each.given,
        Any::Sessions(sessions) => sessions.given,
    };
    for ((key, ..), of) in given {
        for (kind, time, count, sum) in of {
            match first.native {
                Some(_) => put(&mut late_rows, format!("{key},{count},{sum}")),
                None => put(&mut late_rows, format!("{kind},{key},{time},{count},{sum}")),
            }
        }
    }
    late_rows
}

/// The job with files in the place of its sinks, of each in a folder of its own.
fn with_folders(graph: &mut JobGraph, folder: &Path) {
    with_files(graph, folder, false);
    for (at, node) in graph.nodes.iter_mut().enumerate() {
        if let NodeKind::Sink(connection) = &mut node.kind {
            let path = folder.join(at.to_string()).display().to_string();
            connection.options.insert("path".to_owned(), path);
        }
    }
}

/// What has come out.
fn seen(folder: &Path) -> Out {
    let mut out = Out::new();
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for entry in folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap()) {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        for line in std::fs::read_to_string(entry.path()).unwrap().lines() {
            let field = |name: &str| {
                let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
                rest.split([',', '}']).next()
            };
            let fields = |names: &[&str]| -> Option<String> {
                Some(names.iter().map(|name| field(name)).collect::<Option<Vec<_>>>()?.join(","))
            };
            let late = fields(&["key", "deed", "value"]).map(|late| format!("late {late}"));
            let given = || fields(&["kind", "key", "time", "count", "sum"]);
            put(&mut out, late.or_else(given).or_else(|| fields(&["key", "count", "sum"])).unwrap());
        }
    }
    out
}

/// How many versions have run, and how often the job went on from a checkpoint.
struct Ran {
    versions: usize,
    gone_on: usize,
}

/// Runs a job to its end, that changes at most twice, through crashes or with faults of its store.
fn run(
    simulated: &Simulated,
    seed: u64,
    native: bool,
    (crashes, faults): (u64, &str),
    fault: Option<Fault>,
) -> Result<Ran, String> {
    let mut random = Random::of_seed(seed ^ 0x71E5);
    let first = Version::draw(&mut random, native);
    let deeds: &[i64] = match (native, first.case.timers) {
        (true, _) => &[0],
        (false, true) => &[0, 0, SET, SET, DELETE, SAY],
        (false, false) => &[0, 0, SAY],
    };
    let deeds = if first.case.kept == "collects" { &[0][..] } else { deeds };
    let rows = rows(&mut random, deeds, 30);
    let (disk, folder, input) =
        (ModelDisk::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let input = args_of(&first.case, input.path(), [&rows, &[]], &[]);
    let of_case = first.case.args().len();
    let input = input[of_case..].to_vec();
    // Each version by its arguments.
    let mut known = vec![first.clone()];
    let named = |known: &[Version], args: &[String]| {
        known.iter().find(|version| version.args(&input) == args).cloned().ok_or("an unknown version")
    };
    let mut history = vec![first.clone()];
    let mut gone_on = 0;
    // What lies in a store takes another lateness of native windows alone.
    let on_disk = native && seed.is_multiple_of(3);
    for attempt in 0..=crashes {
        let store =
            FileStore::new(Arc::new(disk.clone()), Faults::parse(faults, &Clock::simulated()).unwrap());
        let storage = Storage::new(Arc::new(store), JOB_ID);
        let latest =
            storage.latest(|manifest| Restored::read(manifest, &storage)).map_err(|e| e.to_string())?;
        storage.sweep(&[]).map_err(|error| error.to_string())?;
        let retained = storage.traces().map_err(|error| error.to_string())?;
        let restored = latest.found.map(Arc::new);
        if let Some(restored) = &restored {
            gone_on += 1;
            let versions = restored.manifest().versions.iter().map(|version| named(&known, &version.args));
            history = versions.collect::<Result<_, _>>()?;
        } else {
            history.truncate(1);
        }
        let mut options = options(random.bits(), 1);
        (options.sizes.batch_rows, options.sizes.queue_rows) = (1, Some(1));
        options.sizes.call_rows = 1;
        if !on_disk {
            options.state_backend = task::StateBackend::HashMap;
        }
        options.agg_phase = task::AggPhase::OnePhase;
        options.max_parallelism = Some(128);
        options.allow = vec![folder.path().display().to_string()];
        options.chaos_instances = seed.is_multiple_of(5);
        let interval = (random.below(3) > 0).then(|| Duration::from_millis(1 + random.below(40)));
        options.checkpoints = Some(Checkpoints {
            settings: settings(interval, 1),
            storage: storage.clone(),
            job_id: JOB_ID.to_owned(),
            takes_over: attempt > 0,
            restored,
            next: latest.next,
            retained: retained.into_iter().map(|(id, _)| id).collect(),
        });
        let fault = fault.or_else(|| (attempt < crashes).then(|| Fault::Crash(random.below(1_500))));
        let (mut swaps, mut at) = (Vec::new(), 0);
        for _ in history.len()..3 {
            at += random.below(500);
            let last = known.last().unwrap_or(&first).clone();
            let mut next = last.draw_other(&mut random);
            if on_disk {
                next.native = last.native;
            }
            swaps.push((at, next.args(&input), SwapOptions::default()));
            known.push(next);
        }
        let change = |graph: &mut JobGraph| with_folders(graph, folder.path());
        let own = history.last().unwrap_or(&first).args(&input);
        let report =
            simulated.run_swapping(("windows", &own), &options, random.bits(), fault, &swaps, change);
        let report = report.map_err(|error| format!("{error:?}"))?;
        for (result, (_, args, _)) in report.swaps.iter().zip(&swaps) {
            match result {
                Some(Ok(_)) => history.push(named(&known, args)?),
                Some(Err(why)) if why.contains("cannot change") => return Err(why.clone()),
                Some(Err(_)) | None => {}
            }
        }
        match report.outcome {
            Some(JobOutcome::Finished) => break,
            None if matches!(fault, Some(Fault::Crash(_))) => {}
            outcome => return Err(format!("attempt {attempt} ended with {outcome:?}")),
        }
        disk.crash(&mut random);
    }
    let seen = seen(folder.path());
    let is_of = |changes: &[usize]| expected(&history, &rows, changes) == seen;
    // At the last of these places all has ended before the barrier.
    let places = || 0..=rows.len() + 1;
    let is_there = match history.len() {
        1 => is_of(&[]),
        2 => places().any(|first| is_of(&[first])),
        _ => places().any(|first| places().skip(first).any(|second| is_of(&[first, second]))),
    };
    if !is_there {
        let straight = expected(&history[..1], &rows, &[]);
        return Err(format!(
            "{history:#?}\n{rows:?}\nno account gives {seen:?}\nwithout changes {straight:?}"
        ));
    }
    Ok(Ran { versions: history.len(), gone_on })
}

/// Over these seeds: how many versions ran beside the first, and how often a job went on from a checkpoint.
fn check(native: bool, count: usize, crashes: u64) -> (usize, usize) {
    let simulated = load("windows");
    let (mut changed, mut gone_on) = (0, 0);
    for seed in seeds().into_iter().take(count) {
        match run(&simulated, seed, native, (crashes, ""), None) {
            Ok(ran) => (changed, gone_on) = (changed + ran.versions - 1, gone_on + ran.gone_on),
            Err(error) => panic!("SEED={seed}: {error}"),
        }
    }
    (changed, gone_on)
}

#[test]
fn native_windows_take_other_times_over_between_two_rows() {
    let (changed, _) = check(true, 400, 0);
    assert!(changed > 300 || seeds().len() < 400, "{changed}");
}

#[test]
fn windows_of_functions_take_another_lateness_over_between_two_rows() {
    let (changed, _) = check(false, 400, 0);
    assert!(changed > 300 || seeds().len() < 400, "{changed}");
}

#[test]
fn other_times_go_through_crashes() {
    for native in [true, false] {
        let (changed, gone_on) = check(native, 300, 3);
        assert!(changed > 100 && gone_on > 20 || seeds().len() < 300, "{changed} {gone_on}");
    }
}

/// The deliberate fault: stages that change when they hear of it, each between other rows.
#[test]
fn windows_that_change_early_are_reported() {
    let simulated = load("windows");
    let is_wrong = |seed: &u64| run(&simulated, *seed, true, (0, ""), Some(Fault::SwapsEarly)).is_err();
    let reported = (0..150).filter(is_wrong).count();
    assert!(reported > 1, "only {reported} of 150 were found");
}
