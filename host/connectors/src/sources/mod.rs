//! Sources, one file each.

pub mod files;
pub mod generator;
mod lanes;
pub mod nexmark;
mod pace;
pub mod socket;
pub mod stdin;
pub mod values;

use std::sync::Arc;

use arrow_schema::SchemaRef;
use model::Diagnostic;
use model::job_graph::Connection;

use crate::SourceFactory;
use crate::formats::PARQUET;
use crate::options::unknown;

/// The connectors that a source can have.
pub const NAMES: [&str; 6] = ["files", "generator", "nexmark", "socket", "stdin", "values"];

/// An output of a source, as the job declares it.
#[derive(Clone, Debug)]
pub struct SourcePort {
    /// The schema of its rows.
    pub schema: SchemaRef,
    /// Whether an edge leads away from it: rows of another port need not be made.
    pub used: bool,
}

/// Checks a source's connection, whose rows leave by these ports (that of bad records is not among
/// them). Looks at nothing outside.
///
/// # Errors
/// An unknown connector, format or option, or one that does not fit the ports.
pub fn source(connection: &Connection, ports: &[SourcePort]) -> Result<Arc<dyn SourceFactory>, Diagnostic> {
    let one = || one_port(connection, ports);
    Ok(match connection.connector.as_str() {
        "files" if connection.format.as_deref() == Some(PARQUET) => {
            Arc::new(files::parquet::ParquetFactory::of(connection, one()?)?)
        }
        "files" => Arc::new(files::FilesFactory::of(connection, one()?)?),
        "generator" => Arc::new(generator::GeneratorFactory::of(connection, one()?)?),
        "nexmark" => Arc::new(nexmark::NexmarkFactory::of(connection, ports)?),
        "socket" => Arc::new(socket::SocketFactory::of(connection, one()?)?),
        "stdin" => Arc::new(stdin::StdinFactory::of(connection, one()?)?),
        "values" => Arc::new(values::ValuesFactory::of(connection, one()?)?),
        other => return Err(unknown("source", other, &NAMES)),
    })
}

/// The schema of a source that has one port.
fn one_port<'a>(connection: &Connection, ports: &'a [SourcePort]) -> Result<&'a SchemaRef, Diagnostic> {
    match ports {
        [port] => Ok(&port.schema),
        _ => Err(Diagnostic::user(format!("`{}` has one port for rows", connection.connector))
            .detail(format!("the job declares {}", ports.len()))),
    }
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
