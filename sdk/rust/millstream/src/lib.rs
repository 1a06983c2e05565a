//! Writes Millstream jobs in Rust: typed streams, in the manner of Flink's `DataStream`.
//!
//! ```
//! use millstream::prelude::*;
//!
//! #[derive(millstream::Parser)]
//! struct WordCountArgs {
//!     #[command(flatten)]
//!     input: InputArgs,
//!     #[command(flatten)]
//!     output: OutputArgs,
//! }
//!
//! /// Counts the words of a text.
//! #[job]
//! fn word_count(job: &Job, args: WordCountArgs) -> Result<()> {
//!     job.lines(args.input.or_sample("to be or not to be"))
//!         .flat_map(|line, out| {
//!             for word in line.split_whitespace() {
//!                 out.emit((word, 1));
//!             }
//!         })
//!         .key_by(F0)
//!         .sum(F1)
//!         .names(["word", "count"])
//!         .sink(&args.output);
//!     Ok(())
//! }
//!
//! millstream::jobs!(word_count);
//! # fn main() {
//! # let run = millstream::testing::Harness::of(word_count).run();
//! # assert_eq!(run.rows::<(String, i64)>("Sink: print").last(), Some(&("be".to_string(), 2)));
//! # }
//! ```
//!
//! A job function describes the graph; its closures run in the guest, on borrowed rows, batch by
//! batch. Keyed aggregates, partitioning, sources and sinks are the host's.
//! The guide is `docs/sdk-rust.md`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate self as millstream;

mod access;
mod aggregate;
mod aggregate_function;
mod args;
mod broadcast;
mod changes;
mod connected;
mod connector;
mod emit;
mod error;
mod field;
mod job;
mod joins;
mod keyed;
mod logging;
mod lookup;
mod metrics;
mod plan;
mod process;
mod record;
mod run;
mod select;
mod side;
mod state;
mod stream;
mod task;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod top;
mod trigger;
mod watermarks;
mod window_function;
mod windows;

#[cfg(doctest)]
#[doc = include_str!("../../../../docs/sdk-rust.md")]
mod guide {}

#[cfg(doctest)]
#[doc = include_str!("../../../../docs/from-flink.md")]
mod from_flink {}

pub use access::{AggregatingAccess, EntryAccess, ListAccess, MapAccess, ReducingAccess, ValueAccess};
pub use aggregate::{
    Aggregates, avg, bottom, count, count_distinct, count_of, first, last, max, min, sum, top,
};
pub use aggregate_function::AggregateFunction;
pub use args::{Args, JobArgs};
#[cfg(feature = "clap")]
pub use args::{InputArgs, OutputArgs};
pub use broadcast::{
    BroadcastAccess, BroadcastContext, BroadcastProcessFunction, BroadcastStates, Broadcasting,
    ConnectedBroadcast, ConnectedSpread, KeyedBroadcastProcessFunction, ReadOnlyContext, Unkeyed,
};
pub use changes::RowKind;
#[cfg(feature = "clap")]
pub use clap;
#[cfg(feature = "clap")]
pub use clap::Parser;
pub use connected::{Co, CoContext, CoProcessFunction, Connected, ConnectedKeyed};
pub use connector::{Connector, Sink};
pub use emit::Emit;
pub use error::{Error, Result};
pub use field::{F0, F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, Field, FieldOf, KeyFields};
pub use job::{Definition, Job, JobFunction, Refusal, Tables};
pub use joins::{Joined, KeyedJoin, TemporalJoin};
pub use keyed::{KeyedSide, KeyedStream};
pub use log;
pub use lookup::{LookupJoin, Table};
pub use metrics::{Counter, Gauge, Histogram};
pub use millstream_macros::{Record, job, jobs};
pub use plan::OnFailure;
pub use process::{Context, KeyOf, NoSide, ProcessFunction, Side, TimeDomain, Timer, Ttl};
pub use record::{
    Date, Decimal, Failed, FailedRef, Items, List, Record, Row, Timestamp, TimestampMicros, TimestampNanos,
};
pub use select::Fields;
pub use side::{OneSide, TwoSides};
pub use state::{
    AggregatingState, BroadcastState, DeclaredMap, DeclaredState, ListState, MapKey, MapState, ReducingState,
    States, ValueState,
};
pub use stream::{Either, Fallible, SinkHandle, Source, Stream};
pub use task::TaskInfo;
pub use top::{Order, Orders, asc, desc};
pub use trigger::{Trigger, TriggerContext, TriggerResult};
pub use watermarks::{PointInTime, Watermarks};
pub use window_function::{Window, WindowFunction, WindowRows, WindowRowsIter};
pub use windows::{
    CoGroup, CoGroupFunction, CoGrouped, CountWindows, Cumulating, Global, GridWindows, HostTrigger,
    LateCoGrouped, LateWindowed, OfTime, Offset, OwnTrigger, Session, Sliding, SlidingCountWindows,
    TakesFunctions, TriggerChoice, Tumbling, WindowRow, Windowed, Windows, after, before,
};

/// What a job needs, in one line: `use millstream::prelude::*;`
pub mod prelude {
    pub use crate::{
        AggregateFunction, AggregatingState, Args, BroadcastContext, BroadcastProcessFunction,
        BroadcastState, BroadcastStates, Broadcasting, CoContext, CoGroupFunction, CoProcessFunction,
        Connector, Context, Counter, Cumulating, Date, Decimal, Emit, Error, F0, F1, F2, F3, F4, F5, F6, F7,
        F8, F9, F10, F11, Failed, Gauge, Global, Histogram, Items, Job, JobArgs,
        KeyedBroadcastProcessFunction, KeyedStream, List, ListState, MapState, OnFailure, ProcessFunction,
        ReadOnlyContext, Record, ReducingState, Result, Row, RowKind, Session, Sink, Sliding, States, Stream,
        Table, TaskInfo, TimeDomain, Timer, Timestamp, Trigger, TriggerContext, TriggerResult, Ttl, Tumbling,
        Unkeyed, ValueState, Watermarks, Window, WindowFunction, WindowRows, after, asc, avg, bail, before,
        bottom, count, count_distinct, count_of, desc, ensure, first, job, last, max, min, sum, top,
    };
    #[cfg(feature = "clap")]
    pub use crate::{InputArgs, OutputArgs, Parser, clap};
}

/// For the macros only: nothing here is stable.
#[doc(hidden)]
pub mod private {
    pub use millstream_sys as sys;
    pub use millstream_sys::bindings::millstream::job::rows::{
        Batch, Column, DataType, Field as SchemaField, Values,
    };

    pub use crate::job::{jobs, plan};
    pub use crate::logging::print;
    pub use crate::record::{Builder, Cursor, Sequence};
    pub use crate::run::{merge, on_timers, open, process, process_keyed};
}
