//! States that were written with other columns: what fits is mapped by name, what does not is refused before the job
//! starts.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Fields, Schema};
use checkpoint::manifest::JobName;
use checkpoint::{Savepoint, Storage};
use model::job_graph::{JobGraph, NodeKind};
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Faults, Store};
use task::bootstrap::{Bootstrap, write};
use task::simulation::options;
use task::{Checkpoints, JobOutcome, Restored};

use crate::checkpoints::{JOB_ID, anew, seen, settings, with_files};
use crate::simulated::{Simulated, load};

const UID: &str = "process-States-by-key";

/// Gives a state of the job another type, as it was before.
fn with_type(graph: &mut JobGraph, state: &str, data_type: &DataType) {
    for node in &mut graph.nodes {
        let NodeKind::Function(function) = &mut node.kind else { continue };
        for found in function.states.iter_mut().filter(|found| found.name == state) {
            let name = found.value.field(0).name().clone();
            found.value = Arc::new(Schema::new(vec![Field::new(name, data_type.clone(), true)]));
        }
    }
}

/// A savepoint of a state that had this type, with one row of key 1 whose columns are these texts.
fn savepoint(
    simulated: &Simulated,
    store: &Arc<dyn Store>,
    args: &[String],
    (state, data_type): (&str, &DataType),
    row: &[&str],
) -> Savepoint {
    let mut graph = simulated.graph("states", args);
    with_type(&mut graph, state, data_type);
    let bootstrap = Bootstrap::new(&graph, UID, state).unwrap();
    let schema = bootstrap.schema();
    let texts = ["1", "0"]
        .iter()
        .chain(row)
        .map(|text| -> arrow_array::ArrayRef { Arc::new(arrow_array::StringArray::from(vec![*text])) });
    let columns = texts.zip(schema.fields()).map(|(text, field)| cast(&text, field.data_type()).unwrap());
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    let savepoint = Savepoint::new(Arc::clone(store), state);
    let job = JobName { id: JOB_ID.into(), name: "states".into(), component: String::new() };
    write(&savepoint, job, 128, &[(bootstrap, vec![rows])], 0).unwrap();
    savepoint
}

/// What the job says to a line with this operation, having gone on from a state that had this type; or why it does not
/// start.
fn gone_on(
    simulated: &Simulated,
    state: (&str, &DataType),
    row: &[&str],
    op: &str,
) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("lines.jsonl");
    let line = format!("{{\"key\":1,\"number\":1,\"op\":\"{op}\",\"item\":\"new\",\"amount\":1}}\n");
    std::fs::write(&input, line).unwrap();
    let args = vec!["--input".to_owned(), input.display().to_string()];
    let store: Arc<dyn Store> = Arc::new(FileStore::new(Arc::new(ModelDisk::new()), Faults::none()));
    let savepoint = savepoint(simulated, &store, &args, state, row);
    let restored = Restored::of_savepoint(&savepoint).unwrap();
    let output = tempfile::tempdir().unwrap();
    let mut options = options(1, 3);
    options.allow = vec![output.path().display().to_string()];
    options.checkpoints = Some(Checkpoints {
        takes_over: true,
        restored: Some(Arc::new(restored)),
        ..anew(settings(None, 1), Storage::new(store, JOB_ID))
    });
    let change = |graph: &mut JobGraph| with_files(graph, output.path(), false);
    let report = simulated.run_asked(("states", &args), options, 1, None, None, change);
    let report = report.map_err(|error| error.message)?;
    assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "{report:?}");
    Ok(seen(output.path(), false).into_keys().collect::<Vec<_>>().join("\n"))
}

fn record(columns: &[(&str, DataType)]) -> DataType {
    let fields: Fields =
        columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    DataType::Struct(fields)
}

#[test]
fn columns_are_widened_added_and_dropped_by_name() {
    let simulated = load("operators");
    let said = |text: &str| Ok(format!("{{\"f0\":1,\"f1\":\"{text}\"}}"));
    for narrow in [DataType::Int8, DataType::Int32, DataType::UInt32, DataType::Int64] {
        assert_eq!(gone_on(&simulated, ("total", &narrow), &["41"], "total"), said("Some(42)"), "{narrow}");
    }
    // A list of records (f0: Int64, f1: Utf8): the place, then the columns.
    let as_it_is = record(&[("f0", DataType::Int64), ("f1", DataType::Utf8)]);
    let history = |old: &DataType, row: &[&str]| gone_on(&simulated, ("history", old), row, "add");
    let expected = said(r#"[(7, \"a\"), (1, \"new\")]"#);
    assert_eq!(history(&as_it_is, &["0", "7", "a"]), expected);
    let more = record(&[("gone", DataType::Float64), ("f1", DataType::Utf8), ("f0", DataType::Int16)]);
    assert_eq!(history(&more, &["0", "0.5", "a", "7"]), expected);
    let less = record(&[("f0", DataType::Int64)]);
    assert_eq!(history(&less, &["0", "7"]), said(r#"[(7, \"\"), (1, \"new\")]"#));
}

#[test]
fn what_does_not_fit_is_refused_before_the_job_starts() {
    let simulated = load("operators");
    let begins = format!("of `States` (uid `{UID}`) cannot be restored");
    let refused = |state: &str, old: &DataType, row: &[&str]| {
        gone_on(&simulated, (state, old), row, "total").unwrap_err()
    };
    assert_eq!(
        refused("total", &DataType::Utf8, &["x"]),
        format!("state `total` {begins}: column `value` was Utf8, and is Int64")
    );
    assert_eq!(
        refused("total", &DataType::UInt64, &["1"]),
        format!("state `total` {begins}: column `value` was UInt64, and is Int64")
    );
    let other = record(&[("f0", DataType::Float64), ("f1", DataType::Utf8)]);
    assert_eq!(
        refused("history", &other, &["0", "1.5", "a"]),
        format!("state `history` {begins}: column `f0` was Float64, and is Int64")
    );
}
