//! Faults on demand: a named point fails, stalls or ends the process at its n-th passing. A test or an
//! environment variable says so, to the same binary that runs in production.
//!
//! Source: FreeBSD's and the `fail` crate's fail points.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Clock;

/// What a point does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It gives this error of the operating system.
    Error(Errno),
    /// It takes so long, then goes on.
    Stall(Duration),
    /// The process ends there, as by `kill -9`.
    Kill,
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
    points: Mutex<BTreeMap<String, Point>>,
}

struct Point {
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
#[error(
    "`{0}` is no fault: write POINT=FAULT, POINT@N=FAULT (at the N-th passing), with FAULT one of eio, enospc, kill, stall:MS"
)]
pub struct NoFault(pub String);

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
        let mut points = BTreeMap::<String, Point>::new();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let wrong = || NoFault(one.to_owned());
            let (place, fault) = one.split_once('=').ok_or_else(wrong)?;
            let (point, passing) = match place.split_once('@') {
                None => (place, Passing::All),
                Some((point, nth)) => {
                    let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(wrong)?;
                    (point, Passing::Nth(nth))
                }
            };
            let fault = match fault.split_once(':') {
                None if fault == "eio" => Fault::Error(Errno::Eio),
                None if fault == "enospc" => Fault::Error(Errno::Enospc),
                None if fault == "kill" => Fault::Kill,
                Some(("stall", ms)) => Fault::Stall(Duration::from_millis(ms.parse().map_err(|_| wrong())?)),
                _ => return Err(wrong()),
            };
            let point = points.entry(point.to_owned()).or_insert(Point { passings: 0, faults: Vec::new() });
            point.faults.push((passing, fault));
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
    pub fn pass(&self, point: &str) -> io::Result<()> {
        let Some(told) = &self.0 else { return Ok(()) };
        let fault = {
            let mut points = told.points.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(point) = points.get_mut(point) else { return Ok(()) };
            point.passings += 1;
            let is_due = |(passing, _): &&(Passing, Fault)| match passing {
                Passing::All => true,
                Passing::Nth(nth) => *nth == point.passings,
            };
            point.faults.iter().find(is_due).map(|(_, fault)| *fault)
        };
        match fault {
            None => Ok(()),
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno.number())),
            Some(Fault::Stall(time)) => {
                told.clock.sleep(time);
                Ok(())
            }
            // No destructor runs, nothing is flushed.
            Some(Fault::Kill) => std::process::abort(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Faults, NoFault> {
        Faults::parse(text, &Clock::simulated())
    }

    #[test]
    fn a_point_fails_at_the_passing_that_is_said() {
        let faults = parse("a.sync@2=eio, b=enospc").unwrap();
        let passed = |point: &str| faults.pass(point).map_err(|error| error.raw_os_error());
        assert_eq!([passed("a.sync"), passed("a.sync"), passed("a.sync")], [Ok(()), Err(Some(5)), Ok(())]);
        assert_eq!([passed("b"), passed("b"), passed("c")], [Err(Some(28)), Err(Some(28)), Ok(())]);
        assert!(Faults::none().pass("a.sync").is_ok());
    }

    #[test]
    fn what_says_no_fault_is_refused() {
        for text in ["a", "a=", "a=eioo", "a@0=eio", "a@x=eio", "a=stall", "a=stall:x", "a=kill:1"] {
            assert_eq!(parse(text).err().unwrap(), NoFault(text.to_owned()));
        }
        assert!(parse("a=stall:1").unwrap().pass("a").is_ok());
    }
}
