//! A trickle by socket: from the line's write to the printed update; and to the row behind one that has trapped.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use platform::Clock;

use crate::measure::{guest, streamctl};
use crate::report::Report;

const LINES: usize = 300;
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let word = |i: usize| format!("word{}\n", i % 7);
    let took = trickle(guest("word_count")?.as_os_str(), "word_count", word)?;
    let unit = "ms from the line's write to the printed update";
    add(report, "10 lines/s by socket", unit, &took);
    let trap = |i: usize| format!("trap\nword{i}\n");
    let took = trickle(guest("speed")?.as_os_str(), "trapping", trap)?;
    add(report, "a line that traps, and one behind it", "ms from their write to the second one's row", &took);
    Ok(())
}

/// Milliseconds from a write to the row that comes of it, in order.
fn trickle(wasm: &OsStr, job: &str, text: impl Fn(usize) -> String) -> anyhow::Result<Vec<f64>> {
    let clock = Clock::system();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let mut command = streamctl()?;
    command.args(["run", "-p", "2", "-c", job]).arg(wasm).args(["--host", "127.0.0.1", "--port", &port]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    // It may refuse the job.
    listener.set_nonblocking(true)?;
    let mut peer = loop {
        match listener.accept() {
            Ok((peer, _)) => break peer,
            Err(error) if error.kind() == ErrorKind::WouldBlock => clock.sleep(Duration::from_millis(1)),
            Err(error) => return Err(error.into()),
        }
        ensure!(child.try_wait()?.is_none(), "{job} has ended without a connection");
    };
    peer.set_nonblocking(false)?;
    peer.set_nodelay(true)?;
    let mut rows = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut took = Vec::new();
    let mut row = String::new();
    for i in 0..LINES + 10 {
        clock.sleep(PAUSE);
        let before = clock.now();
        peer.write_all(text(i).as_bytes())?;
        row.clear();
        ensure!(rows.read_line(&mut row)? > 0, "{job} gives no row");
        // The first lines warm up.
        if i >= 10 {
            took.push((clock.now() - before).as_secs_f64() * 1e3);
        }
    }
    drop(peer);
    child.wait()?;
    took.sort_by(f64::total_cmp);
    Ok(took)
}

fn add(report: &mut Report, subject: &str, unit: &str, took: &[f64]) {
    for (name, at) in [("p50", 0.5), ("p99", 0.99)] {
        let value = took[((took.len() - 1) as f64 * at) as usize];
        report.compare(("latency", LINES), &format!("{subject}, {name}"), value, unit, None);
    }
}
