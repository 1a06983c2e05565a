//! From the contract's job graph to the engine's, and back for the schemas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{SchemaRef, TimeUnit};
use model::job_graph::{
    Aggregate, Alignment, Assigner, Chaining, Connection, Edge, FailurePolicy, Function, Grid, JobGraph,
    Join, JoinForm, JoinSides, Lookup, Node, NodeId, NodeKind, Ordering, Partition, Port, Riding, State,
    StateKind, TimeDomain, Top, Trigger, Ttl, WatermarkStrategy, Watermarks, Window, Windows,
};
use model::schema::{FlatField, LogicalType, flat_width, from_flat};

use crate::GuestError;
use crate::bindings::millstream::job::{graph, rows};
use crate::lift::lied;

pub(crate) fn job_graph(plan: graph::JobGraph) -> Result<JobGraph, GuestError> {
    let mut graph = JobGraph {
        name: plan.name,
        nodes: plan.nodes.into_iter().map(node).collect::<Result<_, _>>()?,
        edges: plan.edges.into_iter().map(edge).collect(),
        settings: settings(plan.settings)?,
    };
    resolve(&mut graph)?;
    Ok(graph)
}

/// The contract counts columns in the flattened schema, the engine those of the rows.
fn resolve(graph: &mut JobGraph) -> Result<(), GuestError> {
    let schemas: Vec<Option<SchemaRef>> = graph
        .edges
        .iter()
        .map(|edge| {
            let port = graph.nodes.get(edge.producer as usize)?.outputs.get(edge.port as usize)?;
            Some(Arc::clone(&port.schema))
        })
        .collect();
    let mut arriving: BTreeMap<NodeId, &SchemaRef> = BTreeMap::new();
    // What has no schema is refused with the graph.
    for (edge, schema) in graph.edges.iter_mut().zip(&schemas) {
        let Some(schema) = schema else { continue };
        arriving.entry(edge.consumer).or_insert(schema);
        match &mut edge.partition {
            Partition::Hash(keys) => keys.iter_mut().try_for_each(|key| resolve_column(key, schema))?,
            Partition::Chosen(column) => resolve_column(column, schema)?,
            Partition::Forward | Partition::Rebalance | Partition::Broadcast | Partition::Global => {}
        }
    }
    for (id, node) in (0..).zip(&mut graph.nodes) {
        let arriving = arriving.get(&id).copied();
        resolve_node(&mut node.kind, arriving).map_err(|error| match error {
            GuestError::Lied(what) => lied(format!("node `{}`: {what}", node.name)),
            other => other,
        })?;
    }
    Ok(())
}

fn resolve_node(kind: &mut NodeKind, arriving: Option<&SchemaRef>) -> Result<(), GuestError> {
    match (kind, arriving) {
        (NodeKind::Watermarks(watermarks), Some(schema)) => {
            watermarks.time_column.iter_mut().try_for_each(|column| resolve_column(column, schema))?;
            match &mut watermarks.strategy {
                WatermarkStrategy::Punctuated(column) => resolve_column(column, schema),
                WatermarkStrategy::Bounded(_) => Ok(()),
            }
        }
        (NodeKind::Aggregate(aggregates) | NodeKind::Window(Window { aggregates, .. }), Some(schema)) => {
            aggregates
                .iter_mut()
                .flat_map(|aggregate| &mut aggregate.columns)
                .try_for_each(|column| resolve_column(column, schema))
        }
        (NodeKind::Top(top), Some(schema)) => {
            top.order.iter_mut().try_for_each(|order| resolve_column(&mut order.column, schema))
        }
        (NodeKind::Lookup(lookup), Some(schema)) => {
            lookup.keys.iter_mut().try_for_each(|column| resolve_column(column, schema))?;
            let table = Arc::clone(&lookup.schema);
            lookup.table_keys.iter_mut().try_for_each(|column| resolve_column(column, &table))
        }
        (NodeKind::Function(function), _) => {
            for state in &mut function.states {
                let StateKind::Dictionary(riding) = &mut state.kind else { continue };
                for Riding { input, columns } in riding {
                    let Some(schema) = function.inputs.get(*input as usize) else { continue };
                    columns.iter_mut().try_for_each(|column| resolve_column(column, schema))?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// From a place in the flattened schema to the column of rows that is there.
fn resolve_column(column: &mut u32, schema: &SchemaRef) -> Result<(), GuestError> {
    let mut place = 0;
    for (top, field) in (0..).zip(schema.fields()) {
        let width = flat_width(field.data_type());
        if (place..place + width).contains(column) {
            if *column != place {
                return Err(lied(format!("column {column} is a part of `{}`", field.name())));
            }
            *column = top;
            return Ok(());
        }
        place += width;
    }
    Err(lied(format!("there is no column {column}")))
}

fn settings(settings: Vec<graph::Setting>) -> Result<BTreeMap<String, String>, GuestError> {
    let mut map = BTreeMap::new();
    for setting in settings {
        if map.contains_key(&setting.name) {
            return Err(lied(format!("the option `{}` twice", setting.name)));
        }
        map.insert(setting.name, setting.value);
    }
    Ok(map)
}

fn node(node: graph::Node) -> Result<Node, GuestError> {
    let name = node.name;
    let of_node = |error: GuestError| match error {
        GuestError::Lied(what) => lied(format!("node `{name}`: {what}")),
        other => other,
    };
    let kind = kind(node.kind).map_err(of_node)?;
    let outputs = node
        .outputs
        .into_iter()
        .map(|port| Ok(Port { name: port.name, schema: schema(port.schema)?, changes: port.changes }))
        .collect::<Result<_, _>>()
        .map_err(of_node)?;
    Ok(Node {
        uid: node.uid,
        origin: node.origin,
        parallelism: node.parallelism,
        max_parallelism: node.max_parallelism,
        kind,
        outputs,
        on_failure: match node.on_failure {
            graph::FailurePolicy::Fail => FailurePolicy::Fail,
            graph::FailurePolicy::Skip => FailurePolicy::Skip,
            graph::FailurePolicy::Divert => FailurePolicy::Divert,
        },
        chaining: match node.chaining {
            graph::Chaining::Allowed => Chaining::Allowed,
            graph::Chaining::Head => Chaining::Head,
            graph::Chaining::Never => Chaining::Never,
        },
        name,
    })
}

fn kind(kind: graph::NodeKind) -> Result<NodeKind, GuestError> {
    Ok(match kind {
        graph::NodeKind::Source(c) => NodeKind::Source(connection(c)?),
        graph::NodeKind::Sink(c) => NodeKind::Sink(connection(c)?),
        graph::NodeKind::Watermarks(watermarks) => NodeKind::Watermarks(Watermarks {
            time_column: watermarks.time_column,
            strategy: match watermarks.strategy {
                graph::WatermarkStrategy::Bounded(bound) => {
                    WatermarkStrategy::Bounded(Duration::from_millis(bound))
                }
                graph::WatermarkStrategy::Punctuated(column) => WatermarkStrategy::Punctuated(column),
            },
            idle_after: watermarks.idle_after.map(Duration::from_millis),
            ahead_max: watermarks.ahead_max.map(Duration::from_millis),
            alignment: watermarks.alignment.map(|alignment| Alignment {
                group: alignment.group,
                drift_max: Duration::from_millis(alignment.drift_max),
            }),
        }),
        graph::NodeKind::Function(function) => NodeKind::Function(Function {
            inputs: function.inputs.into_iter().map(schema).collect::<Result<_, _>>()?,
            states: function.states.into_iter().map(state).collect::<Result<_, GuestError>>()?,
            timers: function.timers,
            changes: function.changes,
            windows: function.windows.map(|windows| Windows {
                assigner: assigner(windows.assigner),
                time: domain(windows.time),
                lateness: Duration::from_millis(windows.lateness),
                late_port: windows.late_port,
                collects: windows.collects,
                merges: windows.merges,
            }),
        }),
        graph::NodeKind::Aggregate(list) => NodeKind::Aggregate(aggregates(list)?),
        graph::NodeKind::Window(window) => NodeKind::Window(Window {
            assigner: assigner(window.assigner),
            time: domain(window.time),
            lateness: Duration::from_millis(window.lateness),
            late_port: window.late_port,
            trigger: match window.trigger {
                graph::Trigger::AtEnd => Trigger::AtEnd,
                graph::Trigger::Early(each) => Trigger::Early(Duration::from_millis(each)),
                graph::Trigger::Count(rows) => Trigger::Count(rows),
            },
            purging: window.purging,
            aggregates: aggregates(window.aggregates)?,
        }),
        graph::NodeKind::Join(join) => NodeKind::Join(Join {
            sides: match join.sides {
                graph::JoinSides::Inner => JoinSides::Inner,
                graph::JoinSides::Left => JoinSides::Left,
                graph::JoinSides::Right => JoinSides::Right,
                graph::JoinSides::Full => JoinSides::Full,
                graph::JoinSides::Semi => JoinSides::Semi,
                graph::JoinSides::Anti => JoinSides::Anti,
            },
            form: match join.form {
                graph::JoinForm::Window(windows) => JoinForm::Window(assigner(windows)),
                graph::JoinForm::Interval(bounds) => {
                    JoinForm::Interval { lower: bounds.lower, upper: bounds.upper }
                }
                graph::JoinForm::Unbounded(after) => JoinForm::Unbounded(after.map(ttl)),
                graph::JoinForm::Temporal(time) => JoinForm::Temporal(domain(time)),
            },
        }),
        graph::NodeKind::Top(top) => NodeKind::Top(Top {
            limit: top.limit,
            order: top
                .order
                .into_iter()
                .map(|order| Ordering {
                    column: order.column,
                    descending: order.descending,
                    nulls_last: order.nulls_last,
                })
                .collect(),
            rank: top.rank,
        }),
        graph::NodeKind::Lookup(lookup) => NodeKind::Lookup(Lookup {
            table: connection(lookup.table)?,
            schema: schema(lookup.schema)?,
            keys: lookup.keys,
            table_keys: lookup.table_keys,
            outer: lookup.outer,
            reload: lookup.reload.map(Duration::from_millis),
        }),
    })
}

fn aggregates(aggregates: Vec<graph::Aggregate>) -> Result<Vec<Aggregate>, GuestError> {
    let aggregate = |aggregate: graph::Aggregate| {
        Ok(Aggregate {
            function: aggregate.function,
            columns: aggregate.columns,
            options: settings(aggregate.options)?,
        })
    };
    aggregates.into_iter().map(aggregate).collect()
}

fn assigner(assigner: graph::Assigner) -> Assigner {
    let grid = |grid: graph::Grid| Grid {
        size: Duration::from_millis(grid.size),
        step: Duration::from_millis(grid.step),
        offset: grid.offset,
        zone: grid.zone,
    };
    match assigner {
        graph::Assigner::Tumbling(windows) => Assigner::Tumbling(grid(windows)),
        graph::Assigner::Sliding(windows) => Assigner::Sliding(grid(windows)),
        graph::Assigner::Cumulating(windows) => Assigner::Cumulating(grid(windows)),
        graph::Assigner::Session(gap) => Assigner::Session(Duration::from_millis(gap)),
        graph::Assigner::Count(rows) => Assigner::Count { size: rows.size, step: rows.step },
        graph::Assigner::Everything => Assigner::Everything,
    }
}

fn domain(domain: graph::TimeDomain) -> TimeDomain {
    match domain {
        graph::TimeDomain::EventTime => TimeDomain::EventTime,
        graph::TimeDomain::ProcessingTime => TimeDomain::ProcessingTime,
    }
}

fn ttl(ttl: graph::Ttl) -> Ttl {
    Ttl { after: Duration::from_millis(ttl.after), on_read: ttl.on_read }
}

fn state(state: graph::State) -> Result<State, GuestError> {
    Ok(State {
        name: state.name,
        kind: match state.kind {
            graph::StateKind::Value => StateKind::Value,
            graph::StateKind::Dictionary(riding) => StateKind::Dictionary(
                riding
                    .into_iter()
                    .map(|riding| Riding { input: riding.input, columns: riding.columns })
                    .collect(),
            ),
            graph::StateKind::Sequence => StateKind::Sequence,
            graph::StateKind::Broadcast => StateKind::Broadcast,
        },
        key: schema(state.key)?,
        value: schema(state.value)?,
        ttl: state.ttl.map(ttl),
    })
}

fn connection(connection: graph::Connection) -> Result<Connection, GuestError> {
    Ok(Connection {
        connector: connection.connector,
        options: settings(connection.options)?,
        format: connection.format,
        format_options: settings(connection.format_options)?,
    })
}

fn edge(edge: graph::Edge) -> Edge {
    Edge {
        producer: edge.producer,
        port: edge.port,
        consumer: edge.consumer,
        input: edge.input,
        partition: match edge.partition {
            graph::Partition::Forward => Partition::Forward,
            graph::Partition::Hash(columns) => Partition::Hash(columns),
            graph::Partition::Rebalance => Partition::Rebalance,
            graph::Partition::Broadcast => Partition::Broadcast,
            graph::Partition::Global => Partition::Global,
            graph::Partition::Chosen(column) => Partition::Chosen(column),
        },
    }
}

fn schema(fields: Vec<rows::Field>) -> Result<SchemaRef, GuestError> {
    let flat: Vec<FlatField> = fields
        .into_iter()
        .map(|field| FlatField {
            name: field.name,
            logical_type: match field.data_type {
                rows::DataType::Boolean => LogicalType::Boolean,
                rows::DataType::Int32 => LogicalType::Int32,
                rows::DataType::Int64 => LogicalType::Int64,
                rows::DataType::Float32 => LogicalType::Float32,
                rows::DataType::Float64 => LogicalType::Float64,
                rows::DataType::Decimal(decimal) => {
                    LogicalType::Decimal { precision: decimal.precision, scale: decimal.scale }
                }
                rows::DataType::Text => LogicalType::Text,
                rows::DataType::Binary => LogicalType::Binary,
                rows::DataType::Date => LogicalType::Date,
                rows::DataType::Timestamp(unit) => LogicalType::Timestamp(match unit {
                    rows::TimeUnit::Milliseconds => TimeUnit::Millisecond,
                    rows::TimeUnit::Microseconds => TimeUnit::Microsecond,
                    rows::TimeUnit::Nanoseconds => TimeUnit::Nanosecond,
                }),
                rows::DataType::Sequence => LogicalType::Sequence,
                rows::DataType::Structure(members) => LogicalType::Structure(members),
            },
            nullable: field.nullable,
        })
        .collect();
    from_flat(&flat).map_err(|error| lied(error.to_string()))
}
