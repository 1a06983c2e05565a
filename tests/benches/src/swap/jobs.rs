//! The jobs that change while they run: their input, and what must have come out of it, row by row.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, ensure};

/// A job that changes between releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counts rows by name, in a state that has other columns in release 3.
    Tally,
    /// Counts the words of a text, by the release that has split them off.
    Words,
    /// Visits of users, which timers end.
    Visits,
}

/// Words of a line.
const WORDS: i64 = 8;
/// From one click of a user to the next, in milliseconds.
const STEP: i64 = 5_000;
/// Of so many steps a visit has the first three. Users begin at other steps, so that time passes for those who pause.
const PERIOD: i64 = 8;
const CLICKS: i64 = 3;

impl Kind {
    pub(super) fn job(self) -> &'static str {
        match self {
            Self::Tally => "tally",
            Self::Words => "words",
            Self::Visits => "visits",
        }
    }

    /// The input: of so many rows, words or clicks (with those that are left out), of so many keys.
    pub(super) fn input(self, rows: i64, keys: i64) -> String {
        let mut text = String::new();
        for number in 0..rows {
            let key = number * 7 % keys;
            let said = match self {
                Self::Tally => writeln!(text, "n{key},{number}"),
                Self::Words if (number + 1) % WORDS == 0 => writeln!(text, "w{key}"),
                Self::Words => write!(text, "w{key} "),
                Self::Visits => match (number / keys + number % keys) % PERIOD < CLICKS {
                    true => writeln!(
                        text,
                        "u{},{}",
                        number % keys,
                        number / keys * STEP + number % keys * STEP / keys
                    ),
                    false => Ok(()),
                },
            };
            said.unwrap_or_else(|_| unreachable!("a text takes whatever is written"));
        }
        text
    }

    /// How many rows its source gives.
    pub(super) fn rows_in(self, rows: i64) -> u64 {
        let rows = match self {
            Self::Tally => rows,
            Self::Words => rows / WORDS,
            Self::Visits => rows / PERIOD * CLICKS,
        };
        rows as u64
    }

    /// Holds all that has come out against what must have: each row once, by a release of its side. `ran` are the
    /// releases that have run, in their order; rows of one file lie between two barriers, and so are of one release.
    pub(super) fn hold(
        self,
        folder: &Path,
        (rows, keys): (i64, i64),
        ran: &[i64],
        is_of_one_side: bool,
    ) -> anyhow::Result<()> {
        let mut ledger = Ledger::new(self, rows, keys);
        for entry in std::fs::read_dir(folder)? {
            let text = std::fs::read_to_string(entry?.path())?;
            let mut of_file = None;
            for line in text.lines() {
                let release = ledger.take(line)?;
                let of_file = *of_file.get_or_insert(release);
                ensure!(of_file == release || !is_of_one_side, "a file has rows of {of_file} and {release}");
            }
        }
        ledger.hold(ran)
    }
}

/// A number among a line's columns: that of the column, or what follows such a text.
fn field(line: &str, name: &str) -> anyhow::Result<i64> {
    let (_, rest) = line.split_once(name).context("a column is missing")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Ok(rest.get(..end).unwrap_or_default().parse()?)
}

/// What has come out, as far as it has been looked at.
struct Ledger {
    kind: Kind,
    rows: i64,
    keys: i64,
    /// By number: of rows.
    is_there: Vec<bool>,
    /// By key: of each row what follows the one before, and the release. Of words for each release its own.
    by_key: Vec<Vec<(i64, i64)>>,
    clicks: i64,
}

impl Ledger {
    fn new(kind: Kind, rows: i64, keys: i64) -> Self {
        let numbers = if kind == Kind::Tally { rows as usize } else { 0 };
        let by_key = vec![Vec::new(); keys as usize];
        Self { kind, rows, keys, is_there: vec![false; numbers], by_key, clicks: 0 }
    }

    /// Takes a line; its release.
    fn take(&mut self, line: &str) -> anyhow::Result<i64> {
        let release = field(line, "\"release\":")?;
        match self.kind {
            Kind::Tally => {
                let (name, number) = (field(line, "\"name\":\"n")?, field(line, "\"number\":")?);
                let is_first = !std::mem::replace(&mut self.is_there[number as usize], true);
                ensure!(is_first, "row {number} came twice");
                self.by_key[name as usize].push((field(line, "\"count\":")?, release));
            }
            Kind::Words => {
                let word = field(line, "\"word\":\"w")?;
                self.by_key[word as usize].push((field(line, "\"count\":")?, release));
            }
            Kind::Visits => {
                let (user, start) = (field(line, "\"user\":\"u")?, field(line, "\"start\":")?);
                let (end, clicks) = (field(line, "\"end\":")?, field(line, "\"clicks\":")?);
                let (first, odd, phase) = (start / STEP, field(line, "\"odd\":")?, user % PERIOD);
                // Some are in their first visit from the beginning.
                ensure!(first == 0 || (first + phase) % PERIOD == 0, "a visit of u{user} begins at {start}");
                ensure!(
                    end == start + (clicks - 1) * STEP && clicks <= CLICKS,
                    "a visit of u{user} has {clicks} clicks, until {end}"
                );
                ensure!(odd <= clicks, "of {clicks} clicks {odd} were handled");
                self.clicks += clicks;
                let before = i64::from(phase >= CLICKS);
                self.by_key[user as usize].push(((first + phase) / PERIOD - before, release));
            }
        }
        Ok(release)
    }

    fn hold(mut self, ran: &[i64]) -> anyhow::Result<()> {
        ensure!(self.is_there.iter().all(|is_there| *is_there), "rows are missing");
        if self.kind == Kind::Words {
            return self.hold_words(ran);
        }
        let clicks = self.kind.rows_in(self.rows) as i64;
        ensure!(self.kind != Kind::Visits || self.clicks == clicks, "{} clicks of {clicks}", self.clicks);
        // A visit is told by its number among those of its user, a row by the count of its name.
        let first = i64::from(self.kind == Kind::Tally);
        for (key, of_key) in self.by_key.iter_mut().enumerate() {
            of_key.sort_unstable();
            let is_whole = (first..).zip(of_key.iter()).all(|(nth, (count, _))| nth == *count);
            ensure!(is_whole, "what there is of key {key} was counted otherwise");
            let (mut later, mut now) = (ran.iter(), None);
            for (_, release) in of_key {
                let follows = now == Some(*release) || later.any(|ran| ran == release);
                ensure!(follows, "key {key} was handled by {release}, which did not run then");
                now = Some(*release);
            }
        }
        Ok(())
    }

    /// Each word by each release was counted from 1 on without a gap, and all together as often as it is there.
    fn hold_words(self, ran: &[i64]) -> anyhow::Result<()> {
        for (word, counts) in self.by_key.into_iter().enumerate() {
            let mut by_release: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            let count = counts.len() as i64;
            counts
                .into_iter()
                .for_each(|(count, release)| by_release.entry(release).or_default().push(count));
            for (release, mut counts) in by_release {
                counts.sort_unstable();
                ensure!(ran.contains(&release), "w{word} was split off by {release}, which did not run");
                ensure!(
                    (1..).zip(&counts).all(|(nth, count)| nth == *count),
                    "w{word} was counted otherwise"
                );
            }
            // Words are numbers by 7, which has nothing in common with how many there are.
            let of_word = self.rows / self.keys;
            ensure!(count == of_word, "w{word} is there {of_word} times, and {count} came out");
        }
        Ok(())
    }
}
