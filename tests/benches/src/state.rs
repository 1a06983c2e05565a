//! State and timers: made-up rows → key in the guest → hash exchange → a process function → blackhole.
//!
//! The counts of the process function must be those of the native aggregate, row by row.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{bail, ensure};

use crate::measure::{self, Round, UNIT, guest, median, streamctl};
use crate::report::Report;
use crate::text::text;
use crate::totals::Totals;

const BENCH: &str = "state";
const ROWS: u64 = 10_000_000;
const FEW: u64 = 100_000;
const MANY: u64 = 10_000_000;
/// Name, job, keys.
const SUBJECTS: [(&str, &str, u64); 5] = [
    ("native count, 100,000 keys", "native_counts", FEW),
    ("process with value state, 100,000 keys", "process_counts", FEW),
    ("native count, 10,000,000 keys", "native_counts", MANY),
    ("process with value state, 10,000,000 keys", "process_counts", MANY),
    ("a timer a row, 100,000 keys", "timer_each", FEW),
];

/// The unit counts the words of a text of this many bytes.
const UNIT_BYTES: u64 = 100_000_000;

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let file = text(UNIT_BYTES)?;
    let mut words = 0;
    let (valid, void) = measure::steady_rounds(rounds, || {
        let mut round = Round::new();
        let unit = measure::run(&mut measure::subject(UNIT, &file)?)?;
        words = Totals::of_summary(&unit.said)?.rows;
        round.insert(UNIT, unit);
        let mut totals: BTreeMap<(&str, u64), Totals> = BTreeMap::new();
        for (name, job, keys) in SUBJECTS {
            let run = measure::run(&mut command(job, keys)?)?;
            let given = Totals::of_summary(&run.said)?;
            ensure!(given.rows == ROWS, "{name} gives {} rows", given.rows);
            totals.insert((job, keys), given);
            round.insert(name, run);
        }
        for keys in [FEW, MANY] {
            if totals[&("native_counts", keys)] != totals[&("process_counts", keys)] {
                bail!("with {keys} keys the process function counts otherwise than the host");
            }
        }
        Ok(round)
    })?;
    let rounds = valid.len();
    let seconds = |name: &str| median(valid.iter().map(|round| round[name].cpu.as_secs_f64()).collect());
    let cpu = |name: &str| if name == UNIT { words } else { ROWS } as f64 / 1e6 / seconds(name);
    let mut add = |subject: &str, value: f64, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, rounds), subject, value, unit, against);
    };
    add(UNIT, cpu(UNIT), "M words per CPU-second", None);
    let [native_few, few, native_many, many, timers] = SUBJECTS.map(|(name, ..)| name);
    for (name, baseline) in [
        (native_few, UNIT),
        (few, UNIT),
        (few, native_few),
        (native_many, native_few),
        (many, few),
        (timers, UNIT),
        (timers, few),
    ] {
        add(name, cpu(name), "M rows per CPU-second", Some((baseline, cpu(baseline))));
    }
    let resident = |name: &str| valid.iter().map(|round| round[name].resident as f64).fold(0.0, f64::max);
    // Keys that are drawn at random do not all come.
    let keys = MANY as f64 * (1.0 - (-(ROWS as f64) / MANY as f64).exp());
    let each = (resident(many) - resident(few)) / keys;
    add("process with value state", each, "bytes resident a key (8 of key, 8 of value)", None);
    add("rounds that were void", void as f64, "of all", None);
    Ok(())
}

fn command(job: &str, keys: u64) -> anyhow::Result<Command> {
    let mut command = streamctl()?;
    command.args(["run", "-p", "1", "-c", job]).arg(guest("speed")?);
    command.args(["--rows", &ROWS.to_string(), "--keys", &keys.to_string(), "--output", "blackhole"]);
    Ok(command)
}
