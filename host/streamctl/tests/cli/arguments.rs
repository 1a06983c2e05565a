//! Wrong use, and what can be asked.

use crate::support::{Folder, component};

#[test]
fn what_is_no_component_is_refused_by_name() {
    let folder = Folder::new();
    folder.streamctl(&["run", "wc.wasm"]).fails(2, &["there is no file `wc.wasm`", "streamctl build"]);
    folder.write("text.wasm", "hello");
    folder.streamctl(&["run", "text.wasm"]).fails(2, &["text.wasm", "not a WebAssembly component"]);
    folder.write("core.wasm", b"\0asm\x01\0\0\0");
    folder.streamctl(&["run", "core.wasm"]).fails(2, &["core WebAssembly module"]);
    folder.write("empty.wasm", b"\0asm\x0d\0\x01\0");
    folder.streamctl(&["run", "empty.wasm"]).fails(2, &["no Millstream job", "streamctl new"]);
}

#[test]
fn a_component_of_another_version_is_refused_with_both() {
    let folder = Folder::new();
    // The same component, made for a contract of a later version.
    let bytes = std::fs::read(component("bare")).unwrap();
    let mut other = bytes.clone();
    let mut at = 0;
    while let Some(found) = other[at..].windows(5).position(|five| five == b"0.1.0") {
        other[at + found..at + found + 5].copy_from_slice(b"0.9.0");
        at += found + 5;
    }
    folder.write("other.wasm", other);
    folder
        .streamctl(&["run", "other.wasm"])
        .fails(2, &["version 0.9.0", "version 0.1.0", "hint: build it again"]);
}

#[test]
fn an_unknown_job_is_refused_with_those_there_are() {
    let folder = Folder::new();
    folder
        .streamctl(&["run", "-c", "wordcount", &component("word_count")])
        .fails(2, &["there is no job `wordcount`", "there are: word_count"]);
}

#[test]
fn wrong_arguments_of_the_job_are_told_in_its_own_words() {
    let folder = Folder::new();
    let wc = component("word_count");
    folder.streamctl(&["run", &wc, "--inptu", "x"]).fails(2, &["--inptu", "--input"]);
    folder.streamctl(&["run", &wc, "--format", "xml"]).fails(2, &["xml", "json, csv, text"]);
    folder.streamctl(&["run", &component("bare"), "--inptu", "x"]).fails(2, &["--inptu"]);
    let help = folder.streamctl(&["run", &wc, "--help"]);
    for part in ["Counts the words of a text", "Input:", "--input <PATH>", "Output:"] {
        assert!(help.succeeds().out.contains(part), "{}", help.out);
    }
    let help = folder.streamctl(&["run", &component("events"), "--help"]);
    let (before, _) = help.succeeds().out.split_once("Input:").unwrap();
    assert!(
        before.contains("--large"),
        "the job's own arguments stand under their own heading: {}",
        help.out
    );
}

#[test]
fn parallelism_out_of_bounds_is_refused_naming_both() {
    let folder = Folder::new();
    let wc = component("word_count");
    folder.streamctl(&["run", "-p", "0", &wc]).fails(2, &["parallelism is 0", "-p takes a number from 1 on"]);
    folder
        .streamctl(&["run", "-p", "200", "-D", "pipeline.max-parallelism=128", &wc])
        .fails(2, &["200", "128"]);
    folder.streamctl(&["run", "-p", "many", &wc]).fails(2, &["many"]);
}

#[test]
fn two_hundred_subtasks_work_within_a_gibibyte() {
    let folder = Folder::new();
    let script = format!(
        "ulimit -c 0; exec {} run -p 200 {} --output blackhole",
        env!("CARGO_BIN_EXE_streamctl"),
        component("word_count")
    );
    let mut child = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.dir.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The greatest resident memory so far, as the system counts it, until the process is gone.
    let mut greatest = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        greatest = greatest.max(kib);
        std::thread::yield_now();
    }
    let ran = crate::support::Ran::of(child.wait_with_output().unwrap());
    assert!(ran.succeeds().err.contains("36,514 rows"), "{}", ran.err);
    assert!(greatest > 0 && greatest < 1 << 20, "{greatest} KiB");
}

#[test]
fn configuration_by_file_environment_and_command_line() {
    let folder = Folder::new();
    folder.write("config.yaml", "parallelism:\n  default: 2\n");
    let shown = |args: &[&str], environment: &[(&str, &str)]| {
        let output = folder.command().args(args).envs(environment.iter().copied()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let key = ["config", "parallelism.default"];
    assert_eq!(shown(&key, &[]), "2\n");
    assert_eq!(shown(&key, &[("MILLSTREAM_PARALLELISM_DEFAULT", "3")]), "3\n");
    let define = ["config", "-D", "parallelism.default=4", "parallelism.default"];
    assert_eq!(shown(&define, &[("MILLSTREAM_PARALLELISM_DEFAULT", "3")]), "4\n");
    let run = folder.streamctl(&["run", &component("word_count")]);
    assert!(run.succeeds().out.contains("2> "), "two subtasks");
    folder
        .streamctl(&["config", "-D", "parallelism.defualt=4"])
        .fails(2, &["did you mean `parallelism.default`?"]);
    folder.write("config.yaml", "parallelism: [1]\n");
    folder.streamctl(&["config"]).fails(2, &["config.yaml", "parallelism"]);
}

#[test]
fn info_tells_graph_grants_and_imports() {
    let folder = Folder::new();
    let wc = component("word_count");
    let text = folder.streamctl(&["info", "-p", "3", &wc, "--input", "text.txt"]);
    for part in ["read text.txt", "millstream:job/log@0.1.0", "HASH", "x 3", "src/lib.rs:"] {
        assert!(text.succeeds().out.contains(part), "{part}: {}", text.out);
    }
    let json = folder.streamctl(&["info", "--json", &wc]);
    let json: serde_json::Value = serde_json::from_str(&json.succeeds().out).unwrap();
    assert_eq!(json["jobs"][0]["name"], "word_count");
    assert_eq!(json["graph"]["nodes"].as_array().unwrap().len(), 4);
}

#[test]
fn completion_and_help_and_version() {
    let folder = Folder::new();
    assert!(folder.streamctl(&["completion", "bash"]).succeeds().out.contains("_streamctl"));
    assert!(folder.streamctl(&["--help"]).succeeds().out.contains("doctor"));
    assert!(folder.streamctl(&["--version"]).succeeds().out.starts_with("streamctl 0."));
    assert_eq!(folder.streamctl(&["rnu"]).code, 2);
    assert_eq!(folder.streamctl(&["run"]).code, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = Folder::new();
    let first = folder.streamctl(&["man"]);
    assert!(first.succeeds().out.contains(".TH streamctl 1"), "{}", first.out);
    let told = folder.streamctl(&["man", "pages/man1"]);
    assert_eq!(told.succeeds().out, "Pages are in `pages/man1`: man pages/man1/streamctl.1\n");
    let page = |name: &str| std::fs::read_to_string(folder.path("pages/man1").join(name)).unwrap();
    assert_eq!(page("streamctl.1"), first.out);
    // All that the first page names, and those below them.
    let all = ["run", "swap", "state-write", "session-start", "session-stop", "session-status", "man"];
    let named = first.out.lines().filter_map(|line| line.strip_prefix("streamctl\\-")?.split_once("(1)"));
    let named: Vec<String> = named.map(|(name, _)| name.replace('\\', "")).collect();
    assert!(named.len() > 20, "{}", first.out);
    for name in all.into_iter().chain(named.iter().map(String::as_str)).filter(|name| *name != "help") {
        let text = page(&format!("streamctl-{name}.1"));
        assert!(text.contains(".SH NAME") && text.contains(".SH OPTIONS"), "{name}: {text}");
    }
    assert!(page("streamctl-stop.1").contains("savepointPath"));
    folder.write("file", "");
    folder.streamctl(&["man", "file"]).fails(1, &["`file` cannot be written", "detail: "]);
}

#[test]
fn the_sandbox_denies_what_nobody_named() {
    let folder = Folder::new();
    let hostile = component("hostile");
    folder
        .streamctl(&["run", "-c", "plan-passwd", &hostile])
        .fails(2, &["to read `/etc/passwd`, which is not granted", "--allow /etc/passwd"]);
    let allowed = folder.streamctl(&["run", "-c", "plan-passwd", "--allow", "/etc/passwd", &hostile]);
    assert!(allowed.succeeds().out.contains("root:"));
}
