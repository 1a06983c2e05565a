//! Windows of so many rows, against the last rows of a list.

use super::*;

/// The rows that leave by brute force: key, results, event time.
fn expected_rows(
    (size, step): (u64, u64),
    list: &[Aggregate],
    batches: &[Vec<Row>],
) -> Vec<(Vec<String>, Option<i64>)> {
    let mut of_keys: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    let mut given = Vec::new();
    for row in batches.iter().flatten() {
        let rows = of_keys.entry(row.key).or_default();
        rows.push(*row);
        if (rows.len() as u64).is_multiple_of(step) {
            let from = rows.len().saturating_sub(size as usize);
            let values = result(list, &rows[from..]);
            given.push(([vec![row.key.to_string()], values].concat(), Some(row.time)));
        }
    }
    given
}

fn run_rows((size, step): (u64, u64), list: &[Aggregate], batches: &[Vec<Row>], batch_mode: bool) -> Run {
    let window = Window { aggregates: list.to_vec(), ..counting(Assigner::Count { size, step }) };
    let output = window_schema(&input(), &[0], &window.assigner, &window.aggregates).unwrap();
    let set_up = SetUp {
        inputs: &[input()],
        keys: &[vec![0]],
        outputs: &[output],
        changes: false,
        from_changes: &[false],
        batch: batch_mode,
    };
    let mut run = Run::new(&NodeKind::Window(window), &set_up);
    batches.iter().for_each(|rows| run.step(&Step::Rows(0, batch(rows))));
    run.end();
    run
}

fn given_rows(run: &Run) -> Vec<(Vec<String>, Option<i64>)> {
    run.given.iter().map(|(.., row)| row.clone()).zip(run.times.iter().copied()).collect()
}

fn batches() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let row = (0i64..4, -50i64..50, proptest::option::weighted(0.8, 0i64..6))
        .prop_map(|(key, time, n)| Row { key: key / 2, time, n });
    proptest::collection::vec(proptest::collection::vec(row, 1..90), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// In the order of arrival, each at its last row's time.
    #[test]
    fn windows_of_rows_are_the_last_rows(
        size in prop_oneof![1u64..12, 1u64..400],
        step_of in 1u64..400,
        divided in any::<bool>(),
        which in 0usize..4,
        batch_mode in any::<bool>(),
        batches in batches(),
    ) {
        // Also steps that the size is a multiple of.
        let step = if divided {
            (1..=size).filter(|step| size % step == 0).nth(step_of as usize % 3).unwrap_or(size)
        } else {
            step_of.min(size)
        };
        let all = lists();
        let list: Vec<Aggregate> = all[which].iter().filter(|a| a.function == "top" || a.options.is_empty()).cloned().collect();
        let run = run_rows((size, step), &list, &batches, batch_mode);
        prop_assert_eq!(given_rows(&run), expected_rows((size, step), &list, &batches));
    }
}

#[test]
fn a_window_of_a_row_less_is_noticed() {
    let rows: Vec<Row> = (0..10).map(|at| row(1, at)).collect();
    let list = [aggregate("rows", false)];
    let run = run_rows((4, 2), &list, std::slice::from_ref(&rows), false);
    assert_eq!(given_rows(&run), expected_rows((4, 2), &list, std::slice::from_ref(&rows)));
    assert_ne!(given_rows(&run), expected_rows((3, 2), &list, &[rows]));
}
