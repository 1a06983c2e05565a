//! Windows of so many rows of a key, in the order of arrival.
//!
//! The rows of a key are cut into panes of as many rows as the size and the step have in common, so that a
//! window is a run of panes. Of windows that overlap, panes are kept by key and number, and of each eight
//! neighbours one of the next level: so a window of very many panes is put together of few, and a row
//! costs about the same however many windows it is in.
//!
//! Source: Flink, `countWindow(size, slide)`; "No pane, no gain" (Li et al., SIGMOD Record 2005); Tangwongsan
//! et al., General incremental sliding-window aggregation (VLDB 2015), flat aggregation trees.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, StructArray, new_null_array};
use arrow_schema::{DataType, Field, Fields};
use model::Batch;
use model::job_graph::{Trigger, Window};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping};

use super::Frame;
use crate::aggregates::{Aggregates, as_structure};
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};
use crate::{AggregateError, Timing};

/// Windows of rows by key, in one subtask.
pub(super) struct OfRows {
    frame: Frame,
    layout: Layout,
    /// Of panes at hand; of nodes and windows.
    panes: Aggregates,
    totals: Aggregates,
    /// By key: how many rows it has had, and the aggregates of the pane that is not full.
    of_keys: Box<dyn Backend>,
    fields: Fields,
    /// By key and node: its aggregates. None where windows do not overlap.
    of_nodes: Option<Box<dyn Backend>>,
    grouping: Grouping,
    /// Rows that are taken piece by piece, and from where.
    rows: Option<(Batch, usize)>,
    piece: Option<Piece>,
}

/// How windows lie over panes, and panes under nodes.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// In rows.
    pane: i64,
    step: i64,
    /// A window, and from one to the next, in panes.
    size: i64,
    slide: i64,
    /// The highest level; panes are of level 0.
    top: u32,
}

/// Some rows, with what they need of nodes.
struct Piece {
    ticket: Option<Ticket>,
    rows: Batch,
    keys: Vec<ArrayRef>,
    of_groups: Vec<KeyId>,
    loaded: ArrayRef,
    /// How many rows each key has had before these and after them.
    before: Vec<i64>,
    after: Vec<i64>,
    /// The pane of each row, counted over all keys; and the first of each key.
    of_rows: Vec<u32>,
    first_panes: Vec<u32>,
    panes: usize,
    /// Windows that become full, in the order of their last rows: the row and the pane that end it.
    full: Vec<(u32, u32, i64)>,
    /// Panes that become full, of each level's nodes those that do; the nodes that windows are made of;
    /// those that no window needs any more.
    made: Vec<(u32, i64)>,
    levels: Vec<Nodes>,
    parts: Nodes,
    gone: Nodes,
    /// A row of each key.
    some_row: Vec<u32>,
}

/// Nodes of keys: to which of what is made of them each belongs; the group of its key; itself.
#[derive(Default)]
struct Nodes {
    into: Vec<u32>,
    groups: Vec<u32>,
    nodes: Vec<i64>,
    /// What is made of them, as a group and a node.
    made: Vec<(u32, i64)>,
}

/// How many neighbours make a node of the next level.
const FAN: i64 = 8;
/// Nodes that are looked at, or rows that are taken, in one call, about.
const STEP: i64 = 4 * 1024;

impl Layout {
    fn new(size: u64, step: u64) -> Self {
        let row_count = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
        let (size, step) = (row_count(size), row_count(step));
        let pane = greatest_common_divisor(size, step);
        let (size, slide) = (size / pane, step / pane);
        let mut top = 0;
        while FAN.checked_pow(top + 1).is_some_and(|panes| panes <= size) {
            top += 1;
        }
        Self { pane, step, size, slide, top }
    }

    /// The first pane that a window needs which is not full yet when its key has had so many rows.
    fn floor(&self, rows: i64) -> i64 {
        ((rows / self.step + 1) * self.slide - self.size).max(0)
    }

    /// How many rows are taken at once, so that not too many nodes are looked at.
    fn piece_rows(&self) -> usize {
        let nodes = self.size.min(2 * FAN * (i64::from(self.top) + 1));
        // A few thousand.
        (STEP * self.step.min(STEP) / nodes).clamp(16, STEP) as usize
    }

    fn width(level: u32) -> i64 {
        FAN.pow(level)
    }

    /// The nodes that panes `[from, to)` are made of, in their order.
    fn parts(&self, from: i64, to: i64, mut part: impl FnMut(i64)) {
        let mut at = from;
        while at < to {
            let is_fit = |level: &u32| at % Self::width(*level) == 0 && at + Self::width(*level) <= to;
            let level = (0..=self.top).rev().find(is_fit).unwrap_or(0);
            part(node(level, at / Self::width(level)));
            at += Self::width(level);
        }
    }
}

/// A node's number: its level, and its place there.
fn node(level: u32, place: i64) -> i64 {
    (i64::from(level) << 56) | place
}

fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl OfRows {
    pub(super) fn new(
        (size, step): (u64, u64),
        window: &Window,
        setting: Setting<'_>,
    ) -> Result<Self, AggregateError> {
        super::check_aggregates(window, &setting.inputs[0])?;
        let frame = Frame::new(window, &setting);
        let panes = Aggregates::new(&window.aggregates, &setting.inputs[0])?;
        let totals = Aggregates::new(&window.aggregates, &setting.inputs[0])?;
        let mut fields = vec![Field::new("rows", DataType::Int64, true)];
        fields.extend(panes.state_fields().iter().map(|field| field.as_ref().clone()));
        let fields = Fields::from(fields);
        let layout = Layout::new(size, step);
        let of_nodes = if layout.size > 1 {
            let types: Vec<DataType> = frame.key_types.iter().cloned().chain([DataType::Int64]).collect();
            Some((setting.backend)(&types, &[value_state("panes", panes.state_type())])?)
        } else {
            None
        };
        let of_keys =
            (setting.backend)(&frame.key_types, &[value_state("rows", DataType::Struct(fields.clone()))])?;
        Ok(Self {
            frame,
            layout,
            panes,
            totals,
            of_keys,
            fields,
            of_nodes,
            grouping: Grouping::default(),
            rows: None,
            piece: None,
        })
    }

    /// What the next rows do. Nothing is changed yet.
    fn plan(&mut self, rows: Batch, now: i64) -> Result<Piece, AggregateError> {
        let layout = self.layout;
        let keys = self.frame.key_columns(&rows);
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.of_keys.ids(&keys, rows.num_rows(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.of_keys.load(0, &of_groups, now)?;
        let counts = as_structure(&loaded).column(0).as_primitive::<Int64Type>();
        let before: Vec<i64> =
            (0..of_groups.len()).map(|at| if loaded.is_valid(at) { counts.value(at) } else { 0 }).collect();
        let mut after = before.clone();
        let mut some_row = vec![0; of_groups.len()];
        for (row, group) in (0u32..).zip(&groups) {
            after[*group as usize] += 1;
            some_row[*group as usize] = row;
        }
        // The panes of a key lie side by side.
        let (mut first_panes, mut panes) = (Vec::with_capacity(of_groups.len()), 0u32);
        for (before, after) in before.iter().zip(&after) {
            first_panes.push(panes);
            // Not more than rows.
            panes += ((after - 1) / layout.pane - before / layout.pane + 1) as u32;
        }
        let (mut of_rows, mut full) = (Vec::with_capacity(groups.len()), Vec::new());
        let mut counts = before.clone();
        for (row, group) in (0u32..).zip(&groups) {
            let at = *group as usize;
            let pane = counts[at] / layout.pane;
            of_rows.push(first_panes[at] + (pane - before[at] / layout.pane) as u32);
            counts[at] += 1;
            if counts[at] % layout.step == 0 {
                full.push((row, *group, pane + 1));
            }
        }
        let mut piece = Piece {
            ticket: None,
            rows,
            keys,
            of_groups,
            loaded,
            before,
            after,
            of_rows,
            first_panes,
            panes: panes as usize,
            full,
            made: Vec::new(),
            levels: Vec::new(),
            parts: Nodes::default(),
            gone: Nodes::default(),
            some_row,
        };
        if self.of_nodes.is_some() {
            self.plan_nodes(&mut piece)?;
        }
        Ok(piece)
    }

    /// Which nodes are made of which, and asks for them.
    fn plan_nodes(&mut self, piece: &mut Piece) -> Result<(), AggregateError> {
        let layout = self.layout;
        piece.levels = (0..layout.top).map(|_| Nodes::default()).collect();
        for group in 0..piece.of_groups.len() as u32 {
            let (before, after) = (piece.before[group as usize], piece.after[group as usize]);
            let (from, to) = (before / layout.pane, after / layout.pane);
            let (floor, next_floor) = (layout.floor(before), layout.floor(after));
            piece.made.extend((from..to).map(|pane| (group, node(0, pane))));
            for level in 1..=layout.top {
                let width = Layout::width(level);
                let first = (from / width).max((floor + width - 1) / width);
                let nodes = &mut piece.levels[level as usize - 1];
                for place in first..to / width {
                    for child in place * FAN..(place + 1) * FAN {
                        // Not more than rows.
                        nodes.push(nodes.made.len() as u32, group, node(level - 1, child));
                    }
                    nodes.made.push((group, node(level, place)));
                }
            }
            for level in 0..=layout.top {
                let width = Layout::width(level);
                let gone = (floor + width - 1) / width..((next_floor + width - 1) / width).min(to / width);
                for place in gone {
                    piece.gone.push(0, group, node(level, place));
                }
            }
        }
        for (at, (_, group, end)) in (0u32..).zip(&piece.full) {
            let parts = &mut piece.parts;
            layout.parts((end - layout.size).max(0), *end, |node| parts.push(at, *group, node));
        }
        let Some(of_nodes) = &mut self.of_nodes else { return Ok(()) };
        let mut all = Nodes::default();
        for nodes in piece.levels.iter().chain([&piece.parts, &piece.gone]) {
            all.groups.extend(&nodes.groups);
            all.nodes.extend(&nodes.nodes);
        }
        for (group, node) in piece.levels.iter().flat_map(|nodes| &nodes.made).chain(&piece.made) {
            all.push(0, *group, *node);
        }
        piece.ticket = Some(of_nodes.prefetch(&piece.columns(&all.groups, &all.nodes)?, all.nodes.len())?);
        Ok(())
    }

    /// Takes the rows of a piece, whose nodes are near.
    fn take(&mut self, piece: &Piece, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let layout = self.layout;
        self.panes.clear(piece.panes);
        // What a pane that was full has left does not count.
        let is_open: Vec<bool> = piece.before.iter().map(|rows| rows % layout.pane != 0).collect();
        let open = self.panes.part(as_structure(&piece.loaded), Some(is_open.into()))?;
        self.panes.merge(&piece.first_panes, &open)?;
        self.panes.absorb(&piece.of_rows, &piece.rows)?;
        let results = if self.of_nodes.is_some() {
            self.put_together(piece, now)?
        } else {
            // A window is one pane.
            let of_full: Vec<u32> = piece.full.iter().map(|(row, ..)| piece.of_rows[*row as usize]).collect();
            let results = self.panes.finals()?;
            results.iter().map(|column| model::gather(column, &of_full)).collect::<Result<_, _>>()?
        };
        self.store(piece, now)?;
        if piece.full.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = piece.full.iter().map(|(row, ..)| *row).collect();
        let keys = piece.keys.iter().map(|key| model::gather(key, &rows)).collect::<Result<_, _>>()?;
        let times = piece.rows.event_times();
        let times = times.map(|times| rows.iter().map(|row| times[*row as usize]).collect());
        emit(0, self.frame.results_without_ends(keys, results, times)?);
        Ok(())
    }

    /// Keeps panes that are full and the nodes over them; the results of windows that are.
    fn put_together(&mut self, piece: &Piece, now: i64) -> Result<Vec<ArrayRef>, AggregateError> {
        let Some(of_nodes) = &mut self.of_nodes else { return Ok(Vec::new()) };
        let mut of_made = Vec::with_capacity(piece.made.len());
        for (group, pane) in &piece.made {
            let first = piece.before[*group as usize] / self.layout.pane;
            of_made.push(piece.first_panes[*group as usize] + (pane - first) as u32);
        }
        let mut made = &piece.made;
        let mut states = model::gather(&self.panes.state()?, &of_made)?;
        for nodes in piece.levels.iter().map(Some).chain([None]) {
            if !made.is_empty() {
                let (groups, numbers): (Vec<u32>, Vec<i64>) = made.iter().copied().unzip();
                let mut ids = Vec::new();
                of_nodes.ids(&piece.columns(&groups, &numbers)?, numbers.len(), &mut ids)?;
                store_all(&mut **of_nodes, 0, &ids, &states, now)?;
            }
            let Some(nodes) = nodes else { break };
            made = &nodes.made;
            if !made.is_empty() {
                self.totals.clear(made.len());
                merge(&mut self.totals, nodes, piece, &mut **of_nodes, now)?;
                states = self.totals.state()?;
            }
        }
        self.totals.clear(piece.full.len());
        merge(&mut self.totals, &piece.parts, piece, &mut **of_nodes, now)?;
        if !piece.gone.nodes.is_empty() {
            let mut ids = Vec::new();
            let columns = piece.columns(&piece.gone.groups, &piece.gone.nodes)?;
            of_nodes.ids(&columns, piece.gone.nodes.len(), &mut ids)?;
            let nothing = new_null_array(&self.totals.state_type(), ids.len());
            store_all(&mut **of_nodes, 0, &ids, &nothing, now)?;
            of_nodes.forget_empty(&ids);
        }
        self.totals.finals()
    }

    /// Keeps how many rows keys have had, and their panes that are not full.
    fn store(&mut self, piece: &Piece, now: i64) -> Result<(), AggregateError> {
        let layout = self.layout;
        let last: Vec<u32> = piece.some_row.iter().map(|row| piece.of_rows[*row as usize]).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(piece.after.clone()))];
        for column in self.panes.state_columns()? {
            columns.push(model::gather(&column, &last)?);
        }
        // Of windows that do not overlap nothing is left when one is full.
        let is_left: Vec<bool> =
            piece.after.iter().map(|rows| self.of_nodes.is_some() || rows % layout.pane != 0).collect();
        let is_whole = !is_left.contains(&false);
        let nulls = (!is_whole).then(|| is_left.into());
        let values: ArrayRef = Arc::new(StructArray::try_new(self.fields.clone(), columns, nulls)?);
        store_all(&mut *self.of_keys, 0, &piece.of_groups, &values, now)?;
        if !is_whole {
            self.of_keys.forget_empty(&piece.of_groups);
        }
        Ok(())
    }

    /// Takes the next rows.
    fn go_on(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.piece.is_none() {
            let Some((rows, from)) = self.rows.take() else { return Ok(Fired::Done) };
            let length = self.layout.piece_rows().min(rows.num_rows() - from);
            let piece = self.plan(rows.slice(from, length), now.processing_time)?;
            self.piece = Some(piece);
            if from + length < rows.num_rows() {
                self.rows = Some((rows, from + length));
            }
        }
        if let (Some(Piece { ticket: Some(ticket), .. }), Some(of_nodes)) = (&self.piece, &mut self.of_nodes)
            && !of_nodes.is_ready(*ticket)
        {
            return Ok(Fired::Waiting);
        }
        if let Some(piece) = self.piece.take() {
            self.take(&piece, now.processing_time, emit)?;
        }
        Ok(if self.rows.is_some() { Fired::More } else { Fired::Done })
    }
}

/// Adds nodes to what is made of them.
fn merge(
    totals: &mut Aggregates,
    nodes: &Nodes,
    piece: &Piece,
    backend: &mut dyn Backend,
    now: i64,
) -> Result<(), AggregateError> {
    if nodes.nodes.is_empty() {
        return Ok(());
    }
    let mut ids = Vec::new();
    backend.ids(&piece.columns(&nodes.groups, &nodes.nodes)?, nodes.nodes.len(), &mut ids)?;
    let states = backend.load(0, &ids, now)?;
    totals.merge(&nodes.into, as_structure(&states))
}

impl Piece {
    /// The keys of nodes.
    fn columns(&self, groups: &[u32], nodes: &[i64]) -> Result<Vec<ArrayRef>, AggregateError> {
        let rows: Vec<u32> = groups.iter().map(|group| self.some_row[*group as usize]).collect();
        let mut columns: Vec<ArrayRef> =
            self.keys.iter().map(|key| model::gather(key, &rows)).collect::<Result<_, _>>()?;
        columns.push(Arc::new(Int64Array::from(nodes.to_vec())));
        Ok(columns)
    }
}

impl Nodes {
    fn push(&mut self, into: u32, group: u32, node: i64) {
        self.into.push(into);
        self.groups.push(group);
        self.nodes.push(node);
    }
}

impl KeyedOperator for OfRows {
    fn prefetch(&mut self, _input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        Ok(self.of_keys.prefetch(&self.frame.key_columns(rows), rows.num_rows())?)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.of_keys.is_ready(ticket)
    }

    fn process(
        &mut self,
        _input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        if rows.num_rows() > 0 {
            self.rows = Some((rows.clone(), 0));
        }
        self.go_on(now, emit)
    }

    fn resume(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.go_on(now, emit)
    }

    fn fire(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }

    fn change(&mut self, timing: &Timing, _now: Now) -> bool {
        // No row is late for them, and they are emitted when they are full.
        timing.trigger == Trigger::AtEnd
    }
}
