//! States of every kind over random rows, against a plain account of them.
//!
//! Each row says what is done with which state of its key, and what it then is comes out, so every read
//! and every write shows. Rows of a key keep their order at every parallelism.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use model::Batch;
use platform::Random;
use task::JobOutcome;
use task::simulation::{Fault, Report, options};

use crate::simulated::{Simulated, load, seeds};

#[derive(Clone, Debug)]
struct Line {
    key: i64,
    number: i64,
    op: &'static str,
    item: Option<&'static str>,
    amount: i64,
}

const OPS: [&str; 16] = [
    "total",
    "total",
    "no total",
    "greatest",
    "mean",
    "put",
    "put",
    "get",
    "remove",
    "no items",
    "seen",
    "seen",
    "unseen",
    "add",
    "no history",
    "later",
];
const FAULTS: [&str; 2] = ["fail", "trap"];

fn lines(random: &mut Random, faults: bool) -> Vec<Line> {
    let mut draw = |below: usize| random.below(below as u64) as usize;
    let keys = if draw(5) == 0 { 1 } else { 5 };
    (0..50 + draw(60) as i64)
        .map(|number| Line {
            key: draw(keys) as i64,
            number,
            op: match draw(8) {
                0 if faults => FAULTS[draw(2)],
                _ => OPS[draw(OPS.len())],
            },
            item: [None, Some("a"), Some("b"), Some("")][draw(4)],
            amount: draw(100) as i64 - 50,
        })
        .collect()
}

fn json(lines: &[Line]) -> String {
    let line = |Line { key, number, op, item, amount }: &Line| {
        let item = item.map_or_else(|| "null".to_owned(), |item| format!("{item:?}"));
        format!(r#"{{"key":{key},"number":{number},"op":"{op}","item":{item},"amount":{amount}}}"#) + "\n"
    };
    lines.iter().map(line).collect()
}

#[derive(Default)]
struct States {
    count: i64,
    later: bool,
    total: Option<i64>,
    greatest: Option<i64>,
    mean: Option<(i64, i64)>,
    items: BTreeMap<Option<&'static str>, i64>,
    seen: BTreeMap<Option<&'static str>, i64>,
    history: Vec<(i64, &'static str)>,
}

/// What each line tells, and what each key tells at the end.
fn expected(lines: &[Line]) -> BTreeMap<i64, String> {
    let mut states: BTreeMap<i64, States> = BTreeMap::new();
    let mut said = BTreeMap::new();
    for Line { key, number, op, item, amount } in lines {
        if FAULTS.contains(op) {
            continue;
        }
        let state = states.entry(*key).or_default();
        state.count += 1;
        let text = match *op {
            "total" => {
                *state.total.get_or_insert(0) += amount;
                format!("{:?}", state.total)
            }
            "no total" => {
                state.total = None;
                "None".to_owned()
            }
            "greatest" => {
                state.greatest = state.greatest.max(Some(*amount));
                format!("{:?}", state.greatest)
            }
            "mean" => {
                let (sum, count) = state.mean.get_or_insert((0, 0));
                (*sum, *count) = (*sum + amount, *count + 1);
                format!("{:?}", Some(format!("{sum}/{count}")))
            }
            "put" => {
                state.items.insert(*item, *amount);
                format!("{:?}", state.items)
            }
            "get" => format!("{:?}", state.items.get(item)),
            "remove" => {
                state.items.remove(item);
                format!("{:?}", state.items)
            }
            "no items" => {
                state.items.clear();
                "{}".to_owned()
            }
            "seen" => {
                *state.seen.entry(*item).or_insert(0) += amount;
                format!("{:?}", state.seen.get(item))
            }
            "unseen" => {
                state.seen.remove(item);
                "None".to_owned()
            }
            "add" => {
                state.history.push((*amount, item.unwrap_or_default()));
                format!("{:?}", state.history)
            }
            "no history" => {
                state.history.clear();
                "[]".to_owned()
            }
            _ => {
                state.later = true;
                String::new()
            }
        };
        said.insert(*number, text);
    }
    let at_end = states.iter().filter(|(_, state)| state.later);
    said.extend(at_end.map(|(key, state)| (-1 - key, format!("{:?} {:?} 0", Some(state.count), state.seen))));
    said
}

/// Runs a job over lines, and perhaps a second input.
fn simulate(simulated: &Simulated, job: &str, texts: [&str; 2], seed: u64) -> Vec<Batch> {
    let (report, batches) = run(simulated, job, texts, &[], seed, None);
    assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "SEED={seed}: {report:?}");
    batches
}

fn run(
    simulated: &Simulated,
    job: &str,
    [first, second]: [&str; 2],
    args: &[&str],
    seed: u64,
    fault: Option<Fault>,
) -> (Report, Vec<Batch>) {
    let folder = tempfile::tempdir().unwrap();
    let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    for (option, name, text) in [("--input", "lines.jsonl", first), ("--second", "second.jsonl", second)] {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        args.extend([option.to_owned(), file.display().to_string()]);
    }
    let mut options = options(seed, [1, 2, 3, 7][seed as usize % 4]);
    options.chaos_instances = seed.is_multiple_of(5);
    simulated.run(job, &args, options, seed, fault)
}

fn texts(batches: &[Batch]) -> BTreeMap<i64, String> {
    let mut said = BTreeMap::new();
    for batch in batches {
        let numbers = batch.column(0).as_primitive::<Int64Type>().values();
        for (number, text) in numbers.iter().zip(batch.column(1).as_string::<i32>()) {
            let twice = said.insert(*number, text.unwrap().to_owned());
            assert_eq!(twice, None, "line {number} tells twice");
        }
    }
    said
}

/// Value, reducing, aggregating, map, riding map and list, with rows that fail and trap after they have
/// written to all of them.
#[test]
fn states_of_every_kind_are_as_in_the_account() {
    let simulated = load("operators");
    for seed in seeds().into_iter().take(300) {
        let lines = lines(&mut Random::of_seed(seed ^ 0x57A7E), seed % 3 != 0);
        let said = texts(&simulate(&simulated, "states", [&json(&lines), ""], seed));
        assert_eq!(said, expected(&lines), "SEED={seed}");
    }
}

/// The deliberate fault: an account that forgets one clearing of a map must differ.
#[test]
fn a_write_that_is_lost_is_reported() {
    let simulated = load("operators");
    let differ = (0..20)
        .filter(|seed| {
            let mut lines = lines(&mut Random::of_seed(*seed), false);
            let said = texts(&simulate(&simulated, "states", [&json(&lines), ""], *seed));
            let cleared = lines.iter().position(|line| line.op == "no items");
            cleared.into_iter().for_each(|at| lines[at].op = "get");
            said != expected(&lines)
        })
        .count();
    assert!(differ > 10, "only {differ} of 20 runs differ");
}

/// The deliberate fault: state that is used before it is near must show.
#[test]
fn state_that_is_not_awaited_is_reported() {
    let simulated = load("operators");
    let reported = (0..20).filter(|seed| {
        let lines = lines(&mut Random::of_seed(*seed), false);
        let fault = Some(Fault::StateNotAwaited);
        let (report, _) = run(&simulated, "states", [&json(&lines), ""], &[], *seed, fault);
        matches!(&report.outcome, Some(JobOutcome::Failed(error)) if error.to_string().contains("not near yet"))
    });
    let reported = reported.count();
    assert!(reported > 10, "only {reported} of 20 runs fail");
}

/// An entry of a state that grows old, and when it was touched.
#[derive(Clone, Copy)]
struct Aged(i64, i64);

/// What is told at these times (by number) of states that live so long; entries of `used`, `riding` and
/// `read` are touched when they are looked at.
fn expected_of_aging(lines: &[Line], times: &BTreeMap<i64, i64>, ttl: i64) -> BTreeMap<i64, String> {
    #[derive(Default)]
    struct Key {
        written: Option<Aged>,
        used: Option<Aged>,
        riding: BTreeMap<Option<&'static str>, Aged>,
        read: BTreeMap<Option<&'static str>, Aged>,
        added: Vec<Aged>,
    }
    let mut keys: BTreeMap<i64, Key> = BTreeMap::new();
    let mut said = BTreeMap::new();
    for Line { key, number, op, item, amount } in lines {
        let now = times[number];
        let is_there = |entry: &Aged| now - entry.1 < ttl;
        let key = keys.entry(*key).or_default();
        key.written = key.written.filter(is_there);
        key.used = key.used.filter(is_there);
        key.riding.retain(|_, entry| is_there(entry));
        key.read.retain(|_, entry| is_there(entry));
        key.added.retain(is_there);
        key.used.iter_mut().chain(key.riding.get_mut(item)).for_each(|entry| entry.1 = now);
        let value = |entry: Option<&Aged>| format!("{:?}", entry.map(|entry| entry.0));
        let written = value(key.written.as_ref());
        let (used, riding) = (value(key.used.as_ref()), value(key.riding.get(item)));
        let mut text = format!("{now} {written} {written} {used} {riding}");
        match *op {
            "put" => {
                let entry = Aged(*amount, now);
                (key.written, key.used) = (Some(entry), Some(entry));
                key.riding.insert(*item, entry);
                key.read.insert(*item, entry);
                key.added.push(entry);
            }
            "get" => {
                key.read.get_mut(item).into_iter().for_each(|entry| entry.1 = now);
                text += &format!(" {}", value(key.read.get(item)));
            }
            "all" => {
                key.read.values_mut().for_each(|entry| entry.1 = now);
                let read: BTreeMap<_, _> = key.read.iter().map(|(item, entry)| (item, entry.0)).collect();
                let added: Vec<i64> = key.added.iter().map(|entry| entry.0).collect();
                text += &format!(" {read:?} {added:?}");
            }
            _ => {}
        }
        said.insert(*number, text);
    }
    said
}

/// Runs `aging`: its lines, and what they tell.
fn age(simulated: &Simulated, seed: u64, ttl: i64) -> (Vec<Line>, BTreeMap<i64, String>) {
    let mut random = Random::of_seed(seed ^ 0xA6E);
    let mut lines = lines(&mut random, false);
    lines.iter_mut().for_each(|line| line.op = ["put", "get", "all", "none"][random.below(4) as usize]);
    let args = ["--ttl", &ttl.to_string()];
    let (report, batches) = run(simulated, "aging", [&json(&lines), ""], &args, seed, None);
    assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "SEED={seed}: {report:?}");
    (lines, texts(&batches))
}

fn times(said: &BTreeMap<i64, String>) -> BTreeMap<i64, i64> {
    let time = |text: &String| text.split(' ').next().and_then(|time| time.parse().ok()).unwrap();
    said.iter().map(|(number, text)| (*number, time(text))).collect()
}

/// States of every kind are forgotten when they have not been written, or used, for so long.
#[test]
fn states_live_as_long_as_they_should() {
    let simulated = load("operators");
    let mut all = 0;
    let mut gone = 0;
    for seed in seeds().into_iter().take(300) {
        let ttl = 1 + seed as i64 % 30;
        let (lines, said) = age(&simulated, seed, ttl);
        let times = times(&said);
        let expected = expected_of_aging(&lines, &times, ttl);
        assert_eq!(said, expected, "SEED={seed}");
        all += said.len();
        let forever = expected_of_aging(&lines, &times, i64::MAX);
        gone += expected.iter().filter(|(number, text)| forever[*number] != **text).count();
    }
    assert!(gone > all / 10 && gone < all * 9 / 10, "in {gone} of {all} lines something is gone");
}

/// The deliberate fault: states that live a millisecond longer must differ.
#[test]
fn states_that_live_too_long_are_reported() {
    let simulated = load("operators");
    let differ = (0..20).filter(|seed| {
        let (lines, said) = age(&simulated, *seed, 4);
        said != expected_of_aging(&lines, &times(&said), 5)
    });
    let differ = differ.count();
    assert!(differ > 5, "only {differ} of 20 runs differ");
}

/// Lines that change rules, as text, and what the rules are after each number of them that did not fail.
fn rules(random: &mut Random) -> (String, Vec<String>) {
    let mut rules: BTreeMap<String, i64> = BTreeMap::new();
    let (mut text, mut states) = (String::new(), vec![format!("{rules:?}")]);
    for value in 0..20 + random.below(30) as i64 {
        let name = ["a", "b", "c", "bad"][random.below(4) as usize];
        let is_put = random.below(3) > 0;
        let said = if is_put { value.to_string() } else { "null".to_owned() };
        text.push_str(&format!("{{\"name\":\"{name}\",\"value\":{said}}}\n"));
        // A rule that fails leaves nothing.
        if name != "bad" {
            match is_put {
                true => rules.insert(name.to_owned(), value),
                false => rules.remove(name),
            };
            *rules.entry("#".to_owned()).or_insert(0) += 1;
            states.push(format!("{rules:?}"));
        }
    }
    (text, states)
}

/// Every row meets the rules as they were after some number of them, the same in all subtasks, and never
/// an older state than the row of its key before it.
#[test]
fn rows_meet_the_rules_in_their_order() {
    let simulated = load("operators");
    let mut met = BTreeSet::new();
    for seed in seeds().into_iter().take(200) {
        let mut random = Random::of_seed(seed ^ 0x60D);
        let (lines, (text, states)) = (lines(&mut random, false), rules(&mut random));
        let said = texts(&simulate(&simulated, "ruled", [&json(&lines), &text], seed));
        assert_eq!(said.len(), lines.len(), "SEED={seed}");
        let mut before: BTreeMap<i64, (i64, usize)> = BTreeMap::new();
        for line in &lines {
            let (count, seen) = before.entry(line.key).or_default();
            *count += 1;
            let rest = said[&line.number].strip_prefix(&format!("Some({count}) ")).unwrap();
            let at = states.iter().position(|state| state == rest);
            let at = at.unwrap_or_else(|| panic!("SEED={seed}: line {} meets {rest}", line.number));
            assert!(at >= *seen, "SEED={seed}: line {} meets older rules", line.number);
            *seen = at;
            met.insert((at > 0, at + 1 == states.len()));
        }
    }
    assert!(met.len() >= 3, "rows came only before, or only after the rules");
}

/// The same for rows without a key: each meets the rules as they were after some number of changes.
#[test]
fn rows_without_a_key_meet_the_rules() {
    let simulated = load("operators");
    for seed in seeds().into_iter().take(100) {
        let mut random = Random::of_seed(seed ^ 0x5B4D);
        let (lines, (text, states)) = (lines(&mut random, true), rules(&mut random));
        let said = texts(&simulate(&simulated, "spread", [&json(&lines), &text], seed));
        let well: Vec<i64> = lines.iter().filter(|line| line.op != "fail").map(|line| line.number).collect();
        assert_eq!(said.keys().copied().collect::<Vec<_>>(), well, "SEED={seed}");
        let stray = said.iter().find(|(_, rules)| !states.contains(rules));
        assert_eq!(stray, None, "SEED={seed}");
    }
}

fn threes(batches: &[Batch]) -> Vec<[i64; 3]> {
    let rows = batches.iter().flat_map(|batch| {
        let columns =
            [0, 1, 2].map(|column| batch.column(column).as_primitive::<Int64Type>().values().clone());
        (0..batch.num_rows()).map(move |row| [columns[0][row], columns[1][row], columns[2][row]])
    });
    rows.collect()
}

/// Two inputs, each by its own method, share their keys' state; what fails of each goes aside.
#[test]
fn two_inputs_of_the_sdk_share_state() {
    let simulated = load("operators");
    for seed in seeds().into_iter().take(100) {
        let mut random = Random::of_seed(seed ^ 0xB07);
        let both = [lines(&mut random, true), lines(&mut random, true)];
        let mut sums: BTreeMap<i64, [i64; 2]> = BTreeMap::new();
        let mut expected: Vec<[i64; 3]> = Vec::new();
        for (input, lines) in both.iter().enumerate() {
            for line in lines {
                match FAULTS.contains(&line.op) {
                    true => expected.push([1 + input as i64, line.number, line.amount]),
                    false => sums.entry(line.key).or_default()[input] += line.amount,
                }
            }
        }
        let texts = both.map(|lines| json(&lines));
        let mut given = threes(&simulate(&simulated, "both", [&texts[0], &texts[1]], seed));
        given.sort_unstable();
        expected.extend(sums.into_iter().map(|(key, [first, second])| [-key, first, second]));
        expected.sort_unstable();
        assert_eq!(given, expected, "SEED={seed}");
    }
}

/// A user's accumulator, with rows that fail after they have changed it.
#[test]
fn accumulators_leave_out_rows_that_fail() {
    let simulated = load("operators");
    for seed in seeds().into_iter().take(100) {
        let lines = lines(&mut Random::of_seed(seed ^ 0xACC), true);
        let mut expected: BTreeMap<i64, Vec<[i64; 3]>> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.op != "fail") {
            let of_key = expected.entry(line.key).or_default();
            let [_, least, greatest] = of_key.last().copied().unwrap_or([line.key, i64::MAX, i64::MIN]);
            of_key.push([line.key, line.amount.min(least), line.amount.max(greatest)]);
        }
        let mut given: BTreeMap<i64, Vec<[i64; 3]>> = BTreeMap::new();
        for row in threes(&simulate(&simulated, "extremes", [&json(&lines), ""], seed)) {
            given.entry(row[0]).or_default().push(row);
        }
        assert_eq!(given, expected, "SEED={seed}");
    }
}
