//! What a session without jobs needs: resident memory, and CPU time while nobody asks anything.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use platform::Clock;

use crate::measure::{cpu, resident_of, streamctl};
use crate::report::Report;

/// The system counts CPU time in hundredths of a second: this is exact to 0.05 %.
const TIME: Duration = Duration::from_secs(20);
/// Until what a start has begun is over.
const SETTLES: Duration = Duration::from_secs(1);

/// A process that ends with this.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // One that has ended already is as it should be.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = streamctl()?;
    command.args(["session", "start", "--slots", "2", "-D", "rest.port=0", "-D"]);
    command.arg(format!("millstream.session.dir={}", folder.path().display()));
    let mut session =
        Ends(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    let mut said = BufReader::new(session.0.stderr.take().context("a pipe")?);
    let mut line = String::new();
    while !line.starts_with("Session at ") {
        line.clear();
        ensure!(said.read_line(&mut line)? > 0, "the session does not start");
    }
    let (clock, process) = (Clock::system(), session.0.id().to_string());
    clock.sleep(SETTLES);
    let (began, before) = (clock.now(), cpu(&process)?);
    clock.sleep(TIME);
    let used = cpu(&process)?.saturating_sub(before);
    let part = used.as_secs_f64() / (clock.now() - began).as_secs_f64();
    let memory = resident_of(&process) as f64 / f64::from(1 << 20);
    ensure!(memory > 0.0, "the session has ended");
    let subject = "a session without jobs";
    report.compare(("idle", 1), subject, memory, "MiB resident", None);
    report.compare(("idle", 1), subject, 100.0 * part, "% of a core", None);
    Ok(())
}
