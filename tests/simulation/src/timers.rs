//! Timers and watermarks over random out-of-order rows, against a plain account of them.
//!
//! With batches of one row each row is followed by its watermark, so at parallelism 1 the account is
//! exact: what each key gives, in its order. At higher parallelism rows of a key come in any order;
//! there the rows set timers only, and what must come out does not depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use model::Batch;
use platform::{Platform, Random};
use task::JobOutcome;
use task::simulation::options;

use crate::simulated::{Simulated, load, seeds};

const SET: i64 = 1;
const DELETE: i64 = 2;
const FAIL: i64 = 3;
const TRAP: i64 = 4;
const SET_PROCESSING: i64 = 5;
const DELETE_PROCESSING: i64 = 6;
/// Lies about timers: a group that there is not, columns of unequal length, an unknown change. Lies about
/// states: reads of entries where there are none, of a state that there is not; changes of such.
const LIES: [i64; 6] = [7, 8, 9, 10, 11, 12];

/// Two guests that do what their rows say, nearly the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// `tests/guests/timers`, from the contract alone.
    Contract,
    /// The job `timers` of `tests/guests/operators`, a process function of the Rust SDK.
    Sdk,
}

impl Guest {
    fn load(self) -> Simulated {
        load(match self {
            Self::Contract => "timers",
            Self::Sdk => "operators",
        })
    }

    fn line(self, row: &Row) -> String {
        let Row { key, at, deed, time, then } = row;
        let then = then.map_or_else(|| "null".to_owned(), |then| then.to_string());
        match self {
            Self::Contract => {
                format!(r#"{{"key":{key},"at":{at},"deed":{deed},"time":{time},"then":{then}}}"#)
            }
            Self::Sdk => {
                let op = ["none", "set", "delete", "fail", "trap"][*deed as usize];
                format!(r#"{{"key":{key},"at":{at},"op":"{op}","time":{time},"then":{then}}}"#)
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    key: i64,
    at: i64,
    deed: i64,
    time: i64,
    then: Option<i64>,
}

/// What a key gives, in its order: kind, time, count.
type Given = BTreeMap<i64, Vec<(i64, i64, i64)>>;

/// What rows may do.
#[derive(Clone, Copy)]
struct Kinds {
    deeds: &'static [i64],
    /// Timers for the past, and times at the ends of all time.
    extremes: bool,
    then: bool,
}

fn rows(random: &mut Random, kinds: Kinds, disorder: i64) -> Vec<Row> {
    let mut draw = |below: i64| random.below(below as u64) as i64;
    let keys = if draw(5) == 0 { 1 } else { 6 };
    (0..60 + draw(60))
        .map(|i| {
            let mut at = i * 3 - 50 - draw(disorder + 1);
            let mut time = at + 1 + draw(60);
            if kinds.extremes {
                match draw(40) {
                    0 => at = i64::MIN + draw(3),
                    1 => time = i64::MAX - draw(3),
                    2 => time = i64::MIN + draw(3),
                    3..10 => time = at - draw(40),
                    _ => {}
                }
            }
            let then = (kinds.then && draw(4) == 0).then(|| time + draw(20) - 5);
            Row {
                key: draw(keys),
                at,
                deed: kinds.deeds[draw(kinds.deeds.len() as i64) as usize],
                time,
                then,
            }
        })
        .collect()
}

/// What a key remembers.
#[derive(Default)]
struct State {
    count: i64,
    /// The contract's guest: what the next timer sets.
    then: Option<i64>,
    /// The SDK's guest: what the timer for this time sets.
    thens: BTreeMap<i64, i64>,
}

struct Account {
    guest: Guest,
    given: Given,
    states: BTreeMap<i64, State>,
    timers: BTreeSet<(i64, i64)>,
}

impl Account {
    fn row(&mut self, row: &Row) {
        if row.deed == FAIL || row.deed == TRAP || LIES.contains(&row.deed) {
            return;
        }
        let state = self.states.entry(row.key).or_default();
        state.count += 1;
        state.then = row.then.or(state.then);
        self.given.entry(row.key).or_default().push((0, row.at, state.count));
        match row.deed {
            SET => {
                self.timers.insert((row.time, row.key));
                state.thens.remove(&row.time);
                state.thens.extend(row.then.map(|then| (row.time, then)));
            }
            DELETE => {
                self.timers.remove(&(row.time, row.key));
            }
            _ => {}
        }
    }

    fn fire(&mut self, watermark: i64) {
        while let Some(&(time, key)) = self.timers.first().filter(|(time, _)| *time <= watermark) {
            self.timers.remove(&(time, key));
            let state = self.states.entry(key).or_default();
            let then = match self.guest {
                Guest::Contract if time.rem_euclid(13) == 0 => continue,
                Guest::Contract => state.then.take(),
                Guest::Sdk if time % 2 == 0 => state.thens.remove(&time),
                Guest::Sdk => None,
            };
            self.given.entry(key).or_default().push((1, time, state.count));
            self.timers.extend(then.map(|then| (then, key)));
        }
    }
}

/// The account: row by row, each followed by its watermark.
fn expected(guest: Guest, rows: &[Row], bound: i64) -> Given {
    let (given, states, timers) = (Given::new(), BTreeMap::new(), BTreeSet::new());
    let mut account = Account { guest, given, states, timers };
    let mut watermark = i64::MIN;
    for row in rows {
        account.row(row);
        account.fire(watermark);
        watermark = watermark.max(row.at.saturating_sub(bound).saturating_sub(1));
        account.fire(watermark);
    }
    account.fire(i64::MAX);
    account.given
}

fn collected(guest: Guest, batches: &[Batch]) -> Given {
    let mut given = Given::new();
    for batch in batches {
        let numbers = |column| batch.column(column).as_primitive::<Int64Type>().values();
        let kinds: Vec<i64> = match guest {
            Guest::Contract => numbers(0).to_vec(),
            Guest::Sdk => {
                let names = batch.column(0).as_string::<i32>();
                names
                    .iter()
                    .map(|name| ["row", "timer"].iter().position(|n| Some(*n) == name).unwrap() as i64)
                    .collect()
            }
        };
        let [keys, times, counts] = [1, 2, 3].map(numbers);
        // What a row or a timer gives has its time.
        assert_eq!(batch.event_times(), Some(times));
        for row in 0..batch.num_rows() {
            given.entry(keys[row]).or_default().push((kinds[row], times[row], counts[row]));
        }
    }
    given
}

/// How the engine's sizes are drawn.
#[derive(Clone, Copy)]
struct Run {
    guest: Guest,
    seed: u64,
    parallelism: u32,
    batch_rows: Option<usize>,
    call_rows: Option<usize>,
}

fn simulate(simulated: &Simulated, rows: &[Row], bound: i64, run: Run) -> Given {
    simulate_two(simulated, [rows, &[]], bound, run)
}

fn write_rows(guest: Guest, file: &Path, rows: &[Row]) {
    let text: String = rows.iter().map(|row| guest.line(row) + "\n").collect();
    std::fs::write(file, text).unwrap();
}

/// The same with rows of a second input, if there are any.
fn simulate_two(simulated: &Simulated, [rows, second]: [&[Row]; 2], bound: i64, run: Run) -> Given {
    let folder = tempfile::tempdir().unwrap();
    let files = ["rows.jsonl", "second.jsonl"].map(|name| folder.path().join(name));
    write_rows(run.guest, &files[0], rows);
    let mut args = vec!["--input".to_owned(), files[0].display().to_string()];
    args.extend(["--bound".to_owned(), bound.to_string()]);
    if !second.is_empty() {
        write_rows(run.guest, &files[1], second);
        args.extend(["--second".to_owned(), files[1].display().to_string()]);
    }
    // Aligned sources wait for each other, but none for ever, and the result is the same.
    if run.seed % 3 == 2 && run.guest == Guest::Contract {
        args.extend(["--drift".to_owned(), (run.seed % 40).to_string()]);
    }
    let mut options = options(run.seed, run.parallelism);
    options.chaos_instances = run.seed.is_multiple_of(5);
    options.sizes.batch_rows = run.batch_rows.unwrap_or(options.sizes.batch_rows);
    options.sizes.call_rows = run.call_rows.unwrap_or(options.sizes.call_rows);
    let (report, batches) = simulated.run("timers", &args, options, run.seed, None);
    assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "SEED={}: {report:?}", run.seed);
    collected(run.guest, &batches)
}

/// Every order of setting, deleting and firing, for the past too, at the ends of all time too.
/// Calls of one row: a timer for the past fires after its call, so before the next row.
#[test]
fn timers_are_as_in_the_account() {
    let simulated = Guest::Contract.load();
    let kinds = Kinds {
        deeds: &[0, SET, SET, SET, SET, DELETE, DELETE, FAIL, TRAP, 7, 8, 9, 10, 11, 12],
        extremes: true,
        then: true,
    };
    for seed in seeds().into_iter().take(300) {
        let mut random = Random::of_seed(seed ^ 0x71ED);
        let bound = [0, 7, 40][seed as usize % 3];
        let rows = rows(&mut random, kinds, 25);
        let run =
            Run { guest: Guest::Contract, seed, parallelism: 1, batch_rows: Some(1), call_rows: Some(1) };
        assert_eq!(
            simulate(&simulated, &rows, bound, run),
            expected(Guest::Contract, &rows, bound),
            "SEED={seed}"
        );
    }
}

/// Calls of every size give the same, where no timer is for the past.
#[test]
fn calls_of_every_size_give_the_same() {
    let simulated = Guest::Contract.load();
    let kinds = Kinds { deeds: &[0, SET, SET, SET, DELETE, FAIL, TRAP], extremes: false, then: true };
    for seed in seeds().into_iter().take(300) {
        let mut random = Random::of_seed(seed ^ 0xCA11);
        let rows = rows(&mut random, kinds, 25);
        let run = Run { guest: Guest::Contract, seed, parallelism: 1, batch_rows: Some(1), call_rows: None };
        assert_eq!(simulate(&simulated, &rows, 30, run), expected(Guest::Contract, &rows, 30), "SEED={seed}");
    }
}

/// What does not depend on the order in which rows of a key come: the counts, the timers.
fn in_any_order(given: Given) -> Given {
    let of_key = |given: Vec<(i64, i64, i64)>| {
        let rows = given.iter().filter(|(kind, ..)| *kind == 0).map(|(.., count)| (0, 0, *count));
        let timers = given.iter().filter(|(kind, ..)| *kind == 1).map(|(_, time, _)| (1, *time, 0));
        let mut all: Vec<_> = rows.chain(timers).collect();
        all.sort_unstable();
        all
    };
    given.into_iter().map(|(key, given)| (key, of_key(given))).collect()
}

/// The Rust SDK's process functions keep the same account.
#[test]
fn process_functions_of_the_sdk_are_as_in_the_account() {
    let simulated = Guest::Sdk.load();
    for seed in seeds().into_iter().take(300) {
        let mut random = Random::of_seed(seed ^ 0x5DC);
        let deeds = &[0, SET, SET, SET, DELETE, FAIL, TRAP];
        let extremes = seed % 2 == 0;
        let rows = rows(&mut random, Kinds { deeds, extremes, then: extremes }, 25);
        let call_rows = extremes.then_some(1);
        let run = Run { guest: Guest::Sdk, seed, parallelism: 1, batch_rows: Some(1), call_rows };
        assert_eq!(simulate(&simulated, &rows, 30, run), expected(Guest::Sdk, &rows, 30), "SEED={seed}");
    }
}

/// At every parallelism each timer fires once, and each row is counted once.
#[test]
fn timers_of_rows_in_time_fire_once_at_every_parallelism() {
    let simulated = Guest::Contract.load();
    let kinds = Kinds { deeds: &[0, SET, SET, SET, FAIL, TRAP], extremes: false, then: false };
    for seed in seeds().into_iter().take(400) {
        let mut random = Random::of_seed(seed ^ 0xA11);
        let rows = rows(&mut random, kinds, 25);
        let parallelism = [1, 2, 3, 7][seed as usize % 4];
        let run = Run { guest: Guest::Contract, seed, parallelism, batch_rows: None, call_rows: None };
        let given = in_any_order(simulate(&simulated, &rows, 30, run));
        assert_eq!(given, in_any_order(expected(Guest::Contract, &rows, 30)), "SEED={seed}");
    }
}

/// Timers of processing time fire when the clock is there, once, or not at all where the input ends
/// before; deleted ones never. (That none fires early, and that each has its key's state, the guest
/// looks at itself.)
#[test]
fn timers_of_processing_time_fire_when_the_clock_is_there() {
    let simulated = Guest::Contract.load();
    let epoch = Platform::simulated().clock.wall_ms();
    let mut all_fired = 0;
    for seed in seeds().into_iter().take(100) {
        let mut random = Random::of_seed(seed ^ 0x9C);
        let kinds = Kinds { deeds: &[0, SET_PROCESSING], extremes: false, then: false };
        let mut rows = rows(&mut random, kinds, 25);
        // The clock of the simulation goes on by a millisecond or so in four steps.
        let start = simulated.wall_ms() - epoch;
        rows.iter_mut().for_each(|row| row.time = epoch + start + random.below(60) as i64);
        let deleted = Row { deed: DELETE_PROCESSING, time: epoch + start + 100_000, ..rows[0] };
        rows.extend([Row { deed: SET_PROCESSING, ..deleted }, deleted]);
        let run = Run { guest: Guest::Contract, seed, parallelism: 1, batch_rows: None, call_rows: None };
        let given = simulate(&simulated, &rows, 30, run);
        for (key, of_key) in &given {
            let mut fired: Vec<i64> =
                of_key.iter().filter(|(kind, ..)| *kind == 2).map(|(_, time, _)| *time).collect();
            all_fired += fired.len();
            let set = |time: &i64| {
                rows.iter()
                    .filter(|row| row.key == *key && row.deed == SET_PROCESSING && row.time == *time)
                    .count()
            };
            assert!(fired.iter().all(|time| *time < deleted.time && set(time) > 0), "SEED={seed}: {fired:?}");
            fired.sort_unstable();
            // A time that was set again after its timer fired fires again.
            let more = fired.chunk_by(|a, b| a == b).find(|same| same.len() > set(&same[0]));
            assert_eq!(more, None, "SEED={seed}: key {key}");
        }
    }
    assert!(all_fired > 1_000, "only {all_fired} timers fired");
}

/// Rows of two inputs share their keys' state and timers, and the watermark is the lesser of both.
#[test]
fn two_inputs_share_state_and_timers() {
    let simulated = Guest::Contract.load();
    let kinds = Kinds { deeds: &[0, SET, SET, SET, FAIL, TRAP], extremes: false, then: false };
    for seed in seeds().into_iter().take(200) {
        let mut random = Random::of_seed(seed ^ 0x22);
        let all = rows(&mut random, kinds, 25);
        // The second input has some of the rows, or a later part of them only.
        let (first, second): (Vec<Row>, Vec<Row>) = match random.one_in(3) {
            true => all.iter().partition(|row| row.at < 60),
            false => all.iter().partition(|_| random.one_in(2)),
        };
        let run = Run {
            guest: Guest::Contract,
            seed,
            parallelism: [1, 2, 3, 7][seed as usize % 4],
            batch_rows: None,
            call_rows: None,
        };
        let given = in_any_order(simulate_two(&simulated, [&first, &second], 30, run));
        assert_eq!(given, in_any_order(expected(Guest::Contract, &all, 30)), "SEED={seed}");
    }
}

/// The deliberate fault: watermarks that go on too early must show.
#[test]
fn watermarks_that_are_too_early_are_reported() {
    let simulated = Guest::Contract.load();
    let kinds = Kinds { deeds: &[0, SET, SET], extremes: false, then: false };
    let differ = (0..20)
        .filter(|seed| {
            let rows = rows(&mut Random::of_seed(*seed), kinds, 25);
            let run = Run {
                guest: Guest::Contract,
                seed: *seed,
                parallelism: 1,
                batch_rows: Some(1),
                call_rows: None,
            };
            simulate(&simulated, &rows, 10, run) != expected(Guest::Contract, &rows, 30)
        })
        .count();
    assert!(differ > 10, "only {differ} of 20 runs differ");
}
