//! Checkpoints of a running job that somebody asks for.

use checkpoint::coordinator::CheckpointId;
use model::Diagnostic;

use crate::{JobMaster, JobStatus};

/// Hears the number of a checkpoint, which is complete, or why there is none.
pub type CheckpointAnswered = Box<dyn FnOnce(Result<CheckpointId, Diagnostic>) + Send>;

impl JobMaster {
    /// Asks for a checkpoint, out of turn; a full one builds upon none before it.
    ///
    /// # Errors
    /// If the job does not run, or makes no checkpoints.
    pub fn checkpoint(&self, full: bool, answered: CheckpointAnswered) -> Result<(), Diagnostic> {
        let job = match (self.status(), self.job()) {
            (JobStatus::Running, Some(job)) => job,
            (status, _) => {
                return Err(Diagnostic::user(format!("job {} is not running", self.id()))
                    .detail(format!("its state is {}", status.name())));
            }
        };
        let mut answer = Once(Some(answered));
        let told = move |result: Result<CheckpointId, String>| answer.give(result.map_err(failed));
        job.checkpoint(full, Box::new(told))
    }
}

fn failed(why: String) -> Diagnostic {
    Diagnostic::external("the checkpoint has failed").detail(why)
}

/// Answers once; at the latest when it is dropped, as the job has ended before.
struct Once(Option<CheckpointAnswered>);

impl Once {
    fn give(&mut self, result: Result<CheckpointId, Diagnostic>) {
        if let Some(answered) = self.0.take() {
            answered(result);
        }
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.give(Err(failed("the job has ended before it was complete".to_owned())));
    }
}
