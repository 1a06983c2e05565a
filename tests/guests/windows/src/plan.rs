//! The job graphs, as the arguments say.

use crate::millstream::job::graph::{
    Aggregate, Assigner, Chaining, Connection, Edge, FailurePolicy, Function, Grid, JobGraph, Node, NodeKind,
    Partition, Port, Setting, State, StateKind, TimeDomain, Trigger, WatermarkStrategy, Watermarks, Window,
    Windows,
};
use crate::millstream::job::rows::{DataType, Field, TimeUnit};

pub(crate) const PROJECT: u32 = 2;
pub(crate) const SUM: u32 = 3;

/// How the rows of a window are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    #[default]
    Each,
    Collects,
    Merges,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    input: String,
    second: Option<String>,
    bound: u64,
    /// `tumbling`, `sliding`, `cumulating`, `session`, `everything`
    windows: String,
    size: u64,
    step: u64,
    offset: i64,
    zone: Option<String>,
    pub(crate) processing: bool,
    lateness: u64,
    late_port: bool,
    pub(crate) kept: Kept,
    pub(crate) timers: bool,
    policy: String,
    pub(crate) faults: bool,
    /// `short`, `wrong`, `never`, `trap`, or a sum from which on a pair traps
    pub(crate) merge: String,
    native: bool,
    /// of the native aggregate: `end`, `early:MS`, `count:ROWS`
    trigger: String,
    changes: bool,
    purging: bool,
    events: String,
    pub(crate) bids: bool,
    /// what is collected is read again and again
    pub(crate) reads_for_ever: bool,
    /// all bids are of one auction
    pub(crate) one_key: bool,
}

impl Options {
    pub(crate) fn of(args: &[String]) -> Result<Self, String> {
        let mut options = Self { windows: "tumbling".into(), size: 10, step: 10, ..Self::default() };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return Err(format!("{pair:?} has no value")) };
            let number = || value.parse::<u64>().map_err(|_| format!("{name} {value} is no number"));
            let is = value == "true";
            match name.as_str() {
                "--input" => options.input.clone_from(value),
                "--second" => options.second = Some(value.clone()),
                "--bound" => options.bound = number()?,
                "--windows" => options.windows.clone_from(value),
                "--size" => (options.size, options.step) = (number()?, number()?),
                "--step" => options.step = number()?,
                "--offset" => options.offset = value.parse().map_err(|_| "--offset MS")?,
                "--zone" => options.zone = Some(value.clone()),
                "--processing" => options.processing = is,
                "--lateness" => options.lateness = number()?,
                "--late-port" => options.late_port = is,
                "--kept" => {
                    options.kept = match value.as_str() {
                        "each" => Kept::Each,
                        "collects" => Kept::Collects,
                        "merges" => Kept::Merges,
                        _ => return Err("--kept each, collects or merges".into()),
                    }
                }
                "--timers" => options.timers = is,
                "--policy" => options.policy.clone_from(value),
                "--faults" => options.faults = is,
                "--merge" => options.merge.clone_from(value),
                "--native" => options.native = is,
                "--trigger" => options.trigger.clone_from(value),
                "--changes" => options.changes = is,
                "--purging" => options.purging = is,
                "--read" => options.reads_for_ever = value == "for-ever",
                "--one-key" => options.one_key = is,
                "--bids" => (options.events, options.bids) = (value.clone(), true),
                _ => return Err(format!("there is no {name}")),
            }
        }
        Ok(options)
    }

    fn assigner(&self) -> Assigner {
        let grid = Grid { size: self.size, step: self.step, offset: self.offset, zone: self.zone.clone() };
        match self.windows.as_str() {
            "sliding" => Assigner::Sliding(grid),
            "cumulating" => Assigner::Cumulating(grid),
            "session" => Assigner::Session(self.size),
            "everything" => Assigner::Everything,
            _ => Assigner::Tumbling(grid),
        }
    }

    fn time(&self) -> TimeDomain {
        if self.processing { TimeDomain::ProcessingTime } else { TimeDomain::EventTime }
    }

    fn trigger(&self) -> Trigger {
        let number = |text: &str| text.parse().ok();
        match self.trigger.split_once(':') {
            Some(("early", each)) => number(each).map_or(Trigger::AtEnd, Trigger::Early),
            Some(("count", rows)) => number(rows).map_or(Trigger::AtEnd, Trigger::Count),
            _ => Trigger::AtEnd,
        }
    }

    /// The native aggregate: the rows' count, and the sum of this column.
    fn window(&self, sum: u32) -> Window {
        let aggregate = |function: &str, columns: &[u32]| Aggregate {
            function: function.into(),
            columns: columns.to_vec(),
            options: vec![],
        };
        Window {
            assigner: self.assigner(),
            time: self.time(),
            lateness: self.lateness,
            late_port: self.late_port.then_some(1),
            trigger: self.trigger(),
            purging: self.purging,
            aggregates: vec![aggregate("count", &[]), aggregate("sum", &[sum])],
        }
    }

    /// What that gives.
    fn of_window(&self, key: &str) -> Vec<Field> {
        let instant = |name: &str| Field {
            data_type: DataType::Timestamp(TimeUnit::Milliseconds),
            ..number(name, false)
        };
        let bounds = match self.windows.as_str() {
            "everything" => vec![],
            _ => vec![instant("window_start"), instant("window_end")],
        };
        [vec![number(key, false)], bounds, vec![number("count", false), number("sum", false)]].concat()
    }

    pub(crate) fn inputs(&self) -> usize {
        1 + usize::from(self.second.is_some())
    }
}

pub(crate) fn plan(name: String, options: &Options) -> JobGraph {
    if options.bids { bids(name, options) } else { rows(name, options) }
}

fn state(name: &str, kind: StateKind, value: Vec<Field>) -> State {
    State { name: name.into(), kind, key: vec![], value, ttl: None }
}

fn function(options: &Options, row: &[Field]) -> Function {
    let mut structure = vec![Field {
        data_type: DataType::Structure(u32::try_from(row.len()).unwrap_or_default()),
        ..number("row", true)
    }];
    structure.extend(row.iter().cloned());
    let sums = [
        vec![Field { data_type: DataType::Structure(4), ..number("sums", true) }],
        ["count", "sum", "first", "last"].map(|name| number(name, false)).to_vec(),
    ];
    let states = match options.kept {
        Kept::Collects => (0..options.inputs())
            .map(|input| state(&format!("rows {input}"), StateKind::Sequence, structure.clone()))
            .collect(),
        _ => vec![state("sums", StateKind::Value, sums.concat())],
    };
    Function {
        inputs: vec![row.to_vec(); options.inputs()],
        states,
        timers: options.timers,
        changes: false,
        windows: Some(Windows {
            assigner: options.assigner(),
            time: options.time(),
            lateness: options.lateness,
            late_port: options.late_port.then_some(1),
            collects: options.kept == Kept::Collects,
            merges: options.kept == Kept::Merges,
        }),
    }
}

fn result() -> Vec<Field> {
    let instant =
        |name: &str| Field { data_type: DataType::Timestamp(TimeUnit::Milliseconds), ..number(name, false) };
    vec![
        number("kind", false),
        number("key", false),
        instant("start"),
        instant("end"),
        number("time", false),
        number("count", false),
        number("sum", false),
    ]
}

fn rows(name: String, options: &Options) -> JobGraph {
    let row = vec![
        number("key", false),
        Field { data_type: DataType::Timestamp(TimeUnit::Milliseconds), ..number("at", false) },
        number("deed", false),
        number("value", false),
    ];
    let mut failed = row.clone();
    failed.push(Field { data_type: DataType::Text, ..number("failure", false) });
    let of_main = if options.native { options.of_window("key") } else { result() };
    let mut outputs = vec![Port { changes: options.changes, ..port("main", of_main) }];
    if options.late_port {
        outputs.extend((0..options.inputs()).map(|input| port(&format!("late {input}"), row.clone())));
    }
    let on_failure = match options.policy.as_str() {
        _ if options.native => FailurePolicy::Fail,
        "fail" => FailurePolicy::Fail,
        "divert" => {
            outputs
                .extend((0..options.inputs()).map(|input| port(&format!("failed {input}"), failed.clone())));
            FailurePolicy::Divert
        }
        _ => FailurePolicy::Skip,
    };
    let kind = match options.native {
        true => NodeKind::Window(options.window(3)),
        false => NodeKind::Function(function(options, &row)),
    };
    let sum = Node { outputs, on_failure, ..node("Sum", kind, vec![]) };
    let files = |path: &str| NodeKind::Source(connection("files", &[("path", path)], Some("json")));
    let source = |name: &str, path: &str| node(name, files(path), row.clone());
    let timed = |name: &str| {
        let kind = NodeKind::Watermarks(Watermarks {
            time_column: Some(1),
            strategy: WatermarkStrategy::Bounded(options.bound),
            idle_after: None,
            ahead_max: Some(u64::MAX),
            alignment: None,
        });
        node(name, kind, row.clone())
    };
    let sink = |name: &str| node(name, NodeKind::Sink(connection("print", &[], None)), vec![]);
    // A sink in the place of the job `bids`' projection keeps the numbers of nodes the same.
    let mut nodes = vec![source("Source", &options.input), timed("Watermarks"), sink("Sink"), sum];
    let by_key = || Partition::Hash(vec![0]);
    let mut edges = vec![
        edge((0, 0), (1, 0), Partition::Forward),
        edge((1, 0), (SUM, 0), by_key()),
        edge((SUM, 0), (2, 0), Partition::Rebalance),
    ];
    if let Some(second) = &options.second {
        nodes.extend([source("Second source", second), timed("Second watermarks")]);
        edges.extend([edge((4, 0), (5, 0), Partition::Forward), edge((5, 0), (SUM, 1), by_key())]);
    }
    for port in 1..u32::try_from(nodes[SUM as usize].outputs.len()).unwrap_or_default() {
        let consumer = u32::try_from(nodes.len()).unwrap_or_default();
        nodes.push(sink(&format!("Sink of port {port}")));
        edges.push(edge((SUM, port), (consumer, 0), Partition::Rebalance));
    }
    JobGraph { name, nodes, edges, settings: vec![] }
}

/// Source -> watermarks -> auction and price -> by auction: the guest's function, or the native aggregate.
fn bids(name: String, options: &Options) -> JobGraph {
    let text = |name: &str| Field { data_type: DataType::Text, ..number(name, false) };
    let time =
        |name: &str| Field { data_type: DataType::Timestamp(TimeUnit::Milliseconds), ..number(name, false) };
    let numbers = |names: &[&str]| names.iter().map(|name| number(name, false)).collect::<Vec<_>>();
    let texts = |names: &[&str]| names.iter().map(|name| text(name)).collect::<Vec<_>>();
    let persons = [
        numbers(&["id"]),
        texts(&["name", "email", "card", "city", "state"]),
        vec![time("at"), text("extra")],
    ];
    let auctions = [
        numbers(&["id"]),
        texts(&["item", "description"]),
        numbers(&["initial", "reserve"]),
        vec![time("at"), time("expires")],
        numbers(&["seller", "category"]),
        texts(&["extra"]),
    ];
    let bid = [
        numbers(&["auction", "bidder", "price"]),
        texts(&["channel", "url"]),
        vec![time("at"), text("extra")],
    ]
    .concat();
    let pair = numbers(&["auction", "price"]);
    let source = Node {
        outputs: vec![
            port("persons", persons.concat()),
            port("auctions", auctions.concat()),
            port("bids", bid.clone()),
        ],
        ..node(
            "Source",
            NodeKind::Source(connection("nexmark", &[("events", &options.events)], None)),
            vec![],
        )
    };
    let watermarks = NodeKind::Watermarks(Watermarks {
        time_column: Some(5),
        strategy: WatermarkStrategy::Bounded(options.bound),
        idle_after: None,
        ahead_max: None,
        alignment: None,
    });
    let project = NodeKind::Function(Function {
        inputs: vec![bid.clone()],
        states: vec![],
        timers: false,
        changes: false,
        windows: None,
    });
    let (kind, schema) = if options.native {
        (NodeKind::Window(options.window(1)), options.of_window("auction"))
    } else {
        (NodeKind::Function(function(options, &pair)), result())
    };
    JobGraph {
        name,
        nodes: vec![
            source,
            node("Watermarks", watermarks, bid),
            node("Project", project, pair),
            node("Sum", kind, schema),
            node("Sink", NodeKind::Sink(connection("blackhole", &[], None)), vec![]),
        ],
        edges: vec![
            edge((0, 2), (1, 0), Partition::Forward),
            edge((1, 0), (PROJECT, 0), Partition::Forward),
            edge((PROJECT, 0), (SUM, 0), Partition::Hash(vec![0])),
            edge((SUM, 0), (4, 0), Partition::Forward),
        ],
        settings: vec![],
    }
}

fn number(name: &str, nullable: bool) -> Field {
    Field { name: name.into(), data_type: DataType::Int64, nullable }
}

fn port(name: &str, schema: Vec<Field>) -> Port {
    Port { name: name.into(), schema, changes: false }
}

fn node(name: &str, kind: NodeKind, output: Vec<Field>) -> Node {
    Node {
        uid: Some(name.to_lowercase()),
        name: name.into(),
        origin: Some(file!().into()),
        parallelism: None,
        max_parallelism: None,
        kind,
        outputs: if output.is_empty() { vec![] } else { vec![port("main", output)] },
        on_failure: FailurePolicy::Fail,
        chaining: Chaining::Allowed,
    }
}

fn connection(connector: &str, options: &[(&str, &str)], format: Option<&str>) -> Connection {
    let options =
        options.iter().map(|(name, value)| Setting { name: (*name).into(), value: (*value).into() });
    Connection {
        connector: connector.into(),
        options: options.collect(),
        format: format.map(Into::into),
        format_options: vec![],
    }
}

fn edge((producer, port): (u32, u32), (consumer, input): (u32, u32), partition: Partition) -> Edge {
    Edge { producer, port, consumer, input, partition }
}
