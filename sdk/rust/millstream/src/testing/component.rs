//! A job's component in the engine itself, step by step: `streamctl drive` in a process of its own.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use millstream_sys::bindings::millstream::job::rows::{Batch, Column};
use millstream_sys::host::Level;
use millstream_sys::host::stub::Told;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::Run;
use super::driver::Engine;
use super::graph::Output;
use super::wire::{WireBatch, WireColumn, columns};
use crate::process::{TimeDomain, Timer};

fn not_started(streamctl: &Path, error: &std::io::Error) -> ! {
    panic!(
        "cannot run {}: {error}\nhint: say where it is, by the environment's STREAMCTL or Harness::streamctl",
        streamctl.display()
    )
}

/// A sink, as it is told.
#[derive(Deserialize)]
struct Sink {
    node: u32,
    name: String,
    uid: Option<String>,
    collection: Option<String>,
    names: Vec<String>,
}

struct Pipe {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        drop(self.requests.take());
        drop(self.child.wait());
    }
}

/// A job that is driven in another process.
pub(super) struct Driven {
    pipe: RefCell<Pipe>,
    outputs: RefCell<Vec<Output>>,
    /// the node of each output
    nodes: Vec<u32>,
    told: RefCell<Told>,
}

impl Driven {
    /// Starts a job of a component; none = its first. Without `streamctl` it is `STREAMCTL` of the
    /// environment, else that of the path.
    ///
    /// # Panics
    /// If it cannot be started.
    pub(super) fn start(
        component: &Path,
        streamctl: Option<&Path>,
        job: Option<&str>,
        arguments: &[String],
    ) -> Driven {
        let of_environment = || std::env::var_os("STREAMCTL").map(PathBuf::from);
        let streamctl =
            streamctl.map(Path::to_owned).or_else(of_environment).unwrap_or_else(|| "streamctl".into());
        let mut command = Command::new(&streamctl);
        command.arg("drive");
        if let Some(job) = job {
            command.args(["-c", job]);
        }
        command.arg(component).arg("--").args(arguments);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| not_started(&streamctl, &error));
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            panic!("{} has no pipes", streamctl.display())
        };
        let pipe = Pipe { child, requests: Some(requests), answers: BufReader::new(answers) };
        let mut driven = Driven {
            pipe: RefCell::new(pipe),
            outputs: RefCell::default(),
            nodes: Vec::new(),
            told: RefCell::default(),
        };
        let sinks: Vec<Sink> = part(&mut driven.ask(&json!("sinks")), "sinks");
        for sink in sinks {
            driven.nodes.push(sink.node);
            let output = Output::new(sink.name, sink.uid, sink.collection, sink.names);
            driven.outputs.get_mut().push(output);
        }
        driven
    }

    /// Asks, and takes what has come to sinks.
    fn ask(&self, request: &Json) -> Json {
        let mut pipe = self.pipe.borrow_mut();
        let mut answer = String::new();
        let sent = pipe.requests.as_mut().map(|requests| writeln!(requests, "{request}"));
        let read = pipe.answers.read_line(&mut answer);
        if !matches!((sent, read), (Some(Ok(())), Ok(1..))) {
            let mut said = String::new();
            drop(pipe.child.stderr.as_mut().map(|stderr| stderr.read_to_string(&mut said)));
            panic!("{}", said.trim());
        }
        let mut answer: Json =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("no answer: {error}\n{answer}"));
        if let Some(error) = answer.get("error") {
            panic!("{}", error.as_str().unwrap_or_default());
        }
        let mut answer = answer["ok"].take();
        let rows: Vec<(u32, WireBatch)> = part(&mut answer, "rows");
        let mut outputs = self.outputs.borrow_mut();
        for (node, rows) in rows {
            let place = self.nodes.iter().position(|sink| *sink == node);
            let Some(place) = place else { panic!("rows of a sink {node} that there is not") };
            outputs[place].batches.push(rows.batch());
        }
        let messages: Vec<String> = part(&mut answer, "messages");
        self.told.borrow_mut().messages.extend(messages.into_iter().map(|message| (Level::Info, message)));
        answer
    }
}

fn part<T: for<'a> Deserialize<'a>>(answer: &mut Json, name: &str) -> T {
    serde_json::from_value(answer[name].take())
        .unwrap_or_else(|error| panic!("`{name}` of an answer: {error}"))
}

impl Engine for Driven {
    fn start_at(&mut self, time: i64) {
        self.ask(&json!({ "start_at": time }));
    }

    fn push(&mut self, source: &str, rows: Batch) {
        self.ask(&json!({ "push": { "source": source, "rows": WireBatch::of(rows) } }));
    }

    fn raise(&mut self, time: i64) {
        self.ask(&json!({ "watermark": time }));
    }

    fn advance(&mut self, by: i64) {
        self.ask(&json!({ "advance": by }));
    }

    fn outputs(&mut self) -> &mut Vec<Output> {
        self.outputs.get_mut()
    }

    fn value(&self, function: &str, state: &str, key: &Batch) -> Option<Vec<Column>> {
        let (_, values, count) = self.entries(function, state, Some(key));
        (count > 0).then_some(values)
    }

    fn entries(&self, function: &str, state: &str, key: Option<&Batch>) -> (Vec<Column>, Vec<Column>, usize) {
        let none = Batch { length: 0, event_times: None, kinds: None, columns: Vec::new() };
        let key = WireBatch::of(key.unwrap_or(&none).clone());
        let asked = json!({ "state": { "function": function, "state": state, "key": key } });
        let mut answer = self.ask(&asked);
        let keys: Vec<WireColumn> = part(&mut answer, "keys");
        let values: Vec<WireColumn> = part(&mut answer, "values");
        (columns(keys), columns(values), part(&mut answer, "count"))
    }

    fn timers(&self, function: &str) -> Vec<Timer> {
        let timers: Vec<(bool, i64)> = part(&mut self.ask(&json!({ "timers": function })), "timers");
        let domain = |is_of_processing| match is_of_processing {
            true => TimeDomain::ProcessingTime,
            false => TimeDomain::EventTime,
        };
        let timer = |(is_of_processing, time)| Timer { domain: domain(is_of_processing), time };
        timers.into_iter().map(timer).collect()
    }

    fn end(self: Box<Self>) -> Run {
        let mut answer = self.ask(&json!("end"));
        let mut told = self.told.take();
        told.counts = part(&mut answer, "counters");
        told.gauges = part(&mut answer, "gauges");
        Run { outputs: self.outputs.take(), told }
    }
}
