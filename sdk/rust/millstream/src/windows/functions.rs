//! Functions of the user's over windows.

use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{
    self, Assigner, Function, NodeKind, RowWindow, State, StateKind, TimeDomain,
};
use millstream_sys::bindings::millstream::job::rows::{DataType, Field};

use super::{
    CountWindows, Cumulating, Global, LateWindowed, Session, Sliding, Tumbling, Windowed, Windows, names_of,
};
use crate::aggregate_function::AggregateFunction;
use crate::keyed::{KeyedStream, short_name};
use crate::plan::{NewNode, StreamEntry};
use crate::process::KeyOf;
use crate::record::{Record, schema_of, top_level};
use crate::run::{Accumulating, Listing, OfRows, Stage, aggregated, collected, triggered};
use crate::stream::{Added, Fallible, Stream};
use crate::trigger::{ReadyTrigger, Trigger, When};
use crate::window_function::WindowFunction;

/// Windows whose rows functions of the user's take: all but sliding windows of so many rows.
#[diagnostic::on_unimplemented(
    message = "functions of your own take no rows of `{Self}`",
    label = "not for functions of your own",
    note = "a process function can keep the last rows of a key in a `ListState`"
)]
pub trait TakesFunctions: Windows {}

impl TakesFunctions for Tumbling {}
impl TakesFunctions for Sliding {}
impl TakesFunctions for Cumulating {}
impl TakesFunctions for Session {}
impl TakesFunctions for Global {}
impl TakesFunctions for CountWindows {}

/// Says that windows are emitted as [`Windowed::early`], [`Windowed::each_rows`] say, or at their end.
#[derive(Clone, Copy, Debug)]
pub struct HostTrigger;

/// Says that windows are emitted as a [`Trigger`] of the user's says.
#[derive(Clone, Copy, Debug)]
pub struct OwnTrigger<G>(G);

/// What says when a window is emitted.
pub trait TriggerChoice<In: Record> {
    /// The trigger that runs in the guest, if one has to.
    #[doc(hidden)]
    type Trigger: Trigger<In>;
    /// That trigger; none where windows are emitted at their end.
    #[doc(hidden)]
    fn of(self, window: &graph::Window) -> Option<Self::Trigger>;
}

impl<In: Record> TriggerChoice<In> for HostTrigger {
    type Trigger = ReadyTrigger;

    fn of(self, window: &graph::Window) -> Option<ReadyTrigger> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).max(1);
        let when = match window.trigger {
            graph::Trigger::AtEnd if !window.purging => return None,
            graph::Trigger::AtEnd => When::AtEnd,
            graph::Trigger::Early(each) => When::Early(number(each)),
            graph::Trigger::Count(rows) => When::Rows(number(rows)),
        };
        Some(ReadyTrigger { when, by_event_time: window.time == TimeDomain::EventTime })
    }
}

impl<In: Record, G: Trigger<In>> TriggerChoice<In> for OwnTrigger<G> {
    type Trigger = G;

    fn of(self, _: &graph::Window) -> Option<G> {
        Some(self.0)
    }
}

/// A function in windows on its way into the plan.
pub(super) struct InWindows {
    /// the function's own name
    pub(super) name: String,
    pub(super) states: Vec<State>,
    pub(super) timers: bool,
    pub(super) collects: bool,
    pub(super) merges: bool,
    pub(super) output: Vec<Field>,
    pub(super) stage: Stage,
}

/// Adds a function in windows. `late` are the names of ports for late rows, one for each input.
#[track_caller]
pub(super) fn add<'j, T: Record, K>(
    stream: KeyedStream<'j, T, K>,
    second: Option<StreamEntry>,
    window: graph::Window,
    function: InWindows,
    late: &[String],
) -> Added<'j> {
    let InWindows { name, states, timers, collects, merges, output, stage } = function;
    let (kind, what) = names_of(&window.assigner);
    let mut inputs = vec![stream.fields()];
    inputs.extend(second.iter().map(|second| second.fields.clone()));
    let mut outputs = vec![("main".to_string(), output)];
    outputs.extend(late.iter().cloned().zip(inputs.iter().cloned()));
    let assigner = match window.assigner {
        Assigner::Count(_) => Assigner::Everything,
        assigner => assigner,
    };
    let windows = graph::Windows {
        assigner,
        time: window.time,
        lateness: window.lateness,
        late_port: late.first().map(|_| 1),
        collects,
        merges,
    };
    let uid = Some(stream.uid(kind, &[&name]));
    let function = Function { inputs, states, timers, changes: false, windows: Some(windows) };
    let kind = NodeKind::Function(function);
    let name = format!("{what}: {name}");
    if stream.wants_changes() {
        refuse(&stream, &name, "gives inserts: `changes` is for native aggregates", Location::caller());
    }
    if stream.is_of_all() {
        refuse(&stream, &name, "wants a key: `key_by(())` is for native aggregates", Location::caller());
    }
    stream.keyed_node(NewNode { name, uid, kind, outputs, stage: Some(stage) }, second)
}

pub(super) fn refuse<T: Record, K>(
    stream: &KeyedStream<'_, T, K>,
    name: &str,
    what: &str,
    location: &Location<'_>,
) {
    let error = format!("`{name}` at {}:{} {what}", location.file(), location.line());
    stream.job().plan.borrow_mut().errors.push(error);
}

/// A sequence of rows of these columns.
pub(super) fn rows_state(name: &str, columns: Vec<Field>) -> State {
    // A schema has far fewer columns than 2^32.
    let members = top_level(&columns).len() as u32;
    let mut value =
        vec![Field { name: "row".into(), data_type: DataType::Structure(members), nullable: true }];
    value.extend(columns);
    State { name: name.into(), kind: StateKind::Sequence, key: Vec::new(), value, ttl: None }
}

/// A value of this type.
fn value_state<V: Record>(name: &str) -> State {
    let mut value = Vec::new();
    Option::<V>::describe(name, true, &mut value);
    State { name: name.into(), kind: StateKind::Value, key: Vec::new(), value, ttl: None }
}

/// # When windows are emitted
impl<'j, T: Record, K, W: Windows> Windowed<'j, T, K, W> {
    /// Emits a window when a trigger of yours says so, for [`aggregate_with`](Self::aggregate_with) and
    /// [`apply`](Self::apply).
    pub fn trigger<G: Trigger<T>>(self, trigger: G) -> Windowed<'j, T, K, W, OwnTrigger<G>> {
        let Windowed { stream, window, windows, .. } = self;
        Windowed { stream, window, trigger: OwnTrigger(trigger), windows }
    }
}

/// # Functions of yours
impl<'j, T: Record, K, W: Windows, G: TriggerChoice<T>> Windowed<'j, T, K, W, G> {
    /// Folds the rows of each window by an accumulator of the function's own, and gives its
    /// [`window_result`](AggregateFunction::window_result) when the window is emitted.
    #[track_caller]
    pub fn aggregate_with<F>(self, function: F) -> Fallible<'j, T, F::Out>
    where
        F: AggregateFunction<In = T>,
        F::Key: KeyOf<K>,
        W: TakesFunctions,
    {
        let input = self.stream.fields();
        Fallible::new(self.folded(function, &[]).stream(), vec![input])
    }

    /// Calls a function with all rows of a window when it is emitted.
    #[track_caller]
    pub fn apply<F>(self, function: F) -> Fallible<'j, T, F::Out>
    where
        F: WindowFunction<In = T>,
        F::Key: KeyOf<K>,
        W: TakesFunctions,
    {
        let input = self.stream.fields();
        Fallible::new(self.applied(function, &[]).stream(), vec![input])
    }

    /// The stream, its windows, and the trigger that runs in the guest.
    fn into_parts(self) -> (KeyedStream<'j, T, K>, graph::Window, Option<G::Trigger>) {
        let Windowed { stream, mut window, trigger, .. } = self;
        if let Assigner::Count(RowWindow { size, .. }) = window.assigner {
            (window.trigger, window.purging) = (graph::Trigger::Count(size), true);
        }
        let trigger = trigger.of(&window);
        (stream, window, trigger)
    }

    #[track_caller]
    fn folded<F>(self, function: F, late: &[String]) -> Added<'j>
    where
        F: AggregateFunction<In = T>,
    {
        let (stream, window, trigger) = self.into_parts();
        let name = short_name::<F>();
        let is_session = matches!(window.assigner, Assigner::Session(_));
        if is_session && !F::MERGES {
            let what = "does not merge, and sessions meet\nhint: `const MERGES: bool = true;` and `merge`";
            refuse(&stream, &name, what, Location::caller());
        }
        let is_triggered = trigger.is_some();
        let (state, stage) = match trigger {
            None => (value_state::<F::Accumulator>("accumulator"), aggregated(function)),
            Some(trigger) => {
                refuse_trigger::<T, K, G::Trigger>(&stream, is_session, Location::caller());
                type Both<T, F, G> =
                    (Option<<F as AggregateFunction>::Accumulator>, Option<<G as Trigger<T>>::State>);
                let state = value_state::<Both<T, F, G::Trigger>>("window");
                (state, triggered(Accumulating(function), trigger, window.purging, is_by_event_time(&window)))
            }
        };
        let function = InWindows {
            name,
            states: vec![state],
            timers: is_triggered,
            collects: false,
            // A trigger sees rows and timers of whole windows, so that overlapping ones share nothing.
            merges: F::MERGES && (!is_triggered || is_session),
            output: schema_of::<F::Out>(),
            stage,
        };
        add(stream, None, window, function, late)
    }

    #[track_caller]
    fn applied<F>(self, function: F, late: &[String]) -> Added<'j>
    where
        F: WindowFunction<In = T>,
    {
        let (stream, window, trigger) = self.into_parts();
        let name = short_name::<F>();
        let rows = rows_state("rows", stream.fields());
        let is_triggered = trigger.is_some();
        let (states, stage) = match trigger {
            None => (vec![rows], collected(OfRows(function))),
            Some(trigger) => {
                if matches!(window.assigner, Assigner::Session(_)) {
                    let what = "takes all rows of sessions, which are emitted at their end only\nhint: an \
                                `AggregateFunction` can have a trigger over sessions";
                    refuse(&stream, &name, what, Location::caller());
                }
                type Both<T, G> = (Option<bool>, Option<<G as Trigger<T>>::State>);
                let states = vec![value_state::<Both<T, G::Trigger>>("window"), rows];
                (states, triggered(Listing(function), trigger, window.purging, is_by_event_time(&window)))
            }
        };
        let function = InWindows {
            name,
            states,
            timers: is_triggered,
            collects: !is_triggered,
            merges: false,
            output: schema_of::<F::Out>(),
            stage,
        };
        add(stream, None, window, function, late)
    }
}

fn is_by_event_time(window: &graph::Window) -> bool {
    window.time == TimeDomain::EventTime
}

fn refuse_trigger<T: Record, K, G: Trigger<T>>(
    stream: &KeyedStream<'_, T, K>,
    is_session: bool,
    location: &Location<'_>,
) {
    if is_session && !G::MERGES {
        let what = "does not merge, and sessions meet\nhint: `const MERGES: bool = true;` and `merge`";
        refuse(stream, &short_name::<G>(), what, location);
    }
}

impl<'j, T: Record, K, W: Windows, G: TriggerChoice<T>> LateWindowed<'j, T, K, W, G> {
    /// As [`Windowed::aggregate_with`], and the stream of late rows.
    #[track_caller]
    pub fn aggregate_with<F>(self, function: F) -> (Fallible<'j, T, F::Out>, Stream<'j, T>)
    where
        F: AggregateFunction<In = T>,
        F::Key: KeyOf<K>,
        W: TakesFunctions,
    {
        let input = self.windowed.stream.fields();
        let added = self.windowed.folded(function, &[self.name]);
        (Fallible::new(added.stream(), vec![input]), added.port(1))
    }

    /// As [`Windowed::apply`], and the stream of late rows.
    #[track_caller]
    pub fn apply<F>(self, function: F) -> (Fallible<'j, T, F::Out>, Stream<'j, T>)
    where
        F: WindowFunction<In = T>,
        F::Key: KeyOf<K>,
        W: TakesFunctions,
    {
        let input = self.windowed.stream.fields();
        let added = self.windowed.applied(function, &[self.name]);
        (Fallible::new(added.stream(), vec![input]), added.port(1))
    }
}
