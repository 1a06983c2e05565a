//! The columns that leave native operators over keys.

use std::sync::Arc;

use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};
use model::job_graph::{Join, JoinSides, NodeKind, Top};

use crate::AggregateError;

/// The columns that leave an operator's main port, of these inputs, keyed by these columns.
///
/// # Errors
/// If it cannot be made of these inputs.
pub fn native_schema(
    kind: &NodeKind,
    inputs: &[SchemaRef],
    keys: &[Vec<usize>],
    changes: bool,
) -> Result<SchemaRef, AggregateError> {
    // A schema has few columns.
    let keys: Vec<u32> = keys.first().into_iter().flatten().map(|key| *key as u32).collect();
    match kind {
        NodeKind::Aggregate(aggregates) => {
            crate::change_aggregate::check(aggregates, &inputs[0], changes)?;
            crate::output_schema(&inputs[0], &keys, aggregates)
        }
        NodeKind::Window(window) => {
            crate::check_aggregates(window, &inputs[0])?;
            crate::window_schema(&inputs[0], &keys, &window.assigner, &window.aggregates)
        }
        NodeKind::Join(join) => Ok(of_join(join, &inputs[0], &inputs[1])),
        NodeKind::Top(top) => Ok(of_top(top, &inputs[0])),
        _ => Err(AggregateError::Arrow(ArrowError::InvalidArgumentError("not an operator over keys".into()))),
    }
}

/// The left columns, then the right ones, nullable where the side may be missing.
fn of_join(join: &Join, left: &Schema, right: &Schema) -> SchemaRef {
    let is_left_only = matches!(join.sides, JoinSides::Semi | JoinSides::Anti);
    let columns = |schema: &Schema, may_miss: bool| -> Vec<Field> {
        let field = |field: &FieldRef| {
            let field = field.as_ref().clone();
            let nullable = field.is_nullable() || may_miss;
            field.with_nullable(nullable)
        };
        schema.fields().iter().map(field).collect()
    };
    let mut fields = columns(left, matches!(join.sides, JoinSides::Right | JoinSides::Full));
    if !is_left_only {
        fields.extend(columns(right, matches!(join.sides, JoinSides::Left | JoinSides::Full)));
    }
    Arc::new(Schema::new(fields))
}

/// The columns that came, and the rank.
fn of_top(top: &Top, input: &Schema) -> SchemaRef {
    let mut fields: Vec<FieldRef> = input.fields().iter().cloned().collect();
    if top.rank {
        fields.push(Arc::new(Field::new("rank", DataType::Int64, false)));
    }
    Arc::new(Schema::new(fields))
}
