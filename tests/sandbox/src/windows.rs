//! Windows of many rows, which a guest reads page by page; guests that read, or merge, for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use guest::{Limits, Runtime, RuntimeConfig};
use model::job_graph::NodeKind;
use platform::Platform;
use task::{JobOutcome, RunOptions};

use crate::support::component;

/// What a window with all bids of so many events gives: count and sum of each result; or the job's error.
fn run(name: &str, events: &str, more: &[&str], call_time: Duration) -> Result<Vec<[i64; 2]>, String> {
    // A runtime reserves a quarter of the address space: beside the shared one there is room for one surely.
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = Limits { call_time, ..Limits::default() };
    let runtime =
        Runtime::new(Platform::system(), RuntimeConfig { limits, ..RuntimeConfig::default() }).unwrap();
    let program = runtime.load(&component("windows")).unwrap();
    let args = ["--bids", events, "--one-key", "true", "--windows", "everything", "--kept", "collects"];
    let args: Vec<String> = args.iter().chain(more).map(|arg| (*arg).to_owned()).collect();
    let mut graph = program.plan("bids", &args).unwrap().unwrap_or_else(|refusal| panic!("{refusal:?}"));
    for node in &mut graph.nodes {
        if let NodeKind::Sink(connection) = &mut node.kind {
            connection.connector = "collect".to_owned();
            connection.options = [("name".to_owned(), name.to_owned())].into();
        }
    }
    let plan = task::plan(&program, "bids", &args, graph, RunOptions::default()).unwrap();
    plan.prepare().unwrap();
    let job = task::start(plan, &Platform::system(), Arc::new(|_| {})).unwrap();
    match job.wait() {
        JobOutcome::Finished => {}
        JobOutcome::Failed(error) => return Err(error.to_string()),
        JobOutcome::Cancelled => panic!("nobody cancelled it"),
    }
    let given = connectors::collected(name);
    let rows = given.iter().flat_map(|(_, rows)| {
        let [counts, sums] = [5, 6].map(|at| rows.column(at).as_primitive::<Int64Type>().clone());
        (0..rows.num_rows()).map(move |row| [counts.value(row), sums.value(row)]).collect::<Vec<_>>()
    });
    Ok(rows.collect())
}

/// A million rows take longer to read than a call may take: its time begins anew with each page.
#[test]
fn a_window_of_a_million_rows_is_read_page_by_page() {
    let given = run("million", "1087000", &[], Duration::from_millis(30)).unwrap();
    let [[count, sum]] = given[..] else { panic!("{given:?}") };
    assert_eq!(count, 1_087_000 / 50 * 46);
    assert!(sum > count * 100);
}

/// The same pages again and again are no progress.
#[test]
fn a_guest_that_reads_for_ever_is_cut() {
    let said = run("for ever", "5000", &["--read", "for-ever"], Duration::from_millis(100)).unwrap_err();
    assert!(said.contains("ran longer than 100ms"), "{said}");
}

/// A merge that never returns is cut after its time, and the job's user is told of which window.
#[test]
fn a_merge_that_never_returns_is_cut() {
    let more =
        ["--windows", "sliding", "--size", "10", "--step", "2", "--kept", "merges", "--merge", "never"];
    let said = run("never", "5000", &more, Duration::from_millis(100)).unwrap_err();
    assert!(said.contains("`Sum` ran longer than 100ms"), "{said}");
    assert!(said.contains("merging the window (0,2015-07-"), "{said}");
}
