//! Functions over all rows of a window.

use std::cell::OnceCell;
use std::fmt;
use std::marker::PhantomData;

use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Values};
use millstream_sys::bindings::millstream::job::state::Entries;
use millstream_sys::host;

use crate::emit::Emit;
use crate::error::Result;
use crate::record::{Cursor, Record, is_set, reader_of};
use crate::task::TaskInfo;

/// The bounds of a window, in milliseconds since 1970; the end is not in it. Flink's `TimeWindow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// its first millisecond; `i64::MIN` where there is no bound
    pub start: i64,
    /// the millisecond after its last; `i64::MAX` where there is no bound
    pub end: i64,
}

impl Window {
    /// Its last millisecond: when it ends. Where there is no bound that is the end of the input.
    pub fn max_timestamp(&self) -> i64 {
        self.end.saturating_sub(1)
    }

    pub(crate) fn has_end(&self) -> bool {
        self.end != i64::MAX
    }
}

/// A function that is called with all rows of a key's window at once: Flink's `ProcessWindowFunction`. For
/// what [`Windowed::apply`](crate::Windowed::apply) takes.
///
/// The host keeps the rows until the window is over: where an accumulator does,
/// [`AggregateFunction`](crate::AggregateFunction) needs far less of everything.
///
/// ```
/// use millstream::prelude::*;
///
/// /// The numbers of a window that are above its average.
/// struct AboveAverage;
///
/// impl WindowFunction for AboveAverage {
///     type In = (String, f64);
///     type Key = String;
///     type Out = (String, Timestamp, f64);
///
///     fn apply(
///         &self,
///         key: &str,
///         window: &Window,
///         rows: &WindowRows<'_, (String, f64)>,
///         out: &mut Emit<(String, Timestamp, f64)>,
///     ) -> Result<()> {
///         let sum: f64 = rows.iter().map(|(_, number)| number).sum();
///         let average = sum / rows.iter().count() as f64;
///         for (_, number) in rows.iter().filter(|(_, number)| *number > average) {
///             out.emit((key, Timestamp(window.end), number));
///         }
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no function of this stream's windows",
    label = "not a `WindowFunction`"
)]
pub trait WindowFunction: Sized + 'static {
    /// The rows that come.
    type In: Record;
    /// The key: as `key_by` gives it, a tuple of its fields; for one field also the field's type.
    type Key: Record;
    /// The rows that leave.
    type Out: Record;

    /// Takes the rows of a window, in the order in which they came. Where rows come late but in time, it is
    /// called again, with them too.
    ///
    /// # Errors
    /// If it cannot: then nothing is emitted, and the failure policy says what becomes of it, as of a timer.
    fn apply(
        &self,
        key: <Self::Key as Record>::Ref<'_>,
        window: &Window,
        rows: &WindowRows<'_, Self::In>,
        out: &mut Emit<Self::Out>,
    ) -> Result<()>;

    /// Begins an instance, before its first window.
    ///
    /// # Errors
    /// If it cannot begin: the job fails.
    fn open(&mut self, task: &TaskInfo) -> Result<()> {
        let _ = task;
        Ok(())
    }
}

/// Entries that are asked for at once.
const PAGE: u32 = 1_000;

/// What the host has of a window's rows, page after page, and for how many of the groups it was asked.
type NextPage = OnceCell<Option<Box<Page>>>;

struct Page {
    entries: Entries,
    next: NextPage,
}

/// The rows of a window, in the order in which they came. They are borrowed, and read as they are asked for,
/// about a MiB at a time; what was read stays until the function returns, so that reading them again costs
/// nothing.
pub struct WindowRows<'w, T: Record> {
    /// the place of the sequence that holds them
    state: u32,
    /// none where it holds none
    group: Option<u32>,
    /// the first page, if it has come with those of other groups, and its place there
    first: Option<(&'w Entries, usize)>,
    next: NextPage,
    /// rows of the call, which the host does not have yet
    added: Option<(&'w Batch, &'w [u32])>,
    rows: PhantomData<fn() -> T>,
}

impl<'w, T: Record> WindowRows<'w, T> {
    /// Rows of a group, with a first page that was asked for before.
    pub(crate) fn after(state: u32, group: u32, first: (&'w Entries, usize)) -> Self {
        WindowRows {
            state,
            group: Some(group),
            first: Some(first),
            next: OnceCell::new(),
            added: None,
            rows: PhantomData,
        }
    }

    /// Rows of a group, if the host's count, then rows of the call.
    pub(crate) fn with(state: u32, group: Option<u32>, added: Option<(&'w Batch, &'w [u32])>) -> Self {
        WindowRows { state, group, first: None, next: OnceCell::new(), added, rows: PhantomData }
    }

    /// The rows; again from the first with each call.
    pub fn iter(&self) -> WindowRowsIter<'_, T> {
        let from = match (self.group, self.first) {
            (None, _) => From::Added,
            (Some(_), Some((entries, place))) => From::Page(entries, place, &self.next),
            (Some(_), None) => From::Next(None, &self.next),
        };
        WindowRowsIter { rows: self, from, reader: None, at: 0, end: 0, picked: None }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The rows as values.
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().map(T::from_row).collect()
    }

    /// The page after an entry, if there is one.
    fn next<'a>(&'a self, after: Option<i64>, cell: &'a NextPage) -> Option<&'a Page> {
        let group = self.group?;
        let page = cell.get_or_init(|| {
            let after = after.map(|place| Column { values: Values::Int64(vec![place]), validity: None });
            let after: Vec<Column> = after.into_iter().collect();
            let entries = host::scan_entries(self.state, &[group], &after, PAGE);
            let has_any = entries.offsets.last().is_some_and(|end| *end > 0);
            has_any.then(|| Box::new(Page { entries, next: OnceCell::new() }))
        });
        page.as_deref()
    }
}

impl<T: Record> Drop for WindowRows<'_, T> {
    fn drop(&mut self) {
        // One after the other: a page that drops the next, which drops the next, needs a stack for all.
        let mut next = self.next.take().flatten();
        while let Some(mut page) = next {
            next = page.next.take().flatten();
        }
    }
}

impl<T: Record> fmt::Debug for WindowRows<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Record> IntoIterator for &'a WindowRows<'_, T> {
    type Item = T::Ref<'a>;
    type IntoIter = WindowRowsIter<'a, T>;

    fn into_iter(self) -> WindowRowsIter<'a, T> {
        self.iter()
    }
}

/// First pages of all groups of a call, in one read.
pub(crate) fn first_pages(state: u32, groups: u32) -> Entries {
    let groups: Vec<u32> = (0..groups).collect();
    host::scan_entries(state, &groups, &[], PAGE)
}

/// What follows in the iteration of a window's rows.
enum From<'a> {
    /// a page, the group's place in it, and where the one after it is
    Page(&'a Entries, usize, &'a NextPage),
    /// the page after an entry
    Next(Option<i64>, &'a NextPage),
    Added,
    Nothing,
}

/// Goes through the rows of a window.
pub struct WindowRowsIter<'a, T: Record> {
    rows: &'a WindowRows<'a, T>,
    from: From<'a>,
    reader: Option<T::Reader<'a>>,
    at: usize,
    end: usize,
    /// which rows of a batch it is of; none = all from `at`
    picked: Option<&'a [u32]>,
}

impl<'a, T: Record> WindowRowsIter<'a, T> {
    /// Goes to the next page, or the rows of the call.
    #[cold]
    fn turn(&mut self) -> bool {
        match std::mem::replace(&mut self.from, From::Nothing) {
            From::Nothing => return false,
            From::Page(entries, place, next) => {
                (self.at, self.end) = (entries.offsets[place] as usize, entries.offsets[place + 1] as usize);
                self.reader = Some(read_entries::<T>(&entries.values));
                self.from = match is_set(&entries.more, place) {
                    false => From::Added,
                    true if self.at == self.end => From::Next(None, next),
                    true => {
                        let keys = i64::read(&mut Cursor::new(&entries.keys, false));
                        From::Next(Some(keys[self.end - 1]), next)
                    }
                };
            }
            From::Next(after, cell) => {
                let rows = self.rows;
                self.from = match rows.next(after, cell) {
                    Some(page) => From::Page(&page.entries, 0, &page.next),
                    None => From::Added,
                };
            }
            From::Added => {
                if let Some((batch, picked)) = self.rows.added {
                    (self.at, self.end) = (0, picked.len());
                    self.reader = Some(reader_of::<T>(batch));
                    self.picked = Some(picked);
                }
            }
        }
        true
    }
}

/// Rows that are kept as structures of their columns.
fn read_entries<'a, T: Record>(columns: &'a [Column]) -> T::Reader<'a> {
    let mut cursor = Cursor::new(columns, false);
    cursor.structure();
    if T::IS_STRUCT {
        cursor.enter_row();
    }
    T::read(&mut cursor)
}

impl<'a, T: Record> Iterator for WindowRowsIter<'a, T> {
    type Item = T::Ref<'a>;

    #[inline]
    fn next(&mut self) -> Option<T::Ref<'a>> {
        loop {
            if self.at < self.end {
                let row = self.picked.map_or(self.at, |picked| picked[self.at] as usize);
                self.at += 1;
                return self.reader.as_ref().map(|reader| T::get(reader, row));
            }
            if !self.turn() {
                return None;
            }
        }
    }
}
