//! Holds the features of shared dependencies together (see `Cargo.toml`); has no code.
