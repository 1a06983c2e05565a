//! Word count as a good programmer writes it in one thread: the unit of all ratios.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::totals::Totals;

const CHUNK_BYTES: usize = 512 << 10;

/// Counts the words of a file; for each word one update, which goes into the totals.
pub(crate) fn word_count(file: &Path) -> anyhow::Result<Totals> {
    let mut file = File::open(file)?;
    let mut counts: HashMap<Box<str>, i64, RandomState> = HashMap::default();
    let mut totals = Totals::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut kept = 0;
    loop {
        let read = file.read(&mut buffer[kept..])?;
        let end = match buffer[..kept + read].iter().rposition(|byte| *byte == b'\n') {
            _ if read == 0 => kept,
            Some(last) => last + 1,
            None => {
                kept += read;
                buffer.resize(buffer.len() * 2, 0);
                continue;
            }
        };
        for line in std::str::from_utf8(&buffer[..end])?.lines() {
            for word in line.split_whitespace() {
                let count = match counts.get_mut(word) {
                    Some(count) => {
                        *count += 1;
                        *count
                    }
                    None => {
                        counts.insert(word.into(), 1);
                        1
                    }
                };
                totals.add(word, count);
            }
        }
        if read == 0 {
            return Ok(totals);
        }
        buffer.copy_within(end..kept + read, 0);
        kept = kept + read - end;
    }
}
