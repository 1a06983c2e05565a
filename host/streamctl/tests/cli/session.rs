//! A session, and what is asked of it by the command line and by REST.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use platform::Clock;

use crate::openapi;
use crate::recovery::{expected, text};
use crate::support::{Folder, Ran, component};

/// What is given up when nothing comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A session in the foreground, which ends with the test.
pub(crate) struct Session {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// What it said before it had begun.
    pub(crate) began: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Session {
    /// `read` = how long each read of a source takes, in milliseconds.
    pub(crate) fn start(folder: &Folder, slots: u32, read: u32) -> Self {
        Self::with_faults(folder, slots, &format!("source.read=stall:{read}"))
    }

    pub(crate) fn command(folder: &Folder, slots: u32, faults: &str) -> Command {
        let mut command = folder.command();
        command.args(["session", "start", "--slots", &slots.to_string(), "-D", "rest.port=0"]);
        command.args(["-D", "millstream.session.dir=session"]);
        command.env("MILLSTREAM_FAULTS", faults);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn with_faults(folder: &Folder, slots: u32, faults: &str) -> Self {
        Self::of(Self::command(folder, slots, faults))
    }

    /// The one that this command starts.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut before) = (String::new(), String::new());
        while !line.starts_with("Session at ") {
            before.push_str(&std::mem::take(&mut line));
            assert!(lines.read_line(&mut line).unwrap() > 0, "it does not start: {before}");
        }
        let address = line.split("http://").nth(1).unwrap().split(',').next().unwrap().to_owned();
        // Whoever writes to a pipe that nobody reads ends.
        platform::spawn_thread("session-log", move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, address, began: before }
    }

    pub(crate) fn ask(&self, folder: &Folder, command: &str, args: &[&str]) -> Ran {
        let mut all = vec![command, "-m", &self.address];
        all.extend(args);
        folder.streamctl(&all)
    }

    /// Submits word count; its id.
    pub(crate) fn submit(&self, folder: &Folder, options: &[&str]) -> String {
        let wasm = component("word_count");
        let mut args = vec!["-d", "-p", "2"];
        args.extend(options);
        args.extend([wasm.as_str(), "--input", "text.txt", "--output", "out", "--format", "json"]);
        let ran = self.ask(folder, "run", &args);
        let id = ran.succeeds().out.strip_prefix("Job has been submitted with JobID ").unwrap();
        id.trim().to_owned()
    }

    pub(crate) fn status(&self, folder: &Folder, id: &str) -> String {
        let listed = self.ask(folder, "list", &["-a", "--json"]);
        let jobs: Vec<serde_json::Value> = serde_json::from_str(&listed.succeeds().out).unwrap();
        let job = jobs.iter().find(|job| job["jid"] == id);
        job.map(|job| job["state"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, folder: &Folder, id: &str, wanted: &str) {
        let clock = Clock::system();
        let end = clock.now() + PATIENCE;
        loop {
            let status = self.status(folder, id);
            if status == wanted {
                return;
            }
            let is_over = ["FINISHED", "FAILED", "CANCELED"].contains(&status.as_str());
            let logs = || self.ask(folder, "logs", &[id]).out;
            assert!(!is_over && clock.now() < end, "it is {status}, not {wanted}: {}", logs());
            clock.sleep(Duration::from_millis(20));
        }
    }

    /// What the server says to a request with these headers, which is to be as its document says.
    #[track_caller]
    pub(crate) fn http(&self, request: &str, headers: &str) -> (u16, String) {
        self.send(request, format!("{headers}Connection: close\r\n\r\n").as_bytes())
    }

    /// The same, of all that follows a request's first line.
    #[track_caller]
    fn send(&self, request: &str, rest: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{request} HTTP/1.1\r\n").unwrap();
        stream.write_all(rest).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        let (method, path) = request.split_once(' ').unwrap();
        if let Some(why) = openapi::wrong(method, path, (code, kind, body)) {
            panic!("{request} is not as the document says: {why}");
        }
        (code, body.to_owned())
    }

    /// Uploads a component as browsers and Flink's client do; what the server says.
    pub(crate) fn upload(&self, component: &[u8]) -> (u16, serde_json::Value) {
        let edge = "----edge";
        let mut body = format!(
            "--{edge}\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"wc.jar\"\r\n\
             Content-Type: application/x-java-archive\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(component);
        body.extend_from_slice(format!("\r\n--{edge}--\r\n").as_bytes());
        let (host, length) = (&self.address, body.len());
        let headers = format!(
            "Host: {host}\r\nContent-Length: {length}\r\n\
             Content-Type: multipart/form-data; boundary={edge}\r\nConnection: close\r\n\r\n"
        );
        let (code, body) = self.send("POST /jars/upload", &[headers.into_bytes(), body].concat());
        (code, serde_json::from_str(&body).unwrap_or_default())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let (code, body) = self.http(&format!("GET {path}"), &format!("Host: {}\r\n", self.address));
        (code, serde_json::from_str(&body).unwrap_or_default())
    }
}

/// Ids, times and the random part of a savepoint's name as letters.
pub(crate) fn masked(text: &str, id: &str) -> String {
    let text = text.replace(id, "JOB");
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = match line.split_once(" : ") {
            Some((_, rest)) => format!("TIME : {rest}"),
            None => line.to_owned(),
        };
        lines.push(match line.split_once("/savepoint-") {
            Some((before, _)) => format!("{before}/savepoint-NAME"),
            None => line,
        });
    }
    lines.join("\n")
}

#[test]
fn the_life_of_a_job_in_flinks_words() {
    let folder = Folder::new();
    let text = text(300_000);
    folder.write("text.txt", &text);
    let session = Session::start(&folder, 4, 300);
    let empty = session.ask(&folder, "list", &[]);
    assert_eq!(empty.succeeds().out, "Waiting for response...\nNo running jobs.\nNo scheduled jobs.\n");
    let id = session.submit(&folder, &[]);
    session.wait_until(&folder, &id, "RUNNING");
    let listed = session.ask(&folder, "list", &["-a"]);
    let running = "Waiting for response...
------------------ Running/Restarting Jobs -------------------
TIME : JOB : word_count (RUNNING)
--------------------------------------------------------------
No scheduled jobs.";
    assert_eq!(masked(&listed.succeeds().out, &id), running);
    let made = session.ask(&folder, "savepoint", &["-type", "native", &id, "sv"]);
    let told = "Triggering savepoint for job JOB.
Waiting for response...
Savepoint completed. Path: file:sv/savepoint-NAME
You can resume your program from this savepoint with the run command.";
    assert_eq!(masked(&made.succeeds().out, &id), told);
    // Paused it has no slots, and goes on where it was.
    session.ask(&folder, "pause", &[&id]).succeeds();
    assert_eq!(session.status(&folder, &id), "SUSPENDED");
    assert_eq!(session.get("/overview").1["slots-available"], 4);
    session.ask(&folder, "resume", &[&id]).succeeds();
    session.wait_until(&folder, &id, "RUNNING");
    // The savepoint of a pause goes with the next.
    session.ask(&folder, "pause", &[&id]).succeeds();
    let pauses = folder.path(&format!("session/checkpoints/{id}/paused"));
    let (clock, count) = (Clock::system(), || std::fs::read_dir(&pauses).unwrap().count());
    let end = clock.now() + PATIENCE;
    while count() > 1 {
        assert!(clock.now() < end, "there are {} savepoints of pauses", count());
        clock.sleep(Duration::from_millis(5));
    }
    assert_eq!(count(), 1);
    session.ask(&folder, "resume", &[&id]).succeeds();
    session.wait_until(&folder, &id, "RUNNING");
    let stopped = session.ask(&folder, "stop", &["--savepointPath", "sv2", &id]);
    let told = "Suspending job \"JOB\" with a CANONICAL savepoint.
Triggering stop-with-savepoint for job JOB.
Waiting for response...
Savepoint completed. Path: file:sv2/savepoint-NAME";
    assert_eq!(masked(&stopped.succeeds().out, &id), told);
    session.wait_until(&folder, &id, "FINISHED");
    assert!(folder.parts("out").len() < text.split_whitespace().count(), "it was stopped at its end");
    let path = stopped.out.lines().last().unwrap().rsplit(' ').next().unwrap();
    let next = session.submit(&folder, &["-s", path]);
    session.wait_until(&folder, &next, "FINISHED");
    assert!(folder.parts("out") == expected(&text), "other rows than the text's");
    let listed = session.ask(&folder, "list", &["-a"]);
    assert!(listed.out.contains("Terminated Jobs"), "{}", listed.out);
    let disposed = session.ask(&folder, "savepoint", &["-d", path]);
    assert!(disposed.succeeds().out.ends_with(&format!("Savepoint '{path}' disposed.\n")));
    // Its folder has gone with it; the one that was named for savepoints stays.
    assert_eq!(std::fs::read_dir(folder.path("sv2")).unwrap().count(), 0);
    session.ask(&folder, "savepoint", &["-d", path]).fails(1, &["Failed to dispose the savepoint"]);
}

#[test]
fn jobs_wait_for_slots_and_say_so_and_are_cancelled_wherever_they_are() {
    let folder = Folder::new();
    folder.write("text.txt", text(300_000));
    let session = Session::start(&folder, 3, 500);
    let first = session.submit(&folder, &["-Dexecution.checkpointing.interval=1s"]);
    session.wait_until(&folder, &first, "RUNNING");
    let second = session.submit(&folder, &[]);
    assert_eq!(session.status(&folder, &second), "CREATED");
    let (_, job) = session.get(&format!("/v1/jobs/{second}"));
    assert_eq!(job["waits-for"], "it needs 2 slots, and 1 of 3 are free");
    let listed = session.ask(&folder, "list", &["-s"]);
    assert!(listed.out.contains("Scheduled Jobs"), "{}", listed.out);
    // What is cancelled gives its slots to who waits.
    let cancelled = session.ask(&folder, "cancel", &[&first]);
    let told = format!("Cancelling job {first}.\nCancelled job {first}.\n");
    assert_eq!(cancelled.succeeds().out, told);
    session.ask(&folder, "cancel", &[&first]).succeeds();
    session.wait_until(&folder, &second, "RUNNING");
    let huge = session.ask(
        &folder,
        "run",
        &["-p", "9", "-Dslot.request.timeout=100ms", &component("word_count"), "--input", "text.txt"],
    );
    huge.fails(1, &["Job failed", "Could not acquire the minimum required resources", "there are 3"]);
    session.ask(&folder, "cancel", &[&second]).succeeds();
}

#[test]
fn a_session_that_is_killed_or_ended_brings_its_jobs_back() {
    let folder = Folder::new();
    let text = text(300_000);
    folder.write("text.txt", &text);
    let mut session = Session::start(&folder, 2, 60);
    let id = session.submit(&folder, &["-Dexecution.checkpointing.interval=20ms"]);
    for round in 0..6 {
        session.wait_until(&folder, &id, "RUNNING");
        Clock::system().sleep(Duration::from_millis(80 + 37 * round));
        if session.status(&folder, &id) == "FINISHED" {
            break;
        }
        if round % 2 == 0 {
            session.child.kill().unwrap();
        } else {
            folder.streamctl(&["session", "stop", "-m", &session.address]).succeeds();
        }
        session.child.wait().unwrap();
        // Its folder is free at once.
        session = Session::start(&folder, 2, if round == 5 { 1 } else { 60 });
    }
    session.wait_until(&folder, &id, "FINISHED");
    assert!(folder.parts("out") == expected(&text), "other rows than the text's");
    // One that has ended is remembered, and stays as it is.
    drop(session);
    let session = Session::start(&folder, 2, 1);
    assert_eq!(session.status(&folder, &id), "FINISHED");
    let (_, result) = session.get(&format!("/jobs/{id}/execution-result"));
    assert_eq!(result["job-execution-result"]["application-status"], "SUCCEEDED");
}

#[test]
fn one_session_has_a_folder_and_one_in_the_background_answers_when_it_has_started() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, dir) = (format!("-Drest.port={port}"), "-Dmillstream.session.dir=session");
    let started = folder.streamctl(&["session", "start", "-d", "--slots", "1", &port, dir]);
    assert!(started.succeeds().out.starts_with("Session started at http://127.0.0.1:"), "{}", started.out);
    folder
        .streamctl(&["session", "start", &port, dir])
        .fails(2, &["there is a session in `session` already"]);
    let status = folder.streamctl(&["session", "status", &port]);
    assert!(status.succeeds().out.contains("1 of 1 slots free"), "{}", status.out);
    folder.streamctl(&["session", "stop", &port]).succeeds();
    let log = std::fs::read_to_string(folder.path("session/session.log")).unwrap();
    assert!(log.contains("The session ends"), "{log}");
    folder.streamctl(&["session", "status", &port]).fails(1, &["no session answers", "session start -d"]);
    // At any port that is free, which it says.
    let started = folder.streamctl(&["session", "start", "-d", "--slots", "2", "-Drest.port=0", dir]);
    let address =
        started.succeeds().out.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let status = folder.streamctl(&["session", "status", "-m", &address]);
    assert!(status.succeeds().out.contains("2 of 2 slots free"), "{}", status.out);
    // Another one does not take it for its own.
    let port = format!("-Drest.port={}", address.rsplit(':').next().unwrap());
    let other = ["session", "start", "-d", &port, "-Dmillstream.session.dir=other"];
    folder
        .streamctl(&other)
        .fails(1, &["the session does not start", &address, "its log is other/session.log"]);
    folder.streamctl(&["session", "stop", "-m", &address]).succeeds();
}

#[test]
fn a_session_logs_events_with_their_job_as_lines_or_objects() {
    let folder = Folder::new();
    folder.write("text.txt", "one two\n");
    let mut command = Session::command(&folder, 2, "");
    command.args(["-Dmillstream.log.format=json", "-Dmillstream.log.level=warn,cluster=info"]);
    command.stderr(std::fs::File::create(folder.path("log")).unwrap());
    let child = command.spawn().unwrap();
    let log = || std::fs::read_to_string(folder.path("log")).unwrap();
    let clock = Clock::system();
    let end = clock.now() + PATIENCE;
    while !log().contains("Session at ") {
        assert!(clock.now() < end, "{}", log());
        clock.sleep(Duration::from_millis(20));
    }
    let address = log().split("http://").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let session = Session { child, address, began: String::new() };
    let id = session.submit(&folder, &[]);
    session.wait_until(&folder, &id, "FINISHED");
    let text = log();
    let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let switched: Vec<String> = events
        .filter(|event| event["job"] == id.as_str() && event["level"] == "INFO")
        .filter_map(|event| Some(event["message"].as_str()?.split_once("switched from state ")?.1.to_owned()))
        .collect();
    assert_eq!(switched.last().map(String::as_str), Some("RUNNING to FINISHED"), "{text}");
    let logs = session.ask(&folder, "logs", &[&id]);
    assert!(logs.succeeds().out.contains("switched from state RUNNING to FINISHED"), "{}", logs.out);
}

#[test]
fn what_makes_no_sense_is_refused_and_the_session_goes_on() {
    let folder = Folder::new();
    folder.write("text.txt", "a b");
    let session = Session::start(&folder, 1, 0);
    let nobody = "00000000000000000000000000000001";
    for verb in ["cancel", "stop", "savepoint", "pause", "resume", "logs"] {
        session.ask(&folder, verb, &[nobody]).fails(1, &[&format!("Job {nobody} not found")]);
        session.ask(&folder, verb, &["nosuchid"]).fails(2, &["Cannot parse JobID from \"nosuchid\""]);
        let dead = folder.streamctl(&[verb, "-m", "127.0.0.1:9", nobody]);
        dead.fails(1, &["no session answers at 127.0.0.1:9"]);
        folder.streamctl(&[verb, "-m", "nowhere", nobody]).fails(2, &["`nowhere` is no HOST:PORT"]);
    }
    folder.write("bad.wasm", "no component");
    session.ask(&folder, "run", &["-d", "bad.wasm"]).fails(2, &["component"]);
    session.ask(&folder, "run", &["-d", "none.wasm"]).fails(2, &["there is no file `none.wasm`"]);
    let wasm = component("word_count");
    session.ask(&folder, "run", &["-d", "-c", "none", &wasm]).fails(2, &["there is no job `none`"]);
    session.ask(&folder, "run", &["-d", &wasm, "--nonsense"]).fails(2, &["nonsense"]);
    session.ask(&folder, "run", &["-d", "-Da.b=c", &wasm, "--input", "text.txt"]).fails(2, &["`a.b`"]);
    // What only shows when it starts fails the job, and the session has its slot back.
    let none = session.ask(&folder, "run", &[&wasm, "--input", "none.txt"]);
    // Relative paths are those of the session's folder, whoever submits the job.
    let looked = format!("it was looked for in `{}`", folder.path("").canonicalize().unwrap().display());
    none.fails(1, &["Job failed", "there is no file `none.txt`", &looked]);
    let (code, errors) = session.get("/jobs/xyz");
    assert_eq!((code, errors["errors"].as_array().map(Vec::len)), (400, Some(1)));
    assert_eq!(session.get("/nope").1["errors"][0], "Unable to load requested file /nope.");
    assert_eq!(session.get("/jobs/0/checkpoints/details/x").0, 400);
    let own = format!("Host: {}\r\n", session.address);
    assert_eq!(session.http("GET /jobs", "Host: millstream.example.org\r\n").0, 403);
    assert_eq!(session.http("GET /jobs", &format!("{own}Origin: http://example.org\r\n")).0, 403);
    let same = format!("{own}Origin: http://{}\r\n", session.address);
    assert_eq!(session.http("GET /jobs", &same).0, 200);
    let post = format!("{own}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n");
    for path in ["savepoints", "stop"] {
        // A body of chunks after the headers: `{x`, and the end.
        let chunks = format!("{post}Connection: close\r\n\r\n2\r\n{{x\r\n0\r\n\r\n");
        let (code, errors) = session.http(&format!("POST /jobs/{nobody}/{path}"), &chunks);
        assert_eq!(code, 400, "{errors}");
        assert!(errors.contains("Bad request received"), "{errors}");
    }
    let outside = session.http("DELETE /jars/..%2F..%2Flock", &own);
    assert_eq!(outside.0, 404, "{}", outside.1);
    assert!(folder.path("session/lock").exists());
    assert_eq!(session.get("/overview").1["slots-available"], 1);
    let ran = session.ask(&folder, "run", &[&wasm, "--input", "text.txt", "--output", "out"]);
    assert!(ran.succeeds().out.contains("has finished.\nJob Runtime: "), "{}", ran.out);
    assert_eq!(folder.parts("out").len(), 2);
}

#[test]
fn what_a_job_is_and_does_is_shown() {
    let folder = Folder::new();
    folder.write("text.txt", text(300_000));
    let session = Session::start(&folder, 2, 300);
    let id = session.submit(&folder, &["-Dexecution.checkpointing.interval=20ms"]);
    session.wait_until(&folder, &id, "RUNNING");
    let clock = Clock::system();
    let end = clock.now() + PATIENCE;
    let get = |path: &str| {
        let (code, value) = session.get(&format!("/jobs/{id}{path}"));
        assert_eq!(code, 200, "{path}: {value}");
        value
    };
    while get("/checkpoints")["counts"]["completed"].as_u64() < Some(2) {
        assert!(clock.now() < end, "there are no checkpoints");
        clock.sleep(Duration::from_millis(20));
    }
    let job = get("");
    let vertices = job["vertices"].as_array().unwrap();
    assert_eq!(vertices[0]["name"], "Source: files -> Flat Map");
    assert_eq!(vertices[1]["name"], "Keyed Aggregation: sum -> Sink: files");
    assert_eq!(job["plan"]["nodes"][0]["inputs"][0]["ship_strategy"], "HASH");
    assert_eq!(job["status-counts"]["RUNNING"], 4);
    for vertex in vertices {
        let vertex = vertex["id"].as_str().unwrap();
        let subtasks = get(&format!("/vertices/{vertex}"))["subtasks"].as_array().unwrap().len();
        assert_eq!(subtasks, 2);
        for below in ["subtasktimes", "taskmanagers", "watermarks", "backpressure", "accumulators"] {
            get(&format!("/vertices/{vertex}/{below}"));
        }
        let names = get(&format!("/vertices/{vertex}/metrics"));
        let wanted = names.as_array().unwrap().iter().any(|name| name["id"] == "0.numRecordsIn");
        assert!(wanted, "{names}");
        let some =
            get(&format!("/vertices/{vertex}/subtasks/1/metrics?get=numRecordsOut,busyTimeMsPerSecond"));
        assert!(some.as_array().unwrap().iter().any(|metric| metric["id"] == "numRecordsOut"), "{some}");
    }
    let last = get("/checkpoints")["latest"]["completed"]["id"].as_u64().unwrap();
    assert_eq!(get(&format!("/checkpoints/details/{last}"))["status"], "COMPLETED");
    assert_eq!(get("/checkpoints/config")["interval"], 20);
    for path in [
        "/status",
        "/plan",
        "/config",
        "/exceptions",
        "/execution-result",
        "/accumulators",
        "/metrics",
        "/logs",
    ] {
        get(path);
    }
    assert_eq!(get("/metrics?get=numRestarts")[0]["value"], "0");
    let (code, prometheus) = session.http("GET /metrics", &format!("Host: {}\r\n", session.address));
    assert_eq!(code, 200);
    assert!(prometheus.contains("flink_taskmanager_job_task_numRecordsIn{"), "{prometheus}");
    for path in
        ["/config", "/overview", "/taskmanagers", "/jobmanager/config", "/jobmanager/metrics", "/jars"]
    {
        assert_eq!(session.get(path).0, 200, "{path}");
        assert_eq!(session.get(&format!("/v1{path}")).0, 200, "{path}");
    }
    session.ask(&folder, "cancel", &[&id]).succeeds();
}

/// What comes on a connection until it is closed.
fn closed(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    // One that is closed with something unread is reset.
    let ended = stream.read_to_end(&mut answer).map(drop);
    let is_over =
        ended.as_ref().map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |()| true);
    assert!(is_over, "it is still open: {ended:?}");
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_that_are_too_large_or_too_slow_are_cut_off() {
    let folder = Folder::new();
    let session = Session::start(&folder, 1, 0);
    let send = |text: &str| {
        let mut stream = TcpStream::connect(&session.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let post =
        |path: &str, more: &str| format!("POST {path} HTTP/1.1\r\nHost: {}\r\n{more}", session.address);
    for (path, length) in [("/jars/x/run", 2_000_000), ("/jars/upload", 70_000_000)] {
        let answer = closed(send(&post(path, &format!("Content-Length: {length}\r\n\r\n"))));
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
    }
    // One that does not say how much it has.
    let chunk = format!("{:x}\r\n{}\r\n", 600_000, "x".repeat(600_000));
    let mut large = send(&post("/jars/x/run", "Transfer-Encoding: chunked\r\n\r\n"));
    large.write_all(chunk.as_bytes()).unwrap();
    // It may be closed before this is written.
    drop(large.write_all(chunk.as_bytes()));
    let mut answer = [0; 13];
    large.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413 ");
    // Headers and a body that do not come to their end, and a client who says nothing.
    let headers = send(&post("/jars/x/run", "X-Some: "));
    let body = send(&post("/jars/x/run", "Content-Length: 100\r\n\r\nx"));
    let silent = send("");
    let clock = Clock::system();
    let begin = clock.now();
    closed(headers);
    closed(silent);
    assert!(clock.now() - begin < Duration::from_secs(15), "they were open for {:?}", clock.now() - begin);
    let answer = closed(body);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(clock.now() - begin < Duration::from_secs(25), "it was open for {:?}", clock.now() - begin);
}

#[test]
fn so_many_are_connected_and_the_next_waits_for_a_place() {
    let folder = Folder::new();
    let session = Session::start(&folder, 1, 0);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", session.child.id())).unwrap().count();
    let before = files();
    let idle: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(&session.address).unwrap()).collect();
    let clock = Clock::system();
    let begin = clock.now();
    while files() < before + 250 {
        assert!(clock.now() - begin < PATIENCE, "{} are connected", files() - before);
        clock.sleep(Duration::from_millis(20));
    }
    clock.sleep(Duration::from_millis(300));
    let connected = files() - before;
    assert!(connected <= 256 + 8, "{connected} of 300 are connected");
    // Who says nothing loses the place.
    assert_eq!(session.get("/overview").0, 200);
    drop(idle);
}

#[test]
fn a_session_without_jobs_needs_little_memory_and_no_cpu() {
    const TIME: Duration = Duration::from_secs(10);
    let folder = Folder::new();
    let session = Session::start(&folder, 2, 0);
    assert_eq!(session.get("/overview").0, 200);
    let process =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", session.child.id())).unwrap();
    // Its clock has hundredths of a second: user and system, the 14th and 15th, after the name in brackets.
    let cpu_ms = || -> u64 {
        let stat = process("stat");
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
    };
    Clock::system().sleep(Duration::from_secs(1));
    let before = cpu_ms();
    Clock::system().sleep(TIME);
    let used = Duration::from_millis(cpu_ms() - before);
    assert!(used * 200 <= TIME, "{used:?} of CPU in {TIME:?} without a job");
    let status = process("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 60 * 1024, "{kib} KiB are resident");
}
