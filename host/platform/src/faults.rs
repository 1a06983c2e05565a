//! Faults on demand: a named point fails, stalls or ends the process at its n-th passing. A test or an
//! environment variable says so, to the same binary that runs in production.
//!
//! Source: FreeBSD's and the `fail` crate's fail points.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Clock;

mod points;
pub use points::Point;

/// What a point does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It gives this error of the operating system.
    Error(Errno),
    /// It takes so long, then goes on.
    Stall(Duration),
    /// The process ends there, as by `kill -9`.
    Kill,
    /// The wall clock is moved there by so many milliseconds.
    Jump(i64),
    /// What follows it is not done, and nobody hears of it: a bug on purpose, for tests of tests.
    Skip,
}

/// Errors that storage gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// Input or output failed: what was written may be lost.
    Eio,
    /// There is no room.
    Enospc,
}

impl Errno {
    fn number(self) -> i32 {
        match self {
            Self::Eio => 5,
            Self::Enospc => 28,
        }
    }
}

/// The faults of a process, or of a test. Cloning shares them; without any, a passing costs nothing.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Told>>);

struct Told {
    clock: Clock,
    points: Mutex<BTreeMap<Point, Planned>>,
}

#[derive(Default)]
struct Planned {
    passings: u64,
    faults: Vec<(Passing, Fault)>,
}

/// Which passing of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// This one, from 1.
    Nth(u64),
    /// Every one.
    All,
}

/// Why a text says no faults.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFault {
    /// It is not of that form.
    #[error(
        "`{0}` is no fault: write POINT=FAULT, POINT@N=FAULT (at the N-th passing), with FAULT one of eio, enospc, kill, stall:MS, jump:MS"
    )]
    Form(String),
    /// There is no such point.
    #[error("there is no point `{name}`; did you mean `{nearest}`?")]
    Point {
        /// What is said.
        name: String,
        /// The point whose name is most like it.
        nearest: &'static str,
    },
    /// Nothing can be left out there.
    #[error("`skip` is not for `{0}`")]
    Skip(&'static str),
}

impl Faults {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// From a text such as `store.sync@3=eio,sink.rename=stall:200`; by this clock what stalls, stalls.
    ///
    /// # Errors
    /// If it says none.
    pub fn parse(text: &str, clock: &Clock) -> Result<Self, NoFault> {
        let mut points = BTreeMap::<Point, Planned>::new();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (point, passing, fault) = fault_of(one)?;
            points.entry(point).or_default().faults.push((passing, fault));
        }
        if points.is_empty() {
            return Ok(Self::none());
        }
        Ok(Self(Some(Arc::new(Told { clock: clock.clone(), points: Mutex::new(points) }))))
    }

    /// Passes a point, in a thread that may block.
    ///
    /// # Errors
    /// If it is to fail there.
    pub fn pass(&self, point: Point) -> io::Result<()> {
        let Some((told, fault)) = self.due(point) else { return Ok(()) };
        match fault {
            Fault::Stall(time) => {
                told.clock.sleep(time);
                Ok(())
            }
            fault => told.strike(fault),
        }
    }

    /// Passes a point, in a task.
    ///
    /// # Errors
    /// If it is to fail there.
    pub async fn pass_in_task(&self, point: Point) -> io::Result<()> {
        let Some((told, fault)) = self.due(point) else { return Ok(()) };
        match fault {
            Fault::Stall(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            fault => told.strike(fault),
        }
    }

    /// Passes a point of which something may be left out. Whether it is to be.
    ///
    /// # Errors
    /// If it is to fail there.
    pub fn pass_or_skip(&self, point: Point) -> io::Result<bool> {
        match self.due(point) {
            Some((_, Fault::Skip)) => Ok(true),
            Some((told, Fault::Stall(time))) => {
                told.clock.sleep(time);
                Ok(false)
            }
            Some((told, fault)) => told.strike(fault).map(|()| false),
            None => Ok(false),
        }
    }

    /// Counts a passing. What is to happen there.
    fn due(&self, point: Point) -> Option<(&Told, Fault)> {
        let told = self.0.as_deref()?;
        let mut points = told.points.lock().unwrap_or_else(PoisonError::into_inner);
        let planned = points.get_mut(&point)?;
        planned.passings += 1;
        let is_due = |(passing, _): &&(Passing, Fault)| match passing {
            Passing::All => true,
            Passing::Nth(nth) => *nth == planned.passings,
        };
        let fault = planned.faults.iter().find(is_due).map(|(_, fault)| *fault)?;
        Some((told, fault))
    }
}

impl Told {
    /// Does what needs no waiting.
    fn strike(&self, fault: Fault) -> io::Result<()> {
        match fault {
            Fault::Error(errno) => Err(io::Error::from_raw_os_error(errno.number())),
            // No destructor runs, nothing is flushed.
            Fault::Kill => std::process::abort(),
            Fault::Jump(ms) => {
                self.clock.jump(ms);
                Ok(())
            }
            Fault::Stall(_) | Fault::Skip => Ok(()),
        }
    }
}

/// Reads one.
fn fault_of(text: &str) -> Result<(Point, Passing, Fault), NoFault> {
    let wrong = || NoFault::Form(text.to_owned());
    let (place, fault) = text.split_once('=').ok_or_else(wrong)?;
    let (name, passing) = match place.split_once('@') {
        None => (place, Passing::All),
        Some((name, nth)) => {
            let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(wrong)?;
            (name, Passing::Nth(nth))
        }
    };
    let point = Point::ALL
        .into_iter()
        .find(|point| point.name() == name)
        .ok_or_else(|| NoFault::Point { name: name.to_owned(), nearest: Point::nearest(name).name() })?;
    let fault = match fault.split_once(':') {
        None if fault == "eio" => Fault::Error(Errno::Eio),
        None if fault == "enospc" => Fault::Error(Errno::Enospc),
        None if fault == "kill" => Fault::Kill,
        None if fault == "skip" && point.may_be_skipped() => Fault::Skip,
        None if fault == "skip" => return Err(NoFault::Skip(point.name())),
        Some(("stall", ms)) => Fault::Stall(Duration::from_millis(ms.parse().map_err(|_| wrong())?)),
        Some(("jump", ms)) => Fault::Jump(ms.parse().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    };
    Ok((point, passing, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Faults, NoFault> {
        Faults::parse(text, &Clock::simulated())
    }

    #[test]
    fn a_point_fails_at_the_passing_that_is_said() {
        let faults = parse("store.sync@2=eio, sink.sync=enospc").unwrap();
        let passed = |point: Point| faults.pass(point).map_err(|error| error.raw_os_error());
        let sync = || passed(Point::StoreSync);
        assert_eq!([sync(), sync(), sync()], [Ok(()), Err(Some(5)), Ok(())]);
        let [first, second] = [passed(Point::SinkSync), passed(Point::SinkSync)];
        assert_eq!([first, second, passed(Point::StoreDone)], [Err(Some(28)), Err(Some(28)), Ok(())]);
        assert!(Faults::none().pass(Point::StoreSync).is_ok());
    }

    #[test]
    fn what_says_no_fault_is_refused() {
        for fault in ["", "=", "=eioo", "@0=eio", "@x=eio", "=stall", "=stall:x", "=kill:1", "=jump"] {
            let text = format!("store.sync{fault}");
            assert_eq!(parse(&text).err().unwrap(), NoFault::Form(text));
        }
        assert_eq!(parse("store.sync=skip").err().unwrap(), NoFault::Skip("store.sync"));
    }

    #[test]
    fn an_unknown_point_is_refused_with_the_nearest() {
        let unknown = parse("store.sink=eio").err().unwrap();
        assert_eq!(unknown, NoFault::Point { name: "store.sink".into(), nearest: "store.sync" });
    }

    #[test]
    fn a_stall_takes_its_time_and_a_jump_is_of_the_wall_clock_only() {
        let clock = Clock::simulated();
        let faults = Faults::parse("store.sync@1=stall:70, store.sync@2=jump:-3600000", &clock).unwrap();
        let (now, wall) = (clock.now(), clock.wall_ms());
        faults.pass(Point::StoreSync).unwrap();
        assert_eq!((clock.now() - now, clock.wall_ms() - wall), (Duration::from_millis(70), 70));
        faults.pass(Point::StoreSync).unwrap();
        assert_eq!((clock.now() - now, clock.wall_ms() - wall), (Duration::from_millis(70), 70 - 3_600_000));
    }

    #[test]
    fn only_what_may_be_left_out_is() {
        let faults = parse("sink.rename@2=skip").unwrap();
        let passed: Vec<bool> = (0..3).map(|_| faults.pass_or_skip(Point::SinkRename).unwrap()).collect();
        assert_eq!(passed, [false, true, false]);
    }
}
