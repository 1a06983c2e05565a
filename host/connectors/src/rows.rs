//! Rows that are shown and read as a whole, as JSON lines and CSV, by the names of their columns: for what is
//! kept of states. What jobs read and write is in `formats`.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_json::writer::LineDelimited;
use arrow_json::{ReaderBuilder, WriterBuilder};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::concat::concat;
use serde_json::Value;

/// Rows as JSON lines, in an order that is always the same.
///
/// # Errors
/// If a column is of a type that JSON has not.
pub fn to_json(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    drop(writer);
    let text = String::from_utf8(bytes).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}

/// A row that cannot be read: its line from 1, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its line; 0 = it is no line's fault.
    pub line: usize,
    /// Why.
    pub why: String,
}

/// Rows, and the line of each.
pub type Rows = (RecordBatch, Vec<usize>);

/// Rows of JSON lines with these columns.
///
/// # Errors
/// The first line that is not of these columns.
pub fn of_json(text: &str, schema: &SchemaRef) -> Result<Rows, BadLine> {
    let mut read: Vec<RecordBatch> = Vec::new();
    let mut lines = Vec::new();
    for (line, row) in (1..).zip(text.lines()) {
        if row.trim().is_empty() {
            continue;
        }
        // Line by line: whatever is wrong is of this one.
        let bad = |why: String| BadLine { line, why };
        // The one thing that the reader does not say with the column's name.
        let value: Value = serde_json::from_str(row).map_err(|error| bad(error.to_string()))?;
        let Some(object) = value.as_object() else { return Err(bad("it is no object".to_owned())) };
        for field in schema.fields().iter().filter(|field| !field.is_nullable()) {
            if object.get(field.name()).is_none_or(Value::is_null) {
                return Err(bad(format!("`{}` is missing", field.name())));
            }
        }
        for field in schema.fields() {
            whole(field, object.get(field.name()).unwrap_or(&Value::Null)).map_err(bad)?;
        }
        let decoder = ReaderBuilder::new(Arc::clone(schema)).with_strict_mode(true).build_decoder();
        let mut decoder = decoder.map_err(|error| bad(error.to_string()))?;
        let mut decode = || {
            decoder.decode(row.as_bytes())?;
            decoder.flush()
        };
        match decode() {
            Ok(Some(batch)) => read.push(batch),
            Ok(None) => continue,
            Err(error) => return Err(bad(plain(&error))),
        }
        lines.push(line);
    }
    let columns = (0..schema.fields().len()).map(|column| {
        let arrays: Vec<&dyn Array> = read.iter().map(|batch| batch.column(column).as_ref()).collect();
        match arrays.is_empty() {
            true => Ok(new_null_array(schema.field(column).data_type(), 0)),
            false => concat(&arrays),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>();
    let batch = columns.and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns));
    Ok((batch.map_err(|error| BadLine { line: 0, why: error.to_string() })?, lines))
}

/// Integers are to be integers: the reader would cut what is behind the point.
fn whole(field: &Field, value: &Value) -> Result<(), String> {
    match (field.data_type(), value) {
        (_, Value::Null) => Ok(()),
        (data_type, value) if data_type.is_integer() && !(value.is_i64() || value.is_u64()) => {
            Err(format!("`{}` is {data_type}, and cannot be {value}", field.name()))
        }
        (DataType::Struct(members), Value::Object(object)) => members
            .iter()
            .try_for_each(|field| whole(field, object.get(field.name()).unwrap_or(&Value::Null))),
        (DataType::List(field), Value::Array(values)) => {
            values.iter().try_for_each(|value| whole(field, value))
        }
        _ => Ok(()),
    }
}

/// What an error says, without whose it is.
fn plain(error: &ArrowError) -> String {
    let text = error.to_string();
    text.strip_prefix("Json error: ").map_or_else(|| text.clone(), str::to_owned)
}

/// Rows of CSV whose first line has the names of the columns.
///
/// # Errors
/// The first line that is not of these columns.
pub fn of_csv(text: &str, schema: &SchemaRef) -> Result<Rows, BadLine> {
    let bad = |line: usize, why: String| BadLine { line, why };
    let format = arrow_csv::reader::Format::default().with_header(true);
    let (head, _) =
        format.infer_schema(Cursor::new(text), Some(0)).map_err(|error| bad(1, error.to_string()))?;
    let names: Vec<&str> = head.fields().iter().map(|field| field.name().as_str()).collect();
    let known: BTreeSet<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
        return Err(bad(1, format!("there is no column `{unknown}`")));
    }
    let texts =
        Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>());
    let reader = arrow_csv::ReaderBuilder::new(Arc::new(texts)).with_header(true).build(Cursor::new(text));
    let mut read = Vec::new();
    for batch in reader.map_err(|error| bad(1, error.to_string()))? {
        // The header is the first line; a row may have several.
        let row = read.iter().map(RecordBatch::num_rows).sum::<usize>();
        read.push(batch.map_err(|error| bad(row + 2, error.to_string()))?);
    }
    let rows = read.iter().map(RecordBatch::num_rows).sum();
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let columns = schema.fields().iter().map(|field| {
        let Some(place) = names.iter().position(|name| name == field.name()) else {
            return match field.is_nullable() {
                true => Ok(new_null_array(field.data_type(), rows)),
                false => Err(bad(1, format!("`{}` is missing", field.name()))),
            };
        };
        let arrays: Vec<&dyn Array> = read.iter().map(|batch| batch.column(place).as_ref()).collect();
        let text: ArrayRef = match arrays.is_empty() {
            true => Arc::new(StringArray::from(Vec::<&str>::new())),
            false => concat(&arrays).map_err(|error| bad(1, error.to_string()))?,
        };
        if !can_cast_types(&DataType::Utf8, field.data_type()) || field.data_type().is_nested() {
            return Err(bad(
                1,
                format!("`{}` is {}, which CSV has not: give JSON lines", field.name(), field.data_type()),
            ));
        }
        let cast = cast_with_options(&text, field.data_type(), &options);
        let cast = cast.map_err(|error| bad(1, error.to_string()))?;
        for row in 0..rows {
            // An empty text is one where texts may be.
            if cast.is_null(row) && text.is_valid(row) {
                let value = text.as_any().downcast_ref::<StringArray>().map_or("", |texts| texts.value(row));
                return Err(bad(
                    row + 2,
                    format!("`{}` is {}, and cannot be `{value}`", field.name(), field.data_type()),
                ));
            }
            if cast.is_null(row) && !field.is_nullable() {
                return Err(bad(row + 2, format!("`{}` is missing", field.name())));
            }
        }
        Ok(cast)
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let batch = RecordBatch::try_new(Arc::clone(schema), columns);
    Ok((batch.map_err(|error| bad(0, error.to_string()))?, (2..rows + 2).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("word", DataType::Utf8, true),
            Field::new("key_group", DataType::UInt16, true),
            Field::new("n", DataType::Int64, false),
            Field::new("price", DataType::Decimal128(10, 2), true),
        ]))
    }

    #[test]
    fn json_lines_come_back() {
        let text = "{\"word\":\"a\",\"key_group\":3,\"n\":-9007199254740993,\"price\":1.5}\n\n{\"word\":null,\"key_group\":null,\"n\":2,\"price\":null}\n";
        let (rows, lines) = of_json(text, &schema()).unwrap();
        assert_eq!(lines, [1, 3]);
        let written = to_json(&[rows]).unwrap();
        let (again, _) = of_json(&written, &schema()).unwrap();
        assert_eq!(to_json(&[again]).unwrap(), written);
        assert!(written.contains("-9007199254740993"), "{written}");
        assert_eq!(of_json("", &schema()).unwrap().0.num_rows(), 0);
    }

    #[test]
    fn csv_is_read_by_names() {
        let (rows, _) = of_csv("n,word\n1,a\n2,\"b,c\"\n", &schema()).unwrap();
        let text = to_json(&[rows]).unwrap();
        let expected = "{\"word\":\"a\",\"key_group\":null,\"n\":1,\"price\":null}\n{\"word\":\"b,c\",\"key_group\":null,\"n\":2,\"price\":null}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_bad_row_is_named_with_its_line() {
        let json = |text: &str| of_json(text, &schema()).unwrap_err();
        let good = "{\"word\":\"a\",\"n\":1}\n";
        for (row, line, why) in [
            ("{\"word\":\"a\"}", 2, "`n` is missing"),
            ("{\"word\":\"a\",\"n\":null}", 2, "`n` is missing"),
            ("{\"word\":\"a\",\"n\":\"x\"}", 2, "x"),
            ("{\"word\":\"a\",\"n\":1.5}", 2, "1.5"),
            ("{\"word\":\"a\",\"n\":1,\"m\":2}", 2, "m"),
            ("{\"word\":\"a\"", 2, "EOF"),
            ("[1]", 2, "no object"),
        ] {
            let bad = json(&format!("{good}{row}\n{good}"));
            assert_eq!(bad.line, line, "{row}: {bad:?}");
            assert!(bad.why.contains(why), "{row}: {bad:?}");
        }
        let csv = |text: &str| of_csv(text, &schema()).unwrap_err();
        for (text, line, why) in [
            ("word,n\na,1\nb,x\n", 3, "`n` is Int64, and cannot be `x`"),
            ("word,n\na,\n", 2, "`n` is missing"),
            ("word\na\n", 1, "`n` is missing"),
            ("word,n,m\na,1,2\n", 1, "no column `m`"),
            ("word,n\na\n", 2, ""),
        ] {
            let bad = csv(text);
            assert_eq!(bad.line, line, "{text}: {bad:?}");
            assert!(bad.why.contains(why), "{text}: {bad:?}");
        }
    }
}
