//! A snapshot as bytes: each table's rows as a stream of Arrow's IPC format.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
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

/// Bytes in pieces: to add some moves none that are there.
#[derive(Debug, Default)]
pub struct Pieces(Vec<Vec<u8>>);

/// Bytes of a piece, but for the first, which begins small.
const PIECE_BYTES: usize = 256 << 10;

impl Pieces {
    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// The pieces, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|piece| &piece[..])
    }

    /// All bytes in one piece.
    #[must_use]
    pub fn joined(&self) -> Vec<u8> {
        self.0.concat()
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_full = |piece: &Vec<u8>| piece.len() == PIECE_BYTES;
        if self.0.last().is_none_or(is_full) {
            let first = self.0.is_empty();
            self.0.push(if first { Vec::new() } else { Vec::with_capacity(PIECE_BYTES) });
        }
        let Some(last) = self.0.last_mut() else { return Ok(0) };
        let taken = bytes.len().min(PIECE_BYTES - last.len());
        last.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Table {
    writer: StreamWriter<Pieces>,
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
                let writer = StreamWriter::try_new(Pieces::default(), &batch.schema())?;
                none.insert(Table { writer, few: Vec::new(), rows: 0 })
            }
        };
        writer.add(batch)
    }

    /// The tables that have rows, each as bytes.
    ///
    /// # Errors
    /// If a stream cannot be ended.
    pub fn finish(self) -> Result<Vec<(StateTable, Pieces)>, ArrowError> {
        let finished = |(of, mut table): (StateTable, Table)| {
            table.write()?;
            Ok((of, table.writer.into_inner()?))
        };
        self.tables.into_iter().map(finished).collect()
    }
}

/// Reads the rows of a table, as a [`SnapshotWriter`] has written them, some at a time.
pub struct TableReader<'a> {
    table: StateTable,
    reader: StreamReader<Cursor<&'a [u8]>>,
    /// The places of the key's columns, and of the others.
    keys: Vec<usize>,
    columns: Vec<usize>,
    touched: Option<usize>,
}

impl<'a> TableReader<'a> {
    /// Of these bytes.
    ///
    /// # Errors
    /// If they are no such stream.
    pub fn new(table: StateTable, bytes: &'a [u8]) -> Result<Self, ArrowError> {
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
        Ok(Self { table, reader, keys, columns, touched })
    }
}

impl Iterator for TableReader<'_> {
    type Item = Result<StateChunk, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = |batch: RecordBatch| {
            let of = |places: &[usize]| places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
            let touched = self.touched.map(|place| Int64Array::from(batch.column(place).to_data()));
            StateChunk { table: self.table, keys: of(&self.keys), columns: of(&self.columns), touched }
        };
        Some(self.reader.next()?.map(chunk))
    }
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
    fn pieces_are_bytes_in_their_order() {
        let (mut pieces, mut all) = (Pieces::default(), Vec::new());
        for length in [1, 0, PIECE_BYTES - 1, 3, 5 * PIECE_BYTES / 2, PIECE_BYTES, 7] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
            pieces.write_all(&bytes).unwrap();
            all.extend(bytes);
        }
        assert_eq!((pieces.bytes(), pieces.joined()), (all.len(), all));
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
    }

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
            let bytes = bytes.joined();
            assert_eq!(StateTable::of_name(&table.name()), Some(table));
            read.extend(TableReader::new(table, &bytes).unwrap().map(Result::unwrap));
            let half = TableReader::new(table, &bytes[..bytes.len() / 2]);
            assert!(half.is_err() || half.is_ok_and(|mut half| half.any(|chunk| chunk.is_err())));
        }
        let [a, b, c, d] = chunks;
        // Few rows of a table are joined.
        assert_eq!(read[0].rows(), a.rows() + c.rows());
        assert_eq!((a.table, read[0].table), (read[0].table, c.table));
        assert_eq!(read[1..], [d, b]);
        assert_eq!(["timer", "values", "values.x", "x.1"].map(StateTable::of_name), [None; 4]);
    }
}
