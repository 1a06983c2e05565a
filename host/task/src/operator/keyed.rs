//! A native operator over keys in its subtask: waits for its state, gives it rows and time.

use model::element::Mark;
use model::{Batch, Diagnostic};
use platform::Clock;
use state::backend::Ticket;
use window::{AggregateError, Fired, KeyedOperator, Now, Standing, Timing};

use super::{Element, Emit, Input, Place, Ran, native_error};
use crate::metrics::{Counters, add};

pub(crate) struct KeyedStage {
    operator: Box<dyn KeyedOperator>,
    clock: Clock,
    place: Place,
    /// Rows whose state has been asked for.
    waiting: Option<(Ticket, u32, Batch)>,
    watermark: i64,
    /// It is not done with the rows that it has taken.
    is_processing: bool,
    /// What follows once all that is due has fired.
    mark: Option<Mark>,
    is_fired: bool,
    /// Results come at the end only: no watermark before is looked at.
    batch: bool,
    /// It is a running aggregate.
    pub(crate) is_aggregate: bool,
}

impl KeyedStage {
    pub(crate) fn new(operator: Box<dyn KeyedOperator>, clock: Clock, place: Place, batch: bool) -> Self {
        Self {
            operator,
            clock,
            place,
            waiting: None,
            watermark: i64::MIN,
            is_processing: false,
            mark: None,
            is_fired: true,
            batch,
            is_aggregate: false,
        }
    }

    pub(crate) fn run(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut Emit<'_>,
    ) -> Result<Ran, Diagnostic> {
        let (mut made, mut rows_out) = (Ok(()), 0);
        let mut collect = |port: u32, rows: Batch| {
            rows_out += rows.num_rows();
            if made.is_ok() && rows.num_rows() > 0 {
                made = emit(port, rows);
            }
        };
        let ran = self.advance(input, &mut collect);
        made?;
        add(&counters.rows_out, rows_out);
        add(&counters.rows_late, self.operator.take_late());
        ran.map_err(|error| native_error(&self.place, &error))
    }

    fn advance(
        &mut self,
        input: &mut Input,
        emit: &mut window::operator::Emit<'_>,
    ) -> Result<Ran, AggregateError> {
        let now = self.now();
        if let Some((ticket, ..)) = &self.waiting {
            if !self.operator.is_ready(*ticket) {
                return Ok(Ran::Idle);
            }
            if let Some((_, from, rows)) = self.waiting.take() {
                let fired = self.operator.process(from, &rows, now, emit)?;
                self.is_processing = fired != Fired::Done;
            }
            return Ok(Ran::Progress);
        }
        if self.is_processing {
            return Ok(match self.operator.resume(now, emit)? {
                Fired::Waiting => Ran::Idle,
                fired => {
                    self.is_processing = fired == Fired::More;
                    Ran::Progress
                }
            });
        }
        let is_due = self.operator.next_timer().is_some_and(|time| time <= now.processing_time);
        if !self.is_fired || is_due {
            return Ok(match self.operator.fire(now, emit)? {
                Fired::Waiting => Ran::Idle,
                Fired::More => Ran::Progress,
                Fired::Done => {
                    self.is_fired = true;
                    self.mark.take().map_or(Ran::Progress, |mark| Ran::Forward(self.held_back(mark)))
                }
            });
        }
        match input.elements.pop_front() {
            Some(Element::Rows(from, rows)) => {
                let ticket = self.operator.prefetch(from, &rows, now)?;
                self.waiting = Some((ticket, from, rows));
            }
            Some(Element::Mark(mark)) => {
                if self.batch && mark != Mark::Watermark(i64::MAX) {
                    return Ok(Ran::Forward(mark));
                }
                if let Mark::Watermark(time) = mark {
                    self.watermark = self.watermark.max(time);
                    self.is_fired = false;
                    self.mark = Some(mark);
                } else {
                    return Ok(Ran::Forward(mark));
                }
            }
            None if !input.ended => return Ok(Ran::Idle),
            // The end is the greatest watermark.
            None if self.watermark < i64::MAX => {
                self.watermark = i64::MAX;
                self.is_fired = false;
            }
            None => {
                return Ok(match self.operator.finish(emit)? {
                    Fired::Done => Ran::Ended,
                    Fired::More => Ran::Progress,
                    Fired::Waiting => Ran::Idle,
                });
            }
        }
        Ok(Ran::Progress)
    }

    /// The watermark as it goes on: behind no row that may still leave.
    fn held_back(&self, mark: Mark) -> Mark {
        match mark {
            Mark::Watermark(time) if time < i64::MAX => {
                Mark::Watermark(time.saturating_sub(self.operator.held_back()))
            }
            mark => mark,
        }
    }

    /// Whether rows or a watermark are still in work.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting.is_some() || self.is_processing || !self.is_fired
    }

    /// Other times of its windows; whether they can change.
    pub(crate) fn change(&mut self, timing: &Timing) -> bool {
        let now = self.now();
        self.operator.change(timing, now)
    }

    /// What a checkpoint keeps of it beside its keyed state.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.operator.standing(self.now())
    }

    /// Goes on from what a checkpoint has kept of that.
    pub(crate) fn stand(&mut self, standing: Standing) {
        self.operator.stand(standing);
    }

    fn now(&self) -> Now {
        Now { watermark: self.watermark, processing_time: self.clock.wall_ms() }
    }

    /// When something is due by processing time, in milliseconds since the epoch.
    pub(crate) fn next_timer(&self) -> Option<i64> {
        self.operator.next_timer()
    }
}
