//! Arguments asked for one by one, without clap.

use std::cell::RefCell;
use std::fmt::Write;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::job::Refusal;

/// The arguments of a job that parses them by hand: [`Job::args`](crate::Job::args).
///
/// Ask for all that there are: when the job function returns, an argument that nothing asked for
/// is refused with the nearest name, and `--help` lists what was asked for.
pub struct Args {
    given: Vec<String>,
    taken: RefCell<Vec<bool>>,
    asked: RefCell<Vec<Asked>>,
}

struct Asked {
    name: String,
    has_value: bool,
    about: String,
}

impl Args {
    pub(crate) fn new(given: &[String]) -> Args {
        Args {
            given: given.to_vec(),
            taken: RefCell::new(vec![false; given.len()]),
            asked: RefCell::default(),
        }
    }

    /// The value of `--name VALUE` or `--name=VALUE`.
    ///
    /// # Errors
    /// If the name stands without a value.
    pub fn option(&self, name: &str, about: &str) -> Result<Option<&str>> {
        self.ask(name, true, about);
        let flag = format!("--{name}");
        let mut taken = self.taken.borrow_mut();
        for (place, given) in self.given.iter().enumerate() {
            if taken[place] {
                continue;
            }
            if let Some(value) = given.strip_prefix(&flag).and_then(|rest| rest.strip_prefix('=')) {
                taken[place] = true;
                return Ok(Some(value));
            }
            if *given == flag {
                taken[place] = true;
                let Some(value) = self.given.get(place + 1) else {
                    return Err(Error::usage(format!("`{flag}` wants a value: {about}")));
                };
                taken[place + 1] = true;
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The value of `--name VALUE`, parsed.
    ///
    /// # Errors
    /// If there is no value, or one that cannot be parsed.
    pub fn parse<T>(&self, name: &str, about: &str) -> Result<Option<T>>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let Some(value) = self.option(name, about)? else { return Ok(None) };
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(Error::usage(format!("`--{name} {value}`: {error}"))),
        }
    }

    /// Whether `--name` is there.
    pub fn flag(&self, name: &str, about: &str) -> bool {
        self.ask(name, false, about);
        let flag = format!("--{name}");
        let mut taken = self.taken.borrow_mut();
        let place = (0..self.given.len()).find(|place| !taken[*place] && self.given[*place] == flag);
        if let Some(place) = place {
            taken[place] = true;
        }
        place.is_some()
    }

    fn ask(&self, name: &str, has_value: bool, about: &str) {
        let asked = Asked { name: name.into(), has_value, about: about.into() };
        self.asked.borrow_mut().push(asked);
    }

    /// Refuses what nothing asked for; gives help where it was asked for.
    pub(crate) fn check(&self, job: &str, description: &str) -> Result<(), Refusal> {
        let taken = self.taken.borrow();
        let rest = || self.given.iter().zip(&*taken).filter(|(_, taken)| !**taken).map(|(given, _)| given);
        if rest().any(|given| given == "--help" || given == "-h") {
            return Err(Refusal::Help(self.help(job, description)));
        }
        let Some(unknown) = rest().next() else { return Ok(()) };
        let mut message = format!("unexpected argument `{unknown}`");
        let name = unknown.split('=').next().unwrap_or(unknown).trim_start_matches('-');
        let asked = self.asked.borrow();
        let nearest = asked.iter().max_by(|a, b| {
            strsim::jaro_winkler(name, &a.name).total_cmp(&strsim::jaro_winkler(name, &b.name))
        });
        match nearest {
            Some(nearest) if strsim::jaro_winkler(name, &nearest.name) > 0.7 => {
                write!(message, "\nhint: did you mean `--{}`?", nearest.name)
            }
            _ => write!(message, "\nhint: `--help` lists the arguments"),
        }
        .unwrap_or_default();
        Err(Refusal::Usage(message))
    }

    fn help(&self, job: &str, description: &str) -> String {
        let mut help = format!("{description}\n\nUsage: {job} [OPTIONS]\n\nOptions:\n");
        for asked in &*self.asked.borrow() {
            let name = if asked.has_value { format!("{} <VALUE>", asked.name) } else { asked.name.clone() };
            let _ = writeln!(help, "  --{name:<24} {}", asked.about);
        }
        let _ = writeln!(help, "  --{:<24} Print help", "help");
        help
    }
}
