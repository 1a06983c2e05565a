//! The arguments of jobs, by clap and by hand.

use millstream::Refusal;
use millstream::prelude::*;
use millstream::testing::Harness;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Words shorter than this are left out
    #[arg(long, default_value_t = 1)]
    min_length: usize,
}

/// Leaves long words.
#[job]
fn by_clap(job: &Job, args: Arguments) -> Result<()> {
    let min_length = args.min_length;
    job.lines(args.input.source()?).filter(move |word| word.len() >= min_length).sink(&args.output);
    Ok(())
}

/// Leaves long words.
#[job]
fn by_hand(job: &Job) -> Result<()> {
    let min_length = job.args().parse("min-length", "words shorter than this are left out")?.unwrap_or(1);
    let path = job.args().option("input", "file to read")?.unwrap_or("words.txt");
    let is_quiet = job.args().flag("quiet", "prints nothing");
    let words = job.lines(Connector::files(path)).filter(move |word| word.len() >= min_length);
    words.sink(if is_quiet { Sink::blackhole() } else { Sink::print() });
    Ok(())
}

millstream::jobs!(by_clap, by_hand);

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[track_caller]
fn usage(harness: Harness, arguments: &str, expected: &[&str]) {
    match harness.args(words(arguments)).plan() {
        Err(Refusal::Usage(text)) => {
            for part in expected {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
        other => panic!("{arguments} gives {other:?}"),
    }
}

#[test]
fn an_unknown_argument_is_refused_with_the_nearest_name() {
    usage(Harness::of(by_clap), "--min-lenght 3", &["unexpected argument '--min-lenght'", "--min-length"]);
    usage(Harness::of(by_hand), "--min-lenght 3", &["unexpected argument `--min-lenght`", "`--min-length`?"]);
    usage(Harness::of(by_hand), "stray", &["unexpected argument `stray`", "`--help`"]);
}

#[test]
fn wrong_values_are_refused() {
    usage(Harness::of(by_clap), "--min-length x", &["invalid value 'x'", "--min-length"]);
    usage(Harness::of(by_hand), "--min-length x", &["`--min-length x`: invalid digit"]);
    usage(Harness::of(by_hand), "--min-length", &["`--min-length` wants a value"]);
    usage(Harness::of(by_clap), "", &["no input is given", "--input PATH"]);
    usage(Harness::of(by_clap), "--host h", &["--port"]);
    usage(Harness::of(by_clap), "--input a --host h --port 1", &["cannot be used with"]);
    usage(Harness::of(by_clap), "--input a --format xml", &["[possible values: json, csv, text, parquet]"]);
}

#[test]
fn help_lists_the_arguments() {
    for harness in [Harness::of(by_clap), Harness::of(by_hand)] {
        match harness.args(["--help"]).plan() {
            Err(Refusal::Help(text)) => {
                assert!(text.contains("--min-length") && text.contains("left out"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn arguments_reach_the_graph() {
    let graph = Harness::of(by_clap).args(words("--input a.txt --output out")).plan().unwrap();
    let text = format!("{graph:?}");
    assert!(text.contains("a.txt") && text.contains("\"json\"") && text.contains("\"out\""), "{text}");
    let graph =
        Harness::of(by_clap).args(words("--host h --port 7 --output out --format csv")).plan().unwrap();
    let text = format!("{graph:?}");
    assert!(text.contains("socket") && text.contains("\"csv\""), "{text}");
    let run = Harness::of(by_hand).args(words("--min-length=3 --quiet")).lines(["ab", "abc"]).run();
    assert_eq!(run.rows::<String>("Sink: blackhole"), ["abc"]);
}
