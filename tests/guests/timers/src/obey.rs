//! The keyed function, column by column.

use crate::millstream::job::calls::{
    EntryChanges, Failure, KeyedBatch, KeyedOutcome, Moment, Output, StateUpdate, TimerChanges,
};
use crate::millstream::job::graph::TimeDomain;
use crate::millstream::job::log;
use crate::millstream::job::rows::{Batch, Column, Values};
use crate::millstream::job::state;
use crate::plan::OBEY;

const FAIL_LATE: i64 = -1;
const SET: i64 = 1;
const DELETE: i64 = 2;
const FAIL: i64 = 3;
const TRAP: i64 = 4;
const SET_PROCESSING: i64 = 5;
const DELETE_PROCESSING: i64 = 6;
const FIRST_LIE: i64 = 7;

/// What a call does, so far.
struct Deeds {
    keys: Vec<i64>,
    /// by group: the state's two members, and whether there is one
    count: Vec<i64>,
    then: Vec<Option<i64>>,
    present: Vec<bool>,
    rows: [Vec<i64>; 4],
    timers: TimerChanges,
    failures: Vec<Failure>,
}

pub(crate) fn on_rows(now: Moment, call: &KeyedBatch) -> KeyedOutcome {
    let mut deeds = Deeds::of(call);
    let rows = &call.inputs[0].rows;
    let [at, deed, time, then] = [1, 2, 3, 4].map(|column| numbers(&rows.columns[column]));
    let times = rows.event_times.as_ref().unwrap_or_else(|| abort("rows without event times"));
    assert_that(now.watermark < i64::MAX, "rows after the end");
    for row in 0..rows.length as usize {
        let group = call.inputs[0].groups[row];
        let fails = match deed[row] {
            Some(TRAP) => abort("told to trap"),
            Some(FAIL_LATE) => now.watermark >= times[row],
            deed => deed == Some(FAIL),
        };
        if fails {
            deeds.failures.push(Failure { node: OBEY, row: row as u32, message: "told to fail".into() });
            continue;
        }
        assert_that(at[row] == Some(times[row]), "another event time than `at`");
        if deed[row] >= Some(FIRST_LIE) {
            return deeds.lie(deed[row].unwrap_or_default());
        }
        let count = deeds.touch(group);
        if then[row].is_some() {
            deeds.then[group as usize] = then[row];
        }
        deeds.give(0, group, times[row], count);
        let change = match deed[row] {
            Some(SET) => 0,
            Some(DELETE) => 1,
            Some(SET_PROCESSING) => 2,
            Some(DELETE_PROCESSING) => 3,
            _ => continue,
        };
        deeds.change(group, time[row].unwrap_or_default(), change);
    }
    deeds.outcome()
}

pub(crate) fn on_timers(now: Moment, domain: TimeDomain, times: &[i64], call: &KeyedBatch) -> KeyedOutcome {
    let mut deeds = Deeds::of(call);
    assert_that(call.inputs.is_empty(), "rows with timers");
    assert_that(times.len() == call.group_count as usize, "as many timers as groups");
    let (clock, kind) = match domain {
        TimeDomain::EventTime => (now.watermark, 1),
        TimeDomain::ProcessingTime => (now.processing_time, 2),
    };
    for (group, time) in (0..).zip(times) {
        assert_that(*time <= clock, "a timer before its time");
        if time.rem_euclid(13) == 0 {
            deeds.failures.push(Failure { node: OBEY, row: group, message: "a time of 13s".into() });
            continue;
        }
        let place = group as usize;
        let count = deeds.count[place];
        deeds.give(kind, group, *time, count);
        if let Some(then) = deeds.then[place].take() {
            deeds.change(group, then, 0);
        }
    }
    deeds.outcome()
}

impl Deeds {
    fn of(call: &KeyedBatch) -> Deeds {
        let groups = call.group_count as usize;
        let [state, count, then] = &call.state[..] else { abort("the state has two members") };
        let present: Vec<bool> = (0..groups).map(|group| is_valid(state, group)).collect();
        let of_present = |column| -> Vec<Option<i64>> {
            let values = numbers(column);
            (0..groups).map(|group| values[group].filter(|_| present[group])).collect()
        };
        Deeds {
            keys: numbers(&call.keys[0]).into_iter().map(Option::unwrap_or_default).collect(),
            count: of_present(count).into_iter().map(Option::unwrap_or_default).collect(),
            then: of_present(then),
            present,
            rows: Default::default(),
            timers: TimerChanges { groups: vec![], times: vec![], changes: vec![] },
            failures: vec![],
        }
    }

    fn touch(&mut self, group: u32) -> i64 {
        let group = group as usize;
        self.present[group] = true;
        self.count[group] += 1;
        self.count[group]
    }

    fn give(&mut self, kind: i64, group: u32, time: i64, count: i64) {
        for (column, value) in self.rows.iter_mut().zip([kind, self.keys[group as usize], time, count]) {
            column.push(value);
        }
    }

    fn change(&mut self, group: u32, time: i64, change: u8) {
        self.timers.groups.push(group);
        self.timers.times.push(time);
        self.timers.changes.push(change);
    }

    /// What the host must not believe, of timers and of entries.
    fn lie(mut self, deed: i64) -> KeyedOutcome {
        let mut entries = Vec::new();
        match deed {
            FIRST_LIE => self.change(self.keys.len() as u32, 5, 0),
            8 => self.timers.times.push(5),
            9 => self.change(0, 5, 4),
            // The state travels by value: there are no entries to be read, or changed.
            10 => drop(state::get(0, 1, &[0], &[])),
            11 => drop(state::scan(1, &[], &[], 1)),
            _ => {
                let (changes, groups) = (vec![2], vec![0]);
                entries.push(EntryChanges { state: 0, changes, groups, keys: vec![], values: vec![] });
            }
        }
        KeyedOutcome { entries, ..self.outcome() }
    }

    fn outcome(self) -> KeyedOutcome {
        let length = self.rows[0].len() as u32;
        let event_times = Some(self.rows[2].clone());
        let columns = self.rows.map(|values| Column { values: Values::Int64(values), validity: None });
        let rows = Batch { length, event_times, kinds: None, columns: columns.into() };
        let then: Vec<bool> = self.then.iter().map(Option::is_some).collect();
        let state = vec![
            Column { values: Values::Nothing, validity: Some(bits(&self.present)) },
            Column { values: Values::Int64(self.count), validity: None },
            Column {
                values: Values::Int64(self.then.into_iter().map(Option::unwrap_or_default).collect()),
                validity: Some(bits(&then)),
            },
        ];
        KeyedOutcome {
            outputs: if length == 0 { vec![] } else { vec![Output { port: 0, rows }] },
            updates: vec![StateUpdate { state: 0, written: None, columns: state }],
            entries: vec![],
            timers: self.timers,
            failures: self.failures,
        }
    }
}

fn numbers(column: &Column) -> Vec<Option<i64>> {
    let Values::Int64(values) = &column.values else { abort("a column of int64") };
    values.iter().enumerate().map(|(row, value)| is_valid(column, row).then_some(*value)).collect()
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

fn abort(message: &str) -> ! {
    log::abort(message);
    unreachable!("abort traps")
}
