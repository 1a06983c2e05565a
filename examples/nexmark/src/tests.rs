//! All queries can be planned, of both inputs, and give the columns that their SQL gives.

use std::time::Duration;

use millstream::JobFunction;
use millstream::prelude::*;
use millstream::private::sys::bindings::millstream::job::graph::NodeKind;
use millstream::testing::{Driver, Harness};

use crate::model::{Bid, Event};
use crate::queries::*;
use crate::tables::events;

#[track_caller]
fn columns<A>(job: impl JobFunction<A> + Copy + 'static, expected: &str) {
    for arguments in [["--events", "10"], ["--input", "events.json"]] {
        let graph = Harness::of(job).args(arguments).plan();
        let graph = graph.unwrap_or_else(|refusal| panic!("{}", refusal.text()));
        let sink = graph.nodes.iter().position(|node| matches!(node.kind, NodeKind::Sink(_))).unwrap();
        let edge = graph.edges.iter().find(|edge| edge.consumer as usize == sink).unwrap();
        let schema = &graph.nodes[edge.producer as usize].outputs[edge.port as usize].schema;
        let names: Vec<&str> = schema.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{arguments:?}");
    }
}

#[test]
fn columns_are_those_of_the_select() {
    columns(q0::q0, "auction bidder price dateTime extra");
    columns(q1::q1, "auction bidder price dateTime extra");
    columns(q2::q2, "auction price");
    columns(q3::q3, "name city state id");
    columns(q4::q4, "category average");
    columns(q5::q5, "auction num");
    columns(q7::q7, "auction price bidder dateTime extra");
    columns(q8::q8, "id name starttime");
    columns(
        q9::q9,
        "id itemName description initialBid reserve dateTime expires seller category extra \
         auction bidder price bid_dateTime bid_extra",
    );
    columns(q10::q10, "auction bidder price dateTime extra dt hm");
    columns(q11::q11, "bidder bid_count starttime endtime");
    columns(q12::q12, "bidder bid_count starttime endtime");
    columns(q13::q13, "auction bidder price dateTime value");
    columns(q14::q14, "auction bidder price bidTimeType dateTime extra c_counts");
    columns(q18::q18, "auction bidder price channel url dateTime extra");
    columns(q19::q19, "auction bidder price channel url dateTime extra rank_number");
    columns(
        q20::q20,
        "auction bidder price channel url bid_dateTime bid_extra itemName description initialBid reserve \
         auction_dateTime expires seller category auction_extra",
    );
    columns(q21::q21, "auction bidder price channel channel_id");
    columns(q22::q22, "auction bidder price channel dir1 dir2 dir3");
}

#[test]
fn columns_of_reports() {
    let bids = "total_bids rank1_bids rank2_bids rank3_bids";
    let distinct = "total_bidders rank1_bidders rank2_bidders rank3_bidders \
                    total_auctions rank1_auctions rank2_auctions rank3_auctions";
    columns(q15::q15, &format!("day {bids} {distinct}"));
    columns(q16::q16, &format!("channel day minute {bids} {distinct}"));
    columns(q17::q17, &format!("auction day {bids} min_price max_price avg_price sum_price"));
}

#[test]
fn events_have_the_form_that_is_read() {
    let person = "person id name emailAddress creditCard city state dateTime extra";
    let auction = "auction id itemName description initialBid reserve dateTime expires seller category extra";
    let bid = "bid auction bidder price channel url dateTime extra";
    columns(events, &format!("event_type {person} {auction} {bid}"));
}

fn bid(auction: i64, price: i64, url: &str, at: i64) -> Bid {
    Bid {
        auction,
        bidder: 7,
        price,
        channel: "Google".into(),
        url: url.into(),
        date_time: Timestamp(at),
        extra: "ccs".into(),
    }
}

fn event(bid: Bid) -> Event {
    Event { event_type: 2, person: None, auction: None, bid: Some(bid) }
}

/// What a query without windows, joins and changelogs gives for two bids.
fn rows<R: millstream::Record, A>(job: impl JobFunction<A> + Copy + 'static) -> Vec<R> {
    let bids = [
        bid(
            10_123,
            2_000_000,
            "https://www.nexmark.com/a/b/item.htm?query=1&channel_id=9",
            1_700_000_000_000,
        ),
        bid(246, 100, "https://www.nexmark.com/a", 1_700_000_000_000 + 10 * 3_600_000),
    ];
    let run = Harness::of(job).args(["--input", "-"]).rows::<Event>("", bids.map(event)).run();
    run.rows("Sink: print")
}

#[test]
fn stateless_queries() {
    assert_eq!(rows::<(i64, i64), _>(q2::q2), [(246, 100)]);
    let prices = rows::<(i64, i64, Decimal<23, 3>, Timestamp, String), _>(q1::q1);
    assert_eq!(prices.iter().map(|row| row.2.to_string()).collect::<Vec<_>>(), ["1816000.000", "90.800"]);
    let logged = rows::<(i64, i64, i64, Timestamp, String, Date, String), _>(q10::q10);
    assert_eq!((logged[0].5, logged[0].6.as_str()), (Date(19_675), "22:13"));
    assert_eq!((logged[1].5, logged[1].6.as_str()), (Date(19_676), "08:13"));
    let calculated = rows::<(i64, i64, Decimal<23, 3>, String, Timestamp, String, i64), _>(q14::q14);
    assert_eq!((calculated.len(), calculated[0].3.as_str(), calculated[0].6), (1, "nightTime", 2));
    let ids = rows::<(i64, i64, i64, String, String), _>(q21::q21);
    assert_eq!(ids.iter().map(|row| row.4.as_str()).collect::<Vec<_>>(), ["1", "1"]);
    type Directories = (i64, i64, i64, String, Option<String>, Option<String>, Option<String>);
    let directories = rows::<Directories, _>(q22::q22);
    assert_eq!(directories[0].6.as_deref(), Some("item.htm?query=1&channel_id=9"));
    assert_eq!((directories[1].4.as_deref(), directories[1].5.as_deref()), (Some("a"), None));
}

/// By the clock of the test: it has no case with an expected file, since its windows are of the machine's time.
#[test]
fn bids_are_counted_by_processing_time() {
    let harness = Harness::of(q12::q12).args(["--input", "-"]);
    let mut driver = harness.component("nexmark.wasm").streamctl("../../bin/streamctl").driver();
    driver.start_at(1_700_000_003_000);
    let push = |driver: &mut Driver, auction: i64| {
        let one = bid(auction, 1, "https://www.nexmark.com", 0);
        driver.push::<Event>("", event(Bid { bidder: auction % 2, ..one }));
    };
    [1, 2, 3].into_iter().for_each(|auction| push(&mut driver, auction));
    driver.advance(Duration::from_secs(5));
    push(&mut driver, 5);
    type Counted = (i64, i64, Timestamp, Timestamp);
    assert!(driver.take::<Counted>("Sink: print").is_empty());
    driver.advance(Duration::from_secs(2));
    let (start, end) = (Timestamp(1_700_000_000_000), Timestamp(1_700_000_010_000));
    let mut first = driver.take::<Counted>("Sink: print");
    first.sort_unstable_by_key(|row| row.0);
    assert_eq!(first, [(0, 1, start, end), (1, 3, start, end)]);
    push(&mut driver, 2);
    let all = driver.finish().rows::<Counted>("Sink: print");
    assert_eq!(all[2..], [(0, 1, end, Timestamp(1_700_000_020_000))]);
}
