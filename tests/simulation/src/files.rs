//! Files as they are written and found while a job runs.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use checkpoint::Storage;
use model::job_graph::{JobGraph, NodeKind};
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Faults, Inbox, Platform, Random};
use task::simulation::{Fault, options};
use task::{Checkpoints, Restored};

use crate::checkpoints::{JOB_ID, seen, settings, with_files};
use crate::simulated::{Simulated, Unheard, load, seeds};

/// Files that come while a job runs, each under a name that counts for nothing before.
struct Drops {
    folder: PathBuf,
    left: VecDeque<(String, String)>,
    random: Random,
}

impl Drops {
    fn of(folder: &Path, random: &mut Random) -> Self {
        let left = (0..2 + random.below(12))
            .map(|number| {
                let lines = if random.one_in(5) { 120 } else { random.below(12) };
                let line = |line| format!("w{} f{number}\n", (line * 7 + number) % 23);
                // In no order.
                (format!("part-{:03}", number * 389 % 1_000), (0..lines).map(line).collect())
            })
            .collect();
        Self { folder: folder.to_owned(), left, random: Random::of_seed(random.bits()) }
    }

    fn drop_one(&mut self) {
        if let Some((name, text)) = self.left.pop_front() {
            std::fs::write(self.folder.join(".under-way"), text).unwrap();
            std::fs::rename(self.folder.join(".under-way"), self.folder.join(name)).unwrap();
        }
    }
}

/// Drops files now and then, as something that is under way in the pool; all of them in so many passings.
fn drop_later(drops: &Arc<Mutex<Drops>>, platform: &Platform, passings: u64) {
    let (again, drops) = (platform.clone(), Arc::clone(drops));
    platform.io.submit(&Inbox::new(Waker::noop().clone()), move || {
        let mut dropping = drops.lock().unwrap();
        again.clock.advance(Duration::from_millis(1));
        let is_due = dropping.random.one_in(20) || passings < dropping.left.len() as u64;
        if is_due {
            dropping.drop_one();
        }
        drop(dropping);
        if passings > 0 {
            drop_later(&drops, &again, passings - 1);
        }
    });
}

/// Counts words of files that come, by a job that crashes and goes on at another parallelism. What is to be seen and
/// what is, and how often it has gone on from a checkpoint.
fn crashed_and_gone_on(
    simulated: &Simulated,
    seed: u64,
) -> Result<([BTreeMap<String, i64>; 2], u64), String> {
    let mut random = Random::of_seed(seed);
    let (disk, input, output) =
        (ModelDisk::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut drops = Drops::of(input.path(), &mut random);
    let mut expected = BTreeMap::new();
    let mut counts = BTreeMap::<&str, u64>::new();
    for word in drops.left.iter().flat_map(|(_, text)| text.split_whitespace()) {
        let count = counts.entry(word).or_default();
        *count += 1;
        expected.insert(format!("{{\"word\":\"{word}\",\"count\":{count}}}"), 1);
    }
    (0..random.below(4)).for_each(|_| drops.drop_one());
    let drops = Arc::new(Mutex::new(drops));
    let args = ["--input".to_owned(), input.path().display().to_string()];
    let crashes = 1 + random.below(4);
    let mut gone_on = 0;
    for attempt in 0..=crashes {
        let storage = Storage::new(Arc::new(FileStore::new(Arc::new(disk.clone()), Faults::none())), JOB_ID);
        let latest = storage.latest(|manifest| Restored::read(manifest, &storage));
        let latest = latest.map_err(|error| error.to_string())?;
        let restored = latest.found.map(Arc::new);
        gone_on += u64::from(restored.is_some());
        let mut options = options(random.bits(), [1, 2, 3, 7][random.below(4) as usize]);
        options.max_parallelism = Some(128);
        options.allow = vec![output.path().display().to_string()];
        options.checkpoints = Some(Checkpoints {
            settings: settings(Some(Duration::from_millis(1 + random.below(40))), 1),
            storage,
            job_id: JOB_ID.to_owned(),
            takes_over: attempt > 0,
            restored,
            next: latest.next,
            retained: Vec::new(),
        });
        let steps = if attempt < crashes { random.below(2_000) } else { 10_000 };
        drop_later(&drops, simulated.platform(), 10 + random.below(200));
        let change = |graph: &mut JobGraph| {
            with_files(graph, output.path(), false);
            for node in &mut graph.nodes {
                if let NodeKind::Source(connection) = &mut node.kind {
                    connection.options.insert("monitor-interval".into(), "20ms".into());
                }
            }
        };
        let fault = Some(Fault::Crash(steps));
        let nobody = Unheard::Nobody;
        let report =
            simulated.run_in_files("word_count", &args, options, random.bits(), fault, nobody, change);
        let report = report.map_err(|error| format!("{error:?}"))?;
        if report.outcome.is_some() {
            return Err(format!("attempt {attempt} ended with {:?}", report.outcome));
        }
        disk.crash(&mut random);
    }
    Ok(([expected, seen(output.path(), false)], gone_on))
}

#[test]
fn words_of_files_that_come_are_counted_once_whatever_crashes() {
    let simulated = load("word_count");
    let mut all_gone_on = 0;
    for seed in seeds().into_iter().take(80) {
        match crashed_and_gone_on(&simulated, seed) {
            Ok(([expected, seen], gone_on)) => {
                assert_eq!(seen, expected, "SEED={seed}");
                all_gone_on += gone_on;
            }
            Err(error) => panic!("SEED={seed}: {error}"),
        }
    }
    assert!(
        all_gone_on > 80 || seeds().len() == 1,
        "only {all_gone_on} times went they on from a checkpoint"
    );
}

/// A row, and none for an hour: the file is finished though none comes after it.
#[test]
fn a_file_is_finished_when_no_row_has_come_for_so_long() {
    let simulated = load("word_count");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let change = |graph: &mut JobGraph| {
        for node in &mut graph.nodes {
            let (NodeKind::Source(connection) | NodeKind::Sink(connection)) = &mut node.kind else {
                continue;
            };
            let (connector, options) = match connection.connector.as_str() {
                "values" => ("generator", [("kind", "words"), ("rate", "0.0003")].to_vec()),
                _ => ("files", [("path", path.as_str()), ("roll-inactivity", "10s")].to_vec()),
            };
            connection.options =
                options.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            connection.format = (connector == "files").then(|| "text".to_owned());
            connection.connector = connector.to_owned();
        }
    };
    let mut options = options(1, 1);
    options.allow = vec![path.clone()];
    let fault = Some(Fault::Crash(10_000));
    let report =
        simulated.run_in_files("word_count", &[], options, 1, fault, Unheard::Nobody, change).unwrap();
    assert_eq!(report.progress.rows_in, 1, "{report:?}");
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["part-0-0.text"]);
    // A line has ten words.
    let text = std::fs::read_to_string(folder.path().join("part-0-0.text")).unwrap();
    assert_eq!(text.lines().count(), 10);
}
