//! What temporal joins and lookups are in the graph.

use std::time::Duration;

use millstream::prelude::*;
use millstream::private::sys::bindings::millstream::job::graph::{
    JobGraph, JoinForm, JoinSides, Lookup, Node, NodeKind, Partition, TimeDomain as Domain,
};
use millstream::testing::Harness;

#[derive(Clone, Debug, PartialEq, Record)]
struct Order {
    id: i64,
    currency: String,
    note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Rate {
    currency: String,
    id: i64,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Priced {
    id: i64,
    currency: String,
    note: Option<String>,
    of: Option<String>,
    rate: Option<i64>,
}

type Pair = (i64, String, Option<String>, String, i64);

fn orders(job: &Job) -> Stream<'_, Order> {
    job.json(Connector::text("")).uid("orders").stream()
}

fn rates(job: &Job) -> Stream<'_, Rate> {
    job.json(Connector::text("")).uid("rates").stream()
}

#[track_caller]
fn planned(job: fn(&Job) -> Result<()>) -> JobGraph {
    Harness::of(job).plan().unwrap_or_else(|refusal| panic!("{}", refusal.text()))
}

fn node<'a>(graph: &'a JobGraph, name: &str) -> &'a Node {
    graph.nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn columns(node: &Node) -> Vec<String> {
    let shown = |name: &str, nullable| format!("{name}{}", if nullable { "?" } else { "" });
    node.outputs[0].schema.iter().map(|field| shown(&field.name, field.nullable)).collect()
}

fn lookup(node: &Node) -> &Lookup {
    let NodeKind::Lookup(lookup) = &node.kind else { panic!("a lookup") };
    lookup
}

#[test]
fn temporal_joins() {
    let graph = planned(|job| {
        let (orders, rates) = (orders(job), rates(job));
        let by_currency = || rates.key_by(Rate::CURRENCY);
        orders.key_by(Order::CURRENCY).temporal_join(by_currency()).left::<Priced>().print();
        // A changelog of versions: the output is none.
        let last = by_currency().deduplicate_last(Rate::ID);
        let joined = orders.key_by(Order::CURRENCY).temporal_join(last.key_by(Rate::CURRENCY));
        joined.processing_time().inner::<Pair>().uid("now").print();
        Ok(())
    });
    let left = node(&graph, "Temporal Join: left");
    assert_eq!(left.uid.as_deref(), Some("temporal-join-left-by-currency-and-currency"));
    assert_eq!(columns(left), ["id", "currency", "note?", "of?", "rate?"]);
    let form = |node: &Node| match &node.kind {
        NodeKind::Join(join) => (join.sides, join.form.clone()),
        _ => panic!("a join"),
    };
    assert!(matches!(form(left), (JoinSides::Left, JoinForm::Temporal(Domain::EventTime))));
    let inner = node(&graph, "Temporal Join: inner");
    assert!(matches!(form(inner), (JoinSides::Inner, JoinForm::Temporal(Domain::ProcessingTime))));
    assert_eq!(columns(inner), ["id", "currency", "note?", "right_currency", "right_id"]);
    assert!(!inner.outputs[0].changes);
    let place = graph.nodes.iter().position(|node| node.name == inner.name).unwrap() as u32;
    let inputs = graph.edges.iter().filter(|edge| edge.consumer == place);
    let keys: Vec<_> = inputs.map(|edge| (edge.input, &edge.partition)).collect();
    assert!(matches!(keys[..], [(0, Partition::Hash(left)), (1, Partition::Hash(right))]
        if left[..] == [1] && right[..] == [0]));
}

#[test]
fn lookups() {
    let graph = planned(|job| {
        let table = Table::<Rate>::csv(Connector::files("rates.csv").format_option("header", true));
        let orders = orders(job);
        orders
            .lookup_join(table, (Order::CURRENCY, Order::ID), (Rate::CURRENCY, Rate::ID))
            .inner::<Pair>()
            .print();
        let table = Table::<Rate>::json(Connector::text(""));
        let joined =
            orders.lookup_join(table, Order::CURRENCY, Rate::CURRENCY).reload(Duration::from_secs(60));
        joined.left::<Priced>().print();
        Ok(())
    });
    let inner = node(&graph, "Lookup Join: inner");
    assert_eq!(columns(inner), ["id", "currency", "note?", "table_currency", "table_id"]);
    let of_inner = lookup(inner);
    assert_eq!((&of_inner.keys[..], &of_inner.table_keys[..]), (&[1, 0][..], &[0, 1][..]));
    assert_eq!((of_inner.outer, of_inner.reload), (false, None));
    assert_eq!((of_inner.table.connector.as_str(), of_inner.table.format.as_deref()), ("files", Some("csv")));
    assert_eq!(of_inner.table.format_options[0].name, "header");
    let of_left = lookup(node(&graph, "Lookup Join: left"));
    assert_eq!((of_left.outer, of_left.reload), (true, Some(60_000)));
    assert_eq!(of_left.schema.len(), 2);
    assert!(graph.edges.iter().all(|edge| matches!(edge.partition, Partition::Forward)));
}

#[test]
fn a_record_that_does_not_fit_is_told() {
    let refused = Harness::of(|job: &Job| -> Result<()> {
        let table = Table::<Rate>::json(Connector::text(""));
        orders(job).lookup_join(table, Order::CURRENCY, Rate::CURRENCY).left::<Pair>().print();
        Ok(())
    })
    .plan();
    let refusal = refused.unwrap_err();
    let text = refusal.text();
    assert!(text.contains("this lookup has the columns"), "{text}");
}
