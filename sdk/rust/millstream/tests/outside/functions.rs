//! What each operator does to rows, through the harness.

use millstream::prelude::*;
use millstream::testing::Harness;

#[derive(Clone, Debug, PartialEq, Record)]
struct Bid {
    auction: i64,
    bidder: String,
    price: Option<f64>,
    tags: Vec<String>,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Place {
    city: String,
    r#type: Option<u8>,
}

fn bid(auction: i64, bidder: &str, price: Option<f64>) -> Bid {
    let city = format!("city {}", auction % 2);
    Bid {
        auction,
        bidder: bidder.into(),
        price,
        tags: vec![bidder.to_uppercase()],
        place: Place { city, r#type: None },
    }
}

fn bids() -> Vec<Bid> {
    vec![bid(1, "ann", Some(2.0)), bid(2, "bob", None), bid(1, "cy", Some(1.0)), bid(2, "ann", Some(5.0))]
}

fn source(job: &Job) -> Stream<'_, Bid> {
    job.json::<Bid>(Connector::stdin()).stream()
}

#[test]
fn structs_are_borrowed_and_emitted_whole() {
    #[job]
    fn rich(job: &Job) -> Result<()> {
        let rich = source(job).filter(|bid| bid.price.is_some_and(|price| price > 1.5));
        rich.sink(Sink::collect("rich"));
        rich.flat_map(|bid, out| out.emit(bid)).sink(Sink::collect("same"));
        rich.map(|bid| Place { city: bid.bidder.to_string(), r#type: Some(1) }).sink(Sink::collect("places"));
        rich.flat_map(|bid, out| out.emit((bid.place, bid.tags))).sink(Sink::collect("parts"));
        Ok(())
    }
    let run = Harness::of(rich).rows::<Bid>("", bids()).run();
    let expected = [bid(1, "ann", Some(2.0)), bid(2, "ann", Some(5.0))];
    assert_eq!(run.rows::<Bid>("rich"), expected);
    assert_eq!(run.rows::<Bid>("same"), expected);
    assert_eq!(run.rows::<Place>("places")[1], Place { city: "ann".into(), r#type: Some(1) });
    let parts: Vec<(Place, Vec<String>)> = run.rows("parts");
    assert_eq!(parts[0], (expected[0].place.clone(), expected[0].tags.clone()));
    assert_eq!(run.names("places"), ["city", "type"]);
}

#[test]
fn aggregates_by_one_key_and_by_two() {
    #[job]
    fn totals(job: &Job) -> Result<()> {
        let bids = source(job);
        bids.key_by(Bid::AUCTION).sum(Bid::PRICE).sink(Sink::collect("sum"));
        bids.key_by((Bid::BIDDER, Bid::PLACE.then(Place::CITY))).count().sink(Sink::collect("count"));
        bids.key_by(())
            .aggregate((min(Bid::BIDDER), max(Bid::PRICE), avg(Bid::PRICE), count_of(Bid::PRICE)))
            .sink(Sink::collect("all"));
        Ok(())
    }
    let run = Harness::of(totals).rows::<Bid>("", bids()).run();
    let sums: Vec<(i64, Option<f64>)> = run.rows("sum");
    assert_eq!(sums, [(1, Some(2.0)), (2, None), (1, Some(3.0)), (2, Some(5.0))]);
    assert_eq!(run.names("sum"), ["auction", "price"]);
    let counts: Vec<(String, String, i64)> = run.rows("count");
    assert_eq!(counts[3], ("ann".to_string(), "city 0".to_string(), 1));
    assert_eq!(run.names("count"), ["bidder", "city", "count"]);
    let all: Vec<(String, Option<f64>, Option<f64>, i64)> = run.rows("all");
    assert_eq!(all[1], ("ann".to_string(), Some(2.0), Some(2.0), 1));
    assert_eq!(all[3], ("ann".to_string(), Some(5.0), Some(8.0 / 3.0), 3));
    assert_eq!(run.names("all"), ["bidder", "price", "avg_price", "count"]);
}

#[test]
fn reduce_keeps_a_row_a_key() {
    #[job]
    fn highest(job: &Job) -> Result<()> {
        source(job)
            .map(|bid| (bid.auction, bid.bidder.to_string(), bid.price.unwrap_or(0.0)))
            .key_by(F0)
            .reduce(|so_far, next| {
                let best = if next.2 > so_far.2 { next } else { so_far };
                (best.0, best.1.to_string(), best.2)
            })
            .print();
        Ok(())
    }
    let run = Harness::of(highest).rows::<Bid>("", bids()).run();
    let rows: Vec<(i64, String, f64)> = run.rows("Sink: print");
    let names: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    assert_eq!(names, ["ann", "bob", "ann", "ann"]);
}

#[test]
fn unions_sides_and_diverted_rows() {
    #[job]
    fn many_ways(job: &Job) -> Result<()> {
        let left = job.lines(Connector::stdin()).uid("left");
        let right = job.lines(Connector::stdin()).uid("right");
        let (numbers, bad) = left.union([right]).try_map(|line| Ok(line.parse::<i64>()?)).divert_failures();
        let (even, odd, negative) =
            numbers.side_output("odd").side_output("negative").flat_map(|number, even, odd, negative| {
                if number < 0 {
                    negative.emit(number);
                } else if number % 2 == 0 {
                    even.emit((number, "even"));
                } else {
                    odd.emit(number);
                }
            });
        even.sink(Sink::collect("even"));
        odd.sink(Sink::collect("odd"));
        negative.sink(Sink::collect("negative"));
        bad.sink(Sink::collect("bad"));
        Ok(())
    }
    let left = ["1", "x", "-4"];
    let run = Harness::of(many_ways).rows::<String>("left", left).rows::<String>("right", ["8"]).run();
    assert_eq!(run.rows::<(i64, String)>("even"), [(8, "even".to_string())]);
    assert_eq!(run.rows::<i64>("odd"), [1]);
    assert_eq!(run.rows::<i64>("negative"), [-4]);
    let bad: Vec<Failed<String>> = run.rows("bad");
    assert_eq!(bad.len(), 1);
    assert_eq!((bad[0].row.as_str(), bad[0].failure.as_str()), ("x", "invalid digit found in string"));
    assert_eq!(run.names("bad"), ["line", "failure"]);
}

#[test]
fn skipped_rows_and_event_times() {
    #[job]
    fn numbers(job: &Job) -> Result<()> {
        let numbers = job.lines(Connector::stdin()).try_flat_map(|line, out| {
            for part in line.split(' ') {
                out.emit(part.parse::<i64>()?);
            }
            Ok(())
        });
        numbers.on_failure(OnFailure::Skip).filter(|number| number > 0).print();
        Ok(())
    }
    let lines = [(10, "1 2"), (20, "3 x"), (30, "-1 4")];
    let run = Harness::of(numbers).timed_rows::<String>("", lines).run();
    assert_eq!(run.rows::<i64>("Sink: print"), [1, 2, 4]);
    assert_eq!(run.times("Sink: print"), [Some(10), Some(10), Some(30)]);
}

#[test]
fn tuples_become_structs_of_the_same_columns() {
    #[derive(Debug, PartialEq, Record)]
    struct Count {
        word: String,
        n: i64,
    }
    #[job]
    fn casts(job: &Job) -> Result<()> {
        let counts = job.lines(Connector::stdin()).map(|line| (line.to_string(), 1i64));
        counts.cast::<Count>().filter(|count| count.n == 1 && count.word != "b").print();
        Ok(())
    }
    let run = Harness::of(casts).lines(["a", "b"]).run();
    assert_eq!(run.rows::<Count>("Sink: print"), [Count { word: "a".into(), n: 1 }]);
    assert_eq!(run.names("Sink: print"), ["word", "n"]);
}

#[test]
fn what_is_wrong_with_a_job_is_said() {
    #[track_caller]
    fn refused<A>(job: impl millstream::JobFunction<A> + 'static, expected: &str) {
        let refusal = Harness::of(job).plan().unwrap_err();
        assert!(refusal.text().contains(expected), "{}", refusal.text());
    }
    fn names(job: &Job) -> Result<()> {
        job.lines(Connector::stdin()).names(["a", "b"]).print();
        Ok(())
    }
    fn twice(job: &Job) -> Result<()> {
        let words = job.lines(Connector::stdin()).map(|line| (line.to_string(), 1));
        words.key_by(F0).sum(F1).print();
        words.key_by(F0).sum(F1).print();
        Ok(())
    }
    fn cast(job: &Job) -> Result<()> {
        job.lines(Connector::stdin()).cast::<i64>().print();
        Ok(())
    }
    fn nothing(_job: &Job) -> Result<()> {
        Ok(())
    }
    fn failing(_job: &Job) -> Result<()> {
        bail!("no {}", "luck");
    }
    refused(names, "2 names for 1 columns at ");
    refused(twice, "two operators have the uid `aggregate-sum-by-f0`");
    refused(cast, "rows of (line DataType::Text) cannot be cast to (value DataType::Int64)");
    refused(nothing, "has no operators");
    refused(failing, "no luck");
}
