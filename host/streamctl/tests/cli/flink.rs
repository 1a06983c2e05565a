//! The command line beside Flink's own: `golden/flink` has what Flink 2.3's `flink` has said, but for ids, times, paths,
//! names of jobs, and Java's traces. Of its help texts it has the options.

use std::collections::BTreeSet;
use std::path::Path;

use crate::recovery::text;
use crate::session::Session;
use crate::support::{Folder, Ran, component};

/// What Flink has said.
struct Said {
    out: String,
    /// What went wrong, in its words.
    why: Option<String>,
    code: i32,
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/flink")
}

fn said(name: &str) -> Said {
    let text = std::fs::read_to_string(folder().join(name).with_extension("txt")).unwrap();
    let (_, text) = text.split_once("--- stdout\n").unwrap();
    let (out, text) = text.split_once("--- stderr\n").unwrap();
    let (err, code) = text.split_once("--- exit ").unwrap();
    let code = code.trim().parse().unwrap();
    // `list-empty` has the trace of another command.
    let why = err.lines().last().and_then(|line| line.rsplit_once("Exception: ")).filter(|_| code > 0);
    Said { out: out.to_owned(), why: why.map(|(_, why)| why.to_owned()), code }
}

/// Ids, times, names of jobs and paths as `golden/flink` has them.
fn masked(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_job = line.split(" : ").nth(1).is_some_and(|id| id.len() == 32);
        let line = match line.rsplit_once('(') {
            Some((_, state)) if is_job => format!("TIME : JOB : NAME ({state}"),
            _ => without_ids(line),
        };
        // Of jobs in one state one stands for all.
        let titled = lines.iter().rposition(|line| line.starts_with("-----")).unwrap_or(0);
        if !line.starts_with("TIME : ") || !lines[titled..].contains(&line) {
            lines.push(line);
        }
    }
    // In any order.
    lines
        .chunk_by_mut(|a, b| a.starts_with("TIME : ") && b.starts_with("TIME : "))
        .for_each(<[String]>::sort);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The same, of a line that is not a job's.
fn without_ids(line: &str) -> String {
    let mut masked = String::new();
    for word in line.split_inclusive([' ', '\'', '"', ':']) {
        let id = word.trim_end_matches([' ', '\'', '"', ':', '.', ')']);
        let rest = word.strip_prefix(id).unwrap_or_default();
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_savepoint = id.rsplit_once("/savepoint-").is_some_and(|(_, name)| name.len() == 19);
        masked.push_str(match id {
            _ if is_id => "JOB",
            _ if is_savepoint => "DIR/savepoint-NAME",
            _ if masked.ends_with("Job Runtime: ") => "N",
            _ => id,
        });
        masked.push_str(rest);
    }
    masked
}

/// What was compared.
#[derive(Default)]
struct Compared(BTreeSet<String>);

impl Compared {
    /// It is what Flink says, and where something goes wrong in the same words.
    #[track_caller]
    fn same(&mut self, names: &[&str], ran: &Ran) {
        for name in names {
            let flinks = said(name);
            assert_eq!(masked(&ran.out), flinks.out, "{name}: {}", ran.err);
            assert_eq!(ran.code, flinks.code, "{name}: {}", ran.err);
            if let Some(why) = flinks.why {
                let told = masked(&ran.err);
                assert!(told.contains(&why), "{name}: `{why}` is not in {told}");
            }
            self.0.insert((*name).to_owned());
        }
    }

    /// It is not what Flink says, for a reason. It says this on standard error, and ends with this code.
    #[track_caller]
    fn differs(&mut self, name: &str, ran: &Ran, (code, told): (i32, &str), why: &str) {
        let flinks = said(name);
        assert!(masked(&ran.out) != flinks.out || ran.code != flinks.code, "{name} does not differ: {why}");
        ran.fails(code, &[told]);
        self.0.insert(name.to_owned());
    }
}

#[test]
fn what_commands_say_is_what_flinks_say() {
    let folder = Folder::new();
    folder.write("text.txt", text(300_000));
    folder.write("small.txt", "a b a");
    let (session, wasm) = (Session::start(&folder, 4, 300), component("word_count"));
    let ask = |command: &str, args: &[&str]| session.ask(&folder, command, args);
    let long = ["-Dexecution.checkpointing.savepoint-dir=savepoints"];
    let begin = |options: &[&str]| {
        let job = [wasm.as_str(), "--input", "text.txt", "--output", "out", "--format", "json"];
        let ran = ask("run", &[&["-d"], &long[..], options, &job[..]].concat());
        let id = ran.out.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        (ran, id)
    };
    let path_in = |ran: &Ran| {
        let line = ran.out.lines().find(|line| line.starts_with("Savepoint completed. Path: ")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let mut compared = Compared::default();
    let nobody = "00000000000000000000000000000001";

    compared.same(&["list-empty"], &ask("list", &[]));
    compared.same(&["list-a-empty"], &ask("list", &["-a"]));
    compared.same(&["list-scheduled"], &ask("list", &["-s"]));

    let (ran, first) = begin(&["-p2"]);
    compared.same(&["run-detached"], &ran);
    session.wait_until(&folder, &first, "RUNNING");
    compared.same(&["list"], &ask("list", &[]));
    compared.same(&["list-running"], &ask("list", &["-r"]));
    compared.same(&["list-a"], &ask("list", &["-a"]));

    let made = ask("savepoint", &[&first]);
    compared.same(&["savepoint", "ok-savepoint"], &made);
    compared.same(&["savepoint-dir"], &ask("savepoint", &[&first, "savepoints/x"]));
    let native = ask("savepoint", &["-type", "native", &first, "savepoints/native"]);
    compared.same(&["savepoint-native", "ok-savepoint-native"], &native);
    let detached = ask("savepoint", &["-detached", &first]);
    compared.same(&["savepoint-detached", "ok-savepoint-detached"], &detached);
    compared.same(&["ok-savepoint-dispose"], &ask("savepoint", &["-d", &path_in(&made)]));
    compared.same(&["savepoint-unknown"], &ask("savepoint", &[nobody]));
    compared.same(&["stop-unknown"], &ask("stop", &[nobody]));
    compared.same(&["cancel-unknown"], &ask("cancel", &[nobody]));
    compared.differs(
        "savepoint-badid",
        &ask("savepoint", &["nosuchid"]),
        (2, "Cannot parse JobID from \"nosuchid\"."),
        "what is wrong goes to standard error, and wrong usage ends with 2",
    );
    compared.differs(
        "savepoint-dispose",
        &ask("savepoint", &["-d"]),
        (2, "a value is required for '--dispose <PATH>'"),
        "the same, in the words of all our options",
    );

    let (ran, second) = begin(&["-p9"]);
    compared.same(&["no-slots"], &ran);
    let listed = ask("list", &["-a"]);
    assert_eq!(
        masked(&listed.out),
        said("list-noslots").out.replace(
            "No scheduled jobs.",
            "----------------------- Scheduled Jobs -----------------------\nTIME : JOB : NAME (CREATED)\n\
         --------------------------------------------------------------",
        ),
        "a job that waits for slots is scheduled; Flink lists it as running"
    );
    compared.0.insert("list-noslots".into());
    // It does not run: there is nothing to stop.
    compared.same(&["stop"], &ask("stop", &["--savepointPath", "savepoints", &second]));
    compared.same(&["cancel-noslots"], &ask("cancel", &[&second]));
    let none = ["-p9", "-Dslot.request.timeout=100", wasm.as_str(), "--input", "small.txt"];
    compared.same(&["no-slots-timeout"], &ask("run", &none));

    let stopped = ask("stop", &["--savepointPath", "savepoints", &first]);
    compared.same(&["ok-stop"], &stopped);
    let (ran, third) = begin(&["-p2", "-s", &path_in(&stopped)]);
    compared.same(&["ok-run-from-savepoint"], &ran);
    session.wait_until(&folder, &third, "RUNNING");
    let ran = ask("cancel", &["-s", "savepoints", &third]);
    assert_eq!(masked(&ran.succeeds().out), said("cancel-s").out.replace("BASE/", ""));
    compared.0.insert("cancel-s".into());
    session.wait_until(&folder, &third, "CANCELED");
    compared.same(&["cancel-again"], &ask("cancel", &[&third]));
    std::fs::remove_dir_all(folder.path("out")).unwrap();
    let attached = ask("run", &["-p1", &wasm, "--input", "small.txt", "--output", "small"]);
    compared.same(&["run-attached"], &attached);
    compared.same(&["ok-list-a"], &ask("list", &["-a"]));
    let (_, fourth) = begin(&["-p2"]);
    session.wait_until(&folder, &fourth, "RUNNING");
    compared.same(&["list-a-end"], &ask("list", &["-a"]));
    compared.same(&["stop-drain"], &ask("stop", &["--drain", "--savepointPath", "savepoints", &fourth]));
    std::fs::remove_dir_all(folder.path("out")).unwrap();
    let (_, fifth) = begin(&["-p2"]);
    session.wait_until(&folder, &fifth, "RUNNING");
    compared.same(&["cancel"], &ask("cancel", &[&fifth]));

    let usage = "wrong usage ends with 2, and what is wrong goes to standard error";
    compared.differs("bad-action", &folder.streamctl(&["frobnicate"]), (2, "'frobnicate'"), usage);
    folder.write("bad.wasm", "no component");
    compared.differs("run-bad-jar", &ask("run", &["bad.wasm"]), (2, "component"), usage);
    let missing = ask("run", &["nope.wasm"]);
    compared.differs("run-missing-jar", &missing, (2, "there is no file `nope.wasm`"), usage);
    let unknown = ask("run", &["-c", "NoSuch", &wasm, "--input", "small.txt"]);
    compared.differs("run-bad-class", &unknown, (2, "there is no job `NoSuch`"), usage);
    let nowhere = ask("run", &["-s", "nope/savepoint", &wasm, "--input", "small.txt"]);
    // Flink finds it out before it says an id; here the job's first attempt does.
    nowhere.fails(1, &["Job failed", "nope/savepoint"]);
    compared.0.insert("run-bad-savepoint".into());
    // A component names the first of its jobs; a JAR need not name a class.
    ask("run", &[&wasm, "--input", "small.txt", "--output", "small2"]).succeeds();
    compared.0.insert("run-no-class".into());

    compared.same_plan(&folder.streamctl(&[
        "info",
        "--plan",
        "-c",
        "word_count",
        &wasm,
        "--input",
        "small.txt",
    ]));
    compared.knows_all_options(&folder);
    let all = std::fs::read_dir(self::folder()).unwrap().map(|entry| entry.unwrap().path());
    let all: BTreeSet<String> =
        all.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(compared.0, all, "not all that Flink has said was compared, or more");
}

impl Compared {
    /// `info` shows the same of a word count.
    fn same_plan(&mut self, ran: &Ran) {
        let parts = |text: &str| {
            let (title, rest) = text.split_once('\n').unwrap();
            let (plan, rest) = rest.split_once("\n-----").unwrap();
            let plan: serde_json::Value = serde_json::from_str(plan).unwrap();
            (title.to_owned(), plan, rest.to_owned())
        };
        let (ours, flinks) = (parts(&ran.succeeds().out), parts(&said("info").out));
        assert_eq!((&ours.0, &ours.2), (&flinks.0, &flinks.2));
        let shape = |plan: &serde_json::Value| {
            let nodes = plan["nodes"].as_array().unwrap().iter().map(|node| {
                let before = node["predecessors"].as_array().into_iter().flatten();
                let ships: Vec<String> = before.map(|edge| edge["ship_strategy"].to_string()).collect();
                let keys: Vec<String> = node.as_object().unwrap().keys().cloned().collect();
                (node["pact"].to_string(), ships, keys)
            });
            nodes.collect::<Vec<_>>()
        };
        assert_eq!(shape(&ours.1), shape(&flinks.1));
        self.0.insert("info".into());
    }

    /// Each of Flink's actions is a command, and knows Flink's options, but for those that are about what there is not.
    fn knows_all_options(&mut self, folder: &Folder) {
        const NOT: [(&str, &str); 13] = [
            ("-py", "Python comes as a component"),
            ("-C,--classpath", "all that a component needs is in it"),
            ("-j,--jarfile", "a savepoint is disposed of without the code that made it"),
            ("-cm,--claimMode", "a savepoint stays its owner's: NO_CLAIM"),
            ("-rm,--restoreMode", "the old name of claimMode"),
            ("-sae,--shutdownOnAttachedExit", "who waits for a job does not own it"),
            ("-e,--executor", "deprecated: there is one way to run a job"),
            ("-t,--target", "a session is named by its address"),
            ("-yid,--yarnapplicationId", "there is no YARN"),
            ("-z,--zookeeperNamespace", "there is no ZooKeeper"),
            ("-pyfs,--pyFiles", "Python comes as a component"),
            ("-pym,--pyModule", "Python comes as a component"),
            ("-pyreq,--pyRequirements", "Python comes as a component"),
        ];
        for action in ["run", "list", "cancel", "stop", "savepoint", "checkpoint", "info"] {
            let help = folder.streamctl(&[action, "--help"]).succeeds().out.clone();
            let name = format!("help-{action}");
            let text = std::fs::read_to_string(self::folder().join(&name).with_extension("txt")).unwrap();
            for option in text.lines().skip_while(|line| *line != "--- options").skip(1) {
                if NOT.iter().any(|(not, _)| option.starts_with(not)) {
                    continue;
                }
                let long = option.rsplit(',').next().unwrap().trim_start_matches('-');
                assert!(help.contains(&format!("--{long}")), "{action} does not know {option}");
                if let Some((short, _)) = option.split_once(',').filter(|(short, _)| short.len() == 2) {
                    let known = format!("{short}, --");
                    assert!(help.contains(&known), "{action} does not know {short} of {option}");
                }
            }
            self.0.insert(name);
        }
        let help = folder.streamctl(&["--help"]).succeeds().out.clone();
        for name in ["help", "no-action"] {
            let text = std::fs::read_to_string(self::folder().join(name).with_extension("txt")).unwrap();
            for action in text.lines().filter_map(|line| line.strip_prefix("Action \"")) {
                let action = action.trim_end_matches('"');
                assert!(help.contains(&format!("\n  {action} ")), "there is no {action}");
            }
            self.0.insert(name.to_owned());
        }
        // Without a command the help is what is said, and that is wrong usage here too.
        assert_eq!(folder.streamctl(&[]).code, 2);
    }
}
