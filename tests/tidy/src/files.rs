//! What the tree may contain.

use crate::tracked;

/// Top-level folders, as the map has them.
const FOLDERS: [&str; 10] =
    [".cargo", ".ci", "docs", "examples", "host", "scripts", "sdk", "tests", "wit", ".github"];
const LINES_MAX: usize = 1_000;

#[test]
fn the_top_level_is_the_maps() {
    for (path, _) in tracked() {
        if let Some((folder, _)) = path.split_once('/') {
            assert!(FOLDERS.contains(&folder), "{path}");
        }
    }
}

#[test]
fn texts_are_clean() {
    for (path, text) in tracked() {
        let Some(text) = text else { continue };
        let data = path.contains("/golden/") || path.contains("sample") || path.ends_with("LICENSE");
        if data || path.ends_with(".lock") {
            continue;
        }
        assert!(text.is_empty() || text.ends_with('\n'), "{path} has no final newline");
        assert!(!text.contains('\r'), "{path} has carriage returns");
        for (number, line) in (1..).zip(text.lines()) {
            assert_eq!(line.trim_end(), line, "{path}:{number} ends in spaces");
            assert!(!line.contains('\t') || path.ends_with(".in"), "{path}:{number} has a tab");
        }
        if path.ends_with(".rs") {
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{path} has {lines} lines: it does more than one thing");
        }
    }
}

/// The repository speaks of Millstream alone. Words are put together so that this file has none.
#[test]
fn nothing_of_a_machine_is_named() {
    let words = [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
        ["index.crates", ".io"].concat(),
    ];
    for (path, text) in tracked() {
        if path.ends_with(".lock") {
            continue;
        }
        for word in &words {
            assert!(!text.as_deref().unwrap_or_default().contains(word), "{path} has `{word}`");
        }
    }
}

/// Invariants of the engine, written as what is absent.
#[test]
fn the_engine_has_no_async_functions_and_no_unbounded_queues() {
    let (async_function, unbounded) = (["async ", "fn "].concat(), ["unbounded", "_channel"].concat());
    for (path, text) in tracked() {
        let Some(text) = text.filter(|_| path.ends_with(".rs") && path.starts_with("host/")) else {
            continue;
        };
        // `guest` polls wasmtime's futures itself, on fibers; none reaches an executor.
        let engine = ["state", "window", "task", "exchange", "graph"]
            .iter()
            .any(|name| path.starts_with(&format!("host/{name}/")));
        assert!(!engine || !text.contains(&async_function), "{path}");
        assert!(!text.contains(&unbounded), "{path}");
    }
}

/// `unsafe` lies where the map says, and every crate says whether it has some.
#[test]
fn unsafe_code_lies_in_few_places() {
    let may = [
        "host/guest/src/cache.rs",
        "host/guest/src/compiler.rs",
        "host/model/src/whole_rows.rs",
        "host/allocator/src/lib.rs",
        "sdk/rust/sys/",
        "tests/guests/",
    ];
    let word = ["unsafe", " {"].concat();
    for (path, text) in tracked() {
        let Some(text) = text.filter(|_| path.ends_with(".rs")) else { continue };
        let allowed = may.iter().any(|place| path.starts_with(place));
        assert!(allowed || !text.contains(&word), "{path} has unsafe code");
    }
}
