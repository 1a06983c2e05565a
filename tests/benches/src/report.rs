//! Rows of figures.

use serde::{Deserialize, Serialize};

/// A figure, beside what it is compared with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) bench: String,
    pub(crate) subject: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// To the baseline's value; none = it is one, or has none.
    pub(crate) ratio: Option<f64>,
    pub(crate) baseline: Option<String>,
    pub(crate) rounds: usize,
}

/// All rows of a run.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a figure of a bench; with a ratio, if it is compared with another's name and value.
    pub(crate) fn compare(
        &mut self,
        (bench, rounds): (&str, usize),
        subject: &str,
        value: f64,
        unit: &str,
        against: Option<(&str, f64)>,
    ) {
        self.add(Row {
            bench: bench.to_owned(),
            subject: subject.to_owned(),
            value,
            unit: unit.to_owned(),
            ratio: against.map(|(_, baseline)| value / baseline),
            baseline: against.map(|(name, _)| name.to_owned()),
            rounds,
        });
    }

    /// Adds the rows that another process has written as JSON.
    pub(crate) fn add_json(&mut self, text: &str) -> anyhow::Result<()> {
        let rows: Vec<Row> = serde_json::from_str(text)?;
        self.rows.extend(rows);
        Ok(())
    }

    pub(crate) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(&self.rows)? + "\n")
    }

    /// As Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| bench | subject | value | unit | ratio | baseline | rounds |\n|---|---|---:|---|---:|---|---:|\n",
        );
        for row in &self.rows {
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let baseline = row.baseline.as_deref().unwrap_or_default();
            text.push_str(&format!(
                "| {} | {} | {:.2} | {} | {ratio} | {baseline} | {} |\n",
                row.bench, row.subject, row.value, row.unit, row.rounds
            ));
        }
        text
    }
}
