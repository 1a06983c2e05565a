//! The page of metrics says what the code says: `UPDATE=1` writes its tables anew.

use task::metrics::names::{About, JOB, OPERATOR, OPERATOR_RATES, Scope, TASK, TASK_RATES};
use task::metrics::prometheus::{LATENCY, name_of};

use crate::support::root;

/// A table of metrics.
fn table<'a>(scope: Scope, metrics: impl Iterator<Item = &'a About>) -> String {
    let mut table = String::from("| metric | in Prometheus | unit | meaning |\n|---|---|---|---|\n");
    for about in metrics {
        let About { name, unit, meaning, .. } = about;
        table.push_str(&format!("| `{name}` | `{}` | {unit} | {meaning} |\n", name_of(scope, about)));
    }
    table
}

/// Puts a text between two marks of the page.
fn put(page: &str, mark: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->\n"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("`{begin}` is missing"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("`{end}` is missing"));
    format!("{before}{begin}\n{text}\n{end}{after}")
}

#[test]
fn the_page_has_every_metric() {
    let file = root().join("docs/metrics.md");
    let is = std::fs::read_to_string(&file).unwrap();
    assert!(is.contains(LATENCY), "latency markers are not told of");
    let task = Scope::Task { vertex: 0, subtask: 0 };
    let operator = Scope::Operator { vertex: 0, subtask: 0, stage: 0 };
    let of_task = TASK.iter().map(|of| &of.0).chain(TASK_RATES.iter().map(|of| &of.0));
    let of_operator = OPERATOR.iter().map(|of| &of.0).chain(OPERATOR_RATES.iter().map(|of| &of.0));
    let mut expected = put(&is, "metrics of jobs", &table(Scope::Job, JOB.iter().map(|of| &of.0)));
    expected = put(&expected, "metrics of subtasks", &table(task, of_task));
    expected = put(&expected, "metrics of operators", &table(operator, of_operator));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &expected).unwrap();
        return;
    }
    assert!(
        is == expected,
        "docs/metrics.md is not what the code says: UPDATE=1 cargo test -p metrics writes it"
    );
}
