//! A subtask's input: one queue for each channel, bounded; joins what waits into full batches.
//!
//! The gate's watermark is the least of its channels', without those that have ended or are idle;
//! it never falls. It follows the rows that came before it on its channel, and comes before those
//! after it.
//!
//! Barriers are aligned: a channel that has brought one is not read until all that have not ended have
//! brought it; then it is given out once, after all that came before it on every channel and before all
//! that comes after it on any. Nothing is copied for that, and other channels go on meanwhile. A later
//! barrier gives up an earlier one that is not complete: its checkpoint was given up elsewhere.
//!
//! Invariants: a channel with elements is in `ready` exactly once, and not at all while it is blocked; `rows` and `bytes` are the sums
//! over all queues; after `End` a channel has nothing more; no two watermarks wait one after the
//! other on a channel, and few latency markers, so that they need no room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use arrow_schema::ArrowError;
use model::element::{Barrier, Mark};
use model::{Batch, BatchRange, StreamElement};

use crate::Moved;

/// Rows are copied to be joined; so many are worth a call of their own.
const LARGE: usize = 2 * 1024;
/// How much may wait at a gate, until its subtask has measured itself.
const ROWS_MAX: usize = 16 * 1024;
/// How many latency markers may wait on a channel.
const MARKERS_MAX: usize = 16;
/// How many bytes may wait at a gate.
const BYTES_MAX: usize = 1 << 20;

/// The receiving end of all channels into a subtask.
pub struct InputGate {
    shared: Arc<Shared>,
    open: usize,
    times: Times,
    /// What follows the rows that were received last.
    next: Option<Mark>,
    barriers: Barriers,
    received: Moved,
}

/// Which barrier is being aligned.
#[derive(Default)]
struct Barriers {
    /// The one that some channels have brought.
    aligning: Option<Barrier>,
    /// The channels that have.
    blocked: Vec<usize>,
    /// All channels have brought it: it follows what was received last.
    aligned: Option<Barrier>,
    /// No barrier up to this checkpoint is waited for any more.
    passed: u64,
    /// Bytes of rows that have come from other channels since the first has brought it.
    bytes: usize,
    /// Of the last that all have brought: how many came until then.
    bytes_aligned: usize,
}

/// How far event time is, on each channel and over all.
struct Times {
    channels: Vec<ChannelTime>,
    watermark: i64,
    idle: bool,
}

#[derive(Clone, Copy)]
struct ChannelTime {
    watermark: i64,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Active,
    Idle,
    Ended,
}

/// The sending end of one channel.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    index: usize,
}

struct Shared {
    state: Mutex<State>,
    consumer: Waker,
}

struct State {
    channels: Vec<Queue>,
    ready: VecDeque<usize>,
    rows: usize,
    bytes: usize,
    rows_max: usize,
    /// Producers that found no room.
    waiting: Vec<Waker>,
}

struct Queue {
    input: u32,
    elements: VecDeque<(StreamElement, Option<Credit>)>,
    /// How many of them are latency markers.
    markers: usize,
    ended: bool,
    /// It has brought a barrier that others have not.
    blocked: bool,
}

/// What a gate has for its subtask.
pub enum Received {
    /// Rows of an input, in the order of their channels.
    Rows(u32, Batch),
    /// How far event time is, now that it has gone on.
    Mark(Mark),
    /// All channels have brought it.
    Barrier(Barrier),
    /// Nothing now.
    Nothing,
    /// Nothing ever again: all channels have ended.
    End,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InputGate {
    /// A gate without channels, for the subtask that `consumer` wakes.
    #[must_use]
    pub fn new(consumer: Waker) -> Self {
        let state = State {
            channels: Vec::new(),
            ready: VecDeque::new(),
            rows: 0,
            bytes: 0,
            rows_max: ROWS_MAX,
            waiting: Vec::new(),
        };
        let times = Times { channels: Vec::new(), watermark: i64::MIN, idle: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), consumer });
        Self { shared, open: 0, times, next: None, barriers: Barriers::default(), received: Moved::default() }
    }

    /// Adds a channel into this input.
    pub fn add_channel(&mut self, input: u32) -> Channel {
        let mut state = lock(&self.shared);
        let index = state.channels.len();
        state.channels.push(Queue {
            input,
            elements: VecDeque::new(),
            markers: 0,
            ended: false,
            blocked: false,
        });
        self.open += 1;
        self.times.channels.push(ChannelTime { watermark: i64::MIN, status: Status::Active });
        Channel { shared: Arc::clone(&self.shared), index }
    }

    /// Bounds what may wait here, in rows: what the subtask eats in about 2 ms.
    pub fn set_rows_max(&self, rows: usize) {
        lock(&self.shared).rows_max = rows.max(1);
    }

    /// Takes what waits for one input, at least a batch, at most about `rows` rows.
    ///
    /// # Errors
    /// If batches cannot be joined (a text column of more than 2 GiB).
    pub fn receive(&mut self, rows: usize) -> Result<Received, ArrowError> {
        if let Some(received) = self.take_next() {
            return Ok(received);
        }
        let mut taken: Vec<BatchRange> = Vec::new();
        // Credits are given back only when the rows have been copied.
        let mut credits: Vec<Option<Credit>> = Vec::new();
        let (mut input, mut taken_rows) = (0, 0);
        let wake = {
            let mut state = lock(&self.shared);
            let state = &mut *state;
            while self.next.is_none()
                && self.barriers.aligned.is_none()
                && let Some(&channel) = state.ready.front()
            {
                let queue = &mut state.channels[channel];
                if !taken.is_empty() && queue.input != input {
                    break;
                }
                let fits = match queue.elements.front() {
                    Some((StreamElement::Batch(batch), _)) => {
                        taken.is_empty() || (taken_rows + batch.num_rows() <= rows && taken_rows < LARGE)
                    }
                    _ => true,
                };
                if !fits {
                    break;
                }
                match queue.elements.pop_front() {
                    Some((StreamElement::Batch(batch), credit)) => {
                        input = queue.input;
                        self.times.channels[channel].status = Status::Active;
                        self.times.idle = false;
                        state.rows -= batch.num_rows();
                        state.bytes -= batch.bytes();
                        taken_rows += batch.num_rows();
                        self.received.add(batch.num_rows(), batch.bytes());
                        self.barriers.bytes += batch.bytes();
                        taken.push(batch);
                        credits.push(credit);
                    }
                    Some((StreamElement::Mark(Mark::Watermark(time)), _)) => {
                        self.next = self.times.watermark(channel, time);
                    }
                    Some((StreamElement::Mark(Mark::Idle), _)) => {
                        self.next = self.times.stop(channel, Status::Idle);
                    }
                    Some((StreamElement::Mark(mark @ Mark::Latency(_)), _)) => {
                        queue.markers -= 1;
                        self.next = Some(mark);
                    }
                    Some((StreamElement::Barrier(barrier), _)) => {
                        if self.barriers.came(channel, barrier, state) {
                            self.barriers.align(self.open, state);
                        }
                        continue;
                    }
                    Some((StreamElement::End, _)) => {
                        self.open -= 1;
                        self.next = self.times.stop(channel, Status::Ended);
                        state.ready.pop_front();
                        self.barriers.align(self.open, state);
                        continue;
                    }
                    None => {}
                }
                if queue.elements.is_empty() {
                    state.ready.pop_front();
                }
            }
            // What waits behind a barrier counts, but a channel that is empty has room whatever waits elsewhere.
            let has_room = state.rows < state.rows_max && state.bytes < BYTES_MAX;
            if has_room || self.barriers.aligning.is_some() {
                std::mem::take(&mut state.waiting)
            } else {
                Vec::new()
            }
        };
        wake.into_iter().for_each(Waker::wake);
        if taken.is_empty() {
            if let Some(received) = self.take_next() {
                return Ok(received);
            }
            return Ok(if self.open == 0 { Received::End } else { Received::Nothing });
        }
        Ok(Received::Rows(input, BatchRange::join(&taken)?))
    }

    /// What is to be given out next, where that is no rows.
    fn take_next(&mut self) -> Option<Received> {
        if let Some(mark) = self.next.take() {
            self.next = self.times.after(mark);
            return Some(Received::Mark(mark));
        }
        self.barriers.aligned.take().map(Received::Barrier)
    }

    /// The barrier that some channels have brought and others have not.
    #[must_use]
    pub fn aligning(&self) -> Option<Barrier> {
        self.barriers.aligning
    }

    /// Bytes of rows that came between the first channel's barrier and the last's, of the last that all have brought.
    #[must_use]
    pub fn bytes_aligned(&self) -> usize {
        self.barriers.bytes_aligned
    }

    /// Gives up a barrier: its checkpoint was given up. Channels that have brought it are read again.
    pub fn abort(&mut self, barrier: Barrier) {
        let mut state = lock(&self.shared);
        if self.barriers.aligning.is_some_and(|aligning| aligning <= barrier) {
            self.barriers.release(&mut state);
        }
        self.barriers.aligned = self.barriers.aligned.filter(|aligned| *aligned > barrier);
        self.barriers.passed = self.barriers.passed.max(barrier.checkpoint);
    }

    /// All rows that have been received.
    #[must_use]
    pub fn received(&self) -> Moved {
        self.received
    }

    /// Rows that wait.
    #[must_use]
    pub fn rows_waiting(&self) -> usize {
        lock(&self.shared).rows
    }
}

impl Barriers {
    /// A channel, the first that is ready, has brought a barrier. Whether that may have completed it.
    fn came(&mut self, channel: usize, barrier: Barrier, state: &mut State) -> bool {
        if barrier.checkpoint <= self.passed || self.aligning.is_some_and(|aligning| aligning > barrier) {
            if state.channels[channel].elements.is_empty() {
                state.ready.pop_front();
            }
            return false;
        }
        state.ready.pop_front();
        if self.aligning != Some(barrier) {
            self.release(state);
            (self.aligning, self.bytes) = (Some(barrier), 0);
        }
        state.channels[channel].blocked = true;
        self.blocked.push(channel);
        true
    }

    /// Gives the barrier out once all channels that have not ended have brought it.
    fn align(&mut self, open: usize, state: &mut State) {
        let Some(barrier) = self.aligning.filter(|_| self.blocked.len() >= open) else { return };
        self.passed = barrier.checkpoint;
        (self.aligned, self.bytes_aligned) = (Some(barrier), self.bytes);
        self.release(state);
    }

    /// Reads on where a barrier has come.
    fn release(&mut self, state: &mut State) {
        self.aligning = None;
        for channel in self.blocked.drain(..) {
            let queue = &mut state.channels[channel];
            queue.blocked = false;
            if !queue.elements.is_empty() {
                state.ready.push_back(channel);
            }
        }
    }
}

impl Times {
    /// A channel's watermark; gives the gate's, if that goes on.
    fn watermark(&mut self, channel: usize, time: i64) -> Option<Mark> {
        let of_channel = &mut self.channels[channel];
        of_channel.watermark = of_channel.watermark.max(time);
        of_channel.status = Status::Active;
        self.idle = false;
        self.go_on()
    }

    /// A channel that holds nothing back any more.
    fn stop(&mut self, channel: usize, status: Status) -> Option<Mark> {
        self.channels[channel].status = status;
        self.go_on()
    }

    fn go_on(&mut self) -> Option<Mark> {
        let of = |status| self.channels.iter().filter(move |c| c.status == status).map(|c| c.watermark);
        let least = match of(Status::Active).min() {
            Some(least) => least,
            // All have ended: the end says more than a watermark. All that have not are idle: the
            // furthest of them counts, as in Flink.
            None => of(Status::Idle).max()?,
        };
        if least > self.watermark {
            self.watermark = least;
            return Some(Mark::Watermark(least));
        }
        let idle = self.channels.iter().all(|channel| channel.status != Status::Active);
        (idle && !std::mem::replace(&mut self.idle, idle)).then_some(Mark::Idle)
    }

    /// Idleness that a watermark came before, if it is still to be said.
    fn after(&mut self, mark: Mark) -> Option<Mark> {
        match mark {
            Mark::Watermark(_) => self.go_on(),
            Mark::Idle | Mark::Latency(_) => None,
        }
    }
}

impl Channel {
    /// Sends rows, or gives them back if there is no room: then `producer` is woken when there is.
    /// A channel with nothing in it always has room for a batch.
    ///
    /// # Errors
    /// The rows, if there is no room.
    pub fn try_send(
        &self,
        batch: BatchRange,
        credit: Option<Credit>,
        producer: &Waker,
    ) -> Result<(), BatchRange> {
        let mut state = lock(&self.shared);
        let room = state.rows < state.rows_max && state.bytes < BYTES_MAX;
        if !room && !state.channels[self.index].elements.is_empty() {
            if !state.waiting.iter().any(|waker| waker.will_wake(producer)) {
                state.waiting.push(producer.clone());
            }
            return Err(batch);
        }
        state.rows += batch.num_rows();
        state.bytes += batch.bytes();
        self.push(state, StreamElement::Batch(batch), credit);
        Ok(())
    }

    /// Sends how far event time is, for which there is always room; or a latency marker, which is left out where
    /// several wait already.
    pub fn mark(&self, mark: Mark) {
        let mut state = lock(&self.shared);
        let queue = &mut state.channels[self.index];
        if let Mark::Latency(_) = mark {
            if queue.markers >= MARKERS_MAX {
                return;
            }
            queue.markers += 1;
        }
        // One that waits at the end of the queue is outdated, but idleness after a watermark is more.
        match (queue.elements.back_mut(), mark) {
            (
                Some((StreamElement::Mark(waiting @ (Mark::Watermark(_) | Mark::Idle)), _)),
                Mark::Watermark(_),
            ) => {
                *waiting = mark;
            }
            (Some((StreamElement::Mark(Mark::Idle), _)), Mark::Idle) => {}
            _ => self.push(state, StreamElement::Mark(mark), None),
        }
    }

    /// Sends a barrier, for which there is always room.
    pub fn barrier(&self, barrier: Barrier) {
        let state = lock(&self.shared);
        self.push(state, StreamElement::Barrier(barrier), None);
    }

    /// Sends the end of the channel, for which there is always room.
    pub fn end(&self) {
        let state = lock(&self.shared);
        self.push(state, StreamElement::End, None);
    }

    fn push(&self, mut state: MutexGuard<'_, State>, element: StreamElement, credit: Option<Credit>) {
        let was_idle = state.ready.is_empty();
        let queue = &mut state.channels[self.index];
        assert!(!queue.ended, "nothing follows the end of a channel");
        queue.ended = matches!(element, StreamElement::End);
        let is_first = queue.elements.is_empty() && !queue.blocked;
        queue.elements.push_back((element, credit));
        if is_first {
            state.ready.push_back(self.index);
        }
        drop(state);
        if was_idle && is_first {
            self.shared.consumer.wake_by_ref();
        }
    }
}

/// Bounds the memory that one sender has in flight. A range of a scattered batch keeps the whole
/// batch alive, so the whole counts until its last range has been copied.
pub struct SendBudget {
    bytes: AtomicUsize,
    bytes_max: usize,
    producer: Waker,
}

impl SendBudget {
    /// So many bytes for the subtask that `producer` wakes.
    #[must_use]
    pub fn new(bytes_max: usize, producer: Waker) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max, producer })
    }

    /// Whether another batch may be made. The producer is woken when that changes.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) < self.bytes_max
    }

    /// Charges a batch of so many bytes until the last clone of the credit is gone.
    #[must_use]
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Credit {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        Credit(Arc::new(Charge { budget: Arc::clone(self), bytes }))
    }
}

/// A part of a [`SendBudget`], given back when the last clone is dropped.
#[derive(Clone)]
pub struct Credit(#[expect(dead_code, reason = "dropping it gives it back")] Arc<Charge>);

struct Charge {
    budget: Arc<SendBudget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let before = self.budget.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if before >= self.budget.bytes_max && before - self.bytes < self.budget.bytes_max {
            self.budget.producer.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests;
