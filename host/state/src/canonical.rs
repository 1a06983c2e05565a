//! A table of a snapshot as others read it: a file of Arrow's IPC format whose columns have names.
//!
//! The columns are those of the key, `key_group`, an entry's own key, the value's (of a record each of its
//! columns), and `touched` where entries have a time to live. Each field's metadata says which of them it is, and
//! its own name where two would have had the same. docs/savepoints.md is the account for users.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StructArray, UInt16Array};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use model::key::{hash_keys, key_group};

use crate::backend::{StateChunk, StateTable};
use crate::encoded::TableReader;

/// What the columns of a table are called.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The state's.
    pub state: &'a str,
    /// The key's columns, the stream's first.
    pub keys: &'a [String],
    /// How many of them are the stream's key, by which rows are in key groups.
    pub stream_keys: usize,
    /// An entry's own key.
    pub own_keys: &'a [String],
    /// The other columns. One that is a record gives its own columns in its place.
    pub values: &'a [String],
    /// How many key groups there are.
    pub max_parallelism: u32,
}

/// The key of a field's metadata that says what the column is: one of the words below.
const ROLE: &str = "millstream.role";
/// The key of a field's metadata with the name that the column has in the state.
const NAME: &str = "millstream.name";
/// The key of a schema's metadata: the state.
const STATE: &str = "millstream.state";
const KEY: &str = "key";
const KEY_GROUP: &str = "key_group";
const OWN_KEY: &str = "own_key";
/// A column of the value's record.
const MEMBER: &str = "member";
/// A value that is no record.
const VALUE: &str = "value";
const TOUCHED: &str = "touched";
/// What a file of Arrow's begins with.
const MAGIC: &[u8] = b"ARROW1";

/// Takes names for columns, each once.
struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn add(&mut self, role: &str, name: &str, nullable: bool, array: ArrayRef) {
        let mut unique = if name.is_empty() { role.to_owned() } else { name.to_owned() };
        while self.fields.iter().any(|field| *field.name() == unique) {
            unique.push('_');
        }
        let said = HashMap::from([(ROLE.to_owned(), role.to_owned()), (NAME.to_owned(), name.to_owned())]);
        self.fields.push(Field::new(unique, array.data_type().clone(), nullable).with_metadata(said));
        self.arrays.push(array);
    }
}

/// A record of which every row is there: its columns can stand alone.
fn record(array: &ArrayRef) -> Option<&StructArray> {
    let record = array.as_struct_opt()?;
    (record.null_count() == 0 && record.num_columns() > 0).then_some(record)
}

/// Gives rows of a table the names of its columns. A value that is a record is taken apart if `flat`, which is to
/// be the same for all chunks of a file ([`can_be_flat`]).
///
/// # Errors
/// If there are fewer names than columns.
pub fn named(chunk: &StateChunk, names: &Names<'_>, flat: bool) -> Result<RecordBatch, ArrowError> {
    let mut columns = Columns { fields: Vec::new(), arrays: Vec::new() };
    let unnamed = || ArrowError::SchemaError(format!("a column of `{}` has no name", names.state));
    for (place, key) in chunk.keys.iter().enumerate() {
        columns.add(KEY, names.keys.get(place).ok_or_else(unnamed)?, true, Arc::clone(key));
    }
    if !chunk.keys.is_empty() {
        let mut hashes = Vec::new();
        let stream_key: Vec<&ArrayRef> = chunk.keys.iter().take(names.stream_keys).collect();
        hash_keys(&stream_key, chunk.rows(), &mut hashes);
        let group = |hash: &u64| match names.stream_keys {
            0 => 0,
            _ => key_group(*hash, names.max_parallelism).0,
        };
        let groups: UInt16Array = hashes.iter().map(|hash| Some(group(hash))).collect();
        columns.add(KEY_GROUP, KEY_GROUP, false, Arc::new(groups));
    }
    for (place, column) in chunk.columns.iter().enumerate() {
        if let Some(name) = names.own_keys.get(place) {
            columns.add(OWN_KEY, name, true, Arc::clone(column));
            continue;
        }
        let name = names.values.get(place - names.own_keys.len()).ok_or_else(unnamed)?;
        match record(column).filter(|_| flat && names.values.len() == 1) {
            Some(record) => {
                for (field, member) in record.fields().iter().zip(record.columns()) {
                    columns.add(MEMBER, field.name(), field.is_nullable(), Arc::clone(member));
                }
            }
            None => columns.add(VALUE, name, true, Arc::clone(column)),
        }
    }
    if let Some(touched) = &chunk.touched {
        columns.add(TOUCHED, TOUCHED, true, Arc::new(touched.clone()));
    }
    let Columns { fields, arrays } = columns;
    let said = HashMap::from([(STATE.to_owned(), names.state.to_owned())]);
    let options = RecordBatchOptions::new().with_row_count(Some(chunk.rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new_with_metadata(fields, said)), arrays, &options)
}

/// Whether the values of these chunks can be taken apart: none of them is null as a whole.
#[must_use]
pub fn can_be_flat(chunks: &[StateChunk]) -> bool {
    chunks.iter().all(|chunk| chunk.columns.last().is_some_and(|column| record(column).is_some()))
}

/// Rows of a table, as [`named`] has named them.
///
/// # Errors
/// If the columns do not say what they are.
pub fn of_named(table: StateTable, batch: &RecordBatch) -> Result<StateChunk, ArrowError> {
    let mut chunk = StateChunk { table, keys: Vec::new(), columns: Vec::new(), touched: None };
    let (mut fields, mut members) = (Vec::new(), Vec::new());
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let said = |key: &str| field.metadata().get(key).map(String::as_str);
        match said(ROLE) {
            Some(KEY) => chunk.keys.push(Arc::clone(array)),
            Some(OWN_KEY | VALUE) => chunk.columns.push(Arc::clone(array)),
            Some(MEMBER) => {
                let name = said(NAME).unwrap_or(field.name());
                fields.push(Field::new(name, array.data_type().clone(), field.is_nullable()));
                members.push(Arc::clone(array));
            }
            Some(KEY_GROUP) => {}
            Some(TOUCHED) if *array.data_type() == DataType::Int64 => {
                chunk.touched = Some(Int64Array::from(array.to_data()));
            }
            _ => {
                let what = format!("column `{}` does not say what it is", field.name());
                return Err(ArrowError::SchemaError(what));
            }
        }
    }
    if !fields.is_empty() {
        chunk.columns.push(Arc::new(StructArray::try_new(fields.into(), members, None)?));
    }
    Ok(chunk)
}

/// The bytes of a file with these rows.
///
/// # Errors
/// If they are not all of this schema.
pub fn to_file(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut writer = FileWriter::try_new(Vec::new(), schema)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.into_inner()
}

/// The rows of a file.
///
/// # Errors
/// If the bytes are no such file.
pub fn of_file(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let reader = FileReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    Ok((schema, reader.collect::<Result<_, ArrowError>>()?))
}

/// Rows of a table, some at a time.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<StateChunk, ArrowError>> + Send + 'a>;

/// The rows of a table of a checkpoint, or of a savepoint in either form.
///
/// # Errors
/// If the bytes are in neither.
pub fn read(table: StateTable, bytes: &[u8]) -> Result<Rows<'_>, ArrowError> {
    Ok(match bytes {
        [] => Box::new(std::iter::empty()),
        bytes if bytes.starts_with(MAGIC) => {
            let reader = FileReader::try_new(Cursor::new(bytes), None)?;
            Box::new(reader.map(move |batch| of_named(table, &batch?)))
        }
        bytes => Box::new(TableReader::new(table, bytes)?),
    })
}

#[cfg(test)]
mod tests {
    use arrow_array::{StringArray, UInt8Array};

    use super::*;

    fn texts(texts: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(texts.to_vec()))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn record_of(columns: &[(&str, ArrayRef)]) -> ArrayRef {
        let fields = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true));
        let arrays = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
        Arc::new(StructArray::new(fields.collect::<Vec<_>>().into(), arrays, None))
    }

    /// Writes a chunk, reads it, and gives the columns' names.
    fn round(chunk: &StateChunk, own: &[&str], flat: bool) -> Vec<String> {
        let (keys, own, values) = (names(&["word"]), names(own), names(&["value"]));
        let names = Names {
            state: "s",
            keys: &keys[..chunk.keys.len()],
            stream_keys: 1,
            own_keys: &own,
            values: &values,
            max_parallelism: 128,
        };
        let batch = named(chunk, &names, flat).unwrap();
        let bytes = to_file(&batch.schema(), &[batch.clone(), batch.clone()]).unwrap();
        let all = |bytes: &[u8]| read(chunk.table, bytes).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert_eq!(all(&bytes).unwrap(), [chunk.clone(), chunk.clone()]);
        for cut in [3, 6, bytes.len() / 2, bytes.len() - 1] {
            assert!(all(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        batch.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    #[test]
    fn tables_of_every_kind_come_back_and_columns_have_names() {
        let words = texts(&["a", "b"]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let chunk = |table, keys: &[&ArrayRef], columns: &[&ArrayRef], touched: bool| StateChunk {
            table,
            keys: keys.iter().map(|key| Arc::clone(key)).collect(),
            columns: columns.iter().map(|column| Arc::clone(column)).collect(),
            touched: touched.then(|| Int64Array::from(vec![7, 8])),
        };
        let value = chunk(StateTable::Values(0), &[&words], &[&numbers], true);
        assert_eq!(round(&value, &[], true), ["word", "key_group", "value", "touched"]);
        // A record's columns stand alone, and none of two of one name is lost.
        let record = record_of(&[("word", texts(&["x", "y"])), ("n", Arc::clone(&numbers))]);
        let of_record = chunk(StateTable::Values(1), &[&words], &[&record], false);
        assert!(can_be_flat(std::slice::from_ref(&of_record)));
        assert_eq!(round(&of_record, &[], true), ["word", "key_group", "word_", "n"]);
        assert_eq!(round(&of_record, &[], false), ["word", "key_group", "value"]);
        let entries = chunk(StateTable::Entries(2), &[&words], &[&numbers, &record], false);
        assert_eq!(round(&entries, &["place"], true), ["word", "key_group", "place", "word_", "n"]);
        let everybodys = chunk(StateTable::Entries(3), &[], &[&words, &numbers], false);
        assert_eq!(round(&everybodys, &["word"], true), ["word", "value"]);
        let domains: ArrayRef = Arc::new(UInt8Array::from(vec![0, 1]));
        let timers = chunk(StateTable::Timers, &[&words], &[&domains, &numbers], false);
        assert_eq!(round(&timers, &["domain"], true), ["word", "key_group", "domain", "value"]);
    }

    #[test]
    fn a_record_that_is_null_as_a_whole_stays_one_column() {
        let record = record_of(&[("n", Arc::new(Int64Array::from(vec![1, 2])))]);
        let nulls = arrow_buffer::NullBuffer::from(vec![true, false]);
        let data = record.to_data().into_builder().nulls(Some(nulls)).build().unwrap();
        let record: ArrayRef = Arc::new(StructArray::from(data));
        let keys = vec![texts(&["a", "b"])];
        let chunk = StateChunk { table: StateTable::Entries(0), keys, columns: vec![record], touched: None };
        assert!(!can_be_flat(std::slice::from_ref(&chunk)));
        assert_eq!(
            round(&chunk, &[], can_be_flat(std::slice::from_ref(&chunk))),
            ["word", "key_group", "value"]
        );
    }

    #[test]
    fn columns_that_do_not_say_what_they_are_are_refused() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
        let refused = of_named(StateTable::Values(0), &batch).unwrap_err().to_string();
        assert!(refused.contains("column `n` does not say what it is"), "{refused}");
    }
}
