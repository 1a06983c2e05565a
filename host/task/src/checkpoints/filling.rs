//! Filling the backends of a job's subtasks with what a checkpoint has of their state, several at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_schema::SchemaRef;
use checkpoint::manifest::Table;
use model::Diagnostic;
use model::job_graph::Aggregate;
use platform::spawn_thread;
use state::backend::StateTable;
use state::{Backend, SharedBackend};
use window::AggregateError;
use window::running_aggregate::as_one_value;

use super::cut::Chain;
use super::kept::Kept;
use super::restored::{Restored, Share};

/// A stage of a subtask whose backends are to be filled, before its first step.
pub(crate) struct Filling {
    pub(crate) share: Share,
    pub(crate) backends: Vec<SharedBackend>,
    /// What each of them keeps; a running aggregate's one is told by that.
    pub(crate) kept: Vec<Kept>,
    /// Of a running aggregate: what it takes over which columns.
    pub(crate) aggregate: Option<(Vec<Aggregate>, SchemaRef)>,
    /// What the tables are called, of all its backends.
    pub(crate) tables: Vec<Table>,
}

impl Filling {
    /// Fills the backends. What the stage's next snapshot may build upon.
    fn fill(&mut self, restored: &Restored) -> Result<Chain, Diagnostic> {
        let Self { share, backends, kept, aggregate, tables } = self;
        let is_as_it_was = match aggregate {
            Some((list, input)) => {
                restored.fill_aggregate(share, &mut |chunk| {
                    let is_gone = chunk.table == StateTable::Gone;
                    let chunk = if is_gone { chunk } else { as_one_value(chunk, list, input)? };
                    backends
                        .iter_mut()
                        .try_for_each(|backend| Ok::<_, AggregateError>(backend.import(&chunk)?))
                })?;
                true
            }
            None => restored.fill_all(share, backends, kept)?,
        };
        let chain = restored.chain(share, tables).filter(|_| is_as_it_was);
        let can_be = chain.is_some() && backends.iter_mut().all(Backend::build_upon);
        Ok(chain.filter(|_| can_be).unwrap_or_default())
    }
}

/// Fills all, in so many threads; what each may build upon, in their order.
///
/// # Errors
/// If state cannot be restored.
pub(crate) fn fill_all(
    restored: &Arc<Restored>,
    mut fillings: Vec<Filling>,
    threads: usize,
) -> Result<Vec<Chain>, Diagnostic> {
    let threads = threads.min(fillings.len());
    if threads < 2 {
        return fillings.iter_mut().map(|filling| filling.fill(restored)).collect();
    }
    let waiting: VecDeque<(usize, Filling)> = fillings.into_iter().enumerate().collect();
    let waiting = Arc::new(Mutex::new(waiting));
    let work = |number: usize| {
        let (restored, waiting) = (Arc::clone(restored), Arc::clone(&waiting));
        spawn_thread(format!("restore-{number}"), move || {
            let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let mut filled = Vec::new();
            while let Some((at, mut filling)) = next() {
                filled.push((at, filling.fill(&restored)));
            }
            filled
        })
    };
    let threads: Vec<_> = (0..threads).map(work).collect();
    let mut filled = Vec::new();
    for thread in threads {
        let panicked = |_| Diagnostic::internal("Millstream has a bug: restoring state panicked");
        filled.extend(thread.join().map_err(panicked)?);
    }
    filled.sort_by_key(|(at, _)| *at);
    filled.into_iter().map(|(_, chain)| chain).collect()
}
