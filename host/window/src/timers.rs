//! Timers that are due, on their way to their operator.

use model::job_graph::TimeDomain;
use state::Backend;
use state::backend::{Rest, Ticket};
use state::key_index::KeyId;

use crate::AggregateError;
use crate::operator::Fired;

/// Takes due timers from a backend, and hands them on when the state of their keys is near.
#[derive(Default)]
pub(crate) struct DueTimers {
    awaited: Option<(Ticket, Vec<(i64, KeyId)>)>,
}

/// What there is of due timers.
pub(crate) enum Due {
    /// Instants in milliseconds since the epoch and keys, none of them twice; the earliest first.
    Timers(Vec<(i64, KeyId)>),
    /// None now: there are no more, some that take longer to reach, or their state is not near yet.
    None(Fired),
}

impl DueTimers {
    /// The next timers that are due by `passed`, about `max` at most.
    ///
    /// # Errors
    /// If their keys cannot be made.
    pub(crate) fn next(
        &mut self,
        backend: &mut dyn Backend,
        domain: TimeDomain,
        passed: i64,
        max: usize,
    ) -> Result<Due, AggregateError> {
        let (ticket, timers) = match self.awaited.take() {
            Some(awaited) => awaited,
            None => {
                match backend.rest()? {
                    Rest::Done => {}
                    Rest::More => return Ok(Due::None(Fired::More)),
                    Rest::Waiting => return Ok(Due::None(Fired::Waiting)),
                }
                let due = backend.take_due(domain, passed, max)?;
                if due.timers.is_empty() {
                    return Ok(Due::None(match due {
                        due if due.is_waiting => Fired::Waiting,
                        due if due.is_partial => Fired::More,
                        _ => Fired::Done,
                    }));
                }
                let ids: Vec<KeyId> = due.timers.iter().map(|(_, id)| *id).collect();
                (backend.prefetch_known(&ids), due.timers)
            }
        };
        if backend.is_ready(ticket) {
            return Ok(Due::Timers(timers));
        }
        self.awaited = Some((ticket, timers));
        Ok(Due::None(Fired::Waiting))
    }
}
