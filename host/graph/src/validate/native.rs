//! Native operators over keys: their windows, bounds and schemas.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{DataType, Schema};
use model::job_graph::{
    Assigner, Edge, Grid, JobGraph, Join, JoinForm, JoinSides, Lookup, Node, NodeId, NodeKind, Partition,
    TimeDomain, Top, Trigger, Window,
};
use model::key::can_be_key;
use model::schema::same_types;

use super::{arriving, check_same_keys, columns_of, is_keyed};
use crate::GraphError;

/// The longest window, gap, lateness or bound: a thousand years.
const LENGTH_MAX: Duration = Duration::from_millis(1_000 * 366 * 24 * 60 * 60 * 1_000);
/// How many steps a window may have.
const STEPS_MAX: u128 = 1_000_000;
/// How many rows a window of so many rows may have.
const ROWS_MAX: u64 = u32::MAX as u64;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn check(graph: &JobGraph, id: NodeId, node: &Node, inputs: &[&Edge]) -> Result<(), GraphError> {
    let wrong = |what: String| Err(GraphError::node(graph, id, what));
    let (what, call) = match &node.kind {
        NodeKind::Aggregate(_) => ("an aggregate", "key_by"),
        NodeKind::Window(_) => ("a window", "key_by"),
        NodeKind::Join(_) => ("a join", "key_by of both streams"),
        _ => ("a top-n", "key_by"),
    };
    for input in 0..node.kind.inputs() {
        if !inputs.iter().any(|edge| edge.input as usize == input) {
            return wrong(format!("{what} without its input {input}"));
        }
    }
    let is_fit = |edge: &&Edge| is_keyed(&edge.partition) || edge.partition == Partition::Global;
    if !inputs.iter().all(is_fit) {
        return wrong(format!("{what}'s input is keyed (use {call})"));
    }
    if needs_times(&node.kind)
        && let Some(edge) = inputs.iter().find(|edge| !has_times(graph, edge.producer))
    {
        let from = &graph.nodes[edge.producer as usize].name;
        return wrong(format!("{what} by event time, and rows of `{from}` have none (give them watermarks)"));
    }
    let schema =
        |edge: &Edge| arriving(&graph.nodes[edge.producer as usize].outputs[edge.port as usize], edge);
    match &node.kind {
        NodeKind::Aggregate(aggregates) if aggregates.is_empty() || node.outputs.len() != 1 => {
            wrong("an aggregate has at least one function, and one output".into())
        }
        NodeKind::Window(window) => check_window(node, window, &schema(inputs[0])).or_else(wrong),
        NodeKind::Join(join) => {
            check_same_keys(graph, id, inputs)?;
            check_join(node, join).or_else(wrong)
        }
        NodeKind::Top(top) => check_top(node, top, &schema(inputs[0])).or_else(wrong),
        _ => Ok(()),
    }
}

/// Whether it goes by event time.
fn needs_times(kind: &NodeKind) -> bool {
    match kind {
        NodeKind::Window(Window {
            assigner: Assigner::Count { .. } | Assigner::Everything,
            trigger,
            time,
            ..
        }) => *time == TimeDomain::EventTime && matches!(trigger, Trigger::Early(_)),
        NodeKind::Window(window) => window.time == TimeDomain::EventTime,
        NodeKind::Join(join) => {
            !matches!(join.form, JoinForm::Unbounded(_) | JoinForm::Temporal(TimeDomain::ProcessingTime))
        }
        _ => false,
    }
}

/// Whether rows of a node have event times, or some of them: watermarks give them, and so do windows.
/// Windows without an end have those of the rows that fire them; what is given at the end has none.
pub(super) fn has_times(graph: &JobGraph, id: NodeId) -> bool {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![id];
    while let Some(id) = ahead.pop() {
        match &graph.nodes[id as usize].kind {
            NodeKind::Window(Window { assigner: Assigner::Everything, trigger, .. })
                if !matches!(trigger, Trigger::Count(_)) => {}
            NodeKind::Window(Window { assigner, .. })
                if !matches!(assigner, Assigner::Count { .. } | Assigner::Everything) =>
            {
                return true;
            }
            NodeKind::Watermarks(_) => return true,
            _ if seen.insert(id) => ahead.extend(graph.edges_into(id).map(|edge| edge.producer)),
            _ => {}
        }
    }
    false
}

fn check_window(node: &Node, window: &Window, input: &Schema) -> Result<(), String> {
    check_assigner(&window.assigner)?;
    check_length("lateness", window.lateness)?;
    check_trigger(node, window)?;
    if window.aggregates.is_empty() {
        return Err("a window has at least one aggregate".into());
    }
    let ports = if window.late_port.is_some() { 2 } else { 1 };
    if node.outputs.len() != ports || window.late_port.is_some_and(|port| port != 1) {
        return Err("a window has one output and, where late rows go aside, port 1 for them".into());
    }
    if window.late_port.is_some() && !same_types(&node.outputs[1].schema, input) {
        return Err(format!("late rows leave as they came: ({})", columns_of(input)));
    }
    Ok(())
}

fn check_trigger(node: &Node, window: &Window) -> Result<(), String> {
    let (is_session, is_count) =
        (matches!(window.assigner, Assigner::Session(_)), matches!(window.assigner, Assigner::Count { .. }));
    match window.trigger {
        Trigger::AtEnd => {}
        Trigger::Early(_) | Trigger::Count(_) if is_count => {
            return Err(
                "windows of so many rows have no other trigger: they are emitted when they are full".into()
            );
        }
        Trigger::Early(_) if is_session => return Err("session windows have no early results".into()),
        Trigger::Early(early) => {
            check_length("time between early results", early)?;
            if early.is_zero() {
                return Err("the time between its early results is 0".into());
            }
        }
        Trigger::Count(_) if is_session => {
            return Err("session windows are not emitted each so many rows".into());
        }
        Trigger::Count(0) => return Err("it is emitted each 0 rows".into()),
        Trigger::Count(_) => {}
    }
    if window.purging && is_session {
        return Err("session windows are not purged: they go at their end".into());
    }
    if window.purging && node.outputs.first().is_some_and(|port| port.changes) {
        return Err("it forgets what it has emitted (purging), so it cannot update it (changes)".into());
    }
    if window.late_port.is_some() && matches!(window.assigner, Assigner::Count { .. } | Assigner::Everything)
    {
        return Err("no row is late for windows without an end".into());
    }
    Ok(())
}

pub(super) fn check_assigner(assigner: &Assigner) -> Result<(), String> {
    match assigner {
        Assigner::Tumbling(grid) => {
            check_grid(grid)?;
            if grid.size != grid.step {
                return Err("a tumbling window's step is its size".into());
            }
        }
        Assigner::Sliding(grid) => {
            check_grid(grid)?;
            if grid.step > grid.size {
                return Err(format!(
                    "it slides by {} ms, more than its size of {} ms: rows would be in no window",
                    grid.step.as_millis(),
                    grid.size.as_millis()
                ));
            }
        }
        Assigner::Cumulating(grid) => {
            check_grid(grid)?;
            if grid.size.as_millis() % grid.step.as_millis() != 0 {
                return Err(format!(
                    "its size of {} ms is not a multiple of its step of {} ms",
                    grid.size.as_millis(),
                    grid.step.as_millis()
                ));
            }
        }
        Assigner::Session(gap) => {
            check_length("gap", *gap)?;
            if gap.is_zero() {
                return Err("its gap is 0 ms".into());
            }
        }
        Assigner::Count { size, step } => {
            for (name, rows) in [("size", size), ("step", step)] {
                if *rows == 0 {
                    return Err(format!("its {name} is 0 rows"));
                }
                if *rows > ROWS_MAX {
                    return Err(format!("its {name} of {rows} rows is more than {ROWS_MAX}"));
                }
            }
            if step > size {
                return Err(format!(
                    "it goes on by {step} rows, more than its size of {size}: rows would be in no window"
                ));
            }
            if size / greatest_common_divisor(*size, *step) > STEPS_MAX as u64 {
                return Err(format!(
                    "its size of {size} rows is more than {STEPS_MAX} times what it has in common with its step of {step}"
                ));
            }
        }
        Assigner::Everything => {}
    }
    Ok(())
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn check_grid(grid: &Grid) -> Result<(), String> {
    for (name, length) in [("size", grid.size), ("step", grid.step)] {
        check_length(name, length)?;
        if length.is_zero() {
            return Err(format!("its {name} is 0 ms"));
        }
    }
    if grid.size.as_millis() / grid.step.as_millis() > STEPS_MAX {
        return Err(format!("its size is more than {STEPS_MAX} steps"));
    }
    if u128::from(grid.offset.unsigned_abs()) >= grid.step.as_millis() {
        return Err(format!(
            "its offset of {} ms is not less than its step of {} ms",
            grid.offset,
            grid.step.as_millis()
        ));
    }
    let Some(zone) = &grid.zone else { return Ok(()) };
    if zone.parse::<chrono_tz::Tz>().is_err() {
        return Err(format!("there is no time zone `{zone}` (they are called like `Europe/Paris`)"));
    }
    if [grid.size, grid.step].iter().any(|length| length.as_millis() % DAY.as_millis() != 0) {
        return Err(format!("it follows the days of `{zone}`, so its size and step are whole days"));
    }
    Ok(())
}

pub(super) fn check_length(name: &str, length: Duration) -> Result<(), String> {
    if length > LENGTH_MAX {
        return Err(format!("its {name} of {} ms is longer than a thousand years", length.as_millis()));
    }
    Ok(())
}

fn check_join(node: &Node, join: &Join) -> Result<(), String> {
    if node.outputs.len() != 1 {
        return Err("a join has one output".into());
    }
    match &join.form {
        JoinForm::Window(assigner) => match assigner {
            Assigner::Session(_) => Err("a join has no session windows: each side has its own".into()),
            Assigner::Count { .. } => {
                Err("a join has no windows of so many rows: each side has its own".into())
            }
            Assigner::Everything => Err("a join of all rows has no window".into()),
            assigner => check_assigner(assigner),
        },
        JoinForm::Interval { lower, upper } => {
            if lower > upper {
                return Err(format!("its lower bound of {lower} ms is above its upper bound of {upper} ms"));
            }
            let max = LENGTH_MAX.as_millis();
            if [lower, upper].iter().any(|bound| u128::from(bound.unsigned_abs()) > max) {
                return Err("a bound of it is longer than a thousand years".into());
            }
            Ok(())
        }
        JoinForm::Unbounded(ttl) if ttl.is_some_and(|ttl| ttl.after.is_zero()) => {
            Err("its time to live is 0".into())
        }
        JoinForm::Unbounded(_) => Ok(()),
        JoinForm::Temporal(_) if !matches!(join.sides, JoinSides::Inner | JoinSides::Left) => {
            Err("a temporal join gives left rows with their version, so it is inner or left".into())
        }
        JoinForm::Temporal(_) => Ok(()),
    }
}

/// Its keys are of one type on both sides, and what leaves it is the input's columns, then the table's.
pub(super) fn check_lookup(
    graph: &JobGraph,
    id: NodeId,
    node: &Node,
    lookup: &Lookup,
    inputs: &[&Edge],
) -> Result<(), GraphError> {
    let wrong = |what: String| Err(GraphError::node(graph, id, what));
    let Some(edge) = inputs.first() else { return wrong("a lookup without an input".into()) };
    let input = arriving(&graph.nodes[edge.producer as usize].outputs[edge.port as usize], edge);
    if lookup.keys.is_empty() || lookup.keys.len() != lookup.table_keys.len() {
        return wrong("a lookup has at least one key, as many of the table as of the input".into());
    }
    for (key, table_key) in lookup.keys.iter().zip(&lookup.table_keys) {
        let Some(field) = input.fields().get(*key as usize) else {
            return wrong(format!("there is no key column {key}: its input is ({})", columns_of(&input)));
        };
        let Some(of_table) = lookup.schema.fields().get(*table_key as usize) else {
            let columns = columns_of(&lookup.schema);
            return wrong(format!("there is no key column {table_key}: its table is ({columns})"));
        };
        if field.data_type() != of_table.data_type() {
            return wrong(format!(
                "it looks `{}`, a {}, up in `{}`, a {}",
                field.name(),
                field.data_type(),
                of_table.name(),
                of_table.data_type()
            ));
        }
        if !can_be_key(field.data_type()) {
            return wrong(format!("`{}` of type {} cannot be a key", field.name(), field.data_type()));
        }
    }
    if lookup.reload.is_some_and(|reload| reload.is_zero()) {
        return wrong("its table is reloaded each 0 ms".into());
    }
    let mut fields: Vec<_> = input.fields().iter().cloned().collect();
    let table = lookup.schema.fields().iter();
    fields.extend(table.map(|field| match lookup.outer {
        true => Arc::new(field.as_ref().clone().with_nullable(true)),
        false => Arc::clone(field),
    }));
    let output = Schema::new(fields);
    match &node.outputs[..] {
        [port] if same_types(&port.schema, &output) => Ok(()),
        _ => wrong(format!(
            "its one output is its input's columns, then the table's ({})",
            columns_of(&output)
        )),
    }
}

fn check_top(node: &Node, top: &Top, input: &Schema) -> Result<(), String> {
    if top.limit == 0 {
        return Err("it keeps 0 rows".into());
    }
    for order in &top.order {
        let Some(field) = input.fields().get(order.column as usize) else {
            return Err(format!("there is no column {} to order by", order.column));
        };
        if field.data_type().is_nested() {
            return Err(format!("rows cannot be ordered by `{}`, a {}", field.name(), field.data_type()));
        }
    }
    let [port] = &node.outputs[..] else { return Err("it has one output".into()) };
    let mut fields: Vec<_> = port.schema.fields().iter().cloned().collect();
    let rank = if top.rank { fields.pop() } else { None };
    let is_rank = rank.is_none_or(|rank| *rank.data_type() == DataType::Int64 && !rank.is_nullable());
    if !is_rank
        || fields.len() + usize::from(top.rank) != port.schema.fields().len()
        || !same_types(&Schema::new(fields), input)
    {
        return Err(format!("its output is not its input ({})", columns_of(input)));
    }
    Ok(())
}
