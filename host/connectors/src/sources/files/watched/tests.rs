//! Files that come while they are read: each is read once, whoever it belongs to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::DataType;
use platform::Random;
use tempfile::TempDir;

use super::*;
use crate::formats::parquet::file_of;
use crate::sources::files::FilesFactory;
use crate::sources::files::parquet::ParquetFactory;
use crate::test_support::{World, connection, error_of, numbers, schema, text_schema, texts, with_format};
use crate::{Source, SourceFactory, SourcePoll};

const INTERVAL: Duration = Duration::from_secs(1);

/// Lines of the files that this names, and of those that come.
fn watched(pattern: &str) -> FilesFactory {
    let options = [("path", pattern), ("monitor-interval", "1s")];
    FilesFactory::of(&connection("files", &options), &text_schema()).unwrap()
}

fn bounded(pattern: &str) -> FilesFactory {
    FilesFactory::of(&connection("files", &[("path", pattern)]), &text_schema()).unwrap()
}

fn path_of(folder: &TempDir) -> String {
    folder.path().display().to_string()
}

fn open(world: &World, factory: &dyn SourceFactory, parallelism: u32) -> Vec<Box<dyn Source>> {
    (0..parallelism).map(|subtask| factory.open(world.context(subtask, parallelism)).unwrap()).collect()
}

/// All that comes until nothing is under way any more; by subtask.
fn settle(world: &mut World, sources: &mut [Box<dyn Source>]) -> Result<Vec<Vec<String>>, Diagnostic> {
    let mut came = vec![Vec::new(); sources.len()];
    loop {
        for (source, came) in sources.iter_mut().zip(&mut came) {
            loop {
                match source.poll()? {
                    SourcePoll::Rows(decoded) => came.extend(texts(&decoded.batch)),
                    SourcePoll::Pending => break,
                    SourcePoll::End => panic!("it never ends"),
                }
            }
        }
        if !world.platform.io.run_one(&mut Random::of_seed(1)) {
            return Ok(came);
        }
    }
}

/// Ends some of what is under way, if there is something.
fn run_one(world: &World, random: &mut Random) -> bool {
    world.platform.io.run_one(random)
}

/// The same after the interval, sorted, of all subtasks.
fn after_interval(world: &mut World, sources: &mut [Box<dyn Source>]) -> Vec<String> {
    let at = world.platform.clock.now();
    assert!(
        sources
            .iter()
            .all(|source| source.wakes_at().is_some_and(|wakes| wakes > at && wakes <= at + INTERVAL))
    );
    world.platform.clock.advance(INTERVAL);
    let mut came = settle(world, sources).unwrap().concat();
    came.sort_unstable();
    came
}

/// Puts a file into a folder as is to be done.
fn drop_in(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(".under-way"), text).unwrap();
    fs::rename(folder.join(".under-way"), folder.join(name)).unwrap();
}

#[test]
fn files_that_come_are_read_once_and_only_as_long_as_they_were() {
    let folder = TempDir::new().unwrap();
    drop_in(folder.path(), "a", "a1\na2\n");
    for parallelism in [1, 3] {
        let mut world = World::simulated(1);
        let factory = watched(&path_of(&folder));
        factory.prepare().unwrap();
        assert!(!factory.bounded() && factory.bytes_total().is_none() && factory.can_go_back());
        let mut sources = open(&world, &factory, parallelism);
        assert_eq!(settle(&mut world, &mut sources).unwrap().concat(), ["a1", "a2"]);
        assert_eq!(after_interval(&mut world, &mut sources), Vec::<String>::new());
        drop_in(folder.path(), "b", "b1\n");
        fs::create_dir_all(folder.path().join("deep/.hidden")).unwrap();
        drop_in(&folder.path().join("deep"), "c", "c1\nc2");
        drop_in(&folder.path().join("deep"), "_d", "no");
        drop_in(&folder.path().join("deep/.hidden"), "e", "no");
        // Before it is time nobody looks.
        assert_eq!(settle(&mut world, &mut sources).unwrap().concat(), Vec::<String>::new());
        assert_eq!(after_interval(&mut world, &mut sources), ["b1", "c1", "c2"]);
        // What is appended, and another file of a name that has been read.
        fs::write(folder.path().join("b"), "b1\nb2\n").unwrap();
        fs::remove_file(folder.path().join("a")).unwrap();
        assert_eq!(after_interval(&mut world, &mut sources), Vec::<String>::new());
        drop_in(folder.path(), "a", "a3\n");
        assert_eq!(after_interval(&mut world, &mut sources), Vec::<String>::new());
        // One that is empty may be about to be written.
        drop_in(folder.path(), "f", "");
        assert_eq!(after_interval(&mut world, &mut sources), Vec::<String>::new());
        fs::write(folder.path().join("f"), "f1\n").unwrap();
        assert_eq!(after_interval(&mut world, &mut sources), ["f1"]);
        fs::remove_dir_all(folder.path().join("deep")).unwrap();
        drop_in(folder.path(), "a", "a1\na2\n");
        fs::remove_file(folder.path().join("b")).unwrap();
        fs::remove_file(folder.path().join("f")).unwrap();
    }
}

#[test]
fn a_glob_finds_what_comes_to_match_it() {
    let folder = TempDir::new().unwrap();
    let mut world = World::simulated(1);
    let factory = watched(&format!("{}/*.log", path_of(&folder)));
    factory.prepare().unwrap();
    let mut sources = open(&world, &factory, 2);
    assert_eq!(settle(&mut world, &mut sources).unwrap().concat(), Vec::<String>::new());
    drop_in(folder.path(), "1.log", "1\n");
    drop_in(folder.path(), "2.txt", "no\n");
    drop_in(folder.path(), "_3.log", "no\n");
    assert_eq!(after_interval(&mut world, &mut sources), ["1"]);
}

#[test]
fn each_file_is_one_subtasks_and_all_have_some() {
    let folder = TempDir::new().unwrap();
    for number in 0..60 {
        drop_in(folder.path(), &format!("part-{number}"), &format!("{number} a\n{number} b\n"));
    }
    let mut world = World::simulated(1).with_batches(1, 1);
    let mut sources = open(&world, &watched(&path_of(&folder)), 3);
    let mut owners = BTreeMap::new();
    for (subtask, came) in settle(&mut world, &mut sources).unwrap().iter().enumerate() {
        assert!(came.len() > 20, "subtask {subtask} has {} lines", came.len());
        for line in came {
            let file = line.split(' ').next().unwrap().to_owned();
            assert_eq!(*owners.entry(file).or_insert(subtask), subtask);
        }
    }
    assert_eq!(owners.len(), 60);
}

/// More than may wait.
#[test]
fn many_files_are_found_one_part_after_the_other() {
    let folder = TempDir::new().unwrap();
    let count = 2 * WAITING_MAX + 3;
    for number in 0..count {
        fs::write(folder.path().join(format!("{number:05}")), format!("{number:05}\n")).unwrap();
    }
    let mut world = World::simulated(1);
    let mut sources = open(&world, &watched(&path_of(&folder)), 1);
    let came = settle(&mut world, &mut sources).unwrap().concat();
    assert_eq!(came, (0..count).map(|number| format!("{number:05}")).collect::<Vec<_>>());
    drop_in(folder.path(), "more", "more\n");
    assert_eq!(after_interval(&mut world, &mut sources), ["more"]);
}

#[test]
fn where_no_file_can_come_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = path_of(&folder);
    fs::write(folder.path().join("a"), "a").unwrap();
    let refused = |pattern: &str| error_of(watched(pattern).prepare());
    let error = refused(&format!("{path}/a"));
    assert_eq!(error.message, format!("`{path}/a` is a file, in which no new files can come"));
    assert_eq!(error.hint.as_deref(), Some("name the folder, or leave `monitor-interval` out"));
    let error = refused(&format!("{path}/b"));
    assert_eq!(error.message, format!("there is no folder `{path}/b`"));
    // An empty one is none to be refused.
    fs::create_dir(folder.path().join("empty")).unwrap();
    watched(&format!("{path}/empty")).prepare().unwrap();
    let options = [("path", "in"), ("monitor-interval", "0s")];
    let error = error_of(FilesFactory::of(&connection("files", &options), &text_schema()));
    assert_eq!(error.message, "the option `monitor-interval` of `files` cannot be `0s`");
}

#[test]
fn a_folder_that_goes_away_fails_the_source() {
    let folder = TempDir::new().unwrap();
    let mut world = World::simulated(1);
    let path = folder.path().join("in");
    fs::create_dir(&path).unwrap();
    let factory = watched(&path.display().to_string());
    factory.prepare().unwrap();
    let mut sources = open(&world, &factory, 1);
    settle(&mut world, &mut sources).unwrap();
    fs::remove_dir(&path).unwrap();
    world.platform.clock.advance(INTERVAL);
    let error = error_of(settle(&mut world, &mut sources));
    assert_eq!(error.message, format!("there is no folder `{}`", path.display()));
}

/// Reads what is there and what comes, in runs of different parallelism that are cut off anywhere, some of which do
/// not look for new files. The lines that were given before the positions were taken.
fn cut_off_and_gone_on(seed: u64) -> (Vec<String>, Vec<String>) {
    let mut random = Random::of_seed(seed);
    let folder = TempDir::new().unwrap();
    let (mut all, mut given, mut positions) = (Vec::new(), Vec::new(), Vec::<String>::new());
    let mut next = 0;
    let mut drop_some = |random: &mut Random| {
        for _ in 0..random.below(4) {
            let lines: Vec<String> = (0..1 + random.below(30))
                .map(|line| format!("{next}-{line} {}", "x".repeat(random.below(40) as usize)))
                .collect();
            drop_in(folder.path(), &format!("f{}", (next * 7_919) % 1_000), &lines.join("\n"));
            all.extend(lines);
            next += 1;
        }
    };
    drop_some(&mut random);
    drop_in(folder.path(), "first", "first\n");
    for run in 0..6 {
        let last = run == 5;
        let mut world = World::simulated(seed + run)
            .with_batches(1 + random.below(9) as usize, 1 + random.below(300) as usize);
        let is_watched = last || !random.one_in(4);
        let factory = if is_watched { watched(&path_of(&folder)) } else { bounded(&path_of(&folder)) };
        factory.prepare().unwrap();
        factory.restore(&positions).unwrap();
        let parallelism = 1 + random.below(4) as u32;
        let mut sources = open(&world, &factory, parallelism);
        let mut steps = random.below(120);
        let mut quiet = 0;
        while (last && quiet < 3) || (!last && steps > 0) {
            steps = steps.saturating_sub(1);
            if random.one_in(20) && !last {
                drop_some(&mut random);
            }
            let source = random.below(u64::from(parallelism)) as usize;
            match sources[source].poll().unwrap() {
                SourcePoll::Rows(decoded) => given.extend(texts(&decoded.batch)),
                SourcePoll::Pending | SourcePoll::End => {}
            }
            if random.one_in(2) {
                run_one(&world, &mut random);
            }
            if last && world.platform.io.waiting() == 0 {
                let before = given.len();
                given.extend(settle(&mut world, &mut sources).unwrap().concat());
                quiet = if given.len() == before { quiet + 1 } else { 0 };
                world.platform.clock.advance(INTERVAL);
            } else if random.one_in(10) {
                world.platform.clock.advance(INTERVAL);
            }
        }
        positions = sources.iter().map(|source| source.position().unwrap()).collect();
    }
    all.push("first".to_owned());
    all.sort_unstable();
    given.sort_unstable();
    (all, given)
}

#[test]
fn each_line_comes_once_however_often_reading_is_cut_off() {
    for seed in 0..300 {
        let (all, given) = cut_off_and_gone_on(seed);
        assert_eq!(given, all, "seed {seed}");
    }
}

#[test]
fn a_file_in_whose_middle_the_job_was_has_to_be_there() {
    let folder = TempDir::new().unwrap();
    drop_in(folder.path(), "a", &"a line\n".repeat(100));
    drop_in(folder.path(), "b", "b\n");
    let mut world = World::simulated(1).with_batches(3, 50);
    let factory = watched(&path_of(&folder));
    let mut sources = open(&world, &factory, 1);
    let mut given = 0;
    while given == 0 {
        if let SourcePoll::Rows(decoded) = sources[0].poll().unwrap() {
            given += decoded.batch.num_rows();
        }
        run_one(&world, &mut Random::of_seed(1));
    }
    let position = [sources[0].position().unwrap()];
    let again = watched(&path_of(&folder));
    again.restore(&position).unwrap();
    // What is appended is not its: it is as long as it was when it was found.
    fs::write(folder.path().join("a"), "a line\n".repeat(100) + "more\n").unwrap();
    let mut rest = open(&world, &again, 2);
    let rest = settle(&mut world, &mut rest).unwrap().concat();
    assert_eq!(rest.len(), 100 - given + 1);
    assert!(!rest.contains(&"more".to_owned()));
    fs::write(folder.path().join("a"), "short").unwrap();
    assert!(
        error_of(watched(&path_of(&folder)).restore(&position))
            .message
            .ends_with("a` is shorter than it was")
    );
    fs::remove_file(folder.path().join("a")).unwrap();
    assert!(
        error_of(watched(&path_of(&folder)).restore(&position)).message.ends_with("a` is not there any more")
    );
}

#[test]
fn files_of_parquet_that_come_are_read_once() {
    let folder = TempDir::new().unwrap();
    let schema = schema(&[("n", DataType::Int64, false)]);
    let file = |range: std::ops::Range<i64>| {
        let column = Arc::new(Int64Array::from_iter_values(range));
        file_of(&schema, &[RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap()], 10)
    };
    let put = |name: &str, bytes: Vec<u8>| {
        fs::write(folder.path().join(".under-way"), bytes).unwrap();
        fs::rename(folder.path().join(".under-way"), folder.path().join(name)).unwrap();
    };
    put("a", file(0..35));
    let factory = || {
        let path = path_of(&folder);
        let options = [("path", path.as_str()), ("monitor-interval", "1s")];
        ParquetFactory::of(&with_format(connection("files", &options), "parquet", &[]), &schema).unwrap()
    };
    let (mut came, mut positions) = (Vec::new(), Vec::<String>::new());
    for (run, parallelism) in [1, 3, 2].into_iter().enumerate() {
        let world = World::simulated(1).with_batches(4, 1_000);
        let factory = factory();
        factory.prepare().unwrap();
        factory.restore(&positions).unwrap();
        let mut sources = open(&world, &factory, parallelism);
        put(&format!("b{run}"), file(100 * (run as i64 + 1)..100 * (run as i64 + 1) + 25));
        for step in 0..if run == 2 { 400 } else { 9 } {
            for source in &mut sources {
                if let SourcePoll::Rows(decoded) = source.poll().unwrap() {
                    came.extend(numbers(&decoded.batch));
                }
            }
            run_one(&world, &mut Random::of_seed(step));
            world.platform.clock.advance(INTERVAL / 10);
        }
        positions = sources.iter().map(|source| source.position().unwrap()).collect();
    }
    came.sort_unstable();
    assert_eq!(came, [0..35, 100..125, 200..225, 300..325].into_iter().flatten().collect::<Vec<i64>>());
    // One that is none is named.
    let mut world = World::simulated(1);
    put("c", b"not of Parquet".to_vec());
    let mut sources = open(&world, &factory(), 1);
    let error = error_of(settle(&mut world, &mut sources));
    assert!(error.message.ends_with("c` as Parquet"), "{}", error.message);
}
