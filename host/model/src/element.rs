//! What travels an edge.

use std::time::Duration;

use crate::BatchRange;

/// An element of a stream: all that can travel an edge of a job, on one path.
#[derive(Clone, Debug)]
pub enum StreamElement {
    /// Rows.
    Batch(BatchRange),
    /// How far event time is, or how long rows take.
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

/// How far event time is on a channel, or what measures how long rows take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No row of an event time up to this one, in milliseconds since the epoch, is expected any
    /// more. (Flink: `Watermark`.)
    Watermark(i64),
    /// Until the next rows or watermark the channel holds no watermark back. (Flink: `WatermarkStatus.IDLE`.)
    Idle,
    /// It says nothing of event time. (Flink: `LatencyMarker`.)
    Latency(LatencyMarker),
}

/// Goes from a source with its rows, waits where they wait, and is measured at each operator that it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyMarker {
    /// When the source gave it, by the process's clock.
    pub given: Duration,
    /// The source's vertex, by its place.
    pub source: u32,
}
