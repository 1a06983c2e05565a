//! Which settings of windows and watermarks can change while a job runs, and what becomes of them.

use std::time::Duration;

use arrow_schema::SchemaRef;
use model::job_graph::{
    Assigner, Function, NodeKind, TimeDomain, Trigger, WatermarkStrategy, Watermarks, Window,
};
use window::keep_alike;

use crate::operator::windowed::keyed_by;

/// What becomes of the settings of an operator that is in both versions, each as a sentence.
pub(super) fn said(old: &NodeKind, new: &NodeKind) -> Vec<String> {
    let mut said = Vec::new();
    match (old, new) {
        (NodeKind::Window(old), NodeKind::Window(new)) => {
            differ(&mut said, "lateness", &old.lateness, &new.lateness, length);
            differ(&mut said, "trigger", &old.trigger, &new.trigger, trigger);
            differ(&mut said, "purging", &old.purging, &new.purging, |is_on| yes_or_no(*is_on));
        }
        (NodeKind::Function(old), NodeKind::Function(new)) => {
            if let (Some(old), Some(new)) = (&old.windows, &new.windows) {
                differ(&mut said, "lateness", &old.lateness, &new.lateness, length);
            }
        }
        (NodeKind::Watermarks(old), NodeKind::Watermarks(new)) => {
            differ(&mut said, "strategy", &old.strategy, &new.strategy, strategy);
            let or_never =
                |after: &Option<Duration>| after.map_or("never".to_owned(), |after| length(&after));
            differ(&mut said, "idleness", &old.idle_after, &new.idle_after, or_never);
            differ(&mut said, "greatest lead", &old.ahead_max, &new.ahead_max, |max| {
                max.map_or("as by default".to_owned(), |max| length(&max))
            });
        }
        _ => {}
    }
    said
}

fn differ<T: PartialEq>(said: &mut Vec<String>, name: &str, old: &T, new: &T, text: impl Fn(&T) -> String) {
    if old != new {
        said.push(format!("{name} was {}, and is {}", text(old), text(new)));
    }
}

fn length(length: &Duration) -> String {
    match length.subsec_nanos() {
        0 => format!("{} s", length.as_secs()),
        _ => format!("{} ms", length.as_millis()),
    }
}

fn yes_or_no(is_on: bool) -> String {
    if is_on { "on" } else { "off" }.to_owned()
}

fn trigger(trigger: &Trigger) -> String {
    match trigger {
        Trigger::AtEnd => "at the end".to_owned(),
        Trigger::Early(each) => format!("also before the end, each {}", length(each)),
        Trigger::Count(rows) => format!("each {rows} rows"),
    }
}

fn strategy(strategy: &WatermarkStrategy) -> String {
    match strategy {
        WatermarkStrategy::Bounded(bound) => format!("{} behind the greatest time", length(bound)),
        WatermarkStrategy::Punctuated(column) => format!("by column {column}"),
    }
}

fn clock(time: TimeDomain) -> &'static str {
    match time {
        TimeDomain::EventTime => "event time",
        TimeDomain::ProcessingTime => "processing time",
    }
}

/// Why windows cannot become others while the job runs, each as a sentence's end after their name; none = they can.
/// `input` is the schema of their rows.
pub(super) fn of_windows(
    (old, new): (&Window, &Window),
    input: Option<&SchemaRef>,
    is_on_disk: bool,
) -> Vec<String> {
    let mut why = places((&old.assigner, old.time, old.late_port), (&new.assigner, new.time, new.late_port));
    if old.aggregates != new.aggregates {
        why.push("has other aggregates".to_owned());
    }
    if !why.is_empty() {
        return why;
    }
    let is_alike = input.is_some_and(|input| keep_alike(old, new, input).unwrap_or(false));
    let counts = |window: &Window| matches!(window.trigger, Trigger::Count(_));
    if counts(old) != counts(new) {
        why.push("counts rows from one result to the next in one of the versions only".to_owned());
    } else if !is_alike {
        why.push(
            "overlaps, and keeps its rows otherwise: it shares them only without lateness and early results"
                .to_owned(),
        );
    } else if is_on_disk && old.trigger != new.trigger && !counts(new) {
        why.push("has another trigger, and its state lies on disk (state.backend.type)".to_owned());
    }
    why
}

/// The same of the windows of a function.
pub(super) fn of_function(old: &Function, new: &Function, is_on_disk: bool) -> Vec<String> {
    let (f, g) = match (&old.windows, &new.windows) {
        (Some(f), Some(g)) => (f, g),
        (None, None) => return Vec::new(),
        _ => return vec!["is in windows in one of the versions only".to_owned()],
    };
    let mut why = places((&f.assigner, f.time, f.late_port), (&g.assigner, g.time, g.late_port));
    if (f.collects, f.merges) != (g.collects, g.merges) {
        why.push("keeps the rows of its windows otherwise".to_owned());
    } else if keyed_by(f, old.timers) != keyed_by(g, new.timers) {
        why.push(
            "overlaps, and keeps its rows otherwise: it shares them only without lateness and timers of its own"
                .to_owned(),
        );
    } else if is_on_disk && f.lateness != g.lateness {
        why.push("has another lateness, and its state lies on disk (state.backend.type)".to_owned());
    }
    why
}

type Places<'a> = (&'a Assigner, TimeDomain, Option<u32>);

/// Where windows lie, by which clock, and what becomes of rows that are late.
fn places(old: Places<'_>, new: Places<'_>) -> Vec<String> {
    let mut why = Vec::new();
    if old.0 != new.0 {
        why.push("has other windows: another kind, size, step, gap or offset".to_owned());
    }
    if old.1 != new.1 {
        why.push(format!("went by {}, and goes by {}", clock(old.1), clock(new.1)));
    }
    if old.2 != new.2 {
        why.push("gives late rows another way".to_owned());
    }
    why
}

/// Why an operator cannot make other watermarks while the job runs; none = it can.
pub(super) fn of_watermarks(old: &Watermarks, new: &Watermarks) -> Vec<String> {
    let mut why = Vec::new();
    if old.time_column != new.time_column {
        why.push("takes the rows' times from another column".to_owned());
    }
    if old.alignment != new.alignment {
        why.push("is aligned otherwise".to_owned());
    }
    why
}
