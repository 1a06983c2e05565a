//! Windows in two phases against windows by brute force.

use super::*;
use crate::local::{Folding, LocalWindow, has_two_phases, local_schema};
use crate::operator::operator_of;
use crate::test_support::after_first_phase;

fn plain(assigner: Assigner, aggregates: Vec<Aggregate>) -> Window {
    Window { aggregates, ..counting(assigner) }
}

/// Runs a window over rows that so many producers in turn have folded; `lost` forgets the last row of what
/// a producer gives.
fn run_folded(window: &Window, folding: Folding, producers: usize, lost: bool, events: &[Event]) -> Run {
    let input = input();
    let mut first: Vec<LocalWindow> = (0..producers)
        .map(|seed| LocalWindow::new(window, &input, &[0], folding, seed as u64).unwrap())
        .collect();
    let set_up = SetUp {
        inputs: &[local_schema(window, &input, &[0]).unwrap()],
        keys: &[vec![0]],
        outputs: &[window_schema(&input, &[0], &window.assigner, &window.aggregates).unwrap()],
        changes: false,
        from_changes: &[false],
        batch: false,
    };
    let kind = NodeKind::Window(window.clone());
    let operator = after_first_phase(&set_up, Some(&input), |setting| operator_of(&kind, setting).unwrap());
    let mut run = Run::of(operator);
    let mut watermark = i64::MIN;
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Rows(rows) => {
                let folded = first[number % producers].fold(&batch(rows)).unwrap();
                let count = folded.num_rows() - usize::from(lost && folded.num_rows() > 1);
                run.step(&Step::Rows(0, folded.slice(0, count)));
            }
            Event::Watermark(time) => {
                watermark = watermark.max(*time);
                run.step(&Step::Watermark(watermark));
            }
        }
    }
    run.end();
    run
}

fn differs(
    assigner: &Assigner,
    list: &[Aggregate],
    (folding, producers, lost): (Folding, usize, bool),
    events: &[Event],
) -> Option<String> {
    let window = plain(assigner.clone(), list.to_vec());
    if !has_two_phases(&window, &input()).unwrap() {
        return None;
    }
    let expected = expected(assigner, list, 0, events);
    let run = run_folded(&window, folding, producers, lost, events);
    let (given, wanted) = (last_results(&run), as_texts(&expected));
    let is_equal = given == wanted && run.given.len() == wanted.len() && run.late == expected.late;
    (!is_equal)
        .then(|| format!("{given:?} in place of {wanted:?}, {} late in place of {}", run.late, expected.late))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn two_phases_give_what_one_gives(
        assigner in assigners(),
        list in proptest::sample::select(lists()[..2].to_vec()),
        producers in 1usize..4,
        helps in any::<bool>(),
        events in events(),
    ) {
        let folding = if helps { Folding::WhileItHelps } else { Folding::Always };
        let differs = differs(&assigner, &list, (folding, producers, false), &events);
        prop_assert!(differs.is_none(), "{}", differs.unwrap());
    }
}

#[test]
fn a_partial_row_that_is_lost_is_reported() {
    let rows = (0..6).map(|n| Row { key: n % 3, time: n, n: Some(n) }).collect();
    let events = [Event::Rows(rows)];
    let assigner = Assigner::Tumbling(grid(10, 10, 0));
    let of = |lost| differs(&assigner, &lists()[0], (Folding::Always, 1, lost), &events);
    assert_eq!(of(false), None);
    assert!(of(true).unwrap().contains("0 late in place of 0"));
}

#[test]
fn rows_that_stay_as_many_pass_and_are_looked_at_again() {
    let window = plain(Assigner::Tumbling(grid(10, 10, 0)), lists()[0].clone());
    let mut first = LocalWindow::new(&window, &input(), &[0], Folding::WhileItHelps, 1).unwrap();
    let rows =
        |keys: i64| -> Vec<Row> { (0..1024).map(|n| Row { key: n % keys, time: 1, n: Some(n) }).collect() };
    // While they fold, and until it is clear that they do not.
    assert_eq!(first.fold(&batch(&rows(4))).unwrap().num_rows(), 4);
    (0..40).for_each(|_| assert_eq!(first.fold(&batch(&rows(1024))).unwrap().num_rows(), 1024));
    assert_eq!(first.fold(&batch(&rows(4))).unwrap().num_rows(), 1024);
    let folded = (0..1000).map(|_| first.fold(&batch(&rows(4))).unwrap().num_rows()).find(|rows| *rows == 4);
    assert_eq!(folded, Some(4), "it is never looked at again");
}

#[test]
fn what_cannot_be_merged_or_waits_for_late_rows_has_one_phase() {
    let tumbling = || Assigner::Tumbling(grid(10, 10, 0));
    let has = |window: &Window| has_two_phases(window, &input()).unwrap();
    let [sums, extremes, ordered, tops] = lists();
    assert!(has(&plain(tumbling(), sums.clone())) && has(&plain(tumbling(), extremes)));
    assert!(has(&plain(Assigner::Sliding(grid(10, 5, 0)), sums.clone())));
    for one in [
        plain(tumbling(), ordered),
        plain(tumbling(), tops),
        plain(Assigner::Session(Duration::from_millis(5)), sums.clone()),
        plain(Assigner::Everything, sums.clone()),
        plain(Assigner::Sliding(grid(5, 10, 0)), sums.clone()),
        Window { lateness: Duration::from_millis(1), ..plain(tumbling(), sums.clone()) },
        Window { late_port: Some(1), ..plain(tumbling(), sums.clone()) },
        Window { time: TimeDomain::ProcessingTime, ..plain(tumbling(), sums.clone()) },
        Window { trigger: Trigger::Early(Duration::from_millis(1)), ..plain(tumbling(), sums) },
    ] {
        assert!(!has(&one), "{one:?}");
    }
}
