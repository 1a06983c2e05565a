//! Ctrl-C and SIGTERM.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use crate::support::{Folder, Ran, component};

fn stopped_by(signal: &str) -> (Ran, Folder) {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let wc = component("word_count");
    let child = folder.start(&[
        "run",
        &wc,
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--output",
        "out",
        "--format",
        "text",
    ]);
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"one two\n").unwrap();
    // The rows are on their way to the file when it is there.
    while std::fs::read_dir(folder.path("out")).map_or(0, Iterator::count) == 0 {
        std::thread::yield_now();
    }
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    (Ran::of(child.wait_with_output().unwrap()), folder)
}

#[test]
fn a_stop_by_signal_is_clean_and_says_what_it_did() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let (ran, folder) = stopped_by(signal);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains("Job word_count was stopped"), "{}", ran.err);
        assert!(ran.err.contains("1 row in") && ran.err.contains("2 rows out"), "{}", ran.err);
        // What was written is whole and named.
        assert_eq!(folder.parts("out"), ["(one,1)", "(two,1)"]);
    }
}

#[test]
fn a_job_without_end_is_stopped_too() {
    let folder = Folder::new();
    let mut child = folder.start(&["run", "-p", "2", &component("word_count"), "--input", "-"]);
    child.stdin.as_mut().unwrap().write_all(b"a\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with("> (a,1)\n"), "{line}");
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let stdin = child.stdin.take();
    let ran = Ran::of(child.wait_with_output().unwrap());
    drop(stdin);
    assert_eq!(ran.code, 130, "{}", ran.err);
}
