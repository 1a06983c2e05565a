//! Lines that are not UTF-8, and what may become of them.

use arrow_schema::DataType;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::formats::tests::{decoded, decoding};
use crate::formats::{Decoding, Record};
use crate::test_support::{connection, error_of, schema, text_schema, texts, with_format};

const LINES: [&[u8]; 5] = [b"one", b"\xC3", b"\xA4 two", "ä".as_bytes(), b"good \xFF bad"];

#[test]
fn invalid_lines_fail_alone_with_the_place_of_the_byte() {
    let (rows, failed) = decoded(&decoding(&text_schema(), "lines", &[]), &LINES);
    assert_eq!(rows, [r#"{"line":"one"}"#, r#"{"line":"ä"}"#]);
    let message = |byte| format!("invalid UTF-8 at byte {byte} of the line");
    assert_eq!(failed, [(1, message(1)), (2, message(1)), (4, message(6))]);
}

#[test]
fn invalid_bytes_are_replaced_where_asked() {
    let (rows, failed) = decoded(&decoding(&text_schema(), "lines", &[("invalid-utf8", "replace")]), &LINES);
    let expected = ["one", "\u{FFFD}", "\u{FFFD} two", "ä", "good \u{FFFD} bad"];
    assert_eq!(rows, expected.map(|line| format!(r#"{{"line":"{line}"}}"#)));
    assert_eq!(failed, []);
}

#[test]
fn empty_lines_are_rows() {
    let (rows, _) = decoded(&decoding(&text_schema(), "lines", &[]), &["", "", "a", ""]);
    assert_eq!(rows.len(), 4);
}

proptest! {
    #[test]
    fn replacing_does_what_the_standard_library_does(lines in vec(vec(any::<u8>(), 0..12), 0..20)) {
        let decoding = decoding(&text_schema(), "lines", &[("invalid-utf8", "replace")]);
        let records: Vec<Record<'_>> = lines.iter().map(|line| (0, line.as_slice())).collect();
        let rows = decoding.decode(&records).rows;
        let read = rows.map_or_else(Vec::new, |rows| texts(&model::Batch::new(rows)));
        let expected: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        prop_assert_eq!(read, expected);
    }
}

#[test]
fn lines_need_one_text_column() {
    let lines = with_format(connection("values", &[]), "lines", &[]);
    for fields in [vec![("a", DataType::Int64, false)], vec![("a", DataType::Utf8, false); 2], Vec::new()] {
        let error = error_of(Decoding::of(&lines, &schema(&fields)));
        assert_eq!(error.message, "the format `lines` gives one text column");
        assert_eq!(error.hint.as_deref(), Some("for typed columns use the format json or csv"));
    }
}

#[test]
fn a_record_cannot_be_longer_than_a_column_can_hold() {
    for (bytes, fits) in [("1", true), ("536870912", true), ("536870913", false), ("-1", false)] {
        let lines = with_format(connection("values", &[]), "lines", &[("max-record-bytes", bytes)]);
        assert_eq!(Decoding::of(&lines, &text_schema()).is_ok(), fits, "{bytes}");
    }
}
