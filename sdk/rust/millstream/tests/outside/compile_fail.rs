//! Mistakes in a job are told where they are: errors point at the user's token.
//!
//! A case is a file in `tests/compile_fail`. A comment with carets under a place of the line before
//! it says that an error is reported there, and a part of its message.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An error: line, column, message.
type Reported = (usize, usize, String);

#[test]
fn errors_point_at_the_users_token() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let control = folder.join("control.rs");
    let library = libraries()
        .into_iter()
        .find(|library| compile(&control, library).is_empty())
        .expect("a job without mistakes compiles against the library that this test was built with");
    let mut cases: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 5);
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| **case != control) {
        let reported = compile(case, &library);
        let expected = expected(&std::fs::read_to_string(case).unwrap());
        assert!(!expected.is_empty(), "{} expects nothing", case.display());
        for (line, column, part) in &expected {
            let is_reported = reported
                .iter()
                .any(|(l, c, message)| (l, c) == (line, column) && message.contains(part.as_str()));
            if !is_reported {
                let file = case.file_name().unwrap_or_default().display();
                wrong.push(format!("{file}:{line}:{column}: {part}\n  but there is {reported:#?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The places under carets.
fn expected(source: &str) -> Vec<Reported> {
    let mut expected = Vec::new();
    let mut code = 0;
    for (place, line) in source.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//").filter(|rest| rest.contains('^')) else {
            code = place + 1;
            continue;
        };
        let column = line.find('^').unwrap() + 1;
        expected.push((code, column, comment.trim_start().trim_start_matches('^').trim().to_string()));
    }
    expected
}

/// The SDK as it lies beside this test, the newest build first.
fn libraries() -> Vec<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let mut libraries: Vec<PathBuf> =
        test.parent().unwrap().read_dir().unwrap().map(|e| e.unwrap().path()).collect();
    libraries.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libmillstream-") && name.ends_with(".rlib")
    });
    libraries.sort_by_key(|path| std::cmp::Reverse(path.metadata().and_then(|data| data.modified()).ok()));
    libraries
}

/// Compiles a file, and gives the errors in it.
fn compile(file: &Path, library: &Path) -> Vec<Reported> {
    let out = tempfile(file);
    let output = Command::new("rustc")
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--error-format=short", "-o"])
        .arg(&out)
        .arg(format!("--extern=millstream={}", library.display()))
        .arg(format!("-Ldependency={}", library.parent().unwrap().display()))
        .arg(file)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let mut reported = Vec::new();
    for line in stderr.lines() {
        let Some(place) = line.strip_prefix(&format!("{}:", file.display())) else {
            assert!(!line.contains("error: couldn't") && !line.contains("E0463"), "{stderr}");
            continue;
        };
        let mut parts = place.splitn(3, ':');
        let (line, column) = (parts.next().unwrap(), parts.next().unwrap());
        let message = parts.next().unwrap().trim();
        if message.starts_with("error") {
            reported.push((line.parse().unwrap(), column.parse().unwrap(), message.to_string()));
        }
    }
    assert_eq!(output.status.success(), reported.is_empty(), "{stderr}");
    reported
}

/// Where the compiler puts what it makes of a case.
fn tempfile(case: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(case.file_name().unwrap()).with_extension("rmeta")
}
