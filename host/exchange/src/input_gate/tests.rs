//! The gate alone: batches joined, watermarks, barriers, room.

use proptest::prelude::*;

use super::*;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use model::element::LatencyMarker;
use std::time::Duration;

fn batch(values: std::ops::Range<i64>) -> BatchRange {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    Batch::new(RecordBatch::try_from_iter([("n", numbers)]).unwrap()).into()
}

fn rows_of(received: Received) -> Option<Vec<i64>> {
    match received {
        Received::Rows(_, batch) => Some(batch.column(0).as_primitive::<Int64Type>().values().to_vec()),
        Received::Mark(_) | Received::Barrier(_) | Received::Nothing | Received::End => None,
    }
}

#[test]
fn joins_what_waits_up_to_the_call_size_and_keeps_each_channels_order() {
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b) = (gate.add_channel(0), gate.add_channel(0));
    let waker = Waker::noop();
    for (channel, range) in [(&a, 0..2), (&b, 10..12), (&a, 2..4)] {
        channel.try_send(batch(range), None, waker).unwrap();
    }
    assert_eq!(rows_of(gate.receive(6).unwrap()), Some(vec![0, 1, 2, 3, 10, 11]));
    assert!(matches!(gate.receive(6).unwrap(), Received::Nothing));
    a.end();
    assert!(matches!(gate.receive(6).unwrap(), Received::Nothing));
    b.try_send(batch(12..13), None, waker).unwrap();
    b.end();
    assert_eq!(rows_of(gate.receive(6).unwrap()), Some(vec![12]));
    assert!(matches!(gate.receive(6).unwrap(), Received::End));
}

#[test]
fn a_full_gate_refuses_but_an_empty_channel_takes_one() {
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b) = (gate.add_channel(0), gate.add_channel(0));
    gate.set_rows_max(2);
    let waker = Waker::noop();
    a.try_send(batch(0..5), None, waker).unwrap();
    assert!(a.try_send(batch(5..6), None, waker).is_err());
    b.try_send(batch(7..8), None, waker).unwrap();
    assert_eq!(gate.rows_waiting(), 6);
    assert_eq!(rows_of(gate.receive(1).unwrap()), Some((0..5).collect()));
    assert_eq!(rows_of(gate.receive(1).unwrap()), Some(vec![7]));
    a.try_send(batch(5..6), None, waker).unwrap();
}

#[test]
fn inputs_are_not_mixed() {
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b) = (gate.add_channel(0), gate.add_channel(1));
    a.try_send(batch(0..1), None, Waker::noop()).unwrap();
    b.try_send(batch(1..2), None, Waker::noop()).unwrap();
    assert!(matches!(gate.receive(9).unwrap(), Received::Rows(0, _)));
    assert!(matches!(gate.receive(9).unwrap(), Received::Rows(1, _)));
}

/// Takes all that waits, as text: rows, watermarks, idleness.
fn all(gate: &mut InputGate) -> String {
    let mut said = Vec::new();
    loop {
        match gate.receive(100).unwrap() {
            Received::Mark(Mark::Watermark(time)) => said.push(format!("w{time}")),
            Received::Mark(Mark::Idle) => said.push("idle".to_owned()),
            Received::Mark(Mark::Latency(marker)) => said.push(format!("m{}", marker.source)),
            Received::Barrier(barrier) => said.push(format!("b{}", barrier.checkpoint)),
            Received::Nothing => return said.join(" "),
            Received::End => {
                said.push("end".to_owned());
                return said.join(" ");
            }
            received => said.push(format!("{:?}", rows_of(received).unwrap())),
        }
    }
}

#[test]
fn the_watermark_is_the_least_of_the_channels_and_keeps_its_place() {
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b) = (gate.add_channel(0), gate.add_channel(0));
    let waker = Waker::noop();
    a.mark(Mark::Watermark(5));
    assert_eq!(all(&mut gate), "");
    a.try_send(batch(0..1), None, waker).unwrap();
    b.try_send(batch(10..11), None, waker).unwrap();
    b.mark(Mark::Watermark(3));
    b.try_send(batch(11..12), None, waker).unwrap();
    b.mark(Mark::Watermark(9));
    assert_eq!(all(&mut gate), "[0, 10] w3 [11] w5");
    // It never falls, and one that waits gives way to the next.
    b.mark(Mark::Watermark(1));
    a.mark(Mark::Watermark(7));
    a.mark(Mark::Watermark(8));
    assert_eq!(all(&mut gate), "w8");
}

#[test]
fn what_is_idle_or_has_ended_holds_nothing_back() {
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b, c) = (gate.add_channel(0), gate.add_channel(0), gate.add_channel(1));
    a.mark(Mark::Watermark(5));
    b.mark(Mark::Idle);
    assert_eq!(all(&mut gate), "");
    c.end();
    assert_eq!(all(&mut gate), "w5");
    // Rows make it active again; the watermark stays.
    b.try_send(batch(0..1), None, Waker::noop()).unwrap();
    a.mark(Mark::Watermark(6));
    assert_eq!(all(&mut gate), "[0]");
    b.mark(Mark::Watermark(9));
    b.mark(Mark::Idle);
    assert_eq!(all(&mut gate), "w6");
    // All idle: the furthest counts.
    a.mark(Mark::Idle);
    assert_eq!(all(&mut gate), "w9 idle");
    a.mark(Mark::Idle);
    assert_eq!(all(&mut gate), "");
    a.end();
    b.end();
    assert_eq!(all(&mut gate), "end");
}

#[test]
fn latency_markers_wait_behind_rows_and_say_nothing_of_event_time() {
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b) = (gate.add_channel(0), gate.add_channel(0));
    let waker = Waker::noop();
    let marker = |source| Mark::Latency(LatencyMarker { given: Duration::ZERO, source });
    a.try_send(batch(0..1), None, waker).unwrap();
    a.mark(marker(1));
    a.try_send(batch(1..2), None, waker).unwrap();
    a.mark(Mark::Watermark(5));
    a.mark(marker(2));
    // The one before the marker is not outdated: it stands where it stood.
    a.mark(Mark::Watermark(6));
    b.mark(Mark::Idle);
    assert_eq!(all(&mut gate), "[0] m1 [1] m2 w6");
    // Idle stays idle.
    b.mark(marker(3));
    a.mark(Mark::Watermark(7));
    assert_eq!(all(&mut gate), "m3 w7");
    // Where nobody reads they do not pile up.
    (0..1_000).for_each(|_| a.mark(marker(4)));
    assert_eq!(all(&mut gate), vec!["m4"; MARKERS_MAX].join(" "));
    a.mark(marker(5));
    assert_eq!(all(&mut gate), "m5", "there is room again");
}

#[test]
fn a_barrier_follows_all_before_it_and_comes_before_all_after_it() {
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b, c) = (gate.add_channel(0), gate.add_channel(0), gate.add_channel(0));
    let waker = Waker::noop();
    let barrier = |checkpoint| Barrier { checkpoint };
    a.try_send(batch(0..1), None, waker).unwrap();
    a.barrier(barrier(1));
    a.try_send(batch(1..2), None, waker).unwrap();
    b.try_send(batch(10..11), None, waker).unwrap();
    b.mark(Mark::Watermark(5));
    assert_eq!(all(&mut gate), "[0, 10]");
    assert_eq!(gate.aligning(), Some(barrier(1)));
    // The others go on, and what ends has nothing after its barrier.
    b.try_send(batch(11..12), None, waker).unwrap();
    c.end();
    let before = gate.received().bytes;
    assert_eq!(all(&mut gate), "[11]");
    let meanwhile = gate.received().bytes - before;
    b.barrier(barrier(1));
    assert_eq!(all(&mut gate), "b1 [1]");
    // Of [10] and [11]: both came after the first barrier.
    assert_eq!(gate.bytes_aligned() as u64, 2 * meanwhile);
    assert_eq!(gate.aligning(), None);
    // The end of the last channel completes it too.
    a.barrier(barrier(2));
    a.mark(Mark::Watermark(9));
    b.end();
    assert_eq!(all(&mut gate), "b2 w9");
    assert_eq!(gate.bytes_aligned(), 0);
    a.end();
    assert_eq!(all(&mut gate), "end");
}

#[test]
fn a_barrier_that_is_given_up_blocks_nothing() {
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b) = (gate.add_channel(0), gate.add_channel(1));
    let waker = Waker::noop();
    let barrier = |checkpoint| Barrier { checkpoint };
    a.barrier(barrier(1));
    a.try_send(batch(0..1), None, waker).unwrap();
    assert_eq!(all(&mut gate), "");
    gate.abort(barrier(1));
    assert_eq!(all(&mut gate), "[0]");
    b.barrier(barrier(1));
    assert_eq!(all(&mut gate), "");
    // So does the next, which says that the one before was given up.
    a.barrier(barrier(2));
    a.try_send(batch(1..2), None, waker).unwrap();
    assert_eq!(all(&mut gate), "");
    b.barrier(barrier(3));
    assert_eq!(all(&mut gate), "[1]");
    a.barrier(barrier(3));
    b.barrier(barrier(4));
    assert_eq!(all(&mut gate), "b3");
    assert_eq!(gate.aligning(), Some(barrier(4)));
}

#[test]
fn rows_behind_a_barrier_do_not_starve_another_channel() {
    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let mut gate = InputGate::new(Waker::noop().clone());
    let (a, b) = (gate.add_channel(0), gate.add_channel(0));
    gate.set_rows_max(2);
    a.barrier(Barrier { checkpoint: 1 });
    a.try_send(batch(0..9), None, Waker::noop()).unwrap();
    let woken = Arc::new(Woken::default());
    let producer = Waker::from(Arc::clone(&woken));
    b.try_send(batch(10..11), None, &producer).unwrap();
    assert!(b.try_send(batch(11..12), None, &producer).is_err());
    assert_eq!(all(&mut gate), "[10]");
    assert!(woken.0.load(Ordering::SeqCst) > 0, "it would wait for ever");
    b.try_send(batch(11..12), None, &producer).unwrap();
    b.barrier(Barrier { checkpoint: 1 });
    assert_eq!(all(&mut gate), "[11] b1 [0, 1, 2, 3, 4, 5, 6, 7, 8]");
}

#[test]
fn credit_returns_with_the_last_range() {
    let budget = SendBudget::new(100, Waker::noop().clone());
    let credit = budget.charge(150);
    let second = credit.clone();
    drop(credit);
    assert!(!budget.has_room());
    drop(second);
    assert!(budget.has_room());
}

/// What a producer sends on its channel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sent {
    Rows(u8),
    Barrier,
}

/// Some rows between `barriers` barriers, the same number on each channel, but where it ends before.
fn sent() -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec(prop_oneof![3 => (1..4u8).prop_map(Sent::Rows), 1 => Just(Sent::Barrier)], 0..24)
}

/// Of which channel a row is, after how many barriers, and its number on the channel.
fn tag(channel: usize, epoch: u64, number: i64) -> i64 {
    (channel as i64) << 40 | (epoch as i64) << 20 | number
}

/// Whether rows (`Ok`) and barriers (`Err`) came as they must: each channel's rows in their order, and
/// between two barriers just the rows that were sent between them.
fn is_aligned(given: &[Result<i64, u64>]) -> bool {
    let (mut epoch, mut last) = (0, std::collections::BTreeMap::new());
    given.iter().all(|one| match one {
        Err(barrier) => {
            let is_next = *barrier == epoch + 1;
            epoch = *barrier;
            is_next
        }
        Ok(row) => {
            let in_order = last.insert(row >> 40, *row).is_none_or(|before| before < *row);
            in_order && (row >> 20 & 0xf_ffff) as u64 == epoch
        }
    })
}

proptest! {
    #[test]
    fn barriers_cut_every_channel_at_one_place(
        scripts in prop::collection::vec(sent(), 1..5),
        turns in prop::collection::vec((0..6usize, 1..9usize), 0..200),
        rows_max in 1..8usize,
    ) {
        let mut gate = InputGate::new(Waker::noop().clone());
        gate.set_rows_max(rows_max);
        let channels: Vec<Channel> = scripts.iter().map(|_| gate.add_channel(0)).collect();
        let mut given = Vec::new();
        let mut next = vec![(0usize, 0u64, 0i64); scripts.len()];
        let mut ended = 0;
        // At the end everybody has turns enough.
        let rest = (0..scripts.len()).cycle().map(|channel| (channel, 5)).take(20_000);
        for (who, rows) in turns.into_iter().chain(rest) {
            if let Some((at, epoch, number)) = next.get_mut(who) {
                match scripts[who].get(*at) {
                    Some(Sent::Rows(count)) => {
                        let count = i64::from(*count);
                        let first = tag(who, *epoch, *number);
                        if channels[who].try_send(batch(first..first + count), None, Waker::noop()).is_ok() {
                            (*at, *number) = (*at + 1, *number + count);
                        }
                    }
                    Some(Sent::Barrier) => {
                        (*at, *epoch) = (*at + 1, *epoch + 1);
                        channels[who].barrier(Barrier { checkpoint: *epoch });
                    }
                    None if *at == scripts[who].len() => {
                        (*at, ended) = (*at + 1, ended + 1);
                        channels[who].end();
                    }
                    None => {}
                }
            }
            match gate.receive(rows).unwrap() {
                Received::Barrier(barrier) => given.push(Err(barrier.checkpoint)),
                Received::End => break,
                received => given.extend(rows_of(received).into_iter().flatten().map(Ok)),
            }
        }
        prop_assert_eq!(ended, scripts.len(), "a channel was never read on");
        prop_assert!(is_aligned(&given), "{:?}", given);
        let all: usize = scripts.iter().flatten().map(|one| match one {
            Sent::Rows(count) => usize::from(*count),
            Sent::Barrier => 0,
        }).sum();
        prop_assert_eq!(given.iter().filter(|one| one.is_ok()).count(), all);
        let barriers = scripts.iter().map(|s| s.iter().filter(|one| **one == Sent::Barrier).count()).max();
        prop_assert_eq!(given.iter().filter(|one| one.is_err()).count(), barriers.unwrap_or(0));
    }
}

#[test]
fn a_row_that_overtakes_a_barrier_is_reported() {
    let good = [Ok(tag(0, 0, 0)), Ok(tag(1, 0, 0)), Err(1), Ok(tag(0, 1, 1))];
    assert!(is_aligned(&good));
    assert!(!is_aligned(&[good[0], Err(1), good[1], good[3]]), "late");
    assert!(!is_aligned(&[good[0], good[1], good[3], Err(1)]), "early");
    assert!(!is_aligned(&[good[0], good[1], Err(2), good[3]]), "lost");
}
