//! `streamctl state`: what operators keep in a checkpoint or savepoint, and savepoints made of rows.

mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, TimestampMillisecondArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use model::Diagnostic;
use serde_json::json;
use task::{KeptTable, Restored};

use crate::cli::{StateArgs, StateCommand};
use crate::terminal::{answer, bytes, count};
use crate::{Done, Stop};
use cluster::{Config, checkpoints};

pub(crate) fn state(args: &StateArgs) -> Done {
    if let Some(StateCommand::Write(args)) = &args.command {
        return write::write(args);
    }
    let path = args.path.as_deref().unwrap_or(Path::new(""));
    let config = Config::load(&args.define).map_err(Stop::Refused)?;
    let restored = checkpoints::open(&config, path).map_err(Stop::Refused)?;
    let text = match (&args.operator, &args.state) {
        (Some(uid), Some(state)) => rows_text(&restored, uid, state, args.json),
        _ => tables_text(&restored, args.json),
    };
    answer(&text.map_err(Stop::Refused)?);
    Ok(())
}

/// Rows of texts under a head, each column as wide as it has to be; those of numbers to the right.
fn aligned(head: &[&str], rows: &[Vec<String>], is_number: impl Fn(usize) -> bool) -> String {
    let width = |column: usize| {
        let of_rows = rows.iter().map(|row| row[column].chars().count());
        of_rows.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |row: &mut dyn Iterator<Item = &str>| {
        let cells = row.zip(&widths).enumerate().map(|(column, (cell, width))| match is_number(column) {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

fn kind(table: &KeptTable) -> String {
    serde_json::to_value(table.table.kind)
        .ok()
        .and_then(|kind| kind.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The columns with their types, as far as there are rows.
fn columns(table: &KeptTable) -> Vec<(String, Option<String>)> {
    match &table.schema {
        Some(schema) => {
            let fields = schema.fields().iter();
            fields.map(|field| (field.name().clone(), Some(field.data_type().to_string()))).collect()
        }
        None => {
            let of = &table.table;
            of.keys.iter().chain(&of.own_keys).chain(&of.values).map(|name| (name.clone(), None)).collect()
        }
    }
}

/// An instant in milliseconds since the epoch, as people read it.
fn instant(ms: i64) -> String {
    let column: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![ms]));
    match ArrayFormatter::try_new(&column, &FormatOptions::default()) {
        Ok(formatter) => format!("{}Z", formatter.value(0)),
        Err(_) => format!("{ms} ms since the epoch"),
    }
}

fn tables_text(restored: &Restored, json: bool) -> Result<String, Diagnostic> {
    let (manifest, tables) = (restored.manifest(), restored.tables()?);
    if json {
        let mut text = String::new();
        for table in &tables {
            let columns: Vec<_> = columns(table)
                .into_iter()
                .map(|(name, data_type)| json!({ "name": name, "type": data_type }))
                .collect();
            let line = json!({
                "operator": table.operator,
                "uid": table.uid,
                "state": table.table.name,
                "kind": kind(table),
                "rows": table.rows,
                "bytes": table.bytes,
                "columns": columns,
            });
            text.push_str(&format!("{line}\n"));
        }
        return Ok(text);
    }
    let what = match (manifest.is_savepoint, manifest.is_drained()) {
        (true, true) => "Savepoint of a drained job",
        (true, false) => "Savepoint",
        (false, _) => "Checkpoint",
    };
    let mut text =
        format!("{what} {} of job {} ({})\n", manifest.checkpoint, manifest.job.name, manifest.job.id);
    text.push_str(&format!(
        "begun {}, complete after {} ms, {}\n",
        instant(manifest.began),
        count(manifest.duration),
        bytes(manifest.bytes())
    ));
    let mut operators = BTreeMap::new();
    for (uid, operator) in &manifest.operators {
        let sections = operator.subtasks.iter().flat_map(|subtask| &subtask.sections);
        let mut others: Vec<&str> = sections
            .map(|section| section.kind.as_str())
            .filter(|kind| !operator.tables.iter().any(|table| table.section == *kind))
            .collect();
        others.sort_unstable();
        others.dedup();
        operators.insert(uid, (operator, others.join(", ")));
    }
    let rows: Vec<Vec<String>> = operators
        .iter()
        .map(|(uid, (operator, others))| {
            let (parallelism, groups) =
                (operator.parallelism.to_string(), operator.max_parallelism.to_string());
            let size = bytes(operator.bytes());
            vec![(*uid).clone(), operator.name.clone(), parallelism, groups, size, others.clone()]
        })
        .collect();
    text.push('\n');
    let head = ["UID", "OPERATOR", "PARALLELISM", "KEY GROUPS", "SIZE", "BESIDES"];
    text.push_str(&aligned(&head, &rows, |column| [2, 3, 4].contains(&column)));
    if tables.is_empty() {
        return Ok(text);
    }
    let rows: Vec<Vec<String>> = tables
        .iter()
        .map(|table| {
            let columns = columns(table).into_iter().map(|(name, data_type)| match data_type {
                Some(data_type) => format!("{name}: {data_type}"),
                None => name,
            });
            let columns = columns.collect::<Vec<_>>().join(", ");
            let (rows, size) = (count(table.rows), bytes(table.bytes));
            vec![table.uid.clone(), table.table.name.clone(), kind(table), rows, size, columns]
        })
        .collect();
    text.push('\n');
    let head = ["UID", "STATE", "KIND", "ROWS", "SIZE", "COLUMNS"];
    text.push_str(&aligned(&head, &rows, |column| [3, 4].contains(&column)));
    Ok(text)
}

fn rows_text(restored: &Restored, uid: &str, state: &str, json: bool) -> Result<String, Diagnostic> {
    let batches = restored.rows(uid, state)?;
    let wrong = |error: arrow_schema::ArrowError| {
        Diagnostic::internal("rows cannot be shown").detail(error.to_string())
    };
    if json {
        return connectors::rows::to_json(&batches).map_err(wrong);
    }
    let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok("(no rows)\n".to_owned()) };
    let options = FormatOptions::default().with_null("null");
    let mut rows = Vec::new();
    for batch in &batches {
        let cells = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let cells = cells.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        rows.extend(
            (0..batch.num_rows())
                .map(|row| cells.iter().map(|cell| cell.value(row).to_string()).collect::<Vec<String>>()),
        );
    }
    rows.sort_unstable();
    let head: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Ok(aligned(&head, &rows, |column| schema.field(column).data_type().is_numeric()))
}
