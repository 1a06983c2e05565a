//! What is triggered, and what came of it; versions of a job.

use serde_json::Value;

use super::super::schema::{any, count, flag, list, named, number, object, one_of, or_null, text};

pub(super) fn all() -> Vec<(&'static str, Value)> {
    let operation = any([
        object([("location", text()), ("component?", text())]),
        object([("checkpointId", count())]),
        object([("checkpoint", count()), ("component", text())]),
        object([("failure-cause", named("FailureCause"))]),
        named("Empty"),
    ]);
    let version = object([
        ("from-checkpoint", count()),
        ("component", text()),
        ("entry-class", text()),
        ("program-args", list(text())),
    ]);
    let operator = object([
        ("uid?", text()),
        ("name", text()),
        ("change", one_of(["kept", "code", "migrated", "settings", "new", "dropped"])),
        ("states?", list(object([("name", text()), ("what", text())]))),
    ]);
    vec![
        ("Progress", object([("id", one_of(["IN_PROGRESS", "COMPLETED"]))])),
        ("FailureCause", object([("class", text()), ("stack-trace", text())])),
        ("Triggered", object([("request-id", text())])),
        // There is an operation when it is completed.
        ("Operation", object([("status", named("Progress")), ("operation?", operation)])),
        ("Versions", object([("versions", list(version)), ("standing", or_null(named("Standing")))])),
        ("Standing", standing()),
        (
            "Difference",
            object([
                ("operators", list(operator)),
                ("obstacles", list(text())),
                ("losses", list(text())),
                ("live", flag()),
                ("text", text()),
            ]),
        ),
        ("SwapTriggered", object([("request-id", text()), ("difference", named("Difference"))])),
    ]
}

/// How a version on probation stands.
fn standing() -> Value {
    let id = |id: &str| ("id", one_of([id]));
    any([
        object([id("CHANGING")]),
        object([id("ON_PROBATION"), ("from-checkpoint", count()), ("time", number())]),
        object([id("KEPT"), ("traps", count())]),
        object([id("GOING_BACK"), ("trap", text())]),
        object([
            id("WENT_BACK"),
            ("trap", text()),
            ("from-checkpoint", or_null(count())),
            ("trap-to-old-code", number()),
            ("trap-to-all-old-code", number()),
        ]),
        object([id("NOT_CHANGED"), ("reason", text())]),
    ])
}
