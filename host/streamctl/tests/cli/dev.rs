//! `dev`: a project's job runs while its sources change.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::support::Folder;

/// What is given up when nothing comes: a build may wait for others.
const PATIENCE: Duration = Duration::from_secs(400);

/// Counts words, and says which release it is.
const SOURCE: &str = r#"
use millstream::prelude::*;

const RELEASE: i64 = 1;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    input: InputArgs,
}

#[job]
fn tally(job: &Job, args: Args) -> Result<()> {
    job.lines(args.input.source()?)
        .flat_map(|line, out| {
            for word in line.split_whitespace() {
                assert_ne!(word, "panic", "as told");
                out.emit((word, 1));
            }
        })
        .key_by(F0)
        .sum(F1)
        .map(|(word, count)| (RELEASE, word.to_string(), count))
        .sink(Sink::print());
    Ok(())
}

millstream::jobs!(tally);
"#;

/// The source of a release.
fn release(number: u32) -> String {
    SOURCE.replace("RELEASE: i64 = 1", &format!("RELEASE: i64 = {number}"))
}

/// A compiler that is ended leaves what it was at.
fn is_rustcs(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"rustc")
}

/// The lines of a stream, as they come.
struct Lines {
    come: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (lines, come) = sync_channel(10_000);
        platform::spawn_thread("lines", move || {
            let all = BufReader::new(stream).lines().map_while(Result::ok);
            all.map(|line| lines.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Self { come, seen: Vec::new() }
    }

    /// The next line that has this.
    #[track_caller]
    fn until(&mut self, part: &str) -> String {
        loop {
            let Ok(line) = self.come.recv_timeout(PATIENCE) else {
                panic!("`{part}` does not come; after {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }
}

/// A project that `dev` runs, over a socket.
struct Dev {
    folder: Folder,
    name: &'static str,
    child: Child,
    listener: TcpListener,
    out: Lines,
    err: Lines,
}

/// Runs the project over the port that is listened at.
fn over_the_socket(name: &str) -> impl FnOnce(&mut Command, &str) {
    move |command, port| {
        command.args([name, "--host", "127.0.0.1", "--port", port]);
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Dev {
    /// Components lie by the project's name in a target folder that tests share.
    fn start(name: &'static str, source: &str) -> Self {
        Self::of(name, source, over_the_socket(name))
    }

    /// The options and arguments are completed by `with`, which is given the port that is listened at.
    fn of(name: &'static str, source: &str, with: impl FnOnce(&mut Command, &str)) -> Self {
        let folder = Folder::new();
        let command = folder.command();
        Self::by(command, folder, name, source, with)
    }

    /// Where the system has no more watches to give: in a namespace that may have none.
    fn untold(name: &'static str, source: &str) -> Self {
        let folder = Folder::new();
        let none = r#"echo 0 > /proc/sys/user/max_inotify_instances && exec "$@""#;
        let mut command = folder.shell(r#"exec unshare --user --map-root-user bash -c "$@""#);
        command.args(["bash", none, "bash"]).arg(folder.command().get_program());
        Self::by(command, folder, name, source, over_the_socket(name))
    }

    /// By this command, in this folder.
    fn by(
        mut command: Command,
        folder: Folder,
        name: &'static str,
        source: &str,
        with: impl FnOnce(&mut Command, &str),
    ) -> Self {
        folder.streamctl(&["new", name]).succeeds();
        folder.write(&format!("{name}/src/lib.rs"), source);
        std::fs::create_dir(folder.path("tmp")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        command.args(["dev", "--rest-port", "0", "-Dexecution.checkpointing.interval=1h"]);
        with(&mut command, &port);
        command.env("TMPDIR", folder.path("tmp"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { folder, name, child, listener, out: Lines::of(out), err: Lines::of(err) }
    }

    /// As editors do: beside it, then in its place.
    fn save(&self, source: &str) {
        let file = self.folder.path(&format!("{}/src/lib.rs", self.name));
        let beside = file.with_file_name(".lib.rs.new");
        std::fs::write(&beside, source).unwrap();
        std::fs::rename(beside, file).unwrap();
    }

    /// The row that comes of a line.
    #[track_caller]
    fn gives(&mut self, peer: &mut TcpStream, line: &str, row: &str) {
        writeln!(peer, "{line}").unwrap();
        assert_eq!(self.out.until(""), row);
    }

    /// Where the job is asked, and its id.
    fn asked_at(&mut self) -> (String, String) {
        let line = self.err.until("REST interface at http://");
        let (address, id) = line.trim_end_matches('.').split_once(", job ").unwrap();
        (address.rsplit('/').next().unwrap().to_owned(), id.to_owned())
    }

    fn accept(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }

    /// Ends it; its exit code.
    fn ends_by(&mut self, signal: &str) -> Option<i32> {
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        let code = self.child.wait().unwrap().code();
        let left = std::fs::read_dir(self.folder.path("tmp")).unwrap().flatten();
        let left: Vec<_> = left.filter(|entry| !is_rustcs(&entry.file_name())).collect();
        assert!(left.is_empty(), "{left:?} is left");
        code
    }
}

#[test]
fn a_running_job_goes_over_to_what_is_saved_with_its_state() {
    let mut dev = Dev::start("goes_over", SOURCE);
    dev.err.until("Building goes_over.");
    dev.err.until("Started component ");
    dev.err.until("Watching goes_over.");
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(1,a,1)");

    dev.save(&release(2));
    dev.err.until("src/lib.rs has changed: building.");
    let changed = dev.err.until("Changed to component ");
    assert!(
        changed.contains(" at checkpoint 1: built in ") && changed.contains(", changed in "),
        "{changed}"
    );
    dev.gives(&mut peer, "a b", "(2,a,2)");
    assert_eq!(dev.out.until(""), "(2,b,1)");

    // What does not compile is said by the compiler.
    dev.save(&release(3).replace(".sum(F1)", ".sum(F7)"));
    dev.err.until("src/lib.rs:");
    dev.err.until("error: the project does not build");
    dev.err.until("The job runs on as it is.");
    dev.gives(&mut peer, "a", "(2,a,3)");
    dev.save(&release(3));
    dev.err.until("Changed to component ");
    dev.gives(&mut peer, "a", "(3,a,4)");

    // The sink has other columns.
    dev.save(&release(4).replace("word.to_string(), count)", "word.to_string(), count, true)"));
    dev.err.until("The running job cannot go over to this version:");
    dev.err.until("gives rows of other columns");
    dev.err.until("It is stopped with a savepoint, and started from that.");
    let changed = dev.err.until("Changed to component ");
    assert!(changed.contains(" by a restart from savepoint "), "{changed}");
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(4,a,5,true)");

    // An edit that says the same gives the same component.
    dev.save(&format!(
        "{}\n",
        release(4).replace("word.to_string(), count)", "word.to_string(), count, true)")
    ));
    dev.err.until("The component is the same as before.");
    dev.gives(&mut peer, "b", "(4,b,2,true)");
    assert_eq!(dev.ends_by("-INT"), Some(130));
    dev.err.until("Stopping; once more to stop at once.");
    dev.err.until("Job tally was stopped");
}

#[test]
fn a_job_that_has_failed_or_finished_is_started_again_by_the_next_version() {
    let mut dev = Dev::start("again", &SOURCE.replace(".sum(F1)", ".sum(F7)"));
    dev.err.until("error: the project does not build");
    dev.err.until("It is tried again when a source changes.");
    dev.save(SOURCE);
    let (address, id) = dev.asked_at();
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(1,a,1)");
    let made = dev.folder.streamctl(&["checkpoint", "-m", &address, &id]);
    made.succeeds();

    // The same code would fail again: it is not restarted.
    writeln!(peer, "panic").unwrap();
    dev.err.until("as told");
    dev.err.until("The job goes on from its last checkpoint when a source changes.");
    let listed = dev.folder.streamctl(&["list", "-a", "-m", &address]);
    assert!(listed.succeeds().out.contains("tally (FAILED)"), "{}", listed.out);
    let passes = |number| release(number).replace(r#"assert_ne!(word, "panic", "as told");"#, "");
    dev.save(&passes(2));
    dev.err.until("Started component ");
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(2,a,2)");
    dev.gives(&mut peer, "panic", "(2,panic,1)");

    // One that fails as soon as it has been started from a savepoint: the next goes on from that.
    let other =
        |number| release(number).replace("word.to_string(), count)", "word.to_string(), count, true)");
    dev.save(&other(3).replace(r#"word, "panic""#, r#"word, "a""#));
    dev.err.until(" by a restart from savepoint ");
    let mut peer = dev.accept();
    writeln!(peer, "a").unwrap();
    dev.err.until("as told");
    dev.err.until("The job goes on from its last checkpoint when a source changes.");
    dev.save(&other(4));
    dev.err.until("Started component ");
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(4,a,3,true)");

    // The end of the input is the job's.
    drop(peer);
    dev.err.until("Job tally finished");
    dev.err.until("The job begins anew when a source changes.");
    dev.save(&passes(3));
    dev.err.until("Started component ");
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(3,a,1)");

    // Whoever cancels it does not end `dev`.
    dev.folder.streamctl(&["cancel", "-m", &address, &id]).succeeds();
    dev.err.until("The job was cancelled; it begins anew when a source changes.");
    dev.save(&passes(4));
    dev.err.until("Started component ");
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(4,a,1)");
    assert_eq!(dev.ends_by("-TERM"), Some(143));
}

#[test]
fn a_paused_job_goes_over_when_it_is_resumed() {
    let mut dev = Dev::start("paused", SOURCE);
    let (address, id) = dev.asked_at();
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(1,a,1)");
    dev.folder.streamctl(&["pause", "-m", &address, &id]).succeeds();
    dev.save(&release(2));
    dev.err.until("The job is paused: it changes when it is resumed.");
    dev.folder.streamctl(&["resume", "-m", &address, &id]).succeeds();
    let mut peer = dev.accept();
    dev.err.until("Changed to component ");
    dev.gives(&mut peer, "a", "(2,a,2)");
    assert_eq!(dev.ends_by("-INT"), Some(130));
}

/// Rows that a version before has taken would be lost to the results of the next: there is only one result.
#[test]
fn a_batch_job_begins_anew_with_each_version() {
    const LINES: usize = 3_000_000;
    let mut dev = Dev::of("anew", SOURCE, |command, _| {
        let text = command.get_current_dir().unwrap().join("text.txt");
        std::fs::write(text, "a\n".repeat(LINES)).unwrap();
        command.args(["--execution", "batch", "anew", "--input", "text.txt"]);
        command.env("MILLSTREAM_FAULTS", "source.read=stall:2000");
    });
    dev.err.until("Started component ");
    dev.save(&release(2));
    dev.err.until("Final results only come of all rows: the job begins anew.");
    dev.err.until("Started component ");
    dev.err.until("Job tally finished");
    assert_eq!(dev.out.until(""), format!("(2,a,{LINES})"));
    assert_eq!(dev.ends_by("-INT"), Some(130));
}

#[test]
fn where_the_system_tells_nothing_of_changes_it_is_looked_for_them() {
    let mut dev = Dev::untold("untold", SOURCE);
    dev.err.until("the system does not tell of changes, so it is looked every ");
    dev.err.until("Watching untold.");
    let mut peer = dev.accept();
    dev.gives(&mut peer, "a", "(1,a,1)");
    dev.save(&release(2));
    dev.err.until("src/lib.rs has changed: building.");
    dev.err.until("Changed to component ");
    dev.gives(&mut peer, "a", "(2,a,2)");
    assert_eq!(dev.ends_by("-INT"), Some(130));
}

#[test]
fn a_build_is_given_up_when_it_is_to_end() {
    let mut dev = Dev::start("given_up", SOURCE);
    dev.err.until("Building given_up.");
    assert_eq!(dev.ends_by("-INT"), Some(130));
    dev.err.until("Stopping; once more to stop at once.");
}

#[test]
fn what_cannot_be_watched_or_run_is_refused() {
    let folder = Folder::new();
    folder.streamctl(&["dev", "."]).fails(2, &["there is no project in `.`", "streamctl new"]);
    folder.streamctl(&["dev"]).fails(2, &["<DIR>"]);
    folder.streamctl(&["new", "refused"]).succeeds();
    folder.streamctl(&["dev", "refused", "-Dno.such=1"]).fails(2, &["`no.such`"]);
    let none = folder.streamctl(&["dev", "--rest-port", "off", "refused", "--input", "none.txt"]);
    none.fails(2, &["there is no file `none.txt`"]);
    // What cargo writes down at the first build is no change.
    assert!(!none.err.contains("meanwhile"), "{}", none.err);
}
