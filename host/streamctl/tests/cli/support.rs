//! Runs the binary in a folder of the test's own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// The guests that `scripts/setup` and `scripts/test` build.
pub(crate) fn component(name: &str) -> String {
    built::component(name).display().to_string()
}

/// A folder with a few files.
pub(crate) struct Folder {
    pub(crate) dir: TempDir,
}

/// How many checkpoints are in a folder; wrong is whatever else there is, that none of them names.
pub(crate) fn checkpoints_in(folder: &Path) -> Result<usize, String> {
    let (mut found, mut named, mut manifests) = (Vec::new(), Vec::new(), 0);
    files_below(folder, &mut found);
    for path in found.iter().filter(|path| path.ends_with("_metadata")) {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let manifest: serde_json::Value = serde_json::from_str(text.lines().next().unwrap_or_default())
            .map_err(|error| error.to_string())?;
        let files = manifest["files"].as_object().into_iter().flat_map(|files| files.keys());
        named.extend(files.map(|file| folder.join(file)));
        named.push(path.clone());
        manifests += 1;
    }
    found.retain(|path| !named.contains(path));
    match found.is_empty() {
        true => Ok(manifests),
        false => Err(format!("more is left than {manifests} checkpoints: {found:?}")),
    }
}

pub(crate) fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => {
                let before = files.len();
                files_below(&path, files);
                // An empty folder is something that is left, too.
                if files.len() == before {
                    files.push(path);
                }
            }
            path => files.push(path),
        }
    }
    files.sort_unstable();
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Refused or failed with this code; the message has all of these.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, told: &[&str]) {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.contains("error: "), "{}", self.err);
        for part in told {
            assert!(self.err.contains(part), "`{part}` is not in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }

    #[track_caller]
    pub(crate) fn succeeds(&self) -> &Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// Its rows without the subtasks' numbers, sorted.
    pub(crate) fn rows(&self) -> Vec<String> {
        let mut rows: Vec<String> = self
            .out
            .lines()
            .map(|line| match line.split_once("> ") {
                Some((subtask, row)) if subtask.bytes().all(|b| b.is_ascii_digit()) => row.to_owned(),
                _ => line.to_owned(),
            })
            .collect();
        rows.sort_unstable();
        rows
    }
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamctl"));
        // Nothing of the user's own configuration; compiled components are shared by the tests.
        command.current_dir(self.dir.path()).env("MILLSTREAM_CONF_DIR", self.dir.path());
        command
    }

    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(self.dir.path()).env("MILLSTREAM_CONF_DIR", self.dir.path());
        command
    }

    pub(crate) fn streamctl(&self, args: &[&str]) -> Ran {
        Ran::of(self.command().args(args).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self.start(args);
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Lines of all part files in a folder, sorted.
    pub(crate) fn parts(&self, folder: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(name.starts_with("part-"), "{name} is left over");
            lines.extend(std::fs::read_to_string(entry.path()).unwrap().lines().map(str::to_owned));
        }
        lines.sort_unstable();
        lines
    }
}

/// All that a server says to a request, which is sent as it is.
pub(crate) fn said(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The code and the body of an answer.
pub(crate) fn parts_of(answer: &str) -> (u16, String) {
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// Word counts by tools that are not ours: rows of a streaming run, sorted.
pub(crate) fn counted_by_tools(file: &str, last_only: bool) -> Vec<String> {
    let script = r#"LC_ALL=C tr -s '[:space:]' '\n' < "$0" | LC_ALL=C grep -av '^$' | LC_ALL=C sort | LC_ALL=C uniq -c"#;
    let output = Command::new("sh").args(["-c", script, file]).output().unwrap();
    let mut rows = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (count, word) = line.trim_start().split_once(' ').unwrap();
        let count: u64 = count.parse().unwrap();
        let from = if last_only { count } else { 1 };
        rows.extend((from..=count).map(|n| format!("({word},{n})")));
    }
    rows.sort_unstable();
    rows
}
