//! Jobs in threads that change to versions which fail: each is refused before anything stops, or leads back, and no row
//! is lost or comes twice.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use checkpoint::Storage;
use guest::{GuestError, Limits, Program, Runtime, RuntimeConfig};
use model::job_graph::JobGraph;
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Faults, Platform};
use task::swap::{Rollback, Standing, SwapOptions};
use task::{Job, JobOutcome, Plan, RunOptions};

use crate::checkpoints::{JOB_ID, anew, settings, with_files};
use crate::swaps::{Row, Told, files, hold, input, on_probation, release};

const ROWS: i64 = 1_200_000;
/// Rows that come after the change.
const LATE: i64 = 900_000;
const HOUR: Duration = Duration::from_secs(3_600);

struct Live {
    folder: tempfile::TempDir,
    runtime: Arc<Runtime>,
    program: Program,
    args: Vec<String>,
    options: RunOptions,
    job: Job,
}

fn planned(program: &Program, args: &[String], options: &RunOptions, output: Option<PathBuf>) -> Plan {
    let mut graph: JobGraph = program.plan("tally", args).unwrap().unwrap();
    output.iter().for_each(|output| with_files(&mut graph, output, false));
    task::plan(program, "tally", args, graph, options.clone()).unwrap()
}

impl Live {
    /// Starts a release of the job.
    fn start(first: i64, has_files: bool) -> Self {
        Self::start_so(first, &[], has_files)
    }

    fn start_so(first: i64, how: &[&str], has_files: bool) -> Self {
        let (folder, mut args) = input(ROWS);
        args.extend(how.iter().map(|how| (*how).to_owned()));
        let platform = Platform::system();
        let limits = Limits { call_time: Duration::from_millis(100), ..Limits::default() };
        let config = RuntimeConfig { limits, ..RuntimeConfig::default() };
        let runtime = Runtime::new(platform.clone(), config).unwrap();
        let program = runtime.load(&std::fs::read(built::component("operators")).unwrap()).unwrap();
        let store = Arc::new(FileStore::new(Arc::new(ModelDisk::new()), Faults::none()));
        let mut options = RunOptions { parallelism: 2, ..RunOptions::default() };
        options.allow = vec![folder.path().display().to_string()];
        options.checkpoints =
            Some(anew(settings(Some(Duration::from_millis(20)), 1), Storage::new(store, JOB_ID)));
        let output = has_files.then(|| folder.path().join("out"));
        let plan = planned(&program, &release(&args, first), &options, output);
        plan.prepare().unwrap();
        let job = task::start(plan, &platform, Arc::new(|_| {})).unwrap();
        Self { folder, runtime, program, args, options, job }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn plan(&self, number: i64, faults: &[&str]) -> Plan {
        let all: Vec<String> =
            self.args.iter().cloned().chain(faults.iter().map(|fault| (*fault).to_owned())).collect();
        planned(&self.program, &release(&all, number), &self.options, Some(self.output()))
    }

    /// Asks for a change that is not refused.
    fn swap(&self, number: i64, faults: &[&str], how: SwapOptions) -> Receiver<Result<u64, String>> {
        let (sender, receiver) = sync_channel(1);
        let answer = Box::new(move |result| drop(sender.send(result)));
        self.job.swap(&self.plan(number, faults), how, answer).unwrap();
        receiver
    }

    /// Why a change is refused.
    fn refuses(&self, number: i64, faults: &[&str], how: SwapOptions) -> String {
        let refused = self.job.swap(&self.plan(number, faults), how, Box::new(|_| {}));
        refused.unwrap_err().to_string()
    }

    /// The rows, once the job has ended by itself.
    fn rows(&self) -> Vec<Vec<Row>> {
        assert!(matches!(self.job.wait(), JobOutcome::Finished), "{:?}", self.job.wait());
        files(&self.output())
    }

    /// Each row is there once, by these releases one after the other.
    fn holds(&self, ran: &[i64]) -> Vec<Row> {
        let rows = self.rows();
        hold(&rows, ROWS, ran, false).unwrap();
        rows.into_iter().flatten().collect()
    }
}

fn forward(max_traps: u32) -> (SwapOptions, Told) {
    on_probation(HOUR, max_traps, Rollback::Forward)
}

/// What was told last is that all went back: what it was, and how long that took.
fn went_back(told: &Told) -> (String, Duration) {
    let told = told.lock().unwrap();
    match told.last() {
        Some(Standing::WentBack { trap, took, .. }) => (trap.error.to_string(), *took),
        standing => panic!("it stands {standing:?}"),
    }
}

#[test]
fn a_trap_leads_back_at_that_very_row() {
    for (number, fault) in [(2, "--trap"), (3, "--trap"), (2, "--hang"), (2, "--fail")] {
        let live = Live::start(1, true);
        let (how, told) = forward(0);
        live.swap(number, &[fault, &LATE.to_string()], how).recv().unwrap().unwrap();
        let rows = live.holds(&[1, number, 1]);
        let (trap, took) = went_back(&told);
        println!("{fault} in release {number}: back after {took:?}");
        assert!(trap.contains(&format!(",{LATE})")) || fault == "--hang", "{trap}");
        assert!(took < Duration::from_millis(500), "{took:?}");
        let of_row = rows.iter().find(|row| row.number == LATE).unwrap();
        assert_eq!(of_row.release, 1);
        // What came before it of its name was handled by the new version, and what came after it by the old.
        let of_name = |count: i64| rows.iter().find(|row| row.name == of_row.name && row.count == count);
        if fault == "--trap" {
            assert_eq!(of_name(of_row.count - 1).unwrap().release, number, "{fault}");
        }
        assert_eq!(of_name(of_row.count + 1).unwrap().release, 1);
        assert!(live.job.version().args().ends_with(&["--release".to_owned(), "1".to_owned()]));
    }
}

#[test]
fn a_version_that_traps_at_its_first_row_or_its_thousandth_leads_back() {
    for fault in [&["--traps-each", "1"][..], &["--trap-after", "1000"]] {
        let live = Live::start(1, true);
        let (how, told) = forward(0);
        let answer = live.swap(2, fault, how);
        let rows = live.holds(&[1, 2, 1]);
        // If it trapped before its checkpoint was complete, that was given up.
        let changed = answer.recv().unwrap();
        let (trap, took) = went_back(&told);
        println!("{fault:?}: {changed:?}, back after {took:?}");
        assert!(trap.contains("as told") && took < Duration::from_millis(500), "{trap} {took:?}");
        let by_new = rows.iter().filter(|row| row.release == 2).count();
        // The other subtask goes on until the barrier.
        assert_eq!(by_new == 0, fault[0] == "--traps-each", "{by_new}");
    }
}

#[test]
fn traps_up_to_the_limit_are_handled_as_at_any_time() {
    let live = Live::start_so(1, &["--skip"], true);
    let (how, told) = forward(3);
    live.swap(3, &["--traps-each", "1000"], how).recv().unwrap().unwrap();
    assert!(matches!(live.job.wait(), JobOutcome::Finished));
    assert!(went_back(&told).0.contains("as told, each time"));
    assert_eq!(live.job.progress().rows_skipped, 3);
    let rows: Vec<Row> = files(&live.output()).into_iter().flatten().collect();
    assert_eq!(rows.len() as i64, ROWS - 3);
}

#[test]
fn a_version_that_does_not_trap_stays() {
    let live = Live::start(1, true);
    let (how, told) = on_probation(Duration::from_millis(30), 0, Rollback::Forward);
    live.swap(2, &[], how.clone()).recv().unwrap().unwrap();
    let again = live.refuses(1, &[], SwapOptions::default());
    assert!(again.contains("is on probation"), "{again}");
    let clock = Platform::system().clock;
    let end = clock.now() + Duration::from_secs(20);
    while !matches!(live.job.standing(), Some(Standing::Kept { traps: 0 })) {
        assert!(clock.now() < end, "it stands {:?}", live.job.standing());
        clock.sleep(Duration::from_millis(5));
    }
    live.swap(1, &[], SwapOptions::default()).recv().unwrap().unwrap();
    live.holds(&[1, 2, 1]);
    assert!(matches!(told.lock().unwrap()[..], [Standing::OnProbation { .. }, Standing::Kept { .. }]));
}

#[test]
fn what_cannot_run_is_refused_before_anything_stops() {
    let live = Live::start(3, true);
    let bad_start = live.refuses(2, &["--bad-start"], SwapOptions::default());
    assert!(bad_start.contains("of the new version") && bad_start.contains("at the start"), "{bad_start}");
    let (how, told) = forward(0);
    let loses = live.refuses(1, &[], how);
    assert!(loses.contains("column `first` is dropped"), "{loses}");
    assert!(told.lock().unwrap().is_empty());
    let of_other_world = live.runtime.load(b"\0asm\x0d\0\x01\0");
    assert!(matches!(of_other_world, Err(GuestError::WrongWorld(_))));
    // Two at once: the second is refused, whichever is first.
    let first = live.swap(1, &[], SwapOptions::default());
    let second = live.refuses(1, &[], SwapOptions::default());
    assert!(second.contains("changing to another version already"), "{second}");
    first.recv().unwrap().unwrap();
    live.holds(&[3, 1]);
}

#[test]
fn an_exact_rollback_is_refused_where_rows_would_have_been_seen() {
    let live = Live::start(1, false);
    let (how, _) = on_probation(HOUR, 0, Rollback::Exact);
    let plan = planned(&live.program, &release(&live.args, 2), &live.options, None);
    let refused = live.job.swap(&plan, how, Box::new(|_| {})).unwrap_err().to_string();
    assert!(refused.contains("would have shown rows by then"), "{refused}");
    live.job.cancel();
    assert!(matches!(live.job.wait(), JobOutcome::Cancelled));
}

#[test]
fn an_exact_rollback_ends_the_attempt_and_says_where_to_go_on() {
    let live = Live::start(1, true);
    let (how, told) = on_probation(HOUR, 0, Rollback::Exact);
    let at = live.swap(2, &["--trap", &LATE.to_string()], how).recv().unwrap().unwrap();
    let JobOutcome::Failed(error) = live.job.wait() else { panic!("it has not failed") };
    assert!(error.to_string().contains("the job goes back to the old one"), "{error}");
    let back = live.job.roll_back().unwrap();
    assert_eq!((back.newest, back.version.args.last().unwrap().as_str()), (at, "1"));
    assert!(matches!(told.lock().unwrap().last(), Some(Standing::GoingBack { .. })));
    let rows = files(&live.output());
    assert!(rows.iter().flatten().all(|row| row.release == 1), "rows of the new version can be seen");
}
