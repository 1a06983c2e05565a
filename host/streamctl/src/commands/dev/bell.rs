//! What `dev` waits for: others ring, and leave word why.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Diagnostic;

/// What has happened since it was asked last.
#[derive(Default)]
pub(super) struct News {
    /// It is to end.
    pub(super) stop: bool,
    /// A source may have changed.
    pub(super) touched: bool,
    /// Cargo has ended: its messages.
    pub(super) built: Option<String>,
    /// The job's state is another.
    pub(super) job: bool,
    /// What came of the change that was asked for: where the new version began.
    pub(super) changed: Option<Result<String, Diagnostic>>,
}

impl News {
    fn is_none(&self) -> bool {
        !(self.stop || self.touched || self.job) && self.built.is_none() && self.changed.is_none()
    }
}

/// Wakes who waits.
#[derive(Default)]
pub(super) struct Bell {
    news: Mutex<News>,
    rung: Condvar,
}

impl Bell {
    /// Leaves word, and wakes.
    pub(super) fn ring(&self, tell: impl FnOnce(&mut News)) {
        tell(&mut self.lock());
        self.rung.notify_all();
    }

    /// Waits for news, for so long at most.
    pub(super) fn wait(&self, time: Duration) -> News {
        let news = self.lock();
        let waited = self.rung.wait_timeout_while(news, time, |news| news.is_none());
        let (mut news, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *news)
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
