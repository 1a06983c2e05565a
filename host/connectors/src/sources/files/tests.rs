//! Files as they are found, cut and read, by threads and in simulation.

use std::os::unix::fs::symlink;
use std::task::Waker;

use arrow_schema::DataType;
use platform::Random;
use tempfile::TempDir;

use super::*;
use crate::test_support::{World, connection, error_of, schema, text_schema, texts, with_format};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn path_in(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// Files of lines at this path.
fn lines_of(path: &str) -> FilesFactory {
    FilesFactory::of(&connection("files", &[("path", path)]), &text_schema()).unwrap()
}

fn read(path: &str, parallelism: u32) -> Vec<String> {
    World::system().read(&lines_of(path), parallelism).unwrap().texts()
}

/// So many lines of very different lengths, each with its number.
fn many_lines(count: usize, seed: u64) -> Vec<String> {
    let mut random = Random::of_seed(seed);
    let length = |random: &mut Random| if random.one_in(20) { random.below(3_000) } else { random.below(60) };
    (0..count).map(|i| format!("{seed}-{i} {}", "x".repeat(length(&mut random) as usize))).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_unstable();
    lines
}

#[test]
fn one_file_is_read_in_order() {
    let folder = folder(&[("a.txt", "\u{FEFF}one\r\ntwo\n\nlast")]);
    assert_eq!(read(&path_in(&folder, "a.txt"), 1), ["one", "two", "", "last"]);
}

#[test]
fn each_line_comes_once_at_every_parallelism() {
    let files = [("a", many_lines(500, 1)), ("b", many_lines(30, 2)), ("c", many_lines(700, 3))];
    let folder = folder(&[]);
    for (name, lines) in &files {
        fs::write(folder.path().join(name), lines.join("\n")).unwrap();
    }
    let expected = sorted(files.iter().flat_map(|(_, lines)| lines.clone()).collect());
    let total: u64 =
        files.iter().map(|(name, _)| fs::metadata(folder.path().join(name)).unwrap().len()).sum();
    for parallelism in [1, 3, 7] {
        let factory = lines_of(&path_in(&folder, ""));
        let given = World::system().with_batches(20, 256).read(&factory, parallelism).unwrap();
        assert_eq!(given.sorted_texts(), expected, "parallelism {parallelism}");
        assert_eq!((given.bytes_read, factory.bytes_total()), (total, Some(total)));
        assert!(given.batches.iter().all(|(_, batch)| batch.num_rows() <= 20));
    }
}

#[test]
fn each_line_comes_once_in_every_simulated_order() {
    let lines = many_lines(400, 4);
    let folder = folder(&[("a", &lines.join("\r\n")), ("b", "\u{FEFF}tail")]);
    let expected = sorted([lines, vec!["tail".to_owned()]].concat());
    for seed in 0..30 {
        let batch_bytes = [1, 16, 200, 5_000][seed as usize % 4];
        let mut world = World::simulated(seed).with_batches(7, batch_bytes);
        let given = world.read(&lines_of(&path_in(&folder, "")), [1, 3, 7][seed as usize % 3]).unwrap();
        assert_eq!(given.sorted_texts(), expected, "seed {seed}");
    }
}

#[test]
fn subtasks_share_the_splits_of_a_file() {
    let folder = folder(&[("a", &many_lines(2_000, 5).join("\n"))]);
    let given = World::simulated(1).with_batches(10, 100).read(&lines_of(&path_in(&folder, "a")), 3).unwrap();
    for subtask in 0..3 {
        assert!(given.batches.iter().any(|(of, _)| *of == subtask), "subtask {subtask} read nothing");
    }
}

#[test]
fn a_folder_is_read_by_name_without_hidden_names() {
    let files = [
        ("b.txt", "2"),
        ("a/z.txt", "1"),
        ("c/deep/x.txt", "3"),
        (".hidden", "no"),
        ("_SUCCESS", "no"),
        (".git/x.txt", "no"),
        ("_temporary/x.txt", "no"),
        ("c/_x.txt", "no"),
    ];
    assert_eq!(read(&path_in(&folder(&files), ""), 1), ["1", "2", "3"]);
}

#[test]
fn a_hidden_file_is_read_where_it_is_named() {
    let folder = folder(&[("_x.txt", "1"), (".y/z.txt", "2")]);
    assert_eq!(read(&path_in(&folder, "_x.txt"), 1), ["1"]);
    assert_eq!(read(&path_in(&folder, ".y"), 1), ["2"]);
}

#[test]
fn links_to_files_are_read_and_links_to_folders_are_not() {
    let folder = folder(&[("a/x.txt", "1"), ("y.txt", "2")]);
    symlink(folder.path(), folder.path().join("a/circle")).unwrap();
    symlink(folder.path().join("y.txt"), folder.path().join("a/y.txt")).unwrap();
    assert_eq!(read(&path_in(&folder, "a"), 1), ["1", "2"]);
}

#[test]
fn a_glob_reads_what_it_matches() {
    let files = [
        ("1.log", "1"),
        ("2.log", "2"),
        ("3.txt", "no"),
        (".4.log", "no"),
        ("_5.log", "no"),
        ("d/6.log", "6"),
    ];
    let folder = folder(&files);
    fs::create_dir(folder.path().join("folder.log")).unwrap();
    assert_eq!(read(&path_in(&folder, "*.log"), 1), ["1", "2"]);
    assert_eq!(read(&path_in(&folder, "**/*.log"), 1), ["1", "2", "6"]);
    assert_eq!(read(&path_in(&folder, "[2-9].log"), 1), ["2"]);
}

#[test]
fn a_name_that_looks_like_a_glob_is_a_name_first() {
    let folder = folder(&[("[1].txt", "name"), ("1.txt", "glob")]);
    assert_eq!(read(&path_in(&folder, "[1].txt"), 1), ["name"]);
}

#[test]
fn empty_files_have_no_rows() {
    let folder = folder(&[("a", ""), ("b", ""), ("c", "\u{FEFF}")]);
    for parallelism in [1, 3] {
        assert_eq!(read(&path_in(&folder, "a"), parallelism), Vec::<String>::new());
        assert_eq!(read(&path_in(&folder, ""), parallelism), Vec::<String>::new());
    }
}

#[test]
fn a_missing_file_is_told_with_the_nearest_name() {
    let folder = folder(&[("orders.json", "")]);
    let path = path_in(&folder, "order.json");
    let error = error_of(lines_of(&path).prepare());
    assert_eq!(error.message, format!("there is no file `{path}`"));
    assert_eq!(error.hint, Some(format!("did you mean `{}`?", path_in(&folder, "orders.json"))));
}

#[test]
fn a_missing_file_with_nothing_near_says_where_is_looked() {
    let folder = folder(&[("orders.json", "")]);
    let hint = |name: &str| error_of(lines_of(&path_in(&folder, name)).prepare()).hint.unwrap();
    assert_eq!(hint("xyz"), "paths are relative to the folder in which streamctl runs");
    assert_eq!(hint("no/orders.json"), format!("there is no folder `{}` either", path_in(&folder, "no")));
}

#[test]
fn what_is_no_file_is_refused_before_the_job_starts() {
    let folder = folder(&[(".hidden", "")]);
    let message = |path: &str| error_of(lines_of(path).prepare()).message;
    let empty = path_in(&folder, "");
    assert_eq!(message(&empty), format!("there is no file in the folder `{empty}`"));
    let glob = path_in(&folder, "*.txt");
    assert_eq!(message(&glob), format!("no file matches `{glob}`"));
    assert_eq!(message("/dev/null"), "`/dev/null` is not a file");
    let bad = path_in(&folder, "[");
    assert_eq!(message(&bad), format!("`{bad}` is no glob"));
}

#[test]
fn a_line_of_ten_megabytes_is_one_row() {
    let long = "long ".repeat(2 << 20);
    let folder = folder(&[("a", &format!("before\n{long}\nafter"))]);
    for parallelism in [1, 3] {
        let rows = read(&path_in(&folder, "a"), parallelism);
        assert_eq!(rows.len(), 3, "parallelism {parallelism}");
        assert!(rows.contains(&long));
    }
}

#[test]
fn a_file_that_becomes_shorter_before_it_is_read_fails() {
    let folder = folder(&[("a", &many_lines(100, 6).join("\n"))]);
    let path = path_in(&folder, "a");
    let factory = lines_of(&path);
    factory.prepare().unwrap();
    fs::write(&path, "").unwrap();
    let error = error_of(World::system().read(&factory, 1));
    assert_eq!(error.message, format!("`{path}` became shorter while it was read"));
    assert_eq!(error.retry, model::diagnostic::Retry::Backoff);
}

#[test]
fn a_file_that_becomes_shorter_while_it_is_read_fails_after_what_was_there() {
    let folder = folder(&[("a", &many_lines(1_000, 7).join("\n"))]);
    let path = path_in(&folder, "a");
    let factory = lines_of(&path);
    factory.prepare().unwrap();
    let whole = fs::metadata(&path).unwrap().len();
    let mut world = World::simulated(1).with_batches(10, 100);
    let mut source = factory.open(world.context(0, 1)).unwrap();
    let mut rows = Vec::new();
    let error = loop {
        match source.poll() {
            Ok(SourcePoll::Rows(decoded)) => rows.extend(texts(&decoded.batch)),
            Ok(SourcePoll::Pending) => drop(world.wait()),
            Ok(SourcePoll::End) => panic!("the end of the file was not missed"),
            Err(error) => break error,
        }
        if !rows.is_empty() {
            File::options().write(true).open(&path).unwrap().set_len(2_000).unwrap();
        }
    };
    assert_eq!(error.message, format!("`{path}` became shorter while it was read"));
    assert_eq!(error.detail, Some(format!("it had {whole} bytes, now it ends at 2000")));
    assert!(!rows.is_empty() && rows == many_lines(1_000, 7)[..rows.len()]);
}

#[test]
fn a_file_that_grows_is_read_as_far_as_it_was() {
    let folder = folder(&[("a", "one\ntwo\n")]);
    let factory = lines_of(&path_in(&folder, "a"));
    factory.prepare().unwrap();
    fs::write(folder.path().join("a"), "one\ntwo\nthree\n").unwrap();
    assert_eq!(World::system().read(&factory, 3).unwrap().sorted_texts(), ["one", "two"]);
}

#[test]
fn csv_files_are_not_cut_and_each_has_its_header() {
    let record = "\"a\nb\",1\n";
    let text = format!("text,number\n{}", record.repeat(200));
    let folder = folder(&[("1.csv", &text), ("2.csv", &text), ("3.csv", &text)]);
    let connection = connection("files", &[("path", &path_in(&folder, ""))]);
    let connection = with_format(connection, "csv", &[("header", "true")]);
    let schema = schema(&[("text", DataType::Utf8, false), ("number", DataType::Int64, false)]);
    for parallelism in [1, 7] {
        let factory = FilesFactory::of(&connection, &schema).unwrap();
        let given =
            World::simulated(parallelism.into()).with_batches(9, 64).read(&factory, parallelism).unwrap();
        assert_eq!(given.failures, []);
        assert_eq!(given.texts(), vec!["a\nb"; 600]);
    }
}

#[test]
fn failures_name_the_file_and_the_place() {
    let folder = folder(&[("a.json", "{\"n\":1}\n\n{\"n\":x}\n{\"n\":2}\n{\"n\":null}")]);
    let path = path_in(&folder, "a.json");
    let connection = with_format(connection("files", &[("path", &path)]), "json", &[]);
    let factory = FilesFactory::of(&connection, &schema(&[("n", DataType::Int64, false)])).unwrap();
    let given = World::system().read(&factory, 1).unwrap();
    let failed: Vec<_> = given.failures.iter().map(|f| (f.place.clone(), f.record.as_slice())).collect();
    let place = |line| format!("{path}, line {line}");
    assert_eq!(failed, [(place(3), &b"{\"n\":x}"[..]), (place(5), b"{\"n\":null}")]);
}

#[test]
fn the_path_is_needed_and_asked_for() {
    let error = error_of(FilesFactory::of(&connection("files", &[]), &text_schema()));
    assert_eq!(error.message, "`files` needs the option `path`");
    assert_eq!(lines_of("logs/*").needs(), [Need::Read("logs/*".to_owned())]);
}

#[test]
fn a_source_that_is_dropped_while_it_reads_harms_nobody() {
    let folder = folder(&[("a", "one\n")]);
    let factory = lines_of(&path_in(&folder, "a"));
    factory.prepare().unwrap();
    let world = World::simulated(1);
    let mut source = factory.open(Context { waker: Waker::noop().clone(), ..world.context(0, 1) }).unwrap();
    assert!(matches!(source.poll(), Ok(SourcePoll::Pending)));
    drop(source);
    assert!(world.platform.io.run_one(&mut Random::of_seed(1)));
}

/// Lines that were given before subtasks noted where they were, and those that a later run reads.
fn stopped_and_gone_on(seed: u64, path: &str, again: &str) -> Result<Vec<String>, Diagnostic> {
    let mut random = Random::of_seed(seed);
    let mut world = World::simulated(seed).with_batches(7, [1, 16, 200, 5_000][seed as usize % 4]);
    let (mut lines, mut positions) = (Vec::new(), Vec::<String>::new());
    // Each run goes on where the one before was, at another parallelism.
    for _ in 0..3 {
        let factory = lines_of(if positions.is_empty() { path } else { again });
        factory.prepare()?;
        factory.restore(&positions)?;
        let polls: Vec<usize> = (0..1 + random.below(4)).map(|_| random.below(40) as usize).collect();
        let (given, next) = world.read_in_part(&factory, &polls)?;
        lines.extend(given.texts());
        positions = next;
    }
    let factory = lines_of(again);
    factory.prepare()?;
    factory.restore(&positions)?;
    let polls = vec![usize::MAX; 1 + random.below(4) as usize];
    let (given, _) = world.read_in_part(&factory, &polls)?;
    lines.extend(given.texts());
    Ok(sorted(lines))
}

#[test]
fn each_line_comes_once_however_often_reading_stops_and_goes_on() {
    let lines = many_lines(300, 6);
    let folder = folder(&[("a", &lines.join("\r\n")), ("b", "\u{FEFF}first\ntail"), ("c", "")]);
    let expected = sorted([lines, vec!["first".to_owned(), "tail".to_owned()]].concat());
    let path = path_in(&folder, "");
    for seed in 0..120 {
        assert_eq!(stopped_and_gone_on(seed, &path, &path).unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn a_position_that_is_lost_is_noticed() {
    let lines = many_lines(300, 6);
    let folder = folder(&[("a", &lines.join("\n"))]);
    let factory = lines_of(&path_in(&folder, "a"));
    factory.prepare().unwrap();
    let mut world = World::simulated(1).with_batches(7, 200);
    let (given, mut positions) = world.read_in_part(&factory, &[20, 20]).unwrap();
    positions.pop();
    let again = lines_of(&path_in(&folder, "a"));
    again.prepare().unwrap();
    again.restore(&positions).unwrap();
    let (rest, _) = world.read_in_part(&again, &[usize::MAX]).unwrap();
    assert_ne!(sorted([given.texts(), rest.texts()].concat()), sorted(lines));
}

#[test]
fn files_that_are_not_what_they_were_are_refused_and_what_was_appended_is_left() {
    let lines = many_lines(50, 7);
    let folder = folder(&[("a", &lines.join("\n")), ("read", "r\n")]);
    let (path, polls) = (path_in(&folder, ""), [12]);
    let factory = lines_of(&path);
    factory.prepare().unwrap();
    let mut world = World::system().with_batches(3, 200);
    let (given, positions) = world.read_in_part(&factory, &polls).unwrap();
    let again = || {
        let factory = lines_of(&path);
        factory.prepare().unwrap();
        factory.restore(&positions).map(|()| factory)
    };
    // A new file is read; of what was appended nobody knows whether it was there.
    fs::write(folder.path().join("a"), lines.join("\n") + "\nmore").unwrap();
    fs::write(folder.path().join("new"), "n").unwrap();
    let rest = world.read_in_part(&again().unwrap(), &[usize::MAX]).unwrap().0;
    let expected = sorted([lines.clone(), vec!["n".into(), "r".into()]].concat());
    assert_eq!(sorted([given.texts(), rest.texts()].concat()), expected);
    fs::write(folder.path().join("a"), "short").unwrap();
    assert!(error_of(again()).message.ends_with("a` is shorter than it was"));
    fs::remove_file(folder.path().join("a")).unwrap();
    assert!(error_of(again()).message.ends_with("a` is not there any more"));
}

/// What is done to a file, and what then is said of it where it is noticed.
type Deed = (fn(&Path), &'static str);

/// Reads a file of which lines are read, then does something to it.
fn read_and_do(seed: u64, parallelism: u32, path: &Path, deed: fn(&Path)) -> Result<Vec<String>, Diagnostic> {
    let factory = lines_of(&path.display().to_string());
    factory.prepare().unwrap();
    let world = World::simulated(seed).with_batches(10, 200);
    let mut sources: Vec<_> = (0..parallelism)
        .map(|subtask| factory.open(world.context(subtask, parallelism)).map(Some).unwrap())
        .collect();
    let mut random = Random::of_seed(seed);
    let (mut rows, mut is_done) = (Vec::new(), false);
    while sources.iter().any(Option::is_some) {
        for place in &mut sources {
            match place.as_mut().map(|source| source.poll()).transpose()? {
                Some(SourcePoll::Rows(decoded)) => rows.extend(texts(&decoded.batch)),
                Some(SourcePoll::End) => *place = None,
                Some(SourcePoll::Pending) | None => {}
            }
        }
        if !is_done && rows.len() > 50 + seed as usize * 3 {
            deed(path);
            is_done = true;
        }
        while random.one_in(2) && world.platform.io.run_one(&mut random) {}
    }
    assert!(is_done, "it was read too soon");
    Ok(sorted(rows))
}

/// Long enough for a file's time of modification to be another.
fn a_moment() {
    platform::Clock::system().sleep(Duration::from_millis(15));
}

fn new_lines() -> String {
    many_lines(600, 9).join("\n")
}

#[test]
fn a_file_that_is_changed_while_it_is_read_is_an_error_or_read_as_it_was() {
    let replace: Deed = (
        |path| {
            let other = path.with_extension("other");
            fs::write(&other, new_lines()).unwrap();
            fs::rename(other, path).unwrap();
        },
        "was replaced by another file while it was read",
    );
    let rewrite: Deed =
        (|path| fs::write(path, new_lines() + &new_lines()).unwrap(), "was changed while it was read");
    let overwrite: Deed = (
        |path| File::options().write(true).open(path).unwrap().write_all_at(b"other", 7_000).unwrap(),
        "was changed while it was read",
    );
    let shrink: Deed = (
        |path| File::options().write(true).open(path).unwrap().set_len(100).unwrap(),
        "became shorter while it was read",
    );
    let lines = many_lines(500, 8);
    for (deed, message) in [replace, rewrite, overwrite, shrink] {
        let mut noticed = 0;
        for seed in 0..20 {
            let folder = folder(&[("a", &lines.join("\n"))]);
            a_moment();
            let path = folder.path().join("a");
            match read_and_do(seed, [1, 3][seed as usize % 2], &path, deed) {
                // It had been read, or was open: none of the other's lines is there.
                Ok(rows) => assert_eq!(rows, sorted(lines.clone()), "seed {seed}: {message}"),
                Err(error) => {
                    assert!(error.message.ends_with(message), "{}", error.message);
                    assert_eq!(error.retry, model::diagnostic::Retry::Backoff);
                    noticed += 1;
                }
            }
        }
        assert!(noticed > 5, "{message}: {noticed}");
    }
    // What is appended is left.
    for seed in 0..20 {
        let folder = folder(&[("a", &lines.join("\n"))]);
        a_moment();
        let append = |path: &Path| {
            let mut file = File::options().append(true).open(path).unwrap();
            std::io::Write::write_all(&mut file, b" and\nmore\n").unwrap();
        };
        let rows = read_and_do(seed, [1, 3][seed as usize % 2], &folder.path().join("a"), append).unwrap();
        assert_eq!(rows, sorted(lines.clone()), "seed {seed}");
    }
}

#[test]
fn a_file_that_was_replaced_between_two_runs_is_refused() {
    let lines = many_lines(50, 7);
    let folder = folder(&[("a", &lines.join("\n"))]);
    let path = path_in(&folder, "a");
    let factory = lines_of(&path);
    factory.prepare().unwrap();
    let mut world = World::system().with_batches(3, 200);
    let (given, positions) = world.read_in_part(&factory, &[12]).unwrap();
    let again = || {
        let factory = lines_of(&path);
        factory.prepare().unwrap();
        factory.restore(&positions).map(|()| factory)
    };
    // As it was, though it is another of the same lines, to which some were appended.
    fs::write(folder.path().join("b"), lines.join("\n") + "\nmore\n").unwrap();
    fs::rename(folder.path().join("b"), &path).unwrap();
    let rest = world.read_in_part(&again().unwrap(), &[usize::MAX]).unwrap().0;
    assert_eq!(sorted([given.texts(), rest.texts()].concat()), sorted(lines.clone()));
    fs::write(&path, many_lines(200, 8).join("\n")).unwrap();
    let error = error_of(again());
    assert_eq!(error.message, format!("`{path}` is another file than it was"));
    assert_eq!(error.hint.as_deref(), Some("an input file must stay as it is until the job has read it"));
}
