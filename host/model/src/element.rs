//! What travels an edge.

use crate::BatchRange;

/// An element of a stream: all that can travel an edge of a job, on one path.
#[derive(Clone, Debug)]
pub enum StreamElement {
    /// Rows.
    Batch(BatchRange),
    /// Nothing follows on this channel.
    End,
}
