//! Sessions that others may not ask: TLS, tokens, and addresses of other machines.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::embedded::Run;
use crate::recovery::text;
use crate::session::Session;
use crate::support::{Folder, Ran, component, parts_of, said};

const TOKEN: &str = "correct-horse-battery-staple";

/// A file that only its owner reads.
fn secret(folder: &Folder, name: &str, text: &str) {
    let path = folder.write(name, text);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// The files of `tests/tls` and a token.
fn with_secrets() -> Folder {
    let folder = Folder::new();
    secret(&folder, "token", &format!("{TOKEN}\n"));
    secret(&folder, "key.pem", include_str!("../tls/key.pem"));
    secret(&folder, "own-key.pem", include_str!("../tls/own-key.pem"));
    folder.write("certificate.pem", include_str!("../tls/certificate.pem"));
    folder.write("authority.pem", include_str!("../tls/authority.pem"));
    folder.write("own.pem", include_str!("../tls/own.pem"));
    folder
}

/// A session in the background, with the configuration of the folder; it is ended with the test.
struct Detached<'a> {
    folder: &'a Folder,
    process: String,
}

impl<'a> Detached<'a> {
    fn start(folder: &'a Folder, config: &str) -> Self {
        folder.write("config.yaml", config);
        let started = folder.streamctl(&["session", "start", "-d", "--slots", "2"]);
        let process = started.succeeds().out.split("(process ").nth(1).unwrap();
        Self { folder, process: process.trim_end_matches(").\n").to_owned() }
    }

    /// What a client says that has this configuration only.
    fn ask(&self, config: &str, args: &[&str]) -> Ran {
        let client = self.folder.path("client");
        self.folder.write("client/config.yaml", config);
        let mut command = self.folder.command();
        Ran::of(command.env("MILLSTREAM_CONF_DIR", client).args(args).stdin(Stdio::null()).output().unwrap())
    }
}

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        drop(self.folder.streamctl(&["session", "stop"]));
        drop(self.folder.shell(&format!("kill -9 {} 2>/dev/null", self.process)).status());
    }
}

#[test]
fn others_reach_a_session_by_tls_and_with_its_token_only() {
    let folder = with_secrets();
    let port = free_port();
    let config = format!(
        "millstream.session.dir: session
rest:
  port: {port}
  address: localhost
  bind-address: 0.0.0.0
  token-file: token
security.ssl.rest:
  enabled: true
  certificate: certificate.pem
  key: key.pem
  ca: authority.pem
"
    );
    let session = Detached::start(&folder, &config);
    let url = format!("https://localhost:{port}");
    let status = folder.streamctl(&["session", "status"]);
    assert!(
        status.succeeds().out.starts_with(&format!("Session at {url}: 2 of 2 slots free")),
        "{}",
        status.out
    );
    folder.write("text.txt", "a b a");
    let wasm = component("word_count");
    let job = ["run", &wasm, "--input", "text.txt", "--output", "out", "--format", "json"];
    folder.streamctl(&[&["run", "-m", &url], job.get(1..).unwrap()].concat()).succeeds();
    assert_eq!(folder.parts("out").len(), 3);
    // The address does as well; and by a file that the environment names.
    let by_address = format!("https://127.0.0.1:{port}");
    let known = "security.ssl.rest.ca: authority.pem\n";
    let list = ["list", "-a", "-m", by_address.as_str()];
    session.ask(&format!("{known}rest.token-file: token\n"), &list).succeeds();
    let mut command = folder.command();
    command.env("MILLSTREAM_CONF_DIR", folder.path("client")).args(list).stdin(Stdio::null());
    folder.write("client/config.yaml", known);
    Ran::of(command.env("MILLSTREAM_REST_TOKEN_FILE", "token").output().unwrap()).succeeds();
    // Nobody without the token, with another, without the authority, by another name, without TLS.
    session.ask(known, &list).fails(1, &["does not show this server's token", "rest.token-file"]);
    let run = ["run", "-m", &by_address, &wasm, "--input", "text.txt"];
    session.ask(known, &run).fails(2, &["does not show this server's token", "rest.token-file"]);
    secret(&folder, "other", "another-token-of-some-length");
    session.ask(&format!("{known}rest.token-file: other\n"), &list).fails(1, &["this server's token"]);
    let unknown = session.ask("rest.token-file: token\n", &list);
    unknown.fails(1, &["does not show to be who is meant", "UnknownIssuer", "security.ssl.rest.ca"]);
    let other_name = format!("https://127.0.0.2:{port}");
    session.ask(known, &["list", "-m", &other_name]).fails(1, &["does not show to be who is meant"]);
    let plain = format!("127.0.0.1:{port}");
    session.ask("", &["list", "-m", &plain]).fails(1, &["no session answers"]);
    // The token is nowhere to be seen.
    let process = |file: &str| {
        let bytes = std::fs::read(format!("/proc/{}/{file}", session.process)).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let log = std::fs::read_to_string(folder.path("session/session.log")).unwrap();
    let shown = folder.streamctl(&["config", "--json"]).succeeds().out.clone();
    for said in [process("cmdline"), process("environ"), log, shown, status.out, unknown.err] {
        assert!(!said.contains(TOKEN), "{said}");
    }
    assert_eq!(folder.streamctl(&["session", "stop"]).succeeds().out, "Session ended.\n");
}

#[test]
fn a_certificate_may_vouch_for_itself() {
    let folder = with_secrets();
    let port = free_port();
    let config = format!(
        "{{millstream.session.dir: session, rest.port: {port}, rest.token-file: token, security.ssl.rest.enabled: true,
          security.ssl.rest.certificate: own.pem, security.ssl.rest.key: own-key.pem}}\n"
    );
    let session = Detached::start(&folder, &config);
    let status = folder.streamctl(&["session", "status", "--json"]);
    assert!(
        status.succeeds().out.contains(&format!("\"url\":\"https://127.0.0.1:{port}\"")),
        "{}",
        status.out
    );
    let url = format!("https://127.0.0.1:{port}");
    session.ask("{security.ssl.rest.ca: own.pem, rest.token-file: token}", &["list", "-m", &url]).succeeds();
    let other = "{security.ssl.rest.ca: authority.pem, rest.token-file: token}";
    session.ask(other, &["list", "-m", &url]).fails(1, &["does not show to be who is meant"]);
}

#[test]
fn what_would_be_open_to_others_does_not_begin() {
    let folder = with_secrets();
    let (dir, all) = ("-Dmillstream.session.dir=session", "-Drest.bind-address=0.0.0.0");
    let tls = [
        "-Dsecurity.ssl.rest.enabled=true",
        "-Dsecurity.ssl.rest.certificate=certificate.pem",
        "-Dsecurity.ssl.rest.key=key.pem",
    ];
    let wasm = component("word_count");
    let told = ["would be open to others", "rest.insecure=true"];
    for start in [&["session", "start"][..], &["session", "start", "-d"]] {
        let start = |more: &[&str]| folder.streamctl(&[start, &[dir, all], more].concat());
        start(&[]).fails(2, &told);
        start(&["-Drest.token-file=token"]).fails(2, &["it has no TLS"]);
        start(&tls).fails(2, &["it has no token"]);
    }
    folder.streamctl(&["session", "start", dir, "-Drest.address=0.0.0.0"]).fails(2, &told);
    folder
        .streamctl(&["session", "start", dir, "-Drest.address=a.example.org"])
        .fails(2, &["rest.bind-address"]);
    // Nor a job of its own process, unless it has no REST interface.
    folder.write("text.txt", "a b");
    let run = |more: &[&str]| {
        folder.streamctl(&[&["run", all], more, &[&wasm, "--input", "text.txt", "--output", "out"]].concat())
    };
    run(&[]).fails(2, &told);
    assert!(!folder.path("out").exists());
    run(&["--rest-port", "off"]).succeeds();
    // Files that are not what they should be.
    let start = |more: &[&str]| folder.streamctl(&[&["session", "start", dir], more].concat());
    std::fs::set_permissions(folder.path("token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    start(&["-Drest.token-file=token"]).fails(2, &["others can read", "chmod 600 token"]);
    start(&["-Drest.token-file=none"]).fails(2, &["cannot read `none`"]);
    start(&["-Dsecurity.ssl.rest.enabled=true"]).fails(2, &["`security.ssl.rest.certificate` is missing"]);
    let other_key = [tls[0], tls[1], "-Dsecurity.ssl.rest.key=own-key.pem"];
    start(&other_key).fails(2, &["`certificate.pem` is no certificate of the key"]);
    start(&[tls[0], tls[1], "-Dsecurity.ssl.rest.key=certificate.pem"]).fails(2, &["others can read"]);
    secret(&folder, "no-key.pem", "no key");
    start(&[tls[0], tls[1], "-Dsecurity.ssl.rest.key=no-key.pem"])
        .fails(2, &["`no-key.pem` is no private key"]);
}

#[test]
fn whoever_wants_to_be_open_to_others_is_warned_and_is_asked_by_its_own_names_only() {
    let folder = Folder::new();
    let mut command = Session::command(&folder, 1, "");
    command.args(["-Drest.bind-address=0.0.0.0", "-Drest.address=jobs.example.org", "-Drest.insecure=true"]);
    let mut session = Session::of(command);
    assert!(session.began.contains("warning: the REST interface at 0.0.0.0 has no TLS and no token"));
    let port = session.address.rsplit(':').next().unwrap().to_owned();
    session.address = format!("127.0.0.1:{port}");
    let code = |host: &str| {
        let request = format!("GET /overview HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        parts_of(&said(&session.address, request.as_bytes())).0
    };
    for own in ["jobs.example.org", &format!("jobs.example.org:{port}"), "10.0.0.7", "[::1]:1", "localhost"] {
        assert_eq!(code(own), 200, "{own}");
    }
    for other in ["evil.example.org", "jobs.example.org.evil.example.org", "127.0.0.1.nip.io"] {
        assert_eq!(code(other), 403, "{other}");
    }
}

#[test]
fn on_this_machine_too_a_token_is_asked_for_on_every_path() {
    let folder = with_secrets();
    let mut command = Session::command(&folder, 1, "");
    command.args(["-Drest.token-file=token"]);
    let session = Session::of(command);
    let ask = |request: &str, shown: &str| {
        let headers = format!("Host: {}\r\nContent-Length: 0\r\n{shown}Connection: close", session.address);
        said(&session.address, format!("{request} HTTP/1.1\r\n{headers}\r\n\r\n").as_bytes())
    };
    for request in [
        "GET /overview",
        "GET /v1/jobs",
        "GET /metrics",
        "GET /config",
        "GET /nothing",
        "POST /jars/upload",
        "POST /v1/jars/x/run",
        "DELETE /cluster",
        "OPTIONS /jobs",
        "TRACE /jobs",
    ] {
        let answer = ask(request, "");
        assert!(answer.starts_with("HTTP/1.1 401 "), "{request}: {answer}");
        assert!(answer.contains("\r\nwww-authenticate: Bearer\r\n"), "{request}: {answer}");
        assert!(answer.contains("{\"errors\":[\""), "{request}: {answer}");
    }
    let with = |shown: &str| ask("GET /overview", &format!("Authorization: {shown}\r\n"));
    for right in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}"), format!("Bearer  {TOKEN}")] {
        assert!(with(&right).starts_with("HTTP/1.1 200 "), "{right}");
    }
    for wrong in [
        TOKEN.to_owned(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {TOKEN}"),
        format!("Bearer {TOKEN}x"),
        format!("Bearer {}", TOKEN.get(1..).unwrap()),
        format!("Bearer {}", TOKEN.to_uppercase()),
    ] {
        assert!(with(&wrong).starts_with("HTTP/1.1 401 "), "{wrong}");
    }
    // What a session shows of its configuration has the file's name at most.
    for path in ["/jobmanager/config", "/config", "/jobmanager/environment", "/jobmanager/log", "/metrics"] {
        let answer = ask(&format!("GET {path}"), &format!("Authorization: Bearer {TOKEN}\r\n"));
        assert!(!answer.contains(TOKEN), "{path}: {answer}");
    }
    // A page of another site is refused before anything else.
    let page =
        ask("GET /overview", &format!("Authorization: Bearer {TOKEN}\r\nOrigin: http://example.org\r\n"));
    assert!(page.starts_with("HTTP/1.1 403 "), "{page}");
    session.ask(&folder, "list", &[]).fails(1, &["this server's token"]);
    session.ask(&folder, "list", &["-Drest.token-file=token"]).succeeds();
    let elsewhere = folder.streamctl(&["list", "-m", "a.example.org:1", "-Drest.token-file=token"]);
    elsewhere.fails(2, &["the token would go to a.example.org:1 without TLS", "-m https://a.example.org:1"]);
}

#[test]
fn a_job_that_runs_by_itself_is_asked_by_tls_and_with_the_token_too() {
    let folder = with_secrets();
    let tls = "security.ssl.rest:
  enabled: true
  certificate: certificate.pem
  key: key.pem
  ca: authority.pem
";
    folder.write("config.yaml", format!("rest.token-file: token\n{tls}"));
    folder.write("text.txt", text(300_000));
    let run = Run::start(&folder);
    run.is_listed(&folder);
    let plain = format!("http://{}", run.address);
    folder.streamctl(&["list", "-m", &plain]).fails(1, &["no session answers"]);
    folder.write("config.yaml", tls);
    run.ask(&folder, "cancel", &[&run.id]).fails(1, &["does not show this server's token"]);
    folder.write("config.yaml", format!("rest.token-file: token\n{tls}"));
    run.ask(&folder, "cancel", &[&run.id]).succeeds();
    run.wait().fails(1, &["Job was cancelled"]);
}
