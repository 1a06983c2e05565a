//! What differs between two versions of a job: which operators are kept, changed, migrated, new and dropped; whether
//! a running job can take the other version over, and whether it can go back.
//!
//! What changes while a job runs is functions: their code, the functions that are called together with them, and
//! states by value whose columns map by name; how long windows take late rows and when they are emitted; and how
//! watermarks follow the event time (`diff/settings.rs`). All else is laid out when a job starts.

mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter, Result as Written};

use arrow_schema::{DataType, Schema};
use graph::PhysicalGraph;
use model::Diagnostic;
use model::job_graph::{Function, Node, NodeId, NodeKind, State, StateKind};
use serde::Serialize;
use state::evolve::fits;

use super::{Exit, Version, exits};
use crate::admission::input_schema;
use crate::deploy::uid_of;
use crate::operator::native::NativeFunction;

/// What differs between two versions of a job. As JSON it has these fields by these names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The operators of the new version in its order, then those that are dropped.
    pub operators: Vec<OperatorChange>,
    /// Why a running job cannot take it over, each with the operator that it is about; none = it can. Then the job
    /// is stopped with a savepoint and started anew from it.
    pub obstacles: Vec<String>,
    /// What would be lost if the old version took over again what the new one has kept; none = nothing, so that a
    /// trap can lead back to the old code at the row where it happens.
    pub losses: Vec<String>,
}

/// An operator in both versions, or one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperatorChange {
    /// What names its state, where it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its name, of the new version if it is in both.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
    /// What becomes of its states, where that is anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StateChange>,
    /// What becomes of those of its settings that can change while a job runs: ``lateness was 5 s, and is 10 s``.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

/// What becomes of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is the same.
    Kept,
    /// It runs other code, on the state that is there.
    Code,
    /// It runs other code, on a state that is mapped by name.
    Migrated,
    /// It has other settings.
    Settings,
    /// It is in the new version only.
    New,
    /// It is in the old version only.
    Dropped,
}

/// What becomes of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateChange {
    /// Its name.
    pub name: String,
    /// What, as a sentence's end: ``is new``, ``column `n` was Int32, and is Int64``.
    pub what: String,
}

impl Difference {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.obstacles.is_empty() && self.operators.iter().all(|operator| operator.change == Change::Kept)
    }

    /// Whether a running job can take the new version over.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.obstacles.is_empty()
    }

    /// Whether a running job can go back from the new version to the old one, with nothing replayed.
    #[must_use]
    pub fn leads_back(&self) -> bool {
        self.is_live() && self.losses.is_empty()
    }

    /// Refuses what a running job cannot take over.
    ///
    /// # Errors
    /// If it cannot: the first obstacle.
    pub fn check_live(&self) -> Result<(), Diagnostic> {
        let Some(first) = self.obstacles.first() else { return Ok(()) };
        let more = match self.obstacles.len() - 1 {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Err(Diagnostic::user("the job cannot change to this version while it runs")
            .detail(format!("{first}{more}"))
            .hint("`--restart` stops it with a savepoint, and starts the new version from that"))
    }
}

impl Difference {
    /// Refuses a version from which a trap could not lead back.
    ///
    /// # Errors
    /// If it could not: what would be lost.
    pub fn check_back(&self) -> Result<(), Diagnostic> {
        if self.losses.is_empty() {
            return Ok(());
        }
        Err(Diagnostic::user("the old version could not take over again from this one without loss")
            .detail(self.losses.join("\n"))
            .hint("leave out the probation, or keep what the old version needs"))
    }
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Code => "code",
            Self::Migrated => "migrated",
            Self::Settings => "settings",
            Self::New => "new",
            Self::Dropped => "dropped",
        }
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        for operator in &self.operators {
            write!(f, "{:<9} {}", operator.change.word(), operator.name)?;
            if let Some(uid) = &operator.uid {
                write!(f, " (uid {uid})")?;
            }
            writeln!(f)?;
            for StateChange { name, what } in &operator.states {
                writeln!(f, "{:<9}   state `{name}`: {what}", "")?;
            }
            for what in &operator.settings {
                writeln!(f, "{:<9}   {what}", "")?;
            }
        }
        match (self.is_none(), self.obstacles.is_empty()) {
            (true, _) => return writeln!(f, "Nothing differs."),
            (_, true) => writeln!(f, "The running job can take it over, at the barrier of a checkpoint.")?,
            _ => {
                writeln!(f, "The running job cannot take it over, only by --restart:")?;
                return self.obstacles.iter().try_for_each(|obstacle| writeln!(f, "  {obstacle}"));
            }
        }
        match self.losses.is_empty() {
            true => writeln!(f, "If it traps, the old code takes over again at that row."),
            false => {
                writeln!(f, "The old code could not take over again without loss:")?;
                self.losses.iter().try_for_each(|loss| writeln!(f, "  {loss}"))
            }
        }
    }
}

/// What differs between two versions of a job.
#[must_use]
pub fn diff(old: &Version, new: &Version) -> Difference {
    between(Side::of(old), Side::of(new), new.has_code_of(old))
}

fn between(old: Side<'_>, new: Side<'_>, is_same_code: bool) -> Difference {
    let mut differ = Differ { old, new, is_same_code, difference: Difference::default() };
    differ.operators();
    differ.shape();
    differ.difference
}

/// A version without its code.
#[derive(Clone, Copy)]
struct Side<'a> {
    physical: &'a PhysicalGraph,
    natives: &'a BTreeMap<NodeId, NativeFunction>,
    two_phases: &'a BTreeSet<NodeId>,
    is_batch: bool,
    is_state_on_disk: bool,
}

impl<'a> Side<'a> {
    fn of(version: &'a Version) -> Self {
        Self {
            physical: &version.physical,
            natives: &version.natives,
            two_phases: &version.two_phases,
            is_batch: version.is_batch,
            is_state_on_disk: version.is_state_on_disk,
        }
    }
}

struct Differ<'a> {
    old: Side<'a>,
    new: Side<'a>,
    is_same_code: bool,
    difference: Difference,
}

fn is_function(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Function(_))
}

/// What kind of operator it is.
fn kind_of(node: &Node) -> &'static str {
    match node.kind {
        NodeKind::Source(_) => "source",
        NodeKind::Sink(_) => "sink",
        NodeKind::Watermarks(_) => "watermarks",
        NodeKind::Function(_) => "function",
        NodeKind::Aggregate(_) => "aggregate",
        NodeKind::Window(_) => "window",
        NodeKind::Join(_) => "join",
        NodeKind::Top(_) => "top",
        NodeKind::Lookup(_) => "lookup",
    }
}

fn same_columns(a: &Schema, b: &Schema) -> bool {
    a.fields().len() == b.fields().len()
        && a.fields().iter().zip(b.fields()).all(|(a, b)| {
            (a.name(), a.data_type(), a.is_nullable()) == (b.name(), b.data_type(), b.is_nullable())
        })
}

impl Differ<'_> {
    /// What becomes of each operator, for the reader: they are told by uid, else by kind and name.
    fn operators(&mut self) {
        let (old, new) = (&self.old.physical.job.nodes, &self.new.physical.job.nodes);
        let mut taken = BTreeSet::new();
        for (id, node) in new.iter().enumerate() {
            let is_it = |other: &Node| match (&node.uid, &other.uid) {
                (Some(uid), Some(other)) => uid == other,
                (None, None) => (&node.name, kind_of(node)) == (&other.name, kind_of(other)),
                _ => false,
            };
            let found = old.iter().enumerate().find(|(at, other)| !taken.contains(at) && is_it(other));
            let (mut change, mut states, mut settings) = (Change::New, Vec::new(), Vec::new());
            if let Some((at, before)) = found {
                taken.insert(at);
                (change, states) = changes(before, node, self.is_same_code && at == id);
                settings = settings::said(&before.kind, &node.kind);
            }
            let (uid, name) = (node.uid.clone(), node.name.clone());
            self.difference.operators.push(OperatorChange { uid, name, change, states, settings });
        }
        let dropped = old.iter().enumerate().filter(|(at, _)| !taken.contains(at)).map(|(_, node)| {
            let (uid, name) = (node.uid.clone(), node.name.clone());
            OperatorChange { uid, name, change: Change::Dropped, states: Vec::new(), settings: Vec::new() }
        });
        self.difference.operators.extend(dropped);
    }

    fn obstacle(&mut self, why: impl Into<String>) {
        self.difference.obstacles.push(why.into());
    }

    /// Whether the new version can run in the subtasks that are there: chains and stages are told by their places.
    fn shape(&mut self) {
        let (old, new) = (self.old, self.new);
        if old.is_batch || new.is_batch {
            self.obstacle("with --execution batch a job has one version");
        }
        if old.physical.max_parallelism != new.physical.max_parallelism {
            let (before, after) = (old.physical.max_parallelism, new.physical.max_parallelism);
            self.obstacle(format!("the number of key groups was {before}, and is {after}"));
        }
        let classes = |version: Side<'_>| -> Vec<Vec<&'static str>> {
            let job = &version.physical.job;
            let of_stage = |stage: &graph::Stage| kind_of(&job.nodes[stage.nodes[0] as usize]);
            version
                .physical
                .vertices
                .iter()
                .map(|vertex| vertex.stages.iter().map(of_stage).collect())
                .collect()
        };
        if classes(old) != classes(new) {
            self.other_shape();
            return;
        }
        for (v, (before, after)) in old.physical.vertices.iter().zip(&new.physical.vertices).enumerate() {
            if before.parallelism != after.parallelism {
                let (name, p, q) = (&after.name, before.parallelism, after.parallelism);
                self.obstacle(format!("`{name}` had parallelism {p}, and has {q}"));
            }
            for s in 0..before.stages.len() {
                self.stage(v, s);
            }
        }
    }

    /// The chains are others: by which operators.
    fn other_shape(&mut self) {
        let before = self.difference.obstacles.len();
        let others: Vec<(String, bool)> = self
            .difference
            .operators
            .iter()
            .filter(|operator| matches!(operator.change, Change::New | Change::Dropped))
            .map(|operator| (operator.name.clone(), operator.change == Change::New))
            .collect();
        for (name, is_new) in others {
            self.obstacle(match is_new {
                true => format!(
                    "`{name}` is new, and no function that it could be called together with is beside it"
                ),
                false => {
                    format!("`{name}` is dropped, which was not called together with a function beside it")
                }
            });
        }
        if self.difference.obstacles.len() == before {
            self.obstacle("the operators are joined to other chains");
        }
    }

    fn stage(&mut self, v: usize, s: usize) {
        let (old, new) = (self.old, self.new);
        let head = |version: Side<'_>| version.physical.vertices[v].stages[s].nodes[0];
        let (was, is) = (head(old), head(new));
        let (before, after) = (&old.physical.job.nodes[was as usize], &new.physical.job.nodes[is as usize]);
        let name = &after.name;
        if old.two_phases.contains(&was) != new.two_phases.contains(&is) {
            self.obstacle(format!("`{name}` is aggregated in another number of phases"));
        }
        if old.natives.contains_key(&was) != new.natives.contains_key(&is) {
            self.obstacle(format!("`{name}` is native in one of the versions"));
        }
        match (&before.kind, &after.kind) {
            (NodeKind::Function(f), NodeKind::Function(g)) => {
                self.function((was, f), (is, g), name);
            }
            (f, g) => {
                let other = match (f, g) {
                    _ if before.on_failure != after.on_failure => vec!["has other settings".to_owned()],
                    (NodeKind::Window(f), NodeKind::Window(g)) => {
                        let input = input_schema(&new.physical.job, is);
                        settings::of_windows((f, g), input.as_ref(), new.is_state_on_disk)
                    }
                    (NodeKind::Watermarks(f), NodeKind::Watermarks(g)) => settings::of_watermarks(f, g),
                    (f, g) => (f != g).then(|| "has other settings".to_owned()).into_iter().collect(),
                };
                other.iter().for_each(|why| self.obstacle(format!("the {} `{name}` {why}", kind_of(after))));
                let has_state = !matches!(f, NodeKind::Watermarks(_) | NodeKind::Lookup(_));
                if has_state && before.uid != after.uid {
                    self.obstacle(format!("the {} `{name}` has another uid", kind_of(after)));
                }
            }
        }
        self.exits(v, s, name);
    }

    /// Whether rows leave a stage by the same ways with the same columns.
    fn exits(&mut self, v: usize, s: usize, name: &str) {
        let (old, new) = (exits(self.old.physical, v, s), exits(self.new.physical, v, s));
        let ways = |exits: &[Exit]| exits.iter().map(|exit| exit.ways.clone()).collect::<Vec<_>>();
        if ways(&old) != ways(&new) {
            self.obstacle(format!("rows of `{name}` go other ways: to other operators, or by another key"));
            return;
        }
        for (before, after) in old.iter().zip(&new) {
            let port = |version: Side<'_>, (node, port): (NodeId, u32)| {
                let port = &version.physical.job.nodes[node as usize].outputs[port as usize];
                (std::sync::Arc::clone(&port.schema), port.changes)
            };
            let ((a, a_changes), (b, b_changes)) = (port(self.old, before.from), port(self.new, after.from));
            if !same_columns(&a, &b) || a_changes != b_changes {
                let node = &self.new.physical.job.nodes[after.from.0 as usize].name;
                self.obstacle(format!("`{node}` gives rows of other columns"));
            }
        }
    }

    fn function(&mut self, (was, f): (NodeId, &Function), (is, g): (NodeId, &Function), name: &str) {
        if f.is_stateful() != g.is_stateful() {
            self.obstacle(format!("`{name}` is called with state in one of the versions only"));
            return;
        }
        for why in settings::of_function(f, g, self.new.is_state_on_disk) {
            self.obstacle(format!("`{name}` {why}"));
        }
        if f.inputs.len() != g.inputs.len()
            || !f.inputs.iter().zip(&g.inputs).all(|(f, g)| same_columns(f, g))
        {
            self.obstacle(format!("`{name}` takes rows of other columns"));
        }
        let (old, new) = (&self.old.physical.job, &self.new.physical.job);
        if old.broadcast_input(was) != new.broadcast_input(is) {
            self.obstacle(format!("another input of `{name}` changes its broadcast state"));
        }
        if !g.is_stateful() {
            return;
        }
        let (before, after) = (uid_of(old, was), uid_of(new, is));
        if before != after {
            self.obstacle(format!(
                "`{name}` had the uid `{before}`, and has `{after}`: its state is another's"
            ));
        }
        if g.windows.is_some() && f.states != g.states {
            self.obstacle(format!("`{name}` has other states in its windows"));
        } else if self.new.is_state_on_disk && f.states != g.states {
            self.obstacle(format!("`{name}` has other states, and they lie on disk (state.backend.type)"));
        }
        for state in &g.states {
            match f.states.iter().find(|other| other.name == state.name) {
                None => {}
                Some(before) => {
                    if let Err(why) = maps(before, state) {
                        self.obstacle(format!("state `{}` of `{name}`: {why}", state.name));
                    }
                }
            }
        }
        let lost = losses(&f.states, &g.states).into_iter().map(|loss| format!("`{name}`, {loss}"));
        self.difference.losses.extend(lost);
    }
}

/// What of the old states the new ones do not have any more, or cannot give back.
pub(crate) fn losses(old: &[State], new: &[State]) -> Vec<String> {
    let mut losses = Vec::new();
    for state in old {
        let of = format!("state `{}`", state.name);
        let Some(after) = new.iter().find(|other| other.name == state.name) else {
            losses.push(format!("{of} is dropped"));
            continue;
        };
        let mut columns = Vec::new();
        columns_of(after.value.field(0).name(), value_type(state), value_type(after), &mut columns);
        let lost = columns.into_iter().filter(|column| column.is_lost);
        losses.extend(lost.map(|column| format!("{of}: {}", column.what)));
    }
    losses
}

fn value_type(state: &State) -> &DataType {
    state.value.field(0).data_type()
}

/// Whether values of a state can be kept as those of another of the same name while the job runs; else why not.
fn maps(before: &State, after: &State) -> Result<(), String> {
    let class = |kind: &StateKind| match kind {
        StateKind::Value => "a value",
        StateKind::Sequence => "a list",
        StateKind::Dictionary(_) => "a map",
        StateKind::Broadcast => "a broadcast state",
    };
    let (was, is) = (class(&before.kind), class(&after.kind));
    if was != is {
        return Err(format!("it was {was}, and is {is}"));
    }
    if !same_columns(&before.key, &after.key) {
        return Err("its entries have another key".to_owned());
    }
    if before.ttl != after.ttl {
        return Err("its time to live is another".to_owned());
    }
    if value_type(before) == value_type(after) {
        return Ok(());
    }
    if let Some(column) = forbids_nulls(value_type(before), value_type(after)) {
        return Err(format!("column `{column}` could be null, and cannot be any more"));
    }
    if before.kind != StateKind::Value {
        return Err(format!("{is} of another type"));
    }
    let name = match value_type(after) {
        DataType::Struct(_) => "",
        _ => after.value.field(0).name(),
    };
    fits(name, value_type(before), value_type(after)).map_err(|misfit| misfit.to_string())
}

/// A column that may have nulls of which none may be in the new type.
fn forbids_nulls(old: &DataType, new: &DataType) -> Option<String> {
    match (old, new) {
        (DataType::Struct(old), DataType::Struct(new)) => new.iter().find_map(|field| {
            let (_, before) = old.find(field.name())?;
            match before.is_nullable() && !field.is_nullable() {
                true => Some(field.name().clone()),
                false => forbids_nulls(before.data_type(), field.data_type()),
            }
        }),
        (DataType::List(old), DataType::List(new)) => forbids_nulls(old.data_type(), new.data_type()),
        _ => None,
    }
}

/// A column that has become another.
struct Column {
    what: String,
    /// What it has become does not fit what it was.
    is_lost: bool,
}

/// The columns that differ between two types.
fn columns_of(name: &str, old: &DataType, new: &DataType, found: &mut Vec<Column>) {
    match (old, new) {
        _ if old == new => {}
        (DataType::Struct(old), DataType::Struct(new)) => {
            for field in old {
                match new.find(field.name()) {
                    Some((_, after)) if !field.is_nullable() && after.is_nullable() => {
                        let what = format!("column `{}` can be null", field.name());
                        found.push(Column { what, is_lost: true });
                    }
                    Some((_, after)) => columns_of(field.name(), field.data_type(), after.data_type(), found),
                    None => {
                        found.push(Column {
                            what: format!("column `{}` is dropped", field.name()),
                            is_lost: true,
                        });
                    }
                }
            }
            for field in new.iter().filter(|field| old.find(field.name()).is_none()) {
                found.push(Column { what: format!("column `{}` is new", field.name()), is_lost: false });
            }
        }
        (DataType::List(old), DataType::List(new)) => {
            columns_of(name, old.data_type(), new.data_type(), found);
        }
        _ => {
            let what = format!("column `{name}` was {old}, and is {new}");
            found.push(Column { what, is_lost: fits(name, new, old).is_err() });
        }
    }
}

/// What becomes of an operator that is in both versions.
fn changes(old: &Node, new: &Node, is_same_code: bool) -> (Change, Vec<StateChange>) {
    let (NodeKind::Function(f), NodeKind::Function(g)) = (&old.kind, &new.kind) else {
        let is_same = old.kind == new.kind && old.on_failure == new.on_failure;
        return (if is_same { Change::Kept } else { Change::Settings }, Vec::new());
    };
    let change = |name: &str, what: String| StateChange { name: name.to_owned(), what };
    let mut states = Vec::new();
    for state in &g.states {
        match f.states.iter().find(|other| other.name == state.name) {
            None => states.push(change(&state.name, "is new".to_owned())),
            Some(before) if before == state => {}
            Some(before) => {
                let mut columns = Vec::new();
                columns_of(state.value.field(0).name(), value_type(before), value_type(state), &mut columns);
                states.extend(columns.into_iter().map(|column| change(&state.name, column.what)));
            }
        }
    }
    let dropped = f.states.iter().filter(|state| g.states.iter().all(|other| other.name != state.name));
    states.extend(dropped.map(|state| change(&state.name, "is dropped".to_owned())));
    match (is_same_code, states.is_empty()) {
        (_, false) => (Change::Migrated, states),
        (true, _) if is_function(old) && old.on_failure == new.on_failure && f == g => (Change::Kept, states),
        _ => (Change::Code, states),
    }
}
