//! What travels an edge.

use crate::BatchRange;

/// An element of a stream: all that can travel an edge of a job, on one path.
#[derive(Clone, Debug)]
pub enum StreamElement {
    /// Rows.
    Batch(BatchRange),
    /// How far event time is.
    Mark(Mark),
    /// What came before it is in the checkpoint, what comes after it is not.
    Barrier(Barrier),
    /// Nothing follows on this channel.
    End,
}

/// Where a checkpoint cuts a stream.
///
/// Source: Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015), after Chandy
/// and Lamport (1985).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Barrier {
    /// The checkpoint's number; those of one attempt of a job rise.
    pub checkpoint: u64,
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
