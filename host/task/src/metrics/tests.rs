//! A job made up, for tests of how it is shown.

use std::time::Duration;

use super::description::operator_id;
use super::*;
use crate::Execution;

/// A source and a map in a chain, a lookup and a sink in another; one subtask each.
pub(crate) fn described() -> JobDescription {
    let operator = |node: NodeId, name: &str, fed_by| OperatorDescription {
        node,
        id: operator_id(name),
        uid: name.to_owned(),
        name: name.to_owned(),
        origin: None,
        stage: node as usize % 2,
        fed_by,
    };
    let stage = |node: NodeId, name: &str, kind| StageDescription {
        id: operator_id(name),
        name: name.to_owned(),
        nodes: vec![node],
        kind,
    };
    JobDescription {
        name: "say \"hi\"\\\n".into(),
        execution: Execution::Streaming,
        max_parallelism: 128,
        slots: 1,
        vertices: vec![
            VertexDescription {
                id: operator_id("Source: a"),
                name: "Source: a -> Map".into(),
                parallelism: 1,
                max_parallelism: 128,
                operators: vec![operator(0, "Source: a", None), operator(1, "Map", Some(0))],
                stages: vec![stage(0, "Source: a", StageKind::Source), stage(1, "Map", StageKind::Function)],
                inputs: Vec::new(),
            },
            VertexDescription {
                id: operator_id("Lookup"),
                name: "Lookup -> Sink: b".into(),
                parallelism: 1,
                max_parallelism: 128,
                operators: vec![operator(2, "Lookup", None), operator(3, "Sink: b", Some(0))],
                stages: vec![stage(2, "Lookup", StageKind::Native), stage(3, "Sink: b", StageKind::Sink)],
                inputs: vec![InputDescription {
                    from: 0,
                    from_id: operator_id("Source: a"),
                    input: 0,
                    ship_strategy: "HASH",
                }],
            },
        ],
    }
}

/// What it has counted.
pub(crate) fn job() -> JobMetrics {
    let subtask = SubtaskMetrics {
        subtask: 0,
        state: ExecutionState::Running,
        started_ms: 1_000,
        ended_ms: None,
        is_source: true,
        records_in: 0,
        records_out: 7,
        bytes_in: 0,
        bytes_out: 70,
        spent: Spent { busy: Duration::from_millis(3), ..Spent::default() },
        standing: Standing::Idle,
        stages: vec![StageMetrics { records_out: 8, ..StageMetrics::default() }, StageMetrics::default()],
    };
    let next = SubtaskMetrics {
        is_source: false,
        records_in: 7,
        records_out: 0,
        bytes_in: 70,
        bytes_out: 0,
        stages: vec![StageMetrics::default(); 2],
        ..subtask.clone()
    };
    JobMetrics {
        now_ms: 2_000,
        started_ms: 1_000,
        restarts: 0,
        availability: None,
        vertices: [subtask, next].map(|subtask| VertexMetrics { subtasks: vec![subtask] }).into(),
        user: UserMetrics::default(),
        checkpoints: checkpoint::Statistics::default(),
    }
}
