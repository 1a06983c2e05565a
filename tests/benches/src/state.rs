//! State and timers: made-up rows → key in the guest → hash exchange → a process function → blackhole.
//!
//! The counts of the process function must be those of the native aggregate, row by row.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{bail, ensure};

use crate::measure::{self, Run, guest, median, streamctl};
use crate::report::Report;
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

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for _ in 0..rounds {
        let mut totals: BTreeMap<(&str, u64), Totals> = BTreeMap::new();
        for (name, job, keys) in SUBJECTS {
            let run = measure::run(&mut command(job, keys)?)?;
            let given = Totals::of_summary(&run.said)?;
            ensure!(given.rows == ROWS, "{name} gives {} rows", given.rows);
            totals.insert((job, keys), given);
            runs.entry(name).or_default().push(run);
        }
        for keys in [FEW, MANY] {
            if totals[&("native_counts", keys)] != totals[&("process_counts", keys)] {
                bail!("with {keys} keys the process function counts otherwise than the host");
            }
        }
    }
    let cpu =
        |name: &str| ROWS as f64 / 1e6 / median(runs[name].iter().map(|run| run.cpu.as_secs_f64()).collect());
    let mut add = |subject: &str, value: f64, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, rounds), subject, value, unit, against);
    };
    let baselines = [None, Some(0), None, Some(1), Some(1)];
    for ((name, ..), baseline) in SUBJECTS.iter().zip(baselines) {
        let against = baseline.map(|at: usize| (SUBJECTS[at].0, cpu(SUBJECTS[at].0)));
        add(name, cpu(name), "M rows per CPU-second", against);
    }
    let resident = |name: &str| runs[name].iter().map(|run| run.resident as f64).fold(0.0, f64::max);
    // Keys that are drawn at random do not all come.
    let keys = MANY as f64 * (1.0 - (-(ROWS as f64) / MANY as f64).exp());
    let each = (resident(SUBJECTS[3].0) - resident(SUBJECTS[1].0)) / keys;
    add("process with value state", each, "bytes resident a key (8 of key, 8 of value)", None);
    Ok(())
}

fn command(job: &str, keys: u64) -> anyhow::Result<Command> {
    let mut command = streamctl()?;
    command.args(["run", "-p", "1", "-c", job]).arg(guest("speed")?);
    command.args(["--rows", &ROWS.to_string(), "--keys", &keys.to_string(), "--output", "blackhole"]);
    Ok(command)
}
