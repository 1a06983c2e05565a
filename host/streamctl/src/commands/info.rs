//! `streamctl info`: what a component is, without running it.

use arrow_schema::Schema;
use connectors::Need;
use graph::physical::partition_name;
use guest::{JobInfo, Program};
use model::job_graph::{Aggregate, Assigner, Edge, JoinForm, Node, NodeId, NodeKind, Partition};
use platform::Platform;
use serde_json::{Value, json};
use task::Plan;

use super::load;
use crate::cli::InfoArgs;
use crate::terminal::{Terminal, answer, bytes};
use crate::{Done, Stop};
use cluster::Config;

pub(crate) fn info(args: &InfoArgs, terminal: &Terminal) -> Done {
    let platform = Platform::system();
    let config = Config::load(&args.job.define).map_err(Stop::Refused)?;
    let runtime = load::runtime(&config, &platform)?;
    let file = &args.job.file;
    let program = load::program(&runtime, file)?;
    let jobs = load::jobs(&program, file)?;
    let job = load::job(&jobs, file, args.job.job.as_deref())?;
    let graph = match load::graph(&program, file, &job.name, &args.job.args) {
        Ok(graph) => graph,
        // A job that wants arguments has no graph without them; the rest can be told.
        Err(Stop::Usage(usage)) if args.job.args.is_empty() => {
            answer(&if args.json { as_json(&program, &jobs, None) } else { as_text(&program, &jobs, None) });
            terminal.line(&format!("The job has no graph without arguments: {usage}"));
            return Ok(());
        }
        Err(stop) => return Err(stop),
    };
    let code = load::terms(&args.job, config).version(&program, (&job.name, &args.job.args), graph);
    let plan = code.and_then(|code| code.plan(code.options.clone())).map_err(Stop::Refused)?;
    if args.plan {
        answer(&as_flinks(&plan));
        return Ok(());
    }
    let plan = Some((job, &plan));
    answer(&if args.json { as_json(&program, &jobs, plan) } else { as_text(&program, &jobs, plan) });
    Ok(())
}

fn need_text(need: &Need) -> String {
    match need {
        Need::Read(path) => format!("read {path}"),
        Need::Write(path) => format!("write {path}"),
        Need::Connect { host, port } => format!("connect to {host}:{port}"),
        Need::Stdin => "read standard input".to_owned(),
    }
}

fn kind_text(node: &Node) -> String {
    match &node.kind {
        NodeKind::Source(from) => format!("source {}", from.connector),
        NodeKind::Sink(to) => format!("sink {}", to.connector),
        NodeKind::Watermarks(_) => "watermarks".to_owned(),
        NodeKind::Function(function) if function.windows.is_some() => "keyed function in windows".to_owned(),
        NodeKind::Function(function) if function.is_keyed() => "keyed function".to_owned(),
        NodeKind::Function(function) if function.is_stateful() => "function with broadcast state".to_owned(),
        NodeKind::Function(_) => "function".to_owned(),
        NodeKind::Aggregate(list) => aggregates(list),
        NodeKind::Window(window) => {
            let kind = match &window.assigner {
                Assigner::Tumbling(_) => "tumbling",
                Assigner::Sliding(_) => "sliding",
                Assigner::Cumulating(_) => "cumulating",
                Assigner::Session(_) => "session",
                Assigner::Count { .. } => "count",
                Assigner::Everything => "global",
            };
            format!("{kind} windows: {}", aggregates(&window.aggregates))
        }
        NodeKind::Join(join) => {
            let form = match &join.form {
                JoinForm::Window(_) => "window",
                JoinForm::Interval { .. } => "interval",
                JoinForm::Unbounded(_) => "regular",
                JoinForm::Temporal(_) => "temporal",
            };
            format!("{form} join")
        }
        NodeKind::Top(top) => format!("first {} of each key", top.limit),
        NodeKind::Lookup(lookup) => format!("lookup in {}", lookup.table.connector),
    }
}

fn aggregates(aggregates: &[Aggregate]) -> String {
    aggregates.iter().map(|aggregate| aggregate.function.as_str()).collect::<Vec<_>>().join(", ")
}

fn schema_text(schema: &Schema) -> String {
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| {
            let optional = if field.is_nullable() { "?" } else { "" };
            format!("{} {}{optional}", field.name(), field.data_type())
        })
        .collect();
    columns.join(", ")
}

fn parallelism(plan: &Plan, id: NodeId) -> u32 {
    plan.physical
        .vertices
        .iter()
        .find(|vertex| vertex.stages.iter().any(|stage| stage.nodes.contains(&id)))
        .map_or(0, |vertex| vertex.parallelism)
}

/// An edge's partition, as it will run: forward between unequal parallelism is a rebalance.
fn partition_text(plan: &Plan, edge: &Edge) -> &'static str {
    match edge.partition {
        Partition::Forward if parallelism(plan, edge.producer) != parallelism(plan, edge.consumer) => {
            partition_name(&Partition::Rebalance)
        }
        _ => partition_name(&edge.partition),
    }
}

fn as_text(program: &Program, jobs: &[JobInfo], plan: Option<(&JobInfo, &Plan)>) -> String {
    let mut text = format!("component  {}, blake3 {}\n", bytes(program.bytes() as u64), program.digest());
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key:<10} {value}\n"));
    for (i, job) in jobs.iter().enumerate() {
        let default = if i == 0 && jobs.len() > 1 { " (default)" } else { "" };
        let about = job.description.lines().next().unwrap_or_default();
        line("job", format!("{}{default}  {about}", job.name).trim_end());
    }
    for import in program.imports() {
        line("import", import);
    }
    if program.imports().is_empty() {
        line("import", "none");
    }
    let Some((job, plan)) = plan else { return text };
    let physical = &plan.physical;
    for (id, need) in plan.needs() {
        let node = &physical.job.nodes[id as usize].name;
        line("asks to", &format!("{}  ({node})", need_text(&need)));
    }
    line("graph", &format!("of {}, max parallelism {}", job.name, physical.max_parallelism));
    for (id, node) in (0..).zip(&physical.job.nodes) {
        let origin = node.origin.as_ref().map(|origin| format!("  {origin}")).unwrap_or_default();
        let (mut kind, p) = (kind_text(node), parallelism(plan, id));
        if plan.has_two_phases(id) {
            kind.push_str("; LocalWindowAggregate, GlobalWindowAggregate");
        }
        text.push_str(&format!("  {id:>3}  {} [{kind}] x {p}{origin}\n", node.name));
        for edge in physical.job.edges_into(id) {
            let from = &physical.job.nodes[edge.producer as usize];
            let port = &from.outputs[edge.port as usize];
            let partition = partition_text(plan, edge);
            let schema = schema_text(&port.schema);
            text.push_str(&format!("         <- {} {partition}: {schema}\n", edge.producer));
        }
    }
    for (i, vertex) in physical.vertices.iter().enumerate() {
        let key = if i == 0 { "chains" } else { "" };
        text.push_str(&format!("{key:<10} {} x {}\n", vertex.name, vertex.parallelism));
    }
    text
}

/// The plan in the form of Flink's `info`.
fn as_flinks(plan: &Plan) -> String {
    let job = &plan.physical.job;
    let of_node = |(id, node): (NodeId, &Node)| {
        let (kind, prefix) = match &node.kind {
            NodeKind::Source(_) => ("Data Source", "Source: "),
            NodeKind::Sink(_) => ("Data Sink", "Sink: "),
            _ => ("Operator", ""),
        };
        let name =
            if node.name.starts_with(prefix) { node.name.clone() } else { format!("{prefix}{}", node.name) };
        let mut shown = json!({
            "id": id + 1,
            "type": name,
            "pact": kind,
            "contents": name,
            "parallelism": parallelism(plan, id),
        });
        let before: Vec<Value> = job
            .edges_into(id)
            .map(|edge| {
                json!({ "id": edge.producer + 1, "ship_strategy": partition_text(plan, edge), "side": "second" })
            })
            .collect();
        if !before.is_empty() {
            shown["predecessors"] = before.into();
        }
        shown
    };
    let nodes: Vec<Value> = (0..).zip(&job.nodes).map(of_node).collect();
    let line = "-".repeat(62);
    let title = "----------------------- Execution Plan -----------------------";
    let nodes = json!({ "nodes": nodes });
    let description = "No description provided.";
    format!("{title}\n{nodes:#}\n{line}\n\n{description}\n")
}

fn as_json(program: &Program, jobs: &[JobInfo], plan: Option<(&JobInfo, &Plan)>) -> String {
    let jobs: Vec<Value> =
        jobs.iter().map(|job| json!({ "name": job.name, "description": job.description })).collect();
    let mut answer = json!({
        "bytes": program.bytes(),
        "digest": program.digest(),
        "imports": program.imports(),
        "exports": program.exports(),
        "jobs": jobs,
    });
    let Some((job, plan)) = plan else { return format!("{answer:#}\n") };
    let physical = &plan.physical;
    let nodes: Vec<Value> = (0..)
        .zip(&physical.job.nodes)
        .map(|(id, node)| {
            json!({
                "id": id,
                "name": node.name,
                "uid": node.uid,
                "kind": kind_text(node),
                "two_phases": plan.has_two_phases(id),
                "origin": node.origin,
                "parallelism": parallelism(plan, id),
                "outputs": node.outputs.iter().map(|port| json!({
                    "name": port.name,
                    "columns": port.schema.fields().iter().map(|field| json!({
                        "name": field.name(),
                        "type": field.data_type().to_string(),
                        "nullable": field.is_nullable(),
                    })).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let edges: Vec<Value> = physical
        .job
        .edges
        .iter()
        .map(|edge| {
            json!({
                "from": edge.producer,
                "port": edge.port,
                "to": edge.consumer,
                "input": edge.input,
                "partition": partition_text(plan, edge),
            })
        })
        .collect();
    let chains: Vec<Value> = physical
        .vertices
        .iter()
        .map(|vertex| {
            let nodes: Vec<_> = vertex.stages.iter().flat_map(|stage| &stage.nodes).collect();
            json!({ "name": vertex.name, "parallelism": vertex.parallelism, "nodes": nodes })
        })
        .collect();
    let needs: Vec<Value> =
        plan.needs().iter().map(|(id, need)| json!({ "node": id, "asks": need_text(need) })).collect();
    answer["graph"] = json!({
        "job": job.name,
        "name": physical.job.name,
        "max_parallelism": physical.max_parallelism,
        "nodes": nodes,
        "edges": edges,
        "chains": chains,
        "needs": needs,
    });
    format!("{answer:#}\n")
}
