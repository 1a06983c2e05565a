//! Cuts a stream of bytes into records and decodes them, batch by batch.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use model::Batch;

use crate::formats::{Decoding, Record, Scan, failure};
use crate::{Decoded, RecordFailure};

/// Bytes that come in chunks, as rows.
///
/// A record that lies across chunks is put together; everything else is decoded where it lies.
pub(crate) struct RecordReader {
    decoding: Arc<Decoding>,
    /// What the bytes are called in messages.
    name: String,
    /// Chunks whose records are whole, with where they begin.
    blocks: VecDeque<Block>,
    /// Chunks that are done with, to be filled again.
    spare: Vec<Vec<u8>>,
    /// The beginning of a record whose end has not come.
    rest: Vec<u8>,
    /// Where `rest` begins.
    rest_at: u64,
    /// How far the record has come that `rest` begins, or that is passed over.
    scan: Scan,
    /// A record that is too long: its beginning is a block, its rest is passed over.
    skipping: bool,
    /// Records that begin here or later are another's.
    end: u64,
    /// Number of the next record, where it is known (the stream is read from its beginning).
    line: Option<u64>,
    header: bool,
    finished: bool,
}

struct Block {
    bytes: Vec<u8>,
    /// Of the first byte, in the stream.
    offset: u64,
    /// The next record, in `bytes`.
    at: usize,
    /// The end of the last whole record, in `bytes`.
    whole: usize,
}

/// Buffers that are kept.
const SPARE_MAX: usize = 2;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl RecordReader {
    /// For bytes from `start` on, up to records that begin at `end`. With `start` above 0 the
    /// first byte given is the one before it, and what belongs to the record before is passed over.
    pub(crate) fn new(decoding: Arc<Decoding>, name: String, start: u64, end: u64) -> Self {
        let header = start == 0 && decoding.has_header();
        Self {
            decoding,
            name,
            blocks: VecDeque::new(),
            spare: Vec::new(),
            rest: Vec::new(),
            rest_at: start.saturating_sub(1),
            scan: Scan::default(),
            skipping: start > 0,
            end,
            line: (start == 0).then_some(1),
            header,
            finished: false,
        }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn feed(&mut self, mut bytes: Vec<u8>) {
        if self.may_be_mark() {
            bytes = self.without_mark(bytes);
        }
        let offset = self.rest_at + self.rest.len() as u64;
        let mut at = 0;
        if self.skipping || !self.rest.is_empty() {
            // The end of the record that is under way.
            let Some(end) = self.decoding.end_in(&mut self.scan, &bytes) else {
                if self.skipping {
                    self.rest_at += bytes.len() as u64;
                } else {
                    self.rest.extend_from_slice(&bytes);
                    self.check_length();
                }
                return;
            };
            at = end + 1;
            if self.skipping {
                self.skipping = false;
            } else {
                self.rest.extend_from_slice(&bytes[..at]);
                self.push_rest();
            }
        }
        // Whole records are decoded where they lie; what follows the last waits.
        self.scan = Scan::default();
        let whole = self.decoding.whole(&mut self.scan, &bytes, at);
        self.rest.extend_from_slice(&bytes[whole..]);
        self.rest_at = offset + whole as u64;
        if whole > at {
            self.blocks.push_back(Block { bytes, offset, at, whole });
        }
        self.check_length();
    }

    /// Whether the first bytes are still to come that may be a byte order mark.
    fn may_be_mark(&self) -> bool {
        self.rest_at == 0 && !self.skipping && BYTE_ORDER_MARK.starts_with(&self.rest)
    }

    /// The first bytes of the stream without the byte order mark: spaces would be part of the first
    /// record, so the mark is cut off, and offsets go on.
    fn without_mark(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        // The mark itself may come in parts.
        let mut first = mem::take(&mut self.rest);
        first.extend(bytes);
        self.scan = Scan::default();
        if first.starts_with(BYTE_ORDER_MARK) {
            first.drain(..BYTE_ORDER_MARK.len());
            self.rest_at = BYTE_ORDER_MARK.len() as u64;
            // The first record begins where the mark does: it is this split's if the mark is.
            self.end = self.end.max(self.rest_at + 1);
        }
        first
    }

    /// Makes a block of `rest`: one record, or the beginning of one that is too long.
    fn push_rest(&mut self) {
        let bytes = mem::take(&mut self.rest);
        let (offset, whole) = (self.rest_at, bytes.len());
        self.rest_at += whole as u64;
        self.blocks.push_back(Block { bytes, offset, at: 0, whole });
    }

    /// A buffer to be filled again, if there is one: a new one of this size comes from the system
    /// page by page.
    pub(crate) fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// No more bytes come: what is left is the last record.
    pub(crate) fn finish(&mut self) {
        if !mem::replace(&mut self.finished, true) && !self.rest.is_empty() {
            self.push_rest();
        }
    }

    /// Keeps no more of a record than shows that it is too long; decoding reports it in its turn.
    fn check_length(&mut self) {
        // A carriage return at the end may be the line's.
        let bare = self.rest.strip_suffix(b"\r").unwrap_or(&self.rest);
        if bare.len() > self.decoding.record_bytes_max && !self.may_be_mark() {
            self.push_rest();
            self.skipping = true;
        }
    }

    fn too_long(&self) -> String {
        format!("longer than {} bytes (format option max-record-bytes)", self.decoding.record_bytes_max)
    }

    fn place(&self, offset: u64, line: Option<u64>) -> String {
        match line {
            Some(line) => format!("{}, {} {line}", self.name, self.decoding.record_name()),
            None => format!("{}, at byte {offset}", self.name),
        }
    }

    /// Whether all records that belong here have been given, or will never come.
    pub(crate) fn is_done(&self) -> bool {
        match self.blocks.front() {
            Some(block) => block.offset + block.at as u64 >= self.end,
            None => self.is_covered(),
        }
    }

    /// Whether no more bytes are needed: all records that belong here have been fed.
    pub(crate) fn is_covered(&self) -> bool {
        // While a record of another's is passed over, one may begin right behind `rest_at`.
        self.finished || if self.skipping { self.rest_at > self.end } else { self.rest_at >= self.end }
    }

    /// Where the next record begins, or is looked for: all that begin before have been given.
    pub(crate) fn position(&self) -> u64 {
        match self.blocks.front() {
            Some(block) => block.offset + block.at as u64,
            None => self.rest_at,
        }
    }

    /// The next rows, at most so many and about so many bytes; none until more bytes have come.
    pub(crate) fn next(&mut self, rows_max: usize, bytes_max: usize) -> Option<Decoded> {
        while !self.is_done() {
            let mut block = self.blocks.pop_front()?;
            let decoded = self.decode_some(&mut block, rows_max, bytes_max);
            if block.at < block.whole {
                self.blocks.push_front(block);
            } else if self.spare.len() < SPARE_MAX {
                self.spare.push(block.bytes);
            }
            if decoded.is_some() {
                return decoded;
            }
        }
        None
    }

    fn decode_some(&mut self, block: &mut Block, rows_max: usize, bytes_max: usize) -> Option<Decoded> {
        let mut records: Vec<Record<'_>> = Vec::with_capacity(rows_max.min(block.whole - block.at));
        let mut lines: u64 = 0;
        let first_line = self.line;
        let start = block.at;
        // Numbers of the records that are decoded, where some were passed over.
        let mut numbers: Vec<u64> = Vec::new();
        let count_lines = first_line.is_some();
        // Each with where it begins.
        let mut failures: Vec<(u64, RecordFailure)> = Vec::new();
        while block.at < block.whole && records.len() < rows_max.max(1) && block.at - start < bytes_max.max(1)
        {
            let offset = block.offset + block.at as u64;
            if offset >= self.end {
                break;
            }
            let end = self.decoding.record_end(&block.bytes[..block.whole], block.at).unwrap_or(block.whole);
            let mut record = &block.bytes[block.at..end];
            if let [before @ .., b'\r'] = record {
                record = before;
            }
            block.at = (end + 1).min(block.whole);
            let number = lines;
            lines += 1;
            if mem::take(&mut self.header) {
                continue;
            }
            if record.len() > self.decoding.record_bytes_max {
                let place = self.place(offset, first_line.map(|first| first + number));
                failures.push((offset, failure(place, record, self.too_long())));
                continue;
            }
            if count_lines {
                numbers.push(number);
            }
            records.push((offset, record));
        }
        self.line = first_line.map(|line| line + lines);
        let decoded = self.decoding.decode(&records);
        failures.extend(decoded.failed.into_iter().map(|(i, message)| {
            let (offset, record) = records[i];
            let line = first_line.and_then(|first| Some(first + numbers.get(i)?));
            (offset, failure(self.place(offset, line), record, message))
        }));
        if decoded.rows.is_none() && failures.is_empty() {
            return None;
        }
        failures.sort_unstable_by_key(|(offset, _)| *offset);
        let rows = decoded
            .rows
            .unwrap_or_else(|| arrow_array::RecordBatch::new_empty(Arc::clone(&self.decoding.schema)));
        let failures = failures.into_iter().map(|(_, failure)| failure).collect();
        Some(Decoded { port: 0, batch: Batch::new(rows), failures })
    }
}
