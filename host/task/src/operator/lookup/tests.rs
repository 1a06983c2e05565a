use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use arrow_array::Int64Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::{DataType, Field, Schema};
use model::element::Mark;
use model::job_graph::{Connection, FailurePolicy};
use platform::{Platform, Random, ReadySet};

use super::table::TableSpec;
use super::*;
use crate::Sizes;
use crate::metrics::{LogRecord, LogSink, read};

/// A lookup over a file, in a world whose time and reading the test moves.
struct World {
    file: PathBuf,
    platform: Platform,
    table: Arc<Table>,
    operator: LookupOperator,
    input: Input,
    counters: Counters,
    ready: Arc<ReadySet>,
    log: Arc<Mutex<Vec<LogRecord>>>,
    /// Pairs of the row's value and the table's.
    given: Vec<(i64, Option<i64>)>,
    marks: Vec<Mark>,
    most: usize,
}

fn schema(names: [&str; 2]) -> SchemaRef {
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(names.map(field).to_vec()))
}

fn rows(keys: &[(Option<i64>, i64)]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(keys.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(keys.iter().map(|row| Some(row.1)).collect::<Int64Array>()),
    ];
    let times: Vec<i64> = keys.iter().map(|row| 10 * row.1).collect();
    let batch = Batch::of(schema(["k", "v"]), keys.len(), columns).unwrap();
    batch.with_event_times(Some(times.into()))
}

impl World {
    /// A table of this text in a file, as JSON.
    fn new(text: &str, outer: bool, reload: Option<Duration>, policy: FailurePolicy) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("millstream-lookup-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("table.json");
        fs::write(&file, text).unwrap();
        let platform = Platform::simulated();
        let log: Arc<Mutex<Vec<LogRecord>>> = Arc::default();
        let sink: LogSink = {
            let log = Arc::clone(&log);
            Arc::new(move |record| log.lock().unwrap().push(record))
        };
        let spec = TableSpec {
            name: "Side".into(),
            origin: Some("src/lib.rs:7".into()),
            connection: Connection {
                connector: "files".into(),
                options: [("path".into(), file.display().to_string())].into(),
                format: Some("json".into()),
                format_options: Default::default(),
            },
            schema: schema(["id", "w"]),
            keys: vec![0],
            reload,
            policy,
            sizes: Sizes::default(),
            seed: 7,
        };
        let table = Table::new(spec, &platform, &sink);
        let ready = ReadySet::new(1);
        table.wakes(ready.waker(0));
        let fields = [schema(["k", "v"]), schema(["id", "w"])];
        let fields: Vec<_> = fields.iter().flat_map(|schema| schema.fields().iter().cloned()).collect();
        let place = Place {
            job: "job".into(),
            operator: "Side".into(),
            origins: Vec::new(),
            subtask: 0,
            parallelism: 1,
        };
        let output = Arc::new(Schema::new(fields));
        let operator =
            LookupOperator { table: Arc::clone(&table), keys: vec![0], outer, output, place, work: None };
        Self {
            file,
            platform,
            table,
            operator,
            input: Input::default(),
            counters: Counters::default(),
            ready,
            log,
            given: Vec::new(),
            marks: Vec::new(),
            most: 0,
        }
    }

    /// Lets the pool read what it is to read.
    fn read(&mut self) -> bool {
        self.platform.io.run_one(&mut Random::of_seed(1))
    }

    fn push(&mut self, keys: &[(Option<i64>, i64)]) {
        self.input.elements.push_back(Element::Rows(0, rows(keys)));
    }

    /// Runs until there is nothing to do.
    fn run(&mut self) -> Result<Ran, Diagnostic> {
        loop {
            let (given, mut count) = (&mut self.given, 0);
            let ran = self.operator.run(&mut self.input, &self.counters, &mut |port, rows| {
                assert_eq!(port, 0);
                count += rows.num_rows();
                let column = |at: usize| rows.column(at).as_primitive::<Int64Type>();
                let times = rows.event_times().unwrap();
                assert!(times.iter().zip(column(1)).all(|(time, value)| Some(*time / 10) == value));
                given.extend(column(1).values().iter().copied().zip(column(3).iter()));
                Ok(())
            })?;
            self.most = self.most.max(count);
            match ran {
                Ran::Progress => {}
                Ran::Forward(mark) => self.marks.push(mark),
                ran => return Ok(ran),
            }
        }
    }

    fn take(&mut self) -> Vec<(i64, Option<i64>)> {
        std::mem::take(&mut self.given)
    }

    fn is_woken(&self) -> bool {
        let mut woken = Vec::new();
        self.ready.take(&mut woken);
        !woken.is_empty()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(self.file.parent().unwrap()));
    }
}

const TABLE: &str = "{\"id\":1,\"w\":10}\n{\"id\":2,\"w\":20}\n{\"id\":1,\"w\":11}\n{\"id\":null,\"w\":90}\n";

#[test]
fn rows_wait_for_the_table() {
    let mut world = World::new(TABLE, false, None, FailurePolicy::Fail);
    world.push(&[(Some(1), 1), (None, 2), (Some(3), 3), (Some(2), 4)]);
    world.input.elements.push_back(Element::Mark(Mark::Watermark(5)));
    assert_eq!(world.run().unwrap(), Ran::Idle);
    assert!(world.given.is_empty() && world.marks.is_empty());
    assert!(world.read());
    assert!(world.is_woken());
    assert_eq!(world.run().unwrap(), Ran::Idle);
    assert_eq!(world.take(), [(1, Some(10)), (1, Some(11)), (4, Some(20))]);
    assert_eq!(world.marks, [Mark::Watermark(5)]);
    world.input.ended = true;
    assert_eq!(world.run().unwrap(), Ran::Ended);
    assert_eq!((read(&world.counters.tables_read), read(&world.counters.rows_out)), (1, 3));
    // It is not read again.
    assert_eq!(world.table.next_at(), None);
    assert!(!world.read());
}

#[test]
fn outer_rows_leave_without_a_partner() {
    let mut world = World::new(TABLE, true, None, FailurePolicy::Fail);
    world.push(&[(Some(2), 1), (None, 2), (Some(3), 3)]);
    assert!(world.read());
    world.run().unwrap();
    assert_eq!(world.take(), [(1, Some(20)), (2, None), (3, None)]);
}

/// Kinds of a changelog's rows stay.
#[test]
fn kinds_pass_on() {
    let mut world = World::new(TABLE, false, None, FailurePolicy::Fail);
    let changes = rows(&[(Some(2), 1), (Some(1), 2)]).with_kinds(Some(vec![3, 0].into()));
    world.input.elements.push_back(Element::Rows(0, changes));
    assert!(world.read());
    let mut kinds = Vec::new();
    world
        .operator
        .run(&mut world.input, &world.counters, &mut |_, rows| {
            kinds.extend_from_slice(rows.kinds().unwrap());
            Ok(())
        })
        .unwrap();
    assert_eq!(kinds, [3, 0, 0]);
}

/// It is read again when its time has come, by whoever steps first, and swapped in whole.
#[test]
fn the_table_is_read_again() {
    let reload = Duration::from_secs(60);
    let mut world = World::new(TABLE, true, Some(reload), FailurePolicy::Fail);
    assert!(world.read());
    world.push(&[(Some(2), 1)]);
    world.run().unwrap();
    assert_eq!(world.take(), [(1, Some(20))]);
    assert_eq!(world.table.next_at(), Some(reload));

    fs::write(&world.file, "{\"id\":2,\"w\":21}\n").unwrap();
    world.platform.clock.advance(Duration::from_secs(59));
    world.push(&[(Some(2), 2)]);
    world.run().unwrap();
    assert!(!world.read(), "read before its time");
    world.platform.clock.advance(Duration::from_secs(1));
    // Until the new one is there, the old one serves.
    world.push(&[(Some(2), 3)]);
    world.run().unwrap();
    assert_eq!(world.table.next_at(), None);
    assert_eq!(world.take(), [(2, Some(20)), (3, Some(20))]);
    world.is_woken();
    assert!(world.read());
    assert!(world.is_woken());
    world.push(&[(Some(2), 4), (Some(1), 5)]);
    world.run().unwrap();
    assert_eq!(world.take(), [(4, Some(21)), (5, None)]);
    assert_eq!(world.table.next_at(), Some(2 * reload));
    assert_eq!(read(&world.counters.tables_read), 2);
}

/// One that cannot be read again stays as it was; it is told and counted, and tried again.
#[test]
fn a_table_that_cannot_be_read_again_stays() {
    let reload = Duration::from_secs(1);
    let mut world = World::new(TABLE, false, Some(reload), FailurePolicy::Fail);
    assert!(world.read());
    for (at, text) in
        [None, Some("{\"id\":2,\"w\":21}\n{\"id\":"), Some("{\"id\":2,\"w\":22}\n")].into_iter().enumerate()
    {
        match text {
            Some(text) => fs::write(&world.file, text).unwrap(),
            None => fs::remove_file(&world.file).unwrap(),
        }
        world.platform.clock.advance(reload);
        world.run().unwrap();
        assert!(world.read());
        world.push(&[(Some(2), 1)]);
        world.run().unwrap();
        let (expected, failed) = [(20, 1), (20, 2), (22, 2)][at];
        assert_eq!(world.take(), [(1, Some(expected))]);
        assert_eq!(read(&world.counters.tables_failed), failed);
    }
    let log = world.log.lock().unwrap();
    let messages: Vec<&str> = log.iter().map(|record| record.message.as_str()).collect();
    assert_eq!(messages.len(), 2);
    assert!(log.iter().all(|record| record.level == guest::LogLevel::Warn && record.function == "Side"));
    assert!(messages[0].contains("the table stays as it was") && messages[0].contains("there is no file"));
    assert!(messages[1].contains("table.json") && messages[1].contains("line 2"), "{}", messages[1]);
}

/// What is wrong with the table fails the job, with file, line and node; also where no row comes.
#[test]
fn a_table_that_cannot_be_read_fails() {
    let bad = "{\"id\":1,\"w\":10}\n{\"id\":\"one\",\"w\":10}\n";
    let mut world = World::new(bad, false, None, FailurePolicy::Fail);
    world.input.ended = true;
    assert_eq!(world.run().unwrap(), Ran::Idle);
    assert!(world.read());
    let error = world.run().unwrap_err();
    let detail = error.detail.unwrap();
    assert!(error.message.contains("table of `Side`"), "{}", error.message);
    for part in ["table.json", "line 2", "written at src/lib.rs:7"] {
        assert!(detail.contains(part), "{detail}");
    }
    // Every subtask is told.
    assert!(world.table.current().is_err());
}

#[test]
fn bad_records_can_be_skipped() {
    let bad = "{\"id\":1,\"w\":10}\n{\"id\":\"one\",\"w\":10}\n";
    let mut world = World::new(bad, false, None, FailurePolicy::Skip);
    world.push(&[(Some(1), 1)]);
    assert!(world.read());
    world.run().unwrap();
    assert_eq!(world.take(), [(1, Some(10))]);
    assert_eq!(read(&world.counters.rows_skipped), 1);
}

/// Rows that find very many leave in steps.
#[test]
fn many_partners_leave_in_steps() {
    let text: String = (0..3_000).map(|at| format!("{{\"id\":1,\"w\":{at}}}\n")).collect();
    let mut world = World::new(&text, false, None, FailurePolicy::Fail);
    let keys: Vec<(Option<i64>, i64)> = (0..10).map(|at| (Some(1), at)).collect();
    world.push(&keys);
    assert!(world.read());
    world.run().unwrap();
    assert_eq!(world.given.len(), 30_000);
    assert!(world.most <= STEP_ROWS, "{} rows in a step", world.most);
    let expected: Vec<(i64, Option<i64>)> =
        (0..10).flat_map(|row| (0..3_000).map(move |at| (row, Some(at)))).collect();
    assert_eq!(world.given, expected);
}

/// All subtasks are woken by one reading.
#[test]
fn one_reading_serves_all() {
    let world = World::new(TABLE, false, None, FailurePolicy::Fail);
    let other = ReadySet::new(1);
    world.table.wakes(other.waker(0));
    world.table.wakes(Waker::noop().clone());
    assert_eq!(world.platform.io.waiting(), 1);
    let mut random = Random::of_seed(2);
    assert!(world.platform.io.run_one(&mut random));
    let mut woken = Vec::new();
    other.take(&mut woken);
    assert_eq!(woken.len(), 1);
    let (one, two) = (world.table.current().unwrap().unwrap(), world.table.current().unwrap().unwrap());
    assert!(Arc::ptr_eq(&one, &two));
}
