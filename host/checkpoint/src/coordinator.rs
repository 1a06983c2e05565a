//! Decides when a checkpoint begins, when it is complete, and when it is given up. A pure function of
//! events and time: it touches no file, no thread and no clock.
//!
//! One checkpoint is under way at a time. It begins with a command to every subtask: sources put its barrier
//! behind the rows that they have sent, subtasks whose input has ended answer at once, all others wait for the
//! barrier. When each has acknowledged it, with all that it wrote being durable, the manifest is written; when
//! that is durable the checkpoint is complete, and only then subtasks are told, and commit. So a checkpoint is
//! complete or was never there.
//!
//! Source: Flink, `CheckpointCoordinator`; FLIP-147 for ends of input; the protocol is that of Carbone et al.,
//! "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// How often checkpoints are made, and what is done when they fail. Flink: `execution.checkpointing.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From the beginning of one to the beginning of the next; none = only those that are asked for.
    pub interval: Option<Duration>,
    /// One that takes longer is given up.
    pub timeout: Duration,
    /// From the end of one to the beginning of the next, but for savepoints, at least.
    pub min_pause: Duration,
    /// How many may fail one after the other before the job fails; none = any number.
    pub tolerable_failures: Option<u32>,
    /// How many complete ones are kept, at least one.
    pub retained: usize,
}

/// The first of a job that goes on from one begins after this, or after the interval if that is shorter.
const SOON: Duration = Duration::from_millis(100);

/// How long after a failure the last checkpoint of a job is tried again, beyond the pause.
const RETRY: Duration = Duration::from_secs(1);

/// The number of a checkpoint; those of a job rise, over restarts too.
pub type CheckpointId = u64;

/// The number of a subtask in its job.
pub type SubtaskId = u32;

/// What a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To go on from after a failure. Older ones go when it is complete.
    Checkpoint,
    /// The same, and it builds upon none before it: all state is written.
    Full,
    /// The same, and at its barrier the job changes to another version. If it is given up, that has not happened.
    Swap,
    /// Asked for by somebody, whose it is: it stays until it is removed by command.
    Savepoint {
        /// Nothing comes after its barrier.
        stop: Option<Stop>,
    },
    /// All input has ended: commits the last rows. The job is finished when it is complete.
    Final,
}

/// How a job stops with a savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// As it stands: windows and timers wait for the job to go on.
    Suspend,
    /// With the last watermark before the barrier: all windows and timers fire.
    Drain,
}

/// What has happened. `P` is what a subtask says of its part of a checkpoint.
#[derive(Clone, Debug)]
pub enum Event<P> {
    /// Time has gone on.
    Tick,
    /// Somebody asks for a checkpoint, with a number of his own.
    Asked {
        /// Comes back with the answer.
        request: u64,
        /// What for; a final one is not for asking.
        kind: Kind,
    },
    /// A subtask's part is durable.
    Acknowledged {
        /// Of this checkpoint.
        checkpoint: CheckpointId,
        /// The subtask.
        subtask: SubtaskId,
        /// Its part.
        part: P,
    },
    /// A subtask could not make its part.
    Declined {
        /// Of this checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// What a checkpoint that is under way would have is not of one version any more: it is given up, unless it is
    /// being stored. Nobody has failed.
    Disturbed {
        /// Why.
        reason: String,
        /// Who asks for one that comes before all others, and what for.
        first: Option<(u64, Kind)>,
    },
    /// A subtask has handled all its input, and waits for a checkpoint to commit it.
    Ended {
        /// The subtask.
        subtask: SubtaskId,
    },
    /// The manifest is durable.
    Stored {
        /// Of this checkpoint.
        checkpoint: CheckpointId,
    },
    /// The manifest could not be written. It is not there.
    NotStored {
        /// Of this checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// There is one of this number that is not ours: another process runs the job.
    Overtaken {
        /// This checkpoint.
        checkpoint: CheckpointId,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<P> {
    /// Tell every subtask to begin.
    Trigger {
        /// This checkpoint.
        checkpoint: CheckpointId,
        /// What for.
        kind: Kind,
    },
    /// Write the manifest; then say [`Event::Stored`] or [`Event::NotStored`].
    Store {
        /// Of this checkpoint.
        checkpoint: CheckpointId,
        /// What for.
        kind: Kind,
        /// The number of who asked for it.
        request: Option<u64>,
        /// Of every subtask its part.
        parts: BTreeMap<SubtaskId, P>,
    },
    /// Tell every subtask that it is complete: what waited for that is committed.
    Complete {
        /// This checkpoint.
        checkpoint: CheckpointId,
        /// What it was for.
        kind: Kind,
    },
    /// Tell every subtask that it is given up, and remove what was written for it.
    Abort {
        /// This checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// Remove a complete checkpoint: newer ones are kept in its place.
    Remove {
        /// This one.
        checkpoint: CheckpointId,
    },
    /// Answer who asked.
    Answer {
        /// His number.
        request: u64,
        /// The checkpoint, which is complete; or why there is none.
        result: Result<CheckpointId, String>,
    },
    /// The job cannot go on: too many checkpoints have failed.
    Fail {
        /// Why the last has.
        reason: String,
        /// Another process runs the job.
        is_overtaken: bool,
    },
    /// The job is done: all that it gave is committed.
    Finish,
}

/// The coordinator of one attempt of a job.
#[derive(Debug)]
pub struct Coordinator<P> {
    settings: Settings,
    subtasks: BTreeSet<SubtaskId>,
    next: CheckpointId,
    under_way: Option<UnderWay<P>>,
    asked: VecDeque<(u64, Kind)>,
    /// When the next regular one is due.
    due: Option<Duration>,
    /// None but savepoints begin before.
    not_before: Duration,
    /// Those that are complete and kept, the oldest first.
    retained: VecDeque<CheckpointId>,
    /// One that is kept however many come after it.
    held: Option<CheckpointId>,
    /// Failures since the last that was complete.
    failures: u32,
    ended: BTreeSet<SubtaskId>,
    /// The job stops, or has: no more begin.
    is_over: bool,
}

#[derive(Debug)]
struct UnderWay<P> {
    id: CheckpointId,
    kind: Kind,
    /// Who asked for it.
    request: Option<u64>,
    began: Duration,
    parts: BTreeMap<SubtaskId, P>,
    is_storing: bool,
}

impl<P> Coordinator<P> {
    /// For a job of these subtasks, which begins `now`, on any monotonic clock. `first` is a number above those
    /// of all checkpoints that the job has had; `retained` are those of its complete ones that are there, in
    /// their order.
    ///
    /// # Panics
    /// If there are no subtasks.
    #[must_use]
    pub fn new(
        settings: Settings,
        subtasks: impl IntoIterator<Item = SubtaskId>,
        first: CheckpointId,
        retained: impl IntoIterator<Item = CheckpointId>,
        now: Duration,
    ) -> Self {
        let subtasks: BTreeSet<SubtaskId> = subtasks.into_iter().collect();
        assert!(!subtasks.is_empty(), "a job has subtasks");
        Self {
            due: settings.interval.map(|interval| now + interval),
            not_before: now,
            settings,
            subtasks,
            next: first,
            under_way: None,
            asked: VecDeque::new(),
            retained: retained.into_iter().collect(),
            held: None,
            failures: 0,
            ended: BTreeSet::new(),
            is_over: false,
        }
    }

    /// The job, which goes on from a checkpoint, runs from `now` on: the first of its own comes soon, so that little is
    /// done again after one more crash, and what it gives can be seen early.
    pub fn goes_on(&mut self, now: Duration) {
        self.due = self.settings.interval.map(|interval| now + interval.min(SOON));
    }

    /// Keeps a checkpoint, however many come after it; none = no more.
    pub fn hold(&mut self, checkpoint: Option<CheckpointId>) {
        self.held = checkpoint;
    }

    /// The newest that is complete and kept.
    #[must_use]
    pub fn newest(&self) -> Option<CheckpointId> {
        self.retained.back().copied()
    }

    /// Whether the manifest of one is being written: it cannot be given up any more.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.is_storing)
    }

    /// When to say [`Event::Tick`] at the latest.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Duration> {
        match &self.under_way {
            // How long a manifest takes is the store's affair: it answers.
            Some(under_way) if under_way.is_storing => None,
            Some(under_way) => Some(under_way.began + self.settings.timeout),
            None => self.next_at(),
        }
    }

    /// Takes note of what has happened. What is late, or of nobody, changes nothing.
    #[must_use]
    pub fn on(&mut self, event: Event<P>, now: Duration) -> Vec<Action<P>> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Asked { request, .. } if self.is_over => {
                let result = Err("the job has stopped".into());
                actions.push(Action::Answer { request, result });
            }
            Event::Asked { request, kind } => self.asked.push_back((request, kind)),
            Event::Acknowledged { checkpoint, subtask, part } => {
                self.acknowledged(checkpoint, subtask, part, &mut actions);
            }
            Event::Declined { checkpoint, reason } => {
                if self.is_open(checkpoint) {
                    self.abort(reason, now, &mut actions);
                }
            }
            Event::Disturbed { reason, first } => {
                match first {
                    Some((request, _)) if self.is_over => {
                        let result = Err("the job has stopped".into());
                        actions.push(Action::Answer { request, result });
                    }
                    first => first.into_iter().for_each(|first| self.asked.push_front(first)),
                }
                if self.under_way.as_ref().is_some_and(|it| !it.is_storing) {
                    self.give_up(reason, now, &mut actions);
                }
            }
            Event::Ended { subtask } => {
                if self.subtasks.contains(&subtask) {
                    self.ended.insert(subtask);
                }
            }
            Event::Stored { checkpoint } => self.stored(checkpoint, now, &mut actions),
            Event::NotStored { checkpoint, reason } => {
                if self.under_way.as_ref().is_some_and(|it| it.id == checkpoint && it.is_storing) {
                    self.abort(reason, now, &mut actions);
                }
            }
            Event::Overtaken { checkpoint } => self.overtaken(checkpoint, &mut actions),
        }
        if let Some(under_way) = &self.under_way
            && !under_way.is_storing
            && now >= under_way.began + self.settings.timeout
        {
            let waiting = self.subtasks.len() - under_way.parts.len();
            let reason = format!(
                "it took longer than {} ms, and {waiting} of {} subtasks had not answered",
                self.settings.timeout.as_millis(),
                self.subtasks.len()
            );
            self.abort(reason, now, &mut actions);
        }
        self.begin_next(now, &mut actions);
        actions
    }

    /// When the next begins.
    fn next_at(&self) -> Option<Duration> {
        if self.is_over {
            return None;
        }
        match (self.asked.is_empty(), self.has_ended()) {
            (false, _) => Some(Duration::ZERO),
            // Nothing else is to be done: one that fails is tried again.
            (true, true) if self.failures == 0 => Some(Duration::ZERO),
            (true, true) => Some(self.not_before + RETRY),
            (true, false) => self.due.map(|due| due.max(self.not_before)),
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.len() == self.subtasks.len()
    }

    /// Whether acknowledgements of it are waited for.
    fn is_open(&self, checkpoint: CheckpointId) -> bool {
        self.under_way.as_ref().is_some_and(|it| it.id == checkpoint && !it.is_storing)
    }

    fn acknowledged(
        &mut self,
        checkpoint: CheckpointId,
        subtask: SubtaskId,
        part: P,
        actions: &mut Vec<Action<P>>,
    ) {
        if !self.is_open(checkpoint) || !self.subtasks.contains(&subtask) {
            return;
        }
        let Some(under_way) = &mut self.under_way else { return };
        under_way.parts.entry(subtask).or_insert(part);
        if under_way.parts.len() < self.subtasks.len() {
            return;
        }
        under_way.is_storing = true;
        let parts = std::mem::take(&mut under_way.parts);
        let (kind, request) = (under_way.kind, under_way.request);
        actions.push(Action::Store { checkpoint, kind, request, parts });
    }

    fn stored(&mut self, checkpoint: CheckpointId, now: Duration, actions: &mut Vec<Action<P>>) {
        let is_it = |it: &mut UnderWay<P>| it.id == checkpoint && it.is_storing;
        let Some(UnderWay { kind, request, .. }) = self.under_way.take_if(is_it) else { return };
        self.failures = 0;
        self.not_before = now + self.settings.min_pause;
        actions.push(Action::Complete { checkpoint, kind });
        if !matches!(kind, Kind::Savepoint { .. }) {
            self.retained.push_back(checkpoint);
            let is_held = |id: &CheckpointId| self.held == Some(*id);
            let mut left = self.retained.iter().filter(|id| !is_held(id)).count();
            let max = self.settings.retained.max(1);
            self.retained.retain(|id| {
                let goes = left > max && !is_held(id);
                if goes {
                    left -= 1;
                    actions.push(Action::Remove { checkpoint: *id });
                }
                !goes
            });
        }
        actions.extend(request.map(|request| Action::Answer { request, result: Ok(checkpoint) }));
        if matches!(kind, Kind::Final | Kind::Savepoint { stop: Some(_) }) {
            self.is_over = true;
            let waiting = std::mem::take(&mut self.asked);
            actions.extend(
                waiting.into_iter().map(|(request, _)| Action::Answer {
                    request,
                    result: Err("the job has stopped".into()),
                }),
            );
            actions.push(Action::Finish);
        }
    }

    fn abort(&mut self, reason: String, now: Duration, actions: &mut Vec<Action<P>>) {
        let kind = self.give_up(reason.clone(), now, actions);
        // What somebody has asked for and fails is his concern.
        if matches!(kind, None | Some(Kind::Savepoint { .. } | Kind::Swap)) {
            return;
        }
        self.failures += 1;
        if self.settings.tolerable_failures.is_some_and(|max| self.failures > max) {
            self.is_over = true;
            actions.push(Action::Fail { reason, is_overtaken: false });
        }
    }

    /// Gives up what is under way. What that was for.
    fn give_up(&mut self, reason: String, now: Duration, actions: &mut Vec<Action<P>>) -> Option<Kind> {
        let UnderWay { id: checkpoint, kind, request, .. } = self.under_way.take()?;
        actions.push(Action::Abort { checkpoint, reason: reason.clone() });
        self.not_before = now + self.settings.min_pause;
        let answer = |request| Action::Answer { request, result: Err(reason) };
        actions.extend(request.map(answer));
        Some(kind)
    }

    /// Nothing is removed: what is there is another's.
    fn overtaken(&mut self, checkpoint: CheckpointId, actions: &mut Vec<Action<P>>) {
        let is_it = |it: &mut UnderWay<P>| it.id == checkpoint && it.is_storing;
        let Some(UnderWay { request, .. }) = self.under_way.take_if(is_it) else { return };
        self.is_over = true;
        let reason = format!("checkpoint {checkpoint} is there already: another process runs this job");
        let asked =
            request.into_iter().chain(std::mem::take(&mut self.asked).into_iter().map(|(who, _)| who));
        let answer = |request| Action::Answer { request, result: Err(reason.clone()) };
        actions.extend(asked.map(answer));
        actions.push(Action::Fail { reason, is_overtaken: true });
    }

    /// Begins a checkpoint, if one is to begin.
    fn begin_next(&mut self, now: Duration, actions: &mut Vec<Action<P>>) {
        if self.under_way.is_some() || self.next_at().is_none_or(|at| now < at) {
            return;
        }
        let (request, kind) = match self.asked.pop_front() {
            Some((request, kind)) => (Some(request), kind),
            None if self.has_ended() => (None, Kind::Final),
            None => (None, Kind::Checkpoint),
        };
        let id = self.next;
        self.next += 1;
        if !matches!(kind, Kind::Savepoint { .. }) {
            self.due = self.settings.interval.map(|interval| now + interval);
        }
        let parts = BTreeMap::new();
        self.under_way = Some(UnderWay { id, kind, request, began: now, parts, is_storing: false });
        actions.push(Action::Trigger { checkpoint: id, kind });
    }
}
