//! Word count in Timely dataflow, as its own example has it, but emitting as rows come.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use foldhash::fast::{FixedState, RandomState};
use hashbrown::HashMap;
use std::hash::BuildHasher;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Inspect, Operator, Probe};
use timely::dataflow::{InputHandle, ProbeHandle, StreamVec};

use crate::totals::Totals;

/// Lines between two looks at how far the dataflow is.
const LINES_A_ROUND: usize = 8 * 1024;

/// Counts the words of a file with so many workers, each reading its part.
pub(crate) fn word_count(file: &Path, workers: usize) -> anyhow::Result<Totals> {
    let file: PathBuf = file.to_owned();
    let totals: Arc<Mutex<Totals>> = Arc::default();
    let shared = Arc::clone(&totals);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut input = InputHandle::new();
        let probe = ProbeHandle::new();
        let hasher = FixedState::with_seed(7);
        let exchange = Exchange::new(move |row: &(String, i64)| hasher.hash_one(&row.0));
        let sum = std::rc::Rc::new(std::cell::RefCell::new(Totals::default()));
        let seen = std::rc::Rc::clone(&sum);
        worker.dataflow::<usize, _, _>(|scope| {
            let counted: StreamVec<'_, usize, (String, i64)> = input
                .to_stream(scope)
                .flat_map(|line: String| {
                    line.split_whitespace().map(|word| (word.to_owned(), 1)).collect::<Vec<(String, i64)>>()
                })
                .unary(exchange, "WordCount", |_, _| {
                    let mut counts: HashMap<String, i64, RandomState> = HashMap::default();
                    move |input, output| {
                        input.for_each_stamp(|stamp, data| {
                            let mut session = output.session(&stamp);
                            for batch in data {
                                for (word, one) in batch.drain(..) {
                                    let count = match counts.get_mut(&word) {
                                        Some(count) => {
                                            *count += one;
                                            *count
                                        }
                                        None => {
                                            counts.insert(word.clone(), one);
                                            one
                                        }
                                    };
                                    session.give((word, count));
                                }
                            }
                        });
                    }
                });
            counted
                .inspect_core(move |event| {
                    if let Ok((_, rows)) = event {
                        let mut seen = seen.borrow_mut();
                        rows.iter().for_each(|(word, count)| seen.add(word, *count));
                    }
                })
                .probe_with(&probe);
        });
        let mut round = 0;
        let mut lines =
            part(&file, worker.index() as u64, worker.peers() as u64).expect("the file can be read");
        loop {
            let mut sent = 0;
            for line in lines.by_ref().take(LINES_A_ROUND) {
                input.send(line.expect("the text is UTF-8"));
                sent += 1;
            }
            round += 1;
            input.advance_to(round);
            while probe.less_than(input.time()) {
                worker.step();
            }
            if sent == 0 {
                break;
            }
        }
        let sum = *sum.borrow();
        let mut all = shared.lock().unwrap_or_else(PoisonError::into_inner);
        all.rows += sum.rows;
        all.checksum = all.checksum.wrapping_add(sum.checksum);
    })
    .map_err(|error| anyhow!("timely: {error}"))?;
    for guard in guards.join() {
        guard.map_err(|error| anyhow!("timely: {error}"))?;
    }
    let totals = *totals.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(totals)
}

/// The lines that begin in a worker's share of the file.
fn part(
    file: &Path,
    index: u64,
    peers: u64,
) -> anyhow::Result<impl Iterator<Item = std::io::Result<String>> + use<>> {
    let mut file = File::open(file)?;
    let bytes = file.metadata()?.len();
    let (start, end) = (bytes * index / peers, bytes * (index + 1) / peers);
    let mut at = start.saturating_sub(1);
    file.seek(SeekFrom::Start(at))?;
    let mut reader = BufReader::with_capacity(512 << 10, file.take(bytes));
    if start > 0 {
        at += reader.read_until(b'\n', &mut Vec::new())? as u64;
    }
    Ok(std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(n) => {
                at += n as u64;
                Some(Ok(line))
            }
            Err(error) => Some(Err(error)),
        }
    }))
}
