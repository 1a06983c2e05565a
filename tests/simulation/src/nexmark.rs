//! Windows, joins and changelogs under schedules: the queries of Nexmark give the same final rows.
//!
//! What these rows should be is asked of an oracle elsewhere (`tests/nexmark`); queries whose rows depend
//! on the order of arrival, where their order leaves ties, are left out.

use std::collections::BTreeMap;

use arrow_array::ArrayRef;
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use model::Batch;
use model::job_graph::{JobGraph, NodeKind};
use task::simulation::{Fault, options};
use task::{Execution, JobOutcome};

use crate::simulated::{Simulated, load, seeds};

const QUERIES: [&str; 10] = ["q3", "q4", "q5", "q7", "q8", "q11", "q15", "q16", "q17", "q20"];
const EVENTS: &str = "1500";
/// So slow that windows of ten seconds end meanwhile.
const EVENTS_A_SECOND: &str = "40";
/// Seeds of each query.
const SEEDS: usize = 16;

fn slowly(graph: &mut JobGraph) {
    for node in &mut graph.nodes {
        if let NodeKind::Source(connection) = &mut node.kind {
            connection.options.insert("event-rate".into(), EVENTS_A_SECOND.into());
        }
    }
}

/// The rows that a changelog leaves, with how often each is there.
fn table(batches: &[Batch]) -> BTreeMap<String, i64> {
    let mut table = BTreeMap::new();
    let format = FormatOptions::default().with_null("null");
    for batch in batches {
        // Times as numbers: they are not shown in a zone here.
        let plain = |column: &ArrayRef| match column.data_type() {
            DataType::Timestamp(..) => cast(column, &DataType::Int64).unwrap(),
            _ => ArrayRef::clone(column),
        };
        let plain: Vec<ArrayRef> = batch.rows().columns().iter().map(plain).collect();
        let columns: Vec<ArrayFormatter<'_>> =
            plain.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &format).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let text: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            let is_taken_back = batch.kinds().is_some_and(|kinds| matches!(kinds[row], 1 | 3));
            *table.entry(text.join(", ")).or_default() += if is_taken_back { -1 } else { 1 };
        }
    }
    table.retain(|_, count| *count != 0);
    table
}

fn simulate(
    simulated: &Simulated,
    query: &str,
    seed: u64,
    fault: Option<Fault>,
) -> Option<BTreeMap<String, i64>> {
    let mut options = options(seed, [1, 2, 3, 7][usize::try_from(seed % 4).unwrap()]);
    options.chaos_instances = seed.is_multiple_of(5);
    if seed % 3 == 2 {
        options.execution = Execution::Batch;
    }
    let args = ["--events", EVENTS].map(str::to_owned);
    let (report, batches) = simulated.run_with(query, &args, options, seed, fault, slowly);
    matches!(report.outcome, Some(JobOutcome::Finished)).then(|| table(&batches))
}

#[test]
fn every_schedule_gives_the_same_final_rows() {
    let simulated = load("nexmark");
    for query in QUERIES {
        let expected = simulate(&simulated, query, 1, None).unwrap();
        assert!(!expected.is_empty() && expected.values().all(|count| *count > 0), "{query}");
        for seed in seeds().into_iter().take(SEEDS) {
            let rows = simulate(&simulated, query, seed, None);
            assert!(rows.as_ref() == Some(&expected), "SEED={seed}: {query} gives other rows");
        }
    }
}

/// The deliberate fault: state that is used before it is near must be found out.
#[test]
fn state_that_is_not_awaited_is_found() {
    let simulated = load("nexmark");
    for query in ["q4", "q5", "q11", "q20"] {
        let found = seeds()
            .into_iter()
            .take(10)
            .filter(|seed| simulate(&simulated, query, *seed, Some(Fault::StateNotAwaited)).is_none());
        assert!(found.count() > 5 || seeds().len() == 1, "{query}");
    }
}
