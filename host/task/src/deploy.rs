//! Makes a plan's subtasks: gates and channels, operators, and the workers that step them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::task::Waker;
use std::time::Duration;

use arrow_schema::{ArrowError, SchemaRef};
use checkpoint::manifest::{JobName, Table as KeptTable};
use connectors::{Context, SplitsOf};
use exchange::{Channel, InputGate, Partitioner};
use graph::{PhysicalEdge, PhysicalGraph, Stage, Vertex};
use guest::{NodePort, Task};
use model::Diagnostic;
use model::job_graph::{FailurePolicy, JobGraph, NodeId, NodeKind, Partition};
use model::key::key_group_owners;
use platform::{Platform, Random, ReadySet, available_parallelism};
use state::{Backend, SharedBackend};
use window::assigner::instant_type;
use window::keyed_aggregate::state_names;
use window::local::{Folding, LocalWindow, local_schema};
use window::operator::{Setting, operator_of};
use window::running_aggregate::running_aggregate;
use window::{KeyedAggregate, Standing};

use crate::checkpoints::checkpointer::{About, Checkpointer};
use crate::checkpoints::cut::{Chain, Cuts};
use crate::checkpoints::filling::{Filling, fill_all};
use crate::checkpoints::kept::{self, Kept};
use crate::checkpoints::restored::{Restored, Share};
use crate::checkpoints::teller::Teller;
use crate::checkpoints::{Checkpoints, section};

use crate::admission::{NativeShape, input_schema};
use crate::alignment::{Alignment, AlignmentGroup};
use crate::backends::NewBackend;
use crate::job::{Control, Watch};
use crate::metrics::times::TaskWatch;
use crate::metrics::{Counters, GuestHooks, LogSink};
use crate::operator::aggregate::AggregateOperator;
use crate::operator::function::{FunctionOperator, Work};
use crate::operator::keyed::KeyedStage;
use crate::operator::keyed_state::KeyedState;
use crate::operator::lookup::LookupOperator;
use crate::operator::lookup::table::{Table, TableSpec};
use crate::operator::native::NativeOperator;
use crate::operator::sink::SinkOperator;
use crate::operator::source::SourceOperator;
use crate::operator::split_times::{SplitTimes, none_yet};
use crate::operator::watermarks::{EventTime, WatermarksOperator};
use crate::operator::window_keys::{KeyedBy, extent_state};
use crate::operator::windowed::{Windowed, keyed_by};
use crate::operator::{Input, Place, native_error, state_error};
use crate::output::Output;
use crate::subtask::{Eaten, Operator, Pulse, StageInstance, Subtask, Target};
use crate::swap::Version;
use crate::swap::asking::{Component, Swaps};
use crate::swap::code::{Ground, operators};
use crate::worker::{Wakes, Worker};
use crate::{AggPhase, Execution, Plan};

/// A job's workers, ready to run.
pub(crate) struct Deployed {
    pub(crate) workers: Vec<Worker>,
    /// Where checkpoints are made: who decides of them, and what wakes him.
    pub(crate) checkpointer: Option<(Checkpointer, Arc<ReadySet>)>,
    pub(crate) control: Arc<Control>,
    pub(crate) watch: Watch,
    pub(crate) swaps: Swaps,
}

/// What one subtask may have in flight, at least and at most.
const FLIGHT_BYTES: (usize, usize) = (128 << 10, 4 << 20);

/// One worker a slot, up to this many; above it several slots a worker.
fn worker_count(slots: usize, cores: usize) -> usize {
    slots.min((4 * cores).max(16))
}

/// Makes what keeps a subtask's keyed state.
pub(crate) type Backends<'a> = &'a mut dyn FnMut(&NewBackend<'_>) -> Result<Box<dyn Backend>, ArrowError>;

/// Makes all subtasks of a job and gives them to workers, every one ready for its first step.
pub(crate) fn deploy(
    plan: Plan,
    platform: &Platform,
    log: &LogSink,
    backends: Backends<'_>,
) -> Result<Deployed, Diagnostic> {
    let slots = plan.physical.slots() as usize;
    let cores = if platform.clock.is_simulated() { 2 } else { available_parallelism() };
    let count = worker_count(slots, cores);
    // Where each subtask lives: its worker, and its number there. Subtask i of every chain shares
    // slot i.
    let mut sizes = vec![0; count];
    let places: Vec<Vec<(usize, usize)>> = plan
        .physical
        .vertices
        .iter()
        .map(|vertex| {
            (0..vertex.parallelism as usize)
                .map(|subtask| {
                    let worker = subtask % count;
                    sizes[worker] += 1;
                    (worker, sizes[worker] - 1)
                })
                .collect()
        })
        .collect();
    let ready: Vec<Arc<ReadySet>> = sizes.iter().map(|size| ReadySet::new(*size)).collect();
    let control = Control::new();
    control.set_workers(ready.clone());
    let mut workers: Vec<Worker> = ready
        .iter()
        .zip(&sizes)
        .map(|(ready, size)| Worker {
            ready: Arc::clone(ready),
            subtasks: (0..*size).map(|_| None).collect(),
            control: Arc::clone(&control),
            clock: platform.clock.clone(),
            wakes: Wakes::default(),
        })
        .collect();
    let wakers: Vec<Vec<Waker>> = places
        .iter()
        .map(|subtasks| subtasks.iter().map(|(worker, index)| ready[*worker].waker(*index)).collect())
        .collect();
    let watch = Watch::of(&plan, &platform.clock);
    let version = plan.version();
    let ground = Ground::of(&version, log, (&watch.user, &platform.clock), plan.options.attempt);
    let subtask_wakers: Vec<Waker> = wakers.iter().flatten().cloned().collect();
    let mut checkpointer = plan.options.checkpoints.as_ref().map(|checkpoints| {
        let ready = ReadySet::new(1);
        ready.mark(0);
        let about = about(&version, checkpoints);
        let waker = ready.waker(0);
        let teller = Teller::new(&plan.options.checkpoint_tracker, log, &platform.clock);
        let around = (platform, &control);
        let checkpointer = Checkpointer::new(checkpoints, about, &subtask_wakers, &waker, around, teller);
        (checkpointer, ready)
    });
    let (alignments, split_times, tables) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (kept, fillings) = (BTreeMap::new(), Vec::new());
    let mut deployment = Deployment {
        plan,
        platform,
        log,
        backends,
        wakers,
        watch,
        alignments,
        split_times,
        tables,
        kept,
        fillings,
    };
    let (mut gates, mut channels) = deployment.exchanges();
    let mut number = 0;
    for (v, subtasks) in places.iter().enumerate() {
        for (s, (worker, index)) in subtasks.iter().enumerate() {
            let gate = gates[v][s].take();
            let mut subtask = deployment.subtask(v, s, gate, &mut channels)?;
            subtask.cuts =
                checkpointer.as_ref().map(|(checkpointer, _)| Cuts::new(checkpointer.line(number)));
            number += 1;
            workers[*worker].subtasks[*index] = Some(subtask);
            workers[*worker].ready.mark(*index);
        }
    }
    let (filled, fillings): (Vec<_>, Vec<_>) = std::mem::take(&mut deployment.fillings).into_iter().unzip();
    if let Some(restored) = deployment.restored() {
        let threads = if platform.clock.is_simulated() { 1 } else { cores };
        for ((v, s, stage), chain) in filled.into_iter().zip(fill_all(restored, fillings, threads)?) {
            let (worker, index) = places[v][s];
            if let Some(subtask) = &mut workers[worker].subtasks[index] {
                subtask.stages[stage].chain = chain;
            }
        }
    }
    if let Some((checkpointer, _)) = &mut checkpointer {
        checkpointer.begin(deployment.kept);
    }
    let asks = checkpointer.as_ref().map(|(checkpointer, _)| checkpointer.swap_asks());
    let swaps = Swaps::new(version, ground, asks);
    Ok(Deployed { workers, checkpointer, control, watch: deployment.watch, swaps })
}

/// What manifests say of a job.
fn about(version: &Version, checkpoints: &Checkpoints) -> About {
    let physical = &version.physical;
    let places = physical.vertices.iter().flat_map(|vertex| 0..vertex.parallelism);
    let job = JobName {
        id: checkpoints.job_id.clone(),
        name: physical.job.name.clone(),
        component: version.digest().to_owned(),
    };
    let component = Component::of(version);
    let operators = operators(version, version);
    About { job, component, places: places.collect(), operators, tables: BTreeMap::new() }
}

/// Which part of an operator's state is a subtask's.
fn share(physical: &PhysicalGraph, uid: String, subtask: u32, parallelism: u32, key_columns: usize) -> Share {
    Share {
        uid,
        subtask,
        parallelism,
        max_parallelism: physical.max_parallelism,
        key_columns,
        is_global: false,
    }
}

/// What names an operator in a checkpoint.
pub(crate) fn uid_of(job: &JobGraph, id: NodeId) -> String {
    let node = &job.nodes[id as usize];
    node.uid.clone().unwrap_or_else(|| format!("{}-{id}", node.name))
}

/// What names the operators of a chain.
pub(crate) fn uids_of(job: &JobGraph, chain: &[NodeId]) -> BTreeMap<NodeId, Arc<str>> {
    chain.iter().map(|id| (*id, uid_of(job, *id).into())).collect()
}

/// What a manifest says of an operator's backends.
fn tables_of(kept: &[Kept]) -> Vec<KeptTable> {
    kept.iter().enumerate().flat_map(|(number, kept)| kept.tables(number)).collect()
}

struct Deployment<'a> {
    plan: Plan,
    platform: &'a Platform,
    log: &'a LogSink,
    backends: Backends<'a>,
    /// By vertex and subtask.
    wakers: Vec<Vec<Waker>>,
    watch: Watch,
    /// By the name of the group.
    alignments: BTreeMap<String, Arc<AlignmentGroup>>,
    /// By the operator that makes watermarks: those of its source's splits.
    split_times: BTreeMap<NodeId, Arc<[AtomicI64]>>,
    /// By the lookup.
    tables: BTreeMap<NodeId, Arc<Table>>,
    /// By the operator: what the tables of its keyed state are called.
    kept: BTreeMap<NodeId, Vec<KeptTable>>,
    /// The state that is to be restored, and whose it is: vertex, subtask and stage.
    fillings: Vec<((usize, usize, usize), Filling)>,
}

/// Where a stage's keyed state is.
#[derive(Default)]
struct StateOfStage {
    backends: Vec<SharedBackend>,
    /// It is to be restored.
    filling: Option<Filling>,
}

/// The gates by vertex and subtask.
type Gates = Vec<Vec<Option<InputGate>>>;
/// Which port of a subtask leads to which of its outputs.
type Exits = Vec<(NodeId, u32, Target)>;
/// The sending ends by physical edge and producer's subtask.
type Channels = Vec<Vec<Vec<Channel>>>;

impl Deployment<'_> {
    /// What the job goes on from.
    fn restored(&self) -> Option<&Arc<Restored>> {
        self.plan.options.checkpoints.as_ref()?.restored.as_ref()
    }

    /// What is restored of an operator's windows beside their state.
    fn standing(&self, uid: &str) -> Option<Standing> {
        let standing = Standing::of_all(&self.restored()?.texts(uid, section::WINDOWS))?;
        // After a drain there is nothing that could be late.
        (standing.passed < i64::MAX).then_some(standing)
    }

    /// Makes the gates and channels of all edges.
    fn exchanges(&self) -> (Gates, Channels) {
        let physical = &self.plan.physical;
        let queue_rows = self.plan.options.sizes.queue_rows;
        let mut gates: Gates = (0..physical.vertices.len())
            .map(|v| {
                let has_input = physical.edges_into(v).next().is_some();
                self.wakers[v]
                    .iter()
                    .map(|waker| {
                        has_input.then(|| {
                            let gate = InputGate::new(waker.clone());
                            queue_rows.into_iter().for_each(|rows| gate.set_rows_max(rows));
                            gate
                        })
                    })
                    .collect()
            })
            .collect();
        let channels = physical
            .edges
            .iter()
            .map(|edge| {
                (0..physical.vertices[edge.from].parallelism as usize)
                    .map(|producer| {
                        let consumers = &mut gates[edge.to];
                        let reached = match edge.partition {
                            Partition::Forward => producer..producer + 1,
                            _ => 0..consumers.len(),
                        };
                        consumers[reached]
                            .iter_mut()
                            .flatten()
                            .map(|gate| gate.add_channel(edge.input))
                            .collect()
                    })
                    .collect()
            })
            .collect();
        (gates, channels)
    }

    fn subtask(
        &mut self,
        v: usize,
        s: usize,
        gate: Option<InputGate>,
        channels: &mut Channels,
    ) -> Result<Subtask, Diagnostic> {
        let vertex = self.plan.physical.vertices[v].clone();
        let waker = self.wakers[v][s].clone();
        let (outputs, exits) = self.outputs(v, s, &waker, channels)?;
        let mut stages = Vec::with_capacity(vertex.stages.len());
        let mut watch = TaskWatch::new(self.platform.clock.clone());
        for (at, stage) in vertex.stages.iter().enumerate() {
            let mut targets: Vec<(NodeId, u32, Target)> =
                exits.iter().filter(|(node, _, _)| stage.nodes.contains(node)).copied().collect();
            targets.extend(vertex.stages.iter().enumerate().filter_map(|(next, other)| match other.fed_by {
                Some((from, node, port)) if from == at => Some((node, port, Target::Stage(next))),
                _ => None,
            }));
            let counters = Arc::new(Counters::default());
            let mut state = StateOfStage::default();
            let mut operator = self.operator((v, s), &vertex, stage, &targets, &waker, &mut state)?;
            self.fillings.extend(state.filling.map(|filling| ((v, s, at), filling)));
            if let (Operator::Watermarks(node, watermarks), Some((from, _, 0))) =
                (&mut operator, stage.fed_by)
                && let Some(StageInstance { operator: Operator::Source(_, source), .. }) = stages.get(from)
                && let Some(splits) = source.source.splits()
            {
                watermarks.splits = Some(self.split_times(*node, splits, s));
            }
            let counted = match &operator {
                Operator::Sink(_) => stage.nodes[stage.nodes.len() - 1],
                _ => stage.nodes[0],
            };
            self.watch.counters.push((counted, Arc::clone(&counters)));
            watch.stages.push(Arc::clone(&counters));
            stages.push(StageInstance {
                operator,
                input: Input::default(),
                targets,
                counters,
                ended: false,
                halted: None,
                node: stage.nodes[0],
                backends: state.backends,
                snapshot: None,
                chain: Chain::default(),
            });
        }
        let is_source = matches!(&stages[..], [StageInstance { operator: Operator::Source(..), .. }, ..]);
        let interval = self.plan.options.latency_interval.filter(|_| is_source);
        let pulse = interval.map(|every| Pulse {
            // Jobs have at most 10,000 operators.
            source: v as u32,
            every,
            next: self.platform.clock.now() + every,
        });
        let watch = Arc::new(watch);
        self.watch.tasks[v].push(Arc::clone(&watch));
        Ok(Subtask {
            gate,
            stages,
            outputs,
            clock: self.platform.clock.clone(),
            sizes: self.plan.options.sizes,
            eaten: Eaten::default(),
            blocked: false,
            cuts: None,
            swap: None,
            swaps_early: false,
            watch,
            held_told: Duration::ZERO,
            pulse,
        })
    }

    /// A subtask's event time by split, for the operator that makes watermarks of a source's rows.
    fn split_times(&mut self, node: NodeId, splits: SplitsOf, s: usize) -> SplitTimes {
        let subtask = u32::try_from(s).unwrap_or(u32::MAX);
        self.watch.splits.insert((node, subtask), splits.clone());
        match splits {
            SplitsOf::All(splits) => {
                let times = self.split_times.entry(node).or_insert_with(|| none_yet(&splits));
                SplitTimes::all(splits, Arc::clone(times), subtask)
            }
            SplitsOf::Found(splits) => SplitTimes::found(splits),
        }
    }

    /// A subtask's outgoing edges, and which port leads to which.
    fn outputs(
        &self,
        v: usize,
        s: usize,
        waker: &Waker,
        channels: &mut Channels,
    ) -> Result<(Vec<Output>, Exits), Diagnostic> {
        let physical = &self.plan.physical;
        let producers: u32 = physical.vertices.iter().map(|vertex| vertex.parallelism).sum();
        let flight = (self.plan.options.sizes.flight_bytes / producers.max(1) as usize)
            .clamp(FLIGHT_BYTES.0, FLIGHT_BYTES.1);
        let (mut outputs, mut exits) = (Vec::new(), Vec::new());
        for (e, edge) in physical.edges.iter().enumerate().filter(|(_, edge)| edge.from == v) {
            let consumers = physical.vertices[edge.to].parallelism;
            let owners: Arc<[u16]> = match edge.partition {
                Partition::Hash(_) => key_group_owners(physical.max_parallelism, consumers).into(),
                _ => Arc::from([]),
            };
            let subtask = u32::try_from(s).unwrap_or(u32::MAX);
            let local = self.local_window(edge, subtask)?;
            // What the first phase gives has the key's columns first.
            let partition = match &edge.partition {
                Partition::Hash(keys) if local.is_some() => Partition::Hash((0..keys.len() as u32).collect()),
                partition => partition.clone(),
            };
            let partitioner = Partitioner::new(&partition, subtask, consumers, owners);
            let first = if edge.partition == Partition::Forward { subtask } else { 0 };
            exits.push((edge.node, edge.port, Target::Output(outputs.len())));
            let to = std::mem::take(&mut channels[e][s]);
            let output = Output::new(partitioner, to, first, flight, waker.clone());
            outputs.push(match local {
                Some((local, place)) => output.aggregating(local, place),
                None => output,
            });
        }
        Ok((outputs, exits))
    }

    /// The first phase of the aggregation that an edge leads to, and where that is.
    fn local_window(
        &self,
        edge: &PhysicalEdge,
        producer: u32,
    ) -> Result<Option<(LocalWindow, Place)>, Diagnostic> {
        let (plan, physical) = (&self.plan, &self.plan.physical);
        let head = physical.vertices[edge.to].stages[0].nodes[0];
        let node = &physical.job.nodes[head as usize];
        let (true, NodeKind::Window(window)) = (plan.two_phases.contains(&head), &node.kind) else {
            return Ok(None);
        };
        let place = Place {
            job: physical.job.name.clone(),
            operator: format!("{}, first phase", node.name),
            origins: node.origin.iter().cloned().collect(),
            subtask: producer,
            parallelism: physical.vertices[edge.from].parallelism,
        };
        let shape = NativeShape::of(&physical.job, head);
        let folding = match plan.options.agg_phase {
            AggPhase::TwoPhase => Folding::Always,
            AggPhase::Auto | AggPhase::OnePhase => Folding::WhileItHelps,
        };
        let seed = plan.options.seed.unwrap_or_else(Random::unpredictable_seed);
        let local = LocalWindow::new(window, &shape.inputs[0], &shape.keys[0], folding, seed);
        Ok(Some((local.map_err(|error| native_error(&place, &error))?, place)))
    }

    fn operator(
        &mut self,
        (v, s): (usize, usize),
        vertex: &Vertex,
        stage: &Stage,
        targets: &[(NodeId, u32, Target)],
        waker: &Waker,
        state_of: &mut StateOfStage,
    ) -> Result<Operator, Diagnostic> {
        let head = stage.nodes[0];
        let table = self.table(head);
        let plan = &self.plan;
        let checkpoints = plan.options.checkpoints.as_ref();
        let restored = checkpoints.and_then(|checkpoints| checkpoints.restored.as_deref());
        let uid = uid_of(&plan.physical.job, head);
        let standing = self.standing(&uid);
        let node = &plan.physical.job.nodes[head as usize];
        let subtask = u32::try_from(s).unwrap_or(u32::MAX);
        let names: Vec<&str> =
            stage.nodes.iter().map(|n| plan.physical.job.nodes[*n as usize].name.as_str()).collect();
        let place = Place {
            job: plan.physical.job.name.clone(),
            operator: names.join(" -> "),
            origins: stage
                .nodes
                .iter()
                .filter_map(|node| plan.physical.job.nodes[*node as usize].origin.clone())
                .collect(),
            subtask,
            parallelism: vertex.parallelism,
        };
        let context = || Context {
            platform: self.platform.clone(),
            subtask,
            parallelism: vertex.parallelism,
            waker: waker.clone(),
            batch_rows: plan.options.sizes.batch_rows,
            batch_bytes: plan.options.sizes.batch_bytes,
            checkpoints: checkpoints.is_some(),
        };
        // Nodes have few ports.
        let port = |port: usize| (port as u32, Arc::clone(&node.outputs[port].schema));
        let is_diverted = node.on_failure == FailurePolicy::Divert;
        let mut failures: Vec<(u32, SchemaRef)> =
            node.failure_ports().filter(|_| is_diverted).map(port).collect();
        let missing = || Diagnostic::internal(format!("`{}` was planned without its connector", node.name));
        match &node.kind {
            NodeKind::Source(_) => Ok(Operator::Source(
                head,
                Box::new(SourceOperator {
                    source: plan.sources.get(&head).ok_or_else(missing)?.open(context())?,
                    policy: node.on_failure,
                    failures: failures.pop(),
                    place,
                    bytes_seen: 0,
                    can_go_back: plan.sources[&head].can_go_back(),
                }),
            )),
            NodeKind::Sink(_) => Ok(Operator::Sink(Box::new(SinkOperator::new(
                plan.sinks.get(&head).ok_or_else(missing)?.open(context())?,
                checkpoints.is_some(),
            )))),
            NodeKind::Window(_) | NodeKind::Join(_) | NodeKind::Top(_) => {
                Ok(Operator::Keyed(head, Box::new(self.keyed(head, place, waker, state_of)?)))
            }
            NodeKind::Aggregate(_)
                if node.outputs[0].changes || plan.options.keeps_aggregates_in_a_backend() =>
            {
                Ok(Operator::Keyed(head, Box::new(self.keyed(head, place, waker, state_of)?)))
            }
            NodeKind::Aggregate(aggregates) => {
                let input = input_schema(&plan.physical.job, head).ok_or_else(missing)?;
                let keys = plan.physical.key_of(v, 0).unwrap_or_default();
                let seed = plan.options.seed.unwrap_or_else(Random::unpredictable_seed);
                let output = Arc::clone(&node.outputs[0].schema);
                let state = state_names(aggregates, &input, &output)
                    .map_err(|error| Diagnostic::internal(error.to_string()))?;
                let mut aggregate = KeyedAggregate::new(&input, keys, aggregates, output, seed)
                    .map_err(|error| Diagnostic::internal(error.to_string()))?;
                let names = keys.iter().map(|key| input.field(*key as usize).name().clone()).collect();
                self.kept.insert(head, vec![kept::of_aggregate(names, state)]);
                if let Some(restored) = restored {
                    let share = share(&plan.physical, uid, subtask, vertex.parallelism, keys.len());
                    let share = Share { is_global: keys.is_empty(), ..share };
                    restored.fill_aggregate(&share, &mut |chunk| aggregate.import(&chunk))?;
                }
                let (execution, fold) = (plan.options.execution, plan.options.fold_updates);
                Ok(Operator::Aggregate(
                    head,
                    Box::new(AggregateOperator { aggregate, execution, fold, given: 0, place }),
                ))
            }
            NodeKind::Watermarks(spec) => Ok(Operator::Watermarks(
                head,
                Box::new(WatermarksOperator {
                    spec: spec.clone(),
                    clock: self.platform.clock.clone(),
                    policy: node.on_failure,
                    failures: failures.pop(),
                    place,
                    alignment: spec.alignment.as_ref().map(|alignment| {
                        let group = self.alignments.entry(alignment.group.clone()).or_default();
                        Alignment::join(group, alignment.drift_max, waker.clone())
                    }),
                    splits: None,
                    progress: {
                        let mut progress = EventTime::new(self.platform.clock.now());
                        restored.into_iter().for_each(|restored| progress.raise(restored.watermark(&uid)));
                        progress
                    },
                }),
            )),
            NodeKind::Lookup(lookup) => {
                let (keys, outer) = (lookup.keys.iter().map(|key| *key as usize).collect(), lookup.outer);
                let output = Arc::clone(&node.outputs[0].schema);
                let table = table.ok_or_else(missing)?;
                table.wakes(waker.clone());
                let work = None;
                Ok(Operator::Lookup(
                    head,
                    Box::new(LookupOperator { table, keys, outer, output, place, work }),
                ))
            }
            NodeKind::Function(_) if plan.natives.contains_key(&head) && stage.nodes.len() == 1 => {
                let function = Arc::clone(&plan.natives[&head]);
                Ok(Operator::Native(head, NativeOperator { function }))
            }
            NodeKind::Function(function) => {
                let outputs: BTreeSet<(NodeId, u32)> =
                    targets.iter().map(|(node, port, _)| (*node, *port)).collect();
                let outputs: Vec<(NodeId, u32)> = outputs.into_iter().collect();
                let mut windows = None;
                let keyed = if !function.is_stateful() {
                    None
                } else {
                    let keys: Vec<Option<Vec<usize>>> = (0..)
                        .zip(&function.inputs)
                        .map(|(input, _)| {
                            let keys = plan.physical.key_of(v, input)?;
                            Some(keys.iter().map(|key| *key as usize).collect())
                        })
                        .collect();
                    let keyed_input = function.inputs.iter().zip(&keys).find_map(|(schema, keys)| {
                        let keys = keys.as_ref()?;
                        Some(keys.iter().map(|key| schema.field(*key).data_type().clone()).collect())
                    });
                    let mut types: Vec<_> = keyed_input.unwrap_or_default();
                    let key_columns = types.len();
                    let key_names: Vec<String> = kept::key_of(&plan.physical.job, head, function)
                        .into_iter()
                        .map(|(name, _)| name)
                        .collect();
                    let mut kept = Vec::new();
                    let mut states = function.states.clone();
                    let seed = plan.options.seed.unwrap_or_else(Random::unpredictable_seed);
                    let kind = function.windows.as_ref().map(|of| (of, keyed_by(of, function.timers)));
                    if let Some((of, kind)) = kind {
                        let backends = &mut self.backends;
                        let made = Windowed::new(
                            of,
                            function.timers,
                            plan.options.execution == Execution::Batch,
                            &types,
                            &mut |types, states| {
                                let new = NewBackend { key_types: types, states, seed, waker };
                                let backend = SharedBackend::new(backends(&new)?);
                                state_of.backends.push(backend.clone());
                                kept.push(Kept::new(&key_names, types, states));
                                Ok(Box::new(backend))
                            },
                        );
                        windows = Some(Box::new(made.map_err(|error| native_error(&place, &error))?));
                        types.extend(std::iter::repeat_n(instant_type(), kept::window_columns(kind)));
                        states.extend((kind == KeyedBy::Session).then(extent_state));
                    }
                    let new = NewBackend { key_types: &types, states: &states, seed, waker };
                    let backend =
                        SharedBackend::new((self.backends)(&new).map_err(|error| state_error(None, &error))?);
                    state_of.backends.push(backend.clone());
                    kept.push(Kept::new(&key_names, &types, &states));
                    let tables = tables_of(&kept);
                    self.kept.insert(head, tables.clone());
                    if restored.is_some() {
                        let share = share(&plan.physical, uid, subtask, vertex.parallelism, key_columns);
                        let backends = state_of.backends.clone();
                        state_of.filling = Some(Filling { share, backends, kept, aggregate: None, tables });
                    }
                    let keyed = KeyedState::new(Box::new(backend), keys, &function.states);
                    Some(match (kind, &windows) {
                        (Some((of, kind)), Some(windows)) => {
                            keyed.in_windows(windows.clock(), kind, of.merges)
                        }
                        _ => keyed,
                    })
                };
                let schema = |node: NodeId, port: u32| {
                    Arc::clone(&plan.physical.job.nodes[node as usize].outputs[port as usize].schema)
                };
                let hooks = GuestHooks {
                    log: Arc::clone(self.log),
                    function: place.operator.clone(),
                    subtask,
                    metrics: Arc::clone(&self.watch.user),
                    uids: uids_of(&plan.physical.job, &stage.nodes),
                    told: AtomicBool::new(false),
                };
                let chain = plan.program.open(guest::Opening {
                    task: Task {
                        job: plan.job.clone(),
                        args: plan.args.clone(),
                        subtask,
                        parallelism: vertex.parallelism,
                        attempt: plan.options.attempt,
                    },
                    chain: stage.nodes.clone(),
                    outputs: outputs
                        .iter()
                        .map(|(node, port)| NodePort { node: *node, port: *port })
                        .collect(),
                    schemas: outputs.iter().map(|(node, port)| schema(*node, *port)).collect(),
                    states: function.states.iter().cloned().collect(),
                    broadcast_input: plan.physical.job.broadcast_input(head),
                    reader: keyed.as_ref().and_then(KeyedState::reader),
                    hooks: Arc::new(hooks),
                });
                let nodes = stage
                    .nodes
                    .iter()
                    .map(|id| {
                        let node = &plan.physical.job.nodes[*id as usize];
                        (*id, node.name.clone(), node.on_failure)
                    })
                    .collect();
                let mut function = FunctionOperator {
                    chain,
                    clock: self.platform.clock.clone(),
                    place,
                    nodes,
                    outputs,
                    failures,
                    ways: Vec::new(),
                    states: function.states.clone(),
                    keyed,
                    windows,
                    chaos_instances: plan.options.chaos_instances,
                    rows_max: plan.options.sizes.call_rows,
                    trial: None,
                    work: Work::default(),
                };
                standing.into_iter().for_each(|standing| function.stand(standing));
                Ok(Operator::Function(Box::new(function)))
            }
        }
    }

    /// The table that a lookup's subtasks share; it is read from the first on.
    fn table(&mut self, id: NodeId) -> Option<Arc<Table>> {
        let job = &self.plan.physical.job;
        let node = &job.nodes[id as usize];
        let NodeKind::Lookup(lookup) = &node.kind else { return None };
        let (options, platform, log) = (&self.plan.options, self.platform, self.log);
        let of_node = || {
            let spec = TableSpec {
                name: node.name.clone(),
                origin: node.origin.clone(),
                connection: lookup.table.clone(),
                schema: Arc::clone(&lookup.schema),
                keys: lookup.table_keys.iter().map(|key| *key as usize).collect(),
                reload: lookup.reload,
                policy: node.on_failure,
                sizes: options.sizes,
                seed: options.seed.unwrap_or_else(Random::unpredictable_seed),
            };
            Table::new(spec, platform, log)
        };
        Some(Arc::clone(self.tables.entry(id).or_insert_with(of_node)))
    }

    /// A native operator over keys.
    fn keyed(
        &mut self,
        id: NodeId,
        place: Place,
        waker: &Waker,
        state_of: &mut StateOfStage,
    ) -> Result<KeyedStage, Diagnostic> {
        let (plan, backends) = (&self.plan, &mut self.backends);
        let job = &plan.physical.job;
        let node = &job.nodes[id as usize];
        let seed = plan.options.seed.unwrap_or_else(Random::unpredictable_seed);
        let batch = plan.options.execution == Execution::Batch;
        let mut shape = NativeShape::of(job, id);
        let first = shape.inputs.first().zip(shape.keys.first());
        let key_names: Vec<String> = first
            .map(|(schema, keys)| keys.iter().map(|key| schema.field(*key).name().clone()).collect())
            .unwrap_or_default();
        let mut kept = Vec::new();
        let keys = shape.keys.first().map_or(0, Vec::len);
        let mut first_phase = None;
        if let (true, NodeKind::Window(window)) = (plan.two_phases.contains(&id), &node.kind) {
            let folded = local_schema(window, &shape.inputs[0], &shape.keys[0]);
            let folded = folded.map_err(|error| native_error(&place, &error))?;
            first_phase = Some(std::mem::replace(&mut shape.inputs[0], folded));
            shape.keys[0] = (0..keys).collect();
        }
        let setting = Setting {
            inputs: &shape.inputs,
            first_phase: first_phase.as_ref(),
            keys: &shape.keys,
            outputs: &shape.outputs,
            changes: node.outputs.first().is_some_and(|port| port.changes),
            from_changes: &shape.from_changes,
            batch,
            backend: &mut |types, states| {
                let new = NewBackend { key_types: types, states, seed, waker };
                let backend = SharedBackend::new(backends(&new)?);
                state_of.backends.push(backend.clone());
                kept.push(Kept::new(&key_names, types, states));
                Ok(Box::new(backend))
            },
        };
        let running = match &node.kind {
            NodeKind::Aggregate(list) if !setting.changes => Some(list),
            _ => None,
        };
        let operator = match running {
            Some(list) => running_aggregate(list, setting, plan.options.fold_updates),
            None => operator_of(&node.kind, setting),
        };
        let operator = operator.map_err(|error| native_error(&place, &error))?;
        let tables = match running {
            Some(list) => {
                let names = state_names(list, &shape.inputs[0], &shape.outputs[0]);
                vec![kept::of_aggregate(key_names, names.map_err(|error| native_error(&place, &error))?)]
            }
            None => tables_of(&kept),
        };
        if self.restored().is_some() {
            let share = share(&plan.physical, uid_of(job, id), place.subtask, place.parallelism, keys);
            let share = Share { is_global: keys == 0, ..share };
            let aggregate = running.map(|list| (list.clone(), Arc::clone(&shape.inputs[0])));
            let (backends, tables) = (state_of.backends.clone(), tables.clone());
            state_of.filling = Some(Filling { share, backends, kept, aggregate, tables });
        }
        let standing = self.standing(&uid_of(job, id));
        self.kept.insert(id, tables);
        let mut stage = KeyedStage::new(operator, self.platform.clock.clone(), place, batch);
        stage.is_aggregate = running.is_some();
        standing.into_iter().for_each(|standing| stage.stand(standing));
        Ok(stage)
    }
}

#[cfg(test)]
mod tests {
    use super::worker_count;

    #[test]
    fn a_worker_a_slot_up_to_sixteen_or_four_a_core() {
        assert_eq!([1, 3, 16, 200].map(|slots| worker_count(slots, 2)), [1, 3, 16, 16]);
        assert_eq!(worker_count(200, 32), 128);
    }
}
