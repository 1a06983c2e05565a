//! Lines cut into splits and fed in chunks, against a plain cutting of the whole text.

use std::iter;

use arrow_schema::DataType;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::test_support::{connection, schema, text_schema, texts, with_format};

/// A text, and how it is cut, fed and taken out.
#[derive(Clone, Debug)]
struct Case {
    text: Vec<u8>,
    /// Where splits begin, but the first, which begins at 0.
    cuts: Vec<u64>,
    /// Sizes of the chunks, in turn.
    chunks: Vec<usize>,
    rows_max: usize,
    bytes_max: usize,
    record_bytes_max: usize,
    /// Rows are taken out after each chunk, not only at the end.
    eager: bool,
}

/// A deliberate mistake of whoever feeds.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Each split but the first begins a byte later than the one before it ends.
    StartOffByOne,
    /// The byte before the split is left out.
    FedFromStart,
}

/// What comes out of a split, each list in order.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    rows: Vec<String>,
    /// The place and the reason.
    failures: Vec<(String, &'static str)>,
}

const TOO_LONG: &str = "too long";
const INVALID: &str = "invalid UTF-8";

fn decoding(record_bytes_max: usize) -> Arc<Decoding> {
    let bytes_max = record_bytes_max.to_string();
    let connection = with_format(connection("values", &[]), "lines", &[("max-record-bytes", &bytes_max)]);
    Arc::new(Decoding::of(&connection, &text_schema()).unwrap())
}

/// The lines of a text with the places where they begin, found the plain way.
fn lines(text: &[u8]) -> Vec<(u64, &[u8])> {
    let mark = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let mut offset = 0;
    let mut lines = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let begin = if offset == 0 { mark } else { 0 };
        let bare = line[begin..].strip_suffix(b"\n").unwrap_or(&line[begin..]);
        if line.len() > begin {
            lines.push((offset, bare.strip_suffix(b"\r").unwrap_or(bare)));
        }
        offset += line.len() as u64;
    }
    lines
}

impl Case {
    fn splits(&self) -> Vec<(u64, u64)> {
        let bounds: Vec<u64> = iter::once(0)
            .chain(self.cuts.iter().copied())
            .chain(iter::once(self.text.len() as u64))
            .collect();
        bounds.windows(2).map(|bounds| (bounds[0], bounds[1])).collect()
    }

    /// What must come out of the split from `start` to `end`.
    fn expected(&self, start: u64, end: u64) -> Outcome {
        let mut expected = Outcome::default();
        for (i, (offset, line)) in lines(&self.text).into_iter().enumerate() {
            if !(start..end).contains(&offset) {
                continue;
            }
            let place = match start {
                0 => format!("text, line {}", i + 1),
                _ => format!("text, at byte {offset}"),
            };
            match std::str::from_utf8(line) {
                _ if line.len() > self.record_bytes_max => expected.failures.push((place, TOO_LONG)),
                Ok(line) => expected.rows.push(line.to_owned()),
                Err(_) => expected.failures.push((place, INVALID)),
            }
        }
        expected
    }

    /// What does come out of it, read as the files source reads.
    fn read(&self, start: u64, end: u64, fault: Fault) -> Outcome {
        let start = if fault == Fault::StartOffByOne && start > 0 { start + 1 } else { start };
        let mut reader = RecordReader::new(decoding(self.record_bytes_max), "text".into(), start, end);
        let mut at = if fault == Fault::FedFromStart { start } else { start.saturating_sub(1) } as usize;
        let mut read = Outcome::default();
        for size in self.chunks.iter().cycle() {
            if reader.is_covered() || at >= self.text.len() {
                break;
            }
            let behind = (at + size).min(self.text.len());
            reader.feed(self.text[at..behind].to_vec());
            at = behind;
            if self.eager {
                self.take(&mut reader, &mut read);
            }
        }
        if at >= self.text.len() {
            reader.finish();
        }
        self.take(&mut reader, &mut read);
        assert!(reader.is_done(), "all is fed, and the reader waits for more");
        read
    }

    fn take(&self, reader: &mut RecordReader, read: &mut Outcome) {
        while let Some(decoded) = reader.next(self.rows_max, self.bytes_max) {
            assert!(decoded.batch.num_rows() <= self.rows_max);
            read.rows.extend(texts(&decoded.batch));
            read.failures.extend(decoded.failures.into_iter().map(|failure| {
                let reason = if failure.message.starts_with("longer than") { TOO_LONG } else { INVALID };
                (failure.place, reason)
            }));
        }
    }

    /// Compares all splits; says what is different.
    fn check(&self, fault: Fault) -> Result<(), String> {
        for (start, end) in self.splits() {
            let (expected, read) = (self.expected(start, end), self.read(start, end, fault));
            if expected != read {
                return Err(format!("split {start}..{end}: expected {expected:?}, read {read:?}"));
            }
        }
        Ok(())
    }
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z\r\"ä€\u{FEFF}]{0,12}".prop_map(String::into_bytes),
        1 => "[a-z]{30,90}".prop_map(String::into_bytes),
        1 => Just(Vec::new()),
        1 => vec(any::<u8>().prop_filter("no line ends", |byte| *byte != b'\n'), 0..10),
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let ends = prop_oneof![Just("\n"), Just("\r\n")];
    (any::<bool>(), vec((line(), ends), 0..30), any::<bool>()).prop_map(|(mark, lines, ended)| {
        let mut text = if mark { BYTE_ORDER_MARK.to_vec() } else { Vec::new() };
        let count = lines.len();
        for (i, (line, end)) in lines.into_iter().enumerate() {
            text.extend(line);
            if ended || i + 1 < count {
                text.extend(end.as_bytes());
            }
        }
        text
    })
}

fn case() -> impl Strategy<Value = Case> {
    let record_bytes_max = prop_oneof![Just(1_000), 0..20usize];
    let cuts = vec(any::<proptest::sample::Index>(), 0..6);
    let sizes = (vec(1..40usize, 1..6), 1..10usize, 1..60usize);
    (text(), cuts, sizes, record_bytes_max, any::<bool>()).prop_map(
        |(text, cuts, (chunks, rows_max, bytes_max), record_bytes_max, eager)| {
            let mut cuts: Vec<u64> = match text.len() {
                0 => Vec::new(),
                length => cuts.iter().map(|cut| cut.index(length) as u64).filter(|cut| *cut > 0).collect(),
            };
            cuts.sort_unstable();
            cuts.dedup();
            Case { text, cuts, chunks, rows_max, bytes_max, record_bytes_max, eager }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn each_line_comes_once_however_it_is_cut(case in case()) {
        case.check(Fault::None).map_err(TestCaseError::fail)?;
    }
}

/// A text of three lines, cut once, fed in small chunks.
fn three_lines(cut: u64) -> Case {
    Case {
        text: b"one\ntwo\nthree\n".to_vec(),
        cuts: vec![cut],
        chunks: vec![3],
        rows_max: 2,
        bytes_max: 100,
        record_bytes_max: 100,
        eager: true,
    }
}

#[test]
fn the_property_reports_a_split_that_begins_a_byte_late() {
    for line_begin in [4, 8] {
        assert_eq!(three_lines(line_begin).check(Fault::None), Ok(()));
        three_lines(line_begin).check(Fault::StartOffByOne).unwrap_err();
    }
}

#[test]
fn the_property_reports_a_split_without_the_byte_before_it() {
    for line_begin in [4, 8] {
        three_lines(line_begin).check(Fault::FedFromStart).unwrap_err();
    }
}

#[test]
fn a_cut_within_the_byte_order_mark_loses_no_line() {
    for (cut, chunk) in (1..8).flat_map(|cut| [(cut, 1), (cut, 2), (cut, 100)]) {
        let text = b"\xEF\xBB\xBFone\ntwo\n".to_vec();
        let case = Case { text, chunks: vec![chunk], ..three_lines(cut) };
        assert_eq!(case.check(Fault::None), Ok(()), "cut at {cut}, chunks of {chunk}");
    }
}

#[test]
fn a_line_of_just_the_greatest_length_flows() {
    for (text, chunk) in [("abc\r\nd\r\n", 4), ("abc\nd", 3), ("\u{FEFF}abc\r\nd", 7), ("abc\r\nd", 1)] {
        let text = text.as_bytes().to_vec();
        let case = Case { text, chunks: vec![chunk], record_bytes_max: 3, ..three_lines(1) };
        assert_eq!(case.check(Fault::None), Ok(()));
    }
}

/// Rows of one CSV text, fed in chunks of this size; and the reasons of failures.
fn read_csv(text: &str, options: &[(&str, &str)], chunk: usize) -> (Vec<String>, Vec<RecordFailure>) {
    let connection = with_format(connection("values", &[]), "csv", options);
    let schema = schema(&[("text", DataType::Utf8, false), ("number", DataType::Int64, false)]);
    let decoding = Arc::new(Decoding::of(&connection, &schema).unwrap());
    let mut reader = RecordReader::new(decoding, "text".into(), 0, u64::MAX);
    text.as_bytes().chunks(chunk).for_each(|bytes| reader.feed(bytes.to_vec()));
    reader.finish();
    let decoded: Vec<Decoded> = iter::from_fn(|| reader.next(3, 50)).collect();
    let rows = decoded.iter().flat_map(|decoded| texts(&decoded.batch)).collect();
    (rows, decoded.into_iter().flat_map(|decoded| decoded.failures).collect())
}

/// A CSV record of a text and a number; a text in quotes may hold anything.
fn csv_record(text: &str, quoted: bool) -> String {
    match quoted {
        true => format!("\"{}\",1", text.replace('"', "\"\"")),
        false => format!("{},1", text.replace(['"', ',', '\r', '\n'], "")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn quoted_line_ends_do_not_end_records(
        fields in vec(("x[a\",\n\rä]{0,12}", any::<bool>()), 0..20),
        mark in any::<bool>(),
        bytes_max in prop_oneof![Just(1_000usize), 4..16usize],
        chunk in 1..40usize,
    ) {
        let records: Vec<String> = fields.iter().map(|(text, quoted)| csv_record(text, *quoted)).collect();
        let text = format!("{}{}", if mark { "\u{FEFF}" } else { "" }, records.join("\r\n"));
        let (rows, failures) = read_csv(&text, &[("max-record-bytes", &bytes_max.to_string())], chunk);
        let (mut expected, mut too_long) = (Vec::new(), Vec::new());
        for (i, ((text, quoted), record)) in fields.iter().zip(&records).enumerate() {
            if record.len() > bytes_max {
                too_long.push(format!("text, record {}", i + 1));
            } else if *quoted {
                expected.push(text.clone());
            } else {
                expected.push(text.replace(['"', ',', '\r', '\n'], ""));
            }
        }
        prop_assert_eq!(rows, expected);
        prop_assert_eq!(failures.into_iter().map(|failure| failure.place).collect::<Vec<_>>(), too_long);
    }
}

#[test]
fn a_quote_within_a_bare_field_is_a_character() {
    for chunk in 1..20 {
        let (rows, failures) = read_csv("5\" pipe,1\nplain,2\n6\"\" pipe,3\n\"q\"x\"y,4\n", &[], chunk);
        assert_eq!(rows, ["5\" pipe", "plain", "6\"\" pipe", "qx\"y"], "chunks of {chunk}");
        assert_eq!(failures, []);
    }
}

#[test]
fn a_header_is_passed_over_behind_a_byte_order_mark() {
    for chunk in [1, 2, 100] {
        let text = "\u{FEFF}\"the\ntext\",number\na,1\nb,x\n";
        let (rows, failures) = read_csv(text, &[("header", "true")], chunk);
        assert_eq!(rows, ["a"], "chunks of {chunk}");
        assert_eq!(
            failures.iter().map(|failure| failure.place.as_str()).collect::<Vec<_>>(),
            ["text, record 3"]
        );
    }
}

#[test]
fn a_failure_keeps_the_beginning_of_a_long_record() {
    let mut reader = RecordReader::new(decoding(100), "text".into(), 0, u64::MAX);
    reader.feed([b"short\n".to_vec(), vec![b'x'; 100_000]].concat());
    reader.feed(b"yy\nlast".to_vec());
    reader.finish();
    let decoded: Vec<Decoded> = iter::from_fn(|| reader.next(10, 1_000)).collect();
    let rows: Vec<String> = decoded.iter().flat_map(|decoded| texts(&decoded.batch)).collect();
    assert_eq!(rows, ["short", "last"]);
    let failures: Vec<&RecordFailure> = decoded.iter().flat_map(|decoded| &decoded.failures).collect();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].place, "text, line 2");
    assert_eq!(failures[0].record, vec![b'x'; 64 << 10]);
}
