//! The session as a whole, and its TaskManager.

use serde_json::{Value, json};

use super::super::schema::{count, flag, list, map, named, nothing, number, object, text, whole, with};
use super::time;
use crate::overview::SIZES;
use crate::spread::KINDS;

pub(super) fn all() -> Vec<(&'static str, Value)> {
    let resource = || {
        object([
            ("cpuCores", number()),
            ("taskHeapMemory", count()),
            ("taskOffHeapMemory", count()),
            ("managedMemory", count()),
            ("networkMemory", count()),
            ("extendedResources", object([])),
        ])
    };
    let task_manager = object([
        ("id", text()),
        ("path", text()),
        ("dataPort", whole()),
        ("jmxPort", whole()),
        ("timeSinceLastHeartbeat", time()),
        ("slotsNumber", count()),
        ("freeSlots", count()),
        ("assignedTasks", count()),
        ("totalResource", named("Resource")),
        ("freeResource", named("Resource")),
        (
            "hardware",
            object([
                ("cpuCores", count()),
                ("physicalMemory", count()),
                ("freeMemory", count()),
                ("managedMemory", count()),
            ]),
        ),
        (
            "memoryConfiguration",
            object([
                ("frameworkHeap", count()),
                ("taskHeap", count()),
                ("frameworkOffHeap", count()),
                ("taskOffHeap", count()),
                ("networkMemory", count()),
                ("managedMemory", count()),
                ("jvmMetaspace", count()),
                ("jvmOverhead", count()),
                ("totalFlinkMemory", count()),
                ("totalProcessMemory", count()),
            ]),
        ),
    ]);
    let slot = object([("jobId", text()), ("resource", named("Resource")), ("assignedTasks", count())]);
    let sizes = SIZES.into_iter().chain(["heapUsed", "heapCommitted", "heapMax"]).map(|name| (name, count()));
    let metrics = object(sizes.chain([("garbageCollectors", nothing())]));
    let one = with(task_manager.clone(), [("allocatedSlots", list(slot)), ("metrics", metrics)]);
    let aggregate = [("id", text())].into_iter();
    // Which of them there are is asked for.
    let kinds: Vec<String> = KINDS.iter().map(|kind| format!("{kind}?")).collect();
    let aggregate = object(aggregate.chain(kinds.iter().map(|kind| (kind.as_str(), number()))));
    vec![
        ("Document", json!({ "type": "object", "required": ["openapi", "info", "paths", "components"] })),
        (
            "Configuration",
            object([
                ("refresh-interval", count()),
                ("timezone-name", text()),
                ("timezone-offset", whole()),
                ("flink-version", text()),
                ("flink-revision", text()),
                (
                    "features",
                    object([
                        ("web-submit", flag()),
                        ("web-cancel", flag()),
                        ("web-rescale", flag()),
                        ("web-history", flag()),
                    ]),
                ),
            ]),
        ),
        (
            "Overview",
            object([
                ("taskmanagers", count()),
                ("slots-total", count()),
                ("slots-available", count()),
                ("jobs-running", count()),
                ("jobs-finished", count()),
                ("jobs-cancelled", count()),
                ("jobs-failed", count()),
                ("flink-version", text()),
                ("flink-commit", text()),
            ]),
        ),
        ("DataSets", object([("dataSets", nothing())])),
        ("Keys", list(object([("key", text()), ("value", text())]))),
        (
            "Environment",
            object([
                ("jvm", object([("version", text()), ("arch", text()), ("options", nothing())])),
                ("classpath", nothing()),
            ]),
        ),
        ("Logs", object([("logs", list(object([("name", text()), ("size", count()), ("mtime", time())])))])),
        (
            "Threads",
            object([(
                "threadInfos",
                list(object([("threadName", text()), ("stringifiedThreadInfo", text())])),
            )]),
        ),
        ("Aggregates", list(aggregate)),
        ("Resource", resource()),
        ("TaskManagers", object([("taskmanagers", list(task_manager))])),
        ("TaskManager", one),
        (
            "Jars",
            object([
                ("address", text()),
                (
                    "files",
                    list(object([
                        ("id", text()),
                        ("name", text()),
                        ("uploaded", time()),
                        (
                            "entry",
                            list(object([("name", text()), ("description", json!({ "type": "null" }))])),
                        ),
                    ])),
                ),
            ]),
        ),
        ("JarUpload", object([("filename", text()), ("status", json!({ "const": "success" }))])),
        ("JarRun", object([("jobid", super::job_id()), ("applicationId", super::job_id())])),
        // What a count is of is its name.
        ("CountsByName", map(count())),
    ]
}
