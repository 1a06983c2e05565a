//! Jobs that `run` runs itself, asked by REST; and checkpoints that somebody asks for.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use platform::Clock;

use crate::recovery::{expected, text};
use crate::session::{PATIENCE, Session};
use crate::support::{Folder, Ran, component};

/// A run, and where it is asked.
pub(crate) struct Run {
    child: Child,
    err: BufReader<ChildStderr>,
    /// `HOST:PORT`.
    pub(crate) address: String,
    pub(crate) id: String,
}

impl Run {
    /// Word count of which each read takes a while.
    pub(crate) fn start(folder: &Folder) -> Self {
        Self::with_faults(folder, &[], "source.read=stall:300")
    }

    fn with_faults(folder: &Folder, options: &[&str], faults: &str) -> Self {
        let mut command = folder.command();
        command.args(["run", "--rest-port", "0", "-Dexecution.checkpointing.dir=checkpoints"]).args(options);
        command.args([
            &component("word_count"),
            "--input",
            "text.txt",
            "--output",
            "out",
            "--format",
            "json",
        ]);
        command.env("MILLSTREAM_FAULTS", faults);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("REST interface at ") {
            line.clear();
            assert!(err.read_line(&mut line).unwrap() > 0, "it says no address");
        }
        let (address, id) = line.trim_end_matches(['.', '\n']).split_once(", job ").unwrap();
        let (address, id) = (address.split("://").nth(1).unwrap().to_owned(), id.to_owned());
        Self { child, err, address, id }
    }

    pub(crate) fn ask(&self, folder: &Folder, command: &str, args: &[&str]) -> Ran {
        folder.streamctl(&[&[command, "-m", &self.address], args].concat())
    }

    /// Whoever asks for the running jobs is told of it.
    #[track_caller]
    pub(crate) fn is_listed(&self, folder: &Folder) {
        let listed = self.ask(folder, "list", &[]);
        let line = format!(" : {} : word_count (RUNNING)", self.id);
        assert!(listed.succeeds().out.contains(&line), "{}", listed.out);
    }

    pub(crate) fn wait(mut self) -> Ran {
        let mut err = String::new();
        self.err.read_to_string(&mut err).unwrap();
        Ran { code: self.child.wait().unwrap().code().unwrap_or(-1), out: String::new(), err }
    }
}

#[test]
fn a_job_that_runs_by_itself_is_asked_like_one_of_a_session() {
    let folder = Folder::new();
    let text = text(300_000);
    folder.write("text.txt", &text);
    let run = Run::start(&folder);
    run.is_listed(&folder);
    let wasm = component("word_count");
    let other = run.ask(&folder, "run", &["-d", &wasm, "--input", "text.txt"]);
    other.fails(2, &["this process runs one job only", "streamctl session start"]);
    let made = run.ask(&folder, "checkpoint", &[&run.id]);
    assert!(made.succeeds().out.contains("Checkpoint 1 for job "), "{}", made.out);
    // The process ends with the job, and whoever waits hears of the savepoint.
    let stopped = run.ask(&folder, "stop", &["--savepointPath", "sv", &run.id]);
    let path = stopped.succeeds().out.lines().last().unwrap().rsplit(' ').next().unwrap().to_owned();
    run.wait().succeeds();
    let next =
        ["run", "-q", "-s", &path, &wasm, "--input", "text.txt", "--output", "out", "--format", "json"];
    folder.streamctl(&next).succeeds();
    assert!(folder.parts("out") == expected(&text), "other rows than the text's");
}

#[test]
fn one_that_is_cancelled_by_somebody_says_so() {
    let folder = Folder::new();
    folder.write("text.txt", text(300_000));
    let run = Run::start(&folder);
    let (id, told) = (run.id.clone(), format!("Cancelling job {0}.\nCancelled job {0}.\n", run.id));
    assert_eq!(run.ask(&folder, "cancel", &[&id]).succeeds().out, told);
    run.wait().fails(1, &[&format!("Job was cancelled (JobID: {id})")]);
    // Nobody is there any more; nor with one whose session is ended.
    let run = Run::start(&folder);
    folder.streamctl(&["session", "stop", "-m", &run.address]).succeeds();
    run.wait().fails(1, &["Job was cancelled"]);
}

#[test]
fn a_port_that_is_taken_is_no_reason_not_to_run() {
    let folder = Folder::new();
    folder.write("text.txt", "a b");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let wasm = component("word_count");
    let run = |options: &[&str]| {
        folder.streamctl(
            &[&["run"], options, &[wasm.as_str(), "--input", "text.txt", "--output", "out"]].concat(),
        )
    };
    let ran = run(&["--rest-port", &port]);
    let told = format!("No REST interface: the ports from {port} are taken.\n");
    assert!(ran.succeeds().err.contains(&told), "{}", ran.err);
    let by_key = format!("-Drest.port={port}");
    std::fs::remove_dir_all(folder.path("out")).unwrap();
    assert!(run(&[&by_key]).succeeds().err.contains(&told));
    for options in [&["--rest-port", "off"][..], &["-q"], &["-Drest.bind-port=off"]] {
        std::fs::remove_dir_all(folder.path("out")).unwrap();
        let ran = run(options);
        assert!(!ran.succeeds().err.contains("REST"), "{}", ran.err);
    }
    for wrong in ["x", "70000", "9-8", "-1"] {
        run(&[&format!("--rest-port={wrong}")]).fails(2, &["rest.bind-port", "it is a port"]);
    }
}

#[test]
fn a_checkpoint_is_made_when_somebody_asks_for_it() {
    let folder = Folder::new();
    folder.write("text.txt", text(300_000));
    let session = Session::start(&folder, 4, 2_000);
    let id = session.submit(&folder, &[]);
    session.wait_until(&folder, &id, "RUNNING");
    let told = |kind: &str, number: u64| {
        format!(
            "Triggering checkpoint for job {id}.\nWaiting for response...\nCheckpoint{kind} {number} for job {id} \
             completed.\nYou can resume your program from this checkpoint with the run command.\n"
        )
    };
    assert_eq!(session.ask(&folder, "checkpoint", &[&id]).succeeds().out, told("", 1));
    let made = session.ask(&folder, "checkpoint", &["--json", &id]);
    assert_eq!(made.succeeds().out, "{\"checkpointId\":2}\n");
    let sizes = |number: u64| {
        let (_, all) = session.get(&format!("/jobs/{id}/checkpoints"));
        let found =
            all["history"].as_array().unwrap().iter().find(|one| one["id"] == number).unwrap().clone();
        (found["checkpointed_size"].as_u64().unwrap(), found["state_size"].as_u64().unwrap())
    };
    // One builds upon those before it, as soon as there is state; a full one does not.
    let clock = Clock::system();
    let (end, mut number) = (clock.now() + PATIENCE, 3);
    while {
        session.ask(&folder, "checkpoint", &[&id]).succeeds();
        let (written, named) = sizes(number);
        named < 1_000 || written >= named
    } {
        assert!(clock.now() < end, "no checkpoint builds upon another: {:?}", sizes(number));
        number += 1;
    }
    number += 1;
    assert_eq!(session.ask(&folder, "checkpoint", &["-full", &id]).succeeds().out, told("(FULL)", number));
    let (written, named) = sizes(number);
    assert!(named > 1_000 && written == named, "{written} of {named}");
    let post = |path: &str, body: &str| {
        let (host, length) = (&session.address, body.len());
        session.http(
            &format!("POST {path}"),
            &format!("Host: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"),
        )
    };
    let path = format!("/v1/jobs/{id}/checkpoints");
    let (code, errors) = post(&path, "{\"checkpointType\":\"HUGE\"}");
    assert!(code == 400 && errors.contains("no type of checkpoint"), "{code} {errors}");
    let (code, _) =
        post(&path, "{\"checkpointType\":\"FULL\",\"triggerId\":\"0123456789abcdef0123456789abcdef\"}");
    assert_eq!(code, 202);
    assert_eq!(session.get(&format!("{path}/0123456789abcdef0123456789abcde0")).0, 404);
    assert_eq!(session.get(&format!("{path}/0123456789abcdef0123456789abcdef")).0, 200);
    session.ask(&folder, "cancel", &[&id]).succeeds();
    session.ask(&folder, "checkpoint", &[&id]).fails(1, &["Failed to trigger a checkpoint", "CANCELED"]);
}

#[test]
fn how_long_a_job_is_up_and_down_is_told_over_a_restart() {
    let folder = Folder::new();
    folder.write("text.txt", text(300_000));
    let options = [
        "-Dexecution.checkpointing.interval=20ms",
        "-Dexecution.checkpointing.tolerable-failed-checkpoints=0",
        "-Drestart-strategy.type=fixed-delay",
        "-Drestart-strategy.fixed-delay.delay=3s",
    ];
    let run = Run::with_faults(&folder, &options, "source.read=stall:300,store.sync@3=eio");
    let Run { child, mut err, address, id } = run;
    platform::spawn_thread("log", move || std::io::copy(&mut err, &mut std::io::sink()));
    let session = Session { child, address, began: String::new() };
    let clock = Clock::system();
    let end = clock.now() + PATIENCE;
    let until = |what: &str, is_so: fn([i64; 3]) -> bool| loop {
        let (code, all) = session.get(&format!("/jobs/{id}/metrics?get=uptime,downtime,restartingTime"));
        if code == 404 && all.to_string().contains("has not begun to run") {
            assert!(clock.now() < end, "{all}");
            clock.sleep(Duration::from_millis(5));
            continue;
        }
        assert_eq!(code, 200, "{all}");
        let of = |name: &str| {
            let found = all.as_array().unwrap().iter().find(|metric| metric["id"] == name);
            found.unwrap()["value"].as_str().unwrap().parse().unwrap()
        };
        let now = [of("uptime"), of("downtime"), of("restartingTime")];
        if is_so(now) {
            return now;
        }
        assert!(clock.now() < end, "it is never {what}: {now:?}");
        clock.sleep(Duration::from_millis(20));
    };
    until("up", |[up, ..]| up > 0);
    let [up, down, restarting] = until("down", |[_, down, _]| down > 0);
    assert_eq!((up, down), (0, restarting));
    let [_, down, restarting] = until("up again", |[up, ..]| up > 0);
    assert!(down == 0 && restarting >= 3_000, "{down}, {restarting}");
    let (_, prometheus) = session.http("GET /metrics", &format!("Host: {}\r\n", session.address));
    for name in ["uptime", "downtime", "restartingTime"] {
        assert!(prometheus.contains(&format!("flink_jobmanager_job_{name}{{")), "{prometheus}");
    }
}
