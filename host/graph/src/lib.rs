//! From the job graph that a component describes to the physical graph that runs: validation,
//! chaining, parallelism.
#![forbid(unsafe_code)]

pub mod physical;
pub mod validate;

pub use physical::{PhysicalEdge, PhysicalGraph, Stage, Vertex};
pub use validate::{arriving, validate};

use model::Diagnostic;
use model::job_graph::{JobGraph, NodeId};
use thiserror::Error;

/// Why a job graph cannot run.
#[derive(Debug, Error)]
pub enum GraphError {
    /// Something is wrong with a node.
    #[error("node {id} `{name}` cannot be planned: {what}")]
    Node {
        /// Its place in the graph.
        id: NodeId,
        /// Its name.
        name: String,
        /// Where the user wrote it.
        origin: Option<String>,
        /// What is wrong.
        what: String,
    },
    /// Something is wrong with an edge.
    #[error("the edge from node {producer} to node {consumer} cannot be: {what}")]
    Edge {
        /// Where it comes from.
        producer: NodeId,
        /// Where it leads.
        consumer: NodeId,
        /// What is wrong.
        what: String,
    },
    /// Something is wrong with the whole.
    #[error("the job graph cannot be: {0}")]
    Whole(String),
    /// A max parallelism out of bounds.
    #[error("max parallelism {0} is out of bounds")]
    MaxParallelism(u32),
    /// More subtasks than key groups.
    #[error("parallelism {parallelism} of `{name}` is above max parallelism {max_parallelism}")]
    Parallelism {
        /// The node.
        name: String,
        /// What was asked for.
        parallelism: u32,
        /// What is possible.
        max_parallelism: u32,
    },
}

impl GraphError {
    pub(crate) fn node(graph: &JobGraph, id: NodeId, what: impl Into<String>) -> Self {
        let node = &graph.nodes[id as usize];
        Self::Node { id, name: node.name.clone(), origin: node.origin.clone(), what: what.into() }
    }

    /// As the user reads it.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        match self {
            Self::Node { name, origin, what, .. } => {
                let error = Diagnostic::user(format!("node `{name}` cannot be planned")).detail(what.clone());
                match origin {
                    Some(origin) => error.hint(format!("it is written at {origin}")),
                    None => error,
                }
            }
            Self::Edge { producer, consumer, what } => Diagnostic::user("the component's job graph is wrong")
                .detail(format!("edge from node {producer} to node {consumer}: {what}"))
                .hint("an SDK does not make such graphs; report it with `streamctl info --json`"),
            Self::Whole(what) => Diagnostic::user("the component's job graph is wrong").detail(what.clone()),
            Self::MaxParallelism(max) => Diagnostic::user(format!("max parallelism cannot be {max}"))
                .detail(format!("it is within 1 … {}", model::key::MAX_PARALLELISM_BOUNDS.1))
                .hint("-D pipeline.max-parallelism=128"),
            Self::Parallelism { name, parallelism, max_parallelism } => Diagnostic::user(format!(
                "parallelism {parallelism} is above max parallelism {max_parallelism}"
            ))
            .detail(format!("operator `{name}` would have more subtasks than there are key groups"))
            .hint("lower -p, or raise -D pipeline.max-parallelism (at most 32768)"),
        }
    }
}
