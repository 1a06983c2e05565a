//! Which split a subtask reads next: the next of those that all share, or of its own.

use std::sync::Arc;
use std::time::Duration;

use model::Diagnostic;
use platform::Platform;

use super::progress::Progress;
use super::watched::Watched;
use crate::{Splits, SplitsOf};

/// Splits that the subtasks share, and who reads which.
pub(super) struct Shared<S> {
    pub(super) ranges: Arc<[S]>,
    pub(super) splits: Arc<Splits>,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self { ranges: Arc::clone(&self.ranges), splits: Arc::clone(&self.splits) }
    }
}

/// Where a subtask takes its splits.
pub(super) enum Queue<S> {
    /// From those that all share; and its number.
    Shared(Shared<S>, u32),
    /// From the files that it finds.
    Watched(Box<Watched<S>>),
}

/// What a subtask reads next.
pub(super) enum Next<S> {
    Split(S),
    /// Nothing now.
    Later,
    /// Nothing ever again.
    None,
}

impl<S: Clone + Send + 'static> Queue<S> {
    /// Looks for new files, if it is time.
    pub(super) fn look(&mut self, platform: &Platform) -> Result<(), Diagnostic> {
        match self {
            Self::Shared(..) => Ok(()),
            Self::Watched(watched) => watched.look(platform),
        }
    }

    /// The next split; the one before has been read to its end.
    pub(super) fn take(&mut self, progress: &mut Progress) -> Next<S> {
        match self {
            Self::Shared(shared, subtask) => match shared.splits.take(*subtask) {
                Some(split) => Next::Split(shared.ranges[split].clone()),
                None => Next::None,
            },
            Self::Watched(watched) => watched.take(progress).map_or(Next::Later, Next::Split),
        }
    }

    pub(super) fn splits(&self) -> SplitsOf {
        match self {
            Self::Shared(shared, _) => SplitsOf::All(Arc::clone(&shared.splits)),
            Self::Watched(watched) => SplitsOf::Found(watched.splits()),
        }
    }

    /// When new files are to be looked for.
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        match self {
            Self::Shared(..) => None,
            Self::Watched(watched) => watched.wakes_at(),
        }
    }
}
