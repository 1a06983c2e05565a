//! The engine with a native split in the guest's place: what the sandbox costs.

use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int32Array, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use guest::{Runtime, RuntimeConfig};
use model::job_graph::NodeKind;
use model::{Batch, Diagnostic};
use platform::Platform;
use task::{JobOutcome, NativeFunction, RunOptions};

use crate::measure::guest;
use crate::totals::Totals;

/// Runs the example's job at parallelism 1, its function exchanged for [`split`].
pub(crate) fn word_count(file: &Path) -> anyhow::Result<Totals> {
    let platform = Platform::system();
    let runtime = Runtime::new(platform.clone(), RuntimeConfig::default())?;
    let program = runtime.load(&std::fs::read(guest("word_count")?)?)?;
    let args = ["--input", &file.display().to_string(), "--output", "blackhole"].map(str::to_owned);
    let graph = program.plan("word_count", &args)?.map_err(|refusal| anyhow!("{refusal:?}"))?;
    let function = (0..).zip(&graph.nodes).find(|(_, node)| matches!(node.kind, NodeKind::Function(_)));
    let Some((node, described)) = function else { bail!("the example has a function") };
    let schema = Arc::clone(&described.outputs[0].schema);
    let mut plan = task::plan(&program, "word_count", &args, graph, RunOptions::default())?;
    let native: NativeFunction =
        Arc::new(move |rows| split(rows, &schema).map_err(|error| Diagnostic::internal(error.to_string())));
    plan.replace_function(node, native);
    plan.prepare()?;
    let job = task::start(plan, &platform, Arc::new(|_| {}))?;
    match job.wait() {
        JobOutcome::Finished => {}
        other => bail!("{other:?}"),
    }
    if job.progress().calls > 0 {
        bail!("the guest was called");
    }
    let summary = job.summary().join("\n");
    Totals::of_summary(&summary)
}

/// Each line's words with a one, as the example's closure gives them.
fn split(rows: &Batch, schema: &arrow_schema::SchemaRef) -> anyhow::Result<Batch> {
    let lines = rows.column(0).as_string::<i32>();
    let mut data = Vec::with_capacity(lines.values().len());
    let mut offsets = vec![0i32];
    for row in 0..lines.len() {
        for word in lines.value(row).split_whitespace() {
            data.extend_from_slice(word.as_bytes());
            offsets.push(i32::try_from(data.len())?);
        }
    }
    let words = offsets.len() - 1;
    let text =
        StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(data), None)?;
    let columns: Vec<ArrayRef> = vec![Arc::new(text), Arc::new(Int32Array::from(vec![1; words]))];
    Ok(Batch::of(Arc::clone(schema), words, columns)?)
}
