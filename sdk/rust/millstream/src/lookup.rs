//! Lookup joins: a stream and a table that lies outside.

use std::marker::PhantomData;
use std::panic::Location;
use std::time::Duration;

use millstream_sys::bindings::millstream::job::graph::{Connection, Lookup, NodeKind};
use millstream_sys::bindings::millstream::job::rows::Field;

use crate::connector::Connector;
use crate::field::KeyFields;
use crate::joins::side;
use crate::plan::NewNode;
use crate::record::{Record, schema_of};
use crate::stream::{Added, Stream, into_record};

/// A table that lies outside, whose rows are `R`: a file, a folder, a glob, or a text of the job's own.
///
/// It is read whole by every process before the first row, and kept in its memory.
#[derive(Clone, Debug)]
pub struct Table<R> {
    connection: Connection,
    fields: Vec<Field>,
    rows: PhantomData<R>,
}

impl<R: Record> Table<R> {
    /// JSON lines: each an object whose members are the fields of `R`.
    pub fn json(connector: impl Into<Connector>) -> Table<R> {
        Table::of(connector.into(), "json")
    }

    /// CSV, whose columns are the fields of `R`; see [`Connector::format_option`] for `header` and
    /// `delimiter`.
    pub fn csv(connector: impl Into<Connector>) -> Table<R> {
        Table::of(connector.into(), "csv")
    }

    /// Parquet, whose columns of these names are the fields of `R`; of [`Connector::files`] only.
    pub fn parquet(connector: impl Into<Connector>) -> Table<R> {
        Table::of(connector.into(), "parquet")
    }

    fn of(connector: Connector, format: &str) -> Table<R> {
        let connection = Connection {
            connector: connector.name,
            options: connector.options,
            format: connector.format.or_else(|| Some(format.into())),
            format_options: connector.format_options,
        };
        Table { connection, fields: schema_of::<R>(), rows: PhantomData }
    }
}

/// A stream and a table, to be joined: [`Stream::lookup_join`].
///
/// `O` is your record of the stream's columns, then the table's; those of the table are `Option`s where a
/// row may find nothing. That is checked when the job is planned.
///
/// ```
/// # use millstream::prelude::*;
/// # use std::time::Duration;
/// # #[derive(Record)]
/// # struct Bid { auction: i64, price: i64 }
/// #[derive(Record)]
/// struct Category { auction: i64, category: String }
///
/// #[derive(Record)]
/// struct Sorted { auction: i64, price: i64, of: Option<i64>, category: Option<String> }
///
/// # fn sorted<'j>(bids: Stream<'j, Bid>, path: String) -> Stream<'j, Sorted> {
/// let categories = Table::<Category>::csv(Connector::files(path).format_option("header", true));
/// bids.lookup_join(categories, Bid::AUCTION, Category::AUCTION)
///     .reload(Duration::from_secs(60))
///     .left::<Sorted>()
/// # }
/// ```
pub struct LookupJoin<'j, T, R> {
    stream: Stream<'j, T>,
    table: Table<R>,
    keys: [Vec<u32>; 2],
    reload: Option<Duration>,
}

impl<'j, T: Record> Stream<'j, T> {
    /// Joins each row with those of a table whose `table_keys` equal its `keys`, as it comes: Flink's
    /// lookup join. A key with a null (`None`) finds nothing.
    pub fn lookup_join<R: Record, K: KeyFields<T>>(
        self,
        table: Table<R>,
        keys: K,
        table_keys: impl KeyFields<R, Keys = K::Keys>,
    ) -> LookupJoin<'j, T, R> {
        let keys = [keys.columns(), table_keys.columns()];
        LookupJoin { stream: self, table, keys, reload: None }
    }
}

impl<'j, T: Record, R: Record> LookupJoin<'j, T, R> {
    /// Reads the table anew each so long. Rows meet the one that is there when they come; one that cannot be
    /// read leaves the one before in place, and is logged. Without it the table is read once.
    ///
    /// The stream must then not be a changelog: a row might be taken back as another.
    #[must_use]
    pub fn reload(mut self, each: Duration) -> Self {
        self.reload = Some(each);
        self
    }

    /// Pairs only.
    #[track_caller]
    pub fn inner<O: Record>(self) -> Stream<'j, O> {
        self.pairs("inner", false)
    }

    /// Pairs, and rows that find nothing.
    #[track_caller]
    pub fn left<O: Record>(self) -> Stream<'j, O> {
        self.pairs("left", true)
    }

    #[track_caller]
    fn pairs<O: Record>(self, name: &str, outer: bool) -> Stream<'j, O> {
        let Self { stream, table, keys: [keys, table_keys], reload } = self;
        let mut names = Vec::new();
        let mut fields = side(stream.fields(), false, "left", &mut names);
        fields.extend(side(table.fields.clone(), outer, "table", &mut names));
        let job = stream.job;
        let fields = into_record::<O>(job, fields, "this lookup", Location::caller());
        let lookup = Lookup {
            table: table.connection,
            schema: table.fields,
            keys,
            table_keys,
            outer,
            reload: reload.map(|each| u64::try_from(each.as_millis()).unwrap_or(u64::MAX)),
        };
        let new = NewNode {
            name: format!("Lookup Join: {name}"),
            uid: None,
            kind: NodeKind::Lookup(lookup),
            outputs: vec![("main".into(), fields)],
            stage: None,
        };
        let node = stream.add(new, Location::caller());
        Added { job, node }.stream()
    }
}
