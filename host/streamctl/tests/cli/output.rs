//! Where rows go.

use crate::support::{Folder, component};

#[test]
fn files_are_named_by_subtask_number_and_format() {
    let folder = Folder::new();
    let file = folder.write("in.txt", "a b\nb\n");
    let wc = component("word_count");
    let rows = |format: &str, out: &str, p: &str| {
        folder
            .streamctl(&["run", "-p", p, &wc, "--input", &file, "--output", out, "--format", format])
            .succeeds();
        folder.parts(out)
    };
    assert_eq!(
        rows("json", "j", "3"),
        [r#"{"word":"a","count":1}"#, r#"{"word":"b","count":1}"#, r#"{"word":"b","count":2}"#]
    );
    assert_eq!(rows("csv", "c", "1"), ["a,1", "b,1", "b,2", "word,count"]);
    assert_eq!(rows("text", "t", "2"), ["(a,1)", "(b,1)", "(b,2)"]);
    assert!(folder.path("c/part-0-0.csv").exists() && !folder.path("c/part-1-0.csv").exists());
}

#[test]
fn a_folder_that_is_not_empty_is_refused_and_left_alone() {
    let folder = Folder::new();
    folder.write("out/mine.txt", "mine");
    let wc = component("word_count");
    folder
        .streamctl(&["run", &wc, "--output", "out"])
        .fails(2, &["the output folder `out` is not empty", "`mine.txt`"]);
    assert_eq!(std::fs::read_dir(folder.path("out")).unwrap().count(), 1);
    folder.write("file", "mine");
    folder.streamctl(&["run", &wc, "--output", "file"]).fails(2, &["is not a folder"]);
}

#[test]
fn a_job_that_fails_leaves_no_half_written_file() {
    let folder = Folder::new();
    let mut text = "fine\n".repeat(200_000).into_bytes();
    text.extend(b"\xFF\n");
    let file = folder.write("in.txt", text);
    let run = folder.streamctl(&["run", &component("word_count"), "--input", &file, "--output", "out"]);
    run.fails(1, &["line 200001"]);
    let left: Vec<_> = std::fs::read_dir(folder.path("out")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_blackhole_counts_the_same_rows_the_same() {
    let folder = Folder::new();
    let summary = |p: &str| {
        let run = folder.streamctl(&["run", "-p", p, &component("word_count"), "--output", "blackhole"]);
        assert_eq!(run.succeeds().out, "");
        run.err.lines().find(|line| line.starts_with("blackhole: ")).map(str::to_owned).unwrap()
    };
    assert_eq!(summary("1"), summary("3"));
}

#[test]
fn who_reads_may_end() {
    let folder = Folder::new();
    let file = folder.write("in.txt", "to be or not to be\n".repeat(1_000_000));
    let script = format!(
        "{} run {} --input {file} | head -n 2; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_streamctl"),
        component("word_count")
    );
    let ran = crate::support::Ran::of(folder.shell(&script).output().unwrap());
    assert_eq!((ran.code, ran.out.lines().count()), (141, 2));
    // Where it could be asked has been said before.
    assert!(ran.err.lines().all(|line| line.starts_with("REST interface at ")), "{}", ran.err);
}

/// On a terminal: progress while the job runs, and colours; elsewhere neither.
#[test]
fn progress_and_colours_are_for_terminals() {
    let folder = Folder::new();
    let file = folder.write("in.txt", "to be or not to be\n".repeat(5_000_000));
    let run = format!(
        "{} run --chaos-instances {} --input {file} --output blackhole",
        env!("CARGO_BIN_EXE_streamctl"),
        component("word_count")
    );
    let on_terminal = folder.shell(&format!("script -qec '{run}' /dev/null")).output().unwrap();
    let shown = String::from_utf8_lossy(&on_terminal.stdout).into_owned();
    assert!(shown.contains("rows in,") && shown.contains(" %)"), "{shown}");
    let piped = crate::support::Ran::of(folder.shell(&run).output().unwrap());
    assert!(!piped.succeeds().err.contains(" %)"), "{}", piped.err);
    let error = format!("{} run no.wasm", env!("CARGO_BIN_EXE_streamctl"));
    let coloured = folder.shell(&format!("script -qec '{error}' /dev/null")).output().unwrap();
    assert!(String::from_utf8_lossy(&coloured.stdout).contains("\x1b[31merror"));
    let plain = folder.shell(&format!("NO_COLOR=1 script -qec '{error}' /dev/null")).output().unwrap();
    assert!(!String::from_utf8_lossy(&plain.stdout).contains('\x1b'));
}
