//! Sliding windows: what a row costs must not grow with how many windows it is in.
//!
//! The slide stays, so that there are as many results but for those of the last windows, which are not full
//! (with 100 slides 5 % more); windows are of 10, 20 and 100 slides.

use std::process::Command;

use anyhow::ensure;

use crate::measure::{self, Round, UNIT, guest, median, streamctl};
use crate::report::Report;
use crate::text::text;
use crate::totals::Totals;

const BENCH: &str = "sliding";
const ROWS: u64 = 20_000_000;
/// Every key has rows in every slide.
const KEYS: u64 = 1_000;
const SLIDE: u64 = 10_000;
const SUBJECTS: [(&str, u64); 3] = [("10 slides", 10), ("20 slides", 20), ("100 slides", 100)];
const UNIT_BYTES: u64 = 100_000_000;

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let file = text(UNIT_BYTES)?;
    let mut words = 0;
    let (valid, void) = measure::steady_rounds(rounds, || {
        let mut round = Round::new();
        let unit = measure::run(&mut measure::subject(UNIT, &file)?)?;
        words = Totals::of_summary(&unit.said)?.rows;
        round.insert(UNIT, unit);
        for (name, slides) in SUBJECTS {
            let run = measure::run(&mut command(slides)?)?;
            let results = KEYS * (ROWS / SLIDE + slides - 1);
            let given = Totals::of_summary(&run.said)?.rows;
            ensure!(given == results, "{name}: {given} results, not {results}");
            round.insert(name, run);
        }
        Ok(round)
    })?;
    let rounds = valid.len();
    let millions = |name: &str, rows: u64| {
        rows as f64 / 1e6 / median(valid.iter().map(|round| round[name].cpu.as_secs_f64()).collect())
    };
    let mut add = |subject: &str, value: f64, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, rounds), subject, value, unit, against);
    };
    add(UNIT, millions(UNIT, words), "M words per CPU-second", None);
    let of_unit = "M rows per CPU-second";
    let mut before: Option<(&str, f64)> = None;
    for (name, _) in SUBJECTS {
        let value = millions(name, ROWS);
        add(name, value, of_unit, before);
        before = Some((name, value));
    }
    add("rounds that were void", void as f64, "of all", None);
    Ok(())
}

fn command(slides: u64) -> anyhow::Result<Command> {
    let mut command = streamctl()?;
    command.args(["run", "-p", "1", "-c", "sliding_sums"]).arg(guest("speed")?);
    let numbers = [("--rows", ROWS), ("--keys", KEYS), ("--slide", SLIDE), ("--slides", slides)];
    command.args(numbers.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]));
    command.args(["--output", "blackhole"]);
    Ok(command)
}
