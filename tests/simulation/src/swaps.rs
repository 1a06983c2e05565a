//! Jobs that change to other versions while they run: each row is handled by the version of its side of the barrier,
//! counts go on, whatever crashes or is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use checkpoint::Storage;
use guest::{Runtime, RuntimeConfig};
use model::job_graph::{JobGraph, NodeKind, Partition};
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Clock, Faults, Platform, Random};
use task::simulation::{Fault, options};
use task::swap::{Change, Probation, Rollback, Standing, SwapOptions};
use task::{Checkpoints, JobOutcome, Restored};

use crate::checkpoints::{JOB_ID, anew, settings, with_files};
use crate::simulated::{Simulated, load, seeds};

const ROWS: i64 = 600;
const NAMES: i64 = 13;

/// Rows of a name and a number, each number once.
pub(crate) fn input(rows: i64) -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let text: String = (0..rows).map(|number| format!("n{},{number}\n", number * number % NAMES)).collect();
    std::fs::write(&path, text).unwrap();
    (folder, vec!["--input".to_owned(), path.display().to_string()])
}

pub(crate) fn release(args: &[String], release: i64) -> Vec<String> {
    args.iter().cloned().chain(["--release".to_owned(), release.to_string()]).collect()
}

fn release_of(args: &[String]) -> i64 {
    args.last().unwrap().parse().unwrap()
}

/// A counted row.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) number: i64,
    pub(crate) count: i64,
    pub(crate) release: i64,
}

/// The rows of each file in a folder.
pub(crate) fn files(folder: &Path) -> Vec<Vec<Row>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let rows = text.lines().map(|line| {
            let field = |name: &str| {
                let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap();
                rest.split([',', '}']).next().unwrap().trim_matches('"').to_owned()
            };
            let number = |name: &str| field(name).parse().unwrap();
            Row {
                name: field("name"),
                number: number("number"),
                count: number("count"),
                release: number("release"),
            }
        });
        files.push(rows.collect());
    }
    files
}

/// Holds rows against what they must be: every number once, of each name all counts, and of each name the releases
/// one after the other as they have run. Rows of one file lie between two barriers: they are of one release.
pub(crate) fn hold(files: &[Vec<Row>], of: i64, ran: &[i64], is_of_one_side: bool) -> Result<(), String> {
    let numbers: BTreeSet<i64> = files.iter().flatten().map(|row| row.number).collect();
    let rows = files.iter().map(Vec::len).sum::<usize>();
    if numbers != (0..of).collect() || rows != numbers.len() {
        return Err(format!("{rows} rows of {} numbers", numbers.len()));
    }
    let mut by_name: BTreeMap<&str, BTreeMap<i64, i64>> = BTreeMap::new();
    for row in files.iter().flatten() {
        by_name.entry(&row.name).or_default().insert(row.count, row.release);
    }
    for (name, counts) in &by_name {
        let of_name = (0..of).filter(|number| *name == format!("n{}", number * number % NAMES)).count();
        if !counts.keys().copied().eq(1..=of_name as i64) {
            return Err(format!("{name} of {of_name} rows has the counts {:?}", counts.keys()));
        }
        let mut later = ran.iter();
        let mut now = None;
        for release in counts.values() {
            if now != Some(*release) && !later.any(|ran| ran == release) {
                return Err(format!("{name} was counted by {:?}, and there ran {ran:?}", counts.values()));
            }
            now = Some(*release);
        }
    }
    let mixed = files.iter().find(|rows| rows.iter().any(|row| row.release != rows[0].release));
    match mixed.filter(|_| is_of_one_side) {
        Some(rows) => Err(format!("one file has rows of several releases: {}", rows.len())),
        None => Ok(()),
    }
}

struct Ran {
    /// Changes that have happened, and those that have been given up.
    changed: usize,
    given_up: Vec<String>,
    gone_on: usize,
}

/// Runs a job to its end, changing to and fro between releases, through crashes or with faults of its store.
fn run(
    simulated: &Simulated,
    args: &[String],
    seed: u64,
    (releases, crashes, faults): (&[i64], u64, &str),
    fault: Option<Fault>,
) -> Result<Ran, String> {
    let mut random = Random::of_seed(seed);
    let (disk, folder) = (ModelDisk::new(), tempfile::tempdir().unwrap());
    let storage = |faults| Storage::new(Arc::new(FileStore::new(Arc::new(disk.clone()), faults)), JOB_ID);
    let mut ran = Ran { changed: 0, given_up: Vec::new(), gone_on: 0 };
    let mut history = Vec::new();
    let interval = (random.below(3) > 0).then(|| Duration::from_millis(1 + random.below(40)));
    for attempt in 0..=crashes {
        let storage = storage(Faults::parse(faults, &Clock::simulated()).unwrap());
        let latest =
            storage.latest(|manifest| Restored::read(manifest, &storage)).map_err(|e| e.to_string())?;
        if !latest.damaged.is_empty() {
            return Err(format!("{:?}", latest.damaged));
        }
        storage.sweep(&[]).map_err(|error| error.to_string())?;
        let retained = storage.traces().map_err(|error| error.to_string())?;
        let restored = latest.found.map(Arc::new);
        // The version of the checkpoint goes on, and its component lies there.
        let mut own = release(args, releases[0]);
        if let Some(restored) = &restored {
            ran.gone_on += 1;
            let version = restored.version().ok_or("no version")?;
            if restored.component(&version.component).is_none_or(|bytes| bytes.is_empty()) {
                return Err("the component is not there".to_owned());
            }
            own.clone_from(&version.args);
            history = restored.manifest().versions.iter().map(|version| release_of(&version.args)).collect();
        } else {
            history = vec![releases[0]];
        }
        let parallelism = [1, 2, 3, 7][random.below(4) as usize];
        let mut options = options(random.bits(), parallelism);
        // What lies in a store does not change its states.
        options.state_backend = task::StateBackend::HashMap;
        options.max_parallelism = Some(128);
        options.allow = vec![folder.path().display().to_string()];
        options.chaos_instances = seed.is_multiple_of(5);
        options.checkpoints = Some(Checkpoints {
            settings: settings(interval, 1 + random.below(2) as usize),
            storage: storage.clone(),
            job_id: JOB_ID.to_owned(),
            takes_over: attempt > 0,
            restored,
            next: latest.next,
            retained: retained.into_iter().map(|(id, _)| id).collect(),
        });
        let bound = [100, 300, 1_000, 3_000][random.below(4) as usize];
        let fault = fault.or_else(|| (attempt < crashes).then(|| Fault::Crash(random.below(bound))));
        let mut at = 0;
        let mut swaps = Vec::new();
        for _ in 0..random.below(6) {
            at += random.below(200);
            let next = release(args, releases[random.below(releases.len() as u64) as usize]);
            let probation = (random.below(3) == 0).then(|| {
                let time = Duration::from_millis(random.below(20));
                Probation { time, max_traps: 0, rollback: Rollback::Forward }
            });
            swaps.push((at, next, SwapOptions { probation, observer: None }));
        }
        let change = |graph: &mut JobGraph| with_files(graph, folder.path(), false);
        let report = simulated.run_swapping(("tally", &own), &options, random.bits(), fault, &swaps, change);
        let report = report.map_err(|error| format!("{error:?}"))?;
        for (result, (_, args, _)) in report.swaps.iter().zip(&swaps) {
            match result {
                None => {}
                Some(Ok(_)) => {
                    ran.changed += 1;
                    history.push(release_of(args));
                }
                Some(Err(why)) => {
                    // What was given up may have handled rows before it went back.
                    let refused = ["already", "stopped", "on probation", "could not take over again"];
                    if !refused.iter().any(|refused| why.contains(refused)) {
                        let before = *history.last().unwrap();
                        history.extend([release_of(args), before]);
                    }
                    ran.given_up.push(why.clone());
                }
            }
        }
        match report.outcome {
            Some(JobOutcome::Finished) => break,
            None if matches!(fault, Some(Fault::Crash(_))) => {}
            outcome => return Err(format!("attempt {attempt} ended with {outcome:?}")),
        }
        disk.crash(&mut random);
    }
    hold(&files(folder.path()), ROWS, &history, faults.is_empty())?;
    Ok(ran)
}

#[test]
fn each_row_is_counted_by_the_version_of_its_side() {
    let (_folder, args) = input(ROWS);
    let simulated = load("operators");
    let (mut changed, mut gone_on) = (0, 0);
    let seeds = seeds();
    for seed in &seeds {
        // Without crashes, and with them.
        for (releases, crashes) in [(&[1, 2, 3][..], 0), (&[1, 2][..], 4)] {
            match run(&simulated, &args, *seed, (releases, crashes, ""), None) {
                Ok(ran) => (changed, gone_on) = (changed + ran.changed, gone_on + ran.gone_on),
                Err(error) => panic!("SEED={seed}: {releases:?}, {crashes} crashes: {error}"),
            }
        }
    }
    assert!(changed > seeds.len() && gone_on > seeds.len() / 4 || seeds.len() < 100, "{changed}, {gone_on}");
}

#[test]
fn what_is_given_up_goes_back() {
    let (_folder, args) = input(ROWS);
    let simulated = load("operators");
    let points = ["store.write", "store.sync", "store.rename"];
    let faults = points.iter().flat_map(|point| (1..=12).map(move |nth| format!("{point}@{nth}=eio")));
    let faults = faults.collect::<Vec<_>>().join(",");
    let seeds: Vec<u64> = seeds().into_iter().take(300).collect();
    let (mut changed, mut given_up) = (0, 0);
    for seed in &seeds {
        match run(&simulated, &args, *seed, (&[1, 2], 0, &faults), None) {
            Ok(ran) => {
                changed += ran.changed;
                given_up += ran.given_up.iter().filter(|why| why.contains("os error")).count();
            }
            Err(error) => panic!("SEED={seed}: {error}"),
        }
    }
    assert!(given_up > 50 || seeds.len() < 100, "only {given_up} were given up, {changed} were not");
}

/// How versions stood that were on probation, in the order in which it was told.
pub(crate) type Told = Arc<Mutex<Vec<Standing>>>;

pub(crate) fn on_probation(time: Duration, max_traps: u32, rollback: Rollback) -> (SwapOptions, Told) {
    let told = Told::default();
    let tells = Arc::clone(&told);
    let observer: task::swap::Observer = Arc::new(move |standing: &Standing| {
        tells.lock().unwrap().push(standing.clone());
    });
    (SwapOptions { probation: Some(Probation { time, max_traps, rollback }), observer: Some(observer) }, told)
}

/// What became of a version on probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Became {
    Untold,
    NotChanged,
    Kept,
    /// Its checkpoint was not complete.
    BackBefore,
    BackAtBarrier,
    /// The checkpoint that was to lead back was given up.
    BackAtOnce,
}

fn became(told: &[Standing]) -> Became {
    let had_changed = told.iter().any(|standing| matches!(standing, Standing::OnProbation { .. }));
    match told.last() {
        Some(Standing::NotChanged { .. }) => Became::NotChanged,
        Some(Standing::Kept { .. }) => Became::Kept,
        Some(Standing::WentBack { at: Some(_), .. }) => Became::BackAtBarrier,
        Some(Standing::WentBack { at: None, .. }) if had_changed => Became::BackAtOnce,
        Some(Standing::WentBack { at: None, .. }) => Became::BackBefore,
        _ => Became::Untold,
    }
}

/// Runs a job that changes once, to a version on probation that fails at a row.
fn run_on_probation(
    simulated: &Simulated,
    args: &[String],
    seed: u64,
    (how, faults): (&str, &str),
) -> Result<Became, String> {
    let mut random = Random::of_seed(seed);
    let (disk, folder) = (ModelDisk::new(), tempfile::tempdir().unwrap());
    let faults = Faults::parse(faults, &Clock::simulated()).unwrap();
    let storage = Storage::new(Arc::new(FileStore::new(Arc::new(disk.clone()), faults)), JOB_ID);
    let interval = (random.below(3) > 0).then(|| Duration::from_millis(1 + random.below(40)));
    let mut options = options(random.bits(), [1, 2, 3, 7][random.below(4) as usize]);
    options.state_backend = task::StateBackend::HashMap;
    options.max_parallelism = Some(128);
    options.allow = vec![folder.path().display().to_string()];
    options.chaos_instances = seed.is_multiple_of(5);
    options.checkpoints = Some(anew(settings(interval, 1), storage.clone()));
    let (old, new) = [(1, 2), (2, 1), (1, 3), (2, 3)][random.below(4) as usize];
    let failing = random.below(ROWS as u64) as i64;
    let new_args: Vec<String> = [format!("--{how}"), failing.to_string()].to_vec();
    let new_args = release(&args.iter().cloned().chain(new_args).collect::<Vec<_>>(), new);
    let time = Duration::from_millis([1, 5, 50, 10_000][random.below(4) as usize]);
    let (probation, told) = on_probation(time, 0, Rollback::Forward);
    let swaps = [(random.below(300), new_args, probation)];
    let change = |graph: &mut JobGraph| with_files(graph, folder.path(), false);
    let own = release(args, old);
    let report = simulated.run_swapping(("tally", &own), &options, random.bits(), None, &swaps, change);
    let report = report.map_err(|error| format!("{error:?}"))?;
    let told = told.lock().unwrap();
    let became = became(&told);
    match report.outcome {
        Some(JobOutcome::Finished) => {}
        // It was kept before it came to the row.
        Some(JobOutcome::Failed(error))
            if became == Became::Kept && error.to_string().contains("as told") =>
        {
            return Ok(became);
        }
        outcome => return Err(format!("it ended with {outcome:?}, {told:?}")),
    }
    let rows = files(folder.path());
    hold(&rows, ROWS, &[old, new, old], false)?;
    let by = rows.iter().flatten().find(|row| row.number == failing).unwrap().release;
    if by != old {
        return Err(format!("the row {failing} that fails was handled by {by}"));
    }
    let goes_back = became > Became::Kept;
    if goes_back && how == "trap" && report.progress.traps == 0 {
        return Err(format!("it went back without a trap: {told:?}"));
    }
    if goes_back && became != Became::BackBefore {
        let latest = storage.latest(|manifest| Restored::read(manifest, &storage)).unwrap().found.unwrap();
        let ran: Vec<i64> =
            latest.manifest().versions.iter().map(|version| release_of(&version.args)).collect();
        if ran != [old, new, old] {
            return Err(format!("the last checkpoint says that there ran {ran:?}"));
        }
    }
    Ok(became)
}

#[test]
fn a_trap_on_probation_leads_back_and_nothing_is_lost() {
    let (_folder, args) = input(ROWS);
    let simulated = load("operators");
    let seeds = seeds();
    let mut count: BTreeMap<Became, usize> = BTreeMap::new();
    for seed in &seeds {
        for how in ["trap", "fail"] {
            match run_on_probation(&simulated, &args, *seed, (how, "")) {
                Ok(became) => *count.entry(became).or_default() += 1,
                Err(error) => panic!("SEED={seed}: {how}: {error}"),
            }
        }
    }
    println!("{count:?}");
    let of = |became| count.get(&became).copied().unwrap_or(0);
    let enough = of(Became::BackAtBarrier) > 100 && of(Became::BackBefore) > 10 && of(Became::Kept) > 50;
    assert!(enough || seeds.len() < 1_000, "{count:?}");
}

#[test]
fn what_cannot_lead_back_at_a_barrier_does_at_once() {
    let (_folder, args) = input(ROWS);
    let simulated = load("operators");
    let points = ["store.write", "store.sync", "store.rename"];
    let faults = points.iter().flat_map(|point| (4..=14).map(move |nth| format!("{point}@{nth}=eio")));
    let faults = faults.collect::<Vec<_>>().join(",");
    let seeds: Vec<u64> = seeds().into_iter().take(400).collect();
    let mut count: BTreeMap<Became, usize> = BTreeMap::new();
    for seed in &seeds {
        match run_on_probation(&simulated, &args, *seed, ("trap", &faults)) {
            Ok(became) => *count.entry(became).or_default() += 1,
            Err(error) => panic!("SEED={seed}: {error}"),
        }
    }
    println!("{count:?}");
    assert!(count.get(&Became::BackAtOnce).is_some_and(|count| *count > 5) || seeds.len() < 400, "{count:?}");
}

/// Runs a job that changes once, to a version on probation from which the way back is exact; what it has failed with,
/// if it has, and to what it went back.
fn run_exactly(simulated: &Simulated, args: &[String], seed: u64) -> Result<Option<(i64, i64)>, String> {
    let mut random = Random::of_seed(seed);
    let (disk, folder) = (ModelDisk::new(), tempfile::tempdir().unwrap());
    let storage = Storage::new(Arc::new(FileStore::new(Arc::new(disk.clone()), Faults::none())), JOB_ID);
    let interval = Some(Duration::from_millis(1 + random.below(40)));
    // From 3 to 1 the state does not lead back: then it is the checkpoint before.
    let (old, new) = [(1, 2), (1, 3), (3, 1)][random.below(3) as usize];
    let failing = random.below(ROWS as u64) as i64;
    let time = Duration::from_millis([5, 10_000][random.below(2) as usize]);
    let mut went_back = None;
    let mut restored: Option<Restored> = None;
    let mut next = 1;
    for attempt in 0..2 {
        let mut options = options(random.bits(), [1, 2, 3, 7][random.below(4) as usize]);
        options.state_backend = task::StateBackend::HashMap;
        options.max_parallelism = Some(128);
        options.allow = vec![folder.path().display().to_string()];
        options.checkpoints = Some(Checkpoints {
            settings: settings(interval, 1),
            storage: storage.clone(),
            job_id: JOB_ID.to_owned(),
            takes_over: attempt > 0,
            restored: restored.take().map(Arc::new),
            next,
            retained: storage.traces().unwrap().into_iter().map(|(id, _)| id).collect(),
        });
        let traps = ["--trap".to_owned(), failing.to_string()];
        let new_args = release(&args.iter().cloned().chain(traps).collect::<Vec<_>>(), new);
        let (probation, told) = on_probation(time, 0, Rollback::Exact);
        let swaps = [(random.below(300), new_args, probation)];
        let swaps = if attempt == 0 { &swaps[..] } else { &[] };
        let change = |graph: &mut JobGraph| with_files(graph, folder.path(), false);
        let own = release(args, old);
        let report = simulated.run_swapping(("tally", &own), &options, random.bits(), None, swaps, change);
        let report = report.map_err(|error| format!("{error:?}"))?;
        match (report.outcome, report.roll_back) {
            (Some(JobOutcome::Finished), _) => break,
            (Some(JobOutcome::Failed(error)), Some(back)) if attempt == 0 => {
                if !error.to_string().contains("as told") || release_of(&back.version.args) != old {
                    return Err(format!("it failed with {error}, and goes back to {back:?}"));
                }
                let seen = files(folder.path());
                if seen.iter().flatten().any(|row| row.release == new) {
                    return Err("rows of the new version were to be seen before it stayed".to_owned());
                }
                let traces = storage.traces().map_err(|error| error.to_string())?;
                next = traces.iter().map(|(id, _)| id + 1).max().unwrap_or(1);
                for (id, _) in traces.into_iter().filter(|(id, _)| *id > back.newest) {
                    storage.remove(id).map_err(|error| error.to_string())?;
                }
                let latest = storage.latest(|manifest| Restored::read(manifest, &storage));
                restored = latest.map_err(|error| error.to_string())?.found;
                if let Some(restored) = &mut restored {
                    restored.take_back(&back);
                }
                let from = restored.as_ref().map_or(0, |restored| restored.manifest().checkpoint);
                went_back = Some((back.newest as i64, from as i64));
                disk.crash(&mut random);
            }
            (Some(JobOutcome::Failed(error)), None) if error.to_string().contains("as told") => {
                // It was kept before it came to the row.
                let told = told.lock().unwrap();
                return match told.last() {
                    Some(Standing::Kept { .. }) => Ok(None),
                    standing => Err(format!("{error}, and it stands {standing:?}")),
                };
            }
            outcome => return Err(format!("attempt {attempt} ended with {outcome:?}")),
        }
    }
    let ran = if went_back.is_some() { &[old][..] } else { &[old, new][..] };
    hold(&files(folder.path()), ROWS, ran, went_back.is_none())
        .map_err(|error| format!("from {old} to {new}, back to {went_back:?}: {error}"))?;
    Ok(went_back)
}

#[test]
fn an_exact_rollback_leaves_no_row_of_the_new_version() {
    let (_folder, args) = input(ROWS);
    let simulated = load("operators");
    let (mut from_swap, mut from_before) = (0, 0);
    let seeds = seeds();
    for seed in &seeds {
        match run_exactly(&simulated, &args, *seed) {
            Ok(Some((newest, from))) if newest == from => from_swap += 1,
            Ok(Some(_)) => from_before += 1,
            Ok(None) => {}
            Err(error) => panic!("SEED={seed}: {error}"),
        }
    }
    println!("{from_swap} from the checkpoint that was held, {from_before} from one before");
    assert!((from_swap > 40 && from_before > 5) || seeds.len() < 1_000, "{from_swap} {from_before}");
}

/// The deliberate fault: stages that change when they hear of it.
#[test]
fn stages_that_change_early_are_reported() {
    let (_folder, args) = input(ROWS);
    let simulated = load("operators");
    let is_wrong =
        |seed: &u64| run(&simulated, &args, *seed, (&[1, 2], 0, ""), Some(Fault::SwapsEarly)).is_err();
    let reported = (0..60).filter(is_wrong).count();
    assert!(reported > 10, "only {reported} of 60 were found");
}

#[test]
fn what_differs_is_said_by_operator_and_state() {
    let (_folder, args) = input(ROWS);
    let simulated = load("operators");
    let options = options(1, 2);
    let same = |_: &mut JobGraph| {};
    let between = |old: i64, new: i64| {
        simulated.difference(("tally", &release(&args, old)), &release(&args, new), &options, same)
    };
    let none = between(1, 1);
    assert!(none.is_none() && none.is_live(), "{none}");
    let more = between(1, 2);
    assert!(more.leads_back(), "{more}");
    let new: Vec<_> = more.operators.iter().filter(|operator| operator.change == Change::New).collect();
    assert!(new.len() == 1 && new[0].name.to_lowercase().contains("filter"), "{more}");
    let mut in_memory = options.clone();
    in_memory.state_backend = task::StateBackend::HashMap;
    let wider = simulated.difference(("tally", &release(&args, 1)), &release(&args, 3), &in_memory, same);
    assert!(wider.leads_back(), "{wider}");
    assert!(wider.to_string().contains("column `first` is new"), "{wider}");
    let narrower = simulated.difference(("tally", &release(&args, 3)), &release(&args, 1), &in_memory, same);
    assert!(narrower.is_live() && !narrower.leads_back(), "{narrower}");
    assert!(narrower.losses[0].contains("column `first` is dropped"), "{narrower}");
    // What is laid out when a job starts.
    let refused = |change: &dyn Fn(&mut JobGraph)| {
        let own = release(&args, 1);
        let difference = simulated.difference(("tally", &own), &own, &options, change);
        assert!(!difference.is_live() && difference.check_live().is_err(), "{difference}");
        difference.obstacles.join("\n")
    };
    let said = refused(&|graph| {
        for edge in &mut graph.edges {
            if let Partition::Hash(_) = edge.partition {
                edge.partition = Partition::Hash(vec![1]);
            }
        }
    });
    assert!(said.contains("by another key"), "{said}");
    let said = refused(&|graph| {
        for node in &mut graph.nodes {
            if let NodeKind::Source(connection) = &mut node.kind {
                connection.options.insert("path".to_owned(), "elsewhere".to_owned());
            }
        }
    });
    assert!(said.contains("the source `") && said.contains("has other settings"), "{said}");
    let said = refused(&|graph| {
        for node in &mut graph.nodes {
            if node.uid.as_deref() == Some("tally") {
                node.uid = Some("other".to_owned());
            }
        }
    });
    assert!(said.contains("had the uid `tally`, and has `other`"), "{said}");
    let said = refused(&|graph| graph.nodes.iter_mut().for_each(|node| node.parallelism = Some(1)));
    assert!(said.contains("had parallelism"), "{said}");
}

/// In threads: a job under load changes again and again, between releases of which one keeps other columns.
#[test]
fn a_job_in_threads_changes_to_and_fro() {
    const MANY: i64 = 3_000_000;
    const KEYS: i64 = 50_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let text: String = (0..MANY).map(|number| format!("n{},{number}\n", number * 7 % KEYS)).collect();
    std::fs::write(&path, text).unwrap();
    let args = vec!["--input".to_owned(), path.display().to_string()];
    let platform = Platform::system();
    let runtime = Runtime::new(platform.clone(), RuntimeConfig::default()).unwrap();
    let program = runtime.load(&std::fs::read(built::component("operators")).unwrap()).unwrap();
    let store = Arc::new(FileStore::new(Arc::new(ModelDisk::new()), Faults::none()));
    let output = folder.path().join("out");
    let mut options = task::RunOptions { parallelism: 2, ..task::RunOptions::default() };
    options.allow = vec![output.display().to_string()];
    options.checkpoints = Some(anew(settings(None, 1), Storage::new(store, JOB_ID)));
    let plan = |number: i64| {
        let own = release(&args, number);
        let mut graph = program.plan("tally", &own).unwrap().unwrap();
        with_files(&mut graph, &output, false);
        task::plan(&program, "tally", &own, graph, options.clone()).unwrap()
    };
    let first = plan(1);
    first.prepare().unwrap();
    let job = task::start(first, &platform, Arc::new(|_| {})).unwrap();
    let clock = platform.clock.clone();
    let (mut history, mut gaps) = (vec![1], Vec::new());
    for number in [2, 3, 1, 2, 1, 3].into_iter().cycle().take(60) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let plan = plan(number);
        job.swap(&plan, SwapOptions::default(), Box::new(move |result| drop(sender.send(result)))).unwrap();
        // How long the sinks get nothing, at most, until the change is complete.
        let (mut seen, mut since, mut gap) = (job.progress().rows_out, clock.now(), Duration::ZERO);
        let answer = loop {
            clock.sleep(Duration::from_micros(200));
            let (now, rows) = (clock.now(), job.progress().rows_out);
            if rows != seen {
                (seen, since) = (rows, now);
            }
            gap = gap.max(now - since);
            match receiver.try_recv() {
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                answer => break answer,
            }
        };
        // The input has ended.
        let Ok(answer) = answer else { break };
        if answer.is_err() {
            break;
        }
        history.push(number);
        gaps.push(gap);
    }
    assert!(matches!(job.wait(), JobOutcome::Finished), "{:?}", job.wait());
    gaps.sort();
    println!("{} changes; the longest gaps {:?}", gaps.len(), &gaps[gaps.len().saturating_sub(5)..]);
    assert!(gaps.len() > 5, "only {} changes", gaps.len());
    let files = files(&output);
    let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut releases = BTreeSet::new();
    for row in files.into_iter().flatten() {
        counts.entry(row.name).or_default().push(row.count);
        releases.insert(row.release);
    }
    assert_eq!((counts.len() as i64, releases.len()), (KEYS, 3));
    for (name, mut counts) in counts {
        counts.sort_unstable();
        assert!(counts.iter().copied().eq(1..=MANY / KEYS), "{name} has {counts:?}");
    }
}
