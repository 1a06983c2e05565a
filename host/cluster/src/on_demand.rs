//! Checkpoints of a running job that somebody asks for.

use checkpoint::coordinator::CheckpointId;
use model::Diagnostic;

use crate::JobMaster;
use crate::job_master::{Answered, Once};

impl JobMaster {
    /// Asks for a checkpoint, out of turn; a full one builds upon none before it.
    ///
    /// # Errors
    /// If the job does not run, or makes no checkpoints.
    pub fn checkpoint(&self, full: bool, answered: Answered<CheckpointId>) -> Result<(), Diagnostic> {
        let job = self.running()?;
        let mut answer = Once { answered: Some(answered), not: "the checkpoint has failed", unknown: None };
        let told = move |result: Result<CheckpointId, String>| answer.give(result);
        job.checkpoint(full, Box::new(told))
    }
}
