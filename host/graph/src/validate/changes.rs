//! Changelogs: who may make them, and who can take them.

use model::job_graph::{Edge, JobGraph, JoinForm, JoinSides, Node, NodeId, NodeKind, Partition};

use crate::GraphError;

/// A changelog reaches only nodes that take it, and leaves only nodes that make it.
pub(super) fn check(graph: &JobGraph, id: NodeId, node: &Node, inputs: &[&Edge]) -> Result<(), GraphError> {
    let wrong = |what: String| Err(GraphError::node(graph, id, what));
    let is_changelog =
        |edge: &&&Edge| graph.nodes[edge.producer as usize].outputs[edge.port as usize].changes;
    let from = inputs.iter().find(is_changelog).map(|edge| &graph.nodes[edge.producer as usize].name);
    if let Some(from) = from {
        let refusal = match &node.kind {
            NodeKind::Function(function) if !function.changes => Some("a function that takes inserts only"),
            NodeKind::Lookup(lookup) if lookup.reload.is_some() => {
                Some("a lookup of a table that is reloaded, so that a row may come back as another")
            }
            // The versions of a table are a changelog.
            NodeKind::Join(join)
                if matches!(join.form, JoinForm::Temporal(_))
                    && inputs.iter().filter(is_changelog).all(|edge| edge.input == 1) =>
            {
                None
            }
            NodeKind::Window(_) => Some("a window, which takes inserts only"),
            NodeKind::Join(join) if !matches!(join.form, JoinForm::Unbounded(_)) => {
                Some("a join by time, which takes inserts only")
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            return wrong(format!(
                "`{from}` gives a changelog (updates and deletes), and it leads into {refusal}"
            ));
        }
        let reorders = |edge: &&Edge| edge.partition == Partition::Rebalance;
        if inputs.iter().filter(is_changelog).any(reorders) {
            return wrong(format!(
                "`{from}` gives a changelog, and `rebalance` would let updates of a row overtake each other"
            ));
        }
    }
    let gives = node.outputs.first().is_some_and(|port| port.changes);
    let must = match &node.kind {
        NodeKind::Top(_) => true,
        NodeKind::Join(join) if matches!(join.form, JoinForm::Temporal(_)) => false,
        NodeKind::Join(join) => {
            from.is_some()
                || matches!(join.form, JoinForm::Unbounded(_))
                    && !matches!(join.sides, JoinSides::Inner | JoinSides::Semi)
        }
        NodeKind::Aggregate(_) | NodeKind::Watermarks(_) | NodeKind::Lookup(_) => from.is_some(),
        // What a function gives for a row is of the row's kind.
        NodeKind::Function(_) => from.is_some() && !node.outputs.is_empty(),
        NodeKind::Source(_) | NodeKind::Sink(_) | NodeKind::Window(_) => false,
    };
    if must && !gives {
        return wrong("it gives a changelog, which its output does not declare".into());
    }
    let may = match &node.kind {
        NodeKind::Source(_) | NodeKind::Sink(_) => false,
        NodeKind::Function(function) => function.changes,
        NodeKind::Watermarks(_) | NodeKind::Lookup(_) => from.is_some(),
        NodeKind::Join(join) => must || matches!(join.form, JoinForm::Unbounded(_)),
        NodeKind::Aggregate(_) | NodeKind::Window(_) | NodeKind::Top(_) => true,
    };
    if gives && !may {
        return wrong("its output declares a changelog, which it does not give".into());
    }
    Ok(())
}
