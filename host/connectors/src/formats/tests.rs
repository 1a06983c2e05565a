//! What all formats have in common; the formats' own tests use the helpers.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int32Array, Int64Array, ListArray, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_cast::cast;
use arrow_schema::{Field, TimeUnit};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::records::RecordReader;
use crate::test_support::{connection, with_format};

/// The decoding of a format with these options.
pub(super) fn decoding(schema: &SchemaRef, format: &str, options: &[(&str, &str)]) -> Decoding {
    Decoding::of(&with_format(connection("values", &[]), format, options), schema).unwrap()
}

/// Decodes records: the good ones as JSON, and the places of the bad ones with the reason.
pub(super) fn decoded(
    decoding: &Decoding,
    records: &[impl AsRef<[u8]>],
) -> (Vec<String>, Vec<(usize, String)>) {
    let records: Vec<Record<'_>> = records.iter().map(|record| (0, record.as_ref())).collect();
    let decoded = decoding.decode(&records);
    (decoded.rows.map_or_else(Vec::new, |rows| as_json(&rows)), decoded.failed)
}

/// Each row as JSON.
pub(super) fn as_json(rows: &RecordBatch) -> Vec<String> {
    let mut out = Vec::new();
    JSON.encode_rows(rows, None, "", true, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

/// Checks that of good, bad and blank records, told apart by `kinds`, exactly the bad ones fail,
/// and the good ones come in order.
pub(super) fn check_mixed(decoding: &Decoding, kinds: &[Kind]) -> Result<(), String> {
    let records: Vec<Vec<u8>> = kinds.iter().enumerate().map(|(i, kind)| kind.record(i)).collect();
    let (rows, failed) = decoded(decoding, &records);
    let places = |wanted: fn(&Kind) -> bool| -> Vec<usize> {
        kinds.iter().enumerate().filter(|(_, kind)| wanted(kind)).map(|(i, _)| i).collect()
    };
    let (good, bad) =
        (places(|kind| matches!(kind, Kind::Good(_))), places(|kind| matches!(kind, Kind::Bad(_))));
    let failed_places: Vec<usize> = failed.iter().map(|(place, _)| *place).collect();
    if failed_places != bad {
        return Err(format!("bad: {bad:?}, failed: {failed:?}"));
    }
    let came: Vec<bool> = good.iter().zip(&rows).map(|(i, row)| row.contains(&format!(":{i},"))).collect();
    if rows.len() != good.len() || came.contains(&false) {
        return Err(format!("good: {good:?}, rows: {rows:?}"));
    }
    Ok(())
}

/// A record of a mixture.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// With `#` for its number, which is its first column.
    Good(&'static str),
    Bad(&'static [u8]),
    Blank(&'static str),
}

impl Kind {
    fn record(&self, number: usize) -> Vec<u8> {
        match self {
            Self::Good(record) => record.replace('#', &number.to_string()).into_bytes(),
            Self::Bad(record) => record.to_vec(),
            Self::Blank(record) => record.as_bytes().to_vec(),
        }
    }
}

/// The encoding that sinks have unless told otherwise.
const JSON: Encoding = Encoding::Json { text_decimals: true };

/// Values of one row, of every type but nested ones.
type Row = (
    (Option<bool>, Option<i32>, i64, Option<f32>, f64, Option<i64>),
    (Option<String>, String, Option<i32>, Option<i64>, Option<i64>, Option<i64>),
);

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![r#"(?s).{0,10}"#, r#"[ab",;{}\r\n\t\\' ]{0,10}"#]
}

fn row() -> impl Strategy<Value = Row> {
    // From the year 1 to 9999, in days; and within what nanoseconds reach, in nanoseconds.
    let date = proptest::option::of(-719_162..2_932_896i32);
    let milliseconds = proptest::option::of(-62_135_596_800_000..253_402_300_799_999i64);
    let microseconds = proptest::option::of(-62_135_596_800_000_000..253_402_300_799_999_999i64);
    let filled = any_text().prop_filter("null in csv", |text| !text.is_empty());
    (
        (
            any::<Option<bool>>(),
            any::<Option<i32>>(),
            any::<i64>(),
            any::<Option<f32>>(),
            any::<f64>(),
            any::<Option<i64>>(),
        ),
        (proptest::option::of(filled), any_text(), date, milliseconds, microseconds, any::<Option<i64>>()),
    )
}

fn column<A: arrow_array::Array + FromIterator<T> + 'static, T>(
    rows: &[Row],
    value: impl Fn(&Row) -> T,
) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<A>())
}

/// The columns that every format can hold.
fn flat_columns(rows: &[Row]) -> Vec<(&'static str, ArrayRef, bool)> {
    let utc = |column: ArrayRef, unit| cast(&column, &DataType::Timestamp(unit, Some("UTC".into()))).unwrap();
    let decimals: Decimal128Array = rows.iter().map(|row| row.0.5.map(i128::from)).collect();
    vec![
        ("boolean", column::<BooleanArray, _>(rows, |row| row.0.0), true),
        ("int32", column::<Int32Array, _>(rows, |row| row.0.1), true),
        ("int64", column::<Int64Array, _>(rows, |row| Some(row.0.2)), false),
        ("float32", column::<Float32Array, _>(rows, |row| row.0.3), true),
        ("float64", column::<Float64Array, _>(rows, |row| Some(row.0.4)), false),
        ("decimal", Arc::new(decimals.with_precision_and_scale(24, 5).unwrap()), true),
        ("filled", column::<StringArray, _>(rows, |row| row.1.0.clone()), true),
        ("text", column::<StringArray, _>(rows, |row| Some(row.1.1.clone())), false),
        ("date", column::<Date32Array, _>(rows, |row| row.1.2), true),
        ("milliseconds", utc(column::<Int64Array, _>(rows, |row| row.1.3), TimeUnit::Millisecond), true),
        ("microseconds", utc(column::<Int64Array, _>(rows, |row| row.1.4), TimeUnit::Microsecond), true),
        ("nanoseconds", utc(column::<Int64Array, _>(rows, |row| row.1.5), TimeUnit::Nanosecond), true),
    ]
}

/// Those that JSON can hold besides: bytes, a list of the text, and a structure of both kinds of time.
fn more_columns(rows: &[Row]) -> Vec<(&'static str, ArrayRef, bool)> {
    let flat = flat_columns(rows);
    let fields = ["milliseconds", "nanoseconds"].map(|name| {
        let (name, column, nullable) = flat.iter().find(|column| column.0 == name).unwrap();
        (Arc::new(Field::new(*name, column.data_type().clone(), *nullable)), Arc::clone(column))
    });
    let structure: ArrayRef = Arc::new(StructArray::from(fields.to_vec()));
    let item = Arc::new(Field::new("item", structure.data_type().clone(), true));
    let lengths = OffsetBuffer::from_lengths(
        rows.iter().enumerate().map(|(i, _)| [0, 2, 1][i % 3]).take(rows.len() / 3 * 3),
    );
    let items = structure.slice(0, rows.len() / 3 * 3);
    let lists = ListArray::new(item, lengths, items, None);
    let lists = arrow_select::concat::concat(&[
        &lists,
        &arrow_array::new_null_array(lists.data_type(), rows.len() % 3),
    ]);
    vec![
        ("binary", column::<BinaryArray, _>(rows, |row| row.1.0.clone()), true),
        ("structure", structure, true),
        ("list", lists.unwrap(), true),
    ]
}

fn batch_of(columns: Vec<(&str, ArrayRef, bool)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Writes rows, and reads them again in small chunks and batches.
fn there_and_back(rows: &RecordBatch, format: &str, options: &[(&str, &str)]) -> RecordBatch {
    let connection = with_format(connection("files", &[]), format, options);
    let encoding = Encoding::of(&connection, "json").unwrap();
    encoding.fits(&rows.schema(), false).unwrap();
    let mut bytes = Vec::new();
    encoding.encode(&Batch::new(rows.clone()), false, "", true, &mut bytes).unwrap();
    let decoding = Arc::new(Decoding::of(&connection, &rows.schema()).unwrap());
    let mut reader = RecordReader::new(decoding, "text".into(), 0, u64::MAX);
    bytes.chunks(100).for_each(|chunk| reader.feed(chunk.to_vec()));
    reader.finish();
    let mut parts = Vec::new();
    while let Some(decoded) = reader.next(3, 1_000) {
        assert_eq!(decoded.failures, []);
        parts.push(decoded.batch.rows().clone());
    }
    arrow_select::concat::concat_batches(&rows.schema(), &parts).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn csv_gives_back_what_was_written(rows in vec(row(), 0..20), delimiter in select(vec![",", "tab", ";"])) {
        let rows = batch_of(flat_columns(&rows));
        prop_assert_eq!(there_and_back(&rows, "csv", &[("header", "true"), ("delimiter", delimiter)]), rows);
    }

    #[test]
    fn json_gives_back_what_was_written(rows in vec(row(), 0..20)) {
        let columns = [flat_columns(&rows), more_columns(&rows)].concat();
        let rows = batch_of(columns);
        prop_assert_eq!(there_and_back(&rows, "json", &[]), rows);
    }
}

#[test]
fn text_is_what_flink_prints() {
    let time =
        Arc::new(TimestampMillisecondArray::from(vec![Some(1_700_000_000_001), None]).with_timezone("UTC"));
    let words = Arc::new(StringArray::from(vec!["a,b", ""]));
    let print = |columns: Vec<(&str, ArrayRef, bool)>, prefix: &str| {
        let mut out = Vec::new();
        Encoding::Text.encode(&Batch::new(batch_of(columns)), false, prefix, true, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let both: Vec<(&str, ArrayRef, bool)> = vec![("word", words, false), ("time", time, true)];
    assert_eq!(print(both.clone(), "2> "), "2> (a,b,2023-11-14 22:13:20.001)\n2> (,null)\n");
    assert_eq!(print(both[..1].to_vec(), ""), "a,b\n\n");
}

#[test]
fn a_prefix_stands_before_each_line() {
    let rows = batch_of(vec![("n", Arc::new(Int64Array::from(vec![1, 2])), false)]);
    for (encoding, expected) in [(JSON, "> {\"n\":1}\n> {\"n\":2}\n"), (Encoding::Text, "> 1\n> 2\n")] {
        let mut out = b"before\n".to_vec();
        encoding.encode(&Batch::new(rows.clone()), false, "> ", true, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("before\n{expected}"));
    }
}

/// Rows of each kind, in order.
fn changes() -> Batch {
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("word", Arc::new(StringArray::from(vec!["a", "a", "a", "b"])), false),
        ("n", Arc::new(Int64Array::from(vec![1, 1, 2, 3])), false),
    ];
    Batch::new(batch_of(columns)).with_kinds(Some(vec![0u8, 1, 2, 3].into()))
}

fn encoded(encoding: &Encoding, rows: &Batch, kinds: bool, prefix: &str) -> String {
    let mut out = Vec::new();
    encoding.encode(rows, kinds, prefix, true, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn kinds_are_written_in_front_of_a_changelogs_rows() {
    let csv = Encoding::of(&with_format(connection("print", &[]), "csv", &[]), "text").unwrap();
    let expected = "+I(a,1)\n-U(a,1)\n+U(a,2)\n-D(b,3)\n";
    assert_eq!(encoded(&Encoding::Text, &changes(), true, ""), expected);
    assert_eq!(encoded(&Encoding::Text, &changes().slice(3, 1), true, "3> "), "3> -D(b,3)\n");
    let one = Batch::new(changes().rows().project(&[1]).unwrap());
    assert_eq!(encoded(&Encoding::Text, &one.slice(0, 1), true, ""), "+I(1)\n");
    assert_eq!(encoded(&csv, &changes(), true, ""), "op,word,n\n+I,a,1\n-U,a,1\n+U,a,2\n-D,b,3\n");
    let json = encoded(&JSON, &changes().slice(1, 2), true, "");
    assert_eq!(json, "{\"op\":\"-U\",\"word\":\"a\",\"n\":1}\n{\"op\":\"+U\",\"word\":\"a\",\"n\":2}\n");
    // Where no changelog is declared nothing is said of kinds.
    assert_eq!(encoded(&Encoding::Text, &changes().slice(0, 1), false, ""), "(a,1)\n");
}

#[test]
fn a_column_of_the_name_of_the_kinds_is_refused() {
    let schema = crate::test_support::schema(&[("op", DataType::Int64, false)]);
    let error = crate::test_support::error_of(JSON.fits(&schema, true));
    assert_eq!(error.message, "a column is called `op`, as that of the kinds of changes");
    assert!(JSON.fits(&schema, false).is_ok() && Encoding::Text.fits(&schema, true).is_ok());
}

#[test]
fn times_are_read_in_every_form_that_is_written() {
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let schema = crate::test_support::schema(&[("t", time, false)]);
    let forms = [
        "1436918400123",
        r#""2015-07-15 00:00:00.123""#,
        r#""2015-07-15T00:00:00.123""#,
        r#""2015-07-15 00:00:00.123Z""#,
        r#""2015-07-15T00:00:00.123Z""#,
        r#""2015-07-15T02:00:00.123+02:00""#,
    ];
    let records = forms.map(|form| format!("{{\"t\":{form}}}"));
    let (rows, failed) = decoded(&decoding(&schema, "json", &[]), &records);
    assert_eq!(failed, []);
    assert_eq!(rows, [r#"{"t":"2015-07-15 00:00:00.123"}"#; 6]);
    // Also within structures, and where they may be null.
    let inner = Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true);
    let schema = crate::test_support::schema(&[("bid", DataType::Struct(vec![inner].into()), true)]);
    let records = forms.map(|form| format!("{{\"bid\":{{\"t\":{form}}}}}"));
    let (rows, failed) = decoded(&decoding(&schema, "json", &[]), &records);
    assert_eq!(failed, []);
    assert_eq!(rows, [r#"{"bid":{"t":"2015-07-15 00:00:00.123"}}"#; 6]);
}

#[test]
fn decimals_are_texts_unless_numbers_are_asked_for() {
    let decimals = |values: Vec<i128>| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(23, 3).unwrap())
    };
    let item = Field::new("d", DataType::Decimal128(23, 3), false);
    let inner: ArrayRef = Arc::new(StructArray::from(vec![(Arc::new(item), decimals(vec![5, 0]))]));
    let columns = vec![("price", decimals(vec![908, -1_500]), false), ("inner", inner, false)];
    let rows = Batch::new(batch_of(columns));
    let of = |options: &[(&str, &str)]| {
        Encoding::of(&with_format(connection("print", &[]), "json", options), "text").unwrap()
    };
    let texts = "{\"price\":\"0.908\",\"inner\":{\"d\":\"0.005\"}}\n{\"price\":\"-1.500\",\"inner\":{\"d\":\"0.000\"}}\n";
    assert_eq!(encoded(&of(&[]), &rows, false, ""), texts);
    assert_eq!(encoded(&of(&[("decimals", "text")]), &rows, false, ""), texts);
    let numbers = "{\"price\":0.908,\"inner\":{\"d\":0.005}}\n{\"price\":-1.500,\"inner\":{\"d\":0.000}}\n";
    assert_eq!(encoded(&of(&[("decimals", "number")]), &rows, false, ""), numbers);
}
