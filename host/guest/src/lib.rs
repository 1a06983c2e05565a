//! Compiles, caches, links, instantiates and calls guests; the only crate that knows wasmtime.
