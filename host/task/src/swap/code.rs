//! What a version of a job has of its own in a subtask: the code of its functions. It is made ahead of time, and
//! changes places with the code that runs.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use arrow_array::ArrayRef;
use arrow_schema::SchemaRef;
use checkpoint::coordinator::CheckpointId;
use guest::{Chain, Entries, NodePort, Opening, StateReader, Task};
use model::Diagnostic;
use model::element::Barrier;
use model::job_graph::{FailurePolicy, NodeId, NodeKind, State, Watermarks};
use platform::Clock;
use window::Timing;
use window::assigner::lateness_of;

use super::probation::Trial;
use super::{Version, exits};
use crate::deploy::{uid_of, uids_of};
use crate::metrics::{GuestHooks, LogRecord, LogSink, UserMetrics};
use crate::operator::Place;
use crate::operator::keyed_state::KeyedState;
use crate::operator::native::NativeFunction;

/// An output of a node: the node, and the port.
pub(crate) type Output = (NodeId, u32);

/// What changes in a subtask.
pub(crate) struct SubtaskSwap {
    /// By stage.
    pub(crate) stages: Vec<StageSwap>,
    /// That the new version is on probation.
    pub(crate) trial: Option<Arc<Trial>>,
}

/// What changes in a stage.
pub(crate) struct StageSwap {
    /// Of a version that does not run there: of the new one, and once that does of the old one. None = the stage is
    /// the same in both.
    pub(crate) code: Option<StageCode>,
    /// The name that its state has in checkpoints is another: they do not build upon those before.
    pub(crate) is_renamed: bool,
    /// The new version runs.
    pub(crate) has_changed: bool,
}

/// The code of a stage.
pub(crate) enum StageCode {
    Function(Box<Code>),
    Native(NativeFunction),
    /// How long windows take late rows, and when they are emitted.
    Windows {
        /// As they run.
        here: Timing,
        /// As they are to.
        there: Timing,
    },
    /// How watermarks follow the event time.
    Watermarks(Box<Watermarks>),
}

/// The code of a chain of the guest's functions.
pub(crate) struct Code {
    pub(crate) chain: Chain,
    /// What its guest reads states with.
    pub(crate) reader: Arc<LateReader>,
    pub(crate) place: Place,
    pub(crate) nodes: Vec<(NodeId, String, FailurePolicy)>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) failures: Vec<(u32, SchemaRef)>,
    /// Which of the outputs that the stage was deployed with each of its own is.
    pub(crate) ways: Vec<(Output, Output)>,
    pub(crate) states: Vec<State>,
    /// The key columns of each input.
    pub(crate) keys: Vec<Option<Vec<usize>>>,
    /// The state as this code is called with it; none = it has not run yet.
    pub(crate) keyed: Option<KeyedState>,
    /// How long its windows take late rows, in milliseconds.
    pub(crate) lateness: Option<i64>,
    /// That it is on probation.
    pub(crate) trial: Option<Arc<Trial>>,
}

/// What is under way in a subtask.
pub(crate) struct UnderWay {
    /// At this barrier its stages change.
    pub(crate) barrier: Barrier,
    pub(crate) swap: SubtaskSwap,
    pub(crate) phase: Phase,
    /// The new code has trapped too often here: all stages run the old one, and no other changes.
    pub(crate) has_left: bool,
    /// The last complete checkpoint, which sinks do not commit before the version stays.
    pub(crate) held: Option<CheckpointId>,
}

/// How far a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// At the barrier stages change to the new version.
    Forth,
    /// Its checkpoint is complete, and the version on probation.
    OnProbation,
    /// At the barrier those that run the new version change to the old one.
    Back,
}

/// Reads the state of a function that takes it over later.
#[derive(Default)]
pub(crate) struct LateReader(OnceLock<Arc<dyn StateReader>>);

const TOO_EARLY: &str = "no state is there before the first row";

impl LateReader {
    /// From now on it reads by this one.
    pub(crate) fn set(&self, reader: Option<Arc<dyn StateReader>>) {
        if let Some(reader) = reader {
            // The one that was set first stays: it reads the same state.
            drop(self.0.set(reader));
        }
    }
}

impl StateReader for LateReader {
    fn get(&self, state: u32, groups: &[u32], keys: &[ArrayRef]) -> Result<ArrayRef, String> {
        self.0.get().ok_or(TOO_EARLY)?.get(state, groups, keys)
    }

    fn scan(
        &self,
        state: u32,
        groups: &[u32],
        after: Option<&[ArrayRef]>,
        limit: usize,
    ) -> Result<Entries, String> {
        self.0.get().ok_or(TOO_EARLY)?.scan(state, groups, after, limit)
    }

    fn version(&self, state: u32) -> u64 {
        self.0.get().map_or(0, |reader| reader.version(state))
    }
}

/// What code is made in: of the job as it was deployed.
pub(crate) struct Ground {
    /// By vertex and stage: the outputs that rows leave it by.
    pub(crate) exits: Vec<Vec<Vec<Output>>>,
    /// Who reads it waits until nobody writes any more: a job that has ended does not hold it.
    log: Weak<dyn Fn(LogRecord) + Send + Sync>,
    pub(crate) metrics: Arc<Mutex<UserMetrics>>,
    pub(crate) clock: Clock,
    pub(crate) attempt: u32,
}

impl Ground {
    /// Of a job that is deployed as this version.
    pub(crate) fn of(
        version: &Version,
        log: &LogSink,
        (metrics, clock): (&Arc<Mutex<UserMetrics>>, &Clock),
        attempt: u32,
    ) -> Self {
        let of_stage =
            |v: usize, s: usize| exits(&version.physical, v, s).into_iter().map(|exit| exit.from).collect();
        let vertices = version.physical.vertices.iter().enumerate();
        let exits =
            vertices.map(|(v, vertex)| (0..vertex.stages.len()).map(|s| of_stage(v, s)).collect()).collect();
        Self { exits, log: Arc::downgrade(log), metrics: Arc::clone(metrics), clock: clock.clone(), attempt }
    }

    /// What changes in all subtasks, in their order, when a version follows another from which it can be reached
    /// while the job runs. Makes and opens the new version's instances.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub(crate) fn swaps<'a>(
        &self,
        old: &'a Version,
        new: &'a Version,
        trial: Option<&Arc<Trial>>,
    ) -> Result<Vec<SubtaskSwap>, Diagnostic> {
        let mut swaps = Vec::new();
        let is_same = new.has_code_of(old);
        for (v, vertex) in new.physical.vertices.iter().enumerate() {
            for subtask in 0..vertex.parallelism {
                let stages = (0..vertex.stages.len()).map(|s| {
                    let head = |version: &Version| version.physical.vertices[v].stages[s].nodes[0];
                    let uid = |version: &Version| uid_of(&version.physical.job, head(version));
                    let is_renamed = uid(old) != uid(new);
                    let kind =
                        |version: &'a Version| &version.physical.job.nodes[head(version) as usize].kind;
                    let code = match (kind(old), kind(new)) {
                        (NodeKind::Window(old), NodeKind::Window(new)) => {
                            let (here, there) = (Timing::of(old), Timing::of(new));
                            (here != there).then_some(StageCode::Windows { here, there })
                        }
                        (NodeKind::Watermarks(old), NodeKind::Watermarks(new)) => {
                            (old != new).then(|| StageCode::Watermarks(Box::new(new.clone())))
                        }
                        _ if is_same => None,
                        (_, NodeKind::Function(_)) => Some(match new.natives.get(&head(new)) {
                            Some(native) => StageCode::Native(Arc::clone(native)),
                            None => {
                                let code = self.code(new, (v, s), subtask)?;
                                StageCode::Function(Box::new(Code { trial: trial.cloned(), ..code }))
                            }
                        }),
                        _ => None,
                    };
                    Ok(StageSwap { code, is_renamed, has_changed: false })
                });
                let stages = stages.collect::<Result<Vec<_>, Diagnostic>>()?;
                swaps.push(SubtaskSwap { stages, trial: trial.cloned() });
            }
        }
        Ok(swaps)
    }

    fn code(&self, version: &Version, (v, s): (usize, usize), subtask: u32) -> Result<Code, Diagnostic> {
        let (physical, job) = (&version.physical, &version.physical.job);
        let (vertex, stage) = (&physical.vertices[v], &physical.vertices[v].stages[s]);
        let head = stage.nodes[0];
        let node = |id: &NodeId| &job.nodes[*id as usize];
        let names: Vec<&str> = stage.nodes.iter().map(|id| node(id).name.as_str()).collect();
        let place = Place {
            job: job.name.clone(),
            operator: names.join(" -> "),
            origins: stage.nodes.iter().filter_map(|id| node(id).origin.clone()).collect(),
            subtask,
            parallelism: vertex.parallelism,
        };
        let NodeKind::Function(function) = &node(&head).kind else {
            return Err(Diagnostic::internal("a stage that is no function was to change"));
        };
        let outputs: Vec<Output> = exits(physical, v, s).into_iter().map(|exit| exit.from).collect();
        let ways = outputs.iter().copied().zip(self.exits[v][s].iter().copied()).collect();
        let is_diverted = node(&head).on_failure == FailurePolicy::Divert;
        let port_of = |(id, port): &Output| Arc::clone(&node(id).outputs[*port as usize].schema);
        // Nodes have few ports.
        let failure = |port: usize| (port as u32, Arc::clone(&node(&head).outputs[port].schema));
        let failures = node(&head).failure_ports().filter(|_| is_diverted).map(failure).collect();
        let keys = (0..).zip(&function.inputs).map(|(input, _)| {
            let keys = physical.key_of(v, input)?;
            Some(keys.iter().map(|key| *key as usize).collect())
        });
        let hooks = GuestHooks {
            log: self.log.upgrade().unwrap_or_else(|| Arc::new(|_| {})),
            function: place.operator.clone(),
            subtask,
            metrics: Arc::clone(&self.metrics),
            uids: uids_of(job, &stage.nodes),
            told: AtomicBool::new(false),
        };
        let reader = Arc::new(LateReader::default());
        let mut chain = version.program.open(Opening {
            task: Task {
                job: version.job.clone(),
                args: version.args.clone(),
                subtask,
                parallelism: vertex.parallelism,
                attempt: self.attempt,
            },
            chain: stage.nodes.clone(),
            outputs: outputs.iter().map(|(node, port)| NodePort { node: *node, port: *port }).collect(),
            schemas: outputs.iter().map(port_of).collect(),
            states: function.states.iter().cloned().collect(),
            broadcast_input: job.broadcast_input(head),
            reader: Some(Arc::clone(&reader) as Arc<dyn StateReader>),
            hooks: Arc::new(hooks),
        });
        chain.open().map_err(|error| {
            let of_guest = error.diagnostic();
            let detail = of_guest.detail.map(|detail| format!("\n{detail}")).unwrap_or_default();
            let message = format!("function `{}` of the new version {}", place.operator, of_guest.message);
            Diagnostic { message, detail: Some(format!("{}{detail}", place.text())), ..of_guest }
        })?;
        Ok(Code {
            chain,
            reader,
            nodes: stage.nodes.iter().map(|id| (*id, node(id).name.clone(), node(id).on_failure)).collect(),
            place,
            outputs,
            failures,
            ways,
            states: function.states.clone(),
            keys: keys.collect(),
            keyed: None,
            lateness: function.windows.as_ref().map(lateness_of),
            trial: None,
        })
    }
}

/// What manifests say of the operators of a version, by the nodes that its stages were deployed with.
pub(crate) type Operators = BTreeMap<NodeId, (String, String, u32, u32)>;

/// What manifests say of a version, by the nodes that the stages of `deployed` begin with.
pub(crate) fn operators(deployed: &Version, version: &Version) -> Operators {
    let mut operators = BTreeMap::new();
    for (was, is) in deployed.physical.vertices.iter().zip(&version.physical.vertices) {
        for (before, after) in was.stages.iter().zip(&is.stages) {
            let head = after.nodes[0];
            let uid = uid_of(&version.physical.job, head);
            let name = version.physical.job.nodes[head as usize].name.clone();
            operators.insert(before.nodes[0], (uid, name, is.parallelism, version.physical.max_parallelism));
        }
    }
    operators
}
