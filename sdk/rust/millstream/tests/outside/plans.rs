//! What windows, joins, top-n and changelogs are in the graph.

use std::time::Duration;

use millstream::prelude::*;
use millstream::private::sys::bindings::millstream::job::graph::{
    self, Assigner, JobGraph, JoinForm, JoinSides, Node, NodeKind, Partition, StateKind, TimeDomain,
};
use millstream::testing::Harness;

#[derive(Clone, Debug, PartialEq, Record)]
#[record(rename_all = "camelCase")]
struct Auction {
    id: i64,
    item_name: String,
    #[record(name = "cat")]
    category: Option<i64>,
    date_time: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Bid {
    auction: i64,
    id: i64,
    price: Decimal<23, 3>,
}

fn tables(job: &Job) -> (Stream<'_, Auction>, Stream<'_, Bid>) {
    job.tables::<(Auction, Bid)>(Connector::of("two"), ["auctions", "bids"])
}

fn bids(job: &Job) -> Stream<'_, Bid> {
    tables(job).1
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[track_caller]
fn planned(job: fn(&Job) -> Result<()>) -> JobGraph {
    Harness::of(job).plan().unwrap_or_else(|refusal| panic!("{}", refusal.text()))
}

fn node<'a>(graph: &'a JobGraph, name: &str) -> &'a Node {
    let named = |node: &&Node| node.name == name;
    let names = || graph.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    graph.nodes.iter().find(named).unwrap_or_else(|| panic!("no {name} in {:?}", names()))
}

fn columns(node: &Node, port: usize) -> Vec<String> {
    let shown = |name: &str, nullable| format!("{name}{}", if nullable { "?" } else { "" });
    node.outputs[port].schema.iter().map(|field| shown(&field.name, field.nullable)).collect()
}

fn changes(node: &Node) -> Vec<bool> {
    node.outputs.iter().map(|port| port.changes).collect()
}

#[test]
fn columns_are_called_as_the_derive_is_told() {
    fn job(job: &Job) -> Result<()> {
        tables(job).0.print();
        Ok(())
    }
    let graph = planned(job);
    assert_eq!(columns(&graph.nodes[0], 0), ["id", "itemName", "cat?", "dateTime"]);
}

#[test]
fn sources_of_several_tables_have_a_port_for_each() {
    let graph = planned(|job| {
        tables(job).1.print();
        Ok(())
    });
    let names: Vec<&str> = graph.nodes[0].outputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["auctions", "bids"]);
    assert_eq!((graph.edges[0].producer, graph.edges[0].port), (0, 1));
}

type Sums = (i64, Timestamp, Timestamp, Decimal<38, 3>, i64);

#[test]
fn windows_are_planned_with_all_that_is_said_of_them() {
    let graph = planned(|job| {
        let (sums, late) = bids(job)
            .key_by(Bid::AUCTION)
            .window(Sliding::of(seconds(10), seconds(2)).offset(before(seconds(1))))
            .allowed_lateness(seconds(60))
            .early(seconds(1))
            .changes()
            .side_output_late("late")
            .aggregate((sum(Bid::PRICE), count_distinct(Bid::ID)));
        sums.map(|(auction, start, end, price, ids): Sums| (auction, start, end, price, ids)).print();
        late.filter(|bid| bid.id > 0).print();
        Ok(())
    });
    let sliding = node(&graph, "Sliding Window: sum, count");
    assert_eq!(sliding.uid.as_deref(), Some("sliding-sum-count-by-auction"));
    assert_eq!(columns(sliding, 0), ["auction", "window_start", "window_end", "price", "distinct_id"]);
    assert_eq!(columns(sliding, 1), ["auction", "id", "price"]);
    assert_eq!(changes(sliding), [true, false]);
    let NodeKind::Window(window) = &sliding.kind else { panic!("a window") };
    assert_eq!((window.lateness, window.late_port), (60_000, Some(1)));
    assert!(matches!(window.trigger, graph::Trigger::Early(1_000)));
    assert_eq!(window.time, TimeDomain::EventTime);
    let Assigner::Sliding(grid) = &window.assigner else { panic!("sliding") };
    assert_eq!((grid.size, grid.step, grid.offset), (10_000, 2_000, -1_000));
    assert_eq!(window.aggregates[1].options[0].name, "distinct");
    assert_eq!(changes(node(&graph, "Filter")), [false]);
}

#[test]
fn windows_of_every_kind() {
    let graph = planned(|job| {
        let bids = bids(job);
        let days: Stream<'_, (Timestamp, Timestamp, i64)> =
            bids.key_by(()).window(Tumbling::of(seconds(86_400)).zone("Europe/Berlin")).count();
        days.print();
        bids.key_by(Bid::AUCTION)
            .window(Session::with_gap(seconds(5)))
            .processing_time()
            .max(Bid::PRICE)
            .print();
        bids.key_by(Bid::ID).window(Cumulating::of(seconds(60), seconds(5))).count().print();
        Ok(())
    });
    let NodeKind::Window(days) = &node(&graph, "Tumbling Window: count").kind else { panic!("a window") };
    let Assigner::Tumbling(grid) = &days.assigner else { panic!("tumbling") };
    assert_eq!((grid.size, grid.step, grid.zone.as_deref()), (86_400_000, 86_400_000, Some("Europe/Berlin")));
    let NodeKind::Window(session) = &node(&graph, "Session Window: max").kind else { panic!("a window") };
    assert!(matches!(session.assigner, Assigner::Session(5_000)));
    assert_eq!(session.time, TimeDomain::ProcessingTime);
    let NodeKind::Window(growing) = &node(&graph, "Cumulating Window: count").kind else {
        panic!("a window")
    };
    let Assigner::Cumulating(grid) = &growing.assigner else { panic!("cumulating") };
    assert_eq!((grid.size, grid.step), (60_000, 5_000));
    let all = graph.edges.iter().filter(|edge| matches!(edge.partition, Partition::Global));
    assert_eq!(all.count(), 1);
}

type Prices = Vec<Decimal<23, 3>>;

#[test]
fn windows_without_ends_have_no_columns_of_them() {
    let graph = planned(|job| {
        let bids = bids(job);
        let all: Stream<'_, (i64, i64)> = bids.key_by(Bid::AUCTION).window(Global).each_rows(5).count();
        all.print();
        let last: Stream<'_, (i64, Prices, Vec<i64>)> = bids
            .key_by(Bid::AUCTION)
            .sliding_count_window(10, 2)
            .aggregate((top(Bid::PRICE, 3), bottom(Bid::ID, 1)));
        last.print();
        bids.key_by(()).count_window(4).purging().count().print();
        Ok(())
    });
    let global = node(&graph, "Global Window: count");
    assert_eq!(columns(global, 0), ["auction", "count"]);
    assert_eq!(global.uid.as_deref(), Some("global-count-by-auction"));
    let NodeKind::Window(window) = &global.kind else { panic!("a window") };
    assert!(matches!(window.assigner, Assigner::Everything));
    assert!(matches!(window.trigger, graph::Trigger::Count(5)) && !window.purging);
    let sliding = node(&graph, "Count Window: top, top");
    assert_eq!(columns(sliding, 0), ["auction", "price", "item", "id", "item"]);
    let NodeKind::Window(window) = &sliding.kind else { panic!("a window") };
    assert!(matches!(&window.assigner, Assigner::Count(rows) if (rows.size, rows.step) == (10, 2)));
    let options = |place: usize| {
        let options = window.aggregates[place].options.iter();
        options.map(|option| (option.name.clone(), option.value.clone())).collect::<Vec<_>>()
    };
    let expected = |limit: &str, order: &str| {
        [("limit", limit), ("order", order)].map(|(name, value)| (name.to_string(), value.to_string()))
    };
    assert_eq!(options(0), expected("3", "descending"));
    assert_eq!(options(1), expected("1", "ascending"));
    let NodeKind::Window(window) = &node(&graph, "Count Window: count").kind else { panic!("a window") };
    assert!(matches!(&window.assigner, Assigner::Count(rows) if (rows.size, rows.step) == (4, 4)));
    assert!(window.purging);
}

/// The number of bids.
struct Bids;

impl AggregateFunction for Bids {
    type In = Bid;
    type Key = (i64,);
    type Accumulator = i64;
    type Out = (i64, Timestamp, i64);
    const MERGES: bool = true;

    fn create(&self) -> i64 {
        0
    }

    fn add(&self, _: BidRef<'_>, bids: &mut i64) -> Result<()> {
        *bids += 1;
        Ok(())
    }

    fn result(&self, (auction,): (i64,), bids: &i64) -> (i64, Timestamp, i64) {
        (auction, Timestamp(0), *bids)
    }

    fn window_result(&self, (auction,): (i64,), window: &Window, bids: &i64) -> (i64, Timestamp, i64) {
        (auction, Timestamp(window.end), *bids)
    }

    fn merge(&self, into: &mut i64, other: i64) {
        *into += other;
    }
}

/// The last bid of a window.
struct LastBid;

impl WindowFunction for LastBid {
    type In = Bid;
    type Key = i64;
    type Out = Bid;

    fn apply(&self, _: i64, _: &Window, rows: &WindowRows<'_, Bid>, out: &mut Emit<Bid>) -> Result<()> {
        if let Some(last) = rows.iter().last() {
            out.emit(last);
        }
        Ok(())
    }
}

/// Fires at each bid.
struct Each;

impl Trigger<Bid> for Each {
    type State = bool;

    fn on_row(&self, _: BidRef<'_>, _: &Window, _: &mut TriggerContext<'_, bool>) -> TriggerResult {
        TriggerResult::FireAndPurge
    }
}

/// The number of bids on an auction.
struct Interest;

impl CoGroupFunction for Interest {
    type First = Auction;
    type Second = Bid;
    type Key = i64;
    type Out = (String, i64);

    fn co_group(
        &self,
        _: i64,
        _: &Window,
        auctions: &WindowRows<'_, Auction>,
        bids: &WindowRows<'_, Bid>,
        out: &mut Emit<(String, i64)>,
    ) -> Result<()> {
        auctions.iter().for_each(|auction| out.emit((auction.item_name, bids.iter().count() as i64)));
        Ok(())
    }
}

fn function<'a>(graph: &'a JobGraph, name: &str) -> (&'a Node, &'a graph::Function, &'a graph::Windows) {
    let node = node(graph, name);
    let NodeKind::Function(function) = &node.kind else { panic!("a function") };
    (node, function, function.windows.as_ref().expect("windows"))
}

/// Each state: its name, whether it is a sequence (else a value), its columns.
fn states(function: &graph::Function) -> Vec<(&str, bool, Vec<String>)> {
    let columns = |state: &graph::State| state.value.iter().map(|field| field.name.clone()).collect();
    let is_sequence = |state: &graph::State| match state.kind {
        StateKind::Value => false,
        StateKind::Sequence => true,
        _ => panic!("a value or a sequence"),
    };
    function.states.iter().map(|state| (state.name.as_str(), is_sequence(state), columns(state))).collect()
}

#[test]
fn functions_in_windows_are_planned_with_their_states() {
    let graph = planned(|job| {
        let bids = bids(job);
        let windows = || Sliding::of(seconds(10), seconds(2));
        let (counts, late) = bids
            .key_by(Bid::AUCTION)
            .window(windows())
            .allowed_lateness(seconds(60))
            .side_output_late("late")
            .aggregate_with(Bids);
        let (counts, failed) = counts.uid("counts").divert_failures();
        counts.print();
        failed.map(|row| row.failure.to_string()).print();
        late.filter(|bid| bid.id > 0).print();
        bids.key_by(Bid::AUCTION).window(Session::with_gap(seconds(1))).apply(LastBid).print();
        let triggered = bids.key_by(Bid::ID).window(windows()).processing_time().trigger(Each);
        triggered.apply(LastBid).name("Each").print();
        bids.key_by(Bid::ID)
            .window(Session::with_gap(seconds(1)))
            .early(seconds(1))
            .aggregate_with(Bids)
            .print();
        bids.key_by(Bid::ID).count_window(7).aggregate_with(Bids).print();
        Ok(())
    });
    let (counts, function_of, windows) = function(&graph, "Sliding Window: Bids");
    assert_eq!(counts.uid.as_deref(), Some("counts"));
    let ports: Vec<_> = counts.outputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(ports, ["main", "late", "failures"]);
    assert_eq!(columns(counts, 1), ["auction", "id", "price"]);
    assert_eq!(states(function_of), [("accumulator", false, vec!["accumulator".to_string()])]);
    assert_eq!((windows.lateness, windows.late_port), (60_000, Some(1)));
    assert!(windows.merges && !windows.collects && !function_of.timers);
    let rows = ["row", "auction", "id", "price"].map(String::from).to_vec();
    let (last, function_of, windows) = function(&graph, "Session Window: LastBid");
    assert_eq!(last.uid.as_deref(), Some("session-LastBid-by-auction"));
    assert_eq!(states(function_of), [("rows", true, rows.clone())]);
    assert!(windows.collects && !windows.merges && !function_of.timers);
    let (_, function_of, windows) = function(&graph, "Each");
    let value = ["window", "f0", "f1"].map(String::from).to_vec();
    let expected = [("window", false, value.clone()), ("rows", true, rows)];
    assert_eq!(states(function_of), expected);
    assert!(!windows.collects && !windows.merges && function_of.timers);
    assert_eq!(windows.time, TimeDomain::ProcessingTime);
    let (_, function_of, windows) = function(&graph, "Session Window: Bids");
    assert_eq!(states(function_of), [("window", false, value)]);
    assert!(windows.merges && function_of.timers);
    let (_, _, windows) = function(&graph, "Count Window: Bids");
    assert!(matches!(windows.assigner, Assigner::Everything) && !windows.merges);
}

#[test]
fn a_co_group_is_a_function_of_two_inputs() {
    let graph = planned(|job| {
        let (auctions, bids) = tables(job);
        let (interest, late_auctions, late_bids) = auctions
            .key_by(Auction::ID)
            .co_group(bids.key_by(Bid::AUCTION))
            .window(Tumbling::of(seconds(10)))
            .side_outputs_late("late auctions", "late bids")
            .apply(Interest);
        interest.print();
        late_auctions.print();
        late_bids.print();
        Ok(())
    });
    let (node, function, windows) = function(&graph, "Tumbling Window: Interest");
    let ports: Vec<_> = node.outputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(ports, ["main", "late auctions", "late bids"]);
    assert_eq!((columns(node, 1).len(), columns(node, 2).len()), (4, 3));
    assert_eq!(function.inputs.len(), 2);
    let names: Vec<_> = function.states.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    assert!(windows.collects);
    let keys =
        graph.edges.iter().filter(|edge| matches!(&edge.partition, Partition::Hash(keys) if *keys == [0]));
    assert_eq!(keys.map(|edge| edge.input).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn functions_that_do_not_merge_have_no_sessions() {
    /// Does not merge.
    struct Plain;
    impl AggregateFunction for Plain {
        type In = Bid;
        type Key = i64;
        type Accumulator = i64;
        type Out = i64;

        fn create(&self) -> i64 {
            0
        }

        fn add(&self, _: BidRef<'_>, _: &mut i64) -> Result<()> {
            Ok(())
        }

        fn result(&self, _: i64, bids: &i64) -> i64 {
            *bids
        }
    }
    let refused = |job: fn(&Job) -> Result<()>| Harness::of(job).plan().unwrap_err().text().to_string();
    let expect = |text: &str, begins: &str, part: &str| {
        assert!(text.starts_with(begins) && text.contains("plans.rs:") && text.contains(part), "{text}");
    };
    let text = refused(|job| {
        bids(job).key_by(Bid::ID).window(Session::with_gap(seconds(1))).aggregate_with(Plain).print();
        Ok(())
    });
    expect(&text, "`Plain` at ", "does not merge, and sessions meet\nhint: `const MERGES");
    let text = refused(|job| {
        let windows = bids(job).key_by(Bid::ID).window(Session::with_gap(seconds(1)));
        windows.trigger(Each).aggregate_with(Bids).print();
        Ok(())
    });
    expect(&text, "`Each` at ", "does not merge, and sessions meet");
    let text = refused(|job| {
        bids(job).key_by(Bid::ID).window(Session::with_gap(seconds(1))).each_rows(2).apply(LastBid).print();
        Ok(())
    });
    expect(&text, "`LastBid` at ", "takes all rows of sessions");
    let text = refused(|job| {
        bids(job).key_by(Bid::ID).changes().window(Tumbling::of(seconds(1))).apply(LastBid).print();
        Ok(())
    });
    expect(&text, "`Tumbling Window: LastBid` at ", "gives inserts");
}

#[test]
#[should_panic(expected = "test the job as a component in the engine")]
fn the_native_harness_has_no_functions_in_windows() {
    fn job(job: &Job) -> Result<()> {
        let bids = job.json::<Bid>(Connector::stdin());
        bids.key_by(Bid::ID).window(Global).each_rows(3).apply(LastBid).print();
        Ok(())
    }
    Harness::of(job).rows::<Bid>("", Vec::<Bid>::new()).run();
}

#[derive(Record)]
struct Pair {
    auction: i64,
    item: String,
    category: Option<i64>,
    begun: Timestamp,
    bid_auction: Option<i64>,
    bid: Option<i64>,
    price: Option<Decimal<23, 3>>,
}

type Tuple = (i64, String, Option<i64>, Timestamp, i64, i64, Decimal<23, 3>);

#[test]
fn joins_have_the_columns_of_both_sides() {
    let graph = planned(|job| {
        let (auctions, bids) = tables(job);
        let joined = || auctions.key_by(Auction::ID).join(bids.key_by(Bid::AUCTION));
        joined().unbounded().ttl(Ttl::after_write(seconds(60))).left::<Pair>().print();
        joined().between(before(seconds(5)), seconds(10)).inner::<Tuple>().print();
        joined().window(Tumbling::of(seconds(10))).semi().filter(|auction| auction.id > 0).print();
        joined().unbounded().anti().print();
        Ok(())
    });
    let left = node(&graph, "Join: left");
    assert_eq!(left.uid.as_deref(), Some("join-left-by-id-and-auction"));
    let names = ["auction", "item", "category?", "begun", "bid_auction?", "bid?", "price?"];
    assert_eq!(columns(left, 0), names);
    assert_eq!(changes(left), [true]);
    let inner = node(&graph, "Interval Join: inner");
    let names = ["id", "itemName", "cat?", "dateTime", "auction", "right_id", "price"];
    assert_eq!(columns(inner, 0), names);
    assert_eq!(changes(inner), [false]);
    let NodeKind::Join(join) = &inner.kind else { panic!("a join") };
    let JoinForm::Interval(interval) = &join.form else { panic!("an interval") };
    assert_eq!((interval.lower, interval.upper), (-5_000, 10_000));
    let semi = node(&graph, "Tumbling Window Join: semi");
    assert_eq!((columns(semi, 0).len(), changes(semi)), (4, vec![false]));
    let NodeKind::Join(join) = &semi.kind else { panic!("a join") };
    assert_eq!(join.sides, JoinSides::Semi);
    assert_eq!(changes(node(&graph, "Join: anti")), [true]);
    let keys = graph.edges.iter().filter(|edge| edge.consumer == 1);
    let keys: Vec<_> = keys.map(|edge| (edge.input, format!("{:?}", edge.partition))).collect();
    assert_eq!(keys, [(0, "Partition::Hash([0])".to_string()), (1, "Partition::Hash([0])".to_string())]);
}

#[test]
fn a_join_into_another_record_is_refused() {
    fn job(job: &Job) -> Result<()> {
        let (auctions, bids) = tables(job);
        auctions.key_by(Auction::ID).join(bids.key_by(Bid::AUCTION)).unbounded().inner::<Pair>().print();
        Ok(())
    }
    let refusal = Harness::of(job).plan().unwrap_err();
    let expected = "this join has the columns (id DataType::Int64, itemName DataType::Text, ";
    assert!(refusal.text().starts_with(expected), "{}", refusal.text());
    assert!(refusal.text().contains("plans.rs:"), "{}", refusal.text());
}

#[derive(Record)]
struct Totals {
    id: i64,
    bids: i64,
    auctions: i64,
    first: Decimal<23, 3>,
    last: Decimal<23, 3>,
}

#[test]
fn changelogs_go_as_far_as_rows_are_made_of_rows() {
    let graph = planned(|job| {
        let best = bids(job).key_by(Bid::AUCTION).top(3, (desc(Bid::PRICE), asc(Bid::ID).nulls_last()));
        let (fine, failed) = best.try_filter(|bid| Ok(bid.price.0 > 0)).name("Fine").divert_failures();
        failed.map(|row| row.failure.to_string()).name("Failed").print();
        let aggregates = (count(), count_distinct(Bid::AUCTION), first(Bid::PRICE), last(Bid::PRICE));
        fine.union([best]).key_by(Bid::ID).aggregate_into::<Totals>(aggregates).print();
        best.key_by(Bid::ID).reduce(|first, _| Bid::from_row(first)).print();
        Ok(())
    });
    let top = node(&graph, "Top 3: price, id");
    let NodeKind::Top(kind) = &top.kind else { panic!("a top") };
    let orders: Vec<_> = kind.order.iter().map(|o| (o.column, o.descending, o.nulls_last)).collect();
    assert_eq!(orders, [(2, true, true), (1, false, true)]);
    assert_eq!(top.uid.as_deref(), Some("top-price-id-by-auction"));
    assert_eq!(changes(top), [true]);
    assert_eq!(changes(node(&graph, "Fine")), [true, false]);
    assert_eq!(changes(node(&graph, "Failed")), [false]);
    let totals = node(&graph, "Keyed Aggregation: count, count, first, last");
    assert_eq!(columns(totals, 0), ["id", "bids", "auctions", "first", "last"]);
    assert_eq!(changes(totals), [true]);
    // What does not say that it takes a changelog does not: the host refuses that.
    let NodeKind::Function(reduce) = &node(&graph, "Reduce").kind else { panic!("a function") };
    assert!(!reduce.changes);
}

#[test]
fn aggregates_give_changelogs_where_they_are_asked_to() {
    let graph = planned(|job| {
        let bids = bids(job);
        bids.key_by(Bid::AUCTION).changes().count().print();
        bids.key_by(Bid::AUCTION).sum(Bid::PRICE).print();
        bids.key_by(Bid::ID).deduplicate_last(Bid::PRICE).print();
        let ranked = bids.key_by(()).top_ranked::<(i64, i64, Decimal<23, 3>, i64)>(10, desc(Bid::PRICE));
        ranked.filter(|row| row.3 == 1).print();
        Ok(())
    });
    assert_eq!(changes(node(&graph, "Keyed Aggregation: count")), [true]);
    assert_eq!(changes(node(&graph, "Keyed Aggregation: sum")), [false]);
    assert_eq!(changes(node(&graph, "Top 1: price")), [true]);
    assert_eq!(columns(node(&graph, "Top 10: price"), 0), ["auction", "id", "price", "rank"]);
    assert_eq!(changes(node(&graph, "Filter")), [true]);
}

#[test]
#[should_panic(expected = "test the job as a component in the engine")]
fn the_native_harness_says_what_it_has_no_stand_in_for() {
    fn job(job: &Job) -> Result<()> {
        job.json::<Bid>(Connector::stdin()).key_by(Bid::ID).top(1, asc(Bid::PRICE)).print();
        Ok(())
    }
    Harness::of(job).rows::<Bid>("", Vec::<Bid>::new()).run();
}

#[test]
fn the_native_harness_knows_first_last_and_distinct() {
    fn job(job: &Job) -> Result<()> {
        let numbers = job.json::<(i64, Option<i64>)>(Connector::stdin()).stream();
        numbers
            .key_by(())
            .aggregate((first(F1), last(F1), count_distinct(F1), sum(F0).distinct(), count_of(F1)))
            .print();
        Ok(())
    }
    let rows = [(1, None), (1, Some(7)), (2, Some(7)), (3, Some(8)), (3, None)];
    let run = Harness::of(job).rows::<(i64, Option<i64>)>("", rows).run();
    type Row = (Option<i64>, Option<i64>, i64, i64, i64);
    let rows: Vec<Row> = run.rows("Sink: print");
    let expected = [
        (None, None, 0, 1, 0),
        (Some(7), Some(7), 1, 1, 1),
        (Some(7), Some(7), 1, 3, 2),
        (Some(7), Some(8), 2, 6, 3),
    ];
    assert_eq!(rows[..4], expected);
    assert_eq!(rows[4], expected[3]);
}
