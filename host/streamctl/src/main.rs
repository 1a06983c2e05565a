//! Millstream's command line.
fn main() {}
