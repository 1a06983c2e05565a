//! What travels an edge.

use crate::BatchRange;

/// An element of a stream: all that can travel an edge of a job, on one path.
#[derive(Clone, Debug)]
pub enum StreamElement {
    /// Rows.
    Batch(BatchRange),
    /// How far event time is.
    Mark(Mark),
    /// Nothing follows on this channel.
    End,
}

/// How far event time is on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No row of an event time up to this one, in milliseconds since the epoch, is expected any
    /// more. (Flink: `Watermark`.)
    Watermark(i64),
    /// Until the next element the channel holds no watermark back. (Flink: `WatermarkStatus.IDLE`.)
    Idle,
}
