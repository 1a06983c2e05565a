//! What a stage of a subtask does with rows: one file each for sources, watermarks, functions,
//! aggregates, other native operators over keys, lookups, sinks.

pub(crate) mod aggregate;
pub(crate) mod function;
mod function_windows;
pub(crate) mod keyed;
pub(crate) mod keyed_state;
pub(crate) mod lookup;
mod merging;
pub(crate) mod native;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod split_times;
pub(crate) mod watermarks;
pub(crate) mod window_keys;
pub(crate) mod windowed;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::StringArray;
use arrow_schema::{ArrowError, SchemaRef};
use model::element::{Barrier, Mark};
use model::{Batch, Diagnostic};
use window::AggregateError;

/// What came of running an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It did something, and may do more at once.
    Progress,
    /// It is in the middle of a long call: let others go on, then come back.
    Yield,
    /// It waits for rows, or to be woken.
    Idle,
    /// It has handled all rows that came before this, which goes to all that it feeds.
    Forward(Mark),
    /// Its code is on probation, and has trapped too often: the old code is to handle what it has not.
    GoesBack,
    /// It is done for good; only after its input has ended.
    Ended,
}

/// Where an operator's rows go: `emit(port, rows)`.
pub(crate) type Emit<'a> = dyn FnMut(u32, Batch) -> Result<(), Diagnostic> + 'a;

/// What waits for an operator inside its subtask.
#[derive(Default)]
pub(crate) struct Input {
    /// What one run of the stage before has given.
    pub(crate) elements: VecDeque<Element>,
    /// It follows `elements`, and nothing comes after it until it has gone on.
    pub(crate) barrier: Option<Barrier>,
    /// Nothing follows `elements`.
    pub(crate) ended: bool,
}

/// What travels between the stages of a subtask.
pub(crate) enum Element {
    /// Rows of an input; inside a subtask there is only the first.
    Rows(u32, Batch),
    Mark(Mark),
}

/// The rows that failed, with why, for the port that takes them: `failures` has each row's place in
/// `rows` and a message, `schema` the columns of `rows` and a text.
pub(crate) fn dead_letters<'a>(
    rows: &Batch,
    failures: impl Iterator<Item = (u32, &'a str)>,
    schema: &SchemaRef,
) -> Result<Batch, Diagnostic> {
    let (places, messages): (Vec<u32>, Vec<&str>) = failures.unzip();
    let letters = rows.take(&places).and_then(|taken| {
        let mut columns = taken.rows().columns().to_vec();
        columns.push(Arc::new(StringArray::from(messages)));
        Ok(Batch::of(Arc::clone(schema), places.len(), columns)?
            .with_event_times(taken.event_times().cloned())
            .with_kinds(taken.kinds().cloned()))
    });
    letters.map_err(|error| Diagnostic::internal(error.to_string()))
}

/// Where a subtask and its operators stand, for messages.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) job: String,
    /// The operator's name.
    pub(crate) operator: String,
    /// Where the user wrote it, as far as the graph says.
    pub(crate) origins: Vec<String>,
    /// From 0.
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
}

impl Place {
    /// ``subtask 2 of 4 of `count` (written at src/lib.rs:17) in job word_count``
    pub(crate) fn text(&self) -> String {
        let origins = match self.origins.is_empty() {
            true => String::new(),
            false => format!(" (written at {})", self.origins.join(", ")),
        };
        format!(
            "subtask {} of {} of `{}`{origins} in job {}",
            self.subtask + 1,
            self.parallelism,
            self.operator,
            self.job
        )
    }
}

/// Why a native operator cannot go on, as the user reads it.
pub(crate) fn native_error(place: &Place, error: &AggregateError) -> Diagnostic {
    let message = error.to_string();
    match error {
        AggregateError::Overflow(_) => Diagnostic::user(message)
            .detail(place.text())
            .hint("sum a decimal or a float column instead"),
        AggregateError::NoTime => Diagnostic::user(message)
            .detail(place.text())
            .hint("give the stream watermarks before it is windowed"),
        AggregateError::Store(state::StoreError::TooLarge { .. }) => Diagnostic::user(message)
            .detail(place.text())
            .hint("what is kept for one key and row is at most 1 MiB: leave out the columns that are not needed"),
        AggregateError::Arrow(error) | AggregateError::Store(state::StoreError::Arrow(error)) => {
            state_error(Some(place), error)
        }
        _ => Diagnostic::internal(message).detail(place.text()),
    }
}

/// Why keyed state cannot be read or written, as the user reads it.
pub(crate) fn state_error(place: Option<&Place>, error: &ArrowError) -> Diagnostic {
    let place = place.map(Place::text);
    match error {
        // It is the store's.
        ArrowError::ExternalError(failure) => Diagnostic::external("state cannot be kept on the disk")
            .detail([Some(failure.to_string()), place].into_iter().flatten().collect::<Vec<_>>().join("\n"))
            .hint(
                "look at the folder that `state.backend.rocksdb.localdir` names: there has to be room in it, and \
                 nobody else may change it",
            ),
        error => match place {
            Some(place) => Diagnostic::internal(error.to_string()).detail(place),
            None => Diagnostic::internal(error.to_string()),
        },
    }
}
