//! From start to exit on a file of ten lines, compiled code cached.

use crate::measure::{self, guest, median, streamctl};
use crate::report::{Report, Row};

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("millstream-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("ten.txt");
    std::fs::write(&file, "to be or not to be\n".repeat(10))?;
    let mut walls = Vec::new();
    // The first run compiles.
    for round in 0..=4 * rounds {
        let mut command = streamctl()?;
        command.args(["run", "-p", "1"]).arg(guest("word_count")?).arg("--input").arg(&file);
        let run = measure::run(&mut command)?;
        if round > 0 {
            walls.push(run.wall.as_secs_f64() * 1e3);
        }
    }
    std::fs::remove_dir_all(&folder)?;
    report.add(Row {
        bench: "start".to_owned(),
        subject: "streamctl run, ten lines".to_owned(),
        value: median(walls),
        unit: "ms from start to exit".to_owned(),
        ratio: None,
        baseline: None,
        rounds: 4 * rounds,
    });
    Ok(())
}
