//! `new`, `build`, `test`: a project from nothing but this binary.

use std::path::Path;

use crate::support::{Folder, Ran};

/// The project builds in any folder, with no more than Cargo and the registry.
#[test]
fn a_new_project_builds_runs_and_passes_its_tests() {
    let folder = Folder::new();
    let new = folder.streamctl(&["new", "first"]);
    assert!(new.succeeds().out.contains("streamctl build first"));
    folder.streamctl(&["new", "first"]).fails(2, &["is there already"]);
    folder.streamctl(&["new", "1st"]).fails(2, &["cannot be a project's name"]);
    folder.streamctl(&["build", "first", "-o", "first.wasm"]).succeeds();
    folder.write("in.txt", "a b a\n");
    let run = folder.streamctl(&["run", "first.wasm", "-p", "3", "--input", "in.txt"]);
    assert_eq!(run.succeeds().rows(), ["(a,1)", "(a,2)", "(b,1)"]);
    let test = folder.streamctl(&["test", "first"]);
    assert!(test.succeeds().err.contains("golden cases: 1 passed, 0 failed"), "{}", test.err);

    // A golden case can fail.
    let input = folder.path("first/golden/sample/input.txt");
    std::fs::write(&input, "other words\n").unwrap();
    let test = folder.streamctl(&["test", "first", "--component", "first.wasm"]);
    assert_eq!(test.code, 1);
    assert!(test.err.contains("other rows than in") && test.err.contains("missing:"), "{}", test.err);

    // What does not compile says so, in the compiler's words.
    let source = folder.path("first/src/lib.rs");
    let code = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, code.replace(".sum(F1)", ".sum(F7)")).unwrap();
    let build = folder.streamctl(&["build", "first", "-o", "first.wasm"]);
    build.fails(1, &["src/lib.rs", "the project does not build"]);
}

#[test]
fn a_folder_without_a_project_is_refused() {
    let folder = Folder::new();
    folder.streamctl(&["build", "."]).fails(2, &["there is no project", "streamctl new"]);
}

#[test]
fn doctor_finds_what_is_there() {
    let folder = Folder::new();
    let run = folder.streamctl(&["doctor"]);
    for part in ["sandbox: works", "wasm32-unknown-unknown", "wasm-component-ld"] {
        assert!(run.succeeds().out.contains(part), "{}", run.out);
    }
}

/// Each block of the quickstart, in order, in one shell.
#[test]
fn the_quickstart_is_true() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/quickstart.md");
    let text = std::fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> =
        text.split("```bash\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(blocks.len() >= 4, "{} blocks", blocks.len());
    let folder = Folder::new();
    let binary = Path::new(env!("CARGO_BIN_EXE_streamctl")).parent().unwrap().display().to_string();
    let path = format!("{binary}:{}", std::env::var("PATH").unwrap());
    let script = format!("set -eu\n{}", blocks.join("\n"));
    let output = folder.shell(&script).env("PATH", path).output().unwrap();
    let ran = Ran::of(output);
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
}

/// What a user's own code says, counts and does wrong reaches the user, with file and line.
#[test]
fn a_jobs_messages_metrics_errors_and_panics_reach_the_user() {
    let folder = Folder::new();
    folder.streamctl(&["new", "talk"]).succeeds();
    let source = r#"
use millstream::prelude::*;

#[job]
fn talk(job: &Job, args: InputArgs2) -> Result<()> {
    let seen = Counter::new("seen");
    job.lines(args.input.source()?)
        .try_flat_map(move |line, out| {
            seen.add(1);
            match line {
                "log" => millstream::log::warn!("logged {line}"),
                "print" => println!("printed {line}"),
                "panic" => panic!("my own words"),
                "error" => bail!("my own error"),
                _ => {}
            }
            out.emit((line, 1));
            Ok(())
        })
        .key_by(F0)
        .sum(F1)
        .sink(Sink::print());
    Ok(())
}

#[derive(Parser)]
struct InputArgs2 {
    #[command(flatten)]
    input: InputArgs,
}

#[job]
fn second(job: &Job, args: InputArgs2) -> Result<()> {
    job.lines(args.input.source()?).sink(Sink::print());
    Ok(())
}

millstream::jobs!(talk, second);
"#;
    folder.write("talk/src/lib.rs", source);
    folder.streamctl(&["build", "talk", "-o", "talk.wasm"]).succeeds();
    folder.write("fine.txt", "log\nprint\nprint\n");
    let run = folder.streamctl(&["run", "talk.wasm", "--input", "fine.txt"]);
    assert_eq!(run.succeeds().rows(), ["(log,1)", "(print,1)", "(print,2)"]);
    for part in ["WARN", "logged log", "printed print", "seen: 3"] {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
    folder.write("panic.txt", "fine\npanic\n");
    let run = folder.streamctl(&["run", "talk.wasm", "--input", "panic.txt"]);
    assert_eq!(run.code, 1);
    for part in
        ["my own words", "src/lib.rs:13", "row 2: (panic)", "wasm backtrace", "subtask 1 of 1", "Flat Map"]
    {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
    folder.write("error.txt", "fine\nfine\nerror\n");
    let run = folder.streamctl(&["run", "talk.wasm", "--input", "error.txt"]);
    run.fails(1, &["my own error", "row 3: (error)", "src/lib.rs:"]);
    let second = folder.streamctl(&["run", "-c", "second", "talk.wasm", "--input", "fine.txt"]);
    assert_eq!(second.succeeds().rows(), ["log", "print", "print"]);
    folder.streamctl(&["run", "talk.wasm"]).fails(2, &["no input is given"]);
    let info = folder.streamctl(&["info", "talk.wasm"]);
    assert!(info.succeeds().out.contains("second"), "{}", info.out);
}
