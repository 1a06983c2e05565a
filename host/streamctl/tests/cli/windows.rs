//! Functions in windows in the real engine, held against windows that are made by hand.

use std::collections::BTreeMap;

use crate::support::{Folder, Ran, component};

/// A row: key, event time, number.
type Reading = (i64, i64, i64);
/// What is given of a window: key, start, end, text.
type Made = (i64, i64, i64, String);

const SIZE: i64 = 100;
const STEP: i64 = 20;
/// What there is of a window where it has no bounds.
const ALWAYS: (i64, i64) = (i64::MIN, i64::MAX);

/// Rows of a few keys that come up to 150 ms out of order, with pauses.
fn readings() -> Vec<Reading> {
    some_readings(3_000)
}

fn some_readings(count: usize) -> Vec<Reading> {
    let mut state = 7u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 33) % below
    };
    let mut now = 1_000;
    (0..count)
        .map(|_| {
            now += if next(97) == 0 { 300 } else { next(9) as i64 };
            (next(11) as i64, now - next(150) as i64, next(1_000) as i64 - 100)
        })
        .collect()
}

fn input(folder: &Folder, readings: &[Reading]) -> String {
    let line = |(key, at, number): &Reading| format!("{{\"key\":{key},\"at\":{at},\"number\":{number}}}\n");
    folder.write("readings.jsonl", readings.iter().map(line).collect::<String>())
}

/// Runs the job with these options at each parallelism, with and without fresh instances.
fn each(options: &str, check: impl Fn(&[Made], &str)) {
    each_of(&readings(), options, check);
}

fn each_of(readings: &[Reading], options: &str, check: impl Fn(&[Made], &str)) {
    let folder = Folder::new();
    let (file, operators) = (input(&folder, readings), component("operators"));
    for run in ["-p 1", "-p 3", "-p 2 --chaos-instances"] {
        let mut args = vec!["run", "-c", "windows"];
        args.extend(run.split(' '));
        args.extend([operators.as_str(), "--input", &file, "--format", "csv"]);
        args.extend(options.split(' '));
        let ran = folder.streamctl(&args);
        check(&made(ran.succeeds()), &format!("{options} {run}"));
    }
}

fn made(ran: &Ran) -> Vec<Made> {
    let time = |text: &str| text.parse::<i64>().unwrap_or_else(|_| panic!("no time: {text}"));
    let row = |line: &String| {
        let fields: Vec<&str> = line.splitn(4, ',').collect();
        (time(fields[0]), time(fields[1]), time(fields[2]), fields[3].trim_matches('"').to_owned())
    };
    let mut rows: Vec<Made> = ran.rows().iter().filter(|line| !line.starts_with("f0")).map(row).collect();
    rows.sort_unstable();
    rows
}

/// The rows that each window has, in their order, of rows that are all in time.
type Windows = BTreeMap<(i64, i64, i64), Vec<i64>>;

fn windows_of(kind: &str, rows: &[Reading]) -> Windows {
    let mut windows = Windows::new();
    if kind == "session" {
        return sessions_of(rows);
    }
    for (key, at, number) in rows {
        for (start, end) in bounds(kind, *at) {
            windows.entry((*key, start, end)).or_default().push(*number);
        }
    }
    windows
}

fn bounds(kind: &str, at: i64) -> Vec<(i64, i64)> {
    let tumbling = at.div_euclid(SIZE) * SIZE;
    match kind {
        "tumbling" => vec![(tumbling, tumbling + SIZE)],
        "sliding" => {
            let last = at.div_euclid(STEP) * STEP;
            (0..SIZE / STEP).map(|n| (last - n * STEP, last - n * STEP + SIZE)).collect()
        }
        "cumulating" => {
            let ends = (1..=SIZE / STEP).map(|n| tumbling + n * STEP).filter(|end| at < *end);
            ends.map(|end| (tumbling, end)).collect()
        }
        _ => vec![ALWAYS],
    }
}

fn sessions_of(rows: &[Reading]) -> Windows {
    let mut by_key = BTreeMap::<i64, Vec<(i64, usize)>>::new();
    for (place, (key, at, _)) in rows.iter().enumerate() {
        by_key.entry(*key).or_default().push((*at, place));
    }
    let mut windows = Windows::new();
    for (key, mut times) in by_key {
        times.sort_unstable();
        for session in times.chunk_by(|a, b| b.0 - a.0 <= SIZE) {
            let (start, end) = (session[0].0, session[session.len() - 1].0 + SIZE);
            let mut places: Vec<usize> = session.iter().map(|(_, place)| *place).collect();
            places.sort_unstable();
            windows.insert((key, start, end), places.iter().map(|place| rows[*place].2).collect());
        }
    }
    windows
}

/// What a function gives of the rows of a window, or nothing.
fn text(with: &str, numbers: &[i64]) -> Option<String> {
    let shown = |numbers: &[i64]| numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    match with {
        "rows" => (!numbers.is_empty()).then(|| shown(numbers)),
        "both" => {
            let (even, odd): (Vec<i64>, Vec<i64>) = numbers.iter().partition(|number| *number % 2 == 0);
            (!numbers.is_empty()).then(|| format!("{} | {}", shown(&even), shown(&odd)))
        }
        _ => (!numbers.is_empty()).then(|| format!("{}/{}", numbers.len(), numbers.iter().sum::<i64>())),
    }
}

/// Rows that an aggregate fails are not in its windows.
fn is_good(with: &str, number: i64) -> bool {
    ["rows", "both"].contains(&with) || ![13, 14].contains(&(number % 100))
}

fn good(with: &str) -> Vec<Reading> {
    readings().into_iter().filter(|(.., number)| is_good(with, *number)).collect()
}

/// What a window is when a trigger has been asked after each of its rows, and at its end.
fn fired(with: &str, numbers: &[i64], trigger: &str, is_purging: bool) -> Vec<String> {
    let mut texts = Vec::new();
    let mut from = 0;
    let mut counted = 0;
    for upto in 1..=numbers.len() {
        counted += 1;
        let (fires, purges) = match trigger {
            "rows" => (counted % STEP == 0, is_purging),
            "own" => (counted % 5 == 0, counted % 10 == 0 || is_purging),
            _ => (false, false),
        };
        if fires {
            texts.extend(text(with, &numbers[from..upto]));
            from = if purges { upto } else { from };
        }
    }
    if trigger != "rows" {
        texts.extend(text(with, &numbers[from..]));
    }
    texts
}

fn expected(kind: &str, with: &str, trigger: &str, is_purging: bool) -> Vec<Made> {
    // A row that fails has made its session longer all the same.
    let rows = if kind == "session" { readings() } else { good(with) };
    let mut windows = windows_of(kind, &rows);
    windows.values_mut().for_each(|numbers| numbers.retain(|number| is_good(with, *number)));
    let mut made: Vec<Made> = windows
        .iter()
        .flat_map(|((key, start, end), numbers)| {
            let texts = fired(with, numbers, trigger, is_purging);
            texts.into_iter().map(|text| (*key, *start, *end, text)).collect::<Vec<_>>()
        })
        .collect();
    made.sort_unstable();
    made
}

/// Compares what a job gives when its windows end with the input, and tells of the first difference.
fn compare(kind: &str, with: &str, trigger: &str, is_purging: bool) {
    let purging = if is_purging { " --purging" } else { "" };
    let options = format!("--bound 1000000 --windows {kind} --with {with} --trigger {trigger}{purging}");
    let expected = expected(kind, with, trigger, is_purging);
    each(&options, |made, run| {
        let mut made = made.to_vec();
        let mut expected = expected.clone();
        if (kind, with) == ("session", "both") {
            // Rows of sessions that meet are put together session by session.
            made.iter_mut().chain(&mut expected).for_each(|row| row.3 = sorted(&row.3));
        }
        assert_same(&made, &expected, run);
    });
}

/// The numbers of each stream in their order.
fn sorted(text: &str) -> String {
    let of_one = |side: &str| {
        let mut words: Vec<&str> = side.split_whitespace().collect();
        words.sort_unstable();
        words.join(" ")
    };
    text.split('|').map(of_one).collect::<Vec<_>>().join("|")
}

fn assert_same(made: &[Made], expected: &[Made], run: &str) {
    let missing = expected.iter().find(|row| !made.contains(row));
    let extra = made.iter().find(|row| !expected.contains(row));
    assert!(
        made.len() == expected.len() && missing.is_none() && extra.is_none(),
        "{run}: {} rows, expected {}; missing {missing:?}, extra {extra:?}",
        made.len(),
        expected.len()
    );
}

#[test]
fn aggregates_in_windows_on_a_grid() {
    for kind in ["tumbling", "sliding", "cumulating"] {
        compare(kind, "sums", "end", false);
        compare(kind, "plain", "end", false);
    }
}

#[test]
fn all_rows_of_windows_on_a_grid() {
    for kind in ["tumbling", "sliding", "cumulating"] {
        compare(kind, "rows", "end", false);
    }
}

#[test]
fn rows_of_two_streams_in_windows_on_a_grid() {
    for kind in ["tumbling", "sliding"] {
        compare(kind, "both", "end", false);
    }
}

#[test]
fn triggers_ready_made_and_of_the_users_own() {
    for with in ["sums", "plain", "rows"] {
        compare("tumbling", with, "rows", false);
        compare("tumbling", with, "own", false);
        compare("sliding", with, "own", true);
    }
}

#[test]
fn sessions_that_meet() {
    for with in ["sums", "rows", "both"] {
        compare("session", with, "end", false);
    }
}

#[test]
fn windows_for_all_rows_and_for_so_many() {
    for with in ["sums", "rows"] {
        compare("global", with, "rows", true);
        compare("global", with, "own", false);
        // Each so many rows of a key are a window.
        let expected = expected("global", with, "rows", true);
        each(&format!("--bound 1000000 --windows count --size {STEP} --with {with}"), |made, run| {
            assert_same(made, &expected, run);
        });
    }
}

#[test]
fn late_rows_go_aside_and_others_are_counted_once() {
    // So many that the watermark moves between them, however they are put into batches.
    let readings = some_readings(20_000);
    for (with, options) in [("sums", ""), ("rows", ""), ("both", ""), ("plain", " --windows sliding")] {
        let options = format!("--bound 30 --lateness 1 --with {with}{options}");
        let is_sliding = options.contains("sliding");
        each_of(&readings, &options, |made, run| {
            let (late, in_time): (Vec<&Made>, Vec<&Made>) =
                made.iter().partition(|row| row.3.starts_with("late "));
            assert!(!late.is_empty() && !in_time.is_empty(), "{run}: {} late, {}", late.len(), in_time.len());
            // The last that a window gave has all its rows: the text that is longest, or has the greatest count.
            let mut last = BTreeMap::<(i64, i64, i64), i64>::new();
            for (key, start, end, text) in in_time {
                let count = match text.split_once('/') {
                    Some((count, _)) => count.parse::<i64>().unwrap(),
                    None => text.split_whitespace().filter(|word| *word != "|").count() as i64,
                };
                let greatest = last.entry((*key, *start, *end)).or_default();
                *greatest = count.max(*greatest);
            }
            let failed = late.iter().filter(|(.., text)| {
                let number: i64 = text.trim_start_matches("late ").parse().unwrap();
                !is_good(with, number)
            });
            let (failed, late) = (failed.count() as i64, late.len() as i64);
            let counted: i64 = last.values().sum();
            let good = readings.iter().filter(|(.., number)| is_good(with, *number)).count() as i64;
            let all = good + failed;
            if is_sliding {
                // A row that is late for some of its windows is in the others.
                assert!(counted < 5 * all && counted > 4 * (all - late), "{run}: {counted} of {all}");
            } else {
                assert_eq!(counted + late, all, "{run}");
            }
        });
    }
}

#[test]
fn early_results_lead_to_the_last() {
    for with in ["sums", "rows"] {
        let expected = expected("tumbling", with, "end", false);
        each(&format!("--bound 150 --trigger early --with {with}"), |made, run| {
            let missing = expected.iter().find(|row| !made.contains(row));
            assert!(missing.is_none(), "{run}: {missing:?}");
            assert!(made.len() > expected.len() + 50, "{run}: {} rows", made.len());
        });
    }
}

#[test]
fn a_window_that_is_wrong_is_told() {
    let expected = expected("tumbling", "sums", "end", false);
    let mut wrong = expected.clone();
    wrong[17].3.push('0');
    let told = std::panic::catch_unwind(|| assert_same(&wrong, &expected, "a fault")).unwrap_err();
    let told = told.downcast_ref::<String>().unwrap();
    assert!(told.contains("missing Some") && told.contains("extra Some"), "{told}");
}
