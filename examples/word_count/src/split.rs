//! Splits lines into words, column by column.

use crate::millstream::job::calls::{Outcome, Output};
use crate::millstream::job::rows::{Batch, Column, Values, Varlen};

/// Rows of one text column in, rows of one text column out; a word has its line's time.
///
/// # Panics
/// If the host's batch is not of the schema that the plan has.
pub(crate) fn split(rows: &Batch) -> Outcome {
    let [Column { values: Values::Bytes(lines), .. }] = &rows.columns[..] else {
        panic!("the schema is one text column");
    };
    let mut data = Vec::with_capacity(lines.data.len());
    let mut offsets = vec![0u32];
    let mut times = rows.event_times.as_ref().map(|_| Vec::new());
    for row in 0..rows.length as usize {
        let line = &lines.data[lines.offsets[row] as usize..lines.offsets[row + 1] as usize];
        // Words end at ASCII white space, which is never a part of another UTF-8 character.
        for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            data.extend_from_slice(word);
            offsets.push(data.len() as u32);
            if let (Some(times), Some(of_lines)) = (&mut times, &rows.event_times) {
                times.push(of_lines[row]);
            }
        }
    }
    let length = offsets.len() as u32 - 1;
    if length == 0 {
        return Outcome { outputs: vec![], failures: vec![] };
    }
    let words = Column { values: Values::Bytes(Varlen { offsets, data }), validity: None };
    let batch = Batch { length, event_times: times, kinds: None, columns: vec![words] };
    Outcome { outputs: vec![Output { port: 0, rows: batch }], failures: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_times_of_their_lines() {
        let lines = Varlen { offsets: vec![0, 5, 5, 8], data: b"a bc de ".to_vec() };
        let rows = Batch {
            length: 3,
            event_times: Some(vec![1, 2, 3]),
            kinds: None,
            columns: vec![Column { values: Values::Bytes(lines), validity: None }],
        };
        let outcome = split(&rows);
        let rows = &outcome.outputs[0].rows;
        assert_eq!((rows.length, rows.event_times.as_deref()), (3, Some(&[1, 1, 3][..])));
        let Values::Bytes(words) = &rows.columns[0].values else { panic!("text") };
        assert_eq!((&words.data[..], &words.offsets[..]), (&b"abcde"[..], &[0, 1, 3, 5][..]));
    }
}
