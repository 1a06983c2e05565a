//! A stand-in for the host's native aggregates.

use std::collections::{BTreeMap, BTreeSet};

use millstream_sys::bindings::millstream::job::graph::Aggregate;
use millstream_sys::bindings::millstream::job::rows::{Batch, DataType, Field};

use super::value::{Value, column_of, value_at};

/// The running aggregates of a node, by key.
pub(super) struct Aggregates {
    keys: Vec<u32>,
    aggregates: Vec<Aggregate>,
    input: Vec<Field>,
    output: Vec<Field>,
    running: BTreeMap<Vec<u8>, Vec<Running>>,
}

#[derive(Clone, Default)]
struct Running {
    count: i64,
    sum: Option<Value>,
    extreme: Option<Value>,
    first: Option<Value>,
    last: Option<Value>,
    /// the values so far, where each counts once
    seen: BTreeSet<Vec<u8>>,
}

impl Aggregates {
    pub(super) fn new(
        keys: Vec<u32>,
        aggregates: Vec<Aggregate>,
        input: Vec<Field>,
        output: Vec<Field>,
    ) -> Aggregates {
        Aggregates { keys, aggregates, input, output, running: BTreeMap::new() }
    }

    /// For each row the key and its aggregates.
    pub(super) fn process(&mut self, rows: &Batch) -> Batch {
        let mut results: Vec<Vec<Value>> = vec![Vec::new(); self.output.len()];
        for row in 0..rows.length as usize {
            let keys: Vec<Value> =
                self.keys.iter().map(|key| value_at(&rows.columns[*key as usize], row)).collect();
            let bytes = keys.iter().flat_map(Value::key).collect();
            let count = self.aggregates.len();
            let running = self.running.entry(bytes).or_insert_with(|| vec![Running::default(); count]);
            let mut values = keys;
            for (running, aggregate) in running.iter_mut().zip(&self.aggregates) {
                let value = aggregate.columns.first().map(|column| *column as usize);
                let scale = value.map_or(0, |column| scale(&self.input[column]));
                let value = value.map(|column| value_at(&rows.columns[column], row));
                let is_distinct = !aggregate.options.is_empty();
                values.push(running.add(&aggregate.function, value, scale, is_distinct));
            }
            for (result, value) in results.iter_mut().zip(values) {
                result.push(value);
            }
        }
        let columns =
            self.output.iter().zip(&results).map(|(field, values)| column_of(field, values)).collect();
        Batch { length: rows.length, event_times: rows.event_times.clone(), kinds: None, columns }
    }
}

fn scale(field: &Field) -> u8 {
    if let DataType::Decimal(decimal) = field.data_type { decimal.scale } else { 0 }
}

impl Running {
    /// Adds a value (none: a row), and gives the aggregate.
    fn add(&mut self, function: &str, value: Option<Value>, scale: u8, is_distinct: bool) -> Value {
        let is_new = |value: &Value| !is_distinct || self.seen.insert(value.key());
        if value != Some(Value::Null) && value.as_ref().is_none_or(is_new) {
            self.count += 1;
            if let Some(value) = value {
                self.sum = Some(match (self.sum.take(), &value) {
                    (Some(Value::Integer(sum)), Value::Integer(value)) => Value::Integer(sum + value),
                    (Some(Value::Float(sum)), Value::Float(value)) => Value::Float(sum + value),
                    _ => value.clone(),
                });
                let is_extreme = self.extreme.as_ref().is_none_or(|extreme| match function {
                    "min" => is_less(&value, extreme),
                    _ => is_less(extreme, &value),
                });
                if is_extreme {
                    self.extreme = Some(value.clone());
                }
                self.first.get_or_insert_with(|| value.clone());
                self.last = Some(value);
            }
        }
        let average = |sum: &Value| match sum {
            Value::Integer(sum) => *sum as f64 / 10f64.powi(scale.into()) / self.count as f64,
            Value::Float(sum) => *sum / self.count as f64,
            _ => f64::NAN,
        };
        match function {
            "count" => Value::Integer(self.count.into()),
            "sum" => self.sum.clone().unwrap_or(Value::Null),
            "min" | "max" => self.extreme.clone().unwrap_or(Value::Null),
            "first" => self.first.clone().unwrap_or(Value::Null),
            "last" => self.last.clone().unwrap_or(Value::Null),
            "avg" => self.sum.as_ref().map_or(Value::Null, |sum| Value::Float(average(sum))),
            other => panic!("no aggregate is called {other}"),
        }
    }
}

fn is_less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => a < b,
        (Value::Float(a), Value::Float(b)) => a < b,
        (Value::Bytes(a), Value::Bytes(b)) => a < b,
        _ => false,
    }
}
