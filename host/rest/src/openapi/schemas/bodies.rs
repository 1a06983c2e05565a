//! What is sent.

use serde_json::{Value, json};

use super::super::schema::{any, count, flag, list, map, object, one_of, open, or_null, text};
use super::job_id;

pub(super) fn all() -> Vec<(&'static str, Value)> {
    let form = || or_null_of(&["CANONICAL", "NATIVE"]);
    let trigger = || or_null(job_id());
    let probation = open([
        // In milliseconds.
        ("time", count()),
        ("maxTraps?", json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })),
        ("exact?", flag()),
    ]);
    vec![
        (
            "JarFile",
            object([(
                "jarfile",
                json!({ "type": "string", "contentMediaType": "application/octet-stream" }),
            )]),
        ),
        (
            "JarRunBody",
            open([
                ("entryClass?", or_null(text())),
                ("programArgs?", or_null(text())),
                ("programArgsList?", list(text())),
                ("parallelism?", json!({ "type": ["integer", "null"], "minimum": 1, "maximum": 32768 })),
                ("savepointPath?", or_null(text())),
                ("allowNonRestoredState?", or_null(flag())),
                ("flinkConfiguration?", map(text())),
                ("allow?", list(text())),
                ("batch?", or_null(flag())),
            ]),
        ),
        (
            "SavepointBody",
            open([
                ("target-directory?", or_null(text())),
                ("cancel-job?", flag()),
                ("formatType?", form()),
                ("triggerId?", trigger()),
            ]),
        ),
        (
            "CheckpointBody",
            open([
                ("checkpointType?", or_null_of(&["CONFIGURED", "INCREMENTAL", "FULL"])),
                ("triggerId?", trigger()),
            ]),
        ),
        (
            "StopBody",
            open([
                ("targetDirectory?", or_null(text())),
                ("drain?", flag()),
                ("formatType?", form()),
                ("triggerId?", trigger()),
            ]),
        ),
        ("DisposalBody", open([("savepoint-path", text())])),
        (
            "VersionBody",
            open([
                ("component?", or_null(text())),
                ("entryClass?", or_null(text())),
                ("programArgsList?", or_null(list(text()))),
                ("back?", flag()),
                ("restart?", flag()),
                ("allowNonRestoredState?", flag()),
                ("probation?", any([probation, json!({ "type": "null" })])),
            ]),
        ),
    ]
}

fn or_null_of(texts: &[&str]) -> Value {
    any([one_of(texts), json!({ "type": "null" })])
}
