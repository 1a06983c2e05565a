//! Aggregates over windows by a function in the guest, beside the host's own: sum, count and maximum of the
//! bids of Nexmark, by auction.
//!
//! The input is the same, narrowed by the guest to three columns; what it costs with a filter that leaves nothing is a subject too.

use std::process::Command;

use anyhow::ensure;

use crate::measure::{self, Round, UNIT, guest, median, streamctl};
use crate::report::Report;
use crate::text::text;
use crate::totals::Totals;

const BENCH: &str = "windows";
const EVENTS: u64 = 10_000_000;
const INPUT: &str = "the input, left out";
/// By the host, by the guest, which windows.
const PAIRS: [(&str, &str, &[&str]); 3] = [
    ("tumbling, by the host", "tumbling, by the guest", &[]),
    ("sliding, by the host", "sliding, by the guest", &["--sliding"]),
    ("sessions, by the host", "sessions, by the guest", &["--sessions", "2000"]),
];
const UNIT_BYTES: u64 = 100_000_000;

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let file = text(UNIT_BYTES)?;
    let (valid, void) = measure::steady_rounds(rounds, || {
        let mut round = Round::new();
        round.insert(UNIT, measure::run(&mut measure::subject(UNIT, &file)?)?);
        round.insert(INPUT, measure::run(&mut command("none", &[])?)?);
        for (host, guest, windows) in PAIRS {
            let of_host = measure::run(&mut command("host", windows)?)?;
            let of_guest = measure::run(&mut command("guest", windows)?)?;
            let given = [&of_host, &of_guest].map(|run| Totals::of_summary(&run.said).map(|said| said.rows));
            let [by_host, by_guest] = given;
            let (by_host, by_guest) = (by_host?, by_guest?);
            ensure!(by_host == by_guest, "{host}: {by_host} results, {guest}: {by_guest}");
            round.insert(host, of_host);
            round.insert(guest, of_guest);
        }
        Ok(round)
    })?;
    let rounds = valid.len();
    let seconds = |round: &Round, name: &str| round[name].cpu.as_secs_f64();
    let mut add = |subject: &str, value: f64, unit: &str| {
        report.compare((BENCH, rounds), subject, value, unit, None);
    };
    let subjects = PAIRS.iter().flat_map(|(host, guest, _)| [*host, *guest]);
    for name in [UNIT, INPUT].into_iter().chain(subjects) {
        add(name, median(valid.iter().map(|round| seconds(round, name)).collect()), "CPU-seconds");
    }
    for (host, guest, _) in PAIRS {
        // The two of a round ran one after the other.
        let whole = valid.iter().map(|round| seconds(round, guest) / seconds(round, host)).collect();
        add(guest, median(whole), "of the host's CPU");
    }
    add("rounds that were void", void as f64, "of all");
    Ok(())
}

fn command(by: &str, windows: &[&str]) -> anyhow::Result<Command> {
    let mut command = streamctl()?;
    command.args(["run", "-p", "1", "-c", "window_bids"]).arg(guest("speed")?);
    command.args(["--events", &EVENTS.to_string(), "--by", by, "--output", "blackhole"]);
    command.args(windows);
    Ok(command)
}
