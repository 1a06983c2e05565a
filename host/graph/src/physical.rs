//! Chains and parallelism: the graph as it runs.
//!
//! Nodes joined by one forward edge, of equal parallelism, become one vertex (a chain), whose
//! subtasks run them in one step. Neighbouring functions in a chain become one stage: one guest
//! instance, one call.

use model::job_graph::{Chaining, FailurePolicy, JobGraph, NodeId, NodeKind, Partition};
use model::key::{MAX_PARALLELISM_BOUNDS, default_max_parallelism};

use crate::GraphError;
use crate::validate::{topological, validate};

/// A job graph as it runs.
#[derive(Clone, Debug)]
pub struct PhysicalGraph {
    /// The job graph that it is made from.
    pub job: JobGraph,
    /// Number of key groups of every keyed operator.
    pub max_parallelism: u32,
    /// The chains, each after those that feed it.
    pub vertices: Vec<Vertex>,
    /// The exchanges between them.
    pub edges: Vec<PhysicalEdge>,
}

/// A chain: run by `parallelism` subtasks.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// Its nodes' names, joined by arrows.
    pub name: String,
    /// Its nodes, grouped into stages; the first is the head.
    pub stages: Vec<Stage>,
    /// How many subtasks run it.
    pub parallelism: u32,
}

/// Nodes of a chain that run as one: functions of one guest instance, or a single other node.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its nodes, the head first.
    pub nodes: Vec<NodeId>,
    /// Where its rows come from inside the chain: stage, node and port; none for the head.
    pub fed_by: Option<(usize, NodeId, u32)>,
}

/// Rows go from one chain to another.
#[derive(Clone, Debug)]
pub struct PhysicalEdge {
    /// The chain that they leave.
    pub from: usize,
    /// The node in it.
    pub node: NodeId,
    /// And its port.
    pub port: u32,
    /// The chain that they reach.
    pub to: usize,
    /// Its head's input.
    pub input: u32,
    /// To which of its subtasks; a forward edge joins equal parallelism.
    pub partition: Partition,
}

/// What the command line and the configuration ask of the physical graph.
#[derive(Clone, Copy, Debug)]
pub struct Parallelism {
    /// Of operators that do not set their own.
    pub default: u32,
    /// Number of key groups; none = by Flink's formula.
    pub max: Option<u32>,
}

impl PhysicalGraph {
    /// Plans a job graph. `parallelism_max` gives a source's own bound (a socket's is 1).
    ///
    /// A forward edge between different parallelisms becomes a rebalance, as in Flink.
    ///
    /// # Errors
    /// If the graph is wrong, or its parallelism out of bounds.
    pub fn plan(
        job: JobGraph,
        parallelism: Parallelism,
        parallelism_max: impl Fn(NodeId) -> Option<u32>,
    ) -> Result<Self, GraphError> {
        validate(&job)?;
        let of_node: Vec<u32> = (0..)
            .zip(&job.nodes)
            .map(|(id, node)| {
                let wanted = node.parallelism.unwrap_or(parallelism.default);
                parallelism_max(id).map_or(wanted, |max| wanted.min(max))
            })
            .collect();
        let greatest = of_node.iter().copied().max().unwrap_or(1).max(parallelism.default);
        let max_parallelism = parallelism.max.unwrap_or_else(|| default_max_parallelism(greatest));
        if max_parallelism == 0 || max_parallelism > MAX_PARALLELISM_BOUNDS.1 {
            return Err(GraphError::MaxParallelism(max_parallelism));
        }
        for (node, p) in job.nodes.iter().zip(&of_node) {
            let max = node.max_parallelism.unwrap_or(max_parallelism).min(max_parallelism);
            if *p > max {
                let name = node.name.clone();
                return Err(GraphError::Parallelism { name, parallelism: *p, max_parallelism: max });
            }
        }
        for edge in &job.edges {
            let (producer, consumer) = (edge.producer as usize, edge.consumer as usize);
            if edge.partition == Partition::Forward
                && of_node[producer] != of_node[consumer]
                && job.nodes[producer].outputs[edge.port as usize].changes
            {
                let what = format!(
                    "`{}`, of parallelism {}, gives a changelog, whose updates of a row would overtake each \
                     other on their way to parallelism {}",
                    job.nodes[producer].name, of_node[producer], of_node[consumer]
                );
                return Err(GraphError::node(&job, edge.consumer, what));
            }
        }
        Ok(Self::chain(job, max_parallelism, &of_node))
    }

    fn chain(job: JobGraph, max_parallelism: u32, parallelism: &[u32]) -> Self {
        let mut vertices: Vec<Vertex> = Vec::new();
        // Where each node lies: its vertex and stage.
        let mut places = vec![(usize::MAX, 0); job.nodes.len()];
        let mut edges = Vec::new();
        for id in topological(&job) {
            let node = &job.nodes[id as usize];
            let incoming: Vec<_> = job.edges_into(id).collect();
            let chained = match incoming[..] {
                [edge]
                    if edge.partition == Partition::Forward
                        && node.chaining == Chaining::Allowed
                        && job.nodes[edge.producer as usize].chaining != Chaining::Never
                        && parallelism[id as usize] == parallelism[edge.producer as usize] =>
                {
                    Some(edge)
                }
                _ => None,
            };
            let Some(edge) = chained else {
                let to = vertices.len();
                places[id as usize] = (to, 0);
                vertices.push(Vertex {
                    name: node.name.clone(),
                    stages: vec![Stage { nodes: vec![id], fed_by: None }],
                    parallelism: parallelism[id as usize],
                });
                edges.extend(incoming.iter().map(|edge| PhysicalEdge {
                    from: places[edge.producer as usize].0,
                    node: edge.producer,
                    port: edge.port,
                    to,
                    input: edge.input,
                    partition: match &edge.partition {
                        Partition::Forward
                            if parallelism[edge.producer as usize] != parallelism[id as usize] =>
                        {
                            Partition::Rebalance
                        }
                        partition => partition.clone(),
                    },
                }));
                continue;
            };
            let (vertex, stage) = places[edge.producer as usize];
            let chain = &mut vertices[vertex];
            chain.name.push_str(&format!(" -> {}", node.name));
            // Where a failure does not fail the job, it must not take rows of another function with
            // it: such functions have a call of their own.
            let producer = &job.nodes[edge.producer as usize];
            // Late rows are the host's, and reach no function inside the guest's call.
            let is_of_late = match &producer.kind {
                NodeKind::Function(function) => {
                    let port = function.windows.as_ref().and_then(|windows| windows.late_port);
                    // A function has two inputs at most.
                    port.is_some_and(|port| (port..port + function.inputs.len() as u32).contains(&edge.port))
                }
                _ => false,
            };
            let fused = matches!(producer.kind, NodeKind::Function(_))
                && !is_of_late
                && matches!(&node.kind, NodeKind::Function(f) if !f.is_stateful())
                && producer.on_failure == FailurePolicy::Fail
                && node.on_failure == FailurePolicy::Fail;
            if fused {
                chain.stages[stage].nodes.push(id);
                places[id as usize] = (vertex, stage);
            } else {
                places[id as usize] = (vertex, chain.stages.len());
                chain.stages.push(Stage { nodes: vec![id], fed_by: Some((stage, edge.producer, edge.port)) });
            }
        }
        Self { job, max_parallelism, vertices, edges }
    }

    /// The edges out of a chain.
    pub fn edges_from(&self, vertex: usize) -> impl Iterator<Item = &PhysicalEdge> {
        self.edges.iter().filter(move |edge| edge.from == vertex)
    }

    /// The edges into a chain.
    pub fn edges_into(&self, vertex: usize) -> impl Iterator<Item = &PhysicalEdge> {
        self.edges.iter().filter(move |edge| edge.to == vertex)
    }

    /// The key columns of an input of a chain whose head is keyed (columns of that input).
    #[must_use]
    pub fn key_of(&self, vertex: usize, input: u32) -> Option<&[u32]> {
        self.edges_into(vertex).filter(|edge| edge.input == input).find_map(|edge| match &edge.partition {
            Partition::Hash(columns) => Some(columns.as_slice()),
            _ => None,
        })
    }

    /// How many task slots the job needs: its greatest parallelism (chains share slots).
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.vertices.iter().map(|vertex| vertex.parallelism).max().unwrap_or(0)
    }
}

/// A partition in a word, as Flink's plans have it.
#[must_use]
pub fn partition_name(partition: &Partition) -> &'static str {
    match partition {
        Partition::Forward => "FORWARD",
        Partition::Hash(_) => "HASH",
        Partition::Rebalance => "REBALANCE",
        Partition::Broadcast => "BROADCAST",
        Partition::Global => "GLOBAL",
        Partition::Chosen(_) => "CUSTOM",
    }
}

#[cfg(test)]
mod tests;
