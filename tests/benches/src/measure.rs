//! A run of a command: its CPU time, wall time and greatest resident memory.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use platform::Clock;

use crate::report::Report;

/// What a run took.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// Bytes.
    pub(crate) resident: u64,
    /// Standard output and standard error.
    pub(crate) said: String,
}

/// The system's unit of CPU time, in milliseconds.
const TICK_MS: u64 = 10;

/// CPU time of all processes that this one has started and that have ended.
fn children_cpu() -> anyhow::Result<Duration> {
    let ticks = cpu_ticks(&std::fs::read_to_string("/proc/self/stat")?, 13)?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

/// Two fields of what the system says of a process, user and system, together. They are counted behind the name, which
/// may have spaces.
fn cpu_ticks(stat: &str, first: usize) -> anyhow::Result<u64> {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[first].parse::<u64>()? + fields[first + 1].parse::<u64>()?)
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<Run> {
    let clock = Clock::system();
    let cpu_before = children_cpu()?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut resident = 0;
    while child.try_wait()?.is_none() {
        resident = resident.max(status(&child.id().to_string(), "VmHWM:"));
        clock.sleep(Duration::from_millis(2));
    }
    let wall = clock.now();
    let output = child.wait_with_output()?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{command:?} failed: {said}");
    }
    Ok(Run { cpu: children_cpu()?.saturating_sub(cpu_before), wall, resident, said })
}

/// A line of what the system says about a process, in bytes; 0 = it has ended.
fn status(process: &str, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_default();
    value.trim().trim_end_matches(" kB").parse().unwrap_or(0) * 1024
}

/// CPU time of a process that runs.
pub(crate) fn cpu(process: &str) -> anyhow::Result<Duration> {
    let ticks = cpu_ticks(&std::fs::read_to_string(format!("/proc/{process}/stat"))?, 11)?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

/// Bytes of memory that a process has; 0 = it has ended.
pub(crate) fn resident_of(process: &str) -> u64 {
    status(process, "VmRSS:")
}

/// Bytes of memory that this process has.
pub(crate) fn resident() -> u64 {
    status("self", "VmRSS:")
}

/// The subject that is every bench's unit: word count, written by hand.
pub(crate) const UNIT: &str = "handwritten";
/// The unit may vary by this much from its median.
const STEADY: f64 = 0.15;

/// A run of each subject, [`UNIT`] among them.
pub(crate) type Round = BTreeMap<&'static str, Run>;

/// So many rounds in which the unit is steady, and how many were not: those are void and made again,
/// whatever the others did in them.
///
/// # Errors
/// As `round`; and if most rounds are void.
pub(crate) fn steady_rounds(
    wanted: usize,
    mut round: impl FnMut() -> anyhow::Result<Round>,
) -> anyhow::Result<(Vec<Round>, usize)> {
    let unit = |round: &Round| round[UNIT].cpu.as_secs_f64();
    let mut all: Vec<Round> = Vec::new();
    loop {
        let middle = median(all.iter().map(unit).collect());
        let is_steady = |round: &Round| (unit(round) / middle - 1.0).abs() <= STEADY;
        let steady = all.iter().filter(|round| is_steady(round)).count();
        let void = all.len() - steady;
        if steady >= wanted {
            all.retain(is_steady);
            return Ok((all, void));
        }
        if all.len() >= 3 * wanted {
            bail!("void: the unit varies too much in {void} rounds of {}; is the machine quiet?", all.len());
        }
        all.push(round()?);
    }
}

/// This program, running one subject.
pub(crate) fn subject(name: &str, file: &std::path::Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--subject", name, "--file"]).arg(file);
    Ok(command)
}

/// Drives state in a process of its own; adds the rows.
pub(crate) fn drive(report: &mut Report, name: &str, rounds: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let rows = folder.path().join("rows.json");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--drive", name, "--rounds", &rounds.to_string(), "--json"]).arg(&rows);
    if !command.status()?.success() {
        bail!("{name} could not be driven");
    }
    report.add_json(&std::fs::read_to_string(rows)?)
}

/// The binary under test, and a guest.
pub(crate) fn streamctl() -> anyhow::Result<Command> {
    let here = std::env::current_exe()?;
    let binary = here.with_file_name("streamctl");
    if !binary.exists() {
        bail!("{} is missing; scripts/bench builds it", binary.display());
    }
    Ok(Command::new(binary))
}

/// A guest that `scripts/setup` has built.
pub(crate) fn guest(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let here = std::env::current_exe()?;
    let target = here.ancestors().nth(2).context("a target folder")?;
    Ok(target.join(format!("wasm32-unknown-unknown/guest/{name}.wasm")))
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
