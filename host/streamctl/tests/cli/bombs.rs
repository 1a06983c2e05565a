//! Components that are made to be hard to compile: they are refused, and nothing else notices.

use std::time::Duration;

use platform::Clock;

use crate::recovery::{expected, text};
use crate::session::Session;
use crate::support::Folder;

/// A number as WebAssembly has it.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id], leb(body.len()).as_slice(), body].concat()
}

/// A component of one module, whose functions take a number; a body begins with its locals.
fn component_of(bodies: &[Vec<u8>]) -> Vec<u8> {
    let types = section(1, &[1, 0x60, 1, 0x7f, 0]);
    let functions = section(3, &[leb(bodies.len()), vec![0; bodies.len()]].concat());
    let sized: Vec<u8> = bodies.iter().flat_map(|body| [leb(body.len()), body.clone()].concat()).collect();
    let code = section(10, &[leb(bodies.len()), sized].concat());
    let module = [b"\0asm\x01\0\0\0".as_slice(), &types, &functions, &code].concat();
    [b"\0asm\x0d\0\x01\0".as_slice(), &section(1, &module)].concat()
}

/// Blocks in blocks, and jumps from many places out of each.
fn jumps(blocks: usize, places: usize) -> Vec<u8> {
    let mut body = vec![0];
    body.extend([0x02, 0x40].repeat(blocks));
    // if the number is not 0: to the block of that number.
    let targets: Vec<u8> = (0..=blocks).flat_map(leb).collect();
    let jump = [&[0x20, 0, 0x04, 0x40, 0x20, 0, 0x0e], leb(blocks).as_slice(), &targets, &[0x0b]].concat();
    body.extend(jump.repeat(places));
    body.extend([0x0b].repeat(blocks + 1));
    body
}

fn bomb() -> Vec<u8> {
    component_of(&vec![jumps(1_000, 1_000); 12])
}

/// The most memory that a process has had, in bytes.
fn most_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The processes that a process has started.
fn children(process: u32) -> String {
    std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default()
}

#[test]
fn a_job_runs_on_while_a_component_is_given_up() {
    let folder = Folder::new();
    let text = text(300_000);
    folder.write("text.txt", &text);
    let mut command = Session::command(&folder, 2, "source.read=stall:3000");
    command.args(["-Dmillstream.compile.time=3s", "-Dmillstream.cache-dir=none"]);
    let session = Session::of(command);
    let id = session.submit(&folder, &[]);
    session.wait_until(&folder, &id, "RUNNING");
    let clock = Clock::system();
    let begin = clock.now();
    let (code, said) = session.upload(&bomb());
    let took = clock.now() - begin;
    let said = said["errors"][0].as_str().unwrap().to_owned();
    assert_eq!(code, 400, "{said}");
    assert!(said.contains("takes more than 3s of CPU time to compile"), "{said}");
    assert!(said.contains("millstream.compile.time"), "{said}");
    assert!(took < Duration::from_secs(50), "{took:?}");
    // Whoever compiled is gone, and what it took was not this process's.
    assert_eq!(children(session.child.id()), "");
    let most = most_memory(session.child.id());
    assert!(most < 400 << 20, "{most} bytes");
    let status = session.status(&folder, &id);
    assert!(status == "RUNNING" || status == "FINISHED", "{status}");
    assert_eq!(session.get("/jars").1["files"], serde_json::json!([]));
    // The next component is compiled.
    let wasm = std::fs::read(crate::support::component("word_count")).unwrap();
    assert_eq!(session.upload(&wasm).0, 200);
    session.wait_until(&folder, &id, "FINISHED");
    assert!(folder.parts("out") == expected(&text), "other rows than the text's");
}

#[test]
fn each_limit_is_named_by_who_runs_the_component_too() {
    let folder = Folder::new();
    let file = folder.write("bomb.wasm", bomb());
    let run = |options: &[&str]| {
        folder.streamctl(&[&["run", "-Dmillstream.cache-dir=none"], options, &[&file]].concat())
    };
    run(&["-Dmillstream.compile.time=1s"])
        .fails(2, &["bomb.wasm", "more than 1s of CPU time", "compile.time=5min"]);
    let clock = Clock::system();
    let begin = clock.now();
    let told = ["bomb.wasm", "more than 100663296 bytes of memory", "millstream.compile.memory"];
    run(&["-Dmillstream.compile.memory=96mb"]).fails(2, &told);
    assert!(clock.now() - begin < Duration::from_secs(60), "it is noticed late");
    run(&["-Dmillstream.compile.memory=1mb"]).fails(2, &["it is 16mb at least"]);
    folder
        .streamctl(&["info", "-Dmillstream.compile.time=1s", &file])
        .fails(2, &["more than 1s of CPU time"]);
}

#[test]
fn what_is_very_large_or_deep_is_answered() {
    let folder = Folder::new();
    let mut command = Session::command(&folder, 1, "");
    command.args(["-Dmillstream.cache-dir=none"]);
    command.args(["-Dmillstream.compile.time=5s", "-Dmillstream.compile.memory=256mb"]);
    let session = Session::of(command);
    let nothing = |bytes: usize| [vec![0], vec![0x01; bytes], vec![0x0b]].concat();
    let million = leb(1_000_000);
    let locals = [vec![1], million.clone(), vec![0x7f, 0x0b]].concat();
    let blocks = [vec![0], [0x02, 0x40].repeat(1_000_000), vec![0x0b; 1_000_001]].concat();
    let many = vec![vec![0, 0x0b]; 900_000];
    for (what, bodies) in [
        ("a function of 50 MB", vec![nothing(50 << 20)]),
        ("a million locals", vec![locals]),
        ("a million blocks in each other", vec![blocks]),
        ("nearly a million functions", many),
    ] {
        let (code, said) = session.upload(&component_of(&bodies));
        let said = said["errors"][0].as_str().unwrap_or_default().to_owned();
        assert_eq!(code, 400, "{what}: {said}");
        assert!(said.contains("component"), "{what}: {said}");
        assert_eq!(children(session.child.id()), "", "{what}");
    }
    let wasm = std::fs::read(crate::support::component("word_count")).unwrap();
    assert_eq!(session.upload(&wasm).0, 200);
    let most = most_memory(session.child.id());
    assert!(most < 600 << 20, "{most} bytes");
}
