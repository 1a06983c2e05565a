//! The function, column by column.

use crate::millstream::job::calls::{
    Failure, KeyedBatch, KeyedOutcome, Moment, Outcome, Output, StateUpdate, TimerChanges,
};
use crate::millstream::job::graph::TimeDomain;
use crate::millstream::job::log;
use crate::millstream::job::rows::{Batch, Column, Values};
use crate::millstream::job::state;
use crate::opened;
use crate::plan::{Kept, SUM};

const FAIL: i64 = 1;
const TRAP: i64 = 2;
const SET: i64 = 3;
const DELETE: i64 = 4;
const SAY: i64 = 5;
const SET_PROCESSING: i64 = 6;

/// The state: what there is of each group.
struct Sums {
    count: Vec<i64>,
    sum: Vec<i64>,
    /// The least and the greatest time of its rows.
    first: Vec<i64>,
    last: Vec<i64>,
    present: Vec<bool>,
}

impl Sums {
    fn none(groups: usize) -> Sums {
        Sums {
            count: vec![0; groups],
            sum: vec![0; groups],
            first: vec![i64::MAX; groups],
            last: vec![i64::MIN; groups],
            present: vec![false; groups],
        }
    }

    fn of(columns: &[Column], groups: usize) -> Sums {
        let [state, count, sum, first, last] = columns else { abort("the state has four members") };
        let mut sums = Sums::none(groups);
        let [count, sum, first, last] = [count, sum, first, last].map(numbers);
        for group in (0..groups).filter(|group| is_valid(state, *group)) {
            sums.present[group] = true;
            (sums.count[group], sums.sum[group]) = (count[group], sum[group]);
            (sums.first[group], sums.last[group]) = (first[group], last[group]);
        }
        sums
    }

    fn columns(self) -> Vec<Column> {
        let column = |values| Column { values: Values::Int64(values), validity: None };
        let present = Column { values: Values::Nothing, validity: Some(bits(&self.present)) };
        vec![present, column(self.count), column(self.sum), column(self.first), column(self.last)]
    }

    fn add(&mut self, group: usize, time: i64, value: i64) {
        self.present[group] = true;
        self.count[group] += 1;
        self.sum[group] = self.sum[group].wrapping_add(value);
        self.first[group] = self.first[group].min(time);
        self.last[group] = self.last[group].max(time);
    }
}

/// What a call gives, so far.
struct Given<'a> {
    keys: &'a [i64],
    starts: &'a [i64],
    ends: &'a [i64],
    rows: [Vec<i64>; 7],
    timers: TimerChanges,
    failures: Vec<Failure>,
}

impl<'a> Given<'a> {
    fn of(call: &'a KeyedBatch) -> Given<'a> {
        let [key, start, end] = &call.keys[..] else { abort("the key, the window's start and its end") };
        let given = Given {
            keys: numbers(key),
            starts: numbers(start),
            ends: numbers(end),
            rows: Default::default(),
            timers: TimerChanges { groups: vec![], times: vec![], changes: vec![] },
            failures: vec![],
        };
        assert_that(
            given.starts.iter().zip(given.ends).all(|(start, end)| start < end),
            "windows without time",
        );
        given
    }

    fn give(&mut self, kind: i64, group: usize, time: i64, sums: &Sums) {
        let values = [
            kind,
            self.keys[group],
            self.starts[group],
            self.ends[group],
            time,
            sums.count[group],
            sums.sum[group],
        ];
        self.rows.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }

    fn change(&mut self, group: usize, time: i64, change: u8) {
        self.timers.groups.push(group as u32);
        self.timers.times.push(time);
        self.timers.changes.push(change);
    }

    fn fail(&mut self, row: usize, message: &str) {
        self.failures.push(Failure { node: SUM, row: row as u32, message: message.into() });
    }

    fn outcome(self, sums: Option<Sums>) -> KeyedOutcome {
        let length = self.rows[0].len() as u32;
        let event_times = Some(self.rows[4].clone());
        let columns = self.rows.map(|values| Column { values: Values::Int64(values), validity: None });
        let rows = Batch { length, event_times, kinds: None, columns: columns.into() };
        let main = opened().1.iter().position(|output| *output == (SUM, 0));
        let update = |sums: Sums| StateUpdate { state: 0, written: None, columns: sums.columns() };
        KeyedOutcome {
            outputs: match main {
                Some(port) if length > 0 => vec![Output { port: port as u32, rows }],
                _ => vec![],
            },
            updates: sums.map(update).into_iter().collect(),
            entries: vec![],
            timers: self.timers,
            failures: self.failures,
        }
    }
}

/// Auction and price of bids.
pub(crate) fn project(rows: Batch) -> Outcome {
    let Batch { length, event_times, columns, .. } = rows;
    let mut columns = columns.into_iter();
    let (auction, price) = (columns.next(), columns.nth(1));
    let none = || Column { values: Values::Int64(vec![0; length as usize]), validity: None };
    let auction = if opened().0.one_key { Some(none()) } else { auction };
    let columns = auction.into_iter().chain(price).collect();
    let rows = Batch { length, event_times, kinds: None, columns };
    Outcome { outputs: vec![Output { port: 0, rows }], failures: vec![] }
}

pub(crate) fn on_rows(now: Moment, call: &KeyedBatch) -> KeyedOutcome {
    let (options, _) = opened();
    assert_that(options.kept != Kept::Collects, "rows that are collected");
    let groups = call.group_count as usize;
    let mut sums = Sums::of(&call.state, groups);
    let mut given = Given::of(call);
    let input = &call.inputs[0];
    let (rows, of_rows) = (&input.rows, &input.groups);
    let times = rows.event_times.as_ref().unwrap_or_else(|| abort("rows without event times"));
    if options.bids {
        let values = numbers(&rows.columns[1]);
        for ((group, value), time) in of_rows.iter().zip(values).zip(times) {
            sums.add(*group as usize, *time, *value);
        }
        return given.outcome(Some(sums));
    }
    let [at, deed, value] = [1, 2, 3].map(|column| numbers(&rows.columns[column]));
    for row in 0..rows.length as usize {
        let group = of_rows[row] as usize;
        assert_that(at[row] == times[row], "another event time than `at`");
        let window = given.starts[group]..given.ends[group];
        assert_that(options.processing || window.contains(&at[row]), "a row of another window");
        match deed[row] {
            FAIL => {
                given.fail(row, "told to fail");
                continue;
            }
            TRAP => abort("told to trap"),
            _ => {}
        }
        sums.add(group, at[row], value[row]);
        match deed[row] {
            SET => given.change(group, at[row].saturating_add(value[row]), 0),
            SET_PROCESSING => given.change(group, now.processing_time + value[row], 2),
            DELETE => {
                given.change(group, given.ends[group] - 1, 1);
                given.change(group, given.ends[group] - 1, 3);
                given.change(group, given.ends[group], 1);
            }
            SAY => given.give(0, group, at[row], &sums),
            _ => {}
        }
    }
    given.outcome(Some(sums))
}

pub(crate) fn on_timers(_now: Moment, domain: TimeDomain, times: &[i64], call: &KeyedBatch) -> KeyedOutcome {
    let (options, _) = opened();
    let groups = call.group_count as usize;
    let sums = match options.kept {
        Kept::Collects => collected(call, groups),
        _ => Sums::of(&call.state, groups),
    };
    let kind = match domain {
        TimeDomain::EventTime => 1,
        TimeDomain::ProcessingTime => 2,
    };
    let mut given = Given::of(call);
    for (group, time) in times.iter().enumerate() {
        if options.faults && sums.count[group] % 7 == 0 {
            given.fail(group, "a count of 7s");
            continue;
        }
        if options.faults && sums.sum[group] % 5 == 0 {
            abort("a sum of 5s");
        }
        given.give(kind, group, *time, &sums);
        if options.timers {
            // A timer for a window that is gone must not come back.
            given.change(group, given.ends[group] - 1, if *time == given.ends[group] - 1 { 1 } else { 0 });
        }
    }
    given.outcome(None)
}

/// Sums over the rows that the host has collected, page by page.
fn collected(call: &KeyedBatch, groups: usize) -> Sums {
    let mut sums = Sums::none(groups);
    assert_that(call.state.is_empty(), "sequences do not travel by value");
    let states = if opened().0.inputs() > 1 { 2 } else { 1 };
    for (state, group) in (0..states).flat_map(|state| (0..groups).map(move |group| (state, group))) {
        let mut after: Vec<Column> = vec![];
        loop {
            let page = state::scan(state, &[group as u32], &after, 1 << 20);
            let count = page.offsets[1] as usize;
            let places = numbers(&page.keys[0]);
            let of_bids = page.values.len() == 3;
            let (times, values) = match of_bids {
                true => (None, numbers(&page.values[2])),
                false => (Some(numbers(&page.values[2])), numbers(&page.values[4])),
            };
            for row in 0..count {
                sums.add(group, times.map_or(0, |times| times[row]), values[row]);
            }
            if opened().0.reads_for_ever {
                (sums.count[group], after) = (0, vec![]);
                continue;
            }
            if count == 0 || page.more[0] & 1 == 0 {
                break;
            }
            after = vec![Column { values: Values::Int64(vec![places[count - 1]]), validity: None }];
        }
    }
    sums
}

/// Sums of pairs. The earlier is on the left.
pub(crate) fn merge(count: usize, left: &[Column], right: &[Column]) -> Vec<Column> {
    let (options, _) = opened();
    let (mut sums, right) = (Sums::of(left, count), Sums::of(right, count));
    for pair in 0..count {
        if sums.present[pair] && right.present[pair] {
            assert_that(sums.last[pair] <= right.last[pair], "a later window on the left");
        }
        sums.present[pair] |= right.present[pair];
        sums.count[pair] += right.count[pair];
        sums.sum[pair] = sums.sum[pair].wrapping_add(right.sum[pair]);
        sums.first[pair] = sums.first[pair].min(right.first[pair]);
        sums.last[pair] = sums.last[pair].max(right.last[pair]);
        if options.faults && sums.sum[pair] % 11 == 0 {
            abort("a sum of 11s");
        }
    }
    match options.merge.as_str() {
        "trap" => abort("told to trap in a merge"),
        "never" => loop {
            std::hint::black_box(&sums.count);
        },
        "short" => Sums::none(count - 1).columns(),
        "wrong" => sums.columns().split_off(1),
        _ => sums.columns(),
    }
}

fn numbers(column: &Column) -> &[i64] {
    let Values::Int64(values) = &column.values else { abort("a column of int64") };
    values
}

fn is_valid(column: &Column, row: usize) -> bool {
    column.validity.as_ref().is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1)
}

fn bits(values: &[bool]) -> Vec<u8> {
    let byte = |eight: &[bool]| eight.iter().enumerate().map(|(bit, set)| u8::from(*set) << bit).sum();
    values.chunks(8).map(byte).collect()
}

fn assert_that(holds: bool, otherwise: &str) {
    if !holds {
        abort(otherwise);
    }
}

pub(crate) fn abort(message: &str) -> ! {
    log::abort(message);
    unreachable!("abort traps")
}
