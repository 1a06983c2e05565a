use platform::Clock;
use proptest::prelude::*;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Lets a job run and fail: after each of these times of running it fails. What is decided each time, until it is
/// given up; by the clock of simulation, which waits as long as is said.
fn run(strategy: &RestartStrategy, seed: u64, ran: &[u64]) -> (Vec<Duration>, Option<Option<String>>) {
    let clock = Clock::simulated();
    let mut restarts = Restarts::new(strategy.clone(), Random::of_seed(seed));
    let mut delays = Vec::new();
    for (n, ran) in (0..).zip(ran) {
        clock.advance(ms(*ran));
        assert_eq!(restarts.count(), n);
        match restarts.on_failure(clock.now()) {
            Decision::Restart { after } => {
                delays.push(after);
                clock.sleep(after);
            }
            Decision::GiveUp { why } => return (delays, Some(why)),
        }
    }
    (delays, None)
}

fn exponential(jitter: f64, attempts: Option<u32>) -> RestartStrategy {
    RestartStrategy::ExponentialDelay {
        initial: ms(1_000),
        max: ms(60_000),
        multiplier: 1.5,
        reset_threshold: ms(3_600_000),
        jitter,
        attempts,
    }
}

#[test]
fn without_a_strategy_the_first_failure_is_the_last() {
    assert_eq!(run(&RestartStrategy::None, 0, &[5]), (vec![], Some(None)));
}

#[test]
fn a_fixed_delay_is_given_so_many_times() {
    let strategy = RestartStrategy::FixedDelay { attempts: 2, delay: ms(10) };
    let (delays, why) = run(&strategy, 0, &[5, 1_000_000, 5, 5]);
    assert_eq!(delays, [ms(10), ms(10)]);
    assert!(why.unwrap().unwrap().contains("restarted 2 times"));
    let never = RestartStrategy::FixedDelay { attempts: 0, delay: ms(10) };
    assert_eq!(run(&never, 0, &[5]).0, []);
}

#[test]
fn delays_grow_and_begin_anew_after_a_long_run() {
    let hour = 3_600_000;
    let (delays, why) = run(&exponential(0.0, None), 0, &[1, 1, hour - 1, hour, 1]);
    assert_eq!(delays, [ms(1_000), ms(1_500), ms(2_250), ms(1_000), ms(1_500)]);
    assert_eq!(why, None);
    let many = run(&exponential(0.0, None), 0, &[1; 5_000]).0;
    assert_eq!(many.last(), Some(&ms(60_000)));
}

#[test]
fn attempts_of_growing_delays_are_counted_since_the_last_long_run() {
    let hour = 3_600_000;
    let (delays, why) = run(&exponential(0.0, Some(2)), 0, &[1, 1, hour, 1, 1]);
    assert_eq!(delays.len(), 4);
    assert!(why.unwrap().unwrap().contains("attempts-before-reset-backoff"));
}

#[test]
fn one_failure_too_many_within_the_interval_is_the_last() {
    let strategy = RestartStrategy::FailureRate { max_failures: 2, interval: ms(100), delay: ms(10) };
    // At 50, 110, 170, 230 and so on: never three within 100 ms.
    let (delays, why) = run(&strategy, 0, &[50; 20]);
    assert_eq!((delays, why), (vec![ms(10); 20], None));
    // At 50, 90, 130.
    let (delays, why) = run(&strategy, 0, &[50, 30, 30, 30]);
    assert_eq!(delays.len(), 2);
    assert!(why.unwrap().unwrap().contains("failed 3 times within 100 ms"));
    // At 0, 50 and 100, which is still the same interval; and at 101, which is not.
    assert_eq!(run(&strategy, 0, &[0, 40, 40]).0.len(), 2);
    assert_eq!(run(&strategy, 0, &[0, 40, 41]).0.len(), 3);
}

proptest! {
    #[test]
    fn growing_delays_are_within_their_bounds(
        seed in any::<u64>(),
        jitter in 0.0..=1.0f64,
        ran in prop::collection::vec(0..10_000u64, 1..60),
    ) {
        let delays = run(&exponential(jitter, None), seed, &ran).0;
        prop_assert_eq!(delays.len(), ran.len());
        let mut grown = 1.0f64;
        for delay in delays {
            let (least, most) = (grown * (1.0 - jitter), (grown * (1.0 + jitter)).min(60.0));
            let is = delay.as_secs_f64();
            prop_assert!(is >= least - 1e-6 && is <= most + 1e-6, "{} is not within {}..{}", is, least, most);
            grown = (grown * 1.5).min(60.0);
        }
    }

    #[test]
    fn a_rate_is_kept_exactly(
        ran in prop::collection::vec(0..200u64, 1..40),
        max_failures in 1..5u32,
        interval in 1..500u64,
    ) {
        let strategy =
            RestartStrategy::FailureRate { max_failures, interval: ms(interval), delay: ms(7) };
        let (delays, why) = run(&strategy, 0, &ran);
        // When it failed, by an account of its own.
        let mut at = 0;
        let mut failures = Vec::new();
        for ran in &ran {
            at += ran;
            failures.push(at);
            at += 7;
        }
        let is_too_many = |n: &usize| {
            let within = failures[..=*n].iter().filter(|other| failures[*n] - **other <= interval);
            within.count() > max_failures as usize
        };
        let first = (0..failures.len()).find(is_too_many);
        prop_assert_eq!(delays.len(), first.unwrap_or(failures.len()));
        prop_assert_eq!(why.is_some(), first.is_some());
    }
}
