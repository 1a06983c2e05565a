//! A trickle by socket: from the line's write to the printed update.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use platform::Clock;

use crate::measure::{guest, streamctl};
use crate::report::{Report, Row};

const LINES: usize = 300;
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let clock = Clock::system();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let mut command = streamctl()?;
    command.args(["run", "-p", "2"]).arg(guest("word_count")?).args(["--host", "127.0.0.1", "--port", &port]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (mut peer, _) = listener.accept()?;
    peer.set_nodelay(true)?;
    let mut rows = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut took = Vec::new();
    let mut row = String::new();
    for i in 0..LINES + 10 {
        clock.sleep(PAUSE);
        let before = clock.now();
        writeln!(peer, "word{}", i % 7)?;
        row.clear();
        rows.read_line(&mut row)?;
        // The first lines warm up.
        if i >= 10 {
            took.push((clock.now() - before).as_secs_f64() * 1e3);
        }
    }
    drop(peer);
    child.wait()?;
    took.sort_by(f64::total_cmp);
    for (name, at) in [("p50", 0.5), ("p99", 0.99)] {
        report.add(Row {
            bench: "latency".to_owned(),
            subject: format!("10 lines/s by socket, {name}"),
            value: took[((took.len() - 1) as f64 * at) as usize],
            unit: "ms from the line's write to the printed update".to_owned(),
            ratio: None,
            baseline: None,
            rounds: LINES,
        });
    }
    Ok(())
}
