//! Nowhere: rows are counted, and summed up so that two runs can be compared.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::batch::RowKind;
use model::job_graph::Connection;
use model::key::{can_be_key, hash_keys};
use model::{Batch, Diagnostic};

use crate::options::Options;
use crate::{Context, Need, Sink, SinkFactory};

/// What has gone in, over all subtasks.
pub struct BlackholeFactory {
    totals: Arc<Totals>,
}

#[derive(Default)]
struct Totals {
    rows: AtomicU64,
    /// The wrapping sum of the rows' hashes: the same for the same rows in any order. What a changelog
    /// takes back is subtracted, so that the sum is that of the table which the changes lead to.
    checksum: AtomicU64,
}

impl BlackholeFactory {
    pub(super) fn of(connection: &Connection) -> Result<Self, Diagnostic> {
        Options::new("blackhole", &connection.options, &[])?;
        // A format is taken and has no effect: so any output can be exchanged for this one.
        Ok(Self { totals: Arc::default() })
    }
}

impl SinkFactory for BlackholeFactory {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    fn can_hold_back(&self) -> bool {
        true
    }
    fn open(&self, _: Context) -> Result<Box<dyn Sink>, Diagnostic> {
        Ok(Box::new(Blackhole { totals: Arc::clone(&self.totals), hashes: Vec::new() }))
    }
    fn summary(&self) -> Vec<String> {
        let (rows, sum) =
            (self.totals.rows.load(Ordering::Relaxed), self.totals.checksum.load(Ordering::Relaxed));
        vec![format!("blackhole: {rows} rows, checksum {sum:016x}")]
    }
}

struct Blackhole {
    totals: Arc<Totals>,
    hashes: Vec<u64>,
}

impl Sink for Blackhole {
    fn write(&mut self, batch: &Batch) -> Result<(), Diagnostic> {
        // Columns of sequences are left out: no hash is defined for them.
        let columns: Vec<_> =
            batch.rows().columns().iter().filter(|column| can_be_key(column.data_type())).collect();
        hash_keys(&columns, batch.num_rows(), &mut self.hashes);
        let mut sum = self.hashes.iter().fold(0u64, |sum, hash| sum.wrapping_add(*hash));
        for (hash, kind) in self.hashes.iter().zip(batch.kinds().into_iter().flatten()) {
            if [RowKind::UpdateBefore as u8, RowKind::Delete as u8].contains(kind) {
                sum = sum.wrapping_sub(hash.wrapping_mul(2));
            }
        }
        self.totals.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        self.totals.checksum.fetch_add(sum, Ordering::Relaxed);
        Ok(())
    }
}
