//! Bad records fail alone, whatever is wrong with them.

use arrow_schema::DataType;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::formats::Decoding;
use crate::formats::tests::{Kind, check_mixed, decoded, decoding};
use crate::test_support::schema;

fn orders() -> Decoding {
    let schema = schema(&[
        ("id", DataType::Int64, false),
        ("name", DataType::Utf8, true),
        ("price", DataType::Float64, true),
    ]);
    decoding(&schema, "json", &[])
}

const GOOD: [&str; 5] = [
    r#"{"id":#}"#,
    r#" {"price": 1.5, "name": "\u00e4 \"b\"", "id": #} "#,
    r#"{"id":#,"name":null,"unknown":{"a":[1,{"b":"}"}]}}"#,
    r#"{"id":#,"price":12345678901234567890123}"#,
    "{\"id\":#,\"name\":\"{[{[\"}\r",
];

const BAD: [&[u8]; 29] = [
    b"no json",
    b"[1]",
    b"7",
    b"}",
    b"{",
    br#"{"id":1"#,
    br#","name":"x"}"#,
    br#"{"id":1}{"id":2}"#,
    br#"{"id":1} {"id":2}"#,
    br#"{"id":1} {"id":2"#,
    br#"{"id":1} x"#,
    br#"{"id":1}}"#,
    br#"{"id":1,"name":"open"#,
    br#"closed"}"#,
    br#"{closed"}"#,
    br#"{"id":1,"unknown":"#,
    br#"{"id":2}}"#,
    br#"{"name":"an id lacks"}"#,
    br#"{"id":null}"#,
    br#"{"id":"many"}"#,
    br#"{"id":9223372036854775808}"#,
    br#"{"id":-99999999999999999999999999}"#,
    br#"{"id":1e999}"#,
    br#"{"id":1,"price":1e999}"#,
    br#"{"id":1,"price":-1e999}"#,
    br#"{"id":1,"name":["x"]}"#,
    br#"{"id":1,"name":"\ud800"}"#,
    b"{\"id\":1,\"name\":\"\xC3\"}",
    b"{\"id\":1,\"\xFF\":2}",
];

const BLANK: [&str; 3] = ["", "  ", "\r"];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => select(&GOOD[..]).prop_map(Kind::Good),
        2 => select(&BAD[..]).prop_map(Kind::Bad),
        1 => select(&BLANK[..]).prop_map(Kind::Blank),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn bad_records_fail_alone(kinds in vec(kind(), 0..20)) {
        check_mixed(&orders(), &kinds).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn each_bad_record_fails_between_good_ones() {
    for bad in BAD {
        let kinds = [Kind::Good(GOOD[0]), Kind::Bad(bad), Kind::Good(GOOD[1])];
        assert_eq!(check_mixed(&orders(), &kinds), Ok(()), "{}", String::from_utf8_lossy(bad));
    }
}

/// Two objects on a line and one object on two lines make as many rows as lines.
#[test]
fn mistakes_do_not_make_up_for_each_other() {
    let two_lines: [&[u8]; 3] = [br#"{"id":1}{"id":2}"#, br#"{"id":3,"name":"open"#, br#"{closed"}"#];
    let kinds: Vec<Kind> = two_lines.into_iter().map(Kind::Bad).collect();
    assert_eq!(check_mixed(&orders(), &kinds), Ok(()));
}

#[test]
fn a_missing_member_is_null() {
    let (rows, failed) = decoded(&orders(), &[r#"{"id":1}"#]);
    assert_eq!(rows, [r#"{"id":1,"name":null,"price":null}"#]);
    assert_eq!(failed, []);
}

#[test]
fn a_missing_member_that_may_not_be_null_is_named() {
    let (rows, failed) = decoded(&orders(), &[r#"{"name":"x"}"#]);
    assert_eq!(rows.len(), 0);
    assert!(failed[0].1.contains("id"), "{}", failed[0].1);
}

#[test]
fn the_last_of_equal_names_counts() {
    let (rows, failed) = decoded(&orders(), &[r#"{"id":1,"id":2,"name":"a","name":null}"#]);
    assert_eq!(rows, [r#"{"id":2,"name":null,"price":null}"#]);
    assert_eq!(failed, []);
}

#[test]
fn deep_nesting_fails_and_takes_no_stack() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let depth = 100_000;
        let nested = format!(r#"{{"id":1,"unknown":{}1{}}}"#, open.repeat(depth), close.repeat(depth));
        let records = [r#"{"id":1}"#, &nested, r#"{"id":2}"#];
        let (rows, failed) = decoded(&orders(), &records);
        assert_eq!(rows.len(), 2);
        assert_eq!(failed, [(1, "nested deeper than 128 levels".to_owned())]);
    }
}

#[test]
fn nesting_up_to_the_limit_is_ignored_where_unknown() {
    let nested = format!(r#"{{"id":1,"unknown":{}{}}}"#, "[".repeat(127), "]".repeat(127));
    assert_eq!(decoded(&orders(), &[nested]).0.len(), 1);
}

#[test]
fn braces_in_long_texts_are_no_nesting() {
    let braces = format!(r#"{{"id":1,"name":"\"{}"}}"#, "[{".repeat(1_000));
    assert_eq!(decoded(&orders(), &[braces]).1, []);
}

#[test]
fn the_greatest_whole_numbers_keep_every_digit() {
    let records = [i64::MAX, i64::MIN].map(|id| format!(r#"{{"id":{id}}}"#));
    let (rows, _) = decoded(&orders(), &records);
    let expected = [i64::MAX, i64::MIN].map(|id| format!(r#"{{"id":{id},"name":null,"price":null}}"#));
    assert_eq!(rows, expected);
}

#[test]
fn an_open_string_over_two_lines_is_two_failures() {
    let records = [r#"{"id":1}"#, r#"{"id":2,"name":"op"#, r#"{en"}"#, r#"{"id":3}"#];
    let (rows, failed) = decoded(&orders(), &records);
    assert_eq!(rows.len(), 2);
    assert_eq!(failed.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 2]);
}
