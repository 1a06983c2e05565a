//! Sessions in virtual time.

use millstream::testing::{Driver, Harness};

use super::*;

const MINUTE: i64 = 60_000;

fn click(user: &str, minute: i64, page: &str) -> Click {
    Click { user: user.into(), at: Timestamp(minute * MINUTE), page: page.into() }
}

fn session(user: &str, minutes: [i64; 2], clicks: i64, pages: &[&str]) -> Session {
    let [start, end] = minutes.map(|minute| Timestamp(minute * MINUTE));
    let pages = pages.iter().map(|page| page.to_string()).collect();
    Session { user: user.into(), start, end, clicks, pages }
}

fn harness() -> Harness {
    Harness::of(sessions).args(["--output", "closed", "--late", "late"])
}

/// The job natively, and its component in the engine.
fn drivers() -> [Driver; 2] {
    [harness(), harness().component("sessions.wasm").streamctl("../../bin/streamctl")].map(Harness::driver)
}

fn push(driver: &mut Driver, user: &str, minute: i64, page: &str) {
    driver.push::<Click>("", click(user, minute, page));
}

#[test]
fn a_session_closes_when_the_watermark_has_passed_its_gap() {
    for mut driver in drivers() {
        push(&mut driver, "ann", 0, "home");
        push(&mut driver, "ann", 20, "cart");
        push(&mut driver, "bob", 55, "home");
        assert!(driver.take::<Session>("closed").is_empty());
        // The watermark is five minutes less a millisecond behind: now it has passed minute 50.
        push(&mut driver, "bob", 56, "home");
        assert_eq!(driver.take::<Session>("closed"), [session("ann", [0, 20], 2, &["cart", "home"])]);
        assert_eq!(driver.state::<String, Vec<Open>>("Sessions", "ann"), None);
        let run = driver.finish();
        assert_eq!(run.rows::<Session>("closed")[1], session("bob", [55, 56], 2, &["home"]));
        assert_eq!(run.times("closed"), [Some(50 * MINUTE), Some(86 * MINUTE)]);
    }
}

#[test]
fn a_click_between_two_sessions_makes_them_one() {
    for mut driver in drivers() {
        push(&mut driver, "ann", 0, "a");
        push(&mut driver, "bob", 3, "b");
        driver.push::<Click>("", click("ann", 31, "c"));
        assert_eq!(driver.state::<String, Vec<Open>>("Sessions", "ann").map(|open| open.len()), Some(2));
        push(&mut driver, "ann", 27, "b");
        assert_eq!(driver.state::<String, Vec<Open>>("Sessions", "ann").map(|open| open.len()), Some(1));
        let run = driver.finish();
        let expected = [session("bob", [3, 3], 1, &["b"]), session("ann", [0, 31], 3, &["a", "b", "c"])];
        assert_eq!(run.rows::<Session>("closed"), expected);
    }
}

#[test]
fn what_comes_too_late_goes_aside() {
    for mut driver in drivers() {
        push(&mut driver, "bob", 100, "home");
        push(&mut driver, "ann", 60, "old");
        // Out of order, but its session is open.
        push(&mut driver, "ann", 70, "home");
        let run = driver.finish();
        assert_eq!(run.rows::<Click>("late"), [click("ann", 60, "old")]);
        assert_eq!(run.counter("late"), 1);
        assert_eq!(run.rows::<Session>("closed")[0], session("ann", [70, 70], 1, &["home"]));
    }
}

/// A generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The sessions of clicks, with all clicks at hand.
fn oracle(clicks: &[Click]) -> Vec<Session> {
    let mut sorted = clicks.to_vec();
    sorted.sort_by(|a, b| (&a.user, a.at).cmp(&(&b.user, b.at)));
    let mut sessions: Vec<Session> = Vec::new();
    for click in sorted {
        match sessions.last_mut() {
            Some(last) if last.user == click.user && click.at.0 - last.end.0 <= 30 * MINUTE => {
                last.end = click.at;
                last.clicks += 1;
                last.pages.push(click.page);
            }
            _ => sessions.push(Session {
                user: click.user,
                start: click.at,
                end: click.at,
                clicks: 1,
                pages: vec![click.page],
            }),
        }
    }
    for session in &mut sessions {
        session.pages.sort_unstable();
        session.pages.dedup();
    }
    sessions
}

#[test]
fn random_clicks_give_the_sessions_of_all_at_once() {
    for seed in 0..20 {
        let mut numbers = Numbers(seed);
        let mut clicks = Vec::new();
        let mut latest = 0;
        for _ in 0..400 {
            latest += numbers.below(8 * MINUTE as u64) as i64;
            let late = numbers.below(5 * MINUTE as u64 + 1) as i64;
            let user = ["ann", "bob", "cy", "dora"][numbers.below(4) as usize];
            let page = ["home", "cart", "help"][numbers.below(3) as usize];
            clicks.push(Click { user: user.into(), at: Timestamp(latest - late), page: page.into() });
        }
        for mut driver in drivers() {
            for click in &clicks {
                driver.push::<Click>("", click);
            }
            let run = driver.finish();
            let mut sessions: Vec<Session> = run.rows("closed");
            sessions.sort_by(|a, b| (&a.user, a.start).cmp(&(&b.user, b.start)));
            assert_eq!(sessions, oracle(&clicks), "seed {seed}");
            assert!(sessions.len() > 20 && run.counter("late") == 0, "seed {seed}");
        }
    }
}
