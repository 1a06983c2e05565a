//! What travels an edge.

use crate::Batch;

/// An element of a stream: all that can travel an edge of a job, on one path.
#[derive(Clone, Debug)]
pub enum StreamElement {
    /// Rows.
    Batch(Batch),
    /// Nothing follows on this channel.
    End,
}
