//! The rules of the fields, and the same events at every parallelism.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use proptest::prelude::*;

use super::draws::price;
use super::*;
use crate::test_support::{World, connection, error_of, schema, with_format};

const ALL: [bool; 3] = [true, true, true];

fn ports(used: [bool; 3]) -> Vec<SourcePort> {
    schemas().into_iter().zip(used).map(|(schema, used)| SourcePort { schema, used }).collect()
}

fn nexmark(options: &[(&str, &str)], used: [bool; 3]) -> NexmarkFactory {
    NexmarkFactory::of(&connection("nexmark", options), &ports(used)).unwrap()
}

/// Rows as JSON lines by port: in the order of the events, which the first columns tell.
fn rows(factory: &NexmarkFactory, world: World, parallelism: u32) -> BTreeMap<u32, Vec<String>> {
    let mut world = world;
    let mut rows: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (port, batch) in world.read(factory, parallelism).unwrap().by_port {
        rows.entry(port).or_default().extend(crate::formats::as_json_lines(&batch));
    }
    rows.values_mut().for_each(|rows| rows.sort_unstable());
    rows
}

fn simulated() -> World {
    World::simulated(1).with_batches(100, 1 << 16)
}

/// All batches of a port, in order, of so many events.
fn batches(port: usize, options: &[(&str, &str)]) -> Vec<Batch> {
    let mut used = [false; 3];
    used[port] = true;
    simulated()
        .read(&nexmark(options, used), 1)
        .unwrap()
        .by_port
        .into_iter()
        .map(|(_, batch)| batch)
        .collect()
}

fn numbers(batches: &[Batch], column: usize) -> Vec<i64> {
    batches.iter().flat_map(|b| b.column(column).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn times(batches: &[Batch], column: usize) -> Vec<i64> {
    let values = |b: &Batch| b.column(column).as_primitive::<TimestampMillisecondType>().values().to_vec();
    batches.iter().flat_map(values).collect()
}

fn texts(batches: &[Batch], column: usize) -> Vec<String> {
    let values = |b: &Batch| -> Vec<String> {
        b.column(column).as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
    };
    batches.iter().flat_map(values).collect()
}

fn share<T>(values: &[T], counts: impl Fn(&T) -> bool) -> f64 {
    values.iter().filter(|value| counts(value)).count() as f64 / values.len() as f64
}

fn is_near(value: f64, expected: f64, within: f64) {
    assert!((value - expected).abs() <= within, "{value} instead of {expected}");
}

#[test]
fn of_fifty_events_one_is_a_person_three_are_auctions_the_others_bids() {
    for (events, expected) in [("50", [1, 3, 46]), ("1", [1, 0, 0]), ("4", [1, 3, 0]), ("105", [3, 9, 93])] {
        let made = rows(&nexmark(&[("events", events)], ALL), simulated(), 1);
        let counts = [0, 1, 2].map(|port| made.get(&port).map_or(0, Vec::len));
        assert_eq!(counts, expected, "{events} events");
    }
    assert!(rows(&nexmark(&[("events", "0")], ALL), simulated(), 3).is_empty());
}

/// The events that are made at one parallelism, and those at another, are the same, whatever the sizes
/// of batches, the ports that are read, and the rate are.
#[test]
fn the_events_are_the_same_at_every_parallelism() {
    let options = [("events", "7013"), ("seed", "5")];
    let expected = rows(&nexmark(&options, ALL), simulated(), 1);
    for parallelism in [2, 3, 7, 64] {
        for (batch_rows, batch_bytes) in [(1, 1), (7, 1 << 20), (1 << 16, 1 << 24)] {
            let world = World::simulated(9).with_batches(batch_rows, batch_bytes);
            assert_eq!(rows(&nexmark(&options, ALL), world, parallelism), expected);
        }
        let paced = [options.as_slice(), &[("rate", "9999")]].concat();
        assert_eq!(rows(&nexmark(&paced, ALL), simulated(), parallelism), expected);
        for port in 0..3 {
            let mut used = [false; 3];
            used[port as usize] = true;
            let made = rows(&nexmark(&options, used), simulated(), parallelism);
            assert_eq!(made.get(&port), expected.get(&port));
            assert_eq!(made.len(), 1);
        }
    }
}

/// That the comparison sees one event that differs.
#[test]
fn another_seed_or_one_event_more_is_seen() {
    let made = |options: &[(&str, &str)]| rows(&nexmark(options, ALL), simulated(), 2);
    let expected = made(&[("events", "1000")]);
    assert_eq!(made(&[("events", "1000"), ("seed", "0")]), expected);
    assert_ne!(made(&[("events", "1000"), ("seed", "1")]), expected);
    assert_ne!(made(&[("events", "1001")]), expected);
    assert_ne!(made(&[("events", "1000"), ("base-time", "1")]), expected);
}

#[test]
fn batches_are_as_large_as_they_should_be() {
    for (batch_rows, batch_bytes) in [(100, 1 << 20), (5_000, 64 << 10)] {
        for port in 0..3 {
            let mut used = [false; 3];
            used[port] = true;
            let mut world = World::simulated(1).with_batches(batch_rows, batch_bytes);
            let given = world.read(&nexmark(&[("events", "100000")], used), 1).unwrap();
            let most = given.batches.iter().map(|(_, batch)| batch.num_rows()).max().unwrap();
            let bytes = given.batches.iter().map(|(_, batch)| batch.bytes()).max().unwrap();
            assert!(most <= batch_rows + 46 && bytes <= batch_bytes * 5 / 4, "{most} rows of {bytes} bytes");
            assert!(most * 2 >= batch_rows || bytes * 2 >= batch_bytes, "{most} rows of {bytes} bytes");
        }
    }
}

#[test]
fn numbers_follow_each_other_and_times_the_rate() {
    let options = [("events", "50000"), ("event-rate", "3000"), ("base-time", "-7")];
    let (persons, auctions, bids) = (batches(0, &options), batches(1, &options), batches(2, &options));
    assert_eq!(numbers(&persons, 0), (1_000..2_000).collect::<Vec<_>>());
    assert_eq!(numbers(&auctions, 0), (1_000..4_000).collect::<Vec<_>>());
    let time = |event: i64| -7 + event * 1_000 / 3_000;
    assert_eq!(times(&persons, 6), (0..1_000).map(|epoch| time(epoch * 50)).collect::<Vec<_>>());
    let of_auction = |number: i64| time(number / 3 * 50 + 1 + number % 3);
    assert_eq!(times(&auctions, 5), (0..3_000).map(of_auction).collect::<Vec<_>>());
    let of_bid = |number: i64| time(number / 46 * 50 + 4 + number % 46);
    assert_eq!(times(&bids, 5), (0..46_000).map(of_bid).collect::<Vec<_>>());
}

#[test]
fn bids_go_to_hot_auctions_and_by_hot_bidders() {
    let options = [("events", "1000000"), ("seed", "3")];
    let bids = batches(2, &options);
    let (auctions, bidders) = (numbers(&bids, 0), numbers(&bids, 1));
    let epoch = |bid: usize| (bid / 46) as i64;
    let (mut hot, mut by_hot) = (0, 0);
    for (bid, (auction, bidder)) in auctions.iter().zip(&bidders).enumerate() {
        let (last_auction, last_person) = (epoch(bid) * 3 + 2, epoch(bid));
        let (auction, bidder) = (auction - 1_000, bidder - 1_000);
        hot += i64::from(auction == last_auction / 100 * 100);
        by_hot += i64::from(bidder == last_person / 100 * 100 + 1);
        let is_hot = auction == last_auction / 100 * 100;
        assert!(is_hot || ((last_auction - 100).max(0)..=last_auction + 10).contains(&auction));
        let is_hot = bidder == last_person / 100 * 100 + 1;
        assert!(is_hot || ((last_person - 999).max(0)..=last_person + 10).contains(&bidder));
    }
    let bids = auctions.len() as f64;
    // A half and one of 111 of the other; three quarters and few others.
    is_near(hot as f64 / bids, 0.5 + 0.5 / 111.0, 0.003);
    is_near(by_hot as f64 / bids, 0.75, 0.003);
    let others: BTreeSet<i64> = auctions.iter().copied().collect();
    assert!(others.len() > 59_000, "{} auctions have bids", others.len());
}

#[test]
fn prices_are_log_uniform() {
    let prices = numbers(&batches(2, &[("events", "500000")]), 2);
    assert!(prices.iter().all(|price| (100..=100_000_000).contains(price)));
    for (below, expected) in
        [(1_000, 1.0), (10_000, 2.0), (100_000, 3.0), (1_000_000, 4.0), (10_000_000, 5.0)]
    {
        is_near(share(&prices, |price| *price < below), expected / 6.0, 0.003);
    }
    assert_eq!((price(0), price(u64::MAX)), (100, 100_000_000));
}

proptest! {
    /// Against the power function of the library.
    #[test]
    fn prices_are_powers_of_ten(bits: u64) {
        let unit = (bits >> 11) as f64 / (1u64 << 53) as f64;
        let exact = 10f64.powf(unit * 6.0) * 100.0;
        prop_assert!((price(bits) as f64 - exact).abs() <= 0.5 + exact * 1e-9, "{} {exact}", price(bits));
    }

    #[test]
    fn times_go_on_as_they_begin(first in 0..u64::MAX / 2, rate in 1u64..10_000_000, base in -1_000_000i64..1_000_000) {
        let timeline = Timeline { base_time: base, rate };
        let mut times = timeline.from(first);
        for number in first..first + 60 {
            prop_assert_eq!(times.advance(), timeline.time(number));
        }
    }
}

#[test]
fn channels_have_their_addresses() {
    let bids = batches(2, &[("events", "200000")]);
    let (channels, urls) = (texts(&bids, 3), texts(&bids, 4));
    for hot in ["Google", "Facebook", "Baidu", "Apple"] {
        is_near(share(&channels, |channel| channel == hot), 0.125, 0.004);
    }
    let mut of_channel = BTreeMap::new();
    for (channel, url) in channels.iter().zip(&urls) {
        assert_eq!(of_channel.entry(channel).or_insert(url), &url, "one address a channel");
        let parts: Vec<&str> = url.split('/').collect();
        assert_eq!(&parts[..3], ["https:", "", "www.nexmark.com"]);
        assert!(parts.len() == 7 && parts[3..6].iter().all(|part| (3..=4).contains(&part.len())));
        if let Some(id) = parts[6].strip_prefix("item.htm?query=1&channel_id=") {
            let number: i32 = channel.strip_prefix("channel-").unwrap().parse().unwrap();
            assert_eq!(id.parse::<i32>().unwrap(), number.reverse_bits().wrapping_abs());
        } else {
            assert_eq!(parts[6], "item.htm?query=1");
        }
    }
    assert!(of_channel.len() > 9_900 && of_channel.len() <= 10_004);
    let others: Vec<_> = of_channel.iter().filter(|(channel, _)| channel.starts_with("channel-")).collect();
    is_near(share(&others, |(_, url)| url.contains("&channel_id=")), 0.9, 0.01);
}

#[test]
fn auctions_are_drawn_by_their_rules() {
    let options = [("events", "1000000")];
    let auctions = batches(1, &options);
    let (initial, reserve) = (numbers(&auctions, 3), numbers(&auctions, 4));
    assert!(initial.iter().zip(&reserve).all(|(initial, reserve)| *reserve >= initial + 100));
    let lengths: Vec<i64> = times(&auctions, 5).iter().zip(times(&auctions, 6)).map(|(a, b)| b - a).collect();
    // A hundred auctions are 1,666 events, 16 or 17 ms at 100,000 a second.
    assert!(lengths.iter().all(|length| (1..=34).contains(length)));
    is_near(lengths.iter().sum::<i64>() as f64 / lengths.len() as f64, 17.1, 0.3);
    let categories = numbers(&auctions, 8);
    for category in 10..15 {
        is_near(share(&categories, |of| *of == category), 0.2, 0.01);
    }
    let sellers = numbers(&auctions, 7);
    let hot =
        sellers.iter().enumerate().filter(|(n, seller)| (*n as i64 / 3) / 100 * 100 + 1_000 == **seller);
    is_near(hot.count() as f64 / sellers.len() as f64, 0.75, 0.01);
    let bounds = |n: usize| ((n / 3) as i64 - 999).max(0) + 1_000..=(n / 3) as i64 + 1_010;
    assert!(sellers.iter().enumerate().all(|(n, seller)| bounds(n).contains(seller)));
    let (names, descriptions) = (texts(&auctions, 1), texts(&auctions, 2));
    for (texts, most) in [(&names, 19), (&descriptions, 99)] {
        assert!(texts.iter().all(|text| text.len() <= most && text.trim() == text));
        assert_eq!(texts.iter().map(String::len).max(), Some(most));
        let letters: String = texts.concat();
        assert!(letters.bytes().all(|byte| byte == b' ' || byte.is_ascii_lowercase()));
    }
    let all: Vec<u8> = descriptions.concat().into_bytes();
    is_near(share(&all, |byte| *byte == b' '), 1.0 / 13.0, 0.003);
    is_near(share(&all, |byte| *byte == b'q'), 12.0 / 13.0 / 26.0, 0.001);
}

#[test]
fn persons_are_drawn_by_their_rules() {
    let persons = batches(0, &[("events", "1000000")]);
    let distinct = |column: usize| texts(&persons, column).into_iter().collect::<BTreeSet<_>>().len();
    assert_eq!((distinct(1), distinct(4), distinct(5)), (99, 10, 6));
    is_near(share(&texts(&persons, 5), |state| state == "OR"), 1.0 / 6.0, 0.01);
    is_near(share(&texts(&persons, 4), |city| city == "Los Angeles"), 0.1, 0.01);
    assert!(texts(&persons, 2).iter().all(|address| address.contains('@') && address.ends_with(".com")));
    for card in texts(&persons, 3) {
        let groups: Vec<&str> = card.split(' ').collect();
        assert!(
            groups.len() == 4 && groups.iter().all(|group| group.len() == 4 && group.parse::<u16>().is_ok())
        );
    }
}

#[test]
fn events_have_their_sizes_on_average() {
    let lengths = |batches: &[Batch], columns: &[usize]| -> f64 {
        let all: usize = columns.iter().map(|c| texts(batches, *c).concat().len()).sum();
        all as f64 / batches.iter().map(Batch::num_rows).sum::<usize>() as f64
    };
    let options = [("events", "500000")];
    is_near(8.0 + lengths(&batches(0, &options), &[1, 2, 3, 4, 5, 7]), 200.0, 1.0);
    is_near(48.0 + lengths(&batches(1, &options), &[1, 2, 9]), 500.0, 3.0);
    let bids = batches(2, &options);
    is_near(32.0 + lengths(&bids, &[6]), 99.5, 0.2);
    let extras = texts(&bids, 6);
    assert!(extras.iter().all(|extra| (54..=81).contains(&extra.len())));
    let all = extras.concat().into_bytes();
    is_near(share(&all, |byte| *byte == b'c'), 1.0 / 26.0, 0.001);
}

#[test]
fn all_that_is_due_has_come() {
    let mut world = World::simulated(3).with_batches(10_000, 1 << 24);
    let factory = nexmark(&[("events", "2500"), ("rate", "1000")], ALL);
    let mut source = factory.open(world.context(0, 1)).unwrap();
    let mut came = 0;
    loop {
        match source.poll().unwrap() {
            SourcePoll::Rows(decoded) => came += decoded.batch.num_rows(),
            SourcePoll::End => break,
            SourcePoll::Pending => {
                let due = (world.platform.clock.now().as_secs_f64() * 1_000.0) as usize + 1;
                assert_eq!(came, due.min(2_500));
                world.wait();
            }
        }
    }
    assert_eq!(came, 2_500);
    assert!(world.platform.clock.now().as_secs_f64() >= 2.4);
}

#[test]
fn without_a_number_of_events_it_never_ends() {
    assert!(!nexmark(&[], ALL).bounded() && nexmark(&[("events", "5")], ALL).bounded());
    let world = simulated();
    let mut source = nexmark(&[], ALL).open(world.context(1, 3)).unwrap();
    for _ in 0..100 {
        assert!(matches!(source.poll().unwrap(), SourcePoll::Rows(_)));
    }
    assert!(source.bytes_read() > 0);
}

#[test]
fn a_source_that_nobody_reads_ends() {
    let factory = nexmark(&[("events", "100")], [false; 3]);
    assert_eq!(rows(&factory, simulated(), 1).values().map(Vec::len).sum::<usize>(), 100);
}

#[test]
fn what_cannot_be_is_refused() {
    let message = |options: &[(&str, &str)]| {
        error_of(NexmarkFactory::of(&connection("nexmark", options), &ports(ALL))).message
    };
    assert_eq!(message(&[("rate", "0")]), "the rate of `nexmark` is above 0, in rows a second");
    assert_eq!(message(&[("event-rate", "0")]), "the event rate of `nexmark` is above 0, in events a second");
    assert_eq!(message(&[("events", "-1")]), "the option `events` of `nexmark` cannot be `-1`");
    assert_eq!(message(&[("event", "1")]), "there is no option of `nexmark` `event`");
    let refused = |ports: &[SourcePort]| error_of(NexmarkFactory::of(&connection("nexmark", &[]), ports));
    let few = refused(&ports(ALL)[..2]);
    assert_eq!(few.message, "`nexmark` has three ports, but the job declares 2");
    assert_eq!(few.detail.as_deref(), Some("they are, in this order: persons, auctions, bids"));
    let mut other = ports(ALL);
    other[2].schema = schema(&[("auction", DataType::Int64, false)]);
    let error = refused(&other);
    assert_eq!(error.message, "the bids of `nexmark` have other columns than the job declares");
    assert!(error.detail.unwrap().ends_with("the job declares (auction Int64)"));
    let formatted = with_format(connection("nexmark", &[]), "json", &[]);
    let error = error_of(NexmarkFactory::of(&formatted, &ports(ALL)));
    assert_eq!(error.message, "`nexmark` makes rows itself and takes no format, but `json` is given");
    let files = error_of(crate::source(&connection("files", &[("path", "x")]), &ports(ALL)));
    assert_eq!(files.message, "`files` has one port for rows");
}

/// Results of different releases are compared: a change of a seed's events shall not go unnoticed.
#[test]
fn a_seeds_events_are_the_same_in_every_release() {
    let made = rows(&nexmark(&[("events", "50"), ("seed", "1")], ALL), simulated(), 1);
    let first = |port: u32| made[&port][0].as_str();
    assert!(first(0).starts_with(PERSON), "{}", first(0));
    assert!(first(1).starts_with(AUCTION), "{}", first(1));
    assert_eq!(first(2), BID);
    // All of them: the sum that a blackhole would tell.
    let connection = connection("blackhole", &[]);
    let blackhole = crate::sink(&connection, &crate::test_support::inserts(&schemas()[2])).unwrap();
    let bids = batches(2, &[("events", "100000"), ("seed", "1")]);
    simulated().write(blackhole.as_ref(), &bids).unwrap();
    assert_eq!(blackhole.summary(), ["blackhole: 92000 rows, checksum 357a963e2a8e8a89"]);
}

const PERSON: &str = r#"{"id":1000,"name":"Sarah White","emailAddress":"tzzhwx@wuf.com","creditCard":"6891 1597 0966 2573","city":"Redmond","state":"ID","dateTime":"2015-07-15 00:00:00.000","extra":"hnlwblbrlwtduviurja"#;
const AUCTION: &str = r#"{"id":1000,"itemName":"zoylfplkk","description":"bdzgooilbt gcquvgee zuedzffdb ramowng yflbrr zwpdlhfornaubrku","initialBid":7847,"reserve":9301,"dateTime":"2015-07-15 00:00:00.000","expires":"2015-07-15 00:00:00.029","seller":1000,"category":12,"extra":"ihifwupr"#;
const BID: &str = r#"{"auction":1000,"bidder":1001,"price":1039,"channel":"channel-8768","url":"https://www.nexmark.com/ego/vkw/mnd/item.htm?query=1","dateTime":"2015-07-15 00:00:00.000","extra":"gpqxbgllhflbdabmivvcfzaxozzwychtnllsrvkwcmyewaaoxfnyorbwxtqmc"}"#;

#[test]
fn each_event_comes_once_however_often_making_them_stops_and_goes_on() {
    let options = [("events", "3000")];
    let expected = rows(&nexmark(&options, ALL), simulated(), 2);
    for batch in [7, 60] {
        let (mut given, mut positions) = (BTreeMap::<u32, Vec<String>>::new(), Vec::new());
        for polls in [&[3, 0, 5][..], &[20], &[1, 6, 1, 11], &[usize::MAX, usize::MAX]] {
            let factory = nexmark(&options, ALL);
            factory.restore(&positions).unwrap();
            let mut world = World::simulated(1).with_batches(batch, 1 << 16);
            let (part, next) = world.read_in_part(&factory, polls).unwrap();
            for (port, rows) in part.by_port {
                given.entry(port).or_default().extend(crate::formats::as_json_lines(&rows));
            }
            positions = next;
        }
        given.values_mut().for_each(|rows| rows.sort_unstable());
        assert!(given == expected, "batches of {batch}");
    }
}
