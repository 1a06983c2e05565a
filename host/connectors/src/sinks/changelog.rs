//! What a sink does with a changelog: all changes as they are, or the last state by key.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use arrow_array::Array;
use arrow_ord::ord::make_comparator;
use arrow_schema::{ArrowError, SchemaRef, SortOptions};
use model::batch::RowKind;
use model::{Batch, Diagnostic};

use crate::options::{Options, nearest};

/// What will reach a sink.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// The schema of its rows.
    pub schema: SchemaRef,
    /// They may be other than inserts.
    pub changes: bool,
}

/// The options of sinks that write changelogs.
pub(super) const OPTIONS: [&str; 2] = ["changelog", "key"];

/// How changes are written.
#[derive(Clone, Debug)]
pub(super) enum Changelog {
    /// There are none: all rows are inserts, and nothing is said of it.
    Inserts,
    /// Each as it comes.
    Retract,
    /// By key: the new state of a row, or that it is gone.
    Upsert {
        /// The columns by which a row is found again.
        key: Vec<usize>,
    },
}

impl Changelog {
    /// As the options say, for what will arrive. They are checked even where all rows are inserts: the
    /// same job runs in batches too.
    pub(super) fn of(sink: &str, options: &Options<'_>, arriving: &Arriving) -> Result<Self, Diagnostic> {
        let upsert = options.one_of("changelog", &["retract", "upsert"])? == Some("upsert");
        if !upsert && options.text("key").is_some() {
            return Err(Diagnostic::user(format!(
                "the option `key` of `{sink}` is for `changelog` = `upsert`"
            )));
        }
        let key = if upsert { columns(options.required("key")?, &arriving.schema)? } else { Vec::new() };
        Ok(match (arriving.changes, upsert) {
            (false, _) => Self::Inserts,
            (true, false) => Self::Retract,
            (true, true) => Self::Upsert { key },
        })
    }

    /// Whether rows are written with their kinds.
    pub(super) fn has_kinds(&self) -> bool {
        !matches!(self, Self::Inserts)
    }

    /// The rows as they are to be written.
    ///
    /// By key, what replaces a row makes it needless to say that it is gone; but where the next row is
    /// of another key, the old form is a row that is gone.
    pub(super) fn rows<'a>(&self, batch: &'a Batch) -> Result<Cow<'a, Batch>, Diagnostic> {
        match self {
            Self::Upsert { key } if batch.num_rows() > 0 => {
                upserts(batch, key).map(Cow::Owned).map_err(|error| {
                    Diagnostic::internal("a changelog cannot be written").detail(error.to_string())
                })
            }
            _ => Ok(Cow::Borrowed(batch)),
        }
    }
}

fn upserts(batch: &Batch, key: &[usize]) -> Result<Batch, ArrowError> {
    let Some(kinds) = batch.kinds() else {
        let kinds = vec![RowKind::UpdateAfter as u8; batch.num_rows()];
        return Ok(batch.clone().with_kinds(Some(kinds.into())));
    };
    let of_key = |column: &usize| {
        let column = batch.column(*column);
        make_comparator(column as &dyn Array, column as &dyn Array, SortOptions::default())
    };
    let comparators = key.iter().map(of_key).collect::<Result<Vec<_>, _>>()?;
    let is_replaced = |row: usize| {
        kinds.get(row + 1) == Some(&(RowKind::UpdateAfter as u8))
            && comparators.iter().all(|compare| compare(row, row + 1).is_eq())
    };
    let (mut places, mut written) = (Vec::new(), Vec::new());
    for (row, kind) in kinds.iter().enumerate() {
        let is_old = *kind == RowKind::UpdateBefore as u8;
        if is_old && is_replaced(row) {
            continue;
        }
        let is_gone = is_old || *kind == RowKind::Delete as u8;
        places.push(row as u32);
        written.push(if is_gone { RowKind::Delete as u8 } else { RowKind::UpdateAfter as u8 });
    }
    let rows = if places.len() == batch.num_rows() { batch.clone() } else { batch.take(&places)? };
    Ok(rows.with_kinds(Some(written.into())))
}

/// The columns of these names, which commas part.
fn columns(names: &str, schema: &SchemaRef) -> Result<Vec<usize>, Diagnostic> {
    let column = |name: &str| {
        schema.index_of(name).map_err(|_| {
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let error =
                Diagnostic::user(format!("the option `key` names a column `{name}`, which there is not"))
                    .detail(format!("there are: {}", known.join(", ")));
            match nearest(name, known) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    };
    names.split(',').map(|name| column(name.trim())).collect()
}
