//! Sources, one file each.

pub mod files;
pub mod generator;
pub mod socket;
pub mod stdin;
pub mod values;

use std::sync::Arc;

use arrow_schema::SchemaRef;
use model::Diagnostic;
use model::job_graph::Connection;

use crate::SourceFactory;
use crate::options::unknown;

/// The connectors that a source can have.
pub const NAMES: [&str; 5] = ["files", "generator", "socket", "stdin", "values"];

/// Checks a source's connection; its rows have this schema. Looks at nothing outside.
///
/// # Errors
/// An unknown connector, format or option, or one that does not fit the schema.
pub fn source(connection: &Connection, schema: &SchemaRef) -> Result<Arc<dyn SourceFactory>, Diagnostic> {
    Ok(match connection.connector.as_str() {
        "files" => Arc::new(files::FilesFactory::of(connection, schema)?),
        "generator" => Arc::new(generator::GeneratorFactory::of(connection, schema)?),
        "socket" => Arc::new(socket::SocketFactory::of(connection, schema)?),
        "stdin" => Arc::new(stdin::StdinFactory::of(connection, schema)?),
        "values" => Arc::new(values::ValuesFactory::of(connection, schema)?),
        other => return Err(unknown("source", other, &NAMES)),
    })
}

/// Refuses a format for a connector that makes rows itself.
fn no_format(connection: &Connection) -> Result<(), Diagnostic> {
    match &connection.format {
        None => Ok(()),
        Some(format) => Err(Diagnostic::user(format!(
            "`{}` makes rows itself and takes no format, but `{format}` is given",
            connection.connector
        ))),
    }
}
