//! What the tables of an operator's keyed state are called.

use arrow_schema::{DataType, Schema};
use checkpoint::manifest::{Table, TableKind};
use model::job_graph::{Function, JobGraph, NodeId, State, StateKind};
use state::backend::StateTable;
use window::assigner::instant_type;

use super::section;
use crate::operator::window_keys::KeyedBy;
use crate::operator::windowed::keyed_by;

/// One of an operator's backends: its keys and its states.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The names of the key's columns.
    pub(crate) keys: Vec<String>,
    /// Their types.
    pub(crate) key_types: Vec<DataType>,
    /// How many of them are the stream's.
    pub(crate) stream_keys: usize,
    /// By their places.
    pub(crate) states: Vec<State>,
}

/// The names of columns behind a stream's key.
fn behind(columns: usize) -> Vec<String> {
    match columns {
        0 => Vec::new(),
        1 => vec!["window".to_owned()],
        2 => vec!["window_start".to_owned(), "window_end".to_owned()],
        more => (0..more).map(|column| format!("key_{column}")).collect(),
    }
}

fn names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

impl Kept {
    /// Of a backend whose first keys are a stream's.
    pub(crate) fn new(stream_keys: &[String], key_types: &[DataType], states: &[State]) -> Self {
        let mut keys: Vec<String> = stream_keys.iter().take(key_types.len()).cloned().collect();
        let own = keys.len();
        keys.extend(behind(key_types.len() - own));
        Self { keys, key_types: key_types.to_vec(), stream_keys: own, states: states.to_vec() }
    }

    /// The place of a state in the backend.
    pub(crate) fn state(&self, name: &str) -> Option<(u32, &State)> {
        (0..).zip(&self.states).find(|(_, state)| state.name == name)
    }

    /// As a manifest says it, of the backend of this number.
    pub(crate) fn tables(&self, number: usize) -> Vec<Table> {
        let stream_keys = u32::try_from(self.stream_keys).unwrap_or(u32::MAX);
        let of_state = |(place, state): (u32, &State)| Table {
            section: section::of_table(number, table_of(place, state)),
            name: state.name.clone(),
            kind: kind_of(state),
            keys: if state.kind == StateKind::Broadcast { Vec::new() } else { self.keys.clone() },
            stream_keys: if state.kind == StateKind::Broadcast { 0 } else { stream_keys },
            own_keys: match state.kind {
                StateKind::Value => Vec::new(),
                StateKind::Sequence => vec!["place".to_owned()],
                StateKind::Dictionary(_) | StateKind::Broadcast => names(&state.key),
            },
            values: names(&state.value),
        };
        let timers = Table {
            section: section::of_table(number, StateTable::Timers),
            name: StateTable::Timers.name(),
            kind: TableKind::Timers,
            keys: self.keys.clone(),
            stream_keys,
            own_keys: vec!["domain".to_owned()],
            values: vec!["time".to_owned()],
        };
        (0..).zip(&self.states).map(of_state).chain([timers]).collect()
    }
}

/// The table that a state of this place is.
pub(crate) fn table_of(place: u32, state: &State) -> StateTable {
    match state.kind {
        StateKind::Value => StateTable::Values(place),
        StateKind::Sequence | StateKind::Dictionary(_) | StateKind::Broadcast => StateTable::Entries(place),
    }
}

/// Which entries a state has.
pub(crate) fn kind_of(state: &State) -> TableKind {
    match state.kind {
        StateKind::Value => TableKind::Value,
        StateKind::Sequence => TableKind::Sequence,
        StateKind::Dictionary(_) => TableKind::Dictionary,
        StateKind::Broadcast => TableKind::Broadcast,
    }
}

/// The one table of a running aggregate.
pub(crate) fn of_aggregate(keys: Vec<String>, values: Vec<String>) -> Table {
    let stream_keys = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    Table {
        section: section::AGGREGATE.to_owned(),
        name: section::AGGREGATE.to_owned(),
        kind: TableKind::Aggregate,
        keys,
        stream_keys,
        own_keys: Vec::new(),
        values,
    }
}

/// The names and types of the columns that a function's rows are keyed by: those of its first input that has a key.
pub(crate) fn key_of(job: &JobGraph, id: NodeId, function: &Function) -> Vec<(String, DataType)> {
    let of_input = |(input, schema): (u32, &arrow_schema::SchemaRef)| {
        let edge = job.edges_into(id).find(|edge| edge.input == input)?;
        let model::job_graph::Partition::Hash(keys) = &edge.partition else { return None };
        let field = |key: &u32| schema.field(*key as usize);
        Some(keys.iter().map(|key| (field(key).name().clone(), field(key).data_type().clone())).collect())
    };
    (0..).zip(&function.inputs).find_map(of_input).unwrap_or_default()
}

/// What a function keeps, but for what the host keeps of its windows apart.
pub(crate) fn of_function(job: &JobGraph, id: NodeId, function: &Function) -> Kept {
    let (names, mut types): (Vec<String>, Vec<DataType>) = key_of(job, id, function).into_iter().unzip();
    if let Some(windows) = &function.windows {
        let columns = window_columns(keyed_by(windows, function.timers));
        types.extend(std::iter::repeat_n(instant_type(), columns));
    }
    Kept::new(&names, &types, &function.states)
}

/// How many columns are behind the key of a function in windows.
pub(crate) fn window_columns(kind: KeyedBy) -> usize {
    if kind == KeyedBy::Session { 1 } else { 2 }
}
