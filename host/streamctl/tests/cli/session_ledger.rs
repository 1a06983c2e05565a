//! The ledger of a session: its process is killed at random times while jobs run, and what each of them has
//! committed in the end is held against what went in.
//!
//! `SESSION=long` kills it more often (`scripts/test --long session`); `SEED=n` is for the times.

use std::time::Duration;

use platform::{Clock, Random};

use crate::ledger::{Case, windows, words};
use crate::session::Session;
use crate::support::{Folder, component};

const SLOTS: u32 = 4;
const PACED: &str = "sink.write=stall:4,source.read=stall:20";

fn is_long() -> bool {
    std::env::var("SESSION").is_ok_and(|what| what == "long")
}

/// One case as a job of a session, again and again, each time into folders of its own.
struct Running<'a> {
    case: &'a Case,
    parallelism: &'static str,
    times: u32,
    id: String,
}

impl Running<'_> {
    fn out(&self) -> String {
        format!("out-{}-{}", self.case.name, self.times)
    }

    fn checkpoints(&self) -> String {
        format!("chk-{}-{}", self.case.name, self.times)
    }

    fn submit(&mut self, session: &Session, folder: &Folder) {
        self.times += 1;
        let (wasm, out) = (component(self.case.component), self.out());
        let checkpoints = format!("-Dexecution.checkpointing.dir={}", self.checkpoints());
        let mut args =
            vec!["-d", "-p", self.parallelism, "-Dexecution.checkpointing.interval=10ms", &checkpoints];
        args.extend([&*wasm, "--input", self.case.name, "--output", &*out]);
        args.extend(self.case.job);
        let ran = session.ask(folder, "run", &args);
        let id = ran.succeeds().out.strip_prefix("Job has been submitted with JobID ").unwrap();
        self.id = id.trim().to_owned();
    }

    fn account(&self, folder: &Folder) -> Result<(), String> {
        self.case.account(folder, &self.out(), &self.checkpoints())
    }
}

/// Two jobs, submitted to this session.
fn submitted<'a>(cases: &'a [Case; 2], session: &Session, folder: &Folder) -> [Running<'a>; 2] {
    let [words, windows] = cases;
    let mut jobs = [(words, "2"), (windows, "1")].map(|(case, parallelism)| {
        folder.write(case.name, &case.input);
        Running { case, parallelism, times: 0, id: String::new() }
    });
    for job in &mut jobs {
        job.submit(session, folder);
    }
    jobs
}

#[test]
fn a_session_that_is_killed_at_random_brings_all_its_jobs_back() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = Random::of_seed(seed);
    let (ends, cases) = match is_long() {
        true => (24, [words(300_000), windows(1_500_000)]),
        false => (5, [words(40_000), windows(100_000)]),
    };
    let folder = Folder::new();
    let mut session = Session::with_faults(&folder, SLOTS, PACED);
    let mut jobs = submitted(&cases, &session, &folder);
    for end in 0..ends {
        Clock::system().sleep(Duration::from_millis(10 + random.below(400)));
        session.child.kill().unwrap();
        session.child.wait().unwrap();
        if end % 3 == 2 {
            // Once more, while it starts.
            let mut starting = Session::command(&folder, SLOTS, PACED).spawn().unwrap();
            Clock::system().sleep(Duration::from_millis(random.below(60)));
            starting.kill().unwrap();
            starting.wait().unwrap();
        }
        session = Session::with_faults(&folder, SLOTS, PACED);
        for job in &mut jobs {
            let status = session.status(&folder, &job.id);
            match status.as_str() {
                "CREATED" | "RUNNING" | "RESTARTING" | "INITIALIZING" => {}
                "FINISHED" => {
                    // It came to its end too soon: that is one account more, and it begins anew.
                    job.account(&folder).unwrap_or_else(|wrong| {
                        panic!("SEED={seed}, after {end} ends, {}: {wrong}", job.case.name)
                    });
                    job.submit(&session, &folder);
                }
                status => {
                    let log = session.ask(&folder, "logs", &[&job.id]).out;
                    panic!("SEED={seed}, after {end} ends, {} is `{status}`: {log}", job.case.name)
                }
            }
        }
    }
    for job in &jobs {
        session.wait_until(&folder, &job.id, "FINISHED");
        job.account(&folder).unwrap_or_else(|wrong| panic!("SEED={seed} {}: {wrong}", job.case.name));
    }
}

#[test]
fn a_session_whose_sink_forgets_to_commit_is_reported() {
    let cases = [words(20_000), windows(50_000)];
    let folder = Folder::new();
    let session = Session::with_faults(&folder, SLOTS, &format!("sink.rename@2=skip,{PACED}"));
    let jobs = submitted(&cases, &session, &folder);
    for job in &jobs {
        session.wait_until(&folder, &job.id, "FINISHED");
    }
    // The fault meets one of them.
    let wrong: Vec<String> = jobs.iter().filter_map(|job| job.account(&folder).err()).collect();
    let [wrong] = &wrong[..] else { panic!("{} accounts are wrong: {wrong:?}", wrong.len()) };
    assert!(wrong.contains("is left over") || wrong.contains("rows are committed"), "{wrong}");
}
