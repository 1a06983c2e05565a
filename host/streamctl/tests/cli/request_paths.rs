//! Requests that name what is not theirs: no file outside of the session's folder is read, changed or removed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use platform::Clock;
use serde_json::json;

use crate::recovery::text;
use crate::session::{PATIENCE, Session};
use crate::support::{Folder, component, files_below, parts_of, said};

/// What is outside, and nobody's.
const SECRET: &str = "nobody reads this";

/// Names that lead elsewhere, as they stand in a path.
fn hostile() -> Vec<String> {
    let mut names: Vec<String> = [
        "..",
        "%2e%2e",
        "..%2Fsecret",
        "..%2F..%2Fsecret",
        "..%2F..%2F..%2F..%2F..%2F..%2Fetc%2Fpasswd",
        "%2Fetc%2Fpasswd",
        "..%5Csecret",
        "secret",
        "%00",
        "secret%00.wasm",
        ".",
        "%ff%fe",
        "~",
        "file:%2F%2F%2Fetc%2Fpasswd",
        "%7B%7D",
        "-1",
        "99999999999999999999999999",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("a".repeat(5_000));
    names.push("0".repeat(32));
    names
}

/// The paths of the interface that have parameters, out of its source.
fn paths() -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rest/src");
    let mut files = Vec::new();
    files_below(&source, &mut files);
    let mut paths = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|of| of == "rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        let quoted = text.split('"').filter(|part| part.starts_with('/') && part.contains('{'));
        paths.extend(quoted.filter(|path| !path.contains(char::is_whitespace)).map(str::to_owned));
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// The same path with this in place of each parameter.
fn filled(path: &str, with: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { with } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// All files below a folder but for the session's own, with what is in them.
fn outside(folder: &Folder) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = Vec::new();
    files_below(folder.dir.path(), &mut files);
    let own = folder.path("session");
    let is_outside = |file: &PathBuf| !file.starts_with(&own) && file.is_file();
    files.into_iter().filter(is_outside).map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

fn post(session: &Session, request: &str, body: &serde_json::Value) -> (u16, String) {
    let body = body.to_string();
    let (host, length) = (&session.address, body.len());
    let headers = format!("Host: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}");
    let whole = format!("{request} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n{body}");
    parts_of(&said(&session.address, whole.as_bytes()))
}

/// Uploads a component under a name.
fn upload(session: &Session, name: &str, component: &[u8]) -> (u16, serde_json::Value) {
    let edge = "----edge";
    let head = format!(
        "--{edge}\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"{name}\"\r\n\
         Content-Type: application/wasm\r\n\r\n"
    );
    let tail = format!("\r\n--{edge}--\r\n");
    let (host, length) = (&session.address, head.len() + component.len() + tail.len());
    let request = format!(
        "POST /jars/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\
         Content-Type: multipart/form-data; boundary={edge}\r\nConnection: close\r\n\r\n{head}"
    );
    let answer = said(&session.address, &[request.as_bytes(), component, tail.as_bytes()].concat());
    let (code, body) = parts_of(&answer);
    (code, serde_json::from_str(&body).unwrap_or_default())
}

#[test]
fn no_name_in_a_path_leads_out_of_the_session() {
    let folder = Folder::new();
    folder.write("secret", SECRET);
    folder.write("session/secret", SECRET);
    folder.write("secret.wasm", SECRET);
    let session = Session::start(&folder, 1, 0);
    let before = outside(&folder);
    let (paths, names) = (paths(), hostile());
    assert!(paths.len() > 30 && paths.iter().any(|path| path.ends_with("/logs/{name}")), "{paths:?}");
    for path in &paths {
        for name in &names {
            for method in ["GET", "POST", "PATCH", "DELETE"] {
                let request = format!("{method} {}", filled(path, name));
                let (code, told) = post(&session, &request, &json!({}));
                let shown: String = request.chars().take(200).collect();
                assert!((400..500).contains(&code), "{shown}: {code} {told}");
                assert!(!told.contains(SECRET) && !told.contains("root:"), "{shown}: {told}");
            }
        }
    }
    assert!(outside(&folder) == before, "something outside has changed");
    assert_eq!(std::fs::read_to_string(folder.path("session/secret")).unwrap(), SECRET);
    assert_eq!(session.get("/overview").0, 200);
}

#[test]
fn an_upload_lies_with_the_session_whatever_it_is_called() {
    let folder = Folder::new();
    folder.write("secret", SECRET);
    let wasm = std::fs::read(component("word_count")).unwrap();
    let session = Session::start(&folder, 1, 0);
    let before = outside(&folder);
    let (long, deep) = ("x".repeat(20_000), "../".repeat(40) + "tmp/millstream-was-here");
    let names = [
        "../../secret",
        "/etc/passwd",
        "..",
        ".",
        "a/b/c",
        "a\\..\\b",
        "a b\tc",
        "%2e%2e%2fsecret",
        &long,
        &deep,
    ];
    for name in names {
        let (code, told) = upload(&session, name, &wasm);
        assert_eq!(code, 200, "{name}: {told}");
        let id = told["filename"].as_str().unwrap();
        assert!(id.len() <= 250 && !id.contains(['/', '\\', '%']), "{name}: {id}");
        let kept = std::fs::read_dir(folder.path("session/uploads")).unwrap().count();
        assert_eq!(kept, 1, "{name}");
        let (code, told) = post(&session, &format!("DELETE /jars/{id}"), &json!({}));
        assert_eq!(code, 200, "{name}: {told}");
        assert_eq!(std::fs::read_dir(folder.path("session/uploads")).map_or(0, Iterator::count), 0, "{name}");
    }
    assert!(outside(&folder) == before, "something outside has changed");
    assert!(!Path::new("/tmp/millstream-was-here").exists());
}

#[test]
fn a_job_opens_what_its_arguments_name_and_nothing_else() {
    let folder = Folder::new();
    folder.write("text.txt", "a b a");
    let wasm = std::fs::read(component("word_count")).unwrap();
    let session = Session::start(&folder, 1, 0);
    let (_, told) = upload(&session, "wc.wasm", &wasm);
    let id = told["filename"].as_str().unwrap().to_owned();
    let run = |body: serde_json::Value| post(&session, &format!("POST /jars/{id}/run"), &body);
    // Settings of the session's own are no job's.
    let config = json!({
        "rest.bind-address": "0.0.0.0",
        "millstream.session.dir": "elsewhere",
        "millstream.cache-dir": "elsewhere",
        "rest.token-file": "text.txt",
    });
    let args = ["--input", "text.txt", "--output", "out", "--format", "json"];
    let (code, told) = run(json!({ "programArgsList": args, "flinkConfiguration": config }));
    assert_eq!(code, 200, "{told}");
    let job: serde_json::Value = serde_json::from_str(&told).unwrap();
    session.wait_until(&folder, job["jobid"].as_str().unwrap(), "FINISHED");
    assert_eq!(folder.parts("out").len(), 3);
    assert!(!folder.path("elsewhere").exists());
    // Savepoints that are none, from wherever.
    let before = outside(&folder);
    for path in
        ["text.txt", "/etc/passwd", "../../..", "out", "session/jobs", "file:///etc", "ftp://a/b", "\0"]
    {
        let body = json!({ "programArgsList": args, "savepointPath": path });
        let (code, told) = run(body);
        assert!(code == 200 || code == 400, "{path}: {code} {told}");
        assert!(!told.contains("root:"), "{path}: {told}");
        if code == 200 {
            let job: serde_json::Value = serde_json::from_str(&told).unwrap();
            session.wait_until(&folder, job["jobid"].as_str().unwrap(), "FAILED");
        }
    }
    assert!(outside(&folder) == before, "something outside has changed");
}

/// What came of it.
fn disposal(session: &Session, path: &str) -> serde_json::Value {
    let (code, told) = post(session, "POST /savepoint-disposal", &json!({ "savepoint-path": path }));
    assert_eq!(code, 202, "{path}: {told}");
    let begun: serde_json::Value = serde_json::from_str(&told).unwrap();
    let at = format!("/savepoint-disposal/{}", begun["request-id"].as_str().unwrap());
    let clock = Clock::system();
    let end = clock.now() + PATIENCE;
    loop {
        let (_, status) = session.get(&at);
        if status["status"]["id"] == "COMPLETED" {
            return status["operation"].clone();
        }
        assert!(clock.now() < end, "{path}: {status}");
        clock.sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_is_no_savepoint_is_not_disposed_of() {
    let folder = Folder::new();
    folder.write("text.txt", text(300_000));
    folder.write("mine/letter", SECRET);
    let session = Session::start(&folder, 2, 300);
    let id = session.submit(&folder, &["-Dexecution.checkpointing.dir=checkpoints"]);
    session.wait_until(&folder, &id, "RUNNING");
    session.ask(&folder, "checkpoint", &[&id]).succeeds();
    let made = session.ask(&folder, "savepoint", &[&id, "sv"]);
    let path = made.succeeds().out.lines().nth(2).unwrap().rsplit(' ').next().unwrap().to_owned();
    session.ask(&folder, "cancel", &[&id]).succeeds();
    let before = outside(&folder);
    let checkpoint = format!("checkpoints/{id}/chk-1");
    let absolute = folder.path("mine").display().to_string();
    for path in [
        "",
        ".",
        "..",
        "/",
        "mine",
        &absolute,
        &format!("file://{absolute}"),
        "mine/letter",
        "checkpoints",
        &checkpoint,
        "sv",
        "session",
        "nowhere",
        "/etc",
        "ftp://a/b",
        "\0",
        &"a/".repeat(3_000),
    ] {
        let came = disposal(&session, path);
        assert!(came["failure-cause"]["stack-trace"].is_string(), "{path}: {came}");
        assert!(outside(&folder) == before, "{path}: something has changed");
    }
    // A savepoint goes; what somebody has put beside it stays.
    let name = path.strip_prefix("file:").unwrap();
    folder.write(&format!("{name}/letter"), SECRET);
    assert_eq!(disposal(&session, &path), json!({}));
    let mut left = Vec::new();
    files_below(&folder.path(name), &mut left);
    left.retain(|file| file.is_file());
    assert_eq!(left, [folder.path(&format!("{name}/letter"))]);
}

#[test]
fn so_many_upload_at_once_and_the_next_is_told_so() {
    let folder = Folder::new();
    let session = Session::start(&folder, 1, 0);
    let begun = || {
        let mut stream = TcpStream::connect(&session.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = &session.address;
        write!(stream, "POST /jars/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n").unwrap();
        stream
    };
    let clock = Clock::system();
    let slow: Vec<TcpStream> = (0..4).map(|_| begun()).collect();
    clock.sleep(Duration::from_millis(500));
    let mut answer = [0; 300];
    let begin = clock.now();
    let read = begun().read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(answer.get(..read).unwrap()).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: "), "{answer}");
    assert!(clock.now() - begin < Duration::from_secs(15));
    assert_eq!(session.get("/overview").0, 200, "who does not upload is answered");
    // Their places are free when they give up.
    drop(slow);
    let wasm = std::fs::read(component("word_count")).unwrap();
    assert_eq!(upload(&session, "wc.wasm", &wasm).0, 200);
}
