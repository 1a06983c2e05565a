//! What a job is made of, as Flink shows it: its vertices (chains) and the ways between them.
//!
//! An operator's id is Murmur3 (128 bits, seed 0) of its uid, in 32 hexadecimal digits, as in Flink: it stays the same
//! as long as the uid does, over restarts, parallelisms and versions of the component, and an operator of this uid has
//! it in Flink too. An operator without a uid has one made of its name and place. A vertex has the id of its head.

use graph::physical::partition_name;
use graph::{PhysicalGraph, Vertex};
use model::job_graph::{NodeId, NodeKind};

use crate::Execution;
use crate::deploy::uid_of;

/// A job, as it was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobDescription {
    /// Shown in lists.
    pub name: String,
    /// Whether it gives results as they change, or once. (Flink: the job's type, `STREAMING` or `BATCH`.)
    pub execution: Execution,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// How many task slots it takes.
    pub slots: u32,
    /// The chains, each after those that feed it.
    pub vertices: Vec<VertexDescription>,
}

/// A chain of operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexDescription {
    /// 32 hexadecimal digits.
    pub id: String,
    /// `Source: files -> Flat Map`.
    pub name: String,
    /// How many subtasks run it.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Its operators, the head first, each after the one that feeds it.
    pub operators: Vec<OperatorDescription>,
    /// Operators that run as one and are measured as one, the head's first. Neighbouring functions are one: what goes
    /// on between them stays in the guest's call.
    pub stages: Vec<StageDescription>,
    /// Where its rows come from.
    pub inputs: Vec<InputDescription>,
}

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorDescription {
    /// Its place in the job graph.
    pub node: NodeId,
    /// 32 hexadecimal digits.
    pub id: String,
    /// What names its state.
    pub uid: String,
    /// Shown to people.
    pub name: String,
    /// Where the user wrote it, `src/lib.rs:17`.
    pub origin: Option<String>,
    /// Which stage of the chain it is in.
    pub stage: usize,
    /// Which operator of the chain feeds it; none = the head.
    pub fed_by: Option<usize>,
}

/// Operators of a chain that are measured as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageDescription {
    /// The first operator's.
    pub id: String,
    /// Their names, joined by arrows.
    pub name: String,
    /// Their places in the job graph.
    pub nodes: Vec<NodeId>,
    /// What they are.
    pub kind: StageKind,
}

/// What a stage is, as far as its metrics differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// Rows come in.
    Source,
    /// Rows go out.
    Sink,
    /// Code in the guest.
    Function,
    /// Code of the engine's.
    Native,
}

/// A way into a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputDescription {
    /// The place of the vertex that the rows leave.
    pub from: usize,
    /// Its id.
    pub from_id: String,
    /// The head's input that they reach.
    pub input: u32,
    /// `FORWARD`, `HASH`, `REBALANCE`, `BROADCAST`, `GLOBAL` or `CUSTOM`.
    pub ship_strategy: &'static str,
}

impl JobDescription {
    /// Of a physical graph.
    #[must_use]
    pub fn of(physical: &PhysicalGraph, execution: Execution) -> Self {
        let ids: Vec<String> = physical
            .vertices
            .iter()
            .map(|vertex| operator_id(&uid_of(&physical.job, vertex.stages[0].nodes[0])))
            .collect();
        let inputs = |v: usize| {
            physical.edges_into(v).map(|edge| InputDescription {
                from: edge.from,
                from_id: ids[edge.from].clone(),
                input: edge.input,
                ship_strategy: partition_name(&edge.partition),
            })
        };
        let vertices = physical.vertices.iter().enumerate().map(|(v, vertex)| {
            let operators = operators(physical, vertex);
            VertexDescription {
                id: ids[v].clone(),
                name: chained(&operators, 0),
                parallelism: vertex.parallelism,
                max_parallelism: physical.max_parallelism,
                stages: vertex
                    .stages
                    .iter()
                    .map(|stage| stage_of(physical, &operators, &stage.nodes))
                    .collect(),
                operators,
                inputs: inputs(v).collect(),
            }
        });
        Self {
            name: physical.job.name.clone(),
            execution,
            max_parallelism: physical.max_parallelism,
            slots: physical.slots(),
            vertices: vertices.collect(),
        }
    }

    /// The vertex of this id.
    #[must_use]
    pub fn vertex(&self, id: &str) -> Option<(usize, &VertexDescription)> {
        self.vertices.iter().enumerate().find(|(_, vertex)| vertex.id == id)
    }
}

impl VertexDescription {
    /// The operators as Flink's plans have them: one a line, those that one feeds below it and further in.
    #[must_use]
    pub fn tree(&self) -> String {
        let mut tree = String::new();
        self.branch(0, 0, &mut tree);
        tree
    }

    fn branch(&self, at: usize, depth: usize, tree: &mut String) {
        if let Some(indent) = depth.checked_sub(1) {
            tree.push_str(&"   ".repeat(indent));
            tree.push_str("+- ");
        }
        tree.push_str(&self.operators[at].name);
        tree.push_str("<br/>");
        for next in fed(&self.operators, at) {
            self.branch(next, depth + 1, tree);
        }
    }
}

fn operators(physical: &PhysicalGraph, vertex: &Vertex) -> Vec<OperatorDescription> {
    let job = &physical.job;
    let nodes: Vec<(usize, NodeId)> = vertex
        .stages
        .iter()
        .enumerate()
        .flat_map(|(stage, of)| of.nodes.iter().map(move |node| (stage, *node)))
        .collect();
    let of = |(at, (stage, id)): (usize, &(usize, NodeId))| {
        let node = &job.nodes[*id as usize];
        let uid = uid_of(job, *id);
        // All but the head have one edge into them.
        let producer = job.edges_into(*id).next().filter(|_| at > 0).map(|edge| edge.producer);
        OperatorDescription {
            node: *id,
            id: operator_id(&uid),
            uid,
            name: shown(&node.name, &node.kind),
            origin: node.origin.clone(),
            stage: *stage,
            fed_by: producer.and_then(|producer| nodes.iter().position(|(_, node)| *node == producer)),
        }
    };
    nodes.iter().enumerate().map(of).collect()
}

fn stage_of(
    physical: &PhysicalGraph,
    operators: &[OperatorDescription],
    nodes: &[NodeId],
) -> StageDescription {
    let of: Vec<&OperatorDescription> = operators.iter().filter(|o| nodes.contains(&o.node)).collect();
    let names: Vec<&str> = of.iter().map(|operator| operator.name.as_str()).collect();
    let head = nodes.first().and_then(|head| physical.job.nodes.get(*head as usize));
    StageDescription {
        id: of.first().map(|head| head.id.clone()).unwrap_or_default(),
        name: names.join(" -> "),
        nodes: nodes.to_vec(),
        kind: match head.map(|node| &node.kind) {
            Some(NodeKind::Source(_)) => StageKind::Source,
            Some(NodeKind::Sink(_)) => StageKind::Sink,
            Some(NodeKind::Function(_)) => StageKind::Function,
            _ => StageKind::Native,
        },
    }
}

/// A name with what it is in front, where that is a source or a sink and the name does not say so.
fn shown(name: &str, kind: &NodeKind) -> String {
    let prefix = match kind {
        NodeKind::Source(_) => "Source: ",
        NodeKind::Sink(_) => "Sink: ",
        _ => return name.to_owned(),
    };
    match name.starts_with(prefix) {
        true => name.to_owned(),
        false => format!("{prefix}{name}"),
    }
}

/// Which operators one feeds within the chain.
fn fed(operators: &[OperatorDescription], at: usize) -> impl Iterator<Item = usize> + '_ {
    operators.iter().enumerate().filter(move |(_, o)| o.fed_by == Some(at)).map(|(next, _)| next)
}

/// A chain's name, as Flink makes it: `a -> b`, `a -> (b, c -> d)`.
fn chained(operators: &[OperatorDescription], at: usize) -> String {
    let name = &operators[at].name;
    let next: Vec<String> = fed(operators, at).map(|next| chained(operators, next)).collect();
    match &next[..] {
        [] => name.clone(),
        [one] => format!("{name} -> {one}"),
        several => format!("{name} -> ({})", several.join(", ")),
    }
}

/// The id of the operator of a uid.
#[must_use]
pub fn operator_id(uid: &str) -> String {
    murmur3(uid.as_bytes()).into_iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `MurmurHash3_x64_128` with seed 0 (Austin Appleby), as Flink makes ids of uids with it.
fn murmur3(bytes: &[u8]) -> [u8; 16] {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mixed = |k: u64, first: u64, turn: u32, second: u64| {
        k.wrapping_mul(first).rotate_left(turn).wrapping_mul(second)
    };
    let last = |mut h: u64| {
        h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    };
    let (mut h1, mut h2) = (0_u64, 0_u64);
    let mut blocks = bytes.chunks(16);
    for block in &mut blocks {
        let mut padded = [0; 16];
        padded[..block.len()].copy_from_slice(block);
        let both = u128::from_le_bytes(padded);
        // The lower and the upper half.
        let (k1, k2) = (both as u64, (both >> 64) as u64);
        h1 ^= mixed(k1, C1, 31, C2);
        if block.len() < 16 {
            h2 ^= mixed(k2, C2, 33, C1);
            break;
        }
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mixed(k2, C2, 33, C1);
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let length = bytes.len() as u64;
    (h1, h2) = (h1 ^ length, h2 ^ length);
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2) = (last(h1), last(h2));
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&h1.to_le_bytes());
    hash[8..].copy_from_slice(&h2.to_le_bytes());
    hash
}

#[cfg(test)]
mod tests;
