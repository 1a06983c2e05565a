//! Each test drives a job natively, and its component in the engine: both must say the same.

use millstream::testing::{Driver, Harness};
use millstream::{TimeDomain, Timer};

use super::*;
use crate::states::{Rule, StateLine};

fn drivers(harness: impl Fn() -> Harness, args: &[&str]) -> [Driver; 2] {
    let harness = || harness().args(["--input", "lines"].iter().chain(args).copied());
    let component = harness().component(built::component("operators")).streamctl(built::streamctl());
    [harness(), component].map(Harness::driver)
}

fn line(key: i64, number: i64, op: &str, item: Option<&str>, amount: i64) -> StateLine {
    StateLine { key, number, op: op.into(), item: item.map(str::to_owned), amount }
}

#[test]
fn states_of_every_kind_can_be_read() {
    for mut driver in drivers(|| Harness::of(states), &[]) {
        for (number, (op, item)) in
            [("total", None), ("put", Some("b")), ("put", None), ("put", Some("a")), ("seen", Some("b"))]
                .into_iter()
                .chain([("add", Some("x")), ("add", Some("y")), ("later", None)])
                .enumerate()
        {
            driver.push::<StateLine>("", line(7, number as i64, op, item, 10 + number as i64));
        }
        driver.push::<StateLine>("", line(8, 100, "total", None, 1));
        assert_eq!(driver.take::<(i64, String)>("Sink: print").len(), 9);
        assert_eq!(driver.state::<i64, i64>("States", 7), Some(8));
        assert_eq!(driver.state::<i64, i64>("States", 9), None);
        assert_eq!(driver.value("States", TOTAL, 7i64), Some(10));
        assert_eq!(driver.value("States", TOTAL, 9i64), None);
        let items = [(None, 12), (Some("a".to_string()), 13), (Some("b".to_string()), 11)];
        assert_eq!(driver.map("States", ITEMS, 7i64), items);
        assert_eq!(driver.map("States", SEEN, 7i64), [(Some("b".to_string()), 14)]);
        assert!(driver.map("States", ITEMS, 8i64).is_empty());
        assert_eq!(driver.list("States", HISTORY, 7i64), [(15, "x".to_string()), (16, "y".to_string())]);
        let timer = Timer { domain: TimeDomain::EventTime, time: i64::MAX - 1 };
        assert_eq!(driver.timers("States"), [timer]);
        let run = driver.finish();
        let last = run.rows::<(i64, String)>("Sink: print").pop();
        assert_eq!(last, Some((-8, r#"Some(8) {Some("b"): 14} 0"#.to_string())));
    }
}

#[test]
fn rules_reach_the_rows_that_follow_them() {
    for mut driver in drivers(|| Harness::of(ruled), &["--second", "rules"]) {
        let rule = |name: &str, value| Rule { name: name.into(), value };
        driver.push::<StateLine>("", line(1, 1, "none", None, 0));
        driver.push::<Rule>("rules", rule("b", Some(2)));
        driver.push::<Rule>("rules", rule("a", Some(1)));
        driver.push::<Rule>("rules", rule("bad", Some(3)));
        driver.push::<StateLine>("", line(1, 2, "none", None, 0));
        let rules = [("#", 2), ("a", 1), ("b", 2)].map(|(name, value)| (name.to_string(), value));
        assert_eq!(driver.broadcast("Ruled", RULES), rules);
        driver.push::<Rule>("rules", rule("b", None));
        driver.push::<StateLine>("", line(2, 3, "none", None, 0));
        let said: Vec<(i64, String)> = driver.take("Sink: print");
        let said: Vec<(i64, &str)> = said.iter().map(|(number, text)| (*number, text.as_str())).collect();
        assert_eq!(
            said,
            [
                (1, "Some(1) {}"),
                (2, r##"Some(2) {"#": 2, "a": 1, "b": 2}"##),
                (3, r##"Some(1) {"#": 3, "a": 1}"##),
            ]
        );
    }
}

#[test]
fn rules_reach_rows_without_a_key() {
    for mut driver in drivers(|| Harness::of(spread), &["--second", "rules"]) {
        driver.push::<StateLine>("", line(1, 1, "none", None, 0));
        driver.push::<Rule>("rules", Rule { name: "a".into(), value: Some(1) });
        driver.push::<Rule>("rules", Rule { name: "bad".into(), value: Some(3) });
        driver.push::<StateLine>("", line(1, 2, "fail", None, 0));
        driver.push::<StateLine>("", line(1, 3, "none", None, 0));
        assert_eq!(driver.broadcast("Spread", RULES), [("#".to_string(), 1), ("a".to_string(), 1)]);
        let said: Vec<(i64, String)> = driver.take("Sink: print");
        assert_eq!(said, [(1, "{}".to_string()), (3, r##"{"#": 1, "a": 1}"##.to_string())]);
    }
}

/// Columns are counted flat in the contract.
#[test]
fn keys_and_times_may_stand_after_members_of_several_columns() {
    for mut driver in drivers(|| Harness::of(nested), &[]) {
        for (number, name) in ["a", "b", "a"].into_iter().enumerate() {
            let (place, tags) = (Place { x: 1.0, y: f64::NAN }, vec!["t".to_string(); number]);
            let at = Timestamp(10 * number as i64);
            driver
                .push::<Nested>("", Nested { place, tags, name: name.into(), number: 1 + number as i64, at });
        }
        let sums: Vec<(String, i64, i64)> = driver.take("sums");
        let sums: Vec<_> = sums.iter().map(|(name, sum, count)| (name.as_str(), *sum, *count)).collect();
        assert_eq!(sums, [("a", 1, 1), ("b", 2, 1), ("a", 4, 2)]);
        assert_eq!(driver.map("NestedCount", BY_NUMBER, "a".to_string()), [(1, 1), (3, 1)]);
        let run = driver.finish();
        let counts: Vec<(String, i64)> = run.rows("counts");
        let counts: Vec<_> = counts.iter().map(|(name, sum)| (name.as_str(), *sum)).collect();
        assert_eq!(counts, [("a", 1), ("b", 2), ("a", 4)]);
    }
}

#[test]
fn failures_of_two_inputs_go_aside_each() {
    for mut driver in drivers(|| Harness::of(both), &["--second", "second"]) {
        driver.push::<StateLine>("", line(5, 1, "none", None, 10));
        driver.push::<StateLine>("second", line(5, 2, "fail", None, 20));
        driver.push::<StateLine>("", line(5, 3, "fail", None, 40));
        driver.push::<StateLine>("second", line(5, 4, "none", None, 80));
        let failed: Vec<(i64, i64, i64)> = driver.take("Sink: print");
        assert_eq!(failed, [(2, 2, 20), (1, 3, 40)]);
        let run = driver.finish();
        assert_eq!(run.rows::<(i64, i64, i64)>("Sink: print")[2], (-5, 10, 80));
    }
}

#[test]
fn what_is_old_is_not_there() {
    for mut driver in drivers(|| Harness::of(aging), &["--ttl", "10"]) {
        driver.start_at(1_000);
        driver.push::<StateLine>("", line(1, 1, "put", Some("a"), 5));
        driver.advance(Duration::from_millis(6));
        driver.push::<StateLine>("", line(1, 2, "none", Some("a"), 0));
        driver.advance(Duration::from_millis(5));
        // Written eleven milliseconds ago, but used five ago.
        assert_eq!(driver.value("Aging", WRITTEN, 1i64), None);
        assert_eq!(driver.value("Aging", USED, 1i64), Some(5));
        assert_eq!(driver.map("Aging", RIDING, 1i64), [(Some("a".to_string()), 5)]);
        assert!(driver.list("Aging", ADDED, 1i64).is_empty());
        driver.push::<StateLine>("", line(1, 3, "all", Some("a"), 0));
        let said: Vec<(i64, String)> = driver.take("Sink: print");
        assert_eq!(said[2].1, "1011 None None Some(5) Some(5) {} []");
    }
}

#[test]
fn timers_of_both_clocks_fire_when_it_is_time() {
    for mut driver in drivers(|| Harness::of(timers), &[]) {
        let set = |key, at, time| TimerLine { key, at: Timestamp(at), op: "set".into(), time, then: None };
        driver.push::<TimerLine>("", set(1, 10, 30));
        driver.push::<TimerLine>("", set(2, 20, 25));
        assert_eq!(driver.timers("Timers").len(), 2);
        assert_eq!(driver.take::<TimerEvent>("Sink: print").len(), 2);
        driver.watermark(25);
        let fired: Vec<TimerEvent> = driver.take("Sink: print");
        assert_eq!(fired.iter().map(|event| (event.key, event.time)).collect::<Vec<_>>(), [(2, 25)]);
        let left: Vec<i64> = driver.timers("Timers").iter().map(|timer| timer.time).collect();
        assert_eq!(left, [30]);
        let run = driver.finish();
        let rows: Vec<TimerEvent> = run.rows("Sink: print");
        assert_eq!((rows.len(), rows[3].time), (4, 30));
        assert_eq!(run.times("Sink: print"), [Some(10), Some(20), Some(25), Some(30)]);
    }
}

#[test]
fn a_failure_says_the_row() {
    let failures = drivers(|| Harness::of(strict), &[]).map(|mut driver| {
        let pushed = std::panic::AssertUnwindSafe(|| driver.push::<(String,)>("nobody", ("a",)));
        let panic = std::panic::catch_unwind(pushed).unwrap_err();
        panic.downcast_ref::<String>().cloned().unwrap_or_default()
    });
    assert!(failures.iter().all(|said| said.contains("the job has no source `nobody`")), "{failures:?}");
}
