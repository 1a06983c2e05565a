//! Every verb with what makes no sense, and beside servers that are none or break off: its exit code, the form of its
//! message, and that it ends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use platform::Clock;

use crate::session::{PATIENCE, Session};
use crate::support::{Folder, Ran, component};

const NOBODY: &str = "00000000000000000000000000000001";

/// What asks a session, as it is typed. `ID` stands for a job, `FILE` for a component.
const VERBS: [&str; 22] = [
    "list",
    "list -a --json",
    "logs ID",
    "versions ID",
    "diff ID FILE",
    "diff ID --back",
    "swap ID FILE",
    "swap ID --back",
    "swap --restart ID FILE",
    "swap --probation 1s ID FILE",
    "checkpoint ID",
    "savepoint ID sv",
    "savepoint --json --dispose sv/none",
    "run -d FILE --input text.txt --output out",
    "run FILE --input text.txt --output out",
    "pause ID",
    "resume ID",
    "cancel -s sv ID",
    "cancel ID",
    "stop --drain ID",
    "session status",
    "session stop",
];

/// Commands that ask no session, each with something that makes no sense, its exit code and what is told.
const OTHERS: [(&str, i32, &str); 15] = [
    ("info none.wasm", 2, "there is no file `none.wasm`"),
    ("info --json=1 FILE", 2, "--json"),
    ("drive none.wasm", 2, "there is no file `none.wasm`"),
    ("new 1st", 2, "cannot be a project's name"),
    ("build nowhere", 2, "nowhere"),
    ("dev nowhere", 2, "nowhere"),
    ("test nowhere", 2, "nowhere"),
    ("test -p 0,x nowhere", 2, "invalid value"),
    ("doctor more", 2, "more"),
    ("config a.b", 2, "a.b"),
    ("state nowhere", 2, "nowhere"),
    ("state write out --component none.wasm", 2, "--operator"),
    ("completion none", 2, "invalid value"),
    ("man file/below", 1, "cannot be written"),
    ("session begin", 2, "begin"),
];

/// Values that make no sense, with what is told. Nobody is asked.
const VALUES: [(&str, &str); 25] = [
    ("list -Dnovalue", "novalue"),
    ("list -Da.b=c", "a.b"),
    ("list --json=1", "--json"),
    ("list --none", "--none"),
    ("list more", "more"),
    ("cancel ID more", "more"),
    ("stop --type xml ID", "xml"),
    ("stop --type", "--type"),
    ("stop --drain=yes ID", "--drain"),
    ("savepoint --type xml ID", "xml"),
    ("savepoint --dispose", "--dispose"),
    ("savepoint --dispose a ID", "--dispose"),
    ("checkpoint --full=yes ID", "--full"),
    ("swap --probation soon ID FILE", "probation"),
    ("swap --probation 1s --max-traps x ID FILE", "--max-traps"),
    ("swap --max-traps 1 ID FILE", "--probation"),
    ("swap --probation 1s --rollback never ID FILE", "never"),
    ("swap --probation 1s --restart ID FILE", "--probation"),
    ("swap ID none.wasm", "none.wasm"),
    ("run -d -p x FILE", "invalid value"),
    ("run -d -Dnovalue FILE", "novalue"),
    ("run -d --execution never FILE", "never"),
    ("session start -Dmillstream.session.dir=s --slots 0", "one slot at least"),
    ("session start --slots x", "invalid value"),
    ("session status --color maybe", "maybe"),
];

/// The arguments of a line that is typed, with these in place.
fn words(line: &str, id: &str, at: &str) -> Vec<String> {
    let wasm = component("word_count");
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        words.push(match word {
            "ID" => id.to_owned(),
            "FILE" => wasm.clone(),
            other => other.to_owned(),
        });
    }
    if !at.is_empty() {
        let place = if words[0] == "session" { 2 } else { 1 };
        drop(words.splice(place..place, ["-m".to_owned(), at.to_owned()]));
    }
    words
}

/// Runs it. It has to end.
#[track_caller]
fn ran(folder: &Folder, words: &[String]) -> Ran {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut child = folder.start(&words);
    drop(child.stdin.take());
    let clock = Clock::system();
    let end = clock.now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if clock.now() > end {
            child.kill().unwrap();
            panic!("{words:?} does not end: {}", Ran::of(child.wait_with_output().unwrap()).err);
        }
        clock.sleep(Duration::from_millis(5));
    }
    Ran::of(child.wait_with_output().unwrap())
}

/// It fails with one of these codes, and says so in one message: what, then details, then what to do.
#[track_caller]
fn fails(folder: &Folder, words: &[String], codes: &[i32], told: &[&str]) -> Ran {
    let ran = ran(folder, words);
    assert!(codes.contains(&ran.code), "{words:?} ends with {}: {}{}", ran.code, ran.out, ran.err);
    for part in told {
        assert!(ran.err.contains(part), "{words:?}: `{part}` is not in: {}", ran.err);
    }
    let places = |label: &str| -> Vec<usize> {
        let lines = ran.err.lines().enumerate();
        lines.filter(|(_, line)| line.starts_with(label)).map(|(at, _)| at).collect()
    };
    let (errors, details, hints) = (places("error: "), places("detail: "), places("hint: "));
    let is_one = errors.len() == 1 && details.len() <= 1 && hints.len() <= 1;
    let order = errors.iter().chain(&details).chain(&hints);
    assert!(is_one && order.is_sorted(), "{words:?} says: {}", ran.err);
    assert!(!ran.err.contains("panicked"), "{words:?}: {}", ran.err);
    ran
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("text.txt", "a b\n".repeat(1_000));
    folder.write("file", "");
    folder
}

#[test]
fn every_command_is_in_a_table() {
    let folder = Folder::new();
    let help = folder.streamctl(&["--help"]).out;
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // What a line goes on with stands further in.
    let names = commands.lines().filter(|line| !line.starts_with("   ")).map(|line| line.trim_start());
    for name in names.map(|line| line.split(' ').next().unwrap()).filter(|name| *name != "help") {
        let lines = VERBS.iter().chain(OTHERS.iter().map(|(line, ..)| line));
        assert!(lines.map(|line| line.split(' ').next().unwrap()).any(|of| of == name), "{name}");
    }
}

#[test]
fn what_makes_no_sense_in_itself_is_refused() {
    let folder = folder();
    for (line, code, told) in OTHERS {
        fails(&folder, &words(line, NOBODY, ""), &[code], &[told]);
    }
    for (line, told) in VALUES {
        fails(&folder, &words(line, NOBODY, ""), &[2], &[told]);
    }
    for line in VERBS {
        // A verb without its last word, where that says what is meant.
        if let Some(less) = line.strip_suffix(" ID").or(line.strip_suffix(" FILE"))
            && !line.starts_with("cancel -s")
        {
            fails(&folder, &words(less, NOBODY, ""), &[2], &["required"]);
        }
        for at in ["nowhere", "host:", ":8081", "host:99999", "host:port", "host:-1"] {
            fails(&folder, &words(line, NOBODY, at), &[2], &[at, "HOST:PORT"]);
        }
        let bad = [
            "nosuchid",
            "0123",
            "0000000000000000000000000000000g",
            "000000000000000000000000000000001",
            "../../../../../../../../../../x.",
            "%30%30%30%30%30%30%30%30%30%30%3",
        ];
        for id in bad.iter().filter(|_| line.contains("ID")) {
            fails(&folder, &words(line, id, ""), &[2], &["Cannot parse JobID", id]);
        }
        let dead = fails(&folder, &words(line, NOBODY, "127.0.0.1:9"), &[1], &["127.0.0.1:9"]);
        assert!(
            dead.err.contains("no session answers") && dead.err.contains("hint: "),
            "{line}: {}",
            dead.err
        );
    }
}

#[test]
fn jobs_that_are_not_there_are_told_of() {
    let folder = folder();
    let session = Session::start(&folder, 1, 0);
    for line in VERBS.iter().filter(|line| line.contains("ID")) {
        // A change is refused before anything happens.
        let code = if line.starts_with("swap") || line.starts_with("diff") { 2 } else { 1 };
        let told = format!("Job {NOBODY} not found");
        fails(&folder, &words(line, NOBODY, &session.address), &[code], &[&told]);
    }
    let disposed = words("savepoint --dispose sv/none", NOBODY, &session.address);
    fails(&folder, &disposed, &[1], &["Failed to dispose the savepoint 'sv/none'"]);
    assert_eq!(session.get("/jobs").1["jobs"].as_array().map(Vec::len), Some(0));
}

/// A request, as far as it says how long it is.
fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut bytes, mut more) = (Vec::new(), [0; 1 << 16]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= head.len() + 4 + length {
                return Some(bytes);
            }
        }
        let count = stream.read(&mut more).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&more[..count]);
    }
}

/// A server that gives this for each request, and closes; it lives as long as the tests.
fn server(answer: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    platform::spawn_thread("strange-server", move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            platform::spawn_thread("strange-answer", move || {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                if let Some(asked) = request(&mut stream) {
                    drop(stream.write_all(&answer(asked)));
                }
            });
        }
    });
    address
}

fn http(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[test]
fn what_is_no_session_is_not_taken_for_one() {
    let folder = folder();
    let html = "<html><body>It works!</body></html>";
    let json = "application/json";
    let half = |text: &str| text.chars().take(text.len() * 2 / 3).collect::<String>();
    let answers = [
        ("a page", http("200 OK", "text/html", html)),
        ("no such page", http("404 Not Found", "text/html", html)),
        ("a fault", http("500 Internal Server Error", "text/plain", "")),
        ("elsewhere", http("302 Found\r\nlocation: /x", "text/html", html)),
        ("no content", "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned()),
        ("an empty object", http("200 OK", json, "{}")),
        ("a list", http("200 OK", json, "[]")),
        ("nothing as JSON", http("200 OK", json, "null")),
        ("others' JSON", http("200 OK", json, r#"{"status":"ok","jobs":7,"slots-total":"many"}"#)),
        ("errors of another form", http("400 Bad Request", json, r#"{"errors":"no"}"#)),
        ("half an answer", half(&http("200 OK", json, r#"{"jobs":[],"slots-total":1,"request-id":"x"}"#))),
        ("a line", "220 mail.example.org ESMTP\r\n".to_owned()),
        ("bytes", "\u{1}\u{2}\u{3}".repeat(100)),
        ("nothing", String::new()),
    ];
    for (name, answer) in answers {
        let address = server(move |_| answer.clone().into_bytes());
        for line in VERBS {
            // To this a session answers with an empty object.
            if line == "resume ID" && ["an empty object", "others' JSON"].contains(&name) {
                continue;
            }
            let words = words(line, NOBODY, &address);
            let told = fails(&folder, &words, &[1, 2], &[]);
            // What refuses a component says so in its own words.
            let is_said =
                told.err.contains("detail: ") || told.err.contains("hint: ") || line.starts_with("run");
            assert!(is_said, "{name}: {words:?} says only: {}", told.err);
        }
    }
}

#[test]
fn who_never_answers_is_not_waited_for_without_end() {
    let folder = folder();
    // Connections are taken by the system; nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for line in VERBS {
        let mut words = words(line, NOBODY, &address);
        let place = if words[0] == "session" { 2 } else { 1 };
        words.insert(place, "-Dclient.timeout=100ms".to_owned());
        let nothing = format!("{address} does not answer");
        fails(&folder, &words, &[1], &[&nothing, "nothing has come in", "-D client.timeout"]);
    }
}

/// How answers are cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// After so many bytes.
    At(usize),
    /// In the middle of the body, which says how long it was.
    InBody,
    /// The same, and it says that this is all.
    Silently,
}

/// Gives a session's answers, cut.
fn proxy(session: &str, cut: Cut) -> String {
    let session = session.to_owned();
    server(move |asked| {
        let mut stream = TcpStream::connect(&session).unwrap();
        let end = asked.windows(2).position(|two| two == b"\r\n").unwrap();
        stream.write_all(&asked[..end]).unwrap();
        stream.write_all(b"\r\nConnection: close").unwrap();
        stream.write_all(&asked[end..]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let half: String = body.chars().take(body.len() / 2).collect();
        let cut = match cut {
            Cut::At(bytes) => answer.chars().take(bytes).collect(),
            Cut::InBody => format!("{head}\r\n\r\n{half}"),
            Cut::Silently => {
                let lines = head.lines().filter(|line| !line.starts_with("content-length"));
                let head: Vec<&str> = lines.collect();
                format!("{}\r\ncontent-length: {}\r\n\r\n{half}", head.join("\r\n"), half.len())
            }
        };
        cut.into_bytes()
    })
}

#[test]
fn answers_that_break_off_are_told_of() {
    let folder = folder();
    folder.write("text.txt", crate::recovery::text(300_000));
    let session = Session::start(&folder, 8, 200);
    let id = session.submit(&folder, &[]);
    session.wait_until(&folder, &id, "RUNNING");
    for cut in [Cut::At(0), Cut::At(12), Cut::At(40), Cut::InBody, Cut::Silently] {
        let address = proxy(&session.address, cut);
        for line in VERBS.iter().filter(|line| **line != "session stop") {
            fails(&folder, &words(line, &id, &address), &[1, 2], &[]);
        }
    }
    // Others are not disturbed.
    assert_eq!(session.get("/overview").0, 200);
}
