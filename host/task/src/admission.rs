//! Whether a job may start: its graph makes sense, its connectors exist, what it asks is granted,
//! its input is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use checkpoint::manifest::Operator;
use connectors::{Arriving, Need, SinkFactory, SourceFactory, SourcePort};
use graph::physical::Parallelism;
use graph::{PhysicalGraph, Vertex, arriving};
use guest::Program;
use model::Diagnostic;
use model::job_graph::{
    Edge, FailurePolicy, JobGraph, JoinForm, Lookup, Node, NodeId, NodeKind, Partition, Port,
};
use model::schema::same_types;
use platform::Faults;
use platform::faults::Point;
use window::{AggregateError, native_schema};

use crate::checkpoints::{kept, section};
use crate::deploy::uid_of;
use crate::grants::Grants;
use crate::operator::native::NativeFunction;
use crate::{AggPhase, Execution, Restored, RunOptions};

/// A job that may start.
pub struct Plan {
    /// Its graph, as it will run.
    pub physical: PhysicalGraph,
    /// Where its functions come from.
    pub(crate) program: Program,
    /// The name under which the component knows it.
    pub(crate) job: String,
    pub(crate) args: Vec<String>,
    pub(crate) options: RunOptions,
    pub(crate) sources: BTreeMap<NodeId, Arc<dyn SourceFactory>>,
    pub(crate) sinks: BTreeMap<NodeId, Arc<dyn SinkFactory>>,
    /// What reads the tables of lookups.
    pub(crate) tables: BTreeMap<NodeId, Arc<dyn SourceFactory>>,
    pub(crate) natives: BTreeMap<NodeId, NativeFunction>,
    /// The windows whose rows are aggregated before they are exchanged, too.
    pub(crate) two_phases: BTreeSet<NodeId>,
}

impl Plan {
    /// What the job asks of the outside, by node.
    #[must_use]
    pub fn needs(&self) -> Vec<(NodeId, Need)> {
        let sources = self.sources.iter().chain(&self.tables);
        let sources = sources.flat_map(|(id, s)| s.needs().into_iter().map(|n| (*id, n)));
        let sinks = self.sinks.iter().flat_map(|(id, s)| s.needs().into_iter().map(|n| (*id, n)));
        let mut needs: Vec<_> = sources.chain(sinks).collect();
        needs.sort_by_key(|(id, _)| *id);
        needs
    }

    /// Runs native code in the place of a function of the guest's, for comparing the two. A function
    /// that is fused with others stays the guest's.
    pub fn replace_function(&mut self, node: NodeId, function: NativeFunction) {
        self.natives.insert(node, function);
    }

    /// Writes to another sink in the place of one of the job's, for measuring what is before it.
    pub fn replace_sink(&mut self, node: NodeId, sink: Arc<dyn SinkFactory>) {
        self.sinks.insert(node, sink);
    }

    /// Whether a window's rows are aggregated before they are exchanged, too.
    #[must_use]
    pub fn has_two_phases(&self, node: NodeId) -> bool {
        self.two_phases.contains(&node)
    }

    /// Whether the input ends by itself.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.sources.values().all(|source| source.bounded())
    }

    /// Checks what the job asks of the outside against what the user grants, and looks whether it
    /// is there: input files, empty output folders; brings the outside back to what the job goes on from. The last
    /// thing before [`crate::start`].
    ///
    /// # Errors
    /// What is not granted, or not there.
    pub fn prepare(&self) -> Result<(), Diagnostic> {
        self.prepare_under(&Faults::none())
    }

    /// The same, where these may fail.
    ///
    /// # Errors
    /// What is not granted, or not there.
    pub fn prepare_under(&self, faults: &Faults) -> Result<(), Diagnostic> {
        let grants = Grants::new(&self.args, &self.options.allow);
        for (id, need) in self.needs() {
            grants.check(&self.physical.job.nodes[id as usize].name, &need)?;
        }
        self.restore_sources(faults)?;
        self.tables.values().try_for_each(|table| table.prepare())?;
        let checkpoints = self.options.checkpoints.as_ref();
        if self.options.attempt == 0 && !checkpoints.is_some_and(|checkpoints| checkpoints.takes_over) {
            return self.sinks.values().try_for_each(|sink| sink.prepare());
        }
        self.sinks.iter().try_for_each(|(id, sink)| {
            let uid = uid_of(&self.physical.job, *id);
            let kept = self.restored().map_or_else(Vec::new, |it| it.texts(&uid, section::PREPARED));
            sink.restore(&kept, faults)
        })
    }

    /// The part of [`prepare`](Self::prepare) that is about sources.
    ///
    /// # Errors
    /// What is not granted, or not there.
    pub fn prepare_sources(&self) -> Result<(), Diagnostic> {
        self.restore_sources(&Faults::none())
    }

    fn restore_sources(&self, faults: &Faults) -> Result<(), Diagnostic> {
        self.sources.iter().try_for_each(|(id, source)| {
            source.prepare()?;
            match self.restored() {
                Some(restored) => {
                    faults.pass(Point::SourceRestore).map_err(|error| {
                        Diagnostic::external("a source cannot be brought back to where it was")
                            .detail(error.to_string())
                    })?;
                    source.restore(&restored.texts(&uid_of(&self.physical.job, *id), section::POSITION))
                }
                None => Ok(()),
            }
        })
    }

    /// How the job is to run.
    #[must_use]
    pub fn options(&self) -> &RunOptions {
        &self.options
    }

    /// The names of sources whose rows come once only.
    #[must_use]
    pub fn sources_that_cannot_go_back(&self) -> Vec<String> {
        let once = self.sources.iter().filter(|(_, source)| !source.can_go_back());
        once.map(|(id, _)| self.physical.job.nodes[*id as usize].name.clone()).collect()
    }

    fn restored(&self) -> Option<&Restored> {
        self.options.checkpoints.as_ref()?.restored.as_deref()
    }
}

/// The job graph's own settings that a job may make; the command line wins over them.
const SETTINGS: [&str; 4] = [
    "parallelism.default",
    "pipeline.max-parallelism",
    "execution.runtime-mode",
    "table.optimizer.agg-phase-strategy",
];

/// Plans a job graph: chains and parallelism, connectors, types of aggregates and sinks. Opens
/// nothing and looks at nothing outside.
///
/// # Errors
/// What is wrong with the graph, for the user.
pub fn plan(
    program: &Program,
    job: &str,
    args: &[String],
    graph: JobGraph,
    options: RunOptions,
) -> Result<Plan, Diagnostic> {
    if options.parallelism == 0 {
        return Err(Diagnostic::user("parallelism is 0").hint("-p takes a number from 1 on"));
    }
    if let Some(unknown) = graph.settings.keys().find(|key| !SETTINGS.contains(&key.as_str())) {
        return Err(Diagnostic::user(format!("the job sets `{unknown}`, which a job cannot set"))
            .detail(format!("a job can set {}", SETTINGS.join(", "))));
    }
    // The graph is checked before anything reads it: connectors of nodes are looked at first,
    // which are in bounds whatever the edges say.
    graph::validate(&graph).map_err(|error| error.diagnostic())?;
    let (mut sources, mut sinks, mut tables) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (id, node) in (0..).zip(&graph.nodes) {
        let named = |error: Diagnostic| at_node(error, node);
        match &node.kind {
            NodeKind::Source(connection) => {
                let factory = connectors::source(connection, &source_ports(&graph, id)).map_err(named)?;
                sources.insert(id, factory);
            }
            NodeKind::Sink(connection) => {
                let schema = input_schema(&graph, id)
                    .ok_or_else(|| Diagnostic::internal("a sink without an input was planned"))?;
                let changes = options.execution == Execution::Streaming && takes_changelog(&graph, id);
                let factory = connectors::sink(connection, &Arriving { schema, changes }).map_err(named)?;
                sinks.insert(id, factory);
            }
            NodeKind::Join(join) => {
                check_native(&graph, id, node)?;
                if options.execution == Execution::Batch && matches!(join.form, JoinForm::Temporal(_)) {
                    check_versions(&graph, id).map_err(named)?;
                }
            }
            NodeKind::Aggregate(_) | NodeKind::Window(_) | NodeKind::Top(_) => {
                check_native(&graph, id, node)?;
            }
            NodeKind::Lookup(lookup) => {
                tables.insert(id, table_of(lookup).map_err(named)?);
            }
            NodeKind::Function(function)
                if function.windows.as_ref().is_some_and(|windows| windows.merges) && !program.merges() =>
            {
                let refused =
                    Diagnostic::user("its windows merge, and the component has nothing that merges")
                        .detail("it does not export `window-functions`");
                return Err(named(refused));
            }
            NodeKind::Watermarks(_) | NodeKind::Function(_) => {}
        }
    }
    let parallelism = Parallelism { default: options.parallelism, max: max_parallelism(&options)? };
    let physical = PhysicalGraph::plan(graph, parallelism, |id| {
        sources.get(&id).and_then(|source: &Arc<dyn SourceFactory>| source.parallelism_max())
    })
    .map_err(|error| error.diagnostic())?;
    check_kept(&physical, &options)?;
    let plan = Plan {
        two_phases: two_phases(&physical, options.agg_phase),
        physical,
        program: program.clone(),
        job: job.to_owned(),
        args: args.to_vec(),
        options,
        sources,
        sinks,
        tables,
        natives: BTreeMap::new(),
    };
    if plan.options.execution == Execution::Batch && !plan.is_bounded() {
        return Err(Diagnostic::user("--execution batch needs input that ends")
            .detail("a source of this job never ends by itself")
            .hint("run it with --execution streaming; files end without `monitor-interval`"));
    }
    Ok(plan)
}

/// The windows that aggregate in two phases.
fn two_phases(physical: &PhysicalGraph, wanted: AggPhase) -> BTreeSet<NodeId> {
    let has = |(v, vertex): (usize, &Vertex)| {
        let head = vertex.stages[0].nodes[0];
        let NodeKind::Window(window) = &physical.job.nodes[head as usize].kind else { return None };
        let shape = NativeShape::of(&physical.job, head);
        let can = window::local::has_two_phases(window, shape.inputs.first()?).ok()?
            && !shape.from_changes[0]
            && physical
                .edges_into(v)
                .all(|edge| matches!(edge.partition, Partition::Hash(_) | Partition::Global));
        // Measured: by key the two phases cost about what they save, unless one key has most of the rows; without
        // a key one subtask would have all the work.
        let helps = physical
            .edges_into(v)
            .any(|edge| edge.partition == Partition::Global && physical.vertices[edge.from].parallelism > 1);
        let is_wanted = match wanted {
            AggPhase::Auto => helps,
            AggPhase::OnePhase => false,
            AggPhase::TwoPhase => true,
        };
        (can && is_wanted).then_some(head)
    };
    physical.vertices.iter().enumerate().filter_map(has).collect()
}

/// The number of key groups that is asked for: that of the checkpoint, whose keys are in them.
fn max_parallelism(options: &RunOptions) -> Result<Option<u32>, Diagnostic> {
    let restored = options.checkpoints.as_ref().and_then(|checkpoints| checkpoints.restored.as_deref());
    let kept = restored.and_then(|restored| restored.manifest().operators.values().next());
    match (kept.map(|operator| operator.max_parallelism), options.max_parallelism) {
        (Some(kept), Some(asked)) if kept != asked => Err(Diagnostic::user(format!(
            "pipeline.max-parallelism is {asked}, and the checkpoint's is {kept}"
        ))
        .detail("the number of key groups stays what it was when the job began")
        .hint("leave it out: it is taken from the checkpoint")),
        (kept, asked) => Ok(asked.or(kept)),
    }
}

/// A checkpoint that keeps what nobody in the job asks for is of another job.
fn check_kept(physical: &PhysicalGraph, options: &RunOptions) -> Result<(), Diagnostic> {
    let restored = options.checkpoints.as_ref().and_then(|checkpoints| checkpoints.restored.as_deref());
    let Some(restored) = restored else { return Ok(()) };
    let uids: BTreeSet<String> =
        (0..).zip(&physical.job.nodes).map(|(id, _)| uid_of(&physical.job, id)).collect();
    let has_state =
        |operator: &&Operator| operator.subtasks.iter().any(|subtask| !subtask.sections.is_empty());
    let operators = restored.manifest().operators.iter().filter(|(_, operator)| has_state(operator));
    if let Some((uid, operator)) = operators.into_iter().find(|(uid, _)| !uids.contains(*uid))
        && !restored.allows_non_restored()
    {
        return Err(Diagnostic::user(format!(
            "the checkpoint has state of `{}` (uid `{uid}`), which is not in the job",
            operator.name
        ))
        .hint("give the operator that it is of the uid that it had; or leave its state out: -n (--allowNonRestoredState)"));
    }
    (0..).zip(&physical.job.nodes).try_for_each(|(id, node)| match &node.kind {
        NodeKind::Function(function) if function.is_stateful() => {
            let kept = kept::of_function(&physical.job, id, function);
            restored.check(&uid_of(&physical.job, id), &kept, function.windows.is_none())
        }
        _ => Ok(()),
    })
}

/// The connectors that a table can have.
const TABLES: [&str; 2] = ["files", "values"];

/// What reads the table of a lookup, which is read whole.
fn table_of(lookup: &Lookup) -> Result<Arc<dyn SourceFactory>, Diagnostic> {
    let connector = lookup.table.connector.as_str();
    let ports = [SourcePort { schema: Arc::clone(&lookup.schema), used: true }];
    let factory = connectors::source(&lookup.table, &ports)?;
    let refused = |why: &str| {
        Diagnostic::user(format!("`{connector}` cannot be the table of a lookup"))
            .detail(format!("a table is read whole, before the first row, and {connector} {why}"))
    };
    if !TABLES.contains(&connector) {
        let why = if factory.bounded() { "cannot be read again" } else { "never ends" };
        return Err(refused(why).hint(format!("a table can be read by {}", TABLES.join(" and "))));
    }
    if !factory.bounded() {
        return Err(refused("with `monitor-interval` never ends").hint(
            "leave `monitor-interval` out; a lookup with `reload` reads its table again, with new files",
        ));
    }
    Ok(factory)
}

/// Whether a native operator over keys can be made, and gives what its output declares.
fn check_native(graph: &JobGraph, id: NodeId, node: &Node) -> Result<(), Diagnostic> {
    let shape = NativeShape::of(graph, id);
    let refused = |error: AggregateError| at_node(Diagnostic::user(error.to_string()), node);
    let output =
        native_schema(&node.kind, &shape.inputs, &shape.keys, node.outputs[0].changes).map_err(refused)?;
    if !same_types(&output, &node.outputs[0].schema) {
        let detail =
            format!("it gives ({}), the graph says ({})", types(&output), types(&node.outputs[0].schema));
        return Err(
            at_node(Diagnostic::user("an operator's output is not what it gives"), node).detail(detail)
        );
    }
    Ok(())
}

/// In batch execution an operator that makes a changelog gives its last rows only, so that the versions
/// before them are not there for a temporal join.
fn check_versions(graph: &JobGraph, id: NodeId) -> Result<(), Diagnostic> {
    let mut ahead: Vec<&Edge> = graph.edges_into(id).filter(|edge| edge.input == 1).collect();
    let mut seen = BTreeSet::new();
    while let Some(edge) = ahead.pop() {
        if !port_of(graph, edge).changes || !seen.insert(edge.producer) {
            continue;
        }
        let node = &graph.nodes[edge.producer as usize];
        match node.kind {
            NodeKind::Function(_) | NodeKind::Watermarks(_) | NodeKind::Lookup(_) => {
                ahead.extend(graph.edges_into(edge.producer));
            }
            _ => {
                return Err(Diagnostic::user(format!("the versions of `{}` are not there", node.name))
                    .detail("with --execution batch it gives its last rows only")
                    .hint("run the job with --execution streaming"));
            }
        }
    }
    Ok(())
}

/// What a native operator over keys is made of.
pub(crate) struct NativeShape {
    /// The schema of each input.
    pub(crate) inputs: Vec<SchemaRef>,
    /// The columns that each is keyed by.
    pub(crate) keys: Vec<Vec<usize>>,
    /// Whether each is a changelog.
    pub(crate) from_changes: Vec<bool>,
    /// The schema of each port.
    pub(crate) outputs: Vec<SchemaRef>,
}

impl NativeShape {
    /// Of a node of a graph that has been validated.
    pub(crate) fn of(graph: &JobGraph, id: NodeId) -> Self {
        let node = &graph.nodes[id as usize];
        let mut shape =
            Self { inputs: Vec::new(), keys: Vec::new(), from_changes: Vec::new(), outputs: Vec::new() };
        for input in 0..node.kind.inputs() {
            let edges: Vec<_> = graph.edges_into(id).filter(|edge| edge.input as usize == input).collect();
            shape.from_changes.push(edges.iter().any(|edge| port_of(graph, edge).changes));
            let Some(first) = edges.first() else { continue };
            shape.inputs.push(Arc::new(arriving(port_of(graph, first), first)));
            shape.keys.push(match &first.partition {
                Partition::Hash(keys) => keys.iter().map(|key| *key as usize).collect(),
                _ => Vec::new(),
            });
        }
        shape.outputs = node.outputs.iter().map(|port| Arc::clone(&port.schema)).collect();
        shape
    }
}

/// The outputs by which a source's rows leave; that of bad records is the host's own.
fn source_ports(graph: &JobGraph, id: NodeId) -> Vec<SourcePort> {
    let node = &graph.nodes[id as usize];
    let diverted = usize::from(node.on_failure == FailurePolicy::Divert);
    let ports = &node.outputs[..node.outputs.len().saturating_sub(diverted)];
    let used = |port: u32| graph.edges.iter().any(|edge| edge.producer == id && edge.port == port);
    let ports = (0..).zip(ports);
    ports.map(|(at, port)| SourcePort { schema: Arc::clone(&port.schema), used: used(at) }).collect()
}

/// Whether updates and deletes may reach a node.
fn takes_changelog(graph: &JobGraph, id: NodeId) -> bool {
    graph.edges_into(id).any(|edge| port_of(graph, edge).changes)
}

/// The schema of the rows that reach a node.
pub(crate) fn input_schema(graph: &JobGraph, id: NodeId) -> Option<SchemaRef> {
    graph.edges_into(id).next().map(|edge| Arc::new(arriving(port_of(graph, edge), edge)))
}

fn port_of<'a>(graph: &'a JobGraph, edge: &Edge) -> &'a Port {
    &graph.nodes[edge.producer as usize].outputs[edge.port as usize]
}

fn types(schema: &Schema) -> String {
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("{} {}{}", f.name(), f.data_type(), if f.is_nullable() { "?" } else { "" }))
        .collect();
    columns.join(", ")
}

/// The error with the node that it is about.
fn at_node(error: Diagnostic, node: &Node) -> Diagnostic {
    let place = match &node.origin {
        Some(origin) => format!("node `{}`, written at {origin}", node.name),
        None => format!("node `{}`", node.name),
    };
    let detail = match &error.detail {
        Some(detail) => format!("{place}: {detail}"),
        None => place,
    };
    error.detail(detail)
}
