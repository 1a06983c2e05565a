//! Every operator in the real engine, at several parallelisms, with and without fresh instances.

use std::collections::BTreeMap;

use crate::support::{Folder, Ran, component};

const NAMES: i64 = 23;

/// Lines of a name and a number.
fn rows() -> Vec<(String, i64)> {
    (0..5_000i64).map(|i| (format!("n{}", i * 7 % NAMES), i * 31 % 101 - 50)).collect()
}

fn input(folder: &Folder) -> String {
    let text: String = rows().iter().map(|(name, number)| format!("{name},{number}\n")).collect();
    folder.write("rows.csv", text)
}

/// Runs a job at each parallelism, with and without fresh instances.
fn each(job: &str, options: &[&str], check: impl Fn(&Ran, &str)) {
    let folder = Folder::new();
    let (file, operators) = (input(&folder), component("operators"));
    for p in ["1", "2", "3", "7"] {
        for chaos in [&[][..], &["--chaos-instances"]] {
            let mut args = vec!["run", "-c", job, "-p", p];
            args.extend(options);
            args.extend(chaos);
            args.extend([operators.as_str(), "--input", &file]);
            check(folder.streamctl(&args).succeeds(), p);
        }
    }
}

fn by_name() -> BTreeMap<String, Vec<i64>> {
    let mut by_name = BTreeMap::<String, Vec<i64>>::new();
    for (name, number) in rows() {
        by_name.entry(name).or_default().push(number);
    }
    by_name
}

/// The last row of each name, as it was printed.
fn last_rows(ran: &Ran) -> BTreeMap<String, i64> {
    let row = |line: &str| {
        let row = line.rsplit("> ").next().unwrap().trim_matches(['(', ')']).to_owned();
        let (name, number) = row.split_once(',').unwrap();
        (name.to_owned(), number.parse::<i64>().unwrap())
    };
    ran.out.lines().map(row).collect()
}

#[test]
fn sums_native_and_reduced_by_a_closure() {
    let sums: BTreeMap<String, i64> =
        by_name().into_iter().map(|(name, all)| (name, all.iter().sum())).collect();
    for job in ["sums", "reduced"] {
        each(job, &[], |ran, p| {
            assert_eq!(ran.out.lines().count(), rows().len(), "{job} at p = {p}");
            assert!(last_rows(ran) == sums, "{job} at p = {p}");
        });
    }
}

#[test]
fn several_aggregates_at_once() {
    let mut expected: Vec<String> = by_name()
        .iter()
        .map(|(name, all)| {
            let (least, greatest) = (all.iter().min().unwrap(), all.iter().max().unwrap());
            let mean = all.iter().sum::<i64>() as f64 / all.len() as f64;
            format!("({name},{},{least},{greatest},{mean:?})", all.len())
        })
        .collect();
    expected.sort_unstable();
    each("aggregates", &["--execution", "batch"], |ran, p| assert_eq!(ran.rows(), expected, "at p = {p}"));
}

#[test]
fn every_way_of_going_to_subtasks() {
    each("partitions", &[], |ran, p| {
        let p: usize = p.parse().unwrap();
        let mut counts = BTreeMap::<&str, usize>::new();
        for line in ran.out.lines() {
            let (subtask, row) = line.split_once("> ").unwrap_or(("1", line));
            let subtask: usize = subtask.parse().unwrap();
            let fields: Vec<&str> = row.trim_matches(['(', ')']).split(',').collect();
            *counts.entry(fields[0]).or_default() += 1;
            let number: i64 = fields[2].parse().unwrap();
            match fields[0] {
                "first" => assert_eq!(subtask, 1),
                "chosen" => assert_eq!(subtask, 1 + number.unsigned_abs() as usize % p, "{line}"),
                _ => {}
            }
        }
        let all = rows().len();
        assert_eq!(
            counts,
            BTreeMap::from([("even", all), ("every", all * p), ("first", all), ("chosen", all)])
        );
    });
}

#[test]
fn side_outputs_of_another_parallelism_and_unions() {
    let counts: BTreeMap<String, i64> =
        by_name().into_iter().map(|(name, all)| (name, all.len() as i64)).collect();
    each("sides", &["--execution", "batch"], |ran, p| assert!(last_rows(ran) == counts, "at p = {p}"));
}

#[test]
fn bad_rows_are_skipped_or_fail_the_job_with_their_place() {
    let folder = Folder::new();
    let file = folder.write("bad.csv", "a,1\nb,x\nc,0\nd,4,5\ne,5\n");
    let operators = component("operators");
    let run = folder.streamctl(&["run", "-c", "lenient", &operators, "--input", &file]);
    // The number that is none, the division by zero, the field too many.
    assert_eq!(run.succeeds().out, "(a,100)\n(e,20)\n");
    assert!(run.err.contains("3 failed and skipped"), "{}", run.err);
    let run = folder.streamctl(&["run", "-c", "strict", &operators, "--input", &file]);
    run.fails(1, &["bad.csv, record 2", "b,x", "hint: "]);
}
