//! The graph as the job function builds it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{
    Chaining, Edge, FailurePolicy, JobGraph, Node, NodeKind, Partition, Port, Setting,
};
use millstream_sys::bindings::millstream::job::rows::Field;

use crate::changes;
use crate::record::top_level;
use crate::run::Stage;

/// What becomes of a row that a function fails, or a source cannot decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The job fails.
    Fail,
    /// The row is dropped and counted.
    Skip,
}

/// Nodes in the order of their making, which is their numbers.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<Planned>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) streams: Vec<StreamEntry>,
    pub(crate) settings: Vec<Setting>,
    /// what is wrong with the job
    pub(crate) errors: Vec<String>,
}

/// A node, and the code of a function.
pub(crate) struct Planned {
    pub(crate) node: Node,
    pub(crate) stage: Option<Stage>,
    /// the user wants changes of it: `changes()`
    pub(crate) wants_changes: bool,
}

/// What a `Stream` stands for: outputs of nodes, on their way to the next.
#[derive(Clone)]
pub(crate) struct StreamEntry {
    pub(crate) producers: Vec<(u32, u32, Partition)>,
    pub(crate) fields: Vec<Field>,
}

/// A node to be made.
pub(crate) struct NewNode {
    pub(crate) name: String,
    /// what its uid is made of, if it needs one
    pub(crate) uid: Option<String>,
    pub(crate) kind: NodeKind,
    pub(crate) outputs: Vec<(String, Vec<Field>)>,
    pub(crate) stage: Option<Stage>,
}

impl Plan {
    /// Adds a node that takes these streams, each by an input of its own.
    pub(crate) fn add(&mut self, new: NewNode, inputs: &[StreamEntry], location: &Location<'_>) -> u32 {
        // A plan has far fewer nodes than 2^32.
        let id = self.nodes.len() as u32;
        for (input, entry) in (0..).zip(inputs) {
            self.edges.extend(entry.producers.iter().map(|(producer, port, partition)| Edge {
                producer: *producer,
                port: *port,
                consumer: id,
                input,
                partition: partition.clone(),
            }));
        }
        let outputs = new.outputs.into_iter().map(|(name, schema)| port(&name, schema));
        self.nodes.push(Planned {
            node: Node {
                uid: new.uid,
                name: new.name,
                origin: Some(format!("{}:{}", location.file(), location.line())),
                parallelism: None,
                max_parallelism: None,
                kind: new.kind,
                outputs: outputs.collect(),
                on_failure: FailurePolicy::Fail,
                chaining: Chaining::Allowed,
            },
            stage: new.stage,
            wants_changes: false,
        });
        id
    }

    /// Makes a stream of a node's port.
    pub(crate) fn stream_of(&mut self, node: u32, port: u32) -> usize {
        let fields = self.nodes[node as usize].node.outputs[port as usize].schema.clone();
        self.stream(StreamEntry { producers: vec![(node, port, Partition::Forward)], fields })
    }

    pub(crate) fn stream(&mut self, entry: StreamEntry) -> usize {
        self.streams.push(entry);
        self.streams.len() - 1
    }

    /// Renames the columns of a stream, where they are made.
    pub(crate) fn rename(&mut self, stream: usize, names: &[String]) -> Result<(), String> {
        let StreamEntry { producers, fields } = &mut self.streams[stream];
        let places = top_level(fields);
        if places.len() != names.len() {
            return Err(format!("{} names for {} columns", names.len(), places.len()));
        }
        if let Some(twice) = first_double(names) {
            return Err(format!("two columns are called `{twice}`"));
        }
        for (place, name) in places.into_iter().zip(names) {
            fields[place].name.clone_from(name);
            for (node, port, _) in &*producers {
                let port = &mut self.nodes[*node as usize].node.outputs[*port as usize];
                port.schema[place].name.clone_from(name);
            }
        }
        Ok(())
    }

    /// The contract's graph.
    ///
    /// # Errors
    /// What is wrong with the job, as a message to the user.
    pub(crate) fn finish(mut self, name: &str) -> Result<(JobGraph, Vec<Option<Stage>>), String> {
        if let Some(error) = self.errors.into_iter().next() {
            return Err(error);
        }
        if self.nodes.is_empty() {
            return Err(format!(
                "job {name} has no operators\nhint: begin with a source, such as `job.lines(…)`"
            ));
        }
        changes::declare(&mut self.nodes, &self.edges);
        let mut uids: BTreeMap<&str, &Node> = BTreeMap::new();
        for Planned { node, .. } in &self.nodes {
            let Some(uid) = &node.uid else { continue };
            if let Some(first) = uids.insert(uid, node) {
                return Err(format!(
                    "two operators have the uid `{uid}`\ndetail: {} at {} and {} at {}\n\
                     hint: name their state apart: `.uid(\"…\")` on one of them",
                    first.name,
                    first.origin.as_deref().unwrap_or("?"),
                    node.name,
                    node.origin.as_deref().unwrap_or("?"),
                ));
            }
        }
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut stages = Vec::with_capacity(self.nodes.len());
        for planned in self.nodes.drain(..) {
            nodes.push(planned.node);
            stages.push(planned.stage);
        }
        let graph = JobGraph { name: name.into(), nodes, edges: self.edges, settings: self.settings };
        Ok((graph, stages))
    }
}

/// An output whose rows are inserts.
pub(crate) fn port(name: &str, schema: Vec<Field>) -> Port {
    Port { name: name.into(), schema, changes: false }
}

fn first_double(names: &[String]) -> Option<&String> {
    names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)).map(|(_, name)| name)
}

/// A plan that streams share while it grows.
pub(crate) type SharedPlan = RefCell<Plan>;
