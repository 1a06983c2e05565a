//! What is sent and answered, by name.

mod bodies;
mod changes;
mod checkpoints;
mod jobs;
mod process;
mod vertices;

use serde_json::{Value, json};

use super::schema::{any, list, object, text};

/// The schemas of the document.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("Empty", object([])),
        ("Errors", object([("errors", json!({ "type": "array", "items": text(), "minItems": 1 }))])),
        // Without what is asked for by `get` there are names only.
        ("Metrics", list(object([("id", text()), ("value?", text())]))),
    ];
    let groups =
        [process::all(), bodies::all(), jobs::all(), changes::all(), checkpoints::all(), vertices::all()];
    all.extend(groups.into_iter().flatten());
    all
}

/// A time in milliseconds since the epoch; -1 or 0 = it has not come.
fn time() -> Value {
    json!({ "type": "integer", "minimum": -1 })
}

/// An id of a job.
pub(super) fn job_id() -> Value {
    json!({ "type": "string", "pattern": "^[0-9a-fA-F]{32}$" })
}

/// A number, or Flink's text where there is none.
fn number_or_none() -> Value {
    any([json!({ "type": "integer", "minimum": 0 }), json!({ "const": "NaN" })])
}
