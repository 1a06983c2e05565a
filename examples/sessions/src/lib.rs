//! Sessions of users, from clicks that come out of order.
//!
//! A session is a user's clicks with pauses of at most `--gap` between them. Clicks have their own
//! time, and may come `--disorder` after later ones: the watermark stays so far behind. A session is
//! emitted when the watermark says that no click can join it any more, by a timer of event time.
//!
//! A click may come between two open sessions of its user and make one of them, so the state of a user
//! is a list of open sessions. A click whose session is over goes to `--late`, and is counted.
//!
//! ```text
//! streamctl run sessions.wasm
//! streamctl run sessions.wasm --input clicks.jsonl --gap 10 --format json
//! ```

use std::time::Duration;

use millstream::prelude::*;

/// Read when no input is given.
const SAMPLE: &str = include_str!("../sample.jsonl");

/// A line of the input.
#[derive(Clone, Debug, PartialEq, Record)]
struct Click {
    user: String,
    at: Timestamp,
    page: String,
}

/// An open session: part of a user's state. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Record)]
struct Open {
    start: i64,
    end: i64,
    clicks: i64,
    /// each once, in alphabetical order
    pages: Vec<String>,
}

/// A closed one: a row of the output.
#[derive(Clone, Debug, PartialEq, Record)]
struct Session {
    user: String,
    start: Timestamp,
    end: Timestamp,
    clicks: i64,
    pages: Vec<String>,
}

/// Puts clicks into sessions.
struct Sessions {
    /// the longest pause, in milliseconds
    gap: i64,
    late: Counter,
}

impl ProcessFunction<Click> for Sessions {
    type In = Click;
    type Key = String;
    type State = Vec<Open>;
    type Out = Session;

    fn process(&self, click: ClickRef<'_>, context: &mut Context<'_, Self, Click>) -> Result<()> {
        let at = click.at.0;
        let mut joined = Open { start: at, end: at, clicks: 1, pages: vec![click.page.to_string()] };
        let mut sessions = context.take_state().unwrap_or_default();
        // What the click is near to becomes one session with it; each had a timer.
        sessions.retain_mut(|open| {
            let is_near = at >= open.start.saturating_sub(self.gap) && at <= self.close(open);
            if is_near {
                context.delete_timer(self.close(open));
                joined.start = joined.start.min(open.start);
                joined.end = joined.end.max(open.end);
                joined.clicks += open.clicks;
                joined.pages.append(&mut open.pages);
            }
            !is_near
        });
        let is_late = joined.clicks == 1 && context.watermark() >= Some(self.close(&joined));
        if is_late {
            self.late.increment();
            context.emit_side(click);
        } else {
            joined.pages.sort_unstable();
            joined.pages.dedup();
            context.set_timer(self.close(&joined));
            sessions.push(joined);
        }
        if !sessions.is_empty() {
            context.set_state(sessions);
        }
        Ok(())
    }

    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self, Click>) -> Result<()> {
        let mut sessions = context.take_state().unwrap_or_default();
        if let Some(place) = sessions.iter().position(|open| self.close(open) == timer.time) {
            let Open { start, end, clicks, pages } = sessions.swap_remove(place);
            let user = context.key().to_string();
            context.emit(Session { user, start: Timestamp(start), end: Timestamp(end), clicks, pages });
        }
        if !sessions.is_empty() {
            context.set_state(sessions);
        }
        Ok(())
    }
}

impl Sessions {
    /// When the watermark reaches this, nothing joins the session any more.
    fn close(&self, session: &Open) -> i64 {
        session.end.saturating_add(self.gap)
    }
}

#[derive(Parser)]
struct SessionsArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Longest pause within a session
    #[arg(long, value_name = "MINUTES", default_value_t = 30)]
    gap: u32,
    /// How long after later ones a click may come
    #[arg(long, value_name = "MINUTES", default_value_t = 5)]
    disorder: u32,
    /// Folder for clicks whose session is over
    #[arg(long, value_name = "DIR")]
    late: Option<String>,
}

/// Puts the clicks of users into sessions, which end with a pause.
#[job]
fn sessions(job: &Job, args: SessionsArgs) -> Result<()> {
    let minutes = |count: u32| Duration::from_secs(60 * u64::from(count));
    let gap = i64::from(args.gap) * 60_000;
    let strategy = Watermarks::bounded(minutes(args.disorder)).time(Click::AT).idle_after(minutes(1));
    let (sessions, late) = job
        .json::<Click>(args.input.or_sample(SAMPLE))
        .watermarks(strategy)
        .key_by(Click::USER)
        .side_output("late")
        .process(Sessions { gap, late: Counter::new("late") });
    sessions.sink(&args.output);
    late.sink(args.late.map_or(Sink::blackhole(), Sink::files)).name("Late");
    Ok(())
}

millstream::jobs!(sessions);

#[cfg(test)]
mod tests;
