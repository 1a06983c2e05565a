//! Changelogs: what a row does to the table that its stream describes, and which streams are one.

use millstream_sys::bindings::millstream::job::graph::{
    Edge, FailurePolicy, JoinForm, JoinSides, Node, NodeKind,
};

use crate::plan::Planned;

/// What a row of a changelog does to the table: Flink's `RowKind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// It is a new row: `+I`.
    #[default]
    Insert,
    /// It is the row as it was before an update: `-U`.
    UpdateBefore,
    /// It is the row as it is after an update: `+U`.
    UpdateAfter,
    /// It is no row any more: `-D`.
    Delete,
}

impl RowKind {
    /// By the contract's number.
    pub(crate) fn of(number: u8) -> RowKind {
        match number {
            1 => RowKind::UpdateBefore,
            2 => RowKind::UpdateAfter,
            3 => RowKind::Delete,
            _ => RowKind::Insert,
        }
    }

    /// Whether the row is added to the table, not taken from it.
    pub fn is_added(self) -> bool {
        matches!(self, RowKind::Insert | RowKind::UpdateAfter)
    }
}

/// Says of each output whether it is a changelog. Nodes come after what feeds them.
pub(crate) fn declare(nodes: &mut [Planned], edges: &[Edge]) {
    for id in 0..nodes.len() {
        let of_changes = |edge: &Edge| {
            let producer = &nodes[edge.producer as usize].node;
            producer.outputs[edge.port as usize].changes
        };
        let is_fed = edges.iter().filter(|edge| edge.consumer as usize == id).any(of_changes);
        let Planned { node, wants_changes, .. } = &mut nodes[id];
        let ports = changed_ports(node, is_fed, *wants_changes);
        for port in node.outputs.iter_mut().take(ports) {
            port.changes = true;
        }
    }
}

/// How many of a node's outputs are changelogs: all, but for late rows and those that failed, or none.
fn changed_ports(node: &mut Node, is_fed: bool, wants_changes: bool) -> usize {
    let is_changed = match &mut node.kind {
        NodeKind::Source(_) | NodeKind::Sink(_) => false,
        NodeKind::Watermarks(_) | NodeKind::Lookup(_) => is_fed,
        NodeKind::Function(function) => {
            let is_stateless = function.states.is_empty() && !function.timers && function.windows.is_none();
            function.changes = wants_changes || is_stateless && is_fed;
            if function.changes && is_fed {
                let diverted = match node.on_failure {
                    FailurePolicy::Divert => function.inputs.len(),
                    FailurePolicy::Fail | FailurePolicy::Skip => 0,
                };
                return node.outputs.len() - diverted;
            }
            false
        }
        NodeKind::Aggregate(_) => is_fed || wants_changes,
        NodeKind::Window(_) => wants_changes,
        NodeKind::Join(join) => {
            if matches!(join.form, JoinForm::Temporal(_)) {
                return 0;
            }
            let is_one_sided = !matches!(join.sides, JoinSides::Inner | JoinSides::Semi);
            is_fed || is_one_sided && matches!(join.form, JoinForm::Unbounded(_))
        }
        NodeKind::Top(_) => true,
    };
    usize::from(is_changed)
}
