//! Figures of many as those of one: how they are spread, and what they come to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// How whole figures are spread, as Flink shows it of a vertex' subtasks.
pub(crate) fn of(values: impl IntoIterator<Item = i64>) -> Value {
    let mut sorted: Vec<i64> = values.into_iter().collect();
    sorted.sort_unstable();
    let sum: i64 = sorted.iter().sum();
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or_default()
    };
    let median = match sorted.len() {
        0 => 0,
        n if n % 2 == 1 => sorted[n / 2],
        n => i64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    };
    json!({
        "min": at(0),
        "max": at(100),
        "avg": sum / i64::try_from(sorted.len().max(1)).unwrap_or(1),
        "sum": sum,
        "median": median,
        "p25": at(25),
        "p75": at(75),
        "p95": at(95),
    })
}

/// The figures of each of many, which have the same names.
pub(crate) fn of_each(all: &[Value]) -> Value {
    let mut by_name: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (name, value) in all.iter().filter_map(Value::as_object).flatten() {
        // What is said of figures is none.
        if let Some(value) = value.as_i64().or_else(|| value.as_f64().map(|value| value as i64)) {
            by_name.entry(name).or_default().push(value);
        }
    }
    Value::Object(by_name.into_iter().map(|(name, values)| (name.to_owned(), of(values))).collect())
}

/// What can be asked of many figures. Flink: `?agg=`.
pub(crate) const KINDS: [&str; 5] = ["min", "max", "avg", "sum", "skew"];

/// What figures of many come to, in the ways that are asked for; none = there are none.
pub(crate) fn aggregated(name: &str, values: &[f64], kinds: &[&str]) -> Option<Value> {
    let (sum, most) = (values.iter().sum::<f64>(), values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let avg = sum / values.len() as f64;
    // By how much the greatest is above the mean, in percent of it.
    let skew = if avg == 0.0 { 0.0 } else { (most - avg) / avg * 100.0 };
    let mut told = Map::from_iter([("id".to_owned(), json!(name))]);
    for kind in kinds {
        let value = match *kind {
            "min" => least,
            "max" => most,
            "avg" => avg,
            "sum" => sum,
            _ => skew,
        };
        told.insert((*kind).to_owned(), json!(value));
    }
    (!values.is_empty()).then_some(Value::Object(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_spread_as_flink_says_it() {
        // Of a vertex of Flink's with two subtasks.
        let expected = json!({
            "p25": 7297, "min": 7297, "avg": 7305, "median": 7305, "max": 7313, "sum": 14610, "p95": 7313,
            "p75": 7313,
        });
        assert_eq!(of([7313, 7297]), expected);
        assert_eq!(of([])["max"], 0);
        let each = [json!({ "a": 1, "a-complete": true }), json!({ "a": 3.0, "a-complete": true })];
        assert_eq!(of_each(&each)["a"]["sum"], 4);
        assert_eq!(of_each(&each).as_object().map(Map::len), Some(1));
    }

    #[test]
    fn they_come_to_what_flink_says() {
        let told = aggregated("numRecordsInPerSecond", &[94.65, 98.566_666_666_666_66], &KINDS).unwrap();
        let expected = [
            94.65,
            98.566_666_666_666_66,
            96.608_333_333_333_33,
            193.216_666_666_666_67,
            2.027_085_310_100_918,
        ];
        for (kind, expected) in KINDS.iter().zip(expected) {
            let value = told[kind].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-9, "{kind}: {value}, not {expected}");
        }
        assert_eq!(aggregated("x", &[0.0, 0.0], &["skew"]), Some(json!({ "id": "x", "skew": 0.0 })));
        assert_eq!(aggregated("x", &[], &KINDS), None);
    }
}
