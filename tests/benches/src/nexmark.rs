//! Nexmark: queries over made-up events, beside Flink's figures.
//!
//! Flink does not run here. Its figures (Flink 2.3, hashmap state, object reuse, SQL, parallelism 2, events
//! per CPU-second of its TaskManager, 100,000 events a second of event time) are from a machine on which the
//! hand-written word count does 28 to 35 M words per CPU-second, and are scaled by this run's unit. What the
//! queries give is compared with an oracle elsewhere (`tests/nexmark`).

use std::process::Command;

use crate::measure::{self, Round, UNIT, guest, median, streamctl};
use crate::report::Report;
use crate::text::text;
use crate::totals::Totals;

const BENCH: &str = "nexmark";
/// Name, events, Flink's million events per CPU-second.
const QUERIES: [(&str, u64, f64); 10] = [
    ("q0", 10_000_000, 1.44),
    ("q1", 10_000_000, 1.25),
    ("q2", 10_000_000, 1.54),
    ("q3", 10_000_000, 1.48),
    ("q4", 4_000_000, 0.245),
    ("q5", 4_000_000, 0.389),
    ("q7", 1_000_000, 0.227),
    ("q8", 10_000_000, 0.893),
    ("q9", 1_000_000, 0.169),
    ("q11", 4_000_000, 0.347),
];
/// The generator's bids, which go to the sink as they are.
const GENERATOR: (&str, u64) = ("bids", 10_000_000);
/// q0, reading the same events from a file.
const FROM_FILE: (&str, u64) = ("q0 from a file", 1_000_000);
/// Millions of words that the unit does where Flink's figures are from: the middle of 28 to 35.
const FLINKS_UNIT: f64 = 31.5;
/// The unit counts the words of a text of this many bytes.
const UNIT_BYTES: u64 = 100_000_000;

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let file = text(UNIT_BYTES)?;
    let folder = tempfile::tempdir()?;
    let events = folder.path().join("events");
    let args = ["--events".to_owned(), FROM_FILE.1.to_string()];
    measure::run(query("events", &args)?.arg("--output").arg(&events))?;
    let mut words = 0;
    let (valid, void) = measure::steady_rounds(rounds, || {
        let mut round = Round::new();
        let unit = measure::run(&mut measure::subject(UNIT, &file)?)?;
        words = Totals::of_summary(&unit.said)?.rows;
        round.insert(UNIT, unit);
        let generated = QUERIES.iter().map(|(name, events, _)| (*name, *events)).chain([GENERATOR]);
        for (name, events) in generated {
            let args = ["--events".to_owned(), events.to_string()];
            round.insert(name, measure::run(query(name, &args)?.args(["--output", "blackhole"]))?);
        }
        let args = ["--input".to_owned(), events.display().to_string()];
        round.insert(FROM_FILE.0, measure::run(query("q0", &args)?.args(["--output", "blackhole"]))?);
        Ok(round)
    })?;
    let rounds = valid.len();
    let millions = |name: &str, rows: u64| {
        rows as f64 / 1e6 / median(valid.iter().map(|round| round[name].cpu.as_secs_f64()).collect())
    };
    let unit = millions(UNIT, words);
    let mut add = |subject: &str, value: f64, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, rounds), subject, value, unit, against);
    };
    add(UNIT, unit, "M words per CPU-second", None);
    let of_unit = "M events per CPU-second";
    for (name, events, flink) in QUERIES {
        let flink = flink * unit / FLINKS_UNIT;
        add(name, millions(name, events), of_unit, Some(("Flink 2.3, scaled by the unit", flink)));
    }
    let (name, events) = GENERATOR;
    add("generator alone (bids)", millions(name, events), of_unit, None);
    let (name, events) = FROM_FILE;
    add(name, millions(name, events), of_unit, Some(("q0", millions("q0", QUERIES[0].1))));
    add("rounds that were void", void as f64, "of all", None);
    Ok(())
}

fn query(name: &str, args: &[String]) -> anyhow::Result<Command> {
    let mut command = streamctl()?;
    command.args(["run", "-p", "2", "-c", name]).arg(guest("nexmark")?).args(args);
    Ok(command)
}
