//! Jobs that are killed, and go on from their last checkpoint.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::support::{Folder, Ran, checkpoints_in, component};

/// A text of so many lines.
pub(crate) fn text(lines: u64) -> String {
    let line = |i: u64| {
        (0..8).map(|j| format!("w{} ", i.wrapping_mul(7 + j).wrapping_add(j * j) % 997)).collect::<String>()
    };
    (0..lines).map(|i| line(i) + "\n").collect()
}

/// Every row that word count gives, each once.
pub(crate) fn expected(text: &str) -> Vec<String> {
    let mut counts = BTreeMap::<&str, u64>::new();
    let mut rows: Vec<String> = text
        .split_whitespace()
        .map(|word| {
            let count = counts.entry(word).or_default();
            *count += 1;
            format!("{{\"word\":\"{word}\",\"count\":{count}}}")
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// How many checkpoints there are, and nothing else.
#[track_caller]
pub(crate) fn checkpoints(folder: &Folder) -> usize {
    checkpoints_in(&folder.path("chk")).unwrap()
}

const ARGS: [&str; 4] =
    ["-Dexecution.checkpointing.interval=20ms", "-Dexecution.checkpointing.dir=chk", "--restore", "latest"];

fn run_of<'a>(wasm: &'a str, parallelism: &'a str) -> Vec<&'a str> {
    let job = [wasm, "--input", "text.txt", "--output", "out", "--format", "json"];
    ["run", "-q", "-p", parallelism].into_iter().chain(ARGS).chain(job).collect()
}

#[test]
fn each_row_is_there_once_however_often_the_process_is_killed() {
    let folder = Folder::new();
    let text = text(500_000);
    folder.write("text.txt", &text);
    let wasm = component("word_count");
    let mut killed = 0;
    for attempt in 0..40u64 {
        let parallelism = ["2", "3", "1"][(attempt % 3) as usize];
        let mut child = folder.start(&run_of(&wasm, parallelism));
        platform::Clock::system().sleep(Duration::from_millis(60 + attempt * 37 % 150));
        if attempt < 12 && child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        let ran = Ran::of(child.wait_with_output().unwrap());
        if ran.code == 0 {
            break;
        }
        assert_eq!(ran.code, -1, "{}", ran.err);
    }
    assert!(killed > 3, "it was killed {killed} times only");
    assert!(folder.parts("out") == expected(&text), "other rows than the text's");
    assert_eq!(checkpoints(&folder), 1, "more is left than is kept");
    // It has finished: nothing is left to do, and nothing changes.
    let args: Vec<&str> = run_of(&wasm, "2").into_iter().filter(|arg| *arg != "-q").collect();
    let again = folder.streamctl(&args);
    assert!(again.succeeds().err.contains("has finished before"), "{}", again.err);
    assert!(folder.parts("out") == expected(&text));
}

#[test]
fn a_process_that_ends_at_any_point_of_a_checkpoint_loses_nothing() {
    let text = text(20_000);
    let expected = expected(&text);
    let wasm = component("word_count");
    for point in ["store.write", "store.sync", "store.rename", "store.sync-folder", "store.done"] {
        let folder = Folder::new();
        folder.write("text.txt", &text);
        let mut killed = 0;
        for nth in [1, 2, 3] {
            let mut command = folder.command();
            command.args(run_of(&wasm, "2")).env("MILLSTREAM_FAULTS", format!("{point}@{nth}=kill"));
            let ran = Ran::of(command.output().unwrap());
            // It may have come to its end before.
            assert!([-1, 0].contains(&ran.code), "{point} at {nth}: {}", ran.err);
            killed += usize::from(ran.code == -1);
        }
        assert!(killed > 0, "{point} was not passed");
        folder.streamctl(&run_of(&wasm, "3")).succeeds();
        assert!(folder.parts("out") == expected, "{point}: other rows than the text's");
        assert_eq!(checkpoints(&folder), 1, "{point}: more is left than is kept");
    }
}

#[test]
fn a_disk_that_is_full_fails_the_checkpoint_and_not_the_job() {
    let folder = Folder::new();
    let text = text(50_000);
    folder.write("text.txt", &text);
    let wasm = component("word_count");
    let mut command = folder.command();
    command.args(run_of(&wasm, "2")).env("MILLSTREAM_FAULTS", "store.sync@1=enospc,store.write@4=eio");
    Ran::of(command.output().unwrap()).succeeds();
    assert!(folder.parts("out") == expected(&text));
    assert_eq!(checkpoints(&folder), 1);
}

/// Lines of a job that is long enough to be ended on the way.
pub(crate) const LINES: u64 = 400_000;

/// Makes a job's folder after a crash that left a complete checkpoint.
fn crashed(folder: &Folder, wasm: &str) -> std::path::PathBuf {
    folder.write("text.txt", text(LINES));
    let mut command = folder.command();
    let mut args = run_of(wasm, "2");
    args.insert(1, "-Dexecution.checkpointing.num-retained=2");
    command.args(args).env("MILLSTREAM_FAULTS", "source.read=stall:5,store.write@7=kill");
    assert_eq!(Ran::of(command.output().unwrap()).code, -1);
    let job = std::fs::read_dir(folder.path("chk")).unwrap().next().unwrap().unwrap();
    job.path()
}

fn newest(job: &Path) -> std::path::PathBuf {
    let mut complete: Vec<_> = std::fs::read_dir(job)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("_metadata").exists())
        .collect();
    complete.sort_by_key(|path| path.to_string_lossy().rsplit('-').next().unwrap().parse::<u64>().unwrap());
    complete.pop().unwrap()
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let folder = Folder::new();
    let wasm = component("word_count");
    let job = crashed(&folder, &wasm);
    let data = newest(&job).join("data-0");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let args: Vec<&str> = run_of(&wasm, "2").into_iter().filter(|arg| *arg != "-q").collect();
    let ran = folder.streamctl(&args);
    assert!(ran.succeeds().err.contains("data-0` is damaged"), "{}", ran.err);
    let hidden = |name: &str| name.starts_with(".superseded-");
    for entry in std::fs::read_dir(folder.path("out")).unwrap().flatten() {
        if hidden(&entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    assert!(folder.parts("out") == expected(&text(LINES)));
}

#[test]
fn what_cannot_be_restored_is_refused() {
    let folder = Folder::new();
    let wasm = component("word_count");
    let job = crashed(&folder, &wasm);
    let run = |more: &[&str]| {
        let args = ["run", "-q"].into_iter().chain(more.iter().copied());
        let args: Vec<&str> = args.chain([wasm.as_str(), "--input", "text.txt", "--output", "out"]).collect();
        folder.streamctl(&args)
    };
    run(&["--restore", "latest"]).fails(2, &["no folder", "execution.checkpointing.dir"]);
    run(&["--restore", "nowhere"]).fails(2, &["`nowhere` is no checkpoint", "DIR/JOB-ID/chk-NUMBER"]);
    let missing = job.join("chk-999").display().to_string();
    run(&["--restore", &missing]).fails(2, &["chk-999", "is missing"]);
    let path = newest(&job).display().to_string();
    run(&["--restore", &path, "-Dpipeline.max-parallelism=256"]).fails(2, &["256", "128"]);
    run(&["-Dexecution.checkpointing.interval=1s"]).fails(2, &["no folder"]);
    // A second start without it says that there is something to restore, and does not touch the output.
    let again = run(&["-Dexecution.checkpointing.dir=chk"]);
    again.fails(2, &["is not empty"]);
    assert!(again.err.contains("--restore latest"), "{}", again.err);
}

/// What a manifest says of how its keyed state lies: the highest layer, and whether it names files of other
/// checkpoints.
fn layers_of(checkpoint: &Path) -> (u64, bool) {
    let text = std::fs::read_to_string(checkpoint.join("_metadata")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let subtasks = manifest["operators"].as_object().unwrap().values().flat_map(|operator| {
        let subtasks = operator["subtasks"].as_array().unwrap();
        subtasks.iter().flat_map(|subtask| subtask["sections"].as_array().unwrap())
    });
    let layer = subtasks.map(|section| section["layer"].as_u64().unwrap_or(0)).max().unwrap();
    let own = format!("chk-{}/", manifest["checkpoint"]);
    let mut paths = manifest["files"].as_object().unwrap().keys();
    let names_others = paths.any(|path| !path.contains(&own) && !path.contains("/components/"));
    (layer, names_others)
}

/// Lines in so many files that few of them are read between two checkpoints.
fn in_many_files(folder: &Folder) -> String {
    const FILES: usize = 500;
    let text = text(300_000);
    std::fs::create_dir(folder.path("texts")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (number, lines) in lines.chunks(lines.len().div_ceil(FILES)).enumerate() {
        folder.write(&format!("texts/{number:03}.txt"), lines.join("\n") + "\n");
    }
    text
}

/// A job that ends as soon as its first checkpoint is complete, and before any other is removed.
fn killed_after_the_first(folder: &Folder, wasm: &str, parallelism: &str) -> (u64, bool) {
    let mut command = folder.command();
    let args = run_of(wasm, parallelism).into_iter().map(|arg| if arg == "text.txt" { "texts" } else { arg });
    command.args(args).env("MILLSTREAM_FAULTS", "source.read=stall:5,checkpoint.completed@1=kill");
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, -1, "{}", ran.err);
    let job = std::fs::read_dir(folder.path("chk")).unwrap().next().unwrap().unwrap();
    layers_of(&newest(&job.path()))
}

/// Goes on to the end: nothing is lost, and of all that was named on the way nothing is left but what the last names.
fn goes_on_to_the_end(folder: &Folder, wasm: &str, parallelism: &str, text: &str) {
    let args = run_of(wasm, parallelism).into_iter().map(|arg| if arg == "text.txt" { "texts" } else { arg });
    folder.streamctl(&args.collect::<Vec<_>>()).succeeds();
    assert!(folder.parts("out") == expected(text), "other rows than the text's");
    assert_eq!(checkpoints(folder), 1, "more is left than is kept");
}

#[test]
fn the_first_checkpoint_after_a_crash_builds_upon_the_one_before_and_the_chain_stays_short() {
    let (folder, wasm) = (Folder::new(), component("word_count"));
    let text = in_many_files(&folder);
    let mut layers = Vec::new();
    // Where few rows came a subtask may have had none.
    while layers.len() < 60 {
        let (layer, names_others) = killed_after_the_first(&folder, &wasm, "2");
        assert_eq!(layer > 0, names_others, "after {layers:?}");
        let before = layers.last().copied();
        layers.push(layer);
        if before.is_some_and(|before| before > layer) {
            break;
        }
    }
    let (last, grown) = layers.split_last().unwrap();
    assert_eq!((*last, grown.last()), (0, Some(&20)), "{layers:?}");
    assert!(grown.windows(2).all(|two| two[1] - two[0] <= 1), "{layers:?}");
    goes_on_to_the_end(&folder, &wasm, "2", &text);
}

#[test]
fn at_another_parallelism_the_first_checkpoint_is_whole_and_the_next_builds_upon_it() {
    let (folder, wasm) = (Folder::new(), component("word_count"));
    let text = in_many_files(&folder);
    let first = killed_after_the_first(&folder, &wasm, "2");
    assert_eq!(first, (0, false));
    let until = |parallelism: &str, wanted: (u64, bool)| {
        // As above.
        let mut seen = Vec::new();
        while seen.last() != Some(&wanted) {
            assert!(seen.len() < 5, "{seen:?}");
            seen.push(killed_after_the_first(&folder, &wasm, parallelism));
        }
        seen[0]
    };
    until("2", (1, true));
    assert_eq!(until("3", (1, true)), (0, false));
    assert_eq!(until("1", (1, true)), (0, false));
    goes_on_to_the_end(&folder, &wasm, "3", &text);
}
