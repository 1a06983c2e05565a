//! A wrong name is answered with the nearest right one.

use proptest::prelude::*;

use crate::options::*;
use crate::test_support::{connection, error_of, inserts, one_port, text_schema, with_format};
use crate::{sink, source};

/// What is said of a source, and the hint.
fn refused(connection: &model::job_graph::Connection) -> (String, Option<String>) {
    let error = error_of(source(connection, &one_port(&text_schema())));
    (error.message, error.hint)
}

fn hint(name: &str) -> Option<String> {
    Some(format!("did you mean `{name}`?"))
}

#[test]
fn an_unknown_connector_gets_the_nearest() {
    let error = error_of(source(&connection("file", &[]), &one_port(&text_schema())));
    assert_eq!(error.message, "there is no source `file`");
    assert_eq!(error.detail.as_deref(), Some("there are: files, generator, nexmark, socket, stdin, values"));
    assert_eq!(error.hint, hint("files"));
    let error = error_of(sink(&connection("blackhol", &[]), &inserts(&text_schema())));
    assert_eq!(error.message, "there is no sink `blackhol`");
    assert_eq!(error.hint, hint("blackhole"));
}

#[test]
fn a_name_that_is_near_to_none_gets_the_list_alone() {
    let error = error_of(source(&connection("kafka", &[]), &one_port(&text_schema())));
    assert_eq!(error.hint, None);
    assert!(error.detail.is_some());
}

#[test]
fn an_unknown_option_gets_the_nearest() {
    let of_socket = connection("socket", &[("host", "here"), ("prot", "1")]);
    assert_eq!(refused(&of_socket), ("there is no option of `socket` `prot`".to_owned(), hint("port")));
    let of_sink = connection("files", &[("path", "out"), ("roll_bytes", "1")]);
    assert_eq!(error_of(sink(&of_sink, &inserts(&text_schema()))).hint, hint("roll-bytes"));
}

#[test]
fn an_unknown_option_of_a_format_gets_the_nearest() {
    let lines = with_format(connection("values", &[]), "lines", &[("invalid_utf8", "fail")]);
    let message = "there is no option of `lines` `invalid_utf8`";
    assert_eq!(refused(&lines), (message.to_owned(), hint("invalid-utf8")));
}

#[test]
fn an_option_of_another_format_is_unknown() {
    let json = with_format(connection("values", &[]), "json", &[("header", "true")]);
    assert_eq!(refused(&json).0, "there is no option of `json` `header`");
    let json = with_format(connection("files", &[("path", "out")]), "json", &[("header", "true")]);
    assert_eq!(
        error_of(sink(&json, &inserts(&text_schema()))).message,
        "there is no option of `json` `header`"
    );
}

#[test]
fn an_unknown_format_gets_the_nearest() {
    let jsonl = with_format(connection("values", &[]), "jsonl", &[]);
    assert_eq!(refused(&jsonl), ("there is no format of sources `jsonl`".to_owned(), hint("json")));
    let lines = with_format(connection("print", &[]), "tex", &[]);
    let error = error_of(sink(&lines, &inserts(&text_schema())));
    assert_eq!(error.message, "there is no format of sinks `tex`");
    assert_eq!(error.hint, hint("text"));
}

#[test]
fn an_unknown_value_gets_the_nearest() {
    let lines = with_format(connection("values", &[]), "lines", &[("invalid-utf8", "replac")]);
    let message = "there is no `invalid-utf8` of `lines` `replac`";
    assert_eq!(refused(&lines), (message.to_owned(), hint("replace")));
}

#[test]
fn a_value_that_does_not_parse_is_told_with_the_reason() {
    for (port, reason) in [("http", "invalid digit"), ("99999", "too large"), ("-1", "invalid digit")] {
        let error = error_of(source(
            &connection("socket", &[("host", "h"), ("port", port)]),
            &one_port(&text_schema()),
        ));
        assert_eq!(error.message, format!("the option `port` of `socket` cannot be `{port}`"));
        assert!(error.detail.unwrap().contains(reason));
    }
}

#[test]
fn a_time_has_a_unit_and_is_above_0() {
    let refused = |text: &str| {
        let connection = connection("files", &[("path", "out"), ("roll-interval", text)]);
        error_of(sink(&connection, &inserts(&text_schema())))
    };
    for (text, reason) in [
        ("5", "`` is no unit of time: ms, s, min, h"),
        ("5 weeks", "`weeks` is no unit of time: ms, s, min, h"),
        ("-1s", "a time is a number with a unit, like 500ms"),
        ("0s", "it is above 0"),
        ("99999999999999999 h", "that is too long"),
    ] {
        let error = refused(text);
        assert_eq!(error.message, format!("the option `roll-interval` of `files` cannot be `{text}`"));
        assert_eq!(error.detail.as_deref(), Some(reason));
    }
    assert_eq!(time("90 min"), Ok(Duration::from_secs(5_400)));
}

#[test]
fn a_needed_option_is_asked_for_even_if_it_is_given_empty() {
    for options in [&[][..], &[("path", "")]] {
        assert_eq!(refused(&connection("files", options)).0, "`files` needs the option `path`");
    }
}

proptest! {
    #[test]
    fn a_known_name_is_nearest_to_itself(known in proptest::collection::btree_set("[a-z-]{1,12}", 1..10)) {
        for name in &known {
            prop_assert_eq!(nearest(name, known.iter().map(String::as_str)), Some(name.as_str()));
        }
    }
}
