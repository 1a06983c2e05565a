//! `streamctl state write`: a savepoint made of rows.

use std::path::Path;

use arrow_array::RecordBatch;
use checkpoint::manifest::JobName;
use connectors::rows::{BadLine, Rows, of_csv, of_json};
use model::Diagnostic;
use model::key::default_max_parallelism;
use platform::Platform;
use task::bootstrap::{self, Bootstrap};

use crate::cli::StateWriteArgs;
use crate::commands::load;
use crate::{Done, Stop};
use cluster::{Config, checkpoints};

pub(super) fn write(args: &StateWriteArgs) -> Done {
    let platform = Platform::system();
    let config = Config::load(&args.define).map_err(Stop::Refused)?;
    let sandbox = load::runtime(&config, &platform)?;
    let file = &args.component;
    let program = load::program(&sandbox, file)?;
    let jobs = load::jobs(&program, file)?;
    let name = &load::job(&jobs, file, args.job.as_deref())?.name;
    let graph = load::graph(&program, file, name, &args.args)?;
    graph::validate(&graph).map_err(|error| Stop::Refused(error.diagnostic()))?;
    let (operators, states, inputs) = (args.operator.len(), args.state.len(), args.input.len());
    if operators != states || states != inputs {
        return Err(Stop::Refused(
            Diagnostic::user("--operator, --state and --input go together, once for each state")
                .detail(format!("they are given {operators}, {states} and {inputs} times")),
        ));
    }
    let savepoint = checkpoints::nothing_yet(&config, &args.out).map_err(Stop::Refused)?;
    let mut filled: Vec<(Bootstrap, Vec<RecordBatch>)> = Vec::new();
    for ((uid, state), input) in args.operator.iter().zip(&args.state).zip(&args.input) {
        let bootstrap = Bootstrap::new(&graph, uid, state).map_err(Stop::Refused)?;
        let (rows, lines) = read(input, &bootstrap)?;
        let rows = vec![rows];
        bootstrap.check(&rows).map_err(|bad| {
            let line = lines.get(bad.row).copied().unwrap_or_default();
            Stop::Refused(bad_line(input, &BadLine { line, why: bad.why }, &bootstrap))
        })?;
        filled.push((bootstrap, rows));
    }
    let max_parallelism = config
        .number("pipeline.max-parallelism")
        .or_else(|| graph.settings.get("pipeline.max-parallelism")?.parse().ok())
        .unwrap_or_else(|| default_max_parallelism(config.number("parallelism.default").unwrap_or(1)));
    let job =
        JobName { id: checkpoints::id_of(name), name: name.clone(), component: program.digest().to_owned() };
    bootstrap::write(&savepoint, job, max_parallelism, &filled, platform.clock.wall_ms())
        .map_err(Stop::Failed)
}

/// The rows of a file, and the line of each.
fn read(input: &Path, bootstrap: &Bootstrap) -> Result<Rows, Stop> {
    let text = std::fs::read_to_string(input).map_err(|error| {
        Stop::Refused(
            Diagnostic::user(format!("cannot read `{}`", input.display())).detail(error.to_string()),
        )
    })?;
    let schema = bootstrap.schema();
    let rows = match input.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => of_csv(&text, &schema),
        Some("jsonl" | "json" | "ndjson") => of_json(&text, &schema),
        _ => {
            let error = Diagnostic::user(format!("`{}` is in no format that is known", input.display()));
            return Err(Stop::Refused(error.hint("rows are in FILE.jsonl or FILE.csv")));
        }
    };
    rows.map_err(|bad| Stop::Refused(bad_line(input, &bad, bootstrap)))
}

fn bad_line(input: &Path, bad: &BadLine, bootstrap: &Bootstrap) -> Diagnostic {
    let schema = bootstrap.schema();
    let columns = schema.fields().iter().map(|field| {
        let nullable = if field.is_nullable() { "" } else { ", not null" };
        format!("{}: {}{nullable}", field.name(), field.data_type())
    });
    let columns = columns.collect::<Vec<_>>().join("; ");
    Diagnostic::user(format!("{}, line {}: {}", input.display(), bad.line, bad.why))
        .detail(format!("the columns are {columns}"))
}
