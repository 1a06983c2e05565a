//! The text that is counted: words by Zipf's law, 100,000 distinct, ten a line, from a seed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use connectors::sources::generator::word;
use platform::Random;

const WORDS: u64 = 100_000;
const WORDS_A_LINE: usize = 10;

/// The file, written where it is not there yet.
pub(crate) fn text(bytes: u64) -> anyhow::Result<PathBuf> {
    text_of(bytes, WORDS)
}

/// One of so many distinct words.
pub(crate) fn text_of(bytes: u64, words: u64) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder = here.ancestors().nth(2).context("a target folder")?.join("bench");
    std::fs::create_dir_all(&folder)?;
    let file = match words {
        WORDS => folder.join(format!("zipf-{bytes}.txt")),
        words => folder.join(format!("zipf-{bytes}-{words}.txt")),
    };
    if !file.exists() {
        let unfinished = file.with_extension("unfinished");
        write(&unfinished, bytes, words)?;
        std::fs::rename(&unfinished, &file)?;
    }
    Ok(file)
}

fn write(path: &Path, bytes: u64, words: u64) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    // Where each rank's share of the unit interval ends.
    let mut ends: Vec<f64> = Vec::new();
    let mut sum = 0.0;
    for rank in 1..=words {
        sum += 1.0 / rank as f64;
        ends.push(sum);
    }
    let words: Vec<String> = (0..words)
        .map(|rank| {
            let mut text = String::new();
            word(rank, &mut text);
            text
        })
        .collect();
    let mut random = Random::of_seed(7);
    let mut written = 0;
    while written < bytes {
        for i in 0..WORDS_A_LINE {
            let drawn = random.unit() * sum;
            let word = &words[ends.partition_point(|end| *end <= drawn).min(words.len() - 1)];
            let space: &[u8] = if i + 1 == WORDS_A_LINE { b"\n" } else { b" " };
            out.write_all(word.as_bytes())?;
            out.write_all(space)?;
            written += (word.len() + space.len()) as u64;
        }
    }
    out.flush()?;
    Ok(())
}
