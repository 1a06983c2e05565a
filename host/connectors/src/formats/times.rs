//! Points in time, as Arrow's readers and writers take them: they know zones by offset only, so
//! UTC goes through them as `+00:00`.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, FieldRef, Schema, SchemaRef, TimeUnit};

/// The type that stands for this one in Arrow's readers and writers.
pub(crate) fn with_offset(data_type: &DataType) -> DataType {
    let inner =
        |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(with_offset(field.data_type())));
    match data_type {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::Struct(members) => DataType::Struct(members.iter().map(inner).collect()),
        other => other.clone(),
    }
}

/// The schema that stands for this one.
pub(super) fn schema_with_offset(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| finest(field.data_type()).is_none()) {
        return Arc::clone(schema);
    }
    let field = |field: &FieldRef| field.as_ref().clone().with_data_type(with_offset(field.data_type()));
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The same rows with the types of `schema`, which differ in their zones at most.
pub(super) fn retyped(rows: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if rows.schema_ref() == schema {
        return Ok(rows);
    }
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
        match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

/// How times of these rows are written: with as many digits as the finest of them has.
pub(super) fn format(schema: &SchemaRef) -> &'static str {
    match schema.fields().iter().filter_map(|field| finest(field.data_type())).max() {
        Some(9) => "%Y-%m-%d %H:%M:%S%.9f",
        Some(6) => "%Y-%m-%d %H:%M:%S%.6f",
        _ => "%Y-%m-%d %H:%M:%S%.3f",
    }
}

/// Digits of the finest point in time that is in values of this type.
fn finest(data_type: &DataType) -> Option<u32> {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => Some(0),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(3),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(6),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(9),
        DataType::List(item) => finest(item.data_type()),
        DataType::Struct(members) => members.iter().filter_map(|member| finest(member.data_type())).max(),
        _ => None,
    }
}
