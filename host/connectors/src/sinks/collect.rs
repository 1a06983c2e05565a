//! Kept in memory by name: for tests inside one process.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::job_graph::Connection;
use model::{Batch, Diagnostic};

use crate::options::Options;
use crate::{Context, Need, Sink, SinkFactory};

/// Batches in the order in which they came, each with its subtask.
type Collected = Vec<(u32, Batch)>;

static COLLECTED: Mutex<BTreeMap<String, Collected>> = Mutex::new(BTreeMap::new());

fn all() -> MutexGuard<'static, BTreeMap<String, Collected>> {
    COLLECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what sinks of this name have collected in this process.
#[must_use]
pub fn collected(name: &str) -> Collected {
    all().remove(name).unwrap_or_default()
}

/// The name under which rows are kept.
pub struct CollectFactory {
    name: String,
}

impl CollectFactory {
    pub(super) fn of(connection: &Connection) -> Result<Self, Diagnostic> {
        let options = Options::new("collect", &connection.options, &["name"])?;
        Ok(Self { name: options.required("name")?.to_owned() })
    }
}

impl SinkFactory for CollectFactory {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    fn open(&self, context: Context) -> Result<Box<dyn Sink>, Diagnostic> {
        Ok(Box::new(Collect { name: self.name.clone(), subtask: context.subtask }))
    }
}

struct Collect {
    name: String,
    subtask: u32,
}

impl Sink for Collect {
    fn write(&mut self, batch: &Batch) -> Result<(), Diagnostic> {
        all().entry(self.name.clone()).or_default().push((self.subtask, batch.clone()));
        Ok(())
    }
}
