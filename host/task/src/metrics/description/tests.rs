//! Ids as Flink makes them, names of chains, plans as trees.

use super::*;

#[test]
fn the_id_of_a_uid_is_flinks() {
    // `hello` and the pangram are Guava's and the reference's published values.
    assert_eq!(operator_id("hello"), "029bbd41b3a7d8cb191dae486a901e5b");
    assert_eq!(
        operator_id("The quick brown fox jumps over the lazy dog"),
        "6c1b07bc7bbc4be347939ac4a93c437a"
    );
    assert_eq!(operator_id(""), "00000000000000000000000000000000");
}

fn operator(name: &str, fed_by: Option<usize>) -> OperatorDescription {
    let (id, uid) = (operator_id(name), name.to_owned());
    OperatorDescription { node: 0, id, uid, name: name.into(), origin: None, stage: 0, fed_by }
}

#[test]
fn a_chain_that_branches_is_named_as_flink_does() {
    let operators = vec![
        operator("Source: a", None),
        operator("Map", Some(0)),
        operator("Filter", Some(0)),
        operator("Sink: b", Some(2)),
    ];
    assert_eq!(chained(&operators, 0), "Source: a -> (Map, Filter -> Sink: b)");
    let vertex = VertexDescription {
        id: String::new(),
        name: String::new(),
        parallelism: 1,
        max_parallelism: 128,
        operators,
        stages: Vec::new(),
        inputs: Vec::new(),
    };
    assert_eq!(vertex.tree(), "Source: a<br/>+- Map<br/>+- Filter<br/>   +- Sink: b<br/>");
}

#[test]
fn a_source_and_a_sink_are_said_to_be_ones_once() {
    let connection = || model::job_graph::Connection {
        connector: "print".into(),
        options: Default::default(),
        format: None,
        format_options: Default::default(),
    };
    assert_eq!(shown("print", &NodeKind::Sink(connection())), "Sink: print");
    assert_eq!(shown("Sink: print", &NodeKind::Sink(connection())), "Sink: print");
    assert_eq!(shown("lines", &NodeKind::Source(connection())), "Source: lines");
    assert_eq!(shown("Sums", &NodeKind::Aggregate(Vec::new())), "Sums");
}
