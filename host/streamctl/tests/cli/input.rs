//! Bad and odd input.

use crate::support::{Folder, component, counted_by_tools};

#[test]
fn odd_texts_are_counted_as_tools_count_them() {
    let folder = Folder::new();
    let long = format!("start {} end\nnext\n", "y".repeat(10 << 20));
    let texts: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("crlf", b"a b\r\nb c\r\n\r\n".to_vec()),
        ("open end", b"a\nb".to_vec()),
        ("nul", b"a\0b c\n\0\n".to_vec()),
        ("blank", b"\n\n   \n\t\n".to_vec()),
        ("mark", b"\xEF\xBB\xBFa b\n".to_vec()),
        ("long line", long.into_bytes()),
    ];
    for (name, text) in texts {
        let file = folder.write(name, &text);
        for p in ["1", "3"] {
            let run = folder.streamctl(&["run", &component("word_count"), "-p", p, "--input", &file]);
            let plain = folder.write("plain", text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text));
            assert!(run.succeeds().rows() == counted_by_tools(&plain, false), "{name} at p = {p}");
        }
    }
}

#[test]
fn invalid_utf8_names_file_line_and_byte() {
    let folder = Folder::new();
    let file = folder.write("bad.txt", b"fine\nalso fine\nx\xFFy\nafter\n");
    let run = folder.streamctl(&["run", &component("word_count"), "--input", &file]);
    run.fails(1, &["bad.txt, line 3", "invalid UTF-8 at byte 2", "hint: "]);
}

#[test]
fn malformed_json_goes_aside_with_its_place() {
    let folder = Folder::new();
    let good = r#"{"user":"ann","kind":"purchase","cents":5,"device":null,"tags":null}"#;
    let deep = "[".repeat(100_000);
    let lines = [
        good,
        "{",
        r#"{"user":7}"#,
        "[]",
        r#"{"user":"bob"}"#,
        &deep,
        r#"{"user":"a","kind":"k","cents":1e999}"#,
        good,
    ];
    let file = folder.write("events.jsonl", lines.join("\n"));
    let events = component("events");
    let run = folder.streamctl(&["run", &events, "--input", &file, "--output", "out", "--side", "aside"]);
    run.succeeds();
    assert_eq!(folder.parts("out").len(), 2);
    let malformed = folder.parts("aside/malformed");
    assert_eq!(malformed.len(), 6, "{malformed:?}");
    for line in 2..=7 {
        assert!(
            malformed.iter().any(|row| row.contains(&format!("events.jsonl, line {line}:"))),
            "{malformed:?}"
        );
    }
    assert!(run.err.contains("6 failed and sent aside"), "{}", run.err);
}

#[test]
fn a_missing_file_is_refused_with_the_nearest() {
    let folder = Folder::new();
    folder.write("input.txt", "a");
    let wc = component("word_count");
    folder
        .streamctl(&["run", &wc, "--input", "inputt.txt"])
        .fails(2, &["there is no file `inputt.txt`", "`input.txt`"]);
    folder.streamctl(&["run", &wc, "--input", "no/such.txt"]).fails(2, &["there is no folder `no`"]);
    folder.streamctl(&["run", &wc, "--input", "*.csv"]).fails(2, &["no file matches"]);
    std::fs::create_dir(folder.path("nothing")).unwrap();
    folder.streamctl(&["run", &wc, "--input", "nothing"]).fails(2, &["there is no file in the folder"]);
    folder.streamctl(&["run", &wc, "--input", "/dev/null"]).fails(2, &["is not a file"]);
}

#[test]
fn rows_that_fail_and_rows_of_side_outputs_reach_their_sinks() {
    let folder = Folder::new();
    let purchase = |user: &str, cents: &str| {
        format!(r#"{{"user":"{user}","kind":"purchase","cents":{cents},"device":null,"tags":null}}"#)
    };
    let lines =
        [purchase("ann", "5"), purchase("bob", "null"), purchase("cy", "200000"), purchase("di", "-1")];
    let file = folder.write("events.jsonl", lines.join("\n"));
    for (p, chaos) in [("1", false), ("3", false), ("2", true)] {
        let out = format!("out-{p}-{chaos}");
        let (totals, side) = (format!("{out}/totals"), format!("{out}/side"));
        let events = component("events");
        let mut args = vec!["run", "-p", p];
        args.extend(chaos.then_some("--chaos-instances"));
        args.extend([&events, "--input", &file, "--output", &totals, "--side", &side]);
        folder.streamctl(&args).succeeds();
        assert_eq!(folder.parts(&totals).len(), 2, "at p = {p}");
        let unpriced = folder.parts(&format!("{side}/unpriced"));
        assert_eq!(unpriced.len(), 2, "at p = {p}: {unpriced:?}");
        assert!(
            unpriced[0].contains("bob") && unpriced[0].contains("a purchase without a price"),
            "{unpriced:?}"
        );
        let large = folder.parts(&format!("{side}/large"));
        assert!(large.len() == 1 && large[0].contains("cy"), "at p = {p}: {large:?}");
    }
}
