//! A subtask's input: one queue for each channel, bounded; joins what waits into full batches.
//!
//! The gate's watermark is the least of its channels', without those that have ended or are idle;
//! it never falls. It follows the rows that came before it on its channel, and comes before those
//! after it.
//!
//! Invariants: a channel with elements is in `ready` exactly once; `rows` and `bytes` are the sums
//! over all queues; after `End` a channel has nothing more; no two watermarks wait one after the
//! other on a channel, so that they need no room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use arrow_schema::ArrowError;
use model::element::Mark;
use model::{Batch, BatchRange, StreamElement};

/// Rows are copied to be joined; so many are worth a call of their own.
const LARGE: usize = 2 * 1024;
/// How much may wait at a gate, until its subtask has measured itself.
const ROWS_MAX: usize = 16 * 1024;
/// How many bytes may wait at a gate.
const BYTES_MAX: usize = 1 << 20;

/// The receiving end of all channels into a subtask.
pub struct InputGate {
    shared: Arc<Shared>,
    open: usize,
    times: Times,
    /// What follows the rows that were received last.
    next: Option<Mark>,
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
    ended: bool,
}

/// What a gate has for its subtask.
pub enum Received {
    /// Rows of an input, in the order of their channels.
    Rows(u32, Batch),
    /// How far event time is, now that it has gone on.
    Mark(Mark),
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
        Self { shared: Arc::new(Shared { state: Mutex::new(state), consumer }), open: 0, times, next: None }
    }

    /// Adds a channel into this input.
    pub fn add_channel(&mut self, input: u32) -> Channel {
        let mut state = lock(&self.shared);
        let index = state.channels.len();
        state.channels.push(Queue { input, elements: VecDeque::new(), ended: false });
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
        if let Some(mark) = self.take_mark() {
            return Ok(Received::Mark(mark));
        }
        let mut taken: Vec<BatchRange> = Vec::new();
        // Credits are given back only when the rows have been copied.
        let mut credits: Vec<Option<Credit>> = Vec::new();
        let (mut input, mut taken_rows) = (0, 0);
        let wake = {
            let mut state = lock(&self.shared);
            let state = &mut *state;
            while self.next.is_none()
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
                        taken.push(batch);
                        credits.push(credit);
                    }
                    Some((StreamElement::Mark(Mark::Watermark(time)), _)) => {
                        self.next = self.times.watermark(channel, time);
                    }
                    Some((StreamElement::Mark(Mark::Idle), _)) => {
                        self.next = self.times.stop(channel, Status::Idle);
                    }
                    Some((StreamElement::End, _)) => {
                        self.open -= 1;
                        self.next = self.times.stop(channel, Status::Ended);
                    }
                    None => {}
                }
                if queue.elements.is_empty() {
                    state.ready.pop_front();
                }
            }
            if state.rows < state.rows_max && state.bytes < BYTES_MAX {
                std::mem::take(&mut state.waiting)
            } else {
                Vec::new()
            }
        };
        wake.into_iter().for_each(Waker::wake);
        if taken.is_empty() {
            if let Some(mark) = self.take_mark() {
                return Ok(Received::Mark(mark));
            }
            return Ok(if self.open == 0 { Received::End } else { Received::Nothing });
        }
        Ok(Received::Rows(input, BatchRange::join(&taken)?))
    }

    /// What is to be given out next, where that is no rows.
    fn take_mark(&mut self) -> Option<Mark> {
        let mark = self.next.take()?;
        self.next = self.times.after(mark);
        Some(mark)
    }

    /// Rows that wait.
    #[must_use]
    pub fn rows_waiting(&self) -> usize {
        lock(&self.shared).rows
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
            Mark::Idle => None,
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

    /// Sends how far event time is, for which there is always room.
    pub fn mark(&self, mark: Mark) {
        let mut state = lock(&self.shared);
        // One that waits at the end of the queue is outdated, but idleness after a watermark is more.
        match (state.channels[self.index].elements.back_mut(), mark) {
            (Some((StreamElement::Mark(waiting), _)), Mark::Watermark(_)) => *waiting = mark,
            (Some((StreamElement::Mark(Mark::Idle), _)), Mark::Idle) => {}
            _ => self.push(state, StreamElement::Mark(mark), None),
        }
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
        if queue.elements.is_empty() {
            queue.elements.push_back((element, credit));
            state.ready.push_back(self.index);
        } else {
            queue.elements.push_back((element, credit));
        }
        drop(state);
        if was_idle {
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
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{ArrayRef, Int64Array, RecordBatch};

    fn batch(values: std::ops::Range<i64>) -> BatchRange {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        Batch::new(RecordBatch::try_from_iter([("n", numbers)]).unwrap()).into()
    }

    fn rows(received: Received) -> Option<Vec<i64>> {
        match received {
            Received::Rows(_, batch) => Some(batch.column(0).as_primitive::<Int64Type>().values().to_vec()),
            Received::Mark(_) | Received::Nothing | Received::End => None,
        }
    }

    #[test]
    fn joins_what_waits_up_to_the_call_size_and_keeps_each_channels_order() {
        let mut gate = InputGate::new(Waker::noop().clone());
        let (a, b) = (gate.add_channel(0), gate.add_channel(0));
        let waker = Waker::noop();
        for (channel, range) in [(&a, 0..2), (&b, 10..12), (&a, 2..4)] {
            channel.try_send(batch(range), None, waker).unwrap();
        }
        assert_eq!(rows(gate.receive(6).unwrap()), Some(vec![0, 1, 2, 3, 10, 11]));
        assert!(matches!(gate.receive(6).unwrap(), Received::Nothing));
        a.end();
        assert!(matches!(gate.receive(6).unwrap(), Received::Nothing));
        b.try_send(batch(12..13), None, waker).unwrap();
        b.end();
        assert_eq!(rows(gate.receive(6).unwrap()), Some(vec![12]));
        assert!(matches!(gate.receive(6).unwrap(), Received::End));
    }

    #[test]
    fn a_full_gate_refuses_but_an_empty_channel_takes_one() {
        let mut gate = InputGate::new(Waker::noop().clone());
        let (a, b) = (gate.add_channel(0), gate.add_channel(0));
        gate.set_rows_max(2);
        let waker = Waker::noop();
        a.try_send(batch(0..5), None, waker).unwrap();
        assert!(a.try_send(batch(5..6), None, waker).is_err());
        b.try_send(batch(7..8), None, waker).unwrap();
        assert_eq!(gate.rows_waiting(), 6);
        assert_eq!(rows(gate.receive(1).unwrap()), Some((0..5).collect()));
        assert_eq!(rows(gate.receive(1).unwrap()), Some(vec![7]));
        a.try_send(batch(5..6), None, waker).unwrap();
    }

    #[test]
    fn inputs_are_not_mixed() {
        let mut gate = InputGate::new(Waker::noop().clone());
        let (a, b) = (gate.add_channel(0), gate.add_channel(1));
        a.try_send(batch(0..1), None, Waker::noop()).unwrap();
        b.try_send(batch(1..2), None, Waker::noop()).unwrap();
        assert!(matches!(gate.receive(9).unwrap(), Received::Rows(0, _)));
        assert!(matches!(gate.receive(9).unwrap(), Received::Rows(1, _)));
    }

    /// Takes all that waits, as text: rows, watermarks, idleness.
    fn all(gate: &mut InputGate) -> String {
        let mut said = Vec::new();
        loop {
            match gate.receive(100).unwrap() {
                Received::Mark(Mark::Watermark(time)) => said.push(format!("w{time}")),
                Received::Mark(Mark::Idle) => said.push("idle".to_owned()),
                Received::Nothing => return said.join(" "),
                Received::End => {
                    said.push("end".to_owned());
                    return said.join(" ");
                }
                received => said.push(format!("{:?}", rows(received).unwrap())),
            }
        }
    }

    #[test]
    fn the_watermark_is_the_least_of_the_channels_and_keeps_its_place() {
        let mut gate = InputGate::new(Waker::noop().clone());
        let (a, b) = (gate.add_channel(0), gate.add_channel(0));
        let waker = Waker::noop();
        a.mark(Mark::Watermark(5));
        assert_eq!(all(&mut gate), "");
        a.try_send(batch(0..1), None, waker).unwrap();
        b.try_send(batch(10..11), None, waker).unwrap();
        b.mark(Mark::Watermark(3));
        b.try_send(batch(11..12), None, waker).unwrap();
        b.mark(Mark::Watermark(9));
        assert_eq!(all(&mut gate), "[0, 10] w3 [11] w5");
        // It never falls, and one that waits gives way to the next.
        b.mark(Mark::Watermark(1));
        a.mark(Mark::Watermark(7));
        a.mark(Mark::Watermark(8));
        assert_eq!(all(&mut gate), "w8");
    }

    #[test]
    fn what_is_idle_or_has_ended_holds_nothing_back() {
        let mut gate = InputGate::new(Waker::noop().clone());
        let (a, b, c) = (gate.add_channel(0), gate.add_channel(0), gate.add_channel(1));
        a.mark(Mark::Watermark(5));
        b.mark(Mark::Idle);
        assert_eq!(all(&mut gate), "");
        c.end();
        assert_eq!(all(&mut gate), "w5");
        // Rows make it active again; the watermark stays.
        b.try_send(batch(0..1), None, Waker::noop()).unwrap();
        a.mark(Mark::Watermark(6));
        assert_eq!(all(&mut gate), "[0]");
        b.mark(Mark::Watermark(9));
        b.mark(Mark::Idle);
        assert_eq!(all(&mut gate), "w6");
        // All idle: the furthest counts.
        a.mark(Mark::Idle);
        assert_eq!(all(&mut gate), "w9 idle");
        a.mark(Mark::Idle);
        assert_eq!(all(&mut gate), "");
        a.end();
        b.end();
        assert_eq!(all(&mut gate), "end");
    }

    #[test]
    fn credit_returns_with_the_last_range() {
        let budget = SendBudget::new(100, Waker::noop().clone());
        let credit = budget.charge(150);
        let second = credit.clone();
        drop(credit);
        assert!(!budget.has_room());
        drop(second);
        assert!(budget.has_room());
    }
}
