//! A snapshot as bytes: each table's rows as a stream of Arrow's IPC format.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::concat::concat_batches;

use crate::backend::{StateChunk, StateTable};

/// Writes the tables of a snapshot.
#[derive(Default)]
pub struct SnapshotWriter {
    tables: BTreeMap<StateTable, Table>,
}

struct Table {
    writer: StreamWriter<Vec<u8>>,
    /// Batches of few rows, to be written as one: each takes some hundreds of bytes beside its rows.
    few: Vec<RecordBatch>,
    rows: usize,
}

/// So many rows are written at once.
const ROWS: usize = 1_024;

impl Table {
    fn add(&mut self, batch: RecordBatch) -> Result<(), ArrowError> {
        self.rows += batch.num_rows();
        self.few.push(batch);
        if self.rows >= ROWS { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), ArrowError> {
        self.rows = 0;
        match &std::mem::take(&mut self.few)[..] {
            [] => Ok(()),
            [one] => self.writer.write(one),
            few @ [first, ..] => self.writer.write(&concat_batches(&first.schema(), few)?),
        }
    }
}

/// When rows were touched last.
const TOUCHED: &str = "touched";

impl SnapshotWriter {
    /// Adds rows.
    ///
    /// # Errors
    /// If they have other types than those before of their table.
    pub fn add(&mut self, chunk: &StateChunk) -> Result<(), ArrowError> {
        let rows = chunk.rows();
        let of = |prefix: &str, columns: &[ArrayRef]| -> Vec<Field> {
            let field = |(place, column): (usize, &ArrayRef)| {
                Field::new(format!("{prefix}{place}"), column.data_type().clone(), true)
            };
            columns.iter().enumerate().map(field).collect()
        };
        let mut fields = of("k", &chunk.keys);
        fields.extend(of("c", &chunk.columns));
        let mut columns: Vec<ArrayRef> = chunk.keys.iter().chain(&chunk.columns).cloned().collect();
        if let Some(touched) = &chunk.touched {
            fields.push(Field::new(TOUCHED, DataType::Int64, true));
            columns.push(Arc::new(touched.clone()));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let writer = match self.tables.entry(chunk.table) {
            std::collections::btree_map::Entry::Occupied(writer) => writer.into_mut(),
            std::collections::btree_map::Entry::Vacant(none) => {
                let writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
                none.insert(Table { writer, few: Vec::new(), rows: 0 })
            }
        };
        writer.add(batch)
    }

    /// The tables that have rows, each as bytes.
    ///
    /// # Errors
    /// If a stream cannot be ended.
    pub fn finish(self) -> Result<Vec<(StateTable, Vec<u8>)>, ArrowError> {
        let finished = |(of, mut table): (StateTable, Table)| {
            table.write()?;
            Ok((of, table.writer.into_inner()?))
        };
        self.tables.into_iter().map(finished).collect()
    }
}

/// The rows of a table, as a [`SnapshotWriter`] has written them.
///
/// # Errors
/// If the bytes are no such stream.
pub fn read_table(table: StateTable, bytes: &[u8]) -> Result<Vec<StateChunk>, ArrowError> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let places = |prefix: char| -> Vec<usize> {
        let is_of = |field: &Field| {
            let number = field.name().strip_prefix(prefix);
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        };
        (0..schema.fields().len()).filter(|place| is_of(schema.field(*place))).collect()
    };
    let (keys, columns, touched) = (places('k'), places('c'), schema.index_of(TOUCHED).ok());
    let mut chunks = Vec::new();
    for batch in reader {
        let batch = batch?;
        let of = |places: &[usize]| places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        let touched = touched.map(|place| Int64Array::from(batch.column(place).to_data()));
        chunks.push(StateChunk { table, keys: of(&keys), columns: of(&columns), touched });
    }
    Ok(chunks)
}

impl StateTable {
    /// Its name in a checkpoint, of the states in their declared order: `values.0`, `entries.2`, `timers`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Values(state) => format!("values.{state}"),
            Self::Entries(state) => format!("entries.{state}"),
            Self::Timers => "timers".to_owned(),
            Self::Gone => "gone".to_owned(),
        }
    }

    /// The table of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name.split_once('.') {
            None => match name {
                "timers" => Some(Self::Timers),
                "gone" => Some(Self::Gone),
                _ => None,
            },
            Some(("values", state)) => state.parse().ok().map(Self::Values),
            Some(("entries", state)) => state.parse().ok().map(Self::Entries),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::StringArray;

    use super::*;

    #[test]
    fn rows_come_back_as_they_were_written() {
        let chunk = |table, rows: std::ops::Range<i64>, touched: bool| {
            let column: ArrayRef =
                Arc::new(rows.clone().map(|n| (n % 3 > 0).then_some(n)).collect::<Int64Array>());
            let key: ArrayRef = Arc::new(rows.clone().map(|n| Some(n.to_string())).collect::<StringArray>());
            let touched = touched.then(|| rows.map(Some).collect::<Int64Array>());
            StateChunk { table, keys: vec![key], columns: vec![Arc::clone(&column), column], touched }
        };
        let chunks = [
            chunk(StateTable::Values(1), 0..4, true),
            chunk(StateTable::Timers, 0..2, false),
            chunk(StateTable::Values(1), 4..9, true),
            StateChunk { keys: vec![], ..chunk(StateTable::Entries(0), 0..3, false) },
        ];
        let mut writer = SnapshotWriter::default();
        chunks.iter().for_each(|chunk| writer.add(chunk).unwrap());
        let mut read = Vec::new();
        for (table, bytes) in writer.finish().unwrap() {
            assert_eq!(StateTable::of_name(&table.name()), Some(table));
            read.extend(read_table(table, &bytes).unwrap());
            assert!(read_table(table, &bytes[..bytes.len() / 2]).is_err());
        }
        let [a, b, c, d] = chunks;
        // Few rows of a table are joined.
        assert_eq!(read[0].rows(), a.rows() + c.rows());
        assert_eq!((a.table, read[0].table), (read[0].table, c.table));
        assert_eq!(read[1..], [d, b]);
        assert_eq!(["timer", "values", "values.x", "x.1"].map(StateTable::of_name), [None; 4]);
    }
}
