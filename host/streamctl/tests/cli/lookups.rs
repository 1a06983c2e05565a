//! Rows joined with a table that lies outside, and with versions of a table: `examples/enrichment`.

use crate::support::{Folder, Ran, component};

const ORDERS: &str = r#"{"order":1,"customer":"ann","cents":100,"at":"2026-03-02 08:00:00.000"}
{"order":2,"customer":"ann","cents":200,"at":"2026-03-02 10:00:00.000"}
{"order":3,"customer":"bob","cents":300,"at":"2026-03-02 09:00:00.000"}
"#;
const CUSTOMERS: &str = r#"{"name":"ann","city":"Oslo","tier":"silver","since":"2026-03-02 09:00:00.000"}
{"name":"ann","city":"Rome","tier":"gold","since":"2026-03-01 09:00:00.000"}
{"name":"bob","city":"Paris","tier":null,"since":"2026-03-02 09:00:00.000"}
"#;

/// A folder with orders, customers and tiers.
fn folder(tiers: &str) -> Folder {
    let folder = Folder::new();
    folder.write("orders.jsonl", ORDERS);
    folder.write("customers.jsonl", CUSTOMERS);
    folder.write("tiers.csv", tiers);
    folder
}

const INPUT: [&str; 7] =
    ["--as-of", "--input", "orders.jsonl", "--customers", "customers.jsonl", "--tiers", "tiers.csv"];

fn run(folder: &Folder, options: &[&str]) -> Ran {
    let enrichment = component("enrichment");
    folder.streamctl(&[&["run"], options, &[enrichment.as_str()], &INPUT].concat())
}

#[test]
fn orders_have_the_customer_and_the_discount_of_their_time() {
    // Two entries for gold; one without a tier equals nothing.
    let folder = folder("tier,percent\ngold,10\ngold,11\n,50\n");
    for options in
        [&["-p", "1"][..], &["-p", "3"], &["-p", "2", "--execution", "batch"], &["--chaos-instances"]]
    {
        let ran = run(&folder, options);
        assert_eq!(
            ran.succeeds().rows(),
            [
                "(1,ann,100,Rome,gold,10)",
                "(1,ann,100,Rome,gold,11)",
                "(2,ann,200,Oslo,silver,null)",
                "(3,bob,300,Paris,null,null)",
            ],
            "{options:?}"
        );
    }
}

#[test]
fn a_table_that_cannot_be_read_is_told() {
    let folder = folder("tier,percent\ngold,10\nsilver,much\n");
    run(&folder, &[]).fails(1, &["the table of `Lookup Join: left`", "tiers.csv, record 3", "src/lib.rs"]);
    std::fs::remove_file(folder.path("tiers.csv")).unwrap();
    run(&folder, &[]).fails(2, &["there is no file `tiers.csv`"]);
}

/// What a job reads as a table it has to be granted, as its input.
#[test]
fn a_table_is_granted() {
    let folder = folder("tier,percent\n");
    let enrichment = component("enrichment");
    let info = folder.streamctl(&["info", &enrichment, "--as-of", "--tiers", "tiers.csv"]);
    assert!(info.succeeds().out.contains("lookup in files"), "{}", info.out);
    assert!(info.out.contains("tiers.csv"), "what it asks for: {}", info.out);
}

/// A job ends with its input: the table's next reading, in a minute, is not waited for.
#[test]
fn the_next_reading_is_not_waited_for() {
    let folder = folder("tier,percent\nsilver,5\n");
    let (streamctl, enrichment) = (env!("CARGO_BIN_EXE_streamctl"), component("enrichment"));
    let input = "--as-of --input - --customers customers.jsonl --tiers tiers.csv";
    let script = format!("timeout 30 {streamctl} run {enrichment} {input} < orders.jsonl");
    let ran = Ran::of(folder.shell(&script).output().unwrap());
    assert_eq!(ran.succeeds().rows().len(), 3);
}
