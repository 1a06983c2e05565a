//! The REST interface beside Flink's own: `golden/flink-rest` has what Flink 2.3's has answered, each with the request
//! and the status. Ours has the same names and types, wherever they stand; Java's traces apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use platform::Clock;
use serde_json::{Map, Value, json};

use crate::recovery::text;
use crate::session::{PATIENCE, Session};
use crate::support::{Folder, component};

/// What Flink has answered.
struct Answer {
    method: String,
    path: String,
    body: String,
    status: u16,
    value: Value,
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/flink-rest")
}

fn answers() -> BTreeMap<String, Answer> {
    let mut answers = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let [request, status, value] = text.lines().collect::<Vec<_>>().try_into().unwrap();
        let mut request = request.splitn(3, ' ').map(str::to_owned);
        let answer = Answer {
            method: request.next().unwrap(),
            path: request.next().unwrap(),
            body: request.next().unwrap_or_default(),
            status: status.parse().unwrap(),
            value: serde_json::from_str(value).unwrap(),
        };
        answers.insert(path.file_stem().unwrap().to_string_lossy().into_owned(), answer);
    }
    answers
}

/// Members that Flink has not.
const OURS: [&str; 4] = ["waits-for", "alignment_duration", "sync_duration", "async_duration"];

/// Members that may be nothing here, as there is nothing to say.
const NOTHING: [&str; 3] = ["latest_ack_timestamp", "external_path", "restored"];

/// Lists that are empty here for a reason.
const EMPTY: [(&str, &str); 2] = [
    ("garbageCollectors", "nothing is collected"),
    ("jm-operator-metrics", "no operator has a part outside of its subtasks"),
];

/// Answers that are others here for a reason, with the status that is ours.
const OTHERS: [(&str, u16, &str); 5] = [
    ("rescaling", 404, "switched off in Flink; `swap --restart -p` does it"),
    ("job-resource-requirements", 404, "Flink's default scheduler cannot say them either"),
    ("resource-requirements-put", 404, "the same"),
    ("jars-run-badclass", 400, "what is asked is wrong, not the server"),
    ("jars-run-badjar", 404, "the component is not there"),
];

/// The kind of a value. `"NaN"` is how JSON has a number that is none.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(text) if text == "NaN" => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether the names are those of things, not of members: ids, states.
fn is_map(object: &Map<String, Value>) -> bool {
    let is_state = |name: &String| name.bytes().all(|byte| byte.is_ascii_uppercase());
    !object.is_empty()
        && (object.keys().all(|name| is_id(name)) || object.len() == 1 && object.keys().all(is_state))
}

/// Says where ours differs.
fn compare(at: &str, flinks: &Value, ours: &Value, wrong: &mut Vec<String>) {
    let name = at.rsplit('.').next().unwrap_or_default();
    match (flinks, ours) {
        (Value::Null, _) => {}
        (_, Value::Null) if NOTHING.contains(&name) => {}
        (Value::Object(flinks), Value::Object(ours)) if is_map(flinks) => {
            let Some(one) = ours.values().next() else { return wrong.push(format!("{at} has nothing")) };
            flinks.values().for_each(|flinks| compare(&format!("{at}.*"), flinks, one, wrong));
        }
        (Value::Object(flinks), Value::Object(ours)) => {
            for (name, flinks) in flinks {
                match ours.get(name) {
                    // Of what nobody feeds there are none.
                    None if name == "inputs" => {}
                    None => wrong.push(format!("{at}.{name} is missing")),
                    Some(ours) => compare(&format!("{at}.{name}"), flinks, ours, wrong),
                }
            }
            let is_more = |name: &&String| !flinks.contains_key(*name) && !OURS.contains(&name.as_str());
            wrong.extend(ours.keys().filter(is_more).map(|name| format!("{at}.{name} is not Flink's")));
        }
        (Value::Array(flinks), Value::Array(ours)) => {
            let Some(flinks) = flinks.first() else { return };
            if ours.is_empty() && !EMPTY.iter().any(|(empty, _)| at.ends_with(empty)) {
                wrong.push(format!("{at} is empty"));
            }
            ours.iter().for_each(|ours| compare(&format!("{at}[]"), flinks, ours, wrong));
        }
        (flinks, ours) if kind(flinks) == kind(ours) => {}
        (flinks, ours) => wrong.push(format!("{at} is {}, not {}", kind(ours), kind(flinks))),
    }
}

#[test]
fn what_differs_is_seen() {
    let flinks =
        json!({ "a": [{ "b": 1.0, "c": "x" }], "d": { "0123456789abcdef0123456789abcdef": { "e": null } } });
    let told = |ours: Value| {
        let mut wrong = Vec::new();
        compare("", &flinks, &ours, &mut wrong);
        wrong
    };
    let same = json!({ "a": [{ "b": "NaN", "c": "y" }, { "b": 2, "c": "" }], "d": { "x": { "e": 1 } } });
    assert_eq!(told(same), [""; 0]);
    let other = json!({ "a": [{ "b": "1", "f": 0 }], "d": {} });
    let expected =
        [".a[].b is a text, not a number", ".a[].c is missing", ".a[].f is not Flink's", ".d has nothing"];
    assert_eq!(told(other), expected);
    assert_eq!(told(json!({ "a": [], "d": null })), [".a is empty", ".d is nothing, not an object"]);
}

/// A session that is asked by REST alone.
struct Asked<'a> {
    session: &'a Session,
    compared: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Asked<'_> {
    fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let (host, length) = (&self.session.address, body.len());
        let headers = format!(
            "Host: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let (status, text) = self.session.http(&format!("{method} {path}"), &headers);
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask(method, path, "application/json", &body.to_string())
    }

    /// What this comes to is to be what Flink has answered.
    fn same(&mut self, name: &str, flinks: &Answer, (status, ours): &(u16, Value)) {
        if *status != flinks.status {
            self.wrong.push(format!("{name}: {status}, not {}: {ours}", flinks.status));
            return;
        }
        let mut wrong = Vec::new();
        compare(name, &flinks.value, ours, &mut wrong);
        self.wrong.extend(wrong);
        self.compared.insert(name.to_owned());
    }

    #[track_caller]
    fn until(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let clock = Clock::system();
        let end = clock.now() + PATIENCE;
        loop {
            let (_, value) = self.ask("GET", path, "", "");
            if wanted(&value) {
                return value;
            }
            assert!(clock.now() < end, "{path} never has {what}: {value}");
            clock.sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn answers_have_the_names_and_types_of_flinks() {
    let folder = Folder::new();
    folder.write("text.txt", text(300_000));
    let (session, answers) = (Session::start(&folder, 6, 1_000), answers());
    let mut asked = Asked { session: &session, compared: BTreeSet::new(), wrong: Vec::new() };
    let wasm = component("word_count");
    let begun = session.ask(
        &folder,
        "run",
        &["-d", &wasm, "--input", "text.txt", "--output", "first", "--format", "json"],
    );
    let first = begun.succeeds().out.trim().rsplit(' ').next().unwrap().to_owned();
    let uploaded = session.upload(&std::fs::read(&wasm).unwrap());
    asked.same("jars-upload", &answers["jars-upload"], &uploaded);
    let jar = uploaded.1["filename"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let run = json!({
        "programArgsList": ["--input", "text.txt", "--output", "out", "--format", "json"],
        "parallelism": 2,
        "flinkConfiguration": {
            "execution.checkpointing.interval": "100ms",
            "execution.checkpointing.savepoint-dir": "savepoints",
            // All that the test looks at is remembered.
            "web.checkpoints.history": "1000",
        },
    });
    asked.same("jars-plan", &answers["jars-plan"], &asked.json("POST", &format!("/jars/{jar}/plan"), &run));
    let begun = asked.json("POST", &format!("/v1/jars/{jar}/run"), &run);
    asked.same("jars-run", &answers["jars-run"], &begun);
    let job = begun.1["jobid"].as_str().unwrap().to_owned();
    asked.until(&format!("/jobs/{job}/status"), "RUNNING", |value| value["status"] == "RUNNING");

    let trigger = |asked: &mut Asked<'_>, name: &str, path: &str, body: &Value, status: &str| {
        let begun = asked.json("POST", &format!("/jobs/{job}/{path}"), body);
        asked.same(&format!("{name}-trigger"), &answers[&format!("{name}-trigger")], &begun);
        let id = begun.1["request-id"].as_str().unwrap().to_owned();
        let ended = asked.until(&format!("/jobs/{job}/{status}/{id}"), "an end", |value| {
            value["status"]["id"] == "COMPLETED"
        });
        asked.same(&format!("{name}-status"), &answers[&format!("{name}-status")], &(200, ended.clone()));
        ended
    };
    let full = json!({ "checkpointType": "FULL" });
    let made = trigger(&mut asked, "checkpoint", "checkpoints", &full, "checkpoints");
    let checkpoint = made["operation"]["checkpointId"].as_u64().unwrap();
    let here = json!({ "target-directory": "savepoints", "cancel-job": false });
    let saved = trigger(&mut asked, "savepoint", "savepoints", &here, "savepoints");
    let savepoint = saved["operation"]["location"].as_str().unwrap().to_owned();

    let described =
        asked.until(&format!("/jobs/{job}"), "vertices", |value| value["vertices"][1]["id"].is_string());
    let vertex = |at: usize| described["vertices"][at]["id"].as_str().unwrap().to_owned();
    let manager =
        asked.ask("GET", "/taskmanagers", "", "").1["taskmanagers"][0]["id"].as_str().unwrap().to_owned();
    // Rates are told when samples are there.
    for at in 0..2 {
        let path = format!("/jobs/{job}/vertices/{}/subtasks/metrics?get=numRecordsOutPerSecond", vertex(at));
        asked.until(&path, "rates", |value| value[0]["sum"].is_number());
    }
    // Paths as Flink was asked for them, with our ids.
    let ours = |path: &str| {
        let (mut parts, mut before) = (Vec::new(), "");
        for part in path.split('/') {
            parts.push(match before {
                "jobs" | "applications" if is_id(part) && !part.starts_with("0000") => job.clone(),
                "vertices" | "subtasks" if is_id(part) => vertex(usize::from(part.starts_with("90be"))),
                "details" => checkpoint.to_string(),
                "taskmanagers" if part.contains(':') => manager.clone(),
                _ => part.to_owned(),
            });
            before = part;
        }
        parts.join("/")
    };
    let later = ["stop-trigger", "stop-status", "job-finished", "job2-checkpoints-restored", "jars-delete"];
    for (name, flinks) in &answers {
        if asked.compared.contains(name) || later.contains(&name.as_str()) {
            continue;
        }
        let path = ours(&flinks.path);
        let got = match flinks.body.is_empty() {
            true => asked.ask(&flinks.method, &path, "", ""),
            false => asked.ask(&flinks.method, &path, "application/json", &flinks.body),
        };
        match OTHERS.iter().find(|(other, ..)| other == name) {
            Some((_, status, why)) => {
                let path = path.replace("70310b57-f918-4a25-8ca1-60ed8e2bfd46_wc.jar", &jar);
                let got = asked.ask(&flinks.method, &path, "application/json", &flinks.body);
                assert_eq!(got.0, *status, "{name}, {why}: {}", got.1);
                assert!(got.1["errors"][0].is_string(), "{name}: {}", got.1);
                asked.compared.insert(name.clone());
            }
            None => asked.same(name, flinks, &got),
        }
    }

    let drain = json!({ "targetDirectory": "savepoints", "drain": true });
    trigger(&mut asked, "stop", "stop", &drain, "savepoints");
    asked.until(&format!("/jobs/{job}/status"), "FINISHED", |value| value["status"] == "FINISHED");
    asked.same("job-finished", &answers["job-finished"], &asked.ask("GET", &format!("/jobs/{job}"), "", ""));
    let result = asked.ask("GET", &format!("/jobs/{job}/execution-result"), "", "").1;
    assert_eq!(result["job-execution-result"]["application-status"], "SUCCEEDED");
    let mut again = run.clone();
    again["savepointPath"] = json!(savepoint);
    again["flinkConfiguration"] = json!({});
    let second = asked.json("POST", &format!("/jars/{jar}/run"), &again).1;
    let second = second["jobid"].as_str().unwrap().to_owned();
    let restored = asked.until(&format!("/jobs/{second}/checkpoints"), "a restore", |value| {
        value["latest"]["restored"]["id"].is_number()
    });
    assert_eq!(restored["latest"]["restored"]["external_path"], savepoint);
    assert_eq!(restored["summary"]["state_size"]["p50"], "NaN");
    asked.same("job2-checkpoints-restored", &answers["job2-checkpoints-restored"], &(200, restored));
    asked.same("jars-delete", &answers["jars-delete"], &asked.ask("DELETE", &format!("/jars/{jar}"), "", ""));
    for id in [&first, &second] {
        session.ask(&folder, "cancel", &[id]).succeeds();
    }
    assert!(asked.wrong.is_empty(), "{}", asked.wrong.join("\n"));
    let all: BTreeSet<String> = answers.into_keys().collect();
    assert_eq!(asked.compared, all, "not all that Flink has answered was compared");
}
