//! What a job says: its log, its metrics, its failures.

use millstream::log;
use millstream::prelude::*;
use millstream::testing::Harness;

#[job]
fn talkative(job: &Job) -> Result<()> {
    let words = Counter::new("words");
    let longest = Gauge::new("longest");
    let lengths = Histogram::new("lengths");
    job.lines(Connector::stdin())
        .map(move |line| {
            println!("line {line:?}");
            eprintln!("to err");
            log::debug!("{} bytes", line.len());
            log::trace!("not kept");
            words.add(line.split_whitespace().count() as u64);
            words.increment();
            longest.set(line.len() as f64);
            lengths.record(line.len() as f64);
            line.len() as i64
        })
        .print();
    Ok(())
}

#[test]
fn messages_and_metrics_reach_the_host() {
    let run = Harness::of(talkative).lines(["a b", "c"]).run();
    let expected = ["line \"a b\"", "to err", "3 bytes", "line \"c\"", "to err", "1 bytes"];
    assert_eq!(run.messages(), expected);
    assert_eq!(run.counter("words"), 5);
    assert_eq!(run.gauge("longest"), Some(1.0));
    assert_eq!(run.histogram("lengths"), [3.0, 1.0]);
}

#[test]
fn a_function_outside_a_job_says_which_println_it_means() {
    use millstream::println;
    #[job]
    fn job_in_a_function(job: &Job) -> Result<()> {
        job.lines(Connector::stdin()).map(helper).print();
        Ok(())
    }
    fn helper(line: &str) -> i64 {
        println!("helped with {line}");
        0
    }
    let run = Harness::of(job_in_a_function).lines(["x"]).run();
    assert_eq!(run.messages(), ["helped with x"]);
}

#[test]
#[should_panic(expected = "Map failed row 1: line \"x\": invalid digit found in string")]
fn a_failure_names_the_row() {
    #[job]
    fn parse(job: &Job) -> Result<()> {
        job.lines(Connector::stdin())
            .try_map(|line| {
                line.parse::<i64>().map_err(|error| Error::from(error).context(format!("line {line:?}")))
            })
            .print();
        Ok(())
    }
    Harness::of(parse).lines(["1", "x"]).run();
}
