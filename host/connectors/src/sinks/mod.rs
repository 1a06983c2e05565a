//! Sinks, one file each.

pub mod blackhole;
mod changelog;
pub mod collect;
pub mod files;
pub mod print;

use std::sync::Arc;

use model::Diagnostic;
use model::job_graph::Connection;

pub use changelog::Arriving;

use crate::SinkFactory;
use crate::options::unknown;

/// The connectors that a sink can have.
pub const NAMES: [&str; 4] = ["blackhole", "collect", "files", "print"];

/// Checks a sink's connection; these rows will reach it. Looks at nothing outside.
///
/// # Errors
/// An unknown connector, format or option, or one that does not fit the schema.
pub fn sink(connection: &Connection, arriving: &Arriving) -> Result<Arc<dyn SinkFactory>, Diagnostic> {
    Ok(match connection.connector.as_str() {
        "blackhole" => Arc::new(blackhole::BlackholeFactory::of(connection)?),
        "collect" => Arc::new(collect::CollectFactory::of(connection)?),
        "files" => Arc::new(files::FilesFactory::of(connection, arriving)?),
        "print" => Arc::new(print::PrintFactory::of(connection, arriving)?),
        other => return Err(unknown("sink", other, &NAMES)),
    })
}
