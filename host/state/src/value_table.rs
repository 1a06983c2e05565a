//! One state by value: at most one entry for each key, in rows numbered by the key index.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType};

use crate::key_index::KeyId;

/// The entries of one state. An entry is kept as `arrow-row` encodes it, so every type is one
/// case; the null value is "no entry".
pub struct ValueTable {
    data_type: DataType,
    converter: RowConverter,
    entries: Vec<Option<Box<[u8]>>>,
}

impl ValueTable {
    /// An empty table of values of this type.
    ///
    /// # Errors
    /// If values of the type cannot be encoded.
    pub fn new(data_type: &DataType) -> Result<Self, ArrowError> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        Ok(Self { data_type: data_type.clone(), converter, entries: Vec::new() })
    }

    /// The values of these keys, one row each, null where there is none.
    ///
    /// # Errors
    /// If the column cannot be made (text of more than 2 GiB).
    pub fn load(&self, ids: &[KeyId]) -> Result<ArrayRef, ArrowError> {
        let parser = self.converter.parser();
        let entry = |id: &KeyId| self.entries.get(*id as usize).and_then(Option::as_deref);
        if ids.iter().all(|id| entry(id).is_none()) {
            return Ok(new_null_array(&self.data_type, ids.len()));
        }
        let null = self.converter.convert_columns(&[new_null_array(&self.data_type, 1)])?;
        let rows: Vec<_> = ids
            .iter()
            .map(|id| match entry(id) {
                Some(bytes) => parser.parse(bytes),
                None => null.row(0),
            })
            .collect();
        Ok(Arc::clone(&self.converter.convert_rows(rows)?[0]))
    }

    /// Writes a value for each of these keys; null removes it.
    ///
    /// # Errors
    /// If the values are not of the table's type.
    pub fn store(
        &mut self,
        ids: impl Iterator<Item = (usize, KeyId)>,
        values: &ArrayRef,
    ) -> Result<(), ArrowError> {
        let rows = self.converter.convert_columns(&[Arc::clone(values)])?;
        for (row, id) in ids {
            let id = id as usize;
            if id >= self.entries.len() {
                self.entries.resize(id + 1, None);
            }
            self.entries[id] = (!values.is_null(row)).then(|| Box::from(rows.row(row).as_ref()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{Int64Array, StringArray, StructArray};
    use arrow_schema::{Field, Fields};

    #[test]
    fn what_was_stored_is_loaded_and_null_removes() {
        let mut table = ValueTable::new(&DataType::Int64).unwrap();
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), Some(6), None]));
        table.store([4, 2, 9].into_iter().enumerate(), &values).unwrap();
        let loaded = table.load(&[2, 3, 4, 9]).unwrap();
        assert_eq!(loaded.as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(6), None, Some(5), None]));
        let gone: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        table.store([(0, 4)].into_iter(), &gone).unwrap();
        assert_eq!(table.load(&[4]).unwrap().null_count(), 1);
    }

    #[test]
    fn structures_are_values_too() {
        let fields = Fields::from(vec![
            Field::new("word", DataType::Utf8, false),
            Field::new("count", DataType::Int64, true),
        ]);
        let mut table = ValueTable::new(&DataType::Struct(fields.clone())).unwrap();
        let values: ArrayRef = Arc::new(StructArray::new(
            fields,
            vec![
                Arc::new(StringArray::from(vec!["a", "b"])),
                Arc::new(Int64Array::from(vec![Some(1), None])),
            ],
            None,
        ));
        table.store([1, 0].into_iter().enumerate(), &values).unwrap();
        assert_eq!(table.load(&[1, 0]).unwrap().as_ref(), values.as_ref());
    }
}
