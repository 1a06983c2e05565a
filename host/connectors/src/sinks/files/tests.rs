//! Part files: their names, their order, and what is there before and after.

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use platform::Random;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::test_support::{World, connection, error_of, inserts, schema, with_format};

fn number_schema() -> SchemaRef {
    schema(&[("n", DataType::Int64, false)])
}

/// Rows of these numbers.
fn numbers(range: std::ops::Range<i64>) -> Batch {
    let column = Arc::new(Int64Array::from_iter_values(range));
    Batch::new(RecordBatch::try_new(number_schema(), vec![column]).unwrap())
}

fn sink_into(folder: &Path, options: &[(&str, &str)], format: &str) -> FilesFactory {
    let path = folder.display().to_string();
    let connection = connection("files", &[&[("path", path.as_str())], options].concat());
    FilesFactory::of(&with_format(connection, format, &[]), &inserts(&number_schema())).unwrap()
}

/// The names in a folder with what is in them, in the order of subtasks and numbers.
fn contents(folder: &Path) -> Vec<(String, String)> {
    let mut contents: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().display().to_string(), fs::read_to_string(path).unwrap()))
        .collect();
    contents.sort_by_key(|(name, _)| {
        let numbers = name.split(['-', '.']).filter_map(|part| part.parse::<u64>().ok());
        (numbers.collect::<Vec<_>>(), name.clone())
    });
    contents
}

fn names(folder: &Path) -> Vec<String> {
    contents(folder).into_iter().map(|(name, _)| name).collect()
}

/// All lines of all files, in the order of the files' numbers.
fn lines(folder: &Path) -> Vec<String> {
    contents(folder)
        .iter()
        .flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn texts_of(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn a_part_is_named_by_subtask_number_and_format() {
    for (format, text) in [("json", "{\"n\":0}\n"), ("csv", "n\n0\n"), ("text", "0\n")] {
        let folder = TempDir::new().unwrap();
        let factory = sink_into(folder.path(), &[], format);
        factory.prepare().unwrap();
        let mut world = World::system();
        for subtask in [0, 11] {
            let mut sink = factory.open(world.context(subtask, 12)).unwrap();
            world.write_one(sink.as_mut(), &numbers(0..1)).unwrap();
            world.finish(sink.as_mut()).unwrap();
        }
        let expected = [0, 11].map(|subtask| (format!("part-{subtask}-0.{format}"), text.to_owned()));
        assert_eq!(contents(folder.path()), expected);
    }
}

#[test]
fn json_is_written_unless_told_otherwise() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().display().to_string();
    let factory =
        FilesFactory::of(&connection("files", &[("path", &path)]), &inserts(&number_schema())).unwrap();
    World::system().write(&factory, &[numbers(0..1)]).unwrap();
    assert_eq!(names(folder.path()), ["part-0-0.json"]);
    assert_eq!(factory.needs(), [Need::Write(path)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn rolling_keeps_all_rows_in_order(
        sizes in proptest::collection::vec(0..40i64, 0..20),
        roll_bytes in 1..200u64,
        simulated in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let folder = TempDir::new().unwrap();
        let factory = sink_into(folder.path(), &[("roll-bytes", &roll_bytes.to_string())], "text");
        factory.prepare().unwrap();
        let mut world = if simulated { World::simulated(seed) } else { World::system() };
        let mut sink = factory.open(world.context(0, 1)).unwrap();
        let mut written = 0;
        for (i, size) in sizes.iter().enumerate() {
            world.write_one(sink.as_mut(), &numbers(written..written + size)).unwrap();
            written += size;
            if i % 3 == 1 {
                assert!(!matches!(sink.poll_flush(), Poll::Ready(Err(_))));
            }
        }
        world.finish(sink.as_mut()).unwrap();
        prop_assert_eq!(lines(folder.path()), texts_of(0..written));
        let contents = contents(folder.path());
        for (i, (name, text)) in contents.iter().enumerate() {
            prop_assert_eq!(name, &format!("part-0-{i}.text"));
            // Every file but the last has been filled, and none is empty.
            prop_assert!(!text.is_empty());
            prop_assert!(text.len() as u64 >= roll_bytes || i + 1 == contents.len());
        }
    }
}

/// Writes one number.
fn write_number(world: &mut World, sink: &mut dyn Sink, number: i64) {
    world.write_one(sink, &numbers(number..number + 1)).unwrap();
}

/// Lets time pass for a sink without rows: it is asked to flush when it is woken, by the end of a write or its time.
fn pass(world: &mut World, sink: &mut dyn Sink, time: Duration) {
    let clock = world.platform.clock.clone();
    let end = clock.now() + time;
    let mut random = Random::of_seed(1);
    loop {
        assert!(!matches!(sink.poll_flush(), Poll::Ready(Err(_))));
        if world.platform.io.run_one(&mut random) {
            continue;
        }
        match sink.wakes_at().filter(|at| *at <= end) {
            Some(at) => clock.advance(at.saturating_sub(clock.now())),
            None => return clock.advance(end - clock.now()),
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_file_is_finished_when_it_has_been_open_for_so_long_though_rows_come() {
    for format in ["text", "json", "parquet"] {
        let folder = TempDir::new().unwrap();
        let factory = sink_into(folder.path(), &[("roll-interval", "10s")], format);
        let mut world = World::simulated(1);
        let mut sink = factory.open(world.context(0, 1)).unwrap();
        // Nothing has come: nothing is due.
        pass(&mut world, sink.as_mut(), 100 * SECOND);
        assert_eq!(sink.wakes_at(), None);
        let part = |number: u64| folder.path().join(format!("part-0-{number}.{format}"));
        for second in 0..25 {
            write_number(&mut world, sink.as_mut(), second);
            pass(&mut world, sink.as_mut(), SECOND);
            // The first is open from 0 to 10, the second from its first row on, which is the next.
            assert_eq!(part(0).exists(), second >= 9, "{format} at {second}");
            assert_eq!(part(1).exists(), second >= 19, "{format} at {second}");
        }
        assert!(!part(2).exists());
        world.finish(sink.as_mut()).unwrap();
        assert!(part(2).exists() && !part(3).exists());
        if format == "text" {
            let first: Vec<String> =
                fs::read_to_string(part(0)).unwrap().lines().map(str::to_owned).collect();
            assert_eq!((first, lines(folder.path())), (texts_of(0..10), texts_of(0..25)));
        }
    }
}

#[test]
fn a_file_is_finished_when_no_row_has_come_for_so_long() {
    let folder = TempDir::new().unwrap();
    let factory = sink_into(folder.path(), &[("roll-inactivity", "2s")], "text");
    let mut world = World::simulated(1);
    let mut sink = factory.open(world.context(0, 1)).unwrap();
    for number in 0..5 {
        write_number(&mut world, sink.as_mut(), number);
        pass(&mut world, sink.as_mut(), SECOND);
        // A batch without rows is none.
        world.write_one(sink.as_mut(), &numbers(0..0)).unwrap();
    }
    assert_eq!(names(folder.path()), [".part-0-0.text.inprogress"]);
    pass(&mut world, sink.as_mut(), SECOND);
    assert_eq!(names(folder.path()), ["part-0-0.text"]);
    write_number(&mut world, sink.as_mut(), 5);
    pass(&mut world, sink.as_mut(), 3 * SECOND);
    assert_eq!(sink.wakes_at(), None);
    world.finish(sink.as_mut()).unwrap();
    assert_eq!(names(folder.path()), ["part-0-0.text", "part-0-1.text"]);
    assert_eq!(lines(folder.path()), texts_of(0..6));
}

/// One that gets no rows is not asked whether it is ready; one that gets them all the time is not asked to flush.
#[test]
fn a_file_is_finished_in_time_under_load() {
    let folder = TempDir::new().unwrap();
    let mut world = World::simulated(1);
    let mut sink =
        sink_into(folder.path(), &[("roll-interval", "10s")], "text").open(world.context(0, 1)).unwrap();
    for second in 0..30 {
        write_number(&mut world, sink.as_mut(), second);
        world.platform.clock.advance(SECOND);
        if second % 7 == 3 {
            assert!(!matches!(sink.poll_ready(), Poll::Ready(Err(_))));
            while world.platform.io.run_one(&mut Random::of_seed(1)) {}
        }
    }
    world.finish(sink.as_mut()).unwrap();
    assert!(names(folder.path()).len() >= 3, "{:?}", names(folder.path()));
    assert_eq!(lines(folder.path()), texts_of(0..30));
}

/// A file that was finished in time waits for its checkpoint, as others do.
#[test]
fn with_checkpoints_a_file_that_is_finished_in_time_is_seen_when_it_is_committed() {
    let folder = TempDir::new().unwrap();
    let mut world = World::simulated(1).with_checkpoints();
    let mut sink =
        sink_into(folder.path(), &[("roll-inactivity", "2s")], "text").open(world.context(0, 1)).unwrap();
    for number in 0..2 {
        write_number(&mut world, sink.as_mut(), number);
        pass(&mut world, sink.as_mut(), 3 * SECOND);
    }
    write_number(&mut world, sink.as_mut(), 2);
    let hidden = |number: u64| format!(".part-0-{number}.text.inprogress");
    assert_eq!(names(folder.path()), [hidden(0), hidden(1)]);
    let kept = world.prepare(sink.as_mut()).unwrap().unwrap();
    assert_eq!(sink.wakes_at(), None);
    sink.commit(1);
    world.finish(sink.as_mut()).unwrap();
    assert_eq!(names(folder.path()), [0, 1, 2].map(|number| format!("part-0-{number}.text")));
    assert_eq!(lines(folder.path()), texts_of(0..3));
    sink_into(folder.path(), &[], "text").restore(&[kept], &Faults::none()).unwrap();
    assert_eq!(lines(folder.path()), texts_of(0..3));
}

#[test]
fn each_part_of_csv_has_its_header() {
    let folder = TempDir::new().unwrap();
    let factory = sink_into(folder.path(), &[("roll-bytes", "4")], "csv");
    World::system().write(&factory, &[numbers(0..2), numbers(2..3), numbers(3..4)]).unwrap();
    let texts: Vec<String> = contents(folder.path()).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["n\n0\n1\n", "n\n2\n", "n\n3\n"]);
}

#[test]
fn more_than_is_held_back_is_written_on_the_way() {
    let folder = TempDir::new().unwrap();
    let factory = sink_into(folder.path(), &[], "text");
    let mut world = World::simulated(1);
    let mut sink = factory.open(world.context(0, 1)).unwrap();
    let batches = 40;
    for i in 0..batches {
        world.write_one(sink.as_mut(), &numbers(i * 10_000..(i + 1) * 10_000)).unwrap();
    }
    let under_way = contents(folder.path());
    assert_eq!(under_way.len(), 1);
    assert!(under_way[0].1.len() >= HELD_BYTES);
    world.finish(sink.as_mut()).unwrap();
    assert_eq!(lines(folder.path()), texts_of(0..batches * 10_000));
}

#[test]
fn a_file_under_way_has_a_dot_in_front() {
    let folder = TempDir::new().unwrap();
    let factory = sink_into(folder.path(), &[], "text");
    let mut world = World::simulated(1);
    let mut sink = factory.open(world.context(2, 3)).unwrap();
    world.write_one(sink.as_mut(), &numbers(0..3)).unwrap();
    assert_eq!(names(folder.path()), Vec::<String>::new());
    assert!(!matches!(sink.poll_flush(), Poll::Ready(Err(_))));
    world.wait();
    assert_eq!(contents(folder.path()), [(".part-2-0.text.inprogress".to_owned(), "0\n1\n2\n".to_owned())]);
    world.finish(sink.as_mut()).unwrap();
    assert_eq!(contents(folder.path()), [("part-2-0.text".to_owned(), "0\n1\n2\n".to_owned())]);
}

/// Rows that come while a write is under way are not forgotten when it ends.
#[test]
fn what_comes_during_a_write_is_sent_after_it() {
    let folder = TempDir::new().unwrap();
    let mut world = World::simulated(1);
    let mut sink = sink_into(folder.path(), &[], "text").open(world.context(0, 1)).unwrap();
    world.write_one(sink.as_mut(), &numbers(0..1)).unwrap();
    assert!(sink.poll_flush().is_ready());
    world.write_one(sink.as_mut(), &numbers(1..2)).unwrap();
    assert!(sink.poll_flush().is_pending());
    world.wait();
    assert!(sink.poll_flush().is_ready());
    world.wait();
    assert_eq!(contents(folder.path()), [(".part-0-0.text.inprogress".to_owned(), "0\n1\n".to_owned())]);
}

#[test]
fn a_sink_without_rows_makes_no_file() {
    let folder = TempDir::new().unwrap();
    World::system().write(&sink_into(folder.path(), &[], "text"), &[]).unwrap();
    World::system().write(&sink_into(folder.path(), &[], "json"), &[numbers(0..0)]).unwrap();
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_dropped_sink_leaves_no_file_under_way() {
    let folder = TempDir::new().unwrap();
    let factory = sink_into(folder.path(), &[], "text");
    for world in [&mut World::system(), &mut World::simulated(1)] {
        let mut sink = factory.open(world.context(0, 1)).unwrap();
        world.write_one(sink.as_mut(), &numbers(0..3)).unwrap();
        assert!(!matches!(sink.poll_flush(), Poll::Ready(Err(_))));
        world.wait();
        assert!(sink.poll_ready().is_ready());
        drop(sink);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn a_sink_that_is_dropped_while_it_writes_leaves_no_file() {
    for _ in 0..20 {
        let folder = TempDir::new().unwrap();
        let world = &mut World::system();
        let mut sink = sink_into(folder.path(), &[], "text").open(world.context(0, 1)).unwrap();
        world.write_one(sink.as_mut(), &numbers(0..3)).unwrap();
        assert!(!matches!(sink.poll_flush(), Poll::Ready(Err(_))));
        drop(sink);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn a_folder_is_made_where_there_is_none() {
    let folder = TempDir::new().unwrap();
    let deep = folder.path().join("a/b");
    let factory = sink_into(&deep, &[], "text");
    factory.prepare().unwrap();
    World::system().write(&factory, &[numbers(0..1)]).unwrap();
    assert_eq!(names(&deep), ["part-0-0.text"]);
}

#[test]
fn a_folder_that_is_not_empty_is_refused() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("part-0-0.text"), "old").unwrap();
    let error = error_of(sink_into(folder.path(), &[], "text").prepare());
    assert_eq!(error.message, format!("the output folder `{}` is not empty", folder.path().display()));
    assert_eq!(error.detail.as_deref(), Some("`part-0-0.text` is in it"));
    assert_eq!(error.hint.as_deref(), Some("name another folder, or empty this one"));
}

#[test]
fn names_with_a_dot_do_not_count() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(".part-0-0.text.inprogress"), "left over from a job that failed").unwrap();
    fs::write(folder.path().join(".other"), "").unwrap();
    let factory = sink_into(folder.path(), &[], "text");
    factory.prepare().unwrap();
    World::system().write(&factory, &[numbers(0..1)]).unwrap();
    assert_eq!(names(folder.path()), [".other", "part-0-0.text"]);
    assert_eq!(lines(folder.path()), ["0"]);
}

#[test]
fn a_file_is_no_folder() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "").unwrap();
    let error = error_of(sink_into(&path, &[], "text").prepare());
    assert_eq!(error.message, format!("the output `{}` is not a folder", path.display()));
    let error = error_of(sink_into(&path.join("b"), &[], "text").prepare());
    assert_eq!(error.message, format!("cannot write to the folder `{}`", path.join("b").display()));
}

#[test]
fn another_sinks_file_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let factory = sink_into(folder.path(), &[], "text");
    World::system().write(&factory, &[numbers(0..1)]).unwrap();
    let error = error_of(World::system().write(&factory, &[numbers(1..2)]));
    assert_eq!(error.detail.as_deref(), Some("another sink has written this file"));
    assert_eq!(contents(folder.path()), [("part-0-0.text".to_owned(), "0\n".to_owned())]);
}

#[test]
fn a_folder_that_goes_away_fails_the_sink() {
    let folder = TempDir::new().unwrap();
    let gone = folder.path().join("gone");
    let error = error_of(World::system().write(&sink_into(&gone, &[], "text"), &[numbers(0..1)]));
    assert_eq!(error.message, format!("cannot write `{}`", gone.join("part-0-0.text").display()));
    assert_eq!(error.blame, model::diagnostic::Blame::External);
}

#[test]
fn nested_rows_fit_json_and_not_csv() {
    let nested = DataType::List(arrow_schema::Field::new("item", DataType::Int64, true).into());
    let schema = schema(&[("list", nested, true)]);
    let connection = connection("files", &[("path", "out")]);
    assert!(FilesFactory::of(&connection, &inserts(&schema)).is_ok());
    let error = error_of(FilesFactory::of(&with_format(connection, "csv", &[]), &inserts(&schema)));
    assert_eq!(error.message, "csv cannot hold nested columns");
}

#[test]
fn a_changelogs_kinds_are_the_first_column() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().display().to_string();
    let changes = Arriving { schema: number_schema(), changes: true };
    let factory = FilesFactory::of(&connection("files", &[("path", &path)]), &changes).unwrap();
    let batch = numbers(0..3).with_kinds(Some(vec![0u8, 1, 2].into()));
    World::system().write(&factory, &[batch, numbers(7..8)]).unwrap();
    let expected = ["+I", "-U", "+U", "+I"].iter().zip([0, 1, 2, 7]);
    let expected: Vec<String> = expected.map(|(op, n)| format!("{{\"op\":\"{op}\",\"n\":{n}}}")).collect();
    assert_eq!(lines(folder.path()), expected);
}

/// Writes numbers with checkpoints, with a crash at random and a restore, again and again. What rows are to be
/// seen in the end; each run goes on behind the rows of its last complete checkpoint.
fn crashed_and_gone_on(seed: u64, folder: &Path) -> Vec<String> {
    let mut random = Random::of_seed(seed);
    let roll = (1 + random.below(60)).to_string();
    let (mut complete, mut states): (i64, Option<Vec<String>>) = (0, None);
    let all = 400;
    for run in 0.. {
        let factory = sink_into(folder, &[("roll-bytes", &roll)], "text");
        match &states {
            None => factory.prepare().unwrap(),
            Some(states) => factory.restore(states, &Faults::none()).unwrap(),
        }
        let mut world = World::simulated(seed + run).with_checkpoints();
        let parallelism = 1 + random.below(3) as u32;
        let mut sinks: Vec<_> =
            (0..parallelism).map(|i| factory.open(world.context(i, parallelism)).unwrap()).collect();
        let mut next = complete;
        let steps = if run == 6 { u64::MAX } else { random.below(30) };
        for _ in 0..steps {
            if next < all {
                let end = (next + 1 + random.below(9) as i64).min(all);
                let sink = random.below(u64::from(parallelism)) as usize;
                world.write_one(sinks[sink].as_mut(), &numbers(next..end)).unwrap();
                next = end;
            }
            if random.one_in(3) || next == all {
                let prepared: Vec<String> =
                    sinks.iter_mut().map(|sink| world.prepare(sink.as_mut()).unwrap().unwrap()).collect();
                // The crash comes before the checkpoint is complete, or after, committed or not.
                if random.one_in(6) && run < 6 {
                    break;
                }
                (complete, states) = (next, Some(prepared));
                if random.one_in(6) && run < 6 {
                    break;
                }
                sinks.iter_mut().for_each(|sink| sink.commit(1));
                if next == all && run == 6 {
                    for sink in &mut sinks {
                        world.finish(sink.as_mut()).unwrap();
                    }
                    let seen = contents(folder).into_iter().filter(|(name, _)| !name.starts_with('.'));
                    let mut lines: Vec<String> = seen
                        .flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>())
                        .collect();
                    lines.sort_by_key(|line| line.parse::<i64>().unwrap());
                    return lines;
                }
            }
            // What was submitted may run before the crash, or never.
            while random.one_in(2) && world.platform.io.run_one(&mut random) {}
        }
        // A crash: nothing is cleaned up.
        sinks.into_iter().for_each(std::mem::forget);
    }
    unreachable!("the last run comes to the end")
}

#[test]
fn each_row_is_seen_once_whatever_crashes() {
    for seed in 0..200 {
        let folder = TempDir::new().unwrap();
        let lines = crashed_and_gone_on(seed, folder.path());
        assert_eq!(lines, texts_of(0..400), "seed {seed}");
        let hidden = names(folder.path()).into_iter().filter(|name| name.ends_with(".inprogress"));
        assert_eq!(hidden.collect::<Vec<_>>(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn rows_are_seen_only_when_they_are_committed_and_files_that_are_gone_are_missed() {
    let folder = TempDir::new().unwrap();
    let factory = sink_into(folder.path(), &[], "text");
    factory.prepare().unwrap();
    let mut world = World::system().with_checkpoints();
    let mut sink = factory.open(world.context(0, 1)).unwrap();
    world.write_one(sink.as_mut(), &numbers(0..2)).unwrap();
    let first = world.prepare(sink.as_mut()).unwrap().unwrap();
    world.write_one(sink.as_mut(), &numbers(2..3)).unwrap();
    let second = world.prepare(sink.as_mut()).unwrap().unwrap();
    assert_eq!(names(folder.path()), [".part-0-0.text.inprogress", ".part-0-1.text.inprogress"]);
    assert!(sink.poll_finish().is_pending());
    sink.commit(2);
    world.finish(sink.as_mut()).unwrap();
    assert_eq!(names(folder.path()), ["part-0-0.text", "part-0-1.text"]);
    // Again, and back to the first: what came later is put aside.
    let restore = |state: &String| {
        sink_into(folder.path(), &[], "text").restore(std::slice::from_ref(state), &Faults::none())
    };
    restore(&second).unwrap();
    restore(&first).unwrap();
    restore(&first).unwrap();
    assert_eq!(names(folder.path()), ["part-0-0.text", ".superseded-part-0-1.text"]);
    fs::remove_file(folder.path().join("part-0-0.text")).unwrap();
    assert!(error_of(restore(&first)).message.ends_with("part-0-0.text` is not there any more"));
}
