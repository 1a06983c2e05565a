//! Other code for a job that runs: `swap`, `diff` and `versions`.

use std::collections::BTreeMap;
use std::time::Duration;

use platform::Clock;
use serde_json::Value;

use crate::session::Session;
use crate::support::{Folder, Ran, component};

const ROWS: u64 = 800_000;
const KEYS: u64 = 997;

/// A job that counts by name, of which the component has several releases: its output tells them apart.
pub(crate) struct Tally<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) session: Session,
    pub(crate) id: String,
}

fn text() -> String {
    (0..ROWS).map(|number| format!("n{},{number}\n", number % KEYS)).collect()
}

/// The component with a section that nobody reads: the same code under another digest.
fn other(folder: &Folder, file: &str, name: &str) {
    let mut bytes = std::fs::read(component("operators")).unwrap();
    let section = [&[name.len() as u8], name.as_bytes()].concat();
    bytes.extend([0, section.len() as u8]);
    bytes.extend(section);
    folder.write(file, bytes);
}

impl<'a> Tally<'a> {
    fn start(folder: &'a Folder, stall: u32) -> Self {
        Self::begin(folder, Session::start(folder, 4, stall), &[])
    }

    /// In this session, with these options more.
    pub(crate) fn begin(folder: &'a Folder, session: Session, options: &[&str]) -> Self {
        folder.write("rows.csv", text());
        other(folder, "b.wasm", "b");
        let wasm = component("operators");
        let own = ["-d", "-p", "2", "-c", "tally", "-Dexecution.checkpointing.interval=50ms"];
        let args = [&wasm, "--input", "rows.csv", "--output", "out", "--format", "json"];
        let ran = session.ask(folder, "run", &[&own[..], options, &args].concat());
        let id = ran.succeeds().out.strip_prefix("Job has been submitted with JobID ").unwrap();
        let id = id.trim().to_owned();
        session.wait_until(folder, &id, "RUNNING");
        let this = Self { folder, session, id };
        this.runs_on();
        this
    }

    /// Waits until more rows have come out.
    pub(crate) fn runs_on(&self) {
        let committed = || std::fs::read_dir(self.folder.path("out")).into_iter().flatten().flatten();
        let is_whole = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("part-");
        let rows = || committed().filter(is_whole).count();
        let (clock, before) = (Clock::system(), rows());
        let end = clock.now() + Duration::from_secs(60);
        while rows() <= before {
            assert!(clock.now() < end, "no rows come out");
            clock.sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn ask(&self, verb: &str, args: &[&str]) -> Ran {
        let all: Vec<&str> = [self.id.as_str()].iter().chain(args).copied().collect();
        self.session.ask(self.folder, verb, &all)
    }

    pub(crate) fn ends(&self) {
        self.session.wait_until(self.folder, &self.id, "FINISHED");
    }

    /// The releases that have given the rows of a name, in the order of the rows; each row of the text is there once.
    pub(crate) fn releases(&self, folders: &[&str]) -> BTreeMap<String, Vec<i64>> {
        let mut all: BTreeMap<String, BTreeMap<u64, i64>> = BTreeMap::new();
        let rows = folders.iter().flat_map(|folder| self.folder.parts(folder));
        for row in rows {
            let row: Value = serde_json::from_str(&row).unwrap();
            let (name, count) = (row["name"].as_str().unwrap(), row["count"].as_u64().unwrap());
            assert_eq!(name, format!("n{}", row["number"].as_u64().unwrap() % KEYS));
            let before =
                all.entry(name.to_owned()).or_default().insert(count, row["release"].as_i64().unwrap());
            assert!(before.is_none(), "{row} came twice");
        }
        assert_eq!(all.values().map(BTreeMap::len).sum::<usize>(), ROWS as usize);
        assert_eq!(all.len(), KEYS as usize);
        all.into_iter()
            .map(|(name, rows)| {
                assert!(rows.keys().copied().eq(1..=rows.len() as u64), "{name} was counted otherwise");
                let mut releases: Vec<i64> = rows.into_values().collect();
                releases.dedup();
                (name, releases)
            })
            .collect()
    }
}

#[test]
fn a_running_job_changes_and_goes_back_with_its_state_and_says_what_it_was() {
    let folder = Folder::new();
    let job = Tally::start(&folder, 400);
    let args = ["--", "--input", "rows.csv", "--output", "out", "--format", "json", "--release", "2"];
    let second = [&["b.wasm"], &args[..]].concat();
    let diff = job.ask("diff", &second);
    assert!(diff.succeeds().out.contains("new       "), "{}", diff.out);
    assert!(diff.out.contains("The running job can take it over"), "{}", diff.out);
    let swapped = job.ask("swap", &second);
    assert!(swapped.succeeds().out.starts_with(&diff.out), "{}", swapped.out);
    assert!(swapped.out.contains(&format!("Changed job {} to component ", job.id)), "{}", swapped.out);
    job.runs_on();
    // It is shown as what runs, and as what it was when it is that again.
    let plan = || job.session.get(&format!("/jobs/{}/plan", job.id)).1.to_string();
    assert!(plan().contains("Filter"), "{}", plan());
    // Without arguments it has those that it runs with.
    let same = job.ask("diff", &["b.wasm"]);
    assert_eq!(same.succeeds().out.lines().last(), Some("Nothing differs."));
    let back = job.ask("swap", &["--back", "--json"]);
    let back: Value = serde_json::from_str(&back.succeeds().out).unwrap();
    assert!(back["checkpoint"].as_u64().unwrap() > 1, "{back}");
    assert!(!plan().contains("Filter"), "{}", plan());
    let listed: Value = serde_json::from_str(&job.ask("versions", &["--json"]).succeeds().out).unwrap();
    let listed = listed["versions"].as_array().unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0]["component"], listed[2]["component"]);
    assert_ne!(listed[0]["component"], listed[1]["component"]);
    assert_eq!(listed[1]["program-args"].as_array().unwrap().last().unwrap(), "2");
    assert_eq!(listed[2]["from-checkpoint"], back["checkpoint"]);
    assert_eq!(job.ask("versions", &[]).succeeds().out.lines().count(), 3);
    job.ends();
    let seen = job.releases(&["out"]);
    assert!(seen.values().all(|releases| *releases == [1, 2, 1]), "{:?}", seen.iter().next());
}

#[test]
fn a_session_that_is_killed_brings_the_version_of_the_checkpoint_back() {
    let folder = Folder::new();
    let mut job = Tally::start(&folder, 400);
    let args =
        ["b.wasm", "--", "--input", "rows.csv", "--output", "out", "--format", "json", "--release", "2"];
    job.ask("swap", &args).succeeds();
    for _ in 0..2 {
        job.session.child.kill().unwrap();
        job.session.child.wait().unwrap();
        job.session = Session::start(&folder, 4, 300);
        job.session.wait_until(&folder, &job.id, "RUNNING");
        job.runs_on();
        // A pause goes on as it was, too.
        job.ask("pause", &[]).succeeds();
        job.ask("resume", &[]).succeeds();
        job.session.wait_until(&folder, &job.id, "RUNNING");
    }
    assert_eq!(job.ask("versions", &[]).succeeds().out.lines().count(), 2);
    job.ends();
    let seen = job.releases(&["out"]);
    assert!(seen.values().all(|releases| *releases == [1, 2]), "{:?}", seen.iter().next());
}

#[test]
fn what_a_running_job_cannot_take_over_is_refused_and_done_by_a_restart() {
    let folder = Folder::new();
    let job = Tally::start(&folder, 400);
    let word_count = component("word_count");
    job.ask("swap", &["--back"]).fails(2, &["has been no other version"]);
    job.ask("swap", &[&word_count, "--", "--input", "rows.csv"]).fails(2, &["cannot change to this version"]);
    job.ask("swap", &["b.wasm", "--", "--nonsense"]).fails(2, &["nonsense"]);
    folder.write("bad.wasm", "no component");
    job.ask("swap", &["bad.wasm"]).fails(2, &["component"]);
    job.ask("swap", &["-c", "none", "b.wasm"]).fails(2, &["there is no job `none`"]);
    job.ask("swap", &[]).fails(2, &["FILE"]);
    let elsewhere = |input: &'static str, output: &'static str| {
        ["b.wasm", "--", "--input", input, "--output", output, "--format", "json", "--release", "2"]
    };
    let refused = job.ask("swap", &elsewhere("rows.csv", "out2"));
    refused.fails(2, &["the sink `", "has other settings", "`--restart` stops it with a savepoint"]);
    assert_eq!(job.ask("versions", &[]).succeeds().out.lines().count(), 1);
    // One that does not start: the job goes on as it was.
    for (options, input, why) in [
        (&["--restart"][..], "rows.csv", "state of `Sink: files`"),
        (&["--restart", "-n"], "none.csv", "none.csv"),
    ] {
        job.ask("swap", &[options, &elsewhere(input, "out2")[..]].concat()).fails(1, &[why]);
        job.session.wait_until(&folder, &job.id, "RUNNING");
        job.runs_on();
    }
    let restart = [&["--restart", "-n"], &elsewhere("rows.csv", "out2")[..]].concat();
    let restarted = job.ask("swap", &restart);
    assert!(restarted.succeeds().out.contains(&format!("Restarted job {} as component", job.id)));
    job.ends();
    let seen = job.releases(&["out", "out2"]);
    assert!(seen.values().all(|releases| *releases == [1, 2]), "{:?}", seen.iter().next());
    assert_eq!(job.session.get("/overview").1["slots-available"], 4);
}

/// The command has waited for the verdict, and says why, in the guest's words.
#[track_caller]
fn went_back(ran: &Ran) {
    assert_eq!(ran.code, 1, "{}", ran.err);
    for part in ["went back to the version before", "as told, of so many", "of 2 of `Tally -> Map -> Filter`"]
    {
        assert!(ran.err.contains(part), "`{part}` is not in: {}", ran.err);
    }
}

#[test]
fn a_version_on_probation_stays_or_goes_back_at_the_row_that_traps() {
    let folder = Folder::new();
    let job = Tally::start(&folder, 400);
    let release = |more: &[&'static str]| {
        let args = ["--", "--input", "rows.csv", "--output", "out", "--format", "json", "--release", "2"];
        ["b.wasm"].iter().chain(&args).chain(more).copied().collect::<Vec<_>>()
    };
    job.ask("swap", &[&["--probation", "never"], &release(&[])[..]].concat())
        .fails(2, &["the time of the probation"]);
    let trapping = [&["--probation", "60s"], &release(&["--trap-after", "150000"])[..]].concat();
    let failed = job.ask("swap", &trapping);
    went_back(&failed);
    let told: Value = serde_json::from_str(&job.ask("versions", &["--json"]).succeeds().out).unwrap();
    assert_eq!(told["standing"]["id"], "WENT_BACK", "{told}");
    let took = told["standing"]["trap-to-old-code"].as_f64().unwrap();
    assert!(took < 1_000.0, "{took} ms");
    let versions = told["versions"].as_array().unwrap();
    assert_eq!(versions.last().unwrap()["component"], versions[0]["component"], "{told}");
    let kept = job.ask("swap", &[&["--json", "--probation", "300ms"], &release(&[])[..]].concat());
    let kept: Value = serde_json::from_str(&kept.succeeds().out).unwrap();
    assert_eq!(kept["standing"]["id"], "KEPT", "{kept}");
    job.runs_on();
    job.ends();
    let seen = job.releases(&["out"]);
    assert!(seen.values().all(|releases| releases.first() == Some(&1)), "{:?}", seen.iter().next());
    assert!(seen.values().all(|releases| releases.last() == Some(&2)), "{:?}", seen.iter().next());
}

#[test]
fn an_exact_rollback_leaves_nothing_of_the_new_version() {
    let folder = Folder::new();
    let job = Tally::start(&folder, 400);
    let args = ["--output", "out", "--format", "json", "--release", "2", "--trap-after", "70000"];
    let before = ["--probation", "60s", "--rollback", "exact", "b.wasm", "--", "--input", "rows.csv"];
    went_back(&job.ask("swap", &[&before, &args[..]].concat()));
    assert_eq!(job.session.get(&format!("/jobs/{}", job.id)).1["state"], "RUNNING");
    job.ends();
    let seen = job.releases(&["out"]);
    assert!(seen.values().all(|releases| *releases == [1]), "{:?}", seen.iter().next());
}
