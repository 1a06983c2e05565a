//! Functions with side outputs.

use crate::emit::Emit;
use crate::error::Result;
use crate::record::{Record, schema_of};
use crate::run::{Stage, each_row};
use crate::stream::{Added, Stream};

/// A stream whose next function has a side output: [`Stream::side_output`].
pub struct OneSide<'j, T> {
    stream: Stream<'j, T>,
    name: String,
}

impl<'j, T: Record> OneSide<'j, T> {
    pub(crate) fn new(stream: Stream<'j, T>, name: &str) -> OneSide<'j, T> {
        OneSide { stream, name: name.into() }
    }

    /// Adds another side output.
    pub fn side_output(self, name: &str) -> TwoSides<'j, T> {
        TwoSides { stream: self.stream, names: [self.name, name.into()] }
    }

    /// Makes any number of rows of each, for the main output and the side output.
    #[track_caller]
    pub fn flat_map<O: Record, A: Record>(
        self,
        function: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>, &mut Emit<A>) + 'static,
    ) -> (Stream<'j, O>, Stream<'j, A>) {
        self.try_flat_map(move |row, out, side| {
            function(row, out, side);
            Ok(())
        })
    }

    /// As [`flat_map`](Self::flat_map), with a closure that may fail its row.
    #[track_caller]
    pub fn try_flat_map<O: Record, A: Record>(
        self,
        function: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>, &mut Emit<A>) -> Result<()> + 'static,
    ) -> (Stream<'j, O>, Stream<'j, A>) {
        let stage = each_row::<T, (Emit<O>, Emit<A>)>(move |row, out| function(row, &mut out.0, &mut out.1));
        let schemas = vec![schema_of::<O>(), schema_of::<A>()];
        let added = add(self.stream, stage, schemas, &[self.name]);
        (added.port(0), added.port(1))
    }
}

/// A stream whose next function has two side outputs.
pub struct TwoSides<'j, T> {
    stream: Stream<'j, T>,
    names: [String; 2],
}

impl<'j, T: Record> TwoSides<'j, T> {
    /// Makes any number of rows of each, for the main output and the side outputs.
    #[track_caller]
    pub fn flat_map<O: Record, A: Record, B: Record>(
        self,
        function: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>, &mut Emit<A>, &mut Emit<B>) + 'static,
    ) -> (Stream<'j, O>, Stream<'j, A>, Stream<'j, B>) {
        self.try_flat_map(move |row, out, first, second| {
            function(row, out, first, second);
            Ok(())
        })
    }

    /// As [`flat_map`](Self::flat_map), with a closure that may fail its row.
    #[track_caller]
    pub fn try_flat_map<O: Record, A: Record, B: Record>(
        self,
        function: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>, &mut Emit<A>, &mut Emit<B>) -> Result<()> + 'static,
    ) -> (Stream<'j, O>, Stream<'j, A>, Stream<'j, B>) {
        let stage = each_row::<T, (Emit<O>, Emit<A>, Emit<B>)>(move |row, out| {
            function(row, &mut out.0, &mut out.1, &mut out.2)
        });
        let schemas = vec![schema_of::<O>(), schema_of::<A>(), schema_of::<B>()];
        let added = add(self.stream, stage, schemas, &self.names);
        (added.port(0), added.port(1), added.port(2))
    }
}

#[track_caller]
fn add<'j, T>(
    stream: Stream<'j, T>,
    stage: Stage,
    schemas: Vec<Vec<millstream_sys::bindings::millstream::job::rows::Field>>,
    names: &[String],
) -> Added<'j> {
    let added = stream.function("Flat Map", stage, schemas);
    let mut plan = stream.job.plan.borrow_mut();
    let ports = &mut plan.nodes[added.node as usize].node.outputs;
    for (port, name) in ports.iter_mut().skip(1).zip(names) {
        port.name.clone_from(name);
    }
    drop(plan);
    added
}
