//! A chain of guest functions in its subtask: cuts rows into calls, keeps their state, finds the
//! row that traps.
//!
//! A call has no effect until it has returned. So after a trap the call is repeated once in a new
//! instance; if it traps again it is halved, until the row is found, which then fails by policy.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow_array::{Array, ArrayRef, StringArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, SchemaRef};
use guest::{Call, Chain, GuestError, Moment, Outcome, RowFailure};
use model::job_graph::{FailurePolicy, NodeId};
use model::{Batch, Diagnostic};
use platform::Clock;
use state::{KeyIndex, ValueTable};

use super::{Input, Place, Ran};
use crate::metrics::{Counters, add};

/// What a guest call should take.
const CALL_TIME: Duration = Duration::from_millis(1);
/// Rows of the first call, before anything has been measured.
const FIRST_ROWS: usize = 128;

pub(crate) struct FunctionOperator {
    pub(crate) chain: Chain,
    pub(crate) clock: Clock,
    pub(crate) place: Place,
    /// For each node of the chain: its name and what becomes of its failed rows.
    pub(crate) nodes: Vec<(NodeId, String, FailurePolicy)>,
    /// For each place in `open`'s outputs: the node and its port.
    pub(crate) outputs: Vec<(NodeId, u32)>,
    /// Where diverted rows go, by the head's last port.
    pub(crate) failures: Option<(u32, SchemaRef)>,
    pub(crate) keyed: Option<KeyedState>,
    pub(crate) chaos_instances: bool,
    pub(crate) rows_max: usize,
    pub(crate) work: Work,
}

/// The state of a keyed function's subtask.
pub(crate) struct KeyedState {
    pub(crate) keys: Vec<usize>,
    pub(crate) index: KeyIndex,
    pub(crate) tables: Vec<ValueTable>,
}

/// What is under way.
#[derive(Default)]
pub(crate) struct Work {
    /// Rows to be called, the next last; with how often they have trapped.
    parts: Vec<(Batch, u32)>,
    /// The rows of the call that runs.
    running: Option<(Batch, u32)>,
    /// The groups of the call that runs, as numbers of the key index.
    groups: Vec<u32>,
    /// Rows whose calls have returned.
    rows_done: u64,
    nanoseconds_a_row: Option<f64>,
}

/// Where the rows of an outcome go: the node and port of the chain.
pub(crate) type EmitFrom<'a> = dyn FnMut(NodeId, u32, Batch) -> Result<(), Diagnostic> + 'a;

impl FunctionOperator {
    pub(crate) fn run(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<Ran, Diagnostic> {
        if self.work.running.is_none() {
            if self.work.parts.is_empty() {
                match input.rows.pop_front() {
                    Some(rows) => self.work.parts.push((rows, 0)),
                    None => return Ok(if input.ended { Ran::Ended } else { Ran::Idle }),
                }
            }
            self.start()?;
        }
        match self.chain.poll() {
            Poll::Pending => Ok(Ran::Yield),
            Poll::Ready(Ok(outcome)) => {
                self.on_return(outcome, counters, emit)?;
                Ok(Ran::Progress)
            }
            Poll::Ready(Err(error)) => {
                self.on_trap(error, counters, emit)?;
                Ok(Ran::Progress)
            }
        }
    }

    /// Whether rows are still in work.
    pub(crate) fn is_busy(&self) -> bool {
        self.work.running.is_some() || !self.work.parts.is_empty()
    }

    /// Calls the guest with the next rows: as many as take about a millisecond.
    fn start(&mut self) -> Result<(), Diagnostic> {
        let Some((mut rows, traps)) = self.work.parts.pop() else { return Ok(()) };
        let fit = match self.work.nanoseconds_a_row {
            None => FIRST_ROWS,
            Some(each) => (CALL_TIME.as_nanos() as f64 / each.max(1.0)) as usize,
        };
        let fit = fit.clamp(1, self.rows_max);
        // A rest of a few rows rides with the call.
        if rows.num_rows() > fit + fit / 4 {
            self.work.parts.push((rows.slice(fit, rows.num_rows() - fit), traps));
            rows = rows.slice(0, fit);
        }
        // No operator has event time yet: the watermark is "none".
        let now = Moment { watermark: i64::MIN, processing_time: self.clock.wall_ms() };
        let call = match &mut self.keyed {
            None => Call::Process { now, input: 0, rows: rows.clone() },
            Some(keyed) => keyed
                .call(now, &rows, &mut self.work.groups)
                .map_err(|error| Diagnostic::internal(error.to_string()).detail(self.place.text()))?,
        };
        self.chain.start(call);
        self.work.running = Some((rows, traps));
        Ok(())
    }

    fn on_return(
        &mut self,
        outcome: Outcome,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<(), Diagnostic> {
        let Some((rows, _)) = self.work.running.take() else { return Ok(()) };
        let cpu = self.chain.cpu().as_nanos() as f64;
        let each = cpu / rows.num_rows().max(1) as f64;
        self.work.nanoseconds_a_row = Some(match self.work.nanoseconds_a_row {
            None => each,
            Some(before) => before * 0.75 + each * 0.25,
        });
        add(&counters.calls, 1);
        add(&counters.guest_nanoseconds, cpu as usize);
        if !outcome.failures.is_empty() {
            self.on_failures(&rows, &outcome.failures, counters, emit)?;
        }
        if let Some(keyed) = &mut self.keyed {
            keyed
                .apply(&outcome, &self.work.groups)
                .map_err(|error| Diagnostic::internal(error.to_string()).detail(self.place.text()))?;
        }
        self.work.rows_done += rows.num_rows() as u64;
        for (output, rows) in outcome.outputs {
            add(&counters.rows_out, rows.num_rows());
            let (node, port) = self.outputs[output as usize];
            emit(node, port, rows)?;
        }
        if self.chaos_instances {
            self.chain.reset();
        }
        Ok(())
    }

    fn on_trap(
        &mut self,
        error: GuestError,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<(), Diagnostic> {
        let Some((rows, traps)) = self.work.running.take() else { return Ok(()) };
        add(&counters.traps, 1);
        if !error.is_of_a_row() {
            return Err(self.trapped(&error, None));
        }
        match (traps, rows.num_rows()) {
            (0, _) => self.work.parts.push((rows, 1)),
            (_, 2..) => {
                let half = rows.num_rows() / 2;
                self.work.parts.push((rows.slice(half, rows.num_rows() - half), 1));
                self.work.parts.push((rows.slice(0, half), 1));
            }
            _ => {
                let (head, _, policy) = self.nodes[0].clone();
                if policy == FailurePolicy::Fail {
                    return Err(self.trapped(&error, Some(&rows)));
                }
                let message = error.to_string();
                self.on_failures(&rows, &[RowFailure { node: head, row: 0, message }], counters, emit)?;
                self.work.rows_done += 1;
            }
        }
        Ok(())
    }

    fn on_failures(
        &self,
        rows: &Batch,
        failures: &[RowFailure],
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<(), Diagnostic> {
        let mut diverted: Vec<&RowFailure> = Vec::new();
        for failure in failures {
            let known = self.nodes.iter().find(|(node, _, _)| *node == failure.node);
            let (_, name, policy) = known.unwrap_or(&self.nodes[0]);
            match policy {
                FailurePolicy::Skip => add(&counters.rows_skipped, 1),
                FailurePolicy::Divert => diverted.push(failure),
                FailurePolicy::Fail => {
                    let mut lines = failure.message.splitn(2, '\n');
                    let message = lines.next().unwrap_or_default();
                    let more = lines.next().map(|more| format!("\n{more}")).unwrap_or_default();
                    return Err(Diagnostic::user(format!("function `{name}` failed: {message}"))
                        .detail(format!(
                            "{}, row {}: {}{more}",
                            self.place.text(),
                            self.work.rows_done + u64::from(failure.row) + 1,
                            row_text(rows, failure.row as usize)
                        ))
                        .hint("to go on without such rows, give the function a failure policy: skip, or a side output"));
                }
            }
        }
        let (false, Some((port, schema))) = (diverted.is_empty(), &self.failures) else { return Ok(()) };
        add(&counters.rows_diverted, diverted.len());
        let places: Vec<u32> = diverted.iter().map(|f| f.row).collect();
        let dead_letters = rows
            .take(&places)
            .and_then(|taken| {
                let messages: ArrayRef =
                    Arc::new(diverted.iter().map(|f| Some(f.message.as_str())).collect::<StringArray>());
                let mut columns = taken.rows().columns().to_vec();
                columns.push(messages);
                Ok(Batch::of(Arc::clone(schema), diverted.len(), columns)?
                    .with_event_times(taken.event_times().cloned())
                    .with_kinds(taken.kinds().cloned()))
            })
            .map_err(|error| Diagnostic::internal(error.to_string()))?;
        emit(self.nodes[0].0, *port, dead_letters)
    }

    /// A trap as the user reads it: function, subtask, row, and what the guest said.
    fn trapped(&self, error: &GuestError, row: Option<&Batch>) -> Diagnostic {
        let of_guest = error.diagnostic();
        let names: Vec<&str> = self.nodes.iter().map(|(_, name, _)| name.as_str()).collect();
        let mut detail = self.place.text();
        if let Some(row) = row {
            detail.push_str(&format!(", row {}: {}", self.work.rows_done + 1, row_text(row, 0)));
        }
        if let Some(more) = of_guest.detail {
            detail.push('\n');
            detail.push_str(&more);
        }
        let diagnostic = Diagnostic {
            message: format!("function `{}` {}", names.join(" -> "), of_guest.message),
            detail: Some(detail),
            ..of_guest
        };
        match diagnostic.hint {
            Some(_) => diagnostic,
            None => diagnostic.hint("`streamctl test` runs this function natively, under your debugger"),
        }
    }
}

impl KeyedState {
    /// Groups the rows by key, in order of first occurrence, and loads the groups' state.
    fn call(&mut self, now: Moment, rows: &Batch, groups: &mut Vec<u32>) -> Result<Call, ArrowError> {
        let columns: Vec<ArrayRef> = self.keys.iter().map(|k| Arc::clone(rows.column(*k))).collect();
        let mut ids = Vec::new();
        self.index.ids(&columns, rows.num_rows(), &mut ids)?;
        // The number of each id in this call; kept small by sorting instead of a map.
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let mut number = vec![u32::MAX; distinct.len()];
        groups.clear();
        let of_row = ids
            .iter()
            .map(|id| {
                let at = distinct.binary_search(id).unwrap_or_default();
                if number[at] == u32::MAX {
                    number[at] = u32::try_from(groups.len()).unwrap_or(u32::MAX);
                    groups.push(*id);
                }
                number[at]
            })
            .collect();
        Ok(Call::ProcessKeyed {
            now,
            group_count: u32::try_from(groups.len()).unwrap_or(u32::MAX),
            keys: self.index.keys(groups.iter().copied())?,
            state: self.tables.iter().map(|table| table.load(groups)).collect::<Result<_, _>>()?,
            groups: of_row,
            rows: rows.clone(),
        })
    }

    fn apply(&mut self, outcome: &Outcome, groups: &[u32]) -> Result<(), ArrowError> {
        for update in &outcome.updates {
            let written = (0..groups.len())
                .filter(|g| update.written.as_ref().is_none_or(|written| written.value(*g)))
                .map(|g| (g, groups[g]));
            self.tables[update.state as usize].store(written, &update.columns[0])?;
        }
        Ok(())
    }
}

/// A row as people read it, cut.
fn row_text(rows: &Batch, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    let values: Vec<String> = rows
        .rows()
        .columns()
        .iter()
        .map(|column| match ArrayFormatter::try_new(column.as_ref(), &options) {
            Ok(formatter) if row < column.len() => formatter.value(row).to_string(),
            _ => "?".to_owned(),
        })
        .collect();
    let text = format!("({})", values.join(","));
    let cut: String = text.chars().take(300).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    if cut.len() < text.len() { format!("{cut} …") } else { cut }
}
