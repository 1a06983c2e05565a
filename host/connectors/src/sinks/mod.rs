//! Sinks, one file each.

pub mod blackhole;
pub mod collect;
pub mod files;
pub mod print;

use std::sync::Arc;

use arrow_schema::SchemaRef;
use model::Diagnostic;
use model::job_graph::Connection;

use crate::SinkFactory;
use crate::options::unknown;

/// The connectors that a sink can have.
pub const NAMES: [&str; 4] = ["blackhole", "collect", "files", "print"];

/// Checks a sink's connection; rows of this schema will reach it. Looks at nothing outside.
///
/// # Errors
/// An unknown connector, format or option, or one that does not fit the schema.
pub fn sink(connection: &Connection, schema: &SchemaRef) -> Result<Arc<dyn SinkFactory>, Diagnostic> {
    Ok(match connection.connector.as_str() {
        "blackhole" => Arc::new(blackhole::BlackholeFactory::of(connection)?),
        "collect" => Arc::new(collect::CollectFactory::of(connection)?),
        "files" => Arc::new(files::FilesFactory::of(connection, schema)?),
        "print" => Arc::new(print::PrintFactory::of(connection, schema)?),
        other => return Err(unknown("sink", other, &NAMES)),
    })
}
