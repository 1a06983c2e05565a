//! File → split in the guest → hash exchange → native keyed sum, an update for every word → blackhole.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::measure::{self, Run, guest, median, streamctl};
use crate::report::Report;
use crate::text::text;
use crate::totals::Totals;

/// Gives fewer rows than the others: one for each key of a batch.
const FOLDED: &str = "millstream p=1 folded";
const BENCH: &str = "word_count";
/// The unit may vary by this much from its median.
const STEADY: f64 = 0.15;
const SUBJECTS: [&str; 9] = [
    "handwritten",
    "millstream p=1",
    "native-split",
    "timely-1",
    "millstream p=2",
    "timely-2",
    "millstream p=128",
    "handwritten twice",
    FOLDED,
];

/// A run of each subject.
type Round = BTreeMap<&'static str, Run>;

/// The rounds in which the unit is within bounds of its median.
fn steady(rounds: &[Round]) -> Vec<&Round> {
    let unit = |round: &Round| round["handwritten"].cpu.as_secs_f64();
    let middle = median(rounds.iter().map(unit).collect());
    rounds.iter().filter(|round| (unit(round) / middle - 1.0).abs() <= STEADY).collect()
}

pub(crate) fn run(report: &mut Report, bytes: u64, rounds: usize) -> anyhow::Result<()> {
    let file = text(bytes)?;
    let mut all: Vec<Round> = Vec::new();
    let mut expected: Option<Totals> = None;
    // Rounds in which the unit is off are void and made again, whatever the others did in them.
    while steady(&all).len() < rounds {
        if all.len() >= 3 * rounds {
            bail!(
                "void: the unit varies too much in {} rounds of {}; is the machine quiet?",
                all.len() - steady(&all).len(),
                all.len()
            );
        }
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
        all.push(round);
    }
    let valid = steady(&all);
    let void = all.len() - valid.len();
    let words = expected.map_or(0, |totals| totals.rows) as f64;
    let of = |subject: &str, value: fn(&Run) -> f64| -> f64 {
        median(valid.iter().map(|round| value(&round[subject])).collect())
    };
    let cpu = |subject: &str| words / of(subject, |run| run.cpu.as_secs_f64()) / 1e6;
    let wall = |subject: &str| words / of(subject, |run| run.wall.as_secs_f64()) / 1e6;
    let seconds = |subject: &str| of(subject, |run| run.cpu.as_secs_f64());
    let middle = cpu("handwritten");
    let rounds = valid.len();
    let mut add = |subject: &str, value: f64, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, rounds), subject, value, unit, against);
    };
    let cpu_unit = "M words per CPU-second";
    add("handwritten", middle, cpu_unit, None);
    for (subject, baseline) in [
        ("millstream p=1", "handwritten"),
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
    add("handwritten twice", two, wall_unit, Some(("handwritten", wall("handwritten"))));
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
    let mut beside = measure::subject("handwritten", file)?.stdout(std::process::Stdio::null()).spawn()?;
    let run = measure::run(&mut measure::subject("handwritten", file)?)?;
    beside.wait()?;
    Ok(run)
}
