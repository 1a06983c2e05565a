//! Files of Parquet as they are cut, read, left in the middle and written.

use std::fs;

use arrow_array::{Int32Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow_schema::{Field, Schema, TimeUnit};
use platform::Random;
use tempfile::TempDir;

use super::*;
use crate::formats::parquet::file_of;
use crate::test_support::{World, connection, error_of, inserts, schema, with_format};

/// So many rows: a text, and a number that may be missing.
fn rows(first: i64, count: usize) -> RecordBatch {
    let numbers = (first..first + count as i64).map(|n| (n % 7 != 0).then_some(n));
    let texts = (first..first + count as i64).map(|n| format!("row {n}"));
    RecordBatch::try_new(
        wanted(),
        vec![Arc::new(texts.map(Some).collect::<StringArray>()), Arc::new(numbers.collect::<Int64Array>())],
    )
    .unwrap()
}

fn wanted() -> SchemaRef {
    schema(&[("text", DataType::Utf8, false), ("number", DataType::Int64, true)])
}

fn factory(path: &str, schema: &SchemaRef) -> Result<ParquetFactory, Diagnostic> {
    let connection = with_format(connection("files", &[("path", path)]), "parquet", &[]);
    let factory = ParquetFactory::of(&connection, schema)?;
    factory.prepare()?;
    Ok(factory)
}

/// Three files with row groups of 40 rows, and the texts in them.
fn folder() -> (TempDir, String, Vec<String>) {
    let folder = TempDir::new().unwrap();
    for (name, first, count) in [("a.parquet", 0, 230), ("b.parquet", 230, 1), ("c.parquet", 231, 90)] {
        fs::write(folder.path().join(name), file_of(&wanted(), &[rows(first, count)], 40)).unwrap();
    }
    let path = folder.path().display().to_string();
    let mut texts: Vec<_> = (0..321).map(|n| format!("row {n}")).collect();
    texts.sort_unstable();
    (folder, path, texts)
}

#[test]
fn each_row_comes_once_at_every_parallelism() {
    let (_folder, path, texts) = folder();
    for parallelism in [1, 2, 5] {
        let given =
            World::system().with_batches(16, 1 << 16).read(&factory(&path, &wanted()).unwrap(), parallelism);
        let given = given.unwrap();
        assert_eq!(given.sorted_texts(), texts);
        assert!(given.failures.is_empty());
        assert!(given.batches.iter().all(|(_, batch)| batch.num_rows() <= 16));
        let bytes: u64 =
            fs::read_dir(&path).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(given.bytes_read > bytes / 2 && given.bytes_read <= bytes, "{} of {bytes}", given.bytes_read);
    }
}

/// What is given when reading stops at random and goes on at another parallelism; `forget` loses a position.
fn stopped_and_gone_on(seed: u64, path: &str, forget: bool) -> Vec<String> {
    let mut random = Random::of_seed(seed);
    let mut world = World::simulated(seed).with_batches(1 + random.below(20) as usize, 1 << 16);
    let (mut texts, mut positions) = (Vec::new(), Vec::<String>::new());
    for run in 0..4 {
        let factory = factory(path, &wanted()).unwrap();
        factory.restore(&positions).unwrap();
        let subtasks = 1 + random.below(4);
        let polls: Vec<usize> =
            (0..subtasks).map(|_| if run == 3 { usize::MAX } else { random.below(12) as usize }).collect();
        let (given, next) = world.read_in_part(&factory, &polls).unwrap();
        texts.extend(given.texts());
        positions = next;
        if forget && run == 1 {
            positions.pop();
        }
    }
    texts.sort_unstable();
    texts
}

#[test]
fn each_row_comes_once_however_often_reading_stops_and_goes_on() {
    let (_folder, path, texts) = folder();
    for seed in 0..100 {
        assert_eq!(stopped_and_gone_on(seed, &path, false), texts, "seed {seed}");
    }
    let noticed = (0..20).filter(|seed| stopped_and_gone_on(*seed, &path, true) != texts).count();
    assert!(noticed > 5, "a position that is lost was noticed in {noticed} of 20");
}

#[test]
fn columns_are_found_by_name_and_widened_and_rows_that_do_not_fit_are_told() {
    let folder = TempDir::new().unwrap();
    let has = schema(&[
        ("other", DataType::Utf8, true),
        ("number", DataType::Int64, true),
        ("small", DataType::Int32, true),
        ("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["x"; 4])),
        Arc::new(Int64Array::from(vec![Some(1), Some(5_000_000_000), None, Some(4)])),
        Arc::new(Int32Array::from(vec![10, 20, 30, 40])),
        Arc::new(TimestampMillisecondArray::from(vec![0, 1, 2, 3])),
    ];
    let rows = RecordBatch::try_new(Arc::clone(&has), columns).unwrap();
    let path = folder.path().join("a.parquet").display().to_string();
    fs::write(&path, file_of(&has, &[rows], 100)).unwrap();
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let wanted =
        schema(&[("small", DataType::Int64, false), ("number", DataType::Int32, false), ("at", utc, false)]);
    let given = World::system().read(&factory(&path, &wanted).unwrap(), 1).unwrap();
    let [(_, batch)] = &given.batches[..] else { panic!("one batch") };
    assert_eq!(crate::test_support::numbers(batch), [10, 40]);
    assert_eq!(
        crate::formats::as_json_lines(batch)[1],
        r#"{"small":40,"number":4,"at":"1970-01-01 00:00:00.003000"}"#
    );
    let told: Vec<_> =
        given.failures.iter().map(|failure| (failure.place.as_str(), failure.message.as_str())).collect();
    let (second, third) = (format!("{path}, row 2"), format!("{path}, row 3"));
    assert_eq!(
        told,
        [(second.as_str(), "`number` does not fit into Int32"), (third.as_str(), "`number` is missing")]
    );
    assert!(String::from_utf8_lossy(&given.failures[0].record).contains("\"number\":5000000000"));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_name() {
    let (_folder, path, _) = folder();
    let refused = |fields: &[(&str, DataType, bool)]| error_of(factory(&path, &schema(fields)));
    let missing = refused(&[("texts", DataType::Utf8, false)]);
    assert!(missing.message.ends_with("a.parquet` has no column `texts`"), "{}", missing.message);
    assert_eq!(missing.hint.as_deref(), Some("did you mean `text`?"));
    let other = refused(&[("text", DataType::Int64, false)]);
    assert!(other.message.ends_with("a.parquet` is of another type than the job takes"), "{}", other.message);
    assert_eq!(other.detail.as_deref(), Some("it is Utf8, and the job takes Int64"));
    fs::write(format!("{path}/d.parquet"), "text\n").unwrap();
    let none = refused(&[("text", DataType::Utf8, false)]);
    assert!(none.message.ends_with("d.parquet` as Parquet"), "{}", none.message);
}

#[test]
fn a_file_that_is_another_is_refused() {
    let (folder, path, _) = folder();
    let factory_1 = factory(&path, &wanted()).unwrap();
    let (_, positions) = World::simulated(1).read_in_part(&factory_1, &[3]).unwrap();
    fs::write(folder.path().join("a.parquet"), file_of(&wanted(), &[rows(0, 229)], 40)).unwrap();
    let refused = error_of(factory(&path, &wanted()).unwrap().restore(&positions));
    assert!(refused.message.ends_with("a.parquet` is another file than it was"), "{}", refused.message);
}

#[test]
fn what_a_sink_writes_a_source_reads() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().display().to_string();
    for compression in ["snappy", "zstd", "none"] {
        let at = format!("{path}/{compression}");
        let connection =
            with_format(connection("files", &[("path", &at)]), "parquet", &[("compression", compression)]);
        let sink = crate::sink(&connection, &inserts(&wanted())).unwrap();
        let mut world = World::system();
        sink.prepare().unwrap();
        let batches: Vec<_> = (0..30).map(|n| Batch::new(rows(n * 100, 100))).collect();
        world.write(sink.as_ref(), &batches).unwrap();
        let given = world.read(&factory(&at, &wanted()).unwrap(), 1).unwrap();
        let all = |batches: &mut dyn Iterator<Item = &Batch>| -> Vec<String> {
            batches.flat_map(crate::formats::as_json_lines).collect()
        };
        let [given, written] =
            [all(&mut given.batches.iter().map(|(_, batch)| batch)), all(&mut batches.iter())];
        assert_eq!(given, written, "{compression}");
    }
    let nested =
        Field::new("list", DataType::List(Arc::new(Field::new("item", DataType::Int64, true))), true);
    let nested: SchemaRef = Arc::new(Schema::new(vec![nested]));
    let connection =
        with_format(connection("files", &[("path", "x")]), "parquet", &[("compression", "gzip")]);
    let refused = error_of(crate::sink(&connection, &inserts(&nested)).map(drop));
    assert!(refused.message.contains("gzip"), "{}", refused.message);
}

/// What is done to a file, of which another has these bytes, and what then is said of it.
type Deed = (fn(&Path, &[u8]), &'static str);

#[test]
fn a_file_that_is_changed_while_it_is_read_is_an_error() {
    let other = file_of(&wanted(), &[rows(5_000, 400)], 40);
    let deeds: [Deed; 3] = [
        (
            |path, other| {
                let beside = path.with_extension("other");
                fs::write(&beside, other).unwrap();
                fs::rename(beside, path).unwrap();
            },
            "was replaced by another file while it was read",
        ),
        (|path, other| fs::write(path, other).unwrap(), "was changed while it was read"),
        (|path, other| fs::write(path, &other[..100]).unwrap(), "became shorter while it was read"),
    ];
    for (deed, message) in deeds {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.parquet");
        fs::write(&path, file_of(&wanted(), &[rows(0, 230)], 40)).unwrap();
        platform::Clock::system().sleep(Duration::from_millis(15));
        let factory = factory(&path.display().to_string(), &wanted()).unwrap();
        let world = World::simulated(1).with_batches(7, 1 << 16);
        let mut source = factory.open(world.context(0, 1)).unwrap();
        let (mut texts, mut is_done) = (Vec::new(), false);
        let error = loop {
            match source.poll() {
                Ok(SourcePoll::Rows(decoded)) => texts.extend(crate::test_support::texts(&decoded.batch)),
                Ok(SourcePoll::Pending) => assert!(world.platform.io.run_one(&mut Random::of_seed(1))),
                Ok(SourcePoll::End) => panic!("{message}: it was not noticed"),
                Err(error) => break error,
            }
            // In the second row group.
            if !is_done && texts.len() > 40 {
                deed(&path, &other);
                is_done = true;
            }
        };
        assert!(error.message.ends_with(message), "{}", error.message);
        let expected: Vec<String> = (0..texts.len()).map(|n| format!("row {n}")).collect();
        assert!(is_done && texts == expected, "{message}: rows of the other file");
    }
}
