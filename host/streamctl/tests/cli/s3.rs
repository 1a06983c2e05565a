//! Checkpoints and savepoints in a real S3 service (MinIO), met through a network that loses replies, refuses and dawdles.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::recovery::{expected, text};
use crate::support::{Folder, Ran, component};

/// The service, with an empty bucket named `bucket`.
struct Minio {
    process: Child,
    address: SocketAddr,
    data: tempfile::TempDir,
}

impl Minio {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("bucket")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(built::tool("minio"))
            .args(["server", "--quiet", "--address", &address.to_string()])
            .arg(data.path())
            .envs([("MINIO_ROOT_USER", "millstream"), ("MINIO_ROOT_PASSWORD", "a-secret-of-tests")])
            .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let clock = platform::Clock::system();
        let end = clock.now() + Duration::from_secs(30);
        while !is_up(address) {
            assert!(clock.now() < end, "MinIO does not answer at {address}");
            clock.sleep(Duration::from_millis(50));
        }
        Self { process, address, data }
    }

    /// The names below a folder of the bucket, in order.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.data.path().join("bucket").join(folder)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    /// The one job's folder, as the service keeps it.
    fn job(&self) -> PathBuf {
        let [id] = &self.names("jobs")[..] else { panic!("{:?}", self.names("jobs")) };
        self.data.path().join("bucket/jobs").join(id)
    }

    fn checkpoints(&self) -> Vec<String> {
        let job = self.job();
        let mut names = self.names(&format!("jobs/{}", job.file_name().unwrap().to_string_lossy()));
        names.retain(|name| job.join(name).join("_metadata").exists());
        names
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn is_up(address: SocketAddr) -> bool {
    let asked = platform::spawn_task("is MinIO up", async move {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request =
            format!("GET /minio/health/live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.ok()?;
        Some(reply.starts_with(b"HTTP/1.1 200"))
    });
    platform::network::runtime().block_on(asked).unwrap() == Some(true)
}

/// What a network does to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ill {
    /// The service says that it is too busy.
    Busy,
    /// It is done, and the reply is lost.
    LostReply,
    /// It takes so many milliseconds longer.
    Slow(u64),
}

/// A way to the service on which requests are treated in turn: one request a connection.
fn way(to: SocketAddr, turns: &'static [Option<Ill>]) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let ill = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ill);
    platform::spawn_task("a bad network", async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        for turn in turns.iter().cycle() {
            let Ok((stream, _)) = listener.accept().await else { return };
            count.fetch_add(u64::from(turn.is_some()), Ordering::Relaxed);
            platform::spawn_task("a request", pass(stream, to, *turn));
        }
    });
    (address, ill)
}

/// Passes one request on, or not.
async fn pass(mut from: TcpStream, to: SocketAddr, ill: Option<Ill>) -> Option<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if from.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    while request.len() < head + length.unwrap_or(0) {
        if from.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    match ill {
        Some(Ill::Busy) => {
            let reply = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            from.write_all(reply.as_bytes()).await.ok()?;
            return from.shutdown().await.ok();
        }
        Some(Ill::Slow(ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Some(Ill::LostReply) | None => {}
    }
    request.splice(head - 2..head - 2, *b"Connection: close\r\n");
    let mut server = TcpStream::connect(to).await.ok()?;
    server.write_all(&request).await.ok()?;
    let mut reply = Vec::new();
    server.read_to_end(&mut reply).await.ok()?;
    if ill != Some(Ill::LostReply) {
        from.write_all(&reply).await.ok()?;
        from.shutdown().await.ok()?;
    }
    Some(())
}

/// How the service is reached.
fn reached(command: &mut Command, endpoint: SocketAddr) -> &mut Command {
    command
        .args(["-Ds3.path.style.access=true", "-Ds3.access-key=millstream"])
        .arg(format!("-Ds3.endpoint=http://{endpoint}"))
        .env("MILLSTREAM_S3_SECRET_KEY", "a-secret-of-tests")
}

fn run(folder: &Folder, endpoint: SocketAddr, parallelism: &str) -> Command {
    let mut command = folder.command();
    command
        .args(["run", "-p", parallelism, "--restore", "latest"])
        .args(["-Dexecution.checkpointing.interval=20ms", "-Dexecution.checkpointing.dir=s3://bucket/jobs"]);
    reached(&mut command, endpoint)
        .arg(component("word_count"))
        .args(["--input", "text.txt", "--output", "out", "--format", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Ends a job's process before and after uploads, again and again, and lets it come to its end.
fn kills(minio: &Minio, endpoint: SocketAddr, lines: u64, uploads: usize) {
    let folder = Folder::new();
    let text = text(lines);
    folder.write("text.txt", &text);
    let (mut killed, mut restored) = (0, 0);
    for attempt in 0..7 {
        let mut command = run(&folder, endpoint, ["2", "3", "1"][attempt % 3]);
        if attempt < 6 {
            let point = ["store.uploaded", "store.upload"][attempt % 2];
            command.env("MILLSTREAM_FAULTS", format!("{point}@{}=kill", uploads + attempt % 3));
        }
        let ran = Ran::of(command.output().unwrap());
        assert!([0, -1].contains(&ran.code), "{}", ran.err);
        killed += u32::from(ran.code == -1);
        restored += u32::from(ran.err.contains("goes on from checkpoint"));
        if ran.code == 0 {
            break;
        }
    }
    assert!(killed > 1 && restored > 1, "{killed} times killed, {restored} times restored");
    assert!(folder.parts("out") == expected(&text), "other rows than the text's");
    assert_eq!(minio.checkpoints().len(), 1, "{:?}", minio.checkpoints());
    let again = Ran::of(run(&folder, endpoint, "2").output().unwrap());
    assert!(again.succeeds().err.contains("has finished before"), "{}", again.err);
}

#[test]
fn a_job_goes_on_from_checkpoints_in_s3() {
    let minio = Minio::start();
    kills(&minio, minio.address, 150_000, 3);
    // Damage is seen there too, and named.
    let checkpoint = minio.checkpoints().remove(0);
    std::fs::remove_dir_all(minio.job().join(&checkpoint).join("data-0")).ok();
    let manifest = minio.job().join(&checkpoint).join("_metadata/xl.meta");
    let mut bytes = std::fs::read(&manifest).unwrap();
    let at = bytes.windows(9).position(|nine| nine == b"\"format\":").expect("small objects lie in it");
    bytes[at + 1] ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    let folder = Folder::new();
    folder.write("text.txt", "to be");
    let ran = Ran::of(run(&folder, minio.address, "1").output().unwrap());
    // The service may notice by itself; either way nothing is taken for what it is not.
    assert!(ran.err.contains(&checkpoint) || ran.err.contains("is passed over"), "{}", ran.err);
}

#[test]
fn a_network_that_loses_and_refuses_changes_nothing() {
    let minio = Minio::start();
    const TURNS: [Option<Ill>; 9] = [
        None,
        Some(Ill::Busy),
        None,
        Some(Ill::LostReply),
        None,
        None,
        Some(Ill::Slow(200)),
        Some(Ill::LostReply),
        None,
    ];
    let (way, ill) = way(minio.address, &TURNS);
    kills(&minio, way, 300_000, 2);
    assert!(ill.load(Ordering::Relaxed) > 20, "the network was too good: {ill:?}");
}

#[test]
fn a_wrong_secret_is_told_before_the_job_starts() {
    let minio = Minio::start();
    let folder = Folder::new();
    folder.write("text.txt", "to be");
    let mut command = run(&folder, minio.address, "1");
    command.env("MILLSTREAM_S3_SECRET_KEY", "another-secret");
    let ran = Ran::of(command.output().unwrap());
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("checkpoints in `s3://bucket/jobs` cannot be read"), "{}", ran.err);
    assert!(!ran.err.contains("another-secret"), "{}", ran.err);
    assert!(!folder.path("out").exists());
}

const COUNTS: [&str; 4] = ["--operator", "aggregate-sum-by-f0", "--state", "aggregate"];

/// Shows what is in a bucket.
fn state(folder: &Folder, endpoint: SocketAddr, path: &str, more: &[&str]) -> Ran {
    let mut command = folder.command();
    Ran::of(reached(command.arg("state"), endpoint).arg(path).args(more).output().unwrap())
}

/// Runs word count from a savepoint.
fn from_savepoint(folder: &Folder, endpoint: SocketAddr, path: &str, more: &[&str]) -> Ran {
    let mut command = folder.command();
    reached(command.args(["run", "-s", path, "-p", "3"]), endpoint)
        .arg(component("word_count"))
        .args(["--input", "text.txt"])
        .args(more);
    Ran::of(command.output().unwrap())
}

#[test]
fn a_job_stops_with_a_savepoint_in_s3_and_goes_on_from_it() {
    let minio = Minio::start();
    for form in ["CANONICAL", "NATIVE"] {
        let folder = Folder::new();
        let text = text(100_000);
        folder.write("text.txt", &text);
        let mut command = folder.command();
        command
            .args(["run", "-p", "2", "-Dexecution.checkpointing.interval=20ms"])
            .arg("-Dexecution.checkpointing.dir=chk")
            .arg(format!("-Dexecution.checkpointing.savepoint-dir=s3://bucket/{form}/"))
            .arg(format!("-Dexecution.savepoint.format={form}"))
            // Each read takes a while, so that the job is long.
            .env("MILLSTREAM_FAULTS", "source.read=stall:40");
        let mut child = reached(&mut command, minio.address)
            .arg(component("word_count"))
            .args(["--input", "text.txt", "--output", "out", "--format", "json"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while std::fs::read_dir(folder.path("chk")).is_err() && child.try_wait().unwrap().is_none() {
            platform::Clock::system().sleep(Duration::from_millis(2));
        }
        Command::new("kill").args(["-USR2", &child.id().to_string()]).status().unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        let err = &ran.succeeds().err;
        let path = err.lines().find_map(|line| line.strip_prefix("Savepoint completed. Path: ")).unwrap();
        assert!(path.starts_with(&format!("s3://bucket/{form}/savepoint-")), "{err}");
        assert_eq!(minio.names(form).len(), 1, "{form}");
        let shown = state(&folder, minio.address, path, &[]);
        assert!(shown.succeeds().out.contains("of job word_count"), "{}", shown.out);
        let rows = state(&folder, minio.address, path, &[&COUNTS[..], &["--json"]].concat());
        let count = |line: &str| -> u64 {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            row["count"].as_u64().unwrap()
        };
        let sum: u64 = rows.succeeds().out.lines().map(count).sum();
        let seen = folder.parts("out").len();
        assert!(seen < text.split_whitespace().count(), "it was stopped at its end: {err}");
        assert_eq!(sum, seen as u64, "{form}");
        let gone_on = from_savepoint(&folder, minio.address, path, &["--output", "out", "--format", "json"]);
        assert!(gone_on.succeeds().err.contains("goes on from savepoint s3://bucket/"), "{}", gone_on.err);
        assert!(folder.parts("out") == expected(&text), "{form}: other rows than the text's");
    }
}

#[test]
fn savepoints_of_rows_are_made_in_s3_once() {
    let minio = Minio::start();
    let folder = Folder::new();
    folder.write("rows.csv", "f0,count\none,1000\n");
    folder.write("text.txt", "one two");
    let write = |to: &str| {
        let mut command = folder.command();
        reached(command.args(["state", "write", to]), minio.address)
            .args(["--component", &component("word_count")])
            .args(COUNTS)
            .args(["--input", "rows.csv", "--", "--input", "text.txt"]);
        Ran::of(command.output().unwrap())
    };
    write("s3://bucket/boot").succeeds();
    write("s3://bucket/boot").fails(2, &["`s3://bucket/boot` is there already"]);
    let ran = from_savepoint(&folder, minio.address, "s3://bucket/boot", &[]);
    assert_eq!(ran.succeeds().rows(), ["(one,1001)", "(two,1)"]);
    // What is not there, or cannot be, is told before the job starts.
    let missing = from_savepoint(&folder, minio.address, "s3://bucket/none", &[]);
    missing.fails(2, &["`s3://bucket/none` cannot be restored", "`_metadata` is missing"]);
    state(&folder, minio.address, "s3://bucket/none", &[]).fails(2, &["cannot be read", "is missing"]);
    state(&folder, minio.address, "s3:///none", &[]).fails(2, &["`s3:///none`"]);
    let dir = "-Dexecution.checkpointing.savepoint-dir=hdfs://somewhere";
    let mut command = folder.command();
    command.args(["run", dir, "-Dexecution.checkpointing.dir=chk", &component("word_count")]);
    let refused = Ran::of(command.args(["--input", "text.txt"]).output().unwrap());
    refused.fails(2, &["`hdfs://somewhere` cannot have savepoints", "s3://BUCKET/NAME"]);
}
