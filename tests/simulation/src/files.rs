//! Files as they are written and found while a job runs.

use model::job_graph::{JobGraph, NodeKind};
use task::simulation::{Fault, options};

use crate::simulated::{Unheard, load};

/// A row, and none for an hour: the file is finished though none comes after it.
#[test]
fn a_file_is_finished_when_no_row_has_come_for_so_long() {
    let simulated = load("word_count");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let change = |graph: &mut JobGraph| {
        for node in &mut graph.nodes {
            let (NodeKind::Source(connection) | NodeKind::Sink(connection)) = &mut node.kind else {
                continue;
            };
            let (connector, options) = match connection.connector.as_str() {
                "values" => ("generator", [("kind", "words"), ("rate", "0.0003")].to_vec()),
                _ => ("files", [("path", path.as_str()), ("roll-inactivity", "10s")].to_vec()),
            };
            connection.options =
                options.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            connection.format = (connector == "files").then(|| "text".to_owned());
            connection.connector = connector.to_owned();
        }
    };
    let mut options = options(1, 1);
    options.allow = vec![path.clone()];
    let fault = Some(Fault::Crash(10_000));
    let report =
        simulated.run_in_files("word_count", &[], options, 1, fault, Unheard::Nobody, change).unwrap();
    assert_eq!(report.progress.rows_in, 1, "{report:?}");
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["part-0-0.text"]);
    // A line has ten words.
    let text = std::fs::read_to_string(folder.path().join("part-0-0.text")).unwrap();
    assert_eq!(text.lines().count(), 10);
}
