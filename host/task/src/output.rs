//! A subtask's side of an exchange: splits batches over channels, keeps what found no room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use exchange::{Channel, Credit, Moved, Partitioner, SendBudget};
use model::element::{Barrier, Mark};
use model::{Batch, BatchRange, Diagnostic};
use window::local::LocalWindow;

use crate::operator::{Place, native_error};

/// One outgoing edge of a subtask.
pub(crate) struct Output {
    partitioner: Partitioner,
    /// One for each subtask of the consumer (one in all where the edge is forward).
    channels: Vec<Channel>,
    /// The consumer's subtask that the first channel leads to.
    first: u32,
    /// What found no room, in its order.
    pending: VecDeque<(u32, Pending)>,
    budget: Arc<SendBudget>,
    producer: Waker,
    ended: bool,
    /// The first phase of the consumer's aggregation, and where the consumer is, for errors.
    local: Option<(LocalWindow, Place)>,
    sent: Moved,
    /// How many latency markers have gone.
    markers: usize,
}

/// What waits for room in a channel, or behind what waits.
enum Pending {
    Rows(BatchRange, Credit),
    Mark(Mark),
    Barrier(Barrier),
}

impl Output {
    pub(crate) fn new(
        partitioner: Partitioner,
        channels: Vec<Channel>,
        first: u32,
        bytes_max: usize,
        producer: Waker,
    ) -> Self {
        let budget = SendBudget::new(bytes_max, producer.clone());
        let pending = VecDeque::new();
        let sent = Moved::default();
        Self {
            partitioner,
            channels,
            first,
            pending,
            budget,
            producer,
            ended: false,
            local: None,
            sent,
            markers: 0,
        }
    }

    /// Rows go through the first phase of the consumer's aggregation.
    pub(crate) fn aggregating(mut self, local: LocalWindow, consumer: Place) -> Self {
        self.local = Some((local, consumer));
        self
    }

    /// Sends rows; those that find no room wait here.
    pub(crate) fn send(&mut self, batch: Batch) -> Result<(), Diagnostic> {
        let batch = match &mut self.local {
            Some((local, consumer)) => local.fold(&batch).map_err(|error| native_error(consumer, &error))?,
            None => batch,
        };
        let credit = self.budget.charge(batch.bytes());
        let Self { partitioner, channels, first, pending, producer, sent, .. } = self;
        let split = partitioner.split(batch, |to, rows| {
            sent.add(rows.num_rows(), rows.bytes());
            if pending.is_empty() {
                let channel = &channels[(to - *first) as usize];
                if let Err(rows) = channel.try_send(rows, Some(credit.clone()), producer) {
                    pending.push_back((to, Pending::Rows(rows, credit.clone())));
                }
            } else {
                pending.push_back((to, Pending::Rows(rows, credit.clone())));
            }
        });
        split.map_err(|error| Diagnostic::internal(error.to_string()))
    }

    /// Sends how far event time is to all channels, after the rows before it; a latency marker to one, each in turn.
    pub(crate) fn mark(&mut self, mark: Mark) {
        let mut reached = 0..self.channels.len();
        if let (Mark::Latency(_), false) = (mark, reached.is_empty()) {
            let one = self.markers % self.channels.len();
            self.markers = self.markers.wrapping_add(1);
            reached = one..one + 1;
        }
        for (to, channel) in (self.first..).zip(&self.channels).skip(reached.start).take(reached.len()) {
            match self.pending.is_empty() {
                true => channel.mark(mark),
                false => self.pending.push_back((to, Pending::Mark(mark))),
            }
        }
    }

    /// Sends a barrier to all channels, after the rows before it.
    pub(crate) fn barrier(&mut self, barrier: Barrier) {
        // Nothing follows the end.
        if self.ended {
            return;
        }
        for (to, channel) in (self.first..).zip(&self.channels) {
            match self.pending.is_empty() {
                true => channel.barrier(barrier),
                false => self.pending.push_back((to, Pending::Barrier(barrier))),
            }
        }
    }

    /// Whether more rows may be sent; what waited is sent first. If not, the producer is woken
    /// when there is room.
    pub(crate) fn ready(&mut self) -> bool {
        // Rows for one full channel do not hold back those for another.
        let mut full: Vec<u32> = Vec::new();
        for _ in 0..self.pending.len() {
            let Some((to, waiting)) = self.pending.pop_front() else { break };
            if full.contains(&to) {
                self.pending.push_back((to, waiting));
                continue;
            }
            let channel = &self.channels[(to - self.first) as usize];
            match waiting {
                Pending::Mark(mark) => channel.mark(mark),
                Pending::Barrier(barrier) => channel.barrier(barrier),
                Pending::Rows(rows, credit) => {
                    if let Err(rows) = channel.try_send(rows, Some(credit.clone()), &self.producer) {
                        full.push(to);
                        self.pending.push_back((to, Pending::Rows(rows, credit)));
                    }
                }
            }
        }
        self.pending.is_empty() && self.budget.has_room()
    }

    /// Ends all channels, once nothing waits.
    pub(crate) fn end(&mut self) {
        debug_assert!(self.pending.is_empty(), "rows go before the end");
        if !self.ended {
            self.ended = true;
            self.channels.iter().for_each(Channel::end);
        }
    }

    /// All rows that have been sent, those that wait too; such that go to several subtasks count for each.
    pub(crate) fn sent(&self) -> Moved {
        self.sent
    }

    /// Whether rows wait for room.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}
