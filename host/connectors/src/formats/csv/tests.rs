//! Fields in quotes, wrong fields, and that bad records fail alone.

use arrow_schema::DataType;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::formats::tests::{Kind, check_mixed, decoded, decoding};
use crate::formats::{Decoding, Encoding};
use crate::test_support::{connection, error_of, schema, with_format};

fn orders_schema() -> SchemaRef {
    schema(&[
        ("id", DataType::Int64, false),
        ("name", DataType::Utf8, false),
        ("price", DataType::Float64, true),
    ])
}

fn orders(options: &[(&str, &str)]) -> Decoding {
    decoding(&orders_schema(), "csv", options)
}

const GOOD: [&str; 7] = [
    "#,ann,1.5",
    "#,\"a, b\",",
    "\"#\",\"two\nlines, \"\"quoted\"\"\",2e3",
    "#,,-1",
    "#,\"\",-1",
    "#,5\" pipe,7",
    "#,ä€\u{FEFF},0",
];

const BAD: [&[u8]; 17] = [
    b"1",
    b"1,ann",
    b"1,ann,1.5,more",
    b"1,ann,1.5,",
    b"x,ann,1.5",
    b",ann,1.5",
    b"1,ann,cheap",
    b"1.5,ann,1",
    b"9223372036854775808,ann,1",
    b"1,ann,1\r2,bob,2",
    b"1,ann,1\r2,bob,2\r3,cid,3",
    b"1,ann,1\r\"open",
    b"1,ann,\"open",
    b"\"",
    b"1,\xFF,1",
    b"1,\xC3,1",
    b"\r\r",
];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => select(&GOOD[..]).prop_map(Kind::Good),
        2 => select(&BAD[..]).prop_map(Kind::Bad),
        1 => Just(Kind::Blank("")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn bad_records_fail_alone(kinds in vec(kind(), 0..20)) {
        check_mixed(&orders(&[]), &kinds).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn each_bad_record_fails_between_good_ones() {
    for bad in BAD {
        let kinds = [Kind::Good(GOOD[0]), Kind::Bad(bad), Kind::Good(GOOD[1])];
        assert_eq!(check_mixed(&orders(&[]), &kinds), Ok(()), "{}", String::from_utf8_lossy(bad));
    }
}

/// Two records on a line and an open one make as many rows as lines.
#[test]
fn mistakes_do_not_make_up_for_each_other() {
    let records: [&[u8]; 2] = [b"1,ann,1\r2,bob,2", b"\"3"];
    let kinds: Vec<Kind> = records.into_iter().map(Kind::Bad).collect();
    assert_eq!(check_mixed(&orders(&[]), &kinds), Ok(()));
}

/// Both halves of a character are bytes of their own fields; together they would be valid.
#[test]
fn half_a_character_in_each_of_two_fields_fails() {
    let schema = schema(&[("a", DataType::Utf8, true), ("b", DataType::Utf8, true)]);
    let (rows, failed) = decoded(&decoding(&schema, "csv", &[]), &[b"\xC3,\xA4"]);
    assert_eq!(rows.len(), 0);
    assert_eq!(failed, [(0, "invalid UTF-8 at byte 1 of the record".to_owned())]);
}

#[test]
fn quotes_hold_line_ends_delimiters_and_quotes() {
    let (rows, failed) = decoded(&orders(&[]), &["1,\"two\r\nlines, \"\"quoted\"\"\",2"]);
    assert_eq!(rows, [r#"{"id":1,"name":"two\r\nlines, \"quoted\"","price":2.0}"#]);
    assert_eq!(failed, []);
}

#[test]
fn a_wrong_number_of_columns_is_told() {
    let (_, failed) = decoded(&orders(&[]), &["1,ann", "1,ann,2,3"]);
    assert_eq!(failed[0].1, "incorrect number of fields, expected 3 got 2");
    assert_eq!(failed[1].1, "incorrect number of fields, expected 3 got 4");
}

#[test]
fn a_bad_number_is_told() {
    let (_, failed) = decoded(&orders(&[]), &["1,ann,cheap"]);
    let expected = "Error while parsing value 'cheap' as type 'Float64' for column 2.";
    assert!(failed[0].1.starts_with(expected), "{}", failed[0].1);
}

#[test]
fn tabs_and_other_characters_delimit() {
    for (option, delimiter) in [("tab", '\t'), ("\\t", '\t'), (";", ';'), ("|", '|')] {
        let record = format!("1{delimiter}a,b{delimiter}2.5");
        let (rows, failed) = decoded(&orders(&[("delimiter", option)]), &[record]);
        assert_eq!((rows, failed), (vec![r#"{"id":1,"name":"a,b","price":2.5}"#.to_owned()], Vec::new()));
    }
}

#[test]
fn a_delimiter_is_one_character_that_means_nothing_else() {
    for delimiter in ["", ";;", "ä", "\"", "\n", "\r"] {
        let connection = with_format(connection("values", &[]), "csv", &[("delimiter", delimiter)]);
        let error = error_of(Decoding::of(&connection, &orders_schema()));
        assert!(error.message.starts_with("the delimiter of `csv` cannot be"), "{error}");
        assert!(error.hint.is_some());
    }
}

#[test]
fn an_empty_field_is_an_empty_text_unless_it_may_be_null() {
    let text_only = |nullable| decoding(&schema(&[("a", DataType::Utf8, nullable)]), "csv", &[]);
    assert_eq!(decoded(&text_only(false), &["\"\""]).0, [r#"{"a":""}"#]);
    assert_eq!(decoded(&text_only(true), &["\"\""]).0, [r#"{"a":null}"#]);
}

#[test]
fn columns_that_csv_cannot_hold_are_refused() {
    use arrow_schema::Field;
    let list = DataType::List(Field::new("item", DataType::Int64, true).into());
    let members = DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into());
    let csv = with_format(connection("values", &[]), "csv", &[]);
    for nested in [list, members] {
        let schema = schema(&[("a", nested, true)]);
        let reading = error_of(Decoding::of(&csv, &schema));
        let writing = error_of(Encoding::of(&csv, "csv").and_then(|encoding| encoding.fits(&schema, false)));
        assert_eq!(reading.message, "csv cannot hold nested columns");
        assert_eq!(writing.message, "csv cannot hold nested columns");
    }
}

#[test]
fn binary_columns_are_refused_where_csv_is_read() {
    let csv = with_format(connection("values", &[]), "csv", &[]);
    let error = error_of(Decoding::of(&csv, &schema(&[("a", DataType::Binary, true)])));
    assert_eq!(error.message, "csv cannot be read into binary columns");
}

#[test]
fn a_header_is_written_once() {
    let encoding = Encoding::of(&connection("files", &[]), "csv").unwrap();
    let rows = orders(&[]).decode(&[(0, b"1,\"a,b\",2.5")]).rows.unwrap();
    let (batch, mut out) = (model::Batch::new(rows), Vec::new());
    encoding.encode(&batch, false, "", true, &mut out).unwrap();
    encoding.encode(&batch, false, "", false, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "id,name,price\n1,\"a,b\",2.5\n1,\"a,b\",2.5\n");
}
