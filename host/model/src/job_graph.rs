//! The job graph: what a component says its job is, as plain data (`wit/graph.wit`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use arrow_schema::SchemaRef;

/// A node's place in [`JobGraph::nodes`].
pub type NodeId = u32;

/// A job as data.
#[derive(Clone, Debug, PartialEq)]
pub struct JobGraph {
    /// Shown in lists.
    pub name: String,
    /// The operators.
    pub nodes: Vec<Node>,
    /// How rows go between them.
    pub edges: Vec<Edge>,
    /// Flink's configuration keys; the command line wins.
    pub settings: BTreeMap<String, String>,
}

/// An operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Names the node's state over versions.
    pub uid: Option<String>,
    /// Shown to people.
    pub name: String,
    /// Where the user wrote it, `src/lib.rs:17`.
    pub origin: Option<String>,
    /// None = the job's.
    pub parallelism: Option<u32>,
    /// Number of key groups; none = the job's.
    pub max_parallelism: Option<u32>,
    /// What it does.
    pub kind: NodeKind,
    /// What leaves it: port 0 is the main output, the others are side outputs.
    pub outputs: Vec<Port>,
    /// What becomes of rows that fail.
    pub on_failure: FailurePolicy,
    /// Whether it shares a thread and a guest instance with its neighbours.
    pub chaining: Chaining,
}

impl Node {
    /// The ports of the rows that fail, where they are diverted: the last, of a function one for each
    /// input. Empty, from 0, if it has too few.
    #[must_use]
    pub fn failure_ports(&self) -> Range<usize> {
        let inputs = match &self.kind {
            NodeKind::Function(function) => function.inputs.len(),
            _ => 1,
        };
        match self.outputs.len().checked_sub(inputs) {
            Some(first) => first..self.outputs.len(),
            None => 0..0,
        }
    }
}

/// An output of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Shown to people.
    pub name: String,
    /// Its rows.
    pub schema: SchemaRef,
    /// Its rows may be other than inserts.
    pub changes: bool,
}

/// What becomes of a row that a source cannot decode or a function fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The job fails.
    Fail,
    /// The row is dropped and counted.
    Skip,
    /// The row goes to the node's last port, with a text `failure`.
    Divert,
}

/// Whether a node may share a thread with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaining {
    /// With the node before it and those after it, where the edges are forward.
    Allowed,
    /// Not with the node before it.
    Head,
    /// With none.
    Never,
}

/// Rows go from an output to an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// The node that they leave.
    pub producer: NodeId,
    /// By this output.
    pub port: u32,
    /// The node that they reach.
    pub consumer: NodeId,
    /// By this input.
    pub input: u32,
    /// To which of its subtasks.
    pub partition: Partition,
}

/// To which subtask of the consumer a row goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partition {
    /// To the subtask of the same number.
    Forward,
    /// By key: rows of equal key columns meet in one subtask.
    Hash(Vec<u32>),
    /// Evenly, in turn.
    Rebalance,
    /// Each row to every subtask.
    Broadcast,
    /// All rows to subtask 0.
    Global,
    /// To the subtask whose number is in this, the last, column, modulo the parallelism.
    Chosen(u32),
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// Rows come in.
    Source(Connection),
    /// Rows go out.
    Sink(Connection),
    /// Gives rows their event time, and makes watermarks.
    Watermarks(Watermarks),
    /// Code in the guest.
    Function(Function),
    /// Native running aggregates by key.
    Aggregate(Vec<Aggregate>),
    /// Native aggregates by key and window.
    Window(Window),
    /// Pairs of rows of two inputs.
    Join(Join),
    /// The first rows of each key in an order.
    Top(Top),
    /// Rows with what a table outside has for them.
    Lookup(Lookup),
}

impl NodeKind {
    /// How many inputs it has.
    #[must_use]
    pub fn inputs(&self) -> usize {
        match self {
            Self::Source(_) => 0,
            Self::Function(function) => function.inputs.len(),
            Self::Join(_) => 2,
            Self::Sink(_)
            | Self::Watermarks(_)
            | Self::Aggregate(_)
            | Self::Window(_)
            | Self::Top(_)
            | Self::Lookup(_) => 1,
        }
    }
}

/// A connector with its options, and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `files`, `socket`, `print` …
    pub connector: String,
    /// The connector's options.
    pub options: BTreeMap<String, String>,
    /// `lines`, `json`, `csv`, `text`.
    pub format: Option<String>,
    /// The format's options.
    pub format_options: BTreeMap<String, String>,
}

/// Code in the guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// The schema of each input.
    pub inputs: Vec<SchemaRef>,
    /// The states that it declares; empty = stateless.
    pub states: Vec<State>,
    /// It sets timers.
    pub timers: bool,
    /// It takes changelogs.
    pub changes: bool,
    /// The windows that its rows are in.
    pub windows: Option<Windows>,
}

/// Windows of a function's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Which windows a row is in.
    pub assigner: Assigner,
    /// By which clock.
    pub time: TimeDomain,
    /// How long after its end a window still takes rows.
    pub lateness: Duration,
    /// This port, and of two inputs the next, takes the rows that are later than that.
    pub late_port: Option<u32>,
    /// Rows go to its first states, one for each input, and not to the function.
    pub collects: bool,
    /// Its only state is a value, and those of two windows can be made one.
    pub merges: bool,
}

impl Function {
    /// Whether it is called with states and timers: through `keyed-functions`.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.timers || self.windows.is_some() || !self.states.is_empty()
    }

    /// Whether its rows, but those of a broadcast input, have a key.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        self.timers
            || self.windows.is_some()
            || self.states.iter().any(|state| state.kind != StateKind::Broadcast)
    }
}

/// Where event time comes from, and how watermarks follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// A timestamp column; none = the connector's time, else the time of arrival.
    pub time_column: Option<u32>,
    /// How the watermark follows.
    pub strategy: WatermarkStrategy,
    /// A subtask without rows for so long holds nothing back; none = never.
    pub idle_after: Option<Duration>,
    /// Rows further ahead of the processing time than this fail; none = [`AHEAD_MAX`].
    pub ahead_max: Option<Duration>,
    /// Which others it stays near to, in event time.
    pub alignment: Option<Alignment>,
}

/// Subtasks of all nodes of one group stay near the one that is least far in event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// The group's name.
    pub group: String,
    /// How far ahead they may be.
    pub drift_max: Duration,
}

/// How far a row's event time may be ahead of the processing time unless the plan says otherwise:
/// one bad row must not close every window.
pub const AHEAD_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How the watermark follows the event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatermarkStrategy {
    /// The greatest event time so far, less this, less 1 ms.
    Bounded(Duration),
    /// The greatest value so far in this timestamp column, less 1 ms.
    Punctuated(u32),
}

/// Of which clock a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeDomain {
    /// The watermark's.
    EventTime,
    /// The machine's.
    ProcessingTime,
}

/// A state of a function: a table with columns.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Unique in its function.
    pub name: String,
    /// Which entries it has, and how they travel.
    pub kind: StateKind,
    /// The columns of an entry's own key, of a dictionary or a broadcast state; else none.
    pub key: SchemaRef,
    /// One field, nullable in the table whatever it says here.
    pub value: SchemaRef,
    /// How long an entry lives; none = until it is removed.
    pub ttl: Option<Ttl>,
}

/// Which entries a state has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// At most one a key. It travels with every call.
    Value,
    /// Entries by an own key. They ride with the rows of these inputs.
    Dictionary(Vec<Riding>),
    /// Entries in the order of their arrival.
    Sequence,
    /// As a dictionary, but one for the function instead of one for each key.
    Broadcast,
}

/// Rows carry the entry that they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Riding {
    /// Rows of this input.
    pub input: u32,
    /// By these columns.
    pub columns: Vec<u32>,
}

/// How long an entry of a state lives, in processing time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// After the last write or, if `on_read`, the last touch.
    pub after: Duration,
    /// Riding in with a call is a touch.
    pub on_read: bool,
}

impl Ttl {
    /// Whether an entry that was touched then is forgotten now, both in milliseconds since the epoch.
    #[must_use]
    pub fn is_over(&self, touched: i64, now: i64) -> bool {
        let after = i64::try_from(self.after.as_millis()).unwrap_or(i64::MAX);
        now.saturating_sub(touched) >= after
    }
}

/// A native aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// `count`, `sum`, `min`, `max`, `avg`, `first`, `last`, `top`.
    pub function: String,
    /// What it is taken over.
    pub columns: Vec<u32>,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// Native aggregates by key and window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which windows a row is in.
    pub assigner: Assigner,
    /// By which clock.
    pub time: TimeDomain,
    /// How long after its end a window still takes rows.
    pub lateness: Duration,
    /// This port takes the rows that are later than that.
    pub late_port: Option<u32>,
    /// When it is emitted.
    pub trigger: Trigger,
    /// What has been emitted is forgotten.
    pub purging: bool,
    /// What is emitted.
    pub aggregates: Vec<Aggregate>,
}

/// When a window is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At its end.
    AtEnd,
    /// Also before, each time so long after the last.
    Early(Duration),
    /// Each so many rows of it, and only then.
    Count(u64),
}

/// Which windows a row is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assigner {
    /// One after the other: `size` = `step`.
    Tumbling(Grid),
    /// One every `step`.
    Sliding(Grid),
    /// Growing by `step` until `size`.
    Cumulating(Grid),
    /// Closed by a gap without rows.
    Session(Duration),
    /// Each `step` rows of a key its last `size` rows.
    Count {
        /// How many rows a window has.
        size: u64,
        /// From one window's end to the next, in rows.
        step: u64,
    },
    /// One for all rows of a key.
    Everything,
}

/// Where the edges of windows lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// A window's length.
    pub size: Duration,
    /// From one edge to the next.
    pub step: Duration,
    /// Of the edges from the epoch, or from local midnight, in milliseconds.
    pub offset: i64,
    /// The time zone whose midnights they follow, an IANA name.
    pub zone: Option<String>,
}

/// Pairs of rows of equal keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Which rows leave without a partner.
    pub sides: JoinSides,
    /// Which rows are partners.
    pub form: JoinForm,
}

/// Which rows leave a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinSides {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a partner.
    Left,
    /// Pairs, and right rows without a partner.
    Right,
    /// Pairs, and rows without a partner.
    Full,
    /// Left rows with a partner, once each.
    Semi,
    /// Left rows without a partner.
    Anti,
}

/// Which rows of equal keys are partners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinForm {
    /// Those of the same window.
    Window(Assigner),
    /// Those whose event times, right less left, are within these bounds, in milliseconds.
    Interval {
        /// The least.
        lower: i64,
        /// The greatest.
        upper: i64,
    },
    /// All, for as long as they live.
    Unbounded(Option<Ttl>),
    /// The right row that is valid at the left row's time, by this clock.
    Temporal(TimeDomain),
}

/// Rows with what a table that lies outside has for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// Where the table is.
    pub table: Connection,
    /// Its columns.
    pub schema: SchemaRef,
    /// The input's columns that name rows of the table.
    pub keys: Vec<u32>,
    /// By these columns of it.
    pub table_keys: Vec<u32>,
    /// A row without a partner leaves too.
    pub outer: bool,
    /// How long a table that was read is good for; none = for ever.
    pub reload: Option<Duration>,
}

/// The first rows of each key in an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// How many.
    pub limit: u32,
    /// By these columns, the first before the next.
    pub order: Vec<Ordering>,
    /// With their number as the last column.
    pub rank: bool,
}

/// A column that rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordering {
    /// The column.
    pub column: u32,
    /// The greatest first.
    pub descending: bool,
    /// Nulls after all others.
    pub nulls_last: bool,
}

impl JobGraph {
    /// The edges into a node, in the graph's order.
    pub fn edges_into(&self, node: NodeId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.consumer == node)
    }

    /// The input of a function with broadcast states whose rows every subtask gets: they change the state.
    #[must_use]
    pub fn broadcast_input(&self, node: NodeId) -> Option<u32> {
        let NodeKind::Function(function) = &self.nodes.get(node as usize)?.kind else { return None };
        if !function.states.iter().any(|state| state.kind == StateKind::Broadcast) {
            return None;
        }
        (0..).take(function.inputs.len()).find(|input| {
            let mut edges = self.edges_into(node).filter(|edge| edge.input == *input).peekable();
            edges.peek().is_some() && edges.all(|edge| edge.partition == Partition::Broadcast)
        })
    }

    /// The edges out of a node, in the graph's order.
    pub fn edges_from(&self, node: NodeId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.producer == node)
    }
}
