//! State from elsewhere: a savepoint that was made of rows, from which a job begins.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StructArray};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use checkpoint::manifest::{JobName, Operator, Place, Section, Subtask, Table};
use checkpoint::{Manifest, Savepoint};
use model::Diagnostic;
use model::job_graph::{JobGraph, NodeKind, State, StateKind};
use state::StateChunk;
use state::canonical::{can_be_flat, named, to_file};
use window::keyed_aggregate::state_names;
use window::{AggregateError, KeyedAggregate};

use super::kept::{Kept, of_aggregate, of_function, table_of};
use super::savepoint::{names_of, path_of, table_of_section};
use super::section;
use crate::admission::NativeShape;
use crate::deploy::uid_of;

/// A state that rows are to become: a function's, or a running aggregate.
pub struct Bootstrap {
    uid: String,
    name: String,
    /// All tables of the operator, and the one that it is.
    tables: Vec<Table>,
    table: Table,
    keys: Vec<Field>,
    own_keys: Vec<Field>,
    /// Of a record its columns.
    values: Vec<Field>,
    is_record: bool,
    /// Entries have a time to live.
    is_aging: bool,
}

/// A row that cannot be put in, by its number from 0, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its number.
    pub row: usize,
    /// What is wrong with it.
    pub why: String,
}

/// The column with when an entry was touched last, in milliseconds since the epoch.
const TOUCHED: &str = "touched";
/// The column with a row's key group, which is not read: it is that of the key.
const KEY_GROUP: &str = "key_group";

impl Bootstrap {
    /// The state of this name of the operator of this uid; that of a running aggregate is `aggregate`.
    ///
    /// # Errors
    /// If the job has none, or it cannot be made of rows.
    pub fn new(job: &JobGraph, uid: &str, state: &str) -> Result<Self, Diagnostic> {
        let has_state = |id: u32| match &job.nodes[id as usize].kind {
            NodeKind::Function(function) => !function.states.is_empty(),
            NodeKind::Aggregate(_) => !job.nodes[id as usize].outputs[0].changes,
            _ => false,
        };
        let ids = || (0..).take(job.nodes.len());
        let Some(id) = ids().find(|id| uid_of(job, *id) == uid) else {
            let uids: Vec<String> = ids().filter(|id| has_state(*id)).map(|id| uid_of(job, id)).collect();
            return Err(Diagnostic::user(format!("the job has no operator of uid `{uid}`"))
                .detail(format!("those with states: {}", uids.join(", "))));
        };
        let node = &job.nodes[id as usize];
        let refused = |what: &str| Diagnostic::user(format!("`{}` (uid `{uid}`) {what}", node.name));
        match &node.kind {
            NodeKind::Function(function) if function.windows.is_some() => {
                Err(refused("is in windows: its state cannot be made of rows")
                    .detail("a window is more than its state: when it ends, and which others it meets"))
            }
            NodeKind::Function(function) if has_state(id) => {
                let kept = of_function(job, id, function);
                let Some((place, found)) = kept.state(state) else {
                    let names: Vec<&str> = function.states.iter().map(|state| state.name.as_str()).collect();
                    return Err(refused(&format!("has no state `{state}`"))
                        .detail(format!("there are: {}", names.join(", "))));
                };
                Self::of_function(uid, &node.name, &kept, place, found)
            }
            NodeKind::Aggregate(aggregates) if has_state(id) => {
                if state != section::AGGREGATE {
                    return Err(refused(&format!("has no state `{state}`"))
                        .detail(format!("there is: {}", section::AGGREGATE)));
                }
                let shape = NativeShape::of(job, id);
                let missing = || Diagnostic::internal("an aggregate without an input was planned");
                let input = shape.inputs.first().ok_or_else(missing)?;
                let wrong = |error: AggregateError| Diagnostic::internal(error.to_string());
                // Column numbers of a graph are 32 bits wide.
                let keys: Vec<u32> = shape.keys[0].iter().map(|key| *key as u32).collect();
                let output = Arc::clone(&node.outputs[0].schema);
                let mut empty = KeyedAggregate::new(input, &keys, aggregates, output, 0).map_err(wrong)?;
                let names: Vec<String> = shape.keys[0].iter().map(|key| input.field(*key).name().clone()).collect();
                let columns = empty.snapshot().map_err(wrong)?;
                let field = |(name, column): (&String, &ArrayRef)| {
                    Field::new(name, column.data_type().clone(), true)
                };
                let table = of_aggregate(names.clone(), state_names(aggregates, input, &node.outputs[0].schema).map_err(wrong)?);
                Ok(Self {
                    uid: uid.to_owned(),
                    name: node.name.clone(),
                    keys: names.iter().zip(&columns.keys).map(field).collect(),
                    own_keys: Vec::new(),
                    values: table.values.iter().zip(&columns.columns).map(field).collect(),
                    is_record: false,
                    is_aging: false,
                    tables: vec![table.clone()],
                    table,
                })
            }
            _ => Err(refused("has no state that rows can become")
                .detail("those of functions and running aggregates can; what other operators keep is their own affair")),
        }
    }

    fn of_function(
        uid: &str,
        name: &str,
        kept: &Kept,
        place: u32,
        state: &State,
    ) -> Result<Self, Diagnostic> {
        let tables = kept.tables(0);
        let section = format!("0.{}", table_of(place, state).name());
        let table = tables.iter().find(|table| table.section == section).cloned();
        let table = table.ok_or_else(|| Diagnostic::internal("a state has no table"))?;
        let keys = kept.keys.iter().zip(&kept.key_types);
        let keys = keys.map(|(name, data_type)| Field::new(name, data_type.clone(), true));
        let is_keyed = state.kind != StateKind::Broadcast;
        let own_keys = match state.kind {
            StateKind::Value => Vec::new(),
            StateKind::Sequence => vec![Field::new("place", DataType::Int64, false)],
            _ => state.key.fields().iter().map(|field| field.as_ref().clone()).collect(),
        };
        let value = state.value.field(0);
        let (values, is_record) = match value.data_type() {
            DataType::Struct(members) => (members.iter().map(|field| field.as_ref().clone()).collect(), true),
            _ => (vec![value.clone().with_nullable(false)], false),
        };
        Ok(Self {
            uid: uid.to_owned(),
            name: name.to_owned(),
            keys: keys.filter(|_| is_keyed).collect(),
            own_keys,
            values,
            is_record,
            is_aging: state.ttl.is_some(),
            tables,
            table,
        })
    }

    /// The columns that rows have, by name: as a canonical savepoint has them.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let mut fields: Vec<Field> = Vec::new();
        let mut add = |field: &Field, nullable: bool| {
            let mut name = field.name().clone();
            while fields.iter().any(|field| *field.name() == name) {
                name.push('_');
            }
            fields.push(Field::new(name, field.data_type().clone(), nullable));
        };
        self.keys.iter().for_each(|field| add(field, true));
        if !self.keys.is_empty() {
            add(&Field::new(KEY_GROUP, DataType::UInt16, true), true);
        }
        self.own_keys.iter().chain(&self.values).for_each(|field| add(field, field.is_nullable()));
        if self.is_aging {
            add(&Field::new(TOUCHED, DataType::Int64, true), true);
        }
        Arc::new(Schema::new(fields))
    }

    /// Rows of these columns as rows of the state; where they do not say when they were touched, it was `now`, in
    /// milliseconds since the epoch.
    fn chunk(&self, rows: &RecordBatch, now: i64) -> Result<StateChunk, String> {
        let mut columns = rows.columns().iter().cloned();
        let mut take = |count: usize| columns.by_ref().take(count).collect::<Vec<ArrayRef>>();
        let keys = take(self.keys.len());
        if !keys.is_empty() {
            take(1);
        }
        let mut kept = take(self.own_keys.len());
        let values = take(self.values.len());
        if self.is_record {
            let fields = self.values.clone().into();
            let record = StructArray::try_new_with_length(fields, values, None, rows.num_rows());
            kept.push(Arc::new(record.map_err(|error| error.to_string())?));
        } else {
            kept.extend(values);
        }
        let touched = take(1).first().map(|column| {
            let touched = column.as_primitive::<Int64Type>().iter();
            touched.map(|at| Some(at.unwrap_or(now))).collect::<Int64Array>()
        });
        let table = table_of_section(&self.table.section).ok_or("it is of no table that there is")?;
        Ok(StateChunk { table, keys, columns: kept, touched })
    }

    /// The first row that has the key (of entries with keys of their own: both) of one before it.
    ///
    /// # Errors
    /// It.
    pub fn check(&self, batches: &[RecordBatch]) -> Result<(), BadRow> {
        let of_key = self.keys.len();
        let own: Vec<usize> =
            (0..self.own_keys.len()).map(|n| n + of_key + usize::from(of_key > 0)).collect();
        let columns: Vec<usize> = (0..of_key).chain(own).collect();
        let schema = self.schema();
        let fields = columns.iter().map(|column| SortField::new(schema.field(*column).data_type().clone()));
        let bad = |row: usize, why: &str| BadRow { row, why: why.to_owned() };
        let converter = RowConverter::new(fields.collect()).map_err(|error| bad(0, &error.to_string()))?;
        let (mut seen, mut at) = (HashSet::new(), 0);
        for batch in batches {
            let arrays: Vec<ArrayRef> =
                columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
            let rows = converter.convert_columns(&arrays).map_err(|error| bad(at, &error.to_string()))?;
            for row in &rows {
                if !seen.insert(row.data().to_vec()) {
                    return Err(bad(at, "its key was there before"));
                }
                at += 1;
            }
        }
        Ok(())
    }
}

/// Makes a savepoint of states with their rows, which have the columns of [`Bootstrap::schema`]. `job` is the one that
/// it is for; `now` in milliseconds since the epoch.
///
/// # Errors
/// If it cannot be written.
pub fn write(
    savepoint: &Savepoint,
    job: JobName,
    max_parallelism: u32,
    states: &[(Bootstrap, Vec<RecordBatch>)],
    now: i64,
) -> Result<(), Diagnostic> {
    let failed = |what: String| Diagnostic::external("the savepoint cannot be written").detail(what);
    let mut manifest = Manifest::new(job, 0);
    (manifest.is_savepoint, manifest.began) = (true, now);
    for (bootstrap, rows) in states {
        let operator = manifest.operators.entry(bootstrap.uid.clone()).or_insert_with(|| Operator {
            name: bootstrap.name.clone(),
            parallelism: 1,
            max_parallelism,
            subtasks: vec![Subtask::default()],
            tables: bootstrap.tables.clone(),
        });
        let table = &bootstrap.table;
        let chunks = rows.iter().map(|rows| bootstrap.chunk(rows, now)).collect::<Result<Vec<_>, _>>();
        let chunks = chunks.map_err(failed)?;
        let names = names_of(table, max_parallelism);
        let flat = can_be_flat(&chunks);
        let batches = chunks.iter().map(|chunk| named(chunk, &names, flat)).collect::<Result<Vec<_>, _>>();
        let batches = batches.map_err(|error| failed(error.to_string()))?;
        let Some(first) = batches.first() else { continue };
        let bytes = to_file(&first.schema(), &batches).map_err(|error| failed(error.to_string()))?;
        let path = path_of(&bootstrap.uid, table, 0..max_parallelism);
        let file = savepoint.put_part(&path, &bytes).map_err(|error| failed(error.to_string()))?;
        let place = Place::File { path: path.clone(), offset: 0, length: file.bytes };
        operator.subtasks[0].sections.push(Section { kind: table.section.clone(), layer: 0, place });
        manifest.files.insert(path, file);
    }
    savepoint.put_manifest(&manifest).map_err(|error| failed(error.to_string()))
}
