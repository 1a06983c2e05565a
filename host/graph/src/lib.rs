//! From a job graph to chains to a physical graph, with diagnostics.
