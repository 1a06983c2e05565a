//! The same rows for the same seed, when they are due.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::sources::pace::TICK;
use crate::test_support::{
    Given, World, connection, error_of, numbers, schema, text_schema, texts, with_format,
};

fn number_schema() -> SchemaRef {
    schema(&[("n", DataType::Int64, false)])
}

fn sequence(options: &[(&str, &str)]) -> GeneratorFactory {
    GeneratorFactory::of(&connection("generator", options), &number_schema()).unwrap()
}

fn words(options: &[(&str, &str)]) -> GeneratorFactory {
    let options = [&[("kind", "words"), ("rows", "1000")], options].concat();
    GeneratorFactory::of(&connection("generator", &options), &text_schema()).unwrap()
}

fn read(factory: &GeneratorFactory, parallelism: u32) -> Given {
    World::simulated(1).with_batches(70, 1 << 16).read(factory, parallelism).unwrap()
}

fn all_numbers(given: &Given) -> Vec<i64> {
    given.batches.iter().flat_map(|(_, batch)| numbers(batch)).collect()
}

#[test]
fn a_sequence_counts_from_zero() {
    assert_eq!(all_numbers(&read(&sequence(&[("rows", "1000")]), 1)), (0..1000).collect::<Vec<_>>());
    assert!(all_numbers(&read(&sequence(&[("rows", "0")]), 3)).is_empty());
}

#[test]
fn the_rows_are_the_same_at_every_parallelism() {
    let expected = read(&words(&[("seed", "7")]), 1).sorted_texts();
    assert_eq!(expected.len(), 1000);
    for parallelism in [2, 3, 64] {
        assert_eq!(read(&words(&[("seed", "7")]), parallelism).sorted_texts(), expected);
        let mut counted = all_numbers(&read(&sequence(&[("rows", "1000")]), parallelism));
        counted.sort_unstable();
        assert_eq!(counted, (0..1000).collect::<Vec<_>>());
    }
}

#[test]
fn another_seed_gives_other_rows() {
    assert_ne!(read(&words(&[("seed", "7")]), 1).texts(), read(&words(&[("seed", "8")]), 1).texts());
    assert_eq!(read(&words(&[]), 1).texts(), read(&words(&[("seed", "0")]), 1).texts());
}

#[test]
fn lines_are_ten_words_of_the_vocabulary_the_first_the_most_common() {
    let lines = read(&words(&[("vocabulary", "50")]), 1).texts();
    assert!(lines.iter().all(|line| line.split(' ').count() == WORDS_A_LINE));
    let count = |word: &str| lines.iter().flat_map(|line| line.split(' ')).filter(|w| *w == word).count();
    let mut ranks: Vec<String> = (0..50).map(|_| String::new()).collect();
    ranks.iter_mut().enumerate().for_each(|(rank, text)| word(rank as u64, text));
    let seen: BTreeSet<&str> = lines.iter().flat_map(|line| line.split(' ')).collect();
    assert_eq!(seen, ranks.iter().map(String::as_str).collect());
    assert!(count(&ranks[0]) > count(&ranks[1]) && count(&ranks[1]) > count(&ranks[9]));
}

#[test]
fn each_rank_has_its_own_word() {
    let mut seen = BTreeSet::new();
    for rank in 0..100_000 {
        let mut text = String::new();
        word(rank, &mut text);
        assert!(seen.insert(text), "rank {rank}");
    }
}

/// At every moment all rows that are due have come, and none that is not.
#[test]
fn the_rate_is_kept() {
    for (rate, rows) in [("1000", 2_500), ("3", 10), ("0.5", 4), ("123456", 200_000)] {
        let factory = sequence(&[("rate", rate), ("rows", &rows.to_string())]);
        let mut world = World::simulated(3).with_batches(10_000, 1 << 16);
        let mut source = factory.open(world.context(0, 1)).unwrap();
        let (mut came, per_second) = (0, rate.parse::<f64>().unwrap());
        loop {
            match source.poll().unwrap() {
                SourcePoll::Rows(decoded) => came += decoded.batch.num_rows(),
                SourcePoll::End => break,
                SourcePoll::Pending => {
                    let due = (world.platform.clock.now().as_secs_f64() * per_second) as usize + 1;
                    assert_eq!(came, due.min(rows), "at {:?}", world.platform.clock.now());
                    world.wait();
                }
            }
        }
        assert_eq!(came, rows);
        let late = world.platform.clock.now().as_secs_f64() - (rows - 1) as f64 / per_second;
        assert!((0.0..=TICK.as_secs_f64()).contains(&late), "{late} s late at {rate} rows a second");
    }
}

#[test]
fn the_rate_is_that_of_all_subtasks_together() {
    for parallelism in [1, 2, 3] {
        let mut world = World::simulated(5);
        let given = world.read(&sequence(&[("rate", "1000"), ("rows", "3001")]), parallelism).unwrap();
        assert_eq!(all_numbers(&given).len(), 3001);
        let (took, late) = (world.platform.clock.now(), TICK * parallelism);
        let exact = Duration::from_secs(3);
        assert!(exact <= took && took <= exact + late, "parallelism {parallelism} took {took:?}");
    }
}

#[test]
fn the_rate_is_kept_by_the_systems_clock() {
    let mut world = World::system();
    let given = world.read(&sequence(&[("rate", "100"), ("rows", "21")]), 2).unwrap();
    assert_eq!(all_numbers(&given).len(), 21);
    assert!(world.platform.clock.now() >= Duration::from_millis(200));
}

#[test]
fn a_rate_beyond_all_numbers_is_as_fast_as_it_goes() {
    let mut world = World::simulated(1);
    let given = world.read(&sequence(&[("rate", "1e300"), ("rows", "1000")]), 2).unwrap();
    assert_eq!(all_numbers(&given).len(), 1000);
    assert!(world.platform.clock.now() <= TICK * 2);
}

#[test]
fn without_a_number_of_rows_it_never_ends() {
    let factory = sequence(&[]);
    assert!(!factory.bounded() && sequence(&[("rows", "5")]).bounded());
    let world = World::simulated(1);
    let mut source = factory.open(world.context(1, 3)).unwrap();
    let mut came = Vec::new();
    for _ in 0..3 {
        let SourcePoll::Rows(decoded) = source.poll().unwrap() else { panic!("it ended") };
        came.extend(numbers(&decoded.batch));
    }
    assert_eq!(came, (0..came.len() as i64).map(|i| 1 + 3 * i).collect::<Vec<_>>());
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let message = |options: &[(&str, &str)], schema: &SchemaRef| {
        error_of(GeneratorFactory::of(&connection("generator", options), schema)).message
    };
    for rate in ["0", "-1", "NaN", "inf"] {
        let expected = "the rate of `generator` is above 0, in rows a second";
        assert_eq!(message(&[("rate", rate)], &number_schema()), expected);
    }
    let vocabulary = message(&[("kind", "words"), ("vocabulary", "0")], &text_schema());
    assert_eq!(vocabulary, "the vocabulary of `generator` has at least one word");
    let kind = message(&[("kind", "word")], &text_schema());
    assert_eq!(kind, "there is no `kind` of `generator` `word`");
    let column = message(&[("kind", "words")], &number_schema());
    assert_eq!(column, "the generator makes rows of one column of type Utf8");
}

#[test]
fn a_format_is_refused() {
    let connection = with_format(connection("generator", &[]), "json", &[]);
    let error = error_of(GeneratorFactory::of(&connection, &number_schema()));
    assert_eq!(error.message, "`generator` makes rows itself and takes no format, but `json` is given");
}

/// Results of different releases are compared: a change of a seed's lines shall not go unnoticed.
#[test]
fn a_seeds_lines_are_the_same_in_every_release() {
    let given = read(&words(&[("seed", "1")]), 1);
    assert_eq!(texts(&given.batches[0].1)[0], "mitaso noremi to neremi ne sota tadatoto relu to mi");
}

#[test]
fn each_row_comes_once_however_often_making_them_stops_and_goes_on() {
    let mut numbers = Vec::new();
    let mut positions = Vec::new();
    for polls in [&[3, 0, 5][..], &[2], &[1, 1, 1, 1, 1, 1, 1], &[usize::MAX, usize::MAX]] {
        let factory = sequence(&[("rows", "400")]);
        factory.restore(&positions).unwrap();
        let mut world = World::simulated(1).with_batches(9, 1 << 16);
        let (given, next) = world.read_in_part(&factory, polls).unwrap();
        numbers.extend(all_numbers(&given));
        positions = next;
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>());
    assert!(sequence(&[]).restore(&["no position".to_owned()]).is_err());
}
