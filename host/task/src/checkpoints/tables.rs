//! The keyed state in a checkpoint or savepoint, for people and other programs.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use checkpoint::manifest::{Operator, Table, TableKind};
use model::Diagnostic;
use state::StateChunk;
use state::canonical::{can_be_flat, named};

use super::savepoint::{names_of, table_of_section};
use super::{Restored, section};

/// A table of an operator's keyed state.
#[derive(Clone, Debug)]
pub struct KeptTable {
    /// The operator's uid.
    pub uid: String,
    /// Its name.
    pub operator: String,
    /// What the state is called, its columns, and which entries it has.
    pub table: Table,
    /// How many rows there are.
    pub rows: u64,
    /// How many bytes they take where they lie.
    pub bytes: u64,
    /// The columns as they are in a canonical savepoint; none = there are no rows, so that the types are not known.
    pub schema: Option<SchemaRef>,
}

impl Restored {
    /// All tables with their sizes, by operator.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn tables(&self) -> Result<Vec<KeptTable>, Diagnostic> {
        let mut tables = Vec::new();
        for (uid, operator) in &self.manifest().operators {
            for table in &operator.tables {
                let (batches, bytes) = self.rows_of(uid, operator, table)?;
                let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                if rows == 0 && table.kind == TableKind::Timers {
                    continue;
                }
                tables.push(KeptTable {
                    uid: uid.clone(),
                    operator: operator.name.clone(),
                    table: table.clone(),
                    rows: rows as u64,
                    bytes,
                    schema: batches.first().map(RecordBatch::schema),
                });
            }
        }
        Ok(tables)
    }

    /// The rows of a state, as a canonical savepoint has them; of timers by the name `timers`.
    ///
    /// # Errors
    /// If there is no such operator or state, or it cannot be read.
    pub fn rows(&self, uid: &str, state: &str) -> Result<Vec<RecordBatch>, Diagnostic> {
        let operators = &self.manifest().operators;
        let listed = |names: Vec<&str>| match names.is_empty() {
            true => "there is none".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        let Some(operator) = operators.get(uid) else {
            let uids = operators.iter().filter(|(_, of)| !of.tables.is_empty()).map(|(uid, _)| uid.as_str());
            return Err(Diagnostic::user(format!("there is no operator of uid `{uid}`"))
                .detail(listed(uids.collect())));
        };
        let of_name: Vec<&Table> = operator.tables.iter().filter(|table| table.name == state).collect();
        if of_name.is_empty() {
            let names = operator.tables.iter().map(|table| table.name.as_str()).collect();
            return Err(Diagnostic::user(format!("`{uid}` has no state `{state}`")).detail(listed(names)));
        }
        let mut rows = Vec::new();
        for table in of_name {
            rows.extend(self.rows_of(uid, operator, table)?.0);
        }
        Ok(rows)
    }

    fn rows_of(
        &self,
        uid: &str,
        operator: &Operator,
        table: &Table,
    ) -> Result<(Vec<RecordBatch>, u64), Diagnostic> {
        let wrong = |what: String| {
            Diagnostic::user(format!(
                "state `{}` of `{}` (uid `{uid}`) cannot be read",
                table.name, operator.name
            ))
            .detail(what)
        };
        let of = table_of_section(&table.section);
        let of = of.ok_or_else(|| wrong(format!("there is no table `{}`", table.section)))?;
        let (mut chunks, mut size): (Vec<StateChunk>, u64) = (Vec::new(), 0);
        for subtask in &operator.subtasks {
            let sections = subtask.sections.iter().filter(|section| section.kind == table.section);
            size +=
                sections.filter_map(|section| Some(self.bytes(&section.place)?.len() as u64)).sum::<u64>();
            let backend = section::backend_of(&table.section).unwrap_or_default();
            let mut rows = self.rows_of_backend(operator, (subtask, backend), true).map_err(&wrong)?;
            while let Some(chunk) = rows.next() {
                let chunk = chunk.map_err(&wrong)?;
                if chunk.table != of || chunk.rows() == 0 {
                    continue;
                }
                // Where a store's rows lie, others are between them.
                size += if rows.is_far { chunk.bytes() as u64 } else { 0 };
                chunks.push(chunk);
            }
            // Every subtask has the same.
            if table.kind == TableKind::Broadcast && !chunks.is_empty() {
                break;
            }
        }
        let (names, flat) = (names_of(table, operator.max_parallelism), can_be_flat(&chunks));
        let batches = chunks.iter().map(|chunk| named(chunk, &names, flat)).collect::<Result<_, _>>();
        Ok((batches.map_err(|error| wrong(error.to_string()))?, size))
    }
}
