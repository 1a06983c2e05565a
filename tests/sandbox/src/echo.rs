//! Rows of every type go to a guest and come back the same.

use std::sync::Arc;
use std::task::Poll;

use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{ArrayRef, BinaryArray, BooleanArray, ListArray, PrimitiveArray, StringArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use guest::{Call, Moment, NoHooks, NodePort, Opening, Task};
use model::Batch;
use platform::Random;
use proptest::prelude::*;

use crate::support::hostile;

/// A random type, nested at most so deep.
fn random_type(random: &mut Random, depth: u64) -> DataType {
    match random.below(if depth == 0 { 12 } else { 14 }) {
        0 => DataType::Boolean,
        1 => DataType::Int32,
        2 => DataType::Int64,
        3 => DataType::Float32,
        4 => DataType::Float64,
        5 => DataType::Decimal128(23, 3),
        6 => DataType::Utf8,
        7 => DataType::Binary,
        8 => DataType::Date32,
        9 => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        10 => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        11 => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        12 => DataType::List(Arc::new(random_field(random, "item", depth - 1))),
        _ => {
            let members = 1 + random.below(3);
            let members: Vec<Field> =
                (0..members).map(|i| random_field(random, &format!("m{i}"), depth - 1)).collect();
            DataType::Struct(members.into())
        }
    }
}

fn random_field(random: &mut Random, name: &str, depth: u64) -> Field {
    let data_type = random_type(random, depth);
    Field::new(name, data_type, random.one_in(2))
}

fn random_nulls(random: &mut Random, field: &Field, rows: usize) -> Option<NullBuffer> {
    let wanted = field.is_nullable() && random.one_in(2);
    let nulls = wanted.then(|| (0..rows).map(|_| !random.one_in(3)).collect::<NullBuffer>());
    nulls.filter(|nulls| nulls.null_count() > 0)
}

fn random_bytes(random: &mut Random) -> Vec<u8> {
    (0..random.below(30)).map(|_| random.bits() as u8).collect()
}

fn random_column(random: &mut Random, field: &Field, rows: usize) -> ArrayRef {
    let nulls = random_nulls(random, field, rows);
    macro_rules! numbers {
        ($kind:ty, $draw:expr) => {{
            let values: Vec<_> = (0..rows).map(|_| $draw(random.bits())).collect();
            Arc::new(
                PrimitiveArray::<$kind>::new(values.into(), nulls).with_data_type(field.data_type().clone()),
            )
        }};
    }
    match field.data_type() {
        DataType::Boolean => {
            let values = (0..rows).map(|_| random.one_in(2)).collect();
            Arc::new(BooleanArray::new(values, nulls))
        }
        DataType::Int32 => numbers!(Int32Type, |bits| bits as i32),
        DataType::Int64 => numbers!(Int64Type, |bits| bits as i64),
        // Bit patterns of NaNs may change in a guest; numbers may not.
        DataType::Float32 => numbers!(Float32Type, |bits| bits as i32 as f32),
        DataType::Float64 => numbers!(Float64Type, |bits| bits as i64 as f64),
        DataType::Decimal128(..) => numbers!(Decimal128Type, |bits| i128::from(bits as i64)),
        DataType::Date32 => numbers!(Date32Type, |bits| bits as i32),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            numbers!(TimestampMillisecondType, |bits| bits as i64)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            numbers!(TimestampMicrosecondType, |bits| bits as i64)
        }
        DataType::Timestamp(..) => numbers!(TimestampNanosecondType, |bits| bits as i64),
        DataType::Utf8 => {
            let text = (0..rows).map(|_| String::from_utf8_lossy(&random_bytes(random)).into_owned());
            let (offsets, values, _) = StringArray::from_iter_values(text).into_parts();
            Arc::new(StringArray::new(offsets, values, nulls))
        }
        DataType::Binary => {
            let (offsets, values, _) =
                BinaryArray::from_iter_values((0..rows).map(|_| random_bytes(random))).into_parts();
            Arc::new(BinaryArray::new(offsets, values, nulls))
        }
        DataType::List(item) => {
            let mut ends = vec![0i32];
            for _ in 0..rows {
                ends.push(ends[ends.len() - 1] + random.below(4) as i32);
            }
            let values = random_column(random, item, ends[rows] as usize);
            Arc::new(ListArray::new(
                Arc::clone(item),
                OffsetBuffer::new(ScalarBuffer::from(ends)),
                values,
                nulls,
            ))
        }
        DataType::Struct(members) => {
            let columns = members.iter().map(|member| random_column(random, member, rows)).collect();
            Arc::new(StructArray::new(members.clone(), columns, nulls))
        }
        other => unreachable!("{other} is not drawn"),
    }
}

fn random_batch(random: &mut Random) -> (SchemaRef, Batch) {
    let fields: Vec<Field> =
        (0..1 + random.below(5)).map(|i| random_field(random, &format!("c{i}"), 2)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let rows = 1 + random.below(50) as usize;
    let columns = schema.fields().iter().map(|field| random_column(random, field, rows)).collect();
    let mut batch = Batch::of(Arc::clone(&schema), rows, columns).unwrap();
    if random.one_in(2) {
        batch = batch.with_event_times(Some((0..rows).map(|_| random.bits() as i64).collect()));
    }
    // A part of a larger batch: its buffers begin elsewhere.
    if rows > 2 && random.one_in(2) {
        batch = batch.slice(1, rows - 2);
    }
    (schema, batch)
}

/// What the guest gives back.
fn echoed(schema: &SchemaRef, rows: Batch) -> Batch {
    let task = Task { job: "echo".into(), args: vec![], subtask: 0, parallelism: 1, attempt: 0 };
    let mut chain = hostile().open(Opening {
        task,
        chain: vec![1],
        outputs: vec![NodePort { node: 1, port: 0 }],
        schemas: vec![Arc::clone(schema)],
        states: Arc::new([]),
        broadcast_input: None,
        reader: None,
        hooks: Arc::new(NoHooks),
    });
    let now = Moment { watermark: i64::MIN, processing_time: 0 };
    chain.start(Call::Process { now, input: 0, rows });
    loop {
        if let Poll::Ready(outcome) = chain.poll() {
            let mut outputs = outcome.unwrap().outputs;
            assert_eq!(outputs.len(), 1);
            return outputs.remove(0).1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_back_the_same(seed in any::<u64>()) {
        let (schema, rows) = random_batch(&mut Random::of_seed(seed));
        let back = echoed(&schema, rows.clone());
        prop_assert_eq!(back.rows(), rows.rows());
        prop_assert_eq!(back.event_times(), rows.event_times());
    }
}

/// The comparison can fail: one bit of a text is another text.
#[test]
fn a_changed_row_is_seen() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, false)]));
    let of = |text: &str| {
        Batch::of(Arc::clone(&schema), 1, vec![Arc::new(StringArray::from(vec![text]))]).unwrap()
    };
    assert_ne!(echoed(&schema, of("a")).rows(), of("b").rows());
}
