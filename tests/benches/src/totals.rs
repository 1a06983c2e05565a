//! What a run gave: rows, and their checksum as the blackhole sink takes it, so that outputs are
//! compared before any figure counts.

use model::hash::hash_value;

/// Rows and the wrapping sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) rows: u64,
    pub(crate) checksum: u64,
}

impl Totals {
    /// Takes a row (word, count), hashed as the contract hashes keys.
    #[inline]
    pub(crate) fn add(&mut self, word: &str, count: i64) {
        let hash = hash_value(&count.to_le_bytes(), hash_value(word.as_bytes(), 0));
        self.rows += 1;
        self.checksum = self.checksum.wrapping_add(hash);
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows, checksum {:016x}", self.rows, self.checksum)
    }
}

impl Totals {
    /// Out of a blackhole's summary, `blackhole: 4 rows, checksum 0a27…`, wherever it stands.
    pub(crate) fn of_summary(text: &str) -> anyhow::Result<Self> {
        let line = text.lines().find(|line| line.contains(" rows, checksum ")).unwrap_or_default();
        let line = line.trim_start_matches("blackhole: ");
        let (rows, checksum) = line.split_once(" rows, checksum ").unwrap_or_default();
        Ok(Self { rows: rows.parse()?, checksum: u64::from_str_radix(checksum.trim(), 16)? })
    }
}
