//! The nouns that every other crate speaks of: batches, stream elements, schemas, keys and key
//! groups, the job graph, diagnostics.
//!
//! `unsafe` is used in one place: columns of whole rows of other columns are not checked again
//! (`whole_rows`).

pub mod batch;
pub mod batch_range;
pub mod diagnostic;
pub mod element;
mod gather;
pub mod hash;
pub mod job_graph;
pub mod key;
pub mod schema;
mod whole_rows;

pub use batch::Batch;
pub use batch_range::BatchRange;
pub use diagnostic::{Blame, Diagnostic, Retry};
pub use element::StreamElement;
pub use gather::gather;
pub use key::{KeyGroup, KeyHash};
