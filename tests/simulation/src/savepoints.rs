//! Jobs that are asked for a savepoint at a random step, go on from it at another parallelism, and give what a run
//! without it gives; jobs that are drained give what their windows have at that point.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoint::coordinator::Stop;
use checkpoint::{Savepoint, Storage};
use model::job_graph::JobGraph;
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Faults, Random, Store};
use task::simulation::{Fault, Report, options};
use task::{Checkpoints, Form, JobOutcome, Restored, SavepointRequest};

use crate::checkpoints::{Case, JOB_ID, seen, settings, with_files, words};
use crate::simulated::{Simulated, load, seeds};

/// A world with a job's folders.
struct World<'a> {
    simulated: &'a Simulated,
    case: &'a Case<'a>,
    store: Arc<dyn Store>,
    folder: tempfile::TempDir,
    random: Random,
}

impl<'a> World<'a> {
    fn new(simulated: &'a Simulated, case: &'a Case<'a>, seed: u64) -> Self {
        let store = Arc::new(FileStore::new(Arc::new(ModelDisk::new()), Faults::none()));
        let (folder, random) = (tempfile::tempdir().unwrap(), Random::of_seed(seed));
        Self { simulated, case, store, folder, random }
    }

    /// Runs the job, from a savepoint on or from the beginning.
    fn run(
        &mut self,
        parallelism: u32,
        from: Option<&Savepoint>,
        fault: Option<Fault>,
        ask: Option<(u64, SavepointRequest)>,
    ) -> Result<Report, String> {
        let storage = Storage::new(Arc::clone(&self.store), JOB_ID);
        let traces = storage.traces().map_err(|error| error.to_string())?;
        let restored = from.map(Restored::of_savepoint).transpose().map_err(|error| error.to_string())?;
        let mut options = options(self.random.bits(), parallelism);
        options.max_parallelism = Some(128);
        options.allow = vec![self.folder.path().display().to_string()];
        let interval = self.random.one_in(2).then(|| Duration::from_millis(1 + self.random.below(40)));
        options.checkpoints = Some(Checkpoints {
            settings: settings(interval, 1),
            storage,
            job_id: JOB_ID.to_owned(),
            takes_over: from.is_some(),
            restored: restored.map(Arc::new),
            next: traces.last().map_or(1, |(id, _)| id + 1),
            retained: traces.into_iter().map(|(id, _)| id).collect(),
        });
        let Case { job, args, changes } = self.case;
        let folder = self.folder.path();
        let change = |graph: &mut JobGraph| with_files(graph, folder, *changes);
        let report = self.simulated.run_asked((job, args), options, self.random.bits(), fault, ask, change);
        report.map_err(|error| format!("{error:?}"))
    }

    fn parallelism(&mut self) -> u32 {
        [1, 2, 3, 7][self.random.below(4) as usize]
    }

    fn request(&mut self, stop: Option<Stop>) -> SavepointRequest {
        let savepoint = Savepoint::new(Arc::clone(&self.store), Savepoint::name(JOB_ID, self.random.bits()));
        let form = if self.random.one_in(2) { Form::Canonical } else { Form::Native };
        SavepointRequest { savepoint, form, stop }
    }

    /// Runs the job with a savepoint on the way, then from that. How far it was (none = there was no savepoint: it
    /// came too late), and what can be seen at the end.
    fn interrupted(
        &mut self,
        stop: Option<Stop>,
        bound: u64,
    ) -> Result<(bool, BTreeMap<String, i64>), String> {
        let request = self.request(stop);
        let (at, parallelism) = (self.random.below(bound), self.parallelism());
        // One that goes on may crash later.
        let crash = at + self.random.below(2 * bound);
        let fault = (stop.is_none() && self.random.one_in(2)).then_some(Fault::Crash(crash));
        let report = self.run(parallelism, None, fault, Some((at, request.clone())))?;
        match (&report.outcome, &report.savepoint) {
            (Some(JobOutcome::Finished), _) | (None, Some(Ok(_))) => {}
            // It crashed before the savepoint was there: from the beginning, into an empty folder.
            (None, _) if fault.is_some() => return Ok((false, BTreeMap::new())),
            ended => return Err(format!("at {parallelism}, asked at {at}: {ended:?}")),
        }
        let savepoint = match report.savepoint {
            Some(Ok(_)) => request.savepoint,
            Some(Err(why)) if why != "the job has stopped" => return Err(why),
            // The job had finished before.
            Some(Err(_)) | None => return Ok((false, seen(self.folder.path(), self.case.changes))),
        };
        let manifest = savepoint.manifest().map_err(|error| error.to_string())?;
        if !manifest.is_savepoint || manifest.is_drained() != (stop == Some(Stop::Drain)) {
            return Err(format!("the manifest does not say what it is: {stop:?}"));
        }
        let parallelism = self.parallelism();
        let report = self.run(parallelism, Some(&savepoint), None, None)?;
        match report.outcome {
            Some(JobOutcome::Finished) => Ok((true, seen(self.folder.path(), self.case.changes))),
            outcome => Err(format!("gone on at {parallelism}: {outcome:?}")),
        }
    }
}

fn hold(
    simulated: &Simulated,
    case: &Case<'_>,
    expected: &BTreeMap<String, i64>,
    seeds: &[u64],
    stops: &[Option<Stop>],
) -> u64 {
    let mut gone_on = 0;
    for seed in seeds {
        let mut world = World::new(simulated, case, *seed);
        let stop = stops[usize::try_from(*seed).unwrap() % stops.len()];
        let bound = [50, 200, 800, 2_000][world.random.below(4) as usize];
        let (is_gone_on, rows) = world
            .interrupted(stop, bound)
            .unwrap_or_else(|error| panic!("SEED={seed}: {}, {stop:?}: {error}", case.job));
        if !is_gone_on && rows.is_empty() {
            continue;
        }
        gone_on += u64::from(is_gone_on);
        let lost: Vec<_> = expected.iter().filter(|(row, n)| rows.get(*row) != Some(n)).take(3).collect();
        let more: Vec<_> = rows.iter().filter(|(row, n)| expected.get(*row) != Some(n)).take(3).collect();
        assert!(
            lost.is_empty() && more.is_empty(),
            "SEED={seed}: {}, {stop:?}: expected {lost:?}, got {more:?}",
            case.job
        );
    }
    gone_on
}

const SUSPEND: Option<Stop> = Some(Stop::Suspend);
const DRAIN: Option<Stop> = Some(Stop::Drain);

#[test]
fn each_word_is_counted_once_over_savepoints_stops_and_drains() {
    let (_folder, case, expected) = words();
    let seeds: Vec<u64> = seeds().into_iter().take(300).collect();
    // Where nothing fires at the end, a job that was drained can go on as any other.
    let gone_on = hold(&load("word_count"), &case, &expected, &seeds, &[None, SUSPEND, DRAIN]);
    assert!(gone_on > 100 || seeds.len() == 1, "only {gone_on} went on from a savepoint");
}

/// What a query gives without a stop.
fn straight(simulated: &Simulated, job: &str, events: u64, changes: bool) -> BTreeMap<String, i64> {
    let case = Case { job, args: vec!["--events".into(), events.to_string()], changes };
    let mut world = World::new(simulated, &case, 1);
    let report = world.run(1, None, None, None).unwrap();
    assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "{job}");
    seen(world.folder.path(), changes)
}

const EVENTS: u64 = 1_500;

#[test]
fn queries_give_the_same_rows_over_savepoints_and_stops() {
    let simulated = load("nexmark");
    let mut gone_on = 0;
    let jobs = [
        ("q3", false),
        ("q4", true),
        ("q5", true),
        ("q7", false),
        ("q8", false),
        ("q9", true),
        ("q11", false),
        ("q17", true),
        ("q18", true),
    ];
    for (job, changes) in jobs {
        let case = Case { job, args: vec!["--events".into(), EVENTS.to_string()], changes };
        let expected = straight(&simulated, job, EVENTS, changes);
        assert!(!expected.is_empty(), "{job}");
        let seeds: Vec<u64> = seeds().into_iter().take(10).collect();
        gone_on += hold(&simulated, &case, &expected, &seeds, &[None, SUSPEND]);
    }
    assert!(gone_on > 30 || seeds().len() == 1, "only {gone_on} went on from a savepoint");
}

/// Rows of a job that was drained at a random step, and those of a straight run over the events that it had read.
fn drained(
    simulated: &Simulated,
    job: &str,
    seed: u64,
    stop: Stop,
) -> Option<(BTreeMap<String, i64>, BTreeMap<String, i64>)> {
    let case = Case { job, args: vec!["--events".into(), EVENTS.to_string()], changes: false };
    let mut world = World::new(simulated, &case, seed);
    let request = world.request(Some(stop));
    let at = world.random.below(400);
    // One source: what it has read is a prefix.
    let report = world.run(1, None, None, Some((at, request))).unwrap();
    assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "SEED={seed}: {job}: {report:?}");
    matches!(report.savepoint, Some(Ok(_))).then_some(())?;
    let read = events_of(job, report.progress.rows_in);
    (0 < read && read < EVENTS)
        .then(|| (seen(world.folder.path(), false), straight(simulated, job, read, false)))
}

/// How many events there are, up to that after which so many of a query's have come: of 50 the first is of a person,
/// the next three of auctions; persons and auctions are what q8 reads, bids the others.
fn events_of(job: &str, rows: u64) -> u64 {
    let (before, of_each) = if job == "q8" { (0, 4) } else { (4, 46) };
    let rest = rows % of_each;
    rows / of_each * 50 + if rest > 0 { before + rest } else { 0 }
}

#[test]
fn a_job_that_is_drained_gives_what_its_windows_have() {
    let simulated = load("nexmark");
    let mut held = 0;
    for job in ["q7", "q8", "q11"] {
        for seed in seeds().into_iter().take(12) {
            if let Some((rows, expected)) = drained(&simulated, job, seed, Stop::Drain) {
                assert!(rows == expected, "SEED={seed}: {job}: expected {expected:?}, got {rows:?}");
                held += 1;
            }
        }
    }
    assert!(held > 15 || seeds().len() == 1, "only {held} were drained on the way");
}

/// The deliberate fault: a job that only stops, where it should be drained.
#[test]
fn windows_that_do_not_fire_are_reported() {
    let simulated = load("nexmark");
    let reported = (0..12).filter_map(|seed| drained(&simulated, "q11", seed, Stop::Suspend));
    let reported = reported.filter(|(rows, expected)| rows != expected).count();
    assert!(reported > 4, "only {reported} of 12 were found");
}
