//! Counts the words of a text.

use millstream::prelude::*;

/// Counted when no input is given.
const SAMPLE: &str = include_str!("../sample.txt");

#[derive(Parser)]
struct WordCountArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Counts the words of a text: for each word one row, with its count so far.
#[job]
fn word_count(job: &Job, args: WordCountArgs) -> Result<()> {
    job.lines(args.input.or_sample(SAMPLE))
        .flat_map(|line, out| {
            for word in line.split_whitespace() {
                out.emit((word, 1));
            }
        })
        .key_by(F0)
        .sum(F1)
        .names(["word", "count"])
        .sink(&args.output);
    Ok(())
}

millstream::jobs!(word_count);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millstream::testing::Harness;

    use super::*;

    #[test]
    fn every_word_gives_its_new_count() {
        let run = Harness::of(word_count).lines(["to be or", "  not to\tbe"]).run();
        let expected = [("to", 1), ("be", 1), ("or", 1), ("not", 1), ("to", 2), ("be", 2)];
        let expected = expected.map(|(word, count)| (word.to_string(), count));
        assert_eq!(run.rows::<(String, i64)>("Sink: print"), expected);
        assert_eq!(run.names("Sink: print"), ["word", "count"]);
    }

    #[test]
    fn the_sample_is_counted_when_no_input_is_given() {
        let run = Harness::of(word_count).run();
        let mut last = BTreeMap::new();
        for (word, count) in run.rows::<(String, i64)>("Sink: print") {
            last.insert(word, count);
        }
        let total: i64 = last.values().sum();
        assert_eq!(total as usize, SAMPLE.split_whitespace().count());
    }
}
