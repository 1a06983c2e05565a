//! Functions in windows: their windows, ports, and the states that the host fills or merges.

use arrow_schema::DataType;
use model::job_graph::{
    Assigner, FailurePolicy, Function, JobGraph, Node, NodeId, StateKind, TimeDomain, Windows,
};
use model::schema::same_types;

use super::native::{check_assigner, check_length, has_times};
use super::{arriving, columns_of};
use crate::GraphError;

pub(super) fn check(
    graph: &JobGraph,
    id: NodeId,
    node: &Node,
    function: &Function,
    windows: &Windows,
) -> Result<(), GraphError> {
    let has_no_times = graph.edges_into(id).find(|edge| !has_times(graph, edge.producer));
    let checked = check_assigner(&windows.assigner)
        .and_then(|()| check_length("lateness", windows.lateness))
        .and_then(|()| match (&windows.assigner, has_no_times) {
            (Assigner::Everything, _) | (_, None) => Ok(()),
            _ if windows.time == TimeDomain::ProcessingTime => Ok(()),
            (_, Some(edge)) => Err(format!(
                "windows by event time, and rows of `{}` have none (give them watermarks)",
                graph.nodes[edge.producer as usize].name
            )),
        })
        .and_then(|()| check_kind(function, windows))
        .and_then(|()| check_late_ports(node, function, windows))
        .and_then(|()| check_collected(graph, id, function, windows));
    checked.map_err(|what| GraphError::node(graph, id, what))
}

fn check_kind(function: &Function, windows: &Windows) -> Result<(), String> {
    let is_session = matches!(windows.assigner, Assigner::Session(_));
    if matches!(windows.assigner, Assigner::Count { .. }) {
        return Err(
            "a function has no windows of so many rows: take one for everything, and count in it".into()
        );
    }
    if function.changes {
        return Err("a function in windows takes inserts only".into());
    }
    if function.states.iter().any(|state| state.kind == StateKind::Broadcast) {
        return Err("a function in windows has no broadcast state".into());
    }
    if let Some(state) = function.states.iter().find(|state| state.ttl.is_some()) {
        return Err(format!("its state `{}` has a TTL, and goes with its window", state.name));
    }
    let is_one_value = matches!(&function.states[..], [state] if state.kind == StateKind::Value);
    match (windows.collects, windows.merges) {
        (true, true) => Err("it either collects rows or merges values".into()),
        (false, true) if !is_one_value => {
            Err("windows are merged of a function whose only state is a value".into())
        }
        (false, false) if is_session => {
            Err("session windows meet, so the function merges or collects".into())
        }
        (true, false) if is_session && function.states.len() != function.inputs.len() => {
            Err("session windows meet, so a function that collects has no other state".into())
        }
        _ => Ok(()),
    }
}

fn check_late_ports(node: &Node, function: &Function, windows: &Windows) -> Result<(), String> {
    let Some(port) = windows.late_port else { return Ok(()) };
    if matches!(windows.assigner, Assigner::Everything) {
        return Err("no row is late for windows without an end".into());
    }
    for (port, input) in (port..).zip(&function.inputs) {
        let given = node.outputs.get(port as usize);
        let is_fit = port > 0
            && !(node.on_failure == FailurePolicy::Divert && node.failure_ports().contains(&(port as usize)))
            && given.is_some_and(|given| same_types(&given.schema, input));
        if !is_fit {
            return Err(format!("late rows leave as they came, by port {port}: ({})", columns_of(input)));
        }
    }
    Ok(())
}

/// Where the host collects rows, the first states are sequences of them.
fn check_collected(
    graph: &JobGraph,
    id: NodeId,
    function: &Function,
    windows: &Windows,
) -> Result<(), String> {
    if !windows.collects {
        return Ok(());
    }
    for (input, schema) in function.inputs.iter().enumerate() {
        let state = function.states.get(input).filter(|state| state.kind == StateKind::Sequence);
        let is_fit = state.is_some_and(|state| match state.value.fields().first().map(|f| f.data_type()) {
            Some(DataType::Struct(members)) => {
                same_types(&arrow_schema::Schema::new(members.clone()), schema)
            }
            _ => false,
        });
        if !is_fit {
            let edge = graph.edges_into(id).find(|edge| edge.input as usize == input);
            let columns = edge.map(|edge| {
                let port = &graph.nodes[edge.producer as usize].outputs[edge.port as usize];
                columns_of(&arriving(port, edge))
            });
            return Err(format!(
                "it collects the rows of input {input}, so its state {input} is a sequence of a structure of ({})",
                columns.unwrap_or_default()
            ));
        }
    }
    Ok(())
}
