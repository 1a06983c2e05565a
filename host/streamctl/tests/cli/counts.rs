//! Word count against `sort | uniq -c`.

use crate::support::{Folder, component, counted_by_tools};

fn text() -> String {
    (0..20_000u64)
        .map(|i| format!("w{} {}\n", i.wrapping_mul(2_654_435_761) % 997, "x".repeat(i as usize % 7)))
        .collect()
}

#[test]
fn equal_to_sort_and_uniq_at_every_parallelism() {
    let folder = Folder::new();
    let file = folder.write("text.txt", text());
    for guest in ["word_count", "bare"] {
        for p in ["1", "2", "3", "7"] {
            for chaos in [&[][..], &["--chaos-instances"]] {
                let guest = component(guest);
                let run = |execution: &str| {
                    let mut args = vec!["run", "-p", p, "--execution", execution];
                    args.extend(chaos);
                    args.extend([guest.as_str(), "--input", &file]);
                    folder.streamctl(&args)
                };
                let streaming = run("streaming");
                assert!(streaming.succeeds().rows() == counted_by_tools(&file, false), "{guest} at p = {p}");
                let batch = run("batch");
                assert!(
                    batch.succeeds().rows() == counted_by_tools(&file, true),
                    "{guest} at p = {p}, batch"
                );
            }
        }
    }
}

#[test]
fn counts_of_a_word_rise_by_one_in_the_order_of_the_rows() {
    let folder = Folder::new();
    let file = folder.write("text.txt", text());
    let run = folder.streamctl(&["run", &component("word_count"), "-p", "3", "--input", &file]);
    let mut last = std::collections::BTreeMap::new();
    for line in run.succeeds().out.lines() {
        let (subtask, row) = line.split_once("> ").unwrap();
        let (word, count) = row.trim_matches(['(', ')']).rsplit_once(',').unwrap();
        let (of, before) =
            last.insert(word, (subtask, count.parse::<u64>().unwrap())).unwrap_or((subtask, 0));
        assert_eq!((of, before + 1), (subtask, count.parse().unwrap()), "{line}");
    }
}

#[test]
fn folders_and_globs_and_standard_input() {
    let folder = Folder::new();
    folder.write("in/a.txt", "a b\n");
    folder.write("in/sub/b.txt", "a c");
    folder.write("in/.hidden", "no\n");
    folder.write("in/_SUCCESS", "no\n");
    let wc = component("word_count");
    let expected = ["(a,1)", "(a,2)", "(b,1)", "(c,1)"];
    for input in ["in", "in/*", "in/**/*.txt"] {
        let run = folder.streamctl(&["run", &wc, "-p", "2", "--input", input]);
        if input == "in/*" {
            assert_eq!(run.succeeds().rows(), ["(a,1)", "(b,1)"]);
        } else {
            assert_eq!(run.succeeds().rows(), expected, "{input}");
        }
    }
    let run = folder.with_stdin(&["run", &wc, "--input", "-"], b"a b\na c");
    assert_eq!(run.succeeds().rows(), expected);
}

#[test]
fn without_input_the_components_own_text_is_counted() {
    let folder = Folder::new();
    let run = folder.streamctl(&["run", &component("word_count"), "-p", "3"]);
    assert!(run.succeeds().out.lines().count() > 20_000);
    assert!(run.err.contains("Job word_count finished"), "{}", run.err);
}

#[test]
fn folded_updates_end_in_the_same_counts() {
    let folder = Folder::new();
    let file = folder.write("text.txt", text());
    let wc = component("word_count");
    let run =
        folder.streamctl(&["run", "-p", "2", "-D", "millstream.aggregate.fold=true", &wc, "--input", &file]);
    let rows = run.succeeds().rows();
    let every = counted_by_tools(&file, false);
    assert!(rows.len() < every.len(), "{} rows", rows.len());
    // Each is a row of the unfolded run, and the last of each word is among them.
    assert!(rows.iter().all(|row| every.binary_search(row).is_ok()));
    assert!(counted_by_tools(&file, true).iter().all(|last| rows.binary_search(last).is_ok()));
}
