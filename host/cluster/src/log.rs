//! What jobs and their session say: the last lines of each job are kept for whoever asks, and all goes out as events
//! of [`tracing`], with the job's id and, where it is of one, operator and subtask.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::DateTime;
use guest::LogLevel;
use model::Diagnostic;
use task::{LogRecord, LogSink};

use crate::Tell;

/// How many lines of a job's log are remembered.
const LINES: usize = 10_000;

/// What a job has said, the last of it.
pub struct JobLog {
    lines: Mutex<VecDeque<String>>,
    job: String,
    clock: platform::Clock,
    /// Hears it too.
    also: Option<Arc<dyn Tell>>,
}

/// One event. `subtask_index` is from 0, as in metrics.
macro_rules! event {
    ($level:expr, $($field:tt)*) => {
        match $level {
            LogLevel::Trace => tracing::trace!($($field)*),
            LogLevel::Debug => tracing::debug!($($field)*),
            LogLevel::Info => tracing::info!($($field)*),
            LogLevel::Warn => tracing::warn!($($field)*),
            LogLevel::Error => tracing::error!($($field)*),
        }
    };
}

impl JobLog {
    /// An empty one, of the job of this id. What is told of the job is said to `also` too.
    #[must_use]
    pub fn new(job: &str, clock: platform::Clock, also: Option<Arc<dyn Tell>>) -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), job: job.to_owned(), clock, also })
    }

    /// Its last lines, the oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    /// Adds what the job has to say.
    pub fn add(&self, level: LogLevel, text: &str) {
        event!(level, job = %self.job, "{text}");
        self.keep(level, text);
    }

    /// Keeps a line: the time, how grave it is, what it says.
    fn keep(&self, level: LogLevel, text: &str) {
        let level = match level {
            LogLevel::Trace => "TRACE",
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warn => "WARN",
            LogLevel::Error => "ERROR",
        };
        let line = format!("{} {level:<5} {text}", time_of(self.clock.wall_ms()));
        let mut lines = self.lock();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the guests' messages go.
    #[must_use]
    pub fn sink(self: &Arc<Self>) -> LogSink {
        let this = Arc::clone(self);
        Arc::new(move |record: LogRecord| {
            let LogRecord { level, function, subtask, message } = record;
            event!(level, job = %this.job, operator = %function, subtask_index = subtask, "{message}");
            let subtask = subtask.map(|subtask| format!(" ({})", subtask + 1)).unwrap_or_default();
            this.keep(level, &format!("{function}{subtask}: {message}"));
        })
    }
}

impl Tell for JobLog {
    fn say(&self, text: &str) {
        self.add(LogLevel::Info, text);
        self.also.iter().for_each(|also| also.say(text));
    }

    fn warn(&self, text: &str) {
        self.add(LogLevel::Warn, text);
        self.also.iter().for_each(|also| also.warn(text));
    }

    fn warn_of(&self, text: &str, error: &Diagnostic) {
        tracing::warn!(job = %self.job, error = %error, "{text}");
        self.keep(LogLevel::Warn, text);
        self.keep(LogLevel::Warn, &error.to_string());
        self.also.iter().for_each(|also| also.warn_of(text, error));
    }
}

/// What a session says that is of no job.
pub struct SessionLog;

impl Tell for SessionLog {
    fn say(&self, text: &str) {
        tracing::info!("{text}");
    }

    fn warn(&self, text: &str) {
        tracing::warn!("{text}");
    }

    fn warn_of(&self, text: &str, error: &Diagnostic) {
        tracing::warn!(error = %error, "{text}");
    }
}

/// As Flink's logs have it: `2026-11-26 18:50:12.123`, in UTC.
fn time_of(wall_ms: i64) -> String {
    DateTime::from_timestamp_millis(wall_ms).unwrap_or_default().naive_utc().to_string()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::{Value, json};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn events_have_the_job_and_where_they_are_of_one_the_subtask() {
        let written = Written::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(written.clone())
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .finish();
        let log = JobLog::new("ab12", platform::Clock::simulated(), None);
        tracing::subscriber::with_default(subscriber, || {
            let record = |level, subtask, message: &str| LogRecord {
                level,
                function: "Count".to_owned(),
                subtask,
                message: message.to_owned(),
            };
            let sink = log.sink();
            sink(record(LogLevel::Error, Some(2), "a word is missing"));
            sink(record(LogLevel::Trace, None, "looked"));
            log.warn_of("no checkpoint", &Diagnostic::user("the disk is full").hint("make room"));
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of =
            |event: &Value, names: &[&str]| names.iter().map(|name| event[*name].clone()).collect::<Value>();
        let names = ["level", "job", "operator", "subtask_index", "message"];
        assert_eq!(of(&events[0], &names), json!(["ERROR", "ab12", "Count", 2, "a word is missing"]));
        assert_eq!(of(&events[1], &names), json!(["TRACE", "ab12", "Count", null, "looked"]));
        assert_eq!(of(&events[2], &names), json!(["WARN", "ab12", null, null, "no checkpoint"]));
        assert!(events[2]["error"].as_str().unwrap().contains("make room"), "{text}");
        let lines = log.lines();
        assert!(lines[0].ends_with("ERROR Count (3): a word is missing"), "{lines:?}");
        assert_eq!(lines.len(), 4);
    }
}
