//! Columns of text, written into one buffer, and the texts that are drawn from tables.

use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::draws::{Draws, scale};

/// A column under way.
pub(super) struct TextColumn {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
}

impl TextColumn {
    /// With room for so many rows of about so many bytes.
    pub(super) fn with_room(rows: usize, row_bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { bytes: Vec::with_capacity(rows * row_bytes + COPIED_MAX), offsets }
    }

    /// Appends to the row under way.
    pub(super) fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    /// Appends the first bytes of `part`. As so many are copied every time, it is done in a few
    /// instructions, without a call.
    pub(super) fn add_first<const N: usize>(&mut self, part: &[u8; N], length: usize) {
        let end = self.bytes.len() + length;
        self.bytes.extend_from_slice(part);
        self.bytes.truncate(end);
    }

    /// The bytes of the row under way.
    pub(super) fn row_length(&self) -> usize {
        self.bytes.len() - self.offsets[self.offsets.len() - 1] as usize
    }

    /// Ends the row.
    pub(super) fn end_row(&mut self) {
        self.offsets.push(self.bytes.len() as i32);
    }

    /// A row of random letters, one in 13 a `special`; at least 3, fewer than `length_max`. Spaces at
    /// its ends are taken off. Its length is given.
    ///
    /// Source: `StringsGenerator.nextString`.
    pub(super) fn add_words(&mut self, draws: &mut Draws, length_max: u64, special: u8) -> usize {
        let start = self.bytes.len();
        let mut left = 3 + draws.below(length_max - 3);
        while left > 0 {
            let mut fraction = draws.bits();
            for _ in 0..left.min(CHARACTERS_A_DRAW) {
                let product = u128::from(fraction) * u128::from(KINDS_OF_CHARACTER);
                fraction = product as u64;
                let kind = (product >> 64) as u64;
                self.bytes.push(if kind < 26 { special } else { b'a' + (kind % 26) as u8 });
            }
            left -= left.min(CHARACTERS_A_DRAW);
        }
        if special == b' ' {
            self.trim(start);
        }
        self.bytes.len() - start
    }

    fn trim(&mut self, start: usize) {
        while self.bytes.len() > start && self.bytes.last() == Some(&b' ') {
            self.bytes.pop();
        }
        let blank = self.bytes[start..].iter().take_while(|byte| **byte == b' ').count();
        if blank > 0 {
            self.bytes.drain(start..start + blank);
        }
    }

    /// The column.
    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(self.bytes), None)?))
    }
}

/// The longest part that is copied whole.
const COPIED_MAX: usize = LETTERS_COPIED;
/// 26 specials, and each letter 12 times: a special is one in 13.
const KINDS_OF_CHARACTER: u64 = 13 * 26;
/// So many characters of one draw are fair to a millionth.
const CHARACTERS_A_DRAW: u64 = 5;

/// What bids and the columns `extra` are drawn from: made once, of the seed.
pub(super) struct Tables {
    /// Random letters; an `extra` is a part of them.
    letters: Vec<u8>,
    channels: Vec<Channel>,
    hot_channels: [Channel; 4],
}

/// A channel by which bids come, and their address.
pub(super) struct Channel {
    pub(super) name: [u8; 16],
    pub(super) name_length: u8,
    pub(super) url: [u8; 80],
    pub(super) url_length: u8,
}

const LETTERS: usize = 1 << 20;
/// So many letters are copied at once.
const LETTERS_COPIED: usize = 96;
/// How many channels there are beside the hot ones.
const CHANNELS: u32 = 10_000;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// Letters of one draw: 26^10 is far below 2^64.
const LETTERS_A_DRAW: usize = 10;

impl Tables {
    pub(super) fn of(seed: u64) -> Self {
        // Numbers of events count from 0: these are no event's.
        let mut draws = Draws::of(seed, u64::MAX);
        let mut letters = Vec::with_capacity(LETTERS + LETTERS_COPIED);
        while letters.len() < LETTERS + LETTERS_COPIED {
            let mut fraction = draws.bits();
            for _ in 0..LETTERS_A_DRAW {
                let product = u128::from(fraction) * 26;
                fraction = product as u64;
                letters.push(b'a' + (product >> 64) as u8);
            }
        }
        let hot_channels = HOT_CHANNELS.map(|name| Channel::of(name, &base_url(&mut draws)));
        let channels = (0..CHANNELS)
            .map(|number| {
                let mut url = base_url(&mut draws);
                if draws.below(10) > 0 {
                    // As Java's Math.abs(Integer.reverse(i)).
                    let id = (number as i32).reverse_bits().wrapping_abs();
                    url.push_str(&format!("&channel_id={id}"));
                }
                Channel::of(&format!("channel-{number}"), &url)
            })
            .collect();
        Self { letters, channels, hot_channels }
    }

    /// One of the hot channels.
    pub(super) fn hot_channel(&self, bits: usize) -> &Channel {
        &self.hot_channels[bits % HOT_CHANNELS.len()]
    }

    /// One of the other channels.
    pub(super) fn channel(&self, bits: u32) -> &Channel {
        &self.channels[scale(bits, u64::from(CHANNELS)) as usize]
    }

    /// A row of letters that brings an event of so many bytes to `size_average` of them, on average.
    ///
    /// Source: `StringsGenerator.nextExtra`.
    pub(super) fn add_extra(&self, column: &mut TextColumn, bits: u64, size: usize, size_average: usize) {
        if size <= size_average {
            let missing = (size_average - size) as u64;
            // A fifth, rounded.
            let spread = (missing * 2 + 5) / 10;
            let mut length = (missing - spread + scale(bits as u32, 2 * spread)) as usize;
            let mut at = scale((bits >> 32) as u32, (LETTERS - length) as u64) as usize;
            while length > 0 {
                let part = length.min(LETTERS_COPIED);
                if let Some(letters) = self.letters[at..].first_chunk::<LETTERS_COPIED>() {
                    column.add_first(letters, part);
                }
                at += part;
                length -= part;
            }
        }
        column.end_row();
    }
}

impl Channel {
    fn of(name: &str, url: &str) -> Self {
        let mut channel =
            Self { name: [0; 16], name_length: name.len() as u8, url: [0; 80], url_length: url.len() as u8 };
        channel.name[..name.len()].copy_from_slice(name.as_bytes());
        channel.url[..url.len()].copy_from_slice(url.as_bytes());
        channel
    }
}

/// Source: `BidGenerator.getBaseUrl`.
fn base_url(draws: &mut Draws) -> String {
    let mut url = TextColumn::with_room(1, 0);
    url.add(b"https://www.nexmark.com/");
    for _ in 0..3 {
        url.add_words(draws, 5, b'_');
        url.add(b"/");
    }
    url.add(b"item.htm?query=1");
    String::from_utf8_lossy(&url.bytes).into_owned()
}
