//! Other code for a running job: what differs between two versions of it ([`mod@diff`]), how it is asked to change
//! ([`crate::Job::swap`]), and what changes in each subtask.
//!
//! A change is tied to a checkpoint. In every subtask a stage changes when it cuts at that checkpoint's barrier: rows
//! before it are handled by the old code, rows after it by the new, with the state that is there. The manifest says
//! which version goes on from it. If the checkpoint is given up, the stages that have changed go back.
//!
//! A new version may be on [probation](Probation): each subtask keeps the old code beside it. After a trap too many
//! the subtask that trapped goes back at that row, and the others at the barrier of a checkpoint that is asked for at
//! once. Or, if the rollback is to be exact, the attempt ends, sinks having held back what they took, and the job goes
//! on from the checkpoint of the change.

pub(crate) mod asking;
pub(crate) mod code;
pub mod diff;
pub(crate) mod probation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graph::PhysicalGraph;
use guest::Program;
use model::Diagnostic;
use model::job_graph::{NodeId, Partition};

pub use asking::SwapAnswer;
pub use diff::{Change, Difference, OperatorChange, StateChange, diff};
pub use probation::{Observer, Probation, RollBack, Rollback, Standing, SwapOptions, Trap};

use crate::metrics::JobDescription;
use crate::operator::native::NativeFunction;
use crate::{Execution, Plan};

/// A version of a job: its graph as it runs, and where its functions come from.
#[derive(Clone)]
pub struct Version {
    /// Its graph.
    pub physical: PhysicalGraph,
    /// What it is made of, as it is shown.
    pub description: Arc<JobDescription>,
    pub(crate) program: Program,
    pub(crate) job: String,
    pub(crate) args: Vec<String>,
    pub(crate) natives: BTreeMap<NodeId, NativeFunction>,
    pub(crate) two_phases: BTreeSet<NodeId>,
    pub(crate) is_batch: bool,
    pub(crate) is_state_on_disk: bool,
}

impl Version {
    /// The BLAKE3 digest of the component, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.program.digest()
    }

    /// The name under which the component knows the job.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The job's arguments.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Whether its functions are those of another: the same component with the same job and arguments.
    pub(crate) fn has_code_of(&self, other: &Self) -> bool {
        self.natives.is_empty()
            && other.natives.is_empty()
            && (self.digest(), &self.job, &self.args) == (other.digest(), &other.job, &other.args)
    }
}

/// By which outputs rows leave a stage, and where each leads. In an order that is the same for every version
/// whose rows go the same ways.
pub(crate) fn exits(physical: &PhysicalGraph, vertex: usize, stage: usize) -> Vec<Exit> {
    let nodes = &physical.vertices[vertex].stages[stage].nodes;
    let of_edges = physical.edges.iter().filter(|edge| edge.from == vertex && nodes.contains(&edge.node));
    let of_edges = of_edges.map(|edge| {
        let way = Way::Vertex(edge.to, edge.input, text_of(&edge.partition));
        ((edge.node, edge.port), way)
    });
    let stages = physical.vertices[vertex].stages.iter().enumerate();
    let of_stages = stages.filter_map(|(next, other)| match other.fed_by {
        Some((from, node, port)) if from == stage => Some(((node, port), Way::Stage(next))),
        _ => None,
    });
    let mut exits: BTreeMap<(NodeId, u32), Vec<Way>> = BTreeMap::new();
    of_edges.chain(of_stages).for_each(|(from, way)| exits.entry(from).or_default().push(way));
    let mut exits: Vec<Exit> = exits.into_iter().map(|(from, ways)| Exit { from, ways }).collect();
    exits.iter_mut().for_each(|exit| exit.ways.sort());
    exits.sort_by(|a, b| a.ways.cmp(&b.ways).then(a.from.cmp(&b.from)));
    exits
}

/// An output by which rows leave a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The node and its port.
    pub(crate) from: (NodeId, u32),
    /// All that it leads to.
    pub(crate) ways: Vec<Way>,
}

/// Where rows go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// To another chain: which, its input, and to which of its subtasks.
    Vertex(usize, u32, String),
    /// To a later stage of the chain.
    Stage(usize),
}

fn text_of(partition: &Partition) -> String {
    match partition {
        Partition::Forward => "forward".to_owned(),
        Partition::Hash(keys) => format!("by the key {keys:?}"),
        Partition::Rebalance => "rebalance".to_owned(),
        Partition::Broadcast => "broadcast".to_owned(),
        Partition::Global => "global".to_owned(),
        Partition::Chosen(column) => format!("by column {column}"),
    }
}

impl Plan {
    /// What it is as a version of its job.
    #[must_use]
    pub fn version(&self) -> Version {
        Version {
            physical: self.physical.clone(),
            description: Arc::new(JobDescription::of(&self.physical, self.options.execution)),
            program: self.program.clone(),
            job: self.job.clone(),
            args: self.args.clone(),
            natives: self.natives.clone(),
            two_phases: self.two_phases.clone(),
            is_batch: self.options.execution == Execution::Batch,
            is_state_on_disk: self.options.keeps_state_on_disk(),
        }
    }

    /// Refuses a job that cannot go back to a checkpoint as if nothing had come after it.
    pub(crate) fn check_rewinds(&self) -> Result<(), Diagnostic> {
        let name = |id: &NodeId| self.physical.job.nodes[*id as usize].name.clone();
        let shown: Vec<String> =
            self.sinks.iter().filter(|(_, sink)| !sink.can_hold_back()).map(|(id, _)| name(id)).collect();
        let once = self.sources_that_cannot_go_back();
        let said = |names: &[String], what: &str| {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            (!names.is_empty()).then(|| format!("{} {what}", names.join(", ")))
        };
        let said = [
            said(&shown, "would have shown rows by then: such a sink cannot hold them back"),
            said(&once, "cannot give its rows again"),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        if said.is_empty() {
            return Ok(());
        }
        Err(Diagnostic::user("the job cannot go back exactly to where it changed")
            .detail(said.join("\n"))
            .hint("a rollback forward replays nothing, and needs no such thing"))
    }

    /// Checks what the job asks of the outside against what the user grants, and looks at nothing there.
    ///
    /// # Errors
    /// What is not granted.
    pub fn check_grants(&self) -> Result<(), Diagnostic> {
        let grants = crate::grants::Grants::new(&self.args, &self.options.allow);
        self.needs()
            .iter()
            .try_for_each(|(id, need)| grants.check(&self.physical.job.nodes[*id as usize].name, need))
    }
}
