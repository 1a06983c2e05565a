//! Whether a job graph makes sense: every place in bounds, every schema where it is expected.

mod changes;
mod native;
#[cfg(test)]
mod tests;
mod windowed;

use std::collections::BTreeSet;

use arrow_schema::DataType;
use model::job_graph::{
    Edge, FailurePolicy, Function, JobGraph, Node, NodeId, NodeKind, Partition, Riding, StateKind,
    WatermarkStrategy, Watermarks,
};
use model::key::can_be_key;
use model::schema::same_types;

use crate::GraphError;

/// How many nodes a job may have.
pub const NODES_MAX: usize = 10_000;

/// Checks a job graph, which comes from a guest and may say anything.
///
/// # Errors
/// The first thing that is wrong, naming node or edge.
pub fn validate(graph: &JobGraph) -> Result<(), GraphError> {
    if graph.nodes.len() > NODES_MAX || graph.edges.len() > 4 * NODES_MAX {
        return Err(GraphError::Whole(format!("it has more than {NODES_MAX} nodes")));
    }
    if !graph.nodes.iter().any(|node| matches!(node.kind, NodeKind::Source(_))) {
        return Err(GraphError::Whole("it has no source".into()));
    }
    graph.edges.iter().try_for_each(|edge| check_edge(graph, edge))?;
    let mut uids = BTreeSet::new();
    for (id, node) in (0..).zip(&graph.nodes) {
        check_node(graph, id, node)?;
        if let Some(uid) = &node.uid
            && !uids.insert(uid)
        {
            return Err(GraphError::node(graph, id, format!("another node has the uid `{uid}`")));
        }
    }
    check_no_cycle(graph)
}

fn check_edge(graph: &JobGraph, edge: &Edge) -> Result<(), GraphError> {
    let wrong = |what: String| GraphError::Edge { producer: edge.producer, consumer: edge.consumer, what };
    let node =
        |id: NodeId| graph.nodes.get(id as usize).ok_or_else(|| wrong(format!("there is no node {id}")));
    let (producer, consumer) = (node(edge.producer)?, node(edge.consumer)?);
    let port = producer
        .outputs
        .get(edge.port as usize)
        .ok_or_else(|| wrong(format!("`{}` has no port {}", producer.name, edge.port)))?;
    let columns = port.schema.fields().len();
    match &edge.partition {
        Partition::Hash(keys) => {
            for key in keys {
                let field = port
                    .schema
                    .fields()
                    .get(*key as usize)
                    .ok_or_else(|| wrong(format!("there is no key column {key}")))?;
                if !can_be_key(field.data_type()) {
                    return Err(wrong(format!(
                        "`{}` of type {} cannot be a key",
                        field.name(),
                        field.data_type()
                    )));
                }
            }
        }
        Partition::Chosen(column) => {
            let fits = columns > 0 && *column as usize == columns - 1 && {
                let field = port.schema.field(columns - 1);
                *field.data_type() == DataType::Int32 && !field.is_nullable()
            };
            if !fits {
                return Err(wrong(
                    "the chosen subtask is not the last column, an int32 without nulls".into(),
                ));
            }
        }
        Partition::Forward | Partition::Rebalance | Partition::Broadcast | Partition::Global => {}
    }
    if edge.input as usize >= consumer.kind.inputs() {
        return Err(wrong(format!("`{}` has no input {}", consumer.name, edge.input)));
    }
    if let NodeKind::Function(function) = &consumer.kind {
        let arrives = arriving(port, edge);
        if !same_types(&arrives, &function.inputs[edge.input as usize]) {
            return Err(wrong(format!(
                "`{}` expects ({}), `{}` gives ({})",
                consumer.name,
                columns_of(&function.inputs[edge.input as usize]),
                producer.name,
                columns_of(&arrives)
            )));
        }
    }
    Ok(())
}

/// The schema of the rows that an edge brings.
#[must_use]
pub fn arriving(port: &model::job_graph::Port, edge: &Edge) -> arrow_schema::Schema {
    let mut fields: Vec<_> = port.schema.fields().iter().cloned().collect();
    if matches!(edge.partition, Partition::Chosen(_)) {
        fields.pop();
    }
    arrow_schema::Schema::new(fields)
}

fn columns_of(schema: &arrow_schema::Schema) -> String {
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("{} {}{}", f.name(), f.data_type(), if f.is_nullable() { "?" } else { "" }))
        .collect();
    columns.join(", ")
}

fn check_node(graph: &JobGraph, id: NodeId, node: &Node) -> Result<(), GraphError> {
    let wrong = |what: &str| Err(GraphError::node(graph, id, what));
    if node.parallelism == Some(0) {
        return wrong("its parallelism is 0");
    }
    let inputs: Vec<&Edge> = graph.edges_into(id).collect();
    let same_inputs = inputs.windows(2).all(|pair| {
        let schema =
            |edge: &Edge| arriving(&graph.nodes[edge.producer as usize].outputs[edge.port as usize], edge);
        pair[0].input != pair[1].input || same_types(&schema(pair[0]), &schema(pair[1]))
    });
    if !same_inputs {
        return wrong("streams of different types are united");
    }
    match &node.kind {
        NodeKind::Source(_) if node.outputs.is_empty() => return wrong("a source without an output"),
        NodeKind::Source(_) => {}
        NodeKind::Sink(_) if inputs.is_empty() => return wrong("a sink without an input"),
        NodeKind::Sink(_) if !node.outputs.is_empty() => return wrong("a sink with an output"),
        NodeKind::Sink(_) => {}
        NodeKind::Function(function) => {
            if !(1..=2).contains(&function.inputs.len()) {
                return wrong("a function has one input, or two");
            }
            for input in 0..function.inputs.len() {
                if !inputs.iter().any(|edge| edge.input as usize == input) {
                    return wrong(&format!("a function without an edge into its input {input}"));
                }
            }
            check_same_keys(graph, id, &inputs)?;
            check_states(graph, id, function, &inputs)?;
            if let Some(windows) = &function.windows {
                windowed::check(graph, id, node, function, windows)?;
            }
        }
        NodeKind::Watermarks(watermarks) => check_watermarks(graph, id, node, watermarks)?,
        NodeKind::Aggregate(_) | NodeKind::Window(_) | NodeKind::Join(_) | NodeKind::Top(_) => {
            native::check(graph, id, node, &inputs)?;
        }
        NodeKind::Lookup(lookup) => native::check_lookup(graph, id, node, lookup, &inputs)?,
    }
    changes::check(graph, id, node, &inputs)?;
    let keys = |edge: &&Edge| match &edge.partition {
        Partition::Hash(keys) => Some(keys.clone()),
        _ => None,
    };
    if inputs.windows(2).any(|pair| pair[0].input == pair[1].input && keys(&pair[0]) != keys(&pair[1])) {
        return wrong("its inputs are keyed by different columns");
    }
    if node.on_failure == FailurePolicy::Divert {
        check_divert(graph, id, node)?;
    }
    Ok(())
}

/// The keys of both inputs are of the same types.
fn check_same_keys(graph: &JobGraph, id: NodeId, inputs: &[&Edge]) -> Result<(), GraphError> {
    let types = |edge: &&Edge| -> Option<(u32, Vec<DataType>)> {
        let Partition::Hash(keys) = &edge.partition else { return None };
        let fields = graph.nodes[edge.producer as usize].outputs[edge.port as usize].schema.fields();
        Some((edge.input, keys.iter().map(|key| fields[*key as usize].data_type().clone()).collect()))
    };
    let keyed: Vec<_> = inputs.iter().filter_map(types).collect();
    for pair in keyed.windows(2) {
        let ((input, one), (of, other)) = (&pair[0], &pair[1]);
        if input != of && one != other {
            let what =
                format!("its inputs have keys of different types: ({}) and ({})", said(one), said(other));
            return Err(GraphError::node(graph, id, what));
        }
    }
    Ok(())
}

fn said(types: &[DataType]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Its states are declared as their kinds ask, and its inputs are keyed, or broadcast, as they ask.
fn check_states(
    graph: &JobGraph,
    id: NodeId,
    function: &Function,
    inputs: &[&Edge],
) -> Result<(), GraphError> {
    let wrong = |what: String| Err(GraphError::node(graph, id, what));
    let spread = graph.broadcast_input(id);
    let has_broadcast = function.states.iter().any(|state| state.kind == StateKind::Broadcast);
    if has_broadcast && (spread.is_none() || function.inputs.len() != 2) {
        return wrong("it has a broadcast state, so one of two inputs is `broadcast`".into());
    }
    let is_fit = |edge: &&Edge| is_keyed(&edge.partition) || spread == Some(edge.input);
    if function.is_keyed() && !inputs.iter().all(is_fit) {
        let what = if function.timers && function.states.is_empty() { "sets timers" } else { "has state" };
        return wrong(format!("it {what}, but its input is not keyed (use key_by)"));
    }
    let mut names = BTreeSet::new();
    for state in &function.states {
        let name = &state.name;
        if state.value.fields().len() != 1 {
            return wrong("a state has one field (a structure for several)".into());
        }
        if !names.insert(name) {
            return wrong(format!("two states of the name `{name}`"));
        }
        if state.ttl.is_some_and(|ttl| ttl.after.is_zero()) {
            return wrong(format!("the TTL of its state `{name}` is 0"));
        }
        if state.ttl.is_some() && state.kind == StateKind::Broadcast {
            return wrong(format!("its state `{name}` is broadcast, and such entries do not grow old"));
        }
        let keys: Vec<DataType> = state.key.fields().iter().map(|field| field.data_type().clone()).collect();
        match &state.kind {
            StateKind::Value | StateKind::Sequence if !keys.is_empty() => {
                return wrong(format!("entries of its state `{name}` have no key of their own"));
            }
            StateKind::Value | StateKind::Sequence => {}
            StateKind::Dictionary(_) | StateKind::Broadcast if keys.is_empty() => {
                return wrong(format!("entries of its state `{name}` have no key"));
            }
            StateKind::Dictionary(_) | StateKind::Broadcast => {
                if let Some(key) = keys.iter().find(|key| key.is_nested()) {
                    return wrong(format!("a {key} cannot be a key of its state `{name}`"));
                }
            }
        }
        let StateKind::Dictionary(riding) = &state.kind else { continue };
        for (at, Riding { input, columns }) in riding.iter().enumerate() {
            let Some(schema) = function.inputs.get(*input as usize).filter(|_| spread != Some(*input)) else {
                return wrong(format!(
                    "entries of its state `{name}` ride with input {input}: none has a key"
                ));
            };
            if riding[..at].iter().any(|other| other.input == *input) {
                return wrong(format!("entries of its state `{name}` ride with input {input} twice"));
            }
            let given: Option<Vec<DataType>> = columns
                .iter()
                .map(|column| Some(schema.fields().get(*column as usize)?.data_type().clone()))
                .collect();
            if given.as_ref() != Some(&keys) {
                let given =
                    given.map_or_else(|| format!("{columns:?}, which it has not"), |types| said(&types));
                return wrong(format!(
                    "keys of its state `{name}` are ({}), the columns of input {input} that name them ({given})",
                    said(&keys)
                ));
            }
        }
    }
    Ok(())
}

/// Its columns are times, and what leaves it is what came.
fn check_watermarks(
    graph: &JobGraph,
    id: NodeId,
    node: &Node,
    watermarks: &Watermarks,
) -> Result<(), GraphError> {
    let wrong = |what: String| Err(GraphError::node(graph, id, what));
    let Some(edge) = graph.edges_into(id).next() else {
        return wrong("watermarks of no input".into());
    };
    let input = arriving(&graph.nodes[edge.producer as usize].outputs[edge.port as usize], edge);
    let ports = if node.on_failure == FailurePolicy::Divert { 2 } else { 1 };
    if node.outputs.len() != ports || !same_types(&node.outputs[0].schema, &input) {
        return wrong("its output is not its input".into());
    }
    let columns = match watermarks.strategy {
        WatermarkStrategy::Bounded(_) => [watermarks.time_column, None],
        WatermarkStrategy::Punctuated(column) => [watermarks.time_column, Some(column)],
    };
    for column in columns.into_iter().flatten() {
        let Some(field) = input.fields().get(column as usize) else {
            return wrong(format!("there is no time column {column}: its input is ({})", columns_of(&input)));
        };
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            return wrong(format!(
                "the time column `{}` is {}, not a timestamp",
                field.name(),
                field.data_type()
            ));
        }
    }
    if watermarks.idle_after.is_some_and(|after| after.is_zero()) {
        return wrong("it is idle after 0 ms".into());
    }
    Ok(())
}

pub(crate) fn is_keyed(partition: &Partition) -> bool {
    matches!(partition, Partition::Hash(_))
}

/// The last port, or of two inputs the last two, takes what failed: the input's columns (a source: one
/// binary) and a text.
fn check_divert(graph: &JobGraph, id: NodeId, node: &Node) -> Result<(), GraphError> {
    let wrong = || {
        GraphError::node(
            graph,
            id,
            "its last port is not its input's columns and a text `failure` (policy divert)",
        )
    };
    let ports = node.failure_ports();
    let has_failures =
        matches!(node.kind, NodeKind::Source(_) | NodeKind::Watermarks(_) | NodeKind::Function(_));
    if ports.start == 0 || !has_failures {
        return Err(wrong());
    }
    for (input, port) in node.outputs[ports].iter().enumerate() {
        let (failure, columns) = port.schema.fields().split_last().ok_or_else(wrong)?;
        let given = arrow_schema::Schema::new(columns.to_vec());
        let fits = match &node.kind {
            NodeKind::Function(function) => same_types(&given, &function.inputs[input]),
            NodeKind::Watermarks(_) => same_types(&given, &node.outputs[0].schema),
            _ => columns.len() == 1 && *columns[0].data_type() == DataType::Binary,
        };
        if !fits || *failure.data_type() != DataType::Utf8 {
            return Err(wrong());
        }
    }
    Ok(())
}

fn check_no_cycle(graph: &JobGraph) -> Result<(), GraphError> {
    if topological(graph).len() == graph.nodes.len() {
        Ok(())
    } else {
        Err(GraphError::Whole("it has a cycle".into()))
    }
}

/// The nodes, each after those that feed it; those on a cycle are left out.
pub(crate) fn topological(graph: &JobGraph) -> Vec<NodeId> {
    let mut open: Vec<usize> = vec![0; graph.nodes.len()];
    let mut out: Vec<Vec<NodeId>> = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        open[edge.consumer as usize] += 1;
        out[edge.producer as usize].push(edge.consumer);
    }
    let mut order: Vec<NodeId> = (0..).zip(&open).filter(|(_, n)| **n == 0).map(|(id, _)| id).collect();
    let mut next = 0;
    while next < order.len() {
        for consumer in &out[order[next] as usize] {
            open[*consumer as usize] -= 1;
            if open[*consumer as usize] == 0 {
                order.push(*consumer);
            }
        }
        next += 1;
    }
    order
}
