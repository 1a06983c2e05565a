//! File → split in the guest → hash exchange → native keyed sum, an update for every word → blackhole.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::measure::{self, Round, Run, UNIT, guest, median, streamctl};
use crate::report::Report;
use crate::text::text;
use crate::totals::Totals;

/// Gives fewer rows than the others: one for each key of a batch.
const FOLDED: &str = "millstream p=1 folded";
const BENCH: &str = "word_count";
const SUBJECTS: [&str; 9] = [
    UNIT,
    "millstream p=1",
    "native-split",
    "timely-1",
    "millstream p=2",
    "timely-2",
    "millstream p=128",
    "handwritten twice",
    FOLDED,
];

pub(crate) fn run(report: &mut Report, bytes: u64, rounds: usize) -> anyhow::Result<()> {
    let file = text(bytes)?;
    let mut expected: Option<Totals> = None;
    let (valid, void) = measure::steady_rounds(rounds, || {
        let mut round = Round::new();
        for subject in SUBJECTS {
            let run = match subject {
                "handwritten twice" => twice(&file)?,
                _ => measure::run(&mut command(subject, &file)?)?,
            };
            let totals = Totals::of_summary(&run.said)?;
            match expected {
                Some(expected) if subject == FOLDED && totals.rows < expected.rows => {}
                None => expected = Some(totals),
                Some(expected) if expected != totals => bail!("{subject} gives {totals}, not {expected}"),
                Some(_) => {}
            }
            round.insert(subject, run);
        }
        Ok(round)
    })?;
    let words = expected.map_or(0, |totals| totals.rows) as f64;
    let of = |subject: &str, value: fn(&Run) -> f64| -> f64 {
        median(valid.iter().map(|round| value(&round[subject])).collect())
    };
    let cpu = |subject: &str| words / of(subject, |run| run.cpu.as_secs_f64()) / 1e6;
    let wall = |subject: &str| words / of(subject, |run| run.wall.as_secs_f64()) / 1e6;
    let seconds = |subject: &str| of(subject, |run| run.cpu.as_secs_f64());
    let middle = cpu(UNIT);
    let rounds = valid.len();
    let mut add = |subject: &str, value: f64, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, rounds), subject, value, unit, against);
    };
    let cpu_unit = "M words per CPU-second";
    add(UNIT, middle, cpu_unit, None);
    for (subject, baseline) in [
        ("millstream p=1", UNIT),
        ("millstream p=1", "timely-1"),
        ("millstream p=2", "timely-2"),
        (FOLDED, "millstream p=1"),
    ] {
        add(subject, cpu(subject), cpu_unit, Some((baseline, cpu(baseline))));
    }
    for (subject, baseline) in [("millstream p=1", "native-split"), ("millstream p=2", "millstream p=1")] {
        add(subject, seconds(subject), "CPU-seconds", Some((baseline, seconds(baseline))));
    }
    let wall_unit = "M words per second";
    add(
        "millstream p=2",
        wall("millstream p=2"),
        wall_unit,
        Some(("millstream p=1", wall("millstream p=1"))),
    );
    let two = 2.0 * wall("handwritten twice");
    add("handwritten twice", two, wall_unit, Some((UNIT, wall(UNIT))));
    add(
        "millstream p=128",
        wall("millstream p=128"),
        wall_unit,
        Some(("millstream p=2", wall("millstream p=2"))),
    );
    for subject in ["millstream p=1", "millstream p=2", "millstream p=128"] {
        let resident = valid.iter().map(|round| round[subject].resident as f64 / 1e6).fold(0.0, f64::max);
        add(subject, resident, "MB resident at most", None);
    }
    add("rounds that were void", void as f64, "of all", None);
    Ok(())
}

fn command(subject: &str, file: &Path) -> anyhow::Result<Command> {
    let Some(parallelism) = subject.strip_prefix("millstream p=") else {
        return measure::subject(subject, file);
    };
    let mut command = streamctl()?;
    let parallelism = parallelism.trim_end_matches(" folded");
    command.args(["run", "-p", parallelism]).arg(guest("word_count")?).arg("--input").arg(file);
    command.args(["--output", "blackhole"]);
    if subject == FOLDED {
        command.args(["-D", "millstream.aggregate.fold=true"]);
    }
    Ok(command)
}

/// Two copies of the hand-written program at once: what two cores give at best.
fn twice(file: &Path) -> anyhow::Result<Run> {
    let mut beside = measure::subject(UNIT, file)?.stdout(std::process::Stdio::null()).spawn()?;
    let run = measure::run(&mut measure::subject(UNIT, file)?)?;
    beside.wait()?;
    Ok(run)
}
