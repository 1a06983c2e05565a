use super::*;
use chrono::{NaiveDate, NaiveDateTime, TimeZone};
use model::job_graph::Assigner;
use proptest::prelude::*;
use std::time::Duration;

const HOUR: i64 = 60 * 60 * 1_000;
const DAY: i64 = 24 * HOUR;

fn plan(size: i64, step: i64, offset: i64, zone: Option<&str>) -> Grid {
    let length = |ms: i64| Duration::from_millis(ms.cast_unsigned());
    Grid { size: length(size), step: length(step), offset, zone: zone.map(ToOwned::to_owned) }
}

fn sliding(size: i64, step: i64, offset: i64) -> WindowGrid {
    WindowGrid::new(&Assigner::Sliding(plan(size, step, offset, None))).unwrap()
}

fn days(size: i64, step: i64, offset: i64) -> WindowGrid {
    let plan = plan(size * DAY, step * DAY, offset, Some("Europe/Berlin"));
    WindowGrid::new(&Assigner::Sliding(plan)).unwrap()
}

fn windows_of(grid: &WindowGrid, time: i64) -> Vec<(i64, i64)> {
    grid.windows_of_slice(grid.slice_end(time)).collect()
}

/// Local time in Berlin.
fn berlin(year: i32, month: u32, day: u32, hour: u32) -> i64 {
    let local: NaiveDateTime =
        NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(hour, 0, 0).unwrap();
    chrono_tz::Europe::Berlin.from_local_datetime(&local).earliest().unwrap().timestamp_millis()
}

#[test]
fn tumbling_at_edges_and_before_the_epoch() {
    let grid = WindowGrid::new(&Assigner::Tumbling(plan(10, 10, 0, None))).unwrap();
    assert_eq!(windows_of(&grid, 0), [(0, 10)]);
    assert_eq!(windows_of(&grid, 9), [(0, 10)]);
    assert_eq!(windows_of(&grid, 10), [(10, 20)]);
    assert_eq!(windows_of(&grid, -1), [(-10, 0)]);
    assert_eq!(windows_of(&grid, -10), [(-10, 0)]);
    let grid = WindowGrid::new(&Assigner::Tumbling(plan(10, 10, -3, None))).unwrap();
    assert_eq!(windows_of(&grid, 6), [(-3, 7)]);
    assert_eq!(windows_of(&grid, 7), [(7, 17)]);
}

#[test]
fn sliding_and_cumulating() {
    let grid = sliding(10, 4, 1);
    // Slices of 2: edges 1, 3, 5, 7, 9 …; windows from 1 − 8, 1 − 4, 1.
    assert_eq!(windows_of(&grid, 2), [(-7, 3), (-3, 7), (1, 11)]);
    assert_eq!(windows_of(&grid, 3), [(-3, 7), (1, 11)]);
    assert_eq!(grid.slices_of_window(11).collect::<Vec<_>>(), [3, 5, 7, 9, 11]);
    let grid = WindowGrid::new(&Assigner::Cumulating(plan(30, 10, 5, None))).unwrap();
    assert_eq!(windows_of(&grid, 5), [(5, 15), (5, 25), (5, 35)]);
    assert_eq!(windows_of(&grid, 15), [(5, 25), (5, 35)]);
    assert_eq!(windows_of(&grid, 4), [(-25, 5)]);
    assert_eq!(grid.window_start(25), 5);
    assert_eq!(grid.window_start(35), 5);
}

#[test]
fn days_of_a_zone_are_of_23_to_25_hours() {
    let grid = days(1, 1, 0);
    let length =
        |time| windows_of(&grid, time).iter().map(|(start, end)| (end - start) / HOUR).collect::<Vec<_>>();
    assert_eq!(windows_of(&grid, berlin(2024, 3, 31, 12)), [(berlin(2024, 3, 31, 0), berlin(2024, 4, 1, 0))]);
    assert_eq!(length(berlin(2024, 3, 31, 12)), [23]);
    assert_eq!(length(berlin(2024, 10, 27, 12)), [25]);
    assert_eq!(length(berlin(2024, 6, 1, 12)), [24]);
    // An edge that the clocks skip is where they skip it; one that comes twice is where it comes first.
    let grid = days(1, 1, 2 * HOUR + HOUR / 2);
    assert_eq!(grid.slice_end(berlin(2024, 3, 31, 1)), berlin(2024, 3, 31, 3));
    let first = berlin(2024, 10, 27, 2) + HOUR / 2;
    assert_eq!(grid.slice_end(first - 1), first);
    assert_eq!(grid.slice_end(first + HOUR - 1), berlin(2024, 10, 28, 2) + HOUR / 2);
}

#[test]
fn a_day_that_a_zone_skips() {
    // Apia had no 30th of December 2011.
    let skipped = NaiveDate::from_ymd_opt(2011, 12, 30).unwrap().and_hms_opt(10, 0, 0).unwrap();
    let midnight = skipped.and_utc().timestamp_millis();
    for (size, ends) in [(1, vec![1]), (3, vec![1, 2, 3])] {
        let plan = plan(size * DAY, DAY, 0, Some("Pacific/Apia"));
        let grid = WindowGrid::new(&Assigner::Sliding(plan)).unwrap();
        let found: Vec<_> = grid.windows_of_slice(grid.slice_end(midnight)).map(|window| window.1).collect();
        assert_eq!(found, ends.iter().map(|day| midnight + day * DAY).collect::<Vec<_>>());
        let before = grid.windows_of_slice(grid.slice_end(midnight - 1)).collect::<Vec<_>>();
        assert!(before.is_sorted_by(|a, b| a.1 < b.1), "{before:?}");
        assert!(before.iter().all(|(start, end)| grid.window_start(*end) == *start), "{before:?}");
    }
}

#[test]
fn extreme_times_do_not_wrap() {
    for grid in [sliding(10, 4, 3), sliding(1_000 * 366 * DAY, DAY, -5), days(7, 1, HOUR)] {
        for time in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
            let end = grid.slice_end(time);
            let is_in = grid.holds(time);
            assert_eq!(end > time && grid.window_start(end) <= time, is_in, "{time}");
            assert!(grid.windows_of_slice(end).take(3).all(|(start, end)| start <= end));
            assert_eq!(is_in, (-1..=0).contains(&time));
        }
        for time in [grid.first, grid.last] {
            let end = grid.slice_end(time);
            let windows: Vec<_> = grid.windows_of_slice(end).take(9).collect();
            assert!(windows.iter().all(|(start, end)| (*start..*end).contains(&time)), "{windows:?}");
            assert!(windows.iter().all(|(start, end)| grid.window_start(*end) == *start), "{windows:?}");
        }
        assert!(grid.holds(i64::MAX / 2) && grid.holds(i64::MIN / 2));
    }
}

#[test]
fn what_is_no_grid_is_refused() {
    let is_refused = |assigner: &Assigner| WindowGrid::new(assigner).is_err();
    assert!(is_refused(&Assigner::Session(Duration::from_secs(1))));
    assert!(is_refused(&Assigner::Tumbling(plan(0, 0, 0, None))));
    assert!(is_refused(&Assigner::Sliding(plan(1, 2, 0, None))));
    assert!(is_refused(&Assigner::Cumulating(plan(3, 2, 0, None))));
    assert!(is_refused(&Assigner::Tumbling(plan(DAY, DAY, 0, Some("Europe/Atlantis")))));
    let long = Duration::MAX;
    assert!(is_refused(&Assigner::Tumbling(Grid { size: long, step: long, offset: 0, zone: None })));
}

/// The windows of a time, one by one from the definition.
fn by_definition(is_cumulating: bool, size: i64, step: i64, offset: i64, time: i64) -> Vec<(i64, i64)> {
    let mut windows = Vec::new();
    let span = 2 * size + offset.abs();
    let every = if is_cumulating { size } else { step };
    for start in (time - span..=time).filter(|start| (start - offset).rem_euclid(every) == 0) {
        let lengths: Vec<i64> = match is_cumulating {
            true => (1..=size / step).map(|steps| steps * step).collect(),
            false => vec![size],
        };
        windows.extend(lengths.iter().map(|length| (start, start + length)).filter(|window| time < window.1));
    }
    windows.sort_by_key(|window| window.1);
    windows
}

proptest! {
    #[test]
    fn as_defined(
        step in 1i64..20,
        more in 0i64..60,
        offset in any::<prop::sample::Index>(),
        is_cumulating in any::<bool>(),
        times in prop::collection::vec(-500i64..500, 1..40),
    ) {
        let offset = offset.index(2 * step as usize - 1) as i64 - (step - 1);
        let size = if is_cumulating { step * (1 + more / 10) } else { step + more };
        let plan = plan(size, step, offset, None);
        let grid = match is_cumulating {
            true => WindowGrid::new(&Assigner::Cumulating(plan)),
            false => WindowGrid::new(&Assigner::Sliding(plan)),
        };
        let grid = grid.unwrap();
        let mut ends = Vec::new();
        grid.slice_ends(&times, &mut ends);
        for (time, slice_end) in times.iter().zip(ends) {
            prop_assert_eq!(grid.slice_end(*time), slice_end);
            let windows: Vec<_> = grid.windows_of_slice(slice_end).collect();
            prop_assert_eq!(&windows, &by_definition(is_cumulating, size, step, offset, *time));
            prop_assert_eq!(grid.last_window_end(slice_end), windows.last().unwrap().1);
            for (start, end) in windows {
                prop_assert_eq!(grid.window_start(end), start);
                let slices: Vec<_> = grid.slices_of_window(end).collect();
                prop_assert!(slices.contains(&slice_end));
                prop_assert_eq!(slices.last(), Some(&end));
            }
        }
    }

    /// With a zone: a time is in the window between the midnights around it.
    #[test]
    fn days_lie_between_midnights(hour in -600_000i64..600_000, size in 1i64..4) {
        let grid = days(size, 1, 0);
        let time = hour * HOUR / 2;
        let windows = windows_of(&grid, time);
        prop_assert_eq!(windows.len() as i64, size);
        for (start, end) in windows {
            prop_assert!((start..end).contains(&time));
            for edge in [start, end] {
                let local = chrono_tz::Europe::Berlin.timestamp_millis_opt(edge).unwrap().naive_local();
                prop_assert_eq!(local.time(), chrono::NaiveTime::MIN);
            }
            prop_assert!(((end - start) - size * DAY).abs() <= HOUR);
            prop_assert_eq!(grid.window_start(end), start);
        }
    }
}
