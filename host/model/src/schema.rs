//! Schemas: the contract's flattened form, and Arrow's, which the engine uses.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use thiserror::Error;

/// What a column means (`rows.data-type` of the contract).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogicalType {
    /// True or false.
    Boolean,
    /// 32 bits.
    Int32,
    /// 64 bits.
    Int64,
    /// 32 bits.
    Float32,
    /// 64 bits.
    Float64,
    /// A whole number times 10^-scale.
    Decimal {
        /// Digits, at most 38.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
    /// Days since 1970-01-01.
    Date,
    /// A point in time, UTC.
    Timestamp(TimeUnit),
    /// A list of what the next field says.
    Sequence,
    /// So many members, which are the next fields.
    Structure(u32),
}

/// One field of a flattened schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatField {
    /// Its name.
    pub name: String,
    /// What it means.
    pub logical_type: LogicalType,
    /// Whether it may be null.
    pub nullable: bool,
}

/// Why a schema is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// The list of fields ends inside a sequence or structure.
    #[error("field `{0}` lacks its members")]
    Truncated(String),
    /// A field without a name.
    #[error("field {0} has no name")]
    Unnamed(usize),
    /// Two siblings of one name.
    #[error("two fields have the name `{0}`")]
    Duplicate(String),
    /// A decimal of no digits, of more than 38, or with more digits after the point than in all.
    #[error("field `{0}` is a decimal of {1} digits with {2} after the point")]
    Decimal(String, u8, u8),
    /// Fields nested too deep.
    #[error("field `{0}` is nested deeper than {DEPTH_MAX} levels")]
    TooDeep(String),
    /// A type that the contract does not have.
    #[error("field `{0}` has the type {1}, which rows cannot have")]
    Unsupported(String, String),
}

/// How deep fields may be nested.
pub const DEPTH_MAX: usize = 16;

/// Builds Arrow's schema from the contract's.
///
/// # Errors
/// If the fields do not make a schema.
pub fn from_flat(fields: &[FlatField]) -> Result<SchemaRef, SchemaError> {
    let mut at = 0;
    let mut top = Vec::new();
    while at < fields.len() {
        top.push(Arc::new(parse(fields, &mut at, 0)?));
    }
    unique(&top)?;
    Ok(Arc::new(Schema::new(top)))
}

fn unique(fields: &[Arc<Field>]) -> Result<(), SchemaError> {
    let mut names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SchemaError::Duplicate(pair[0].to_owned())),
        None => Ok(()),
    }
}

fn parse(fields: &[FlatField], at: &mut usize, depth: usize) -> Result<Field, SchemaError> {
    let place = *at;
    let field = &fields[place];
    *at += 1;
    if field.name.is_empty() {
        return Err(SchemaError::Unnamed(place));
    }
    if depth > DEPTH_MAX {
        return Err(SchemaError::TooDeep(field.name.clone()));
    }
    let truncated = || SchemaError::Truncated(field.name.clone());
    let data_type = match field.logical_type {
        LogicalType::Boolean => DataType::Boolean,
        LogicalType::Int32 => DataType::Int32,
        LogicalType::Int64 => DataType::Int64,
        LogicalType::Float32 => DataType::Float32,
        LogicalType::Float64 => DataType::Float64,
        LogicalType::Decimal { precision, scale } => {
            if precision == 0 || precision > 38 || scale > precision {
                return Err(SchemaError::Decimal(field.name.clone(), precision, scale));
            }
            DataType::Decimal128(precision, scale.cast_signed())
        }
        LogicalType::Text => DataType::Utf8,
        LogicalType::Binary => DataType::Binary,
        LogicalType::Date => DataType::Date32,
        LogicalType::Timestamp(unit) => DataType::Timestamp(unit, Some("UTC".into())),
        LogicalType::Sequence => {
            if *at >= fields.len() {
                return Err(truncated());
            }
            DataType::List(Arc::new(parse(fields, at, depth + 1)?))
        }
        LogicalType::Structure(members) => {
            if members as usize > fields.len() - *at {
                return Err(truncated());
            }
            let mut children = Vec::with_capacity(members as usize);
            for _ in 0..members {
                if *at >= fields.len() {
                    return Err(truncated());
                }
                children.push(Arc::new(parse(fields, at, depth + 1)?));
            }
            unique(&children)?;
            DataType::Struct(Fields::from(children))
        }
    };
    Ok(Field::new(&field.name, data_type, field.nullable))
}

/// Flattens Arrow's schema into the contract's, depth first.
///
/// # Errors
/// If a type is not one of the contract's.
pub fn to_flat(schema: &Schema) -> Result<Vec<FlatField>, SchemaError> {
    let mut flat = Vec::new();
    for field in schema.fields() {
        flatten(field, &mut flat)?;
    }
    Ok(flat)
}

/// How many fields of a flattened schema a type takes.
#[must_use]
pub fn flat_width(data_type: &DataType) -> u32 {
    match data_type {
        DataType::List(child) => 1 + flat_width(child.data_type()),
        DataType::Struct(members) => {
            1 + members.iter().map(|member| flat_width(member.data_type())).sum::<u32>()
        }
        _ => 1,
    }
}

fn flatten(field: &Field, flat: &mut Vec<FlatField>) -> Result<(), SchemaError> {
    let logical_type = match field.data_type() {
        DataType::Boolean => LogicalType::Boolean,
        DataType::Int32 => LogicalType::Int32,
        DataType::Int64 => LogicalType::Int64,
        DataType::Float32 => LogicalType::Float32,
        DataType::Float64 => LogicalType::Float64,
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            LogicalType::Decimal { precision: *precision, scale: scale.cast_unsigned() }
        }
        DataType::Utf8 => LogicalType::Text,
        DataType::Binary => LogicalType::Binary,
        DataType::Date32 => LogicalType::Date,
        DataType::Timestamp(unit, _) if *unit != TimeUnit::Second => LogicalType::Timestamp(*unit),
        DataType::List(_) => LogicalType::Sequence,
        DataType::Struct(members) => {
            LogicalType::Structure(u32::try_from(members.len()).expect("a schema has few fields"))
        }
        other => return Err(SchemaError::Unsupported(field.name().clone(), other.to_string())),
    };
    flat.push(FlatField { name: field.name().clone(), logical_type, nullable: field.is_nullable() });
    match field.data_type() {
        DataType::List(child) => flatten(child, flat),
        DataType::Struct(members) => members.iter().try_for_each(|member| flatten(member, flat)),
        _ => Ok(()),
    }
}

/// Whether rows of `left` may stand where rows of `right` are expected: equal types and
/// nullability, whatever the columns' names.
#[must_use]
pub fn same_types(left: &Schema, right: &Schema) -> bool {
    left.fields().len() == right.fields().len()
        && left
            .fields()
            .iter()
            .zip(right.fields())
            .all(|(l, r)| l.data_type().equals_datatype(r.data_type()) && l.is_nullable() == r.is_nullable())
}
