//! Event time, process functions and virtual time, through the harness.

use std::time::Duration;

use millstream::prelude::*;
use millstream::testing::{Driver, Harness};

#[derive(Clone, Debug, PartialEq, Record)]
struct Command {
    key: String,
    at: Option<Timestamp>,
    what: String,
    time: i64,
}

fn command(key: &str, at: i64, what: &str, time: i64) -> Command {
    Command { key: key.into(), at: Some(Timestamp(at)), what: what.into(), time }
}

/// What was done for a key, and how often.
#[derive(Clone, Debug, Default, PartialEq, Record)]
struct Done {
    count: i64,
    notes: Vec<String>,
}

/// Does what its rows say.
struct Obey {
    calls: Counter,
    ttl: Option<Ttl>,
}

type Said = (String, String, i64, i64);

impl ProcessFunction<String> for Obey {
    type In = Command;
    type Key = (String,);
    type State = Done;
    type Out = Said;

    fn process(&self, row: CommandRef<'_>, context: &mut Context<'_, Self, String>) -> Result<()> {
        self.calls.increment();
        let state = context.state_or_default();
        state.count += 1;
        state.notes.push(row.what.to_string());
        let count = state.count;
        match row.what {
            "set" => context.set_timer(row.time),
            "delete" => context.delete_timer(row.time),
            "set clock" => context.set_processing_timer(row.time),
            "delete clock" => context.delete_processing_timer(row.time),
            "clear" => context.clear_state(),
            "aside" => context.emit_side(row.what),
            "fail" => {
                context.set_timer(row.time);
                context.emit((row.key, "never", 0, 0));
                bail!("as told");
            }
            _ => {}
        }
        let (key,) = context.key();
        assert_eq!((key, context.timestamp()), (row.key, row.at.map(|at| at.0)));
        context.emit((key, row.what, context.watermark().unwrap_or(-1), count));
        Ok(())
    }

    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self, String>) -> Result<()> {
        let (what, time) = match timer.domain {
            TimeDomain::EventTime => ("timer", context.timestamp()),
            TimeDomain::ProcessingTime => ("clock", Some(context.processing_time().min(timer.time))),
        };
        ensure!(timer.time != 13, "thirteen");
        assert_eq!(time, Some(timer.time));
        if timer.time % 2 == 1 {
            context.set_timer(timer.time + 1);
        }
        let count = context.state().map_or(0, |state| state.count);
        context.emit((context.key().0, what, timer.time, count));
        Ok(())
    }

    fn state_ttl(&self) -> Option<Ttl> {
        self.ttl
    }
}

fn obeyed(job: &Job, ttl: Option<Ttl>) -> Result<()> {
    let commands = job.json::<Command>(Connector::stdin());
    let strategy = Watermarks::bounded(Duration::from_millis(10)).time(Command::AT);
    let (timed, untimed) = commands.watermarks(strategy).divert_failures();
    untimed.sink(Sink::collect("untimed"));
    let obey = Obey { calls: Counter::new("calls"), ttl };
    let (said, aside) = timed.key_by(Command::KEY).side_output("aside").process(obey);
    said.on_failure(OnFailure::Skip).sink(Sink::collect("said"));
    aside.sink(Sink::collect("aside"));
    Ok(())
}

fn driver(ttl: Option<Ttl>) -> Driver {
    Harness::of(move |job: &Job| obeyed(job, ttl)).driver()
}

fn said(driver: &mut Driver) -> Vec<(String, i64, i64)> {
    driver.take::<Said>("said").into_iter().map(|(_, what, time, count)| (what, time, count)).collect()
}

fn expected(rows: &[(&str, i64, i64)]) -> Vec<(String, i64, i64)> {
    rows.iter().map(|(what, time, count)| (what.to_string(), *time, *count)).collect()
}

#[test]
fn timers_fire_when_the_watermark_has_passed() {
    let mut driver = driver(None);
    driver.push::<Command>("", command("a", 100, "set", 120));
    assert_eq!(said(&mut driver), expected(&[("set", -1, 1)]));
    assert_eq!(driver.timers("Obey"), [Timer { domain: TimeDomain::EventTime, time: 120 }]);
    driver.push::<Command>("", command("a", 130, "none", 0));
    assert_eq!(said(&mut driver), expected(&[("none", 89, 2)]));
    // The greatest time less ten, less one: 120.
    driver.push::<Command>("", command("b", 131, "none", 0));
    assert_eq!(said(&mut driver), expected(&[("none", 119, 1), ("timer", 120, 2)]));
    // One that is due already fires at once, and may set the next.
    driver.push::<Command>("", command("a", 50, "set", 51));
    assert_eq!(said(&mut driver), expected(&[("set", 120, 3), ("timer", 51, 3), ("timer", 52, 3)]));
    driver.push::<Command>("", command("a", 50, "set", 200));
    driver.push::<Command>("", command("a", 50, "set", 300));
    driver.push::<Command>("", command("a", 50, "delete", 200));
    said(&mut driver);
    driver.watermark(299);
    assert!(said(&mut driver).is_empty());
    let run = driver.finish();
    assert_eq!(run.rows::<Said>("said").last(), Some(&("a".into(), "timer".into(), 300, 6)));
    assert_eq!(run.times("said").last(), Some(&Some(300)));
}

#[test]
fn timers_of_the_clock_fire_in_order() {
    let mut driver = driver(None);
    driver.start_at(1_000);
    for (key, time) in [("a", 1_030), ("b", 1_010), ("a", 1_020), ("b", 1_040), ("b", 1_050)] {
        driver.push::<Command>("", command(key, 0, "set clock", time));
    }
    driver.push::<Command>("", command("b", 0, "delete clock", 1_040));
    said(&mut driver);
    driver.advance(Duration::from_millis(45));
    assert_eq!(said(&mut driver), expected(&[("clock", 1_010, 4), ("clock", 1_020, 2), ("clock", 1_030, 2)]));
    driver.push::<Command>("", command("a", 0, "set clock", 5));
    // Due already.
    assert_eq!(said(&mut driver), expected(&[("set clock", -11, 3), ("clock", 5, 3)]));
}

#[test]
fn a_row_that_fails_leaves_nothing() {
    let mut driver = driver(None);
    driver.push::<Command>("", command("a", 0, "none", 0));
    driver.push::<Command>("", command("a", 0, "fail", 77));
    assert!(driver.timers("Obey").is_empty());
    let state: Option<Done> = driver.state::<String, Done>("Obey", "a");
    assert_eq!(state, Some(Done { count: 1, notes: vec!["none".into()] }));
    // A timer that fails is dropped; the next one is not.
    driver.push::<Command>("", command("a", 0, "set", 13));
    driver.push::<Command>("", command("a", 0, "set", 15));
    said(&mut driver);
    driver.watermark(20);
    assert_eq!(said(&mut driver), expected(&[("timer", 15, 3), ("timer", 16, 3)]));
}

#[test]
fn rows_of_one_call_fail_each_for_itself() {
    let rows = ["none", "fail", "none", "fail", "fail", "none"].map(|what| command("a", 5, what, 99));
    let others = ["none", "none"].map(|what| command("b", 5, what, 99));
    let rows: Vec<Command> = rows.into_iter().chain(others).chain([command("a", 5, "aside", 0)]).collect();
    let run = Harness::of(|job: &Job| obeyed(job, None)).rows::<Command>("", rows).run();
    let counts: Vec<(String, i64)> =
        run.rows::<Said>("said").into_iter().map(|(key, _, _, count)| (key, count)).collect();
    let expected = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("a", 4)];
    assert_eq!(counts, expected.map(|(key, count)| (key.to_string(), count)));
    assert_eq!(run.rows::<String>("aside"), ["aside"]);
    // Each row counts once, however often it ran.
    assert_eq!(run.counter("calls"), 9);
}

#[test]
fn state_is_cleared_and_forgotten() {
    let mut driver = driver(Some(Ttl::after_write(Duration::from_secs(10))));
    driver.push::<Command>("", command("a", 0, "none", 0));
    driver.advance(Duration::from_secs(9));
    driver.push::<Command>("", command("a", 0, "none", 0));
    driver.advance(Duration::from_secs(9));
    driver.push::<Command>("", command("a", 0, "none", 0));
    assert_eq!(driver.state::<String, Done>("Obey", "a").map(|state| state.count), Some(3));
    driver.advance(Duration::from_secs(10));
    assert_eq!(driver.state::<String, Done>("Obey", "a"), None);
    driver.push::<Command>("", command("a", 0, "none", 0));
    assert_eq!(driver.state::<String, Done>("Obey", "a").map(|state| state.count), Some(1));
    driver.push::<Command>("", command("a", 0, "clear", 0));
    assert_eq!(driver.state::<String, Done>("Obey", "a"), None);
}

#[test]
fn a_row_without_a_time_goes_aside() {
    let mut driver = driver(None);
    driver.push::<Command>("", Command { at: None, ..command("a", 0, "none", 0) });
    let untimed = driver.take::<Failed<Command>>("untimed");
    assert_eq!(untimed[0].failure, "the row has no event time");
}

#[test]
fn times_of_every_unit_and_marks_in_the_rows() {
    type Timed = (Option<millstream::TimestampMicros>, millstream::TimestampNanos, i64);
    struct See;
    impl ProcessFunction for See {
        type In = Timed;
        type Key = i64;
        type State = bool;
        type Out = (i64, i64);
        fn process(
            &self,
            _row: (Option<millstream::TimestampMicros>, millstream::TimestampNanos, i64),
            context: &mut Context<'_, Self>,
        ) -> Result<()> {
            context.emit((context.timestamp().unwrap_or(-1), context.watermark().unwrap_or(-1)));
            Ok(())
        }
    }
    fn marked(job: &Job) -> Result<()> {
        let rows = job.json::<Timed>(Connector::stdin());
        let marked = rows.watermarks(Watermarks::punctuated(F0).time(F1).idle_after(Duration::from_secs(1)));
        marked.key_by(F2).process(See).sink(Sink::collect("marked"));
        Ok(())
    }
    fn own(job: &Job) -> Result<()> {
        let rows = job.json::<Timed>(Connector::stdin());
        rows.watermarks(Watermarks::monotonous()).key_by(F2).process(See).sink(Sink::collect("own"));
        Ok(())
    }
    let rows = [(None, 3_500_000), (Some(4_999), 4_000_000), (None, -1)];
    let rows =
        rows.map(|(mark, at)| (mark.map(millstream::TimestampMicros), millstream::TimestampNanos(at), 0i64));
    let mut driver = Harness::of(marked).driver();
    rows.iter().for_each(|row| driver.push::<Timed>("", row));
    assert_eq!(driver.take::<(i64, i64)>("marked"), [(3, -1), (4, -1), (-1, 3)]);
    let mut driver = Harness::of(own).driver();
    driver.push_at::<Timed>("", 70, &rows[0]);
    driver.push_at::<Timed>("", 60, &rows[0]);
    assert_eq!(driver.take::<(i64, i64)>("own"), [(70, -1), (60, 69)]);
}

#[test]
fn a_union_waits_for_the_slower_input() {
    struct At;
    impl ProcessFunction for At {
        type In = (i64, Timestamp);
        type Key = (i64,);
        type State = bool;
        type Out = i64;
        fn process(&self, row: (i64, Timestamp), context: &mut Context<'_, Self>) -> Result<()> {
            context.set_timer(row.1.0);
            Ok(())
        }
        fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self>) -> Result<()> {
            context.emit(timer.time);
            Ok(())
        }
    }
    fn joined(job: &Job) -> Result<()> {
        let timed = |name: &str| {
            let rows = job.json::<(i64, Timestamp)>(Connector::stdin()).uid(name);
            rows.watermarks(Watermarks::monotonous().time(F1)).stream()
        };
        timed("left").union([timed("right")]).key_by(F0).process(At).sink(Sink::collect("out"));
        Ok(())
    }
    let mut driver = Harness::of(joined).driver();
    driver.push::<(i64, Timestamp)>("left", (1, Timestamp(10)));
    driver.push::<(i64, Timestamp)>("left", (1, Timestamp(20)));
    assert!(driver.take::<i64>("out").is_empty());
    driver.push::<(i64, Timestamp)>("right", (2, Timestamp(15)));
    assert_eq!(driver.take::<i64>("out"), [10]);
    assert_eq!(driver.finish().rows::<i64>("out"), [10, 15, 20]);
}

/// However rows are cut into calls, and whichever fail, each key sees its good rows one by one.
#[test]
fn one_call_is_as_many_calls_of_one_row() {
    let mut random = 1u64;
    let mut below = move |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    for _ in 0..50 {
        let whats = ["none", "fail", "clear", "aside", "none"];
        let rows: Vec<Command> = (0..60)
            .map(|_| command(["a", "b", "c"][below(3) as usize], 5, whats[below(5) as usize], 99))
            .collect();
        let without_watermarks = |rows: Vec<Said>| -> Vec<(String, String, i64)> {
            rows.into_iter().map(|(key, what, _, count)| (key, what, count)).collect()
        };
        let mut singly = driver(None);
        for row in &rows {
            singly.push::<Command>("", row);
        }
        let mut at_once = Harness::of(|job: &Job| obeyed(job, None)).rows::<Command>("", &rows).driver();
        for key in ["a", "b", "c"] {
            let state = at_once.state::<String, Done>("Obey", key);
            assert_eq!(state, singly.state::<String, Done>("Obey", key));
        }
        assert_eq!(at_once.take::<String>("aside"), singly.take::<String>("aside"));
        assert_eq!(
            without_watermarks(at_once.take::<Said>("said")),
            without_watermarks(singly.take::<Said>("said"))
        );
        assert_eq!(at_once.finish().counter("calls"), 60);
    }
}
